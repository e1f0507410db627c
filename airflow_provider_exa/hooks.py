"""The hook: an Airflow connection turned into calls to Exa."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from airflow.sdk import BaseHook

from airflow_provider_exa.client.client import drive
from airflow_provider_exa.client.settings import read_settings
from airflow_provider_exa.client.transport import Transport
from airflow_provider_exa.protocol import endpoints, paging
from airflow_provider_exa.protocol.errors import ExaError, ExaPermanentError
from airflow_provider_exa.protocol.messages import Call, Request, Response, is_bad_key
from airflow_provider_exa.protocol.models import DIALECTS, Monitor, MonitorRun, dialect_of
from airflow_provider_exa.protocol.results import find_results
from airflow_provider_exa.protocol.validation import as_time

T = TypeVar("T")


class ExaHook(BaseHook):
    """
    Reads monitors and their runs from Exa.

    Every method raises the errors of :mod:`airflow_provider_exa.protocol.errors`: ``ExaPermanentError`` for
    what asking again cannot mend (a bad key, an unknown id), ``ExaTransientError`` if Exa cannot answer now,
    after retries, and ``ExaBadAnswerError`` for an answer that cannot be read.

    :param exa_conn_id: the Airflow connection: API key in the password, base URL in the host
    :param api: which of Exa's monitor APIs to speak: ``websets`` or ``search``
    """

    conn_name_attr = "exa_conn_id"
    default_conn_name = "exa_default"
    conn_type = "exa"
    hook_name = "Exa"

    def __init__(self, exa_conn_id: str = default_conn_name, api: str = "websets", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.exa_conn_id = exa_conn_id
        self.api = api
        self.dialect = dialect_of(api)
        self._sender: Transport | None = None

    def get_conn(self) -> Transport:
        """The sender that every method uses: one session, made at the first use."""
        if self._sender is None:
            self._sender = Transport(read_settings(self.exa_conn_id))
        return self._sender

    def call(self, call: Call[T]) -> T:
        """Run one of the calls of :mod:`airflow_provider_exa.protocol.endpoints` or of a snapshot."""
        return drive(call, self._send)

    def _send(self, request: Request) -> Response:
        response = self.get_conn().send(request)
        if is_bad_key(response) and self._renew():
            response = self.get_conn().send(request)
        return response

    def _renew(self) -> bool:
        """Read the connection anew; returns whether it has changed since the session was made."""
        account = read_settings(self.exa_conn_id)
        if account == self.get_conn().account:
            return False
        self.get_conn().close()
        self._sender = Transport(account)
        return True

    def list_monitor_runs(
        self,
        monitor_id: str,
        *,
        created_after: datetime | str | None = None,
        page_size: int | None = None,
        max_pages: int = paging.MAX_PAGES,
    ) -> Iterator[MonitorRun]:
        """
        Every run of a monitor, page by page, in Exa's order; one page is in memory at a time.

        An unknown monitor has no runs: Exa answers with an empty list.

        :param created_after: only runs created at or after this moment; stops where the listing shows that
            no more can come
        :param page_size: how many runs a page has; Websets documents no such parameter, and if Exa refuses
            it the runs are listed without it
        :param max_pages: more pages than this are an error
        """
        since = None if created_after is None else as_time("created_after", created_after)
        params = _given(limit=page_size)
        first = endpoints.list_runs(self.dialect, monitor_id, params=params, max_pages=max_pages)
        for page in self._pages(first):
            yield from (run for run in page.items if since is None or run.created_at >= since)
            edge = paging.listed_back_to(page)
            if since and edge and edge < since:
                return

    def get_monitor_run(self, monitor_id: str, run_id: str) -> MonitorRun:
        """One run of a monitor."""
        return self.call(endpoints.get_run(self.dialect, monitor_id, run_id))

    def trigger_monitor(self, monitor_id: str) -> None:
        """
        Start a run of a search monitor now, whatever its schedule.

        Exa does not say which run it started, and cancels a run of the monitor that has not ended. To start
        one and wait for it, safe against retries and others who do so at the same time, use
        :class:`~airflow_provider_exa.operators.ExaTriggerMonitorOperator`.

        :raises ExaInputError: a Websets monitor cannot be told to run
        :raises ExaNotStartedError: Exa says that it started no run
        :raises ExaTransientError: Exa may have started one, where its ``repeatable`` is false
        """
        dialect = dialect_of(self.api, trigger="starting a run")
        self.call(endpoints.trigger_monitor(dialect, monitor_id))

    def list_run_results(self, run: MonitorRun, *, whole: bool = False) -> Iterator[dict[str, Any]]:
        """
        What a run found, as Exa sends it: a search monitor's results, or the items of a webset.

        A run of a Websets monitor does not say which items it found. They are inferred, and are those of the
        searches of its webset that began after the run did and before the next one.

        :param whole: whether the run is from :meth:`get_monitor_run`; one from a listing need not hold all of
            its results, and is asked for by its id
        :raises ExaInputError: the run has not ended
        """
        results, listings = self.call(find_results(self.dialect, run, whole=whole))
        yield from map(dict, results)
        for listing in listings:
            for page in self._pages(listing):
                yield from map(dict, page.items)

    def get_monitor(self, monitor_id: str) -> Monitor:
        """One monitor."""
        return self.call(endpoints.get_monitor(self.dialect, monitor_id))

    def list_monitors(
        self,
        *,
        webset_id: str | None = None,
        page_size: int | None = None,
        max_pages: int = paging.MAX_PAGES,
    ) -> Iterator[Monitor]:
        """
        Every monitor of the team, page by page.

        :param webset_id: only monitors of this webset; search monitors have none
        :param page_size: how many monitors a page has, 1 to 100
        :param max_pages: more pages than this are an error
        """
        dialect_of(self.api, websets=webset_id and f"webset_id={webset_id!r}")
        params = _given(websetId=webset_id, limit=page_size)
        for page in self._pages(endpoints.list_monitors(self.dialect, params=params, max_pages=max_pages)):
            yield from page.items

    def _pages(self, place: paging.Listing[T] | None) -> Iterator[paging.Page[T]]:
        """A listing's pages, each asked for when it is needed."""
        while place:
            page = self.call(paging.fetch_page(place))
            yield page
            place = page.following

    def test_connection(self) -> tuple[bool, str]:
        """
        Ask Exa for one monitor, once; says in words what is wrong, if anything is.

        A team may have access to one of Exa's APIs alone, so where this hook's refuses, the others are asked.
        """
        refusal = ""
        try:
            account = replace(self.get_conn().account, retries=0)
            with closing(Transport(account)) as sender:
                for api, dialect in {self.api: self.dialect, **DIALECTS}.items():
                    first = paging.fetch_page(endpoints.list_monitors(dialect, params={"limit": 1}))
                    answer = drive(endpoints.or_error(first), sender.send)
                    if not isinstance(answer, ExaError):
                        but = refusal and f" for api={api!r}, but not for api={self.api!r}: {refusal}"
                        return True, f"{account.base_url} accepted the API key{but or '.'}"
                    refusal = refusal or str(answer)
                    if not isinstance(answer, ExaPermanentError):
                        break
        except ExaError as error:
            return False, str(error)
        return False, refusal


def _given(**params: Any) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}
