"""The selection of one of a monitor's runs."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from pendulum import DateTime

from airflow_provider_exa.protocol.errors import ExaInputError
from airflow_provider_exa.protocol.models import MonitorRun
from airflow_provider_exa.protocol.paging import BEGINNING_OF_TIME, END_OF_TIME
from airflow_provider_exa.protocol.validation import as_run_id, as_time, check_id, check_time, is_template

PICKS = ("latest", "next")


class Shown(Protocol):
    """The part of a :class:`~airflow_provider_exa.waiting.snapshot.Snapshot` that a selection uses."""

    @property
    def sorted_runs(self) -> Sequence[MonitorRun]:
        """The listed runs from the oldest to the newest."""

    def run(self, run_id: str) -> MonitorRun:
        """Return a run by its id."""

    def require(self, since: DateTime, what: str) -> None:
        """Raise if not every run created since then is known."""


@dataclass(frozen=True, slots=True)
class RunSelector:
    """
    One run of a monitor, selected by exactly one of the first three.

    :param run_id: that run
    :param created_after: the earliest run created at or after this moment
    :param pick: ``latest``, the newest run there is; ``next``, the first one created from now on
    :param idle: whether it counts as completed only once its webset is idle
    :raises ExaInputError: none of the three is set, or more than one
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
            raise ExaInputError(f"pick={self.pick!r:.100} is not one of {', '.join(map(repr, PICKS))}")

    def check(self) -> None:
        """
        Raise, while a DAG is parsed, if an id or a time cannot be one.

        :raises ExaInputError: it cannot
        """
        if self.run_id is not None and not is_template(self.run_id):
            check_id("run_id", as_run_id(self.run_id))
        check_time("created_after", self.created_after)

    def resolve(self, started_at: DateTime) -> RunSelector:
        """
        Return the selector with the values of this task: an id, a moment in UTC, or ``latest``.

        :param started_at: when the task first started, which ``next`` means
        :raises ExaInputError: a template has rendered to something that is no id or time
        """
        if self.run_id is not None:
            return RunSelector(run_id=as_run_id(self.run_id), idle=self.idle)
        if self.pick == "latest":
            return self
        moment = started_at if self.pick == "next" else self.created_after
        return RunSelector(created_after=as_time("created_after", moment), idle=self.idle)

    def pin(self, run_id: str) -> RunSelector:
        """Return the selector of this run, which the selection has come to."""
        return RunSelector(run_id=run_id, idle=self.idle)

    def first_to_come(self) -> RunSelector:
        """Return the selector of a monitor's first run, for ``latest`` where there is none yet."""
        return RunSelector(created_after=BEGINNING_OF_TIME, idle=self.idle)

    @property
    def run_ids(self) -> frozenset[str]:
        """The runs to ask for by id where the listing does not show them."""
        return frozenset() if self.run_id is None else frozenset({self.run_id})

    @property
    def since(self) -> DateTime | None:
        """How far back the listing has to be known; None if it is not needed."""
        return END_OF_TIME if self.pick else self.created_after

    def select(self, snapshot: Shown) -> MonitorRun | None:
        """
        Return the run in a snapshot that answers for this selector; None while there is none.

        :raises ExaError: the run cannot be told from the snapshot
        """
        if self.run_id is not None:
            return snapshot.run(self.run_id)
        runs = snapshot.sorted_runs
        start = len(runs) - 1 if self.pick else bisect_left(runs, self.created_after, key=_created_at)
        run = runs[start] if 0 <= start < len(runs) else None
        # The newest run is known as soon as the listing is known to be complete behind it.
        snapshot.require(self.created_after or (run.created_at if run else END_OF_TIME), str(self))
        return run

    def as_dict(self) -> dict[str, Any]:
        """Return the selector as JSON, as it is stored and as triggers carry it."""
        moment = self.created_after
        created_after = moment.isoformat() if isinstance(moment, DateTime) else moment
        return {"run_id": self.run_id, "created_after": created_after, "pick": self.pick, "idle": self.idle}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunSelector:
        """Return the selector that :meth:`as_dict` made JSON of, in this version or another."""
        moment = values.get("created_after")
        created_after = moment and as_time("created_after", moment)
        return cls(values.get("run_id"), created_after, values.get("pick"), bool(values.get("idle")))

    def __str__(self) -> str:
        if self.run_id is not None:
            return f"run {self.run_id}"
        if self.pick:
            return f"the {self.pick} run"
        if self.created_after == BEGINNING_OF_TIME:
            return "the first run"
        return f"the first run created at or after {self.created_after}"


def _created_at(run: MonitorRun) -> DateTime:
    return run.created_at


@dataclass(frozen=True)
class StartedRun:
    """
    The run that a trigger started: the earliest new one that was not canceled.

    Exa cancels a run that has not ended when the next one starts, so where others start runs, too, each of
    them comes to the same one.

    :param created_after: when the newest run known before was created
    :param previous_run_id: its id; None if that run is meant, as it had not ended
    """

    created_after: DateTime
    previous_run_id: str | None = None

    run_ids: ClassVar[frozenset[str]] = frozenset()
    idle: ClassVar[bool] = False

    @property
    def since(self) -> DateTime:
        """How far back the listing has to be known."""
        return self.created_after

    def select(self, snapshot: Shown) -> MonitorRun | None:
        """
        Return the run in a snapshot; None while there is none.

        :raises ExaError: the run cannot be told from the snapshot
        """
        # unverified: whether Exa cancels an unfinished run for a triggered one, too.
        snapshot.require(self.created_after, str(self))
        runs = [run for run in snapshot.sorted_runs if run.created_at >= self.created_after]
        new = [run for run in runs if run.id != self.previous_run_id]
        return next((run for run in new if run.status != "canceled"), new[-1] if new else None)

    def as_dict(self) -> dict[str, Any]:
        """Return the selector as JSON."""
        return {"created_after": self.created_after.isoformat(), "previous_run_id": self.previous_run_id}

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

    idle: ClassVar[bool] = False

    @property
    def since(self) -> DateTime:
        """How far back the listing has to be known."""
        return self.created_after


#: What a subscriber needs a poll to show.
Selector = RunSelector | StartedRun | RunsSince
