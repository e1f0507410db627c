"""Waits that share a poll: what they cost Exa, and that none harms another."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pendulum
import pytest
from airflow.sdk import BaseHook

from airflow_provider_exa.client import async_client
from airflow_provider_exa.protocol.errors import (
    ExaBadAnswerError,
    ExaInputError,
    ExaPermanentError,
    ExaTransientError,
)
from airflow_provider_exa.protocol.models import MonitorRun
from airflow_provider_exa.standin import Fault, StandIn
from airflow_provider_exa.waiting import poller
from airflow_provider_exa.waiting.poller import wait_for_run, wait_for_runs
from airflow_provider_exa.waiting.progress import Progress
from airflow_provider_exa.waiting.selection import RunSelector

LOG = logging.getLogger("a task")
SINCE = RunSelector(created_after=pendulum.datetime(2026, 1, 1))


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller, "JITTER", 0)
    monkeypatch.setattr(async_client, "REQUESTS_PER_WINDOW", 1000)


async def wait(
    monitor_id: str = "mon_a",
    choice: RunSelector = SINCE,
    *,
    interval: float = 0.05,
    conn_id: str = "exa_default",
    api: str = "websets",
    looked: bool = False,
    progress: Progress | None = None,
) -> MonitorRun:
    run, ended = await wait_for_run(
        monitor_id,
        choice,
        progress or Progress(pendulum.now("UTC"), looked=looked),
        conn_id=conn_id,
        api=api,
        interval=interval,
        max_interval=interval,
        log=LOG,
    )
    assert ended
    return run


async def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def nothing_is_left() -> bool:
    return not poller._pollers and not poller._clients


def paths(exa: StandIn) -> list[str]:
    """The path of each request, below that of the team's monitors."""
    return [request.path.removeprefix("/websets/v0/monitors") for request in exa.requests]


