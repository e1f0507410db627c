"""The stand-in server, asked over real HTTP."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pendulum
import pytest
import requests
from jsonschema import Draft202012Validator

from airflow_provider_exa.standin import Fault, StandIn, plugin

exa_standin = plugin.exa_standin

DOCUMENTS = Path(__file__).parents[3] / "shared" / "exa"
WEBSETS, SEARCH = "/websets/v0", ""
RUNS = f"{WEBSETS}/monitors/mon_a/runs"
SEARCH_RUNS = f"{SEARCH}/monitors/mon_a/runs"
TRIGGER = f"{SEARCH}/monitors/mon_a/trigger"
FAR = 1e6
STATUSES = ["created", "running", "completed", "failed", "canceled"]
PAGES: list[dict[str, Any]] = [
    {
        "url": "https://example.com/one",
        "title": "One",
        "author": "Ada",
        "publishedDate": "2026-03-01",
        "text": "All of it",
        "summary": "In short",
        "score": 0.5,
        "highlights": ["of it"],
    },
    {"url": "https://example.com/two", "title": "Two"},
    {"url": "https://example.com/three", "title": None},
]
FINISHED = {"completed": "completedAt", "failed": "failedAt", "canceled": "canceledAt"}


@pytest.fixture
def exa() -> Iterator[StandIn]:
    with StandIn() as standin:
        yield standin


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        session.headers["x-api-key"] = "standin-key"
        yield session


@pytest.fixture
def ask(exa: StandIn, session: requests.Session) -> Callable[..., requests.Response]:
    def ask(path: str = RUNS, method: str = "GET", **options: Any) -> requests.Response:
        return session.request(method, exa.url + path, **{"timeout": 10, "allow_redirects": False} | options)

    return ask


Ask = Callable[..., requests.Response]


def ids(response: requests.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [item["id"] for item in response.json()["data"]]


def walk(ask: Ask, path: str = RUNS, **params: Any) -> list[str]:
    """Every id, page by page."""
    found = []
    while True:
        response = ask(path, params=params)
        found += ids(response)
        if not response.json()["hasMore"]:
            return found
        params["cursor"] = response.json()["nextCursor"]


def until(condition: Callable[[], Any]) -> Any:
    """Wait for a condition to hold, 10 seconds at most, and return what it returned."""
    deadline = time.monotonic() + 10
    while not (result := condition()):
        assert time.monotonic() < deadline, "waited 10 seconds in vain"
        time.sleep(0.01)
    return result


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


STARTS = datetime(2025, 3, 1, 12, tzinfo=UTC)


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


@pytest.mark.parametrize(
    ("states", "status"),
    [
        ([(0, "created"), (FAR, "running")], "created"),
        ([(0, "created"), (0, "running"), (FAR, "completed")], "running"),
        ([(0, "created"), (0, "running"), (0, "failed")], "failed"),
        ([(FAR, "completed")], "created"),
        ([(0, "archived")], "archived"),
    ],
)
def test_a_run_follows_the_clock(exa: StandIn, ask: Ask, states: Any, status: str) -> None:
    """A run is in the last state whose time has come, and is created before the first."""
    assert ask(f"{RUNS}/{exa.add_run('mon_a', states=states)}").json()["status"] == status


def test_a_run_moves_by_script(exa: StandIn, ask: Ask) -> None:
    """A moved run is in that status from now on, and what was to come for it does not come."""
    run_id = exa.add_run("mon_a", states=[(0, "created"), (FAR, "completed")], failed_reason="why")
    for status in ("running", "failed"):
        exa.move(run_id, status)
        assert ask(f"{RUNS}/{run_id}").json()["status"] == status
    assert ask(f"{RUNS}/{run_id}").json()["failedReason"] == "why"


def test_a_monitor_makes_runs_by_itself(exa: StandIn, ask: Ask) -> None:
    """Runs appear at their true moments, exactly an interval apart, and keep their ids."""
    exa.every("mon_a", seconds=0.02, states=[(0, "failed")], failed_reason="why")
    first = until(lambda: len(runs := ask().json()["data"]) > 2 and runs)
    later = {run["id"]: run for run in ask(params={"limit": 200}).json()["data"]}
    assert [later[run["id"]] for run in first] == first
    created = [datetime.fromisoformat(run["createdAt"]) for run in first]
    assert {newer - older for older, newer in zip(created[1:], created, strict=False)} == {
        timedelta(milliseconds=20)
    }
    assert {run["failedReason"] for run in first} == {"why"}


def test_an_interval_must_be_positive(exa: StandIn) -> None:
    """A monitor cannot make runs all the time."""
    with pytest.raises(ValueError, match="every 0 seconds"):
        exa.every("mon_a", seconds=0, states=[(0, "completed")])


def test_a_monitor_can_be_changed(exa: StandIn, ask: Ask) -> None:
    """Adding a known monitor changes it, and keeps its runs and whatever is not named."""
    exa.add_monitor("mon_a", webset_id="webset_a")
    exa.add_run("mon_a", run_id="run_1")
    exa.add_monitor("mon_a", status="disabled")
    monitor = ask("/websets/v0/monitors/mon_a").json()
    assert (monitor["status"], monitor["websetId"]) == ("disabled", "webset_a")
    assert monitor["lastRun"]["id"] == "run_1"


def test_made_up_ids_differ(exa: StandIn, ask: Ask) -> None:
    """Where no id is given, each object gets its own, in the form of Exa's."""
    monitors = {exa.add_monitor() for _ in range(3)}
    runs = {exa.add_run("mon_a") for _ in range(3)}
    assert len(monitors) == len(runs) == 3
    assert all(re.fullmatch("(monitor|run)_[0-9a-z]{26}", made_up) for made_up in monitors | runs)


