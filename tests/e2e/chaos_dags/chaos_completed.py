"""Starts when a run of one of the monitors has completed."""

from __future__ import annotations

import os
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, AssetAny

from airflow_provider_exa.assets import monitor_runs

MONITORS = ("chaos_a", "chaos_b", "chaos_c")
USUAL = {"api": os.environ["EXA_API"], "poll_interval": 2, "statuses": ("completed",)}
CHANGED: dict[str, Any] = {}

with DAG(
    "chaos_completed",
    schedule=AssetAny(*(monitor_runs(monitor, **(USUAL | CHANGED)) for monitor in MONITORS)),
    max_active_runs=1000,
):
    EmptyOperator(task_id="done")
