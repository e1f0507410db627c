"""The rate limit of one connection in one event loop."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import deque

from airflow_provider_exa.timing import timing

log = logging.getLogger(__name__)

#: Requests of a connection in any window of ``timing().rate_limit_window`` seconds. Exa allows a team 20 a
#: second. They may come in bursts: to send one at a time, with pauses between, costs several times the CPU.
REQUESTS_PER_WINDOW = 18
#: However often Exa refuses: a 429 now and then must not end in one request a second.
MIN_REQUESTS_PER_WINDOW = 4
#: By which part of itself a pause is longer than asked for, at most, so that not all come back at once.
JITTER = 0.1


class RateLimit:
    """
    Hands out turns, first come, first served.

    A request may reach the server at any moment from its start to its answer. So its turn is taken for one
    window and as much more as the request took longer than the quickest one; and for a window from its answer
    where it took half a window or more, as if the server had stalled.

    After a 429 no turn is given for as long as Exa asked. Then the rate is half of what it was, evenly
    spaced, and grows by one request a window in each ``timing().rate_recovery_interval`` until it is whole.
    """

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[float]] = deque()
        self._taken = 0
        self._quickest = math.inf
        self._closed_until = -math.inf
        self._next_turn_at = -math.inf
        self._halved_to = REQUESTS_PER_WINDOW
        self._halved_at = -math.inf
        self._timer: asyncio.TimerHandle | None = None

    async def acquire(self) -> float:
        """Wait for a turn; return the moment it was given, in the loop's time."""
        turn: asyncio.Future[float] = self._loop.create_future()
        self._waiting.append(turn)
        self._give_turns()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # given, but not used
                self._next_turn_at = turn.result()
                self._give_back()
            raise

    def release(self, given_at: float) -> None:
        """
        Note that a request is over.

        :param given_at: the moment of its turn
        """
        window, took = timing().rate_limit_window, self._loop.time() - given_at
        self._quickest = min(self._quickest, took)
        self._loop.call_later(window - self._quickest if took < window / 2 else window, self._give_back)

    def close_for(self, seconds: float | None, sent_at: float) -> None:
        """
        Give no turn for a while, as a request was answered 429.

        :param seconds: how long Exa asked to wait, if it did
        :param sent_at: the moment of the request's turn; one of before the last fall says nothing new
        """
        now = self._loop.time()
        pause = min(seconds or timing().default_pause, timing().max_retry_after)
        pause *= 1 + random.uniform(0, JITTER)  # noqa: S311 (no secret)
        self._closed_until = max(self._closed_until, now + pause)
        if sent_at > self._halved_at:
            self._halved_to = max(MIN_REQUESTS_PER_WINDOW, self._limit(now) // 2)
            self._halved_at = now
            log.warning(
                "Exa got too many requests of connection %r: none for %.1f s, then %d in %g s, slowly more.",
                self._conn_id,
                self.closed_for(),
                self._halved_to,
                timing().rate_limit_window,
            )

    def closed_for(self) -> float:
        """Return for how many seconds no turn is given."""
        return max(0.0, self._closed_until - self._loop.time())

    def _give_back(self) -> None:
        self._taken -= 1
        self._give_turns()

    def _give_turns(self) -> None:
        while self._waiting:
            if self._waiting[0].done():  # cancelled
                self._waiting.popleft()
                continue
            now = self._loop.time()
            if (opens_at := max(self._closed_until, self._next_turn_at)) > now:
                self._come_back_at(opens_at)
                return
            limit = self._limit(now)
            if self._taken >= limit:
                return  # the next turn that is given back comes here
            self._taken += 1
            if limit < REQUESTS_PER_WINDOW:
                self._next_turn_at = now + timing().rate_limit_window / limit
            self._waiting.popleft().set_result(now)

    def _limit(self, now: float) -> int:
        """Return how many turns there are; a connection that was slowed down gets them back one by one."""
        if self._halved_to == REQUESTS_PER_WINDOW:
            return REQUESTS_PER_WINDOW
        steps = max(0.0, now - self._closed_until) // timing().rate_recovery_interval
        if (limit := self._halved_to + int(steps)) < REQUESTS_PER_WINDOW:
            return limit
        self._halved_to = REQUESTS_PER_WINDOW
        log.info("The requests of connection %r to Exa are at their full rate again.", self._conn_id)
        return REQUESTS_PER_WINDOW

    def _come_back_at(self, moment: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_at(moment, self._give_turns)
