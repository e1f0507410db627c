"""
The shared poller: all who wait on a monitor in one event loop share one poll.

An :class:`AsyncClient` is a connection's session and rate limit, a :class:`MonitorPoller` is one monitor's
loop of polls, and a :class:`RunWaiter` is one wait. Clients and pollers begin with their first subscriber and
end with their last.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import pendulum

from airflow_provider_exa.client.async_client import AsyncClient
from airflow_provider_exa.protocol.errors import ExaError
from airflow_provider_exa.protocol.models import Monitor, MonitorRun, dialect_of
from airflow_provider_exa.waiting.progress import REPEAT_LOG_AFTER, Progress
from airflow_provider_exa.waiting.selection import RunSelector, Selector, StartedRun
from airflow_provider_exa.waiting.snapshot import Sight, look, run_of

#: How many seconds the first poll of a monitor may be put off, so that a restart is no burst.
JITTER = 2.0


class Subscriber(Protocol):
    """
    Who takes part in the polls of a monitor.

    :param choice: what to look for
    :param interval: seconds between polls; the shortest of all watchers counts
    :param told: whether a look has been taken in, so that the monitor is known
    """

    interval: float
    told: bool

    @property
    def choice(self) -> Selector: ...

    def tell(self, sight: Sight, monitor: Monitor | None = None) -> None:
        """Take in what a poll showed."""


class RunWaiter:
    """
    One wait for one run.

    :param choice: which run, settled; once it is found, that run by its id
    :param interval: seconds between polls
    :param max_interval: what the interval doubles up to with each poll
    """

    def __init__(self, choice: RunSelector | StartedRun, interval: float, max_interval: float) -> None:
        self.choice = choice
        self.interval = interval
        self.max_interval = max_interval
        self.told = False
        self.sight: Sight = None
        self.monitor: Monitor | None = None
        self._news = asyncio.Event()

    def tell(self, sight: Sight, monitor: Monitor | None = None) -> None:
        """Take in what a poll showed; wakes the wait only if that is news."""
        if not self.told or _gist(sight) != _gist(self.sight):
            self._news.set()
        self.told, self.sight, self.monitor = True, sight, monitor
        self.interval = min(self.interval * 2, self.max_interval)
        if (run := run_of(sight)) and isinstance(self.choice, RunSelector):
            self.choice = self.choice.pin(run.id)

    async def news(self) -> None:
        """Return when there is news, or when it is time to say again how things are."""
        while True:
            await _set_or_after(self._news, REPEAT_LOG_AFTER.total_seconds())
            if self.told:
                return


async def _set_or_after(event: asyncio.Event, seconds: float) -> None:
    """Return when the event is set, or after so many seconds, and clear it; ``wait_for`` makes a task."""
    timer = asyncio.get_running_loop().call_later(seconds, event.set)
    try:
        await event.wait()
    finally:
        timer.cancel()
    event.clear()


def _gist(sight: Sight) -> object:
    run = run_of(sight)
    return (run.id, run.status, getattr(sight, "webset", None)) if run else type(sight)


class MonitorPoller:
    """The polls of one monitor, for all its waiters."""

    def __init__(self, line: AsyncClient, api: str, monitor_id: str) -> None:
        self.line = line
        self.waiters: set[Subscriber] = set()
        self.joined = asyncio.Event()
        self._dialect = dialect_of(api)
        self._monitor_id = monitor_id
        self._monitor: Monitor | None = None
        # In a context of its own: its log lines belong to no waiter's task.
        self.task = contextvars.Context().run(asyncio.get_running_loop().create_task, self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.sleep(random.uniform(0, JITTER))  # noqa: S311 (no secret)
            while True:
                began = loop.time()
                await self._poll()
                await self._rest(began)
        except Exception as crash:
            for waiter in self.waiters:
                waiter.tell(crash)

    async def _poll(self) -> None:
        waiters = {waiter: waiter.choice for waiter in self.waiters}
        choices = set(waiters.values())
        first = self._monitor is None and not all(waiter.told for waiter in waiters)
        asked = look(self._dialect, self._monitor_id, choices, first=first, monitor=self._monitor)
        try:
            sights, self._monitor = await self.line.call(asked)
        except ExaError as error:
            for waiter in waiters:
                waiter.tell(error)
            return
        for waiter, choice in waiters.items():
            waiter.tell(sights[choice], self._monitor)

    async def webset_id(self) -> str | None:
        """The monitor's webset, if it can be told."""
        if self._monitor:
            return self._monitor.webset_id
        return await self.line.webset_of(self._dialect, self._monitor_id)

    async def _rest(self, began: float) -> None:
        """Sleep until the next poll is due, for whoever waits by then."""
        loop = asyncio.get_running_loop()
        while (left := began + min(waiter.interval for waiter in self.waiters) - loop.time()) > 0:
            await _set_or_after(self.joined, left)


