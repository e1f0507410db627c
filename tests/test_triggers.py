"""From a task to its trigger and back: the poll before, arguments that lose nothing, and an event."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from datetime import timedelta
from pkgutil import resolve_name
from typing import Any

import pendulum
import pytest
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import TaskDeferred
from airflow.triggers.base import TriggerEvent

from airflow_provider_exa import triggers
from airflow_provider_exa.hooks import ExaHook
from airflow_provider_exa.operators import ExaTriggerMonitorOperator, ExaWaitForMonitorRunsOperator
from airflow_provider_exa.protocol.errors import ExaPermanentError, ExaRunFailedError, ExaTransientError
from airflow_provider_exa.protocol.models import MonitorRun
from airflow_provider_exa.sensors import ExaMonitorRunSensor
from airflow_provider_exa.standin import Fault, StandIn
from airflow_provider_exa.timing import Timing, use_timing
from airflow_provider_exa.triggers import (
    ExaMonitorRunsTrigger,
    ExaMonitorRunTrigger,
    ExaStartedRunTrigger,
    ExaWaitTrigger,
)
from airflow_provider_exa.waiting.progress import Progress
from tests.tasks import Store, TaskInstance, defer

SINCE = "2026-01-01T00:00:00+00:00"
STARTED_AT = pendulum.datetime(2026, 1, 2)
BY_ID = {"run_id": "run_1", "created_after": None, "pick": None, "idle": False}


# --- arguments ------------------------------------------------------------------------------------

TRIGGERS: dict[str, ExaWaitTrigger] = {
    "by id": ExaMonitorRunTrigger("mon_a", run_id="run_1", poll_interval=5, exa_conn_id="exa_eu"),
    "by time": ExaMonitorRunTrigger("mon_a", created_after=SINCE, max_poll_interval=600, api="search"),
    "next": ExaMonitorRunTrigger("mon_a", pick="next", idle=True, started_at=SINCE),
    "several": ExaMonitorRunsTrigger(
        {"mon_a": BY_ID, "mon_b": BY_ID},
        runs={"mon_b": {"id": "run_2", "status": "failed"}},
        needed=1,
        fail_on=["failed"],
        poll_interval=7,
    ),
    "started": ExaStartedRunTrigger("mon_a", SINCE, "run_0", api="search"),
}


@pytest.mark.parametrize("trigger", TRIGGERS.values(), ids=TRIGGERS)
def test_a_trigger_is_the_same_when_made_anew_of_its_arguments(trigger: ExaWaitTrigger) -> None:
    """A restarted triggerer goes on with the same wait, also one that began with ``next``."""
    path, arguments = trigger.serialize()
    again = resolve_name(path)(**json.loads(json.dumps(arguments)))
    assert again.serialize() == (path, arguments)
    parameters = (
        inspect.signature(type(trigger)).parameters.keys() | inspect.signature(ExaWaitTrigger).parameters
    )
    assert arguments.keys() == parameters - {"options", "_unknown"}


@pytest.mark.parametrize("trigger", TRIGGERS.values(), ids=TRIGGERS)
def test_a_trigger_of_another_version_goes_on(trigger: ExaWaitTrigger) -> None:
    """Arguments that are unknown here are ignored, and those that it lacks have their defaults."""
    path, arguments = trigger.serialize()
    arguments["started_at"] = SINCE
    again = resolve_name(path)(**arguments, looked=True, colour="blue")
    assert again.serialize() == (path, arguments)
    signature = inspect.signature(type(trigger)).parameters
    needed = {name for name, each in signature.items() if each.default is each.empty} - {"options"}
    bare = resolve_name(path)(
        **{
            name: arguments[name]
            for name in needed | {"pick", "run_id", "created_after"}
            if name in arguments
        }
    )
    assert (bare.poll_interval, bare.exa_conn_id, bare.api) == (60, "exa_default", "websets")
    assert pendulum.parse(bare.started_at) > pendulum.now("UTC").subtract(minutes=1)


@pytest.mark.parametrize(
    "selector",
    [{"run_id": "run_1"}, {"created_after": SINCE, "until": None}, {"pick": "latest", "idle": None}],
)
def test_a_selector_of_another_version_is_read(exa: StandIn, selector: dict[str, Any]) -> None:
    """Without the keys that it lacks, and with those that are new."""
    exa.add_run("mon_a", run_id="run_1")
    assert first_event(ExaMonitorRunsTrigger({"mon_a": selector})).payload["runs"]["mon_a"]["id"] == "run_1"


# --- the poll in the worker -----------------------------------------------------------------------


def sensor(**arguments: Any) -> ExaMonitorRunSensor:
    """Return a deferrable sensor."""
    return ExaMonitorRunSensor(task_id="wait", monitor_id="mon_a", deferrable=True, **arguments)


def operator(**arguments: Any) -> ExaWaitForMonitorRunsOperator:
    """Return a deferrable operator that waits for the run of one monitor."""
    return ExaWaitForMonitorRunsOperator(task_id="wait", monitor_ids=["mon_a"], deferrable=True, **arguments)


BOTH = pytest.mark.parametrize("make", [sensor, operator])


def execute(task: BaseOperator, store: Store | None = None) -> Any:
    """Run the first process of a task."""
    ti = TaskInstance(STARTED_AT, max_tries=0)
    return task.execute({"ti": ti, "task_state_store": store or Store()})


def deferral(task: BaseOperator, store: Store | None = None) -> TaskDeferred:
    """Run the first process of a task, which has to defer."""
    with pytest.raises(TaskDeferred) as caught:
        execute(task, store)
    return caught.value


def arguments_of(deferred: TaskDeferred) -> dict[str, Any]:
    """Return the arguments of the trigger."""
    arguments: dict[str, Any] = deferred.trigger.serialize()[1]
    return arguments


@BOTH
def test_a_run_that_has_ended_needs_no_deferral(exa: StandIn, make: Any) -> None:
    """One request, and the task is done."""
    exa.add_run("mon_a", run_id="run_1")
    result = execute(make(created_after=SINCE))
    assert "run_1" in json.dumps(result)
    assert [request.path for request in exa.requests] == ["/websets/v0/monitors/mon_a/runs"]


@BOTH
def test_a_run_that_has_failed_fails_the_task_at_once(exa: StandIn, make: Any) -> None:
    """Without a deferral."""
    exa.add_run("mon_a", status="failed", failed_reason="out of luck")
    with pytest.raises(ExaRunFailedError, match="out of luck"):
        execute(make(created_after=SINCE))


@BOTH
@pytest.mark.parametrize("status", [400, 401])
def test_a_bad_key_fails_at_once(exa: StandIn, make: Any, status: Any) -> None:
    """In Exa's own words, and without a deferral."""
    exa.api_key, exa.bad_key_status = "another-key-5678", status
    with pytest.raises(ExaPermanentError, match=f"{status}.*(Invalid API key|x-api-key header is invalid)"):
        execute(make(created_after=SINCE))


