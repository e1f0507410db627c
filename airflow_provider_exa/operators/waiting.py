"""The operator that waits for runs of several monitors."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.providers.common.compat.sdk import conf
from airflow.sdk import BaseOperator

from airflow_provider_exa.links import ExaWebsetLink
from airflow_provider_exa.protocol.errors import ExaInputError
from airflow_provider_exa.protocol.models import dialect_of
from airflow_provider_exa.protocol.validation import (
    as_time,
    check_id,
    check_seconds,
    check_segment,
    check_time,
    check_words,
)
from airflow_provider_exa.triggers import ExaMonitorRunsTrigger
from airflow_provider_exa.waiting.outcome import FAIL_ON, raise_for_outcome, unwrap_event
from airflow_provider_exa.waiting.progress import Progress

if TYPE_CHECKING:
    from airflow.sdk import Context


class ExaWaitForMonitorRunsOperator(BaseOperator):
    """
    Wait until runs of several Exa monitors have ended; returns a dict of runs, as dicts, by monitor id.

    What it waits for is said by ``monitor_ids`` and ``created_after`` together, or by ``runs``. It fails as
    soon as too many runs have ended badly, and names each of them and why. Else only ``execution_timeout``
    ends it.

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
    :param api: which of Exa's monitor APIs the monitors belong to
    :param deferrable: wait in the triggerer, where all waits on a monitor share one poll
    :raises ExaRunFailedError: too many runs ended in one of the ways that ``fail_on`` names
    :raises ExaPermanentError: Exa refuses what is asked
    :raises ExaTransientError: Exa cannot answer the first look
    """

    template_fields: Sequence[str] = ("monitor_ids", "runs", "created_after", "exa_conn_id")
    ui_color: str = "#e8ecff"
    operator_extra_links = (ExaWebsetLink(),)
    webset_id: str | None = None

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
        super().__init__(**kwargs)
        if (monitor_ids is None) == (runs is None) or (monitor_ids is None) != (created_after is None):
            raise ExaInputError("give monitor_ids=… with created_after=…, or runs=…")
        check_time("created_after", created_after)
        check_words("fail_on", fail_on, FAIL_ON)
        if wait_for not in ("all", "any") and not (isinstance(wait_for, int) and wait_for >= 1):
            raise ExaInputError(f"wait_for={wait_for!r} is not 'all', 'any' or a number of runs")
        check_seconds("poll_interval", poll_interval)
        dialect_of(api, websets="wait_for_idle=True" if wait_for_idle else None)
        self.monitor_ids = monitor_ids
        self.runs = runs
        self.created_after = created_after
        self.wait_for = wait_for
        self.fail_on = fail_on
        self.wait_for_idle = wait_for_idle
        self.poll_interval = poll_interval
        self.exa_conn_id = exa_conn_id
        self.api = api
        self.deferrable = deferrable
        for monitor_id in monitor_ids if isinstance(monitor_ids, list | tuple) else ():
            check_id("monitor_id", monitor_id)

    def execute(self, context: Context) -> dict[str, Any]:
        """Wait in the triggerer, or in this process in the same way."""
        choices = self._choices()
        trigger = ExaMonitorRunsTrigger(
            choices,
            needed=self._needed(len(choices)),
            fail_on=list(self.fail_on),
            poll_interval=self.poll_interval,
            exa_conn_id=self.exa_conn_id,
            api=self.api,
        )
        if self.deferrable:
            self.defer(trigger=trigger, method_name="execute_complete", timeout=self.execution_timeout)
        return self.execute_complete(context, asyncio.run(trigger.wait(Progress(pendulum.now("UTC")))))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Judge the runs that the trigger brings."""
        runs: dict[str, Any] = unwrap_event(event)
        self.webset_id = event["webset_id"]
        raise_for_outcome(runs.values(), self.fail_on, self._needed(len(self._choices())))
        return runs

    def _choices(self) -> dict[str, dict[str, Any]]:
        """Which run of each monitor, as a trigger takes it."""
        if self.runs is None:
            since = as_time("created_after", self.created_after or "").isoformat()
            pairs = [
                (each, {"created_after": since}) for each in _items("monitor_ids", self.monitor_ids, str)
            ]
        else:
            runs = _items("runs", self.runs, Mapping)
            pairs = [(run.get("monitor_id"), {"run_id": run.get("id")}) for run in runs]
        for monitor_id, choice in pairs:
            check_segment("monitor_id", monitor_id)
            check_segment("run_id", choice.get("run_id", "any"))
        choices = {monitor_id: {**choice, "idle": self.wait_for_idle} for monitor_id, choice in pairs}
        if len(choices) < len(pairs):
            raise ExaInputError(
                "two of the runs are of the same monitor; wait for them in tasks of their own"
            )
        self._needed(len(choices))
        return choices

    def _needed(self, total: int) -> int:
        """How many runs have to end well."""
        words: dict[str | int, int] = {"all": total, "any": 1}
        needed = words.get(self.wait_for) or int(self.wait_for)
        if needed > total:
            raise ExaInputError(f"wait_for={self.wait_for!r}, but there are only {total} runs to wait for")
        return needed


def _items(what: str, values: Any, type_: type) -> Sequence[Any]:
    """The values, if they are a list that is not empty of what they have to be."""
    if not isinstance(values, list | tuple) or not values or not all(isinstance(it, type_) for it in values):
        wanted = "ids" if type_ is str else "dicts with monitor_id and id"
        raise ExaInputError(f"{what} is {values!r:.200}; it must be a list of {wanted}")
    return values