def add_runs(exa: StandIn, count: int) -> list[str]:
    """Add runs a minute apart, newest first in time but not in the order they are added."""
    start = datetime(2026, 3, 1, tzinfo=UTC)
    for number in sorted(range(count), key=lambda number: number % 3):
        exa.add_run("mon_a", run_id=f"run_{number}", created_at=start - timedelta(minutes=number))
    return [f"run_{number}" for number in range(count)]


@pytest.mark.parametrize("path", [RUNS, SEARCH_RUNS])
@pytest.mark.parametrize(("limit", "pages"), [(None, 3), (25, 3), (1, 60), (60, 1), (59, 2), (100, 1)])
def test_pages_hold_every_run_once_newest_first(
    exa: StandIn, ask: Ask, path: str, limit: int | None, pages: int
) -> None:
    """Following the cursor shows each run once, whatever the page size."""
    newest_first = add_runs(exa, 60)
    assert walk(ask, path, limit=limit) == newest_first
    assert len(exa.requests) == pages


def test_a_cursor_holds_while_runs_are_added(exa: StandIn, ask: Ask) -> None:
    """A new run at the head shifts nothing on the next page."""
    newest_first = add_runs(exa, 4)
    cursor = ask(params={"limit": 2}).json()["nextCursor"]
    exa.add_run("mon_a")
    assert ids(ask(params={"limit": 2, "cursor": cursor})) == newest_first[2:]


@pytest.mark.parametrize(
    ("order", "arrange"),
    [("newest", list), ("oldest", lambda runs: runs[::-1]), ("shuffled", None)],
)
def test_runs_come_in_the_order_asked_for(exa: StandIn, ask: Ask, order: Any, arrange: Any) -> None:
    """Exa's order is not documented, so a test may choose it; a shuffled one is the same each time."""
    newest_first = add_runs(exa, 10)
    exa.order = order
    seen = walk(ask, limit=3)
    assert sorted(seen) == sorted(newest_first)
    if arrange:
        assert seen == arrange(newest_first)
    else:
        assert seen not in (newest_first, newest_first[::-1])


def test_a_cursor_can_be_ignored(exa: StandIn, ask: Ask) -> None:
    """Without honours_cursor, page one is answered for ever."""
    add_runs(exa, 30)
    exa.honours_cursor = False
    first = ask().json()
    assert first["hasMore"]
    assert ask(params={"cursor": first["nextCursor"]}).json() == first


@pytest.mark.parametrize(
    ("path", "most"),
    [
        (RUNS, 200),
        (f"{WEBSETS}/monitors", 200),
        (f"{WEBSETS}/websets/webset_a/items", 100),
        (SEARCH_RUNS, 100),
        (f"{SEARCH}/monitors", 100),
    ],
)
def test_a_limit_out_of_bounds_is_refused(exa: StandIn, ask: Ask, path: str, most: int) -> None:
    """A limit that is not from 1 to the document's maximum is a 400."""
    exa.add_monitor("mon_a", webset_id="webset_a")
    assert ask(path, params={"limit": most}).status_code == ask(path, params={"limit": 1}).status_code == 200
    for limit in ("0", str(most + 1), "500", "-1", "x", ""):
        response = ask(path, params={"limit": limit})
        assert response.status_code == 400
        assert f"limit must be a number from 1 to {most}" in response.json()["error"]


def test_a_refused_parameter_is_named(exa: StandIn, ask: Ask) -> None:
    """A parameter the server was told to refuse is a 400 in the documented shape, other ones pass."""
    exa.refuses = {"limit"}
    refusal = ask(params={"limit": 5})
    assert refusal.status_code == 400
    assert refusal.json().keys() == {"requestId", "error", "tag"}
    assert "limit" in refusal.json()["error"]
    assert ids(ask(params={"cursor": "any"})) == []


