"""What an asset makes of listings that are long, cut short or hold a run that cannot be read."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pendulum
import pytest

from airflow_provider_exa.assets import monitor_runs
from airflow_provider_exa.events import stream
from airflow_provider_exa.events.stream import RunStream
from airflow_provider_exa.events.subscriber import MAX_RUNS_BY_ID
from airflow_provider_exa.protocol.endpoints import list_runs
from airflow_provider_exa.protocol.models import MonitorRun
from airflow_provider_exa.standin import Fault, StandIn
from airflow_provider_exa.timing import timing, use_timing
from airflow_provider_exa.waiting import poller
from tests.events.triggerer import INTERVAL, START, Triggerer, Variables, complaints, more_polls, until

COUNT = 60


def add_runs(exa: StandIn, count: int = COUNT, **options: Any) -> list[str]:
    """Runs that an asset with ``start=START`` has to report, one an hour."""
    return [
        exa.add_run("mon_a", run_id=f"run_{number:03}", created_at=START + timedelta(hours=number), **options)
        for number in range(count)
    ]


def heal(exa: StandIn) -> None:
    exa.heal()
    exa.cursors, exa.refuses = "honoured", ()


CUTS: dict[str, Callable[[StandIn], object]] = {
    "no cursor": lambda exa: exa.fail(Fault(kind="no_cursor", times=None, path="/runs")),
    "an empty page": lambda exa: exa.fail(Fault(kind="empty_more", times=None, path="cursor=")),
    "one cursor for ever": lambda exa: exa.fail(Fault(kind="repeat", times=None, path="/runs")),
    "a refused cursor": lambda exa: setattr(exa, "refuses", {"cursor"}),
    "an ignored cursor": lambda exa: setattr(exa, "cursors", "ignored"),
    "an expired cursor": lambda exa: exa.fail(Fault(status=400, times=None, path="cursor=run_010")),
    "trouble": lambda exa: exa.fail(Fault(times=None, path="cursor=run_010")),
    "no answer": lambda exa: exa.fail(Fault(kind="cut", times=None, path="cursor=")),
}


@pytest.mark.parametrize("cut", CUTS)
def test_what_a_listing_leaves_out_is_reported_once_it_is_shown(
    exa: StandIn, variables: Variables, cut: str
) -> None:
    """Until then, new runs are reported all the same, and whoever goes on after a restart owes the rest."""
    runs = add_runs(exa)
    CUTS[cut](exa)

    async def scenario() -> None:
        async with Triggerer() as first:
            first.watch(start=START)
            await until(lambda: first.runs)
            new = exa.add_run("mon_a")
            await until(lambda: new in first.runs and new in variables.cursor["reported"])
            assert variables.cursor["frontier"] <= START.isoformat()
            assert len(set(first.runs)) < COUNT
        async with Triggerer() as second:
            second.watch(start=START)
            await more_polls(exa)
            heal(exa)
            await until(lambda: len({*first.runs, *second.runs}) == COUNT + 1)
            await until(lambda: variables.cursor["frontier"] > START.isoformat())
            assert Counter(first.runs + second.runs) == Counter([*runs, new])

    asyncio.run(scenario())


@pytest.mark.parametrize("place", [0, 24, 25, 40, 59])
def test_a_run_that_cannot_be_read_stops_no_asset(exa: StandIn, variables: Variables, place: int) -> None:
    """The others are reported, and it is itself once it can be read; few polls go back to it meanwhile."""
    runs = add_runs(exa)
    unreadable = runs[COUNT - 1 - place]
    history = exa.runs[unreadable].history
    exa.runs[unreadable].history = [(moment, "") for moment, _ in history]

    async def scenario() -> None:
        async with Triggerer() as triggerer:
            triggerer.watch(start=START)
            await until(lambda: len(triggerer.runs) >= COUNT - 1)
            new = exa.add_run("mon_a")
            await until(lambda: new in triggerer.runs)
            assert unreadable not in triggerer.runs
            exa.runs[unreadable].history = history
            await until(lambda: unreadable in triggerer.runs)
            assert Counter(triggerer.runs) == Counter([*runs, new])

    asyncio.run(scenario())


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "0001-01-01T00:30:00Z", "9999-12-31T23:59:59Z"])
@pytest.mark.parametrize("more", [True, False])
def test_a_run_of_any_year_stops_no_asset(
    exa: StandIn, variables: Variables, time: str, *, more: bool
) -> None:
    """A program's zero for a time is the year 1."""
    odd = [{"id": f"odd_{place:02}", "status": "archived", "createdAt": time} for place in range(25)]
    new = {"id": "new", "status": "completed", "createdAt": pendulum.now("UTC").isoformat()}

    def page(*runs: dict[str, str]) -> Fault:
        body = json.dumps({"data": runs, "hasMore": more}).encode()
        return Fault(status=200, body=body, path="/runs", times=None)

    async def scenario() -> None:
        exa.fail(page(*odd))
        async with Triggerer() as triggerer:
            triggerer.watch(start="0001-01-01")
            await more_polls(exa)
            exa.heal()
            exa.fail(page(new, *odd))
            await until(lambda: triggerer.runs == ["new"])

    asyncio.run(scenario())


