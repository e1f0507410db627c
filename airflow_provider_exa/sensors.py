"""The sensor: wait in a DAG until one monitor run has ended."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.providers.common.compat.sdk import conf
from airflow.sdk import BaseSensorOperator
from airflow.sdk.bases.sensor import PokeReturnValue

from airflow_provider_exa.hooks import ExaHook
from airflow_provider_exa.links import ExaWebsetLink, webset_of
from airflow_provider_exa.protocol.errors import ExaError, ExaTransientError
from airflow_provider_exa.protocol.models import Monitor, MonitorRun, dialect_of
from airflow_provider_exa.protocol.validation import as_time, check_id, check_words
from airflow_provider_exa.task_state import recall, remember
from airflow_provider_exa.triggers import ExaMonitorRunTrigger
from airflow_provider_exa.waiting.outcome import FAIL_ON, raise_for_outcome, unwrap_event
from airflow_provider_exa.waiting.progress import Progress
from airflow_provider_exa.waiting.selection import RunSelector
from airflow_provider_exa.waiting.snapshot import Sight, look

if TYPE_CHECKING:
    from airflow.sdk import Context

STATE_KEY = "exa_wait"


class ExaMonitorRunSensor(BaseSensorOperator):
    """
    Wait until one run of an Exa monitor has ended; returns the run as a dict.

    Which run is said by exactly one of ``run_id``, ``created_after`` and ``pick``. Once it is found the wait
    is pinned to it: later pokes, reschedules and retries follow the same run; clearing the task starts anew.

    The first look has to succeed, so that a bad key or an unknown monitor fails at once; after that, trouble
    at Exa is logged and waited out until ``timeout``.

    :param monitor_id: the monitor (templated)
    :param run_id: wait for this run (templated)
    :param created_after: wait for the earliest run created at or after this moment: a datetime or ISO 8601
        (templated)
    :param pick: ``"latest"``: the newest run there is when the task first looks, or the first to come if
        there is none; ``"next"``: the first run created after the task first started
    :param fail_on: the outcomes that fail the task, without retries; ``()`` passes every outcome on, for a
        branch
    :param wait_for_idle: after the run has completed, wait until its webset is idle, too, so that what it
        found has its enrichments; search monitors have no webset
    :param exa_conn_id: the Airflow connection (templated)
    :param api: which of Exa's monitor APIs the monitor belongs to
    :param deferrable: wait in the triggerer, where all waits on a monitor share one poll; ``mode`` and
        ``silent_fail`` then mean nothing
    :raises ExaRunFailedError: the run ended in one of the ways that ``fail_on`` names
    :raises ExaPermanentError: Exa refuses what is asked
    :raises ExaTransientError: Exa cannot answer the first look
    """

    template_fields: Sequence[str] = ("monitor_id", "run_id", "created_after", "exa_conn_id")
    ui_color: str = "#e8ecff"
    operator_extra_links = (ExaWebsetLink(),)
    webset_id: str | None = None
    _monitor: Monitor | None = None

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
        super().__init__(**kwargs)
        check_id("monitor_id", monitor_id)
        RunSelector(run_id, created_after, pick).check()
        check_words("fail_on", fail_on, FAIL_ON)
        dialect_of(api, websets="wait_for_idle=True" if wait_for_idle else None)
        self.monitor_id = monitor_id
        self.run_id = run_id
        self.created_after = created_after
        self.pick = pick
        self.fail_on = fail_on
        self.wait_for_idle = wait_for_idle
        self.exa_conn_id = exa_conn_id
        self.api = api
        self.deferrable = deferrable

    def execute(self, context: Context) -> Any:
        """Wait as the base class does, from where an earlier process of this task left off."""
        forgets = context.get("task_state_store") is None and self.reschedule and not self.deferrable
        if forgets and self.pick == "latest":
            self.log.warning("Before Airflow 3.3, each poke of pick='latest' in reschedule mode picks anew.")
        self._progress = recall_progress(context)
        return super().execute(context)

    def poke(self, context: Context) -> PokeReturnValue:
        """Ask Exa once, or leave that to the triggerer."""
        with self._reasons_told():
            return self._poke(context)

    def _poke(self, context: Context) -> PokeReturnValue:
        progress, before = self._progress, self._progress.as_dict()
        self.webset_id = progress.webset_id
        choice = RunSelector(self.run_id, self.created_after, self.pick, self.wait_for_idle)
        choice = choice.resolve(progress.started_at)
        if progress.run_id is not None:
            choice = choice.pin(progress.run_id)
        if self.deferrable:
            remember(context, STATE_KEY, progress.as_dict())
            self._defer(choice, progress, self.timeout)
        first = not progress.looked
        sight, self._monitor = self._look(choice, first)
        if line := progress.saw(sight, pendulum.now("UTC"), self._monitor):
            self.log.info("Waiting for %s of monitor %s: %s", choice, self.monitor_id, line)
        if first:
            progress.webset_id = self.webset_id = webset_of(self._hook, self._monitor or self.monitor_id)
        if progress.as_dict() != before:
            remember(context, STATE_KEY, progress.as_dict())
        if not isinstance(sight, MonitorRun) or not sight.finished:
            return PokeReturnValue(is_done=False)
        run = sight.as_dict()
        raise_for_outcome([run], self.fail_on)
        return PokeReturnValue(is_done=True, xcom_value=run)

    @cached_property
    def _hook(self) -> ExaHook:
        return ExaHook(self.exa_conn_id, self.api)

    def _look(self, choice: RunSelector, first: bool) -> tuple[Sight, Monitor | None]:
        asked = look(self._hook.dialect, self.monitor_id, [choice], first=first, monitor=self._monitor)
        try:
            sights, monitor = self._hook.call(asked)
        except ExaTransientError as error:
            return error, self._monitor
        return sights[choice], monitor

    def _defer(self, choice: RunSelector, progress: Progress, seconds: float) -> None:
        timeout = timedelta(seconds=seconds)
        longest = self.timeout if self.max_wait is None else self.max_wait.total_seconds()
        self.defer(
            trigger=ExaMonitorRunTrigger(
                self.monitor_id,
                run_id=choice.run_id,
                created_after=choice.created_after and choice.created_after.isoformat(),
                pick=choice.pick,
                idle=choice.idle,
                poll_interval=self.poke_interval,
                max_poll_interval=longest if self.exponential_backoff else None,
                exa_conn_id=self.exa_conn_id,
                api=self.api,
                started_at=progress.started_at.isoformat(),
                looked=progress.looked,
            ),
            method_name="execute_complete",
            timeout=timeout,
            kwargs={"deadline": (pendulum.now("UTC") + timeout).isoformat()},
        )

    def execute_complete(
        self, context: Context, event: dict[str, Any], deadline: str | None = None
    ) -> dict[str, Any]:
        """
        Judge the run that the trigger brings; pin the wait to it and go on, if it has not ended.

        :param deadline: when the wait times out, in ISO 8601
        """
        progress = recall_progress(context)
        self.webset_id = event.get("webset_id", progress.webset_id)
        with self._reasons_told():
            run: dict[str, Any] = unwrap_event(event)
            raise_for_outcome([run], self.fail_on)
        if not event["ended"]:
            progress = replace(progress, looked=True, run_id=run["id"], webset_id=self.webset_id)
            remember(context, STATE_KEY, progress.as_dict())
            left = self.timeout
            if deadline is not None:
                left = max(0.0, (as_time("deadline", deadline) - pendulum.now("UTC")).total_seconds())
            self._defer(RunSelector(run_id=run["id"], idle=self.wait_for_idle), progress, left)
        return run

    @contextmanager
    def _reasons_told(self) -> Iterator[None]:
        """Log the error that the base class is about to turn into a skip, of which it says no reason."""
        try:
            yield
        except ExaError as error:
            if self.soft_fail or self.never_fail:
                self.log.warning("%s", error)
            raise


def recall_progress(context: Context) -> Progress:
    """
    How far this task's wait has come; a clear starts it anew.

    Before Airflow 3.3 only the start of the try is known.
    """
    kept, cleared = recall(context, STATE_KEY)
    if kept is not None and not cleared:
        return Progress.from_dict(kept)
    ti = context["ti"]
    stateless = context.get("task_state_store") is None
    rescheduled = ti.get_first_reschedule_date(context) if stateless else None
    return Progress(
        started_at=pendulum.instance(rescheduled or ti.start_date), looked=rescheduled is not None
    )