def test_monitors_list_by_page_and_by_webset(exa: StandIn, ask: Ask) -> None:
    """Monitors come newest first, page by page, and can be narrowed to one webset's."""
    for number in range(5):
        exa.add_monitor(f"mon_{number}", webset_id=f"webset_{number % 2}")
    everything, some = ["mon_4", "mon_3", "mon_2", "mon_1", "mon_0"], ["mon_3", "mon_1"]
    assert walk(ask, "/websets/v0/monitors", limit=2) == everything
    assert walk(ask, "/websets/v0/monitors", limit=1, websetId="webset_1") == some


def test_search_monitors_list_by_page_and_by_status(exa: StandIn, ask: Ask) -> None:
    """Search monitors are narrowed by status, in search's words, and Websets' filter is not one of theirs."""
    for number, status in enumerate(["enabled", "paused", "active", "disabled", "enabled"]):
        exa.add_monitor(f"mon_{number}", status=status, webset_id=f"webset_{number}")
    path = f"{SEARCH}/monitors"
    assert walk(ask, path, limit=2) == ["mon_4", "mon_3", "mon_2", "mon_1", "mon_0"]
    assert walk(ask, path, limit=2, status="active") == ["mon_4", "mon_2", "mon_0"]
    assert walk(ask, path, status="paused") == ["mon_1"]
    assert len(walk(ask, path, websetId="webset_1")) == len(walk(ask, WEBSETS + path, status="active")) == 5


