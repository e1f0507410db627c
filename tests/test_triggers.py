"""What a deferred task leaves behind: arguments that lose nothing and hold no secret, and an event."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from pkgutil import resolve_name
from typing import Any

import pendulum
import pytest
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import TaskDeferred
from airflow.triggers.base import TriggerEvent

from airflow_provider_exa import triggers
from airflow_provider_exa.operators import ExaWaitForMonitorRunsOperator
from airflow_provider_exa.sensors import ExaMonitorRunSensor
from airflow_provider_exa.standin import StandIn
from airflow_provider_exa.triggers import ExaMonitorRunsTrigger, ExaMonitorRunTrigger, ExaWaitTrigger
from airflow_provider_exa.waiting import poller
from tests.tasks import Store, TaskInstance

TRIGGERS = [
    ExaMonitorRunTrigger("mon_a", run_id="run_1", poll_interval=5, exa_conn_id="exa_eu", looked=True),
    ExaMonitorRunTrigger("mon_a", created_after="2026-01-01T00:00:00+00:00", max_poll_interval=600),
    ExaMonitorRunTrigger("mon_a", pick="next", idle=True),
    ExaMonitorRunsTrigger({"mon_a": {"run_id": "run_1"}}, needed=1, fail_on=["failed"], poll_interval=7),
]


@pytest.mark.parametrize("trigger", TRIGGERS, ids=["by id", "by time", "next", "several"])
def test_a_trigger_is_the_same_when_made_anew_of_its_arguments(trigger: ExaWaitTrigger) -> None:
    """A restarted triggerer goes on with the same wait, also one that began with ``next``."""
    path, arguments = trigger.serialize()
    again = resolve_name(path)(**json.loads(json.dumps(arguments)))
    assert again.serialize() == (path, arguments)
    parameters = (
        inspect.signature(type(trigger)).parameters.keys() | inspect.signature(ExaWaitTrigger).parameters
    )
    assert arguments.keys() == parameters - {"options"}


def deferral(operator: Any) -> TaskDeferred:
    ti = TaskInstance(pendulum.datetime(2026, 1, 2), max_tries=0)
    with pytest.raises(TaskDeferred) as caught:
        operator.execute({"ti": ti, "task_state_store": Store()})
    return caught.value


def test_a_sensor_hands_all_that_was_set_to_its_trigger(exa: StandIn) -> None:
    """Nothing is dropped on the way, the key is not among it, and the worker asks Exa nothing."""
    sensor = ExaMonitorRunSensor(
        task_id="wait",
        monitor_id="mon_a",
        pick="next",
        wait_for_idle=True,
        poke_interval=7,
        timeout=100,
        exponential_backoff=True,
        max_wait=50,
        deferrable=True,
    )
    deferred = deferral(sensor)
    assert deferred.trigger.serialize()[1] == {
        "monitor_id": "mon_a",
        "run_id": None,
        "created_after": "2026-01-02T00:00:00+00:00",
        "pick": None,
        "idle": True,
        "poll_interval": 7,
        "max_poll_interval": 50,
        "exa_conn_id": "exa_default",
        "api": "websets",
        "started_at": "2026-01-02T00:00:00+00:00",
        "looked": False,
    }
    assert deferred.timeout.total_seconds() == 100
    assert exa.requests == []


def test_an_operator_hands_all_that_was_set_to_its_trigger(exa: StandIn) -> None:
    """The same for the operator that waits for many."""
    operator = ExaWaitForMonitorRunsOperator(
        task_id="wait",
        runs=[{"monitor_id": "mon_a", "id": "run_1"}, {"monitor_id": "mon_b", "id": "run_2"}],
        wait_for="any",
        fail_on=("failed",),
        wait_for_idle=True,
        poll_interval=9,
        execution_timeout=pendulum.duration(seconds=30),
        deferrable=True,
    )
    deferred = deferral(operator)
    arguments = deferred.trigger.serialize()[1]
    assert arguments["choices"] == {
        "mon_a": {"run_id": "run_1", "idle": True},
        "mon_b": {"run_id": "run_2", "idle": True},
    }
    assert (arguments["needed"], arguments["fail_on"], arguments["poll_interval"]) == (1, ["failed"], 9)
    assert deferred.timeout.total_seconds() == 30
    assert exa.requests == []


def first_event(trigger: ExaWaitTrigger) -> TriggerEvent:
    async def run() -> TriggerEvent:
        return await anext(trigger.run())

    return asyncio.run(run())


def test_the_event_comes_no_sooner_than_airflow_can_take_it(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that has ended already is not told at once."""
    monkeypatch.setattr(poller, "JITTER", 0)
    monkeypatch.setattr(triggers, "FIRST_EVENT_AFTER", 0.5)
    exa.add_run("mon_a", run_id="run_1")
    start = time.monotonic()
    event = first_event(ExaMonitorRunTrigger("mon_a", run_id="run_1"))
    assert time.monotonic() - start > 0.5
    assert event.payload["run"]["status"] == "completed"


def test_airflow_can_take_it_once_every_worker_must_have_told_of_the_deferral() -> None:
    """A worker's supervisor may notice no sooner than its heartbeat that the task's process has ended."""
    assert conf.getfloat("workers", "min_heartbeat_interval") + 5 <= triggers.FIRST_EVENT_AFTER


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
    operator = ExaWaitForMonitorRunsOperator(task_id="wait", **arguments)
    with pytest.raises(ValueError, match=words):
        operator.execute({})
