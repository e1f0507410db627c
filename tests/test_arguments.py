"""Arguments that only a running task knows, as native templating may render them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk import BaseOperator

from airflow_provider_exa.operators import (
    ExaListMonitorRunResultsOperator,
    ExaListMonitorRunsOperator,
    ExaTriggerMonitorOperator,
    ExaWaitForMonitorRunsOperator,
)
from airflow_provider_exa.protocol.errors import ExaInputError
from airflow_provider_exa.sensors import ExaMonitorRunSensor
from airflow_provider_exa.standin import StandIn
from tests.tasks import Store, TaskInstance

Make = Callable[..., BaseOperator]
TEMPLATE = "{{ rendered }}"

MAKES: dict[str, Make] = {
    "sensor": lambda **given: ExaMonitorRunSensor(task_id="t", pick="latest", deferrable=False, **given),
    "deferred sensor": lambda **given: ExaMonitorRunSensor(
        task_id="t", pick="latest", deferrable=True, **given
    ),
    "runs": lambda **given: ExaListMonitorRunsOperator(task_id="t", **given),
    "results": lambda **given: ExaListMonitorRunResultsOperator(task_id="t", run_id="run_1", **given),
    "trigger": lambda **given: ExaTriggerMonitorOperator(task_id="t", **given),
}
ODD_IDS = [5, None, ["mon_a"], {"monitor": "mon_a"}, "half an emoji \ud83d", "", " ", "..", True]


def run(operator: BaseOperator) -> Any:
    return operator.execute({"ti": TaskInstance(), "task_state_store": Store()})  # type: ignore[arg-type]


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
@pytest.mark.parametrize("odd", ODD_IDS, ids=repr)
def test_a_rendered_monitor_id_that_is_none_is_refused_in_words(exa: StandIn, make: Make, odd: Any) -> None:
    """No request is sent, and the error says what was given."""
    operator = make(monitor_id=TEMPLATE)
    operator.monitor_id = odd
    with pytest.raises(ExaInputError, match=r"monitor_id is .*; it must be an id of Exa's, a string"):
        run(operator)
    assert exa.requests == []


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("odd", ODD_IDS, ids=repr)
def test_a_rendered_run_id_that_is_none_is_refused_in_words(
    exa: StandIn, odd: Any, *, deferrable: bool
) -> None:
    """Before the task defers, and with its name."""
    sensor = ExaMonitorRunSensor(task_id="t", monitor_id="mon_a", run_id=TEMPLATE, deferrable=deferrable)
    sensor.run_id = odd
    with pytest.raises(ExaInputError, match=r"task_id='t'.*(run_id is|given: none)"):
        run(sensor)
    assert exa.requests == []


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_run_as_a_dict_stands_for_its_id(exa: StandIn, *, deferrable: bool) -> None:
    """``run_id=trigger.output`` is a natural thing to write."""
    exa.add_run("mon_a", run_id="run_1")
    sensor = ExaMonitorRunSensor(task_id="t", monitor_id="mon_a", run_id=TEMPLATE, deferrable=deferrable)
    sensor.run_id = {"id": "run_1", "status": "created"}  # type: ignore[assignment]
    assert run(sensor)["id"] == "run_1"


@pytest.mark.parametrize(
    "runs",
    [[{"monitor_id": 5, "id": "run_1"}], [{"monitor_id": "mon_a", "id": 5}], [{}], [5], "text", {}, None],
)
def test_rendered_runs_that_are_none_are_refused_in_words(exa: StandIn, runs: Any) -> None:
    """The task fails at once, without a request."""
    operator = ExaWaitForMonitorRunsOperator(task_id="t", runs=TEMPLATE)
    operator.runs = runs
    with pytest.raises(ExaInputError, match="task_id='t'"):
        run(operator)
    assert exa.requests == []
