"""Arguments that only a running task knows, as native templating may render them."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import copy
from decimal import Decimal
from pathlib import Path
from typing import Any

import pendulum
import pytest
from airflow.sdk import BaseOperator, ObjectStoragePath
from airflow.sdk.exceptions import AirflowRescheduleException

from airflow_provider_exa.operators import (
    ExaListMonitorRunResultsOperator,
    ExaListMonitorRunsOperator,
    ExaListMonitorsOperator,
    ExaTriggerMonitorOperator,
    ExaWaitForMonitorRunsOperator,
)
from airflow_provider_exa.protocol.errors import ExaInputError
from airflow_provider_exa.sensors import ExaMonitorRunSensor
from airflow_provider_exa.standin import Fault, StandIn
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
ODD: list[Any] = [5, 0, True, [], {}, "", b"mon_a", pendulum.datetime(2026, 1, 1), Decimal(1), ("mon_a",)]
ODD_IDS = [*ODD, None, ["mon_a"], {"monitor": "mon_a"}, "half an emoji \ud83d", " ", ".."]
SAY_WHICH = {
    "sensor": ExaMonitorRunSensor(task_id="t", monitor_id="mon_a", run_id="run_1", mode="reschedule"),
    "runs": ExaListMonitorRunsOperator(task_id="t", monitor_id="mon_a"),
    "results": ExaListMonitorRunResultsOperator(task_id="t", monitor_id="mon_a", run_id="run_1"),
    "monitors": ExaListMonitorsOperator(task_id="t"),
    "trigger": ExaTriggerMonitorOperator(task_id="t", monitor_id="mon_a"),
    "wait": ExaWaitForMonitorRunsOperator(task_id="t", monitor_ids=["mon_a"], created_after="2026-01-01"),
}


def run(operator: BaseOperator) -> Any:
    return operator.execute({"ti": TaskInstance(), "task_state_store": Store()})  # type: ignore[arg-type]


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
@pytest.mark.parametrize("odd", ODD_IDS, ids=repr)
def test_a_rendered_monitor_id_that_is_none_is_refused_in_words(exa: StandIn, make: Make, odd: Any) -> None:
    """No request is sent, and the error says what was given."""
    operator = make(monitor_id=TEMPLATE)
    operator.monitor_id = odd
    with pytest.raises(ExaInputError, match=r"\(task_id='t'\): monitor_id is .*; it must be an id"):
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


@pytest.mark.parametrize("operator", SAY_WHICH.values(), ids=SAY_WHICH)
@pytest.mark.parametrize("odd", [*ODD, None], ids=repr)
def test_a_rendered_connection_id_that_is_none_is_refused_in_words(operator: Any, odd: Any) -> None:
    """In every operator, before anything is asked or remembered."""
    task = copy(operator)
    task.exa_conn_id = odd
    with pytest.raises(ExaInputError, match=r"\(task_id='t'\): exa_conn_id=.* is not the id of an Airflow"):
        run(task)


@pytest.mark.parametrize("odd", [each for each in ODD if not isinstance(each, pendulum.DateTime)], ids=repr)
@pytest.mark.parametrize(
    ("operator", "name"),
    [
        ("runs", "created_after"),
        ("runs", "created_before"),
        ("wait", "created_after"),
        ("monitors", "webset_id"),
    ],
)
def test_a_rendered_filter_that_is_none_is_no_missing_filter(
    exa: StandIn, operator: str, name: str, odd: Any
) -> None:
    """Only None stands for an argument that was not given; all of the team's monitors were not asked for."""
    task = copy(SAY_WHICH[operator])
    setattr(task, name, odd)
    with pytest.raises(ExaInputError, match=rf"\(task_id='t'\): {name}"):
        run(task)
    assert exa.requests == []


@pytest.mark.parametrize("extra", [{}, {"tags": ("a", "b")}, {5: 1}, {"seen": pendulum.datetime(2026, 1, 1)}])
def test_a_run_as_a_dict_is_recognised_by_the_next_process(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, extra: dict[Any, Any]
) -> None:
    """Whatever else it holds, and whether or not that is the same after it was JSON."""
    exa.add_run("mon_a", run_id="run_1", status="running")
    monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection(retries=0))
    context: Any = {"ti": TaskInstance(), "task_state_store": Store()}
    for _ in range(2):
        sensor = copy(SAY_WHICH["sensor"])
        sensor.run_id = {"id": "run_1", **extra}  # type: ignore[attr-defined]
        with pytest.raises(AirflowRescheduleException):  # and not the error of a first poll
            sensor.execute(context)
        exa.fail(Fault(kind="cut"))


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        *((each, "it must be the path of a file") for each in ODD),
        ("../x", "has '..' in it"),
        ("a\0b", "null character"),
        ("nope://bucket/x", "Unsupported filesystem"),
        ("s3://bucket/x", "No filesystem registered for scheme s3"),
    ],
    ids=repr,
)
def test_a_rendered_path_that_is_none_is_refused_in_words(exa: StandIn, odd: Any, words: str) -> None:
    """Before Exa is asked for the results, which may take long."""
    task: Any = copy(SAY_WHICH["results"])
    task.path = odd
    with pytest.raises(ExaInputError, match=r"\(task_id='t'\): path") as caught:
        run(task)
    assert words in str(caught.value)
    assert exa.requests == []


@pytest.mark.parametrize("kind", [str, Path, lambda path: ObjectStoragePath(f"file://{path}")])
def test_a_path_is_given_in_any_form(exa: StandIn, tmp_path: Path, kind: Callable[[Path], Any]) -> None:
    """As Python's, as Airflow's, or as a string."""
    exa.add_run("mon_a", run_id="run_1", results=[{"url": "https://a"}])
    path = kind(tmp_path / "results.jsonl")
    task = ExaListMonitorRunResultsOperator(task_id="t", monitor_id="mon_a", run_id="run_1", path=path)
    task.render_template_fields({})
    assert json.loads(json.dumps(run(task))) == {"path": str(path), "count": 1}
    assert (tmp_path / "results.jsonl").read_text().count("\n") == 1


@pytest.mark.parametrize("name", ["sensor", "trigger"])
@pytest.mark.parametrize("odd", [[], {}, b"mon_a", None], ids=repr)
def test_a_monitor_id_that_is_none_is_refused_where_a_task_resumes(name: str, odd: Any) -> None:
    """Airflow renders the templates anew in each process."""
    task: Any = copy(SAY_WHICH[name])
    task.monitor_id = odd
    context = {"ti": TaskInstance(), "task_state_store": Store()}
    event = {"run": {"monitor_id": "mon_a"}, "runs": {"mon_a": {"id": "run_1"}}}
    with pytest.raises(ExaInputError, match=r"\(task_id='t'\): monitor_id is "):
        task.resume_execution("execute_complete", {"event": event}, context)
