"""The sensor: wait in a DAG until one monitor run has ended."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.sdk import BaseSensorOperator
from airflow.sdk.bases.sensor import PokeReturnValue

from airflow_provider_exa.core import ExaTransientError, check_id, check_words, dialect_of
from airflow_provider_exa.waits import FAIL_ON, Progress, RunChoice, judge, look

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_exa.hooks import ExaHook

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
    :param exa_conn_id: the Airflow connection (templated)
    :param api: which of Exa's monitor APIs the monitor belongs to
    :raises ExaRunFailedError: the run ended in one of the ways that ``fail_on`` names
    :raises ExaPermanentError: Exa refuses what is asked
    :raises ExaTransientError: Exa cannot answer the first look
    """

    template_fields: Sequence[str] = ("monitor_id", "run_id", "created_after", "exa_conn_id")
    ui_color: str = "#e8ecff"

    def __init__(
        self,
        *,
        monitor_id: str,
        run_id: str | None = None,
        created_after: datetime | str | None = None,
        pick: str | None = None,
        fail_on: Collection[str] = FAIL_ON,
        exa_conn_id: str = "exa_default",
        api: str = "websets",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_id("monitor_id", monitor_id)
        RunChoice(run_id, created_after, pick)
        check_words("fail_on", fail_on, FAIL_ON)
        dialect_of(api)
        self.monitor_id = monitor_id
        self.run_id = run_id
        self.created_after = created_after
        self.pick = pick
        self.fail_on = fail_on
        self.exa_conn_id = exa_conn_id
        self.api = api

    def execute(self, context: Context) -> Any:
        """Wait as the base class does, from where an earlier process of this task left off."""
        if self.reschedule and self.pick == "latest" and context.get("task_state_store") is None:
            self.log.warning("Before Airflow 3.3, each poke of pick='latest' in reschedule mode picks anew.")
        self._progress = recall(context)
        return super().execute(context)

    def poke(self, context: Context) -> PokeReturnValue:
        """Ask Exa once."""
        progress, before = self._progress, self._progress.as_dict()
        choice = RunChoice(self.run_id, self.created_after, self.pick).settle(progress.started_at)
        run = None
        try:
            run = self._hook.call(look(self._hook.dialect, self.monitor_id, choice, progress))
            line = progress.saw(run, pendulum.now("UTC"))
        except ExaTransientError as error:
            line = progress.missed(error, pendulum.now("UTC"))
        if line:
            self.log.info("Waiting for %s of monitor %s: %s", choice, self.monitor_id, line)
        if progress.as_dict() != before:
            remember(context, progress)
        if run is None or not run.finished:
            return PokeReturnValue(is_done=False)
        judge(run, self.fail_on)
        return PokeReturnValue(is_done=True, xcom_value=run.as_dict())

    @cached_property
    def _hook(self) -> ExaHook:
        # Imported when the task runs: requests costs every parse of a DAG file a fifth of a second.
        from airflow_provider_exa.hooks import ExaHook

        return ExaHook(self.exa_conn_id, self.api)


def recall(context: Context) -> Progress:
    """
    How far this task's wait has come.

    From Airflow 3.3 on it is kept in the task's state, through reschedules, retries and a worker's death; a
    clear of the task, which raises ``max_tries``, starts anew. Before, only the start of the try is known.
    """
    ti = context["ti"]
    store = context.get("task_state_store")
    if store is not None:
        kept = store.get(STATE_KEY)
        if isinstance(kept, dict) and kept.pop("max_tries") == ti.max_tries:
            return Progress.from_dict(kept)
        return Progress(started_at=pendulum.instance(ti.start_date))
    rescheduled = ti.get_first_reschedule_date(context)
    return Progress(
        started_at=pendulum.instance(rescheduled or ti.start_date), looked=rescheduled is not None
    )


def remember(context: Context, progress: Progress) -> None:
    """Keep the progress for the task's next process, where Airflow can."""
    store = context.get("task_state_store")
    if store is not None:
        store.set(STATE_KEY, {"max_tries": context["ti"].max_tries, **progress.as_dict()})
