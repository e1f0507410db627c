"""Faults of the stand-in, by kind."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_exa.standin.wire import Handler


@dataclass(frozen=True, kw_only=True)
class Fault:
    """
    A fault that the next requests meet.

    :param kind: ``status`` (answers ``status``), ``hang`` (never answers), ``reset`` (TCP RST), ``cut`` (does
        what was asked, then ends amid the body), ``html`` (200 with a proxy's page), ``repeat``
        (``nextCursor`` is always the same), ``empty_more`` (no data, yet more), ``no_cursor`` (more, yet no
        cursor), ``bad_item`` (one object lacks a key), ``redirect`` (302 to ``location``), ``huge`` (more
        than 16 MiB of JSON) or ``drip`` (a byte every 0.2 seconds).
    :param status: HTTP status of kind ``status``.
    :param retry_after: header of kind ``status``: seconds, or an HTTP date.
    :param body: body of kind ``status``; None: an error in Exa's shape.
    :param location: header of kind ``redirect``.
    :param item: object that ``bad_item`` meets, by its place on a page (from 0) or by its id; a single object
        is a page of one.
    :param lacks: key that this object lacks.
    :param times: number of requests that meet the fault; None: all, until :meth:`StandIn.heal`.
    :param path: part of the path and query of the requests that meet it, such as ``cursor=`` for later pages;
        None: any.
    """

    kind: str = "status"
    status: int = 503
    retry_after: str | None = None
    body: bytes | None = None
    location: str = "/"
    item: int | str = 0
    lacks: str = "createdAt"
    times: int | None = 1
    path: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in FAULTS:
            raise ValueError(f"There is no fault {self.kind!r}; there are {', '.join(FAULTS)}.")


def _status(handler: Handler, fault: Fault) -> None:
    phrase, _ = handler.responses.get(fault.status, ("Unknown", ""))
    tag = "SERVICE_OVERLOADED" if fault.status == 503 else phrase.upper().replace(" ", "_")
    error = {"requestId": handler.request_id, "error": phrase, "tag": tag}
    headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
    handler.send(fault.status, error if fault.body is None else fault.body, headers)


def _hang(handler: Handler, fault: Fault) -> None:
    handler.record(None)
    handler.close_connection = True
    while handler.connection.recv(1024):
        pass  # until the client goes away, or the server closes


def _reset(handler: Handler, fault: Fault) -> None:
    handler.record(None)
    handler.close_connection = True
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.rfile.close()  # it holds the socket open, and closing it later would end the connection politely
    handler.connection.close()


def _page(handler: Handler, fault: Fault, **fields: Any) -> None:
    status, body = handler.answer()
    handler.send(status, body | fields if "data" in body else body)


def _bad_item(handler: Handler, fault: Fault) -> None:
    status, body = handler.answer()
    for place, item in enumerate(body.get("data", [body])):
        if fault.item in (place, item.get("id")):
            item.pop(fault.lacks, None)
    handler.send(status, body)


def _cut(handler: Handler, fault: Fault) -> None:
    handler.answer()  # a trigger starts its run, though the client cannot know
    handler.head(200, {"Content-Length": "1000", "Connection": "close"})
    handler.wfile.write(b'{"data": [')


def _huge(handler: Handler, fault: Fault) -> None:
    handler.head(200, {"Transfer-Encoding": "chunked"})
    for part in (b'{"data": [], "padding": "', *[b"x" * 2**16] * 257, b'"}', b""):
        handler.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))


def _drip(handler: Handler, fault: Fault) -> None:
    status, body = handler.answer()
    data = json.dumps(body).encode()
    handler.head(status, {"Content-Length": str(len(data))})
    for byte in data:
        time.sleep(0.2)
        handler.wfile.write(bytes([byte]))


_HTML = b"<!DOCTYPE html><html><title>Proxy</title><h1>Sign in to continue</h1></html>"
FAULTS: dict[str, Callable[[Handler, Fault], None]] = {
    "status": _status,
    "hang": _hang,
    "reset": _reset,
    "cut": _cut,
    "html": lambda handler, _: handler.send(200, _HTML, {"Content-Type": "text/html"}),
    "repeat": partial(_page, hasMore=True, nextCursor="again"),
    "empty_more": partial(_page, data=[], hasMore=True, nextCursor="more"),
    "no_cursor": partial(_page, hasMore=True, nextCursor=None),
    "bad_item": _bad_item,
    "redirect": lambda handler, fault: handler.send(302, b"", {"Location": fault.location}),
    "huge": _huge,
    "drip": _drip,
}
