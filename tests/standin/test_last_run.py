"""What a Websets monitor says of its last run, true or not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_exa.standin import StandIn
from tests.standin.asking import RUNS, SEARCH, WEBSETS, Ask, until

MONITOR = f"{WEBSETS}/monitors/mon_a"
LONG_AGO = datetime(2025, 3, 1, tzinfo=UTC)


@pytest.fixture
def said(exa: StandIn, ask: Ask) -> Callable[[], Any]:
    """What the monitor, which has two runs, says."""
    exa.add_monitor("mon_a", webset_id="webset_a")
    for number in range(2):
        exa.add_run("mon_a", run_id=f"run_{number}", created_at=LONG_AGO + timedelta(hours=number))

    def said() -> Any:
        last = ask(MONITOR).json().get("lastRun", "no such key")
        return last["id"] if isinstance(last, dict) else last

    return said


@pytest.mark.parametrize(
    ("last_run", "before", "after"),
    [
        ("true", ["run_1"] * 3, ["run_2"] * 3),
        ("null", [None] * 3, [None] * 3),
        ("missing", ["no such key"] * 3, ["no such key"] * 3),
        ("stuck", ["run_1"] * 3, ["run_1"] * 3),
        ("other", ["run_b"] * 3, ["run_b"] * 3),
        ("flapping", ["run_1", "run_0", "run_1"], ["run_1", "run_2", "run_1"]),
    ],
)
def test_the_last_run_is_what_the_server_was_told_to_say(
    exa: StandIn, said: Callable[[], Any], last_run: Any, before: list[Any], after: list[Any]
) -> None:
    """Before and after another run comes; told the truth again, the server says it."""
    exa.add_run("mon_b", run_id="run_b")
    exa.last_run = last_run
    assert [said() for _ in range(3)] == before
    exa.add_run("mon_a", run_id="run_2")
    assert [said() for _ in range(3)] == after
    exa.last_run = "true"
    assert said() == "run_2"


@pytest.mark.parametrize("last_run", ["null", "missing", "stuck", "other", "flapping"])
def test_only_the_last_run_is_untrue(exa: StandIn, ask: Ask, last_run: Any) -> None:
    """Runs, the rest of a monitor, and search are as they are, whatever is said of the last run."""
    exa.add_run("mon_a", run_id="run_a")
    exa.add_run("mon_b", run_id="run_b", status="running")
    paths = [RUNS, f"{RUNS}/run_a", f"{SEARCH}/monitors", f"{SEARCH}/monitors/mon_a"]
    truth, monitor = [ask(path).json() for path in paths], ask(MONITOR).json()
    exa.last_run = last_run
    assert [ask(path).json() for path in paths] == truth
    untrue = ask(MONITOR).json()
    del monitor["lastRun"]
    assert {name: value for name, value in untrue.items() if name != "lastRun"} == monitor


@pytest.mark.parametrize("path", [f"{WEBSETS}/monitors", f"{WEBSETS}/monitors?websetId=webset_a"])
def test_listings_and_websets_say_the_same_of_the_last_run(
    exa: StandIn, ask: Ask, said: Callable[[], Any], path: str
) -> None:
    """A monitor flaps once each time it is shown, wherever it is."""
    exa.last_run = "flapping"
    shown = [said(), ask(path).json()["data"][0]["lastRun"]["id"], said()]
    shown.append(ask(f"{WEBSETS}/websets/webset_a").json()["monitors"][0]["lastRun"]["id"])
    assert shown == ["run_1", "run_0"] * 2


def test_a_stuck_run_keeps_its_status(exa: StandIn, ask: Ask) -> None:
    """It is said as it was, though the run itself goes on."""
    exa.last_run = "stuck"
    assert ask(MONITOR).status_code == 404
    exa.add_monitor("mon_a")
    assert ask(MONITOR).json()["lastRun"] is None
    run_id = exa.add_run("mon_a", status="running")
    first = ask(MONITOR).json()["lastRun"]
    exa.move(run_id, "completed")
    assert ask(MONITOR).json()["lastRun"] == first
    assert ask(f"{RUNS}/{run_id}").json()["status"] == "completed"


def test_the_last_run_may_lag(exa: StandIn, ask: Ask, said: Callable[[], Any]) -> None:
    """A new run, and a new status, show in it after so many seconds, and in the listing at once."""
    exa.last_run_lag = 0.3
    added = datetime.now(UTC)
    exa.add_run("mon_a", run_id="run_2", status="running")
    exa.move("run_1", "failed")
    last = ask(MONITOR).json()["lastRun"]
    assert (last["id"], last["status"]) == ("run_1", "completed")
    assert [run["id"] for run in ask().json()["data"]] == ["run_2", "run_1", "run_0"]
    until(lambda: said() == "run_2")
    assert datetime.now(UTC) - added >= timedelta(seconds=0.3)
    exa.last_run_lag = 0
    exa.move("run_2", "completed")
    assert ask(MONITOR).json()["lastRun"]["status"] == "completed"
