"""Monitors and runs of a stand-in."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from airflow_provider_exa.standin.choices import ApiName

#: Last statuses of a run, in either API's words.
FINISHED = ("completed", "failed", "canceled", "cancelled")


def new_id(prefix: str) -> str:
    """Make up an id in the form of Exa's."""
    return prefix + "_" + "".join(secrets.choice("0123456789abcdefghjkmnpqrstvwxyz") for _ in range(26))


@dataclass
class Run:
    """A monitor run, with its statuses over time."""

    id: str
    monitor_id: str
    type: str
    created_at: datetime
    failed_reason: str | None
    history: list[tuple[datetime, str]]
    results: list[dict[str, Any]] | None
    hidden_until: datetime | None = None

    def past(self, at: datetime | None = None) -> list[tuple[datetime, str]]:
        """Return the statuses until a moment, each with its time; None: until now."""
        at = at or datetime.now(UTC)
        return [(self.created_at, "created"), *(past for past in self.history if past[0] <= at)]

    def move(self, status: str, at: datetime) -> None:
        """Change the status at a moment, and forget later ones."""
        self.history = [*(past for past in self.history if past[0] <= at), (at, status)]

    def is_listed(self) -> bool:
        return self.hidden_until is None or self.hidden_until <= datetime.now(UTC)

    def has_searched(self) -> bool:
        """Tell whether the webset has a search of this run."""
        return self.type == "search" and self.results is not None and self.past()[-1][1] == "completed"


@dataclass
class Monitor:
    """A monitor, with its runs and its schedule."""

    id: str
    api: ApiName | None = None  # both
    status: str = "enabled"
    webset_id: str = field(default_factory=partial(new_id, "webset"))
    created_at: datetime = field(default_factory=partial(datetime.now, UTC))
    runs: list[Run] = field(default_factory=list)  # oldest first
    next_run_at: datetime | None = None
    period: timedelta = timedelta.max
    run_options: dict[str, Any] = field(default_factory=dict)
    stuck_at: dict[str, Any] | None = None  # for an untrue last run, as is flapped
    flapped: bool = False

    def listed(self) -> list[Run]:
        return [run for run in self.runs if run.is_listed()]

    def is_on(self) -> bool:
        """Tell whether the monitor makes runs by itself."""
        return self.status not in ("paused", "disabled")

    def unfinished(self, at: datetime) -> list[Run]:
        """Return the runs that were created, but not finished, at a moment."""
        created = (run for run in self.runs if run.created_at <= at)
        return [run for run in created if run.past(at)[-1][1] not in FINISHED]

    def cancel_unfinished(self, at: datetime) -> None:
        for run in self.unfinished(at):
            run.move("canceled", at)
