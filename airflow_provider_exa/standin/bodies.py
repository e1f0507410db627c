"""Bodies of Exa's two monitor APIs: monitors, runs, websets and their items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from airflow_provider_exa.standin.objects import FINISHED, Monitor, Run

Body = dict[str, Any]
Past = list[tuple[datetime, str]]

_QUERY = "News that the stand-in finds"


def iso(moment: datetime) -> str:
    """Write a time as Exa does."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _websets_run(run: Run, past: Past) -> Body:
    return {"object": "monitor_run", "type": run.type}


def _search_run(run: Run, past: Past) -> Body:
    since, status = past[-1]
    at_once = run.created_at if status in ("completed", "failed") else None
    started_at = next((at for at, state in past if state == "running"), at_once)
    ended = status in FINISHED
    titles = [str(result.get("title")) for result in run.results or ()]
    output = {"results": run.results or [], "content": "; ".join(titles) or "Nothing new.", "grounding": []}
    return {
        "startedAt": iso(started_at) if started_at else None,
        "durationMs": (since - started_at) // timedelta(milliseconds=1) if started_at and ended else None,
        "output": output if status == "completed" else None,
    }


def _websets_monitor(monitor: Monitor) -> Body:
    return {
        "object": "monitor",
        "websetId": monitor.webset_id,
        "cadence": {"cron": "0 9 * * *", "timezone": "Etc/UTC"},
        "behavior": {"type": "search", "config": {"count": 10, "behavior": "append"}},
        "metadata": {},
    }


def _search_monitor(monitor: Monitor) -> Body:
    return {
        "name": None,
        "search": {"query": _QUERY},
        "trigger": {"type": "interval", "period": "1d"},
        "outputSchema": None,
        "metadata": None,
        "webhook": {"url": "https://example.com/webhooks/exa"},
    }


@dataclass(frozen=True, kw_only=True)
class Api:
    """The words of one API for monitors and runs."""

    base: str
    max_limit: int
    run_statuses: Mapping[str, str]  # by the other API's word
    monitor_statuses: Mapping[str, str]
    ended_at: Mapping[str, str]
    reason: str
    filter: str  # the field of a monitor that narrows the listing
    run_fields: Callable[[Run, Past], Body]
    monitor_fields: Callable[[Monitor], Body]
    page_size: int = 25  # where a request names no limit
    name: str | None = None  # for monitors that belong to one API

    def run_status(self, status: str) -> str:
        return self.run_statuses.get(status, status)

    def monitor_status(self, monitor: Monitor) -> str:
        return self.monitor_statuses.get(monitor.status, monitor.status)

    def has(self, monitor: Monitor) -> bool:
        return monitor.api in (None, self.name)

    def run(self, run: Run, at: datetime | None = None) -> Body:
        """Return the body of a run at a moment; None: now."""
        past = run.past(at)
        since, status = past[-1][0], self.run_status(past[-1][1])
        return {
            "id": run.id,
            "monitorId": run.monitor_id,
            "status": status,
            **{name: iso(since) if status == end else None for end, name in self.ended_at.items()},
            self.reason: run.failed_reason if status == "failed" else None,
            "createdAt": iso(run.created_at),
            "updatedAt": iso(since),
            **self.run_fields(run, past),
        }

    def monitor(self, monitor: Monitor) -> Body:
        return {
            "id": monitor.id,
            "status": self.monitor_status(monitor),
            "nextRunAt": iso(monitor.next_run_at) if monitor.next_run_at and monitor.is_on() else None,
            "createdAt": iso(monitor.created_at),
            "updatedAt": iso(monitor.created_at),
            **self.monitor_fields(monitor),
        }


WEBSETS = Api(
    name="websets",
    base="/websets/v0",
    max_limit=200,
    run_statuses={"pending": "created", "cancelled": "canceled"},
    monitor_statuses={"active": "enabled", "paused": "disabled"},
    ended_at={"completed": "completedAt", "failed": "failedAt", "canceled": "canceledAt"},
    reason="failedReason",
    filter="websetId",
    run_fields=_websets_run,
    monitor_fields=_websets_monitor,
)
SEARCH = Api(
    name="search",
    base="",
    page_size=50,
    max_limit=100,
    run_statuses={"created": "pending", "canceled": "cancelled"},
    monitor_statuses={"enabled": "active"},
    ended_at={"completed": "completedAt", "failed": "failedAt", "cancelled": "cancelledAt"},
    reason="failReason",
    filter="status",
    run_fields=_search_run,
    monitor_fields=_search_monitor,
)


def webset(webset_id: str, status: str, monitors: list[Body], runs: Iterable[Run]) -> Body:
    """Return the body of a webset with these monitors, and a search for each of these runs."""
    created_at = min(monitor["createdAt"] for monitor in monitors)
    return {
        "id": webset_id,
        "object": "webset",
        "status": status,
        "externalId": None,
        "title": None,
        "searches": [_webset_search(webset_id, run) for run in runs],
        "imports": [],
        "enrichments": [],
        "monitors": monitors,
        "excludes": [],
        "metadata": {},
        "dashboardUrl": f"https://websets.exa.ai/websets/{webset_id}",
        "createdAt": created_at,
        "updatedAt": created_at,
    }


def search_id(run: Run) -> str:
    """Return the id of the search that a run made in its webset."""
    return f"wsearch_{run.id.removeprefix('run_')}"


def _webset_search(webset_id: str, run: Run) -> Body:
    completed_at, _ = run.past()[-1]
    found = len(run.results or ())
    return {
        "id": search_id(run),
        "object": "webset_search",
        "websetId": webset_id,
        "status": "completed",
        "query": _QUERY,
        "entity": {"type": "custom", "description": "web page"},
        "criteria": [],
        "count": max(10, found),
        "maxPeoplePerCompany": None,
        "behavior": "append",
        "exclude": [],
        "scope": [],
        "progress": {"found": found, "analyzed": found, "completion": 100, "timeLeft": 0},
        "recall": None,
        "metadata": {},
        "canceledAt": None,
        "canceledReason": None,
        "createdAt": iso(run.created_at + min(timedelta(seconds=0.5), (completed_at - run.created_at) / 2)),
        "updatedAt": iso(completed_at),
    }


@dataclass(frozen=True)
class Item:
    """A result of a run as an item of the webset, by its position in the run's results."""

    run: Run
    position: int

    @property
    def id(self) -> str:
        return f"witem_{self.run.id.removeprefix('run_')}_{self.position}"

    def body(self, webset_id: str) -> Body:
        result = (self.run.results or [])[self.position]
        created_at = iso(self.run.past()[-1][0])
        return {
            "id": self.id,
            "object": "webset_item",
            "source": "search",
            "sourceId": search_id(self.run),
            "websetId": webset_id,
            "properties": _web_page(result),
            "evaluations": [],
            "enrichments": [],
            "createdAt": created_at,
            "updatedAt": created_at,
        }


def _web_page(result: Mapping[str, Any]) -> Body:
    title = result.get("title")
    return {
        "type": "custom",
        "url": result.get("url", "https://example.com"),
        "description": result.get("summary") or title or "",
        "content": result.get("text"),
        "custom": {
            "title": title,
            "author": result.get("author"),
            "publishedAt": result.get("publishedDate"),
        },
    }
