"""What one poll sees, what each subscriber is shown of it, and what it costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_exa.hooks import ExaHook
from airflow_provider_exa.protocol.errors import (
    ExaBadAnswerError,
    ExaEndlessListingError,
    ExaError,
    ExaIncompleteListingError,
    ExaInputError,
    ExaPermanentError,
    ExaTransientError,
)
from airflow_provider_exa.standin import Fault, StandIn
from airflow_provider_exa.waiting.progress import Progress
from airflow_provider_exa.waiting.selection import RunSelector, RunsSince, Selector
from airflow_provider_exa.waiting.snapshot import Observation, Snapshot, take_snapshot
from airflow_provider_exa.waiting.waiter import poll_once
from tests.waiting.memory import START, WEBSETS, Exa, make_run

LATEST = RunSelector(pick="latest")


def since(hour: float, **fields: Any) -> RunSelector:
    """Select the earliest run from so many hours after ``START`` on."""
    return RunSelector(created_after=START.add(hours=hour), **fields)


def by_id(place: int, **fields: Any) -> RunSelector:
    """Select one of the runs of :func:`twelve`."""
    return RunSelector(run_id=f"run_{place:02}", **fields)


def twelve(order: str = "newest", **options: Any) -> Exa:
    """Twelve runs an hour apart, five a page."""
    runs = [make_run(f"run_{hour:02}", hour) for hour in range(12)]
    if order == "shuffled":
        runs = [runs[place * 5 % 12] for place in range(12)]
    return Exa(runs=tuple(runs[::-1] if order == "newest" else runs), **{"page_size": 5, **options})


def seen(snapshot: Snapshot, *selectors: RunSelector) -> list[str | None]:
    """Return the ids of the runs that a snapshot shows, None for one that is not there; raise an error."""
    observations = [snapshot.observe(selector) or Observation() for selector in selectors]
    for observation in observations:
        if observation.error:
            raise observation.error
    return [observation.run and observation.run.id for observation in observations]


# --- one listing for all --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selectors", "run_ids", "pages"),
    [
        ([LATEST], ["run_11"], 1),
        ([since(8)], ["run_08"], 1),
        ([since(7)], ["run_07"], 2),
        ([since(4)], ["run_04"], 2),
        ([since(24)], [None], 1),
        ([since(-24)], ["run_00"], 3),
        ([since(9), since(5)], ["run_09", "run_05"], 2),
        ([since(3), LATEST, by_id(10)], ["run_03", "run_11", "run_10"], 2),
    ],
    ids=lambda value: ", ".join(map(str, value)) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("order", ["newest", "oldest", "shuffled"])
def test_runs_are_found_wherever_they_are_listed(
    *, order: str, selectors: list[RunSelector], run_ids: list[str | None], pages: int
) -> None:
    """One listing serves all; in newest-first order it is read as far as needed, else to its end."""
    exa = twelve(order)
    assert seen(exa.poll(*selectors), *selectors) == run_ids
    assert exa.asked == ["/monitors/mon_a/runs"] * (pages if order == "newest" else 3)


@pytest.mark.parametrize(
    ("places", "asked"),
    [
        ([11], ["/runs/run_11"]),
        ([11, 8], ["/runs"]),
        ([11, 2], ["/runs", "/runs/run_02"]),
        ([11, 2, 1], ["/runs", "/runs/run_01", "/runs/run_02"]),
    ],
    ids=str,
)
def test_runs_that_are_known_by_id_cost_few_requests(places: list[int], asked: list[str]) -> None:
    """One is asked for alone; several are looked for on the first page, and then one by one."""
    exa, selectors = twelve(), [by_id(place) for place in places]
    assert seen(exa.poll(*selectors, confirm=True), *selectors) == [each.run_id for each in selectors]
    assert [path.removeprefix("/monitors/mon_a") for path in exa.asked] == asked


def test_an_id_of_exas_is_followed_whatever_it_is_made_of(exa: StandIn) -> None:
    """Ids are opaque: one that a listing shows can be asked for, even if nobody would write it."""
    odd = exa.add_run("mon_a", run_id="run/odd")

    def poll(selector: RunSelector) -> list[str | None]:
        return seen(ExaHook().call(take_snapshot(WEBSETS, "mon_a", [selector])), selector)

    assert poll(LATEST) == poll(RunSelector(run_id=odd)) == [odd]


# --- how far the listing is complete --------------------------------------------------------------

CUTS: dict[str, tuple[Exa, type[ExaError]]] = {
    "refused": (twelve(cursors="refused"), ExaIncompleteListingError),
    "missing": (twelve(cursors="missing"), ExaIncompleteListingError),
    "ignored": (twelve(cursors="ignored"), ExaEndlessListingError),
    "empty": (twelve(cursors="empty"), ExaIncompleteListingError),
    "expired": (twelve(broken_pages={2: 400}), ExaIncompleteListingError),
    "forbidden": (twelve(broken_pages={2: 403}), ExaPermanentError),
    "overloaded": (twelve(broken_pages={2: 503}), ExaTransientError),
    "unreadable": (twelve(unreadable=["run_06"]), ExaBadAnswerError),
}


@pytest.mark.parametrize(("exa", "error"), CUTS.values(), ids=CUTS)
def test_the_complete_part_answers_whatever_happened_to_the_rest(exa: Exa, error: type[ExaError]) -> None:
    """Waits within it are answered as if nothing were wrong, also beside one that lies beyond."""
    inside, beyond = [LATEST, since(8), since(11), since(12), by_id(9)], since(3)
    snapshot = exa.poll(*inside, beyond)
    assert seen(snapshot, *inside) == ["run_11", "run_08", "run_11", None, "run_09"]
    observation = snapshot.observe(beyond)
    assert observation is not None
    assert type(observation.error) is error
    assert not observation.is_missing
    assert snapshot.covers(START.add(hours=8))
    assert not snapshot.covers(START.add(hours=6))


@pytest.mark.parametrize(
    ("cut", "runs", "words"),
    [
        ("refused", 5, "Exa refuses the parameter 'cursor'"),
        ("missing", 5, "no cursor for it"),
        ("ignored", 5, "came back to a cursor that it had"),
        ("empty", 5, "a page is empty"),
        ("unreadable", 9, "holds an unreadable item"),
    ],
)
def test_the_error_says_how_much_was_listed_and_why_no_more(cut: str, runs: int, words: str) -> None:
    """The news comes first, and then what they mean and what can be done."""
    exa, error = CUTS[cut]
    with pytest.raises(error) as caught:
        seen(exa.poll(since(3)), since(3))
    told = f"So the first run created at or after {START.add(hours=3)} cannot be told from the {runs} runs"
    assert words in str(caught.value)[:100]
    assert str(caught.value).endswith(f" {told} that are listed. Give a run_id, or a later created_after.")


@pytest.mark.parametrize("cursors", ["missing", "empty", "refused", "ignored", "looping"])
@pytest.mark.parametrize("order", ["oldest", "shuffled"])
def test_a_listing_without_order_says_nothing_before_its_end(order: str, cursors: str) -> None:
    """The oldest run of page one is not the first run there is, nor is its newest the newest."""
    exa = twelve(order, cursors=cursors)
    for selector in (LATEST, since(4), since(-1)):
        observation = exa.poll(selector).observe(selector)
        assert observation is not None
        assert isinstance(observation.error, ExaIncompleteListingError)


def test_the_moment_itself_may_hold_more_runs_than_the_page() -> None:
    """A listing is complete only after the moment of its last run."""
    exa = Exa(runs=tuple(make_run(f"run_{n}", hour) for n, hour in enumerate((9, 8, 8))), page_size=2)
    exa = replace(exa, cursors="missing")
    observation = exa.poll(since(8)).observe(since(8))
    assert observation is not None
    assert isinstance(observation.error, ExaIncompleteListingError)


def test_a_run_that_cannot_be_read_in_the_listing_is_asked_for_by_its_id() -> None:
    """It is left out of the listing, with a warning, and not lost to the wait for it."""
    exa = twelve(unreadable=["run_11"])
    assert seen(exa.poll(by_id(11), since(24)), by_id(11)) == ["run_11"]


@pytest.mark.parametrize(("unreadable", "error"), [("run_10", ExaBadAnswerError), ("run_09", type(None))])
def test_the_latest_run_is_not_told_beside_one_that_cannot_be_read(
    unreadable: str, error: type[ExaError]
) -> None:
    """That may be of the same moment; one further back is not."""
    observation = twelve(unreadable=[unreadable]).poll(LATEST).observe(LATEST)
    assert observation is not None
    assert type(observation.error) is error


def test_one_run_that_cannot_be_read_makes_nothing_else_useless(caplog: pytest.LogCaptureFixture) -> None:
    """An asset is shown all others."""
    snapshot = twelve(unreadable=["run_09"]).poll(RunsSince(START.add(hours=8)))
    assert sorted(snapshot.runs) == ["run_07", "run_08", "run_10", "run_11"]
    assert not snapshot.covers(START.add(hours=8))
    assert snapshot.covers(START.add(hours=11))
    (warning,) = {record.getMessage() for record in caplog.records if record.levelname == "WARNING"}
    assert "holds an unreadable item" in warning
    assert warning.endswith("It is left out.")


def test_a_run_that_the_listing_lacks_is_no_answer_for_others() -> None:
    """An older one may be missing from it, too; only the wait for that very run is shown it."""
    late = make_run("run_late", 13)
    exa = replace(twelve(), unlisted=(make_run("run_later", 12), late))
    wanted = RunSelector(run_id="run_late")
    assert seen(exa.poll(wanted, since(12), LATEST), wanted, since(12), LATEST) == [
        "run_late",
        None,
        "run_11",
    ]


# --- single runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"), [(404, ExaPermanentError), (503, ExaTransientError), (403, ExaPermanentError)]
)
def test_trouble_with_one_run_concerns_only_the_wait_for_it(status: int, error: type[ExaError]) -> None:
    """The others see their runs; that there is none is told from other trouble."""
    exa = twelve(broken_runs={"run_01": status})
    snapshot = exa.poll(by_id(1), by_id(2), by_id(11), since(8))
    observation = snapshot.observe(by_id(1))
    assert observation is not None
    assert (type(observation.error), observation.is_missing) == (error, status == 404)
    assert seen(snapshot, by_id(2), by_id(11), since(8)) == ["run_02", "run_11", "run_08"]


def test_another_run_than_the_one_asked_for_is_refused(exa: StandIn, no_pauses: list[float]) -> None:
    """An answer about another run would end the wait with that one's outcome."""
    exa.fail(
        Fault(
            status=200, body=b'{"id": "run_2", "status": "completed", "createdAt": "2026-01-31"}', times=None
        )
    )
    wait = Progress("mon_a", RunSelector(run_id="run_1"), START)
    observation, _ = poll_once(ExaHook().client, "websets", wait, confirm=True)
    assert isinstance(observation.error, ExaBadAnswerError)
    assert "run_2" in str(observation.error)


