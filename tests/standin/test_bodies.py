"""The stand-in's bodies are those of Exa's two APIs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pendulum
import pytest
from jsonschema import Draft202012Validator

from airflow_provider_exa.standin import StandIn
from tests.standin.asking import (
    FAR,
    FINISHED,
    PAGES,
    RUNS,
    SEARCH,
    SEARCH_RUNS,
    STARTS,
    STATUSES,
    WEBSETS,
    Ask,
)

DOCUMENTS = Path(__file__).parents[3] / "shared" / "exa"


def with_null_types(schema: Any) -> Any:
    """Say OpenAPI's `nullable` in the words of JSON Schema."""
    if isinstance(schema, list):
        return [with_null_types(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    converted = {name: with_null_types(part) for name, part in schema.items() if name != "nullable"}
    return {"anyOf": [converted, {"type": "null"}]} if schema.get("nullable") is True else converted


def check_schema(body: dict[str, Any], base: str, name: str) -> None:
    """Validate a body, which is to have neither fewer fields than Exa's OpenAPI document says nor more."""
    document = DOCUMENTS / f"{'websets' if base else 'search-monitors'}-openapi.json"
    if not document.exists():
        pytest.skip("Exa's OpenAPI documents are not beside the repository")
    components = json.loads(document.read_text())["components"]
    whole = {"$ref": f"#/components/schemas/{name}", "components": with_null_types(components)}
    Draft202012Validator(whole).validate(body)
    schema = components["schemas"][name]
    assert set(schema["required"]) <= body.keys() <= schema["properties"].keys()
    assert schema["properties"].keys() - body.keys() <= {"scopeId", "sourceEntityId"}  # of imported items


@pytest.mark.parametrize(
    ("base", "path", "schema"),
    [
        (WEBSETS, "/monitors", "ListMonitorsResponse"),
        (WEBSETS, "/monitors?websetId=webset_none", "ListMonitorsResponse"),
        *((WEBSETS, f"/monitors/{name}", "Monitor") for name in ("mon_a", "mon_empty", "mon_every")),
        (WEBSETS, "/monitors/mon_a/runs", "ListMonitorRunsResponse"),
        (WEBSETS, "/monitors/mon_a/runs?limit=2", "ListMonitorRunsResponse"),
        (WEBSETS, "/monitors/mon_empty/runs", "ListMonitorRunsResponse"),
        *((WEBSETS, f"/monitors/mon_a/runs/run_{status}", "MonitorRun") for status in STATUSES),
        (WEBSETS, "/monitors/mon_a/runs/run_found", "MonitorRun"),
        (WEBSETS, "/websets/webset_a", "Webset"),
        (WEBSETS, "/websets/webset_empty", "Webset"),
        (WEBSETS, "/websets/webset_a/items", "ListWebsetItemResponse"),
        (WEBSETS, "/websets/webset_a/items?limit=1", "ListWebsetItemResponse"),
        (WEBSETS, "/websets/webset_empty/items", "ListWebsetItemResponse"),
        (SEARCH, "/monitors", "ListSearchMonitorsResponse"),
        (SEARCH, "/monitors?status=active", "ListSearchMonitorsResponse"),
        *((SEARCH, f"/monitors/{name}", "SearchMonitor") for name in ("mon_a", "mon_empty", "mon_every")),
        (SEARCH, "/monitors/mon_a/runs", "ListSearchMonitorRunsResponse"),
        (SEARCH, "/monitors/mon_a/runs?limit=2", "ListSearchMonitorRunsResponse"),
        (SEARCH, "/monitors/mon_empty/runs", "ListSearchMonitorRunsResponse"),
        *((SEARCH, f"/monitors/mon_a/runs/run_{status}", "SearchMonitorRun") for status in STATUSES),
        (SEARCH, "/monitors/mon_a/runs/run_found", "SearchMonitorRun"),
        (SEARCH, "/monitors/mon_a/trigger", "TriggerSearchMonitorResponse"),
    ],
)
def test_bodies_are_those_of_exas_openapi_documents(
    exa: StandIn, ask: Ask, base: str, path: str, schema: str
) -> None:
    """Each kind of body validates against its schema, and has neither fewer fields nor more."""
    exa.add_monitor("mon_a", webset_id="webset_a", webset_status="running")
    exa.add_monitor("mon_empty", status="disabled", webset_id="webset_empty")
    exa.every("mon_every", seconds=FAR, states=[(0, "running")])
    for status in STATUSES:
        exa.add_run(
            "mon_a", status=status, run_id=f"run_{status}", failed_reason="search_failed", type="refresh"
        )
    exa.add_run("mon_a", run_id="run_found", results=PAGES)
    method = "POST" if path.endswith("/trigger") else "GET"
    check_schema(ask(base + path, method).json(), base, schema)


def test_what_a_webset_holds_is_as_in_the_openapi_document(exa: StandIn, ask: Ask) -> None:
    """Its searches and items validate one by one, even where a result has all fields or none."""
    exa.add_monitor("mon_a", webset_id="webset_a")
    exa.add_run("mon_a", results=[*PAGES, {}])
    exa.add_run("mon_a", results=[])
    searches = ask(f"{WEBSETS}/websets/webset_a").json()["searches"]
    items = ask(f"{WEBSETS}/websets/webset_a/items").json()["data"]
    assert (len(searches), len(items)) == (2, 4)
    for search in searches:
        check_schema(search, WEBSETS, "WebsetSearch")
    for item in items:
        check_schema(item, WEBSETS, "WebsetItem")


@pytest.mark.parametrize(
    ("base", "words"),
    [
        (WEBSETS, ["created", "running", "completed", "failed", "canceled"]),
        (SEARCH, ["pending", "running", "completed", "failed", "cancelled"]),
    ],
)
@pytest.mark.parametrize(
    "told", [STATUSES, ["pending", "running", "completed", "failed", "cancelled"]], ids=["websets", "search"]
)
def test_runs_are_said_in_each_apis_words(
    exa: StandIn, ask: Ask, base: str, words: list[str], told: list[str]
) -> None:
    """Whichever API's words a run was given, each API says its own, and names its own moment of the end."""
    expected = {exa.add_run("mon_a", status=status): word for status, word in zip(told, words, strict=True)}
    runs = ask(f"{base}/monitors/mon_a/runs").json()["data"]
    assert {run["id"]: run["status"] for run in runs} == expected
    for run in runs:
        ends = {name for name in run if re.fullmatch("(complet|fail|cancel+)edAt", name) and run[name]}
        assert ends == {f"{run['status']}At"} & {f"{word}At" for word in words[2:]}
        assert ask(f"{base}/monitors/mon_a/runs/{run['id']}").json() == run


@pytest.mark.parametrize(
    ("base", "told", "said"),
    [
        (WEBSETS, "enabled", "enabled"),
        (WEBSETS, "active", "enabled"),
        (WEBSETS, "paused", "disabled"),
        (WEBSETS, "disabled", "disabled"),
        (SEARCH, "enabled", "active"),
        (SEARCH, "active", "active"),
        (SEARCH, "paused", "paused"),
        (SEARCH, "disabled", "disabled"),
        (WEBSETS, "dormant", "dormant"),
        (SEARCH, "dormant", "dormant"),
    ],
)
def test_monitors_are_said_in_each_apis_words(
    exa: StandIn, ask: Ask, base: str, told: str, said: str
) -> None:
    """A monitor is in the API's nearest word for what it was told to be, and else in that."""
    exa.add_monitor("mon_a", status=told)
    assert ask(f"{base}/monitors/mon_a").json()["status"] == said


@pytest.mark.parametrize(
    ("states", "started", "took"),
    [
        ([(0, "created")], None, None),
        ([(0, "created"), (5, "running")], 5, None),
        ([(0, "created"), (5, "running"), (9.5, "completed")], 5, 4500),
        ([(0, "created"), (5, "running"), (9.5, "failed")], 5, 4500),
        ([(0, "created"), (5, "running"), (6, "canceled")], 5, 1000),
        ([(0, "created"), (5, "canceled")], None, None),
        ([(0, "completed")], 0, 0),
        ([(7, "failed")], 0, 7000),
    ],
)
def test_a_search_run_tells_how_long_it_took(
    exa: StandIn, ask: Ask, states: Any, started: float | None, took: int | None
) -> None:
    """A run starts as it is running, or else as it is created, and lasts until its end."""
    run_id = exa.add_run("mon_a", states=states, created_at=STARTS)
    run = ask(f"{SEARCH_RUNS}/{run_id}").json()
    moment = None if started is None else f"2025-03-01T12:00:0{started}.000Z"
    assert (run["startedAt"], run["durationMs"]) == (moment, took)


@pytest.mark.parametrize("status", STATUSES)
def test_a_failed_search_run_says_why(exa: StandIn, ask: Ask, status: str) -> None:
    """The reason is as it was given, and no other run has one."""
    run_id = exa.add_run("mon_a", status=status, failed_reason="rate_limited")
    assert ask(f"{SEARCH_RUNS}/{run_id}").json()["failReason"] == (
        "rate_limited" if status == "failed" else None
    )


@pytest.mark.parametrize("zone", ["UTC", "Europe/Vienna"])
@pytest.mark.parametrize("status", STATUSES)
def test_a_run_tells_when_it_ended_and_why_it_failed(exa: StandIn, ask: Ask, status: str, zone: str) -> None:
    """Only the time that belongs to the status is set, and only a failed run has a reason."""
    created_at = pendulum.datetime(2026, 3, 1, 12, 0, 0, 123456).in_timezone(zone)
    run_id = exa.add_run(
        "mon_a", states=[(0, "created"), (90, status)], created_at=created_at, failed_reason="out of credits"
    )
    run = ask(f"{RUNS}/{run_id}").json()
    assert (run["status"], run["monitorId"], run["createdAt"], run["updatedAt"]) == (
        status,
        "mon_a",
        "2026-03-01T12:00:00.123Z",
        "2026-03-01T12:01:30.123Z",
    )
    assert [end for end, name in FINISHED.items() if run[name]] == [status] * (status in FINISHED)
    assert run["failedReason"] == ("out of credits" if status == "failed" else None)
