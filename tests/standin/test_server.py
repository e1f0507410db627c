"""Requests, connections, the port, the command line and the fixture."""

from __future__ import annotations

import gc
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import pytest
import requests

from airflow_provider_exa.standin import Fault, StandIn, plugin
from tests.standin.asking import FAR, RUNS, SEARCH, WEBSETS, Ask, ids, until

exa_standin = plugin.exa_standin


def test_requests_are_recorded(exa: StandIn, ask: Ask) -> None:
    """What was asked can be read: method, path, query, headers, time and the answer's status."""
    began = time.monotonic()
    ask(f"{RUNS}?limit=5&other=", headers={"X-Shout": "Hey"})
    exa.fail(Fault(kind="reset"))
    with pytest.raises(requests.ConnectionError):
        ask("/a%2Fb", "POST")
    one, two = exa.requests
    assert (one.method, one.path, one.query, one.status) == ("GET", RUNS, {"limit": "5", "other": ""}, 200)
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


@pytest.mark.parametrize("kind", ["status", "reset", "cut", None])
def test_a_connection_that_ended_is_forgotten(exa: StandIn, kind: str | None) -> None:
    """However it ended, its thread and its socket go; only the count stays."""
    gc.collect()  # whatever earlier tests have left may go at any time
    threads, sockets = threading.active_count(), len(os.listdir("/proc/self/fd"))
    if kind:
        exa.fail(Fault(kind=kind, times=None))
    for _ in range(20):
        with suppress(requests.RequestException):
            requests.get(exa.url, timeout=10, proxies={"http": ""})
    until(lambda: threading.active_count() <= threads)
    until(lambda: len(os.listdir("/proc/self/fd")) <= sockets)
    assert exa.connections == 20
    assert not exa._server._open


def test_only_the_latest_requests_are_kept(exa: StandIn, ask: Ask) -> None:
    """A server that is asked for days holds so many of its requests, and at most twice as many."""
    exa.keep_requests = 5
    kept = []
    for number in range(25):
        ask(f"/{number}")
        kept.append(len(exa.requests))
        latest = [int(each.path[1:]) for each in exa.requests]
        assert latest == list(range(number + 1))[-len(latest) :]
    assert (min(kept[5:]), max(kept)) == (5, 10)
    exa.keep_requests = 0
    ask()
    assert exa.requests == []


@pytest.mark.parametrize("retry_after", [None, "3"])
def test_a_rate_limit_refuses_what_comes_too_soon(exa: StandIn, ask: Ask, retry_after: str | None) -> None:
    """No second serves more, a refused request does not count, and all is served without a limit."""
    exa.add_monitor("mon_a")
    exa.rate_limit, exa.rate_limit_retry_after = 3, retry_after
    answers = [ask() for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200] * 3 + [429] * 2
    assert [answer.headers.get("Retry-After") for answer in answers[3:]] == [retry_after] * 2
    assert answers[3].json().keys() == {"requestId", "error", "tag"}

    def seven() -> list[float]:
        ask()
        served = [each.at for each in exa.requests if each.status == 200]
        return served if len(served) >= 7 else []

    served = until(seven)
    assert all(later - earlier >= 0.99 for earlier, later in zip(served, served[3:], strict=False))
    exa.rate_limit = None
    assert {ask().status_code for _ in range(10)} == {200}


def test_a_refused_request_meets_no_fault(exa: StandIn, ask: Ask) -> None:
    """A fault waits for the next request that the rate limit lets pass."""
    exa.rate_limit = 0
    exa.fail(Fault(status=503))
    assert ask().status_code == 429
    exa.rate_limit = 1
    assert ask().status_code == 503


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


def test_a_port_in_use_is_named() -> None:
    """The error says which port it is, and what to give instead."""
    with (
        StandIn() as first,
        pytest.raises(OSError, match=f"Port {first.port} at 127.0.0.1 is in use: .* 0 for a free one"),
    ):
        StandIn(port=first.port)


def test_a_port_that_cannot_be_is_named() -> None:
    """A number beyond every port is refused as a port in use is."""
    with pytest.raises(OSError, match=r"Port 70000 at 127.0.0.1 is not usable \(.*0-65535"):
        StandIn(port=70_000)


@pytest.mark.parametrize("name", ["cursors", "last_run", "on_busy", "order"])
def test_an_unknown_word_is_refused(exa: StandIn, name: str) -> None:
    """A misspelt word is an error where it is written, at the start and later, and changes nothing."""
    usual = getattr(exa, name)
    with pytest.raises(ValueError, match=f"There is no {name}='hnoured'; there are {usual}"):
        setattr(exa, name, "hnoured")
    assert getattr(exa, name) == usual
    options: dict[str, Any] = {name: "hnoured"}
    with pytest.raises(ValueError, match=f"There is no {name}='hnoured'"):
        StandIn(**options)


def test_an_unknown_api_is_refused(exa: StandIn) -> None:
    """A monitor cannot belong to an API that the server does not speak."""
    api: Any = "serach"
    with pytest.raises(ValueError, match="There is no api='serach'; there are websets, search"):
        exa.add_monitor("mon_a", api=api)
    assert exa.monitors == {}


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


@pytest.mark.parametrize(
    ("option", "words"),
    [("--port={port}", "error: Port {port} at 127.0.0.1 is in use"), ("--every=0", "every 0.0 seconds")],
)
def test_the_command_line_says_what_is_wrong(exa: StandIn, option: str, words: str) -> None:
    """A port in use and an interval that cannot be end the command, without a traceback."""
    command = [sys.executable, "-m", "airflow_provider_exa.standin", "--port=0", option.format(port=exa.port)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 2
    assert words.format(port=exa.port) in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_command_line_takes_another_port_than_airflow() -> None:
    """Airflow's own is 8080."""
    command = [sys.executable, "-m", "airflow_provider_exa.standin", "--help"]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    assert "(8765)" in ended.stdout


def test_importing_it_loads_nothing_heavy() -> None:
    """The server and its fixture bring neither Airflow nor an HTTP client."""
    heavy = "{'airflow', 'requests', 'pendulum', 'asyncio'}"
    script = f"import sys, airflow_provider_exa.standin; sys.exit(bool({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
