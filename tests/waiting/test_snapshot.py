"""Which run a task waits for and what its end means."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from itertools import permutations
from typing import Any

import pendulum
import pytest
from pendulum import UTC, DateTime

from airflow_provider_exa.hooks import ExaHook
from airflow_provider_exa.protocol import errors
from airflow_provider_exa.protocol.errors import (
    ExaBadAnswerError,
    ExaError,
    ExaInputError,
    ExaPermanentError,
    ExaRunFailedError,
    ExaTransientError,
)
from airflow_provider_exa.protocol.models import DIALECTS, Monitor, MonitorRun, parse_monitor, parse_run
from airflow_provider_exa.protocol.paging import age
from airflow_provider_exa.standin import Fault, StandIn
from airflow_provider_exa.waiting import outcome, snapshot
from airflow_provider_exa.waiting.progress import Progress
from airflow_provider_exa.waiting.selection import RunSelector, RunsSince, Selector
from airflow_provider_exa.waiting.snapshot import Busy, Found, Sight

WEBSETS = DIALECTS["websets"]
START = pendulum.datetime(2026, 1, 31)


def make_run(run_id: str, hour: int = 0, status: str = "completed", **fields: Any) -> MonitorRun:
    """A run that was created that many hours after ``START``."""
    created_at = START.add(hours=hour).isoformat()
    return parse_run(WEBSETS, "mon_a", {"id": run_id, "status": status, "createdAt": created_at, **fields})


def look(*choices: RunSelector, monitor_id: str = "mon_a", first: bool = False) -> list[str | None]:
    """The ids of the runs that choices mean, None for one that is not there; an error is raised."""
    sights, _ = ExaHook().call(snapshot.look(WEBSETS, monitor_id, choices, first=first))
    for sight in sights.values():
        if isinstance(sight, Exception):
            raise sight
    return [sight.id if isinstance(sight := sights[choice], MonitorRun) else None for choice in choices]


def paths(exa: StandIn) -> list[str]:
    """The end of each path that was asked."""
    return ["/".join(request.path.split("/")[-2:]) for request in exa.requests]


@pytest.fixture
def twelve(exa: StandIn) -> None:
    """Twelve runs of ``mon_a``, an hour apart; a page holds five."""
    exa.page_size = 5
    for hour in range(12):
        exa.add_run("mon_a", run_id=f"run_{hour:02}", created_at=START.add(hours=hour))


# --- which run ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "none"),
        ({"run_id": "run_1", "pick": "next"}, "run_id, pick"),
        ({"run_id": "run_1", "created_after": START}, "run_id, created_after"),
        ({"created_after": START, "pick": "latest"}, "created_after, pick"),
        ({"run_id": "run_1", "created_after": START, "pick": "next"}, "run_id, created_after, pick"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_none_or_several_ways_to_choose_are_refused(given: dict[str, Any], told: str) -> None:
    """The error names the four ways there are and those that were given."""
    with pytest.raises(ExaInputError) as caught:
        RunSelector(**given)
    message = str(caught.value)
    assert [way in message for way in ("run_id='…'", "created_after=…", "pick='latest'", "pick='next'")] == (
        [True] * 4
    )
    assert message.endswith(f"given: {told}")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"pick": "newest"}, r"pick='newest' is not one of 'latest', 'next'"),
        ({"pick": ""}, r"pick='' is not one of"),
        ({"run_id": ""}, r"run_id is ''"),
        ({"run_id": ".."}, r"run_id is '\.\.'"),
        ({"run_id": "run/1"}, r"run_id 'run/1' cannot be an id"),
        ({"created_after": "soon"}, r"created_after='soon' is not a time"),
        ({"created_after": "P1D"}, r"created_after='P1D' is not a time"),
        ({"created_after": ""}, r"created_after='' is not a time"),
    ],
    ids=str,
)
def test_a_choice_that_cannot_be_is_refused_while_parsing(given: dict[str, Any], told: str) -> None:
    """What is written into the DAG file is checked there."""
    with pytest.raises(ExaInputError, match=told):
        RunSelector(**given).check()


@pytest.mark.parametrize(
    ("given", "settled"),
    [
        ({"run_id": "run_1"}, {"run_id": "run_1"}),
        ({"pick": "latest"}, {"pick": "latest"}),
        ({"pick": "next"}, {"created_after": START}),
        ({"created_after": "2026-01-30T01:00:00+01:00"}, {"created_after": START.subtract(days=1)}),
        ({"pick": "next", "idle": True}, {"created_after": START, "idle": True}),
        ({"created_after": datetime(2026, 1, 30)}, {"created_after": START.subtract(days=1)}),  # noqa: DTZ001
    ],
    ids=str,
)
def test_a_settled_choice_is_the_same_at_every_look(given: dict[str, Any], settled: dict[str, Any]) -> None:
    """``next`` is the moment the wait began, any time is in UTC, and settling again changes nothing."""
    choice = RunSelector(**given).resolve(START)
    assert choice == RunSelector(**settled)
    assert choice.resolve(START.add(days=1)) == choice
    if choice.created_after is not None:
        assert isinstance(choice.created_after, DateTime)
        assert choice.created_after.tzinfo is UTC


def test_a_template_is_checked_when_it_is_settled() -> None:
    """Only the task that runs knows what it stands for."""
    RunSelector(run_id="{{ params.run_id }}").check()
    template = RunSelector(created_after="{{ data_interval_end }}").check()
    with pytest.raises(ExaInputError, match="created_after="):
        template.resolve(START)


@pytest.mark.parametrize(
    ("choice", "best"),
    [
        (RunSelector(pick="latest"), "run_d"),
        (RunSelector(created_after=START), "run_a"),
        (RunSelector(created_after=START.add(hours=1)), "run_b"),
        (RunSelector(created_after=START.add(hours=1, microseconds=1)), "run_0"),
        (RunSelector(created_after=START.add(hours=3)), None),
    ],
    ids=str,
)
def test_two_runs_of_one_moment_do_not_make_it_a_matter_of_luck(
    choice: RunSelector, best: str | None
) -> None:
    """Every order of the same runs gives the same one."""
    runs = [
        make_run(*each) for each in (("run_a", 0), ("run_b", 1), ("run_c", 1), ("run_d", 2), ("run_0", 2))
    ]
    found = {getattr(choice.of(sorted(order, key=age)), "id", None) for order in permutations(runs)}
    assert found == {best}
    assert choice.of([]) is None


# --- looks ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("twelve")
@pytest.mark.parametrize(
    ("choices", "found", "pages"),
    [
        ([RunSelector(pick="latest")], ["run_11"], 1),
        ([RunSelector(created_after=START.add(hours=8))], ["run_08"], 1),
        ([RunSelector(created_after=START.add(hours=7))], ["run_07"], 2),
        ([RunSelector(created_after=START.add(hours=4))], ["run_04"], 2),
        ([RunSelector(created_after=START.add(days=1))], [None], 1),
        ([RunSelector(created_after=START.subtract(days=1))], ["run_00"], 3),
        (
            [RunSelector(created_after=START.add(hours=9)), RunSelector(created_after=START.add(hours=5))],
            ["run_09", "run_05"],
            2,
        ),
        (
            [
                RunSelector(created_after=START.add(hours=3)),
                RunSelector(pick="latest"),
                RunSelector("run_10"),
            ],
            ["run_03", "run_11", "run_10"],
            2,
        ),
    ],
    ids=lambda value: ", ".join(map(str, value)) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("order", ["newest", "oldest", "shuffled"])
def test_runs_are_found_wherever_they_are_listed(
    *, exa: StandIn, order: Any, choices: list[RunSelector], found: list[str | None], pages: int
) -> None:
    """One listing serves every choice; in newest-first order it is read as far as needed, else to its end."""
    exa.order = order
    assert look(*choices) == found
    assert paths(exa) == ["mon_a/runs"] * (pages if order == "newest" else 3)


@pytest.mark.usefixtures("twelve")
@pytest.mark.parametrize(
    ("run_ids", "asked"),
    [
        (["run_11"], ["runs/run_11"]),
        (["run_11", "run_08"], ["mon_a/runs"]),
        (["run_11", "run_02"], ["mon_a/runs", "runs/run_02"]),
    ],
    ids=str,
)
def test_runs_that_are_known_by_id_cost_few_requests(
    exa: StandIn, run_ids: list[str], asked: list[str]
) -> None:
    """One is asked for alone; several are looked for on the first page, and then one by one."""
    assert look(*(RunSelector(run_id=run_id) for run_id in run_ids), first=True) == run_ids
    assert paths(exa) == asked


def test_an_unknown_run_concerns_only_who_waits_for_it(exa: StandIn) -> None:
    """Its 404 is what that choice is shown; the others are shown their runs."""
    exa.add_run("mon_a", run_id="run_1")
    gone, there = RunSelector(run_id="run_none"), RunSelector(run_id="run_1")
    sights, _ = ExaHook().call(snapshot.look(WEBSETS, "mon_a", [gone, there]))
    assert isinstance(sights[gone], ExaPermanentError)
    assert "answered 404: 'Monitor run not found'" in str(sights[gone])
    assert isinstance(sights[there], MonitorRun)


@pytest.mark.parametrize(
    "choice",
    [RunSelector(pick="latest"), RunSelector(created_after=START), RunSelector(run_id="run_1")],
    ids=str,
)
def test_the_first_look_at_an_unknown_monitor_is_an_error(exa: StandIn, choice: RunSelector) -> None:
    """Its runs would list as empty for ever, so the monitor itself is asked for."""
    with pytest.raises(ExaPermanentError, match=r"answered 404: 'Monitor (run )?not found'"):
        look(choice, monitor_id="mon_none", first=True)
    assert len(exa.requests) <= 2


@pytest.mark.parametrize(
    ("first", "runs", "asked"),
    [
        (True, 0, ["mon_a/runs", "monitors/mon_a"]),
        (True, 1, ["mon_a/runs"]),
        (False, 0, ["mon_a/runs"]),
    ],
)
def test_the_monitor_is_asked_for_where_its_run_is_not_there(
    exa: StandIn, first: bool, runs: int, asked: list[str]
) -> None:
    """At the first look only, and it says whether it makes runs at all."""
    exa.add_monitor("mon_a", status="disabled")
    for _ in range(runs):
        exa.add_run("mon_a")
    choice = RunSelector(created_after=START)
    sights, monitor = ExaHook().call(snapshot.look(WEBSETS, "mon_a", [choice], first=first))
    assert (sights[choice] is not None) == bool(runs)
    assert paths(exa) == asked
    assert (monitor is not None) == ("monitors/mon_a" in asked)
    assert not (monitor and monitor.enabled)


def test_an_id_of_exas_is_followed_whatever_it_is_made_of(exa: StandIn) -> None:
    """Ids are opaque: one that was found in a listing can be asked for, even if nobody would write it."""
    odd = exa.add_run("mon_a", run_id="run/odd")
    run = ExaHook().call(snapshot.look(WEBSETS, "mon_a", [latest := RunSelector(pick="latest")]))[0][latest]
    assert isinstance(run, MonitorRun)
    assert look(RunSelector(run_id=run.id)) == [odd]


@pytest.mark.parametrize(
    "fault", [Fault(status=401), Fault(status=400), Fault(status=422), Fault(kind="html")]
)
def test_a_look_that_fails_is_an_error_for_all(exa: StandIn, fault: Fault) -> None:
    """What Exa refuses of a listing concerns every choice."""
    exa.fail(fault)
    with pytest.raises(ExaError):
        look(RunSelector(pick="latest"), RunSelector(run_id="run_1"))
    assert len(exa.requests) == 1


# --- looks at the webset --------------------------------------------------------------------------

IDLE, PLAIN = RunSelector(run_id="run_1", idle=True), RunSelector(run_id="run_1")
WEBSET = "/websets/v0/websets/"
#: What the webset is looked at for takes, and in this order.
ASKED = ["runs/run_1", "monitors/mon_a", "websets/webset_a"]


def sights_of(*choices: Selector, monitor: Monitor | None = None) -> tuple[list[Sight], Monitor | None]:
    """What a later look shows of each choice, and the monitor."""
    sights, monitor = ExaHook().call(snapshot.look(WEBSETS, "mon_a", choices, monitor=monitor))
    return [sights[choice] for choice in choices], monitor


@pytest.fixture
def webset(exa: StandIn) -> str:
    """The webset of ``mon_a``, which is running while ``run_1`` has completed."""
    exa.add_monitor("mon_a", webset_id="webset_a", webset_status="running")
    exa.add_run("mon_a", run_id="run_1", created_at=START)
    return "webset_a"


@pytest.mark.usefixtures("webset")
@pytest.mark.parametrize(
    ("run", "status", "asked", "shown"),
    [
        ("completed", "running", ASKED, "running"),
        ("completed", "pending", ASKED, "pending"),
        ("completed", "dreaming", ASKED, "dreaming"),
        ("completed", "idle", ASKED, None),
        ("running", "running", ASKED[:1], None),
        ("failed", "running", ASKED[:1], None),
        ("canceled", "running", ASKED[:1], None),
    ],
)
def test_only_a_completed_run_is_held_back_by_its_webset(
    *, exa: StandIn, run: str, status: str, asked: list[str], shown: str | None
) -> None:
    """By any that is not idle; only then it is asked for, as a run that ended otherwise gets nothing more."""
    exa.move("run_1", run)
    exa.set_webset_status("mon_a", status)
    (sight,), _ = sights_of(IDLE)
    assert paths(exa) == asked
    assert (getattr(sight, "webset", None), snapshot.run_of(sight).status) == (shown, run)


@pytest.mark.usefixtures("webset")
def test_a_webset_is_found_once(exa: StandIn) -> None:
    """Of a monitor that is known only its webset is asked for, for all choices at once."""
    by_time = RunSelector(created_after=START, idle=True)
    _, monitor = sights_of(IDLE)
    assert monitor.webset_id == "webset_a"
    exa.requests.clear()
    sights, again = sights_of(IDLE, by_time, monitor=monitor)
    assert [sight.webset for sight in sights] == ["running", "running"]
    assert again is monitor
    assert paths(exa) == ["mon_a/runs", "websets/webset_a"]


@pytest.mark.usefixtures("webset")
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(status=404, path=WEBSET), ExaPermanentError),
        (Fault(status=503, times=None, path=WEBSET), ExaTransientError),
        (Fault(status=200, body=b"{}", path=WEBSET), ExaBadAnswerError),
        (None, None),
    ],
    ids=["404", "503", "unreadable", "busy"],
)
def test_a_webset_concerns_only_who_waits_for_it(
    exa: StandIn, no_pauses: list[float], fault: Fault | None, error: type[ExaError] | None
) -> None:
    """Whoever else looks for that run, or for all, is shown it as it is."""
    if fault:
        exa.fail(fault)
    by_time, feed = RunSelector(created_after=START), RunsSince(START)
    (idle, plain, timed, found), _ = sights_of(IDLE, PLAIN, by_time, feed)
    assert type(idle) is (error or Busy)
    assert isinstance(plain, MonitorRun)
    assert plain is timed
    assert isinstance(found, Found)
    assert (found.complete, list(found.runs)) == (True, [plain])


@pytest.mark.parametrize("first", [True, False])
def test_trouble_on_the_way_to_the_webset_is_its_own(exa: StandIn, first: bool) -> None:
    """A monitor that is gone while its runs are still there is told to those who need its webset."""
    exa.add_run("mon_a", run_id="run_1")
    exa.monitors["gone"] = exa.monitors.pop("mon_a")
    sights, monitor = ExaHook().call(snapshot.look(WEBSETS, "mon_a", [IDLE, PLAIN], first=first))
    assert "answered 404: 'Monitor not found'" in str(sights[IDLE])
    assert isinstance(sights[PLAIN], MonitorRun)
    assert monitor is None


# --- the verdict ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "fields", "told"),
    [
        ("failed", {"failedReason": "No credits left"}, "failed: No credits left."),
        ("failed", {}, "failed: Exa gives no reason."),
        ("canceled", {}, "was canceled: Exa gives no reason."),
        ("completed", {}, "completed: Exa gives no reason."),
    ],
)
def test_an_end_that_fails_the_task_is_told_with_its_reason(
    status: str, fields: dict[str, Any], told: str
) -> None:
    """The error names the run and the monitor; an end that was not named passes."""
    run = make_run("run_1", status=status, **fields).as_dict()
    with pytest.raises(ExaRunFailedError) as caught:
        outcome.raise_for_outcome([run], [status])
    assert str(caught.value) == f"Run run_1 of Exa monitor mon_a {told}"
    outcome.raise_for_outcome([run], [])
    outcome.raise_for_outcome([run], {"failed", "canceled", "completed"} - {status})


@pytest.mark.parametrize(
    ("statuses", "needed", "total", "decided", "passes"),
    [
        ("", 1, 2, False, None),
        ("c", 1, 2, True, True),
        ("f", 1, 2, False, None),
        ("ff", 1, 2, True, False),
        ("c", 2, 2, False, None),
        ("f", 2, 2, True, False),
        ("cf", 2, 3, False, None),
        ("cfc", 2, 3, True, True),
        ("ff", 2, 3, True, False),
        ("ccc", 3, 3, True, True),
    ],
)
def test_several_runs_are_judged_once_it_is_clear(
    *, statuses: str, needed: int, total: int, decided: bool, passes: bool | None
) -> None:
    """Enough good ends decide it, and so do too many bad ones; all that failed are told."""
    words = {"c": "completed", "f": "failed"}
    runs = [make_run(f"run_{n}", status=words[each]).as_dict() for n, each in enumerate(statuses)]
    assert outcome.is_decided(runs, fail_on=["failed"], needed=needed, total=total) is decided
    if passes:
        outcome.raise_for_outcome(runs, ["failed"], needed)
    elif decided:
        with pytest.raises(ExaRunFailedError) as caught:
            outcome.raise_for_outcome(runs, ["failed"], needed)
        assert str(caught.value).count("failed: ") == statuses.count("f")


@pytest.mark.parametrize("error", errors.ERRORS.values())
def test_an_error_passes_through_an_event(error: type[ExaError]) -> None:
    """The task raises what its trigger met, and so fails or retries as if it had met it itself."""
    event = {"type": error.__name__, "error": "GET https://api.exa.ai got no answer."}
    with pytest.raises(error) as caught:
        outcome.unwrap_event(json.loads(json.dumps(event)))
    assert (type(caught.value), str(caught.value)) == (error, event["error"])


# --- progress -------------------------------------------------------------------------------------

TROUBLE = ExaTransientError("GET https://api.exa.ai got no answer.")
BUSY, PENDING = (Busy(make_run("run_1"), status) for status in ("running", "pending"))


def tell(progress: Progress, minute: float, seen: str | Busy | ExaTransientError | None) -> str | None:
    """Tell a wait what was seen so many minutes after ``START``."""
    now = START.add(seconds=minute * 60)
    return progress.saw(make_run("run_1", status=seen) if isinstance(seen, str) else seen, now)


@pytest.mark.parametrize(
    "keep", [lambda it: it, lambda it: Progress.from_dict(json.loads(json.dumps(it.as_dict())))]
)
@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ([(0, None), (1, None), (4.9, None), (5, None), (9.9, None), (10, None)], [0, 5, 10]),
        ([(0, "created"), (1, "running"), (2, "running"), (3, "completed")], [0, 1, 3]),
        ([(0, None), (1, "created"), (6, "created"), (7, "running"), (11, "running")], [0, 1, 6, 7]),
        ([(0, "running"), (1, TROUBLE), (2, TROUBLE), (6, TROUBLE), (7, "running")], [0, 1, 6, 7]),
        ([(0, "running"), (1, "paused"), (2, "paused")], [0, 1]),
        ([(0, "running"), (1, BUSY), (2, BUSY), (3, TROUBLE), (4, BUSY), (5, "completed")], [0, 1, 3, 4, 5]),
        ([(0, BUSY), (1, BUSY), (2, PENDING), (8, PENDING)], [0, 2, 8]),
    ],
)
def test_a_line_is_due_at_each_change_and_every_five_minutes(
    keep: Callable[[Progress], Progress], seen: list[tuple[float, Any]], said: list[float]
) -> None:
    """Also where each look is made by another process, which got the progress as JSON."""
    progress, lines = Progress(START), {}
    for minute, what in seen:
        progress = keep(progress)
        if line := tell(progress, minute, what):
            lines[minute] = line
    assert list(lines) == said


def test_a_line_says_what_is_and_for_how_long() -> None:
    """The run, its status and how long the wait has taken; or what the trouble is."""
    progress = Progress(START)
    assert [tell(progress, minute, what) for minute, what in ((1, None), (2, "running"), (63, TROUBLE))] == [
        "not there yet, after 0:01:00.",
        "run_1 is running, after 0:02:00.",
        "GET https://api.exa.ai got no answer. Waiting on, after 1:03:00.",
    ]
    assert tell(progress, 64, BUSY) == "run_1 is completed, and its webset running, after 1:04:00."
    assert (progress.looked, progress.run_id) == (True, "run_1")


def test_the_first_look_must_succeed() -> None:
    """Trouble before Exa has answered once is an error, and is waited out from then on."""
    progress = Progress(START)
    with pytest.raises(ExaTransientError) as caught:
        tell(progress, 0, TROUBLE)
    assert caught.value is TROUBLE
    tell(progress, 1, None)
    assert tell(progress, 2, TROUBLE)


@pytest.mark.parametrize(
    "error", [ExaPermanentError("no such key"), ExaInputError("no such id"), RuntimeError("bug")]
)
def test_what_waiting_does_not_mend_ends_the_wait(error: Exception) -> None:
    """A permanent error is raised at every look, and so is one that is not Exa's."""
    progress = Progress(START, looked=True)
    with pytest.raises(type(error)) as caught:
        progress.saw(error, START)
    assert caught.value is error


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("enabled", "not there yet, after 0:00:00."),
        (
            "disabled",
            "not there yet, and the monitor, which is disabled, makes no runs by itself, after 0:00:00.",
        ),
    ],
)
def test_waiting_on_a_disabled_monitor_is_told(status: str, told: str) -> None:
    """Whoever reads the log should know that the run comes only if somebody starts it."""
    monitor: Monitor = parse_monitor(WEBSETS, {"id": "mon_a", "status": status})
    assert Progress(START).saw(None, START, monitor) == told
    assert Progress(START).saw(make_run("run_1"), START, monitor) == "run_1 is completed, after 0:00:00."


@pytest.mark.parametrize(
    "progress",
    [
        Progress(START),
        Progress(START, looked=True),
        Progress(START, True, "run_1", "webset_1", "running", START.add(minutes=5, microseconds=1)),
    ],
)
def test_progress_survives_as_json(progress: Progress) -> None:
    """Every field comes back as it was, in UTC."""
    again = Progress.from_dict(json.loads(json.dumps(progress.as_dict())))
    assert again == progress
    assert again.started_at.timezone_name == "UTC"
