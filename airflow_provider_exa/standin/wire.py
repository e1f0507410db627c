"""The stand-in on the wire: paths, errors and pages of the APIs."""

from __future__ import annotations

import errno
import json
import logging
import re
import secrets
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote
from zlib import crc32

from airflow_provider_exa.standin.bodies import SEARCH, WEBSETS, Api, Body, Item, iso, search_id, webset
from airflow_provider_exa.standin.faults import FAULTS
from airflow_provider_exa.standin.last_run import last_run
from airflow_provider_exa.standin.paging import next_page, start_of_page

if TYPE_CHECKING:
    from airflow_provider_exa.standin import StandIn
    from airflow_provider_exa.standin.objects import Monitor, Run

log = logging.getLogger("airflow_provider_exa.standin")

Answer = tuple[int, dict[str, Any]]

_ORDERS: dict[str, Callable[[list[Run]], list[Run]]] = {
    "newest": lambda runs: runs[::-1],
    "oldest": lambda runs: runs,
    "shuffled": lambda runs: sorted(runs, key=lambda run: crc32(run.id.encode())),
}

_BAD_KEY = {
    400: {"error": "x-api-key header is invalid"},
    401: {"error": "Invalid API key", "tag": "INVALID_API_KEY"},
}


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

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
        if fault := self.standin.over_rate_limit() or self.standin.next_fault(self.path):
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
        """Return Exa's answer: a status and a body."""
        key, status = self.standin.api_key, self.standin.bad_key_status
        if self.headers["x-api-key"] != key and self.headers["Authorization"] != f"Bearer {key}":
            return status, {"requestId": self.request_id} | _BAD_KEY[status]
        if refused := [name for name in self.query if name in self.standin.refuses]:
            return self.invalid(f"unrecognized keys: {', '.join(refused)}")
        for method, pattern, api, endpoint in _ROUTES:
            if self.command == method and (match := re.fullmatch(pattern, self.bare_path)):
                self.api = api
                with self.standin.lock:
                    self.standin.catch_up()
                    return endpoint(self, *map(unquote, match.groups()))
        return self.no_path()

    def monitors(self) -> list[Monitor]:
        """Return the monitors of the requested API, oldest first."""
        return [monitor for monitor in self.standin.monitors.values() if self.api.has(monitor)]

    def monitor(self, monitor_id: str) -> Monitor | None:
        """Return a monitor of the requested API; None: it has none with this id."""
        monitor = self.standin.monitors.get(monitor_id)
        return monitor if monitor and self.api.has(monitor) else None

    def monitor_body(self, monitor: Monitor) -> Body:
        extra = last_run(self.standin, monitor) if self.api is WEBSETS else {}
        return self.api.monitor(monitor) | extra

    def list_monitors(self) -> Answer:
        field = self.api.filter
        wanted = self.query.get(field)
        return self.page(
            self.monitors()[::-1],
            self.monitor_body,
            lambda monitor: wanted in (None, self.api.monitor(monitor)[field]),
        )

    def get_monitor(self, monitor_id: str) -> Answer:
        monitor = self.monitor(monitor_id)
        return (200, self.monitor_body(monitor)) if monitor else self.not_found("Monitor not found")

    def list_runs(self, monitor_id: str) -> Answer:
        monitor = self.monitor(monitor_id)
        return self.page(_ORDERS[self.standin.order](monitor.listed()) if monitor else [], self.api.run)

    def get_run(self, monitor_id: str, run_id: str) -> Answer:
        run = self.standin.runs.get(run_id)
        monitor = self.standin.monitors.get(monitor_id)  # None: a test has deleted it, but not its runs
        elsewhere = monitor is not None and not self.api.has(monitor)
        if not run or run.monitor_id != monitor_id or not run.is_listed() or elsewhere:
            return self.not_found("Monitor run not found")
        return 200, self.api.run(run)

    def trigger(self, monitor_id: str) -> Answer:
        if not self.monitor(monitor_id):
            return self.not_found("Monitor not found")
        return 200, {"triggered": self.standin.trigger(monitor_id) is not None}

    def get_webset(self, webset_id: str) -> Answer:
        monitors = self.monitors_of(webset_id)
        if not monitors:
            return self.not_found("Webset not found")
        status = self.standin.websets.get(webset_id, "idle")
        bodies = [self.monitor_body(monitor) for monitor in monitors]
        return 200, webset(webset_id, status, bodies, self.searched(monitors))

    def list_items(self, webset_id: str) -> Answer:
        monitors = self.monitors_of(webset_id)
        if not monitors:
            return self.not_found("Webset not found")
        source, runs = self.query.get("sourceId"), self.searched(monitors)
        items = [Item(run, place) for run in runs for place in range(len(run.results or ()))]
        return self.page(
            items,
            lambda item: item.body(webset_id),
            lambda item: source in (None, search_id(item.run)),
            size=20,
            max_limit=100,
        )

    def monitors_of(self, webset_id: str) -> list[Monitor]:
        return [monitor for monitor in self.monitors() if monitor.webset_id == webset_id]

    def searched(self, monitors: list[Monitor]) -> list[Run]:
        """Return the runs with a search in the webset."""
        runs = [run for monitor in monitors for run in monitor.listed() if run.has_searched()]
        return _ORDERS[self.standin.order](sorted(runs, key=lambda run: run.created_at))

    def page(
        self,
        items: list[Any],
        body: Callable[[Any], dict[str, Any]],
        keep: Callable[[Any], bool] = bool,
        *,
        size: int | None = None,
        max_limit: int | None = None,
    ) -> Answer:
        """
        Answer with one page of the objects to keep.

        :param size: objects on a page if the request names no limit; None: the API's.
        :param max_limit: largest limit; None: the API's.
        """
        limit, most = self.query.get("limit"), max_limit or self.api.max_limit
        if limit not in (None, *map(str, range(1, most + 1))):
            return self.invalid(f"limit must be a number from 1 to {most}")
        cursors = self.standin.cursors
        try:
            start = start_of_page(cursors, self.query.get("cursor"), [item.id for item in items])
        except ValueError as error:
            return self.invalid(str(error))
        kept = [item for item in items[start:] if keep(item)]
        shown = kept[: int(limit or self.standin.page_size or size or self.api.page_size)]
        last_id = shown[-1].id if len(shown) < len(kept) else None
        return 200, {"data": [body(item) for item in shown], **next_page(cursors, start, last_id)}

    def invalid(self, why: str) -> Answer:
        error = f"Invalid request | Validation error: {why}"
        return 400, {"requestId": self.request_id, "error": error, "tag": "INVALID_REQUEST"}

    def not_found(self, message: str) -> Answer:
        """Answer for an unknown object: Websets as recorded, search as documented."""
        if self.api is SEARCH:
            return 404, {"requestId": self.request_id, "error": message, "tag": "NOT_FOUND"}
        return self.no_path(message)

    def no_path(self, message: str | None = None) -> Answer:
        path = self.path.removeprefix("/websets")
        return 404, {
            "statusCode": 404,
            "timestamp": iso(datetime.now(UTC)),
            "message": message or f"Cannot {self.command} {path}",
            "error": "Not Found",
            "path": path,
        }