@pytest.mark.parametrize("path", [RUNS, SEARCH_RUNS])
def test_an_unknown_monitor_lists_as_empty(ask: Ask, path: str) -> None:
    """A listing does not tell an unknown monitor from one without runs."""
    assert ask(path).json() == {"data": [], "hasMore": False, "nextCursor": None}


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        ("GET", "/websets/v0/monitors/mon_none", "Monitor not found"),
        ("GET", "/websets/v0/monitors/mon_a/runs/run_none", "Monitor run not found"),
        ("GET", "/websets/v0/monitors/mon_b/runs/run_a", "Monitor run not found"),
        ("GET", "/websets/v0/websets/webset_none", "Webset not found"),
        ("GET", "/websets/v0/websets/webset_none/items", "Webset not found"),
        ("POST", "/websets/v0/monitors/mon_a/trigger", "Cannot POST /v0/monitors/mon_a/trigger"),
        ("GET", "/monitors/mon_a/trigger", "Cannot GET /monitors/mon_a/trigger"),
        ("POST", "/monitors", "Cannot POST /monitors"),
        ("GET", "/websets/webset_a", "Cannot GET /webset_a"),
        ("GET", "/websets/v0/elsewhere", "Cannot GET /v0/elsewhere"),
        ("GET", "/v0/monitors", "Cannot GET /v0/monitors"),
        ("POST", "/websets/v0/monitors", "Cannot POST /v0/monitors"),
        ("DELETE", "/websets/v0/monitors/mon_a", "Cannot DELETE /v0/monitors/mon_a"),
    ],
)
def test_what_is_not_there_is_a_404(exa: StandIn, ask: Ask, method: str, path: str, message: str) -> None:
    """Unknown objects and unknown paths are answered as Exa was recorded to."""
    exa.add_run("mon_a", run_id="run_a")
    response = ask(path, method, json={"ignored": True})
    assert response.status_code == 404
    timestamp = response.json()["timestamp"]
    assert response.json() == {
        "statusCode": 404,
        "timestamp": timestamp,
        "message": message,
        "error": "Not Found",
        "path": path.removeprefix("/websets"),
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", timestamp)


@pytest.mark.parametrize(
    ("method", "path", "error"),
    [
        ("GET", "/monitors/mon_none", "Monitor not found"),
        ("POST", "/monitors/mon_none/trigger", "Monitor not found"),
        ("GET", "/monitors/mon_a/runs/run_none", "Monitor run not found"),
        ("GET", "/monitors/mon_b/runs/run_a", "Monitor run not found"),
    ],
)
def test_what_search_does_not_know_is_a_404(
    exa: StandIn, ask: Ask, method: str, path: str, error: str
) -> None:
    """Objects unknown to search are answered in the shape that Exa documents."""
    exa.add_run("mon_a", run_id="run_a")
    response = ask(path, method)
    assert response.status_code == 404
    request_id = response.headers["X-Request-Id"]
    assert response.json() == {"requestId": request_id, "error": error, "tag": "NOT_FOUND"}
    assert exa.monitors.keys() == {"mon_a"}


def test_ids_in_paths_may_be_quoted(exa: StandIn, ask: Ask) -> None:
    """An id with special characters is found by its quoted form."""
    exa.add_run("a/b c", run_id="run_1")
    assert ids(ask("/websets/v0/monitors/a%2Fb%20c/runs")) == ["run_1"]


def test_a_trigger_starts_a_run(exa: StandIn, ask: Ask) -> None:
    """A trigger is answered without the run's id, the run begins at once, and the request is recorded."""
    exa.add_monitor("mon_a")
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    response = ask(TRIGGER, "POST", json={})
    assert (response.status_code, response.json()) == (200, {"triggered": True})
    [run] = ask(SEARCH_RUNS).json()["data"]
    assert before <= datetime.fromisoformat(run["createdAt"]) <= datetime.now(UTC)
    assert run["status"] == "pending"
    asked = exa.requests[0]
    assert (asked.method, asked.path, asked.status) == ("POST", TRIGGER, 200)
    assert ids(ask()) == [run["id"]]


def test_a_triggered_run_is_what_it_was_told_to_be(exa: StandIn, ask: Ask) -> None:
    """Its states are those of on_trigger, each time, and it may have a reason and results."""
    exa.add_monitor("mon_a")
    assert exa.on_trigger == ((0, "created"), (1, "running"), (2, "completed"))
    exa.on_trigger, exa.trigger_options = [(0, "failed")], {"failed_reason": "forbidden"}
    for _ in range(2):
        ask(TRIGGER, "POST")
    runs = ask(SEARCH_RUNS).json()["data"]
    assert [(run["status"], run["failReason"]) for run in runs] == [("failed", "forbidden")] * 2
    exa.on_trigger, exa.trigger_options = [(0, "completed")], {"results": PAGES}
    ask(TRIGGER, "POST")
    assert ask(SEARCH_RUNS).json()["data"][0]["output"]["results"] == PAGES


@pytest.mark.parametrize(
    ("status", "becomes"),
    [
        ("created", "cancelled"),
        ("running", "cancelled"),
        ("novel", "cancelled"),
        *((status, status) for status in ("completed", "failed", "cancelled")),
    ],
)
def test_a_trigger_cancels_the_unfinished_run(exa: StandIn, ask: Ask, status: str, becomes: str) -> None:
    """What is unfinished is cancelled; what is finished, and other monitors' runs, stay."""
    exa.on_trigger = [(0, "running")]
    mine, other = exa.add_run("mon_a", status=status), exa.add_run("mon_b", status="running")
    for _ in range(2):
        ask(TRIGGER, "POST")
    assert [run["status"] for run in ask(SEARCH_RUNS).json()["data"]] == ["running", "cancelled", becomes]
    assert ask(f"{SEARCH}/monitors/mon_b/runs/{other}").json()["status"] == "running"
    assert ask(f"{SEARCH_RUNS}/{mine}").json()["status"] == becomes


@pytest.mark.parametrize(
    ("triggers", "status", "on_busy"),
    [(False, "active", "cancel"), (True, "disabled", "cancel"), (True, "active", "refuse")],
)
def test_a_trigger_may_start_nothing(
    exa: StandIn, ask: Ask, triggers: bool, status: str, on_busy: Any
) -> None:
    """Where triggers are off, or the monitor is disabled or busy, it is said and no run is touched."""
    exa.triggers, exa.on_busy = triggers, on_busy
    exa.add_monitor("mon_a", status=status)
    run_id = exa.add_run("mon_a", status="running")
    response = ask(TRIGGER, "POST")
    assert (response.status_code, response.json()) == (200, {"triggered": False})
    assert [(run["id"], run["status"]) for run in ask().json()["data"]] == [(run_id, "running")]


def test_a_paused_monitor_can_be_triggered(exa: StandIn, ask: Ask) -> None:
    """A paused monitor runs by its trigger only."""
    exa.add_monitor("mon_a", status="paused")
    assert ask(TRIGGER, "POST").json() == {"triggered": True}
    assert len(ids(ask(SEARCH_RUNS))) == 1


def test_a_triggered_run_may_show_late(exa: StandIn, ask: Ask) -> None:
    """Until the delay has passed a run is nowhere, then it has been there since the trigger."""
    exa.add_monitor("mon_a", webset_id="webset_a")
    exa.trigger_delay, exa.on_trigger, exa.trigger_options = 1, [(0, "completed")], {"results": PAGES}
    run_id = exa.trigger("mon_a")
    triggered_at = datetime.now(UTC)
    paths = [f"{RUNS}/{run_id}", f"{SEARCH_RUNS}/{run_id}"]
    assert [ask(path).status_code for path in paths] == [404, 404]
    assert ids(ask()) == ids(ask(SEARCH_RUNS)) == ids(ask(f"{WEBSETS}/websets/webset_a/items")) == []
    assert ask(f"{WEBSETS}/monitors/mon_a").json()["lastRun"] is None
    [run] = until(lambda: ask(SEARCH_RUNS).json()["data"])
    assert datetime.now(UTC) - triggered_at >= timedelta(seconds=0.9)
    assert datetime.fromisoformat(run["createdAt"]) <= triggered_at
    assert [ask(path).status_code for path in paths] == [200, 200]
    assert ask(f"{WEBSETS}/monitors/mon_a").json()["lastRun"]["id"] == run_id


@pytest.mark.parametrize(
    ("fault", "runs"),
    [
        (Fault(status=503, path="/trigger"), 0),
        (Fault(kind="reset", path="/trigger"), 0),
        (Fault(kind="html", path="/trigger"), 0),
        (Fault(kind="cut", path="/trigger"), 1),
        (Fault(kind="drip", path="/trigger"), 1),
    ],
)
def test_a_trigger_can_go_wrong(exa: StandIn, ask: Ask, fault: Fault, runs: int) -> None:
    """A fault meets a trigger as any request; where the answer had begun, the run is started all the same."""
    exa.add_monitor("mon_a")
    exa.fail(fault)
    assert ask(f"{SEARCH}/monitors").status_code == 200
    with suppress(requests.RequestException):
        ask(TRIGGER, "POST", stream=True).close()
    assert len(ids(ask(SEARCH_RUNS))) == runs


@pytest.mark.parametrize(("results", "listed"), [(PAGES, PAGES), ([], []), (None, [])])
def test_a_search_run_has_its_results(exa: StandIn, ask: Ask, results: Any, listed: Any) -> None:
    """A completed run's output has the results as they were given, and a text."""
    run_id = exa.add_run("mon_a", results=results)
    output = ask(f"{SEARCH_RUNS}/{run_id}").json()["output"]
    assert output == {"results": listed, "content": output["content"], "grounding": []}
    assert output["content"] == ("One; Two; None" if listed else "Nothing new.")


@pytest.mark.parametrize("status", ["created", "running", "failed", "canceled"])
def test_only_a_completed_run_has_results(exa: StandIn, ask: Ask, status: str) -> None:
    """Until a run completes search says no output, and the webset has no search and no items."""
    exa.add_monitor("mon_a", webset_id="webset_a")
    run_id = exa.add_run("mon_a", status=status, results=PAGES)
    assert ask(f"{SEARCH_RUNS}/{run_id}").json()["output"] is None
    webset = f"{WEBSETS}/websets/webset_a"
    assert ask(webset).json()["searches"] == ids(ask(f"{webset}/items")) == []
    exa.move(run_id, "completed")
    assert len(ask(webset).json()["searches"]) == 1
    assert ask(f"{SEARCH_RUNS}/{run_id}").json()["output"]["results"] == PAGES


def test_a_webset_has_a_search_for_each_run_that_found(exa: StandIn, ask: Ask) -> None:
    """A search follows its run within a second; refreshes and runs without results have none."""
    exa.add_monitor("mon_a", webset_id="webset_a")
    took = {"run_0": 0.0, "run_1": 0.001, "run_2": 3600.0}
    for number, (run_id, seconds) in enumerate(took.items()):
        created_at = STARTS + timedelta(hours=number)
        exa.add_run(
            "mon_a", run_id=run_id, created_at=created_at, states=[(seconds, "completed")], results=PAGES
        )
    exa.add_run("mon_a", run_id="run_without")
    exa.add_run("mon_a", run_id="run_refresh", type="refresh", results=PAGES)
    exa.add_run("mon_b", run_id="run_other", results=PAGES)
    searches = ask(f"{WEBSETS}/websets/webset_a").json()["searches"]
    assert [it["id"] for it in searches] == ["wsearch_2", "wsearch_1", "wsearch_0"]
    assert {it["status"] for it in searches} == {"completed"}
    for search, (run_id, seconds) in zip(searches, reversed(took.items()), strict=True):
        run = ask(f"{RUNS}/{run_id}").json()
        later = datetime.fromisoformat(search["createdAt"]) - datetime.fromisoformat(run["createdAt"])
        assert timedelta(0) <= later <= timedelta(seconds=min(1, seconds))
        assert run["createdAt"] <= search["createdAt"] <= search["updatedAt"] == run["completedAt"]


def test_items_are_the_pages_that_a_search_found(exa: StandIn, ask: Ask) -> None:
    """Items come page by page, of one search or of all, and say of each page what the result said."""
    exa.add_monitor("mon_a", webset_id="webset_a")
    for number in range(2):
        created_at = STARTS + timedelta(hours=number)
        exa.add_run("mon_a", run_id=f"run_{number}", created_at=created_at, results=PAGES)
    items = f"{WEBSETS}/websets/webset_a/items"
    assert walk(ask, items, limit=2, sourceId="wsearch_0") == [f"witem_0_{place}" for place in range(3)]
    assert walk(ask, items, limit=4) == [f"witem_{run}_{place}" for run in (1, 0) for place in range(3)]
    assert walk(ask, items, sourceId="wsearch_none") == []
    first, second, third = ask(items, params={"sourceId": "wsearch_1"}).json()["data"]
    assert (first["sourceId"], first["websetId"], first["source"]) == ("wsearch_1", "webset_a", "search")
    assert first["properties"] == {
        "type": "custom",
        "url": "https://example.com/one",
        "description": "In short",
        "content": "All of it",
        "custom": {"title": "One", "author": "Ada", "publishedAt": "2026-03-01"},
    }
    assert (second["properties"]["description"], third["properties"]["description"]) == ("Two", "")


def test_a_websets_status_is_what_it_was_told_to_be(exa: StandIn, ask: Ask) -> None:
    """A webset is idle until a monitor of it says otherwise, and keeps that when the monitor is changed."""
    exa.add_monitor("mon_a", webset_id="webset_a")
    exa.add_monitor("mon_b", webset_id="webset_a")
    exa.add_monitor("mon_c", webset_id="webset_c", webset_status="pending")

    def said() -> list[str]:
        return [ask(f"{WEBSETS}/websets/webset_{name}").json()["status"] for name in "ac"]

    assert said() == ["idle", "pending"]
    exa.set_webset_status("mon_b", "running")
    exa.add_monitor("mon_c", status="disabled")
    assert said() == ["running", "pending"]
    exa.add_monitor("mon_c", webset_status="idle")
    assert said() == ["running", "idle"]
    monitors = ask(f"{WEBSETS}/websets/webset_a").json()["monitors"]
    assert [monitor["id"] for monitor in monitors] == ["mon_a", "mon_b"]


def test_runs_that_a_monitor_makes_have_results(exa: StandIn, ask: Ask) -> None:
    """Each run that a monitor makes by itself finds the same."""
    exa.every("mon_a", seconds=0.02, states=[(0, "completed")], results=iter(PAGES))
    runs = until(lambda: len(runs := ask(SEARCH_RUNS).json()["data"]) > 2 and runs)
    assert all(run["output"]["results"] == PAGES for run in runs)


KEY_HEADERS = [{"x-api-key": "{}"}, {"x-api-key": None, "Authorization": "Bearer {}"}]


@pytest.mark.parametrize("headers", KEY_HEADERS)
def test_a_key_passes_until_it_is_rotated(exa: StandIn, ask: Ask, headers: dict[str, str | None]) -> None:
    """Either header carries the key, and a changed key takes effect at once."""

    def status(key: str) -> int:
        return ask(headers={name: value and value.format(key) for name, value in headers.items()}).status_code

    assert (status("standin-key"), status("other")) == (200, 401)
    exa.api_key = "other"
    assert (status("standin-key"), status("other")) == (401, 200)


@pytest.mark.parametrize(
    "headers",
    [{"x-api-key": "wrong"}, {"x-api-key": None}, {"x-api-key": None, "Authorization": "standin-key"}],
)
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, {"error": "Invalid API key", "tag": "INVALID_API_KEY"}),
        (400, {"error": "x-api-key header is invalid"}),
    ],
)
def test_a_bad_key_is_refused(exa: StandIn, ask: Ask, headers: Any, status: Any, body: Any) -> None:
    """A wrong or missing key is answered as documented, or as recorded, on every path."""
    exa.bad_key_status = status
    for path in (RUNS, SEARCH_RUNS, "/elsewhere"):
        response = ask(path, headers=headers)
        assert response.status_code == status
        assert response.json() == {"requestId": response.headers["X-Request-Id"], **body}


