"""Every way of waiting ends the same: one table of what happens at Exa, run in each mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import permutations, product
from typing import Any

import pendulum
import pytest
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSensorTimeout

from airflow_provider_exa.hooks import ExaHook
from airflow_provider_exa.operators import ExaWaitForMonitorRunsOperator
from airflow_provider_exa.protocol.errors import (
    ExaIncompleteListingError,
    ExaPermanentError,
    ExaRunFailedError,
    ExaTransientError,
)
from airflow_provider_exa.protocol.models import DIALECTS
from airflow_provider_exa.sensors import ExaMonitorRunSensor
from airflow_provider_exa.standin import Fault, StandIn
from tests.tasks import POKE_INTERVAL, Ended, Store, Task

APIS = list(DIALECTS)
MODES = ["poke", "reschedule", "deferred", "operator", "operator_deferred"]
SENSOR_MODES = MODES[:3]
POKING_MODES = MODES[:2]
FLAGS: dict[str, dict[str, Any]] = {
    "default": {},
    "passes_all": {"fail_on": ()},
    "soft_fail": {"soft_fail": True},
    "never_fail": {"never_fail": True},
}
SINCE = pendulum.datetime(2026, 1, 1)

Story = Callable[[StandIn], Iterator[None]]


def moves(*statuses: str) -> Story:
    """A run that is there from the start and is in the next state at each poll."""

    def story(exa: StandIn) -> Iterator[None]:
        exa.add_run("mon_a", run_id="run_1", status=statuses[0], failed_reason="out of luck")
        for status in statuses[1:]:
            yield
            exa.move("run_1", status)

    return story


def trouble(fault: Fault) -> Story:
    """A fault after the first poll, then the run completes."""

    def story(exa: StandIn) -> Iterator[None]:
        exa.add_run("mon_a", run_id="run_1", status="running")
        yield
        exa.fail(fault)
        yield
        yield
        exa.move("run_1", "completed")

    return story


def busy(*statuses: str, fault: Fault | None = None, run: str = "completed") -> Story:
    """A run that ends; its webset goes on for a while, is asked for in vain, or both, and then is idle."""

    def story(exa: StandIn) -> Iterator[None]:
        exa.add_monitor("mon_a", webset_status="running")
        exa.add_run("mon_a", run_id="run_1", status="running")
        yield
        exa.move("run_1", run)
        if fault:
            exa.fail(fault)
        for status in (*statuses, "idle"):
            yield from [None] * 9
            exa.set_webset_status("mon_a", status)

    return story


def nothing(exa: StandIn) -> Iterator[None]:
    """No run, ever."""
    yield from ()


def bad_key(exa: StandIn) -> Iterator[None]:
    exa.api_key = "another-key-9876"
    yield from ()


@dataclass(frozen=True)
class Case:
    """
    One row of the table.

    :param outcome: the run's last status, if it gets there
    :param error: what ends the wait, whatever the outcome
    """

    story: Story
    outcome: str | None = None
    error: type[Exception] | None = None
    words: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def apis(self) -> list[str]:
        """Those that know what is asked for."""
        idle = self.arguments.get("wait_for_idle")
        return [api for api in APIS if DIALECTS[api].websets or not idle]


WEBSET = "/websets/v0/websets/"
IDLE = {"wait_for_idle": True}
CASES = {
    "completed": Case(moves("created", "running", "completed"), "completed"),
    "failed": Case(
        moves("created", "running", "failed"),
        "failed",
        words="Run run_1 failed: out of luck (monitor mon_a).",
    ),
    "canceled": Case(
        moves("running", "canceled"),
        "canceled",
        words="Run run_1 was canceled: Exa gives no reason (monitor mon_a).",
    ),
    "unknown_status": Case(moves("created", "dreaming", "completed"), "completed"),
    "already_finished": Case(moves("completed"), "completed"),
    "already_failed": Case(moves("failed"), "failed", words="failed: out of luck"),
    "never_appears": Case(nothing, error=AirflowSensorTimeout, words="timed out", arguments={"timeout": 0}),
    "unknown_monitor": Case(
        nothing, error=ExaPermanentError, words="404: 'Monitor not found'", arguments={"monitor_id": "mon_x"}
    ),
    "bad_key": Case(
        bad_key, error=ExaPermanentError, words="refused the API key of connection 'exa_default' (401"
    ),
    "two_minutes_of_503": Case(trouble(Fault(status=503, times=7)), "completed"),
    "429_with_retry_after": Case(trouble(Fault(status=429, retry_after="0.3")), "completed"),
    "cut_body": Case(trouble(Fault(kind="cut")), "completed"),
    "idle": Case(moves("running", "completed"), "completed", arguments=IDLE),
    "idle_later": Case(busy("pending", "paused"), "completed", arguments=IDLE),
    "failed_in_a_busy_webset": Case(busy(run="failed"), "failed", words="Run run_1 failed", arguments=IDLE),
    "503_of_the_webset": Case(
        busy(fault=Fault(status=503, times=7, path=WEBSET)), "completed", arguments=IDLE
    ),
    "unknown_webset": Case(
        busy(fault=Fault(status=404, path=WEBSET)),
        error=ExaPermanentError,
        words="answered 404",
        arguments=IDLE,
    ),
}


def make_task(mode: str, arguments: dict[str, Any]) -> BaseOperator:
    """The same wait in each mode."""
    arguments = {"monitor_id": "mon_a", "task_id": "wait", **arguments}
    if mode.startswith("operator"):
        monitor_ids = [arguments.pop("monitor_id")]
        arguments = {"monitor_ids": monitor_ids, **arguments, "deferrable": mode == "operator_deferred"}
        return ExaWaitForMonitorRunsOperator(poll_interval=POKE_INTERVAL, **arguments)
    way = {"deferrable": True} if mode == "deferred" else {"deferrable": False, "mode": mode}
    return ExaMonitorRunSensor(poke_interval=POKE_INTERVAL, **way, **arguments)


def play(exa: StandIn, case: Case, monkeypatch: pytest.MonkeyPatch, mode: str, **given: Any) -> Ended:
    monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection(retries=0))
    story = case.story(exa)
    next(story, None)
    arguments = {"created_after": SINCE, **given, **case.arguments}
    task = Task(lambda: make_task(mode, arguments), passes=lambda: next(story, None), store=Store())
    return task.run(monkeypatch)


def rows() -> Iterator[Any]:
    for (name, case), mode, flags in product(CASES.items(), MODES, FLAGS):
        # An operator has neither the flags of a sensor nor its timeout.
        if mode.startswith("operator") and (
            flags in ("soft_fail", "never_fail") or "timeout" in case.arguments
        ):
            continue
        for api in case.apis:
            yield pytest.param(case, mode, flags, api, id=f"{name}-{mode}-{flags}-{api}")


@pytest.mark.parametrize(("case", "mode", "flags", "api"), list(rows()))
def test_every_mode_ends_the_same(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, *, case: Case, mode: str, flags: str, api: str
) -> None:
    """What follows depends on what happened at Exa and on the flags, neither on the mode nor on the API."""
    ended = play(exa, case, monkeypatch, mode, api=api, **FLAGS[flags])
    xcom = ended.xcom["mon_a"] if mode.startswith("operator") and ended.xcom else ended.xcom
    fails = case.error or (
        ExaRunFailedError if case.outcome != "completed" and flags != "passes_all" else None
    )
    if fails is None:
        assert (ended.state, ended.error) == ("success", None)
        run = ExaHook(api=api).get_monitor_run("mon_a", "run_1")
        assert (run.status, run.as_dict()) == (case.outcome, xcom)
        # Whoever waits for the webset goes on until it is idle, unless the run failed: then not at all.
        assert set(exa.websets.values()) <= {"idle" if case.outcome == "completed" else "running"}
        return
    # The base class: never_fail skips a deferred sensor that times out, but not one that pokes.
    timed_out_anyway = fails is AirflowSensorTimeout and flags == "never_fail" and mode != "deferred"
    skips = flags in ("soft_fail", "never_fail") and not timed_out_anyway
    assert ended.state == ("skipped" if skips else "failed")
    assert type(ended.reason) is fails or (skips and fails is AirflowSensorTimeout)
    assert case.words in str(ended.reason).lower() if fails is AirflowSensorTimeout else str(ended.reason)
    assert "standin-key" not in str(ended.reason)
    assert set(exa.websets.values()) <= {"running"}


@pytest.mark.parametrize(
    ("case", "path"), [(Case(nothing), None), (Case(moves("completed"), arguments=IDLE), WEBSET)]
)
@pytest.mark.parametrize("mode", MODES)
def test_the_first_poll_must_succeed(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str, case: Case, path: str | None
) -> None:
    """Trouble at the first poll fails the try, so that Airflow's retries take over, not the timeout."""
    exa.fail(Fault(status=503, times=None, path=path))
    ended = play(exa, case, monkeypatch, mode)
    assert type(ended.error) is ExaTransientError
    assert "answered 503" in str(ended.error)


