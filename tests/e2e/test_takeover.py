"""Assets that are changed, paused and added beside each other, in a real Airflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from airflow_provider_exa.assets import monitor_runs
from airflow_provider_exa.events.store import variable_of
from airflow_provider_exa.standin import StandIn
from tests.e2e.real_airflow import RealAirflow
from tests.e2e.test_assets import asked, reported
from tests.e2e.test_sensor import until

DAG = """
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

from airflow_provider_exa.assets import monitor_runs

with DAG({dag_id!r}, schedule=monitor_runs({monitor!r}, **{options!r})):
    EmptyOperator(task_id="done")
"""
MONITORS = ("takeover_a", "takeover_b")
OPTIONS = {"poll_interval": 2}


def write(airflow: RealAirflow, dags: Path, dag_id: str, monitor: str, **options: Any) -> str:
    """Write the file of a DAG on one asset, let Airflow read it, and return the key of its Variable."""
    chosen = {**OPTIONS, **options}
    (dags / f"{dag_id}.py").write_text(DAG.format(dag_id=dag_id, monitor=monitor, options=chosen))
    airflow.cli("dags", "reserialize")
    return variable_of("websets", monitor, monitor_runs(monitor, **chosen).name)


def set_paused(airflow: RealAirflow, dag_id: str, is_paused: bool) -> None:
    airflow.api("PATCH", f"dags/{dag_id}", json={"is_paused": is_paused})
    airflow.cli("dags", "reserialize")


def cursors(airflow: RealAirflow) -> dict[str, dict[str, Any]]:
    """What the Variables of assets hold."""
    found = airflow.api("GET", "variables", params={"limit": 1000})["variables"]
    return {each["key"]: json.loads(each["value"]) for each in found}


def test_a_paused_asset_loses_nothing_to_one_that_is_added(
    airflow: RealAirflow, standin: StandIn, changing_dags: Path
) -> None:
    """It keeps its Variable for as long as its DAG is paused, and goes on from its own place."""
    first = write(airflow, changing_dags, "takeover_first", MONITORS[0])
    until(lambda: first in cursors(airflow))
    set_paused(airflow, "takeover_first", True)
    until(lambda: not asked(standin, MONITORS[0], 5))
    run = standin.add_run(MONITORS[0])
    second = write(airflow, changing_dags, "takeover_second", MONITORS[0], statuses=["failed", "completed"])
    until(lambda: second in cursors(airflow) and reported(airflow, MONITORS[0]) == {run: 1})
    other = standin.add_run(MONITORS[0])
    until(lambda: reported(airflow, MONITORS[0])[other] == 1)
    assert first in cursors(airflow)
    set_paused(airflow, "takeover_first", False)
    until(lambda: reported(airflow, MONITORS[0]) == {run: 2, other: 2})


def test_the_variable_of_a_changed_asset_is_gone_in_the_end(
    airflow: RealAirflow, standin: StandIn, changing_dags: Path
) -> None:
    """No DAG refers to the old asset any more; what ends in between is reported once."""
    first = write(airflow, changing_dags, "takeover_changed", MONITORS[1])
    until(lambda: first in cursors(airflow))
    second = write(airflow, changing_dags, "takeover_changed", MONITORS[1], poll_interval=3)
    run = standin.add_run(MONITORS[1])
    until(lambda: run in cursors(airflow).get(second, {}).get("reported", {}))
    until(lambda: first not in cursors(airflow))
    assert reported(airflow, MONITORS[1]) == {run: 1}
