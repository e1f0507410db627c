"""Drives calls in an event loop, sending from threads: one client for each Airflow connection."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from tenacity import AsyncRetrying

from airflow_provider_exa.client.connection import Connection, Outcome, may_repeat
from airflow_provider_exa.client.rate_limit import RateLimit
from airflow_provider_exa.client.retries import retry_policy
from airflow_provider_exa.client.settings import ConnectionSettings, aread_settings
from airflow_provider_exa.client.transport import POOL_SIZE, Transport
from airflow_provider_exa.protocol.errors import ExaError, ExaInputError, ExaTransientError
from airflow_provider_exa.protocol.messages import Call, Request, Response, or_error
from airflow_provider_exa.timing import timing

T = TypeVar("T")


Send = Callable[[Request], Awaitable[Response]]


async def adrive(call: Call[T], send: Send, send_beside: Send) -> T:
    """
    Do as :func:`~airflow_provider_exa.client.client.drive`, with sending that is awaited.

    :param send_beside: sends the requests of calls that are made beside each other
    """
    answer: Response | list[Any]
    try:
        step = next(call)
        while True:
            try:
                if isinstance(step, Request):
                    answer = await send(step)
                else:
                    calls = (adrive(or_error(each), send_beside, send_beside) for each in step)
                    answer = await asyncio.gather(*calls)
            except ExaError as error:
                step = call.throw(error)
            else:
                step = call.send(answer)
    except StopIteration as done:
        result: T = done.value
        return result


class AsyncClient:
    """
    Makes calls over an Airflow connection, for triggers; it belongs to one event loop.

    It has threads and a rate limit of its own, so that a connection that hangs delays no other.
    """

    def __init__(self, conn_id: str) -> None:
        self.conn_id = conn_id
        self._connection = Connection(conn_id)
        self._reading = asyncio.Lock()
        self._places = asyncio.Semaphore(POOL_SIZE)
        self._rate_limit = RateLimit(conn_id)
        self._threads = ThreadPoolExecutor(POOL_SIZE, thread_name_prefix="exa")
        self._loop = asyncio.get_running_loop()

    async def call(self, call: Call[T], *, repeat: bool = True) -> T:
        """
        Run a call to its result, each request repeated as the retry policy says.

        Those of calls that are made beside each other are not repeated: they are for the next poll.

        :param repeat: False: no request is repeated
        :raises ExaTransientError: also where Airflow cannot look up the connection
        """
        return await adrive(call, self._send if repeat else self._exchange, self._exchange)

    def close(self) -> None:
        """Let the threads end, without waiting for them, and close the connections to Exa."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._connection.transport:
            self._connection.transport.close()

    async def _send(self, request: Request) -> Response:
        try:
            return await self._exchange(request)
        except ExaTransientError as error:
            failed = [error]

        async def exchange() -> Response:
            if failed:
                raise failed.pop()
            return await self._exchange(request)

        # Only now, as tenacity's start costs a tenth of a request; it is told of the first exchange.
        transport = self._connection.transport
        retries = transport.settings.retries if transport else 0
        policy = retry_policy(retries, closed_for=self._rate_limit.closed_for)
        return await AsyncRetrying(**policy)(exchange)

    async def _exchange(self, request: Request) -> Response:
        """Send a request once, and once more if the connection turns out to have changed."""
        transport = await self._ready()
        outcome = await self._send_once(transport, request)
        if may_repeat(outcome) and self._connection.is_doubted_by(outcome):
            renewed = await self._refresh(transport)
            if renewed is not transport:
                outcome = await self._send_once(renewed, request)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _send_once(self, transport: Transport, request: Request) -> Outcome:
        """Send a request from a thread, which keeps its place to its end, even if nobody waits for it."""
        await self._places.acquire()
        try:
            sent_at = await self._rate_limit.acquire()
        except BaseException:
            self._places.release()
            raise
        run = contextvars.copy_context().run
        sending = self._threads.submit(run, transport.send, request, timing().max_triggerer_timeout)
        sending.add_done_callback(lambda sent: self._from_thread(sent, sent_at))
        try:
            return await asyncio.wrap_future(sending)
        except ExaError as error:
            return error.with_traceback(None)  # whose frames hold the whole answer

    def _from_thread(self, sent: Future[Response], sent_at: float) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._finish, sent, sent_at)

    def _finish(self, sent: Future[Response], sent_at: float) -> None:
        error = None if sent.cancelled() else sent.exception()
        if isinstance(error, ExaTransientError) and error.status == 429:
            self._rate_limit.close_for(error.retry_after, sent_at)
        self._rate_limit.release(sent_at)
        self._places.release()

    async def _ready(self) -> Transport:
        """Return the transport; the first request reads the connection, for all."""
        transport = self._connection.transport
        if transport is None:
            async with self._reading:
                transport = self._connection.transport or await self._read_first()
        elif self._connection.is_due():
            transport = await self._refresh(transport)
        return transport

    async def _read_first(self) -> Transport:
        self._connection.begin_reading()
        transport = await asyncio.to_thread(Transport, await self._settings())  # it imports requests
        self._connection.replace(transport)
        return transport

    async def _settings(self) -> ConnectionSettings:
        try:
            return await aread_settings(self.conn_id)
        except ExaInputError:
            raise
        except Exception as error:  # a secrets backend may raise anything
            raise ExaTransientError(
                f"Airflow cannot look up connection {self.conn_id!r} ({type(error).__name__}: {error!s:.200})"
                ". Check that it exists, and Airflow's secrets backends."
            ) from error

    async def _refresh(self, doubted: Transport) -> Transport:
        """Read the connection anew, unless that was done since; return the transport to use from now on."""
        doubted_at = self._loop.time()
        async with self._reading:
            current = self._connection.transport or doubted
            if current is not doubted or self._connection.read_at > doubted_at:
                return current
            self._connection.begin_reading()
            try:
                settings = await self._settings()
                if not self._connection.differs(settings):
                    return current
                transport = await asyncio.to_thread(Transport, settings)
            except Exception as error:  # whatever it is, the settings in use may still work
                self._connection.keep(error)
                return current
            self._connection.replace(transport)
            return transport
