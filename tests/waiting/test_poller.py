"""Waits that share a poll: what they cost Exa, and that none harms another."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest

from airflow_provider_exa.protocol.errors import (
    ExaBadAnswerError,
    ExaError,
    ExaInputError,
    ExaPermanentError,
    ExaTransientError,
)
from airflow_provider_exa.protocol.models import MonitorRun
from airflow_provider_exa.standin import Fault, StandIn
from airflow_provider_exa.timing import Timing, use_timing
from airflow_provider_exa.waiting import poller
from airflow_provider_exa.waiting.outcome import is_decided
from airflow_provider_exa.waiting.poller import subscribe
from airflow_provider_exa.waiting.progress import Progress
from airflow_provider_exa.waiting.selection import RunSelector, RunsSince
from airflow_provider_exa.waiting.snapshot import Snapshot
from airflow_provider_exa.waiting.waiter import RunWaiter, wait_for_run, wait_for_runs

LOG = logging.getLogger("a task")
START = pendulum.datetime(2026, 1, 1)
SINCE = RunSelector(created_after=START)
RUN = RunSelector(run_id="run_1")
NEVER = RunSelector(created_after=pendulum.datetime(2999, 1, 1))
WEBSET = "/websets/v0/websets/"


@pytest.fixture(autouse=True)
def _no_retries(exa: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection(retries=0))


async def wait(
    monitor_id: str = "mon_a",
    selector: RunSelector = SINCE,
    *,
    interval: float = 0.05,
    conn_id: str = "exa_default",
    api: str = "websets",
) -> MonitorRun:
    """Wait for a run, as a task that has polled once in its worker."""
    return await wait_for_run(
        Progress(monitor_id, selector, pendulum.now("UTC"), has_answered=True),
        conn_id=conn_id,
        api=api,
        interval=interval,
        max_interval=interval,
        log=LOG,
    )


async def until(true: Callable[[], object]) -> None:
    """Return as soon as something is true; fail after some seconds."""
    deadline = time.monotonic() + 8
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def cancel(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def nothing_is_left() -> bool:
    """Return whether no poller and no client is kept."""
    return not poller._pollers and not poller._clients


def paths(exa: StandIn) -> list[str]:
    """Return the path of each request, below that of the team's monitors."""
    return [request.path.removeprefix("/websets/v0/monitors") for request in exa.requests]


class Asset:
    """A subscriber for every run since a moment."""

    interval = 0.05

    def __init__(self, broken: Exception | None = None) -> None:
        self.selector = RunsSince(START)
        self.snapshots: list[Snapshot] = []
        self.errors: list[Exception] = []
        self._broken = broken

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """Keep it."""
        self.snapshots.append(snapshot)
        if self._broken:
            raise self._broken

    def on_error(self, error: Exception) -> None:
        """Keep it."""
        self.errors.append(error)


# --- shared polls ---------------------------------------------------------------------------------


def test_many_waits_on_a_monitor_share_its_polls(exa: StandIn) -> None:
    """A hundred waits ask as often as one, over one connection; they end together."""
    exa.add_run("mon_a", run_id="run_1", status="running")

    async def scenario() -> list[MonitorRun]:
        waits = asyncio.gather(*(wait(interval=0.2) for _ in range(100)))
        await until(lambda: len(exa.requests) >= 3)
        exa.move("run_1", "completed")
        return await waits

    runs = asyncio.run(scenario())
    assert {(run.id, run.status) for run in runs} == {("run_1", "completed")}
    assert len(exa.requests) < 10
    assert exa.connections == 1
    assert nothing_is_left()


def test_each_wait_gets_its_own_run(exa: StandIn) -> None:
    """One listing answers for whatever moment each waits from, and for ids on its page."""
    for day in range(10):
        exa.add_run("mon_a", run_id=f"run_{day}", created_at=START.add(days=day))

    async def scenario() -> list[MonitorRun]:
        by_time = [RunSelector(created_after=START.add(days=day)) for day in range(10)]
        by_id = [RunSelector(run_id=f"run_{day}") for day in range(10)]
        selectors = [*by_time, *by_id, RunSelector(pick="latest")]
        return await asyncio.gather(*(wait(selector=selector, interval=3600) for selector in selectors))

    ids = [run.id for run in asyncio.run(scenario())]
    assert ids == [f"run_{day}" for day in range(10)] * 2 + ["run_9"]
    assert paths(exa) == ["/mon_a/runs"]


