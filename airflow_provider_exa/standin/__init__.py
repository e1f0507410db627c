"""A local stand-in for Exa's two monitor APIs, scripted by a test or a demo."""

from __future__ import annotations

import json
import socket
import threading
import time
from bisect import insort
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal, Self

from airflow_provider_exa.standin import wire
from airflow_provider_exa.standin.bodies import SEARCH
from airflow_provider_exa.standin.choices import ApiName, Cursors, LastRuns, OnBusy, Order, check_choice
from airflow_provider_exa.standin.faults import Fault
from airflow_provider_exa.standin.objects import Monitor, Run, new_id

__all__ = ["Fault", "RecordedRequest", "StandIn"]

States = Iterable[tuple[float, str]]


@dataclass(frozen=True)
class RecordedRequest:
    """
    A request to the stand-in.

    :param path: without the query, quoted as it was sent.
    :param headers: by lower-case name.
    :param at: time of arrival, in seconds of ``time.monotonic()``.
    :param status: HTTP status of the answer; None: a fault left the request without one.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    at: float
    status: int | None


@dataclass(kw_only=True, eq=False)
class StandIn:
    """
    A local server that answers as Exa does, from its creation to :meth:`close` or the end of ``with``.

    Monitors and their runs exist under both APIs, Websets (``/websets/v0/monitors``) and search
    (``/monitors``), unless :meth:`add_monitor` names one. Each API answers in its own words; a test may use
    either's. Every attribute but the port may be changed while the server runs.

    :param api_key: the accepted key.
    :param page_size: objects on a page if the request names no ``limit``; None: as many as Exa documents (50
        in search, 25 in Websets, 20 of a webset's items).
    :param port: port at 127.0.0.1; 0: a free one.
    :param order: order of listed runs, and of the searches and items that come from them.
    :param cursors: ``honoured``; ``ignored`` (every page is page one, with the same ``nextCursor``);
        ``missing`` (``hasMore`` without a ``nextCursor``); ``looping`` (page two leads back to page one); or
        ``expires`` (400 from page three on). An unknown cursor is a 400, unless cursors are ignored.
    :param refuses: names of query parameters that are answered with 400.
    :param bad_key_status: answer to a bad key: 401 as documented, or 400 as once recorded.
    :param triggers: False: a trigger starts no run, and its answer says so.
    :param on_busy: answer of a trigger to an unfinished run: ``cancel`` it and start another, or ``refuse``.
    :param on_trigger: statuses of a triggered run, as ``states`` of :meth:`add_run`.
    :param trigger_delay: seconds until a triggered run is visible.
    :param trigger_options: further arguments of :meth:`add_run` for triggered runs.
    :param rate_limit: requests served in any second; further ones are answered 429. None: no limit.
    :param rate_limit_retry_after: ``Retry-After`` header of such a 429; None: no header.
    :param last_run: a Websets monitor's ``lastRun``: ``true``, ``null``, ``missing`` (no such key), ``stuck``
        (for ever as first shown), ``other`` (another monitor's) or ``flapping`` (every second time the run
        before).
    :param last_run_lag: ``lastRun`` is behind by so many seconds.
    :param keep_requests: the latest requests that :attr:`requests` holds, at least; at most twice as many.
    """

    api_key: str = "standin-key"
    page_size: int | None = None
    port: int = 0
    order: Order = "newest"
    cursors: Cursors = "honoured"
    refuses: Collection[str] = ()
    bad_key_status: Literal[400, 401] = 401
    triggers: bool = True
    on_busy: OnBusy = "cancel"
    on_trigger: Sequence[tuple[float, str]] = ((0, "created"), (1, "running"), (2, "completed"))
    trigger_delay: float = 0
    trigger_options: Mapping[str, Any] = field(default_factory=dict)
    rate_limit: int | None = None
    rate_limit_retry_after: str | None = None
    last_run: LastRuns = "true"
    last_run_lag: float = 0
    keep_requests: int = 10_000
    requests: list[RecordedRequest] = field(default_factory=list, init=False, repr=False)
    """The latest requests, oldest first."""

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.monitors: dict[str, Monitor] = {}
        self.runs: dict[str, Run] = {}
        self.websets: dict[str, str] = {}  # statuses
        self._faults: list[Fault] = []
        self._served: deque[float] = deque()  # times of the requests in the last second
        self._server = wire.serve(self.port, partial(wire.Handler, self))
        self.port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def __setattr__(self, name: str, value: Any) -> None:
        check_choice(name, value)
        super().__setattr__(name, value)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the server, and end every connection, even one that hangs."""
        with suppress(OSError):
            self._server.socket.shutdown(socket.SHUT_RDWR)  # wakes its thread, which otherwise takes a while
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Host of an Airflow connection; each API adds its base."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """Number of TCP connections accepted so far."""
        return self._server.accepted

    def connection(self, **extra: Any) -> str:
        """
        Return an Airflow connection to this server as JSON, for ``AIRFLOW_CONN_EXA_DEFAULT``.

        :param extra: fields of the connection's extra.
        """
        return json.dumps({"conn_type": "exa", "host": self.url, "password": self.api_key, "extra": extra})

    def add_monitor(
        self,
        monitor_id: str | None = None,
        *,
        status: str = "enabled",
        api: ApiName | None = None,
        webset_id: str | None = None,
        webset_status: str | None = None,
    ) -> str:
        """
        Add a monitor, or change the one with this id, and return its id.

        :param status: in either API's words; a ``paused`` or ``disabled`` monitor makes no runs by itself.
        :param api: API that the monitor belongs to; None: unchanged, at first both. A monitor of Exa's has
            one API; both are a convenience for tests.
        :param webset_id: id of its webset; None: unchanged, at first a new one.
        :param webset_status: status of its webset; None: unchanged, at first idle.
        """
        if api is not None:
            check_choice("api", api)
        with self.lock:
            self.catch_up()
            monitor = self._monitor_of(monitor_id or new_id("monitor"))
            monitor.status = status
            monitor.api = api or monitor.api
            monitor.webset_id = webset_id or monitor.webset_id
            if webset_status:
                self.set_webset_status(monitor.id, webset_status)
        return monitor.id

    def set_webset_status(self, monitor_id: str, status: str) -> None:
        """Set the status of a monitor's webset."""
        with self.lock:
            self.websets[self._monitor_of(monitor_id).webset_id] = status

    def add_run(
        self,
        monitor_id: str,
        *,
        status: str = "completed",
        states: States | None = None,
        created_at: datetime | None = None,
        run_id: str | None = None,
        failed_reason: str | None = None,
        type: Literal["search", "refresh"] = "search",
        results: Iterable[Mapping[str, Any]] | None = None,
    ) -> str:
        """
        Add a run, and its monitor if it is new, and return the run's id.

        :param status: status from the start, unless ``states`` are given.
        :param states: statuses over time: pairs of seconds after ``created_at`` and a status.
        :param created_at: time of creation; None: now.
        :param run_id: None: a new id.
        :param failed_reason: reason shown while the run is failed.
        :param results: pages that the completed run has found, each with ``url``, ``title`` and further keys
            of Exa's search. In Websets they are the items of a search in the webset; None: no such search.
        :raises ValueError: another run has this id.
        """
        moment = created_at.timestamp() if created_at else time.time()
        created_at = datetime.fromtimestamp(moment, UTC)  # pendulum's own would lose its zone when added to
        history = [(created_at + timedelta(seconds=s), state) for s, state in states or [(0, status)]]
        found = None if results is None else [dict(result) for result in results]
        run = Run(run_id or new_id("run"), monitor_id, type, created_at, failed_reason, history, found)
        with self.lock:
            if other := self.runs.get(run.id):
                raise ValueError(f"The id {run.id!r} is taken by a run of monitor {other.monitor_id!r}.")
            insort(self._monitor_of(monitor_id).runs, run, key=lambda run: run.created_at)
            self.runs[run.id] = run
        return run.id

    def every(
        self,
        monitor_id: str,
        *,
        seconds: float,
        states: States,
        failed_reason: str | None = None,
        results: Iterable[Mapping[str, Any]] | None = None,
    ) -> None:
        """
        Let a monitor make a run now, and another whenever so many seconds have passed.

        A paused or disabled monitor makes none. A monitor that belongs to search cancels its unfinished run
        when the next one starts.

        :param seconds: from one run's start to the next.
        :param states: as for :meth:`add_run`, like ``failed_reason`` and ``results``.
        """
        if seconds <= 0:
            raise ValueError(f"Monitor {monitor_id!r} cannot make a run every {seconds} seconds.")
        with self.lock:
            self.catch_up()
            monitor = self._monitor_of(monitor_id)
            monitor.next_run_at, monitor.period = datetime.now(UTC), timedelta(seconds=seconds)
            found = None if results is None else list(results)
            monitor.run_options = {"states": list(states), "failed_reason": failed_reason, "results": found}

    def trigger(self, monitor_id: str) -> str | None:
        """
        Trigger a monitor, and return the new run's id; None: no run was started.

        A disabled monitor starts none.
        """
        with self.lock:
            self.catch_up()
            monitor = self._monitor_of(monitor_id)
            if not self.triggers or monitor.status == "disabled":
                return None
            now = datetime.now(UTC)
            if self.on_busy == "refuse" and monitor.unfinished(now):
                return None
            monitor.cancel_unfinished(now)
            options: dict[str, Any] = {"states": self.on_trigger, **self.trigger_options}
            run_id = self.add_run(monitor_id, **options)
            if self.trigger_delay:
                self.runs[run_id].hidden_until = datetime.now(UTC) + timedelta(seconds=self.trigger_delay)
        return run_id

    def move(self, run_id: str, status: str) -> None:
        """Put a run into a status now, and forget its later ones."""
        with self.lock:
            self.runs[run_id].move(status, datetime.now(UTC))

    def fail(self, fault: Fault) -> None:
        """Let the next requests go wrong; of several faults, a request meets the first that fits."""
        with self.lock:
            self._faults += [fault] * (1 if fault.times is None else fault.times)

    def heal(self) -> None:
        """Forget all faults."""
        with self.lock:
            self._faults.clear()

    def record(self, *answered: Any) -> None:
        """Note a request; the arguments are those of :class:`RecordedRequest`."""
        with self.lock:
            self.requests.append(RecordedRequest(*answered))
            if len(self.requests) > 2 * self.keep_requests:  # all at once: each time would be slow
                del self.requests[: len(self.requests) - self.keep_requests]

    def over_rate_limit(self) -> Fault | None:
        """Return a 429 if the rate limit is reached, otherwise count the request as served."""
        if self.rate_limit is None:
            return None
        with self.lock:
            now = time.monotonic()
            while self._served and now - self._served[0] >= 1:
                self._served.popleft()
            if len(self._served) >= self.rate_limit:
                return Fault(status=429, retry_after=self.rate_limit_retry_after)
            self._served.append(now)
        return None

    def next_fault(self, path: str) -> Fault | None:
        """Return the fault for a request with this path and query, if any."""
        with self.lock:
            for fault in self._faults:
                if (fault.path or "") in path:
                    if fault.times is not None:
                        self._faults.remove(fault)
                    return fault
        return None

    def _monitor_of(self, monitor_id: str) -> Monitor:
        return self.monitors.setdefault(monitor_id, Monitor(monitor_id))

    def catch_up(self) -> None:
        """Add the scheduled runs whose time has come."""
        now = datetime.now(UTC)
        for monitor in self.monitors.values():
            while monitor.next_run_at and monitor.next_run_at <= now:
                if monitor.is_on():
                    self._run_by_schedule(monitor, monitor.next_run_at)
                monitor.next_run_at += monitor.period

    def _run_by_schedule(self, monitor: Monitor, at: datetime) -> None:
        if monitor.api == SEARCH.name:
            monitor.cancel_unfinished(at)
        self.add_run(monitor.id, created_at=at, **monitor.run_options)
