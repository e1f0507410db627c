"""The events of an asset: the stream that the triggerer runs, and tells when an event is stored."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import re
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

import pendulum
from airflow.sdk import Variable
from airflow.triggers.shared_stream import AdvanceItem, SharedStreamProducer

from airflow_provider_exa.events.cursor import Cursor
from airflow_provider_exa.events.trigger import ExaMonitorRunEventTrigger
from airflow_provider_exa.protocol.errors import ExaError, ExaTransientError
from airflow_provider_exa.protocol.models import Monitor, MonitorRun, warn_once
from airflow_provider_exa.protocol.validation import as_time
from airflow_provider_exa.waiting import poller
from airflow_provider_exa.waiting.selection import RunsSince
from airflow_provider_exa.waiting.snapshot import Found, Sight

log = logging.getLogger(__name__)


#: Seconds between one event of an asset and the next, so that Airflow makes a DAG run of the first in
#: between: of two that meet a scheduler together, the later one would wait for a third.
MIN_EVENT_GAP = 10.0


#: Seconds after which an event that Airflow calls stored is one: where the asset's trigger has just been
#: taken away it is not, and the stream is ended meanwhile.
CONFIRMATION_DELAY = 0.3


#: What the seconds between polls double up to while Exa cannot answer, and what they are while the key is bad
#: or the monitor unknown.
MAX_TROUBLE_INTERVAL = 60.0


PERMANENT_ERROR_INTERVAL = 600.0


#: How many runs that have left the newest pages a poll asks for by their ids.
OLD_RUNS = 10


#: Seconds until a Variable that cannot be read or written is tried again, and until a crash is raised.
RETRY_INTERVAL = 30.0


class CursorSubscriber:
    """
    Takes part in the polls of a monitor for a cursor; it never ends and is not stopped by trouble.

    :param cursor: takes in what each look shows
    :param statuses: how the runs must have ended that the cursor is to report
    :param interval: seconds between polls; after a permanent error they are :data:`PERMANENT_ERROR_INTERVAL`
    :param name: whose feed it is, for the log of the triggerer
    """

    def __init__(self, cursor: Cursor, statuses: Collection[str], interval: float, name: str) -> None:
        self.cursor = cursor
        self.interval = interval
        self.told = False
        self._statuses = statuses
        self._usual = interval
        self._name = name
        self._looked = asyncio.Event()
        self._crash: Exception | None = None

    @property
    def choice(self) -> RunsSince:
        """What the next look is for; of many old runs that have not ended, it asks for some."""
        old = sorted(self.cursor.open - self.cursor.due.keys())
        return RunsSince(self.cursor.frontier, frozenset(random.sample(old, min(len(old), OLD_RUNS))))

    def tell(self, sight: Sight, monitor: Monitor | None = None) -> None:
        """Take in what a poll showed."""
        if isinstance(sight, Found):
            self.told, self.interval = True, self._usual
            self.cursor.see(sight.runs, self._statuses, pendulum.now("UTC"), complete=sight.complete)
            if not sight.complete:
                warn_once(f"Exa does not list all runs that {self._name} asks for; some may go unreported.")
        elif isinstance(sight, ExaTransientError):
            self.interval = max(self._usual, min(self.interval * 2, MAX_TROUBLE_INTERVAL))
            log.warning("%s: %s It is asked again.", self._name, sight)
        elif isinstance(sight, ExaError):
            self.interval = max(self._usual, PERMANENT_ERROR_INTERVAL)
            log.error("%s: %s It is asked again in %d seconds.", self._name, sight, self.interval)
        elif isinstance(sight, Exception):
            self._crash = sight
        self._looked.set()

    async def looked(self) -> None:
        """Return after the next look; raises what the poll crashed with."""
        await self._looked.wait()
        self._looked.clear()
        if self._crash:
            raise self._crash


class RunStream(SharedStreamProducer):
    """
    The events of one asset, of which one at a time is under way.

    The cursor is kept in an Airflow Variable: the state that Airflow itself keeps for an asset is deleted
    when no DAG refers to it, be it for a syntax error. It takes in an event only once that is stored, so
    whoever dies before leaves runs that are reported again, never one that nobody reports.
    """

    def __init__(self, trigger: ExaMonitorRunEventTrigger) -> None:
        self._trigger = trigger
        self._variable = variable_of(trigger.asset_name)
        self._cursor: Cursor
        self._kept: str | None = None
        self._keeping = asyncio.Lock()
        self._free_at = 0.0
        self._ended = False

    async def open_stream(self) -> AsyncIterator[tuple[dict[str, Any], list[str]]]:
        """Each event's payload, and the ids of its runs."""
        trigger = self._trigger
        try:
            self._cursor = await self._load()
            feed = CursorSubscriber(self._cursor, trigger.statuses, trigger.poll_interval, trigger.asset_name)
            with poller.subscribe(feed, trigger.exa_conn_id, trigger.api, trigger.monitor_id):
                while True:
                    await feed.looked()
                    batch = self._cursor.batch()
                    if batch and asyncio.get_running_loop().time() >= self._free_at:
                        self._free_at = float("inf")
                        yield self._payload(batch), [run.id for run in batch]
                    else:
                        await self._keep()
        except Exception:
            log.exception(
                "The asset %s is watched no more for %d seconds.", trigger.asset_name, RETRY_INTERVAL
            )
            await asyncio.sleep(RETRY_INTERVAL)  # Airflow starts it anew at once
            raise
        finally:
            self._ended = True

    def _payload(self, runs: Sequence[MonitorRun]) -> dict[str, Any]:
        return {
            "api": self._trigger.api,
            "exa_conn_id": self._trigger.exa_conn_id,
            "runs": [
                {
                    "monitor_id": run.monitor_id,
                    "run_id": run.id,
                    "status": run.status,
                    "type": run.type,
                    "created_at": run.created_at.isoformat(),
                    "finished_at": run.ended_at.isoformat(),
                    "failed_reason": run.failed_reason and run.failed_reason[:500],
                }
                for run in runs
            ],
        }

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Take in that an event is stored; one that is not is sent again."""
        await asyncio.sleep(CONFIRMATION_DELAY)
        if self._ended:
            return
        for item in batch:
            if item.outcome.is_clean:
                self._cursor.confirm(item.broker_payload)
        self._free_at = asyncio.get_running_loop().time() + MIN_EVENT_GAP
        await self._keep()

    async def _load(self) -> Cursor:
        """The cursor; a first one is kept before the first look, so that no run ends in between."""
        while True:
            try:
                if text := await asyncio.to_thread(_read, self._variable):
                    self._kept = text
                    return Cursor.from_json(text)
                cursor = Cursor(_moment(self._trigger.start))
                await self._write(cursor.as_json())
                return cursor
            except Exception as error:
                log.error(
                    "The asset %s is not watched: its cursor, the Airflow Variable %r, cannot be read "
                    "(%s: %s). It is tried again in %d seconds.",
                    self._trigger.asset_name,
                    self._variable,
                    type(error).__name__,
                    error,
                    RETRY_INTERVAL,
                )
                await asyncio.sleep(RETRY_INTERVAL)

    async def _keep(self) -> None:
        """Keep the cursor if it has changed; if Airflow cannot, the next look does."""
        async with self._keeping:
            text = self._cursor.as_json()
            if text == self._kept:
                return
            try:
                await self._write(text)
            except Exception as error:
                log.warning("The Airflow Variable %r cannot be written: %s", self._variable, error)

    async def _write(self, text: str) -> None:
        description = f"Which Exa monitor runs the asset {self._trigger.asset_name} has reported"
        await asyncio.to_thread(Variable.set, self._variable, text, description)
        self._kept = text


def variable_of(asset_name: str) -> str:
    """
    The key of the Airflow Variable with an asset's cursor: its name, as far as a key can hold that.

    Airflow asks for it by a URL, in which a segment must not begin with a dot.
    """
    key = re.sub(r"[^\w.:/-]|(?<![^/])\.", "_", asset_name, flags=re.ASCII)[:180]
    if key != asset_name:
        key += "-" + hashlib.sha256(asset_name.encode()).hexdigest()[:8]
    return f"exa_cursor/{key}"


def _moment(start: str) -> pendulum.DateTime:
    return as_time("start", pendulum.now("UTC") if start == "now" else start)


def _read(key: str) -> str | None:
    """
    The text of an Airflow Variable; None only if there is none.

    ``Variable.get`` alone says that there is none, too, when the database could not be asked.
    """
    return str(Variable.get(key)) if key in Variable.keys(prefix=key) else None