@BOTH
def test_an_unknown_monitor_fails_at_once(exa: StandIn, make: Any) -> None:
    """It would list as empty for ever."""
    exa.monitors.clear()
    with pytest.raises(ExaPermanentError, match=r"404.*Monitor not found"):
        execute(make(created_after=SINCE))


@BOTH
def test_the_first_poll_has_to_succeed(exa: StandIn, monkeypatch: pytest.MonkeyPatch, make: Any) -> None:
    """Trouble is raised after its retries, so that the task's own retries count."""
    monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection(retries=0))
    exa.fail(Fault(times=None))
    with pytest.raises(ExaTransientError, match="503"):
        execute(make(created_after=SINCE))


def test_a_retry_polls_first_again_where_no_first_poll_succeeded(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not wait out trouble that it has never been without."""
    monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection(retries=0))
    exa.fail(Fault(times=2))
    store = Store()
    for _ in range(2):
        with pytest.raises(ExaTransientError, match="503"):
            execute(sensor(pick="next"), store)
    assert arguments_of(deferral(sensor(pick="next"), store))["started_at"] == STARTED_AT.isoformat()


def test_latest_is_pinned_before_the_task_defers(exa: StandIn) -> None:
    """A newer run that comes between the worker and the triggerer is another."""
    exa.add_run("mon_a", run_id="run_1", status="running")
    deferred = deferral(sensor(pick="latest"))
    assert arguments_of(deferred)["selectors"] == {"mon_a": BY_ID}
    exa.add_run("mon_a", run_id="run_2")
    exa.move("run_1", "completed")
    assert first_event(deferred.trigger).payload["runs"]["mon_a"]["id"] == "run_1"


def test_latest_means_the_first_to_come_where_there_is_no_run(exa: StandIn) -> None:
    """Not the newest of two that come before the triggerer polls."""
    deferred = deferral(sensor(pick="latest"))
    first, second = (exa.add_run("mon_a", run_id=run_id) for run_id in ("run_9", "run_1"))
    exa.runs[first].created_at -= timedelta(seconds=1)
    assert first_event(deferred.trigger).payload["runs"]["mon_a"]["id"] == first != second


@pytest.mark.parametrize("pick", ["next", "latest"])
def test_a_later_process_goes_on_with_the_same_run(exa: StandIn, pick: str) -> None:
    """The run that was found is remembered before the task defers."""
    store = Store()
    exa.add_run("mon_a", run_id="run_1", status="running")
    deferral(sensor(pick=pick), store)
    exa.add_run("mon_a", run_id="run_2", status="running")
    assert arguments_of(deferral(sensor(pick=pick), store))["selectors"] == {"mon_a": BY_ID}


# --- from the task to its trigger -----------------------------------------------------------------


def test_a_sensor_hands_all_that_was_set_to_its_trigger(exa: StandIn) -> None:
    """Nothing is dropped on the way, and the key is not among it."""
    exa.add_run("mon_a", run_id="run_1", status="running")
    task = sensor(
        pick="next",
        fail_on=("failed",),
        wait_for_idle=True,
        poke_interval=7,
        timeout=100,
        exponential_backoff=True,
        max_wait=50,
    )
    deferred = deferral(task)
    assert type(deferred.trigger) is ExaMonitorRunsTrigger
    assert arguments_of(deferred) == {
        "selectors": {"mon_a": {**BY_ID, "idle": True}},
        "runs": {},
        "needed": None,
        "fail_on": ["failed"],
        "poll_interval": 7,
        "max_poll_interval": 50,
        "exa_conn_id": "exa_default",
        "api": "websets",
        "started_at": STARTED_AT.isoformat(),
    }
    assert exa.api_key not in json.dumps(deferred.trigger.serialize())


@pytest.mark.parametrize(
    ("arguments", "bound"),
    [
        ({}, None),
        ({"exponential_backoff": True}, 3600),
        ({"exponential_backoff": True, "max_wait": timedelta(hours=6)}, 6 * 3600),
    ],
    ids=str,
)
def test_an_interval_grows_to_an_hour_where_nothing_else_is_said(
    exa: StandIn, arguments: dict[str, Any], bound: float | None
) -> None:
    """Without exponential backoff it does not grow at all."""
    assert arguments_of(deferral(sensor(pick="next", **arguments)))["max_poll_interval"] == bound


def test_an_operator_hands_all_that_was_set_to_the_same_trigger(exa: StandIn) -> None:
    """With the runs that have ended already, and the wait for the others."""
    exa.add_run("mon_a", run_id="run_1", status="failed")
    exa.add_run("mon_b", run_id="run_2", status="running")
    task = ExaWaitForMonitorRunsOperator(
        task_id="wait",
        runs=[{"monitor_id": "mon_a", "id": "run_1"}, {"monitor_id": "mon_b", "id": "run_2"}],
        wait_for="any",
        fail_on=("failed",),
        wait_for_idle=True,
        poll_interval=9,
        deferrable=True,
    )
    deferred = deferral(task)
    assert type(deferred.trigger) is ExaMonitorRunsTrigger
    arguments = arguments_of(deferred)
    assert arguments["selectors"] == {
        "mon_a": {**BY_ID, "idle": True},
        "mon_b": {**BY_ID, "run_id": "run_2", "idle": True},
    }
    assert {monitor_id: run["status"] for monitor_id, run in arguments["runs"].items()} == {"mon_a": "failed"}
    assert (arguments["needed"], arguments["fail_on"], arguments["poll_interval"]) == (1, ["failed"], 9)
    exa.requests.clear()
    exa.move("run_2", "completed")
    method, arguments = defer(deferred)
    assert not [each.path for each in exa.requests if "mon_a" in each.path]
    result = getattr(task, method)({}, **arguments)
    assert {monitor_id: run["status"] for monitor_id, run in result.items()} == {
        "mon_a": "failed",
        "mon_b": "completed",
    }


@pytest.mark.parametrize(
    ("timeout", "execution_timeout", "seconds"),
    [(100, None, 100), (100, 30, 30), (100, 300, 100), (7 * 24 * 3600, 60, 60)],
)
def test_a_sensor_is_deferred_for_the_shorter_of_its_timeouts(
    exa: StandIn, timeout: float, execution_timeout: float | None, seconds: float
) -> None:
    """What is left of ``timeout``, or ``execution_timeout``."""
    limit = None if execution_timeout is None else timedelta(seconds=execution_timeout)
    deferred = deferral(sensor(pick="next", timeout=timeout, execution_timeout=limit))
    assert seconds - 5 < deferred.timeout.total_seconds() <= seconds


@pytest.mark.parametrize("execution_timeout", [None, 30])
def test_an_operator_is_deferred_for_what_is_left_of_its_execution_timeout(
    exa: StandIn, execution_timeout: float | None
) -> None:
    """It has no other; without it, it waits for ever."""
    limit = None if execution_timeout is None else timedelta(seconds=execution_timeout)
    timeout = deferral(operator(created_after=SINCE, execution_timeout=limit)).timeout
    if execution_timeout is None:
        assert timeout is None
    else:
        assert execution_timeout - 5 < timeout.total_seconds() < execution_timeout


# --- events ---------------------------------------------------------------------------------------


def first_event(trigger: Any) -> TriggerEvent:
    """Return the event of a trigger."""

    async def run() -> TriggerEvent:
        return await asyncio.wait_for(anext(trigger.run()), 10)

    return asyncio.run(run())


@pytest.mark.parametrize("is_known", [True, False], ids=["run", "error"])
def test_the_event_comes_no_sooner_than_airflow_can_take_it(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    """A worker's supervisor may notice at its next heartbeat only that the task's process has ended."""
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "1")
    if is_known:
        exa.add_run("mon_a", run_id="run_1")
    start = time.monotonic()
    with use_timing(Timing(first_poll_jitter=0, min_poll_interval=0.01, first_event_margin=-0.5)):
        event = first_event(ExaMonitorRunTrigger("mon_a", run_id="run_1", poll_interval=0.05))
    assert 0.5 <= time.monotonic() - start < 2
    assert ("run" if is_known else "error") in event.payload


def test_the_first_event_leaves_five_seconds_beyond_a_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the heartbeats of this Airflow's workers are."""
    with use_timing(Timing()):
        assert triggers.first_event_after() == 10
        monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "60")
        assert triggers.first_event_after() == 65


