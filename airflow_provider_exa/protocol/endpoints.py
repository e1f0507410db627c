"""The calls to Exa's endpoints, each as a generator, without I/O."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from airflow_provider_exa.protocol.errors import ExaNotStartedError
from airflow_provider_exa.protocol.messages import Call, Request, ask, or_error, read
from airflow_provider_exa.protocol.models import (
    Dialect,
    Monitor,
    MonitorRun,
    parse_monitor,
    parse_run,
    required_text,
)
from airflow_provider_exa.protocol.paging import Listing
from airflow_provider_exa.protocol.validation import check_segment

T = TypeVar("T")


def list_runs(
    dialect: Dialect,
    monitor_id: str,
    *,
    page_size: int | None = None,
    keep_raw: bool = True,
    **options: Any,
) -> Listing[MonitorRun]:
    """
    Return the first page of a monitor's runs, to be fetched.

    :param page_size: the ``limit`` to send, instead of the API's own
    :param keep_raw: whether each run keeps what Exa sent
    :param options: those of :class:`~airflow_provider_exa.protocol.paging.Listing`
    """
    parse = functools.partial(parse_run, dialect, monitor_id, keep_raw=keep_raw)
    params = given(limit=page_size or dialect.run_page_size)
    return Listing(path_to(dialect, "monitor", monitor_id, "runs"), parse, params, **options)


def list_monitors(
    dialect: Dialect, *, page_size: int | None = None, webset_id: str | None = None, **options: Any
) -> Listing[Monitor]:
    """
    Return the first page of the team's monitors, to be fetched.

    :param page_size: the ``limit`` to send
    :param webset_id: only monitors of this webset
    :param options: those of :class:`~airflow_provider_exa.protocol.paging.Listing`
    """
    params = given(websetId=webset_id, limit=page_size)
    return Listing(f"{dialect.base}/monitors", functools.partial(parse_monitor, dialect), params, **options)


def given(**params: str | int | None) -> dict[str, str | int]:
    """Return the query parameters that have a value."""
    return {name: value for name, value in params.items() if value is not None}


def path_to(dialect: Dialect, what: str, id_: str | None, *rest: str) -> str:
    """
    Return the path of a ``monitor`` or ``webset``, or of something below it; no id leads elsewhere.

    :raises ExaInputError: the id cannot be a segment of a path
    """
    check_segment(f"{what}_id", id_)
    return "/".join((dialect.base, f"{what}s", *(quote(each, safe="") for each in (str(id_), *rest))))


def get_monitor(dialect: Dialect, monitor_id: str) -> Call[Monitor]:
    """
    Get one monitor; an unknown one is a 404, while its runs list as empty.

    :raises ExaBadAnswerError: Exa answers with another monitor
    """

    def parse(item: Mapping[str, Any]) -> Monitor:
        monitor = parse_monitor(dialect, item)
        if monitor.id != monitor_id:
            raise ValueError(f"it is the monitor {monitor.id!r:.100}")
        return monitor

    return (yield from ask(Request(path_to(dialect, "monitor", monitor_id)), parse))


def get_run(dialect: Dialect, monitor_id: str, run_id: str, *, keep_raw: bool = True) -> Call[MonitorRun]:
    """
    Get one run of a monitor.

    :raises ExaBadAnswerError: Exa answers with another run
    """

    def parse(item: Mapping[str, Any]) -> MonitorRun:
        run = parse_run(dialect, monitor_id, item, keep_raw=keep_raw)
        if run.id != run_id:
            raise ValueError(f"it is of the run {run.id!r:.100}")
        return run

    check_segment("run_id", run_id)
    return (yield from ask(Request(path_to(dialect, "monitor", monitor_id, "runs", run_id)), parse))


def get_webset(dialect: Dialect, webset_id: str | None, parse: Callable[[Mapping[str, Any]], T]) -> Call[T]:
    """Get a webset, as ``parse`` reads it."""
    return (yield from ask(Request(path_to(dialect, "webset", webset_id)), parse))


def get_webset_status(
    dialect: Dialect, monitor_id: str, webset_id: str | None
) -> Call[tuple[str | None, str]]:
    """
    Get the id and the status of a monitor's webset: ``idle``, ``pending``, ``running`` or ``paused``.

    :param webset_id: its id, if that is known; else the monitor is asked for
    """
    if webset_id is None:
        webset_id = (yield from get_monitor(dialect, monitor_id)).webset_id
    return webset_id, (yield from get_webset(dialect, webset_id, lambda body: required_text(body, "status")))


def trigger_monitor(dialect: Dialect, monitor_id: str) -> Call[None]:
    """
    Start a run of a monitor now.

    Exa answers ``{"triggered": bool}``: not which run it started.

    :raises ExaNotStartedError: Exa started none
    """
    request = Request(path_to(dialect, "monitor", monitor_id, "trigger"), method="POST")
    response = yield request
    if not read(request, response, _parse_triggered):
        monitor = yield from or_error(get_monitor(dialect, monitor_id))
        which_is = f", which is {monitor.status}" if isinstance(monitor, Monitor) else ""
        raise ExaNotStartedError(
            f"Exa started no run of monitor {monitor_id}{which_is}, and does not say why "
            f"('triggered: false'; POST {response.url})."
        )


def _parse_triggered(body: Mapping[str, Any]) -> bool:
    if not isinstance(body["triggered"], bool):
        raise TypeError(f"'triggered' is {body['triggered']!r:.100}")
    return body["triggered"]
