"""The sensor in a real Airflow: scheduler, api-server, workers, SQLite."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pendulum
import psutil
import pytest

from airflow_provider_exa.standin import StandIn
from tests.e2e.real_airflow import RealAirflow

KEY = "standin-key-1234"


def until(true: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("outcome", "taken", "left"),
    [("completed", "load", "alert"), ("failed", "alert", "load"), ("canceled", "alert", "load")],
)
def test_the_branching_sample_takes_the_way_that_the_outcome_says(
    airflow: RealAirflow, standin: StandIn, outcome: str, taken: str, left: str
) -> None:
    """The main promise: what happens downstream depends on how the run ended."""
    monitor = standin.add_monitor()
    dag_run = airflow.trigger("exa_branch_on_outcome", {"monitor_id": monitor})
    run = standin.add_run(
        monitor, states=[(0, "created"), (1, "running"), (3, outcome)], failed_reason="no luck"
    )
    states = airflow.wait("exa_branch_on_outcome", dag_run)
    assert states == {
        "wait_for_run": "success",
        "choose_path": "success",
        taken: "success",
        left: "skipped",
        "join": "success",
    }
    assert airflow.xcom("exa_branch_on_outcome", dag_run, "wait_for_run")["id"] == run
    wait = f"dags/exa_branch_on_outcome/dagRuns/{dag_run}/taskInstances/wait_for_run"
    page = f"https://websets.exa.ai/websets/{standin.monitors[monitor].webset_id}"
    assert airflow.api("GET", f"{wait}/links")["extra_links"] == {"Exa": page}
    log = airflow.task_log("exa_branch_on_outcome", dag_run, "wait_for_run")
    verb = "was canceled" if outcome == "canceled" else outcome
    assert f"Run {run} {verb} (monitor {monitor}, after 0:00:" in log
    assert KEY not in log


def test_the_report_sample_sums_up_each_monitor(airflow: RealAirflow, standin: StandIn) -> None:
    """One mapped task a monitor; the report knows how many runs completed and how long they took."""
    monitors = [standin.add_monitor(), standin.add_monitor()]
    hour_ago = pendulum.now("UTC").subtract(hours=1)
    for seconds, outcome in [(10, "completed"), (30, "completed"), (5, "failed"), (5, "canceled")]:
        standin.add_run(monitors[0], created_at=hour_ago, states=[(0, "created"), (seconds, outcome)])
    standin.add_run(monitors[1], created_at=hour_ago.subtract(days=90))
    dag_run = airflow.trigger("exa_monitor_report", {"monitor_ids": monitors})
    assert set(airflow.wait("exa_monitor_report", dag_run).values()) == {"success"}
    assert airflow.xcom("exa_monitor_report", dag_run, "report", 0) == {
        "monitor_id": monitors[0],
        "finished": 4,
        "success_rate": 0.5,
        "median_seconds": 20.0,
    }
    assert airflow.xcom("exa_monitor_report", dag_run, "report", 1)["finished"] == 0


def task_processes(airflow: RealAirflow) -> list[psutil.Process]:
    """The processes in which tasks run: the youngest generation below the scheduler."""
    workers = psutil.Process(airflow.pid("scheduler")).children(recursive=True)
    return [each for each in workers if each.parent() in workers and not each.children()]


def test_a_killed_worker_loses_nothing(airflow: RealAirflow, standin: StandIn) -> None:
    """A retry goes on with the same run, although a newer one has come; so do reschedules."""
    monitor = standin.add_monitor()
    run = standin.add_run(monitor, status="running")
    dag_run = airflow.trigger("e2e_latest", {"monitor_id": monitor})
    until(lambda: sum(each.path.endswith(run) for each in standin.requests) >= 2)
    standin.add_run(monitor, status="completed")
    for process in task_processes(airflow):
        os.kill(process.pid, signal.SIGKILL)
    until(lambda: "up_for_retry" in airflow.task_states("e2e_latest", dag_run).values())
    standin.move(run, "completed")
    assert airflow.wait("e2e_latest", dag_run) == {"poke": "success", "reschedule": "success"}
    for task in ("poke", "reschedule"):
        assert airflow.xcom("e2e_latest", dag_run, task)["id"] == run
