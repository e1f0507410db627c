"""What ends a wait that has no other end, and what a person reads of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import count
from typing import Any, ClassVar

import pytest
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import (
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)

from airflow_provider_exa.operators import ExaTriggerMonitorOperator, ExaWaitForMonitorRunsOperator
from airflow_provider_exa.protocol.errors import ExaError
from airflow_provider_exa.sensors import ExaMonitorRunSensor
from airflow_provider_exa.standin import Fault, StandIn
from airflow_provider_exa.timing import Timing, use_timing
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
    with pytest.raises(AirflowSensorTimeout, match=WORDS + r"Run run_1 is running\.$"):
        sensor().resume_execution(*TIMED_OUT, context)
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


SINCE = "2026-01-01T00:00:00Z"
WAITING: dict[str, Callable[..., BaseOperator]] = {
    "sensor": lambda **given: ExaMonitorRunSensor(
        task_id="wait", monitor_id="mon_a", created_after=SINCE, timeout=500, **given
    ),
    "runs": lambda **given: ExaWaitForMonitorRunsOperator(
        task_id="wait", monitor_ids=["mon_a"], created_after=SINCE, **given
    ),
    "trigger": lambda **given: ExaTriggerMonitorOperator(
        task_id="wait", monitor_id="mon_a", wait_for_completion=True, **given
    ),
}
every_wait = pytest.mark.parametrize("make", WAITING.values(), ids=WAITING)
WHAT = r"run run_1|the run that was started|the first run created at or after [-:+ \d]+"
WORDS = rf"^Timed out waiting for ({WHAT}) \(monitor mon_a, after 0:00:0\d\)\. Last seen: "


@pytest.mark.usefixtures("running")
@every_wait
def test_an_execution_timeout_in_a_worker_says_what_was_waited_for(
    monkeypatch: pytest.MonkeyPatch, make: Callable[..., BaseOperator]
) -> None:
    """It is raised wherever the process is; no event loop swallows it."""

    def time_out(seconds: float) -> None:
        raise AirflowTaskTimeout("Timeout, PID: 7")

    monkeypatch.setattr("time.sleep", time_out)
    with pytest.raises(AirflowTaskTimeout, match=WORDS + r"Run run_1 is running\.$"):
        make(deferrable=False).execute({"ti": TaskInstance(), "task_state_store": Store()})


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("name", ["runs", "trigger"])
def test_an_operator_polls_no_faster_than_the_triggerer(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """However short an interval it was given."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        raise AirflowTaskTimeout

    monkeypatch.setattr("time.sleep", sleep)
    with use_timing(Timing()), pytest.raises(AirflowTaskTimeout):
        WAITING[name](deferrable=False, poll_interval=1e-9).execute({"ti": TaskInstance()})
    assert slept == [1]


