"""Deferred waits for the e2e tests, as many as the DAG run asks for."""

from __future__ import annotations

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_exa.operators import ExaWaitForMonitorRunsOperator
from airflow_provider_exa.sensors import ExaMonitorRunSensor

DEFERRED = {"exa_conn_id": "exa_default", "deferrable": True}
MONITORS = {"monitor_ids": Param([""], type="array"), "since": Param("", type="string")}


@dag(schedule=None, start_date=pendulum.datetime(2026, 1, 1), params={**MONITORS, "each": Param(3)})
def e2e_many() -> None:
    """Several sensors wait on each monitor."""

    @task
    def monitor_ids(params: dict[str, object]) -> list[str]:
        return [each for each in params["monitor_ids"] for _ in range(params["each"])]

    ExaMonitorRunSensor.partial(
        task_id="wait", created_after="{{ params.since }}", poke_interval=5, retries=0, **DEFERRED
    ).expand(monitor_id=monitor_ids())


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1),
    params=MONITORS,
    render_template_as_native_obj=True,
)
def e2e_ways() -> None:
    """Each way to wait in the triggerer."""
    first = "{{ params.monitor_ids[0] }}"
    sensor = {"monitor_id": first, "poke_interval": 5, **DEFERRED}
    ExaMonitorRunSensor(task_id="latest", pick="latest", **sensor)
    ExaMonitorRunSensor(task_id="next", pick="next", soft_fail=True, **sensor)
    ExaMonitorRunSensor(task_id="times_out", created_after="2999-01-01", timeout=8, soft_fail=True, **sensor)
    ExaMonitorRunSensor(task_id="unknown", pick="next", **{**sensor, "monitor_id": "no_such_monitor"})
    for deferrable in (True, False):
        ExaWaitForMonitorRunsOperator(
            task_id=f"operator_{deferrable}",
            monitor_ids="{{ params.monitor_ids }}",
            created_after="{{ params.since }}",
            wait_for=1,
            poll_interval=5,
            deferrable=deferrable,
        )


e2e_many()
e2e_ways()
