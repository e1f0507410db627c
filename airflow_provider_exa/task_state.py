"""A task's memory from one of its processes to the next, in Airflow's task state store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import Context


def recall(context: Context, key: str, subject: dict[str, Any]) -> tuple[dict[str, Any] | None, bool]:
    """
    Return what the task has remembered, if anything, and whether it was cleared since then.

    From Airflow 3.3 on it is kept through reschedules, retries, a worker's death and a clear of the task,
    which raises ``max_tries``; before, nothing is.

    :param subject: the task's arguments that it was remembered for; of others, nothing is known
    """
    store = context.get("task_state_store")
    kept = store.get(key) if store is not None else None
    if not isinstance(kept, dict) or kept.pop("subject", None) != subject:
        return None, False
    return kept, kept.pop("max_tries", None) != context["ti"].max_tries


def remember(context: Context, key: str, subject: dict[str, Any], values: dict[str, Any]) -> None:
    """Keep the values for the task's next process, where Airflow can."""
    store = context.get("task_state_store")
    if store is not None:
        store.set(key, {"max_tries": context["ti"].max_tries, "subject": subject, **values})


def forget(context: Context, key: str) -> None:
    """Remember nothing any more."""
    store = context.get("task_state_store")
    if store is not None:
        store.delete(key)