def test_monitors_apis_and_event_loops_do_not_share_polls(exa: StandIn) -> None:
    """The same id may belong to another API, and a loop that is gone leaves nothing behind."""
    for monitor_id in ("mon_a", "mon_b"):
        exa.add_run(monitor_id)

    async def scenario() -> None:
        waits = (("mon_a", "websets"), ("mon_b", "websets"), ("mon_a", "search"))
        await asyncio.gather(*(wait(monitor_id, api=api, interval=3600) for monitor_id, api in waits))
        assert nothing_is_left()

    for _ in range(2):
        asyncio.run(scenario())
    assert sorted(paths(exa)) == sorted(["/mon_a/runs", "/mon_b/runs", "/monitors/mon_a/runs"] * 2)


def test_the_shortest_interval_counts(exa: StandIn) -> None:
    """A wait that is in a hurry sets the pace for all, also where it joins a slow poll."""
    exa.add_run("mon_a", run_id="run_1", status="running")

    async def scenario() -> None:
        slow = asyncio.ensure_future(wait(interval=3600))
        await until(lambda: len(exa.requests) == 1)
        fast = asyncio.ensure_future(wait())
        await until(lambda: len(exa.requests) >= 4)
        exa.move("run_1", "completed")
        assert [(await each).status for each in (slow, fast)] == ["completed"] * 2

    asyncio.run(scenario())


@pytest.mark.parametrize("interval", [0, -1, 1e-9])
@pytest.mark.parametrize("grows", [False, True])
def test_no_interval_is_so_short_that_polls_chase_each_other(
    exa: StandIn, interval: float, *, grows: bool
) -> None:
    """Neither of a wait nor of an asset, and one that may double does so from the shortest."""
    exa.add_run("mon_a", status="running")

    floor = Timing(first_poll_jitter=0, min_poll_interval=0.2)

    async def scenario() -> tuple[int, float]:
        longest = 60 if grows else interval
        with use_timing(floor), subscribed(interval, longest) as waiter:
            await until(lambda: exa.requests)
            await asyncio.sleep(0.7)
            return len(exa.requests), waiter.interval

    requests, growing = asyncio.run(scenario())
    assert requests <= 4
    assert growing > 0.2 if grows else growing == 0.2


def test_an_asset_with_a_tiny_interval_polls_no_faster(exa: StandIn) -> None:
    """The floor is that of the poller, whoever subscribes."""

    floor = Timing(first_poll_jitter=0, min_poll_interval=0.2)

    async def scenario() -> int:
        asset = Asset()
        asset.interval = 1e-9
        with use_timing(floor), subscribe(asset, "exa_default", "websets", "mon_a"):
            await until(lambda: exa.requests)
            await asyncio.sleep(0.5)
        return sum(path.endswith("/runs") for path in paths(exa))

    assert asyncio.run(scenario()) <= 3


def test_the_pace_slows_down_when_the_hurried_wait_leaves(exa: StandIn) -> None:
    """The rest polls as often as it asked for."""
    exa.add_run("mon_a", status="running")

    async def scenario() -> int:
        slow, fast = (asyncio.ensure_future(wait(interval=interval)) for interval in (3600, 0.05))
        await until(lambda: len(exa.requests) >= 3)
        await cancel(fast)
        await asyncio.sleep(0.1)
        before = len(exa.requests)
        await asyncio.sleep(0.3)
        await cancel(slow)
        return len(exa.requests) - before

    assert asyncio.run(scenario()) == 0


def test_first_polls_are_spread(exa: StandIn) -> None:
    """A triggerer that starts again with many waits is no burst."""
    exa.add_run("mon_a")
    with use_timing(Timing(first_poll_jitter=1000)), pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(wait(), 0.3))
    assert exa.requests == []