@pytest.mark.parametrize("status", [400, 401, 403, 500, 503])
def test_a_listing_that_fails_concerns_only_those_who_need_it(status: int) -> None:
    """Waits by id are asked for one by one; the others are shown Exa's own words."""
    exa = twelve(broken_pages={1: status})
    snapshot = exa.poll(by_id(1), by_id(2), since(8), LATEST, RunsSince(START))
    assert seen(snapshot, by_id(1), by_id(2)) == ["run_01", "run_02"]
    for selector in (since(8), LATEST, RunsSince(START)):
        error = snapshot.error_for(selector)
        assert isinstance(error, ExaError)
        assert error.status == status
    assert snapshot.observe(LATEST) == Observation(error=snapshot.error_for(LATEST))


def test_a_snapshot_says_nothing_to_those_who_come_to_it_later() -> None:
    """A wait may need something else by the time that a poll has come to its end."""
    exa = twelve()
    for asked, other in ((by_id(1), by_id(2)), (by_id(1), LATEST), (LATEST, by_id(1))):
        assert exa.poll(asked).observe(other) is None
    assert not exa.poll(by_id(1)).covers(START)


@pytest.mark.parametrize(("runs", "is_whole"), [(1000, True), (1001, False)])
def test_a_listing_has_a_thousand_pages_at_most(*, runs: int, is_whole: bool) -> None:
    """One that Exa does not end ends nevertheless."""
    exa = Exa(runs=tuple(make_run(f"run_{number}") for number in range(runs)), page_size=1)
    snapshot = exa.poll(RunsSince(START))
    assert (len(exa.asked), snapshot.truncated is None) == (1000, is_whole)


