"""A poll of a monitor, and its result: a snapshot of the monitor's runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from pendulum import DateTime

from airflow_provider_exa.protocol.endpoints import get_monitor, get_run, get_webset_status, list_runs
from airflow_provider_exa.protocol.errors import ExaError
from airflow_provider_exa.protocol.messages import Call, or_error
from airflow_provider_exa.protocol.models import Dialect, Monitor, MonitorRun
from airflow_provider_exa.protocol.paging import (
    END_OF_TIME,
    ListedRuns,
    covers,
    list_back_to,
    sort_key,
)
from airflow_provider_exa.waiting.selection import RunSelector, RunsSince, Selector, StartedRun


@dataclass(frozen=True, slots=True)
class Observation:
    """
    What a snapshot says of one selector.

    :param run: None while there is none
    :param error: why that cannot be told
    :param is_missing: whether Exa answers that there is no such run
    :param webset_status: the status of the webset that holds the end of the wait up
    """

    run: MonitorRun | None = None
    error: Exception | None = None
    is_missing: bool = False
    webset_status: str | None = None

    @property
    def ended_run(self) -> MonitorRun | None:
        """The run, once the wait for it is over."""
        return self.run if self.run and self.run.finished and not self.webset_status else None


@dataclass(frozen=True)
class Snapshot:
    """
    The runs of a monitor that one poll showed.

    :param runs: by id
    :param listed: those that the listing shows, by id; one that is known by its id alone may have older
        ones beside it that the listing lacks, too
    :param listed_back_to: every run created after this moment is among them; None if none were listed
    :param truncated: why the listing goes no further
    :param stale: the ids of listed runs that only an earlier poll has shown, and that may have changed
    :param resume: the listing, to go on from at the next poll
    :param listing_error: why nothing could be listed
    :param monitor_error: why the monitor could not be read, where it was asked for
    :param errors: why a run that was asked for by its id could not be read, by that id
    :param monitor: the monitor, where it was asked for
    :param webset_id: its webset, where that is known
    :param webset_status: that of its webset, or why it could not be read; None where nobody needed it
    """

    runs: Mapping[str, MonitorRun] = field(default_factory=dict)
    listed: Mapping[str, MonitorRun] = field(default_factory=dict)
    listed_back_to: DateTime | None = None
    truncated: ExaError | None = None
    stale: frozenset[str] = frozenset()
    resume: ListedRuns | None = None
    listing_error: ExaError | None = None
    monitor_error: ExaError | None = None
    errors: Mapping[str, ExaError] = field(default_factory=dict)
    monitor: Monitor | None = None
    webset_id: str | None = None
    webset_status: str | ExaError | None = None

    @cached_property
    def sorted_runs(self) -> list[MonitorRun]:
        """The listed runs from the oldest to the newest."""
        return sorted(self.listed.values(), key=sort_key)

    def covers(self, since: DateTime) -> bool:
        """Return whether every run created since then is in the snapshot."""
        return covers(self.listed_back_to, since)

    def require(self, since: DateTime, what: str) -> None:
        """
        Raise if not every run created since then is in the snapshot.

        :param what: what was looked for
        """
        if self.truncated and not self.covers(since):
            raise type(self.truncated)(
                f"{self.truncated} So {what} cannot be told from the {len(self.listed)} runs that are "
                "listed. Give a run_id, or a later created_after."
            )

    def run(self, run_id: str) -> MonitorRun:
        """Return a run by its id; raise why it could not be read."""
        if run_id in self.errors:
            raise self.errors[run_id]
        return self.runs[run_id]

    def error_for(self, selector: Selector) -> ExaError | None:
        """Return why the snapshot says nothing to a selector, if it is for trouble with the listing."""
        if isinstance(selector, RunsSince):
            return self.listing_error or self.monitor_error
        return None if selector.since is None else self.listing_error

    def observe(self, selector: RunSelector | StartedRun) -> Observation | None:
        """Return what the snapshot says of a selector; None if it does not say yet."""
        if error := self.error_for(selector):
            return Observation(error=error)
        if not self._answers(selector):
            return None
        try:
            run = selector.select(self)
        except ExaError as error:
            return Observation(error=error, is_missing=error.status == 404)
        if selector.idle and run and run.status == "completed":
            return self._observe_webset(run)
        return Observation(run)

    def _observe_webset(self, run: MonitorRun) -> Observation | None:
        if isinstance(self.webset_status, ExaError):
            return Observation(error=self.webset_status)
        if self.webset_status is None:
            return None
        return Observation(run, webset_status=None if self.webset_status == "idle" else self.webset_status)

    def _answers(self, selector: RunSelector | StartedRun) -> bool:
        if selector.since is not None and self.listed_back_to is None:
            return False
        return all(self.has_run(run_id) for run_id in selector.run_ids)

    def has_run(self, run_id: str) -> bool:
        """Return whether this poll has shown a run, or why it cannot be read."""
        return run_id in self.errors or (run_id in self.runs and run_id not in self.stale)


def take_snapshot(
    dialect: Dialect,
    monitor_id: str,
    selectors: Collection[Selector],
    *,
    webset_id: str | None = None,
    confirm: bool = False,
) -> Call[Snapshot]:
    """
    Poll a monitor for several selectors, with as few requests as it takes, one after the other.

    :param webset_id: the monitor's webset, if it is known
    :param confirm: whether to ask for the monitor if the listing shows no run for somebody
    """
    snapshot = Snapshot(webset_id=webset_id)
    if needs_listing(selectors):
        snapshot = yield from take_listing(snapshot, dialect, monitor_id, selectors, confirm=confirm)
    if run_ids := missing_runs(snapshot, selectors):
        found = yield [get_run(dialect, monitor_id, run_id, keep_raw=False) for run_id in run_ids]
        for run_id, run in zip(run_ids, found, strict=True):
            snapshot = with_run(snapshot, run_id, run)
    if needs_webset(snapshot, selectors):
        snapshot = with_webset(
            snapshot, (yield from or_error(get_webset_status(dialect, monitor_id, snapshot.webset_id)))
        )
    return snapshot


def needs_listing(selectors: Collection[Selector]) -> bool:
    """Return whether runs have to be listed: for one that is known by its id alone it would cost as much."""
    return any(each.since is not None for each in selectors) or len(_run_ids(selectors)) > 1


def take_listing(
    snapshot: Snapshot,
    dialect: Dialect,
    monitor_id: str,
    selectors: Collection[Selector],
    *,
    confirm: bool = False,
    earlier: ListedRuns | None = None,
) -> Call[Snapshot]:
    """
    List a monitor's runs as far back as the selectors need; trouble is part of the snapshot.

    :param confirm: whether to ask for the monitor if the listing shows no run for somebody: an unknown
        monitor lists as empty
    :param earlier: the monitor's runs as an earlier poll has listed them
    """
    since = min((each.since for each in selectors if each.since is not None), default=END_OF_TIME)
    snapshot = yield from _with_listing(snapshot, dialect, monitor_id, since, earlier)
    if confirm and _finds_nothing(snapshot, selectors):
        snapshot = yield from _with_monitor(snapshot, dialect, monitor_id)
    return snapshot


def missing_runs(snapshot: Snapshot, selectors: Collection[Selector]) -> list[str]:
    """Return the ids of the runs that have to be asked for one by one."""
    return [run_id for run_id in sorted(_run_ids(selectors)) if not snapshot.has_run(run_id)]


def _run_ids(selectors: Collection[Selector]) -> frozenset[str]:
    return frozenset[str]().union(*(selector.run_ids for selector in selectors))


def with_run(snapshot: Snapshot, run_id: str, found: MonitorRun | ExaError) -> Snapshot:
    """Return the snapshot with a run that was asked for by its id, or why it cannot be read."""
    if isinstance(found, ExaError):
        return replace(snapshot, errors={**snapshot.errors, run_id: found})
    return replace(snapshot, runs={**snapshot.runs, run_id: found}, stale=snapshot.stale - {run_id})


def needs_webset(snapshot: Snapshot, selectors: Collection[Selector]) -> bool:
    """Return whether the webset is all that somebody still waits for."""
    return any(_waits_for_webset(snapshot, selector) for selector in selectors)


def with_webset(snapshot: Snapshot, found: tuple[str | None, str] | ExaError) -> Snapshot:
    """Return the snapshot with the id and status of the webset, or why they cannot be read."""
    webset_id, status = (None, found) if isinstance(found, ExaError) else found
    return replace(snapshot, webset_id=webset_id, webset_status=status)


def _with_listing(
    snapshot: Snapshot, dialect: Dialect, monitor_id: str, since: DateTime, earlier: ListedRuns | None
) -> Call[Snapshot]:
    listing = list_runs(dialect, monitor_id, since=since, keep_raw=False)
    try:
        listed = yield from list_back_to(listing, earlier)
    except ExaError as error:
        return replace(snapshot, listing_error=error)
    return replace(
        snapshot,
        runs=listed.runs,
        listed=listed.runs,
        listed_back_to=listed.listed_back_to,
        truncated=listed.truncated,
        stale=listed.stale,
        resume=listed if listed.resume else None,
    )


def _with_monitor(snapshot: Snapshot, dialect: Dialect, monitor_id: str) -> Call[Snapshot]:
    try:
        monitor = yield from get_monitor(dialect, monitor_id)
    except ExaError as error:
        return replace(snapshot, monitor_error=error)
    return replace(snapshot, monitor=monitor, webset_id=monitor.webset_id)


def _finds_nothing(snapshot: Snapshot, selectors: Collection[Selector]) -> bool:
    """Return whether the listing shows nothing, or to a poll of waits alone not the run of one."""
    if snapshot.listed_back_to is None or snapshot.truncated:
        return False
    waits = [selector for selector in selectors if not isinstance(selector, RunsSince)]
    if not snapshot.listed or len(waits) < len(selectors):
        return not snapshot.listed
    observed = [snapshot.observe(wait) for wait in waits]
    return any(each is not None and each.run is None for each in observed)


def _waits_for_webset(snapshot: Snapshot, selector: Selector) -> bool:
    if not isinstance(selector, RunSelector) or not selector.idle:
        return False
    observation = snapshot.observe(replace(selector, idle=False))
    return bool(observation and observation.run and observation.run.status == "completed")
