"""Runs that are started and waited for, by the e2e tests: of which monitors comes with the DAG run."""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import Param, dag

from airflow_provider_exa.operators import ExaTriggerMonitorOperator


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1),
    params={"monitor_ids": Param(["", ""], type="array")},
)
def e2e_trigger() -> None:
    """Each way of waiting for the run, with retries."""
    for number, deferrable in enumerate((False, True)):
        ExaTriggerMonitorOperator(
            task_id=f"deferrable_{deferrable}",
            monitor_id=f"{{{{ params.monitor_ids[{number}] }}}}",
            wait_for_completion=True,
            poll_interval=1,
            deferrable=deferrable,
            retries=3,
            retry_delay=timedelta(seconds=1),
        )


e2e_trigger()