def test_an_id_that_leads_elsewhere_is_an_error_before_any_request() -> None:
    """No other URL is asked for."""
    with pytest.raises(ExaInputError, match="monitor_id is"):
        next(take_snapshot(WEBSETS, "..", [LATEST]))


# --- stages ---------------------------------------------------------------------------------------


def test_single_runs_are_asked_for_beside_each_other() -> None:
    """The driver gets all of them at once, and an error for one is no error for all."""
    poll, exa = take_snapshot(WEBSETS, "mon_a", [by_id(1), by_id(2), since(24)]), Exa()
    calls = poll.send(exa.answer(next(poll)))
    assert isinstance(calls, list)
    assert len(calls) == 2
    with pytest.raises(StopIteration) as done:
        poll.send([make_run("run_01"), ExaTransientError("no answer")])
    snapshot: Snapshot = done.value.value
    assert seen(snapshot, by_id(1), since(24)) == ["run_01", None]
    assert str((snapshot.observe(by_id(2)) or Observation()).error) == "no answer"


# --- the monitor ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selectors", "exa", "is_asked"),
    [
        ([LATEST], Exa(), True),
        ([since(0)], Exa(), True),
        ([since(24)], twelve(), True),
        ([LATEST, since(24)], twelve(), True),
        ([by_id(1), by_id(2)], Exa(), True),
        ([by_id(1), by_id(11)], twelve(), False),
        ([RunsSince(START)], Exa(), True),
        ([RunsSince(START), LATEST], Exa(), True),
        ([RunsSince(START.add(days=1))], twelve(), False),
        ([RunsSince(START), since(24)], twelve(), False),
        ([LATEST], twelve(), False),
        ([by_id(1)], twelve(), False),
        ([since(0)], twelve(cursors="missing"), False),
        ([since(0)], twelve(broken_pages={1: 503}), False),
        ([since(0)], Exa(runs=(make_run("run_1"),), unreadable=["run_1"]), False),
    ],
)
@pytest.mark.parametrize("confirm", [True, False])
def test_the_monitor_is_asked_for_where_no_run_is_there(
    *, selectors: list[Selector], exa: Exa, is_asked: bool, confirm: bool
) -> None:
    """An unknown one would list as empty for ever; an asset is content with any run."""
    exa.asked.clear()
    snapshot = exa.poll(*selectors, confirm=confirm)
    assert ("/monitors/mon_a" in exa.asked) is (is_asked and confirm)
    assert (snapshot.monitor is not None) is (is_asked and confirm)


