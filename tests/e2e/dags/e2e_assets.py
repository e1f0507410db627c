"""DAGs that start when a run has ended: one on five monitors, one on the first of them, one to be paused."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import Any

import pendulum
from airflow.sdk import dag, task

from airflow_provider_exa.assets import finished_runs, monitor_runs

MONITORS = [f"e2e_burst_{number}" for number in range(5)]
SCHEDULES = {
    "e2e_burst": reduce(or_, (monitor_runs(monitor, poll_interval=2) for monitor in MONITORS)),
    "e2e_burst_first": monitor_runs(MONITORS[0], poll_interval=2),
    "e2e_paused": monitor_runs("e2e_paused", poll_interval=2),
}

for dag_id, schedule in SCHEDULES.items():

    @dag(dag_id, schedule=schedule, start_date=pendulum.datetime(2026, 1, 1), max_active_runs=50)
    def consumer() -> None:
        @task
        def runs(triggering_asset_events: Mapping[Any, Any]) -> list[str]:
            return [run["run_id"] for run in finished_runs(triggering_asset_events)]

        runs()

    consumer()
