"""Runs that a real Airflow starts, while its workers are killed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import psutil
import pytest

from airflow_provider_exa.standin import Fault, StandIn
from tests.e2e.real_airflow import RealAirflow
from tests.e2e.test_sensor import KEY, until

DAG = "e2e_trigger"
TASKS = ("deferrable_False", "deferrable_True")
#: A round is a DAG run, each of whose tasks is struck once; so many rounds are under way at a time.
ROUNDS = int(os.environ.get("E2E_TRIGGER_ROUNDS", "3"))
AT_A_TIME = 3
#: Seconds from a POST until its run is listed, and until it ends, in one batch of rounds after the other: at
#: the retry it has ended, or is not listed yet, or is under way.
PACES = ((0, 2.5), (8, 12), (3, 10))


@dataclass(frozen=True)
class Blow:
    """
    A kill of a task's process.

    :param fault: what the answer to its POST meets, which Exa has acted upon by then
    :param after: how many seconds after the start of that answer it comes
    """

    fault: str | None
    after: float


@dataclass(frozen=True)
class Struck:
    """A task that is struck, and its monitor."""

    dag_run: str
    task_id: str
    monitor: str
    blow: Blow

    def told(self, airflow: RealAirflow) -> Mapping[str, Any]:
        """What Airflow tells of it, such as its ``pid``."""
        path = f"dags/{DAG}/dagRuns/{self.dag_run}/taskInstances/{self.task_id}"
        return dict(airflow.api("GET", path))


def blows(round_: int) -> tuple[Blow, Blow]:
    """How each task is struck: amid the answer, without one, right after it, or during the wait."""
    chance = Random(round_)  # noqa: S311 (the same each time)
    cut, drip = Blow("cut", chance.uniform(0, 1)), Blow("drip", chance.uniform(0, 3))
    answered, waiting = Blow(None, 0), Blow(None, chance.uniform(0.1, 1))
    # One that can be deferred is so soon, and waits in no process of its own.
    return (waiting, cut, drip, answered)[round_ % 4], (drip, answered, Blow("cut", 0))[round_ % 3]


@pytest.fixture(autouse=True)
def _as_it_was(standin: StandIn) -> Iterator[None]:
    was = standin.on_trigger, standin.trigger_delay, standin.trigger_options
    yield
    standin.on_trigger, standin.trigger_delay, standin.trigger_options = was


def new_runs(standin: StandIn, monitor: str) -> list[str]:
    return [run.id for run in standin.monitors[monitor].runs if not run.id.startswith("old_")]


def posts(standin: StandIn, monitor: str) -> int:
    return sum(each.method == "POST" and monitor in each.path for each in standin.requests)


def two_monitors(standin: StandIn) -> list[str]:
    """A monitor for each task, which has had a run."""
    monitors = [standin.add_monitor() for _ in TASKS]
    for monitor in monitors:
        standin.add_run(monitor, run_id=f"old_{monitor}")
    return monitors


def strike(airflow: RealAirflow, standin: StandIn, it: Struck) -> bool:
    """Kill a task's process after its POST; returns whether there was still one."""
    until(lambda: it.told(airflow)["pid"], 120)
    process = psutil.Process(it.told(airflow)["pid"])
    assert psutil.Process(airflow.pid("scheduler")) in process.parents()
    deadline = time.monotonic() + 120
    while not posts(standin, it.monitor):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(it.blow.after)
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return False
    return True


def test_it_starts_a_run_and_waits_for_it(airflow: RealAirflow, standin: StandIn) -> None:
    """In either way of waiting it returns the run."""
    monitors = two_monitors(standin)
    dag_run = airflow.trigger(DAG, {"monitor_ids": monitors})
    assert airflow.wait(DAG, dag_run) == dict.fromkeys(TASKS, "success")
    for task_id, monitor in zip(TASKS, monitors, strict=True):
        run = airflow.xcom(DAG, dag_run, task_id)
        assert ([run["id"]], run["status"]) == (new_runs(standin, monitor), "completed")
        assert posts(standin, monitor) == 1
        assert KEY not in airflow.task_log(DAG, dag_run, task_id)


