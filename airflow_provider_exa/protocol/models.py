"""Monitors and their runs, and how each of Exa's APIs words them."""

from __future__ import annotations

import functools
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from pendulum import UTC, DateTime

from airflow_provider_exa.protocol.errors import ExaInputError

log = logging.getLogger(__name__)


FINISHED = ("completed", "failed", "canceled")


STATUSES = ("created", "running", *FINISHED)


#: Longer ids and words, in characters, are none; a reason is cut. They go into log lines, XComs and events.
MAX_TEXT = 500
MAX_REASON = 2000


@dataclass(frozen=True)
class Dialect:
    """
    The words of one of Exa's monitor APIs, where they differ from those of Websets.

    :param base: path of the API below the connection's base URL
    :param enabled: the status of a monitor that makes runs
    :param keys: the API's key for each field of a :class:`MonitorRun` that may be missing
    :param websets: whether a monitor belongs to a webset, where the items are that its runs find
    :param output: the API's key for the results of a run, where the run itself holds them
    :param trigger: whether a run can be started
    :param statuses: the API's own words for a run's status, where they differ
    :param run_page_size: the ``limit`` to list runs with; None where the API documents none
    """

    base: str
    enabled: str
    keys: Mapping[str, str]
    websets: bool = False
    output: str | None = None
    trigger: bool = False
    statuses: Mapping[str, str] = field(default_factory=dict)
    run_page_size: int | None = None


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
        run_page_size=20,  # a run holds all that it found: fifty of them can be 12 MB
    ),
}


#: The API of an ``api=`` argument that nobody gave.
DEFAULT_API = "websets"


def dialect_of(api: str, **needed: str | None) -> Dialect:
    """
    Return the row of :data:`DIALECTS` for an ``api=`` argument.

    :param needed: an argument or action that needs a field which not every API's row has, by that field
    :raises ExaInputError: there is no such API, or it cannot do it
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
    :param type: ``search`` or ``refresh``, as Exa says it; a search monitor's run has none
    :param failed_reason: why it failed, in Exa's words, of which it holds at most 2,000 characters
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
        """Whether the run has ended: it was completed, failed or canceled."""
        return self.status in FINISHED

    @property
    def ended_at(self) -> DateTime:
        """The time at which the run ended, or was last known to change where Exa does not say."""
        known = (self.completed_at, self.failed_at, self.canceled_at, self.updated_at)
        return next(filter(None, known), self.created_at)

    def as_dict(self) -> dict[str, str | None]:
        """Return every field but ``raw``, times as ISO 8601 in UTC: JSON, which goes to XCom."""
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
        """Return every field but ``raw``: JSON, which goes to XCom."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "raw"}


@functools.lru_cache(maxsize=256)
def warn_once(message: str) -> None:
    """Log a warning the first time that this process has it to say."""
    log.warning(message)


#: A day, or a day and a time; ``fromisoformat`` alone would take ``1770120100000`` for the year 1770.
ISO_8601 = re.compile(r"(\d{4}-\d\d-\d\d|\d{8})([Tt ].+)?", re.ASCII)


def parse_time(text: str) -> DateTime:
    """
    Parse a time as Exa writes it; pendulum's own parser takes ten times as long.

    :raises Exception: it is no date and time in ISO 8601
    """
    if not ISO_8601.fullmatch(text):
        raise ValueError(f"Invalid isoformat string: {text!r:.100}")
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


def required_text(item: Mapping[str, Any], key: str) -> str:
    """
    Return the text that an object holds: an id, a status or a time.

    :raises Exception: there is none, or it is too long to be one
    """
    value = item[key]
    if not isinstance(value, str) or not value:
        raise TypeError(f"{key!r} is {value!r:.100}")
    if len(value) > MAX_TEXT:
        raise ValueError(f"{key!r} has {len(value)} characters")
    return value


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and len(value) <= MAX_TEXT else None


def parse_run(
    dialect: Dialect, monitor_id: str, item: Mapping[str, Any], *, keep_raw: bool = True
) -> MonitorRun:
    """
    Read a run as Exa sends it; only ``id``, ``status`` and ``createdAt`` have to be there.

    :param keep_raw: whether the run keeps what Exa sent, which may be all that it found
    :raises Exception: it is no run, or another monitor's
    """
    id_, status, created_at = (required_text(item, key) for key in ("id", "status", "createdAt"))
    if (owner := _text(item.get("monitorId"))) and owner != monitor_id:
        raise ValueError(f"it is of the monitor {owner!r:.100}")
    status = dialect.statuses.get(status, status)
    if status not in STATUSES:
        warn_once(
            f"Exa reports the run status {status!r:.100}, which is new here; it counts as not finished."
        )
    optional = {name: item.get(key) for name, key in dialect.keys.items()}
    reason = optional.pop("failed_reason")
    if reason is not None:
        reason = (reason if isinstance(reason, str) else json.dumps(reason))[:MAX_REASON]
    return MonitorRun(
        id=id_,
        monitor_id=monitor_id,
        status=status,
        type=_text(item.get("type")),
        created_at=parse_time(created_at),
        failed_reason=reason,
        raw=item if keep_raw else {},
        **{name: parse_time(text) if text else None for name, text in optional.items()},
    )


def parse_monitor(dialect: Dialect, item: Mapping[str, Any]) -> Monitor:
    """Read a monitor as Exa sends it; only ``id`` and ``status`` have to be there."""
    status = required_text(item, "status")
    webset_id = _text(item.get("websetId"))
    return Monitor(required_text(item, "id"), status, status == dialect.enabled, webset_id, item)
