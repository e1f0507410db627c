"""The results of a run: the calls that list them, without I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pendulum import DateTime

from airflow_provider_exa.protocol.endpoints import get_monitor, get_run, get_webset, list_runs, path_to
from airflow_provider_exa.protocol.errors import ExaBadAnswerError, ExaInputError
from airflow_provider_exa.protocol.messages import Call
from airflow_provider_exa.protocol.models import Dialect, MonitorRun, parse_time
from airflow_provider_exa.protocol.paging import Listing, list_back_to

Result = Mapping[str, Any]


def find_results(
    dialect: Dialect, run: MonitorRun, *, whole: bool
) -> Call[tuple[Sequence[Result], list[Listing[Result]]]]:
    """
    Find the results of a run: those that it holds, and the listings of those that it does not.

    A search monitor's run holds its results; all of them only where it is asked for by its id. A run of a
    Websets monitor names neither its search nor its items. They are inferred: the items of those searches of
    the monitor's webset that began after the run did and before the next one. Searches that others made in
    the webset meanwhile are among them.

    :param whole: whether the run was asked for by its id
    :raises ExaInputError: the run has not ended
    """
    if dialect.output and not whole:
        run = yield from get_run(dialect, run.monitor_id, run.id)
    if not run.finished:
        raise ExaInputError(
            f"Run {run.id} is {run.status} and has no results yet (monitor {run.monitor_id})."
        )
    if dialect.output:
        return _inline(run, run.raw.get(dialect.output)), []
    # unverified: whether every search of a run is created between it and the next run.
    webset_id = (yield from get_monitor(dialect, run.monitor_id)).webset_id
    searches = yield from get_webset(dialect, webset_id, _parse_searches)
    listed = yield from list_back_to(list_runs(dialect, run.monitor_id, since=run.created_at, keep_raw=False))
    if listed.truncated and listed.listed_back_to > run.created_at:
        raise listed.truncated
    later = [each.created_at for each in listed.runs.values() if each.created_at > run.created_at]
    until = min(later, default=None)
    return (), [
        Listing(path_to(dialect, "webset", webset_id, "items"), dict, {"sourceId": search_id, "limit": 100})
        for search_id, began in searches.items()
        if began >= run.created_at and (until is None or began < until)
    ]


def summary_of(dialect: Dialect, run: MonitorRun) -> dict[str, Any] | None:
    """
    Return a run's summary of its results, as Exa sends it; None where there is none.

    A search monitor's holds ``content``, Exa's text about the results, and ``grounding``, its sources.
    """
    output = run.raw.get(dialect.output or "")
    if not isinstance(output, Mapping):
        return None
    return {key: value for key, value in output.items() if key != "results"}


def _inline(run: MonitorRun, output: Any) -> Sequence[Result]:
    results = (output or {}).get("results") or [] if isinstance(output, Mapping | None) else output
    if not isinstance(results, list) or not all(isinstance(each, Mapping) for each in results):
        raise ExaBadAnswerError(f"The output of run {run.id} holds no list of results: {output!r:.200}")
    return results


def _parse_searches(body: Mapping[str, Any]) -> dict[str, DateTime]:
    return {search["id"]: parse_time(search["createdAt"]) for search in body["searches"]}
