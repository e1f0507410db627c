"""The deadline of a request: no step of a connection outlasts it."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_exa.client import transport
from airflow_provider_exa.client.settings import ConnectionSettings
from airflow_provider_exa.client.transport import Transport
from airflow_provider_exa.protocol.errors import ExaTransientError
from airflow_provider_exa.protocol.messages import Request
from tests.client.conftest import Speaker, Wire
from tests.faults import FINE, answer

#: Seconds that an answer may take; a step that is not bounded takes ten times as long.
TIMEOUT = 0.5
OPENED = b"HTTP/1.1 200 Connection established\r\n\r\n"
#: How a TLS handshake begins, in a record of 16 KiB.
HELLO = b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc"


def send(base_url: str, method: str = "GET", timeout: float = TIMEOUT, **settings: Any) -> int:
    """Send a request with these settings; return the status of its answer."""
    with closing(Transport(ConnectionSettings(base_url, "some-key", timeout=timeout, **settings))) as sender:
        return sender.send(Request("/m", method=method)).status


# --- many addresses -------------------------------------------------------------------------------


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the ports on loopback that stand for the addresses of any host."""

    def resolve(*ports: int) -> None:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port)) for port in ports]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: found)

    return resolve


@pytest.mark.parametrize("proxy", [None, "http://many.example"])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_many_dead_addresses_take_no_longer_than_one(
    *, dead: int, resolve: Callable[..., None], method: str, scheme: str, proxy: str | None
) -> None:
    """Whether the host has them or the proxy."""
    resolve(*[dead] * 10)
    began = time.monotonic()
    with pytest.raises(ExaTransientError, match=r"no answer \((ConnectTimeout|ProxyError): timed out"):
        send(f"{scheme}://many.example", method, proxy=proxy)
    assert time.monotonic() - began < 2 * TIMEOUT


def test_the_next_address_has_its_turn(
    *, dead: int, resolve: Callable[..., None], wire: Callable[..., Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One dead address does not use up the time of the request."""
    monkeypatch.setattr(transport, "CONNECT_TIMEOUT", 0.1)
    resolve(dead, wire(answer(FINE)).server_address[1])
    assert send("http://many.example", timeout=5) == 200


# --- TLS to the proxy, and in it TLS to the host --------------------------------------------------


@pytest.fixture
def context(certificate: Path) -> ssl.SSLContext:
    """TLS of a server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


class Inner:
    """The host's side of TLS in a tunnel."""

    def __init__(self, speaker: Speaker, context: ssl.SSLContext) -> None:
        self._socket = speaker.connection
        self._came, self._go = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._came, self._go, server_side=True)

    def until_done(self, step: Callable[[], object]) -> None:
        """Take a step of TLS, with what it needs to read."""
        while True:
            try:
                step()
            except ssl.SSLWantReadError:
                self._socket.sendall(self._go.read())
                self._came.write(self._socket.recv(65536))
            else:
                self._socket.sendall(self._go.read())
                return

    def take_request(self) -> None:
        """Shake hands and read."""
        self.until_done(self._tls.do_handshake)
        self.until_done(lambda: self._tls.read(4096))

    def record(self, data: bytes) -> bytes:
        """One record that holds these bytes."""
        self._tls.write(data)
        return self._go.read()


def handshake(speaker: Speaker, _context: ssl.SSLContext) -> None:
    """Begin a handshake that comes byte by byte."""
    speaker.say(HELLO)
    speaker.drip(bytes(250))


def records(speaker: Speaker, context: ssl.SSLContext) -> None:
    """Answer in records of one byte."""
    inner = Inner(speaker, context)
    inner.take_request()
    speaker.say(*(inner.record(bytes([byte])) for byte in answer(FINE.ljust(250))), pause=0.02)


def one_record(speaker: Speaker, context: ssl.SSLContext) -> None:
    """Answer in one record that comes byte by byte."""
    inner = Inner(speaker, context)
    inner.take_request()
    speaker.drip(inner.record(answer(FINE.ljust(250))))


def whole(speaker: Speaker, context: ssl.SSLContext) -> None:
    """Answer at once."""
    inner = Inner(speaker, context)
    inner.take_request()
    speaker.say(inner.record(answer(FINE)))


@pytest.fixture
def in_tunnel(wire: Callable[..., Wire], context: ssl.SSLContext) -> Callable[..., Wire]:
    """Starts proxies that speak TLS and open a tunnel, which leads to a script."""

    def start(script: Callable[[Speaker, ssl.SSLContext], None]) -> Wire:
        def opened(speaker: Speaker) -> None:
            speaker.say(OPENED)
            with suppress(ssl.SSLError):
                script(speaker, context)

        return wire(script=opened, tls=context)

    return start


@pytest.mark.parametrize("script", [handshake, records, one_record])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_tls_in_tls_that_drips_ends_in_time(
    *,
    in_tunnel: Callable[..., Wire],
    certificate: Path,
    script: Callable[[Speaker, ssl.SSLContext], None],
    method: str,
) -> None:
    """urllib3 reads it in a loop, each read with the timeout of the socket."""
    proxy = in_tunnel(script)
    began = time.monotonic()
    with pytest.raises(ExaTransientError, match=r"no answer \(Read\w+: timed out"):
        send("https://127.0.0.1:9", method, proxy=proxy.url, verify=str(certificate))
    assert time.monotonic() - began < TIMEOUT + 1
    assert len(proxy.heads) == 1


def test_tls_in_tls_brings_answers(in_tunnel: Callable[..., Wire], certificate: Path) -> None:
    """Both sides prove who they are."""
    proxy = in_tunnel(whole)
    assert send("https://127.0.0.1:9", timeout=5, proxy=proxy.url, verify=str(certificate)) == 200
