"""Which of a monitor's runs is meant."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pendulum import DateTime

from airflow_provider_exa.protocol.errors import ExaInputError
from airflow_provider_exa.protocol.models import MonitorRun
from airflow_provider_exa.protocol.validation import as_time, check_id, check_time

PICKS = ("latest", "next")


@dataclass(frozen=True)
class RunSelector:
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

    def check(self) -> RunSelector:
        """
        Refuse, while a DAG is parsed, an id or a time that cannot be one.

        :raises ExaInputError: it cannot
        """
        if self.run_id is not None:
            check_id("run_id", self.run_id)
        check_time("created_after", self.created_after)
        return self

    def resolve(self, started_at: DateTime) -> RunSelector:
        """The same choice as of the moment the wait began, with its time in UTC; never ``next``."""
        if self.created_after is None and self.pick != "next":
            return self
        moment = as_time("created_after", self.created_after or started_at)
        return RunSelector(created_after=moment, idle=self.idle)

    def pin(self, run_id: str) -> RunSelector:
        """The choice of this run, which turned out to be the one that is meant."""
        return RunSelector(run_id=run_id, idle=self.idle)

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
class RunsSince:
    """
    Every run created at or after a moment, and some that are older.

    :param created_after: the moment
    :param run_ids: the older ones
    """

    created_after: DateTime
    run_ids: frozenset[str] = frozenset()


Selector = RunSelector | StartedRun | RunsSince
