"""Monitors and runs do as they are told."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import pytest

from airflow_provider_exa.standin import StandIn
from tests.standin.asking import FAR, RUNS, Ask, until


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
