"""Waits as users write them, for the e2e tests: what to wait for comes with the DAG run."""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import Param, dag

from airflow_provider_exa.sensors import ExaMonitorRunSensor


@dag(schedule=None, start_date=pendulum.datetime(2026, 1, 1), params={"monitor_id": Param("", type="string")})
def e2e_latest() -> None:
    """Each mode of waiting for the latest run, with retries."""
    for mode in ("poke", "reschedule"):
        ExaMonitorRunSensor(
            task_id=mode,
            monitor_id="{{ params.monitor_id }}",
            pick="latest",
            mode=mode,
            poke_interval=3,
            retries=1,
            retry_delay=timedelta(seconds=1),
        )


e2e_latest()