def test_many_waits_on_a_monitor_share_its_polls(exa: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred waits ask as often as one, over one connection that is read once; they end together."""
    reads: list[str] = []
    read = BaseHook.aget_connection

    async def counted(conn_id: str) -> Any:
        reads.append(conn_id)
        return await read(conn_id)

    monkeypatch.setattr(BaseHook, "aget_connection", counted)
    exa.add_run("mon_a", run_id="run_1", status="running")

    async def scenario() -> list[MonitorRun]:
        waits = asyncio.gather(*(wait(interval=0.2) for _ in range(100)))
        await until(lambda: len(exa.requests) >= 3)
        exa.move("run_1", "completed")
        return await waits

    runs = asyncio.run(scenario())
    assert {(run.id, run.status) for run in runs} == {("run_1", "completed")}
    assert len(exa.requests) < 10
    assert [path for path in paths(exa) if "/runs" not in path] == [""]
    assert exa.connections == 1
    assert reads == ["exa_default"]
    assert nothing_is_left()


def test_each_wait_gets_its_own_run(exa: StandIn) -> None:
    """One listing answers for whatever moment each waits from, and for ids on its page."""
    start = pendulum.datetime(2026, 1, 1)
    for day in range(10):
        exa.add_run("mon_a", run_id=f"run_{day}", created_at=start.add(days=day))

    async def scenario() -> list[MonitorRun]:
        by_time = [RunSelector(created_after=start.add(days=day)) for day in range(10)]
        by_id = [RunSelector(run_id=f"run_{day}") for day in range(10)]
        choices = [*by_time, *by_id, RunSelector(pick="latest")]
        return await asyncio.gather(*(wait(choice=choice, interval=3600) for choice in choices))

    ids = [run.id for run in asyncio.run(scenario())]
    assert ids == [f"run_{day}" for day in range(10)] * 2 + ["run_9"]
    assert paths(exa) == ["/mon_a/runs", ""]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(status=200, body=b"{}", times=None, path="run_odd"), ExaBadAnswerError),
        (Fault(status=503, times=None, path="run_odd"), ExaTransientError),
    ],
    ids=["unreadable", "503"],
)
def test_trouble_with_one_run_concerns_only_the_waits_for_it(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, fault: Fault, error: type[Exception]
) -> None:
    """One that is unknown, and one whose answer cannot be had or read, leave the others alone."""
    monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection(retries=0))
    exa.page_size = 1
    for run_id in ("run_odd", "run_1"):
        exa.add_run("mon_a", run_id=run_id, status="running")
    exa.fail(fault)

    async def scenario() -> list[Any]:
        ids = ("nope", "run_odd", "run_1")
        waits = asyncio.gather(
            *(wait(choice=RunSelector(run_id=each)) for each in ids), return_exceptions=True
        )
        await until(lambda: len(exa.requests) >= 5)
        exa.move("run_1", "completed")
        return await waits

    unknown, odd, known = asyncio.run(scenario())
    assert isinstance(unknown, ExaPermanentError)
    assert type(odd) is error
    assert known.status == "completed"


WEBSET = "/websets/v0/websets/"


@pytest.mark.parametrize(
    "fault",
    [None, Fault(status=503, times=None, path=WEBSET), Fault(status=404, times=None, path=WEBSET)],
    ids=["busy", "503", "404"],
)
def test_a_webset_holds_up_only_the_waits_for_it(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, fault: Fault | None
) -> None:
    """Whoever waits only for the run has it at once; the others when the webset is idle, or its error."""
    monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection(retries=0))
    exa.add_monitor("mon_a", webset_status="running")
    exa.add_run("mon_a", run_id="run_1", status="running")

    async def scenario() -> list[Any]:
        choices = [RunSelector(run_id="run_1"), SINCE]
        plain = asyncio.gather(*(wait(choice=choice) for choice in choices))
        idle = asyncio.gather(
            *(wait(choice=replace(choice, idle=True)) for choice in choices), return_exceptions=True
        )
        await until(lambda: exa.requests)
        if fault:
            exa.fail(fault)
        exa.move("run_1", "completed")
        await until(plain.done)
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
        assert [path for path in paths(exa) if "/runs" not in path and WEBSET not in path] == ["/mon_a"]
    assert nothing_is_left()


def test_a_wait_says_what_its_webset_is(exa: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    """Each change is news, or the log would show a completed run that is waited for without a word."""
    caplog.set_level(logging.INFO, LOG.name)
    exa.add_monitor("mon_a", webset_status="running")
    exa.add_run("mon_a", run_id="run_1")

    async def scenario() -> None:
        waiting = asyncio.ensure_future(wait(choice=RunSelector(run_id="run_1", idle=True)))
        for status, then in (("running", "pending"), ("pending", "idle")):
            await until(lambda status=status: f"its webset {status}" in caplog.text)
            exa.set_webset_status("mon_a", then)
        await waiting

    asyncio.run(scenario())
    told = [
        each.getMessage().split(": ")[1].split(", after")[0]
        for each in caplog.records
        if each.name == LOG.name
    ]
    assert told == [
        f"run_1 is completed{busy}" for busy in (", and its webset running", ", and its webset pending", "")
    ]


def test_the_monitors_are_listed_once_for_all_links(exa: StandIn) -> None:
    """That costs a connection's waits one request, and one for a monitor that came later."""
    for monitor in ("mon_a", "mon_b"):
        exa.add_monitor(monitor, webset_id=f"webset_of_{monitor}")
        exa.add_run(monitor, run_id=f"run_of_{monitor}")

    async def webset_of(monitor: str, api: str = "websets") -> str | None:
        progress = Progress(pendulum.now("UTC"))
        await wait(
            monitor, RunSelector(run_id=f"run_of_{monitor}"), interval=3600, api=api, progress=progress
        )
        return progress.webset_id

    async def scenario() -> None:
        exa.add_run("mon_long", status="running")
        long = asyncio.ensure_future(wait("mon_long", interval=3600))
        await until(lambda: exa.requests)
        assert await webset_of("mon_a", api="search") is None
        assert await webset_of("mon_a") == "webset_of_mon_a"
        assert await webset_of("mon_b") == "webset_of_mon_b"
        exa.add_monitor("mon_c", webset_id="webset_of_mon_c")
        exa.add_run("mon_c", run_id="run_of_mon_c")
        assert [await webset_of("mon_c") for _ in range(2)] == ["webset_of_mon_c"] * 2
        long.cancel()
        await asyncio.gather(long, return_exceptions=True)

    asyncio.run(scenario())
    assert paths(exa) == [
        "/mon_long/runs",
        "/monitors/mon_a/runs/run_of_mon_a",  # of the other API
        "/mon_a/runs/run_of_mon_a",
        "",
        "/mon_b/runs/run_of_mon_b",
        "/mon_c/runs/run_of_mon_c",
        "/mon_c",
        "/mon_c/runs/run_of_mon_c",
    ]


@pytest.mark.parametrize(
    "fault", [Fault(status=503), Fault(status=429), Fault(status=401), Fault(kind="html"), Fault(kind="hang")]
)
def test_a_link_is_not_waited_for(exa: StandIn, monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    """Where the monitors cannot be listed at once the run is returned without, and nobody asks again."""
    monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection(timeout=0.3))
    exa.add_run("mon_a", run_id="run_1")
    exa.fail(replace(fault, times=None, path="/monitors?"))
    progress = [Progress(pendulum.now("UTC")) for _ in range(3)]

    async def scenario() -> float:
        began = time.monotonic()
        await asyncio.gather(*(wait(interval=3600, progress=each) for each in progress))
        return time.monotonic() - began

    assert asyncio.run(scenario()) < 1
    assert paths(exa) == ["/mon_a/runs", ""]
    assert [each.webset_id for each in progress] == [None] * 3


def test_a_cancelled_wait_harms_no_other(exa: StandIn) -> None:
    """A task that is cleared leaves the poll to the rest; the last one ends it."""
    exa.add_run("mon_a", run_id="run_1", status="running")

    async def scenario() -> None:
        first, second = asyncio.ensure_future(wait()), asyncio.ensure_future(wait())
        await until(lambda: exa.requests)
        first.cancel()
        exa.move("run_1", "completed")
        assert (await second).status == "completed"
        third = asyncio.ensure_future(wait(choice=RunSelector(created_after=pendulum.datetime(2999, 1, 1))))
        await until(lambda: poller._pollers)
        third.cancel()
        with suppress(asyncio.CancelledError):
            await third
        assert nothing_is_left()

    asyncio.run(scenario())


def test_the_shortest_interval_counts(exa: StandIn) -> None:
    """Who is in a hurry sets the pace for all, also where it joins a slow poll."""
    exa.add_run("mon_a", run_id="run_1", status="running")

    async def scenario() -> None:
        slow = asyncio.ensure_future(wait(interval=3600))
        await until(lambda: len(exa.requests) == 1)
        fast = asyncio.ensure_future(wait())
        await until(lambda: len(exa.requests) >= 4)
        exa.move("run_1", "completed")
        assert [(await each).status for each in (slow, fast)] == ["completed"] * 2

    asyncio.run(scenario())


def test_an_interval_that_may_grow_doubles(exa: StandIn) -> None:
    """What exponential_backoff and max_wait of a sensor mean in the triggerer."""
    waiter = poller.RunWaiter(SINCE, interval=10, max_interval=60)
    intervals = []
    for _ in range(4):
        waiter.tell(None)
        intervals.append(waiter.interval)
    assert intervals == [20, 40, 60, 60]


def test_a_429_pauses_every_poll_of_the_connection(exa: StandIn) -> None:
    """The limit is the team's, so the monitor that met it is not alone to wait."""
    for monitor in ("mon_a", "mon_b"):
        exa.add_run(monitor, run_id=monitor, status="running")

    async def scenario() -> None:
        waits = asyncio.gather(wait("mon_a"), wait("mon_b"))
        await until(lambda: len(exa.requests) >= 4)
        exa.fail(Fault(status=429, retry_after="1", path="mon_a"))
        await until(lambda: any(each.status == 429 for each in exa.requests))
        for run in ("mon_a", "mon_b"):
            exa.move(run, "completed")
        await waits

    asyncio.run(scenario())
    (met,) = [each.at for each in exa.requests if each.status == 429]
    # A request may have been on its way when the other was answered.
    assert [each.path for each in exa.requests if met + 0.1 < each.at < met + 0.9] == []


def test_no_more_requests_than_the_pace_allows(exa: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many monitors are waited on, also right after a pause, no second has more than so many."""
    monkeypatch.setattr(async_client, "REQUESTS_PER_WINDOW", 5)
    monkeypatch.setattr(async_client, "WINDOW_SECONDS", 0.5)
    for number in range(12):
        exa.add_run(f"mon_{number}", status="completed")
    exa.fail(Fault(status=429, retry_after="1"))

    async def scenario() -> None:
        await asyncio.gather(*(wait(f"mon_{number}", interval=3600) for number in range(12)))

    asyncio.run(scenario())
    times = sorted(each.at for each in exa.requests)
    assert len(times) == 14  # the runs of each, one of them twice, and the monitors
    # The sixth after each is another window's; a request may take a moment to arrive.
    assert all(later - earlier > 0.4 for earlier, later in zip(times, times[5:], strict=False))


@pytest.mark.parametrize(("looked", "ends"), [(False, "fails"), (True, "goes on")])
def test_trouble_is_waited_out_but_for_the_first_look(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, looked: bool, ends: str
) -> None:
    """A wait that a restarted triggerer goes on with is no new one: Exa may be down just then."""
    monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection(retries=0))
    exa.add_run("mon_a", status="completed")
    exa.fail(Fault(times=3))
    if ends == "fails":
        with pytest.raises(ExaTransientError, match="answered 503"):
            asyncio.run(wait(looked=looked))
    else:
        assert asyncio.run(wait(looked=looked)).status == "completed"


def test_a_key_that_was_changed_in_the_connection_is_taken_up(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 401 is believed only after the connection was read anew."""
    exa.add_run("mon_a", run_id="run_1", status="running")

    async def scenario() -> MonitorRun:
        waiting = asyncio.ensure_future(wait())
        await until(lambda: exa.requests)
        exa.api_key = "a-new-key-5678"
        monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection())
        await until(lambda: any(each.status == 401 for each in exa.requests))
        exa.move("run_1", "completed")
        return await waiting

    assert asyncio.run(scenario()).status == "completed"
    assert sum(each.status == 401 for each in exa.requests) == 1


def test_a_bad_key_ends_all_waits_at_once(exa: StandIn) -> None:
    """Exa's own words reach each."""
    exa.api_key = "a-new-key-5678"

    async def scenario() -> list[Any]:
        return await asyncio.gather(
            *(wait(each) for each in ("mon_a", "mon_b", "mon_a")), return_exceptions=True
        )

    errors = asyncio.run(scenario())
    assert [type(each) for each in errors] == [ExaPermanentError] * 3
    assert all("401: 'Invalid API key'" in str(each) for each in errors)


def test_a_missing_connection_is_an_error_that_names_it() -> None:
    """Told like any other that asking again does not mend."""
    with pytest.raises(ExaInputError, match="no Airflow connection 'nowhere'"):
        asyncio.run(wait(conn_id="nowhere"))


def test_a_crash_of_the_poll_reaches_every_wait(exa: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug must not leave waits hanging; and who comes later gets a poll anew."""

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise ZeroDivisionError("a bug")

    async def scenario() -> list[Any]:
        with monkeypatch.context() as patch:
            patch.setattr(poller, "look", broken)
            crashed = await asyncio.gather(wait(), wait(), return_exceptions=True)
        exa.add_run("mon_a", status="completed")
        return [*crashed, (await wait()).status]

    first, second, third = asyncio.run(scenario())
    assert isinstance(first, ZeroDivisionError)
    assert isinstance(second, ZeroDivisionError)
    assert third == "completed"
    assert nothing_is_left()


def test_a_request_that_hangs_holds_up_neither_the_loop_nor_its_end(
    exa: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Cancelled amid a request, a wait is over at once, and nothing is logged about what was on its way."""
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


def test_no_thread_is_held_between_polls(exa: StandIn) -> None:
    """Waiting costs no thread; there are never more than the pool's sixteen."""
    for number in range(40):
        exa.add_run(f"mon_{number}", status="running")

    async def scenario() -> None:
        waits = [asyncio.ensure_future(wait(f"mon_{number}", interval=3600)) for number in range(40)]
        await until(lambda: len(exa.requests) == 40)
        await asyncio.sleep(0.1)
        assert sum(thread.name.startswith("exa") for thread in threading.enumerate()) <= 16
        for each in waits:
            each.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    asyncio.run(scenario())


def test_each_wait_logs_in_its_own_task_and_the_poll_in_none(exa: StandIn) -> None:
    """Airflow's triggerer tells by a context variable whose log a line belongs to."""
    exa.add_run("mon_a", run_id="run_1", status="running")
    exa.fail(Fault(status=500, times=1, path="run_1"))
    lines: list[tuple[str | None, str]] = []
    from contextvars import ContextVar

    task: ContextVar[str | None] = ContextVar("task", default=None)

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append((task.get(), record.getMessage()))

    async def one(name: str) -> None:
        task.set(name)
        await wait()

    async def scenario() -> None:
        waits = asyncio.gather(one("first"), one("second"))
        await until(lambda: any(each.status == 500 for each in exa.requests))
        exa.move("run_1", "completed")
        await waits

    handler = Collect()
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    transport = logging.getLogger("airflow_provider_exa.client.transport")
    transport.addHandler(handler)
    try:
        asyncio.run(scenario())
    finally:
        LOG.removeHandler(handler)
        transport.removeHandler(handler)
    assert {name for name, line in lines if "run_1 is completed" in line} == {"first", "second"}
    assert {name for name, line in lines if "Asking again" in line} == {None}


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
    choices = {f"mon_{number}": SINCE for number in range(len(statuses))}
    for monitor, status in zip(choices, statuses, strict=True):
        exa.add_run(monitor, status=status)

    def enough(runs: Any) -> bool:
        failed = sum(run["status"] in ("failed", "canceled") for run in runs)
        return len(runs) - failed >= needed or failed > len(statuses) - needed

    runs = asyncio.run(
        wait_for_runs(
            choices,
            Progress(pendulum.now("UTC")),
            enough=enough,
            conn_id="exa_default",
            api="websets",
            interval=0.05,
            max_interval=0.05,
            log=LOG,
        )
    )
    assert set(runs) == ended
    assert nothing_is_left()
