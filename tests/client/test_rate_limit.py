"""The rate limit of a connection: what it lets through, when it is closed, and how it opens again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

from airflow_provider_exa.client.rate_limit import JITTER, REQUESTS_PER_WINDOW, RateLimit
from airflow_provider_exa.timing import Timing, use_timing

WINDOW = 0.2


def run(scenario: Callable[[RateLimit], Awaitable[None]], **timing: float) -> None:
    """Run a scenario with a new rate limit, whose window is short."""

    async def main() -> None:
        await scenario(RateLimit("exa_a"))

    with use_timing(Timing(**{"rate_limit_window": WINDOW} | timing)):
        asyncio.run(main())


async def used(limit: RateLimit, seconds: float = 0) -> float:
    """Take a turn for a request of so many seconds; return its moment."""
    moment = await limit.acquire()
    asyncio.get_running_loop().call_later(seconds, limit.release, moment)
    return moment


def test_no_window_has_more_turns_than_allowed() -> None:
    """They come in bursts, one for each window."""

    async def scenario(limit: RateLimit) -> None:
        times = await asyncio.gather(*(used(limit) for _ in range(3 * REQUESTS_PER_WINDOW)))
        gaps = [later - earlier for earlier, later in zip(times, times[REQUESTS_PER_WINDOW:], strict=False)]
        assert min(gaps) >= WINDOW
        assert times[-1] - times[0] < 3 * WINDOW

    run(scenario)


def test_a_request_counts_until_a_window_after_its_answer() -> None:
    """The server may have taken it in at any moment until then."""

    async def scenario(limit: RateLimit) -> None:
        first = await asyncio.gather(*(used(limit, 0.3) for _ in range(REQUESTS_PER_WINDOW)))
        assert await used(limit) >= first[0] + 0.3 + WINDOW

    run(scenario)


def test_turns_are_given_first_come_first_served() -> None:
    """A monitor is not overtaken by another for ever."""
    order: list[int] = []

    async def one(limit: RateLimit, number: int) -> None:
        await used(limit)
        order.append(number)

    async def scenario(limit: RateLimit) -> None:
        await asyncio.gather(*(one(limit, number) for number in range(50)))

    run(scenario)
    assert order == list(range(50))


def test_a_thousand_cancelled_waits_cost_nothing() -> None:
    """A turn that was not given is not taken."""

    async def scenario(limit: RateLimit) -> None:
        limit.close_for(0.05, 0)
        waits = [asyncio.ensure_future(limit.acquire()) for _ in range(1000)]
        await asyncio.sleep(0)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        await asyncio.sleep(limit.closed_for())
        began = time.monotonic()
        await used(limit)
        assert time.monotonic() - began < 0.05

    run(scenario)


def test_a_turn_that_is_given_to_a_cancelled_wait_goes_to_the_next() -> None:
    """The wait was cancelled when its turn had come, and before it could know."""

    async def scenario(limit: RateLimit) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(REQUESTS_PER_WINDOW):
            await limit.acquire()
        for _ in range(1000):
            waiting = asyncio.ensure_future(limit.acquire())
            await asyncio.sleep(0)
            loop.call_soon(limit._give_back)
            loop.call_soon(waiting.cancel)
            await asyncio.gather(waiting, return_exceptions=True)
            assert waiting.cancelled()
            await limit.acquire()

    run(scenario)


def test_the_longest_pause_that_was_asked_for_counts() -> None:
    """A 429 that does not say how long, or says less, does not shorten it."""

    async def scenario(limit: RateLimit) -> None:
        limit.close_for(30, 0)
        limit.close_for(None, 0)
        limit.close_for(1, 0)
        assert 29.9 < limit.closed_for() <= 30 * (1 + JITTER)

    run(scenario)


@pytest.mark.parametrize(("asked", "least"), [(None, 5), (0, 5), (7, 7), (3600, 60), (float("inf"), 60)])
def test_a_pause_is_as_asked_up_to_a_bound(asked: float | None, least: float) -> None:
    """Where Exa does not say it, it is the package's own."""

    async def scenario(limit: RateLimit) -> None:
        limit.close_for(asked, 0)
        assert least - 0.1 < limit.closed_for() <= least * (1 + JITTER)

    run(scenario)


def test_after_a_pause_the_rate_is_half_and_evenly_spaced() -> None:
    """And it is said once."""

    async def scenario(limit: RateLimit) -> None:
        sent_at = await used(limit)
        limit.close_for(0.1, sent_at)
        times = await asyncio.gather(*(used(limit) for _ in range(6)))
        gap = WINDOW / (REQUESTS_PER_WINDOW // 2)
        assert times[0] >= sent_at + 0.1
        assert all(later - earlier >= gap for earlier, later in pairwise(times))

    run(scenario, rate_recovery_interval=60)


def test_the_rate_is_halved_once_for_a_burst(caplog: pytest.LogCaptureFixture) -> None:
    """Requests that were under way when it fell say nothing new; one of after that does."""

    async def scenario(limit: RateLimit) -> None:
        burst = [await used(limit) for _ in range(9)]
        for sent_at in burst:
            limit.close_for(0.01, sent_at)
        limit.close_for(0.01, asyncio.get_running_loop().time())

    run(scenario)
    told = [record.getMessage() for record in caplog.records if "too many requests" in record.getMessage()]
    assert [f", then {rate} in " in line for rate, line in zip((9, 4), told, strict=True)] == [True, True]
    assert all(line.startswith("Exa got too many requests of connection 'exa_a': none for ") for line in told)


def test_the_rate_never_falls_to_nothing() -> None:
    """However often Exa refuses, a request now and then finds out whether it still does."""

    async def scenario(limit: RateLimit) -> None:
        for _ in range(10):
            limit.close_for(0.001, asyncio.get_running_loop().time())
            await asyncio.sleep(0.002)
        await used(limit)

    run(scenario, rate_recovery_interval=60)


def test_the_rate_climbs_back(caplog: pytest.LogCaptureFixture) -> None:
    """By one request in each interval, and when it is whole that is said once."""

    async def scenario(limit: RateLimit) -> None:
        limit.close_for(0.01, 0)
        began = time.monotonic()
        while "full rate again" not in caplog.text:
            await used(limit)
            assert time.monotonic() - began < 3
        assert time.monotonic() - began >= 9 * 0.05
        times = await asyncio.gather(*(used(limit) for _ in range(3)))
        assert times[-1] - times[0] < WINDOW / REQUESTS_PER_WINDOW

    with caplog.at_level(logging.INFO):
        run(scenario, rate_recovery_interval=0.05, rate_limit_window=0.02)
    assert caplog.text.count("full rate again") == 1