@pytest.mark.parametrize(
    ("status", "needed", "ended"),
    [("completed", 1, 1), ("failed", 1, 2), ("failed", 2, 1), ("failed", None, 1)],
)
def test_a_trigger_for_several_fires_once_it_is_decided(
    exa: StandIn, status: str, needed: int | None, ended: int
) -> None:
    """Not before, and without the runs that no longer count."""
    exa.add_run("mon_a", status=status)
    exa.add_run("mon_b", status="running", states=[(0, "running"), (1.2, "completed")])
    selectors = {monitor_id: {"created_after": SINCE} for monitor_id in ("mon_a", "mon_b")}
    event = first_event(ExaMonitorRunsTrigger(selectors, needed=needed, poll_interval=0.05))
    assert len(event.payload["runs"]) == ended


@pytest.mark.parametrize("needed", [1, 2])
def test_an_error_that_comes_with_the_run_that_decides_does_not_count(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, needed: int
) -> None:
    """Where both come at the very same time, in whichever order."""
    exa.add_run("mon_a", run_id="run_1")
    run = ExaHook().get_monitor_run("mon_a", "run_1")

    async def wait_for_run(progress: Progress, **options: Any) -> MonitorRun:
        if progress.monitor_id == "mon_a":
            return run
        raise ExaPermanentError("gone")

    monkeypatch.setattr("airflow_provider_exa.waiting.waiter.wait_for_run", wait_for_run)
    selectors = {monitor_id: {"created_after": SINCE} for monitor_id in ("mon_b", "mon_a", "mon_c")}
    payload = first_event(ExaMonitorRunsTrigger(selectors, needed=needed)).payload
    assert payload == (
        {"runs": {"mon_a": run.as_dict()}} if needed == 1 else {"error": "gone", "type": "ExaPermanentError"}
    )


