"""
### Take one way when an Exa monitor run completed, another when it did not

This DAG waits for the first run of a monitor that is created after the DAG run was due. Trigger it with the
monitor's id, or schedule it: give `monitor_id` a default, and `schedule` a time such as `"@daily"`.
`fail_on=()` lets the sensor succeed however the run ended, so that a branch can look at it:

`wait_for_run` → `choose_path` → `load` (completed) or `alert` (failed, canceled) → `join`

Because the run is chosen by a time, clearing `wait_for_run` finds the same run again.
"""

from __future__ import annotations

import os
from typing import Any

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_exa.sensors import ExaMonitorRunSensor

API = os.environ.get("EXA_API", "websets")


@dag(
    schedule=None,  # a scheduled run needs a default for monitor_id
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    doc_md=__doc__,
    params={
        "monitor_id": Param(type="string", minLength=1, description="The monitor to wait for."),
        "created_after": Param(
            None,
            type=["null", "string"],
            format="date-time",
            description="Wait for the first run created from then on; empty: since this DAG run was due.",
        ),
    },
    tags=["exa"],
)
def exa_branch_on_outcome() -> None:
    wait_for_run = ExaMonitorRunSensor(
        task_id="wait_for_run",
        monitor_id="{{ params.monitor_id }}",
        api=API,
        created_after="{{ params.created_after or dag_run.run_after }}",
        fail_on=(),
        deferrable=True,
        poke_interval=10,
        timeout=6 * 60 * 60,
    )

    @task.branch
    def choose_path(run: dict[str, Any]) -> str:
        return "load" if run["status"] == "completed" else "alert"

    @task
    def load(run: dict[str, Any]) -> None:
        print(f"Loading what run {run['id']} found.")

    @task
    def alert(run: dict[str, Any]) -> None:
        print(f"Run {run['id']} ended as {run['status']}: {run['failed_reason'] or 'no reason given'}.")

    @task(trigger_rule="none_failed_min_one_success")
    def join() -> None:
        print("Done, whichever way it went.")

    run = wait_for_run.output
    choose_path(run) >> [load(run), alert(run)] >> join()


exa_branch_on_outcome()
