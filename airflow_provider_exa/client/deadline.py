"""One deadline for every step of a request: connections, handshakes and the answer."""

from __future__ import annotations

import functools
import http.client
import io
import math
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from urllib3.connection import HTTPSConnection
else:
    HTTPSConnection = object  # urllib3 is imported when a transport is made

_deadline: ContextVar[float] = ContextVar("deadline")


@contextmanager
def within(seconds: float | None) -> Iterator[None]:
    """Let the requests of this thread end within these seconds, or sooner if they have to already."""
    end = math.inf if seconds is None else time.monotonic() + seconds
    token = _deadline.set(min(end, _deadline.get(math.inf)))
    try:
        yield
    finally:
        _deadline.reset(token)


def _seconds_left(most: float | None = None) -> float:
    """Return the seconds that the request has left, up to a bound."""
    left = _deadline.get() - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left if most is None else min(left, most)


class BoundedResponse(http.client.HTTPResponse):
    """
    An answer whose every byte has to come before the deadline.

    A socket's own timeout is for one read, so a server that sends a byte now and then (of the status line,
    the headers, the size of a chunk) would hold a request for ever.
    """

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_BoundedReader(self.fp.detach(), sock))

    def _read_status(self) -> tuple[str, int, str]:
        """Skip interim answers such as 103 Early Hints; ``http.client`` itself skips 100 Continue alone."""
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not (100 <= status < 200) or status == http.client.SWITCHING_PROTOCOLS:
                return version, status, reason
            http.client.parse_headers(self.fp)

    def begin(self) -> None:
        """Read the headers; forget those that are none, which urllib3 would write into a log."""
        super().begin()
        self.headers.defects.clear()
        self.headers.set_payload("")


class _BoundedReader(io.RawIOBase):
    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw, self._sock = raw, sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_seconds_left())
        read: int | None = self._raw.readinto(buffer)
        return read

    def close(self) -> None:
        self._raw.close()
        super().close()


@functools.cache
def bounded(kind: type[Any]) -> type[Any]:
    """Derive a class of connections that keep the deadline."""
    if issubclass(kind, _BoundedConnection):
        return kind
    return type(kind.__name__, (_BoundedConnection, kind), {})


class _BoundedConnection(HTTPSConnection):
    """
    A connection that takes no longer than its request may, however many steps it needs.

    urllib3 has one timeout for each address of the host, each TLS handshake and the answer of a proxy.
    """

    response_class = BoundedResponse

    def _new_conn(self) -> socket.socket:
        from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

        if hasattr(self, "_socks_options"):  # PySocks connects, in its own way
            self.timeout = _seconds_left(self.timeout)
            return super()._new_conn()
        try:
            return _connect(self._dns_host, self.port, self.timeout, self.socket_options or ())
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"Connection to {self.host} timed out.") from error
        except OSError as error:
            raise NewConnectionError(self, f"Failed to establish a new connection: {error}") from error

    def _tunnel(self) -> None:
        with within(self.timeout):
            super()._tunnel()
        self.sock.settimeout(_seconds_left(self.timeout))

    def _connect_tls_proxy(self, hostname: str, sock: socket.socket) -> ssl.SSLSocket:
        tls = super()._connect_tls_proxy(hostname, sock)
        if type(tls) is ssl.SSLSocket:
            tls.__class__ = _BoundedTLS
        return tls


class _BoundedTLS(ssl.SSLSocket):
    """TLS that holds TLS, for which urllib3 reads in a loop, and each read might take the whole timeout."""

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        self.settimeout(_seconds_left())
        return super().recv(buflen, flags)


def _connect(host: str, port: int, timeout: float | None, options: Any) -> socket.socket:
    """Connect to the first address that answers; each gets the timeout, or less if less is left."""
    from urllib3.util.connection import allowed_gai_family

    failure = OSError(f"{host} has no address")
    found = socket.getaddrinfo(host.strip("[]"), port, allowed_gai_family(), socket.SOCK_STREAM)
    for family, kind, protocol, _, address in found:
        sock = None
        try:
            sock = socket.socket(family, kind, protocol)
            for option in options:
                sock.setsockopt(*option)
            sock.settimeout(_seconds_left(timeout))
            sock.connect(address)
            sock.settimeout(_seconds_left(timeout))
            return sock
        except OSError as error:
            failure = error
            if sock:
                sock.close()
    raise failure
