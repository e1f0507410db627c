"""The operator that starts a run of a monitor."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NoReturn

import pendulum
from airflow.providers.common.compat.sdk import AirflowTaskTimeout, conf
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from airflow_provider_exa.operators.base import CHANGED, LAST_POLL_TIMEOUT, ExaBaseOperator
from airflow_provider_exa.protocol.errors import ExaError, ExaNotStartedError, ExaTransientError
from airflow_provider_exa.protocol.models import MonitorRun, dialect_of
from airflow_provider_exa.protocol.validation import as_time, check_id, check_seconds, check_words
from airflow_provider_exa.task_state import forget, recall, remember
from airflow_provider_exa.timing import timing
from airflow_provider_exa.triggers import ExaStartedRunTrigger
from airflow_provider_exa.waiting.outcome import FAIL_ON, raise_for_outcome, unwrap_event
from airflow_provider_exa.waiting.progress import Progress, describe_time_out
from airflow_provider_exa.waiting.selection import RunSelector, StartedRun
from airflow_provider_exa.waiting.waiter import poll_once

if TYPE_CHECKING:
    from airflow.sdk import Context

STATE_KEY = "exa_trigger"


class ExaTriggerMonitorOperator(ExaBaseOperator):
    """
    Start a run of an Exa search monitor now; return the run as a dict.

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
    :raises ExaPermanentError: Exa refuses the request
    :raises ExaTransientError: Exa cannot answer, or starts no run, or lists none within a minute, or the run
        ended in one of the ways that ``fail_on`` names; another may not
    """

    template_fields: Sequence[str] = ("monitor_id", "exa_conn_id")

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
        super().__init__(exa_conn_id=exa_conn_id, api=api, **kwargs)
        with self.naming_errors():
            check_id("monitor_id", monitor_id)
            check_words("fail_on", fail_on, FAIL_ON)
            check_seconds("poll_interval", poll_interval)
            dialect_of(api, trigger="starting a run")
        self.monitor_id = monitor_id
        self.wait_for_completion = wait_for_completion
        self.fail_on = fail_on
        self.poll_interval = poll_interval
        self.deferrable = deferrable

    def execute(self, context: Context) -> dict[str, Any]:
        """Start a run, unless an earlier process of this task has, and wait for it."""
        began = time.monotonic()
        self.check_rendered()
        started = self._recall(context) or self._start(context)
        self.waits = [Progress(self.monitor_id, started, pendulum.now("UTC"), has_answered=True)]
        with self.naming_time_outs():
            run = self._follow(started, began)
        return run.as_dict() if not self.wait_for_completion else self._check_outcome(run.as_dict())

    def _follow(self, started: StartedRun, began: float) -> MonitorRun:
        """Return the run that was started, where that is asked for once it has ended."""
        if not self.wait_for_completion:
            run = self._find(started)
            if run is None:
                raise ExaTransientError(
                    f"Exa has started a run, but lists none after {timing().run_listed_within:g} s (monitor "
                    f"{self.monitor_id}). A retry looks for it again and starts no other."
                )
            return run
        run = self._wait()
        if run is None:
            self._defer(started, began)
        return run

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return the run that the trigger brings, or raise for how it ended."""
        run: dict[str, Any] = unwrap_event(event)
        if run["monitor_id"] != self.monitor_id:
            raise ExaTransientError(CHANGED)
        self.log.info("Run %s %s (monitor %s).", run["id"], run["status"], self.monitor_id)
        return self._check_outcome(run)

    def _time_out(self, context: Context) -> dict[str, Any]:
        """Poll once more, as the run may have ended since the trigger's last poll; else raise."""
        started = _started(recall(context, STATE_KEY, self._subject)[0])
        began, unknown = pendulum.instance(context["ti"].start_date), StartedRun(pendulum.from_timestamp(0))
        wait = Progress(self.monitor_id, started or unknown, began, has_answered=True)
        run = None
        with suppress(Exception):  # the time-out is the news
            if started:
                deadline = time.monotonic() + LAST_POLL_TIMEOUT
                observation, _ = poll_once(self.hook.client, self.api, wait, confirm=False, deadline=deadline)
                wait.observe(observation, pendulum.now("UTC"))
                run = observation.ended_run
        if run and run.status != "canceled":
            return self._check_outcome(run.as_dict())
        raise AirflowTaskTimeout(describe_time_out([wait]))

    def _check_outcome(self, run: dict[str, Any]) -> dict[str, Any]:
        raise_for_outcome([run], self.fail_on, error=ExaTransientError)
        return run

    @property
    def _subject(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("exa_conn_id", "api", "monitor_id")}

    def _recall(self, context: Context) -> StartedRun | None:
        """Return the run that this task has started before, unless it is to start another."""
        kept, was_cleared = recall(context, STATE_KEY, self._subject)
        started = _started(kept)
        if kept is None or started is None:
            return None
        age = (pendulum.now("UTC") - as_time("at", kept["at"])).total_seconds()
        if was_cleared and age > timing().run_listed_within:
            return None  # a run that has not ended is the newest, and is joined
        is_sure = kept.get("confirmed") and not was_cleared
        self.log.info(
            "An earlier process of this task %s a run.", "started" if is_sure else "may have started"
        )
        # What is not confirmed was remembered before Exa was asked, which may have taken minutes.
        run = self._find(started, age if kept.get("confirmed") else 0)
        if run is None:
            return started if is_sure else None
        has_failed = self.wait_for_completion and run.status in self.fail_on
        if run.finished and (was_cleared or has_failed):
            return None
        return started if is_sure else self._remember(context, started, confirmed=True)

    def _start(self, context: Context) -> StartedRun:
        """Start a run, or join the one that has not ended; remember first what is known before."""
        newest = self._newest()
        if newest and not newest.finished:
            return self._join(context, newest)
        known = StartedRun(newest.created_at, newest.id) if newest else StartedRun(pendulum.from_timestamp(0))
        self._remember(context, known, confirmed=False)
        try:
            self.hook.trigger_monitor(self.monitor_id)
        except ExaNotStartedError:
            if run := self._find(known):
                return self._join(context, run)  # which somebody has started meanwhile
            forget(context, STATE_KEY)
            raise
        except ExaError as error:
            if not isinstance(error, ExaTransientError) or error.repeatable:
                forget(context, STATE_KEY)  # nothing was started
                raise
            if self._find(known) is None:
                raise
        self.log.info("Exa has started a run (monitor %s).", self.monitor_id)
        return self._remember(context, known, confirmed=True)

    def _newest(self) -> MonitorRun | None:
        """Return the monitor's newest run; raise if there is no such monitor."""
        return self._poll(RunSelector(pick="latest"), confirm=True)

    def _poll(self, selector: RunSelector | StartedRun, *, confirm: bool = False) -> MonitorRun | None:
        progress = Progress(self.monitor_id, selector, pendulum.now("UTC"))
        observation, _ = poll_once(self.hook.client, self.api, progress, confirm=confirm)
        if observation.error:
            raise observation.error
        return observation.run

    def _join(self, context: Context, run: MonitorRun) -> StartedRun:
        self.log.info("Joined run %s, which is %s; no other is started.", run.id, run.status)
        return self._remember(context, StartedRun(run.created_at), confirmed=True)

    def _remember(self, context: Context, started: StartedRun, *, confirmed: bool) -> StartedRun:
        moments = {"created_after": started.created_after.isoformat(), "at": pendulum.now("UTC").isoformat()}
        remember(context, STATE_KEY, self._subject, {**asdict(started), **moments, "confirmed": confirmed})
        return started

    def _find(self, started: StartedRun, age: float = 0) -> MonitorRun | None:
        """
        Return the run, if Exa lists it in time; a canceled one only if no other comes.

        :param age: seconds since it was started
        """
        # unverified: how soon Exa lists a run that was started.
        until_listed = Retrying(
            retry=retry_if_result(lambda run: run is None or run.status == "canceled"),
            stop=stop_after_delay(timing().run_listed_within - age),
            wait=wait_fixed(timing().run_listed_interval),
            retry_error_callback=lambda last: last.outcome and last.outcome.result(),
        )
        run: MonitorRun | None = until_listed(self._poll, started)
        return run

    def _wait(self) -> MonitorRun | None:
        """Poll until the run has ended, a deferrable task once; one that was canceled may be replaced."""
        (wait,) = self.waits
        canceled_id = None
        while True:
            observation, _ = poll_once(self.hook.client, self.api, wait, confirm=False)
            if line := wait.observe(observation, pendulum.now("UTC")):
                self.log.log(*line)
            run = observation.ended_run
            if run and (run.status != "canceled" or run.id == canceled_id):
                return run
            if self.deferrable:
                return None
            canceled_id = run and run.id
            interval = max(timing().min_poll_interval, self.poll_interval)
            time.sleep(timing().replacement_delay if run else interval)

    def _defer(self, started: StartedRun, began: float) -> NoReturn:
        self.defer(
            trigger=ExaStartedRunTrigger(
                self.monitor_id,
                started.created_after.isoformat(),
                started.previous_run_id,
                poll_interval=self.poll_interval,
                exa_conn_id=self.exa_conn_id,
                api=self.api,
            ),
            method_name="execute_complete",
            timeout=self.time_left(began),
        )


def _started(kept: Mapping[str, Any] | None) -> StartedRun | None:
    """Return the run that a task has remembered."""
    if kept is None or not kept.keys() >= {"created_after", "at"}:
        return None
    return StartedRun(as_time("created_after", kept["created_after"]), kept.get("previous_run_id"))
