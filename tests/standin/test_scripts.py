"""Monitors and runs do as they are told."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_exa.standin import StandIn
from tests.standin.asking import FAR, PAGES, RUNS, SEARCH, SEARCH_RUNS, TRIGGER, WEBSETS, Ask, ids, until


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


def test_a_run_id_is_given_once(exa: StandIn, ask: Ask) -> None:
    """A second run with an id is refused, of whichever monitor, and leaves nothing behind."""
    exa.add_run("mon_a", run_id="run_1", status="running")
    for monitor in ("mon_a", "mon_b"):
        with pytest.raises(ValueError, match="'run_1' is taken by a run of monitor 'mon_a'"):
            exa.add_run(monitor, run_id="run_1")
    assert exa.monitors.keys() == {"mon_a"}
    assert [(run["id"], run["status"]) for run in ask().json()["data"]] == [("run_1", "running")]


@pytest.mark.parametrize(
    ("api", "of_websets", "of_search"),
    [("websets", True, False), ("search", False, True), (None, True, True)],
)
def test_a_monitor_may_belong_to_one_api(
    exa: StandIn, ask: Ask, api: Any, of_websets: bool, of_search: bool
) -> None:
    """The other API does not know it: 404 for what it has, and listings without it."""
    exa.add_monitor("mon_a", api=api, webset_id="webset_a")
    exa.add_monitor("mon_a", status="enabled")
    exa.add_run("mon_a", run_id="run_a", results=PAGES)
    for base, known in ((WEBSETS, of_websets), (SEARCH, of_search)):
        monitor = f"{base}/monitors/mon_a"
        assert [ask(path).status_code for path in (monitor, f"{monitor}/runs/run_a")] == [
            200 if known else 404
        ] * 2
        assert ids(ask(f"{monitor}/runs")) == ["run_a"] * known
        assert ids(ask(f"{base}/monitors")) == ["mon_a"] * known
    webset = f"{WEBSETS}/websets/webset_a"
    assert [ask(path).status_code for path in (webset, f"{webset}/items")] == [200 if of_websets else 404] * 2
    assert ask(TRIGGER, "POST").status_code == (200 if of_search else 404)
    assert len(exa.runs) == 1 + of_search


@pytest.mark.parametrize("status", ["paused", "disabled"])
def test_a_monitor_that_is_off_makes_no_runs(exa: StandIn, ask: Ask, status: str) -> None:
    """The moments that pass meanwhile stay without a run, and those before and after keep theirs."""
    exa.every("mon_a", seconds=0.05, states=[(0, "completed")])
    until(lambda: len(ids(ask())) > 1)
    exa.add_monitor("mon_a", status=status)
    before = ids(ask())
    time.sleep(0.15)
    assert ids(ask()) == before
    assert ask(f"{SEARCH}/monitors/mon_a").json()["nextRunAt"] is None
    exa.add_monitor("mon_a")
    back = datetime.now(UTC)
    runs = until(lambda: len(runs := ask().json()["data"]) > len(before) + 1 and runs)
    assert [run["id"] for run in runs[-len(before) :]] == before
    after = [datetime.fromisoformat(run["createdAt"]) for run in runs[: -len(before)]]
    assert min(after) >= back - timedelta(milliseconds=1)


def test_what_is_due_before_a_monitor_is_paused_is_made(exa: StandIn, ask: Ask) -> None:
    """Runs that nobody has asked for until then are there."""
    exa.every("mon_a", seconds=FAR, states=[(0, "completed")])
    exa.add_monitor("mon_a", status="paused")
    assert len(ids(ask())) == 1


@pytest.mark.parametrize(
    ("api", "states", "older"),
    [
        ("search", [(0, "created"), (FAR, "completed")], "canceled"),
        ("search", [(0, "running")], "canceled"),
        ("search", [(0, "completed")], "completed"),
        ("search", [(0, "failed")], "failed"),
        ("websets", [(0, "running")], "running"),
        (None, [(0, "running")], "running"),
    ],
)
def test_a_search_monitor_cancels_its_unfinished_run_when_the_next_starts(
    exa: StandIn, api: Any, states: Any, older: str
) -> None:
    """At that very moment, and only in search."""
    exa.add_monitor("mon_a", api=api)
    exa.every("mon_a", seconds=0.02, states=states)

    def three() -> Any:
        with exa.lock:
            exa.catch_up()
            return len(runs := exa.monitors["mon_a"].runs) > 2 and list(runs)

    runs = until(three)
    ends = [run.past()[-1] for run in runs]
    assert {status for _, status in ends[:-1]} == {older}
    if older == "canceled":
        assert [at for at, _ in ends[:-1]] == [run.created_at for run in runs[1:]]


def test_a_run_that_ends_before_the_next_starts_is_not_cancelled(exa: StandIn, ask: Ask) -> None:
    """What counts is its status when the next starts, not when somebody asks."""
    exa.add_monitor("mon_a", api="search")
    exa.every("mon_a", seconds=0.1, states=[(0, "running"), (0.05, "completed")])
    time.sleep(0.25)
    statuses = [run["status"] for run in ask(SEARCH_RUNS).json()["data"]]
    assert set(statuses[1:]) == {"completed"}
