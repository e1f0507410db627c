"""How far a wait has come, and its log lines."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_exa.protocol.errors import ExaError, ExaInputError, ExaPermanentError, ExaTransientError
from airflow_provider_exa.protocol.models import parse_monitor
from airflow_provider_exa.protocol.paging import BEGINNING_OF_TIME
from airflow_provider_exa.timing import Timing, use_timing
from airflow_provider_exa.waiting.progress import Progress, describe_time_out
from airflow_provider_exa.waiting.selection import RunSelector, StartedRun
from airflow_provider_exa.waiting.snapshot import Observation
from tests.waiting.memory import START, WEBSETS, make_run

SINCE = RunSelector(created_after=START)
NOTHING = Observation()
TROUBLE = Observation(error=ExaTransientError("GET https://api.exa.ai got no answer."))
MISSING = Observation(error=ExaPermanentError("GET … was answered 404.", status=404), is_missing=True)


def run(status: str, run_id: str = "run_1", webset: str | None = None) -> Observation:
    """Return the observation of a run."""
    return Observation(make_run(run_id, status=status), webset_status=webset)


BUSY, PENDING = (run("completed", webset=status) for status in ("running", "pending"))


def start(selector: RunSelector | StartedRun = SINCE, **fields: Any) -> Progress:
    """Return a wait that began at ``START``."""
    return Progress("mon_a", selector, START, **fields)


def observe(progress: Progress, minute: float, seen: str | Observation) -> str | None:
    """Take in what was seen so many minutes after ``START``; return the line's text."""
    observation = run(seen) if isinstance(seen, str) else seen
    line = progress.observe(observation, START.add(seconds=round(minute * 60)))
    return line and line[1]


@pytest.mark.parametrize(
    "keep",
    [lambda it: it, lambda it: Progress.from_dict(json.loads(json.dumps(it.as_dict())))],
    ids=["one process", "many"],
)
@pytest.mark.parametrize(
    ("seen", "logged"),
    [
        (
            [(0, NOTHING), (1, NOTHING), (4.9, NOTHING), (5, NOTHING), (9.9, NOTHING), (10, NOTHING)],
            [0, 5, 10],
        ),
        ([(0, "created"), (1, "running"), (2, "running"), (3, "completed")], [0, 1, 3]),
        ([(0, NOTHING), (1, "created"), (6, "created"), (7, "running"), (11, "running")], [0, 1, 6, 7]),
        ([(0, "running"), (1, TROUBLE), (2, TROUBLE), (6, TROUBLE), (7, "running")], [0, 1, 6, 7]),
        ([(0, "running"), (1, "paused"), (2, "paused")], [0, 1]),
        ([(0, "running"), (1, BUSY), (2, BUSY), (3, TROUBLE), (4, BUSY), (5, "completed")], [0, 1, 3, 4, 5]),
        ([(0, BUSY), (1, BUSY), (2, PENDING), (8, PENDING)], [0, 2, 8]),
    ],
)
def test_a_line_is_due_at_each_change_and_every_five_minutes(
    keep: Callable[[Progress], Progress], seen: list[tuple[float, Any]], logged: list[float]
) -> None:
    """Also where each poll is made by another process, which got the progress as JSON."""
    progress, lines = start(), {}
    with use_timing(Timing(repeat_log_after=300)):
        for minute, what in seen:
            progress = keep(progress)
            if line := observe(progress, minute, what):
                lines[minute] = line
    assert list(lines) == logged


@pytest.mark.parametrize(
    ("seen", "level", "line"),
    [
        (NOTHING, logging.INFO, f"Not there yet: the first run created at or after {START} "),
        (run("running"), logging.INFO, "Run run_1 is running "),
        (run("paused"), logging.INFO, "Run run_1 is paused "),
        (run("failed"), logging.INFO, "Run run_1 failed "),
        (run("canceled"), logging.INFO, "Run run_1 was canceled "),
        (BUSY, logging.INFO, "Run run_1 completed, its webset is running "),
        (TROUBLE, logging.WARNING, "GET https://api.exa.ai got no answer. Waiting on "),
        (MISSING, logging.WARNING, "GET … was answered 404. Waiting on "),
    ],
)
def test_a_line_begins_with_the_news(seen: Observation, level: int, line: str) -> None:
    """Then it names the monitor and how long the wait has taken."""
    progress = start(has_answered=True)
    assert progress.observe(seen, START.add(minutes=63)) == (level, f"{line}(monitor mon_a, after 1:03:00)")


def test_the_last_line_says_how_it_ended() -> None:
    """The worker's log has it, too, where the triggerer has seen the end."""
    summary = start().summary(make_run("run_1", status="canceled").as_dict())
    assert summary.startswith("Run run_1 was canceled (monitor mon_a, after ")


def test_a_time_out_can_say_what_was_seen_last() -> None:
    """Nothing, before the first line."""
    progress = start()
    assert "Last seen" not in describe_time_out([progress])
    observe(progress, 0, "running")
    assert describe_time_out([progress]).endswith("). Last seen: Run run_1 is running.")


@pytest.mark.parametrize("seen", [TROUBLE, MISSING], ids=["trouble", "missing"])
def test_the_first_poll_must_succeed(seen: Observation) -> None:
    """Any error before Exa has answered once ends the wait."""
    with pytest.raises(ExaError) as caught:
        observe(start(), 0, seen)
    assert caught.value is seen.error


