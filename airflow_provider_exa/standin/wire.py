"""What the stand-in says on the wire: the API's paths and bodies, and each fault."""

from __future__ import annotations

import json
import logging
import re
import secrets
import socket
import socketserver
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote
from zlib import crc32

if TYPE_CHECKING:
    from airflow_provider_exa.standin import Fault, Monitor, Run, StandIn

log = logging.getLogger("airflow_provider_exa.standin")

Answer = tuple[int, dict[str, Any]]

_ORDERS: dict[str, Callable[[list[Run]], list[Run]]] = {
    "newest": lambda runs: runs[::-1],
    "oldest": lambda runs: runs,
    "shuffled": lambda runs: sorted(runs, key=lambda run: crc32(run.id.encode())),
}

# The Websets dialect: field names and error bodies; _ENDPOINTS has the paths.
_BASE = "/websets"
_ENDED_AT = {"completed": "completedAt", "failed": "failedAt", "canceled": "canceledAt"}
_BAD_KEY = {
    400: {"error": "x-api-key header is invalid"},
    401: {"error": "Invalid API key", "tag": "INVALID_API_KEY"},
}


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _run_body(run: Run) -> dict[str, Any]:
    now = datetime.now(UTC)
    since, status = [(run.created_at, "created"), *(past for past in run.history if past[0] <= now)][-1]
    return {
        "id": run.id,
        "object": "monitor_run",
        "monitorId": run.monitor_id,
        "status": status,
        "type": run.type,
        **{name: _iso(since) if status == end else None for end, name in _ENDED_AT.items()},
        "failedReason": run.failed_reason if status == "failed" else None,
        "createdAt": _iso(run.created_at),
        "updatedAt": _iso(since),
    }