@pytest.mark.parametrize("selector", [LATEST, since(0), RunSelector(run_id="run_1")], ids=str)
def test_the_first_poll_of_an_unknown_monitor_is_an_error(exa: StandIn, selector: RunSelector) -> None:
    """In two requests at most."""
    wait = Progress("mon_none", selector, START)
    observation, monitor = poll_once(ExaHook().client, "websets", wait, confirm=True)
    with pytest.raises(ExaPermanentError, match=r"answered 404: 'Monitor (run )?not found'"):
        wait.observe(observation, START, monitor)
    assert len(exa.requests) <= 2


@pytest.mark.parametrize("status", [404, 503])
def test_a_monitor_that_cannot_be_read_concerns_the_assets_that_ask_for_it(status: int) -> None:
    """Waits have seen that it is there, and see an empty listing as they would alone."""
    snapshot = Exa(monitor=status).poll(since(0), RunsSince(START), confirm=True)
    assert snapshot.observe(since(0)) == Observation()
    assert f"answered {status}" in str(snapshot.error_for(RunsSince(START)))


# --- the webset -----------------------------------------------------------------------------------

RUN = RunSelector(run_id="run_1")
IDLE = RunSelector(run_id="run_1", idle=True)
RUN_PATH, MONITOR, WEBSET = "/monitors/mon_a/runs/run_1", "/monitors/mon_a", "/websets/webset_a"


def one(status: str = "completed", webset: str | int = "running", **fields: Any) -> Exa:
    """One run of a monitor with a webset."""
    return Exa(runs=(make_run("run_1", status=status),), webset=webset, **fields)


