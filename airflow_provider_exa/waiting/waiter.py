"""Waits for runs: one poll of a task in a worker, and waits that take part in the polls of a triggerer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import pendulum

from airflow_provider_exa.client.client import Client
from airflow_provider_exa.protocol.errors import ExaError
from airflow_provider_exa.protocol.models import Monitor, MonitorRun, dialect_of
from airflow_provider_exa.timing import timing
from airflow_provider_exa.waiting.poller import Alarm, subscribe
from airflow_provider_exa.waiting.progress import Progress
from airflow_provider_exa.waiting.selection import Selector
from airflow_provider_exa.waiting.snapshot import Observation, Snapshot, take_snapshot

#: The longest interval, in seconds, that exponential backoff comes to by itself.
MAX_BACKOFF_INTERVAL = 3600.0


def poll_once(
    client: Client,
    api: str,
    progress: Progress,
    *,
    confirm: bool,
    deadline: float | None = None,
    retries: int | None = None,
) -> tuple[Observation, Monitor | None]:
    """
    Poll for one wait, in a worker; return what was seen, and the monitor where it was asked for.

    :param confirm: whether to ask for the monitor where there is no run yet
    :param deadline: no request outlasts this moment of ``time.monotonic()``
    :param retries: how often a request is sent again; None: as the connection says
    """
    dialect, selectors = dialect_of(api), [progress.selector]
    webset_id = progress.webset_id
    poll = take_snapshot(dialect, progress.monitor_id, selectors, webset_id=webset_id, confirm=confirm)
    try:
        snapshot = client.call(poll, deadline=deadline, retries=retries)
    except ExaError as error:
        return Observation(error=error), None
    progress.webset_id = snapshot.webset_id or progress.webset_id
    if snapshot.monitor_error:
        return Observation(error=snapshot.monitor_error), None
    return snapshot.observe(progress.selector) or Observation(), snapshot.monitor


class RunWaiter:
    """
    One wait for one run, in the triggerer.

    :param progress: where the wait begins
    :param interval: seconds between polls
    :param max_interval: the interval doubles up to this with each poll that is the wait's own
    """

    __slots__ = ("_max_interval", "_monitor", "_news", "_observation", "_polled_at", "interval", "progress")

    def __init__(self, progress: Progress, interval: float, max_interval: float) -> None:
        self.progress = progress
        self.interval = max(timing().min_poll_interval, interval)  # else one of 0 could not double
        self._max_interval = max_interval
        self._polled_at = -float("inf")
        self._observation: Observation | None = None
        self._monitor: Monitor | None = None
        self._news = Alarm()

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
            await self._news.sleep(timing().repeat_log_after)
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
            found = {tasks.pop(task): task for task in done}
            ended |= {key: task.result().as_dict() for key, task in found.items() if not task.exception()}
            if not is_enough(ended.values()):
                for task in done:
                    task.result()  # raises why a wait has ended without a run
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return ended