def test_a_long_listing_is_read_whole_once_in_so_many_polls(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In between, where it shows the oldest runs first, a poll goes on from where the last one ended."""
    monkeypatch.setattr(poller, "POLLS_PER_RELISTING", 3)
    exa.order, exa.page_size = "oldest", 2
    for day in range(10):
        exa.add_run("mon_a", run_id=f"run_{day}", created_at=START.add(days=day))
    asset = Asset()

    async def scenario() -> None:
        with subscribe(asset, "exa_default", "websets", "mon_a"):
            await until(lambda: len(asset.snapshots) >= 7)

    asyncio.run(scenario())
    whole = [None, *(f"run_{day}" for day in range(1, 8, 2))]
    polls = [*([*whole, *whole[-2:], *whole[-2:]] * 2), *whole]
    assert [request.query.get("cursor") for request in exa.requests][: len(polls)] == polls
    assert all(len(snapshot.runs) == 10 for snapshot in asset.snapshots)


# --- intervals that grow --------------------------------------------------------------------------


@contextmanager
def subscribed(interval: float, max_interval: float) -> Iterator[RunWaiter]:
    """Let a waiter of which the interval grows take part in the polls of ``mon_a``."""
    waiter = RunWaiter(Progress("mon_a", NEVER, START, has_answered=True), interval, max_interval)
    with subscribe(waiter, "exa_default", "websets", "mon_a"):
        yield waiter


@pytest.mark.parametrize("fault", [None, Fault(times=None)], ids=["no run", "trouble"])
def test_an_interval_that_may_grow_doubles_with_each_poll(exa: StandIn, fault: Fault | None) -> None:
    """Up to its bound, whatever the poll showed."""
    if fault:
        exa.fail(fault)

    async def scenario() -> list[float]:
        intervals = []
        with subscribed(0.02, 0.15) as waiter:
            for number in range(1, 6):
                await until(lambda number=number: len(exa.requests) >= number and waiter._polled_at > 0)
                await asyncio.sleep(0.01)
                intervals.append(waiter.interval)
        return intervals

    intervals = asyncio.run(scenario())
    assert intervals == sorted(intervals)
    assert set(intervals) <= {0.02, 0.04, 0.08, 0.15}
    assert intervals[-1] == 0.15


def test_an_interval_that_may_not_grow_stays(exa: StandIn) -> None:
    """Also where its bound is below it."""

    async def scenario() -> set[float]:
        with subscribed(0.05, 0.01) as waiter:
            await until(lambda: len(exa.requests) >= 4)
            return {waiter.interval}

    assert asyncio.run(scenario()) == {0.05}


def test_an_interval_doubles_only_after_it_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly, as a poll may be a little early; what others have polled for meanwhile does not count."""
    waiter = RunWaiter(Progress("mon_a", NEVER, START, has_answered=True), 10, 50)
    intervals = {}
    for now in (5, 6, 22.9, 23, 58.9, 59, 200):
        monkeypatch.setattr(
            "airflow_provider_exa.waiting.waiter.time", SimpleNamespace(monotonic=lambda now=now: now)
        )
        waiter.on_error(ExaTransientError("no answer"))
        intervals[now] = waiter.interval
    assert intervals == {5: 20, 6: 20, 22.9: 20, 23: 40, 58.9: 40, 59: 50, 200: 50}


def test_the_polls_of_others_do_not_double_an_interval(exa: StandIn) -> None:
    """It grows at its own polls only, or a hurried wait would bring it to days."""

    async def scenario() -> tuple[float, float]:
        with subscribed(30, 3600) as slow, subscribed(0.02, 0.02) as fast:
            await until(lambda: len(exa.requests) >= 10)
            return slow.interval, fast.interval

    assert asyncio.run(scenario()) == (60, 0.02)


# --- trouble of one is no trouble of all ----------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(status=200, body=b"{}", times=None, path="run_odd"), ExaBadAnswerError),
        (Fault(status=503, times=None, path="run_odd"), ExaTransientError),
        (Fault(kind="hang", times=None, path="run_odd"), ExaTransientError),
    ],
    ids=["unreadable", "503", "hang"],
)
def test_trouble_with_one_run_holds_up_only_the_wait_for_it(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, fault: Fault, error: type[ExaError]
) -> None:
    """It is waited out, while the others, one of which is for an unknown run, have long ended."""
    monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection(retries=0, timeout=4))
    exa.page_size = 1
    for run_id in ("run_odd", "run_1"):
        exa.add_run("mon_a", run_id=run_id, status="running")
    exa.add_run("mon_a", run_id="run_2", status="running")
    exa.fail(fault)

    async def scenario() -> list[Any]:
        ids = ("nope", "run_odd", "run_1")
        unknown, odd, known = (
            asyncio.ensure_future(wait(selector=RunSelector(run_id=run_id))) for run_id in ids
        )
        await until(lambda: len(exa.requests) >= 5)
        exa.move("run_1", "completed")
        moved_at = time.monotonic()
        await until(known.done)
        await until(unknown.done)
        assert time.monotonic() - moved_at < 2
        assert not odd.done()
        exa.heal()
        exa.move("run_odd", "completed")
        return await asyncio.gather(unknown, odd, known, return_exceptions=True)

    unknown, odd, known = asyncio.run(scenario())
    assert isinstance(unknown, ExaPermanentError)
    assert "404" in str(unknown)
    assert (odd.id, known.id) == ("run_odd", "run_1")
    assert issubclass(error, ExaTransientError)