@pytest.mark.parametrize(("mode", "monitors"), [("poke", 1), ("deferred", 2), ("operator", 1)])
def test_a_busy_webset_costs_a_request_a_poll(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str, monitors: int
) -> None:
    """One process finds it by the monitor once; a sensor that pokes has asked for that one for its link."""
    case = CASES["idle_later"]
    assert play(exa, case, monkeypatch, mode).state == "success"
    asked = [each.path.removeprefix("/websets/v0") for each in exa.requests]
    assert asked.count("/monitors/mon_a") == monitors
    polls, websets = (
        [path for path in asked if path.startswith(what)] for what in ("/monitors/mon_a/runs", "/websets/")
    )
    # At the first, and in the triggerer at its first, the run had not completed.
    assert len(polls) == len(websets) + (2 if mode == "deferred" else 1)
    assert len(asked) == len(polls) + len(websets) + monitors


@pytest.mark.parametrize("mode", POKING_MODES)
def test_silent_fail_waits_out_trouble_at_the_first_poll(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """As the base class promises of silent_fail, even the first poll may fail."""
    case = Case(moves("running", "completed"), "completed")
    exa.fail(Fault(status=503, times=5))
    assert play(exa, case, monkeypatch, mode, silent_fail=True).state == "success"


def older(exa: StandIn, run_id: str, status: str, **ago: float) -> None:
    exa.add_run("mon_a", run_id=run_id, status=status, created_at=pendulum.now("UTC") - timedelta(**ago))


def dies() -> Iterator[None]:
    """The worker dies at the second poll."""
    yield
    raise MemoryError


class TestWhichRun:
    """Which run is waited for, and that the wait stays with it."""

    @pytest.fixture(params=SENSOR_MODES)
    def wait(
        self, request: pytest.FixtureRequest, exa: StandIn, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., Ended]:
        def wait(story: Iterator[None] | None = None, task: Task | None = None, **choice: Any) -> Ended:
            def make() -> BaseOperator:
                return make_task(request.param, choice)

            task = task or Task(make, store=Store())
            task.make, task.passes = make, lambda: next(story, None) if story else None
            return task.run(monkeypatch)

        return wait

    def test_run_id_waits_for_that_run(self, exa: StandIn, wait: Callable[..., Ended]) -> None:
        """Only the named run counts, whatever else there is."""
        older(exa, "run_old", "completed", days=2)
        older(exa, "run_new", "completed", days=1)
        assert wait(run_id="run_old").xcom["id"] == "run_old"

    def test_created_after_takes_the_earliest(self, exa: StandIn, wait: Callable[..., Ended]) -> None:
        """The earliest run since then is meant, so that clearing the task finds it again."""
        for days in (5, 3, 1):
            older(exa, f"run_{days}", "completed", days=days)
        since = pendulum.now("UTC").subtract(days=4)
        assert wait(created_after=since).xcom["id"] == "run_3"
        assert wait(created_after=since.isoformat()).xcom["id"] == "run_3"

    def test_latest_is_the_newest_at_the_first_poll(self, exa: StandIn, wait: Callable[..., Ended]) -> None:
        """A run that is created later does not take over."""

        def story() -> Iterator[None]:
            exa.add_run("mon_a", run_id="run_newer", status="completed")
            yield
            exa.move("run_new", "completed")

        older(exa, "run_old", "completed", days=1)
        older(exa, "run_new", "running", minutes=5)
        assert wait(story(), pick="latest").xcom["id"] == "run_new"

    @pytest.mark.parametrize("status", ["completed", "running"])
    def test_latest_stays_with_its_run_until_the_webset_is_idle(
        self, exa: StandIn, wait: Callable[..., Ended], status: str
    ) -> None:
        """Also where it has completed already when the task first polls; a newer run does not take over."""

        def story() -> Iterator[None]:
            exa.add_run("mon_a", run_id="run_newer", status="completed")
            yield
            exa.move("run_new", "completed")
            yield from [None] * 9
            exa.set_webset_status("mon_a", "idle")

        exa.set_webset_status("mon_a", "running")
        older(exa, "run_new", status, minutes=5)
        assert wait(story(), pick="latest", wait_for_idle=True).xcom["id"] == "run_new"
        assert list(exa.websets.values()) == ["idle"]

    def test_latest_waits_for_the_first_run_where_there_is_none(
        self, exa: StandIn, wait: Callable[..., Ended]
    ) -> None:
        """A new monitor has no run yet."""

        def story() -> Iterator[None]:
            exa.add_run("mon_a", run_id="run_1", status="completed")
            yield

        assert wait(story(), pick="latest").xcom["id"] == "run_1"

    def test_next_ignores_what_was_there(self, exa: StandIn, wait: Callable[..., Ended]) -> None:
        """Yesterday's run does not satisfy today's wait."""

        def story() -> Iterator[None]:
            exa.add_run("mon_a", run_id="run_new", status="running")
            yield
            exa.move("run_new", "completed")

        older(exa, "run_old", "completed", minutes=5)
        assert wait(story(), pick="next").xcom["id"] == "run_new"

    @pytest.mark.parametrize("pick", ["latest", "next"])
    def test_a_retry_follows_the_same_run_and_a_clear_starts_anew(
        self, exa: StandIn, wait: Callable[..., Ended], pick: str
    ) -> None:
        """A worker that dies must not change what is waited for; a user who clears the task wants that."""

        def dies() -> Iterator[None]:
            exa.add_run("mon_a", run_id="run_1", status="running")
            yield
            yield
            raise MemoryError

        def goes_on() -> Iterator[None]:
            exa.add_run("mon_a", run_id="run_2", status="completed")
            yield
            exa.move("run_1", "completed")

        def anew() -> Iterator[None]:
            exa.add_run("mon_a", run_id="run_3", status="completed")
            yield

        story = dies()
        if pick == "latest":
            next(story)
        task = Task(lambda: None, store=Store())
        assert wait(story, task, pick=pick).state == "failed"
        assert wait(goes_on(), task, pick=pick).xcom["id"] == "run_1"
        task.clear()
        assert wait(anew(), task, pick=pick).xcom["id"] == {"latest": "run_2", "next": "run_3"}[pick]

    @pytest.mark.parametrize(
        ("before", "after"), [("2026-01-01", "2026-02-01"), ("2026-02-01", "2026-01-01")], ids=str
    )
    def test_a_moment_that_is_corrected_between_tries_counts(
        self, exa: StandIn, wait: Callable[..., Ended], before: str, after: str
    ) -> None:
        """The run that the wrong one has pinned is not returned for it."""
        for month in (1, 2):
            at = pendulum.datetime(2026, month, 2)
            exa.add_run("mon_a", run_id=f"run_{month}", status="running", created_at=at)
        task = Task(lambda: None, store=Store())
        assert wait(dies(), task, created_after=before).state == "failed"
        for month in (1, 2):
            exa.move(f"run_{month}", "completed")
        assert wait(None, task, created_after=after).xcom["created_at"].startswith(after[:7])

    def test_a_moment_that_is_computed_from_the_clock_is_no_correction(
        self, exa: StandIn, wait: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each parse makes another one of ``pendulum.now()``; the wait stays with its run all the same."""
        since = pendulum.now("UTC")
        exa.add_run("mon_a", run_id="run_1", status="running")
        task = Task(lambda: None, store=Store())
        assert wait(dies(), task, created_after=since).state == "failed"
        exa.move("run_1", "completed")
        exa.add_run("mon_a", run_id="run_2", status="completed")
        later = pendulum.now("UTC").add(hours=3)
        real = pendulum.now
        monkeypatch.setattr("airflow_provider_exa.sensors.pendulum.now", lambda zone: real(zone).add(hours=3))
        assert wait(None, task, created_after=later).xcom["id"] == "run_1"

    def test_waiting_for_an_idle_webset_may_be_asked_for_between_tries(
        self, exa: StandIn, wait: Callable[..., Ended]
    ) -> None:
        """The retry stays with its run, and waits for the webset, too."""

        def story() -> Iterator[None]:
            yield from [None] * 9
            exa.set_webset_status("mon_a", "idle")

        exa.set_webset_status("mon_a", "running")
        older(exa, "run_1", "running", minutes=5)
        task = Task(lambda: None, store=Store())
        assert wait(dies(), task, pick="latest").state == "failed"
        exa.move("run_1", "completed")
        assert wait(story(), task, pick="latest", wait_for_idle=True).xcom["id"] == "run_1"
        assert list(exa.websets.values()) == ["idle"]

    def test_a_pinned_run_is_asked_for_by_id(self, exa: StandIn, wait: Callable[..., Ended]) -> None:
        """Once the run is known, one small answer a poll is enough."""

        def story() -> Iterator[None]:
            yield
            yield
            exa.move("run_1", "completed")

        older(exa, "run_1", "running", minutes=5)
        wait(story(), pick="latest")
        asked = [each.path.removeprefix("/websets/v0/monitors") for each in exa.requests]
        polls = [path for path in asked if "/runs" in path]
        assert polls[0] == "/mon_a/runs"
        assert set(polls[1:]) == {"/mon_a/runs/run_1"}
        # For the link; in the triggerer, where the monitors of all waits are listed at once, twice.
        assert [path for path in asked if path not in polls] in (["/mon_a"], ["", ""])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "given: none"),
        ({"run_id": "r", "pick": "next"}, "exactly one of run_id='…', created_after=…"),
        ({"pick": "newest"}, "'latest', 'next'"),
        ({"pick": "next", "monitor_id": ""}, "monitor_id is ''"),
        ({"pick": "next", "monitor_id": "a/b"}, "cannot be an id"),
        ({"pick": "next", "fail_on": "failed"}, "must be a list or tuple"),
        ({"pick": "next", "fail_on": ["cancelled"]}, "'cancelled', which is not one of 'failed', 'canceled'"),
        ({"created_after": "yesterday"}, "is not a time such as"),
        ({"pick": "next", "api": "serach"}, "api='serach'"),
        (
            {"pick": "next", "wait_for_idle": True, "api": "search"},
            "wait_for_idle=True is not possible with api='search', only with api='websets'",
        ),
    ],
)
def test_bad_arguments_are_refused_while_the_dag_is_parsed(arguments: dict[str, Any], words: str) -> None:
    """The DAG's import error says what to write instead."""
    with pytest.raises(ValueError, match=words.replace("[", r"\[")):
        ExaMonitorRunSensor(task_id="wait", **{"monitor_id": "mon_a", **arguments})


@pytest.mark.parametrize("mode", POKING_MODES)
def test_before_airflow_3_3_a_reschedule_keeps_next_but_not_latest(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], mode: str
) -> None:
    """Without task state the start of the wait is still known; what is lost is logged."""

    def story() -> Iterator[None]:
        exa.add_run("mon_a", run_id="run_new", status="completed")
        yield

    def task(pick: str) -> Task:
        steps = story()
        return Task(
            lambda: ExaMonitorRunSensor(
                task_id="wait", monitor_id="mon_a", pick=pick, mode=mode, poke_interval=POKE_INTERVAL
            ),
            passes=lambda: next(steps, None),
        )

    older(exa, "run_old", "completed", minutes=5)
    assert task("next").run(monkeypatch).xcom["id"] == "run_new"
    assert "picks anew" not in capfd.readouterr().out
    task("latest").run(monkeypatch)
    assert ("picks anew" in capfd.readouterr().out) == (mode == "reschedule")


@pytest.mark.parametrize("mode", SENSOR_MODES)
@pytest.mark.parametrize("flag", ["soft_fail", "never_fail"])
def test_a_skip_tells_its_reason(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], mode: str, flag: str
) -> None:
    """The base class says only that a flag was set; why is in the log as well."""
    assert play(exa, CASES["failed"], monkeypatch, mode, **{flag: True}).state == "skipped"
    assert "Run run_1 failed: out of luck (monitor mon_a)." in capfd.readouterr().out


