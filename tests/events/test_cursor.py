"""What an asset reports of a monitor's runs: each that ends as wanted, whatever happens in between."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import combinations_with_replacement

import pendulum
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pendulum import DateTime

from airflow_provider_exa.events import cursor as cursors
from airflow_provider_exa.events.cursor import (
    BEGINNING,
    Cursor,
    CursorRecord,
    combine,
    predecessors,
)
from airflow_provider_exa.protocol.errors import ExaInputError
from airflow_provider_exa.protocol.models import FINISHED, MonitorRun
from airflow_provider_exa.protocol.paging import BEGINNING_OF_TIME, END_OF_TIME
from tests.events.runs import make_run

WANTED = ("completed", "failed")
START = pendulum.datetime(2026, 1, 1)
RUNS_BY_ID = 5


def done(number: int, created_at: DateTime) -> MonitorRun:
    """A run that was completed as soon as it was created."""
    return make_run(f"run_{number:04}", "completed", created_at, created_at)


def ids(runs: Iterable[MonitorRun]) -> list[str]:
    return [each.id for each in runs]


def restarted(cursor: Cursor) -> Cursor:
    """What goes on after a kill: the cursor as it was kept."""
    return Cursor.from_dict(json.loads(json.dumps(cursor.as_dict())))


def observe(
    cursor: Cursor, runs: Iterable[MonitorRun], now: DateTime, back_to: DateTime = BEGINNING_OF_TIME
) -> None:
    """A poll that shows runs; every run created after a moment is among them."""
    cursor.observe(runs, WANTED, now, listed_back_to=back_to)


YEARS = [BEGINNING_OF_TIME, BEGINNING_OF_TIME.add(minutes=30), BEGINNING, START, END_OF_TIME]


@pytest.mark.parametrize("now", [START, END_OF_TIME])
@pytest.mark.parametrize("status", ["completed", "running", "archived"])
@pytest.mark.parametrize("frontier", [BEGINNING_OF_TIME, BEGINNING])
def test_runs_of_any_year_are_observed(now: DateTime, status: str, frontier: DateTime) -> None:
    """Exa, or a program that it asks, may have no time and send the first or the last there is."""
    for first, last in combinations_with_replacement(YEARS, 2):
        cursor = Cursor(start=BEGINNING_OF_TIME, frontier=frontier)
        runs = [make_run(f"run_{place}", status, first, first) for place in range(30)]
        observe(cursor, [*runs, make_run("last", status, last, last)], now)
        assert restarted(cursor).frontier >= frontier
        assert len(cursor.due) == (sum(time >= frontier for time in [first] * 30 + [last])) * (
            status == "completed"
        )


@dataclass
class Entry:
    """
    A run in the model of Exa.

    :param hidden: how many more polls do not show it
    :param promised: whether it was shown, or stayed within what the frontier never passes
    :param wanted: whether it was to be reported whenever it could be
    """

    id: str
    created_at: DateTime
    status: str
    ended_at: DateTime | None = None
    hidden: int = 0
    promised: bool = True
    wanted: bool = True

    def shown(self) -> MonitorRun:
        return make_run(self.id, self.status, self.created_at, self.ended_at)


class ExaAndAirflow(RuleBasedStateMachine):
    """
    Exa makes runs, polls show them, and events are stored or lost.

    The triggerer is killed at times, and the asset is changed.
    """

    @initialize(before=st.lists(st.sampled_from(["running", "completed", "failed", "canceled"]), max_size=3))
    def begin(self, before: list[str]) -> None:
        """There is some history, and a first cursor is kept."""
        self.now = START.subtract(hours=2)
        self.runs: dict[str, Entry] = {}
        self.bound = BEGINNING
        self.stored: Counter[str] = Counter()
        self.confirmed: set[str] = set()
        self.under_way: list[str] = []
        self.is_stored = False
        for status in before:
            self.add(self.now, status)
            self.now = self.now.add(minutes=1)
        self.now = START
        self.statuses: tuple[str, ...] = WANTED
        self.cursor = Cursor(START)
        self.kept = self.cursor.as_dict()
        self.kept_confirmed: set[str] = set()
        self.unwanted: set[str] = set()
        self.kept_unwanted: set[str] = set()

    # --- Exa ---

    def add(self, created_at: DateTime, status: str, hidden: int = 0) -> None:
        run_id = f"run_{len(self.runs):04}"
        ended_at = self.now if status in FINISHED else None
        promised = created_at >= self.bound
        self.runs[run_id] = Entry(run_id, created_at, status, ended_at, hidden, promised)

    @rule(step=st.sampled_from([1, 30_000, 20 * 60_000, 61 * 60_000, 5 * 3_600_000]))
    def time_passes(self, step: int) -> None:
        """Milliseconds, minutes or hours."""
        self.now = self.now + timedelta(milliseconds=step)

    @rule(
        status=st.sampled_from(["created", "running", *FINISHED, "unknown"]),
        count=st.integers(1, 3),
        skew=st.sampled_from([0, 0, 0, -1, -30_000, 30_000, -45 * 60_000, -2 * 3_600_000]),
        hidden=st.sampled_from([0, 0, 1, 3]),
    )
    def runs_are_created(self, status: str, count: int, skew: int, hidden: int) -> None:
        """Several have the same time; some are created in the past or the future, or are listed late."""
        for _ in range(count):
            self.add(self.now + timedelta(milliseconds=skew), status, hidden)

    @rule(step=st.sampled_from([0, 1, 1000, 10 * 60_000]), status=st.sampled_from(["running", "completed"]))
    def many_come_and_go(self, step: int, status: str) -> None:
        """Enough to push older runs off the newest ones."""
        for _ in range(cursors.KEPT_RUNS + 2):
            self.now = self.now + timedelta(milliseconds=step)
            self.add(self.now, status)

    @precondition(lambda self: any(each.status not in FINISHED for each in self.runs.values()))
    @rule(
        which=st.randoms(use_true_random=False),
        status=st.sampled_from(["running", "unknown", *FINISHED, "completed"]),
        all_of_them=st.booleans(),
    )
    def runs_move(self, which: random.Random, status: str, all_of_them: bool) -> None:
        """In any order, so that old ones end after newer ones."""
        going_on = [each for each in self.runs.values() if each.status not in FINISHED]
        for each in going_on if all_of_them else [which.choice(going_on)]:
            each.status = status
            each.ended_at = self.now if status in FINISHED else None

    # --- the triggerer ---

    @rule(chance=st.randoms(use_true_random=False), complete=st.sampled_from([True, True, True, False]))
    def poll(self, chance: random.Random, complete: bool) -> None:
        """A listing down to the frontier or a part of one, and some of the old open runs by id."""
        visible = [each for each in self.runs.values() if not each.hidden]
        back_to = self.cursor.frontier - timedelta(milliseconds=1)
        if not complete and visible:
            back_to = max(back_to, chance.choice(visible).created_at)
        listed = [each for each in visible if each.created_at > back_to]
        older = [each for each in visible if each.created_at <= back_to]
        listed += chance.sample(older, min(len(older), chance.randint(0, 3)))  # its last page may show some
        old = sorted(self.cursor.open - self.cursor.due.keys() - {each.id for each in listed})
        listed += [self.runs[each] for each in chance.sample(old, min(len(old), RUNS_BY_ID))]
        chance.shuffle(listed)
        self.take_in(listed, back_to)

    @precondition(lambda self: self.cursor.owed)
    @rule(chance=st.randoms(use_true_random=False), whole=st.booleans())
    def walk(self, chance: random.Random, whole: bool) -> None:
        """What is owed is read in small parts, or some of it."""
        owed = self.cursor.owed
        assert owed
        visible = [each for each in self.runs.values() if not each.hidden and each.created_at >= owed[0]]
        for each in visible if whole else visible[: len(visible) // 2]:
            self.take_in([each], None)
        if whole:
            self.cursor.pay(owed)

    def take_in(self, shown: list[Entry], back_to: DateTime | None) -> None:
        """One poll, and what Exa promises after it."""
        visible = [each.created_at for each in self.runs.values() if not each.hidden]
        runs = [each.shown() for each in shown]
        self.cursor.observe(runs, self.statuses, self.now, listed_back_to=back_to)
        for each in shown:
            if each.status in FINISHED and each.status not in self.statuses:
                each.wanted = False
                if each.ended_at and each.ended_at >= START:
                    self.unwanted.add(each.id)
        if back_to is not None:
            self.pass_by(visible)
            for each in self.runs.values():
                each.hidden = max(0, each.hidden - 1)

    def pass_by(self, times: list[DateTime]) -> None:
        """What is hidden is promised only among the newest runs and in the time before the newest."""
        if len(times) > cursors.KEPT_RUNS:
            times = sorted(times)
            last = min(times[-1], self.now) - cursors.KEPT_TIME
            self.bound = max(self.bound, min(times[-cursors.KEPT_RUNS], last))
        for each in self.runs.values():
            each.promised = each.promised and (not each.hidden or each.created_at >= self.bound)

    @precondition(lambda self: not self.under_way)
    @rule(most=st.sampled_from([1, 2, 1000]))
    def event_is_sent(self, most: int) -> None:
        """One at a time, with what has ended as wanted since the start and nothing else."""
        batch = self.cursor.batch()
        assert len(batch) <= cursors.MAX_RUNS_PER_EVENT
        assert batch == sorted(batch, key=lambda each: (each.created_at, each.id))
        for each in batch:
            assert each.status in self.statuses
            assert each.ended_at >= START
        self.under_way, self.is_stored = ids(batch[:most]), False

    @precondition(lambda self: self.under_way and not self.is_stored)
    @rule()
    def event_is_stored(self) -> None:
        """Nothing that was confirmed before is in it."""
        assert not self.confirmed & set(self.under_way)
        self.stored.update(self.under_way)
        self.is_stored = True

    @precondition(lambda self: self.under_way and not self.is_stored)
    @rule()
    def event_is_lost(self) -> None:
        """The stream is told that it was not stored."""
        self.under_way = []

    @precondition(lambda self: self.under_way and self.is_stored)
    @rule()
    def event_is_confirmed(self) -> None:
        """The stream is told that it was stored."""
        self.cursor.confirm(self.under_way)
        self.confirmed |= set(self.under_way)
        self.under_way = []

    @rule()
    def cursor_is_kept(self) -> None:
        """The kept frontier never goes back, and what is kept makes the cursor that made it."""
        again = restarted(self.cursor)
        assert again.as_dict() == self.cursor.as_dict()
        assert (again.start, again.open, again.reported, again.skipped) == (
            self.cursor.start,
            self.cursor.open,
            self.cursor.reported,
            self.cursor.skipped,
        )
        assert Cursor.from_dict(self.kept).frontier <= again.frontier <= self.cursor.frontier
        self.kept, self.kept_confirmed = self.cursor.as_dict(), set(self.confirmed)
        self.kept_unwanted = set(self.unwanted)

    @rule()
    def triggerer_is_killed(self) -> None:
        """What was confirmed since the cursor was kept may come again; what was before may not."""
        self.cursor = Cursor.from_dict(self.kept)
        self.confirmed = set(self.kept_confirmed)
        self.unwanted = set(self.kept_unwanted)
        self.under_way = []

    @rule(statuses=st.sampled_from([WANTED, ("completed",), ("failed", "canceled"), FINISHED]))
    def statuses_are_changed(self, statuses: tuple[str, ...]) -> None:
        """Another asset takes over the place that is kept."""
        self.triggerer_is_killed()
        self.cursor = combine([self.cursor])
        self.statuses = statuses
        for each in self.runs.values():
            if each.status in FINISHED and each.status not in statuses:
                each.wanted = False

    @invariant()
    def a_run_comes_twice_only_after_an_accident(self) -> None:
        """What is confirmed is due no more."""
        assert not self.confirmed & self.cursor.due.keys()

    @invariant()
    def what_was_seen_to_end_otherwise_is_never_reported(self) -> None:
        """Not even when its status is wanted later."""
        assert not self.unwanted & self.cursor.due.keys()

    def teardown(self) -> None:
        """Exa stands still and polls go on: nothing that is promised is missing."""
        if not hasattr(self, "kept"):
            return
        if self.is_stored and self.under_way:
            self.event_is_confirmed()
        self.under_way = []
        while True:
            settled = not any(each.hidden for each in self.runs.values())
            shown = [each for each in self.runs.values() if not each.hidden]
            self.take_in(shown, BEGINNING_OF_TIME)
            if self.cursor.owed:
                self.cursor.pay(self.cursor.owed)
            self.event_is_sent(1000)
            if self.under_way:
                self.event_is_stored()
                self.event_is_confirmed()
            elif settled:
                break
            self.cursor_is_kept()
        promised = {
            each.id
            for each in self.runs.values()
            if each.promised
            and each.wanted
            and each.status in self.statuses
            and each.ended_at
            and each.ended_at >= START
        }
        assert promised <= self.stored.keys(), promised - self.stored.keys()


@pytest.mark.parametrize(("kept_runs", "most", "examples"), [(3, 4, 150), (20, 100, 50)])
def test_nothing_is_lost_whatever_happens(
    monkeypatch: pytest.MonkeyPatch, kept_runs: int, most: int, examples: int
) -> None:
    """With the package's own limits, and with smaller ones, which a few runs reach."""
    monkeypatch.setattr(cursors, "KEPT_RUNS", kept_runs)
    monkeypatch.setattr(cursors, "MAX_RUNS_PER_EVENT", most)
    run_state_machine_as_test(
        ExaAndAirflow,
        settings=settings(
            derandomize=True, deadline=None, max_examples=examples, stateful_step_count=40, database=None
        ),
    )


