"""Waits in a real triggerer."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable

import pendulum

from airflow_provider_exa.standin import StandIn
from tests.e2e.real_airflow import RealAirflow
from tests.e2e.test_sensor import KEY, until

#: ``make e2e-many`` waits with more sensors on more monitors.
MONITORS = int(os.environ.get("E2E_MONITORS", "2"))
EACH = int(os.environ.get("E2E_EACH", "3"))
POLL = 5


def counts(airflow: RealAirflow, dag_id: str, dag_run: str) -> Counter[str | None]:
    return Counter(state for task, state in airflow.task_states(dag_id, dag_run).items() if "[" in task)


def test_no_wait_is_lost_when_the_triggerer_dies(airflow: RealAirflow, standin: StandIn) -> None:
    """Waits on a monitor share its polls; a TERM and a kill -9 of the triggerer amid them lose none."""
    since = pendulum.now("UTC")
    monitors = [standin.add_monitor() for _ in range(MONITORS)]
    runs = {monitor: standin.add_run(monitor, status="running") for monitor in monitors}
    conf = {"monitor_ids": monitors, "each": EACH, "since": since.isoformat()}
    dag_run = airflow.trigger("e2e_many", conf)
    until(lambda: counts(airflow, "e2e_many", dag_run)["deferred"] == MONITORS * EACH, 60 + MONITORS * EACH)
    for how in (signal.SIGTERM, signal.SIGKILL):
        airflow.kill("triggerer", how)
        airflow.start("triggerer")
    polls_from = time.monotonic()
    until(lambda: asked(standin, runs, polls_from) >= MONITORS, 60)
    time.sleep(4 * POLL)
    cycles = (time.monotonic() - polls_from) / POLL
    assert asked(standin, runs, polls_from) <= 2 * MONITORS * cycles
    newer = [standin.add_run(monitor, status="completed") for monitor in monitors]
    assert len(newer) == MONITORS
    for run in runs.values():
        standin.move(run, "completed")
    states = airflow.wait("e2e_many", dag_run, timeout=120 + 2 * MONITORS * EACH)
    assert Counter(states.values()) == {"success": MONITORS * EACH + 1}
    ids = [airflow.xcom("e2e_many", dag_run, "wait", index)["id"] for index in range(MONITORS * EACH)]
    assert Counter(ids) == dict.fromkeys(runs.values(), EACH)
    log = airflow.task_log("e2e_many", dag_run, "wait", map_index=0)
    assert " completed (monitor " in log
    assert KEY not in log


def asked(standin: StandIn, monitors: dict[str, str], since: float) -> int:
    requests = [each for each in standin.requests if each.at > since]
    return sum(monitor in each.path for each in requests for monitor in monitors)


def test_each_way_of_waiting_works_in_the_triggerer(airflow: RealAirflow, standin: StandIn) -> None:
    """What the sensor and the operator promise holds where the task state and the scheduler are real."""
    since = pendulum.now("UTC")
    monitors = [standin.add_monitor(), standin.add_monitor()]
    old = standin.add_run(monitors[0], status="running", created_at=since.subtract(hours=1))
    dag_run = airflow.trigger("e2e_ways", {"monitor_ids": monitors, "since": since.isoformat()})
    states: Callable[[], dict[str, str | None]] = lambda: airflow.task_states("e2e_ways", dag_run)  # noqa: E731
    until(lambda: states()["unknown"] == "failed", 90)
    waiting = ("next", "latest", "operator_True")
    until(lambda: {states()[each] for each in waiting} == {"deferred"}, 60)
    new = standin.add_run(monitors[0], status="failed", failed_reason="no luck")
    standin.add_run(monitors[1], status="completed")
    time.sleep(2 * POLL)
    standin.move(old, "completed")
    assert airflow.wait("e2e_ways", dag_run) == {
        "latest": "success",
        "next": "skipped",
        "times_out": "skipped",
        "unknown": "failed",
        "operator_True": "success",
        "operator_False": "success",
    }
    assert airflow.xcom("e2e_ways", dag_run, "latest")["id"] == old
    for task in ("operator_True", "operator_False"):
        assert airflow.xcom("e2e_ways", dag_run, task)[monitors[1]]["status"] == "completed"
    assert f"Run {new} failed: no luck (monitor {monitors[0]})." in airflow.task_log(
        "e2e_ways", dag_run, "next"
    )
    assert "404: 'Monitor not found'" in airflow.task_log("e2e_ways", dag_run, "unknown")
