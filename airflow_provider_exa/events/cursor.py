"""
The runs that an asset has reported, and those that it still has to: pure code.

Before the *frontier* every run is settled, except those that are *open* or *owed*; from the frontier on every
run is observed in each poll, and those in *reported* and *skipped* are settled. A run is in ``due`` from the
moment it is seen to have ended until an event with it is stored.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pendulum
from pendulum import DateTime

from airflow_provider_exa.protocol.errors import ExaInputError
from airflow_provider_exa.protocol.models import STATUSES, MonitorRun, parse_time
from airflow_provider_exa.protocol.paging import BEGINNING_OF_TIME, sort_key

#: The frontier never passes so many of the newest runs, nor this much of the time before the newest: a run
#: that Exa lists late is still seen.
KEPT_RUNS = 20
KEPT_TIME = timedelta(hours=1)
#: A run whose status is new here is let go when it has not changed for so long.
UNKNOWN_STATUS_KEPT_FOR = timedelta(days=7)
#: Airflow logs events, and a big one stops the triggerer.
MAX_RUNS_PER_EVENT = 100

BEGINNING = pendulum.datetime(1970, 1, 1)


def earlier_by(span: timedelta, moment: DateTime) -> DateTime:
    """Return a moment that is so much earlier, of any year: one that Exa sends may be the first there is."""
    return max(moment, BEGINNING_OF_TIME + span) - span


@dataclass
class Cursor:
    """
    Where one asset is with one monitor.

    :param start: runs that ended before this moment are history and never reported
    :param frontier: of the runs created before this moment, all but the open and owed ones are settled
    :param open: the ids of runs that were seen and had not ended
    :param reported: the ids of runs created since the frontier that are in a stored event, and when each was
        created
    :param skipped: the same for runs that ended in a way that was not to be reported
    :param due: the runs that have ended and are in no stored event yet, by id; not kept
    :param owed: not every run created between these two moments has been seen; not kept
    """

    start: DateTime
    frontier: DateTime = BEGINNING
    open: set[str] = field(default_factory=set)
    reported: dict[str, DateTime] = field(default_factory=dict)
    skipped: dict[str, DateTime] = field(default_factory=dict)
    due: dict[str, MonitorRun] = field(default_factory=dict)
    owed: tuple[DateTime, DateTime] | None = None

    def observe(
        self,
        runs: Iterable[MonitorRun],
        statuses: Collection[str],
        now: DateTime,
        *,
        listed_back_to: DateTime | None = None,
    ) -> None:
        """
        Take in runs that Exa shows.

        :param statuses: how a run must have ended to be reported
        :param listed_back_to: every run created after this moment is among them; None if that is not known
        """
        times = []
        for run in runs:
            if run.created_at >= self.frontier:
                times.append(run.created_at)
            self._observe_run(run, statuses, now)
        if listed_back_to is not None and len(times) > KEPT_RUNS:
            times.sort()
            target = min(times[-KEPT_RUNS], earlier_by(KEPT_TIME, min(times[-1], now)))
            self._advance_to(target, listed_back_to)
        self._prune()

    def _observe_run(self, run: MonitorRun, statuses: Collection[str], now: DateTime) -> None:
        settled_before = self.owed[0] if self.owed else self.frontier
        if run.created_at < settled_before and run.id not in self.open:
            return
        if run.id in self.reported or run.id in self.skipped or run.id in self.due:
            return
        if not run.finished:
            (self.open.discard if _is_stuck(run, now) else self.open.add)(run.id)
            return
        # Exa's clock and the one of start may differ, so what was seen open has not ended before it.
        is_new = run.ended_at >= self.start or (run.id in self.open and now >= self.start)
        if is_new and run.status in statuses:
            self.due[run.id] = run
            if run.created_at < settled_before:
                return  # it stays open until it is confirmed
        elif is_new:
            self.skipped[run.id] = run.created_at
        self.open.discard(run.id)

    def _advance_to(self, target: DateTime, listed_back_to: DateTime) -> None:
        if target <= self.frontier:
            return
        if listed_back_to >= self.frontier:
            if listed_back_to >= target:
                return
            self.owed = (self.owed[0] if self.owed else self.frontier, target)
        self.frontier = target

    def pay(self, owed: tuple[DateTime, DateTime]) -> None:
        """Take in that every run created between two moments has been observed."""
        if self.owed == owed:
            self.owed = None
            self._prune()

    def forget(self, run_id: str) -> None:
        """Take in that an open run is no more."""
        if run_id not in self.due:
            self.open.discard(run_id)

    def count_history(self, runs: Iterable[MonitorRun]) -> int:
        """Return how many of these runs had ended before the start."""
        return sum(run.finished and run.ended_at < self.start for run in runs)

    def batch(self) -> list[MonitorRun]:
        """Return the runs for the next event, from the oldest to the newest."""
        return sorted(self.due.values(), key=sort_key)[:MAX_RUNS_PER_EVENT]

    def confirm(self, run_ids: Iterable[str]) -> None:
        """Take in that an event with these runs is stored."""
        for run_id in run_ids:
            if run := self.due.pop(run_id, None):
                self.open.discard(run_id)
                self.reported[run_id] = run.created_at
        self._prune()

    def _prune(self) -> None:
        kept_from = self._kept_from()
        self.reported = {run_id: time for run_id, time in self.reported.items() if time >= kept_from}
        self.skipped = {run_id: time for run_id, time in self.skipped.items() if time >= kept_from}

    def _kept_from(self) -> DateTime:
        """Return the frontier to keep: whoever goes on must see again what is due or owed."""
        due = [run.created_at for run in self.due.values() if run.id not in self.open]
        moments: list[DateTime] = [self.frontier, *due, *(self.owed or ())]
        return min(moments)

    def as_dict(self) -> dict[str, Any]:
        """Return what is kept, as JSON: the start, the frontier, and the ids of single runs."""
        kept: dict[str, Any] = {
            "start": self.start.isoformat(),
            "frontier": self._kept_from().isoformat(),
            "open": sorted(self.open),
            "reported": _as_texts(self.reported),
        }
        return {**kept, "skipped": _as_texts(self.skipped)} if self.skipped else kept

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Cursor:
        """
        Return the cursor that :meth:`as_dict` made JSON of.

        :raises Exception: it is something else
        """
        return cls(
            parse_time(kept["start"]),
            parse_time(kept["frontier"]),
            set(_ids(kept["open"])),
            _as_times(kept["reported"]),
            _as_times(kept.get("skipped", {})),
        )


def combine(cursors: Sequence[Cursor]) -> Cursor:
    """Return a cursor that takes a run for settled only where all of these do."""

    def is_settled(run_id: str, created_at: DateTime, cursor: Cursor) -> bool:
        known = run_id in cursor.reported or run_id in cursor.skipped
        return known or (created_at < cursor.frontier and run_id not in cursor.open)

    def settled(by_id: Iterable[tuple[str, DateTime]]) -> dict[str, DateTime]:
        return {
            run_id: time for run_id, time in by_id if all(is_settled(run_id, time, each) for each in cursors)
        }

    return Cursor(
        start=min(each.start for each in cursors),
        frontier=min(each.frontier for each in cursors),
        open=set[str]().union(*(each.open for each in cursors)),
        reported=settled(item for each in cursors for item in each.reported.items()),
        skipped=settled(item for each in cursors for item in each.skipped.items()),
    )


@dataclass(frozen=True)
class CursorRecord:
    """
    What the Variable of an asset holds.

    :param asset: its name
    :param statuses: how a run must have ended to be reported
    :param cursor: where it is with its monitor
    :param polled_at: a moment at which it was watched, not long before the last one
    :param replaces: the Variables of assets whose place it took over, and when each was watched; they are
        deleted once it is clear that those are watched no more
    """

    asset: str
    statuses: Collection[str]
    cursor: Cursor
    polled_at: DateTime
    replaces: Mapping[str, DateTime] = field(default_factory=dict)

    def as_json(self) -> str:
        """Return the text of the Variable."""
        kept = {
            "asset": self.asset,
            "statuses": list(self.statuses),
            **self.cursor.as_dict(),
            "polled_at": self.polled_at.isoformat(),
        }
        return json.dumps({**kept, "replaces": _as_texts(self.replaces)} if self.replaces else kept, indent=1)

    @classmethod
    def from_json(cls, text: str) -> CursorRecord:
        """
        Return the place that :meth:`as_json` made a text of, in this version or another.

        :raises ExaInputError: somebody has edited it into something else
        """
        try:
            kept = json.loads(text)
            return cls(
                str(kept.get("asset", "")),
                _ids(kept.get("statuses", [])),
                Cursor.from_dict(kept),
                parse_time(kept["polled_at"]) if "polled_at" in kept else BEGINNING,
                _as_times(kept.get("replaces", {})),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ExaInputError(f"it is no cursor ({type(error).__name__}: {error}): {text:.200}") from None

    def is_like(self, statuses: Collection[str]) -> bool:
        """Return whether it has to do with one of the outcomes; an unknown place may have to."""
        return not self.statuses or not set(self.statuses).isdisjoint(statuses)


#: A place that was last watched so long before the newest is left alone by assets of other names.
ABANDONED_AFTER = timedelta(days=30)


def predecessors(records: Mapping[str, CursorRecord], statuses: Collection[str]) -> list[str]:
    """
    Return the keys of the records that an asset without one takes over.

    They are those of the assets of its monitor that report one of its outcomes, as it may be any of them
    under another name; or else the newest one.
    """
    if not records:
        return []
    newest = max(records, key=lambda key: records[key].polled_at)
    since = records[newest].polled_at - ABANDONED_AFTER
    alike = [key for key, each in records.items() if each.is_like(statuses) and each.polled_at >= since]
    return alike or [newest]


def _is_stuck(run: MonitorRun, now: DateTime) -> bool:
    # unverified: a status that is new may be the last, of which nobody would ever say that it has ended.
    changed_at = run.updated_at or run.created_at
    return run.status not in STATUSES and now - changed_at > UNKNOWN_STATUS_KEPT_FOR


def _as_texts(times: Mapping[str, DateTime]) -> dict[str, str]:
    return {key: time.isoformat() for key, time in sorted(times.items())}


def _as_times(texts: Mapping[str, str]) -> dict[str, DateTime]:
    return {key: parse_time(text) for key, text in texts.items()}


def _ids(values: object) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"it holds {values!r:.100}")
    return values