def test_history_is_skipped_but_not_what_was_open_at_the_start() -> None:
    """A run counts by when it ended, not by when it was created."""
    cursor = Cursor(START)
    before = START.subtract(days=1)
    runs = [
        make_run("history", "completed", before, START.subtract(seconds=1)),
        make_run("at_the_start", "completed", before, START),
        make_run("still_open", "running", before),
        make_run("after", "completed", before, START.add(seconds=1)),
    ]
    observe(cursor, runs, START)
    assert ids(cursor.batch()) == ["after", "at_the_start"]
    assert cursor.open == {"still_open"}


def test_history_can_be_counted() -> None:
    """Whoever adds an asset is told how many runs it will never report."""
    second = timedelta(seconds=1)
    runs = [
        make_run("before", "completed", START - 2 * second, START - second),
        make_run("otherwise", "canceled", START - 2 * second, START - second),
        make_run("at the start", "completed", START - second, START),
        make_run("open", "running", START - 2 * second),
    ]
    assert Cursor(START).count_history(runs) == 2


def test_what_was_seen_open_is_no_history_whatever_the_clocks_say() -> None:
    """The triggerer's clock may be ahead of Exa's; a start in the future is meant, though."""
    before, ended = START.subtract(days=1), START.subtract(seconds=30)
    for seconds, reported in ((5, ["run_1"]), (0, ["run_1"]), (-5, [])):
        now = START.add(seconds=seconds)
        cursor = Cursor(START)
        observe(cursor, [make_run("run_1", "running", before)], now)
        observe(cursor, [make_run("run_1", "completed", before, ended)], now)
        assert ids(cursor.batch()) == reported


