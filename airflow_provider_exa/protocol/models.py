"""Monitors and their runs, and how each of Exa's APIs words them."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from pendulum import UTC, DateTime

from airflow_provider_exa.protocol.errors import ExaInputError

log = logging.getLogger(__name__)


FINISHED = ("completed", "failed", "canceled")


STATUSES = ("created", "running", *FINISHED)


@dataclass(frozen=True)
class Dialect:
    """
    How one of Exa's monitor APIs words what this package says in the words of Websets.

    :param base: path of the API below the connection's base URL
    :param enabled: the status of a monitor that makes runs
    :param keys: the API's key for each field of a :class:`MonitorRun` that may be missing
    :param websets: whether a monitor belongs to a webset, where the items are that its runs find
    :param output: the API's key for what a run found, where the run itself holds it
    :param trigger: whether a run can be started
    :param statuses: the API's own words for a run's status, where they differ
    """

    base: str
    enabled: str
    keys: Mapping[str, str]
    websets: bool = False
    output: str | None = None
    trigger: bool = False
    statuses: Mapping[str, str] = field(default_factory=dict)


#: Source: Exa's OpenAPI documents; schemas ``Monitor`` and ``MonitorRun`` of Websets, ``SearchMonitor`` and
#: ``SearchMonitorRun`` of search.
DIALECTS = {
    "websets": Dialect(
        base="/websets/v0",
        enabled="enabled",
        keys={
            "updated_at": "updatedAt",
            "completed_at": "completedAt",
            "failed_at": "failedAt",
            "canceled_at": "canceledAt",
            "failed_reason": "failedReason",
        },
        websets=True,
    ),
    "search": Dialect(
        base="",
        enabled="active",
        keys={
            "updated_at": "updatedAt",
            "completed_at": "completedAt",
            "failed_at": "failedAt",
            "canceled_at": "cancelledAt",
            "failed_reason": "failReason",
        },
        output="output",
        trigger=True,
        statuses={"pending": "created", "cancelled": "canceled"},
    ),
}


def dialect_of(api: str, **needed: str | None) -> Dialect:
    """
    The row of :data:`DIALECTS` for an ``api=`` argument.

    :param needed: what, if anything, needs a field that not every API's row has, by that field
    """
    if not isinstance(api, str) or api not in DIALECTS:
        raise ExaInputError(f"api={api!r} is not one of {', '.join(map(repr, DIALECTS))}")
    for name, what in needed.items():
        able = [f"api={each!r}" for each, row in DIALECTS.items() if getattr(row, name)]
        if what and not getattr(DIALECTS[api], name):
            raise ExaInputError(f"{what} is not possible with api={api!r}, only with {' or '.join(able)}")
    return DIALECTS[api]


@dataclass(frozen=True, slots=True)
class MonitorRun:
    """
    One run of a monitor: one search of the web on the monitor's schedule.

    :param status: ``created``, ``running``, ``completed``, ``failed``, ``canceled``, or a word of Exa's
        that this version does not know, which counts as not finished
    :param type: what the run did, as Exa says it (``search`` or ``refresh``); a search monitor's says nothing
    :param failed_reason: why it failed, in Exa's words
    :param raw: the run as Exa sent it
    """

    id: str
    monitor_id: str
    status: str
    type: str | None
    created_at: DateTime
    updated_at: DateTime | None
    completed_at: DateTime | None
    failed_at: DateTime | None
    canceled_at: DateTime | None
    failed_reason: str | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @property
    def finished(self) -> bool:
        """Whether the run will change no more."""
        return self.status in FINISHED

    @property
    def ended_at(self) -> DateTime:
        """When the run ended, or, where Exa does not say it, when it was last known to change."""
        known = (self.completed_at, self.failed_at, self.canceled_at, self.updated_at)
        return next(filter(None, known), self.created_at)

    def as_dict(self) -> dict[str, str | None]:
        """Every field but ``raw``, times as ISO 8601 in UTC: JSON, and what goes to XCom."""
        values = {name: getattr(self, name) for name in RUN_FIELDS}
        return {
            name: value.isoformat() if isinstance(value, DateTime) else value
            for name, value in values.items()
        }


RUN_FIELDS = tuple(each.name for each in fields(MonitorRun) if each.name != "raw")


@dataclass(frozen=True)
class Monitor:
    """
    A monitor: a search of the web on a schedule.

    :param status: as Exa says it
    :param enabled: whether its schedule is on; of search monitors, one that is on may have none
    :param webset_id: the webset that its runs add to; a search monitor has none
    :param raw: the monitor as Exa sent it
    """

    id: str
    status: str
    enabled: bool
    webset_id: str | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    def as_dict(self) -> dict[str, str | bool | None]:
        """Every field but ``raw``: JSON, and what goes to XCom."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "raw"}


@functools.lru_cache(maxsize=256)
def warn_once(message: str) -> None:
    """Log a warning the first time that this process has it to say."""
    log.warning(message)


def parse_time(text: str) -> DateTime:
    """A moment as Exa writes it; pendulum's own parser takes ten times as long."""
    moment = datetime.fromisoformat(text)
    if moment.utcoffset():
        moment = moment.astimezone(UTC)
    return DateTime(
        moment.year,
        moment.month,
        moment.day,
        moment.hour,
        moment.minute,
        moment.second,
        moment.microsecond,
        tzinfo=UTC,
    )


def _text(item: Mapping[str, Any], key: str) -> str:
    """A string that has to be there."""
    value = item[key]
    if not isinstance(value, str) or not value:
        raise TypeError(f"{key!r} is {value!r:.100}")
    return value


def parse_run(dialect: Dialect, monitor_id: str, item: Mapping[str, Any]) -> MonitorRun:
    """A run as Exa sent it; only ``id``, ``status`` and ``createdAt`` have to be there."""
    status = _text(item, "status")
    status = dialect.statuses.get(status, status)
    if status not in STATUSES:
        warn_once(f"Exa reports the run status {status!r}, which is new here; it counts as not finished.")
    optional = {name: item.get(key) for name, key in dialect.keys.items()}
    return MonitorRun(
        id=_text(item, "id"),
        monitor_id=item.get("monitorId") or monitor_id,
        status=status,
        type=item.get("type"),
        created_at=parse_time(_text(item, "createdAt")),
        failed_reason=optional.pop("failed_reason"),
        raw=item,
        **{name: parse_time(text) if text else None for name, text in optional.items()},
    )


def parse_monitor(dialect: Dialect, item: Mapping[str, Any]) -> Monitor:
    """A monitor as Exa sent it; only ``id`` and ``status`` have to be there."""
    status = _text(item, "status")
    return Monitor(_text(item, "id"), status, status == dialect.enabled, item.get("websetId"), item)
