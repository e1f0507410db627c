"""
Which run a task waits for and what its end means: pure code, the same for every way of waiting.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

from pendulum import DateTime

from airflow_provider_exa.calls import Listing, age, complete_to, fetch_page, get_monitor, get_run, list_runs
from airflow_provider_exa.core import (
    Call,
    Dialect,
    ExaError,
    ExaInputError,
    ExaRunFailedError,
    MonitorRun,
    as_time,
    check_id,
    check_time,
    parse_time,
)

log = logging.getLogger(__name__)

PICKS = ("latest", "next")
FAIL_ON = ("failed", "canceled")
SAY_AGAIN = timedelta(minutes=5)


@dataclass(frozen=True)
class RunChoice:
    """
    Which of a monitor's runs is meant: exactly one of the three is set.

    :param run_id: that run
    :param created_after: the earliest run created at or after this moment
    :param pick: ``latest``, the newest run there is; ``next``, the first one created from now on
    :raises ExaInputError: none is set, or more than one
    """

    run_id: Any = None
    created_after: Any = None
    pick: str | None = None

    def __post_init__(self) -> None:
        given = [each.name for each in fields(self) if getattr(self, each.name) is not None]
        if len(given) != 1:
            raise ExaInputError(
                "say which run to wait for with exactly one of run_id='…', created_after=…, "
                f"pick='latest', pick='next'; given: {', '.join(given) or 'none'}"
            )
        if self.pick is not None and self.pick not in PICKS:
            raise ExaInputError(f"pick={self.pick!r} is not one of {', '.join(map(repr, PICKS))}")
        if self.run_id is not None:
            check_id("run_id", self.run_id)
        check_time("created_after", self.created_after)

    def settle(self, started_at: DateTime) -> RunChoice:
        """The same choice as of the moment the wait began, with its time in UTC; never ``next``."""
        if self.created_after is not None:
            return RunChoice(created_after=as_time("created_after", self.created_after))
        return RunChoice(created_after=started_at) if self.pick == "next" else self

    def best(self, runs: Iterable[MonitorRun]) -> MonitorRun | None:
        """The run that is meant among those a listing has shown, in whatever order."""
        if self.pick == "latest":
            return max(runs, key=age, default=None)
        return min((run for run in runs if run.created_at >= self.created_after), key=age, default=None)

    def __str__(self) -> str:
        if self.run_id is not None:
            return f"run {self.run_id}"
        return "the latest run" if self.pick else f"the first run created at or after {self.created_after}"


def find_run(dialect: Dialect, monitor_id: str, choice: RunChoice) -> Call[MonitorRun | None]:
    """The run that a settled choice means, or None if it is not there yet."""
    if choice.run_id is not None:
        return (yield from get_run(dialect, monitor_id, choice.run_id))
    best: MonitorRun | None = None
    place: Listing[MonitorRun] | None = list_runs(dialect, monitor_id)
    while place:
        page = yield from fetch_page(place)
        best = choice.best([*page.items, best] if best else page.items)
        edge = complete_to(page)
        if edge and (choice.pick or edge < choice.created_after):
            break
        place = page.following
    return best


def first_look(dialect: Dialect, monitor_id: str, choice: RunChoice) -> Call[MonitorRun | None]:
    """Like :func:`find_run`, but an unknown monitor is an error, and a disabled one a warning."""
    if choice.run_id is not None:
        return (yield from find_run(dialect, monitor_id, choice))
    monitor = yield from get_monitor(dialect, monitor_id)
    run = yield from find_run(dialect, monitor_id, choice)
    if run is None and not monitor.enabled:
        log.warning("Monitor %s is %s: it may never make the run waited for.", monitor_id, monitor.status)
    return run


def look(dialect: Dialect, monitor_id: str, choice: RunChoice, progress: Progress) -> Call[MonitorRun | None]:
    """What a wait asks next: the run that it is pinned to, else whether the run is there."""
    if progress.run_id is not None:
        choice = RunChoice(run_id=progress.run_id)
    return (yield from (find_run if progress.looked else first_look)(dialect, monitor_id, choice))


def judge(run: MonitorRun, fail_on: Collection[str]) -> None:
    """
    Pass a finished run on, or fail the task that waited for it.

    :raises ExaRunFailedError: the run ended in one of the ways that ``fail_on`` names
    """
    if run.status in fail_on:
        was = "was canceled" if run.status == "canceled" else run.status
        reason = run.failed_reason or "Exa gives no reason"
        raise ExaRunFailedError(f"Run {run.id} of Exa monitor {run.monitor_id} {was}: {reason}.")


@dataclass
class Progress:
    """
    How far one wait has come; as JSON it goes from one process of a task to the next.

    :param started_at: when the task first started
    :param looked: whether Exa has answered once, so that trouble is waited out from then on
    :param run_id: the run that the wait is pinned to
    :param topic: what the last log line was about
    :param said_at: when that line was logged
    """

    started_at: DateTime
    looked: bool = False
    run_id: str | None = None
    topic: str | None = None
    said_at: DateTime | None = None

    def saw(self, run: MonitorRun | None, now: DateTime) -> str | None:
        """Take in an answer; returns the line to log, if one is due."""
        self.looked = True
        if run is None:
            return self._line("none", "not there yet", now)
        self.run_id = run.id
        return self._line(run.status, f"{run.id} is {run.status}", now)

    def missed(self, error: ExaError, now: DateTime) -> str | None:
        """Take in that Exa could not be asked, an error at the first look; returns the line to log."""
        if not self.looked:
            raise error
        return self._line("trouble", f"{error} Waiting on", now)

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
