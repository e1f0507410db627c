"""What ends a wait that has no other end, and what a person reads of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSensorTimeout, AirflowTaskTimeout, TaskDeferred

from airflow_provider_exa.operators import ExaWaitForMonitorRunsOperator
from airflow_provider_exa.sensors import ExaMonitorRunSensor
from airflow_provider_exa.standin import Fault, StandIn
from tests.tasks import POKE_INTERVAL, Store, Task, TaskInstance

#: What Airflow's scheduler gives a task whose deferral has timed out.
TIMED_OUT: tuple[str, dict[str, Any]] = ("__fail__", {"error": "Trigger timeout"})


def sensor(**given: Any) -> ExaMonitorRunSensor:
    given = {"run_id": "run_1", "timeout": 100, "poke_interval": POKE_INTERVAL, **given}
    return ExaMonitorRunSensor(task_id="wait", monitor_id="mon_a", deferrable=True, **given)


def deferred(store: Store | None, **given: Any) -> dict[str, Any]:
    """Let a sensor defer; return its context."""
    context: dict[str, Any] = {"ti": TaskInstance(), "task_state_store": store}
    with pytest.raises(TaskDeferred):
        sensor(**given).execute(context)
    return context


@pytest.fixture
def running(exa: StandIn) -> None:
    """The run ``run_1``, which has not ended."""
    exa.add_run("mon_a", run_id="run_1", status="running")


@pytest.mark.usefixtures("running")
def test_a_deferred_sensor_says_what_it_has_waited_for(exa: StandIn) -> None:
    """For how long, and what was last seen, asked of Exa once more."""
    context = deferred(Store())
    exa.requests.clear()
    with pytest.raises(AirflowSensorTimeout) as caught:
        sensor().resume_execution(*TIMED_OUT, context)
    assert str(caught.value) == (
        "Timed out waiting for run run_1 (monitor mon_a, after 0:00:00). Last seen: Run run_1 is running."
    )
    assert len(exa.requests) == 1


@pytest.mark.usefixtures("running")
def test_trouble_at_the_last_moment_is_part_of_the_message(exa: StandIn) -> None:
    """It may be why the run was not seen to end."""
    context = deferred(Store())
    exa.fail(Fault(status=403))
    with pytest.raises(AirflowSensorTimeout, match="Last seen: Exa answered 403"):
        sensor().resume_execution(*TIMED_OUT, context)


@pytest.mark.usefixtures("running")
def test_a_run_that_has_ended_at_the_last_moment_is_returned(exa: StandIn) -> None:
    """As where a sensor pokes once more before it times out."""
    context = deferred(Store())
    exa.move("run_1", "completed")
    assert sensor().resume_execution(*TIMED_OUT, context)["status"] == "completed"


@pytest.mark.usefixtures("running")
def test_before_airflow_3_3_the_message_has_no_more_than_the_task_knows(exa: StandIn) -> None:
    """Without task state the run that ``latest`` was pinned to is not known."""
    context = deferred(None, run_id=None, pick="latest")
    exa.requests.clear()
    with pytest.raises(AirflowSensorTimeout, match="Timed out waiting for the latest run"):
        sensor(run_id=None, pick="latest").resume_execution(*TIMED_OUT, context)
    assert exa.requests == []


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"execution_timeout": timedelta(seconds=5)}, AirflowTaskTimeout),
        ({"execution_timeout": timedelta(seconds=500)}, AirflowSensorTimeout),
    ],
)
def test_the_shorter_of_both_limits_decides_how_it_ends(
    given: dict[str, Any], error: type[BaseException]
) -> None:
    """Airflow retries a task after its ``execution_timeout``, and not after a sensor's ``timeout``."""
    context = deferred(Store(), **given)
    with pytest.raises(error, match="Timed out waiting for run run_1"):
        sensor(**given).resume_execution(*TIMED_OUT, context)


@pytest.mark.usefixtures("running")
def test_a_poke_does_not_outlast_the_timeout(exa: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a ``Retry-After`` of a minute nor a server that hangs holds the slot."""
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    exa.fail(Fault(status=429, retry_after="60", times=None))
    poking = ExaMonitorRunSensor(
        task_id="wait", monitor_id="mon_a", run_id="run_1", deferrable=False, timeout=2, poke_interval=1
    )
    with pytest.raises(Exception, match="answered 429"):
        poking.execute({"ti": TaskInstance(), "task_state_store": Store()})
    assert sum(slept) < 2
    assert len(exa.requests) < 4


def test_the_start_is_remembered_though_the_first_poll_fails(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``next`` means since the task first started, in whichever try the run is seen."""
    monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection(retries=0))
    for mode in ("poke", "reschedule", "deferred"):
        way = {"deferrable": mode == "deferred", "mode": "poke" if mode == "deferred" else mode}
        task = Task(
            lambda way=way: ExaMonitorRunSensor(
                task_id="wait", monitor_id="mon_a", pick="next", poke_interval=POKE_INTERVAL, **way
            ),
            store=Store(),
        )
        exa.fail(Fault(status=503))
        assert task.run(monkeypatch).state == "failed"
        run_id = exa.add_run("mon_a")
        assert task.run(monkeypatch).xcom["id"] == run_id


def test_an_operators_execution_timeout_ends_its_wait_in_a_worker(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is raised wherever the process is; no event loop swallows it."""
    exa.add_run("mon_a", run_id="run_1", status="running")

    def time_out(seconds: float) -> None:
        raise AirflowTaskTimeout("Timeout")

    monkeypatch.setattr("time.sleep", time_out)
    operator = ExaWaitForMonitorRunsOperator(
        task_id="wait", runs=[{"monitor_id": "mon_a", "id": "run_1"}], deferrable=False
    )
    with pytest.raises(AirflowTaskTimeout):
        operator.execute({"ti": TaskInstance()})