def test_every_answer_has_its_own_request_id(exa: StandIn, ask: Ask) -> None:
    """Answers, errors and faults alike carry X-Request-Id."""
    exa.fail(Fault(path="broken"))
    answers = [ask(path) for path in (RUNS, RUNS, "/none", "/broken")]
    assert len({answer.headers["X-Request-Id"] for answer in answers}) == 4


@pytest.mark.parametrize("retry_after", [None, "7", "Wed, 21 Oct 2026 07:28:00 GMT"])
@pytest.mark.parametrize("status", [429, 500, 503, 529])
def test_a_fault_answers_with_a_status(exa: StandIn, ask: Ask, status: int, retry_after: str | None) -> None:
    """The status, Exa's error shape, and Retry-After as it was given."""
    exa.fail(Fault(status=status, retry_after=retry_after))
    response = ask()
    assert response.status_code == status
    assert response.json().keys() == {"requestId", "error", "tag"}
    assert response.headers.get("Retry-After") == retry_after


@pytest.mark.parametrize("body", [b"", b"not JSON", b'{"data": 5}'])
def test_a_fault_answers_with_a_body(exa: StandIn, ask: Ask, body: bytes) -> None:
    """Any body can be answered, under any status."""
    exa.fail(Fault(status=200, body=body))
    response = ask()
    assert (response.status_code, response.content) == (200, body)


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("hang", requests.ReadTimeout, "timed out"),
        ("reset", requests.ConnectionError, "reset by peer"),
        ("cut", requests.exceptions.ChunkedEncodingError, "IncompleteRead"),
    ],
)
def test_a_fault_breaks_the_connection(
    exa: StandIn, ask: Ask, kind: str, error: type[Exception], words: str
) -> None:
    """A request stays unanswered, or its connection ends before or amid the answer; the next is fine."""
    exa.fail(Fault(kind=kind))
    with pytest.raises(error, match=words):
        ask(timeout=0.2 if kind == "hang" else 10)
    assert ask().status_code == 200


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("repeat", {"hasMore": True, "nextCursor": "again"}),
        ("empty_more", {"data": [], "hasMore": True, "nextCursor": "more"}),
        ("no_cursor", {"hasMore": True, "nextCursor": None}),
    ],
)
def test_a_fault_spoils_the_paging(exa: StandIn, ask: Ask, kind: str, changed: dict[str, Any]) -> None:
    """A page says there is more, whichever cursor it is asked for."""
    add_runs(exa, 2)
    expected = ask().json() | changed
    exa.fail(Fault(kind=kind, times=None))
    assert ask().json() == expected
    assert ask(params={"cursor": changed["nextCursor"]}).json() == expected