def test_a_listing_that_cannot_be_read_to_its_end_is_walked_less_and_less_often(
    exa: StandIn, variables: Variables
) -> None:
    """Polls ask for the newest pages only."""
    add_runs(exa, 300)
    exa.runs["run_010"].history = [(START, "")]

    async def scenario() -> None:
        async with Triggerer() as triggerer:
            triggerer.watch(start=START)
            await until(lambda: len(triggerer.runs) == 299)
            await more_polls(exa, 40)
            before = len(exa.requests)
            await asyncio.sleep(20 * INTERVAL)
            assert len(exa.requests) - before < 60  # 12 pages a walk

    with use_timing(replace(timing(), max_walk_interval=60)):
        asyncio.run(scenario())


REFUSED = [Fault(status=status) for status in (401, 402, 403, 407, 503)]


@pytest.mark.parametrize(
    "fault", [*REFUSED, Fault(kind="redirect", location="/login")], ids=lambda it: f"{it.kind} {it.status}"
)
def test_a_first_walk_goes_on_where_it_stopped(exa: StandIn, variables: Variables, fault: Fault) -> None:
    """A page that fails is asked for again, not the ones before it, and new runs do not wait for it."""
    exa.page_size = 5
    add_runs(exa)
    exa.fail(replace(fault, times=5, path="cursor=run_015"))

    async def scenario() -> None:
        async with Triggerer() as triggerer:
            triggerer.watch(start=START)
            await until(lambda: len(triggerer.runs) == COUNT)

    asyncio.run(scenario())
    asked = Counter(each.query.get("cursor") for each in exa.requests)
    assert asked["run_015"] == 6
    assert asked["run_020"] == asked["run_010"] == asked["run_005"] == 1