@pytest.mark.parametrize("status", [403, 500])
def test_a_listing_that_fails_holds_up_no_wait_for_a_run(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """Such a wait would have been answered alone."""
    exa.add_run("mon_a", run_id="run_1")
    fault, asset = Fault(status=status), Asset()
    monkeypatch.setattr(exa, "next_fault", lambda path: fault if path.endswith("/runs") else None)

    async def scenario() -> list[Any]:
        with subscribe(asset, "exa_default", "websets", "mon_a"):
            listed = asyncio.ensure_future(wait(selector=SINCE))
            run = await wait(selector=RUN)
            await until(lambda: asset.errors)
            if status == 403:
                return [run, *await asyncio.gather(listed, return_exceptions=True)]
            assert not listed.done()
            await cancel(listed)
            return [run]

    run, *errors = asyncio.run(scenario())
    assert run.id == "run_1"
    assert [type(error) for error in errors] == [ExaPermanentError] * (status == 403)
    assert asset.snapshots == []
    assert f"answered {status}" in str(asset.errors[0])
    assert nothing_is_left()


def test_a_listing_that_is_slow_holds_up_no_wait_for_a_run(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is asked for beside the listing once that takes too long."""
    monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection(retries=4, timeout=6))
    exa.add_run("mon_a", run_id="run_1")
    monkeypatch.setattr(
        exa, "next_fault", lambda path: Fault(kind="hang") if path.endswith("/runs") else None
    )

    async def scenario() -> None:
        with subscribe(Asset(), "exa_default", "websets", "mon_a"):
            began = time.monotonic()
            assert (await wait(selector=RUN)).id == "run_1"
            assert time.monotonic() - began < 3

    with use_timing(Timing(first_poll_jitter=0, listing_patience=0.1)):
        asyncio.run(scenario())
    assert nothing_is_left()


def test_a_monitor_that_is_gone_is_news_to_assets_alone(exa: StandIn) -> None:
    """A wait has seen that it was there; until its timeout it may come back."""
    asset = Asset()

    async def scenario() -> None:
        with subscribe(asset, "exa_default", "websets", "mon_none"):
            waiting = asyncio.ensure_future(wait("mon_none"))
            await until(lambda: len(asset.errors) >= 3)
            assert not waiting.done()
            exa.add_run("mon_none", run_id="run_1")
            assert (await waiting).id == "run_1"
            await until(lambda: asset.snapshots)

    asyncio.run(scenario())
    assert all("404" in str(error) for error in asset.errors)
    assert {run_id for snapshot in asset.snapshots for run_id in snapshot.runs} == {"run_1"}
    assert nothing_is_left()


def test_an_asset_asks_for_its_monitor_until_it_is_known_to_be_there(exa: StandIn) -> None:
    """Once, then."""
    asset = Asset()

    async def scenario() -> None:
        with subscribe(asset, "exa_default", "websets", "mon_a"):
            await until(lambda: len(asset.snapshots) >= 4)

    asyncio.run(scenario())
    assert paths(exa)[:2] == ["/mon_a/runs", "/mon_a"]
    assert paths(exa).count("/mon_a") == 1


@pytest.mark.parametrize(
    "fault",
    [None, Fault(status=503, times=None, path=WEBSET), Fault(status=404, times=None, path=WEBSET)],
    ids=["busy", "503", "404"],
)
def test_a_webset_holds_up_only_the_waits_for_it(exa: StandIn, fault: Fault | None) -> None:
    """A wait only for the run has it at once; the others when the webset is idle, or its error."""
    exa.add_monitor("mon_a", webset_status="running")
    exa.add_run("mon_a", run_id="run_1", status="running")

    async def scenario() -> list[Any]:
        plain = asyncio.gather(*(wait(selector=selector) for selector in (RUN, SINCE)))
        idle = asyncio.gather(
            *(wait(selector=replace(selector, idle=True)) for selector in (RUN, SINCE)),
            return_exceptions=True,
        )
        await until(lambda: exa.requests)
        if fault:
            exa.fail(fault)
        exa.move("run_1", "completed")
        assert [run.status for run in await plain] == ["completed"] * 2
        before = len(exa.requests)
        await until(lambda: idle.done() or len(exa.requests) >= before + 6)
        assert idle.done() is bool(fault and fault.status == 404)
        exa.heal()
        exa.set_webset_status("mon_a", "idle")
        return await idle

    ended = asyncio.run(scenario())
    if fault and fault.status == 404:
        assert [type(each) for each in ended] == [ExaPermanentError] * 2
    else:
        assert [run.status for run in ended] == ["completed"] * 2
    if not fault:
        assert paths(exa).count("/mon_a") == 1
    assert nothing_is_left()


def test_a_cancelled_wait_harms_no_other(exa: StandIn) -> None:
    """A task that is cleared leaves the poll to the rest; the last one ends it."""
    exa.add_run("mon_a", run_id="run_1", status="running")

    async def scenario() -> None:
        first, second = asyncio.ensure_future(wait()), asyncio.ensure_future(wait())
        await until(lambda: exa.requests)
        await cancel(first)
        exa.move("run_1", "completed")
        assert (await second).status == "completed"
        assert nothing_is_left()
        third = asyncio.ensure_future(wait(selector=NEVER))
        await until(lambda: poller._pollers)
        await cancel(third)
        assert nothing_is_left()

    asyncio.run(scenario())


# --- trouble of all -------------------------------------------------------------------------------


def test_trouble_is_waited_out(exa: StandIn) -> None:
    """Every wait has polled once in its worker, so Exa may be down when the triggerer goes on with it."""
    exa.add_run("mon_a", run_id="run_1")
    exa.fail(Fault(times=3))

    async def scenario() -> list[MonitorRun]:
        return await asyncio.gather(wait(), wait(selector=RUN))

    assert [run.status for run in asyncio.run(scenario())] == ["completed"] * 2


def test_a_bad_key_ends_all_waits_at_once(exa: StandIn) -> None:
    """Exa's own words reach each, however it selects its run."""
    exa.api_key = "a-new-key-5678"

    async def scenario() -> list[Any]:
        waits = [wait("mon_a"), wait("mon_b"), wait("mon_a", RUN), wait("mon_a", NEVER)]
        return await asyncio.gather(*waits, return_exceptions=True)

    errors = asyncio.run(scenario())
    assert [type(each) for each in errors] == [ExaPermanentError] * 4
    assert all("401" in str(each) and "Invalid API key" in str(each) for each in errors)
    assert nothing_is_left()


def test_the_last_subscriber_ends_the_threads_of_the_client(exa: StandIn) -> None:
    """Each connection has its own, and a triggerer runs for months."""

    async def scenario() -> None:
        with subscribe(Asset(), "exa_default", "websets", "mon_a") as shared:
            threads = shared.client._threads._threads
            await until(lambda: threads and exa.requests)
        await until(lambda: not any(thread.is_alive() for thread in threads))

    asyncio.run(scenario())


def test_an_unknown_api_leaves_nothing_behind() -> None:
    """No client for the connection of a wait that never polled."""
    with pytest.raises(ExaInputError, match="api='nope'"):
        asyncio.run(wait(api="nope"))
    assert nothing_is_left()


def test_an_id_that_cannot_be_one_ends_the_waits_for_that_monitor_alone(exa: StandIn) -> None:
    """No request is sent for it."""
    exa.add_run("mon_a")

    async def scenario() -> list[Any]:
        return await asyncio.gather(wait(".."), wait("mon_a"), return_exceptions=True)

    error, run = asyncio.run(scenario())
    assert isinstance(error, ExaInputError)
    assert run.status == "completed"


def test_a_crash_of_the_poll_reaches_every_wait(exa: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug must not leave waits hanging; and one that comes later gets a poller anew."""

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise ZeroDivisionError("a bug")

    async def scenario() -> list[Any]:
        with monkeypatch.context() as patch:
            patch.setattr(poller, "take_listing", broken)
            crashed = await asyncio.gather(wait(), wait(), return_exceptions=True)
        exa.add_run("mon_a", status="completed")
        return [*crashed, (await wait()).status]

    first, second, third = asyncio.run(scenario())
    assert isinstance(first, ZeroDivisionError)
    assert isinstance(second, ZeroDivisionError)
    assert third == "completed"
    assert nothing_is_left()


def test_a_subscriber_that_crashes_takes_no_other_with_it(exa: StandIn) -> None:
    """It is told of its own crash, and the waits beside it go on."""
    exa.add_run("mon_a", run_id="run_1", status="running")
    crash = ZeroDivisionError("a bug")
    asset = Asset(broken=crash)

    async def scenario() -> MonitorRun:
        with subscribe(asset, "exa_default", "websets", "mon_a"):
            waiting = asyncio.ensure_future(wait())
            await until(lambda: asset.errors)
            exa.move("run_1", "completed")
            return await waiting

    assert asyncio.run(scenario()).id == "run_1"
    assert set(asset.errors) == {crash}
    assert nothing_is_left()


# --- a run that is missing ------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2])
def test_a_run_that_is_missing_is_asked_for_again_before_it_is_believed(exa: StandIn, times: int) -> None:
    """A single 404 may be a slip of Exa's."""
    exa.add_run("mon_a", run_id="run_1", status="running")

    async def scenario() -> MonitorRun:
        waiting = asyncio.ensure_future(wait(selector=RUN))
        await until(lambda: exa.requests)
        exa.fail(Fault(status=404, times=times, path="run_1"))
        await until(lambda: waiting.done() or [request.status for request in exa.requests[-2:]] == [404, 200])
        exa.move("run_1", "completed")
        return await waiting

    if times == 1:
        assert asyncio.run(scenario()).status == "completed"
    else:
        with pytest.raises(ExaPermanentError, match="404"):
            asyncio.run(scenario())
    assert sum(request.status == 404 for request in exa.requests) == times


def test_a_run_that_is_missing_is_asked_for_again_however_long_that_takes(exa: StandIn) -> None:
    """A line that is due again between two polls is no second answer."""
    exa.add_run("mon_a", run_id="run_1")
    exa.fail(Fault(status=404, times=1, path="run_1"))
    with use_timing(Timing(first_poll_jitter=0, min_poll_interval=0.01, repeat_log_after=0.05)):
        assert asyncio.run(wait(selector=RUN, interval=0.5)).id == "run_1"
    assert [request.status for request in exa.requests] == [404, 200]


def test_a_permanent_error_after_a_404_ends_the_wait_at_once(exa: StandIn) -> None:
    """It is news, although it is of the same class."""
    exa.add_run("mon_a", run_id="run_1")
    exa.fail(Fault(status=404, times=1, path="run_1"))
    exa.fail(Fault(status=403, times=None, path="run_1"))
    with pytest.raises(ExaPermanentError, match="403"):
        asyncio.run(asyncio.wait_for(wait(selector=RUN), 5))


# --- lines and ends -------------------------------------------------------------------------------


def test_a_wait_says_what_its_webset_is(exa: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    """Each change is news, or the log would show a completed run that is waited for without a word."""
    caplog.set_level(logging.INFO, LOG.name)
    exa.add_monitor("mon_a", webset_status="running")
    exa.add_run("mon_a", run_id="run_1")

    async def scenario() -> None:
        waiting = asyncio.ensure_future(wait(selector=replace(RUN, idle=True)))
        for status, then in (("running", "pending"), ("pending", "idle")):
            await until(lambda status=status: f"its webset is {status}" in caplog.text)
            exa.set_webset_status("mon_a", then)
        await waiting

    asyncio.run(scenario())
    lines = [record.getMessage() for record in caplog.records if record.name == LOG.name]
    assert [line.partition(" (")[0] for line in lines] == [
        f"Run run_1 completed{busy}" for busy in (", its webset is running", ", its webset is pending", "")
    ]


def test_a_wait_without_news_says_so_again(exa: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    """Also where no poll comes for as long."""
    caplog.set_level(logging.INFO, LOG.name)
    exa.add_run("mon_a", run_id="run_1", status="running")

    async def scenario() -> None:
        waiting = asyncio.ensure_future(wait(interval=3600))
        await until(lambda: caplog.text.count("Run run_1 is running") >= 3)
        await cancel(waiting)

    with use_timing(Timing(first_poll_jitter=0, min_poll_interval=0.01, repeat_log_after=0.05)):
        asyncio.run(scenario())
    assert len(exa.requests) == 1


def test_each_wait_logs_in_its_own_task_and_the_poll_in_none(exa: StandIn) -> None:
    """Airflow's triggerer tells by a context variable to which task's log a line belongs."""
    exa.add_run("mon_a", run_id="run_1", status="dreaming")  # a warning of the package's, but of no task
    task: ContextVar[str | None] = ContextVar("task", default=None)
    lines: list[tuple[str, str | None]] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append((record.name, task.get()))

    async def one(name: str) -> None:
        task.set(name)
        await wait()

    async def scenario() -> None:
        waits = asyncio.gather(one("first"), one("second"))
        await until(lambda: len(exa.requests) >= 2)
        exa.move("run_1", "completed")
        await waits

    handler = Collect()
    loggers = [LOG, logging.getLogger("airflow_provider_exa.protocol")]
    LOG.setLevel(logging.INFO)
    for logger in loggers:
        logger.addHandler(handler)
    try:
        asyncio.run(scenario())
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    assert {owner for name, owner in lines if name == LOG.name} == {"first", "second"}
    assert {owner for name, owner in lines if name != LOG.name} == {None}


def test_a_request_that_hangs_holds_up_neither_the_loop_nor_its_end(
    exa: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Cancelled amid a request, a wait is over at once, and nothing is logged about that request."""
    monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection(timeout=1, retries=0))
    exa.fail(Fault(kind="hang", times=None))

    async def scenario() -> float:
        waiting = asyncio.ensure_future(wait())
        await until(lambda: exa.requests)
        start = time.monotonic()
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        took = time.monotonic() - start
        await asyncio.sleep(1.5)  # until the thread has given up
        gc.collect()
        return took

    assert asyncio.run(scenario()) < 0.5
    assert [record for record in caplog.records if record.name != "airflow_provider_exa.standin"] == []
    assert "never retrieved" not in capfd.readouterr().err


# --- several waits --------------------------------------------------------------------------------


def wait_for_several(selectors: dict[str, RunSelector], runs: dict[str, Any], needed: int) -> dict[str, Any]:
    """Wait for runs of several monitors, of which some have ended before."""
    total = len(selectors) + len(runs)
    return asyncio.run(
        wait_for_runs(
            [
                Progress(monitor_id, selector, pendulum.now("UTC"), has_answered=True)
                for monitor_id, selector in selectors.items()
            ],
            runs,
            lambda ended: is_decided(ended, fail_on=("failed", "canceled"), needed=needed, total=total),
            conn_id="exa_default",
            api="websets",
            interval=0.05,
            max_interval=0.05,
            log=LOG,
        )
    )


@pytest.mark.parametrize(
    ("statuses", "needed", "ended"),
    [
        (("completed", "completed"), 2, {"mon_0", "mon_1"}),
        (("completed", "running"), 1, {"mon_0"}),
        (("failed", "running"), 2, {"mon_0"}),
        (("failed", "canceled"), 1, {"mon_0", "mon_1"}),
    ],
)
def test_waiting_for_several_ends_when_it_is_decided(
    exa: StandIn, statuses: tuple[str, ...], needed: int, ended: set[str]
) -> None:
    """As soon as enough runs have ended well, or too many badly for that."""
    selectors = {f"mon_{number}": SINCE for number in range(len(statuses))}
    for monitor, status in zip(selectors, statuses, strict=True):
        exa.add_run(monitor, status=status)
    assert set(wait_for_several(selectors, {}, needed)) == ended
    assert nothing_is_left()


async def wait_for_all(*monitor_ids: str) -> dict[str, Any]:
    """Wait for a run of each monitor, whatever the first of them decide."""
    return await wait_for_runs(
        [Progress(each, SINCE, pendulum.now("UTC"), has_answered=True) for each in monitor_ids],
        {},
        lambda ended: False,
        conn_id="exa_default",
        api="websets",
        interval=0.05,
        max_interval=0.05,
        log=LOG,
    )


@pytest.mark.parametrize(("monitor_ids", "tasks"), [(["mon_a"], 3), (["mon_a", "mon_b"], 6)])
def test_a_wait_for_one_monitor_has_no_task_of_its_own(
    exa: StandIn, monitor_ids: list[str], tasks: int
) -> None:
    """Thousands of waits may be in a triggerer, and most are for one; each monitor's polls have a task."""

    async def scenario() -> int:
        waiting = asyncio.ensure_future(wait_for_all(*monitor_ids))
        await until(lambda: len(exa.requests) >= 4)
        count = len(asyncio.all_tasks())
        await cancel(waiting)
        return count

    assert asyncio.run(scenario()) == tasks


def test_a_wait_for_several_ends_with_the_last_of_them(exa: StandIn) -> None:
    """Also where they decide nothing before."""
    for monitor_id in ("mon_0", "mon_1"):
        exa.add_run(monitor_id)
    assert asyncio.run(wait_for_all("mon_0", "mon_1")).keys() == {"mon_0", "mon_1"}


def test_runs_that_have_ended_before_count(exa: StandIn) -> None:
    """Where they decide it, nothing is polled any more."""
    exa.add_run("mon_1", run_id="run_1")
    before = {"mon_0": {"id": "run_0", "status": "completed"}}
    assert wait_for_several({"mon_1": SINCE}, before, needed=1) == before
    assert exa.requests == []
    ended = wait_for_several({"mon_1": SINCE}, before, needed=2)
    assert {monitor_id: run["id"] for monitor_id, run in ended.items()} == {
        "mon_0": "run_0",
        "mon_1": "run_1",
    }


def test_an_error_of_one_wait_ends_the_wait_for_several(exa: StandIn) -> None:
    """The others are cancelled, and leave nothing."""
    exa.add_run("mon_0", status="running")
    with pytest.raises(ExaPermanentError, match="404"):
        wait_for_several({"mon_0": SINCE, "mon_1": RUN}, {}, needed=1)
    assert nothing_is_left()
