"""Exa in memory: answers the requests of a poll without HTTP, so that thousands of polls are cheap."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pendulum

from airflow_provider_exa.client.client import drive
from airflow_provider_exa.protocol.endpoints import get_run
from airflow_provider_exa.protocol.messages import Request, Response, or_error
from airflow_provider_exa.protocol.models import DIALECTS, MonitorRun, parse_run
from airflow_provider_exa.protocol.paging import ListedRuns
from airflow_provider_exa.waiting.selection import Selector
from airflow_provider_exa.waiting.snapshot import (
    Snapshot,
    missing_runs,
    take_listing,
    take_snapshot,
    with_run,
)

T = TypeVar("T")

START = pendulum.datetime(2026, 1, 31)
WEBSETS = DIALECTS["websets"]


def make_run(run_id: str, hour: float = 0, status: str = "completed", **fields: Any) -> MonitorRun:
    """Return a run that was created so many hours after ``START``."""
    return parse_run(WEBSETS, "mon_a", make_body(run_id, hour, status, **fields))


def make_body(run_id: str, hour: float = 0, status: str = "completed", **fields: Any) -> dict[str, Any]:
    """Return a run as Exa sends it."""
    created_at = START.add(seconds=round(hour * 3600)).isoformat()
    return {"id": run_id, "monitorId": "mon_a", "status": status, "createdAt": created_at, **fields}


@dataclass(frozen=True)
class Exa:
    """
    One monitor, ``mon_a``, at one moment.

    :param runs: in the order in which they are listed
    :param unlisted: runs that are known by their ids alone, as a listing may lag
    :param cursors: ``honoured``; ``ignored``: every page is page one; ``refused``: 400; ``missing``: there
        is more, but no cursor for it; ``looping``: the third page leads to the second; ``empty``: from the
        second on, each page is empty and has more behind it
    :param unreadable: the ids of runs that no listing can be read for
    :param broken_pages: statuses by the number of a page, from 1
    :param broken_runs: statuses by the id of a run that is asked for
    :param refuses_limit: whether a ``limit`` is answered with 400
    :param monitor: the status of the answer to a request for the monitor
    :param webset: the webset's status, or the number of the answer's
    :param webset_body: what else the answer holds
    :param asked: the paths that were asked for
    """

    runs: tuple[MonitorRun, ...] = ()
    unlisted: tuple[MonitorRun, ...] = ()
    page_size: int = 25
    cursors: str = "honoured"
    unreadable: Collection[str] = ()
    broken_pages: Mapping[int, int] = field(default_factory=dict)
    broken_runs: Mapping[str, int] = field(default_factory=dict)
    refuses_limit: bool = False
    monitor: int = 200
    webset: str | int = "idle"
    webset_body: Mapping[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list, compare=False, repr=False)

    def answer(self, request: Request) -> Response:
        """Answer one request."""
        path = request.path.removeprefix("/websets/v0")
        self.asked.append(path)
        status, body = self._answer(path.strip("/").split("/"), request.params)
        if status != 200:
            body = {"error": f"status {status}"}
        return Response(status, json.dumps(body).encode(), f"https://exa.test{request.path}")

    def _answer(self, path: list[str], params: Mapping[str, Any]) -> tuple[int, Any]:
        match path:
            case ["monitors", "mon_a", "runs"]:
                return self._page(params)
            case ["monitors", "mon_a", "runs", run_id]:
                known = {run.id: run for run in (*self.runs, *self.unlisted)}
                run = known.get(run_id)
                return self.broken_runs.get(run_id, 200 if run else 404), run and dict(run.raw)
            case ["monitors", "mon_a"]:
                return self.monitor, {"id": "mon_a", "status": "enabled", "websetId": "webset_a"}
            case ["websets", "webset_a"]:
                status = self.webset if isinstance(self.webset, int) else 200
                return status, {"status": self.webset, **self.webset_body}
        return 404, None

    def _page(self, params: Mapping[str, Any]) -> tuple[int, Any]:
        if ("limit" in params and self.refuses_limit) or ("cursor" in params and self.cursors == "refused"):
            return 400, None
        size = min(int(params.get("limit", self.page_size)), self.page_size)
        number = int(str(params.get("cursor", "page 1")).split()[1])
        if self.cursors == "ignored":
            number = 1
        runs = self.runs[(number - 1) * size : number * size]
        more = number * size < len(self.runs)
        following: int | None = number + 1
        if self.cursors == "looping" and number == 3:
            more, following = True, 2
        if self.cursors == "missing":
            following = None
        if self.cursors == "empty" and number > 1:
            runs, more = (), True
        data = [{"id": run.id} if run.id in self.unreadable else dict(run.raw) for run in runs]
        cursor = f"page {following}" if more and following else None
        return self.broken_pages.get(number, 200), {"data": data, "hasMore": more, "nextCursor": cursor}

    def poll(self, *selectors: Selector, **options: Any) -> Snapshot:
        """Poll for these selectors."""
        return drive(take_snapshot(WEBSETS, "mon_a", selectors, **options), self.answer)

    def go_on(self, earlier: ListedRuns | None, *selectors: Selector) -> Snapshot:
        """Poll for these selectors, from where an earlier poll ended."""
        call = take_listing(Snapshot(), WEBSETS, "mon_a", selectors, earlier=earlier)
        snapshot = drive(call, self.answer)
        for run_id in missing_runs(snapshot, selectors):
            found = drive(or_error(get_run(WEBSETS, "mon_a", run_id)), self.answer)
            snapshot = with_run(snapshot, run_id, found)
        return snapshot
