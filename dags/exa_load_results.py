"""
### Load what a completed run of an Exa monitor found into a database

Starts by itself when a run of the monitor `EXA_MONITOR_ID` has completed; `EXA_API` says of which API. What
the run found is written to object storage as JSON Lines, in the folder that `EXA_RESULTS` names
(`file:///tmp/exa_results`, `s3://aws_default@bucket/exa`, …), and from there into the table `exa_results` of
the database behind the connection that `EXA_RESULTS_DB` names: without it `sqlite_default`, as
`airflow connections create-default-connections` makes it (with `apache-airflow-providers-sqlite`), or one to
PostgreSQL or whatever else Airflow has a provider for.

Rows are replaced by run, so a run that is reported twice, or a task that is retried, changes nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import pendulum
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.sdk import BaseHook, ObjectStoragePath, dag, task

from airflow_provider_exa.assets import finished_runs, monitor_runs
from airflow_provider_exa.operators import ExaListMonitorRunResultsOperator

MONITOR_ID = os.environ.get("EXA_MONITOR_ID", "monitor_id_from_exa")
API = os.environ.get("EXA_API", "websets")
FOLDER = os.environ.get("EXA_RESULTS", "file:///tmp/exa_results")
DATABASE = os.environ.get("EXA_RESULTS_DB", "sqlite_default")


@dag(
    schedule=monitor_runs(MONITOR_ID, api=API, poll_interval=30),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    doc_md=__doc__,
    tags=["exa"],
)
def exa_load_results() -> None:
    create_table = SQLExecuteQueryOperator(
        task_id="create_table",
        conn_id=DATABASE,
        sql="CREATE TABLE IF NOT EXISTS exa_results (run_id VARCHAR(100), url VARCHAR(2000), result TEXT)",
    )

    @task
    def runs(triggering_asset_events: Mapping[Any, Any]) -> list[dict[str, str]]:
        return [
            {
                "monitor_id": run["monitor_id"],
                "run_id": run["run_id"],
                "path": f"{FOLDER}/{run['run_id']}.jsonl",
            }
            for run in finished_runs(triggering_asset_events)
        ]

    results = ExaListMonitorRunResultsOperator.partial(task_id="results", api=API).expand_kwargs(runs())

    @task
    def load(written: Mapping[str, Any]) -> int:
        path = ObjectStoragePath(written["path"])
        hook = BaseHook.get_connection(DATABASE).get_hook()
        hook.run(f"DELETE FROM exa_results WHERE run_id = {hook.placeholder}", parameters=(path.stem,))  # noqa: S608
        with path.open() as lines:
            # A search monitor's result has its address, that of Websets has it among the item's properties.
            rows = (
                (path.stem, it.get("url") or it.get("properties", {}).get("url"), json.dumps(it))
                for it in map(json.loads, lines)
            )
            hook.insert_rows("exa_results", rows, target_fields=("run_id", "url", "result"))
        return int(written["count"])

    create_table >> load.expand(written=results.output)


exa_load_results()
