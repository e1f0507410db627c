"""Triggers for deferred tasks and assets."""

from __future__ import annotations

import asyncio
import inspect
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any

import pendulum
from airflow.providers.common.compat.sdk import conf
from airflow.triggers.base import BaseTrigger, TriggerEvent
from pendulum import DateTime

from airflow_provider_exa.events.trigger import ExaMonitorRunEventTrigger
from airflow_provider_exa.protocol.errors import ExaError
from airflow_provider_exa.protocol.validation import as_time
from airflow_provider_exa.timing import timing
from airflow_provider_exa.waiting.outcome import FAIL_ON, is_decided
from airflow_provider_exa.waiting.progress import Progress
from airflow_provider_exa.waiting.selection import RunSelector, StartedRun
from airflow_provider_exa.waiting.waiter import wait_for_run, wait_for_runs

__all__ = [
    "ExaMonitorRunEventTrigger",
    "ExaMonitorRunTrigger",
    "ExaMonitorRunsTrigger",
    "ExaStartedRunTrigger",
]


def first_event_after() -> float:
    """
    Return the seconds from a trigger's start to its event.

    Airflow may notice only at the workers' next heartbeat that the process of a deferred task has ended; an
    event that comes before that costs the task a try.
    """
    heartbeat = conf.getfloat("workers", "min_heartbeat_interval", fallback=5)
    return float(heartbeat) + timing().first_event_margin


