"""What a run found: the calls that list it, without I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pendulum import DateTime

from airflow_provider_exa.protocol.endpoints import get_monitor, get_run, get_webset, list_runs, path_to
from airflow_provider_exa.protocol.errors import ExaBadAnswerError, ExaInputError
from airflow_provider_exa.protocol.messages import Call
from airflow_provider_exa.protocol.models import Dialect, MonitorRun, parse_time
from airflow_provider_exa.protocol.paging import Listing, newest_runs

Result = Mapping[str, Any]


def find_results(
    dialect: Dialect, run: MonitorRun, *, whole: bool
) -> Call[tuple[Sequence[Result], list[Listing[Result]]]]:
    """
    What a run found: results that are here, and listings of those that are not.

    A search monitor's run holds its results, but is promised to hold all of them only where it is asked for
    by its id. That of a Websets monitor names neither its search nor its items, so they are inferred: they
    are the items of those searches of the monitor's webset that began after the run did and before the next
    one. Searches that others made in the webset meanwhile are among them.

    :param whole: whether the run was asked for by its id
    :raises ExaInputError: the run has not ended
    """
    if dialect.output and not whole:
        run = yield from get_run(dialect, run.monitor_id, run.id)
    if not run.finished:
        raise ExaInputError(
            f"Run {run.id} of Exa monitor {run.monitor_id} is {run.status}; it has no results yet"
        )
    if dialect.output:
        return _inline(run, run.raw.get(dialect.output)), []
    webset_id = (yield from get_monitor(dialect, run.monitor_id)).webset_id
    searches = yield from get_webset(dialect, webset_id, _parse_searches)
    later = yield from newest_runs(
        list_runs(dialect, run.monitor_id),
        10**6,
        lambda each: each.created_at > run.created_at,
        run.created_at,
    )
    until = min((each.created_at for each in later), default=None)
    return (), [
        Listing(path_to(dialect, "webset", webset_id, "items"), dict, {"sourceId": search_id, "limit": 100})
        for search_id, began in searches.items()
        if began >= run.created_at and (until is None or began < until)
    ]


def summary_of(dialect: Dialect, run: MonitorRun) -> dict[str, Any] | None:
    """
    What a run says of its results as a whole, in Exa's words; None where it says nothing.

    A search monitor's says ``content``, what Exa has written of them, and ``grounding``, its sources.
    """
    output = run.raw.get(dialect.output or "")
    if not isinstance(output, Mapping):
        return None
    return {key: value for key, value in output.items() if key != "results"}


def _inline(run: MonitorRun, output: Any) -> Sequence[Result]:
    """The results in the output of a run; a run that failed has none."""
    results = (output or {}).get("results") or [] if isinstance(output, Mapping | None) else output
    if not isinstance(results, list) or not all(isinstance(each, Mapping) for each in results):
        raise ExaBadAnswerError(f"The output of run {run.id} holds no list of results: {output!r:.200}")
    return results


def _parse_searches(body: Mapping[str, Any]) -> dict[str, DateTime]:
    """When each search of a webset was created, by its id."""
    return {search["id"]: parse_time(search["createdAt"]) for search in body["searches"]}
