"""Runs as Exa would show them, for tests without a server."""

from __future__ import annotations

from pendulum import DateTime

from airflow_provider_exa.protocol.models import FINISHED, MonitorRun


def make_run(run_id: str, status: str, created_at: DateTime, ended_at: DateTime | None = None) -> MonitorRun:
    """Return a run of ``mon_a``."""
    ends = {f"{end}_at": ended_at if status == end else None for end in FINISHED}
    return MonitorRun(
        id=run_id,
        monitor_id="mon_a",
        status=status,
        type="search",
        created_at=created_at,
        updated_at=ended_at,
        failed_reason=None,
        raw={},
        **ends,
    )
