"""The client of the triggerer: its threads, its rate as a server counts it, and its connection."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.sdk import BaseHook

from airflow_provider_exa.client.async_client import AsyncClient
from airflow_provider_exa.client.rate_limit import REQUESTS_PER_WINDOW
from airflow_provider_exa.client.transport import POOL_SIZE
from airflow_provider_exa.protocol.errors import (
    ExaError,
    ExaInputError,
    ExaPermanentError,
    ExaTransientError,
)
from airflow_provider_exa.protocol.messages import Request, ask
from airflow_provider_exa.standin import Fault, StandIn
from airflow_provider_exa.timing import Timing, use_timing
from tests.client.conftest import RENEWALS_THAT_FAIL, Speaker, Wire, beside, monitor
from tests.client.test_faults import answer

KEY = "standin-key-1234"

Connect = Callable[..., str]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Makes a connection, or changes it."""

    def connect(conn_id: str, host: str, password: str = KEY, **extra: Any) -> str:
        connection = {"conn_type": "exa", "host": host, "password": password, "extra": extra}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
        return conn_id

    return connect


def run(
    scenario: Callable[[AsyncClient], Awaitable[Any]], conn_id: str = "exa_default", **timing: float
) -> Any:
    """Run a scenario with a new client; a test that is not about the pace has none."""

    async def main() -> Any:
        with closing(AsyncClient(conn_id)) as client:
            return await scenario(client)

    with use_timing(Timing(**{"rate_limit_window": 0.0} | timing)):
        return asyncio.run(main())


