"""
What an asset has reported of a monitor's runs and what it has still to: pure code.

Three things decide what becomes of a run. Before the *frontier* every run is settled, but for those that are
*open*; from the frontier on every run is looked at anew, and those in *reported* are known. A run is in
``due`` from the moment it is seen to have ended until an event with it is stored.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import timedelta

import pendulum
from pendulum import DateTime

from airflow_provider_exa.protocol.errors import ExaInputError
from airflow_provider_exa.protocol.models import MonitorRun, parse_time
from airflow_provider_exa.protocol.paging import age

#: How many of the newest runs, and how much of the time before the newest, the frontier never passes: what
#: Exa lists late is still seen. So many are on the first page of a listing, which is asked for anyway.
KEPT_RUNS = 20


KEPT_TIME = timedelta(hours=1)


#: How many runs one event holds at most: Airflow logs events, and a big one stops the triggerer.
MAX_RUNS_PER_EVENT = 100


BEGINNING = pendulum.datetime(1970, 1, 1)


@dataclass
class Cursor:
    """
    Where one asset is with one monitor.

    :param start: runs that ended before this moment are history and never reported
    :param frontier: of the runs created before this moment, all but the open ones are settled
    :param open: the ids of runs that were seen and had not ended
    :param reported: the ids of runs created since the frontier that are in a stored event, and when each was
    :param due: the runs that have ended and are in no stored event yet, by id; not kept
    """

    start: DateTime
    frontier: DateTime = BEGINNING
    open: set[str] = field(default_factory=set)
    reported: dict[str, DateTime] = field(default_factory=dict)
    due: dict[str, MonitorRun] = field(default_factory=dict)

    def see(
        self, runs: Iterable[MonitorRun], statuses: Collection[str], now: DateTime, *, complete: bool = True
    ) -> None:
        """
        Take in what a look showed.

        :param runs: the runs created since the frontier, and those that were open
        :param statuses: how a run must have ended to be reported
        :param complete: whether the look showed all of them; only then may the frontier pass them
        """
        times = []
        for run in runs:
            if run.created_at >= self.frontier:
                times.append(run.created_at)
            elif run.id not in self.open:
                continue
            if run.id in self.reported or run.id in self.due:
                continue
            if not run.finished:
                self.open.add(run.id)
                continue
            # Exa's clock and the one of start may differ, so what was seen open has not ended before it.
            is_new = run.ended_at >= self.start or (run.id in self.open and now >= self.start)
            if run.status in statuses and is_new:
                self.due[run.id] = run
                if run.created_at < self.frontier:
                    continue  # stays open until it is confirmed
            self.open.discard(run.id)
        if complete and len(times) > KEPT_RUNS:
            times.sort()
            self.frontier = max(self.frontier, min(times[-KEPT_RUNS], min(times[-1], now) - KEPT_TIME))

    def batch(self) -> list[MonitorRun]:
        """The runs for the next event, from the oldest to the newest."""
        return sorted(self.due.values(), key=age)[:MAX_RUNS_PER_EVENT]

    def confirm(self, run_ids: Iterable[str]) -> None:
        """Take in that an event with these runs is stored."""
        for run_id in run_ids:
            if run := self.due.pop(run_id, None):
                self.open.discard(run_id)
                self.reported[run_id] = run.created_at
        kept_from = self._kept_from()
        self.reported = {run_id: time for run_id, time in self.reported.items() if time >= kept_from}

    def _kept_from(self) -> DateTime:
        """The frontier to keep: no run that is due lies before it, as whoever goes on must see it again."""
        return min([self.frontier, *(run.created_at for run in self.due.values() if run.id not in self.open)])

    def as_json(self) -> str:
        """What is kept: the start, the frontier, the open and the reported runs."""
        kept = {
            "start": self.start.isoformat(),
            "frontier": self._kept_from().isoformat(),
            "open": sorted(self.open),
            "reported": {run_id: time.isoformat() for run_id, time in sorted(self.reported.items())},
        }
        return json.dumps(kept, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Cursor:
        """
        The cursor that :meth:`as_json` made a text of.

        :raises ExaInputError: somebody has edited it into something else
        """
        try:
            kept = json.loads(text)
            return cls(
                parse_time(kept["start"]),
                parse_time(kept["frontier"]),
                set(_ids(kept["open"])),
                {run_id: parse_time(time) for run_id, time in kept["reported"].items()},
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ExaInputError(f"it is no cursor ({type(error).__name__}: {error}): {text:.200}") from None


def _ids(values: object) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"'open' is {values!r:.100}")
    return values