def test_the_sample_lists_what_its_search_found(airflow: RealAirflow, standin: StandIn) -> None:
    """The run that it has started, and no other, is where the results come from."""
    standin.trigger_options = {"results": [{"title": "A page", "url": "https://example.com"}]}
    dag_run = airflow.trigger("exa_search_now", {"monitor_id": two_monitors(standin)[0]})
    assert set(airflow.wait("exa_search_now", dag_run).values()) == {"success"}
    assert airflow.xcom("exa_search_now", dag_run, "show") == ["A page: https://example.com"]


def test_a_killed_worker_starts_no_second_run(
    airflow: RealAirflow, standin: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whenever its process dies after the POST, a task returns the run that this one has started."""
    struck: list[Struck] = []
    hits: list[bool] = []
    for first in range(0, ROUNDS, AT_A_TIME):
        standin.trigger_delay, end = PACES[first // AT_A_TIME % len(PACES)]
        standin.on_trigger = ((0, "created"), (1, "running"), (end, "completed"))
        batch: list[Struck] = []
        for round_ in range(first, min(first + AT_A_TIME, ROUNDS)):
            monitors = two_monitors(standin)
            for monitor, blow in zip(monitors, blows(round_), strict=True):
                if blow.fault:
                    standin.fail(Fault(kind=blow.fault, path=f"/{monitor}/trigger"))
            dag_run = airflow.trigger(DAG, {"monitor_ids": monitors})
            batch += map(partial(Struck, dag_run), TASKS, monitors, blows(round_))
        with ThreadPoolExecutor(len(batch)) as pool:
            hits += pool.map(partial(strike, airflow, standin), batch)
        for dag_run in {it.dag_run for it in batch}:
            assert airflow.wait(DAG, dag_run) == dict.fromkeys(TASKS, "success")
        struck += batch
    retries = [it.told(airflow)["try_number"] - 1 for it in struck]
    for it, hit, retried in zip(struck, hits, retries, strict=True):
        run = airflow.xcom(DAG, it.dag_run, it.task_id)
        assert ([run["id"]], run["status"]) == (new_runs(standin, it.monitor), "completed")
        assert posts(standin, it.monitor) == 1
        # One that is deferred at once may have told Airflow so before the blow comes, or be gone. On a busy
        # machine Airflow itself costs a task another try, if it is slow to note that this has been deferred.
        may_be_late = it.task_id == TASKS[1] and not it.blow.after
        assert (hit and retried) or may_be_late
    asked = sum(posts(standin, it.monitor) for it in struck)
    made = sum(len(new_runs(standin, it.monitor)) for it in struck)
    with capsys.disabled():
        print(f"\nrounds {ROUNDS}, kills {sum(hits)}, retries {sum(retries)}, POSTs {asked}, runs {made}")


def has_begun(airflow: RealAirflow, dag_run: str, task_id: str) -> bool:
    """Whether a task has started a run or joined one."""
    log = airflow.task_log(DAG, dag_run, task_id)
    return "Exa has started a run" in log or "no other is started" in log


def test_two_that_start_a_run_at_the_same_time_return_the_same(
    airflow: RealAirflow, standin: StandIn
) -> None:
    """Whoever comes while no run is listed yet starts one, too, and cancels that of the other."""
    standin.trigger_delay, standin.on_trigger = 3, ((0, "created"), (1, "running"))
    monitors = two_monitors(standin)
    dag_runs = [airflow.trigger(DAG, {"monitor_ids": monitors}) for _ in range(2)]
    until(lambda: all(has_begun(airflow, dag_run, task_id) for dag_run in dag_runs for task_id in TASKS), 120)
    for monitor in monitors:
        standin.move(new_runs(standin, monitor)[-1], "completed")
    for dag_run in dag_runs:
        assert airflow.wait(DAG, dag_run) == dict.fromkeys(TASKS, "success")
    for task_id, monitor in zip(TASKS, monitors, strict=True):
        *canceled, left = new_runs(standin, monitor)
        assert [airflow.xcom(DAG, dag_run, task_id)["id"] for dag_run in dag_runs] == [left, left]
        assert len(canceled) == posts(standin, monitor) - 1