#: By event loop and connection, and by the API and monitor as well; entries end with their last waiter.
_clients: dict[tuple[asyncio.AbstractEventLoop, str], AsyncClient] = {}


_pollers: dict[tuple[asyncio.AbstractEventLoop, str, str, str], MonitorPoller] = {}


@contextmanager
def subscribe(waiter: Subscriber, conn_id: str, api: str, monitor_id: str) -> Iterator[MonitorPoller]:
    """Let a waiter take part in the polls of a monitor."""
    loop = asyncio.get_running_loop()
    key = (loop, conn_id, api, monitor_id)
    watch = _pollers.get(key)
    if watch is None or watch.task.done():
        line = _clients.setdefault((loop, conn_id), AsyncClient(conn_id))
        watch = _pollers[key] = MonitorPoller(line, api, monitor_id)
        line.watches.add(watch)
    watch.waiters.add(waiter)
    watch.joined.set()
    try:
        yield watch
    finally:
        watch.waiters.discard(waiter)
        if not watch.waiters:
            watch.task.cancel()
            if _pollers.get(key) is watch:
                del _pollers[key]
            watch.line.watches.discard(watch)
            if not watch.line.watches:
                watch.line.close()
                del _clients[loop, conn_id]


async def wait_for_run(
    monitor_id: str,
    choice: RunSelector | StartedRun,
    progress: Progress,
    *,
    conn_id: str,
    api: str,
    interval: float,
    max_interval: float,
    log: Any,
    until_ended: bool = True,
) -> tuple[MonitorRun, bool]:
    """
    The run, and whether the wait for it has ended.

    :param interval: seconds between polls; the shortest that anybody who waits on the monitor asks for counts
    :param max_interval: what the interval doubles up to with each poll
    :param log: where the wait's own lines go
    :param until_ended: else the run is returned as soon as it is there
    :raises ExaError: a permanent error, or any at the first look
    """
    waiter = RunWaiter(choice, interval, max_interval)
    with subscribe(waiter, conn_id, api, monitor_id) as watch:
        while True:
            await waiter.news()
            sight = waiter.sight
            line = progress.saw(sight, pendulum.now("UTC"), waiter.monitor)
            if line:
                log.info("Waiting for %s of monitor %s: %s", choice, monitor_id, line)
            run, ended = run_of(sight), isinstance(sight, MonitorRun) and sight.finished
            if run and (ended or not until_ended):
                progress.webset_id = await watch.webset_id()
                return run, ended


async def wait_for_runs(
    choices: Mapping[str, RunSelector],
    progress: Progress,
    *,
    enough: Callable[[Collection[Mapping[str, Any]]], bool],
    **options: Any,
) -> dict[str, dict[str, Any]]:
    """
    The runs of several monitors as dicts, by monitor id, once enough of them have ended.

    :param choices: which run to wait for, by monitor id
    :param progress: where each wait begins; is told the webset of the runs, if they share one
    :param enough: whether these runs that have ended are enough to decide
    :param options: those of :func:`wait_for_run`
    """
    each = {monitor_id: replace(progress) for monitor_id in choices}
    waits = {
        asyncio.ensure_future(wait_for_run(monitor_id, choice, each[monitor_id], **options)): monitor_id
        for monitor_id, choice in choices.items()
    }
    ended: dict[str, dict[str, Any]] = {}
    try:
        while waits and not enough(ended.values()):
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            ended |= {waits.pop(wait): wait.result()[0].as_dict() for wait in done}
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    websets = {each[monitor_id].webset_id for monitor_id in ended}
    progress.webset_id = websets.pop() if len(websets) == 1 else None
    return {monitor_id: ended[monitor_id] for monitor_id in choices if monitor_id in ended}
