"""Assets: DAGs that start when a monitor run has ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from importlib.util import find_spec
from typing import Any, TypedDict, cast

from airflow.sdk import Asset, AssetWatcher

from airflow_provider_exa.protocol.errors import ExaInputError
from airflow_provider_exa.protocol.models import FINISHED, dialect_of
from airflow_provider_exa.protocol.validation import (
    as_time,
    check_id,
    check_seconds,
    check_words,
    is_template,
)
from airflow_provider_exa.triggers import ExaMonitorRunEventTrigger


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
    An asset for ``schedule=``: its DAGs start when runs of a monitor have ended.

    What differs between two of these is in their names, so those that ask for the same are the same asset.
    Needs Airflow 3.3.

    :param monitor_id: the monitor
    :param statuses: how a run must have ended: ``completed``, ``failed``, ``canceled``
    :param api: which of Exa's monitor APIs to ask
    :param exa_conn_id: the Airflow connection
    :param name: of the asset, instead of one made of the other arguments; two assets of one name must have
        the same arguments
    :param poll_interval: seconds between polls
    :param start: ``now``, or the moment to replay from: runs that ended before it are never reported. It is
        read when the asset is watched for the first time.
    :raises ExaInputError: an argument cannot be what it has to
    :raises RuntimeError: this Airflow is older than 3.3
    """
    if not find_spec("airflow.triggers.shared_stream"):
        raise RuntimeError(
            "monitor_runs() needs Airflow 3.3 or later, which tells a trigger when its event is stored. "
            "Upgrade, or wait in a scheduled DAG with ExaMonitorRunSensor(…, deferrable=True)."
        )
    if any(map(is_template, (monitor_id, exa_conn_id, start, name))):
        raise ExaInputError("no argument of monitor_runs() can be a template: it is read with the DAG file")
    check_id("monitor_id", monitor_id)
    chosen = check_words("statuses", statuses, FINISHED)
    if not chosen:
        raise ExaInputError(f"statuses is empty; give one or more of {', '.join(map(repr, FINISHED))}")
    dialect_of(api)
    if not isinstance(exa_conn_id, str) or not exa_conn_id:
        raise ExaInputError(f"exa_conn_id={exa_conn_id!r} is not the id of an Airflow connection")
    check_seconds("poll_interval", poll_interval)
    moment = "now" if start == "now" else as_time("start", start).to_iso8601_string()
    ordered = [status for status in FINISHED if status in chosen]
    if name is None:
        seconds = str(float(poll_interval)).removesuffix(".0") + "s"
        name = "/".join([api, monitor_id, "-".join(ordered), exa_conn_id, seconds, moment])
    trigger = ExaMonitorRunEventTrigger(
        asset_name=name,
        monitor_id=monitor_id,
        statuses=ordered,
        api=api,
        exa_conn_id=exa_conn_id,
        poll_interval=float(poll_interval),
        start=moment,
    )
    return Asset(name=name, uri=f"exa://{name}", watchers=[AssetWatcher(name=name, trigger=trigger)])


def finished_runs(triggering_asset_events: Mapping[Any, Iterable[Any]]) -> list[FinishedRun]:
    """
    The runs that a DAG run was started for, each once, from the oldest to the newest.

    :param triggering_asset_events: as a task gets it by that name; events of other assets are left out
    """
    events = [event for each in triggering_asset_events.values() for event in each]
    payloads = [event.extra.get("payload") for event in events if event.extra]
    runs: dict[tuple[str, str, str], FinishedRun] = {}
    for payload in payloads:
        if isinstance(payload, Mapping) and payload.keys() >= {"api", "exa_conn_id", "runs"}:
            for run in payload["runs"]:
                source = {"api": payload["api"], "exa_conn_id": payload["exa_conn_id"]}
                whole = cast(FinishedRun, {**source, **run})
                runs.setdefault((whole["api"], whole["monitor_id"], whole["run_id"]), whole)
    return sorted(runs.values(), key=lambda run: (run["created_at"], run["run_id"]))
