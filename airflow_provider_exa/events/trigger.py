"""The trigger of an asset."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Hashable, Sequence
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

if TYPE_CHECKING:
    from airflow.triggers.shared_stream import SharedStreamProducer


class ExaMonitorRunEventTrigger(BaseEventTrigger):
    """
    Watches an Exa monitor for an asset: an event for each poll that shows ended runs.

    The event is ``{"api": …, "exa_conn_id": …, "runs": [{"monitor_id", "run_id", "status", "type",
    "created_at", "finished_at", "failed_reason"}, …]}``, with at most 100 runs, oldest first, times in ISO
    8601. Make it with :func:`~airflow_provider_exa.assets.monitor_runs`.

    The trigger is made anew from its arguments, in this version of the package or another: unknown ones are
    ignored.

    :param asset_name: names the asset's cursor, too
    :param monitor_id: the monitor
    :param statuses: how a run must have ended to be reported
    :param api: which of Exa's monitor APIs to ask
    :param exa_conn_id: the Airflow connection
    :param poll_interval: seconds between polls
    :param start: runs that ended before this moment are not reported, in ISO 8601; or ``now``
    """

    def __init__(
        self,
        *,
        asset_name: str,
        monitor_id: str,
        statuses: Sequence[str] = ("completed",),
        api: str = "websets",
        exa_conn_id: str = "exa_default",
        poll_interval: float = 60,
        start: str = "now",
        **_unknown: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.asset_name = asset_name
        self.monitor_id = monitor_id
        self.statuses = statuses
        self.api = api
        self.exa_conn_id = exa_conn_id
        self.poll_interval = poll_interval
        self.start = start

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and the arguments to make the same trigger of."""
        names = inspect.signature(type(self)).parameters
        arguments = {name: getattr(self, name) for name in names if name != "_unknown"}
        return "airflow_provider_exa.triggers.ExaMonitorRunEventTrigger", arguments

    def shared_stream_key(self) -> Hashable:
        """Return one key for each asset: a late subscriber of a shared one would miss earlier events."""
        return json.dumps(self.serialize())

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        """Return the stream, which is told when an event is stored."""
        from airflow_provider_exa.events.stream import RunStream  # which needs Airflow 3.3

        return RunStream(cls(**kwargs))

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Yield each item of the stream as an event."""
        async for payload in shared_stream:
            yield TriggerEvent(payload)  # type: ignore[no-untyped-call]

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Raise: without a shared stream, nothing says when an event is stored."""
        raise NotImplementedError("This trigger needs the shared streams of a triggerer of Airflow 3.3.")
        yield
