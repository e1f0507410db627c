"""A table of faults at the level of bytes: what becomes of each, in a worker and in the triggerer."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from airflow_provider_exa.client import transport
from airflow_provider_exa.client.async_client import AsyncClient
from airflow_provider_exa.client.client import Client
from airflow_provider_exa.client.transport import MAX_BODY
from airflow_provider_exa.protocol.errors import (
    ExaError,
    ExaInputError,
    ExaTransientError,
)
from airflow_provider_exa.protocol.messages import Call, Request, ask
from airflow_provider_exa.timing import timing, use_timing
from tests.client.conftest import Script, Wire
from tests.faults import (
    CHUNK,
    CHUNKED,
    FAULTS,
    FINE,
    TIMEOUT,
    answer,
    for_ever,
    head,
    say,
    then_hang,
)

KEY = "marked-key-0123456789"
MONITOR = Request("/m")


decode = json.loads


def parse(body: Any) -> Any:
    """The id of an object."""
    return body["id"]


@pytest.fixture(params=["worker", "triggerer"])
def outcome(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Asks a server once, over either client; returns the answer or the error."""

    def outcome(server: Wire, *, method: str = "GET", **extra: Any) -> Any:
        connection = {"conn_type": "exa", "host": server.url, "password": KEY}
        extra = {"timeout": TIMEOUT, "retries": 0} | extra
        monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", json.dumps(connection | {"extra": extra}))
        call = ask(Request("/m", method=method), parse)
        with use_timing(replace(timing(), rate_limit_window=0)):
            try:
                if request.param == "worker":
                    with closing(Client("exa_default")) as client:
                        return client.call(call)
                return asyncio.run(in_triggerer(call))
            except ExaError as error:
                return error

    return outcome


