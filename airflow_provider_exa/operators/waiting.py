"""The operator that waits for runs of several monitors."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.providers.common.compat.sdk import AirflowTaskTimeout, conf

from airflow_provider_exa.operators.base import CHANGED, LAST_POLL_TIMEOUT, ExaBaseOperator
from airflow_provider_exa.protocol.errors import ExaError, ExaInputError, ExaTransientError
from airflow_provider_exa.protocol.models import MonitorRun, dialect_of
from airflow_provider_exa.protocol.validation import (
    check_id,
    check_seconds,
    check_segment,
    check_time,
    check_words,
    is_template,
)
from airflow_provider_exa.timing import timing
from airflow_provider_exa.triggers import ExaMonitorRunsTrigger
from airflow_provider_exa.waiting.outcome import FAIL_ON, is_decided, raise_for_outcome, unwrap_event
from airflow_provider_exa.waiting.progress import Progress, describe_time_out
from airflow_provider_exa.waiting.selection import RunSelector
from airflow_provider_exa.waiting.waiter import poll_once

if TYPE_CHECKING:
    from airflow.sdk import Context

TWICE = "two of the runs are of the same monitor; wait for them in separate tasks"


class ExaWaitForMonitorRunsOperator(ExaBaseOperator):
    """
    Wait until runs of several Exa monitors have ended; return a dict of runs, as dicts, by monitor id.

    ``monitor_ids`` and ``created_after`` together select the runs, or ``runs`` does. The task fails as soon
    as too many runs have ended badly, and names the first five and why. Else only ``execution_timeout`` ends
    it. It polls each monitor once in the worker, where each first poll has to succeed, unless the outcome is
    decided without it.

    :param monitor_ids: the monitors; the earliest run of each created at or after ``created_after`` counts
        (templated)
    :param runs: one run a monitor, as dicts with ``monitor_id`` and ``id``, such as
        :class:`ExaListMonitorRunsOperator` returns (templated)
    :param created_after: a datetime or ISO 8601 (templated)
    :param wait_for: how many runs have to end well: ``"all"``, ``"any"`` (one) or a number
    :param fail_on: the outcomes that are not well; with ``()`` every end is
    :param wait_for_idle: after a run has completed, wait until its webset is idle, too, so that what it found
        has its enrichments; search monitors have no webset
    :param poll_interval: seconds between polls of a monitor
    :param exa_conn_id: the Airflow connection (templated)
    :param api: which of Exa's monitor APIs the monitors belong to: ``websets`` or ``search``
    :param deferrable: wait in the triggerer, where all waits on a monitor share one poll
    :raises ExaRunFailedError: too many runs ended in one of the ways that ``fail_on`` names
    :raises ExaPermanentError: Exa refuses the request
    :raises ExaTransientError: Exa cannot answer the first poll
    """

    template_fields: Sequence[str] = ("monitor_ids", "runs", "created_after", "exa_conn_id")

    def __init__(
        self,
        *,
        monitor_ids: Sequence[str] | str | None = None,
        runs: Sequence[Mapping[str, Any]] | str | None = None,
        created_after: datetime | str | None = None,
        wait_for: str | int = "all",
        fail_on: Collection[str] = FAIL_ON,
        wait_for_idle: bool = False,
        poll_interval: float = 60,
        exa_conn_id: str = "exa_default",
        api: str = "websets",
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(exa_conn_id=exa_conn_id, api=api, **kwargs)
        with self.naming_errors():
            if (monitor_ids is None) == (runs is None) or (monitor_ids is None) != (created_after is None):
                raise ExaInputError("give monitor_ids=… with created_after=…, or runs=…")
            check_time("created_after", created_after)
            check_words("fail_on", fail_on, FAIL_ON)
            is_number = isinstance(wait_for, int) and not isinstance(wait_for, bool) and wait_for >= 1
            if wait_for not in ("all", "any") and not is_number:
                raise ExaInputError(f"wait_for={wait_for!r:.100} is not 'all', 'any' or a number of runs")
            check_seconds("poll_interval", poll_interval)
            dialect_of(api, websets="wait_for_idle=True" if wait_for_idle else None)
        self.monitor_ids = monitor_ids
        self.runs = runs
        self.created_after = created_after
        self.wait_for = wait_for
        self.fail_on = fail_on
        self.wait_for_idle = wait_for_idle
        self.poll_interval = poll_interval
        self.deferrable = deferrable
        with self.naming_errors():
            self._check_items()

    def execute(self, context: Context) -> dict[str, Any]:
        """Poll each monitor once; then wait in the triggerer, or in this process in the same way."""
        began = time.monotonic()
        self.check_rendered()
        with self.naming_errors():
            waits = self._waits()
            needed = self._needed(len(waits))
        ended: dict[str, Any] = {}
        with self.naming_time_outs():
            while not self._poll(waits, ended, needed):
                if self.deferrable:
                    self._defer(waits, ended, needed, began)
                time.sleep(max(timing().min_poll_interval, self.poll_interval))
        return self._check_outcome(ended, needed)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return the runs that the trigger brings, or raise for how they ended."""
        runs: dict[str, Any] = unwrap_event(event)
        with self.naming_errors():
            run_ids = {wait.monitor_id: wait.selector.as_dict().get("run_id") for wait in self._waits()}
            needed = self._needed(len(run_ids))
        are_meant = all(key in run_ids and run_ids[key] in (None, run["id"]) for key, run in runs.items())
        if not are_meant or not self._is_decided(runs, needed, len(run_ids)):
            raise ExaTransientError(CHANGED)
        self.log.info("%d of %d runs have ended.", len(runs), len(run_ids))
        return self._check_outcome(runs, needed)

    def _time_out(self, context: Context) -> dict[str, Any]:
        """Poll once more, as runs may have ended since the trigger's last polls; else raise."""
        with self.naming_errors():
            waits = self._waits(context["ti"].start_date)
            needed = self._needed(len(waits))
        ended: dict[str, Any] = {}
        for wait in waits:
            wait.has_answered = True
        with suppress(Exception):  # the time-out is the news
            self._poll(waits, ended, needed, deadline=time.monotonic() + LAST_POLL_TIMEOUT)
        if self._is_decided(ended, needed, len(waits)):
            return self._check_outcome(ended, needed)
        raise AirflowTaskTimeout(describe_time_out(self.waits))

    def _check_items(self) -> None:
        """Raise, while a DAG is parsed, if the monitors or the runs cannot be such; templates pass."""
        what, type_ = ("monitor_ids", str) if self.runs is None else ("runs", Mapping)
        values = getattr(self, what)
        if is_template(values):
            return
        given = [item for item in _items(what, values, type_, templates=True) if not is_template(item)]
        if self.runs is not None:
            for run in given:
                check_id("run_id", run.get("id"))
            given = [run.get("monitor_id") for run in given]
        for monitor_id in given:
            check_id("monitor_id", monitor_id)
        if len(set(map(str, given))) < len(given):
            raise ExaInputError(TWICE)
        self._needed(len(values))

    def _poll(
        self, waits: Sequence[Progress], ended: dict[str, Any], needed: int, deadline: float | None = None
    ) -> bool:
        """
        Poll for each run that has not ended, until the outcome is decided; return whether it is.

        :param deadline: no poll begins after this moment of ``time.monotonic()``
        :raises ExaError: the wait for a run has ended without it, and the others do not decide the outcome
        """
        errors: list[ExaError] = []
        self.waits = [wait for wait in waits if wait.monitor_id not in ended]
        for wait in self.waits:
            if deadline and time.monotonic() > deadline:
                break
            try:
                # Only a first poll has to succeed; the retries of one would keep the others waiting.
                retries = 0 if wait.has_answered or errors else None
                run = self._poll_monitor(wait, retries=retries, deadline=deadline)
            except ExaError as error:
                errors.append(error)
                if len(errors) > len(waits) - needed:
                    raise
                self.log.warning("%s", error)
                continue
            if run:
                ended[wait.monitor_id] = run.as_dict()
                self.waits = [each for each in self.waits if each is not wait]
                if self._is_decided(ended, needed, len(waits)):
                    return True
        if errors:
            raise errors[0]
        return False

    def _poll_monitor(
        self, wait: Progress, *, retries: int | None, deadline: float | None
    ) -> MonitorRun | None:
        observation, monitor = poll_once(
            self.hook.client,
            self.api,
            wait,
            confirm=not wait.has_answered,
            deadline=deadline,
            retries=retries,
        )
        if line := wait.observe(observation, pendulum.now("UTC"), monitor):
            self.log.log(*line)
        return observation.ended_run

    def _defer(self, waits: Sequence[Progress], ended: dict[str, Any], needed: int, began: float) -> None:
        self.defer(
            trigger=ExaMonitorRunsTrigger(
                {wait.monitor_id: wait.selector.as_dict() for wait in waits},
                runs=ended,
                needed=needed,
                fail_on=list(self.fail_on),
                poll_interval=self.poll_interval,
                exa_conn_id=self.exa_conn_id,
                api=self.api,
                started_at=waits[0].started_at.isoformat(),
            ),
            method_name="execute_complete",
            timeout=self.time_left(began),
        )

    def _is_decided(self, runs: dict[str, Any], needed: int, total: int) -> bool:
        return is_decided(runs.values(), fail_on=self.fail_on, needed=needed, total=total)

    def _check_outcome(self, runs: dict[str, Any], needed: int) -> dict[str, Any]:
        self.linked_monitor_ids = list(runs)
        raise_for_outcome(runs.values(), self.fail_on, needed)
        return runs

    def _waits(self, started_at: datetime | None = None) -> list[Progress]:
        """Return the wait for one run of each monitor, which begins now unless it has begun before."""
        now = pendulum.instance(started_at) if started_at else pendulum.now("UTC")
        if self.runs is None:
            ids = _items("monitor_ids", self.monitor_ids, str)
            selectors = [(each, RunSelector(created_after=self.created_after or "")) for each in ids]
        else:
            runs = _items("runs", self.runs, Mapping)
            selectors = [
                (run.get("monitor_id"), RunSelector(run_id=check_segment("run_id", run.get("id"))))
                for run in runs
            ]
        waits = {
            check_segment("monitor_id", monitor_id): replace(selector, idle=self.wait_for_idle).resolve(now)
            for monitor_id, selector in selectors
        }
        if len(waits) < len(selectors):
            raise ExaInputError(TWICE)
        return [Progress(monitor_id, selector, now) for monitor_id, selector in waits.items()]

    def _needed(self, total: int) -> int:
        """Return how many runs have to end well."""
        words: dict[str | int, int] = {"all": total, "any": 1}
        needed = words.get(self.wait_for) or int(self.wait_for)
        if needed > total:
            raise ExaInputError(f"wait_for={self.wait_for!r}, but there are only {total} runs to wait for")
        return needed


def _items(what: str, values: Any, type_: type, *, templates: bool = False) -> Any:
    """
    Return the values if they are a list, not empty, of that type.

    :param templates: whether a template may stand for a value
    """
    fits = isinstance(values, list | tuple) and all(
        isinstance(value, type_) or (templates and is_template(value)) for value in values
    )
    if not fits or not values:
        wanted = "ids" if type_ is str else "dicts with monitor_id and id"
        raise ExaInputError(f"{what} is {values!r:.200}; it must be a list of {wanted}")
    return values