def test_trouble_is_waited_out_once_exa_has_answered() -> None:
    """Any answer will do, also that there is no run yet."""
    progress = start()
    observe(progress, 0, NOTHING)
    assert progress.has_answered
    assert observe(progress, 1, TROUBLE)


@pytest.mark.parametrize(
    "error", [ExaPermanentError("no such key"), ExaInputError("no such id"), RuntimeError("bug")]
)
def test_errors_that_waiting_does_not_mend_end_the_wait(error: Exception) -> None:
    """A permanent error is raised at every poll, and so is one that is not Exa's."""
    with pytest.raises(type(error)) as caught:
        start(has_answered=True).observe(Observation(error=error), START)
    assert caught.value is error


@pytest.mark.parametrize(
    ("story", "ends_at"),
    [
        ([MISSING, MISSING], 1),
        ([MISSING, "running", MISSING, "running"], None),
        ([MISSING, "running", MISSING, MISSING], 3),
        ([MISSING, TROUBLE, MISSING], 2),
        ([TROUBLE, MISSING, TROUBLE, TROUBLE], None),
    ],
    ids=["twice", "comes back", "later", "with trouble between", "once"],
)
def test_a_run_that_was_seen_is_asked_for_again_before_it_is_missing(
    story: list[str | Observation], ends_at: int | None
) -> None:
    """One 404 may be a slip of Exa's; trouble in between says nothing of the run."""
    progress = start(has_answered=True)
    observe(progress, 0, "running")
    for place, seen in enumerate(story):
        progress = Progress.from_dict(json.loads(json.dumps(progress.as_dict())))
        if place == ends_at:
            with pytest.raises(ExaPermanentError, match="404"):
                observe(progress, place, seen)
            return
        observe(progress, place, seen)
    assert ends_at is None


@pytest.mark.parametrize(
    "selector",
    [SINCE, RunSelector(pick="latest"), RunSelector(created_after=START, idle=True), RunSelector("run_1")],
    ids=str,
)
def test_a_wait_is_pinned_to_the_run_that_it_found(selector: RunSelector) -> None:
    """Whatever comes later, it goes on with that run."""
    progress = start(selector)
    observe(progress, 0, "running")
    assert progress.selector == RunSelector(run_id="run_1", idle=selector.idle)


def test_a_wait_for_a_started_run_is_not_pinned() -> None:
    """Exa may cancel it for another that counts in its place."""
    progress = start(StartedRun(START, "run_0"))
    observe(progress, 0, "canceled")
    assert progress.selector == StartedRun(START, "run_0")


@pytest.mark.parametrize("seen", [NOTHING, TROUBLE], ids=["no run", "trouble"])
def test_latest_means_the_first_to_come_where_there_is_no_run(seen: Observation) -> None:
    """Once Exa has said that there is none; trouble says nothing."""
    progress = start(RunSelector(pick="latest", idle=True), has_answered=True)
    observe(progress, 0, seen)
    first = RunSelector(created_after=BEGINNING_OF_TIME, idle=True)
    assert progress.selector == (first if seen is NOTHING else RunSelector(pick="latest", idle=True))


@pytest.mark.parametrize(
    ("status", "level", "line"),
    [
        ("enabled", logging.INFO, "Not there yet: run run_1 "),
        (
            "disabled",
            logging.WARNING,
            "The monitor is disabled and makes no runs by itself: waiting for run ",
        ),
    ],
)
def test_a_monitor_that_makes_no_runs_is_a_warning(status: str, level: int, line: str) -> None:
    """The reader of the log should know that the run comes only if somebody starts it."""
    monitor = parse_monitor(WEBSETS, {"id": "mon_a", "status": status})
    logged = start(RunSelector("run_1")).observe(NOTHING, START, monitor)
    assert logged is not None
    assert logged[0] == level
    assert logged[1].startswith(line)
    logged = start().observe(run("completed"), START, monitor)
    assert logged == (logging.INFO, "Run run_1 completed (monitor mon_a, after 0:00:00)")


PROGRESSES = [
    start(),
    start(has_answered=True, is_missing=True),
    start(RunSelector(pick="latest", idle=True), webset_id="webset_1"),
    start(RunSelector("run_1"), topic="no such run", logged_at=START.add(minutes=5, microseconds=1)),
    start(RunSelector(created_after=BEGINNING_OF_TIME)),
]


@pytest.mark.parametrize("progress", PROGRESSES, ids=lambda progress: str(progress.selector))
def test_progress_survives_as_json(progress: Progress) -> None:
    """Every field comes back as it was, in UTC."""
    values = json.loads(json.dumps(progress.as_dict()))
    again = Progress.from_dict(values)
    assert again == progress
    assert again.started_at.timezone_name == "UTC"


def test_progress_of_another_version_is_read() -> None:
    """Keys that are unknown are ignored, and those that are missing are as at the start."""
    values = json.loads(json.dumps(start().as_dict()))
    assert Progress.from_dict({**values, "colour": "blue"}) == start()
    needed = {key: values[key] for key in ("monitor_id", "selector", "started_at")}
    assert Progress.from_dict(needed) == start()


@pytest.mark.parametrize("seconds", [-0.9, -5])
def test_a_clock_that_is_behind_shows_no_negative_wait(seconds: float) -> None:
    """A wait that goes on where the clock is behind has taken no time yet."""
    assert start().waited(START.add(seconds=seconds)) == "after 0:00:00"
