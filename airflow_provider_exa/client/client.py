"""Drives calls in a thread that waits for its answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from tenacity import Retrying

from airflow_provider_exa.client.connection import Connection, Outcome, may_repeat
from airflow_provider_exa.client.retries import retry_policy
from airflow_provider_exa.client.settings import ConnectionSettings, read_settings
from airflow_provider_exa.client.transport import Transport
from airflow_provider_exa.protocol.errors import ExaError
from airflow_provider_exa.protocol.messages import Call, Request, Response, or_error

T = TypeVar("T")

#: Seconds that an answer has at least, however near the deadline is.
MIN_TIMEOUT = 1.0


def drive(call: Call[T], send: Callable[[Request], Response]) -> T:
    """Run a call to its result, sending each request that it yields; it may catch what sending raises."""
    answer: Response | list[Any]
    try:
        step = next(call)
        while True:
            try:
                if isinstance(step, Request):
                    answer = send(step)
                else:
                    answer = [drive(or_error(each), send) for each in step]
            except ExaError as error:
                step = call.throw(error)
            else:
                step = call.send(answer)
    except StopIteration as done:
        result: T = done.value
        return result


class Client:
    """Makes calls over an Airflow connection, for a worker."""

    def __init__(self, conn_id: str) -> None:
        self.conn_id = conn_id
        self._connection = Connection(conn_id)

    @property
    def settings(self) -> ConnectionSettings:
        """
        The connection's settings; the first use reads them.

        :raises ExaInputError: the connection lacks an API key, or has a setting that cannot be used
        :raises AirflowNotFoundException: Airflow finds no such connection, which may pass
        """
        return self._ready().settings

    def call(self, call: Call[T], *, deadline: float | None = None, retries: int | None = None) -> T:
        """
        Run a call to its result, each request repeated as the retry policy says.

        :param deadline: of ``time.monotonic()``; neither a retry nor an answer outlasts it
        :param retries: how often a request is sent again; None: as the connection says
        """
        return drive(call, partial(self._send, deadline=deadline, retries=retries))

    def close(self) -> None:
        """Close the connections to Exa."""
        if self._connection.transport:
            self._connection.transport.close()

    def _send(self, request: Request, *, deadline: float | None, retries: int | None) -> Response:
        policy = retry_policy(self.settings.retries if retries is None else retries, deadline=deadline)
        return Retrying(**policy)(self._exchange, request, deadline)

    def _exchange(self, request: Request, deadline: float | None) -> Response:
        """Send a request once, and once more if the connection turns out to have changed."""
        transport = self._ready()
        outcome = _send_once(transport, request, deadline)
        if may_repeat(outcome) and self._connection.is_doubted_by(outcome) and self._refresh():
            outcome = _send_once(self._ready(), request, deadline)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _ready(self) -> Transport:
        transport = self._connection.transport
        if transport is None:
            self._connection.begin_reading()
            transport = Transport(read_settings(self.conn_id))
            self._connection.replace(transport)
        elif self._connection.is_due():
            self._refresh()
            transport = self._connection.transport or transport
        return transport

    def _refresh(self) -> bool:
        """Read the connection anew; return whether it has changed."""
        self._connection.begin_reading()
        try:
            settings = read_settings(self.conn_id)
            if not self._connection.differs(settings):
                return False
            self._connection.replace(Transport(settings))
        except Exception as error:  # a lookup may raise anything
            self._connection.keep(error)
            return False
        return True


def _send_once(transport: Transport, request: Request, deadline: float | None) -> Outcome:
    timeout = None if deadline is None else max(MIN_TIMEOUT, deadline - time.monotonic())
    try:
        return transport.send(request, timeout)
    except ExaError as error:
        return error.with_traceback(None)  # whose frames hold the whole answer
