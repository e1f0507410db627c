"""Random stories of a monitor, and an oracle that knows the README's tables alone."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pendulum
import pytest
from airflow.sdk import BaseOperator

from airflow_provider_exa.operators import ExaWaitForMonitorRunsOperator
from airflow_provider_exa.protocol.errors import ExaRunFailedError
from airflow_provider_exa.sensors import ExaMonitorRunSensor
from airflow_provider_exa.standin import StandIn
from tests.tasks import POKE_INTERVAL, Ended, Store, Task

STORIES = 512
PER_TEST = 16

SENSOR_MODES = ("poke", "reschedule", "deferred")
MODES = (*SENSOR_MODES, "operator", "operator_deferred")
CHOICES = ("run_id", "created_after", "latest", "next")
#: An operator takes a moment or the id of a run.
WAYS = [
    (choice, mode)
    for choice in CHOICES
    for mode in MODES
    if mode in SENSOR_MODES or choice in ("run_id", "created_after")
]
FAIL_ON: tuple[tuple[str, ...], ...] = (("failed", "canceled"), ("failed",), ("canceled",), ())
ENDS = ("completed", "completed", "failed", "canceled")
FINISHED = frozenset(ENDS)


@dataclass
class Told:
    """One run, as the story tells it."""

    id: str
    created_at: pendulum.DateTime
    status: str


@dataclass
class Step:
    """What happens between two polls: a new run, or a run that moves on."""

    run_id: str
    status: str
    is_new: bool = False

    def __str__(self) -> str:
        return f"{self.run_id} {'is created as' if self.is_new else 'becomes'} {self.status}"


@dataclass
class Story:
    """A monitor's history before a task, and what happens at Exa each time that the task waits."""

    seed: int
    choice: str
    mode: str
    api: str
    fail_on: tuple[str, ...]
    order: str
    page_size: int
    history: list[tuple[str, float, str]]
    pauses: list[list[Step]]
    since: float = 0.0
    run_id: str = ""
    script: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}: {self.choice} in mode {self.mode}, api={self.api}, fail_on={self.fail_on}, "
            f"listed {self.order} first, {self.page_size} a page; run_id={self.run_id!r}, "
            f"created_after {self.since:g} s before the task",
            *(f"  {ago:g} s before the task: {run_id} {status}" for run_id, ago, status in self.history),
            *(
                f"  pause {number}: {', '.join(map(str, steps)) or 'nothing'}"
                for number, steps in enumerate(self.pauses, 1)
            ),
            "happened:",
            *(f"  {line}" for line in self.script),
        ]
        return "\n".join(lines)


def tell(seed: int) -> Story:
    """Make up a story; it goes on until every run has ended and at least one has come."""
    chance = random.Random(seed)  # noqa: S311 (no secret)
    choice, mode = WAYS[seed % len(WAYS)]
    names = iter([f"run_{number}" for number in chance.sample(range(100, 1000), 20)])
    ages = sorted(
        {chance.randrange(10, 5000) for _ in range(chance.choice((0, 0, 1, 2, 3, 6)))}, reverse=True
    )
    statuses = ("created", "running", *ENDS)
    history = [(next(names), float(age), chance.choice(statuses)) for age in ages]
    going = {run_id: status for run_id, _, status in history if status not in FINISHED}
    pauses: list[list[Step]] = []
    to_come = chance.randint(1, 3)
    while to_come or going:
        steps: list[Step] = []
        for _ in range(chance.choice((0, 1, 1, 2))):
            if to_come and chance.random() < 0.5:
                to_come -= 1
                run_id, status = next(names), chance.choice(statuses)
                steps.append(Step(run_id, status, is_new=True))
            elif going:
                run_id = chance.choice(list(going))
                status = "running" if going[run_id] == "created" else chance.choice(ENDS)
                steps.append(Step(run_id, status))
            else:
                continue
            going[run_id] = status
            if status in FINISHED:
                del going[run_id]
        pauses.append(steps)
    order = chance.choice(("newest", "oldest", "shuffled"))
    # Two runs on a page of a shuffled listing may look as if the newest came first.
    page_size = chance.choice((1, 25) if order == "shuffled" else (1, 2, 3, 25))
    story = Story(
        seed,
        choice,
        mode,
        chance.choice(("websets", "search")),
        chance.choice(FAIL_ON),
        order,
        page_size,
        history,
        pauses,
    )
    known = [run_id for run_id, _, _ in history]
    if choice == "run_id" and not known:
        story.history = [(next(names), 60.0, "running")]
        known = [story.history[0][0]]
        story.pauses.append([Step(known[0], chance.choice(ENDS))])
    story.run_id = chance.choice(known) if choice == "run_id" else ""
    moments = [age for _, age, _ in history] or [100.0]
    # At the very moment at which a run was created, shortly after it, or before all of them.
    story.since = chance.choice([*moments, *(age - 5 for age in moments), 6000.0, 0.0])
    return story


