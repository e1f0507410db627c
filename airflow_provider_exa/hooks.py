"""The hook: an Airflow connection turned into calls to Exa."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import datetime
from typing import Any, TypeVar

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.sdk import BaseHook

from airflow_provider_exa.client.client import Client, drive
from airflow_provider_exa.client.settings import read_settings
from airflow_provider_exa.client.transport import Transport
from airflow_provider_exa.protocol.endpoints import (
    get_monitor,
    get_run,
    list_monitors,
    list_runs,
    trigger_monitor,
)
from airflow_provider_exa.protocol.errors import ExaError, ExaInputError, ExaPermanentError
from airflow_provider_exa.protocol.messages import Call, or_error
from airflow_provider_exa.protocol.models import DIALECTS, Monitor, MonitorRun, dialect_of
from airflow_provider_exa.protocol.paging import MAX_PAGES, Listing, fetch_page
from airflow_provider_exa.protocol.results import find_results
from airflow_provider_exa.protocol.validation import as_run_id, as_time, check_count, check_segment

T = TypeVar("T")

#: By so many of the last ids an item is known that a listing repeats.
MAX_IDS = 1000


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
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The client that every method uses; it reads the connection when it is first used."""
        if self._client is None:
            self._client = Client(self.exa_conn_id)
        return self._client

    def get_conn(self) -> Client:
        """Return the client that every method uses."""
        return self.client

    def call(self, call: Call[T], *, deadline: float | None = None, retries: int | None = None) -> T:
        """
        Run one of the calls of :mod:`airflow_provider_exa.protocol.endpoints`, or of a snapshot.

        :param deadline: of ``time.monotonic()``; neither a retry nor an answer outlasts it
        :param retries: how often a request is sent again; None: as the connection says
        """
        return self.client.call(call, deadline=deadline, retries=retries)

    def list_monitor_runs(
        self,
        monitor_id: str,
        *,
        created_after: datetime | str | None = None,
        page_size: int | None = None,
        max_pages: int = MAX_PAGES,
    ) -> Iterator[MonitorRun]:
        """
        List a monitor's runs, page by page, in Exa's order; one page is in memory at a time.

        An unknown monitor has no runs: Exa answers with an empty list.

        :param created_after: only runs created at or after this moment; stops where the listing shows that
            no more can come
        :param page_size: how many runs a page has; Websets documents no such parameter, and if Exa refuses
            it the runs are listed without it
        :param max_pages: more pages than this are an error
        :raises ExaIncompleteListingError: the listing cannot be read to its end; the runs before are yielded
        """
        _check_paging(page_size, max_pages)
        since = None if created_after is None else as_time("created_after", created_after)
        listing = list_runs(self.dialect, monitor_id, page_size=page_size, since=since, max_pages=max_pages)
        return (run for run in self._items(listing) if since is None or run.created_at >= since)

    def get_monitor_run(self, monitor_id: str, run_id: str) -> MonitorRun:
        """Get one run of a monitor."""
        return self.call(get_run(self.dialect, monitor_id, run_id))

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
        self.call(trigger_monitor(dialect_of(self.api, trigger="starting a run"), monitor_id))

    def list_run_results(
        self, run: MonitorRun | Mapping[str, Any], *, whole: bool = False
    ) -> Iterator[dict[str, Any]]:
        """
        List the results of a run as Exa sends them: those of a search monitor, or the items of a webset.

        A run of a Websets monitor does not name its items. They are inferred, and are those of the searches
        of its webset that began after the run did and before the next one.

        :param run: the run; one as a dict with its ``id`` and ``monitor_id``, such as a task returns it, is
            asked for
        :param whole: whether the run is from :meth:`get_monitor_run`; one from a listing need not hold all of
            its results, and is asked for by its id
        :raises ExaInputError: the run has not ended, or is neither a run nor one as a dict
        :raises ExaIncompleteListingError: a listing cannot be read to its end
        """
        if isinstance(run, Mapping):
            run = self.get_monitor_run(check_segment("monitor_id", run.get("monitor_id")), as_run_id(run))
            whole = True
        if not isinstance(run, MonitorRun):
            raise ExaInputError(f"run={run!r:.100} is no run; give one of the hook's, or one as a dict")
        results, listings = self.call(find_results(self.dialect, run, whole=whole))
        yield from map(dict, results)
        for listing in listings:
            yield from map(dict, self._items(listing))

    def get_monitor(self, monitor_id: str) -> Monitor:
        """Get one monitor."""
        return self.call(get_monitor(self.dialect, monitor_id))

    def list_monitors(
        self,
        *,
        webset_id: str | None = None,
        page_size: int | None = None,
        max_pages: int = MAX_PAGES,
    ) -> Iterator[Monitor]:
        """
        List the team's monitors, page by page.

        :param webset_id: only monitors of this webset; search monitors have none
        :param page_size: how many monitors a page has, 1 to 100
        :param max_pages: more pages than this are an error
        :raises ExaIncompleteListingError: the listing cannot be read to its end
        """
        _check_paging(page_size, max_pages)
        dialect_of(self.api, websets=webset_id and f"webset_id={webset_id!r}")
        return self._items(
            list_monitors(self.dialect, page_size=page_size, webset_id=webset_id, max_pages=max_pages)
        )

    def _items(self, listing: Listing[T]) -> Iterator[T]:
        """Yield the items of a listing; each page is asked for when it is needed."""
        page_of: Listing[T] | None = listing
        ids: dict[str, None] = {}  # a listing that shifts repeats items
        while page_of:
            page = self.call(fetch_page(page_of))
            for item in page.items:
                id_ = item.get("id") if isinstance(item, Mapping) else getattr(item, "id", None)
                if not isinstance(id_, str):
                    yield item
                elif id_ not in ids:
                    ids[id_] = None
                    yield item
            for old in list(ids)[:-MAX_IDS]:
                del ids[old]
            if page.truncated:
                raise page.truncated
            page_of = page.next_page

    def test_connection(self) -> tuple[bool, str]:
        """
        Ask Exa for one monitor, once; says in words what is wrong, if anything is.

        A team may have access to one of Exa's APIs alone, so where this hook's refuses, the others are asked.
        """
        refusal = ""
        try:
            with closing(Transport(read_settings(self.exa_conn_id))) as transport:
                for api, dialect in {self.api: self.dialect, **DIALECTS}.items():
                    first = fetch_page(list_monitors(dialect, page_size=1))
                    answer = drive(or_error(first), transport.send)
                    if not isinstance(answer, ExaError):
                        but = refusal and f" for api={api!r}, but not for api={self.api!r}: {refusal}"
                        return True, f"{transport.settings.base_url} accepted the API key{but or '.'}"
                    refusal = refusal or str(answer)
                    if not isinstance(answer, ExaPermanentError):
                        break
        except (ExaError, AirflowNotFoundException) as error:
            return False, str(error)
        return False, refusal


def _check_paging(page_size: int | None, max_pages: int) -> None:
    check_count("max_pages", max_pages)
    if page_size is not None:
        check_count("page_size", page_size)