class ExaWaitTrigger(BaseTrigger):
    """
    Wait and fire once: with what was waited for, or with the error of Exa's that ended the wait.

    A task polls once before it defers, so trouble at Exa is waited out from the start. The trigger is made
    anew from its arguments wherever it goes on, in this version of the package or another: they are ids,
    times and numbers, never a key, and unknown ones are ignored.

    :param poll_interval: seconds between polls; waits on the same monitor share them
    :param max_poll_interval: if given, the interval doubles with each poll up to so many seconds
    :param exa_conn_id: the Airflow connection
    :param api: which of Exa's monitor APIs to ask
    :param started_at: when the task first started, in ISO 8601; now without it
    """

    def __init__(
        self,
        *,
        poll_interval: float = 60,
        max_poll_interval: float | None = None,
        exa_conn_id: str = "exa_default",
        api: str = "websets",
        started_at: str | None = None,
        **_unknown: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.poll_interval = poll_interval
        self.max_poll_interval = max_poll_interval
        self.exa_conn_id = exa_conn_id
        self.api = api
        self.started_at = started_at or pendulum.now("UTC").isoformat()

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and the arguments to make the same trigger of."""
        named = (inspect.signature(each).parameters for each in (type(self), ExaWaitTrigger))
        names = {name: None for parameters in named for name in parameters}
        arguments = {name: getattr(self, name) for name in names if name not in ("options", "_unknown")}
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait; an expected error is an event, any other is raised with its traceback."""
        began = time.monotonic()
        try:
            payload = await self.wait()
        except ExaError as error:
            payload = {"error": str(error), "type": type(error).__name__}
        await asyncio.sleep(max(0.0, began + first_event_after() - time.monotonic()))
        yield TriggerEvent(payload)  # type: ignore[no-untyped-call]

    @abstractmethod
    async def wait(self) -> dict[str, Any]:
        """Wait for the payload of the event."""

    def progress(self, monitor_id: str, selector: RunSelector | StartedRun) -> Progress:
        """Return where the wait for a run of a monitor begins."""
        return Progress(monitor_id, selector, self._started_at, has_answered=True)

    @property
    def _started_at(self) -> DateTime:
        return as_time("started_at", self.started_at)

    @property
    def _options(self) -> dict[str, Any]:
        """How to poll, as :func:`~airflow_provider_exa.waiting.waiter.wait_for_run` takes it."""
        return {
            "conn_id": self.exa_conn_id,
            "api": self.api,
            "interval": self.poll_interval,
            "max_interval": self.max_poll_interval or self.poll_interval,
            "log": self.log,
        }


class ExaMonitorRunsTrigger(ExaWaitTrigger):
    """
    Fire when enough runs have ended, one of each monitor.

    The event is ``{"runs": {monitor id: run as a dict, …}}``, or ``{"error": message, "type": class}``.

    :param selectors: which run of each monitor, by monitor id: ``{"run_id": …, "created_after": …, "pick": …,
        "idle": …}`` with one of the first three, times in ISO 8601
    :param runs: the runs that had ended when the task deferred, as dicts, by monitor id
    :param needed: how many runs must end well; all of them without it
    :param fail_on: the outcomes that are not well; it fires, too, once there are too many of them
    :param options: those of :class:`ExaWaitTrigger`
    """

    def __init__(
        self,
        selectors: Mapping[str, Mapping[str, Any]],
        needed: int | None = None,
        fail_on: Sequence[str] = FAIL_ON,
        *,
        runs: Mapping[str, Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.selectors = selectors
        self.runs = runs or {}
        self.needed = needed
        self.fail_on = fail_on

    async def wait(self) -> dict[str, Any]:
        """Wait for the runs."""
        total = len({*self.selectors, *self.runs})
        is_enough = partial(is_decided, fail_on=self.fail_on, needed=self.needed or total, total=total)
        waits = [
            self.progress(monitor_id, RunSelector.from_dict(selector).resolve(self._started_at))
            for monitor_id, selector in self.selectors.items()
            if monitor_id not in self.runs
        ]
        return {"runs": await wait_for_runs(waits, self.runs, is_enough, **self._options)}


class ExaMonitorRunTrigger(ExaMonitorRunsTrigger):
    """
    Fire when one run of a monitor has ended, for operators of your own.

    The event is ``{"run": the run as a dict}``, or ``{"error": message, "type": class}``.

    :param monitor_id: the monitor
    :param run_id: the run, or one of
    :param created_after: the earliest run created at or after this moment, in ISO 8601
    :param pick: ``latest`` or ``next``
    :param idle: whether to wait, after it has completed, until its webset is idle
    :param options: those of :class:`ExaWaitTrigger`
    """

    def __init__(
        self,
        monitor_id: str,
        run_id: str | None = None,
        created_after: str | None = None,
        pick: str | None = None,
        *,
        idle: bool = False,
        **options: Any,
    ) -> None:
        selector = RunSelector(run_id, created_after, pick, idle)
        super().__init__({monitor_id: selector.as_dict()}, fail_on=(), **options)
        self.monitor_id = monitor_id
        self.run_id = run_id
        self.created_after = created_after
        self.pick = pick
        self.idle = idle

    async def wait(self) -> dict[str, Any]:
        """Wait for the run."""
        return {"run": (await super().wait())["runs"][self.monitor_id]}


class ExaStartedRunTrigger(ExaWaitTrigger):
    """
    Fire when the run that a task has started of an Exa monitor has ended.

    The event is ``{"run": the run as a dict}``, or ``{"error": message, "type": class}``.

    :param monitor_id: the monitor
    :param created_after: when the newest run known before was created, in ISO 8601
    :param previous_run_id: its id; None if that run is meant
    :param options: those of :class:`ExaWaitTrigger`
    """

    def __init__(
        self, monitor_id: str, created_after: str, previous_run_id: str | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.monitor_id = monitor_id
        self.created_after = created_after
        self.previous_run_id = previous_run_id

    async def wait(self) -> dict[str, Any]:
        """Wait for the run; if it was canceled, then for one that was started meanwhile."""
        selector = StartedRun(as_time("created_after", self.created_after), self.previous_run_id)
        progress = self.progress(self.monitor_id, selector)
        canceled = None
        run = await wait_for_run(progress, **self._options)
        while run.status == "canceled" and run.id != canceled:
            canceled = run.id
            await asyncio.sleep(timing().replacement_delay)
            run = await wait_for_run(progress, **self._options)
        return {"run": run.as_dict()}
