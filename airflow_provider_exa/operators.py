"""The operators: what a DAG asks of Exa once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_provider_exa.calls import list_runs, newest_runs
from airflow_provider_exa.core import (
    STATUSES,
    ExaInputError,
    MonitorRun,
    as_time,
    check_id,
    check_time,
    check_words,
    dialect_of,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

MAX_LIMIT = 1000


class ExaListMonitorRunsOperator(BaseOperator):
    """
    List the runs of an Exa monitor; returns a list of dicts, newest first.

    An unknown monitor is an error, as it is for a wait, although Exa lists its runs as empty.

    :param monitor_id: the monitor (templated); map over several with ``.expand(monitor_id=[…])``
    :param statuses: only runs in these states, such as ``("failed", "canceled")``; all without it
    :param created_after: only runs created at or after this moment: a datetime or ISO 8601 (templated)
    :param created_before: only runs created before this moment (templated)
    :param limit: at most so many, 1 to 1000; what is returned goes to XCom
    :param exa_conn_id: the Airflow connection (templated)
    :param api: which of Exa's monitor APIs the monitor belongs to
    :raises ExaPermanentError: Exa refuses what is asked
    :raises ExaTransientError: Exa cannot answer, after retries
    """

    template_fields: Sequence[str] = ("monitor_id", "created_after", "created_before", "exa_conn_id")
    ui_color: str = "#e8ecff"

    def __init__(
        self,
        *,
        monitor_id: str,
        statuses: Collection[str] | None = None,
        created_after: datetime | str | None = None,
        created_before: datetime | str | None = None,
        limit: int = 100,
        exa_conn_id: str = "exa_default",
        api: str = "websets",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_id("monitor_id", monitor_id)
        if statuses is not None:
            check_words("statuses", statuses, STATUSES)
        check_time("created_after", created_after)
        check_time("created_before", created_before)
        if not 1 <= limit <= MAX_LIMIT:
            raise ExaInputError(f"limit={limit!r} is not between 1 and {MAX_LIMIT}")
        dialect_of(api)
        self.monitor_id = monitor_id
        self.statuses = statuses
        self.created_after = created_after
        self.created_before = created_before
        self.limit = limit
        self.exa_conn_id = exa_conn_id
        self.api = api

    def execute(self, context: Context) -> list[dict[str, str | None]]:
        """List the runs now."""
        # Imported when the task runs: requests costs every parse of a DAG file a fifth of a second.
        from airflow_provider_exa.hooks import ExaHook

        hook = ExaHook(self.exa_conn_id, self.api)
        since = as_time("created_after", self.created_after) if self.created_after else None
        until = as_time("created_before", self.created_before) if self.created_before else None

        def keep(run: MonitorRun) -> bool:
            return (
                (self.statuses is None or run.status in self.statuses)
                and (not since or run.created_at >= since)
                and (not until or run.created_at < until)
            )

        runs = hook.call(newest_runs(list_runs(hook.dialect, self.monitor_id), self.limit, keep, since))
        if not runs:
            hook.get_monitor(self.monitor_id)
        self.log.info("Monitor %s: %d runs.", self.monitor_id, len(runs))
        return [run.as_dict() for run in runs]
