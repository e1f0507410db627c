"""Drives calls in an event loop: one line for each Airflow connection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

from tenacity import AsyncRetrying

from airflow_provider_exa.client.settings import ConnectionSettings, aread_settings
from airflow_provider_exa.client.transport import MAX_RETRY_AFTER, Transport, retry_policy
from airflow_provider_exa.protocol.endpoints import get_monitor, list_websets
from airflow_provider_exa.protocol.errors import ExaError, ExaTransientError
from airflow_provider_exa.protocol.messages import Call, Request, Response, is_bad_key
from airflow_provider_exa.protocol.models import Dialect

T = TypeVar("T")


async def adrive(call: Call[T], send: Callable[[Request], Awaitable[Response]]) -> T:
    """Like :func:`drive`, with a sender that is awaited."""
    try:
        request = next(call)
        while True:
            try:
                response = await send(request)
            except ExaError as error:
                request = call.throw(error)
            else:
                request = call.send(response)
    except StopIteration as done:
        result: T = done.value
        return result


READ_TIMEOUT = 10.0


#: How many requests of a connection there may be within any second, which is made a bit longer as they do not
#: all take the same time on their way. Exa allows a team 20. They may come in bursts: to send one at a time,
#: with pauses between, costs several times the CPU.
REQUESTS_PER_WINDOW = 18


WINDOW_SECONDS = 1.05


#: How long a connection is left alone after a 429 that does not say it.
DEFAULT_PAUSE = 5.0


class AsyncClient:
    """One Airflow connection in one event loop: read once, one session, one pace."""

    def __init__(self, conn_id: str) -> None:
        self.conn_id = conn_id
        self.watches: set[object] = set()
        self._sender: Transport | None = None
        self._reading = asyncio.Lock()
        self._listing = asyncio.Lock()
        self._websets: dict[str, str | None] | None = None
        self._turns: deque[float] = deque(maxlen=REQUESTS_PER_WINDOW)
        self._closed_until = 0.0

    async def call(self, call: Call[T]) -> T:
        """Run a call to its result, each request paced and repeated as the retry policy says."""
        return await adrive(call, self._send)

    async def webset_of(self, dialect: Dialect, monitor_id: str) -> str | None:
        """A monitor's webset, if Exa says it at once; the team's monitors are listed once, for all."""
        if not dialect.websets or self._closed_until > asyncio.get_running_loop().time():
            return None
        async with self._listing:
            with suppress(ExaError):
                once = partial(self._once, await self._ready())
                if self._websets is None:
                    self._websets = {}
                    self._websets = await adrive(list_websets(dialect), once)
                if self._websets and monitor_id not in self._websets:
                    monitor = await adrive(get_monitor(dialect, monitor_id), once)
                    self._websets[monitor_id] = monitor.webset_id
        return self._websets.get(monitor_id) if self._websets else None

    async def _send(self, request: Request) -> Response:
        sender = await self._ready()
        response = await self._repeat(sender, request)
        if is_bad_key(response) and (renewed := await self._renew(sender)):
            response = await self._repeat(renewed, request)
        return response

    async def _repeat(self, sender: Transport, request: Request) -> Response:
        try:
            return await self._once(sender, request)
        except ExaTransientError as error:
            met = [error]

        async def again() -> Response:
            if met:
                raise met.pop()
            return await self._once(sender, request)

        # Only now, as tenacity's start costs a tenth of a request; it is told of the first try.
        return await AsyncRetrying(**retry_policy(sender.account.retries))(again)

    async def _once(self, sender: Transport, request: Request) -> Response:
        await self._turn()
        try:
            return await sender.asend_once(request)
        except ExaTransientError as error:
            if error.status == 429:
                pause = min(error.retry_after or DEFAULT_PAUSE, MAX_RETRY_AFTER)
                self._closed_until = asyncio.get_running_loop().time() + pause
            raise

    async def _turn(self) -> None:
        """Wait until the pace, and the last 429, allow another request."""
        loop = asyncio.get_running_loop()
        while True:
            full = len(self._turns) == REQUESTS_PER_WINDOW
            turn = max(loop.time(), self._turns[0] + WINDOW_SECONDS) if full else loop.time()
            self._turns.append(turn)
            await asyncio.sleep(turn - loop.time())
            if (closed := self._closed_until - loop.time()) <= 0:
                return
            await asyncio.sleep(closed)

    async def _ready(self) -> Transport:
        """The sender; whoever needs it first reads the connection, for all."""
        async with self._reading:
            if self._sender is None:
                self._sender = await asyncio.to_thread(
                    Transport, await self._parse_connection()
                )  # it imports requests
        return self._sender

    async def _parse_connection(self) -> ConnectionSettings:
        account = await aread_settings(self.conn_id)
        return replace(account, timeout=min(account.timeout, READ_TIMEOUT))

    async def _renew(self, refused: Transport) -> Transport | None:
        """A sender with the connection read anew, or None if that is as it was when the key was refused."""
        async with self._reading:
            if self._sender is refused:
                account = await self._parse_connection()
                if account == refused.account:
                    return None
                refused.close()
                self._sender = Transport(account)
            return self._sender

    def close(self) -> None:
        """Close the session."""
        if self._sender:
            self._sender.close()
