"""HTTP answers that have to be read within a deadline."""

from __future__ import annotations

import functools
import http.client
import io
import socket
import time
from typing import Any


class BoundedResponse(http.client.HTTPResponse):
    """
    An answer whose every byte has to come within the timeout that its socket has when it begins.

    A socket's own timeout is for one read, so a server that sends a byte now and then (of the status line,
    the headers, the size of a chunk) would hold a request for ever.
    """

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        seconds = sock.gettimeout()
        if seconds is not None:
            raw = self.fp.detach()
            self.fp = io.BufferedReader(_BoundedReader(raw, sock, time.monotonic() + seconds))

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
    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: float) -> None:
        self._raw, self._sock, self._deadline = raw, sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        read: int | None = self._raw.readinto(buffer)
        return read

    def close(self) -> None:
        self._raw.close()
        super().close()


@functools.cache
def bounded(kind: type[Any]) -> type[Any]:
    """Derive a class of connections that read their answers within a deadline."""
    if issubclass(kind, _BoundedConnection):
        return kind
    return type(kind.__name__, (_BoundedConnection, kind), {})


class _BoundedConnection:
    response_class = BoundedResponse