_MONITOR, _WEBSET = "/monitors/([^/]+)", "/websets/([^/]+)"
_BOTH: dict[str, Callable[..., Answer]] = {
    "/monitors": Handler.list_monitors,
    _MONITOR: Handler.get_monitor,
    f"{_MONITOR}/runs": Handler.list_runs,
    f"{_MONITOR}/runs/([^/]+)": Handler.get_run,
}
_ROUTES: list[tuple[str, str, Api, Callable[..., Answer]]] = [
    *(("GET", api.base + path, api, answer) for api in (WEBSETS, SEARCH) for path, answer in _BOTH.items()),
    ("GET", f"{WEBSETS.base}{_WEBSET}", WEBSETS, Handler.get_webset),
    ("GET", f"{WEBSETS.base}{_WEBSET}/items", WEBSETS, Handler.list_items),
    ("POST", f"{SEARCH.base}{_MONITOR}/trigger", SEARCH, Handler.trigger),
]


class Server(socketserver.ThreadingTCPServer):
    """A server that can end its open connections; unlike HTTPServer, it asks no name server."""

    allow_reuse_address = True
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], handler: Callable[..., Handler]) -> None:
        self.accepted = 0
        self._open: dict[threading.Thread, socket.socket] = {}
        self._lock = threading.Lock()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own."""
        args = (request, client_address)
        thread = threading.Thread(target=self.process_request_thread, args=args, daemon=True)
        with self._lock:
            self.accepted += 1
            self._open[thread] = request
        thread.start()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection until it ends, then forget it."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                del self._open[threading.current_thread()]

    def server_close(self) -> None:
        """Close the socket that listens, then every connection."""
        super().server_close()
        with self._lock:
            serving = dict(self._open)
        for connection in serving.values():
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in serving:
            thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report what broke, unless a client went away."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def serve(port: int, handler: Callable[..., Handler]) -> Server:
    """
    Return a server at a port of 127.0.0.1.

    :raises OSError: the port cannot be used.
    """
    try:
        return Server(("127.0.0.1", port), handler)
    except (OSError, OverflowError) as error:
        why = "in use" if error.args[0] == errno.EADDRINUSE else f"not usable ({error.args[-1]})"
        number = error.errno if isinstance(error, OSError) else errno.EINVAL
        raise OSError(
            number, f"Port {port} at 127.0.0.1 is {why}: give another, or 0 for a free one."
        ) from error
