"""How far a wait has come."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

from pendulum import DateTime

from airflow_provider_exa.protocol.errors import ExaTransientError
from airflow_provider_exa.protocol.models import Monitor, parse_time
from airflow_provider_exa.waiting.snapshot import Busy, Sight, run_of

log = logging.getLogger(__name__)


REPEAT_LOG_AFTER = timedelta(minutes=5)


@dataclass
class Progress:
    """
    How far one wait has come; as JSON it goes from one process of a task to the next.

    :param started_at: when the task first started
    :param looked: whether Exa has answered once, so that trouble is waited out from then on
    :param run_id: the run that the wait is pinned to
    :param webset_id: the webset of the run's monitor, where it is known
    :param topic: what the last log line was about
    :param said_at: when that line was logged
    """

    started_at: DateTime
    looked: bool = False
    run_id: str | None = None
    webset_id: str | None = None
    topic: str | None = None
    said_at: DateTime | None = None

    def saw(self, sight: Sight, now: DateTime, monitor: Monitor | None = None) -> str | None:
        """
        Take in what a look showed; returns the line to log, if one is due.

        :raises ExaError: what the look showed ends the wait: a permanent error, or any at the first look
        """
        if isinstance(sight, ExaTransientError) and self.looked:
            return self._line("trouble", f"{sight} Waiting on", now)
        if isinstance(sight, Exception):
            raise sight
        self.looked = True
        if run := run_of(sight):
            self.run_id = run.id
            busy = f", and its webset {sight.webset}" if isinstance(sight, Busy) else ""
            return self._line(run.status + busy, f"{run.id} is {run.status}{busy}", now)
        if monitor and not monitor.enabled:
            text = f"not there yet, and the monitor, which is {monitor.status}, makes no runs by itself"
            return self._line("none", text, now)
        return self._line("none", "not there yet", now)

    def _line(self, topic: str, text: str, now: DateTime) -> str | None:
        """The text, if it is about something new or the last line is five minutes old."""
        if topic == self.topic and self.said_at and now - self.said_at < REPEAT_LOG_AFTER:
            return None
        self.topic, self.said_at = topic, now
        return f"{text}, after {timedelta(seconds=int((now - self.started_at).total_seconds()))}."

    def as_dict(self) -> dict[str, Any]:
        """The progress as JSON."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: v.isoformat() if isinstance(v, DateTime) else v for name, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Progress:
        """The progress that :meth:`as_dict` made JSON of."""
        times = {name: values[name] and parse_time(values[name]) for name in ("started_at", "said_at")}
        return cls(**{**values, **times})
