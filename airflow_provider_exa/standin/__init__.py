"""A local stand-in for Exa's two monitor APIs, which answers what a test or a demo told it to."""

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
from airflow_provider_exa.standin.faults import Fault
from airflow_provider_exa.standin.last_run import LastRuns
from airflow_provider_exa.standin.objects import Monitor, Run, new_id
from airflow_provider_exa.standin.paging import Cursors

__all__ = ["Fault", "RecordedRequest", "StandIn"]

States = Iterable[tuple[float, str]]


@dataclass(frozen=True)
class RecordedRequest:
    """A request that the stand-in was sent.

    :param path: without the query, quoted as it was sent.
    :param headers: by lower-case name.
    :param at: when it came, in seconds of ``time.monotonic()``.
    :param status: what was answered; None where a fault left it without an answer.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    at: float
    status: int | None


@dataclass(kw_only=True, eq=False)
class StandIn:
    """A local server that answers as Exa does, from its creation to :meth:`close` or the end of ``with``.

    Every monitor and run is there under both APIs, Websets (``/websets/v0/monitors``) and search
    (``/monitors``), in the words of each; statuses may be given in either's. Whatever it was created with,
    except the port, may be changed while it runs.

    :param api_key: the key it accepts.
    :param page_size: how many objects a page holds where the request names no ``limit``; None: as many as
        Exa documents (50 in search, 25 in Websets, 20 of a webset's items).
    :param port: the port at 127.0.0.1; 0: a free one.
    :param order: how runs are listed, and the searches and items that come from them.
    :param cursors: ``honoured``; ``ignored`` (every page is page one, with the same ``nextCursor``);
        ``missing`` (a page that is not the last has no ``nextCursor``); ``looping`` (page two leads back to
        page one); or ``expires`` (400 from page three on). An unknown cursor is a 400, unless it is ignored.
    :param refuses: names of query parameters that are answered with 400.
    :param bad_key_status: how a bad key is answered: 401 as documented, or 400 as once recorded.
    :param triggers: False: no trigger starts a run, and each is answered so.
    :param on_busy: what a trigger does about a run that is unfinished: ``cancel`` it and start another, or
        ``refuse`` to start one.
    :param on_trigger: what a triggered run is when, as ``states`` of :meth:`add_run`.
    :param trigger_delay: the seconds from a trigger until its run can be seen.
    :param trigger_options: further arguments of :meth:`add_run` for triggered runs.
    :param rate_limit: how many requests it serves in any second; more are answered 429. None: all.
    :param rate_limit_retry_after: the ``Retry-After`` header of such a 429; None: it has none.
    :param last_run: what a Websets monitor's ``lastRun`` is: ``true``, ``null``, ``missing`` (no such key),
        ``stuck`` (as it was when first shown), ``other`` (another monitor's) or ``flapping`` (every second
        time the run before).
    :param last_run_lag: by how many seconds ``lastRun`` is behind.
    :param keep_requests: how many of the latest requests :attr:`requests` holds, at least.
    """

    api_key: str = "standin-key"
    page_size: int | None = None
    port: int = 0
    order: Literal["newest", "oldest", "shuffled"] = "newest"
    cursors: Cursors = "honoured"
    refuses: Collection[str] = ()
    bad_key_status: Literal[400, 401] = 401
    triggers: bool = True
    on_busy: Literal["cancel", "refuse"] = "cancel"
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
        self._served: deque[float] = deque()  # when, within the last second
        self._server = wire.Server(("127.0.0.1", self.port), partial(wire.Handler, self))
        self.port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop, and end every connection, even one that hangs."""
        with suppress(OSError):
            self._server.socket.shutdown(socket.SHUT_RDWR)  # wakes its thread, which else takes a while
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        """The host of an Airflow connection, to which each API adds its base."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many TCP connections were accepted so far."""
        return self._server.accepted

    def connection(self, **extra: Any) -> str:
        """Return an Airflow connection to this server as JSON, for ``AIRFLOW_CONN_EXA_DEFAULT``.

        :param extra: the fields of the connection's extra.
        """
        return json.dumps({"conn_type": "exa", "host": self.url, "password": self.api_key, "extra": extra})

    def add_monitor(
        self,
        monitor_id: str | None = None,
        *,
        status: str = "enabled",
        api: Literal["websets", "search"] | None = None,
        webset_id: str | None = None,
        webset_status: str | None = None,
    ) -> str:
        """Add a monitor, or change the one with this id, and return its id.

        :param status: a ``paused`` or ``disabled`` monitor makes no runs by itself.
        :param api: the API it belongs to; None: what it was, at first both, which Exa has not but is handy.
        :param webset_status: what its webset is from now on; None: what it was, at first idle.
        """
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
        """Say what a monitor's webset is from now on."""
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
        """Add a run, and its monitor where there is none, and return the run's id.

        :param status: what the run is from the start, where ``states`` does not say.
        :param states: what the run is when: pairs of seconds after ``created_at`` and a status.
        :param created_at: when it was created; None: now.
        :param failed_reason: what the run says while it is failed.
        :param results: what the run has found once it is completed: pages, each with ``url``, ``title`` and
            what else Exa's search says of one. In Websets they are the items of a search that the webset then
            has; None: it has no such search.
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
        """Let a monitor make a run now, and another each time so many seconds have passed.

        While the monitor is paused or disabled, it makes none. If it belongs to search, a run that is
        unfinished when the next one starts is cancelled.

        :param states: as for :meth:`add_run`, and so are ``failed_reason`` and ``results``.
        """
        if seconds <= 0:
            raise ValueError(f"A monitor cannot make a run every {seconds} seconds.")
        with self.lock:
            self.catch_up()
            monitor = self._monitor_of(monitor_id)
            monitor.next_run_at, monitor.period = datetime.now(UTC), timedelta(seconds=seconds)
            found = None if results is None else list(results)
            monitor.run_options = {"states": list(states), "failed_reason": failed_reason, "results": found}

    def trigger(self, monitor_id: str) -> str | None:
        """Do what a trigger of a monitor does, and return the new run's id; None: there is none.

        A disabled monitor is not triggered.
        """
        with self.lock:
            self.catch_up()
            monitor = self._monitor_of(monitor_id)
            if not self.triggers or monitor.status == "disabled":
                return None
            now = datetime.now(UTC)
            if self.on_busy == "refuse" and _unfinished(monitor, now):
                return None
            _cancel_unfinished(monitor, now)
            options: dict[str, Any] = {"states": self.on_trigger, **self.trigger_options}
            run_id = self.add_run(monitor_id, **options)
            if self.trigger_delay:
                self.runs[run_id].hidden_until = datetime.now(UTC) + timedelta(seconds=self.trigger_delay)
        return run_id

    def move(self, run_id: str, status: str) -> None:
        """Put a run into a status now; what was to come for it is forgotten."""
        with self.lock:
            self.runs[run_id].move(status, datetime.now(UTC))

    def fail(self, fault: Fault) -> None:
        """Let the next requests go wrong; where several faults fit a request, it meets the first given."""
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
        """Return the fault that a request meets that comes too soon, or else count it as served."""
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
        """The fault that a request with this path and query meets, if any."""
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
        """Add the runs that monitors have made by themselves since the last request."""
        now = datetime.now(UTC)
        for monitor in self.monitors.values():
            while monitor.next_run_at and monitor.next_run_at <= now:
                if monitor.is_on():
                    self._run_by_schedule(monitor, monitor.next_run_at)
                monitor.next_run_at += monitor.period

    def _run_by_schedule(self, monitor: Monitor, at: datetime) -> None:
        if monitor.api == SEARCH.name:
            _cancel_unfinished(monitor, at)
        self.add_run(monitor.id, created_at=at, **monitor.run_options)


def _unfinished(monitor: Monitor, at: datetime) -> list[Run]:
    """Return the runs that a monitor had created by a moment, and not finished."""
    created = (run for run in monitor.runs if run.created_at <= at)
    return [run for run in created if SEARCH.run_status(run.past(at)[-1][1]) not in SEARCH.ended_at]


def _cancel_unfinished(monitor: Monitor, at: datetime) -> None:
    for run in _unfinished(monitor, at):
        run.move("canceled", at)
