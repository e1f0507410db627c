"""
### Start when a run of an Exa monitor has completed, and process each run

No task waits: the triggerer watches the monitor and starts this DAG. One DAG run may be for several monitor
runs, so the last task is mapped over them. Each run has a task of its own, up to a thousand. Of more, as
there may be after a long pause, each task gets several: Airflow maps a task 1,024 times at most. The
monitor's id and its API are read from the environment variables `EXA_MONITOR_ID` and `EXA_API`, as an asset
is part of the DAG file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import pendulum
from airflow.sdk import dag, task

from airflow_provider_exa.assets import FinishedRun, finished_runs, monitor_runs
from airflow_provider_exa.hooks import ExaHook

MONITOR_ID = os.environ.get("EXA_MONITOR_ID", "monitor_id_from_exa")
API = os.environ.get("EXA_API", "websets")
MAX_TASKS = 1000


@dag(
    schedule=monitor_runs(MONITOR_ID, api=API, poll_interval=30),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    doc_md=__doc__,
    tags=["exa"],
)
def exa_on_completed_run() -> None:
    @task
    def runs_to_load(triggering_asset_events: Mapping[Any, Any]) -> list[list[FinishedRun]]:
        runs = finished_runs(triggering_asset_events)
        size = math.ceil(len(runs) / MAX_TASKS) or 1
        return [runs[start : start + size] for start in range(0, len(runs), size)]

    @task
    def load(runs: list[FinishedRun]) -> list[dict[str, Any]]:
        return [load_run(run) for run in runs]

    load.expand(runs=runs_to_load())


def load_run(run: FinishedRun) -> dict[str, Any]:
    hook = ExaHook(run["exa_conn_id"], run["api"])
    whole = hook.get_monitor_run(run["monitor_id"], run["run_id"])
    print(f"Loading what run {whole.id} found, which took {whole.ended_at - whole.created_at}.")
    return whole.as_dict()


exa_on_completed_run()