def test_a_fault_answers_with_a_proxys_page(exa: StandIn, ask: Ask) -> None:
    """A proxy between Airflow and Exa may answer 200 with HTML."""
    exa.fail(Fault(kind="html"))
    response = ask()
    assert (response.status_code, response.headers["Content-Type"]) == (200, "text/html")
    assert response.text.startswith("<!DOCTYPE html>")


def test_a_fault_redirects(exa: StandIn, ask: Ask) -> None:
    """A redirect leads where it was told to."""
    exa.fail(Fault(kind="redirect", location="http://127.0.0.1:9/elsewhere"))
    response = ask()
    assert (response.status_code, response.headers["Location"]) == (302, "http://127.0.0.1:9/elsewhere")


def test_a_fault_answers_at_great_length(exa: StandIn, ask: Ask) -> None:
    """The answer is valid JSON of more than 16 MiB, and does not announce its length."""
    exa.fail(Fault(kind="huge"))
    response = ask()
    assert len(response.content) > 2**24
    assert "Content-Length" not in response.headers
    assert response.json()["data"] == []


def test_a_fault_answers_byte_by_byte(exa: StandIn, ask: Ask) -> None:
    """The answer begins, but is long in coming."""
    exa.fail(Fault(kind="drip"))
    with ask(stream=True) as response:
        assert response.raw.read(2) == b'{"'


