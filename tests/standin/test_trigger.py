"""A trigger starts a run, or does not."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from airflow_provider_exa.standin import Fault, StandIn
from tests.standin.asking import PAGES, RUNS, SEARCH, SEARCH_RUNS, TRIGGER, WEBSETS, Ask, ids, until


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
