"""The hook: an Airflow connection turned into calls to Exa."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.sdk import BaseHook

from airflow_provider_exa import calls
from airflow_provider_exa.arguments import as_time
from airflow_provider_exa.core import (
    DIALECTS,
    Call,
    ExaError,
    ExaInputError,
    ExaPermanentError,
    Monitor,
    MonitorRun,
    Request,
    Response,
    dialect_of,
    is_bad_key,
)
from airflow_provider_exa.results import find_results
from airflow_provider_exa.transport import Account, Sender, base_url, drive

if TYPE_CHECKING:
    from airflow.sdk import Connection

T = TypeVar("T")

log = logging.getLogger(__name__)

DEFAULT_HOST = "https://api.exa.ai"


class ExaHook(BaseHook):
    """
    Reads monitors and their runs from Exa.

    Every method raises the errors of :mod:`airflow_provider_exa.core`: ``ExaPermanentError`` for what asking
    again cannot mend (a bad key, an unknown id), ``ExaTransientError`` if Exa cannot answer now, after
    retries, and ``ExaBadAnswerError`` for an answer that cannot be read.

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
        self._sender: Sender | None = None

    def get_conn(self) -> Sender:
        """The sender that every method uses: one session, made at the first use."""
        if self._sender is None:
            self._sender = Sender(read_account(self.exa_conn_id))
        return self._sender

    def call(self, call: Call[T]) -> T:
        """Run one of the calls of :mod:`airflow_provider_exa.calls` or :mod:`airflow_provider_exa.waits`."""
        return drive(call, self._send)

    def _send(self, request: Request) -> Response:
        response = self.get_conn().send(request)
        if is_bad_key(response) and self._renew():
            response = self.get_conn().send(request)
        return response

    def _renew(self) -> bool:
        """Read the connection anew; returns whether it has changed since the session was made."""
        account = read_account(self.exa_conn_id)
        if account == self.get_conn().account:
            return False
        self.get_conn().close()
        self._sender = Sender(account)
        return True

    def list_monitor_runs(
        self,
        monitor_id: str,
        *,
        created_after: datetime | str | None = None,
        page_size: int | None = None,
        max_pages: int = calls.MAX_PAGES,
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
        first = calls.list_runs(self.dialect, monitor_id, params=params, max_pages=max_pages)
        for page in self._pages(first):
            yield from (run for run in page.items if since is None or run.created_at >= since)
            edge = calls.complete_to(page)
            if since and edge and edge < since:
                return

    def get_monitor_run(self, monitor_id: str, run_id: str) -> MonitorRun:
        """One run of a monitor."""
        return self.call(calls.get_run(self.dialect, monitor_id, run_id))

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
        self.call(calls.trigger_monitor(dialect, monitor_id))

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
        return self.call(calls.get_monitor(self.dialect, monitor_id))

    def list_monitors(
        self,
        *,
        webset_id: str | None = None,
        page_size: int | None = None,
        max_pages: int = calls.MAX_PAGES,
    ) -> Iterator[Monitor]:
        """
        Every monitor of the team, page by page.

        :param webset_id: only monitors of this webset; search monitors have none
        :param page_size: how many monitors a page has, 1 to 100
        :param max_pages: more pages than this are an error
        """
        dialect_of(self.api, websets=webset_id and f"webset_id={webset_id!r}")
        params = _given(websetId=webset_id, limit=page_size)
        for page in self._pages(calls.list_monitors(self.dialect, params=params, max_pages=max_pages)):
            yield from page.items

    def _pages(self, place: calls.Listing[T] | None) -> Iterator[calls.Page[T]]:
        """A listing's pages, each asked for when it is needed."""
        while place:
            page = self.call(calls.fetch_page(place))
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
            with closing(Sender(account)) as sender:
                for api, dialect in {self.api: self.dialect, **DIALECTS}.items():
                    first = calls.fetch_page(calls.list_monitors(dialect, params={"limit": 1}))
                    answer = drive(calls.attempt(first), sender.send)
                    if not isinstance(answer, ExaError):
                        but = refusal and f" for api={api!r}, but not for api={self.api!r}: {refusal}"
                        return True, f"{account.base_url} accepted the API key{but or '.'}"
                    refusal = refusal or str(answer)
                    if not isinstance(answer, ExaPermanentError):
                        break
        except ExaError as error:
            return False, str(error)
        return False, refusal


def _given(**params: str | int | None) -> dict[str, str | int]:
    """The query parameters that have a value."""
    return {name: value for name, value in params.items() if value is not None}


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not 0 < seconds < math.inf:
        raise ValueError
    return seconds


def _count(value: Any) -> int:
    count = int(value)
    if count < 0 or count != float(value):
        raise ValueError
    return count


def _path(value: Any) -> str:
    if not isinstance(value, str) or not Path(value).exists():
        raise ValueError
    return value


def _proxy(value: Any) -> str:
    if not urlsplit(value).hostname:
        raise ValueError
    return str(value)


def _flag(value: Any) -> bool:
    return {"true": True, "false": False}[str(value).lower()]


#: The extras of a connection: how each is read, and what it has to be.
EXTRAS: Mapping[str, tuple[Callable[[Any], Any], str]] = {
    "timeout": (_seconds, "a number of seconds above 0"),
    "retries": (_count, "a whole number, 0 or more"),
    "verify": (_flag, "true or false"),
    "ca_file": (_path, "the path of a CA bundle that is there"),
    "proxy": (_proxy, "a URL such as http://proxy.example:3128"),
}


def read_account(conn_id: str) -> Account:
    """
    The account that an Airflow connection describes.

    :raises ExaInputError: there is no such connection, it has no API key, or a setting is not what it has to
        be; names the connection and the setting
    """
    try:
        return _account(BaseHook.get_connection(conn_id))
    except AirflowNotFoundException:
        raise _no_connection(conn_id) from None


async def aread_account(conn_id: str) -> Account:
    """Like :func:`read_account`, for an event loop."""
    try:
        return _account(await BaseHook.aget_connection(conn_id))
    except AirflowNotFoundException:
        raise _no_connection(conn_id) from None


def _no_connection(conn_id: str) -> ExaInputError:
    return ExaInputError(
        f"There is no Airflow connection {conn_id!r}; add one of type exa, with the API key."
    )


def _account(connection: Connection) -> Account:
    where = f"The Airflow connection {connection.conn_id!r}"
    key = (connection.password or "").strip()
    if not key:
        raise ExaInputError(f"{where} has no API key; put it into the connection's password.")
    if not (key.isascii() and key.isprintable()):
        raise ExaInputError(f"{where} has a password with characters that no API key has.")
    try:
        url = base_url(connection.host or DEFAULT_HOST, connection.port, connection.schema)
    except ValueError as error:
        raise ExaInputError(f"{where} has an unusable host: {error}.") from None
    settings = _read_extras(where, connection.extra_dejson)
    ca_file = settings.pop("ca_file", None)
    if ca_file and settings.get("verify", True):
        settings["verify"] = ca_file
    return Account(url, key, **settings)


def _read_extras(where: str, extra: object) -> dict[str, Any]:
    if not isinstance(extra, dict):
        raise ExaInputError(f"{where} has an extra that is no JSON object.")
    settings = {}
    for name, value in extra.items():
        if name not in EXTRAS:
            log.warning("%s has the extra %r, which is not one of %s.", where, name, ", ".join(EXTRAS))
        elif value is not None and value != "":
            read, wanted = EXTRAS[name]
            try:
                settings[name] = read(value)
            except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
                raise ExaInputError(f"{where} has the extra {name!r}, which must be {wanted}.") from None
    return settings