def test_a_trigger_for_runs_that_have_ended_asks_nothing(exa: StandIn) -> None:
    """They come from the worker."""
    run = {"id": "run_1", "status": "completed"}
    assert first_event(ExaMonitorRunsTrigger({}, runs={"mon_a": run})).payload == {"runs": {"mon_a": run}}
    assert exa.requests == []


@pytest.mark.parametrize(
    ("trigger", "error"),
    [
        (ExaMonitorRunTrigger("mon_none", run_id="run_1", poll_interval=0.05), "ExaPermanentError"),
        (ExaMonitorRunsTrigger({"mon_a": {"run_id": {"run": 1}}}), "ExaInputError"),
        (ExaMonitorRunsTrigger({"mon_a": {}}), "ExaInputError"),
        (ExaMonitorRunsTrigger({"mon_a": {"pick": "latest"}}, started_at="soon"), "ExaInputError"),
        (ExaMonitorRunsTrigger({"mon_a": {"pick": "latest"}}, api="nope"), "ExaInputError"),
        (ExaStartedRunTrigger("mon_a", "soon"), "ExaInputError"),
    ],
    ids=["404", "run_id", "no selector", "started_at", "api", "created_after"],
)
def test_an_error_of_exas_is_an_event(exa: StandIn, trigger: ExaWaitTrigger, error: str) -> None:
    """The task raises it, with its message, in the worker."""
    payload = first_event(trigger).payload
    assert payload.keys() == {"error", "type"}
    assert payload["type"] == error
    json.dumps(payload)


