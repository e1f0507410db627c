"""What the tests of assets use: a triggerer, and Airflow's Variables in memory."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import Any, Self

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse
from airflow.triggers.shared_stream import SharedStreamManager

from airflow_provider_exa.assets import monitor_runs
from airflow_provider_exa.standin import StandIn
from airflow_provider_exa.timing import Timing
from airflow_provider_exa.triggers import ExaMonitorRunEventTrigger
from airflow_provider_exa.waiting import poller

START = datetime(2026, 1, 1, tzinfo=UTC)
INTERVAL = 0.05
TIMING = Timing(
    first_poll_jitter=0,
    min_poll_interval=0.01,
    rate_limit_window=0.001,
    confirmation_delay=0.01,
    min_event_gap=0.02,
    variable_retry_interval=0.05,
    max_trouble_interval=0.4,
    permanent_error_interval=0.4,
    max_walk_interval=0.2,
)

#: The assets that a triggerer watches now.
WATCHED: Counter[str] = Counter()


class Variables:
    """
    Airflow's Variables, which can be told to fail.

    :ivar broken: ``read`` or ``write``, while that cannot be done
    :ivar kept: what was written, and how many requests Exa had got by then
    """

    def __init__(self, exa: StandIn) -> None:
        self.exa = exa
        self.texts: dict[str, str] = {}
        self.broken: set[str] = set()
        self.kept: list[tuple[dict[str, Any], int]] = []

    def get(self, key: str) -> str:
        if "read" in self.broken:
            raise KeyError(key)  # Airflow says that there is none
        return self.texts[key]

    def delete(self, key: str) -> None:
        if "write" in self.broken:
            raise OSError("no database to write to")
        del self.texts[key]

    def keys(self, prefix: str = "") -> list[str]:
        if "read" in self.broken:
            raise OSError("no database to read from")
        return [key for key in self.texts if key.startswith(prefix)]

    def set(self, key: str, value: str, description: str | None = None) -> None:
        if "write" in self.broken:
            raise OSError("no database to write to")
        self.texts[key] = value
        self.kept.append((json.loads(value), len(self.exa.requests)))

    @property
    def key(self) -> str:
        (key,) = self.texts
        return key

    @property
    def cursor(self) -> dict[str, Any]:
        """The cursor of the only asset, or an empty one before there is any."""
        return dict(json.loads(self.texts[self.key])) if self.texts else {"open": [], "reported": {}}


class AssetStates:
    """
    Airflow's asset state store, which has the state of assets that a DAG refers to.

    :ivar paused: assets that are not watched, but referred to
    :ivar is_broken: whether it fails to answer
    """

    def __init__(self) -> None:
        self.paused: set[str] = set()
        self.is_broken = False

    def __call__(self, *, name: str) -> SimpleNamespace:
        return SimpleNamespace(delete=partial(self._delete, name))

    def _delete(self, name: str, key: str) -> None:
        if self.is_broken:
            raise OSError("no database to ask")
        if not WATCHED[name] and name not in self.paused:
            detail = {"status_code": 404, "message": "Server returned error"}
            raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail=detail))


class Triggerer:
    """
    What a triggerer does with the triggers of assets.

    :param ack_timeout: seconds that an event may take to be stored
    """

    def __init__(self, *, ack_timeout: float = 300) -> None:
        self.sent: list[dict[str, Any]] = []
        self.sent_at: list[float] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._streams = SharedStreamManager(ack_timeout=ack_timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self._streams.stop_all()
        assert not poller._pollers
        assert not poller._clients

    def watch(self, monitor_id: str = "mon_a", *, stores: bool = True, **options: Any) -> asyncio.Task[None]:
        """
        Run the trigger of an asset.

        :param stores: whether its events are stored
        """
        asset = monitor_runs(monitor_id, **{"poll_interval": INTERVAL, **options})
        trigger = asset.watchers[0].trigger
        assert isinstance(trigger, ExaMonitorRunEventTrigger)
        task = asyncio.ensure_future(self._run(len(self.tasks), trigger, stores))
        self.tasks.append(task)
        return task

    async def _run(self, number: int, trigger: ExaMonitorRunEventTrigger, stores: bool) -> None:
        key = trigger.shared_stream_key()
        WATCHED[trigger.asset_name] += 1
        raw = self._streams.subscribe(trigger_id=number, trigger=trigger, key=key)
        try:
            async for event in trigger.filter_shared_stream(raw):
                seq = self._streams.bind_pending_event(trigger_id=number, key=key)
                assert seq is not None
                self.sent.append(json.loads(json.dumps(event.payload)))
                self.sent_at.append(asyncio.get_running_loop().time())
                if stores:
                    self._streams.confirm_persisted([seq])
        finally:
            WATCHED[trigger.asset_name] -= 1
            await self._streams.unsubscribe(number, key)

    @property
    def runs(self) -> list[str]:
        """The ids of the runs of all events, in their order."""
        return [run["run_id"] for event in self.sent for run in event["runs"]]


async def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def polls(exa: StandIn) -> int:
    """How many polls there were, each of one page."""
    return sum(each.path.endswith("/runs") for each in exa.requests)


async def more_polls(exa: StandIn, count: int = 4) -> None:
    """Return after some more polls, each of one page."""
    before = polls(exa)
    await until(lambda: polls(exa) >= before + count)


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the package has logged that is no matter of course."""
    return [
        each.getMessage()
        for each in caplog.records
        if each.levelno >= logging.WARNING and each.name.startswith("airflow_provider_exa")
    ]
