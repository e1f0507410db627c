"""Whoever shares a poll sees what it would have seen alone, and never a wrong run."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from airflow_provider_exa.protocol import page_size, paging
from airflow_provider_exa.protocol.models import STATUSES, MonitorRun
from airflow_provider_exa.protocol.paging import sort_key
from airflow_provider_exa.waiting.selection import RunSelector, RunsSince, Selector, StartedRun
from airflow_provider_exa.waiting.snapshot import Snapshot
from tests.waiting.memory import START, Exa, make_run

EXAMPLES = 600
HOURS = st.integers(-1, 12)
CURSORS = ["honoured", "ignored", "refused", "missing", "looping", "empty"]
TROUBLE = st.sampled_from([400, 404, 429, 500])

_profile = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@st.composite
def worlds(draw: st.DrawFn) -> Exa:
    """A monitor with up to a dozen runs, and whatever may be wrong with its listing."""
    hours = draw(st.lists(st.integers(0, 11), max_size=10, unique=draw(st.booleans())))
    runs = [
        make_run(f"run_{place}", hour, draw(st.sampled_from(STATUSES))) for place, hour in enumerate(hours)
    ]
    order = draw(st.sampled_from(["newest", "oldest", "shuffled"]))
    listed = sorted(runs, key=sort_key, reverse=order == "newest")
    if order == "shuffled":
        listed = draw(st.permutations(listed))
    ids = [run.id for run in runs]
    unlisted = draw(st.lists(st.sampled_from(ids), max_size=2, unique=True)) if ids else []
    some = st.sampled_from(ids or ["run_0"])
    exa = Exa(
        runs=tuple(run for run in listed if run.id not in unlisted),
        unlisted=tuple(run for run in listed if run.id in unlisted),
        page_size=draw(st.integers(1, 5)),
        cursors=draw(st.sampled_from(CURSORS)),
        unreadable=draw(st.one_of(st.just(frozenset()), st.frozensets(some, max_size=2))),
        broken_pages=draw(st.dictionaries(st.integers(1, 4), TROUBLE, max_size=1)),
        broken_runs=draw(st.dictionaries(some, TROUBLE, max_size=2)),
        monitor=draw(st.sampled_from([200, 200, 404, 503])),
        webset=draw(st.sampled_from(["idle", "running", 404, 503])),
    )
    assume(shows_no_false_order(exa))
    return exa


def shows_no_false_order(exa: Exa) -> bool:
    """Return whether each page that looks newest first is followed by none that is newer."""
    for end in range(exa.page_size, len(exa.runs), exa.page_size):
        page = [run for run in exa.runs[end - exa.page_size : end] if run.id not in exa.unreadable]
        shown = paging.listed_back_to(page)
        if shown and any(run.created_at > shown for run in exa.runs[end:]):
            return False
    return True


run_ids = st.integers(0, 10).map("run_{}".format)
moments = st.integers(-1, 12).map(lambda hour: START.add(hours=hour))
by_id = st.builds(RunSelector, run_id=run_ids, idle=st.booleans())
by_listing = st.one_of(
    st.builds(RunSelector, created_after=moments, idle=st.booleans()),
    st.builds(RunSelector, pick=st.just("latest"), idle=st.booleans()),
    st.builds(StartedRun, moments, st.one_of(st.none(), run_ids)),
)
assets = st.builds(RunsSince, moments, st.frozensets(run_ids, max_size=2))
subscribers = st.lists(st.one_of(by_id, by_listing, assets), min_size=2, max_size=5, unique=True)


def poll(exa: Exa, *selectors: Selector) -> Snapshot:
    """Poll once, as the first poll for all of them."""
    page_size._page_sizes.clear()
    return exa.poll(*selectors, confirm=any(isinstance(each, RunsSince) for each in selectors))


def view(snapshot: Snapshot, selector: RunSelector | StartedRun) -> Any:
    """Return what a snapshot shows of a selector."""
    observation = snapshot.observe(selector)
    assert observation is not None
    run = observation.run and (observation.run.id, observation.run.status)
    return run, type(observation.error), observation.is_missing, observation.webset_status


@_profile
@given(worlds(), subscribers)
def test_each_wait_sees_what_it_would_have_seen_alone(exa: Exa, selectors: list[Selector]) -> None:
    """Others change nothing, but that their listing may show a run that cannot be had by its id."""
    shared = poll(exa, *selectors)
    for selector in selectors:
        if isinstance(selector, RunsSince):
            continue
        together, alone = view(shared, selector), view(poll(exa, selector), selector)
        if selector.run_ids and selector.run_ids <= shared.listed.keys():
            assert together[0] in (alone[0], (run := shared.listed[selector.run_id]) and (run.id, run.status))
        else:
            assert together == alone


@_profile
@given(worlds(), subscribers)
def test_each_asset_sees_what_it_would_have_seen_alone(exa: Exa, selectors: list[Selector]) -> None:
    """The same error, as complete a listing, and no run less; it may see runs that others ask for."""
    shared = poll(exa, *selectors)
    others = {run_id for each in selectors for run_id in each.run_ids}
    for selector in selectors:
        if isinstance(selector, RunsSince):
            alone = poll(exa, selector)
            assert type(shared.error_for(selector)) is type(alone.error_for(selector))
            assert shared.covers(selector.created_after) == alone.covers(selector.created_after)
            assert _runs(shared, selector).items() >= _runs(alone, selector).items()
            if alone.covers(selector.created_after):
                assert _runs(shared, selector).keys() - _runs(alone, selector).keys() <= others


def _runs(snapshot: Snapshot, selector: RunsSince) -> dict[str, str]:
    """Return the statuses of the runs that an asset asks for."""
    return {
        run.id: run.status
        for run in snapshot.runs.values()
        if run.id in selector.run_ids or run.created_at >= selector.created_after
    }


@_profile
@given(worlds(), st.one_of(by_id, by_listing))
def test_a_wait_is_answered_with_the_right_run_or_not_at_all(
    exa: Exa, selector: RunSelector | StartedRun
) -> None:
    """Whatever is cut off or unreadable, no other run takes the place of the one that is meant."""
    observation = poll(exa, selector).observe(selector)
    assert observation is not None
    if not observation.error:
        assert observation.run == meant_run(exa, selector)
    elif can_be_told(exa, selector) and not selector.idle:
        raise AssertionError(observation)


def meant_run(exa: Exa, selector: RunSelector | StartedRun) -> MonitorRun | None:
    """Return the run that is meant, given all that there are."""
    if isinstance(selector, RunSelector) and selector.run_id:
        return next(run for run in (*exa.runs, *exa.unlisted) if run.id == selector.run_id)
    runs = sorted(exa.runs, key=sort_key)
    if isinstance(selector, RunSelector) and selector.pick:
        return runs[-1] if runs else None
    later = [run for run in runs if run.created_at >= selector.created_after]
    if isinstance(selector, RunSelector):
        return later[0] if later else None
    new = [run for run in later if run.id != selector.previous_run_id]
    return next((run for run in new if run.status != "canceled"), new[-1] if new else None)


def can_be_told(exa: Exa, selector: RunSelector | StartedRun) -> bool:
    """Return whether the listing certainly shows which run is meant."""
    if selector.run_ids:
        return False
    size = exa.page_size
    last_page = max(1, -(-len(exa.runs) // size))
    breaks = [number for number in exa.broken_pages if number <= last_page]
    breaks += [1 + place // size for place, run in enumerate(exa.runs) if run.id in exa.unreadable]
    breaks += [2] if exa.cursors != "honoured" and last_page > 1 else []
    if not breaks:
        return True
    whole = exa.runs[: (min(breaks) - 1) * size]
    shown = all(paging.listed_back_to(whole[start : start + size]) for start in range(0, len(whole), size))
    if not whole or not shown or list(whole) != sorted(whole, key=sort_key, reverse=True):
        return False
    # Of the runs of one moment, some may be on the next page.
    since = whole[0].created_at if selector.since == paging.END_OF_TIME else selector.since
    return bool(since and since > whole[-1].created_at)
