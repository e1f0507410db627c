"""What one look at a monitor shows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from airflow_provider_exa.protocol.endpoints import get_monitor, get_run, get_webset, list_runs, or_error
from airflow_provider_exa.protocol.errors import ExaEndlessListingError, ExaError, ExaPermanentError
from airflow_provider_exa.protocol.messages import Call
from airflow_provider_exa.protocol.models import Dialect, Monitor, MonitorRun
from airflow_provider_exa.protocol.paging import Listing, age, fetch_page, listed_back_to
from airflow_provider_exa.waiting.selection import RunSelector, RunsSince, Selector


@dataclass(frozen=True)
class Found:
    """
    What a look shows of an :class:`RunsSince`.

    :param runs: in no order; older ones may be among them, and ones that could not be asked for are not
    :param complete: whether Exa listed every run created since
    """

    runs: Collection[MonitorRun]
    complete: bool


@dataclass(frozen=True)
class Busy:
    """A run that has completed, and the status of its webset, which is not idle yet."""

    run: MonitorRun
    webset: str


#: What a look shows of one choice: its run, None while it is not there, or why it cannot be asked for.
Sight = MonitorRun | Busy | Found | Exception | None


def run_of(sight: Sight) -> MonitorRun | None:
    """The run that a look showed, if it showed one."""
    return sight.run if isinstance(sight, Busy) else sight if isinstance(sight, MonitorRun) else None


def look(
    dialect: Dialect,
    monitor_id: str,
    choices: Collection[Selector],
    *,
    first: bool = False,
    monitor: Monitor | None = None,
) -> Call[tuple[dict[Selector, Sight], Monitor | None]]:
    """
    What there is of several settled choices, with as few requests as it takes.

    An unknown monitor lists as empty, and is an error.

    :param first: whether to ask for the monitor, too, if a run is not there; it is returned, as it may be
        disabled. Where all runs are looked for and there are none, it is asked for anyway.
    :param monitor: what is known of it, so that its webset is
    """
    feeds = [choice for choice in choices if isinstance(choice, RunsSince)]
    by_id = {choice for choice in choices if isinstance(choice, RunSelector) and choice.run_id is not None}
    by_time = [choice for choice in choices if not isinstance(choice, RunsSince) and choice not in by_id]
    runs: dict[str, MonitorRun] = {}
    cut: ExaPermanentError | None = None
    if by_time or feeds or len(by_id) > 1:
        runs, cut = yield from _list_for(dialect, monitor_id, [*by_time, *feeds])
    ordered = sorted(runs.values(), key=age)
    sights: dict[Selector, Sight] = {choice: cut or choice.of(ordered) for choice in by_time}
    named = {choice.run_id for choice in by_id}.union(*(feed.run_ids for feed in feeds))
    others: dict[str, Sight] = {}
    for run_id in named - runs.keys():
        others[run_id] = yield from or_error(get_run(dialect, monitor_id, run_id))
    sights |= {choice: runs.get(choice.run_id) or others[choice.run_id] for choice in by_id}
    found = [*runs.values(), *(run for run in others.values() if isinstance(run, MonitorRun))]
    sights |= {feed: Found(found, complete=cut is None) for feed in feeds}
    if (first and None in sights.values()) or (feeds and not runs):
        monitor = yield from get_monitor(dialect, monitor_id)
    completed = {
        choice: run
        for choice, run in sights.items()
        if isinstance(choice, RunSelector) and choice.idle and isinstance(run, MonitorRun)
        if run.status == "completed"
    }
    if completed:
        webset = yield from or_error(_look_at_webset(dialect, monitor_id, monitor))
        if isinstance(webset, ExaError):
            sights |= dict.fromkeys(completed, webset)
        else:
            monitor, status = webset
            sights |= {choice: Busy(run, status) for choice, run in completed.items() if status != "idle"}
    return sights, monitor


def _look_at_webset(dialect: Dialect, monitor_id: str, monitor: Monitor | None) -> Call[tuple[Monitor, str]]:
    """The monitor, and the status of its webset."""
    monitor = monitor or (yield from get_monitor(dialect, monitor_id))
    return monitor, (yield from get_webset(dialect, monitor.webset_id, lambda body: str(body["status"])))


def _list_for(
    dialect: Dialect, monitor_id: str, choices: Collection[Selector]
) -> Call[tuple[dict[str, MonitorRun], ExaPermanentError | None]]:
    """
    The runs that choices by time are among; where there are none, of the first page.

    Where Exa does not let the rest be listed, an error that says so is returned, too.
    """
    times = [choice.created_after for choice in choices if choice.created_after is not None]
    since = min(times, default=None)
    runs: dict[str, MonitorRun] = {}
    place: Listing[MonitorRun] | None = list_runs(dialect, monitor_id)
    while place:
        try:
            page = yield from fetch_page(place)
        except ExaEndlessListingError as error:
            return runs, error
        if page.cut:
            return runs, ExaPermanentError(
                f"Exa lists only the last {len(runs)} runs of monitor {monitor_id}, so which run is meant "
                "cannot be told. Give a run_id, or a created_after that is later than the oldest of them."
            )
        runs |= {run.id: run for run in page.items}
        edge = listed_back_to(page)
        if not choices or (edge and (since is None or edge < since)):
            break
        place = page.following
    return runs, None
