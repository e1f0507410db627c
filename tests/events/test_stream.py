"""The stream of an asset, on Airflow's own shared streams, with a stand-in for Exa."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pendulum
import pytest
from airflow.triggers.shared_stream import AckTimeout

from airflow_provider_exa.protocol.models import MonitorRun
from airflow_provider_exa.standin import Fault, StandIn
from airflow_provider_exa.timing import timing, use_timing
from airflow_provider_exa.waiting import poller
from airflow_provider_exa.waiting.progress import Progress
from airflow_provider_exa.waiting.selection import RunSelector
from airflow_provider_exa.waiting.waiter import wait_for_run
from tests.events.triggerer import (
    INTERVAL,
    START,
    TIMING,
    Triggerer,
    Variables,
    complaints,
    more_polls,
    polls,
    until,
)


def test_the_first_cursor_is_kept_before_the_first_request(exa: StandIn, variables: Variables) -> None:
    """While it cannot be, Exa is not asked, so that no run ends in between unseen."""
    variables.broken = {"write"}

    async def scenario() -> None:
        async with Triggerer() as triggerer:
            triggerer.watch()
            await asyncio.sleep(0.3)
            assert exa.requests == []
            variables.broken = set()
            await more_polls(exa)

    asyncio.run(scenario())
    cursor, requests = variables.kept[0]
    assert requests == 0
    assert cursor["frontier"] == "1970-01-01T00:00:00+00:00"


def test_history_is_skipped_but_not_what_is_open_at_the_start(exa: StandIn, variables: Variables) -> None:
    """With start="now" a run counts that ends later, however old it is."""
    for status in ("completed", "failed", "running"):
        exa.add_run("mon_a", run_id=status, status=status, created_at=START)

    async def scenario() -> list[str]:
        async with Triggerer() as triggerer:
            triggerer.watch()
            await more_polls(exa)
            assert triggerer.sent == []
            exa.move("running", "completed")
            exa.add_run("mon_a", run_id="new")
            await until(lambda: len(triggerer.runs) >= 2)
            await more_polls(exa)
            return triggerer.runs

    assert sorted(asyncio.run(scenario())) == ["new", "running"]


def test_a_replay_brings_the_oldest_runs_first_a_hundred_an_event(exa: StandIn, variables: Variables) -> None:
    """All pages of the history since the start are read, and every event is worth a DAG run."""
    for number in range(-20, 250):
        exa.add_run("mon_a", run_id=f"run_{number:03}", created_at=START + timedelta(minutes=number))

    async def scenario() -> list[list[str]]:
        async with Triggerer() as triggerer:
            triggerer.watch(start=START)
            await until(lambda: len(triggerer.runs) >= 250)
            await more_polls(exa)
            return [[run["run_id"] for run in event["runs"]] for event in triggerer.sent]

    events = asyncio.run(scenario())
    assert [len(each) for each in events] == [100, 100, 50]
    assert [run for event in events for run in event] == [f"run_{number:03}" for number in range(250)]


def test_an_event_says_what_there_is_to_know_of_its_runs(exa: StandIn, variables: Variables) -> None:
    """Ids, times in ISO 8601, how the run ended and why."""
    exa.add_run(
        "mon_a",
        run_id="run_1",
        states=[(0, "running"), (60, "failed")],
        created_at=START,
        failed_reason="no luck " * 100,
        type="refresh",
    )

    async def scenario() -> list[dict[str, Any]]:
        async with Triggerer() as triggerer:
            triggerer.watch(statuses=["failed"], start=START)
            await until(lambda: triggerer.sent)
            return triggerer.sent

    run = {
        "monitor_id": "mon_a",
        "run_id": "run_1",
        "status": "failed",
        "type": "refresh",
        "created_at": "2026-01-01T00:00:00+00:00",
        "finished_at": "2026-01-01T00:01:00+00:00",
        "failed_reason": ("no luck " * 100)[:500],
    }
    assert asyncio.run(scenario()) == [{"api": "websets", "exa_conn_id": "exa_default", "runs": [run]}]


def test_a_run_that_has_left_the_newest_pages_is_asked_for_until_it_ends(
    exa: StandIn, variables: Variables
) -> None:
    """Though the listing is read only down to the frontier, and by whoever goes on after a restart."""
    now = pendulum.now("UTC")
    exa.page_size = 10
    exa.add_run("mon_a", run_id="slow", status="running", created_at=now.subtract(days=9))
    for hours in range(100):
        exa.add_run("mon_a", run_id=f"run_{hours}", created_at=now.subtract(hours=hours + 1))

    async def scenario() -> list[str]:
        async with Triggerer() as first:
            first.watch()
            await until(lambda: variables.cursor["open"] == ["slow"])
            before = len(exa.requests)
            await more_polls(exa, 9)
            pages = [each for each in exa.requests[before:] if each.path.endswith("/runs")]
            assert sum(each.query.get("cursor") is not None for each in pages) <= 2 * len(pages) / 3
            assert any(each.path.endswith("/slow") for each in exa.requests[before:])
        exa.move("slow", "completed")
        async with Triggerer() as second:
            second.watch()
            await until(lambda: second.runs)
            await until(lambda: variables.cursor["open"] == [])
            await more_polls(exa, 9)
            return [*first.runs, *second.runs]

    assert asyncio.run(scenario()) == ["slow"]


def test_runs_that_end_in_any_order_are_each_reported_once(exa: StandIn, variables: Variables) -> None:
    """Also those of one millisecond, and one that takes longer than all others."""
    created = [START, START, *(START + timedelta(minutes=number) for number in range(8))]
    for number, moment in enumerate(created):
        exa.add_run("mon_a", run_id=f"run_{number}", status="running", created_at=moment)
    order = [3, 9, 1, 8, 2, 4, 7, 6, 5, 0]

    async def scenario() -> list[str]:
        async with Triggerer() as triggerer:
            triggerer.watch()
            await until(lambda: len(variables.cursor["open"]) == 10)
            for count, number in enumerate(order, 1):
                exa.move(f"run_{number}", "completed")
                await until(lambda wanted=count: len(triggerer.runs) >= wanted)
            await more_polls(exa)
            return triggerer.runs

    assert asyncio.run(scenario()) == [f"run_{number}" for number in order]


def test_what_ends_together_is_one_event_and_the_next_is_apart(exa: StandIn, variables: Variables) -> None:
    """Of events that meet a scheduler together, all but one would be stranded."""
    for number in range(30):
        exa.add_run("mon_a", run_id=f"first_{number}", created_at=START)

    async def scenario() -> tuple[list[int], float]:
        async with Triggerer() as triggerer:
            triggerer.watch(start=START)
            await until(lambda: triggerer.sent)
            with exa.lock:
                for number in range(20):
                    exa.add_run("mon_a", run_id=f"second_{number}")
            await until(lambda: len(triggerer.sent) >= 2)
            first, second = triggerer.sent_at
            return [len(event["runs"]) for event in triggerer.sent], second - first

    with use_timing(replace(timing(), min_event_gap=0.5)):
        sizes, apart = asyncio.run(scenario())
    assert sizes == [30, 20]
    assert apart > 0.49


@pytest.mark.parametrize("accident", ["the triggerer is stopped", "the event times out"])
def test_an_event_that_was_not_stored_is_reported_again(
    exa: StandIn, variables: Variables, accident: str
) -> None:
    """The Variable takes it in only once it is stored; until then, whoever goes on sends it."""
    exa.add_run("mon_a", run_id="run_1", created_at=START)
    exa.add_run("mon_a", run_id="slow", status="running", created_at=START)

    async def scenario() -> None:
        timeout = 0.2 if "times out" in accident else 300
        async with Triggerer(ack_timeout=timeout) as first:
            task = first.watch(start=START, stores=False)
            await until(lambda: first.runs == ["run_1"])
            if "times out" in accident:
                with pytest.raises(AckTimeout):
                    await task
            else:
                await until(lambda: variables.cursor["open"] == ["slow"])
                await more_polls(exa)
            assert first.runs == ["run_1"]
        assert variables.cursor["reported"] == {}
        async with Triggerer() as second:
            second.watch(start=START)
            await until(lambda: variables.cursor["reported"].keys() == {"run_1"})
            assert second.runs == ["run_1"]
        async with Triggerer() as third:
            third.watch(start=START)
            await more_polls(exa)
            assert third.runs == []

    asyncio.run(scenario())


def test_an_event_that_only_one_of_two_triggers_had_stored_is_sent_again(
    exa: StandIn, variables: Variables
) -> None:
    """An asset may have two for a while; better twice than not where it counts."""
    exa.add_run("mon_a", run_id="run_1", created_at=START)

    async def scenario() -> list[str]:
        async with Triggerer(ack_timeout=0.3) as triggerer:
            good, bad = (triggerer.watch(start=START, stores=stores) for stores in (True, False))
            with pytest.raises(AckTimeout):
                await bad
            await until(lambda: variables.cursor["reported"].keys() == {"run_1"})
            await more_polls(exa)
            assert not good.done()
            return triggerer.runs

    assert asyncio.run(scenario()) == ["run_1"] * 3


def test_a_poll_without_news_writes_nothing(exa: StandIn, variables: Variables) -> None:
    """An asset costs Airflow's database a write an event, not one a poll."""
    exa.add_run("mon_a", run_id="run_1", status="running")

    async def scenario() -> None:
        async with Triggerer() as triggerer:
            triggerer.watch()
            await until(lambda: variables.cursor["open"])
            await more_polls(exa)
            written = len(variables.kept)
            await more_polls(exa)
            assert len(variables.kept) == written

    asyncio.run(scenario())


