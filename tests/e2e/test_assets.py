"""DAGs that start when a run has ended, in a real Airflow."""

from __future__ import annotations

import random
import sqlite3
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow_provider_exa.standin import StandIn
from tests.e2e.real_airflow import RealAirflow
from tests.e2e.test_sensor import KEY, until

BURST = [f"e2e_burst_{number}" for number in range(5)]


def watched(airflow: RealAirflow, monitor: str) -> int:
    """How many assets of a monitor have a cursor, so that what ends from now on is reported."""
    keys = [each["key"] for each in airflow.api("GET", "variables", params={"limit": 1000})["variables"]]
    return sum(f"/{monitor}/" in key for key in keys)


def asset_events(airflow: RealAirflow) -> dict[str, Any]:
    """Airflow's asset events, or nothing while it cannot list them."""
    try:
        return dict(airflow.api("GET", "assets/events", params={"limit": 1000}))
    except RuntimeError as error:
        if "answered 500" in str(error):
            return {}
        raise


def reported(airflow: RealAirflow, monitor: str) -> Counter[str]:
    """How often each run of a monitor is in an event."""
    # Airflow 3.3 answers 500 while a DAG run that an event has created has not begun: it has no start_date.
    found: dict[str, Any] = {}
    until(lambda: found.update(asset_events(airflow)) or found)
    events = found["asset_events"]
    runs = [run for event in events for run in event["extra"]["payload"]["runs"]]
    return Counter(run["run_id"] for run in runs if run["monitor_id"] == monitor)


def started(airflow: RealAirflow, dag_id: str) -> list[str]:
    """The DAG runs of a DAG that have succeeded."""
    runs = airflow.api("GET", f"dags/{dag_id}/dagRuns", params={"limit": 1000})["dag_runs"]
    return [run["dag_run_id"] for run in runs if run["state"] == "success"]


def consumed(airflow: RealAirflow, dag_id: str) -> Counter[str]:
    """How often each run was handed to a DAG run."""
    return Counter(
        run for dag_run in started(airflow, dag_id) for run in airflow.xcom(dag_id, dag_run, "runs")
    )


def test_the_samples_start_when_a_run_has_ended(
    airflow: RealAirflow, standin: StandIn, results: Path
) -> None:
    """Completed runs are processed and what they found is loaded; failed ones raise the alarm."""
    until(lambda: watched(airflow, "e2e_sample") == 2 and watched(airflow, "e2e_search"))
    found = [{"title": f"Page {it}", "url": f"https://example.com/{it}"} for it in range(3)]
    bad = standin.add_run(
        "e2e_sample",
        states=[(0, "running"), (61, "failed")],
        created_at=datetime.now(UTC) - timedelta(minutes=1),
        failed_reason="no luck",
    )
    good = standin.add_run("e2e_sample", states=[(0, "running"), (1, "completed")], results=found)
    searched = standin.add_run("e2e_search", results=found)
    until(lambda: started(airflow, "exa_on_completed_run") and started(airflow, "exa_on_failed_run"), 120)
    (dag_run,) = started(airflow, "exa_on_completed_run")
    assert airflow.xcom("exa_on_completed_run", dag_run, "load", 0)[0]["id"] == good
    assert airflow.task_states("exa_on_completed_run", dag_run) == {
        "runs_to_load": "success",
        "load[0]": "success",
    }
    until(lambda: started(airflow, "exa_load_results") and started(airflow, "e2e_load_results"))
    with closing(sqlite3.connect(results / "exa.db")) as database:
        rows = database.execute("SELECT run_id, url FROM exa_results").fetchall()
    assert sorted(rows) == sorted((run, page["url"]) for run in (good, searched) for page in found)
    paths = [each.path for each in standin.requests if "e2e_search" in each.path]
    assert all(path.startswith("/monitors/") for path in paths)
    (dag_run,) = started(airflow, "exa_on_failed_run")
    (line,) = airflow.xcom("exa_on_failed_run", dag_run, "alert")
    assert line.startswith(f"Run {bad} of monitor e2e_sample failed at 20")
    assert line.endswith(": no luck")
    assert sum(reported(airflow, "e2e_sample").values()) == 2
    assert KEY not in (airflow.home / "triggerer.log").read_text()


def test_a_burst_that_ends_out_of_order_is_reported_completely(
    airflow: RealAirflow, standin: StandIn
) -> None:
    """Fifty runs of five monitors start a DAG scheduled on any, and those of one monitor another DAG, too."""
    until(lambda: all(watched(airflow, monitor) for monitor in BURST))
    chance = random.Random(4)  # noqa: S311 (the same each time)
    runs = {
        monitor: {
            standin.add_run(
                monitor, states=[(0, "created"), (1, "running"), (chance.uniform(2, 15), "completed")]
            )
            for _ in range(10)
        }
        for monitor in BURST
    }
    every = {run for each in runs.values() for run in each}
    until(lambda: consumed(airflow, "e2e_burst").keys() >= every, 120)
    until(lambda: consumed(airflow, "e2e_burst_first").keys() >= runs[BURST[0]])
    for monitor in BURST:
        assert reported(airflow, monitor) == dict.fromkeys(runs[monitor], 1)
    assert consumed(airflow, "e2e_burst") == dict.fromkeys(every, 1)
    assert consumed(airflow, "e2e_burst_first") == dict.fromkeys(runs[BURST[0]], 1)


def test_what_ends_while_the_dag_is_paused_is_reported_after(airflow: RealAirflow, standin: StandIn) -> None:
    """A paused DAG's asset is not watched; once it is unpaused, the cursor is gone on from."""
    until(lambda: watched(airflow, "e2e_paused"))
    airflow.api("PATCH", "dags/e2e_paused", json={"is_paused": True})
    airflow.cli("dags", "reserialize")
    until(lambda: not asked(standin, "e2e_paused", 5))
    run = standin.add_run("e2e_paused")
    airflow.api("PATCH", "dags/e2e_paused", json={"is_paused": False})
    assert not reported(airflow, "e2e_paused")
    airflow.cli("dags", "reserialize")
    until(lambda: consumed(airflow, "e2e_paused") == {run: 1})


def asked(standin: StandIn, monitor: str, seconds: float) -> bool:
    """Whether a monitor was asked for within the last seconds."""
    since = time.monotonic() - seconds
    return any(monitor in each.path and each.at > since for each in standin.requests)
