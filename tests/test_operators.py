"""Listing monitors and their runs in a DAG."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pendulum
import pytest
from airflow.sdk import DAG

from airflow_provider_exa.operators import (
    ExaListMonitorRunsOperator,
    ExaListMonitorsOperator,
    ExaWaitForMonitorRunsOperator,
)
from airflow_provider_exa.protocol.errors import ExaPermanentError
from airflow_provider_exa.sensors import ExaMonitorRunSensor
from airflow_provider_exa.standin import StandIn

START = pendulum.datetime(2026, 1, 1)
STATUSES = ("completed", "failed", "running", "canceled", "dreaming")


@pytest.fixture
def runs(exa: StandIn) -> list[str]:
    """Thirty runs, a day apart, the newest first."""
    exa.page_size = 10
    ids = [f"run_{day:02}" for day in range(30)]
    for day, run_id in enumerate(ids):
        status = STATUSES[day % len(STATUSES)]
        exa.add_run("mon_a", run_id=run_id, status=status, created_at=START + timedelta(days=day))
    return ids[::-1]


def listed(**arguments: Any) -> list[dict[str, Any]]:
    operator = ExaListMonitorRunsOperator(task_id="list", **{"monitor_id": "mon_a", **arguments})
    return json.loads(json.dumps(operator.execute({})))


@pytest.mark.parametrize("order", ["newest", "oldest", "shuffled"])
@pytest.mark.parametrize(
    ("arguments", "days"),
    [
        ({}, range(29, -1, -1)),
        ({"limit": 3}, [29, 28, 27]),
        ({"statuses": ("failed", "canceled"), "limit": 3}, [28, 26, 23]),
        ({"created_after": "2026-01-28"}, [29, 28, 27]),
        ({"created_before": "2026-01-03"}, [1, 0]),
        ({"created_after": START.add(days=3), "created_before": "2026-01-06T00:00:00Z"}, [4, 3]),
    ],
    ids=str,
)
def test_the_newest_runs_come_first(
    exa: StandIn, runs: list[str], order: Any, arguments: dict[str, Any], days: Any
) -> None:
    """Whatever Exa's order, and only those that were asked for."""
    exa.order = order
    assert [run["id"] for run in listed(**arguments)] == [f"run_{day:02}" for day in days]


@pytest.mark.parametrize(
    ("arguments", "pages"), [({}, 3), ({"limit": 5}, 1), ({"created_after": "2026-01-25"}, 1)], ids=str
)
def test_no_more_pages_are_asked_for_than_it_takes(
    exa: StandIn, runs: list[str], arguments: dict[str, Any], pages: int
) -> None:
    """Requests are the scarcest thing."""
    listed(**arguments)
    assert [request.path for request in exa.requests] == ["/websets/v0/monitors/mon_a/runs"] * pages


def test_a_monitor_without_runs_gives_an_empty_list_but_an_unknown_one_an_error(exa: StandIn) -> None:
    """Exa lists both as empty."""
    assert listed() == []
    with pytest.raises(ExaPermanentError, match="404: 'Monitor not found'"):
        listed(monitor_id="mon_x")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"monitor_id": ""}, "monitor_id is ''"),
        ({"statuses": ("cancelled",)}, "'cancelled', which is not one of"),
        ({"statuses": "failed"}, "must be a list or tuple"),
        ({"created_after": "yesterday"}, "is not a time"),
        ({"created_before": 5}, "is not a time"),
        ({"limit": 0}, "limit=0"),
        ({"limit": 1001}, "limit=1001"),
        ({"api": "search!"}, "api='search!'"),
    ],
)
def test_bad_arguments_are_refused_while_the_dag_is_parsed(arguments: dict[str, Any], words: str) -> None:
    """The DAG's import error says what to write instead."""
    with pytest.raises(ValueError, match=words):
        ExaListMonitorRunsOperator(task_id="list", **{"monitor_id": "mon_a", **arguments})


@pytest.mark.parametrize("api", ["websets", "search"])
def test_the_monitors_that_make_runs_are_listed(exa: StandIn, api: str) -> None:
    """A DAG maps over them; on request those that are off come, too."""
    exa.add_monitor("mon_off", status="disabled")
    exa.add_monitor("mon_b", webset_id="webset_b")
    webset_of = {"websets": "webset_b", "search": None}[api]

    def listed(**arguments: Any) -> dict[str, Any]:
        operator = ExaListMonitorsOperator(task_id="list", api=api, **arguments)
        return {each.pop("id"): each for each in json.loads(json.dumps(operator.execute({})))}

    assert listed().keys() == {"mon_a", "mon_b"}
    every = listed(only_enabled=False)
    assert every["mon_off"]["enabled"] is False
    word = {"websets": "enabled", "search": "active"}[api]
    assert every["mon_b"] == {"status": word, "enabled": True, "webset_id": webset_of}


def test_only_the_monitors_of_a_webset_are_listed(exa: StandIn) -> None:
    """Search monitors have no webset, so there the question is refused rather than ignored."""
    exa.add_monitor("mon_b", webset_id="webset_b")
    operator = ExaListMonitorsOperator(task_id="list", webset_id="webset_b")
    assert [each["id"] for each in operator.execute({})] == ["mon_b"]
    with pytest.raises(ExaPermanentError, match="is not possible with api='search', only with api='websets'"):
        ExaListMonitorsOperator(task_id="list", webset_id="webset_b", api="search").execute({})


@pytest.mark.parametrize("arguments", [{"api": "serach"}, {"webset_id": "a/b"}], ids=str)
def test_what_monitors_cannot_be_listed_by_is_refused_while_the_dag_is_parsed(
    arguments: dict[str, Any],
) -> None:
    """The DAG's import error says what to write instead."""
    with pytest.raises(ValueError, match=r"serach|a/b"):
        ExaListMonitorsOperator(task_id="list", **arguments)


@pytest.mark.parametrize(
    ("operator", "fields"),
    [
        (ExaListMonitorRunsOperator, {"monitor_id", "created_after", "created_before", "exa_conn_id"}),
        (ExaListMonitorsOperator, {"webset_id", "exa_conn_id"}),
        (ExaMonitorRunSensor, {"monitor_id", "run_id", "created_after", "exa_conn_id"}),
        (ExaWaitForMonitorRunsOperator, {"monitor_ids", "runs", "created_after", "exa_conn_id"}),
    ],
)
def test_what_a_user_would_template_can_be(operator: Any, fields: set[str]) -> None:
    """Ids, times and the connection."""
    assert set(operator.template_fields) == fields


def test_another_tasks_output_may_stand_for_any_of_them() -> None:
    """What is known only when the task runs is not refused while the DAG is parsed."""
    with DAG("outputs", start_date=START) as dag:
        listing = ExaListMonitorRunsOperator(task_id="list", monitor_id="mon_a", limit=1)
        it = listing.output
        ExaMonitorRunSensor(task_id="wait", monitor_id=it, run_id=it)
        ExaWaitForMonitorRunsOperator(task_id="runs", runs=it)
        ExaWaitForMonitorRunsOperator(task_id="monitors", monitor_ids=it, created_after=it)
    assert dag.get_task("list").downstream_task_ids == {"wait", "runs", "monitors"}
