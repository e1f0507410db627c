"""How these tests ask the stand-in, and what they share."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import requests

from airflow_provider_exa.standin import StandIn

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
STARTS = datetime(2025, 3, 1, 12, tzinfo=UTC)

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


def add_runs(exa: StandIn, count: int) -> list[str]:
    """Add runs a minute apart, newest first in time but not in the order they are added."""
    start = datetime(2026, 3, 1, tzinfo=UTC)
    for number in sorted(range(count), key=lambda number: number % 3):
        exa.add_run("mon_a", run_id=f"run_{number}", created_at=start - timedelta(minutes=number))
    return [f"run_{number}" for number in range(count)]
