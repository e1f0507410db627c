"""The progress of the wait for one run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, Self

from pendulum import UTC, DateTime

from airflow_provider_exa.protocol.errors import ExaTransientError
from airflow_provider_exa.protocol.models import Monitor, MonitorRun, parse_time
from airflow_provider_exa.timing import timing
from airflow_provider_exa.waiting.selection import RunSelector, StartedRun
from airflow_provider_exa.waiting.snapshot import Observation

#: So many of the monitors whose runs have not ended are named when a wait times out.
MAX_NAMED = 10


@dataclass(slots=True)
class Progress:
    """
    The wait for one run of a monitor; as JSON it goes from one process of a task to the next.

    :param monitor_id: the monitor
    :param selector: which of its runs; once that is known, the run by its id
    :param started_at: when the task first started
    :param has_answered: whether Exa has answered once, so that trouble is waited out from then on
    :param is_missing: whether Exa's last answer was that there is no such run, although it had been seen
    :param webset_id: the webset of the monitor, where it is known
    :param topic: what the last log line was about
    :param logged_at: when that line was logged
    """

    monitor_id: str
    selector: RunSelector | StartedRun
    started_at: DateTime
    has_answered: bool = False
    is_missing: bool = False
    webset_id: str | None = None
    topic: str | None = None
    logged_at: DateTime | None = None

    def observe(
        self, observation: Observation, now: DateTime, monitor: Monitor | None = None
    ) -> tuple[int, str] | None:
        """
        Take in what a poll showed; return the level and the text of a log line, if one is due.

        :param monitor: the monitor, where the poll has asked for it
        :raises ExaError: the wait ends: a permanent error, or any before Exa has answered once
        """
        if observation.error:
            if not self._can_wait_out(observation):
                self.topic = f"{observation.error}".rstrip(".")
                raise observation.error
            return self._line("trouble at Exa", logging.WARNING, f"{observation.error} Waiting on", now)
        self.has_answered, self.is_missing = True, False
        if run := observation.run:
            return self._observe_run(run, observation.webset_status, now)
        if isinstance(self.selector, RunSelector) and self.selector.pick:
            self.selector = self.selector.first_to_come()
        if monitor and not monitor.enabled:
            text = f"The monitor is {monitor.status} and makes no runs by itself: waiting for {self.selector}"
            return self._line("no run, and the monitor makes none by itself", logging.WARNING, text, now)
        return self._line("no such run", logging.INFO, f"Not there yet: {self.selector}", now)

    def _can_wait_out(self, observation: Observation) -> bool:
        if not self.has_answered:
            return False
        if not observation.is_missing:
            return isinstance(observation.error, ExaTransientError)
        # unverified: whether a 404 can pass. A run that has been seen is asked for once more.
        was_missing, self.is_missing = self.is_missing, True
        return not was_missing

    def _observe_run(
        self, run: MonitorRun, webset_status: str | None, now: DateTime
    ) -> tuple[int, str] | None:
        if isinstance(self.selector, RunSelector):
            self.selector = self.selector.pin(run.id)
        text = _news(run.id, run.status)
        if webset_status:
            text += f", its webset is {webset_status}"
        return self._line(text, logging.INFO, text, now)

    def _line(self, topic: str, level: int, text: str, now: DateTime) -> tuple[int, str] | None:
        """Return the line if it is about something new, or the last one is some minutes old."""
        again = timedelta(seconds=timing().repeat_log_after)
        if topic == self.topic and self.logged_at and now - self.logged_at < again:
            return None
        self.topic, self.logged_at = topic, now
        return level, f"{text} (monitor {self.monitor_id}, {self.waited(now)})"

    def summary(self, run: Mapping[str, Any]) -> str:
        """Return the last line of the wait for a run, given as a dict."""
        where = f"(monitor {self.monitor_id}, {self.waited(DateTime.now(UTC))})"
        return f"{_news(run['id'], run['status'])} {where}"

    def waited(self, now: DateTime) -> str:
        """Return how long the wait has taken, in words."""
        return f"after {timedelta(seconds=max(0, int((now - self.started_at).total_seconds())))}"

    def as_dict(self) -> dict[str, Any]:
        """Return the progress as JSON."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        values["selector"] = self.selector.as_dict()
        return {name: v.isoformat() if isinstance(v, DateTime) else v for name, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the progress that :meth:`as_dict` made JSON of, in this version or another."""
        known: dict[str, Any] = {
            each.name: values[each.name] for each in fields(cls) if values.get(each.name) is not None
        }
        known["selector"] = RunSelector.from_dict(values["selector"])
        for name in known.keys() & {"started_at", "logged_at"}:
            known[name] = parse_time(known[name])
        return cls(**known)


def describe_time_out(waits: Sequence[Progress]) -> str:
    """Return what was waited for, for how long, and what was last seen of it; ``waits`` are not empty."""
    first, now = waits[0], DateTime.now(UTC)
    if len(waits) == 1:
        text = f"Timed out waiting for {first.selector} (monitor {first.monitor_id}, {first.waited(now)})."
        return f"{text} Last seen: {first.topic}." if first.topic else text
    seen = [f"{wait.topic or 'nothing yet'} (monitor {wait.monitor_id})" for wait in waits[:MAX_NAMED]]
    more = f"; and {len(waits) - MAX_NAMED} more" if len(waits) > MAX_NAMED else ""
    return (
        f"Timed out waiting for {len(waits)} runs ({first.waited(now)}). Last seen: {'; '.join(seen)}{more}."
    )


def _news(run_id: str, status: str) -> str:
    verbs = {"completed": "", "failed": "", "canceled": "was "}
    return f"Run {run_id} {verbs.get(status, 'is ')}{status}"