def test_a_stream_that_was_ended_at_once_keeps_nothing(exa: StandIn, variables: Variables) -> None:
    """What Airflow calls stored while it takes the trigger away is not, so it is reported again."""
    exa.add_run("mon_a", run_id="run_1", created_at=START)

    async def scenario() -> None:
        async with Triggerer() as first:
            task = first.watch(start=START)
            await until(lambda: first.sent)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await asyncio.sleep(0.5)
        assert all("run_1" not in cursor["reported"] for cursor, _ in variables.kept)
        async with Triggerer() as second:
            second.watch(start=START)
            await until(lambda: variables.cursor["reported"].keys() == {"run_1"})
            assert second.runs == ["run_1"]

    with use_timing(replace(timing(), confirmation_delay=0.3)):
        asyncio.run(scenario())


def test_what_ends_while_nobody_watches_is_reported_after(exa: StandIn, variables: Variables) -> None:
    """The start is that of the first time, not of a restart."""
    exa.add_run("mon_a", run_id="run_1", status="running")

    async def scenario() -> None:
        async with Triggerer() as first:
            first.watch()
            await until(lambda: variables.cursor["open"])
        exa.move("run_1", "completed")
        exa.add_run("mon_a", run_id="run_2")
        async with Triggerer() as second:
            second.watch()
            await until(lambda: second.sent)
            assert [len(each["runs"]) for each in second.sent] == [2]

    asyncio.run(scenario())