@pytest.mark.parametrize(
    ("run", "webset", "asked", "shown"),
    [
        ("completed", "running", [RUN_PATH, MONITOR, WEBSET], "running"),
        ("completed", "pending", [RUN_PATH, MONITOR, WEBSET], "pending"),
        ("completed", "dreaming", [RUN_PATH, MONITOR, WEBSET], "dreaming"),
        ("completed", "idle", [RUN_PATH, MONITOR, WEBSET], None),
        ("running", "running", [RUN_PATH], None),
        ("failed", "running", [RUN_PATH], None),
        ("canceled", "running", [RUN_PATH], None),
    ],
)
def test_only_a_completed_run_is_held_back_by_its_webset(
    run: str, webset: str, asked: list[str], shown: str | None
) -> None:
    """By any that is not idle; a run that ended otherwise gets nothing more, so nothing is asked."""
    exa = one(run, webset)
    observation = exa.poll(IDLE).observe(IDLE)
    assert observation is not None
    assert observation.run is not None
    assert exa.asked == asked
    assert (observation.webset_status, observation.run.status) == (shown, run)
    assert (observation.ended_run is not None) == (observation.run.finished and shown is None)


@pytest.mark.parametrize("selector", [since(24, idle=True), RunSelector(run_id="nope", idle=True)], ids=str)
def test_no_webset_is_asked_for_where_there_is_no_run(selector: RunSelector) -> None:
    """There is nothing that it could hold up."""
    exa = one()
    observation = exa.poll(selector).observe(selector)
    assert observation is not None
    assert observation.run is None
    assert len(exa.asked) == 1


def test_a_webset_is_found_once() -> None:
    """Where it is known only the webset is asked for, and once for all."""
    exa = one()
    snapshot = exa.poll(IDLE, since(0, idle=True), webset_id="webset_a")
    assert exa.asked == ["/monitors/mon_a/runs", WEBSET]
    for selector in (IDLE, since(0, idle=True)):
        assert (snapshot.observe(selector) or Observation()).webset_status == "running"


@pytest.mark.parametrize(
    ("exa", "error"),
    [
        (one(webset=404), ExaPermanentError),
        (one(webset=503), ExaTransientError),
        (one(monitor=404), ExaPermanentError),
        (one(), type(None)),
    ],
    ids=["404", "503", "no monitor", "busy"],
)
def test_a_webset_concerns_only_those_who_wait_for_it(exa: Exa, error: type[Exception]) -> None:
    """The others are shown the run as it is."""
    snapshot = exa.poll(IDLE, RUN, since(0), RunsSince(START))
    observation = snapshot.observe(IDLE)
    assert observation is not None
    assert type(observation.error) is error
    assert not observation.is_missing
    assert not observation.ended_run
    assert seen(snapshot, RUN, since(0)) == ["run_1", "run_1"]
    assert snapshot.covers(START)


@pytest.mark.parametrize("status", ["x" * 501, 5, "", None])
def test_a_webset_status_that_is_none_is_an_answer_that_cannot_be_read(status: Any) -> None:
    """It would go into log lines and stored progress."""
    observation = one(webset=200, webset_body={"status": status}).poll(IDLE).observe(IDLE)
    assert observation is not None
    assert isinstance(observation.error, ExaBadAnswerError)


def test_a_poll_in_a_worker_remembers_the_webset(exa: StandIn) -> None:
    """The next one asks for the webset alone, whatever became of the first."""
    exa.add_monitor("mon_a", webset_id="webset_a", webset_status="running")
    exa.add_run("mon_a", run_id="run_1")
    wait = Progress("mon_a", IDLE, START)
    for _ in range(2):
        poll_once(ExaHook().client, "websets", wait, confirm=False)
    assert wait.webset_id == "webset_a"
    ends = [request.path.split("/")[-1] for request in exa.requests]
    assert ends == ["run_1", "mon_a", "webset_a", "run_1", "webset_a"]


def test_a_poll_keeps_no_more_of_a_run_than_it_needs(exa: StandIn) -> None:
    """A search monitor's run may hold all that it found."""
    run_id = exa.add_run("mon_a", results=[{"url": "https://example.com"}])
    for selector in (LATEST, RunSelector(run_id=run_id)):
        snapshot = ExaHook().call(take_snapshot(WEBSETS, "mon_a", [selector]))
        assert [run.raw for run in snapshot.runs.values()] == [{}]
