"""Starting a run: one POST and one run, whoever dies, whenever, and whoever else starts one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import chain, repeat
from typing import Any

import pendulum
import pytest
from airflow.sdk.exceptions import AirflowTaskTimeout

from airflow_provider_exa.hooks import ExaHook
from airflow_provider_exa.operators import ExaTriggerMonitorOperator
from airflow_provider_exa.protocol.errors import (
    ExaBadAnswerError,
    ExaInputError,
    ExaNotStartedError,
    ExaPermanentError,
    ExaTransientError,
)
from airflow_provider_exa.standin import Fault, StandIn
from airflow_provider_exa.timing import timing
from tests.tasks import POKE_INTERVAL, Ended, Store, Task

MODES: dict[str, dict[str, Any]] = {
    "no_wait": {"deferrable": False},
    "wait": {"wait_for_completion": True, "deferrable": False},
    "deferred": {"wait_for_completion": True, "deferrable": True},
}
WAITING = ["wait", "deferred"]
OLD = "run_old"
#: Seconds after which a run that was started is listed, where it is late; of polls that are to be in vain.
LATE, SHORT = 0.05, 0.1
#: What a task remembers: that it is about to start a run, and that it has; before and after that is kept.
ABOUT, ABOUT_KEPT, HAS, HAS_KEPT = (1, False), (1, True), (2, False), (2, True)

every_mode = pytest.mark.parametrize("mode", MODES)
every_wait = pytest.mark.parametrize("mode", WAITING)


class Killed(SystemExit):
    """The end of the task's process; an event loop, too, lets it through at once."""


def kill() -> None:
    raise Killed


def pause() -> None:
    """A moment that passes, as in a task ``time.sleep`` takes none."""
    threading.Event().wait(0.004)


def then(*steps: Callable[[], object]) -> Callable[[], None]:
    """What happens while the task has nothing to do, a step each time; without end it must not have."""
    left = chain(steps, repeat(lambda: None, 500))

    def passes() -> None:
        pause()
        step = next(left, None)
        assert step, "the task waits for what does not come"
        step()

    return passes


@dataclass
class Steps(Store):
    """A task's state, and what happens amid its writes: by their number, and whether they are kept yet."""

    events: dict[tuple[int, bool], Callable[[], object]] = field(default_factory=dict)
    writes: int = 0

    def set(self, key: str, value: Any) -> None:
        self.writes += 1
        self.events.get((self.writes, False), lambda: None)()
        super().set(key, value)
        self.events.get((self.writes, True), lambda: None)()

    @property
    def confirmed(self) -> bool:
        """Whether the task remembers that there is a run."""
        return any(json.loads(kept)["confirmed"] for kept in self.kept.values())