def test_a_bug_is_raised_with_its_traceback() -> None:
    """Airflow tells it to the task itself."""
    with pytest.raises(TypeError):
        first_event(ExaMonitorRunsTrigger(5))  # type: ignore[arg-type]


@pytest.mark.parametrize("is_replaced", [True, False])
def test_a_started_run_that_was_canceled_may_be_replaced(exa: StandIn, is_replaced: bool) -> None:
    """Exa cancels a run for the next one, which then is the one that was started."""
    exa.add_run("mon_a", run_id="run_1", status="canceled", created_at=STARTED_AT)
    if is_replaced:
        created_at = pendulum.now("UTC").subtract(seconds=1)
        run_id = exa.add_run("mon_a", created_at=created_at, states=[(0, "running"), (1.2, "completed")])
        exa.runs[run_id].hidden_until = pendulum.now("UTC").add(seconds=0.2)
    trigger = ExaStartedRunTrigger("mon_a", SINCE, "run_0", api="search", poll_interval=0.05)
    with use_timing(
        Timing(first_poll_jitter=0, min_poll_interval=0.01, first_event_margin=-5, replacement_delay=0.4)
    ):
        run = first_event(trigger).payload["run"]
    assert (run["status"], run["id"] == "run_1") == (
        ("completed", False) if is_replaced else ("canceled", True)
    )


