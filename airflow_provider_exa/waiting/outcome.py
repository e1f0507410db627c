"""The outcome of a run as the outcome of the task that waited for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from airflow_provider_exa.protocol.errors import ERRORS, ExaError, ExaRunFailedError

FAIL_ON = ("failed", "canceled")
#: How many runs that did not end well an error describes.
MAX_DESCRIBED = 5


def is_decided(
    runs: Collection[Mapping[str, Any]], *, fail_on: Collection[str], needed: int, total: int
) -> bool:
    """
    Return whether the verdict on ``total`` runs is clear, whatever becomes of the rest.

    :param runs: those that have ended, as dicts
    """
    failed = sum(run["status"] in fail_on for run in runs)
    return len(runs) - failed >= needed or failed > total - needed


def raise_for_outcome(
    runs: Collection[Mapping[str, Any]],
    fail_on: Collection[str],
    needed: int = 1,
    error: type[ExaError] = ExaRunFailedError,
) -> None:
    """
    Raise if fewer than ``needed`` runs have ended well.

    :param runs: as :meth:`~airflow_provider_exa.protocol.models.MonitorRun.as_dict` returns them
    :param fail_on: the outcomes that are not well
    :param error: what to raise; it names the first runs that did not end well, and why
    """
    failed = [run for run in runs if run["status"] in fail_on]
    if len(runs) - len(failed) < needed:
        texts = [_describe(run) for run in failed[:MAX_DESCRIBED]]
        if len(failed) > MAX_DESCRIBED:
            texts.append(f"{len(failed) - MAX_DESCRIBED} more runs did not end well.")
        raise error(" ".join(texts))


def unwrap_event(event: Mapping[str, Any]) -> Any:
    """
    Return what a trigger's event brings: ``run``, or ``runs`` by monitor id.

    :raises ExaError: the error that ended the wait
    """
    if "error" in event:
        raise ERRORS.get(event["type"], ExaError)(event["error"])
    return event.get("run") or event["runs"]


def _describe(run: Mapping[str, Any]) -> str:
    verb = "was canceled" if run["status"] == "canceled" else run["status"]
    reason = f"{run['failed_reason'] or 'Exa gives no reason'}"
    return f"Run {run['id']} {verb}: {reason:.500} (monitor {run['monitor_id']})."