class Oracle:
    """
    Which run a wait is for and how it ends, by the README.

    It is asked whenever the task may poll, and pins a run as soon as there is one.
    """

    def __init__(self, story: Story, runs: dict[str, Told], since: pendulum.DateTime) -> None:
        self.story, self.runs, self.since = story, runs, since
        self.started_at = pendulum.now("UTC")
        self.pinned: str | None = None
        self.is_first = True

    def poll(self) -> Told | None:
        """Let the task poll; return the run that it waits for once that has ended."""
        if self.pinned is None:
            self.pinned = getattr(self, f"_{self.story.choice}")()
        self.is_first = False
        run = self.runs[self.pinned] if self.pinned else None
        return run if run and run.status in FINISHED else None

    def _run_id(self) -> str:
        """That run."""
        return self.story.run_id

    def _created_after(self) -> str | None:
        """The earliest run created at or after that moment."""
        return self._earliest(self.since)

    def _next(self) -> str | None:
        """The first run created after the task first started."""
        return self._earliest(self.started_at)

    def _latest(self) -> str | None:
        """The newest run there is when the task first polls; if there is none, the first to come."""
        if self.is_first:
            return max(self.runs.values(), key=lambda run: run.created_at).id if self.runs else None
        return min(self.runs.values(), key=lambda run: run.created_at).id if self.runs else None

    def _earliest(self, since: pendulum.DateTime) -> str | None:
        runs = [run for run in self.runs.values() if run.created_at >= since]
        return min(runs, key=lambda run: run.created_at).id if runs else None


class Play:
    """A story that is played to a task at a stand-in, and told to the oracle at the same time."""

    def __init__(self, exa: StandIn, story: Story) -> None:
        self.exa, self.story = exa, story
        self.monitor_id = exa.add_monitor(f"mon_{story.seed}")
        self.started_at = pendulum.now("UTC")
        self.runs: dict[str, Told] = {}
        for run_id, ago, status in story.history:
            self._add(run_id, status, self.started_at.subtract(seconds=ago))
        self.since = self.started_at.subtract(seconds=story.since)
        self.pauses = iter(story.pauses)
        self.starts()

    def starts(self) -> None:
        """Let the task start, at first or after a clear."""
        threading.Event().wait(0.002)  # Exa tells times to the millisecond
        self.oracle = Oracle(self.story, self.runs, self.since)
        self.verdict = self.oracle.poll()
        self.extra = 0
        self._note("the task starts and polls")

    def _exa_id(self, run_id: str) -> str:
        return f"{run_id}_{self.story.seed}"

    def _add(self, run_id: str, status: str, at: pendulum.DateTime) -> None:
        id_ = self._exa_id(run_id)
        self.exa.add_run(self.monitor_id, run_id=id_, status=status, created_at=at, failed_reason="bad luck")
        self.runs[run_id] = Told(run_id, at, status)

    def passes(self) -> None:
        """Let happen what comes next; the task polls after it."""
        steps = next(self.pauses, None)
        if steps is None:
            self.extra += 1
            assert self.extra <= 2, "the task waits on, although every run has ended"
            steps = [Step(f"run_{1000 + len(self.runs)}", "completed", is_new=True)]
        for step in steps:
            if step.is_new:
                threading.Event().wait(0.002)
                self._add(step.run_id, step.status, pendulum.now("UTC"))
            else:
                self.exa.move(self._exa_id(step.run_id), step.status)
                self.runs[step.run_id].status = step.status
        if self.verdict is None:
            self.verdict = self.oracle.poll()
        self._note(", ".join(map(str, steps)) or "nothing happens")

    def _note(self, what: str) -> None:
        pinned, verdict = self.oracle.pinned, self.verdict
        means = f"{verdict.id} {verdict.status}" if verdict else f"waits for {pinned or 'a run to come'}"
        self.story.script.append(f"{what}; by the README the task {'ends: ' * bool(verdict)}{means}")

    def make(self) -> BaseOperator:
        """Make the task, as a worker does that reads the DAG file anew."""
        story = self.story
        common: dict[str, Any] = {"task_id": "wait", "api": story.api, "fail_on": story.fail_on}
        run_id = self._exa_id(story.run_id)
        if story.mode in SENSOR_MODES:
            choices: dict[str, dict[str, Any]] = {
                "run_id": {"run_id": run_id},
                "created_after": {"created_after": self.since},
                "latest": {"pick": "latest"},
                "next": {"pick": "next"},
            }
            is_deferred = story.mode == "deferred"
            way = {"deferrable": True} if is_deferred else {"mode": story.mode, "deferrable": False}
            return ExaMonitorRunSensor(
                monitor_id=self.monitor_id,
                poke_interval=POKE_INTERVAL,
                **way,
                **choices[story.choice],
                **common,
            )
        one = {"runs": [{"monitor_id": self.monitor_id, "id": run_id}]}
        many = {"monitor_ids": [self.monitor_id], "created_after": self.since}
        return ExaWaitForMonitorRunsOperator(
            poll_interval=POKE_INTERVAL,
            deferrable=story.mode == "operator_deferred",
            **(one if story.choice == "run_id" else many),
            **common,
        )


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    with StandIn(api_key="standin-key-1234") as server:
        yield server


