"""What can be asked of Exa: each call as a generator, without I/O."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from airflow_provider_exa.protocol.errors import ExaError, ExaNotStartedError
from airflow_provider_exa.protocol.messages import Call, Request, read
from airflow_provider_exa.protocol.models import Dialect, Monitor, MonitorRun, parse_monitor, parse_run
from airflow_provider_exa.protocol.paging import Listing, fetch_page
from airflow_provider_exa.protocol.validation import check_segment

T = TypeVar("T")


def list_runs(dialect: Dialect, monitor_id: str, **options: Any) -> Listing[MonitorRun]:
    """The first page of a monitor's runs; ``options`` are those of :class:`Listing`."""
    parse = functools.partial(parse_run, dialect, monitor_id)
    return Listing(path_to(dialect, "monitor", monitor_id, "runs"), parse, **options)


def list_monitors(dialect: Dialect, **options: Any) -> Listing[Monitor]:
    """The first page of the team's monitors; ``options`` are those of :class:`Listing`."""
    return Listing(f"{dialect.base}/monitors", functools.partial(parse_monitor, dialect), **options)


def list_websets(dialect: Dialect) -> Call[dict[str, str | None]]:
    """The webset of each of the team's monitors, by its id."""
    websets: dict[str, str | None] = {}
    place: Listing[Monitor] | None = list_monitors(dialect, params={"limit": 200})
    while place:
        page = yield from fetch_page(place)
        websets |= {monitor.id: monitor.webset_id for monitor in page.items}
        place = page.following
    return websets


def path_to(dialect: Dialect, what: str, id_: str | None, *rest: str) -> str:
    """The path of a ``monitor`` or ``webset``, or of something below it, that no id can lead elsewhere."""
    check_segment(f"{what}_id", id_)
    return "/".join((dialect.base, f"{what}s", *(quote(each, safe="") for each in (str(id_), *rest))))


def get_monitor(dialect: Dialect, monitor_id: str) -> Call[Monitor]:
    """One monitor; an unknown one is a 404, while its runs list as empty."""
    request = Request(path_to(dialect, "monitor", monitor_id))
    response = yield request
    return read(request, response, functools.partial(parse_monitor, dialect))


def get_run(dialect: Dialect, monitor_id: str, run_id: str) -> Call[MonitorRun]:
    """One run of a monitor."""
    check_segment("run_id", run_id)
    request = Request(path_to(dialect, "monitor", monitor_id, "runs", run_id))
    response = yield request
    return read(request, response, functools.partial(parse_run, dialect, monitor_id))


def or_error(call: Call[T]) -> Call[T | ExaError]:
    """The call's result, or its error, where that does not concern all that is asked."""
    try:
        return (yield from call)
    except ExaError as error:
        return error


def get_webset(dialect: Dialect, webset_id: str | None, parse: Callable[[Mapping[str, Any]], T]) -> Call[T]:
    """What ``parse`` makes of a webset as Exa sends it."""
    request = Request(path_to(dialect, "webset", webset_id))
    response = yield request
    return read(request, response, parse)


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
            f"POST {response.url} was answered 'triggered: false': Exa started no run of monitor "
            f"{monitor_id}{which_is}, and does not say why."
        )


def _parse_triggered(body: Mapping[str, Any]) -> bool:
    if not isinstance(body["triggered"], bool):
        raise TypeError(f"'triggered' is {body['triggered']!r:.100}")
    return body["triggered"]
