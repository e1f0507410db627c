"""
The polls in a triggerer: one poller for all who need the same monitor.

A :class:`MonitorPoller` is the loop of one monitor's polls. It begins with its first subscriber, ends with
its last, and polls at the shortest interval that any of them asks for. Waits and the streams of assets
subscribe to it.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Protocol, TypeVar

from airflow_provider_exa.client.async_client import AsyncClient
from airflow_provider_exa.protocol.endpoints import get_run, get_webset_status
from airflow_provider_exa.protocol.errors import ExaError
from airflow_provider_exa.protocol.messages import Call, or_error
from airflow_provider_exa.protocol.models import Dialect, dialect_of
from airflow_provider_exa.protocol.paging import ListedRuns
from airflow_provider_exa.timing import timing
from airflow_provider_exa.waiting.selection import RunsSince, Selector
from airflow_provider_exa.waiting.snapshot import (
    Snapshot,
    missing_runs,
    needs_listing,
    needs_webset,
    take_listing,
    with_run,
    with_webset,
)

T = TypeVar("T")

#: The key of a call for the webset among those for single runs.
WEBSET = ""
#: An oldest-first listing is read whole once in so many polls, as Exa may list a run late.
POLLS_PER_RELISTING = 50


class Subscriber(Protocol):
    """Whoever takes part in the polls of a monitor."""

    @property
    def selector(self) -> Selector:
        """What the next poll has to show."""

    @property
    def interval(self) -> float:
        """Seconds between polls; the shortest of all subscribers counts."""

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """Take in a poll, or the stage that it has come to."""

    def on_error(self, error: Exception) -> None:
        """Take in why a poll has failed, or that the poller has crashed."""


class MonitorPoller:
    """The polls of one monitor, for all its subscribers in an event loop."""

    def __init__(self, client: AsyncClient, dialect: Dialect, monitor_id: str) -> None:
        self.client = client
        self.subscribers: set[Subscriber] = set()
        self.joined = Alarm()
        self._dialect = dialect
        self._monitor_id = monitor_id
        self._is_confirmed = False
        self._webset_id: str | None = None
        self._listed: ListedRuns | None = None
        self._polls = 0
        self._asked: dict[str, asyncio.Task[None]] = {}
        # In a context of its own: its log lines belong to no subscriber's task.
        self.task = contextvars.Context().run(asyncio.get_running_loop().create_task, self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.sleep(random.uniform(0, timing().first_poll_jitter))  # noqa: S311 (no secret)
            while True:
                began = loop.time()
                await self._poll()
                await self._rest(began)
        except Exception as crash:
            for subscriber in self.subscribers:
                subscriber.on_error(crash)
        finally:
            for task in self._asked.values():
                task.cancel()

    async def _poll(self) -> None:
        """List the runs, and ask for single ones beside it: one that is slow holds up nobody else."""
        subscribers = {subscriber: subscriber.selector for subscriber in self.subscribers}
        snapshot = Snapshot(webset_id=self._webset_id)
        if needs_listing(subscribers.values()):
            try:
                snapshot = await self._list(snapshot, subscribers)
            except ExaError as error:
                for subscriber in subscribers:
                    subscriber.on_error(error)
                return
            self._publish(snapshot, subscribers)
        self._ask_for_runs(snapshot, subscribers)

    async def _list(self, snapshot: Snapshot, subscribers: Mapping[Subscriber, Selector]) -> Snapshot:
        selectors = set(subscribers.values())
        call = take_listing(
            snapshot,
            self._dialect,
            self._monitor_id,
            selectors,
            # A wait has seen that its monitor exists before it comes here; an asset has not.
            confirm=not self._is_confirmed and any(isinstance(each, RunsSince) for each in selectors),
            earlier=self._listed if self._polls % POLLS_PER_RELISTING else None,
        )
        self._polls += 1
        patience = timing().listing_patience
        slow = asyncio.get_running_loop().call_later(patience, self._ask_for_runs, snapshot, subscribers)
        try:
            snapshot = await self.client.call(call)
        finally:
            slow.cancel()
        self._listed = snapshot.resume
        self._is_confirmed = bool(self._is_confirmed or snapshot.runs or snapshot.monitor)
        return snapshot

    def _publish(self, snapshot: Snapshot, subscribers: Mapping[Subscriber, Selector]) -> None:
        """Tell subscribers what a poll showed, or the stage that it has come to."""
        self._webset_id = snapshot.webset_id or self._webset_id
        for subscriber, selector in subscribers.items():
            if subscriber not in self.subscribers:
                continue
            if error := snapshot.error_for(selector):
                subscriber.on_error(error)
            else:
                _tell(subscriber, snapshot)
        if needs_webset(snapshot, subscribers.values()):
            waiting = {each: selector for each, selector in subscribers.items() if selector.idle}
            call = get_webset_status(self._dialect, self._monitor_id, self._webset_id)
            self._ask(WEBSET, call, waiting, partial(with_webset, snapshot))

    def _ask_for_runs(self, snapshot: Snapshot, subscribers: Mapping[Subscriber, Selector]) -> None:
        """Ask for the runs that are known by their id and that the snapshot lacks."""
        for run_id in missing_runs(snapshot, subscribers.values()):
            waiting = {each: selector for each, selector in subscribers.items() if run_id in selector.run_ids}
            call = get_run(self._dialect, self._monitor_id, run_id, keep_raw=False)
            self._ask(run_id, call, waiting, partial(with_run, snapshot, run_id))

    def _ask(
        self,
        key: str,
        call: Call[T],
        subscribers: Mapping[Subscriber, Selector],
        extend: Callable[[T | ExaError], Snapshot],
    ) -> None:
        """Make a call beside the polls, without retries, unless the last one of its kind is under way."""

        async def ask() -> None:
            try:
                found = await self.client.call(or_error(call), repeat=False)
                self._publish(extend(found), subscribers)
            except Exception as crash:
                for subscriber in subscribers:
                    subscriber.on_error(crash)
            finally:
                del self._asked[key]

        if key not in self._asked:
            self._asked[key] = asyncio.ensure_future(ask())

    async def _rest(self, began: float) -> None:
        """Sleep until the next poll is due, for whoever has subscribed by then."""
        loop, least = asyncio.get_running_loop(), timing().min_poll_interval
        while (left := began + max(least, min(each.interval for each in self.subscribers)) - loop.time()) > 0:
            await self.joined.sleep(left)


def _tell(subscriber: Subscriber, snapshot: Snapshot) -> None:
    """Tell a subscriber what a poll showed; if it crashes, it alone is told so."""
    try:
        subscriber.on_snapshot(snapshot)
    except Exception as crash:
        subscriber.on_error(crash)


class Alarm:
    """
    Wakes one coroutine, which sleeps for so many seconds otherwise.

    Each wait has one: an ``asyncio.Event`` takes most of a kilobyte, and ``wait_for`` makes a task.
    """

    __slots__ = ("_is_set", "_sleeper")

    def __init__(self) -> None:
        self._is_set = False
        self._sleeper: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Wake the coroutine, or let its next sleep end at once."""
        self._is_set = True
        if self._sleeper and not self._sleeper.done():
            self._sleeper.set_result(None)

    async def sleep(self, seconds: float) -> None:
        """Sleep until the alarm is set or so many seconds have passed, and clear it."""
        if not self._is_set:
            loop = asyncio.get_running_loop()
            self._sleeper = loop.create_future()
            timer = loop.call_later(seconds, self.set)
            try:
                await self._sleeper
            finally:
                timer.cancel()
                self._sleeper = None
        self._is_set = False


