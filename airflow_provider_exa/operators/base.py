"""The base of every operator and sensor of this package."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowTaskTimeout
from airflow.sdk import BaseOperator
from airflow.sdk.bases.operator import TriggerFailureReason

from airflow_provider_exa.hooks import ExaHook
from airflow_provider_exa.links import ExaWebsetLink
from airflow_provider_exa.protocol.endpoints import get_monitor, list_monitors
from airflow_provider_exa.protocol.models import dialect_of
from airflow_provider_exa.protocol.paging import fetch_page
from airflow_provider_exa.protocol.validation import check_conn_id, check_rendered, is_template, naming
from airflow_provider_exa.waiting.progress import Progress, describe_time_out

if TYPE_CHECKING:
    from airflow.sdk import Context

#: Seconds that a task spends, at most, to find the webset that its link leads to.
LINK_TIMEOUT = 2.0
#: What a task says that resumes with other arguments than it deferred with.
CHANGED = (
    "The arguments changed while the task was deferred: it has waited for another run. A retry waits anew."
)
#: Seconds that the last poll of a wait that has timed out may take.
LAST_POLL_TIMEOUT = 5.0
#: The most monitors that Websets lists on a page, says its documentation.
MONITORS_PAGE = 200


class ExaBaseOperator(BaseOperator):
    """
    An operator with a connection to Exa and a link to the webset that it is about.

    :param exa_conn_id: the Airflow connection (templated)
    :param api: which of Exa's monitor APIs to ask: ``websets`` or ``search``
    """

    ui_color: str = "#e8ecff"
    operator_extra_links = (ExaWebsetLink(),)
    webset_id: str | None = None
    #: The monitors that the task turned out to be about, whose webset is still to be found.
    linked_monitor_ids: Collection[str] = ()
    #: What the task waits for, and how far it has come.
    waits: Sequence[Progress] = ()

    def __init__(self, *, exa_conn_id: str = "exa_default", api: str = "websets", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        with self.naming_errors():
            dialect_of(api)
            if not is_template(exa_conn_id):
                check_conn_id("exa_conn_id", exa_conn_id)
        self.exa_conn_id = exa_conn_id
        self.api = api

    @cached_property
    def hook(self) -> ExaHook:
        """The hook of this process, with one session."""
        return ExaHook(self.exa_conn_id, self.api)

    def naming_errors(self) -> AbstractContextManager[None]:
        """Begin argument errors with this task's class and id."""
        return naming(f"{type(self).__name__}(task_id={self.task_id!r})")

    def check_rendered(self) -> None:
        """Raise, as the first thing that a process does, if an argument has rendered to what it cannot be."""
        with self.naming_errors():
            for name in self.template_fields:
                check_rendered(name, getattr(self, name))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume; a time-out is reported in this package's words."""
        if next_kwargs and next_kwargs.get("error") == TriggerFailureReason.TRIGGER_TIMEOUT:
            next_method, next_kwargs = "_time_out", {}
        self.check_rendered()
        return super().resume_execution(next_method, next_kwargs, context)

    @contextmanager
    def naming_time_outs(self) -> Iterator[None]:
        """Let an ``execution_timeout`` say what the task has waited for."""
        try:
            yield
        except AirflowTaskTimeout as error:
            if not self.waits:
                raise
            raise AirflowTaskTimeout(describe_time_out(self.waits)) from error

    def time_left(self, began: float) -> timedelta | None:
        """
        Return what is left of ``execution_timeout``, which a deferral goes on with.

        :param began: when the task's process did, by ``time.monotonic()``
        """
        waited, limit = timedelta(seconds=time.monotonic() - began), self.execution_timeout
        # Airflow cannot send a subclass of timedelta, such as pendulum's.
        return timedelta(seconds=max(0.0, (limit - waited).total_seconds())) if limit else None

    def find_webset(self) -> str | None:
        """
        Return the id of the webset that the task's monitors share, if Exa says so at once.

        It costs one request, if any, and is sought once in a process.
        """
        monitor_ids, self.linked_monitor_ids = self.linked_monitor_ids, ()
        if self.webset_id is None and monitor_ids and dialect_of(self.api).websets:
            with suppress(Exception):  # a task never fails for its link
                self.webset_id = self._ask_for_webset(monitor_ids)
        return self.webset_id

    def _ask_for_webset(self, monitor_ids: Collection[str]) -> str | None:
        dialect = self.hook.dialect
        once: dict[str, Any] = {"deadline": time.monotonic() + LINK_TIMEOUT, "retries": 0}
        if len(monitor_ids) == 1:
            (monitor_id,) = monitor_ids
            return self.hook.call(get_monitor(dialect, monitor_id), **once).webset_id
        page = self.hook.call(fetch_page(list_monitors(dialect, page_size=MONITORS_PAGE)), **once)
        websets = {monitor.id: monitor.webset_id for monitor in page.items}
        shared = {websets.get(monitor_id) for monitor_id in monitor_ids}
        return shared.pop() if len(shared) == 1 else None