class TestADeferredExecutionTimeout:
    """What is left of ``execution_timeout`` goes on in the triggerer, and ends there."""

    LIMIT: ClassVar[dict[str, Any]] = {"deferrable": True, "execution_timeout": timedelta(seconds=30)}

    @pytest.fixture(autouse=True)
    def _run(self, running: None) -> None:
        """The run ``run_1``, which has not ended."""

    def deferred(self, make: Callable[..., BaseOperator]) -> tuple[dict[str, Any], TaskDeferred]:
        context: dict[str, Any] = {"ti": TaskInstance(), "task_state_store": Store()}
        with pytest.raises(TaskDeferred) as caught:
            make(**self.LIMIT).execute(context)
        return context, caught.value

    @every_wait
    @pytest.mark.parametrize(
        ("fault", "seen"), [(None, r"Run run_1 is running"), (Fault(status=403), "Exa answered 403")]
    )
    def test_it_says_what_was_waited_for(
        self, exa: StandIn, make: Callable[..., BaseOperator], fault: Fault | None, seen: str
    ) -> None:
        """And what was last seen, asked of Exa once more."""
        context, _ = self.deferred(make)
        if fault:
            exa.fail(fault)
        with pytest.raises(AirflowTaskTimeout, match=WORDS + seen):
            make(**self.LIMIT).resume_execution(*TIMED_OUT, context)

    @every_wait
    def test_a_run_that_has_ended_at_the_last_moment_counts(
        self, exa: StandIn, make: Callable[..., BaseOperator]
    ) -> None:
        """Well or badly."""
        context, _ = self.deferred(make)
        exa.move("run_1", "completed")
        assert "run_1" in str(make(**self.LIMIT).resume_execution(*TIMED_OUT, context))
        exa.move("run_1", "failed")
        with pytest.raises(ExaError, match="Run run_1 failed"):
            make(**self.LIMIT).resume_execution(*TIMED_OUT, context)

    @every_wait
    def test_the_time_in_the_worker_counts(
        self, monkeypatch: pytest.MonkeyPatch, make: Callable[..., BaseOperator]
    ) -> None:
        """Whatever the first poll takes is gone."""
        clock = count(100, 1)
        monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
        timeout = self.deferred(make)[1].timeout
        assert timeout is not None
        assert 0 < timeout.total_seconds() < 29

    def test_it_names_some_of_many_monitors(self, exa: StandIn) -> None:
        """Those whose runs have not ended, and how many more there are."""
        monitor_ids = [f"mon_{number:02}" for number in range(13)]
        for monitor_id in monitor_ids:
            exa.add_monitor(monitor_id)
            exa.add_run(monitor_id, run_id=f"run_of_{monitor_id}", status="running")
        exa.move("run_of_mon_00", "completed")
        operator = ExaWaitForMonitorRunsOperator(
            task_id="wait", monitor_ids=monitor_ids, created_after=SINCE, **self.LIMIT
        )
        with pytest.raises(AirflowTaskTimeout) as caught:
            operator.resume_execution(*TIMED_OUT, {"ti": TaskInstance()})
        words = str(caught.value)
        assert words.startswith("Timed out waiting for 12 runs (after 0:00:0")
        assert "Last seen: Run run_of_mon_01 is running (monitor mon_01); Run run_of_mon_02" in words
        assert words.endswith("(monitor mon_10); and 2 more.")

    def test_its_last_polls_end_in_time(self, exa: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
        """However many monitors there are, and however long Exa takes."""
        clock = count(100, 2)
        monkeypatch.setattr(
            "airflow_provider_exa.operators.waiting.time.monotonic", lambda: float(next(clock))
        )
        runs = [{"monitor_id": f"mon_{number}", "id": "run_1"} for number in range(50)]
        operator = ExaWaitForMonitorRunsOperator(task_id="wait", runs=runs, **self.LIMIT)
        with pytest.raises(AirflowTaskTimeout, match="Timed out waiting for 50 runs"):
            operator.resume_execution(*TIMED_OUT, {"ti": TaskInstance()})
        assert len(exa.requests) < 5


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("mode", ["poke", "reschedule"])
@pytest.mark.parametrize(
    ("flags", "error"),
    [
        ({}, AirflowSensorTimeout),
        ({"soft_fail": True}, AirflowSkipException),
        ({"never_fail": True}, AirflowSensorTimeout),
    ],
    ids=str,
)
def test_a_sensor_that_pokes_says_what_it_has_waited_for(
    mode: str, flags: dict[str, Any], error: type[BaseException]
) -> None:
    """It ends as the base class decides, and its words are those of a deferred sensor."""
    poking = ExaMonitorRunSensor(
        task_id="wait", monitor_id="mon_a", run_id="run_1", mode=mode, timeout=0, deferrable=False, **flags
    )
    with pytest.raises(error, match=WORDS + r"Run run_1 is running\.$"):
        poking.execute({"ti": TaskInstance(), "task_state_store": Store()})