# --- arguments that change while the task is deferred ---------------------------------------------


DEFERRED: dict[str, Any] = {
    "sensor": lambda monitor_id: ExaMonitorRunSensor(
        task_id="wait", monitor_id=monitor_id, created_after=SINCE, deferrable=True
    ),
    "runs": lambda monitor_id: ExaWaitForMonitorRunsOperator(
        task_id="wait", monitor_ids=[monitor_id], created_after=SINCE, deferrable=True
    ),
    "trigger": lambda monitor_id: ExaTriggerMonitorOperator(
        task_id="wait", monitor_id=monitor_id, wait_for_completion=True, deferrable=True
    ),
}
either_airflow = pytest.mark.parametrize("new_store", [Store, lambda: None], ids=["state", "no state"])


def resume(exa: StandIn, before: BaseOperator, after: BaseOperator, store: Store | None) -> Any:
    """Let a task defer, its run end, and the task resume with other arguments."""
    context: dict[str, Any] = {"ti": TaskInstance(), "task_state_store": store}
    with pytest.raises(TaskDeferred) as caught:
        before.execute(context)  # type: ignore[arg-type]
    exa.move("run_1", "completed")
    return after.resume_execution(*defer(caught.value), context)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", DEFERRED.values(), ids=DEFERRED)
@either_airflow
def test_the_run_of_another_monitor_is_no_success(exa: StandIn, make: Any, new_store: Any) -> None:
    """A retry waits for the one that is meant now."""
    exa.add_monitor("mon_b")
    exa.add_run("mon_a", run_id="run_1", status="running")
    with pytest.raises(ExaTransientError, match="The arguments changed while the task was deferred"):
        resume(exa, make("mon_a"), make("mon_b"), new_store())


def test_the_run_of_another_moment_is_no_success(exa: StandIn) -> None:
    """Where Airflow can remember the one that was asked for."""
    exa.add_run("mon_a", run_id="run_1", status="running", created_at=pendulum.datetime(2026, 1, 2))
    with pytest.raises(ExaTransientError, match="The arguments changed while the task was deferred"):
        resume(exa, sensor(created_after=SINCE), sensor(created_after="2026-01-03"), Store())


@either_airflow
def test_another_run_is_no_success(exa: StandIn, new_store: Any) -> None:
    """Of the same monitor."""
    exa.add_run("mon_a", run_id="run_1", status="running")
    with pytest.raises(ExaTransientError, match="The arguments changed while the task was deferred"):
        resume(exa, sensor(run_id="run_1"), sensor(run_id="run_2"), new_store())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            {"runs": [{"monitor_id": "mon_a", "id": "run_1"}]},
            {"runs": [{"monitor_id": "mon_a", "id": "run_2"}]},
        ),
        (
            {"monitor_ids": ["mon_a"], "created_after": SINCE},
            {"monitor_ids": ["mon_a", "mon_b"], "created_after": SINCE},
        ),
    ],
    ids=["another run", "one more"],
)
def test_runs_that_do_not_decide_what_is_asked_now_are_no_success(
    exa: StandIn, before: dict[str, Any], after: dict[str, Any]
) -> None:
    """Nor an error without words."""
    exa.add_run("mon_a", run_id="run_1", status="running")
    tasks = (ExaWaitForMonitorRunsOperator(task_id="w", deferrable=True, **each) for each in (before, after))
    with pytest.raises(ExaTransientError, match="The arguments changed while the task was deferred"):
        resume(exa, *tasks, Store())