@pytest.mark.parametrize("mode", SENSOR_MODES)
def test_waiting_on_a_disabled_monitor_says_so(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], mode: str
) -> None:
    """Its next run may never come."""

    def story(exa: StandIn) -> Iterator[None]:
        exa.add_monitor("mon_a", status="disabled")
        yield
        exa.add_run("mon_a", run_id="run_1")

    assert play(exa, Case(story), monkeypatch, mode).state == "success"
    assert "The monitor is disabled and makes no runs by itself" in capfd.readouterr().out


@pytest.mark.parametrize("mode", MODES)
def test_a_run_that_cannot_be_told_is_an_error(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Where Exa lists no further than its first page, the earliest run on it need not be the one meant."""
    exa.page_size, exa.refuses = 3, {"cursor"}
    for days in range(5):
        older(exa, f"run_{days}", "completed", days=days)
    ended = play(exa, Case(nothing), monkeypatch, mode)
    assert type(ended.error) is ExaIncompleteListingError
    assert "So the first run created at or after" in str(ended.error)
    assert "cannot be told from the 3 runs that are listed" in str(ended.error)
    near = pendulum.now("UTC").subtract(hours=36)
    assert play(exa, Case(nothing, arguments={"created_after": near}), monkeypatch, mode).state == "success"


class TestOneOfSeveral:
    """A monitor in trouble, beside one whose run decides the outcome."""

    @pytest.fixture(autouse=True)
    def _monitors(self, exa: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
        exa.add_monitor("mon_b")
        monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection(retries=3))

    @pytest.fixture(params=list(permutations(["mon_a", "mon_b"])), ids=str)
    def wait(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
        def wait(passes: Callable[[], None] = lambda: None, **given: Any) -> Ended:
            given = {"monitor_ids": request.param, "created_after": SINCE, "wait_for": "any", **given}
            return Task(lambda: make_task("operator", {"monitor_id": "", **given}), passes).run(monkeypatch)

        return wait

    @pytest.mark.parametrize("fault", [{"status": 503}, {"status": 404}, {"kind": "cut"}], ids=str)
    def test_a_first_poll_that_fails_counts_only_if_the_others_decide_nothing(
        self, exa: StandIn, wait: Callable[..., Ended], fault: dict[str, Any]
    ) -> None:
        """In whichever order the monitors are asked."""
        exa.add_run("mon_a", run_id="run_1", status="running")
        exa.fail(Fault(times=None, path="mon_b", **fault))
        assert isinstance(wait().error, ExaTransientError | ExaPermanentError)
        exa.move("run_1", "completed")
        assert wait().xcom.keys() == {"mon_a"}
        assert isinstance(wait(wait_for="all").error, ExaTransientError | ExaPermanentError)

    def test_no_monitor_is_asked_once_the_outcome_is_decided(
        self, exa: StandIn, wait: Callable[..., Ended]
    ) -> None:
        """One that hangs would hold up what is known."""
        for monitor_id in ("mon_a", "mon_b"):
            exa.add_run(monitor_id)
        wait()
        assert len(exa.requests) == 1

    def test_later_polls_repeat_no_request(self, exa: StandIn, wait: Callable[..., Ended]) -> None:
        """The next poll is a repetition anyway, and another monitor may have news."""

        def story() -> Iterator[None]:
            exa.fail(Fault(status=503, times=None, path="mon_b"))
            asked = len(exa.requests)
            yield
            assert len(exa.requests) == asked + 2
            exa.move("run_a", "completed")
            yield

        for name in "ab":
            exa.add_run(f"mon_{name}", run_id=f"run_{name}", status="running")
        steps = story()
        assert wait(lambda: next(steps, None)).xcom.keys() == {"mon_a"}

    def test_trouble_is_not_waited_out_for_each_of_many(
        self, exa: StandIn, wait: Callable[..., Ended], no_pauses: list[float]
    ) -> None:
        """The first monitor has its retries; after that, each of the others is asked once."""
        for number in range(10):
            exa.add_monitor(f"mon_{number}")
        exa.fail(Fault(status=503, times=None))
        assert type(wait(monitor_ids=[f"mon_{number}" for number in range(10)]).error) is ExaTransientError
        assert len(exa.requests) == 4 + 9