def test_a_fault_meets_the_next_requests_it_fits(exa: StandIn, ask: Ask) -> None:
    """A fault counts its requests, spares other paths, and gives way to the one before it."""
    exa.fail(Fault(status=500, times=2, path="/runs"))
    exa.fail(Fault(status=503, path="cursor=2"))
    exa.fail(Fault(status=502, times=None, path="mon_b"))
    monitors = "/websets/v0/monitors"
    paths = [monitors, RUNS, f"{RUNS}?cursor=2", f"{RUNS}?cursor=2", RUNS, f"{monitors}/mon_b", "/mon_b"]
    assert [ask(path).status_code for path in paths] == [200, 500, 500, 503, 200, 502, 502]
    exa.heal()
    assert ask("/mon_b").status_code == 404


def test_an_unknown_fault_is_refused() -> None:
    """A misspelt kind is an error where it is written, not in the server."""
    with pytest.raises(ValueError, match="no fault 'hnag'; there are status, hang"):
        Fault(kind="hnag")


def test_requests_are_recorded(exa: StandIn, ask: Ask) -> None:
    """What was asked can be read: method, path, query, headers, time and the answer's status."""
    began = time.monotonic()
    ask(f"{RUNS}?limit=5&cursor=", headers={"X-Shout": "Hey"})
    exa.fail(Fault(kind="reset"))
    with pytest.raises(requests.ConnectionError):
        ask("/a%2Fb", "POST")
    one, two = exa.requests
    assert (one.method, one.path, one.query, one.status) == ("GET", RUNS, {"limit": "5", "cursor": ""}, 200)
    assert (one.headers["x-shout"], one.headers["x-api-key"]) == ("Hey", "standin-key")
    assert (two.method, two.path, two.query, two.status) == ("POST", "/a%2Fb", {}, None)
    assert began <= one.at <= two.at <= time.monotonic()


