"""What the end of a run means for the task that waited for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from airflow_provider_exa.protocol.errors import ERRORS, ExaError, ExaRunFailedError

FAIL_ON = ("failed", "canceled")


def is_decided(
    runs: Collection[Mapping[str, Any]], *, fail_on: Collection[str], needed: int, total: int
) -> bool:
    """Whether the verdict on ``total`` runs is clear from these, whatever becomes of the rest."""
    failed = sum(run["status"] in fail_on for run in runs)
    return len(runs) - failed >= needed or failed > total - needed


def raise_for_outcome(
    runs: Collection[Mapping[str, Any]],
    fail_on: Collection[str],
    needed: int = 1,
    error: type[ExaError] = ExaRunFailedError,
) -> None:
    """
    Pass finished runs on, or fail the task that waited for them.

    :param runs: as :meth:`~airflow_provider_exa.protocol.models.MonitorRun.as_dict` gives them
    :param needed: how many of them must not have ended in one of the ways that ``fail_on`` names
    :param error: what to raise if there are fewer; it names each that did, and why
    """
    failed = [run for run in runs if run["status"] in fail_on]
    if len(runs) - len(failed) < needed:
        raise error(" ".join(map(_describe, failed)))


def unwrap_event(event: Mapping[str, Any]) -> Any:
    """
    What the event of a trigger brings: a run, or several.

    :raises ExaError: the error that ended the wait
    """
    if "error" in event:
        raise ERRORS[event["type"]](event["error"])
    return event.get("run") or event["runs"]


def _describe(run: Mapping[str, Any]) -> str:
    was = "was canceled" if run["status"] == "canceled" else run["status"]
    reason = run["failed_reason"] or "Exa gives no reason"
    return f"Run {run['id']} of Exa monitor {run['monitor_id']} {was}: {reason}."