def trouble_of_exa(exa: StandIn, patch: pytest.MonkeyPatch) -> Callable[[], None]:
    exa.fail(Fault(times=None))
    return exa.heal


def a_bad_key(exa: StandIn, patch: pytest.MonkeyPatch) -> Callable[[], None]:
    exa.api_key = "another-key-5678"
    return lambda: patch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection(retries=0))


def no_key(exa: StandIn, patch: pytest.MonkeyPatch) -> Callable[[], None]:
    patch.setenv("AIRFLOW_CONN_EXA_DEFAULT", json.dumps({"conn_type": "exa", "host": exa.url}))
    return lambda: patch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection(retries=0))


def an_unknown_monitor(exa: StandIn, patch: pytest.MonkeyPatch) -> Callable[[], None]:
    del exa.monitors["mon_a"]
    return lambda: exa.add_monitor("mon_a") and None


TROUBLE = {
    "answered 503": trouble_of_exa,
    "refused the API key": a_bad_key,
    "has no API key": no_key,
    "answered 404": an_unknown_monitor,
}


@pytest.mark.parametrize("says", TROUBLE)
def test_trouble_is_logged_asked_about_less_often_and_got_over(
    exa: StandIn,
    variables: Variables,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    says: str,
) -> None:
    """No asset fails for it, as nobody would start it again; a poll is worth one line at most."""
    mend = TROUBLE[says](exa, monkeypatch)

    async def scenario() -> float:
        async with Triggerer() as triggerer:
            triggerer.watch()
            began = time.monotonic()
            await until(lambda: len(complaints(caplog)) >= 5)
            took = time.monotonic() - began
            lines = complaints(caplog)
            assert all("(asset exa_monitor/mon_a/poll_interval=0.05)" in line for line in lines)
            assert all(says in line for line in lines)
            assert all("It is asked again" in line for line in lines)
            assert len(lines) <= polls(exa) or says == "has no API key"  # where nothing is asked
            mend()
            exa.add_run("mon_a", run_id="run_1")
            await until(lambda: triggerer.runs == ["run_1"])
            (watch,) = poller._pollers.values()
            assert [subscriber.interval for subscriber in watch.subscribers] == [INTERVAL]
            said = len(complaints(caplog))
            await more_polls(exa)
            assert len(complaints(caplog)) == said
            assert not triggerer.tasks[0].done()
        return took

    assert asyncio.run(scenario()) > 2 * TIMING.permanent_error_interval  # else five polls take 0.2 s


