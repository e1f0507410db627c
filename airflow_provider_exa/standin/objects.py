"""The monitors and runs that a stand-in holds."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal


def new_id(prefix: str) -> str:
    return prefix + "_" + "".join(secrets.choice("0123456789abcdefghjkmnpqrstvwxyz") for _ in range(26))


@dataclass
class Run:
    id: str
    monitor_id: str
    type: str
    created_at: datetime
    failed_reason: str | None
    history: list[tuple[datetime, str]]
    results: list[dict[str, Any]] | None
    hidden_until: datetime | None = None

    def past(self, at: datetime | None = None) -> list[tuple[datetime, str]]:
        """Return its statuses until a moment, each with its own; None: until now."""
        at = at or datetime.now(UTC)
        return [(self.created_at, "created"), *(past for past in self.history if past[0] <= at)]

    def move(self, status: str, at: datetime) -> None:
        """Put it into a status; later statuses are forgotten."""
        self.history = [*(past for past in self.history if past[0] <= at), (at, status)]

    def is_listed(self) -> bool:
        return self.hidden_until is None or self.hidden_until <= datetime.now(UTC)

    def has_searched(self) -> bool:
        """Whether its webset has a search of it."""
        return self.type == "search" and self.results is not None and self.past()[-1][1] == "completed"


@dataclass
class Monitor:
    id: str
    api: Literal["websets", "search"] | None = None  # both
    status: str = "enabled"
    webset_id: str = field(default_factory=partial(new_id, "webset"))
    created_at: datetime = field(default_factory=partial(datetime.now, UTC))
    runs: list[Run] = field(default_factory=list)  # oldest first
    next_run_at: datetime | None = None
    period: timedelta = timedelta.max
    run_options: dict[str, Any] = field(default_factory=dict)
    stuck_at: dict[str, Any] | None = None  # of the untruths about its last run
    flapped: bool = False

    def listed(self) -> list[Run]:
        return [run for run in self.runs if run.is_listed()]

    def is_on(self) -> bool:
        """Say whether it makes runs by itself."""
        return self.status not in ("paused", "disabled")
