"""The events of an asset: the stream that the triggerer runs, and tells when an event is stored."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from airflow.sdk import Variable
from airflow.sdk.execution_time.context import AssetStateStoreAccessor
from airflow.triggers.shared_stream import AdvanceItem, SharedStreamProducer

from airflow_provider_exa.events.cursor import Cursor
from airflow_provider_exa.events.store import CursorStore
from airflow_provider_exa.events.subscriber import CursorSubscriber
from airflow_provider_exa.events.walk import Walk
from airflow_provider_exa.protocol.endpoints import list_runs
from airflow_provider_exa.protocol.models import MonitorRun, dialect_of
from airflow_provider_exa.timing import timing
from airflow_provider_exa.waiting import poller

log = logging.getLogger(__name__)

#: Of a failed run's reason, an event holds so many characters.
MAX_REASON_LENGTH = 500
#: Seconds between two checks whether a stream was cancelled.
CANCELLATION_CHECK_INTERVAL = 0.1


class AssetArguments(Protocol):
    """The arguments of an asset's trigger."""

    asset_name: str
    monitor_id: str
    statuses: Sequence[str]
    api: str
    exa_conn_id: str
    poll_interval: float
    start: str


class RunStream(SharedStreamProducer):
    """
    The events of one asset, of which one at a time is under way.

    The cursor takes in an event only once that is stored, so a triggerer that dies before leaves runs that
    are reported again, never one that nobody reports.
    """

    def __init__(self, trigger: AssetArguments) -> None:
        self._trigger = trigger
        self._store = CursorStore(
            Variable,
            AssetStateStoreAccessor,
            asset=trigger.asset_name,
            statuses=trigger.statuses,
            api=trigger.api,
            monitor_id=trigger.monitor_id,
            start=trigger.start,
        )
        self._cursor: Cursor
        self._free_at = 0.0
        self._ended = False

    async def open_stream(self) -> AsyncIterator[tuple[dict[str, Any], list[str]]]:
        """Yield each event's payload, and the ids of its runs."""
        try:
            with self._store.watching():
                self._cursor = await self._load()
                async with self._watch() as (subscriber, walk):
                    while True:
                        await subscriber.polled()
                        walk.wanted.set()
                        self._log_first_start(subscriber, walk)
                        # Until older runs have come, an event would not begin with the oldest.
                        is_gathering = subscriber.is_beginning or walk.is_under_way
                        if batch := [] if is_gathering else self._next_batch():
                            self._free_at = float("inf")
                            yield self._payload(batch), [run.id for run in batch]
                        elif not is_gathering:
                            await self._store.keep()
        except Exception:
            interval = timing().variable_retry_interval
            log.exception("Asset %s is watched no more for %.0f seconds.", self._trigger.asset_name, interval)
            await asyncio.sleep(interval)  # Airflow starts it anew at once
            raise
        finally:
            self._ended = True

    @asynccontextmanager
    async def _watch(self) -> AsyncIterator[tuple[CursorSubscriber, Walk]]:
        """Poll the monitor, and read what lies too far back for the polls, for the length of a block."""
        trigger = self._trigger
        subscriber = CursorSubscriber(
            self._cursor, trigger.statuses, trigger.poll_interval, trigger.asset_name
        )
        first_page = list_runs(dialect_of(trigger.api), trigger.monitor_id, keep_raw=False)
        walk = Walk(
            trigger.asset_name,
            self._cursor,
            trigger.statuses,
            first_page,
            trigger.poll_interval,
            subscriber.wake,
        )

        def pass_on_crash(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (crash := task.exception()):
                subscriber.on_error(crash)

        with poller.subscribe(subscriber, trigger.exa_conn_id, trigger.api, trigger.monitor_id) as polls:
            task = asyncio.ensure_future(walk.run(polls.client))
            task.add_done_callback(pass_on_crash)
            try:
                yield subscriber, walk
            finally:
                task.cancel()

    def _next_batch(self) -> list[MonitorRun]:
        is_free = asyncio.get_running_loop().time() >= self._free_at
        return self._cursor.batch() if is_free else []

    def _log_first_start(self, subscriber: CursorSubscriber, walk: Walk) -> None:
        """Log since when the asset is watched, as soon as it is known what it skips."""
        history = walk.history if walk.is_done or walk.is_troubled else subscriber.history
        if self._store.is_first_start and history is not None:
            self._store.is_first_start = False
            log.info(
                "Asset %s starts for the first time: it reports runs that end from %s on. %s%d runs of "
                "monitor %s ended before and are skipped.",
                self._trigger.asset_name,
                self._cursor.start.to_iso8601_string(),
                "At least " if walk.is_troubled else "",
                history,
                self._trigger.monitor_id,
            )

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
                    "failed_reason": run.failed_reason and run.failed_reason[:MAX_REASON_LENGTH],
                }
                for run in runs
            ],
        }

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """
        Take in that an event is stored; one that is not is sent again.

        Airflow calls an event stored, too, where it has just taken the trigger away and is about to cancel
        the stream.
        """
        loop = asyncio.get_running_loop()
        stored_at = loop.time() + timing().confirmation_delay
        while not self._ended and (left := stored_at - loop.time()) > 0:
            await asyncio.sleep(min(left, CANCELLATION_CHECK_INTERVAL))
        if self._ended:
            return
        for item in batch:
            if item.outcome.is_clean:
                self._cursor.confirm(item.broker_payload)
        self._free_at = loop.time() + timing().min_event_gap
        await self._store.keep()

    async def _load(self) -> Cursor:
        while True:
            try:
                return await self._store.load()
            except Exception as error:
                interval = timing().variable_retry_interval
                log.error(
                    "No cursor can be read (%s: %s), so the asset %s is not watched. Tried again in %.0f "
                    "seconds (Airflow Variable %r).",
                    type(error).__name__,
                    error,
                    self._trigger.asset_name,
                    interval,
                    self._store.key,
                )
                await asyncio.sleep(interval)