def check(server: StandIn, story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """Play a story, and compare the end of the task with the oracle's; each third time also after a clear."""
    server.order, server.page_size = story.order, story.page_size  # type: ignore[assignment]
    play = Play(server, story)
    task = Task(play.make, passes=play.passes, store=Store())
    check_end(play, story, task.run(monkeypatch))
    if story.seed % 3 == 0:
        task.clear()
        play.starts()
        check_end(play, story, task.run(monkeypatch))


def check_end(play: Play, story: Story, ended: Ended) -> None:
    verdict = play.verdict
    assert verdict is not None, f"the task ended too early: {ended}"
    run_id = play._exa_id(verdict.id)
    if verdict.status in story.fail_on:
        assert ended.state == "failed", ended
        assert type(ended.error) is ExaRunFailedError, ended
        verb = "was canceled" if verdict.status == "canceled" else verdict.status
        reason = "bad luck" if verdict.status == "failed" else "Exa gives no reason"
        assert str(ended.error) == f"Run {run_id} {verb}: {reason} (monitor {play.monitor_id})."
        return
    assert ended.state == "success", ended
    xcom = ended.xcom if story.mode in SENSOR_MODES else ended.xcom[play.monitor_id]
    assert (xcom["id"], xcom["status"]) == (run_id, verdict.status)
    assert xcom["monitor_id"] == play.monitor_id
    assert xcom["created_at"][:19] == verdict.created_at.isoformat()[:19]


@pytest.mark.parametrize("first", range(0, STORIES, PER_TEST))
def test_a_random_story_ends_as_the_readme_says(
    server: StandIn, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    """Whichever run is chosen, however the task waits, and in whatever order Exa lists."""
    monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", server.connection(retries=0))
    for seed in range(first, first + PER_TEST):
        story = tell(seed)
        try:
            with monkeypatch.context() as patched:
                check(server, story, patched)
        except Exception as error:
            pytest.fail(f"{error}\n{story}")


def test_the_stories_cover_every_way_to_wait() -> None:
    """Each way to choose meets each mode, both APIs, all orders and sizes, and all ways to fail."""
    stories = [tell(seed) for seed in range(STORIES)]
    for choice, mode in WAYS:
        ours = [story for story in stories if (story.choice, story.mode) == (choice, mode)]
        assert {story.api for story in ours} == {"websets", "search"}
        assert {story.order for story in ours} == {"newest", "oldest", "shuffled"}
        assert {story.page_size for story in ours} == {1, 2, 3, 25}
        assert {story.fail_on for story in ours} == set(FAIL_ON)
        assert {bool(story.history) for story in ours} == ({True} if choice == "run_id" else {True, False})
