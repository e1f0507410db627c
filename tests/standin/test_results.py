"""What a run found, as each API shows it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from airflow_provider_exa.standin import StandIn
from tests.standin.asking import PAGES, RUNS, SEARCH_RUNS, STARTS, WEBSETS, Ask, ids, until, walk


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
