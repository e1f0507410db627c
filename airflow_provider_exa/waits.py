"""
Which run a task waits for and what its end means: pure code, the same for every way of waiting.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

from pendulum import DateTime

from airflow_provider_exa.arguments import as_time, check_id, check_time
from airflow_provider_exa.calls import (
    Listing,
    age,
    attempt,
    complete_to,
    fetch_page,
    get_monitor,
    get_run,
    get_webset,
    list_runs,
)
from airflow_provider_exa.core import (
    ERRORS,
    Call,
    Dialect,
    ExaEndlessListingError,
    ExaError,
    ExaInputError,
    ExaPermanentError,
    ExaRunFailedError,
    ExaTransientError,
    Monitor,
    MonitorRun,
    parse_time,
)

PICKS = ("latest", "next")
FAIL_ON = ("failed", "canceled")
SAY_AGAIN = timedelta(minutes=5)


@dataclass(frozen=True)
class RunChoice:
    """
    Which of a monitor's runs is meant: exactly one of the first three is set.

    :param run_id: that run
    :param created_after: the earliest run created at or after this moment
    :param pick: ``latest``, the newest run there is; ``next``, the first one created from now on
    :param idle: whether it counts as completed only once its webset is idle
    :raises ExaInputError: none is set, or more than one
    """

    run_id: Any = None
    created_after: Any = None
    pick: str | None = None
    idle: bool = False

    def __post_init__(self) -> None:
        given = [name for name in ("run_id", "created_after", "pick") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ExaInputError(
                "say which run to wait for with exactly one of run_id='…', created_after=…, "
                f"pick='latest', pick='next'; given: {', '.join(given) or 'none'}"
            )
        if self.pick is not None and self.pick not in PICKS:
            raise ExaInputError(f"pick={self.pick!r} is not one of {', '.join(map(repr, PICKS))}")

    def check(self) -> RunChoice:
        """
        Refuse, while a DAG is parsed, an id or a time that cannot be one.

        :raises ExaInputError: it cannot
        """
        if self.run_id is not None:
            check_id("run_id", self.run_id)
        check_time("created_after", self.created_after)
        return self

    def settle(self, started_at: DateTime) -> RunChoice:
        """The same choice as of the moment the wait began, with its time in UTC; never ``next``."""
        if self.created_after is None and self.pick != "next":
            return self
        moment = as_time("created_after", self.created_after or started_at)
        return RunChoice(created_after=moment, idle=self.idle)

    def pin(self, run_id: str) -> RunChoice:
        """The choice of this run, which turned out to be the one that is meant."""
        return RunChoice(run_id=run_id, idle=self.idle)

    def of(self, runs: Sequence[MonitorRun]) -> MonitorRun | None:
        """The run that is meant, by time, among runs sorted from the oldest to the newest."""
        start = len(runs) - 1 if self.pick else bisect_left(runs, self.created_after, key=_created_at)
        return runs[start] if 0 <= start < len(runs) else None

    def __str__(self) -> str:
        if self.run_id is not None:
            return f"run {self.run_id}"
        return "the latest run" if self.pick else f"the first run created at or after {self.created_after}"


def _created_at(run: MonitorRun) -> DateTime:
    return run.created_at


@dataclass(frozen=True)
class StartedRun:
    """
    The run that a trigger started: the earliest new one that was not canceled.

    Exa cancels a run that has not ended when the next one starts, so where others start runs, too, each of
    them comes to the same one.

    :param created_after: when the newest run known before was created
    :param known: its id; None if that run is meant, as it had not ended
    """

    created_after: DateTime
    known: str | None = None

    def of(self, runs: Sequence[MonitorRun]) -> MonitorRun | None:
        """The run that is meant, among runs sorted from the oldest to the newest."""
        new = [run for run in runs if run.created_at >= self.created_after and run.id != self.known]
        return next((run for run in new if run.status != "canceled"), new[-1] if new else None)

    def __str__(self) -> str:
        return "the run that was started"


@dataclass(frozen=True)
class AllSince:
    """
    Every run created at or after a moment, and some that are older.

    :param created_after: the moment
    :param run_ids: the older ones
    """

    created_after: DateTime
    run_ids: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Found:
    """
    What a look shows of an :class:`AllSince`.

    :param runs: in no order; older ones may be among them, and ones that could not be asked for are not
    :param complete: whether Exa listed every run created since
    """

    runs: Collection[MonitorRun]
    complete: bool


@dataclass(frozen=True)
class Busy:
    """A run that has completed, and the status of its webset, which is not idle yet."""

    run: MonitorRun
    webset: str


Choice = RunChoice | StartedRun | AllSince
#: What a look shows of one choice: its run, None while it is not there, or why it cannot be asked for.
Sight = MonitorRun | Busy | Found | Exception | None


def run_of(sight: Sight) -> MonitorRun | None:
    """The run that a look showed, if it showed one."""
    return sight.run if isinstance(sight, Busy) else sight if isinstance(sight, MonitorRun) else None


def look(
    dialect: Dialect,
    monitor_id: str,
    choices: Collection[Choice],
    *,
    first: bool = False,
    monitor: Monitor | None = None,
) -> Call[tuple[dict[Choice, Sight], Monitor | None]]:
    """
    What there is of several settled choices, with as few requests as it takes.

    An unknown monitor lists as empty, and is an error.

    :param first: whether to ask for the monitor, too, if a run is not there; it is returned, as it may be
        disabled. Where all runs are looked for and there are none, it is asked for anyway.
    :param monitor: what is known of it, so that its webset is
    """
    feeds = [choice for choice in choices if isinstance(choice, AllSince)]
    by_id = {choice for choice in choices if isinstance(choice, RunChoice) and choice.run_id is not None}
    by_time = [choice for choice in choices if not isinstance(choice, AllSince) and choice not in by_id]
    runs: dict[str, MonitorRun] = {}
    cut: ExaPermanentError | None = None
    if by_time or feeds or len(by_id) > 1:
        runs, cut = yield from _list_for(dialect, monitor_id, [*by_time, *feeds])
    ordered = sorted(runs.values(), key=age)
    sights: dict[Choice, Sight] = {choice: cut or choice.of(ordered) for choice in by_time}
    named = {choice.run_id for choice in by_id}.union(*(feed.run_ids for feed in feeds))
    others: dict[str, Sight] = {}
    for run_id in named - runs.keys():
        others[run_id] = yield from attempt(get_run(dialect, monitor_id, run_id))
    sights |= {choice: runs.get(choice.run_id) or others[choice.run_id] for choice in by_id}
    found = [*runs.values(), *(run for run in others.values() if isinstance(run, MonitorRun))]
    sights |= {feed: Found(found, complete=cut is None) for feed in feeds}
    if (first and None in sights.values()) or (feeds and not runs):
        monitor = yield from get_monitor(dialect, monitor_id)
    completed = {
        choice: run
        for choice, run in sights.items()
        if isinstance(choice, RunChoice) and choice.idle and isinstance(run, MonitorRun)
        if run.status == "completed"
    }
    if completed:
        webset = yield from attempt(_look_at_webset(dialect, monitor_id, monitor))
        if isinstance(webset, ExaError):
            sights |= dict.fromkeys(completed, webset)
        else:
            monitor, status = webset
            sights |= {choice: Busy(run, status) for choice, run in completed.items() if status != "idle"}
    return sights, monitor


def _look_at_webset(dialect: Dialect, monitor_id: str, monitor: Monitor | None) -> Call[tuple[Monitor, str]]:
    """The monitor, and the status of its webset."""
    monitor = monitor or (yield from get_monitor(dialect, monitor_id))
    return monitor, (yield from get_webset(dialect, monitor.webset_id, lambda body: str(body["status"])))


def _list_for(
    dialect: Dialect, monitor_id: str, choices: Collection[Choice]
) -> Call[tuple[dict[str, MonitorRun], ExaPermanentError | None]]:
    """
    The runs that choices by time are among; where there are none, of the first page.

    Where Exa does not let the rest be listed, an error that says so is returned, too.
    """
    times = [choice.created_after for choice in choices if choice.created_after is not None]
    since = min(times, default=None)
    runs: dict[str, MonitorRun] = {}
    place: Listing[MonitorRun] | None = list_runs(dialect, monitor_id)
    while place:
        try:
            page = yield from fetch_page(place)
        except ExaEndlessListingError as error:
            return runs, error
        if page.cut:
            return runs, ExaPermanentError(
                f"Exa lists only the last {len(runs)} runs of monitor {monitor_id}, so which run is meant "
                "cannot be told. Give a run_id, or a created_after that is later than the oldest of them."
            )
        runs |= {run.id: run for run in page.items}
        edge = complete_to(page)
        if not choices or (edge and (since is None or edge < since)):
            break
        place = page.following
    return runs, None


def is_decided(
    runs: Collection[Mapping[str, Any]], *, fail_on: Collection[str], needed: int, total: int
) -> bool:
    """Whether :func:`judge` would say the same of these runs, whatever becomes of the rest of ``total``."""
    failed = sum(run["status"] in fail_on for run in runs)
    return len(runs) - failed >= needed or failed > total - needed


def judge(
    runs: Collection[Mapping[str, Any]],
    fail_on: Collection[str],
    needed: int = 1,
    error: type[ExaError] = ExaRunFailedError,
) -> None:
    """
    Pass finished runs on, or fail the task that waited for them.

    :param runs: as :meth:`~airflow_provider_exa.core.MonitorRun.as_dict` gives them
    :param needed: how many of them must not have ended in one of the ways that ``fail_on`` names
    :param error: what to raise if there are fewer; it names each that did, and why
    """
    failed = [run for run in runs if run["status"] in fail_on]
    if len(runs) - len(failed) < needed:
        raise error(" ".join(map(_epitaph, failed)))


def received(event: Mapping[str, Any]) -> Any:
    """
    What the event of a trigger brings: a run, or several.

    :raises ExaError: the error that ended the wait
    """
    if "error" in event:
        raise ERRORS[event["type"]](event["error"])
    return event.get("run") or event["runs"]


def _epitaph(run: Mapping[str, Any]) -> str:
    was = "was canceled" if run["status"] == "canceled" else run["status"]
    reason = run["failed_reason"] or "Exa gives no reason"
    return f"Run {run['id']} of Exa monitor {run['monitor_id']} {was}: {reason}."


@dataclass
class Progress:
    """
    How far one wait has come; as JSON it goes from one process of a task to the next.

    :param started_at: when the task first started
    :param looked: whether Exa has answered once, so that trouble is waited out from then on
    :param run_id: the run that the wait is pinned to
    :param webset_id: the webset of the run's monitor, where it is known
    :param topic: what the last log line was about
    :param said_at: when that line was logged
    """

    started_at: DateTime
    looked: bool = False
    run_id: str | None = None
    webset_id: str | None = None
    topic: str | None = None
    said_at: DateTime | None = None

    def saw(self, sight: Sight, now: DateTime, monitor: Monitor | None = None) -> str | None:
        """
        Take in what a look showed; returns the line to log, if one is due.

        :raises ExaError: what the look showed ends the wait: a permanent error, or any at the first look
        """
        if isinstance(sight, ExaTransientError) and self.looked:
            return self._line("trouble", f"{sight} Waiting on", now)
        if isinstance(sight, Exception):
            raise sight
        self.looked = True
        if run := run_of(sight):
            self.run_id = run.id
            busy = f", and its webset {sight.webset}" if isinstance(sight, Busy) else ""
            return self._line(run.status + busy, f"{run.id} is {run.status}{busy}", now)
        if monitor and not monitor.enabled:
            text = f"not there yet, and the monitor, which is {monitor.status}, makes no runs by itself"
            return self._line("none", text, now)
        return self._line("none", "not there yet", now)

    def _line(self, topic: str, text: str, now: DateTime) -> str | None:
        """The text, if it is about something new or the last line is five minutes old."""
        if topic == self.topic and self.said_at and now - self.said_at < SAY_AGAIN:
            return None
        self.topic, self.said_at = topic, now
        return f"{text}, after {timedelta(seconds=int((now - self.started_at).total_seconds()))}."

    def as_dict(self) -> dict[str, Any]:
        """The progress as JSON."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: v.isoformat() if isinstance(v, DateTime) else v for name, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Progress:
        """The progress that :meth:`as_dict` made JSON of."""
        times = {name: values[name] and parse_time(values[name]) for name in ("started_at", "said_at")}
        return cls(**{**values, **times})
