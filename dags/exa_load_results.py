"""
### Load what a completed run of an Exa monitor found into a database

Starts by itself when a run of the monitor `EXA_MONITOR_ID` has completed; `EXA_API` says of which API. What
the run found is written to object storage as JSON Lines, in the folder that `EXA_RESULTS` names
(`file:///tmp/exa_results`, `s3://aws_default@bucket/exa`, …), and from there into the table `exa_results` of
the database behind the connection that `EXA_RESULTS_DB` names: without it `sqlite_default`, as
`airflow connections create-default-connections` makes it (with `apache-airflow-providers-sqlite`), or one to
PostgreSQL or whatever else Airflow has a provider for.

The rows of a run are replaced in one transaction, and the table takes none of them twice. So a run that is
reported twice, two DAG runs that load it at once (one of them may have to try again), or a task that is
retried, changes nothing.

Each run has tasks of its own, up to a thousand. Of more, as there may be after a long pause, each task gets
several: Airflow maps a task 1,024 times at most.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import closing
from typing import Any
from urllib.parse import quote, unquote

import pendulum
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.sdk import BaseHook, ObjectStoragePath, dag, task

from airflow_provider_exa.assets import finished_runs, monitor_runs
from airflow_provider_exa.hooks import ExaHook

MONITOR_ID = os.environ.get("EXA_MONITOR_ID", "monitor_id_from_exa")
API = os.environ.get("EXA_API", "websets")
FOLDER = os.environ.get("EXA_RESULTS", "file:///tmp/exa_results")
DATABASE = os.environ.get("EXA_RESULTS_DB", "sqlite_default")
MAX_TASKS = 1000


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
        sql=(
            "CREATE TABLE IF NOT EXISTS exa_results (run_id VARCHAR(100), number INTEGER, url VARCHAR(2000), "
            "result TEXT, PRIMARY KEY (run_id, number))"
        ),
    )

    @task
    def runs(triggering_asset_events: Mapping[Any, Any]) -> list[list[dict[str, str]]]:
        finished = [
            {
                "monitor_id": run["monitor_id"],
                "run_id": run["run_id"],
                # An id of Exa's may hold anything, such as a slash.
                "path": f"{FOLDER}/{quote(run['run_id'], safe='')}.jsonl",
            }
            for run in finished_runs(triggering_asset_events)
        ]
        size = math.ceil(len(finished) / MAX_TASKS) or 1
        return [finished[start : start + size] for start in range(0, len(finished), size)]

    @task
    def results(runs: list[dict[str, str]]) -> list[str]:
        return [write_results(**run) for run in runs]

    @task(retries=3, retry_delay=10)
    def load(paths: list[str]) -> int:
        return sum(load_results(ObjectStoragePath(path)) for path in paths)

    create_table >> load.expand(paths=results.expand(runs=runs()))


def write_results(monitor_id: str, run_id: str, path: str) -> str:
    """Of one run, ExaListMonitorRunResultsOperator does the same."""
    hook, file = ExaHook(api=API), ObjectStoragePath(path)
    run = hook.get_monitor_run(monitor_id, run_id)
    if file.protocol in ("", "file"):
        file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lines:
        lines.writelines(f"{json.dumps(result)}\n" for result in hook.list_run_results(run, whole=True))
    return path


def load_results(path: ObjectStoragePath) -> int:
    run_id = unquote(path.name.removesuffix(".jsonl"))
    hook = BaseHook.get_connection(DATABASE).get_hook()
    with path.open() as lines:
        results = [json.loads(line) for line in lines]
    values = ", ".join([hook.placeholder] * 4)
    with closing(hook.get_conn()) as connection, closing(connection.cursor()) as cursor:
        cursor.execute(f"DELETE FROM exa_results WHERE run_id = {hook.placeholder}", (run_id,))  # noqa: S608
        if results:
            cursor.executemany(
                f"INSERT INTO exa_results (run_id, number, url, result) VALUES ({values})",  # noqa: S608
                [(run_id, number, url_of(it), json.dumps(it)) for number, it in enumerate(results)],
            )
        connection.commit()
    return len(results)


def url_of(result: Mapping[str, Any]) -> str | None:
    """A search monitor's result has its address, that of Websets has it among the item's properties."""
    url: str | None = result.get("url") or (result.get("properties") or {}).get("url")
    return url


exa_load_results()