# --- arguments of the operator --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "give monitor_ids=… with created_after=…, or runs=…"),
        ({"monitor_ids": ["mon_a"]}, "with created_after"),
        ({"runs": [{}], "monitor_ids": ["mon_a"], "created_after": "2026-01-01"}, "or runs"),
        ({"monitor_ids": ["a/b"], "created_after": "2026-01-01"}, "cannot be an id"),
        ({"monitor_ids": ["mon_a"], "created_after": "soon"}, "is not a time"),
        ({"runs": [{}], "wait_for": "most"}, "wait_for='most'"),
        ({"runs": [{}], "wait_for": 0}, "wait_for=0"),
        ({"runs": [{}], "poll_interval": 0}, "poll_interval=0"),
        ({"runs": [{}], "fail_on": "failed"}, "must be a list or tuple"),
        ({"runs": [{}]}, "run_id is None"),
        ({"runs": []}, "must be a list of dicts"),
        ({"runs": 5}, "must be a list of dicts"),
        ({"runs": ["mon_a"]}, "must be a list of dicts"),
        ({"runs": [{"monitor_id": "a/b", "id": "1"}]}, "cannot be an id"),
        ({"runs": [{"monitor_id": "mon_a", "id": "1"}] * 2}, "same monitor"),
        ({"monitor_ids": "mon_a", "created_after": "2026-01-01"}, "must be a list of ids"),
        ({"monitor_ids": 5, "created_after": "2026-01-01"}, "must be a list of ids"),
        ({"monitor_ids": [], "created_after": "2026-01-01"}, "must be a list of ids"),
        ({"monitor_ids": ["mon_a", "mon_a"], "created_after": "2026-01-01"}, "same monitor"),
        ({"monitor_ids": ["mon_a"], "created_after": "2026-01-01", "wait_for": 3}, "only 1 runs"),
        ({"monitor_ids": ["mon_a"], "created_after": "2026-01-01", "wait_for": True}, "wait_for=True"),
        ({"runs": "{{ runs }}", "exa_conn_id": 5}, "exa_conn_id=5 is not the id of an Airflow connection"),
        ({"runs": [{}], "wait_for_idle": True, "api": "search"}, "wait_for_idle=True is not possible with"),
    ],
)
def test_bad_arguments_are_refused_while_the_dag_is_parsed(arguments: dict[str, Any], words: str) -> None:
    """The DAG's import error says what to write instead."""
    with pytest.raises(ValueError, match=words):
        ExaWaitForMonitorRunsOperator(task_id="wait", **arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"runs": []}, "must be a list of dicts"),
        ({"runs": "[{'id': 1}]"}, "must be a list of dicts"),
        ({"runs": [{"monitor_id": "mon_a"}]}, "run_id is None"),
        ({"runs": [{"monitor_id": "mon_a", "id": "1"}, {"monitor_id": "mon_a", "id": "2"}]}, "same monitor"),
        ({"runs": [{"monitor_id": "mon_a", "id": "1"}], "wait_for": 2}, "only 1 runs"),
        ({"monitor_ids": [], "created_after": "2026-01-01"}, "must be a list of ids"),
    ],
)
def test_what_a_template_gives_is_checked_when_the_task_runs(arguments: dict[str, Any], words: str) -> None:
    """The task fails at once, without retries, and says what it was given."""
    name, rendered = next(iter(arguments.items()))
    operator = ExaWaitForMonitorRunsOperator(task_id="wait", **{**arguments, name: "{{ rendered }}"})
    setattr(operator, name, rendered)
    with pytest.raises(ValueError, match=words):
        operator.execute({})


def test_a_template_may_stand_for_each_monitor_and_run() -> None:
    """What is known only when the task runs is not refused while the DAG is parsed."""
    since = {"created_after": "{{ dag_run.run_after }}"}
    ExaWaitForMonitorRunsOperator(task_id="wait", monitor_ids=["{{ a }}", "mon_b"], wait_for=2, **since)
    ExaWaitForMonitorRunsOperator(
        task_id="wait", runs=["{{ a }}", {"monitor_id": "{{ b }}", "id": "{{ c }}"}]
    )
