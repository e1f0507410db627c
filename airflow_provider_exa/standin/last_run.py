"""The ``lastRun`` of a Websets monitor: true, or untrue in a way that a client should survive."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow_provider_exa.standin.bodies import WEBSETS, Body

if TYPE_CHECKING:
    from airflow_provider_exa.standin import StandIn
    from airflow_provider_exa.standin.objects import Monitor


def last_run(standin: StandIn, monitor: Monitor) -> Body:
    """Return the field ``lastRun`` of a monitor; empty: it has no such key."""
    if standin.last_run == "missing":
        return {}
    return {"lastRun": _LAST_RUNS[standin.last_run](standin, monitor)}


def _newest(standin: StandIn, monitor: Monitor, place: int = -1) -> Body | None:
    lag = timedelta(seconds=standin.last_run_lag)
    at = datetime.now(UTC) - lag if lag else None
    runs = [run for run in monitor.listed() if at is None or (run.hidden_until or run.created_at) <= at]
    return WEBSETS.run(runs[place], at) if len(runs) >= -place else None


def _stuck(standin: StandIn, monitor: Monitor) -> Body | None:
    monitor.stuck_at = monitor.stuck_at or _newest(standin, monitor)
    return monitor.stuck_at


def _other(standin: StandIn, monitor: Monitor) -> Body | None:
    others = (other for other in standin.monitors.values() if other is not monitor)
    return next(filter(None, (_newest(standin, other) for other in others)), None)


def _flapping(standin: StandIn, monitor: Monitor) -> Body | None:
    monitor.flapped = not monitor.flapped
    return _newest(standin, monitor, -1 if monitor.flapped else -2)


_LAST_RUNS: dict[str, Callable[[StandIn, Monitor], Body | None]] = {
    "true": _newest,
    "null": lambda *_: None,
    "stuck": _stuck,
    "other": _other,
    "flapping": _flapping,
}
