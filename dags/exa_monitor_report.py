"""
### How reliable are our monitors?

Lists the finished runs of the last 30 days of several monitors, one mapped task each, and reports for each
monitor which share of them completed and how long a run takes.
"""

from __future__ import annotations

import os
from statistics import median
from typing import Any

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_exa.operators import ExaListMonitorRunsOperator

API = os.environ.get("EXA_API", "websets")


@dag(
    schedule=None,  # such as "@weekly", with the monitors as a default
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    doc_md=__doc__,
    params={
        # Airflow maps a task 1,024 times at most.
        "monitor_ids": Param(type="array", items={"type": "string"}, minItems=1, maxItems=1000),
    },
    tags=["exa"],
)
def exa_monitor_report() -> None:
    @task
    def monitor_ids(params: dict[str, Any]) -> list[str]:
        return list(params["monitor_ids"])

    runs = ExaListMonitorRunsOperator.partial(
        task_id="list_runs",
        api=API,
        statuses=("completed", "failed", "canceled"),
        created_after="{{ dag_run.run_after - macros.timedelta(days=30) }}",
        limit=50,
    ).expand(monitor_id=monitor_ids())

    @task
    def report(runs: list[dict[str, Any]]) -> dict[str, Any]:
        completed = [run for run in runs if run["status"] == "completed"]
        seconds = [
            (pendulum.parse(run["completed_at"]) - pendulum.parse(run["created_at"])).total_seconds()
            for run in completed
            if run["completed_at"]
        ]
        return {
            "monitor_id": runs[0]["monitor_id"] if runs else None,
            "finished": len(runs),
            "success_rate": len(completed) / len(runs) if runs else None,
            "median_seconds": median(seconds) if seconds else None,
        }

    report.expand(runs=runs.output)


exa_monitor_report()
