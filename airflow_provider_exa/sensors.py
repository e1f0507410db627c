"""The sensor: wait in a DAG until one monitor run has ended."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    conf,
)
from airflow.sdk import BaseSensorOperator
from airflow.sdk.bases.sensor import PokeReturnValue

from airflow_provider_exa.operators.base import CHANGED, LAST_POLL_TIMEOUT, ExaBaseOperator
from airflow_provider_exa.protocol.errors import ExaError, ExaTransientError
from airflow_provider_exa.protocol.models import MonitorRun, dialect_of
from airflow_provider_exa.protocol.validation import as_run_id, as_time, check_id, check_words
from airflow_provider_exa.task_state import recall, remember
from airflow_provider_exa.triggers import ExaMonitorRunsTrigger
from airflow_provider_exa.waiting.outcome import FAIL_ON, raise_for_outcome, unwrap_event
from airflow_provider_exa.waiting.progress import Progress, describe_time_out
from airflow_provider_exa.waiting.selection import RunSelector
from airflow_provider_exa.waiting.waiter import MAX_BACKOFF_INTERVAL, poll_once

if TYPE_CHECKING:
    from airflow.sdk import Context

STATE_KEY = "exa_wait"
#: A ``created_after`` that is as long ago as before, but for so many seconds, is computed from the clock.
CLOCK_TOLERANCE = 60.0


class ExaMonitorRunSensor(ExaBaseOperator, BaseSensorOperator):
    """
    Wait until one run of an Exa monitor has ended; return the run as a dict.

    Exactly one of ``run_id``, ``created_after`` and ``pick`` selects the run. Once it is found the wait is
    pinned to it: later pokes, reschedules and retries follow the same run; clearing the task, or correcting
    an argument that selects the run, starts anew. A ``created_after`` that is computed from the current time
    when the DAG is parsed, such as ``pendulum.now()``, is no correction: the wait goes on.

    The task polls once in the worker, whatever its mode. This first poll has to succeed, so that a bad key or
    an unknown monitor fails at once; after that, trouble at Exa is logged and waited out until ``timeout``.

    :param monitor_id: the monitor (templated)
    :param run_id: wait for this run: its id, or a run as a dict, such as another task's output (templated)
    :param created_after: wait for the earliest run created at or after this moment: a datetime or ISO 8601
        (templated)
    :param pick: ``"latest"``: the newest run there is when the task first polls, or the first to come if
        there is none; ``"next"``: the first run created after the task first started
    :param fail_on: the outcomes that fail the task, without retries; ``()`` passes every outcome on, for a
        branch
    :param wait_for_idle: after the run has completed, wait until its webset is idle, too, so that what it
        found has its enrichments; search monitors have no webset
    :param exa_conn_id: the Airflow connection (templated)
    :param api: which of Exa's monitor APIs the monitor belongs to: ``websets`` or ``search``
    :param deferrable: wait in the triggerer, where all waits on a monitor share one poll; ``mode`` and
        ``silent_fail`` then mean nothing
    :raises ExaRunFailedError: the run ended in one of the ways that ``fail_on`` names
    :raises ExaPermanentError: Exa refuses the request
    :raises ExaTransientError: Exa cannot answer the first poll
    """

    template_fields: Sequence[str] = ("monitor_id", "run_id", "created_after", "exa_conn_id")

    def __init__(
        self,
        *,
        monitor_id: str,
        run_id: str | None = None,
        created_after: datetime | str | None = None,
        pick: str | None = None,
        fail_on: Collection[str] = FAIL_ON,
        wait_for_idle: bool = False,
        exa_conn_id: str = "exa_default",
        api: str = "websets",
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(exa_conn_id=exa_conn_id, api=api, **kwargs)
        with self.naming_errors():
            check_id("monitor_id", monitor_id)
            RunSelector(run_id, created_after, pick).check()
            check_words("fail_on", fail_on, FAIL_ON)
            dialect_of(api, websets="wait_for_idle=True" if wait_for_idle else None)
        if self.max_wait is None:
            self.max_wait = timedelta(seconds=MAX_BACKOFF_INTERVAL)
        self.monitor_id = monitor_id
        self.run_id = run_id
        self.created_after = created_after
        self.pick = pick
        self.fail_on = fail_on
        self.wait_for_idle = wait_for_idle
        self.deferrable = deferrable

    def execute(self, context: Context) -> Any:
        """Wait as the base class does, from where an earlier process of this task left off."""
        began = time.monotonic()
        if context.get("task_state_store") is None and self._is_rescheduling and self.pick == "latest":
            self.log.warning("Before Airflow 3.3, each poke of pick='latest' in reschedule mode picks anew.")
        self.check_rendered()
        with self.naming_errors():
            self._progress = self._recall(context)
        self._remember(context)
        left = timedelta(seconds=self._seconds_left(context))
        self._deadline = began + min(left, self.execution_timeout or left).total_seconds()
        self.linked_monitor_ids = [self.monitor_id]
        self.waits = [self._progress]
        try:
            return super().execute(context)
        except (AirflowSensorTimeout, AirflowTaskTimeout) as error:
            raise type(error)(describe_time_out(self.waits)) from error
        except AirflowSkipException as error:
            if error.__cause__ and not isinstance(error.__cause__, AirflowTaskTimeout):
                raise
            raise AirflowSkipException(describe_time_out(self.waits)) from error

    def poke(self, context: Context) -> PokeReturnValue:
        """Poll once; where the run has not ended, a deferrable sensor defers."""
        with self._logging_reasons():
            run = self._poll(context)
            if run:
                return PokeReturnValue(is_done=True, xcom_value=self._check_outcome(run.as_dict()))
        if self.deferrable:
            self._defer()
        return PokeReturnValue(is_done=False)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return the run that the trigger brings, or raise for how it ended."""
        self._progress = self._recall(context)
        self.webset_id, self.linked_monitor_ids = self._progress.webset_id, [self.monitor_id]
        with self._logging_reasons():
            run: dict[str, Any] | None = unwrap_event(event).get(self.monitor_id)
            # Where Airflow has task state, nothing is known of other arguments than these.
            is_recalled = context.get("task_state_store") is None or self._progress.has_answered
            pinned = self._progress.selector.as_dict().get("run_id")
            if not run or not is_recalled or pinned not in (None, run["id"]):
                raise ExaTransientError(CHANGED)
            self.log.info("%s", self._progress.summary(run))
            return self._check_outcome(run)

    def _time_out(self, context: Context) -> dict[str, Any] | None:
        """Poll once more, as the run may have ended since the trigger's last poll; else raise."""
        self._progress = self._recall(context)
        self.linked_monitor_ids = [self.monitor_id]
        run = None
        if context.get("task_state_store") is not None:
            self._deadline = time.monotonic() + LAST_POLL_TIMEOUT
            try:
                run = self._poll(context)
            except Exception as error:  # the time-out is the news
                self._progress.topic = f"{error}".rstrip(".")
        if run:
            return self._check_outcome(run.as_dict())
        message = describe_time_out([self._progress])
        by_execution_timeout = (
            self.execution_timeout and self.execution_timeout.total_seconds() < self.timeout
        )
        if by_execution_timeout and not (self.soft_fail or self.never_fail):
            raise AirflowTaskTimeout(message)
        raise AirflowSensorTimeout(message)

    def _check_outcome(self, run: dict[str, Any]) -> dict[str, Any]:
        raise_for_outcome([run], self.fail_on)
        return run

    @property
    def _is_rescheduling(self) -> bool:
        return bool(self.reschedule) and not self.deferrable

    @property
    def _subject(self) -> dict[str, Any]:
        """What the wait is for; a task whose arguments have changed waits anew."""
        names = ("exa_conn_id", "api", "monitor_id", "pick")
        run_id = None if self.run_id is None else as_run_id(self.run_id)
        return {**{name: getattr(self, name) for name in names}, "run_id": run_id}

    def _recall(self, context: Context) -> Progress:
        """
        Return how far this task's wait has come; a clear starts it anew.

        Before Airflow 3.3 only the start of the try is known.
        """
        kept, was_cleared = recall(context, STATE_KEY, self._subject)
        ti = context["ti"]
        is_stateless = context.get("task_state_store") is None
        rescheduled_at = ti.get_first_reschedule_date(context) if is_stateless else None
        started_at = pendulum.instance(rescheduled_at or ti.start_date)
        selector = RunSelector(self.run_id, self.created_after, self.pick, self.wait_for_idle)
        progress = Progress(
            self.monitor_id,
            selector.resolve(started_at),
            started_at,
            has_answered=rescheduled_at is not None,
        )
        if kept is None or was_cleared or self._is_corrected(kept):
            return progress
        values = {**progress.as_dict(), **kept}
        values["selector"] = {**values["selector"], "idle": self.wait_for_idle}
        return Progress.from_dict(values)

    def _remember(self, context: Context) -> None:
        remember(context, STATE_KEY, self._subject, {**self._progress.as_dict(), "asked": self._asked})

    @property
    def _asked(self) -> dict[str, Any] | None:
        """The moment that is asked for, and how long ago it is."""
        if self.created_after is None:
            return None
        moment = as_time("created_after", self.created_after)
        return {"created_after": moment.isoformat(), "age": (pendulum.now("UTC") - moment).total_seconds()}

    def _is_corrected(self, kept: dict[str, Any]) -> bool:
        """Return whether another moment is asked for than before, which does not move with the clock."""
        now, before = self._asked, kept.get("asked")
        if not now or not before or now["created_after"] == before["created_after"]:
            return False
        return bool(abs(now["age"] - before["age"]) > CLOCK_TOLERANCE)

    def _poll(self, context: Context) -> MonitorRun | None:
        """Poll, remember what is new, and return the run once the wait for it is over."""
        progress, before = self._progress, self._progress.as_dict()
        is_first = not progress.has_answered
        observation, monitor = poll_once(
            self.hook.client, self.api, progress, confirm=is_first, deadline=self._deadline
        )
        line = progress.observe(observation, pendulum.now("UTC"), monitor)
        if line:
            self.log.log(*line)
        self.webset_id = progress.webset_id
        if is_first and not observation.ended_run:
            progress.webset_id = self.find_webset()
        if progress.as_dict() != before:
            self._remember(context)
        return observation.ended_run

    def _seconds_left(self, context: Context) -> float:
        """Return how long this try may still wait."""
        date = context["ti"].get_first_reschedule_date(context) if self._is_rescheduling else None
        waited = (pendulum.now("UTC") - pendulum.instance(date)).total_seconds() if date else 0.0
        return max(0.0, float(self.timeout) - waited)

    def _defer(self) -> None:
        seconds = max(0.0, self._deadline - time.monotonic())
        longest = self.max_wait.total_seconds() if self.max_wait else None
        self.defer(
            trigger=ExaMonitorRunsTrigger(
                {self.monitor_id: self._progress.selector.as_dict()},
                fail_on=list(self.fail_on),
                poll_interval=self.poke_interval,
                max_poll_interval=longest if self.exponential_backoff else None,
                exa_conn_id=self.exa_conn_id,
                api=self.api,
                started_at=self._progress.started_at.isoformat(),
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=seconds),
        )

    @contextmanager
    def _logging_reasons(self) -> Iterator[None]:
        """Log the error that the base class is about to turn into a skip without its reason."""
        try:
            yield
        except ExaError as error:
            if self.soft_fail or self.never_fail:
                self.log.warning("%s", error)
            raise