def test_a_cursor_that_cannot_be_read_is_not_taken_for_a_first_start(
    exa: StandIn, variables: Variables, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is overwritten or asked meanwhile, and what has ended is reported once it can be."""
    exa.add_run("mon_a", run_id="run_1", status="running")

    async def scenario() -> None:
        async with Triggerer() as first:
            first.watch()
            await until(lambda: variables.cursor["open"])
        exa.move("run_1", "completed")
        before = variables.texts.copy()
        variables.broken = {"read"}
        async with Triggerer() as second:
            second.watch()
            await not_watched(variables, caplog, "no database")
            assert variables.texts == before
            variables.broken = set()
            await until(lambda: second.runs == ["run_1"])

    asyncio.run(scenario())


async def not_watched(variables: Variables, caplog: pytest.LogCaptureFixture, why: str) -> None:
    """Wait until an asset has said several times that its cursor cannot be read; nothing polls meanwhile."""
    await until(lambda: len(complaints(caplog)) >= 3)
    assert not poller._pollers
    assert all(variables.key in line and why in line for line in complaints(caplog))


def test_a_cursor_that_cannot_be_written_holds_up_no_event(
    exa: StandIn, variables: Variables, caplog: pytest.LogCaptureFixture
) -> None:
    """It is written by a later poll; nothing is reported twice for it."""

    async def scenario() -> None:
        async with Triggerer() as triggerer:
            triggerer.watch()
            await more_polls(exa)
            variables.broken = {"write"}
            for run_id in ("run_1", "run_2"):
                exa.add_run("mon_a", run_id=run_id)
                await until(lambda wanted=run_id: wanted in triggerer.runs)
            await until(lambda: any("cannot be written" in line for line in complaints(caplog)))
            assert variables.cursor["reported"] == {}
            variables.broken = set()
            await until(lambda: variables.cursor["reported"].keys() == {"run_1", "run_2"})
            assert triggerer.runs == ["run_1", "run_2"]

    asyncio.run(scenario())


def test_a_cursor_that_was_edited_into_rubbish_is_left_for_a_person_to_mend(
    exa: StandIn, variables: Variables, caplog: pytest.LogCaptureFixture
) -> None:
    """It is quoted in the log and never overwritten; once it is mended, it is gone on from."""

    async def scenario() -> None:
        async with Triggerer() as first:
            first.watch()
            await more_polls(exa)
        exa.add_run("mon_a", run_id="run_1")
        good = variables.texts[variables.key]
        variables.texts[variables.key] = "rubbish"
        async with Triggerer() as second:
            second.watch()
            await not_watched(variables, caplog, "it is no cursor")
            assert all("rubbish" in line for line in complaints(caplog))
            assert variables.texts[variables.key] == "rubbish"
            variables.texts[variables.key] = good
            await until(lambda: second.runs == ["run_1"])

    asyncio.run(scenario())


def test_a_removed_cursor_is_a_first_start(exa: StandIn, variables: Variables) -> None:
    """Who deletes the Variable starts the asset anew, as its start says."""
    exa.add_run("mon_a", run_id="run_1", created_at=START)

    async def scenario() -> None:
        for _ in range(2):
            async with Triggerer() as triggerer:
                triggerer.watch(start=START)
                await until(lambda: variables.texts and variables.cursor["reported"])
                assert triggerer.runs == ["run_1"]
            variables.texts.clear()

    asyncio.run(scenario())


def test_assets_and_waits_share_the_polls_of_a_monitor(exa: StandIn, variables: Variables) -> None:
    """Three assets and a deferred task ask as often as one of them, and each gets what it asked for."""
    interval = 0.2
    for run_id in ("good", "bad"):
        exa.add_run("mon_a", run_id=run_id, status="running")

    async def scenario() -> tuple[MonitorRun, list[tuple[str, ...]], float]:
        async with Triggerer() as triggerer:
            began = time.monotonic()
            for statuses in (["completed"], ["failed"], ["failed", "completed"]):
                triggerer.watch(statuses=statuses, poll_interval=interval)
            waiting = asyncio.ensure_future(
                wait_for_run(
                    Progress("mon_a", RunSelector(run_id="good"), pendulum.now("UTC"), has_answered=True),
                    conn_id="exa_default",
                    api="websets",
                    interval=interval,
                    max_interval=interval,
                    log=logging.getLogger("a task"),
                )
            )
            await until(lambda: len(variables.texts) == 3 and polls(exa) >= 8)
            with exa.lock:
                exa.move("good", "completed")
                exa.move("bad", "failed")
            run = await waiting
            await until(lambda: len(triggerer.runs) >= 4)
            took = time.monotonic() - began
            events = [tuple(run["run_id"] for run in event["runs"]) for event in triggerer.sent]
            return run, events, took

    run, events, took = asyncio.run(scenario())
    assert run.status == "completed"
    assert sorted(events) == [("bad",), ("bad", "good"), ("good",)] or sorted(events) == [
        ("bad",),
        ("good",),
        ("good", "bad"),
    ]
    assert len(exa.requests) <= took / interval + 3
    assert exa.connections == 1


@pytest.mark.parametrize(
    "server", [{"cursors": "ignored"}, {"refuses": {"cursor"}}], ids=["ignores cursors", "refuses cursors"]
)
def test_a_server_that_lists_one_page_only_still_starts_dags(
    exa: StandIn, variables: Variables, caplog: pytest.LogCaptureFixture, server: dict[str, Any]
) -> None:
    """The log says once that some may be missing; they are reported when the server lists all."""
    usual = {name: getattr(exa, name) for name in server}
    for name, value in server.items():
        setattr(exa, name, value)
    for number in range(40):
        exa.add_run("mon_a", run_id=f"run_{number:02}", created_at=START + timedelta(hours=number))

    async def scenario() -> list[str]:
        async with Triggerer() as triggerer:
            triggerer.watch(start=START)
            await until(lambda: triggerer.runs)
            exa.add_run("mon_a", run_id="run_40")
            await until(lambda: len(triggerer.runs) >= 26)
            await more_polls(exa)
            assert triggerer.runs == [f"run_{number:02}" for number in range(15, 41)]
            for name, value in usual.items():
                setattr(exa, name, value)
            await until(lambda: len(triggerer.runs) >= 41)
            return triggerer.runs

    assert asyncio.run(scenario())[26:] == [f"run_{number:02}" for number in range(15)]
    assert sum("does not list all runs" in line for line in complaints(caplog)) == 1


@pytest.mark.parametrize("order", ["newest", "oldest", "shuffled"])
def test_the_order_of_the_listing_does_not_matter(exa: StandIn, variables: Variables, order: Any) -> None:
    """Exa documents none."""
    exa.order, exa.page_size = order, 5
    for number in range(40):
        exa.add_run("mon_a", run_id=f"run_{number:02}", created_at=START + timedelta(hours=number))

    async def scenario() -> list[str]:
        async with Triggerer() as triggerer:
            triggerer.watch(start=START)
            await until(lambda: len(triggerer.runs) >= 40)
            exa.add_run("mon_a", run_id="run_40")
            await until(lambda: len(triggerer.runs) >= 41)
            await more_polls(exa)
            return triggerer.runs

    assert asyncio.run(scenario()) == [f"run_{number:02}" for number in range(41)]


def test_a_crash_is_logged_and_reaches_airflow(
    exa: StandIn, variables: Variables, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Airflow starts a trigger that failed anew; it goes on from the cursor."""
    exa.add_run("mon_a", run_id="run_1", created_at=START)

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise ZeroDivisionError("a bug")

    async def scenario() -> None:
        async with Triggerer() as triggerer:
            with monkeypatch.context() as patch:
                patch.setattr(poller, "take_listing", broken)
                with pytest.raises(ZeroDivisionError):
                    await asyncio.wait_for(triggerer.watch(start=START), 20)
            triggerer.watch(start=START)
            await until(lambda: triggerer.runs == ["run_1"])

    asyncio.run(scenario())
    assert sum("is watched no more" in line for line in complaints(caplog)) == 1


def test_the_key_is_in_no_event_variable_or_log_line(
    exa: StandIn, variables: Variables, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even where Exa's answer holds it."""
    caplog.set_level(logging.DEBUG)
    key = exa.api_key
    exa.add_run("mon_a", run_id="run_1", created_at=START)
    exa.fail(Fault(status=500, body=f"no luck with {key}".encode()))
    exa.fail(Fault(status=403, body=json.dumps({"error": f"{key} may not do this"}).encode()))
    exa.fail(Fault(kind="html"))

    async def scenario() -> list[dict[str, Any]]:
        async with Triggerer() as triggerer:
            triggerer.watch(start=START)
            await until(lambda: triggerer.sent)
            await more_polls(exa)
            return triggerer.sent

    told = [json.dumps(asyncio.run(scenario())), json.dumps(variables.kept), *variables.texts, caplog.text]
    assert len(complaints(caplog)) >= 3
    assert "***" in caplog.text
    assert not any(key in each for each in told)
