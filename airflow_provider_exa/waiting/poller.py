"""
Who polls: in a worker a task for itself, in a triggerer one poller for all who need the same monitor.

A :class:`MonitorPoller` is the loop of one monitor's polls. It begins with its first subscriber, ends with
its last, and polls at the shortest interval that any of them asks for. A :class:`RunWaiter` subscribes for
one wait; an asset's stream subscribes for its cursor.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import pendulum

from airflow_provider_exa.client.async_client import AsyncClient
from airflow_provider_exa.client.client import Client
from airflow_provider_exa.protocol.errors import ExaError
from airflow_provider_exa.protocol.models import Dialect, Monitor, MonitorRun, dialect_of
from airflow_provider_exa.protocol.paging import ListedRuns
from airflow_provider_exa.timing import timing
from airflow_provider_exa.waiting.progress import Progress
from airflow_provider_exa.waiting.selection import RunsSince, Selector
from airflow_provider_exa.waiting.snapshot import Observation, Snapshot, take_snapshot

#: The longest interval, in seconds, that exponential backoff comes to by itself.
MAX_BACKOFF_INTERVAL = 3600.0
#: An oldest-first listing is read whole once in so many polls, as Exa may list a run late.
POLLS_PER_RELISTING = 50


def poll_once(
    client: Client, api: str, progress: Progress, *, confirm: bool, deadline: float | None = None
) -> tuple[Observation, Monitor | None]:
    """
    Poll for one wait, in a worker; return what was seen, and the monitor where it was asked for.

    :param confirm: whether to ask for the monitor where there is no run yet
    :param deadline: no request outlasts this moment of ``time.monotonic()``
    """
    dialect, selectors = dialect_of(api), [progress.selector]
    webset_id = progress.webset_id
    poll = take_snapshot(dialect, progress.monitor_id, selectors, webset_id=webset_id, confirm=confirm)
    try:
        snapshot = client.call(poll, deadline=deadline)
    except ExaError as error:
        return Observation(error=error), None
    progress.webset_id = snapshot.webset_id or progress.webset_id
    if snapshot.monitor_error:
        return Observation(error=snapshot.monitor_error), None
    return snapshot.observe(progress.selector) or Observation(), snapshot.monitor


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
        self.joined = asyncio.Event()
        self._dialect = dialect
        self._monitor_id = monitor_id
        self._is_confirmed = False
        self._webset_id: str | None = None
        self._listed: ListedRuns | None = None
        self._polls = 0
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

    async def _poll(self) -> None:
        subscribers = {subscriber: subscriber.selector for subscriber in self.subscribers}
        selectors = set(subscribers.values())

        def publish(snapshot: Snapshot) -> None:
            for subscriber, selector in subscribers.items():
                if not snapshot.error_for(selector):
                    _tell(subscriber, snapshot)

        # A wait has seen that its monitor exists before it comes here; an asset has not.
        confirm = not self._is_confirmed and any(isinstance(each, RunsSince) for each in selectors)
        poll = take_snapshot(
            self._dialect,
            self._monitor_id,
            selectors,
            webset_id=self._webset_id,
            confirm=confirm,
            earlier=self._listed if self._polls % POLLS_PER_RELISTING else None,
            publish=publish,
        )
        self._polls += 1
        try:
            snapshot = await self.client.call(poll)
        except ExaError as error:
            for subscriber in subscribers:
                subscriber.on_error(error)
        else:
            for subscriber, selector in subscribers.items():
                if listing_error := snapshot.error_for(selector):
                    subscriber.on_error(listing_error)
            self._webset_id = snapshot.webset_id or self._webset_id
            self._listed = snapshot.resume
            self._is_confirmed = bool(self._is_confirmed or snapshot.runs or snapshot.monitor)

    async def _rest(self, began: float) -> None:
        """Sleep until the next poll is due, for whoever has subscribed by then."""
        loop = asyncio.get_running_loop()
        while (left := began + min(each.interval for each in self.subscribers) - loop.time()) > 0:
            await _wait_for(self.joined, left)


def _tell(subscriber: Subscriber, snapshot: Snapshot) -> None:
    """Tell a subscriber what a poll showed; if it crashes, it alone is told so."""
    try:
        subscriber.on_snapshot(snapshot)
    except Exception as crash:
        subscriber.on_error(crash)


async def _wait_for(event: asyncio.Event, seconds: float) -> None:
    """Wait until the event is set or so many seconds have passed, and clear it; ``wait_for`` makes a task."""
    timer = asyncio.get_running_loop().call_later(seconds, event.set)
    try:
        await event.wait()
    finally:
        timer.cancel()
    event.clear()


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


class RunWaiter:
    """
    One wait for one run, in the triggerer.

    :param progress: where the wait begins
    :param interval: seconds between polls
    :param max_interval: the interval doubles up to this with each poll that is the wait's own
    """

    def __init__(self, progress: Progress, interval: float, max_interval: float) -> None:
        self.progress = progress
        self.interval = interval
        self._max_interval = max_interval
        self._polled_at = -float("inf")
        self._observation: Observation | None = None
        self._monitor: Monitor | None = None
        self._news = asyncio.Event()

    @property
    def selector(self) -> Selector:
        """What is waited for; once that is known, the run by its id."""
        return self.progress.selector

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """Take in what a poll showed of the run."""
        observation = snapshot.observe(self.progress.selector)
        if observation is not None:
            self._take_in(observation, snapshot.monitor)

    def on_error(self, error: Exception) -> None:
        """Take in that a poll has failed."""
        self._take_in(Observation(error=error), None)

    def _take_in(self, observation: Observation, monitor: Monitor | None) -> None:
        """Wake the wait if there is news."""
        if observation.is_missing or _gist(observation) != _gist(self._observation):
            self._news.set()
        self._observation, self._monitor = observation, monitor
        now = time.monotonic()
        if now - self._polled_at >= 0.9 * self.interval:
            self.interval = min(self.interval * 2, max(self.interval, self._max_interval))
            self._polled_at = now

    async def wait(self, log: Any) -> MonitorRun:
        """
        Wait until the run has ended.

        :param log: where the wait's own lines go
        :raises ExaError: the wait ends without a run
        """
        taken_in: Observation | None = None
        while True:
            await _wait_for(self._news, timing().repeat_log_after)
            observation = self._observation
            # Without a poll in between, a run is not missing for the second time.
            if observation is None or (observation.is_missing and observation is taken_in):
                continue
            taken_in = observation
            if line := self.progress.observe(observation, pendulum.now("UTC"), self._monitor):
                log.log(*line)
            if run := observation.ended_run:
                return run


def _gist(observation: Observation | None) -> object:
    """Return what differs where there is news; trouble that is waited out is none while it lasts."""
    if observation is None:
        return None
    run, error = observation.run, observation.error
    return run and (run.id, run.status), observation.webset_status, type(error), observation.is_missing


async def wait_for_run(
    progress: Progress, *, conn_id: str, api: str, interval: float, max_interval: float, log: Any
) -> MonitorRun:
    """
    Wait, in the triggerer, until a run has ended.

    :param interval: seconds between polls; the shortest that anybody on the monitor asks for counts
    :param max_interval: the interval doubles up to this with each poll that is the wait's own
    :param log: where the wait's own lines go
    :raises ExaError: the wait ends without a run
    """
    waiter = RunWaiter(progress, interval, max_interval)
    with subscribe(waiter, conn_id, api, progress.monitor_id):
        return await waiter.wait(log)


async def wait_for_runs(
    waits: Collection[Progress],
    runs: Mapping[str, Mapping[str, Any]],
    is_enough: Callable[[Collection[Mapping[str, Any]]], bool],
    **options: Any,
) -> dict[str, Mapping[str, Any]]:
    """
    Wait, in the triggerer, until enough runs of several monitors have ended; return them by monitor id.

    :param runs: the runs that have ended already, as dicts, by monitor id
    :param is_enough: whether runs that have ended decide the rest
    :param options: those of :func:`wait_for_run`
    """
    ended = dict(runs)
    if len(waits) == 1 and not is_enough(ended.values()):
        (wait,) = waits  # without a task of its own, which takes as much memory as all the rest
        return {**ended, wait.monitor_id: (await wait_for_run(wait, **options)).as_dict()}
    tasks = {asyncio.ensure_future(wait_for_run(wait, **options)): wait.monitor_id for wait in waits}
    try:
        while tasks and not is_enough(ended.values()):
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            ended |= {tasks.pop(task): task.result().as_dict() for task in done}
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return ended
