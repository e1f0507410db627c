"""The operator that starts a run of a monitor."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.providers.common.compat.sdk import conf
from airflow.sdk import BaseOperator
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from airflow_provider_exa.hooks import ExaHook
from airflow_provider_exa.links import ExaWebsetLink
from airflow_provider_exa.protocol.endpoints import list_runs
from airflow_provider_exa.protocol.errors import ExaError, ExaNotStartedError, ExaTransientError
from airflow_provider_exa.protocol.models import MonitorRun, dialect_of
from airflow_provider_exa.protocol.paging import newest_runs
from airflow_provider_exa.protocol.validation import as_time, check_id, check_seconds, check_words
from airflow_provider_exa.task_state import forget, recall, remember
from airflow_provider_exa.triggers import ExaStartedRunTrigger
from airflow_provider_exa.waiting.outcome import FAIL_ON, raise_for_outcome, unwrap_event
from airflow_provider_exa.waiting.progress import Progress
from airflow_provider_exa.waiting.selection import StartedRun
from airflow_provider_exa.waiting.snapshot import look, run_of

if TYPE_CHECKING:
    from airflow.sdk import Context

STATE_KEY = "exa_trigger"
#: Seconds from a trigger until its run is surely listed, which Exa does not say, and between looks for it.
LISTING_DELAY = 60.0
LISTING_INTERVAL = 2.0


class ExaTriggerMonitorOperator(BaseOperator):
    """
    Start a run of an Exa search monitor now; returns the run as a dict.

    If the monitor's newest run has not ended, it is joined instead, as Exa would cancel it for a new one.
    Where two tasks start one at the very same time, both follow the same: the newer run, if Exa cancels the
    older one for it, or the older one, if Exa refuses to start another.

    A retry, after the death of its worker, too, follows the run that the task started, or looks for a minute
    whether it did, and starts another only if that one failed the task; a task that is cleared does so if
    that run has ended. Before Airflow 3.3 nothing is remembered: then only a run that has not ended keeps a
    retry from starting another.

    :param monitor_id: the monitor (templated)
    :param wait_for_completion: whether to wait until the run has ended; only ``execution_timeout`` ends that.
        Else the run is returned as soon as Exa lists it
    :param fail_on: the outcomes that fail a task that waits; ``()`` passes every outcome on
    :param poll_interval: seconds between polls
    :param exa_conn_id: the Airflow connection (templated)
    :param api: which of Exa's monitor APIs the monitor belongs to; Websets can start none
    :param deferrable: wait in the triggerer, where all waits on a monitor share one poll
    :raises ExaPermanentError: Exa refuses what is asked
    :raises ExaTransientError: Exa cannot answer, or starts no run, or lists none within a minute, or the run
        ended in one of the ways that ``fail_on`` names; another may not
    """

    template_fields: Sequence[str] = ("monitor_id", "exa_conn_id")
    ui_color: str = "#e8ecff"
    operator_extra_links = (ExaWebsetLink(),)

    def __init__(
        self,
        *,
        monitor_id: str,
        wait_for_completion: bool = False,
        fail_on: Collection[str] = FAIL_ON,
        poll_interval: float = 60,
        exa_conn_id: str = "exa_default",
        api: str = "search",
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_id("monitor_id", monitor_id)
        check_words("fail_on", fail_on, FAIL_ON)
        check_seconds("poll_interval", poll_interval)
        dialect_of(api, trigger="starting a run")
        self.monitor_id = monitor_id
        self.wait_for_completion = wait_for_completion
        self.fail_on = fail_on
        self.poll_interval = poll_interval
        self.exa_conn_id = exa_conn_id
        self.api = api
        self.deferrable = deferrable

    def execute(self, context: Context) -> dict[str, Any]:
        """Start a run, unless an earlier process of this task has, and wait for it."""
        hook = ExaHook(self.exa_conn_id, self.api)
        started = self._started_before(hook, context) or self._start(hook, context)
        if not self.wait_for_completion:
            run = self._find(hook, started, LISTING_DELAY)
            if run is None:
                raise ExaTransientError(
                    f"Exa has started a run of monitor {self.monitor_id}, but lists none after "
                    f"{LISTING_DELAY:g} s. A retry looks for it again and starts no other."
                )
            return run.as_dict()
        trigger = ExaStartedRunTrigger(
            self.monitor_id,
            started.created_after.isoformat(),
            started.known,
            poll_interval=self.poll_interval,
            exa_conn_id=self.exa_conn_id,
            api=self.api,
            looked=True,
        )
        if self.deferrable:
            self.defer(trigger=trigger, method_name="execute_complete", timeout=self.execution_timeout)
        progress = Progress(pendulum.now("UTC"), looked=True)
        return self.execute_complete(context, asyncio.run(trigger.wait(progress)))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Judge the run that the trigger brings."""
        run: dict[str, Any] = unwrap_event(event)
        raise_for_outcome([run], self.fail_on, error=ExaTransientError)
        return run

    def _started_before(self, hook: ExaHook, context: Context) -> StartedRun | None:
        """The run that an earlier process of this task started, unless the task is to start another."""
        kept, cleared = recall(context, STATE_KEY)
        if kept is None:
            return None
        started = StartedRun(as_time("created_after", kept["created_after"]), kept["known"])
        age = (pendulum.now("UTC") - as_time("at", kept["at"])).total_seconds()
        if cleared and age > LISTING_DELAY:
            return None  # if it has not ended, it is the newest and will be joined
        sure = kept["certain"] and not cleared
        self.log.info("An earlier process of this task %s a run.", "started" if sure else "may have started")
        # What is not certain was remembered before Exa was asked, which may have taken minutes.
        run = self._find(hook, started, LISTING_DELAY - (age if kept["certain"] else 0))
        if run is None:
            return started if sure else None
        failed = self.wait_for_completion and run.status in self.fail_on
        if run.finished and (cleared or failed):
            return None
        return started if sure else self._remember(context, started, certain=True)

    def _start(self, hook: ExaHook, context: Context) -> StartedRun:
        """Start a run, or join the one that has not ended; what is known before is remembered first."""
        newest = self._newest(hook)
        if newest is None:
            hook.get_monitor(self.monitor_id)
        elif not newest.finished:
            return self._join(context, newest)
        known = StartedRun(newest.created_at, newest.id) if newest else StartedRun(pendulum.from_timestamp(0))
        self._remember(context, known, certain=False)
        try:
            hook.trigger_monitor(self.monitor_id)
        except ExaNotStartedError:
            forget(context, STATE_KEY)
            newest = self._newest(hook)
            if newest is None or newest.finished:
                raise
            return self._join(context, newest)  # which somebody started meanwhile
        except ExaError as error:
            if not isinstance(error, ExaTransientError) or error.repeatable:
                forget(context, STATE_KEY)  # nothing was started
                raise
            if self._find(hook, known, LISTING_DELAY) is None:
                raise
        self.log.info("Exa has started a run of monitor %s.", self.monitor_id)
        return self._remember(context, known, certain=True)

    def _newest(self, hook: ExaHook) -> MonitorRun | None:
        runs = hook.call(newest_runs(list_runs(hook.dialect, self.monitor_id), 1, lambda _: True, None))
        return runs[0] if runs else None

    def _join(self, context: Context, run: MonitorRun) -> StartedRun:
        self.log.info("Run %s is %s, so no other is started.", run.id, run.status)
        return self._remember(context, StartedRun(run.created_at), certain=True)

    def _remember(self, context: Context, started: StartedRun, *, certain: bool) -> StartedRun:
        moments = {"created_after": started.created_after.isoformat(), "at": pendulum.now("UTC").isoformat()}
        remember(context, STATE_KEY, {**asdict(started), **moments, "certain": certain})
        return started

    def _find(self, hook: ExaHook, started: StartedRun, seconds: float) -> MonitorRun | None:
        """The run, if Exa lists it within so many seconds; a canceled one only if no other comes."""

        def once() -> MonitorRun | None:
            (sight,) = hook.call(look(hook.dialect, self.monitor_id, [started]))[0].values()
            if isinstance(sight, Exception):
                raise sight
            return run_of(sight)

        until_there = Retrying(
            retry=retry_if_result(lambda run: run is None or run.status == "canceled"),
            stop=stop_after_delay(seconds),
            wait=wait_fixed(LISTING_INTERVAL),
            retry_error_callback=lambda last: last.outcome and last.outcome.result(),
        )
        run: MonitorRun | None = until_there(once)
        return run
