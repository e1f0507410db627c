"""
### Search the web now, and list what was found

Starts a run of a search monitor, whatever its schedule, waits for it without a worker, and hands what it
found to the next task. Whatever dies meanwhile, no second run is started.
"""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_exa.operators import ExaListMonitorRunResultsOperator, ExaTriggerMonitorOperator


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    doc_md=__doc__,
    params={"monitor_id": Param(type="string", minLength=1, description="A search monitor.")},
    tags=["exa"],
)
def exa_search_now() -> None:
    search = ExaTriggerMonitorOperator(
        task_id="search",
        monitor_id="{{ params.monitor_id }}",
        wait_for_completion=True,
        deferrable=True,
        poll_interval=10,
    )
    results = ExaListMonitorRunResultsOperator(
        task_id="list_results",
        monitor_id="{{ params.monitor_id }}",
        run_id="{{ ti.xcom_pull('search')['id'] }}",
        api="search",
    )

    @task
    def show(results: list[dict[str, Any]]) -> list[str]:
        return [f"{result['title']}: {result['url']}" for result in results]

    search >> results
    show(results.output)


exa_search_now()
