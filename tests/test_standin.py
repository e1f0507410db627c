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
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pendulum
import pytest
import requests
from jsonschema import Draft202012Validator

from airflow_provider_exa.standin import Fault, StandIn, plugin

exa_standin = plugin.exa_standin

OPENAPI = Path(__file__).parents[2] / "shared" / "exa" / "websets-openapi.json"
RUNS = "/websets/v0/monitors/mon_a/runs"
FAR = 1e6
STATUSES = ["created", "running", "completed", "failed", "canceled"]
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


@pytest.mark.skipif(not OPENAPI.exists(), reason="Exa's OpenAPI document is not beside the repository")
@pytest.mark.parametrize(
    ("path", "schema"),
    [
        ("", "ListMonitorsResponse"),
        ("?websetId=webset_none", "ListMonitorsResponse"),
        ("/mon_a", "Monitor"),
        ("/mon_empty", "Monitor"),
        ("/mon_every", "Monitor"),
        ("/mon_a/runs", "ListMonitorRunsResponse"),
        ("/mon_a/runs?limit=2", "ListMonitorRunsResponse"),
        ("/mon_empty/runs", "ListMonitorRunsResponse"),
        *((f"/mon_a/runs/run_{status}", "MonitorRun") for status in STATUSES),
    ],
)
def test_bodies_are_those_of_exas_openapi_document(exa: StandIn, ask: Ask, path: str, schema: str) -> None:
    """Each kind of body validates against its schema, and has neither fewer fields nor more."""
    exa.add_monitor("mon_empty", status="disabled")
    exa.every("mon_every", seconds=FAR, states=[(0, "running")])
    for status in STATUSES:
        exa.add_run("mon_a", status=status, run_id=f"run_{status}", failed_reason="why", type="refresh")
    body = ask(f"/websets/v0/monitors{path}").json()
    components = json.loads(OPENAPI.read_text())["components"]
    whole = {"$ref": f"#/components/schemas/{schema}", "components": with_null_types(components)}
    Draft202012Validator(whole).validate(body)
    assert body.keys() == components["schemas"][schema]["properties"].keys()


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


@pytest.mark.parametrize(("limit", "pages"), [(None, 3), (25, 3), (1, 60), (60, 1), (59, 2), (200, 1)])
def test_pages_hold_every_run_once_newest_first(
    exa: StandIn, ask: Ask, limit: int | None, pages: int
) -> None:
    """Following the cursor shows each run once, whatever the page size."""
    newest_first = add_runs(exa, 60)
    assert walk(ask, limit=limit) == newest_first
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


@pytest.mark.parametrize("limit", ["0", "201", "500", "-1", "x", ""])
def test_a_bad_limit_is_refused(ask: Ask, limit: str) -> None:
    """A limit that is not from 1 to 200 is a 400."""
    response = ask(params={"limit": limit})
    assert response.status_code == 400
    assert "limit" in response.json()["error"]


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


def test_an_unknown_monitor_lists_as_empty(ask: Ask) -> None:
    """A listing does not tell an unknown monitor from one without runs."""
    assert ask().json() == {"data": [], "hasMore": False, "nextCursor": None}


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        ("GET", "/websets/v0/monitors/mon_none", "Monitor not found"),
        ("GET", "/websets/v0/monitors/mon_a/runs/run_none", "Monitor run not found"),
        ("GET", "/websets/v0/monitors/mon_b/runs/run_a", "Monitor run not found"),
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


def test_ids_in_paths_may_be_quoted(exa: StandIn, ask: Ask) -> None:
    """An id with special characters is found by its quoted form."""
    exa.add_run("a/b c", run_id="run_1")
    assert ids(ask("/websets/v0/monitors/a%2Fb%20c/runs")) == ["run_1"]


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
    for path in (RUNS, "/elsewhere"):
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
            monitors = session.get(f"{connection['host']}/websets/v0/monitors", timeout=10).json()["data"]
        finally:
            process.send_signal(end)
            _, log = process.communicate(timeout=10)
    assert (name, process.returncode) == ("AIRFLOW_CONN_EXA_DEFAULT", 0)
    assert {monitor["id"]: monitor["lastRun"]["status"] for monitor in monitors} == {
        "mon_completes": "completed",
        "mon_fails": "failed",
        "mon_cancels": "canceled",
    }
    assert re.fullmatch(r".* GET /websets/v0/monitors 200\n", log)


def test_importing_it_loads_nothing_heavy() -> None:
    """The server and its fixture bring neither Airflow nor an HTTP client."""
    heavy = "{'airflow', 'requests', 'pendulum', 'asyncio'}"
    script = f"import sys, airflow_provider_exa.standin; sys.exit(bool({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