#: By event loop and connection, and by the API and monitor as well; entries end with their last subscriber.
_clients: dict[tuple[asyncio.AbstractEventLoop, str], tuple[AsyncClient, set[MonitorPoller]]] = {}
_pollers: dict[tuple[asyncio.AbstractEventLoop, str, str, str], MonitorPoller] = {}


@contextmanager
def subscribe(subscriber: Subscriber, conn_id: str, api: str, monitor_id: str) -> Iterator[MonitorPoller]:
    """Let a subscriber take part in the polls of a monitor for the length of a ``with`` block."""
    loop, dialect = asyncio.get_running_loop(), dialect_of(api)
    key = (loop, conn_id, api, monitor_id)
    if (loop, conn_id) not in _clients:
        _clients[loop, conn_id] = (AsyncClient(conn_id), set())
    client, pollers = _clients[loop, conn_id]
    poller = _pollers.get(key)
    if poller is None or poller.task.done():
        poller = _pollers[key] = MonitorPoller(client, dialect, monitor_id)
        pollers.add(poller)
    poller.subscribers.add(subscriber)
    poller.joined.set()
    try:
        yield poller
    finally:
        poller.subscribers.discard(subscriber)
        if not poller.subscribers:
            poller.task.cancel()
            if _pollers.get(key) is poller:
                del _pollers[key]
            pollers.discard(poller)
            if not pollers:
                client.close()
                del _clients[loop, conn_id]