async def in_triggerer(call: Call[Any]) -> Any:
    """The result of a call over an asynchronous client."""
    with closing(AsyncClient("exa_default")) as client:
        return await client.call(call)


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_has_an_outcome_in_words(
    wire: Callable[..., Wire], outcome: Callable[..., Any], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """It is this package's error, comes in time, and begins with the news."""
    case = FAULTS[name]
    server = wire(script=case.script)
    began = time.monotonic()
    answered = outcome(server)
    assert time.monotonic() - began < TIMEOUT + 1
    if case.error is None:
        assert answered == "run_1"
    else:
        assert type(answered) is case.error
        assert str(answered)[:100].startswith(case.told)
    assert len(server.heads) == 1
    assert "no header" not in caplog.text


@pytest.mark.parametrize(
    "name", ["hang before the headers", "headers byte by byte", "100 Continue for ever", "trailers for ever"]
)
def test_a_post_ends_in_time_too(wire: Callable[..., Wire], outcome: Callable[..., Any], name: str) -> None:
    """What it was to do may have been done, so it is not to be repeated."""
    began = time.monotonic()
    error = outcome(wire(script=FAULTS[name].script), method="POST")
    assert time.monotonic() - began < TIMEOUT + 1
    assert (type(error), error.repeatable) == (ExaTransientError, False)


@pytest.mark.parametrize("host", ["http://exa.invalid", "https://exa.invalid"])
@pytest.mark.parametrize("name", ["headers byte by byte", "100 Continue for ever", "hang before the headers"])
def test_a_proxy_has_no_more_time(
    wire: Callable[..., Wire],
    outcome: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    host: str,
) -> None:
    """Neither for the answer that it forwards, nor for the tunnel that it opens."""
    proxy = wire(script=FAULTS[name].script)
    server = wire()
    server.url = host
    began = time.monotonic()
    error = outcome(server, proxy=proxy.url)
    assert time.monotonic() - began < TIMEOUT + 1
    assert type(error) is ExaTransientError
    assert len(proxy.heads) == 1


@pytest.mark.parametrize(
    "spelling",
    ["HTTP://127.0.0.1:{}", "http://127.0.0.1:0{}", "http://LOCALHOST:{}"]
    + [
        f"http://user:{password}@127.0.0.1:{{}}" for password in ("p%2fw", "p^w", "p|w", "p{{w", 'p"w', "p w")
    ],
)
def test_a_proxy_has_no_more_time_however_it_is_spelt(
    wire: Callable[..., Wire], outcome: Callable[..., Any], spelling: str
) -> None:
    """The libraries below know it by a spelling of their own."""
    proxy = wire(script=FAULTS["headers byte by byte"].script)
    server = wire()
    server.url = "http://exa.invalid"
    began = time.monotonic()
    error = outcome(server, proxy=spelling.format(proxy.server_address[1]))
    assert time.monotonic() - began < TIMEOUT + 1
    assert type(error) is ExaTransientError
    assert len(proxy.heads) == 1


def test_a_server_that_does_not_accept_has_no_more_time(
    outcome: Callable[..., Any], wire: Callable[..., Wire], dead: int
) -> None:
    """A full queue of connections is like a host that drops packets."""
    server = wire()
    server.url = f"http://127.0.0.1:{dead}"
    began = time.monotonic()
    error = outcome(server)
    assert time.monotonic() - began < TIMEOUT + 1
    assert str(error).startswith("Exa gave no answer (ConnectTimeout: ")


def test_a_tls_handshake_has_no_more_time(outcome: Callable[..., Any], wire: Callable[..., Wire]) -> None:
    """A server that takes the connection and says nothing is not waited for."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = wire()
        server.url = f"https://127.0.0.1:{listening.getsockname()[1]}"
        began = time.monotonic()
        assert type(outcome(server)) is ExaTransientError
        assert time.monotonic() - began < TIMEOUT + 1


def test_a_refused_connection_is_told(outcome: Callable[..., Any], wire: Callable[..., Wire]) -> None:
    """The error says whom to check."""
    server = wire()
    server.url = "http://127.0.0.1:9"
    told = str(outcome(server))
    assert told.startswith("Exa gave no answer (ConnectionRefusedError: ")
    assert told.endswith("Check the host and the proxy of connection 'exa_default'.")


def test_a_host_that_does_not_speak_tls_is_told_at_once(
    outcome: Callable[..., Any], wire: Callable[..., Wire], no_pauses: list[float]
) -> None:
    """A host without a scheme is taken for https, which no retry mends."""
    server = wire(script=say(answer(FINE)))
    with socket.create_server(("127.0.0.1", 0)) as plain:
        threading.Thread(target=_answer_anything, args=(plain,), daemon=True).start()
        server.url = f"https://127.0.0.1:{plain.getsockname()[1]}"
        error = outcome(server, retries=4, timeout=5)
    assert isinstance(error, ExaInputError)
    assert str(error).startswith("The host of connection 'exa_default' does not speak TLS (GET https://127.")
    assert no_pauses == []


def _answer_anything(listening: socket.socket) -> None:
    connection, _ = listening.accept()
    with connection, suppress(OSError):
        connection.recv(4096)
        connection.sendall(answer(b"{}", status="400 Bad Request"))
        connection.recv(4096)


@pytest.mark.parametrize("name", ["bomb", "a redirect that is a bomb"])
def test_a_bomb_is_not_unpacked(wire: Callable[..., Wire], outcome: Callable[..., Any], name: str) -> None:
    """No more is held than may arrive."""
    server = wire(script=FAULTS[name].script)
    outcome(server)  # what is imported does not count
    tracemalloc.start()
    try:
        outcome(server)
        assert tracemalloc.get_traced_memory()[1] < 2 * MAX_BODY + 2**22
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [1, 16])
def test_an_answer_in_small_chunks_takes_no_more_memory(
    wire: Callable[..., Wire], outcome: Callable[..., Any], size: int
) -> None:
    """Each piece as an object of its own would take fifty bytes more."""
    blank = b"%x\r\n%b\r\n" % (size, b" " * size)
    server = wire(CHUNKED, blank * 20_000, CHUNK, b"0\r\n\r\n")
    outcome(server)  # what is imported does not count
    tracemalloc.start()
    try:
        assert outcome(server, timeout=30) == "run_1"
        assert tracemalloc.get_traced_memory()[1] < 3 * 20_000 * size + 2**19
    finally:
        tracemalloc.stop()


BOMB = gzip.compress(b"\0" * 2**27)
GIVEN = ("Content-Length: 999999", "Retry-After: 7")
#: How the body of a refusal may fail.
BODIES_THAT_FAIL: dict[str, Callable[[str], Script]] = {
    "hangs": lambda status: then_hang(head(*GIVEN, status=status)),
    "hangs in the middle": lambda status: then_hang(head(*GIVEN, status=status), b'{"error": "no'),
    "byte by byte": lambda status: for_ever(head(*GIVEN, status=status), b" ", 0.02),
    "cut": lambda status: say(head(*GIVEN, status=status), b'{"error": "no'),
    "too large": lambda status: for_ever(head("Retry-After: 7", status=status), b" " * 65536),
    "a bomb": lambda status: say(answer(BOMB, "Content-Encoding: gzip", "Retry-After: 7", status=status)),
    "no gzip": lambda status: say(
        answer(b"no gzip", "Content-Encoding: gzip", "Retry-After: 7", status=status)
    ),
    "no chunks": lambda status: say(
        head("Transfer-Encoding: chunked", "Retry-After: 7", status=status), b"zz\r\n"
    ),
}


@pytest.mark.parametrize("fault", BODIES_THAT_FAIL)
@pytest.mark.parametrize(
    ("method", "status"),
    [*product(["GET"], (400, 401, 404, 407, 429, 500)), *product(["POST"], (404, 429, 500, 503))],
)
def test_a_refusal_counts_without_its_body(
    *, wire: Callable[..., Wire], outcome: Callable[..., Any], status: int, fault: str, method: str
) -> None:
    """Its status says whether the request is sent again, and its header when."""
    began = time.monotonic()
    error = outcome(wire(script=BODIES_THAT_FAIL[fault](f"{status} No")), method=method)
    assert time.monotonic() - began < TIMEOUT + 1
    assert error.status == status
    if isinstance(error, ExaTransientError):
        assert error.retry_after == 7
        assert error.repeatable is (method == "GET" or status in (429, 503))


def test_the_body_of_a_refusal_is_not_waited_for_long(
    wire: Callable[..., Wire], outcome: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the answer to a request may take; a body that comes a little later is read."""
    monkeypatch.setattr(transport, "REFUSAL_TIMEOUT", 0.3)
    began = time.monotonic()
    assert outcome(wire(script=BODIES_THAT_FAIL["hangs"]("401 No")), timeout=30).status == 401
    assert time.monotonic() - began < 5
    later = wire(head(status="404 Not Found"), b'{"message": "No such', b' monitor"}', pause=0.05)
    assert str(outcome(later, timeout=30)).startswith("Exa answered 404: 'No such monitor'")


def test_a_large_answer_is_decoded_where_it_is_sent(
    wire: Callable[..., Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop goes on meanwhile."""
    page = json.dumps({"id": "mon_a", "data": [{"text": "x" * 50} for _ in range(200_000)]}).encode()
    threads: list[str] = []

    def decode_here(text: Any, **options: Any) -> Any:
        threads.append(threading.current_thread().name)
        return decode(text, **options)

    def parse_here(body: Any) -> Any:
        threads.append(threading.current_thread().name)
        return body["id"]

    connection = {"conn_type": "exa", "host": wire(answer(page)).url, "password": KEY}
    monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", json.dumps(connection))
    monkeypatch.setattr("json.loads", decode_here)
    assert asyncio.run(in_triggerer(ask(MONITOR, parse_here))) == "mon_a"
    assert [name for name in threads[-2:] if not name.startswith("exa")] == []