def _monitor_body(monitor: Monitor) -> dict[str, Any]:
    return {
        "id": monitor.id,
        "object": "monitor",
        "status": monitor.status,
        "websetId": monitor.webset_id,
        "cadence": {"cron": "0 9 * * *", "timezone": "Etc/UTC"},
        "behavior": {"type": "search", "config": {"count": 10, "behavior": "append"}},
        "lastRun": _run_body(monitor.runs[-1]) if monitor.runs else None,
        "nextRunAt": _iso(monitor.next_run_at) if monitor.next_run_at else None,
        "metadata": {},
        "createdAt": _iso(monitor.created_at),
        "updatedAt": _iso(monitor.created_at),
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, standin: StandIn, *args: Any) -> None:
        self.standin = standin
        super().__init__(*args)

    def log_message(self, format: str, *args: Any) -> None:
        """Leave stderr alone; `record` logs."""

    def do_GET(self) -> None:
        self.at = time.monotonic()
        self.request_id = f"req_{secrets.token_hex(10)}"
        self.bare_path, _, query = self.path.partition("?")
        self.query = dict(parse_qsl(query, keep_blank_values=True))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if fault := self.standin.next_fault(self.path):
            FAULTS[fault.kind](self, fault)
        else:
            self.send(*self.answer())

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 (http.server's names)

    def record(self, status: int | None) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.standin.record(self.command, self.bare_path, self.query, headers, self.at, status)
        log.info("%s %s %s", self.command, self.path, status or "no answer")

    def head(self, status: int, headers: dict[str, str]) -> None:
        self.record(status)
        self.send_response(status)
        standard = {"X-Request-Id": self.request_id, "Content-Type": "application/json; charset=utf-8"}
        for name, value in (standard | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def send(self, status: int, body: dict[str, Any] | bytes, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.head(status, {"Content-Length": str(len(data))} | (headers or {}))
        self.wfile.write(data)

    def answer(self) -> Answer:
        """What Exa answers: a status and a body."""
        key, status = self.standin.api_key, self.standin.bad_key_status
        if self.headers["x-api-key"] != key and self.headers["Authorization"] != f"Bearer {key}":
            return status, {"requestId": self.request_id} | _BAD_KEY[status]
        if refused := [name for name in self.query if name in self.standin.refuses]:
            return self.invalid(f"unrecognized keys: {', '.join(refused)}")
        for pattern, endpoint in _ENDPOINTS.items():
            if self.command == "GET" and (match := re.fullmatch(pattern, self.bare_path)):
                with self.standin.lock:
                    self.standin.catch_up()
                    return endpoint(self, *map(unquote, match.groups()))
        return self.not_found(f"Cannot {self.command} {self.path.removeprefix(_BASE)}")

    def list_monitors(self) -> Answer:
        newest_first = list(self.standin.monitors.values())[::-1]
        webset_id = self.query.get("websetId")
        return self.page([it for it in newest_first if webset_id in (None, it.webset_id)], _monitor_body)

    def get_monitor(self, monitor_id: str) -> Answer:
        monitor = self.standin.monitors.get(monitor_id)
        if not monitor:
            return self.not_found("Monitor not found")
        return 200, _monitor_body(monitor)

    def list_runs(self, monitor_id: str) -> Answer:
        monitor = self.standin.monitors.get(monitor_id)
        return self.page(_ORDERS[self.standin.order](monitor.runs) if monitor else [], _run_body)

    def get_run(self, monitor_id: str, run_id: str) -> Answer:
        run = self.standin.runs.get(run_id)
        if not run or run.monitor_id != monitor_id:
            return self.not_found("Monitor run not found")
        return 200, _run_body(run)

    def page(self, items: list[Any], body: Callable[[Any], dict[str, Any]]) -> Answer:
        """Answer with what follows the object whose id is the cursor; where none is, with page one."""
        limit = self.query.get("limit")
        if limit not in (None, *map(str, range(1, 201))):
            return self.invalid("limit must be a number from 1 to 200")
        ids = [item.id for item in items]
        cursor = self.query.get("cursor")
        start = ids.index(cursor) + 1 if cursor in ids and self.standin.honours_cursor else 0
        end = start + int(limit or self.standin.page_size)
        more = end < len(ids)
        data = [body(item) for item in items[start:end]]
        return 200, {"data": data, "hasMore": more, "nextCursor": ids[end - 1] if more else None}

    def invalid(self, why: str) -> Answer:
        error = f"Invalid request | Validation error: {why}"
        return 400, {"requestId": self.request_id, "error": error, "tag": "INVALID_REQUEST"}

    def not_found(self, message: str) -> Answer:
        return 404, {
            "statusCode": 404,
            "timestamp": _iso(datetime.now(UTC)),
            "message": message,
            "error": "Not Found",
            "path": self.path.removeprefix(_BASE),
        }


_ENDPOINTS: dict[str, Callable[..., Answer]] = {
    f"{_BASE}/v0/monitors": Handler.list_monitors,
    f"{_BASE}/v0/monitors/([^/]+)": Handler.get_monitor,
    f"{_BASE}/v0/monitors/([^/]+)/runs": Handler.list_runs,
    f"{_BASE}/v0/monitors/([^/]+)/runs/([^/]+)": Handler.get_run,
}


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
    handler.rfile.close()  # it holds the socket open, and what closes it later would say goodbye first
    handler.connection.close()


def _page(handler: Handler, fault: Fault, **fields: Any) -> None:
    status, body = handler.answer()
    handler.send(status, body | fields)


def _cut(handler: Handler, fault: Fault) -> None:
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
    "redirect": lambda handler, fault: handler.send(302, b"", {"Location": fault.location}),
    "huge": _huge,
    "drip": _drip,
}


class Server(socketserver.ThreadingTCPServer):
    """Knows its connections, so that closing ends them too; unlike HTTPServer it asks no name server."""

    allow_reuse_address = True
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], handler: Callable[..., Handler]) -> None:
        self.serving: list[tuple[threading.Thread, socket.socket]] = []
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        args = (request, client_address)
        thread = threading.Thread(target=self.process_request_thread, args=args, daemon=True)
        self.serving.append((thread, request))
        thread.start()

    def server_close(self) -> None:
        super().server_close()
        for _, connection in self.serving:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread, _ in self.serving:
            thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that went away is no news
            super().handle_error(request, client_address)
