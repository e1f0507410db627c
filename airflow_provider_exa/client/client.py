"""Drives calls where threads wait for their answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from airflow_provider_exa.protocol.errors import ExaError
from airflow_provider_exa.protocol.messages import Call, Request, Response

T = TypeVar("T")


def drive(call: Call[T], send: Callable[[Request], Response]) -> T:
    """Run a call to its result, sending each request that it yields; it may catch what sending raises."""
    try:
        request = next(call)
        while True:
            try:
                response = send(request)
            except ExaError as error:
                request = call.throw(error)
            else:
                request = call.send(response)
    except StopIteration as done:
        result: T = done.value
        return result
