"""The operators that list runs, their results, and monitors."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from pathlib import PurePath
from shutil import copyfileobj
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from airflow.sdk import ObjectStoragePath

from airflow_provider_exa.operators.base import ExaBaseOperator
from airflow_provider_exa.protocol.endpoints import list_runs
from airflow_provider_exa.protocol.errors import ExaInputError
from airflow_provider_exa.protocol.models import STATUSES, MonitorRun, dialect_of
from airflow_provider_exa.protocol.paging import newest_runs
from airflow_provider_exa.protocol.results import summary_of
from airflow_provider_exa.protocol.validation import (
    as_run_id,
    as_time,
    check_id,
    check_time,
    check_words,
    is_template,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

MAX_LIMIT = 1000
#: How many bytes of results, as JSON, may go to XCom.
MAX_INLINE = 1 << 20


class ExaListMonitorRunsOperator(ExaBaseOperator):
    """
    List the runs of an Exa monitor; return a list of dicts, newest first.

    An unknown monitor is an error, as it is for a wait, although Exa lists its runs as empty.

    :param monitor_id: the monitor (templated); map over several with ``.expand(monitor_id=[…])``
    :param statuses: only runs in these states, such as ``("failed", "canceled")``; all without it
    :param created_after: only runs created at or after this moment: a datetime or ISO 8601 (templated)
    :param created_before: only runs created before this moment (templated)
    :param limit: at most so many, 1 to 1000; what is returned goes to XCom
    :param exa_conn_id: the Airflow connection (templated)
    :param api: which of Exa's monitor APIs the monitor belongs to
    :raises ExaPermanentError: Exa refuses the request
    :raises ExaTransientError: Exa cannot answer, after retries
    """

    template_fields: Sequence[str] = ("monitor_id", "created_after", "created_before", "exa_conn_id")

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
        super().__init__(exa_conn_id=exa_conn_id, api=api, **kwargs)
        with self.naming_errors():
            check_id("monitor_id", monitor_id)
            if statuses is not None:
                check_words("statuses", statuses, STATUSES)
            check_time("created_after", created_after)
            check_time("created_before", created_before)
            if not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
                raise ExaInputError(f"limit={limit!r:.100} is not between 1 and {MAX_LIMIT}")
        self.monitor_id = monitor_id
        self.statuses = statuses
        self.created_after = created_after
        self.created_before = created_before
        self.limit = limit

    def execute(self, context: Context) -> list[dict[str, str | None]]:
        """List the runs now."""
        self.check_rendered()
        since, until = self.created_after, self.created_before
        since = None if since is None else as_time("created_after", since)
        until = None if until is None else as_time("created_before", until)

        def keep(run: MonitorRun) -> bool:
            return (
                (self.statuses is None or run.status in self.statuses)
                and (not since or run.created_at >= since)
                and (not until or run.created_at < until)
            )

        hook, monitor_id = self.hook, self.monitor_id
        listing = list_runs(hook.dialect, monitor_id, since=since, keep_raw=False)
        runs = hook.call(newest_runs(listing, self.limit, keep))
        if not runs:
            hook.get_monitor(monitor_id)
        self.linked_monitor_ids = [monitor_id]
        self.log.info("Listed %d runs (monitor %s).", len(runs), monitor_id)
        return [run.as_dict() for run in runs]


class ExaListMonitorRunResultsOperator(ExaBaseOperator):
    """
    List the results of an Exa monitor run, in Exa's own words; return their place, or the results themselves.

    They can be large, so they are written to ``path`` as JSON Lines, one result a line, and the task returns
    ``{"path": …, "count": …}``. Without ``path`` it returns the results as a list of dicts. What a search
    monitor's run says of them as a whole, ``{"content": …, "grounding": …}``, is the XCom ``summary``.

    A run of a Websets monitor does not say which items it found; they are inferred, see
    :meth:`~airflow_provider_exa.hooks.ExaHook.list_run_results`.

    :param monitor_id: the monitor (templated)
    :param run_id: the run, which must have ended (templated)
    :param path: a file in any storage that Airflow's ``ObjectStoragePath`` knows, such as
        ``s3://aws_default@bucket/exa.jsonl``, or a local one, as a string or a path; one that is there is
        replaced once all results are known (templated)
    :param exa_conn_id: the Airflow connection (templated)
    :param api: which of Exa's monitor APIs the monitor belongs to
    :raises ExaInputError: the run has not ended, or has more than 1 MiB of results and there is no ``path``
    :raises ExaPermanentError: Exa refuses the request
    :raises ExaTransientError: Exa cannot answer
    """

    template_fields: Sequence[str] = ("monitor_id", "run_id", "path", "exa_conn_id")

    def __init__(
        self,
        *,
        monitor_id: str,
        run_id: str,
        path: str | PurePath | ObjectStoragePath | None = None,
        exa_conn_id: str = "exa_default",
        api: str = "websets",
        **kwargs: Any,
    ) -> None:
        super().__init__(exa_conn_id=exa_conn_id, api=api, **kwargs)
        with self.naming_errors():
            check_id("monitor_id", monitor_id)
            if not is_template(run_id):
                check_id("run_id", as_run_id(run_id))
        self.monitor_id = monitor_id
        self.run_id = run_id
        # Airflow may have to render it, and to show it.
        self.path = str(path) if isinstance(path, PurePath | ObjectStoragePath) else path

    def execute(self, context: Context) -> list[dict[str, Any]] | dict[str, Any]:
        """List the results now."""
        self.check_rendered()
        with self.naming_errors():
            self.run_id = as_run_id(self.run_id)
            path = None if self.path is None else _as_path(self.path)
        hook, monitor_id = self.hook, self.monitor_id
        self.linked_monitor_ids = [monitor_id]
        run = hook.get_monitor_run(monitor_id, self.run_id)
        results = hook.list_run_results(run, whole=True)
        returned = self._return_inline(results) if path is None else self._write(results, path)
        if (summary := summary_of(hook.dialect, run)) is not None:
            context["ti"].xcom_push(key="summary", value=summary)
        return returned

    def _return_inline(self, results: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
        listed, size = [], 0
        for result in results:
            listed.append(result)
            size += len(json.dumps(result))
            if size > MAX_INLINE:
                raise ExaInputError(
                    f"Run {self.run_id} has more than {MAX_INLINE >> 20} MiB of results; give a path."
                )
        self.log.info("Listed %d results of run %s (monitor %s).", len(listed), self.run_id, self.monitor_id)
        return listed

    def _write(self, results: Iterator[dict[str, Any]], path: ObjectStoragePath) -> dict[str, Any]:
        """Write the results to a temporary file, and once all are there to where they belong."""
        count = 0
        with TemporaryFile() as lines:
            for count, result in enumerate(results, 1):  # noqa: B007 (counts them)
                lines.write(json.dumps(result, ensure_ascii=False).encode() + b"\n")
            lines.seek(0)
            if path.protocol in ("", "file"):
                path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:  # type: ignore[no-untyped-call]
                copyfileobj(lines, file)
        self.log.info("Wrote %d results of run %s to %s.", count, self.run_id, path)
        return {"path": str(path), "count": count}


def _as_path(path: object) -> ObjectStoragePath:
    """Return a path that can be opened; raise before Exa is asked where it cannot."""
    if not isinstance(path, str | PurePath | ObjectStoragePath) or not (text := str(path)).strip():
        raise ExaInputError(f"path is {path!r:.200}; it must be the path of a file, a string")
    if ".." in text.replace("\\", "/").split("/"):
        raise ExaInputError(f"path={text!r:.200} has '..' in it; an id of Exa's may hold anything")
    try:
        if "\0" in text:
            raise ValueError("it has a null character")
        usable = ObjectStoragePath(text)
        usable.fs  # noqa: B018 (looks for the package and the connection of this kind of storage)
    except (ImportError, ValueError) as error:
        raise ExaInputError(f"path={text!r:.200} cannot be used: {error}") from error
    return usable


class ExaListMonitorsOperator(ExaBaseOperator):
    """
    List the team's Exa monitors; return a list of dicts with ``id, status, enabled, webset_id``.

    To map over them: ``.expand(monitor_id=monitors.output.map(lambda monitor: monitor["id"]))``.

    :param only_enabled: whether to leave out monitors that are disabled or paused
    :param webset_id: only monitors of this webset (templated); search monitors have none
    :param exa_conn_id: the Airflow connection (templated)
    :param api: which of Exa's monitor APIs to ask
    :raises ExaPermanentError: Exa refuses the request
    :raises ExaTransientError: Exa cannot answer
    """

    template_fields: Sequence[str] = ("webset_id", "exa_conn_id")

    def __init__(
        self,
        *,
        only_enabled: bool = True,
        webset_id: str | None = None,
        exa_conn_id: str = "exa_default",
        api: str = "websets",
        **kwargs: Any,
    ) -> None:
        super().__init__(exa_conn_id=exa_conn_id, api=api, **kwargs)
        with self.naming_errors():
            dialect_of(api, websets=webset_id and f"webset_id={webset_id!r}")
            if webset_id is not None:
                check_id("webset_id", webset_id)
        self.only_enabled = only_enabled
        self.webset_id = webset_id

    def execute(self, context: Context) -> list[dict[str, str | bool | None]]:
        """List the monitors now."""
        self.check_rendered()
        monitors = [monitor.as_dict() for monitor in self.hook.list_monitors(webset_id=self.webset_id)]
        listed = [monitor for monitor in monitors if monitor["enabled"] or not self.only_enabled]
        self.log.info("Listed %d monitors, of which %d are returned.", len(monitors), len(listed))
        return listed
