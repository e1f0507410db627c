"""An asset's part in the polls of a monitor."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

import pendulum

from airflow_provider_exa.events.cursor import BEGINNING, KEPT_TIME, Cursor, earlier_by
from airflow_provider_exa.protocol.errors import ExaError, ExaTransientError
from airflow_provider_exa.protocol.models import warn_once
from airflow_provider_exa.protocol.paging import END_OF_TIME
from airflow_provider_exa.timing import timing
from airflow_provider_exa.waiting.selection import RunsSince
from airflow_provider_exa.waiting.snapshot import Snapshot

log = logging.getLogger(__name__)

#: How many open runs that are listed no more a poll asks for by id.
MAX_RUNS_BY_ID = 5


def warn_truncated(asset: str) -> None:
    """Log once that an asset's monitor is not listed to its end."""
    warn_once(f"Exa does not list all runs for the asset {asset}; those it leaves out wait until it does.")


class CursorSubscriber:
    """
    Takes part in the polls of a monitor for a cursor; it never ends and no trouble stops it.

    :param cursor: takes in what each poll shows
    :param statuses: how a run must have ended to be reported
    :param interval: seconds between polls; in trouble they are more
    :param name: of the asset, for the triggerer's log
    :ivar is_beginning: whether the next polls list further back, as there is no frontier yet
    :ivar history: how many runs had ended before the start, once a poll has shown all
    """

    def __init__(self, cursor: Cursor, statuses: Collection[str], interval: float, name: str) -> None:
        self.cursor = cursor
        self.interval = interval
        self.is_beginning = cursor.frontier == BEGINNING
        self.history: int | None = None
        self._statuses = statuses
        self._usual_interval = interval
        self._name = name
        self._since = END_OF_TIME
        self._polls = 0
        self._listed: Collection[str] | None = None
        self._asked_at: dict[str, int] = {}
        self._missing: set[str] = set()
        self._news = asyncio.Event()
        self._crash: BaseException | None = None

    @property
    def selector(self) -> RunsSince:
        """What the next poll has to show: the runs since the frontier, and a few open ones by id."""
        since = self.cursor.frontier if self.cursor.frontier > BEGINNING else self._since
        unlisted = self.cursor.open - self.cursor.due.keys() - set(self._listed or ())
        in_turn = sorted(unlisted, key=lambda run_id: (self._asked_at.get(run_id, 0), run_id))
        self._polls += 1
        self._listed = None
        run_ids = frozenset(in_turn[:MAX_RUNS_BY_ID])
        self._asked_at |= dict.fromkeys(run_ids, self._polls)
        self._asked_at = {run_id: self._asked_at.get(run_id, 0) for run_id in unlisted}
        return RunsSince(since, run_ids)

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """Take in what a poll showed, or the stage that it has come to."""
        self.interval = self._usual_interval
        now = pendulum.now("UTC")
        runs = snapshot.runs.values()
        self.cursor.observe(runs, self._statuses, now, listed_back_to=snapshot.listed_back_to)
        if self._listed is None and snapshot.listed_back_to is not None:
            self._listed = snapshot.listed.keys()
            self.is_beginning = False
            if snapshot.covers(BEGINNING):
                self.history = self.cursor.count_history(runs)
            else:
                self._list_further_back(snapshot)
        self._settle_missing(snapshot)
        self._news.set()

    def _list_further_back(self, snapshot: Snapshot) -> None:
        """List more runs until there are enough to tell a frontier."""
        self.is_beginning = self.cursor.frontier == BEGINNING and not snapshot.truncated
        if self.cursor.frontier > BEGINNING:
            return
        if snapshot.truncated:
            warn_truncated(self._name)
        if snapshot.runs:
            oldest, newest = snapshot.sorted_runs[0].created_at, snapshot.sorted_runs[-1].created_at
            self._since = min(self._since, oldest, earlier_by(KEPT_TIME, newest))

    def _settle_missing(self, snapshot: Snapshot) -> None:
        """Forget an open run that Exa does not know, once two polls have said so."""
        # unverified: whether Exa deletes runs, and whether one 404 means that it has.
        missing = {run_id for run_id, error in snapshot.errors.items() if error.status == 404}
        for run_id in missing & self._missing:
            self.cursor.forget(run_id)
            log.warning("Run %s is no more at Exa: the asset %s lets it go.", run_id, self._name)
        self._missing = (self._missing - snapshot.runs.keys() - snapshot.errors.keys()) | (
            missing - self._missing
        )

    def on_error(self, error: BaseException) -> None:
        """Take in why a poll has failed, or that something has crashed."""
        self.is_beginning = False
        if isinstance(error, ExaTransientError):
            self.interval = max(self._usual_interval, min(self.interval * 2, timing().max_trouble_interval))
            log.warning("%s It is asked again in %.0f seconds (asset %s).", error, self.interval, self._name)
        elif isinstance(error, ExaError):
            self.interval = max(self._usual_interval, timing().permanent_error_interval)
            log.error("%s It is asked again in %.0f seconds (asset %s).", error, self.interval, self._name)
        else:
            self._crash = error
        self._news.set()

    def wake(self) -> None:
        """Let the stream read the cursor anew."""
        self._news.set()

    async def polled(self) -> None:
        """Return after the next poll, or a stage of one; raise what has crashed."""
        await self._news.wait()
        self._news.clear()
        if self._crash:
            raise self._crash