@pytest.fixture(autouse=True)
def _quick(exa: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old runs, and new ones that end soon; polls that go on for long, as a machine may be slow."""
    monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection(retries=1, timeout=0.3))
    listed_within(monkeypatch, 20)
    for days, status in enumerate(("completed", "failed", "canceled")):
        run_id = f"{OLD}_{days}"
        exa.add_run(
            "mon_a", run_id=run_id, status=status, created_at=pendulum.now("UTC").subtract(days=days + 1)
        )
    exa.on_trigger = ((0, "created"), (0.01, "running"), (0.02, "completed"))


def listed_within(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    patient = replace(
        timing(),
        run_listed_within=seconds,
        run_listed_interval=POKE_INTERVAL,
        replacement_delay=4 * LATE,
    )
    monkeypatch.setattr("airflow_provider_exa.timing._current", patient)


def task_of(
    mode: str, passes: Callable[[], None] | None = None, store: Store | None = None, **arguments: Any
) -> Task:
    arguments = {"monitor_id": "mon_a", "poll_interval": POKE_INTERVAL, **MODES[mode], **arguments}
    return Task(
        lambda: ExaTriggerMonitorOperator(task_id="start", **arguments),
        passes or then(),
        Store() if store is None else store,
    )


def posts(exa: StandIn) -> int:
    return sum(each.method == "POST" for each in exa.requests)


def polls(exa: StandIn) -> int:
    """How often the runs were listed after the last POST."""
    methods = [each.method for each in exa.requests if each.method == "POST" or each.path.endswith("/runs")]
    return methods[::-1].index("POST")


def new_runs(exa: StandIn) -> list[str]:
    """The runs but the old ones, from the oldest to the newest."""
    return [run.id for run in exa.monitors["mon_a"].runs if not run.id.startswith(OLD)]


def status(exa: StandIn, run_id: str) -> str:
    return exa.runs[run_id].past()[-1][1]


def complete_newest(exa: StandIn) -> None:
    exa.move(new_runs(exa)[-1], "completed")


def run_id(ended: Ended) -> Any:
    """The run that a task has returned; its error is shown if it has none."""
    assert ended.error is None
    return ended.xcom["id"]


@every_mode
@pytest.mark.parametrize("delay", [0, LATE])
def test_it_starts_a_run_and_returns_it(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str, delay: float
) -> None:
    """One POST, and the new run as JSON, however late Exa lists it; with a wait, once it has ended."""
    exa.trigger_delay = delay
    ended = task_of(mode).run(monkeypatch)
    assert [run_id(ended)] == new_runs(exa)
    assert posts(exa) == 1
    if mode in WAITING:
        run = ExaHook(api="search").get_monitor_run("mon_a", ended.xcom["id"])
        assert json.loads(json.dumps(ended.xcom)) == run.as_dict()
        assert run.status == "completed"


def test_without_a_wait_it_returns_a_run_that_has_not_ended(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task is done once Exa lists the run; whatever becomes of that is for others to wait for."""
    exa.on_trigger = ((0, "created"),)
    assert task_of("no_wait").run(monkeypatch).xcom["status"] == "created"


@every_mode
def test_a_monitor_without_runs_is_started_and_an_unknown_one_refused(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Exa lists no runs of either."""
    exa.add_monitor("mon_new")
    assert task_of(mode, monitor_id="mon_new").run(monkeypatch).state == "success"
    ended = task_of(mode, monitor_id="mon_x").run(monkeypatch)
    assert isinstance(ended.error, ExaPermanentError)
    assert "404: 'Monitor not found'" in str(ended.error)
    assert posts(exa) == 1


@pytest.mark.parametrize("order", ["newest", "oldest", "shuffled"])
def test_the_new_run_is_told_from_many_old_ones(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, order: Any
) -> None:
    """In whatever order, and on however many pages, Exa lists them."""
    exa.order, exa.page_size = order, 10
    now = pendulum.now("UTC")
    for minutes in range(1, 31):
        exa.add_run("mon_a", run_id=f"{OLD}_at_{minutes}", created_at=now.subtract(minutes=minutes))
    assert [run_id(task_of("no_wait").run(monkeypatch))] == new_runs(exa)


@every_mode
@pytest.mark.parametrize("open_", ["created", "running", "dreaming"])
def test_a_run_that_has_not_ended_is_joined(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str, open_: str
) -> None:
    """A POST would cancel it; a status that is new here counts as not ended."""
    exa.add_run("mon_a", run_id="run_open", status=open_)
    ended = task_of(mode, then(lambda: exa.move("run_open", "completed"))).run(monkeypatch)
    assert (run_id(ended), posts(exa)) == ("run_open", 0)


class TestDeath:
    """The process of the task ends at some point, and Airflow runs the task again."""

    @every_mode
    @pytest.mark.parametrize("at", [ABOUT, ABOUT_KEPT, HAS, HAS_KEPT, "looking", "waiting"])
    def test_a_retry_follows_the_run_that_was_started(
        self, exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str, at: Any
    ) -> None:
        """One POST in all, wherever the first try ended; where that was before its POST, the retry's."""
        exa.trigger_delay = LATE
        if at == ABOUT_KEPT:
            listed_within(monkeypatch, SHORT)
        if at == "waiting":
            exa.on_trigger = ((0, "running"), (0.3, "completed"))
        if at == "looking":
            exa.fail(Fault(kind="cut", path="/trigger"))
        task = task_of(
            mode,
            then(kill) if at in ("looking", "waiting") else None,
            Steps(events={at: kill} if isinstance(at, tuple) else {}),
        )
        with pytest.raises(Killed):
            task.run(monkeypatch)
        assert posts(exa) == (at not in (ABOUT, ABOUT_KEPT))
        assert [run_id(task.run(monkeypatch))] == new_runs(exa)
        assert posts(exa) == 1

    @every_mode
    @pytest.mark.parametrize("at", [HAS, HAS_KEPT])
    def test_a_run_that_ends_before_the_retry_is_the_one(
        self, exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str, at: Any
    ) -> None:
        """Nor does it matter that others have started runs since then."""
        exa.on_trigger = ((0, "completed"),)
        task = task_of(mode, store=Steps(events={at: kill}))
        with pytest.raises(Killed):
            task.run(monkeypatch)
        pause()
        exa.trigger("mon_a")
        assert run_id(task.run(monkeypatch)) == new_runs(exa)[0]
        assert posts(exa) == 1

    @pytest.mark.parametrize("deaths", [1, 3])
    def test_a_retry_looks_for_a_while_before_it_starts_another(
        self, exa: StandIn, monkeypatch: pytest.MonkeyPatch, deaths: int
    ) -> None:
        """Exa may not list yet what the first try has started; deaths during the polls change nothing."""
        listed_within(monkeypatch, SHORT)
        about: list[float] = []
        events = {ABOUT: lambda: about.append(time.monotonic()), ABOUT_KEPT: kill}
        task = task_of("no_wait", then(*[kill] * (deaths - 1)), Steps(events=events))
        for _ in range(deaths):
            with pytest.raises(Killed):
                task.run(monkeypatch)
        assert [run_id(task.run(monkeypatch))] == new_runs(exa)
        (post,) = (each for each in exa.requests if each.method == "POST")
        assert post.at - about[0] > SHORT / 2
        assert sum(each.at < post.at for each in exa.requests) >= 2 + deaths

    @every_mode
    def test_a_post_that_came_late_is_looked_for_as_long(
        self, exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str
    ) -> None:
        """Refusals for now may put it off for minutes after what was known before was remembered."""
        exa.trigger_delay = LATE
        task = task_of(mode, store=Steps(events={HAS: kill}))
        with pytest.raises(Killed):
            task.run(monkeypatch)
        (key,) = task.store.kept
        long_ago = pendulum.now("UTC").subtract(hours=1).isoformat()
        task.store.kept[key] = json.dumps({**task.store.get(key), "at": long_ago})
        assert [run_id(task.run(monkeypatch))] == new_runs(exa)
        assert posts(exa) == 1

    @every_mode
    def test_where_nothing_is_remembered_a_run_that_has_not_ended_is_joined(
        self, exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str
    ) -> None:
        """Before Airflow 3.3 there is no task state; a run that has ended keeps no retry from a new one."""
        exa.on_trigger = ((0, "running"),)
        first, retry = task_of("no_wait"), task_of(mode, then(lambda: complete_newest(exa)))
        first.store = retry.store = None
        first.run(monkeypatch)
        assert [run_id(retry.run(monkeypatch))] == new_runs(exa)
        assert posts(exa) == 1
        complete_newest(exa)
        exa.on_trigger = ((0, "completed"),)
        assert [run_id(retry.run(monkeypatch))] == new_runs(exa)[1:]


class TestClear:
    """A user clears the task."""

    @every_mode
    @pytest.mark.parametrize("died", [False, True])
    @pytest.mark.parametrize("soon", [True, False])
    @pytest.mark.parametrize("ended", [False, True])
    def test_it_joins_the_run_or_starts_another(
        self, exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str, *, died: bool, soon: bool, ended: bool
    ) -> None:
        """Whether that has ended decides, not when the task was cleared, nor what it knew."""
        exa.on_trigger = ((0, "running"),)
        task = task_of("no_wait", store=Steps(events={HAS: kill} if died else {}))
        if died:
            with pytest.raises(Killed):
                task.run(monkeypatch)
        else:
            task.run(monkeypatch)
        (first,) = new_runs(exa)
        if ended:
            exa.move(first, "completed")
        task.clear()
        listed_within(monkeypatch, 20 if soon else 0)
        again = task_of(mode, then(lambda: complete_newest(exa)), task.store)
        again.max_tries = task.max_tries
        assert run_id(again.run(monkeypatch)) == new_runs(exa)[-1]
        assert (len(new_runs(exa)), posts(exa)) == ((2, 2) if ended else (1, 1))

    @every_mode
    def test_soon_after_it_a_run_may_still_have_to_be_looked_for(
        self, exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str
    ) -> None:
        """A run that Exa does not list yet would be canceled by another."""
        exa.trigger_delay, exa.on_trigger = LATE, ((0, "running"),)
        task = task_of(mode, then(kill))
        with pytest.raises(Killed):
            task.run(monkeypatch)
        task.clear()
        task.passes = then(*[pause] * 5, lambda: complete_newest(exa)) if mode in WAITING else then()
        assert [run_id(task.run(monkeypatch))] == new_runs(exa)
        assert posts(exa) == 1

    @every_mode
    def test_it_starts_a_run_where_the_first_try_died_before_its_own(
        self, exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str
    ) -> None:
        """What was remembered then leads to no run."""
        listed_within(monkeypatch, SHORT)
        task = task_of(mode, store=Steps(events={ABOUT_KEPT: kill}))
        with pytest.raises(Killed):
            task.run(monkeypatch)
        task.clear()
        assert [run_id(task.run(monkeypatch))] == new_runs(exa)
        assert posts(exa) == 1

    @every_wait
    @pytest.mark.parametrize("soon", [True, False])
    @pytest.mark.parametrize("joins", [True, False])
    def test_a_retry_after_it_follows_the_run_that_it_came_to(
        self, exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str, *, soon: bool, joins: bool
    ) -> None:
        """A retry of a cleared task is a retry, even if the run has ended since the worker's death."""
        exa.on_trigger = ((0, "running"),)
        task = task_of("no_wait")
        task.run(monkeypatch)
        if not joins:
            complete_newest(exa)
        listed_within(monkeypatch, 20 if soon else 0)
        again = task_of(mode, then(pause, kill), task.store)
        again.clear()
        with pytest.raises(Killed):
            again.run(monkeypatch)
        complete_newest(exa)
        assert run_id(again.run(monkeypatch)) == new_runs(exa)[-1]
        assert posts(exa) == (1 if joins else 2)


class TestTrouble:
    """Exa does not answer as it should."""

    @every_mode
    @pytest.mark.parametrize("delay", [0, LATE])
    def test_a_run_whose_post_got_no_answer_is_found(
        self, exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str, delay: float
    ) -> None:
        """Exa did what was asked; another POST would cancel the run."""
        exa.trigger_delay = delay
        exa.fail(Fault(kind="cut", path="/trigger"))
        assert [run_id(task_of(mode).run(monkeypatch))] == new_runs(exa)
        assert posts(exa) == 1

    @pytest.mark.parametrize(
        ("fault", "error", "words"),
        [
            (Fault(kind="reset", path="/trigger"), ExaTransientError, "gave no answer"),
            (Fault(kind="hang", path="/trigger"), ExaTransientError, "gave no answer"),
            (Fault(kind="html", path="/trigger"), ExaBadAnswerError, "cannot be read"),
            (Fault(status=500, path="/trigger"), ExaTransientError, "answered 500"),
            (Fault(status=504, path="/trigger"), ExaTransientError, "answered 504"),
        ],
        ids=["reset", "hang", "html", "500", "504"],
    )
    def test_where_it_leads_to_no_run_the_error_is_raised(
        self, exa: StandIn, monkeypatch: pytest.MonkeyPatch, fault: Fault, error: type[Exception], words: str
    ) -> None:
        """After a while of looking, and without another POST, which is the retry's."""
        listed_within(monkeypatch, SHORT)
        exa.fail(fault)
        task = task_of("no_wait")
        began = time.monotonic()
        ended = task.run(monkeypatch)
        assert type(ended.error) is error
        assert words in str(ended.error)
        assert time.monotonic() - began > SHORT
        assert (posts(exa), new_runs(exa)) == (1, [])
        assert polls(exa)
        assert [run_id(task.run(monkeypatch))] == new_runs(exa)
        assert posts(exa) == 2

    def test_a_retry_finds_a_run_that_was_listed_too_late(
        self, exa: StandIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Exa may take longer than it is waited for."""
        listed_within(monkeypatch, SHORT)
        exa.trigger_delay = 6 * SHORT
        exa.fail(Fault(kind="cut", path="/trigger"))
        task = task_of("no_wait")
        assert type(task.run(monkeypatch).error) is ExaTransientError
        threading.Event().wait(6 * SHORT)
        assert [run_id(task.run(monkeypatch))] == new_runs(exa)
        assert posts(exa) == 1

    def test_a_run_that_was_started_but_is_not_listed_is_said_to_be(
        self, exa: StandIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A retry polls for it again and starts no other."""
        listed_within(monkeypatch, SHORT)
        exa.trigger_delay = 60
        task = task_of("no_wait")
        for _ in range(2):
            ended = task.run(monkeypatch)
            assert type(ended.error) is ExaTransientError
            assert "Exa has started a run, but lists none" in str(ended.error)
        exa.runs[new_runs(exa)[0]].hidden_until = None
        assert [run_id(task.run(monkeypatch))] == new_runs(exa)
        assert posts(exa) == 1

    @every_mode
    @pytest.mark.parametrize("code", [429, 503])
    def test_a_refusal_for_now_is_asked_again(
        self, exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str, code: int
    ) -> None:
        """Exa says that it has started nothing."""
        exa.fail(Fault(status=code, path="/trigger"))
        assert [run_id(task_of(mode).run(monkeypatch))] == new_runs(exa)
        assert posts(exa) == 2

    @pytest.mark.parametrize(
        ("code", "error", "asked"),
        [(429, ExaTransientError, 2), (503, ExaTransientError, 2), (402, ExaPermanentError, 1)],
    )
    def test_after_a_refusal_no_run_is_looked_for(
        self, exa: StandIn, monkeypatch: pytest.MonkeyPatch, code: int, error: type[Exception], asked: int
    ) -> None:
        """There is none; nor does a retry look for one, but asks again at once."""
        exa.fail(Fault(status=code, times=None, path="/trigger"))
        task = task_of("no_wait")
        ended = task.run(monkeypatch)
        assert type(ended.error) is error
        assert f"answered {code}: " in str(ended.error)
        assert (posts(exa), polls(exa), new_runs(exa)) == (asked, 0, [])
        exa.heal()
        before = len(exa.requests)
        assert [run_id(task.run(monkeypatch))] == new_runs(exa)
        assert [each.method for each in exa.requests[before:]][:2] == ["GET", "POST"]

    @every_mode
    @pytest.mark.parametrize("why", ["limit", "disabled"])
    def test_exa_may_start_no_run(
        self, exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str, why: str
    ) -> None:
        """It answers ``triggered: false`` without a reason; the monitor's status may be one."""
        if why == "disabled":
            exa.add_monitor("mon_a", status="disabled")
        exa.triggers = why == "disabled"
        listed_within(monkeypatch, SHORT)
        task = task_of(mode)
        ended = task.run(monkeypatch)
        assert type(ended.error) is ExaNotStartedError
        assert str(ended.error).startswith("Exa started no run of monitor mon_a, which is ")
        assert f"which is {ExaHook(api='search').get_monitor('mon_a').status}," in str(ended.error)
        assert (posts(exa), new_runs(exa)) == (1, [])
        task.run(monkeypatch)
        methods = [each.method for each in exa.requests if "/monitors/mon_a/" in each.path]
        before, between, after = "".join(each[0] for each in methods).split("P")
        # Somebody may have started a run meanwhile; a retry does not look for one first.
        assert (before, after.strip("G")) == ("G", "")
        assert len(between) > 2
        assert polls(exa) >= 2

    @every_mode
    def test_trouble_after_the_start_does_not_start_another(
        self, exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str
    ) -> None:
        """A wait goes on, as Exa has answered before; without one, the retry finds the run."""
        monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection(retries=0))
        task = task_of(mode, store=Steps(events={HAS_KEPT: lambda: exa.fail(Fault(times=3))}))
        ended = task.run(monkeypatch)
        assert ended.state == ("success" if mode in WAITING else "failed")
        exa.heal()
        assert [run_id(task.run(monkeypatch))] == new_runs(exa)
        assert posts(exa) == 1


class TestOthers:
    """Others start runs of the monitor, too."""

    @pytest.mark.parametrize(
        "modes", [("no_wait",) * 2, ("wait",) * 2, ("deferred",) * 2, ("wait", "deferred")]
    )
    @pytest.mark.parametrize("delay", [0, LATE])
    @pytest.mark.parametrize("order", ["AABB", "ABAB", "ABBA"])
    def test_two_tasks_come_to_the_same_run_in_every_order(
        self, exa: StandIn, monkeypatch: pytest.MonkeyPatch, modes: tuple[str, str], delay: float, order: str
    ) -> None:
        """
        Each polls and then starts a run or joins; what remains of their runs is one, and both return it.

        Where a run is listed late, a task may see that its own was canceled before it sees the other's.
        """
        exa.trigger_delay, exa.on_trigger = delay, ((0, "running"),)
        came = {who: threading.Semaphore(0) for who in "AB"}
        goes = {who: threading.Semaphore(0) for who in "AB"}

        def stop(who: str) -> None:
            came[who].release()
            assert goes[who].acquire(timeout=30)

        stores = {
            who: Steps(events={ABOUT_KEPT: lambda who=who: stop(who), HAS_KEPT: lambda who=who: stop(who)})
            for who in "AB"
        }
        tasks = {who: task_of(mode, store=stores[who]) for who, mode in zip("AB", modes, strict=True)}
        with ThreadPoolExecutor() as pool:
            tries = {}
            for who in order:
                if who not in tries:
                    tries[who] = pool.submit(tasks[who].run, monkeypatch)
                elif stores[who].confirmed:
                    continue  # it has joined the other's run, and there it waits
                else:
                    goes[who].release()
                assert came[who].acquire(timeout=30)
            complete_newest(exa)
            for who in "AB":
                goes[who].release()
            ids = [run_id(each.result(30)) for each in tries.values()]
        assert ids == [new_runs(exa)[-1]] * 2
        assert [each for each in new_runs(exa) if status(exa, each) != "canceled"] == ids[:1]
        joins = order == "AABB" and not delay
        assert posts(exa) == len(new_runs(exa)) == (1 if joins else 2)

    @pytest.mark.parametrize("delay", [0, LATE])
    def test_many_tasks_come_to_the_same_run(
        self, exa: StandIn, monkeypatch: pytest.MonkeyPatch, delay: float
    ) -> None:
        """In whatever order it happens; the run ends once all have started theirs or joined."""
        exa.trigger_delay, exa.on_trigger = delay, ((0, "running"),)
        stores = [Store() for _ in range(6)]
        started = threading.Barrier(len(stores) + 1)
        with ThreadPoolExecutor(len(stores)) as pool:

            def go(number: int) -> Ended:
                started.wait(30)
                return task_of(WAITING[number % 2], store=stores[number]).run(monkeypatch)

            tries = [pool.submit(go, number) for number in range(len(stores))]
            started.wait(30)
            deadline = time.monotonic() + 30
            while not all('"confirmed": true' in str(store.kept) for store in stores):
                assert time.monotonic() < deadline
                pause()
            complete_newest(exa)
            ids = [run_id(each.result(30)) for each in tries]
        assert ids == [new_runs(exa)[-1]] * len(stores)
        assert [each for each in new_runs(exa) if status(exa, each) != "canceled"] == ids[:1]

    @every_mode
    def test_a_run_that_started_just_before_is_replaced(
        self, exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str
    ) -> None:
        """By Exa, as nobody can know of it; what is returned is the run that is left."""
        store = Steps(events={ABOUT_KEPT: lambda: (exa.trigger("mon_a"), pause())})
        exa.on_trigger = ((0, "running"), (60, "completed"))
        task = task_of(mode, then(lambda: complete_newest(exa)), store)
        assert run_id(task.run(monkeypatch)) == new_runs(exa)[-1]
        assert status(exa, new_runs(exa)[0]) == "canceled"

    @every_mode
    def test_where_exa_refuses_to_start_a_second_run_the_first_is_joined(
        self, exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str
    ) -> None:
        """Nobody has seen what Exa does about a trigger while a run has not ended."""
        exa.on_busy, exa.on_trigger = "refuse", ((0, "running"),)
        store = Steps(events={ABOUT_KEPT: lambda: exa.trigger("mon_a"), HAS_KEPT: kill})
        task = task_of(mode, then(lambda: complete_newest(exa)), store)
        with pytest.raises(Killed):
            task.run(monkeypatch)
        assert [run_id(task.run(monkeypatch))] == new_runs(exa)
        assert posts(exa) == 1

    def test_one_that_is_not_listed_yet_is_joined_by_a_retry(
        self, exa: StandIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The try that was refused cannot know of it."""
        exa.on_busy, exa.on_trigger, exa.trigger_delay = "refuse", ((0, "running"),), 6 * SHORT
        listed_within(monkeypatch, SHORT)
        task = task_of("no_wait", store=Steps(events={ABOUT_KEPT: lambda: exa.trigger("mon_a")}))
        assert type(task.run(monkeypatch).error) is ExaNotStartedError
        threading.Event().wait(6 * SHORT)
        assert [run_id(task.run(monkeypatch))] == new_runs(exa)
        assert posts(exa) == 1

    @every_mode
    @pytest.mark.parametrize("times", [1, 2])
    @pytest.mark.parametrize("delay", [0, LATE])
    def test_a_run_that_is_replaced_is_not_the_one(
        self, exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str, times: int, delay: float
    ) -> None:
        """The one that took its place is, even if it is listed only a while after the cancelation."""
        exa.on_trigger = ((0, "running"),)

        def replace() -> None:
            exa.trigger_delay = delay
            for _ in range(times):
                pause()
                exa.trigger("mon_a")
            complete_newest(exa)

        store = Steps(events={HAS_KEPT: replace})
        assert run_id(task_of(mode, store=store).run(monkeypatch)) == new_runs(exa)[-1]
        assert len(new_runs(exa)) == 1 + times

    @every_wait
    @pytest.mark.parametrize("delay", [0, LATE])
    def test_nor_is_one_that_is_replaced_during_the_wait(
        self, exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str, delay: float
    ) -> None:
        """It may happen again, too."""
        exa.on_trigger = ((0, "running"),)

        def replace() -> None:
            exa.trigger_delay = delay
            exa.trigger("mon_a")

        passes = then(pause, replace, pause, pause, replace, pause, lambda: complete_newest(exa))
        assert run_id(task_of(mode, passes).run(monkeypatch)) == new_runs(exa)[-1]
        assert len(new_runs(exa)) == 3

    @every_mode
    def test_a_run_that_is_canceled_for_good_is_the_one(
        self, exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str
    ) -> None:
        """No other comes in its place."""
        listed_within(monkeypatch, SHORT)
        exa.on_trigger = ((0, "canceled"),)
        ended = task_of(mode, fail_on=()).run(monkeypatch)
        assert ([run_id(ended)], ended.xcom["status"]) == (new_runs(exa), "canceled")
        assert posts(exa) == 1

    @every_mode
    @pytest.mark.parametrize("at", [HAS, HAS_KEPT])
    def test_a_retry_follows_the_run_that_replaced_its_own(
        self, exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str, at: Any
    ) -> None:
        """Even if the cancelation is seen first: a POST would cancel the run that another waits for."""
        exa.on_trigger = ((0, "running"),)

        def replace_and_kill() -> None:
            exa.trigger_delay = LATE
            exa.trigger("mon_a")
            kill()

        task = task_of(mode, store=Steps(events={at: replace_and_kill}))
        with pytest.raises(Killed):
            task.run(monkeypatch)
        complete_newest(exa)
        assert run_id(task.run(monkeypatch)) == new_runs(exa)[-1]
        assert (len(new_runs(exa)), posts(exa)) == (2, 1)

    @every_wait
    def test_a_run_that_comes_later_is_not_the_one(
        self, exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str
    ) -> None:
        """The earliest new run is, if it was not canceled."""
        exa.on_trigger = ((0, "completed"),)
        store = Steps(events={HAS_KEPT: lambda: (pause(), exa.trigger("mon_a"))})
        assert run_id(task_of(mode, store=store).run(monkeypatch)) == new_runs(exa)[0]
        assert len(new_runs(exa)) == 2


@every_wait
@pytest.mark.parametrize("outcome", ["completed", "failed", "canceled"])
@pytest.mark.parametrize("fail_on", [None, (), ("failed",), ["canceled"]], ids=str)
def test_how_the_run_ends_decides_with_fail_on(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str, outcome: str, fail_on: Any
) -> None:
    """As with the sensor, but Airflow may retry the task, with another run."""
    exa.on_trigger, exa.trigger_options = ((0, "running"), (0.02, outcome)), {"failed_reason": "no luck"}
    ended = task_of(mode, **({} if fail_on is None else {"fail_on": fail_on})).run(monkeypatch)
    if outcome not in (("failed", "canceled") if fail_on is None else fail_on):
        assert (run_id(ended), ended.xcom["status"]) == (new_runs(exa)[0], outcome)
        return
    assert type(ended.error) is ExaTransientError
    was = "failed: no luck (" if outcome == "failed" else "was canceled:"
    assert str(ended.error).startswith(f"Run {new_runs(exa)[0]} {was}")


def test_without_a_wait_no_outcome_fails_the_task(exa: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even one that is known already."""
    exa.on_trigger = ((0, "failed"),)
    assert task_of("no_wait").run(monkeypatch).xcom["status"] == "failed"


@every_wait
@pytest.mark.parametrize("cleared", [False, True])
@pytest.mark.parametrize("died", [False, True])
def test_after_a_run_that_failed_the_task_starts_another(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str, *, cleared: bool, died: bool
) -> None:
    """That is what a retry or a clear of it is for; so, too, if nobody was there to see how the run ended."""
    exa.on_trigger = ((0, "failed"),)
    task = task_of(mode, store=Steps(events={HAS_KEPT: kill} if died else {}))
    if died:
        with pytest.raises(Killed):
            task.run(monkeypatch)
    else:
        assert task.run(monkeypatch).state == "failed"
    pause()
    exa.on_trigger = ((0, "completed"),)
    if cleared:
        task.clear()
    assert [run_id(task.run(monkeypatch))] == new_runs(exa)[1:]
    assert posts(exa) == 2


@every_mode
@pytest.mark.parametrize("outcome", ["completed", "failed"])
def test_after_a_run_that_fails_no_task_a_retry_starts_no_other(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str, outcome: str
) -> None:
    """Where every outcome is passed on, or none is waited for, the run that was started is the one."""
    exa.on_trigger = ((0, outcome),)
    given = {"fail_on": ()} if mode in WAITING else {}
    task = task_of(mode, store=Steps(events={HAS_KEPT: kill}), **given)
    with pytest.raises(Killed):
        task.run(monkeypatch)
    assert [run_id(task.run(monkeypatch))] == new_runs(exa)
    assert posts(exa) == 1


def test_execution_timeout_ends_a_deferred_wait(exa: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else does; the retry goes on with the same run."""
    exa.on_trigger = ((0, "running"),)
    task = task_of("deferred", execution_timeout=timedelta(seconds=0.2))
    assert type(task.run(monkeypatch).error) is AirflowTaskTimeout
    complete_newest(exa)
    assert [run_id(task.run(monkeypatch))] == new_runs(exa)
    assert posts(exa) == 1


def test_the_triggerer_is_told_how_to_poll(exa: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the operator was."""
    monkeypatch.setenv("AIRFLOW_CONN_EXA_TEAM_B", exa.connection())
    monkeypatch.delenv("AIRFLOW_CONN_EXA_DEFAULT")
    told: list[dict[str, Any]] = []
    monkeypatch.setattr("tests.tasks.defer", lambda deferred: told.append(deferred.trigger.serialize()[1]))
    task_of("deferred", exa_conn_id="exa_team_b", poll_interval=7).run(monkeypatch)
    assert [(each["exa_conn_id"], each["poll_interval"], each["api"]) for each in told] == [
        ("exa_team_b", 7, "search")
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"api": "websets"}, "starting a run is not possible with api='websets', only with api='search'"),
        ({"api": "serach"}, "api='serach'"),
        ({"monitor_id": ""}, "monitor_id is ''"),
        ({"monitor_id": "a/b"}, "cannot be an id"),
        ({"fail_on": "failed"}, "must be a list or tuple"),
        ({"fail_on": ["cancelled"]}, "'cancelled', which is not one of 'failed', 'canceled'"),
        ({"poll_interval": 0}, "poll_interval=0"),
    ],
)
def test_bad_arguments_are_refused_while_the_dag_is_parsed(arguments: dict[str, Any], words: str) -> None:
    """The DAG's import error says what to write instead."""
    with pytest.raises(ExaInputError) as caught:
        ExaTriggerMonitorOperator(task_id="start", **{"monitor_id": "mon_a", **arguments})
    assert words in str(caught.value)


def test_what_is_templated_may_be_given_as_a_template() -> None:
    """It is known only when the task runs."""
    operator = ExaTriggerMonitorOperator(task_id="start", monitor_id="{{ params.monitor_id }}")
    assert set(operator.template_fields) == {"monitor_id", "exa_conn_id"}
    operator.render_template_fields({"params": {"monitor_id": "mon_a"}})
    assert operator.monitor_id == "mon_a"


def test_the_hook_starts_search_monitors_only(exa: StandIn) -> None:
    """Websets has no such call, so it is not even tried."""
    ExaHook(api="search").trigger_monitor("mon_a")
    assert len(new_runs(exa)) == 1
    with pytest.raises(ExaInputError, match="only with api='search'"):
        ExaHook(api="websets").trigger_monitor("mon_a")
    assert len(exa.requests) == 1