def test_connections_are_kept_alive_and_counted(exa: StandIn, ask: Ask, session: requests.Session) -> None:
    """Answers, errors and faults with an answer leave the connection open; a new client needs another."""
    exa.fail(Fault(path="broken"))
    for path in (RUNS, "/none", "/broken", RUNS):
        ask(path, "POST", data=b"a body that must be read")
    assert exa.connections == 1
    session.close()
    ask()
    assert exa.connections == 2


def test_many_clients_are_answered_at_once(exa: StandIn) -> None:
    """Clients that connect together all get their answer, and each run is made only once."""
    exa.every("mon_a", seconds=FAR, states=[(0, "created")])
    seen: list[list[str]] = []

    def client() -> None:
        headers = {"x-api-key": exa.api_key}
        with requests.Session() as session:
            session.trust_env = False
            seen.append(ids(session.get(exa.url + RUNS, headers=headers, timeout=10)))

    threads = [threading.Thread(target=client) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == exa.connections == 50
    assert all(listed == seen[0] and len(listed) == 1 for listed in seen)


def test_closing_ends_requests_that_hang(capfd: pytest.CaptureFixture[str]) -> None:
    """Hanging, dripping and idle connections end with the server, which leaves no thread and no noise."""
    before = set(threading.enumerate())
    ended: list[Exception] = []

    def client(url: str) -> None:
        try:
            requests.get(url, timeout=30, proxies={"http": ""})
        except requests.RequestException as error:
            ended.append(error)

    with StandIn() as exa, requests.Session() as idle:
        idle.trust_env = False
        idle.get(exa.url, timeout=10)
        exa.fail(Fault(kind="hang", path="/hang"))
        exa.fail(Fault(kind="drip", path="/drip"))
        clients = [threading.Thread(target=client, args=(exa.url + path,)) for path in ("/hang", "/drip")]
        for thread in clients:
            thread.start()
        until(lambda: len(exa.requests) == 3)
        exa.close()
        assert set(threading.enumerate()) - before <= set(clients)
        for thread in clients:
            thread.join(10)
        assert len(ended) == 2
        with pytest.raises(requests.ConnectionError):
            idle.get(exa.url, timeout=10)
    assert capfd.readouterr() == ("", "")


def test_a_port_can_be_used_again() -> None:
    """A server can come back at the port where one was, as after an outage."""
    with StandIn() as first:
        requests.get(first.url, timeout=10, proxies={"http": ""})
    with StandIn(port=first.port) as second:
        assert second.url == first.url


def test_the_connection_is_airflows_json(exa: StandIn) -> None:
    """The JSON is what Airflow reads from AIRFLOW_CONN_…, with extra fields as given."""
    connection = {"conn_type": "exa", "host": exa.url, "password": "standin-key"}
    assert json.loads(exa.connection(api="websets")) == connection | {"extra": {"api": "websets"}}


def test_the_fixture_leads_the_default_connection_to_a_standin(exa_standin: StandIn) -> None:
    """A test that asks for `exa_standin` has a server, and Airflow's connection `exa_default` to it."""
    assert os.environ["AIRFLOW_CONN_EXA_DEFAULT"] == exa_standin.connection()
    exa_standin.add_run("mon_a")
    assert len(exa_standin.requests) == 0


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_the_command_line_serves_until_it_is_told_to_end(session: requests.Session, end: int) -> None:
    """The command prints a connection that works, serves three monitors, logs requests and ends with 0."""
    command = [sys.executable, "-m", "airflow_provider_exa.standin", "--port=0", "--takes=0", "--api-key=a'b"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            process.stdout.readline()
            name, _, value = shlex.split(process.stdout.readline())[1].partition("=")
            connection = json.loads(value)
            session.headers["x-api-key"] = connection["password"]
            monitors = session.get(f"{connection['host']}{WEBSETS}/monitors", timeout=10).json()["data"]
            found = session.get(f"{connection['host']}{SEARCH}/monitors/mon_fails/runs", timeout=10).json()
        finally:
            process.send_signal(end)
            _, log = process.communicate(timeout=10)
    assert (name, process.returncode) == ("AIRFLOW_CONN_EXA_DEFAULT", 0)
    assert {monitor["id"]: monitor["lastRun"]["status"] for monitor in monitors} == {
        "mon_completes": "completed",
        "mon_fails": "failed",
        "mon_cancels": "canceled",
    }
    assert found["data"][0]["failReason"] == "search_failed"
    assert re.fullmatch(r".* GET /websets/v0/monitors 200\n.* GET /monitors/mon_fails/runs 200\n", log)


def test_importing_it_loads_nothing_heavy() -> None:
    """The server and its fixture bring neither Airflow nor an HTTP client."""
    heavy = "{'airflow', 'requests', 'pendulum', 'asyncio'}"
    script = f"import sys, airflow_provider_exa.standin; sys.exit(bool({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
