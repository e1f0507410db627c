"""Polls of a listing that shows the oldest runs first: each goes on from where the last one ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_exa.client.client import drive
from airflow_provider_exa.protocol import paging
from airflow_provider_exa.protocol.endpoints import list_runs
from airflow_provider_exa.protocol.errors import ExaBadAnswerError, ExaError
from airflow_provider_exa.protocol.models import MonitorRun
from airflow_provider_exa.waiting.selection import RunSelector, RunsSince
from airflow_provider_exa.waiting.snapshot import Observation, Snapshot
from tests.waiting.memory import START, WEBSETS, Exa, make_run

LATEST = RunSelector(pick="latest")
ALL = RunsSince(START)


def hourly(count: int, **statuses: str) -> tuple[MonitorRun, ...]:
    """So many runs, an hour apart from ``START`` on; each is completed where no status is given for it."""
    ids = [f"run_{hour:02}" for hour in range(count)]
    return tuple(make_run(each, hour, statuses.get(each, "completed")) for hour, each in enumerate(ids))


def listing(*runs: MonitorRun, **options: Any) -> Exa:
    """A monitor that lists runs as they are given, three a page."""
    return Exa(runs=runs, page_size=3, **options)


def again(
    exa: Exa, before: Snapshot, selector: RunsSince | RunSelector = ALL
) -> tuple[Snapshot, int, set[str]]:
    """Poll once more; return what that showed, the number of requests, and the ids of the listed runs."""
    exa.asked.clear()
    snapshot = exa.go_on(before.resume, selector)
    return snapshot, len(exa.asked), set(snapshot.listed)


def ids(runs: tuple[MonitorRun, ...]) -> set[str]:
    """The ids of runs."""
    return {run.id for run in runs}


# --- where it goes on -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runs", "requests"),
    [
        ((9, 9, 10), (3, 4)),
        ((10, 10, 11), (2, 2)),
        ((12, 12, 13), (2, 3)),
        ((12, 13, 14), (3, 2)),
        ((12, 18, 19), (4, 3)),
        ((30, 30, 31), (2, 3)),
        ((12, 9, 10), (1, 2)),
    ],
    ids=str,
)
def test_more_than_three_pages_are_gone_on_from_the_last_but_one(
    runs: tuple[int, ...], requests: tuple[int, ...]
) -> None:
    """A poll of a long listing costs two requests and those for new pages, and shows all runs."""
    snapshot = listing(*hourly(runs[0])).poll(ALL)
    for count, expected in zip(runs[1:], requests, strict=True):
        snapshot, asked, listed = again(listing(*hourly(count)), snapshot)
        assert (asked, listed) == (expected, ids(hourly(max(runs[0], count))))
        assert snapshot.covers(START)


def test_a_run_that_is_listed_late_is_found_on_the_last_two_pages() -> None:
    """Exa need not list a run at once."""
    runs = hourly(12)
    for place in (6, 9, 12):
        late = (*runs[:place], make_run("late", place - 0.5), *runs[place:])
        _, asked, listed = again(listing(*late), listing(*runs).poll(ALL))
        assert (asked, "late" in listed) == (3, True)


def test_the_latest_run_is_found_by_going_on() -> None:
    """It needs none of the older runs."""
    snapshot = listing(*hourly(12)).poll(LATEST)
    for count in (14, 15, 16):
        snapshot, asked, _ = again(listing(*hourly(count)), snapshot, LATEST)
        assert snapshot.observe(LATEST) == Observation(hourly(count)[-1])
        assert asked <= 3


def test_a_listing_that_nothing_limits_is_gone_on_from_as_well() -> None:
    """It is complete from the beginning of time."""
    page = list_runs(WEBSETS, "mon_a")
    for since in (None, paging.BEGINNING_OF_TIME):
        page = replace(page, since=since)
        first = drive(paging.list_back_to(page), listing(*hourly(12)).answer)
        exa = listing(*hourly(13))
        second = drive(paging.list_back_to(page, first), exa.answer)
        assert (len(exa.asked), set(second.runs)) == (3, ids(hourly(13)))
        assert second.listed_back_to == paging.BEGINNING_OF_TIME


@pytest.mark.parametrize(
    "exa",
    [
        listing(*hourly(12)[::-1]),
        listing(*hourly(6), *hourly(12)[:5:-1]),
        listing(*(make_run(f"run_{number:02}") for number in range(12))),
        replace(listing(*hourly(12)), page_size=1),
        listing(*hourly(12), unreadable=["run_01"]),
        listing(*hourly(12), cursors="missing"),
        listing(*hourly(12), broken_pages={4: 503}),
    ],
    ids=["newest first", "both orders", "one moment", "one a page", "unreadable", "cut short", "trouble"],
)
def test_only_a_whole_listing_that_shows_its_order_is_gone_on_from(exa: Exa) -> None:
    """A poller keeps the runs of no other one."""
    assert exa.poll(ALL).resume is None


def test_an_earlier_listing_that_shows_no_place_is_listed_anew() -> None:
    """One in newest-first order ends where it did before."""
    exa, page = listing(*hourly(12)[::-1]), list_runs(WEBSETS, "mon_a", since=START)
    first = drive(paging.list_back_to(page), exa.answer)
    second = drive(paging.list_back_to(page, first), exa.answer)
    assert first == second
    assert len(exa.asked) == 8


# --- what it shows --------------------------------------------------------------------------------


def test_a_run_that_had_not_ended_is_asked_for_again_where_it_is_needed() -> None:
    """Only the last pages are listed anew; a run on them, or one that had ended, is asked for no more."""
    first = listing(*hourly(12, run_01="running", run_02="running", run_11="running")).poll(ALL)
    exa = listing(*hourly(12, run_02="running"))
    selector = RunsSince(START, frozenset({"run_00", "run_01", "run_11"}))
    second, asked, _ = again(exa, first, selector)
    assert asked == 3
    assert exa.asked[-1] == "/monitors/mon_a/runs/run_01"
    assert second.stale == {"run_02"}
    assert {run.status for run in (second.run("run_01"), second.run("run_11"))} == {"completed"}
    assert not second.has_run("run_02")
    assert second.has_run("run_00")


def test_runs_that_are_needed_no_more_are_forgotten() -> None:
    """Whoever needs them again has them listed again."""
    first = listing(*hourly(12)).poll(ALL)
    fourth, second_hour = START.add(hours=4), START.add(hours=2)
    second, asked, listed = again(listing(*hourly(12)), first, RunsSince(fourth))
    assert (asked, listed) == (2, ids(hourly(12)) - ids(hourly(4)))
    assert second.covers(fourth)
    assert not second.covers(fourth.subtract(microseconds=1))
    third, asked, listed = again(listing(*hourly(12)), second, RunsSince(second_hour))
    assert (asked, listed) == (4, ids(hourly(12)))
    assert third.covers(second_hour)


TROUBLE: dict[str, Callable[[], Exa]] = {
    "an error": lambda: listing(*hourly(13), broken_pages={4: 503}),
    "no cursor": lambda: listing(*hourly(13), cursors="missing"),
    "an unreadable run": lambda: listing(*hourly(13), unreadable=["run_12"]),
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_trouble_with_going_on_is_told_as_that_of_a_whole_listing(trouble: str) -> None:
    """No run is taken for listed that may not be."""
    exa = TROUBLE[trouble]()
    second, _, listed = again(exa, listing(*hourly(12)).poll(ALL))
    anew = exa.poll(ALL)
    assert isinstance(second.truncated, ExaError)
    assert (str(second.truncated), listed) == (str(anew.truncated), set(anew.listed))
    assert second.resume is None


def test_a_listing_whose_order_has_changed_is_listed_anew() -> None:
    """The newest runs are on its first page now."""
    first = listing(*hourly(12)).poll(LATEST)
    second, asked, _ = again(listing(*hourly(13)[::-1]), first, LATEST)
    assert asked == 2
    assert second.observe(LATEST) == Observation(hourly(13)[-1])


def test_an_expired_cursor_is_no_sign_that_exa_refuses_cursors() -> None:
    """The listing is read from its beginning, as far as Exa lets it be."""
    exa = listing(*hourly(12), broken_pages={3: 400})
    second, asked, listed = again(exa, listing(*hourly(12)).poll(ALL))
    assert (asked, listed) == (4, ids(hourly(6)))
    assert "answered 400" in str(second.truncated)


def test_the_first_reason_why_a_listing_goes_no_further_is_told() -> None:
    """Also where a later page cannot be had at all."""
    exa = listing(*hourly(12)[::-1], unreadable=["run_10"], broken_pages={2: 503})
    snapshot = exa.poll(ALL)
    assert isinstance(snapshot.truncated, ExaBadAnswerError)
    assert snapshot.listed_back_to == START.add(hours=11)
