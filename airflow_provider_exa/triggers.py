"""The triggers: what a deferred task leaves behind in the triggerer."""

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

from airflow_provider_exa.events.trigger import ExaMonitorRunEventTrigger
from airflow_provider_exa.protocol.errors import ExaError
from airflow_provider_exa.protocol.validation import as_time
from airflow_provider_exa.waiting import poller
from airflow_provider_exa.waiting.outcome import FAIL_ON, is_decided
from airflow_provider_exa.waiting.progress import Progress
from airflow_provider_exa.waiting.selection import RunSelector, StartedRun

__all__ = [
    "ExaMonitorRunEventTrigger",
    "ExaMonitorRunTrigger",
    "ExaMonitorRunsTrigger",
    "ExaStartedRunTrigger",
]

#: Seconds from a trigger's start to its event. Airflow may notice as late as its workers' heartbeat that the
#: process which deferred a task has ended; an event that comes before that costs the task a try.
FIRST_EVENT_AFTER = conf.getfloat("workers", "min_heartbeat_interval", fallback=5) + 5


#: Seconds from the cancelation of a run until one that was started in its place is surely listed.
REPLACEMENT_DELAY = 10.0


#: Seconds after which a wait that starts is taken for one that a restarted triggerer goes on with.
RESUMED_AFTER = 60.0


class ExaWaitTrigger(BaseTrigger):
    """
    Waits and fires once: with what was waited for, or with the error of Exa's that ended the wait.

    A trigger is made anew from its arguments wherever it goes on, so they are ids and numbers, never a key.

    :param poll_interval: seconds between polls; waits on the same monitor share them
    :param max_poll_interval: if given, the interval doubles with each poll up to so many seconds
    :param exa_conn_id: the Airflow connection
    :param api: which of Exa's monitor APIs to ask
    :param started_at: when the wait began, in ISO 8601; now without it
    :param looked: whether Exa has answered before, so that trouble is waited out from the start
    """

    def __init__(
        self,
        *,
        poll_interval: float = 60,
        max_poll_interval: float | None = None,
        exa_conn_id: str = "exa_default",
        api: str = "websets",
        started_at: str | None = None,
        looked: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.poll_interval = poll_interval
        self.max_poll_interval = max_poll_interval
        self.exa_conn_id = exa_conn_id
        self.api = api
        self.started_at = started_at or pendulum.now("UTC").isoformat()
        self.looked = looked

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and the arguments to make the same trigger of."""
        names = [*inspect.signature(type(self)).parameters, *inspect.signature(ExaWaitTrigger).parameters]
        arguments = {name: getattr(self, name) for name in names if name != "options"}
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait; an error that was to be expected is an event, any other is raised with its traceback."""
        began = time.monotonic()
        started_at = as_time("started_at", self.started_at)
        age = (pendulum.now("UTC") - started_at).total_seconds()
        try:
            payload = await self.wait(Progress(started_at, looked=self.looked or age > RESUMED_AFTER))
        except ExaError as error:
            payload = {"error": str(error), "type": type(error).__name__}
        await asyncio.sleep(max(0.0, began + FIRST_EVENT_AFTER - time.monotonic()))
        yield TriggerEvent(payload)  # type: ignore[no-untyped-call]

    @abstractmethod
    async def wait(self, progress: Progress) -> dict[str, Any]:
        """Wait for the payload of the event."""

    @property
    def options(self) -> dict[str, Any]:
        """How to poll, as :func:`~airflow_provider_exa.waiting.poller.wait_for_run` takes it."""
        return {
            "conn_id": self.exa_conn_id,
            "api": self.api,
            "interval": self.poll_interval,
            "max_interval": self.max_poll_interval or self.poll_interval,
            "log": self.log,
        }


class ExaMonitorRunTrigger(ExaWaitTrigger):
    """
    Fires when one run of an Exa monitor has ended.

    The event is ``{"run": the run as a dict, "ended": whether the wait has, "webset_id": …}``, or ``{"error":
    message, "type": class}``. With ``pick="latest"`` it comes as soon as it is known which run that is.

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
        super().__init__(**options)
        self.monitor_id = monitor_id
        self.run_id = run_id
        self.created_after = created_after
        self.pick = pick
        self.idle = idle

    async def wait(self, progress: Progress) -> dict[str, Any]:
        """Wait for the run."""
        choice = RunSelector(self.run_id, self.created_after, self.pick, self.idle)
        choice = choice.resolve(progress.started_at)
        run, ended = await poller.wait_for_run(
            self.monitor_id, choice, progress, until_ended=choice.pick is None, **self.options
        )
        return {"run": run.as_dict(), "ended": ended, "webset_id": progress.webset_id}


class ExaStartedRunTrigger(ExaWaitTrigger):
    """
    Fires when the run that a task has started of an Exa monitor has ended.

    The event is ``{"run": the run as a dict}``, or ``{"error": message, "type": class}``.

    :param monitor_id: the monitor
    :param created_after: when the newest run known before was created, in ISO 8601
    :param known: its id; None if that run is meant
    :param options: those of :class:`ExaWaitTrigger`
    """

    def __init__(
        self,
        monitor_id: str,
        created_after: str,
        known: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.monitor_id = monitor_id
        self.created_after = created_after
        self.known = known

    async def wait(self, progress: Progress) -> dict[str, Any]:
        """Wait for the run; if it was canceled, then for one that was started meanwhile."""
        choice = StartedRun(as_time("created_after", self.created_after), self.known)
        wait = partial(poller.wait_for_run, self.monitor_id, choice, progress, **self.options)
        canceled = None
        run, _ = await wait()
        while run.status == "canceled" and run.id != canceled:
            canceled = run.id
            await asyncio.sleep(REPLACEMENT_DELAY)
            run, _ = await wait()
        return {"run": run.as_dict()}


class ExaMonitorRunsTrigger(ExaWaitTrigger):
    """
    Fires when enough runs of several Exa monitors have ended.

    The event is ``{"runs": {monitor id: run as a dict, …}, "webset_id": that of all, if they share one}``, or
    ``{"error": message, "type": class}``.

    :param choices: by monitor id ``{"run_id": …}`` or ``{"created_after": …}``, a time in ISO 8601
    :param needed: how many runs must end without failing the task
    :param fail_on: the outcomes that fail it; it fires, too, once there are too many of them
    :param options: those of :class:`ExaWaitTrigger`
    """

    def __init__(
        self,
        choices: Mapping[str, Mapping[str, Any]],
        needed: int,
        fail_on: Sequence[str] = FAIL_ON,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.choices = choices
        self.needed = needed
        self.fail_on = fail_on

    async def wait(self, progress: Progress) -> dict[str, Any]:
        """Wait for the runs."""
        choices = {
            monitor_id: RunSelector(**choice).resolve(progress.started_at)
            for monitor_id, choice in self.choices.items()
        }
        enough = partial(is_decided, fail_on=self.fail_on, needed=self.needed, total=len(choices))
        runs = await poller.wait_for_runs(choices, progress, enough=enough, **self.options)
        return {"runs": runs, "webset_id": progress.webset_id}
