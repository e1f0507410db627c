"""Starts when a run of one of the monitors has completed."""

from __future__ import annotations

import os

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, AssetAny

from airflow_provider_exa.assets import monitor_runs

API = os.environ["EXA_API"]
MONITORS = ("chaos_a", "chaos_b", "chaos_c")

with DAG(
    "chaos_completed",
    schedule=AssetAny(*(monitor_runs(monitor, api=API, poll_interval=2) for monitor in MONITORS)),
    max_active_runs=1000,
):
    EmptyOperator(task_id="done")