@pytest.mark.parametrize("status", ["canceled", "running", "created", "paused_by_exa"])
def test_only_what_ended_as_wanted_is_reported(status: str) -> None:
    """Another end is not, and a word that Exa adds is no end."""
    cursor = Cursor(START)
    observe(cursor, [make_run("run_1", status, START, START.add(seconds=1))], START.add(hours=1))
    assert cursor.batch() == []


def test_an_event_has_a_hundred_runs_at_most_and_begins_with_the_oldest() -> None:
    """The rest follows in the next ones, runs of one moment in the order of their ids."""
    cursor = Cursor(START)
    runs = [done(number, START.add(seconds=number // 7)) for number in range(250)]
    observe(cursor, reversed(runs), START.add(days=1))
    sizes = []
    seen: list[str] = []
    while batch := cursor.batch():
        sizes.append(len(batch))
        seen += ids(batch)
        cursor.confirm(ids(batch))
    assert sizes == [100, 100, 50]
    assert seen == ids(runs)


def test_a_run_is_due_until_its_event_is_stored() -> None:
    """Asking for the batch settles nothing; confirming does, once and for all, also after a restart."""
    cursor = Cursor(START)
    shown = [done(1, START.add(seconds=1))]
    observe(cursor, shown, START.add(minutes=1))
    for each in (cursor, restarted(cursor)):
        observe(each, shown, START.add(minutes=2))
        assert ids(each.batch()) == ids(each.batch()) == ["run_0001"]
    cursor.confirm(["run_0001"])
    for each in (cursor, restarted(cursor)):
        observe(each, shown, START.add(minutes=3))
        assert each.batch() == []


def test_the_kept_frontier_waits_for_what_is_due() -> None:
    """A triggerer that is killed before the event is stored makes the next one see its runs again."""
    cursor = Cursor(START)
    runs = [done(number, START.add(hours=number)) for number in range(50)]
    now = START.add(hours=60)
    observe(cursor, runs, now)
    assert cursor.frontier > runs[20].created_at
    assert restarted(cursor).frontier <= runs[0].created_at
    cursor.confirm(ids(runs[:10]))
    again = restarted(cursor)
    assert runs[9].created_at < again.frontier <= runs[10].created_at
    observe(again, runs, now)
    assert ids(again.batch()) == ids(runs[10:])


def test_what_is_stored_stays_known_while_an_older_run_is_due() -> None:
    """The kept frontier waits for that one, so whoever goes on sees the newer ones again."""
    cursor = Cursor(START)
    newer = [done(number, START.add(hours=1)) for number in range(3)]
    observe(cursor, newer, START.add(hours=1))
    cursor.confirm(ids(newer))
    late = done(50, START)
    many = [done(number, START.add(hours=number)) for number in range(100, 150)]
    observe(cursor, [late, *newer, *many], START.add(days=9))
    cursor.confirm(ids(many))
    cursor = restarted(cursor)
    observe(cursor, [late, *newer, *many], START.add(days=9))
    assert ids(cursor.batch()) == ["run_0050"]


@pytest.mark.parametrize("status", ["running", "created", "paused_by_exa"])
def test_a_slow_run_is_reported_however_many_newer_ones_have_ended(status: str) -> None:
    """It stays open behind the frontier, through restarts, until the event with it is stored."""
    cursor = Cursor(START)
    slow = make_run("slow", status, START)
    newer = [done(number, START.add(hours=number)) for number in range(1, 60)]
    now = START.add(days=3)
    observe(cursor, [slow, *newer], now)
    cursor.confirm(ids(newer))
    assert cursor.frontier > slow.created_at
    cursor = restarted(cursor)
    assert cursor.open == {"slow"}
    ended = make_run("slow", "failed", START, now)
    observe(cursor, [*newer[-20:], ended], now)
    assert ids(cursor.batch()) == ["slow"]
    cursor = restarted(cursor)
    observe(cursor, [*newer[-20:], ended], now)
    assert ids(cursor.batch()) == ["slow"]
    cursor.confirm(["slow"])
    assert not cursor.open
    observe(cursor, [*newer[-20:], ended], now)
    assert cursor.batch() == []


@pytest.mark.parametrize("step", [timedelta(seconds=1), timedelta(hours=2)], ids=["a burst", "a slow pace"])
def test_what_exa_lists_late_is_still_reported(step: timedelta) -> None:
    """Where it was created within an hour before the newest run, or is among the twenty newest."""
    cursor = Cursor(START)
    runs = [done(number, START + number * step) for number in range(100)]
    now = runs[-1].created_at
    late = [
        each
        for each in runs[:-1]
        if each.created_at >= now - timedelta(hours=1) or each.created_at >= runs[-19].created_at
    ]
    missed = late[0]
    observe(cursor, [each for each in runs if each is not missed], now)
    while batch := cursor.batch():
        cursor.confirm(ids(batch))
    cursor = restarted(cursor)
    observe(cursor, runs, now)
    assert ids(cursor.batch()) == [missed.id]


def test_a_run_from_the_future_does_not_take_the_frontier_with_it() -> None:
    """A clock of Exa's that is wrong for once costs none of the runs that follow."""
    cursor = Cursor(START)
    now = START.add(days=1)
    observe(cursor, [done(number, START.add(years=9)) for number in range(30)], now)
    cursor.confirm(cursor.due.copy())
    observe(cursor, [done(99, now)], now)
    assert ids(cursor.batch()) == ["run_0099"]


def test_the_frontier_passes_nothing_that_a_poll_may_have_left_out() -> None:
    """Where Exa cut the listing short, it stays, and what was shown is reported all the same."""
    cursor = Cursor(START)
    runs = [done(number, START.add(hours=number)) for number in range(60)]
    observe(cursor, runs[30:], START.add(days=9), END_OF_TIME)
    assert cursor.frontier == BEGINNING
    cursor.confirm(ids(cursor.batch()))
    observe(cursor, runs, START.add(days=9))
    assert ids(cursor.batch()) == ids(runs[:30])


def test_the_frontier_never_goes_back() -> None:
    """Neither where this host's clock is set back nor where Exa's newest runs are gone."""
    cursor = Cursor(START)
    runs = [done(number, START.add(hours=number)) for number in range(60)]
    observe(cursor, runs, START.add(days=9))
    cursor.confirm(ids(runs))
    passed = cursor.frontier
    assert passed > runs[30].created_at
    observe(cursor, runs, START)
    observe(cursor, runs[:-15], START.add(days=9))
    assert cursor.frontier == restarted(cursor).frontier == passed


@pytest.mark.parametrize(
    ("step", "kept"),
    [(timedelta(hours=1), 20), (timedelta(minutes=1), 61)],
    ids=["a slow pace", "a burst"],
)
def test_the_frontier_follows_the_newest_run_at_a_distance(step: timedelta, kept: int) -> None:
    """It passes neither the newest twenty runs nor those of an hour; what it has passed is forgotten."""
    cursor = Cursor(START)
    times = [START + number * step for number in range(100)]
    runs = [
        make_run(f"run_{number:02}", ("completed", "canceled")[number % 2], time, time)
        for number, time in enumerate(times)
    ]
    for end in range(kept + 1, 100):
        observe(cursor, runs[:end][::-1], times[end - 1])
        assert cursor.frontier == times[end - kept]
        assert cursor.reported.keys() <= set(ids(runs[end - kept :]))
        cursor.confirm(ids(cursor.batch()))
        assert cursor.reported.keys() | cursor.skipped.keys() == set(ids(runs[end - kept : end]))


def test_runs_without_a_listing_move_no_frontier() -> None:
    """They say nothing of others that were created between them."""
    cursor = Cursor(START)
    cursor.observe(many(), WANTED, START.add(days=9))
    assert cursor.frontier == BEGINNING
    assert ids(cursor.batch()) == ids(many())


def test_what_is_kept_does_not_grow_for_ever() -> None:
    """Reported runs are forgotten once the frontier has passed them."""
    cursor = Cursor(START)
    runs = [done(number, START.add(hours=number)) for number in range(1000)]
    for end in range(50, 1001, 50):
        observe(cursor, runs[:end], runs[end - 1].created_at)
        while batch := cursor.batch():
            cursor.confirm(ids(batch))
    assert len(cursor.reported) <= cursors.KEPT_RUNS
    assert len(json.dumps(cursor.as_dict())) < 2500


PLACE = CursorRecord("exa_monitor/mon_a", ["completed"], Cursor(START), START)


def test_the_kept_text_can_be_read_by_a_person() -> None:
    """It is a JSON object with times in ISO 8601, and says whose it is."""
    cursor = Cursor(START)
    moment = START.add(seconds=1)
    shown = [
        done(1, moment),
        make_run("run_2", "running", START),
        make_run("run_3", "canceled", moment, moment),
    ]
    observe(cursor, shown, START.add(minutes=1))
    cursor.confirm(["run_0001"])
    text = replace(PLACE, cursor=cursor, replaces={"exa_cursor/x": START}).as_json()
    assert text.startswith('{\n "asset": "exa_monitor/mon_a",\n')
    assert json.loads(text) == {
        "asset": "exa_monitor/mon_a",
        "statuses": ["completed"],
        "start": "2026-01-01T00:00:00+00:00",
        "frontier": "1970-01-01T00:00:00+00:00",
        "open": ["run_2"],
        "reported": {"run_0001": "2026-01-01T00:00:01+00:00"},
        "skipped": {"run_3": "2026-01-01T00:00:01+00:00"},
        "polled_at": "2026-01-01T00:00:00+00:00",
        "replaces": {"exa_cursor/x": "2026-01-01T00:00:00+00:00"},
    }


def test_a_text_of_another_version_is_read() -> None:
    """Keys that this version does not know are ignored, and missing ones have defaults."""
    text = json.dumps({**Cursor(START).as_dict(), "from": "another version"})
    record = CursorRecord.from_json(text)
    assert (record.cursor, record.polled_at) == (Cursor(START), BEGINNING)
    place = replace(PLACE, cursor=Cursor(START, open={"run_1"}, skipped={"run_2": START}))
    assert CursorRecord.from_json(place.as_json()) == place


def test_nothing_is_kept_of_what_there_is_not() -> None:
    """Most assets have skipped no run and replace no other."""
    assert json.loads(PLACE.as_json()).keys() == {
        *("asset", "statuses", "start", "frontier", "open", "reported", "polled_at")
    }


GOOD = json.loads(PLACE.as_json())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rubbish",
        "null",
        "[]",
        '"text"',
        "{}",
        json.dumps({**GOOD, "start": "yesterday"}),
        json.dumps({**GOOD, "frontier": None}),
        json.dumps({**GOOD, "open": 7}),
        json.dumps({**GOOD, "open": [["run_1"]]}),
        json.dumps({**GOOD, "open": [1, "run_1"]}),
        json.dumps({**GOOD, "open": "run_1"}),
        json.dumps({**GOOD, "reported": ["run_1"]}),
        json.dumps({**GOOD, "reported": {"run_1": 7}}),
        json.dumps({**GOOD, "skipped": 7}),
        json.dumps({**GOOD, "statuses": "completed"}),
        json.dumps({**GOOD, "polled_at": 7}),
        json.dumps({**GOOD, "replaces": []}),
    ],
)
def test_a_text_that_is_no_cursor_is_refused_with_what_it_says(text: str) -> None:
    """Whoever edited it finds the words again."""
    with pytest.raises(ExaInputError, match="it is no cursor") as caught:
        CursorRecord.from_json(text)
    assert text[:200] in str(caught.value)


# --- what lies too far back for a poll --------------------------------------------------------------


def many(count: int = 60) -> list[MonitorRun]:
    return [done(number, START.add(hours=number)) for number in range(count)]


def test_a_long_listing_leaves_a_debt_and_holds_up_no_new_run() -> None:
    """The frontier passes what a poll did not show only where that is noted as owed."""
    cursor = Cursor(START)
    runs, now = many(), START.add(days=9)
    observe(cursor, runs[30:], now, runs[30].created_at)
    assert cursor.owed == (BEGINNING, runs[40].created_at)
    assert cursor.frontier == runs[40].created_at
    assert ids(cursor.batch()) == ids(runs[30:])
    assert restarted(cursor).frontier == BEGINNING
    cursor.confirm(ids(cursor.batch()))
    assert cursor.reported.keys() == set(ids(runs[30:]))
    owed = cursor.owed
    cursor.observe(runs[:30], WANTED, now)
    cursor.pay(owed)
    assert ids(cursor.batch()) == ids(runs[:30])
    cursor.confirm(ids(cursor.batch()))
    assert restarted(cursor).frontier == cursor.frontier == runs[40].created_at
    assert cursor.reported.keys() == set(ids(runs[40:]))


def test_a_listing_back_to_a_moment_may_lack_runs_of_that_moment() -> None:
    """The frontier stays where it would pass them, and where it has come to them they are owed."""
    runs, now = many(), START.add(days=9)
    cursor = Cursor(START)
    observe(cursor, runs[40:], now, runs[40].created_at)
    observe(cursor, runs[30:], now, runs[40].created_at)
    assert (cursor.frontier, cursor.owed) == (BEGINNING, None)
    cursor = Cursor(START, frontier=runs[30].created_at)
    observe(cursor, runs[30:], now, runs[30].created_at)
    assert cursor.owed == (runs[30].created_at, runs[40].created_at)


def test_what_was_kept_for_a_debt_is_forgotten_once_it_is_paid() -> None:
    """Runs before the frontier are observed no more."""
    cursor = Cursor(START)
    runs = many()
    observe(cursor, runs[30:], START.add(days=9), runs[30].created_at)
    cursor.confirm(ids(runs[30:]))
    assert cursor.owed
    cursor.pay(cursor.owed)
    assert cursor.reported.keys() == set(ids(runs[40:]))


def test_a_debt_that_has_grown_meanwhile_is_not_paid() -> None:
    """The listing was cut short again while the first part of it was read."""
    cursor = Cursor(START)
    runs, now = many(120), START.add(days=9)
    observe(cursor, runs[30:60], now, runs[30].created_at)
    owed = cursor.owed
    assert owed
    observe(cursor, runs[90:], now, runs[90].created_at)
    cursor.pay(owed)
    assert cursor.owed == (BEGINNING, runs[100].created_at)
    assert restarted(cursor).frontier == BEGINNING


@pytest.mark.parametrize("shown", [20, 19, 5, 1, 0])
def test_too_few_runs_move_no_frontier(shown: int) -> None:
    """The newest twenty have to be known."""
    cursor = Cursor(START)
    runs = many()
    observe(cursor, runs[60 - shown :], START.add(days=9), START)
    assert (cursor.frontier, cursor.owed) == (BEGINNING, None)


# --- runs that will never end ----------------------------------------------------------------------


def test_a_run_with_a_new_status_is_let_go_after_a_week() -> None:
    """Its end would not be reported then; until then it stays open, however many newer ones there are."""
    cursor = Cursor(START)
    stuck = make_run("stuck", "archived", START)
    newer = many(60)
    observe(cursor, [stuck, *newer], START.add(days=6))
    cursor.confirm(ids(newer))
    assert cursor.open == {"stuck"}
    observe(cursor, [stuck], START.add(days=7))
    assert cursor.open == {"stuck"}
    observe(cursor, [stuck], START.add(days=7, seconds=1))
    assert cursor.open == set()
    observe(cursor, [make_run("slow", "running", START.add(days=60))], START.add(days=99))
    assert cursor.open == {"slow"}


def test_a_run_with_a_new_status_is_kept_as_long_as_it_changes() -> None:
    """A week counts from its last change."""
    cursor = Cursor(START)
    moving = replace(make_run("moving", "archived", START), updated_at=START.add(days=5))
    observe(cursor, [moving], START.add(days=12))
    assert cursor.open == {"moving"}
    observe(cursor, [moving], START.add(days=12, seconds=1))
    assert cursor.open == set()


@pytest.mark.parametrize("status", ["completed", "canceled"])
@pytest.mark.parametrize("day", [1, -1], ids=["after the start", "before it"])
def test_a_run_that_was_shown_to_have_ended_is_open_no_more(status: str, day: int) -> None:
    """It need not be asked for by its id, as it lies at the frontier or is not reported."""
    frontier = START.add(days=day)
    cursor = Cursor(START, frontier=frontier, open={"run_1"})
    observe(cursor, [make_run("run_1", status, frontier, frontier)], START.subtract(hours=1))
    assert cursor.open == set()


def test_a_run_that_is_forgotten_is_not_asked_for() -> None:
    """Unless it has ended: then the event with it is still to come."""
    cursor = Cursor(START, open={"gone", "ended"}, frontier=START.add(days=1))
    observe(cursor, [make_run("ended", "completed", START, START.add(hours=1))], START.add(days=2))
    cursor.forget("gone")
    cursor.forget("ended")
    assert cursor.open == {"ended"}
    assert ids(cursor.batch()) == ["ended"]


# --- another asset takes the place over ------------------------------------------------------------


def test_what_one_asset_has_not_settled_another_owes() -> None:
    """Of two that it may replace, one may be behind."""
    runs, now = many(60), START.add(days=9)
    ahead, behind = Cursor(START), Cursor(START)
    observe(ahead, runs, now)
    ahead.confirm(ids(runs))
    observe(behind, runs[:30], now)
    behind.confirm(ids(runs[:30]))
    both = combine([ahead, behind])
    assert both.frontier == behind.frontier < ahead.frontier
    observe(both, runs, now)
    assert set(ids(runs[30:])) <= both.due.keys()
    alone = combine([ahead])
    observe(alone, runs, now)
    assert alone.due == {}


@pytest.mark.parametrize(
    ("other", "is_settled"),
    [
        (Cursor(START, frontier=START.add(seconds=1)), True),
        (Cursor(START, frontier=START.add(seconds=1), open={"run_1"}), False),
        (Cursor(START, frontier=START), False),
        (Cursor(START, frontier=START, reported={"run_1": START}), True),
        (Cursor(START, frontier=START, skipped={"run_1": START}), True),
    ],
    ids=["passed", "open", "ahead", "reported", "skipped"],
)
def test_a_run_is_settled_where_all_have_settled_it(other: Cursor, is_settled: bool) -> None:
    """One that lies before an asset's frontier is, unless it was left open."""
    behind = Cursor(START.subtract(days=1), reported={"run_1": START})
    for both in (combine([behind, other]), combine([other, behind])):
        assert (both.start, both.frontier) == (behind.start, behind.frontier)
        assert ("run_1" in both.reported) is is_settled


@given(
    runs=st.lists(
        st.tuples(st.sampled_from(["running", "completed", "failed", "canceled"]), st.integers(0, 90)),
        max_size=80,
    ),
    seen=st.lists(st.integers(0, 80), min_size=1, max_size=3),
)
@settings(derandomize=True, deadline=None, max_examples=200, database=None)
def test_a_place_is_taken_over_without_loss_or_replay(runs: list[tuple[str, int]], seen: list[int]) -> None:
    """Whatever the assets had seen that it may come from: what all have settled does not come again."""
    now = START.add(days=30)
    shown = [
        make_run(f"run_{number:03}", status, START.add(hours=hours), START.add(hours=hours + 1))
        for number, (status, hours) in enumerate(runs)
    ]
    cursors_before = []
    for count in seen:
        cursor = Cursor(START)
        observe(cursor, shown[:count], now)
        while batch := cursor.batch():
            cursor.confirm(ids(batch))
        cursors_before.append(restarted(cursor))
    heir = combine(cursors_before)
    observe(heir, [replace(each, status="completed") for each in shown], now)
    # Settled is what each asset was shown to have ended; a listing shows none below the frontier later.
    least, most = min(seen), max(seen)
    late = {each.id for each in shown[least:] if each.created_at >= heir.frontier}
    owed = {each.id for each in shown[:least] if each.status == "running"} | late
    assert owed <= heir.due.keys()
    assert not heir.due.keys() & {each.id for each in shown[:least] if each.status != "running"}
    assert most >= least


def place(statuses: list[str], days: int) -> CursorRecord:
    return replace(PLACE, statuses=statuses, polled_at=START.add(days=days))


@pytest.mark.parametrize(
    ("records", "taken"),
    [
        ({}, []),
        ({"one": place(["completed"], 0)}, ["one"]),
        ({"one": place(["failed"], 0)}, ["one"]),
        ({"one": place(["failed"], 0), "two": place(["canceled"], 1)}, ["two"]),
        ({"one": place(["completed"], 0), "two": place(["canceled"], 1)}, ["one"]),
        ({"one": place(["completed"], 0), "two": place(["completed", "failed"], 1)}, ["one", "two"]),
        ({"one": place(["completed"], 0), "two": place(["failed"], 30)}, ["one"]),
        ({"one": place(["completed"], 0), "two": place(["failed"], 31)}, ["two"]),
        ({"one": place([], 0), "two": place(["failed"], 1)}, ["one"]),
    ],
)
def test_an_asset_takes_over_from_those_that_it_may_have_been(
    records: dict[str, CursorRecord], taken: list[str]
) -> None:
    """They report one of its outcomes and were not abandoned long ago; else it is the newest."""
    assert predecessors(records, ["completed"]) == taken
