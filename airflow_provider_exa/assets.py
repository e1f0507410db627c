"""Assets: DAGs that start when a monitor run has ended."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from importlib.util import find_spec
from typing import Any, TypedDict, cast
from urllib.parse import quote

from airflow.sdk import Asset, AssetWatcher

from airflow_provider_exa.protocol.errors import ExaInputError
from airflow_provider_exa.protocol.models import DEFAULT_API, FINISHED, dialect_of
from airflow_provider_exa.protocol.validation import (
    as_time,
    check_conn_id,
    check_id,
    check_seconds,
    check_words,
    is_template,
    naming,
)
from airflow_provider_exa.triggers import ExaMonitorRunEventTrigger

log = logging.getLogger(__name__)

#: What the name of an asset leaves out.
DEFAULTS = {
    "api": DEFAULT_API,
    "statuses": "completed",
    "exa_conn_id": "exa_default",
    "poll_interval": "60",
    "start": "now",
}
#: What a run in an event has to have.
TEXTS = ("api", "exa_conn_id", "monitor_id", "run_id", "status", "created_at", "finished_at")
#: Airflow takes URIs of 1,500 characters.
MAX_URI_PATH = 1400


class FinishedRun(TypedDict):
    """A run that has ended, as an event holds it; times are in ISO 8601, in UTC."""

    api: str
    exa_conn_id: str
    monitor_id: str
    run_id: str
    status: str
    type: str | None
    created_at: str
    finished_at: str
    failed_reason: str | None


def monitor_runs(
    monitor_id: str,
    *,
    statuses: Sequence[str] = ("completed",),
    api: str = "websets",
    exa_conn_id: str = "exa_default",
    name: str | None = None,
    poll_interval: float = 60,
    start: datetime | str = "now",
) -> Asset:
    """
    Return an asset for ``schedule=``: its DAGs start when runs of a monitor have ended.

    Two of these with the same arguments are one asset. Its name says what differs from the defaults. Changing
    how a monitor is watched makes another asset, which goes on from the place of the one it replaces. Needs
    Airflow 3.3.

    :param monitor_id: the monitor
    :param statuses: how a run must have ended: ``completed``, ``failed``, ``canceled``
    :param api: which of Exa's monitor APIs to ask
    :param exa_conn_id: the Airflow connection
    :param name: of the asset, instead of one made of the other arguments; two assets of one name must have
        the same arguments
    :param poll_interval: seconds between polls
    :param start: ``now``, or a fixed moment to replay from: runs that ended before it are never reported. It
        is read when the first asset of the monitor is watched for the first time.
    :raises ExaInputError: an argument cannot be what it has to
    :raises RuntimeError: this Airflow is older than 3.3
    """
    if not find_spec("airflow.triggers.shared_stream"):
        raise RuntimeError(
            "monitor_runs() needs Airflow 3.3 or later, which tells a trigger when its event is stored. "
            "Upgrade, or wait in a scheduled DAG with ExaMonitorRunSensor(…, deferrable=True)."
        )
    with naming(f"monitor_runs({monitor_id!r:.100})"):
        trigger = _make_trigger(
            monitor_id,
            statuses=statuses,
            api=api,
            exa_conn_id=exa_conn_id,
            name=name,
            poll_interval=poll_interval,
            start=start,
        )
        return _make_asset(trigger)


def _make_trigger(
    monitor_id: str,
    *,
    statuses: Sequence[str],
    api: str,
    exa_conn_id: str,
    name: str | None,
    poll_interval: float,
    start: datetime | str,
) -> ExaMonitorRunEventTrigger:
    if any(map(is_template, (monitor_id, exa_conn_id, start, name))):
        raise ExaInputError("no argument can be a template: it is read with the DAG file")
    check_id("monitor_id", monitor_id)
    chosen = check_words("statuses", statuses, FINISHED)
    if not chosen:
        raise ExaInputError(f"statuses is empty; give one or more of {', '.join(map(repr, FINISHED))}")
    dialect_of(api)
    check_conn_id("exa_conn_id", exa_conn_id)
    check_seconds("poll_interval", poll_interval)
    moment = "now" if start == "now" else as_time("start", start).to_iso8601_string()
    _warn_of_moving(monitor_id, start)
    ordered = [status for status in FINISHED if status in chosen]
    if name is not None and (not isinstance(name, str) or not name.strip()):
        raise ExaInputError(f"name={name!r:.100} cannot be the name of an asset")
    trigger = ExaMonitorRunEventTrigger(
        asset_name=name or "",
        monitor_id=monitor_id,
        statuses=ordered,
        api=api,
        exa_conn_id=exa_conn_id,
        poll_interval=float(poll_interval),
        start=moment,
    )
    trigger.asset_name = name or _name_of(trigger)
    return trigger


def _warn_of_moving(monitor_id: str, start: datetime | str) -> None:
    """Log a warning if the start seems to be computed from the current time, by its microseconds."""
    if isinstance(start, datetime) and start.microsecond % 1000:
        log.warning(
            "monitor_runs(%r): start=%s seems to be computed from the current time, which makes a new asset "
            "whenever the DAG file is read. Give a fixed moment.",
            monitor_id,
            start.isoformat(),
        )


def _name_of(trigger: ExaMonitorRunEventTrigger) -> str:
    """Return the name of an asset: its monitor, and whatever differs from the defaults."""
    values = {
        "api": trigger.api,
        "statuses": "+".join(trigger.statuses),
        "exa_conn_id": quote(trigger.exa_conn_id, safe=""),
        "poll_interval": str(trigger.poll_interval).removesuffix(".0"),
        "start": trigger.start,
    }
    differing = [f"{key}={value}" for key, value in values.items() if value != DEFAULTS[key]]
    return "/".join(["exa_monitor", trigger.monitor_id, *differing])


def _make_asset(trigger: ExaMonitorRunEventTrigger) -> Asset:
    name = trigger.asset_name
    try:
        return Asset(
            name=name,
            uri=_uri_of(name),
            group="exa",
            extra={
                "monitor_id": trigger.monitor_id,
                "api": trigger.api,
                "statuses": list(trigger.statuses),
            },
            watchers=[AssetWatcher(name=name, trigger=trigger)],
        )
    except ValueError as error:
        raise ExaInputError(f"name={name!r:.100} cannot be the name of an asset: {error}") from None


def _uri_of(name: str) -> str:
    """
    Return a URI for an asset that no other name has.

    Airflow drops the fragment, the user info and trailing slashes of a URI, and sorts its query.
    """
    stem = name.rstrip("/")
    path = quote(stem, safe="/=+:") + "%2F" * (len(name) - len(stem))
    if len(path) > MAX_URI_PATH:
        path = f"{path[:MAX_URI_PATH]}-{hashlib.sha256(name.encode()).hexdigest()}"
    return f"exa://monitor_runs/{path}"


def finished_runs(triggering_asset_events: Mapping[Any, Iterable[Any]]) -> list[FinishedRun]:
    """
    Return the runs that a DAG run was started for, each once, from the oldest to the newest.

    :param triggering_asset_events: as a task gets it by that name; events of other assets are left out; what
        is no run in an event is left out with a warning
    """
    events = [event for each in triggering_asset_events.values() for event in each]
    payloads = [event.extra.get("payload") for event in events if isinstance(event.extra, Mapping)]
    runs: dict[tuple[str, str, str], FinishedRun] = {}
    for payload in payloads:
        if isinstance(payload, Mapping) and payload.keys() >= {"api", "exa_conn_id", "runs"}:
            for run in _runs_of(payload):
                runs.setdefault((run["api"], run["monitor_id"], run["run_id"]), run)
    return sorted(runs.values(), key=lambda run: (run["created_at"], run["run_id"]))


def _runs_of(payload: Mapping[str, Any]) -> Iterator[FinishedRun]:
    """Yield the runs of an event; anybody who may create events of an asset may have made it."""
    source = {"api": payload["api"], "exa_conn_id": payload["exa_conn_id"]}
    for entry in payload["runs"] if isinstance(payload["runs"], list) else [payload["runs"]]:
        run = {**source, **entry} if isinstance(entry, Mapping) else {}
        if all(isinstance(run.get(name), str) for name in TEXTS):
            yield cast(FinishedRun, run)
        else:
            log.warning("This is no run, and is left out of an asset event's runs: %.200r", entry)