async def until(condition: Callable[[], object], seconds: float = 5) -> None:
    """Return when the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        await asyncio.sleep(0.005)


class Stalling:
    """A server that reads requests only while its gate is open, and notes when it has read each."""

    def __init__(self, wire: Callable[..., Wire]) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.times: list[float] = []
        self.server = wire(script=self._answer)
        handle = Speaker.handle

        def handle_behind_gate(speaker: Speaker) -> None:
            self.gate.wait()
            handle(speaker)

        self.server.RequestHandlerClass = type("Gated", (Speaker,), {"handle": handle_behind_gate})

    def _answer(self, speaker: Speaker) -> None:
        self.times.append(time.monotonic())
        speaker.say(answer(b'{"id": "mon_a"}', "Connection: close"))

    def busiest(self, window: float) -> int:
        """How many requests there were in the busiest window."""
        times = sorted(self.times)
        return max(bisect_left(times, start + window) - place for place, start in enumerate(times))


@pytest.fixture
def stalling(wire: Callable[..., Wire]) -> Iterator[Stalling]:
    """Such a server."""
    server = Stalling(wire)
    yield server
    server.gate.set()


# --- places and pace ------------------------------------------------------------------------------


def test_a_connection_that_hangs_delays_no_other(
    exa: StandIn, wire: Callable[..., Wire], connect: Connect
) -> None:
    """Each has threads of its own, and the one that hangs no more than its share."""
    hanging = wire(script=Speaker.hang)
    connect("exa_hangs", hanging.url)

    async def scenario(healthy: AsyncClient) -> None:
        with closing(AsyncClient("exa_hangs")) as stuck:
            waits = [asyncio.ensure_future(stuck.call(monitor(f"mon_{number}"))) for number in range(150)]
            await until(lambda: len(hanging.heads) == POOL_SIZE)
            began = time.monotonic()
            for _ in range(20):
                assert await healthy.call(monitor()) == "mon_a"
            assert time.monotonic() - began < 1
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            hanging.over.set()

    run(scenario)
    assert len(hanging.heads) == POOL_SIZE


def test_no_window_carries_more_after_a_server_has_stalled(stalling: Stalling, connect: Connect) -> None:
    """The requests that it finds then are counted, by the server, with those that are sent next."""
    connect("exa_stalls", stalling.server.url)
    window = 0.25

    async def scenario(client: AsyncClient) -> None:
        stalling.gate.clear()
        waits = asyncio.gather(*(client.call(monitor()) for _ in range(120)))
        await asyncio.sleep(4 * window)
        stalling.gate.set()
        await waits

    run(scenario, "exa_stalls", rate_limit_window=window * 1.05)
    assert len(stalling.times) == 120
    assert stalling.busiest(window) <= REQUESTS_PER_WINDOW


def test_no_window_carries_more_than_allowed(stalling: Stalling, connect: Connect) -> None:
    """As the server counts them, however many are waiting."""
    connect("exa_stalls", stalling.server.url)

    async def scenario(client: AsyncClient) -> None:
        await client.call(beside(monitor() for _ in range(90)))

    run(scenario, "exa_stalls", rate_limit_window=0.21)
    assert len(stalling.times) == 90
    assert stalling.busiest(0.2) <= REQUESTS_PER_WINDOW


def test_a_place_is_kept_to_the_end_of_its_thread(
    exa: StandIn, wire: Callable[..., Wire], connect: Connect
) -> None:
    """To cancel a wait does not end its request, so no other takes its place before that."""
    hanging = wire(script=Speaker.hang)
    connect("exa_hangs", hanging.url, timeout=0.5)

    async def scenario(client: AsyncClient) -> None:
        waits = [asyncio.ensure_future(client.call(monitor())) for _ in range(POOL_SIZE)]
        await until(lambda: len(hanging.heads) == POOL_SIZE)
        for wait in waits:
            wait.cancel()
        began = time.monotonic()
        waiting = asyncio.ensure_future(client.call(monitor()))
        await until(lambda: len(hanging.heads) > POOL_SIZE)
        assert time.monotonic() - began > 0.3
        waiting.cancel()
        await asyncio.gather(*waits, waiting, return_exceptions=True)

    run(scenario, "exa_hangs")


def test_waits_that_were_cancelled_cost_the_next_request_nothing(exa: StandIn) -> None:
    """Neither its place nor its turn."""

    async def scenario(client: AsyncClient) -> None:
        await client.call(monitor())
        waits = [asyncio.ensure_future(client.call(monitor())) for _ in range(1000)]
        await asyncio.sleep(0)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        await asyncio.sleep(0.25)
        sent = len(exa.requests)
        began = time.monotonic()
        await client.call(monitor())
        assert time.monotonic() - began < 0.15
        assert sent <= 1 + POOL_SIZE

    run(scenario, rate_limit_window=0.2)


def test_a_429_closes_the_connection_for_as_long_as_any_asked(exa: StandIn) -> None:
    """A second one, which does not say how long, does not open it."""
    exa.fail(Fault(status=429, retry_after="0.6", path="mon_1"))
    exa.fail(Fault(status=429, path="mon_2"))

    async def scenario(client: AsyncClient) -> None:
        await client.call(monitor())  # reads the connection
        await client.call(beside([monitor("mon_1"), monitor("mon_2")]))
        assert await client.call(monitor()) == "mon_a"

    run(scenario, default_pause=0.1)
    *_, first, second, third = exa.requests
    assert [first.status, second.status, third.status] == [429, 429, 200]
    assert third.at - min(first.at, second.at) >= 0.6


def test_an_announced_retry_comes_no_sooner(
    wire: Callable[..., Wire], connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """It is announced for when the connection opens, which another request's 429 has closed."""
    closed, times = threading.Event(), []

    def script(speaker: Speaker) -> None:
        if "mon_1" in speaker.head:
            speaker.say(b"HTTP/1.1 429 Slow\r\nRetry-After: 1.2\r\nContent-Length: 0\r\n\r\n")
            closed.set()
            return
        times.append(time.monotonic())
        if len(times) == 1:
            closed.wait()
            time.sleep(0.05)
            speaker.say(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
        else:
            speaker.say(answer(b'{"id": "mon_a"}'))

    connect("exa_a", wire(script=script).url)

    async def scenario(client: AsyncClient) -> None:
        waiting = asyncio.ensure_future(client.call(monitor()))
        await until(lambda: times)
        await client.call(beside([monitor("mon_1")]))
        assert await waiting == "mon_a"

    run(scenario, "exa_a")
    (told,) = [record.getMessage() for record in caplog.records if "Asking again" in record.getMessage()]
    announced = float(told.split("Asking again in ")[1].split(" s")[0])
    assert announced >= 1.0
    assert -0.1 < times[1] - times[0] - announced < 0.5


def test_calls_beside_each_other_are_sent_once_and_at_once(exa: StandIn) -> None:
    """An error is a value there, so that what one asks for does not fail another."""
    exa.add_monitor("mon_b")
    exa.fail(Fault(status=503, path="mon_b", times=None))

    async def scenario(client: AsyncClient) -> Any:
        return await client.call(beside([monitor("mon_b"), monitor("mon_none"), monitor("mon_b")]))

    results = run(scenario)
    assert [type(each) for each in results] == [ExaTransientError, ExaPermanentError, ExaTransientError]
    assert len(exa.requests) == 3


def test_log_lines_keep_the_context_of_the_call(exa: StandIn) -> None:
    """Airflow files them by it, also those of the sending thread."""
    task: ContextVar[str | None] = ContextVar("task", default=None)
    seen: list[str | None] = []

    def parse(body: Any) -> Any:
        seen.append(task.get())
        return body["id"]

    async def scenario(client: AsyncClient) -> None:
        task.set("mine")
        await client.call(ask(Request("/websets/v0/monitors/mon_a"), parse))

    run(scenario)
    assert seen == ["mine"]


def test_closing_waits_for_no_thread(wire: Callable[..., Wire], connect: Connect) -> None:
    """A triggerer that stops does not stand still for a server that hangs."""
    hanging = wire(script=Speaker.hang)
    connect("exa_hangs", hanging.url, timeout=20)

    async def scenario() -> float:
        client = AsyncClient("exa_hangs")
        waiting = asyncio.ensure_future(client.call(monitor()))
        await until(lambda: hanging.heads)
        waiting.cancel()
        began = time.monotonic()
        client.close()
        return time.monotonic() - began

    assert asyncio.run(scenario()) < 0.5
    hanging.over.set()


def test_the_timeout_of_the_connection_counts_up_to_a_bound(
    wire: Callable[..., Wire], connect: Connect
) -> None:
    """In the triggerer an answer has no more time than that."""
    connect("exa_hangs", wire(script=Speaker.hang).url, timeout=20, retries=0)

    async def scenario(client: AsyncClient) -> None:
        began = time.monotonic()
        with pytest.raises(ExaTransientError, match="ReadTimeout"):
            await client.call(monitor())
        assert 0.2 < time.monotonic() - began < 1.5

    run(scenario, "exa_hangs", max_triggerer_timeout=0.3)


# --- a connection that changes --------------------------------------------------------------------


CORRECTED: dict[str, Callable[[StandIn], dict[str, Any]]] = {
    "host": lambda exa: {"host": "http://127.0.0.1:9"},
    "key": lambda exa: {"host": exa.url, "password": "another-key-5678"},
    "proxy": lambda exa: {"host": exa.url, "proxy": "http://127.0.0.1:9"},
    "path": lambda exa: {"host": f"{exa.url}/nowhere"},
}


@pytest.mark.parametrize("wrong", CORRECTED)
def test_a_corrected_connection_is_taken_up(exa: StandIn, connect: Connect, wrong: str) -> None:
    """Before an error is called permanent, and soon where requests get no answer."""
    connect("exa_a", **{"retries": 0} | CORRECTED[wrong](exa))

    async def scenario(client: AsyncClient) -> None:
        with pytest.raises(ExaError):
            await client.call(monitor())
        connect("exa_a", exa.url)
        await asyncio.sleep(0.12)
        assert await client.call(monitor()) == "mon_a"

    run(scenario, "exa_a", refresh_after_failure=0.1)


def test_a_connection_in_use_is_read_anew_anyway(exa: StandIn, connect: Connect) -> None:
    """A changed one is in use after five minutes even where the old one works."""
    connect("exa_a", exa.url)
    with StandIn(api_key=exa.api_key) as other:
        other.add_monitor("mon_a")

        async def scenario(client: AsyncClient) -> None:
            await client.call(monitor())
            connect("exa_a", other.url)
            await client.call(monitor())
            await asyncio.sleep(0.25)
            await client.call(monitor())

        run(scenario, "exa_a", refresh_interval=0.2)
        assert (len(exa.requests), len(other.requests)) == (2, 1)


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The connections that were looked up."""
    read, looked_up = BaseHook.aget_connection, []

    async def counted(conn_id: str) -> Any:
        looked_up.append(conn_id)
        return await read(conn_id)

    monkeypatch.setattr(BaseHook, "aget_connection", counted)
    return looked_up


def test_a_connection_that_is_unchanged_is_read_seldom(exa: StandIn, lookups: list[str]) -> None:
    """Many requests without an answer make one lookup, and so do many refusals at once."""
    exa.fail(Fault(status=503, times=None))

    async def down(client: AsyncClient) -> None:
        for _ in range(3):
            await client.call(beside(monitor() for _ in range(10)))

    run(down)
    assert len(lookups) == 2  # the first, and one on account of the failures
    exa.heal()
    lookups.clear()
    exa.api_key = "another-key-5678"

    async def refused(client: AsyncClient) -> None:
        assert {type(each) for each in await client.call(beside(monitor() for _ in range(60)))} == {
            ExaPermanentError
        }

    run(refused)
    assert 2 <= len(lookups) < 60


def test_a_lookup_that_fails_for_a_moment_is_trouble(exa: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow says "not found" for any failure of a secrets backend."""
    connection = exa.connection()
    monkeypatch.delenv("AIRFLOW_CONN_EXA_DEFAULT")

    async def scenario(client: AsyncClient) -> None:
        with pytest.raises(
            ExaTransientError, match=r"^Airflow cannot look up connection 'exa_default'"
        ) as caught:
            await client.call(monitor())
        assert caught.value.__cause__ is not None
        monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", connection)
        assert await client.call(monitor()) == "mon_a"

    run(scenario)


@pytest.mark.parametrize("change", RENEWALS_THAT_FAIL)
def test_a_renewal_that_fails_keeps_the_settings_in_use(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    """It is warned about once, and the next answer is read as usual."""

    async def scenario(client: AsyncClient) -> None:
        await client.call(monitor())
        RENEWALS_THAT_FAIL[change](monkeypatch)
        for _ in range(2):
            with pytest.raises(ExaPermanentError):
                await client.call(monitor("mon_none"))
        assert await client.call(monitor()) == "mon_a"

    run(scenario)
    assert caplog.text.count("cannot be read anew") == 1


def test_a_connection_that_cannot_be_used_is_a_verdict(connect: Connect) -> None:
    """It was found, so to wait does not help."""
    connect("exa_a", "http://a b")
    with pytest.raises(ExaInputError, match="'exa_a' has an unusable host"):
        run(lambda client: client.call(monitor()), "exa_a")


def test_the_synchronous_lookup_is_the_second_try(exa: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """In dag.test() only that one sees the connections of Airflow's database."""

    async def finds_none(conn_id: str) -> Any:
        raise AirflowNotFoundException(conn_id)

    monkeypatch.setattr(BaseHook, "aget_connection", finds_none)
    assert run(lambda client: client.call(monitor())) == "mon_a"


def test_a_refused_post_is_sent_again_with_the_new_key_and_no_other(exa: StandIn, connect: Connect) -> None:
    """What Exa refused it has not done; what got no answer it may have."""
    trigger = Request("/monitors/mon_a/trigger", method="POST")
    connect("exa_a", exa.url, password="another-key-5678", retries=0)

    async def scenario(client: AsyncClient) -> None:
        with pytest.raises(ExaPermanentError):
            await client.call(monitor())
        connect("exa_a", exa.url, retries=0)
        await client.call(ask(trigger, dict))
        exa.fail(Fault(kind="reset"))
        connect("exa_a", exa.url, retries=1)
        with pytest.raises(ExaTransientError):
            await client.call(ask(trigger, dict))

    run(scenario, "exa_a")
    assert [each.method for each in exa.requests] == ["GET", "POST", "POST", "POST"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and trims with glibc")
def test_answers_that_are_too_large_leave_no_memory_behind(exa: StandIn) -> None:
    """Each thread that reads one would keep as much ever after, if it had held the answer in one block."""
    exa.fail(Fault(kind="huge", times=None))

    async def scenario(client: AsyncClient) -> None:
        await client.call(beside([monitor()]))
        before = megabytes()
        for _ in range(2):
            await client.call(beside(monitor() for _ in range(POOL_SIZE)))
        assert megabytes() - before < 5 * POOL_SIZE

    run(scenario)


def megabytes() -> float:
    """Return how much memory the process holds that it could not give back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