def test_a_walk_of_more_pages_than_are_allowed_goes_on_after_a_pause(
    exa: StandIn, variables: Variables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No page of it is read twice."""
    monkeypatch.setattr(stream, "list_runs", partial(list_runs, max_pages=8))
    exa.page_size = 2
    add_runs(exa)

    async def scenario() -> None:
        async with Triggerer() as triggerer:
            triggerer.watch(start=START)
            await until(lambda: len(triggerer.runs) == COUNT)

    with use_timing(replace(timing(), max_trouble_interval=0.2)):
        asyncio.run(scenario())
    asked = Counter(each.query.get("cursor") for each in exa.requests)
    assert {asked[f"run_{number:03}"] for number in range(2, 20, 2)} == {1}


def test_an_endless_listing_is_no_endless_burst(
    exa: StandIn, variables: Variables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A walk rests after as many pages as a listing may have."""
    monkeypatch.setattr(stream, "list_runs", partial(list_runs, max_pages=5))
    exa.page_size = 30
    add_runs(exa, 400)

    async def scenario() -> int:
        async with Triggerer() as triggerer:
            triggerer.watch(poll_interval=60)
            await asyncio.sleep(1)
            return len(exa.requests)

    with use_timing(replace(timing(), max_trouble_interval=60)):
        assert 5 <= asyncio.run(scenario()) <= 7


def test_a_first_walk_holds_one_page_in_memory(exa: StandIn, variables: Variables) -> None:
    """History is counted, not kept."""
    exa.page_size = 20
    add_runs(exa, 600)
    most = 0

    async def scenario() -> None:
        nonlocal most
        async with Triggerer() as triggerer:
            triggerer.watch()
            while not (variables.texts and variables.cursor.get("frontier", "") > START.isoformat()):
                most = max(most, sum(isinstance(each, MonitorRun) for each in gc.get_objects()))
                await asyncio.sleep(0.01)
            assert triggerer.runs == []

    before = sum(isinstance(each, MonitorRun) for each in gc.get_objects())
    asyncio.run(scenario())
    assert most - before <= 120
    assert len(variables.texts[variables.key]) < 1000


# --- open runs that a listing does not show ---------------------------------------------------------


def add_slow_runs(exa: StandIn, count: int, status: str = "running") -> list[str]:
    """Old open runs, with enough newer ones to push them off the first page."""
    now = pendulum.now("UTC")
    slow = [
        exa.add_run(
            "mon_a", run_id=f"slow_{number:02}", status=status, created_at=now.subtract(days=9 + number)
        )
        for number in range(count)
    ]
    for number in range(40):
        exa.add_run("mon_a", created_at=now.subtract(hours=number + 1))
    return slow


def by_id(exa: StandIn, run_id: str = "slow_") -> list[float]:
    """When runs were asked for by their ids."""
    return [each.at for each in exa.requests if f"/runs/{run_id}" in each.path]


def test_a_run_that_exa_has_deleted_is_let_go(
    exa: StandIn, variables: Variables, caplog: pytest.LogCaptureFixture
) -> None:
    """Once two polls have said so."""
    slow = add_slow_runs(exa, 3)

    async def scenario() -> None:
        async with Triggerer() as triggerer:
            triggerer.watch()
            await until(lambda: variables.texts and variables.cursor["open"] == slow)
            monitor = exa.monitors["mon_a"]
            with exa.lock:
                monitor.runs = [each for each in monitor.runs if each.id != slow[1]]
                del exa.runs[slow[1]]
            await until(lambda: variables.cursor["open"] == [slow[0], slow[2]])
            asked = len(by_id(exa, slow[1]))
            await more_polls(exa)
            assert len(by_id(exa, slow[1])) == asked
            exa.move(slow[0], "completed")
            await until(lambda: triggerer.runs == [slow[0]])

    asyncio.run(scenario())
    assert sum("is no more at Exa" in line for line in complaints(caplog)) == 1


def test_one_404_is_not_believed(exa: StandIn, variables: Variables) -> None:
    """The run is asked for again at a later poll."""
    (slow,) = add_slow_runs(exa, 1)

    async def scenario() -> None:
        async with Triggerer() as triggerer:
            triggerer.watch()
            await until(lambda: variables.texts and variables.cursor["open"] == [slow])
            for _ in range(3):
                exa.fail(Fault(status=404, times=1, path=slow))
                asked = len(by_id(exa))
                await until(lambda before=asked: len(by_id(exa)) >= before + 2)
            assert variables.cursor["open"] == [slow]
            exa.move(slow, "completed")
            await until(lambda: triggerer.runs == [slow])

    asyncio.run(scenario())


def test_a_run_whose_status_is_new_is_not_asked_for_for_ever(exa: StandIn, variables: Variables) -> None:
    """It is let go a week after it has changed."""
    add_slow_runs(exa, 30, status="archived")

    async def scenario() -> None:
        async with Triggerer() as triggerer:
            triggerer.watch()
            await until(lambda: variables.texts and variables.cursor["frontier"] > START.isoformat())
            await more_polls(exa)
            assert variables.cursor["open"] == []
            assert by_id(exa) == []

    asyncio.run(scenario())


def test_many_open_runs_are_asked_for_a_few_a_poll_in_turn(exa: StandIn, variables: Variables) -> None:
    """Trouble with them delays no new run, and each has its turn."""
    slow = add_slow_runs(exa, 12)
    exa.fail(Fault(times=None, path="/runs/slow_"))

    async def scenario() -> None:
        async with Triggerer() as triggerer:
            triggerer.watch()
            await until(lambda: variables.texts and variables.cursor["open"] == slow)
            new = exa.add_run("mon_a")
            began = time.monotonic()
            await until(lambda: triggerer.runs == [new])
            assert time.monotonic() - began < 1
            before = len(exa.requests)
            await more_polls(exa, 9)
            listings = sum(each.path.endswith("/runs") for each in exa.requests[before:])
            asked = Counter(each.path for each in exa.requests[before:] if "/slow_" in each.path)
            assert asked.total() <= (listings + 1) * MAX_RUNS_BY_ID
            assert len(asked) == 12
            assert max(asked.values()) - min(asked.values()) <= 2
            heal(exa)
            exa.move(slow[7], "completed")
            await until(lambda: triggerer.runs == [new, slow[7]])

    asyncio.run(scenario())


def test_a_listed_run_is_reported_while_runs_are_asked_for_by_id(exa: StandIn, variables: Variables) -> None:
    """What the listing shows is told before."""
    add_slow_runs(exa, 1)

    async def scenario() -> None:
        async with Triggerer() as triggerer:
            triggerer.watch()
            await until(lambda: variables.texts and variables.cursor["open"])
            exa.fail(Fault(kind="hang", times=None, path="/runs/slow_"))
            new = exa.add_run("mon_a")
            began = time.monotonic()
            await until(lambda: triggerer.runs == [new])
            assert time.monotonic() - began < 1
            exa.heal()

    asyncio.run(scenario())


# --- events ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["x" * 2000, {"code": "x" * 2000}, ["x"] * 900, 7], ids=str)
def test_an_event_holds_a_short_reason_whatever_exa_sends(
    exa: StandIn, variables: Variables, reason: Any
) -> None:
    """A string of at most 500 characters."""
    exa.add_run("mon_a", status="failed", failed_reason=reason, created_at=START)

    async def scenario() -> Any:
        async with Triggerer() as triggerer:
            triggerer.watch(start=START, statuses=["failed"])
            await until(lambda: triggerer.sent)
            return triggerer.sent[0]["runs"][0]["failed_reason"]

    told = asyncio.run(scenario())
    assert isinstance(told, str)
    assert 0 < len(told) <= 500


@pytest.mark.parametrize("key", ["id", "status", "type", "monitorId", "failedReason"])
def test_an_event_and_a_cursor_are_small_whatever_exa_sends(
    exa: StandIn, variables: Variables, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    """Airflow logs events, and a big one stops the triggerer."""
    whole = exa.add_run("mon_a", status="failed", created_at=START)
    odd = {"id": "run_odd", "status": "failed", "createdAt": START.isoformat()}
    run = {"id": whole, "status": "failed", "createdAt": START.isoformat()}
    runs = [odd | {key: "x" * 2**20}, run]
    exa.fail(Fault(status=200, body=json.dumps({"data": runs}).encode(), path="/runs", times=None))

    async def scenario() -> None:
        async with Triggerer() as triggerer:
            triggerer.watch(start=START, statuses=["failed"])
            await until(lambda: triggerer.sent)
            await more_polls(exa)
            assert all(len(json.dumps(event)) < 2000 for event in triggerer.sent)

    asyncio.run(scenario())
    assert len(variables.texts[variables.key]) < 2000
    assert all(len(record.getMessage()) < 2000 for record in caplog.records)


def test_a_cancelled_stream_is_not_waited_for(exa: StandIn, variables: Variables) -> None:
    """The wait before an event counts as stored ends with its stream, and notes nothing."""
    exa.add_run("mon_a", run_id="run_1", created_at=START)
    trigger: Any = monitor_runs("mon_a", start=START, poll_interval=INTERVAL).watchers[0].trigger

    async def scenario() -> None:
        producer = RunStream(trigger)
        events = producer.open_stream()
        _, run_ids = await anext(events)
        assert run_ids == ["run_1"]
        advancing = asyncio.ensure_future(producer.advance([]))
        await asyncio.sleep(0.05)
        await events.aclose()
        await asyncio.wait_for(advancing, 1)
        assert not poller._pollers

    with use_timing(replace(timing(), confirmation_delay=60)):
        asyncio.run(scenario())
    assert "run_1" not in json.loads(variables.texts[variables.key])["reported"]


def test_a_crash_of_the_walk_reaches_airflow(
    exa: StandIn, variables: Variables, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Airflow starts the trigger anew."""
    caplog.set_level(logging.ERROR)
    add_runs(exa)

    def broken(*args: Any) -> Any:
        raise ZeroDivisionError("a bug")

    async def scenario() -> None:
        async with Triggerer() as triggerer:
            monkeypatch.setattr("airflow_provider_exa.events.walk.fetch_page", broken)
            with pytest.raises(ZeroDivisionError):
                await asyncio.wait_for(triggerer.watch(), 20)

    asyncio.run(scenario())
