"""Each door, over a connection whose server repeats the API key wherever it can."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_exa.assets import finished_runs, monitor_runs
from airflow_provider_exa.operators import (
    ExaListMonitorRunResultsOperator,
    ExaListMonitorRunsOperator,
    ExaTriggerMonitorOperator,
    ExaWaitForMonitorRunsOperator,
)
from airflow_provider_exa.sensors import ExaMonitorRunSensor

START = pendulum.datetime(2026, 1, 1)
CONN_ID = "exa_marked"
SINCE = "{{ params.since }}"


@task
def repeat(reason: str) -> str:
    """Take the reason as a rendered template."""
    return reason


@dag(schedule=None, start_date=START, params={"since": Param("", type="string")})
def e2e_secrets() -> None:
    """Waits for a run of one monitor, a run that is started and its results, and an error."""
    wait = {"created_after": SINCE, "fail_on": (), "exa_conn_id": CONN_ID}
    poke = ExaMonitorRunSensor(task_id="poke", monitor_id="marked", poke_interval=2, **wait)
    ExaMonitorRunSensor(task_id="deferred", monitor_id="marked", poke_interval=2, deferrable=True, **wait)
    ExaWaitForMonitorRunsOperator(
        task_id="operator", monitor_ids=["marked", "marked_too"], poll_interval=2, deferrable=True, **wait
    )
    poke >> repeat("{{ ti.xcom_pull('poke')['failed_reason'] }}")
    search = {"monitor_id": "marked_search", "api": "search", "exa_conn_id": CONN_ID}
    started = ExaTriggerMonitorOperator(
        task_id="started", wait_for_completion=True, poll_interval=1, **search
    )
    ExaListMonitorRunResultsOperator(task_id="results", run_id=started.output, **search)
    ExaListMonitorRunsOperator(task_id="refused", monitor_id="marked_refused", exa_conn_id=CONN_ID)


@dag(
    schedule=monitor_runs("marked_asset", statuses=("failed",), poll_interval=2, exa_conn_id=CONN_ID),
    start_date=START,
)
def e2e_secrets_asset() -> None:
    """What an asset's event holds."""

    @task
    def runs(triggering_asset_events: Mapping[Any, Any]) -> list[dict[str, Any]]:
        return [dict(run) for run in finished_runs(triggering_asset_events)]

    runs()


e2e_secrets()
e2e_secrets_asset()
