"""
### Start when a run of an Exa monitor has failed or was canceled, and raise the alarm

The monitor's id and its API are read from the environment variables `EXA_MONITOR_ID` and `EXA_API`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pendulum
from airflow.sdk import dag, task

from airflow_provider_exa.assets import finished_runs, monitor_runs

MONITOR_ID = os.environ.get("EXA_MONITOR_ID", "monitor_id_from_exa")
API = os.environ.get("EXA_API", "websets")


@dag(
    schedule=monitor_runs(MONITOR_ID, api=API, statuses=("failed", "canceled"), poll_interval=30),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    doc_md=__doc__,
    tags=["exa"],
)
def exa_on_failed_run() -> None:
    @task
    def alert(triggering_asset_events: Mapping[Any, Any]) -> list[str]:
        lines = [
            f"Run {run['run_id']} of monitor {run['monitor_id']} {run['status']} at {run['finished_at']}: "
            f"{run['failed_reason'] or 'no reason given'}"
            for run in finished_runs(triggering_asset_events)
        ]
        print("\n".join(lines))
        return lines

    alert()


exa_on_failed_run()
