"""Has so many assets that creating their triggers takes the triggerer a while; paused until it is needed."""

from __future__ import annotations

import os

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, AssetAny

from airflow_provider_exa.assets import monitor_runs

MONITORS = [f"chaos_many_{number}" for number in range(40)]

with DAG(
    "chaos_many",
    schedule=AssetAny(*(monitor_runs(monitor, api=os.environ["EXA_API"]) for monitor in MONITORS)),
    is_paused_upon_creation=True,
):
    EmptyOperator(task_id="done")
