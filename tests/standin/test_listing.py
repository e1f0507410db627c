"""Pages, cursors, limits, and what is not there."""

from __future__ import annotations

import re
from typing import Any

import pytest

from airflow_provider_exa.standin import StandIn
from tests.standin.asking import PAGES, RUNS, SEARCH, SEARCH_RUNS, WEBSETS, Ask, add_runs, ids, walk


@pytest.mark.parametrize("path", [RUNS, SEARCH_RUNS])
@pytest.mark.parametrize(("limit", "pages"), [(25, 3), (1, 60), (60, 1), (59, 2), (100, 1)])
def test_pages_hold_every_run_once_newest_first(
    exa: StandIn, ask: Ask, path: str, limit: int, pages: int
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


@pytest.mark.parametrize(
    ("path", "usual"),
    [
        (RUNS, 25),
        (f"{WEBSETS}/monitors", 25),
        (f"{WEBSETS}/websets/webset_a/items", 20),
        (SEARCH_RUNS, 50),
        (f"{SEARCH}/monitors", 50),
    ],
)
def test_a_page_without_a_limit_is_as_long_as_exa_documents(
    exa: StandIn, ask: Ask, path: str, usual: int
) -> None:
    """Each listing has its own length, unless the server is told another or the request names one."""
    for number in range(60):
        exa.add_monitor(f"mon_{number}")
    exa.add_monitor("mon_a", webset_id="webset_a")
    exa.add_run("mon_a", results=PAGES * 20)
    add_runs(exa, 60)
    lengths = [len(ids(ask(path)))]
    exa.page_size = 7
    lengths += [len(ids(ask(path))), len(ids(ask(path, params={"limit": 9})))]
    assert lengths == [usual, 7, 9]


def test_a_cursor_holds_while_what_it_stands_for_is_filtered_out(exa: StandIn, ask: Ask) -> None:
    """A monitor that no longer fits the filter still marks its place."""
    for number in range(4):
        exa.add_monitor(f"mon_{number}")
    query = {"limit": 2, "status": "active"}
    cursor = ask(f"{SEARCH}/monitors", params=query).json()["nextCursor"]
    exa.add_monitor(cursor, status="paused")
    assert ids(ask(f"{SEARCH}/monitors", params=query | {"cursor": cursor})) == ["mon_1", "mon_0"]


def follow(ask: Ask, path: str, pages: int) -> list[tuple[list[str], bool, str | None] | str]:
    """Follow a listing for so many pages of two, and return what each shows, or why it is refused."""
    told: list[tuple[list[str], bool, str | None] | str] = []
    params: dict[str, Any] = {"limit": 2}
    for _ in range(pages):
        response = ask(path, params=params)
        if response.status_code == 400:
            return [*told, response.json()["error"].rpartition(": ")[2]]
        body = response.json()
        told.append((ids(response), body["hasMore"], body["nextCursor"]))
        params["cursor"] = body["nextCursor"]
    return told


ONE, TWO, THREE = ["run_0", "run_1"], ["run_2", "run_3"], ["run_4"]


@pytest.mark.parametrize("path", [RUNS, SEARCH_RUNS])
@pytest.mark.parametrize(
    ("cursors", "told"),
    [
        ("honoured", [(ONE, True, "run_1"), (TWO, True, "run_3"), (THREE, False, None)]),
        ("ignored", [(ONE, True, "run_1")] * 3),
        ("missing", [(ONE, True, None)] * 3),
        ("looping", [(ONE, True, "run_1"), (TWO, True, "loop")] * 2),
        ("expires", [(ONE, True, "run_1"), (TWO, True, "expired_run_3"), "cursor has expired"]),
    ],
)
def test_cursors_can_be_followed_as_far_as_told(
    exa: StandIn, ask: Ask, path: str, cursors: Any, told: list[Any]
) -> None:
    """To the end, not at all, in a circle, or to page two; the rule can be changed while the server runs."""
    add_runs(exa, 5)
    exa.cursors = cursors
    assert follow(ask, path, len(told)) == told
    exa.cursors = "honoured"
    assert walk(ask, path, limit=2) == ONE + TWO + THREE


@pytest.mark.parametrize("cursors", ["honoured", "ignored", "missing", "looping", "expires"])
def test_a_listing_of_one_page_needs_no_cursor(exa: StandIn, ask: Ask, cursors: Any) -> None:
    """Whatever happens to cursors, a page that holds all says so."""
    exa.cursors = cursors
    newest_first = add_runs(exa, 2)
    assert follow(ask, RUNS, 1) == [(newest_first, False, None)]


@pytest.mark.parametrize("path", [RUNS, SEARCH_RUNS, f"{WEBSETS}/monitors", f"{SEARCH}/monitors/mon_b/runs"])
@pytest.mark.parametrize("cursor", ["run_none", "run_b", ""])
def test_an_unknown_cursor_is_refused(exa: StandIn, ask: Ask, path: str, cursor: str) -> None:
    """A cursor that this listing never gave is a 400, even if it is an object of another."""
    add_runs(exa, 5)
    exa.add_run("mon_c", run_id="run_b")
    response = ask(path, params={"cursor": cursor})
    assert response.status_code == 400
    assert "cursor is unknown" in response.json()["error"]
    exa.cursors = "ignored"
    assert ids(ask(path, params={"cursor": cursor})) == ids(ask(path))


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
    assert ids(ask(params={"other": "any"})) == []


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
