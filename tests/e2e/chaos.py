"""Disturbs a real Airflow whose DAGs start when monitor runs finish, and counts what becomes of each run.

    python -m tests.e2e.chaos [--api {websets,search}] [--rounds N] [--seed S] [--only ROUND ...]
        [--broken-for SECONDS] [--undisturbed RUNS] [--keep]

A run is *lost* if it is in no asset event, *stranded* if it is in one that started no DAG run of its
consumer, and *doubled* if it is in several. A stranded one is excused if Airflow had no way to queue its
consumer when the event was stored: no scheduler was up, or the DAG was paused, broken or removed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from statistics import median, quantiles
from typing import Any

from airflow_provider_exa.standin import Fault, StandIn
from tests.e2e.real_airflow import APIS, COMPONENTS, RealAirflow

DAGS = Path(__file__).parent / "chaos_dags"
MONITORS = ("chaos_a", "chaos_b", "chaos_c")
#: How a run must have ended for a DAG to start.
WANTED: Mapping[str, Sequence[str]] = {
    "chaos_completed": ("completed",),
    "chaos_ended_badly": ("failed", "canceled"),
}
POLL = 2
#: Events of one asset are at least so many seconds apart, and some more to be sure.
APART = 13
#: How long to wait for the runs of a round, and for DAG runs where nothing is queued any more.
PATIENCE, GRACE = 90, 4
#: How many runs each monitor has from before, which fill several pages.
HISTORY = 60
SETTINGS = {
    "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "4",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "2",
    # How soon an asset that no DAG refers to any more is put away.
    "AIRFLOW__SCHEDULER__PARSING_CLEANUP_INTERVAL": "5",
}


@dataclass(frozen=True)
class Finished:
    """A run that has finished at the stand-in.

    :param at: when the stand-in first showed it so.
    """

    run_id: str
    status: str
    at: datetime


@dataclass(frozen=True)
class Event:
    """An asset event in Airflow's database, with the DAG that its asset starts."""

    id: int
    consumer: str
    at: datetime
    run_ids: tuple[str, ...]


@dataclass(frozen=True)
class Outage:
    """A time in which Airflow could not queue a DAG, or any DAG (None)."""

    consumer: str | None
    since: datetime
    until: datetime


@dataclass(frozen=True)
class Round:
    number: int
    kind: str
    since: datetime
    until: datetime


@dataclass(frozen=True)
class Accident:
    """What happened to a run on its way to a consumer.

    :param at: when it happened: the run finished (lost), or an event with it was stored (stranded, doubled).
    """

    consumer: str
    run_id: str
    at: datetime
    excused: bool = False


@dataclass(frozen=True)
class Count:
    lost: list[Accident]
    stranded: list[Accident]
    doubled: list[Accident]
    strange: list[Accident]
    """Runs that were reported to a consumer that does not want them, or have not finished."""


def account(
    finished: Iterable[Finished],
    events: Iterable[Event],
    consumed: Collection[tuple[str, int]],
    outages: Iterable[Outage] = (),
    wanted: Mapping[str, Sequence[str]] = WANTED,
) -> Count:
    """Say what became of each run on its way to each consumer.

    :param consumed: a DAG and the id of an event that a run of it has consumed, for each such pair.
    :param wanted: how a run must have ended for a DAG to start.
    """
    holding: dict[tuple[str, str], list[Event]] = defaultdict(list)
    for event in sorted(events, key=lambda event: event.id):
        for run_id in event.run_ids:
            holding[event.consumer, run_id].append(event)
    count = Count([], [], [], [])
    for run in finished:
        for consumer, statuses in wanted.items():
            if run.status not in statuses:
                continue
            held = holding.pop((consumer, run.run_id), [])
            if not held:
                count.lost.append(Accident(consumer, run.run_id, run.at))
            elif not any((consumer, event.id) in consumed for event in held):
                excused = all(excuses(outages, event) for event in held)
                count.stranded.append(Accident(consumer, run.run_id, held[0].at, excused))
            count.doubled.extend(Accident(consumer, run.run_id, again.at) for again in held[1:2])
    count.strange.extend(
        Accident(consumer, run_id, held[0].at) for (consumer, run_id), held in holding.items()
    )
    return count


def excuses(outages: Iterable[Outage], event: Event) -> bool:
    return any(
        outage.consumer in (None, event.consumer) and outage.since <= event.at <= outage.until
        for outage in outages
    )


@dataclass(frozen=True)
class Report:
    """What a chaos test has found.

    :param stranded: those that no DAG run had consumed when their round was over.
    :param rescued: how many of the stranded a later event took along.
    :param latencies: of runs in undisturbed times, in seconds: from the end of a run to its event, and to the
        start of its DAG run.
    """

    lost: list[Accident]
    stranded: list[Accident]
    doubled: list[Accident]
    strange: list[Accident]
    rounds: list[Round]
    finished: list[Finished]
    rescued: int = 0
    latencies: list[tuple[float, float]] = field(default_factory=list)

    @property
    def unexcused(self) -> list[Accident]:
        return [each for each in self.stranded if not each.excused]

    @property
    def ok(self) -> bool:
        return not self.lost and not self.unexcused

    @property
    def line(self) -> str:
        disturbed = sum(each.number > 0 for each in self.rounds)
        return (
            f"lost {len(self.lost)}, stranded {len(self.stranded)}, doubled {len(self.doubled)}, "
            f"rounds {disturbed}, runs {len(self.finished)}"
        )

    def lines(self) -> Iterator[str]:
        """The whole report as text, from the latencies to the line that sums it up."""
        yield from self._latency()
        yield from self._table()
        for what, accidents in (("lost", self.lost), ("stranded", self.stranded), ("doubled", self.doubled)):
            yield from self._by_kind(what, accidents)
        if self.stranded:
            yield f"{self.rescued} of the stranded were consumed later, with the next event"
        for each in self.strange:
            yield f"strange: {each.run_id} was reported to {each.consumer} at {each.at:%H:%M:%S}"
        yield self.line

    def _latency(self) -> Iterator[str]:
        ways = ("asset event", "DAG run's start")
        for way, seconds in zip(ways, zip(*self.latencies, strict=True), strict=False):
            p90 = quantiles(seconds, n=10, method="inclusive")[-1] if len(seconds) > 1 else seconds[0]
            yield (
                f"finished -> {way}: median {median(seconds):.1f} s, p90 {p90:.1f} s, "
                f"max {max(seconds):.1f} s ({len(seconds)} runs, poll interval {POLL} s)"
            )

    def _table(self) -> Iterator[str]:
        rounds = Counter(each.kind for each in self.rounds)
        runs = Counter(self._round(each.at).kind for each in self.finished)
        accidents = [
            Counter(self._round(each.at).kind for each in some)
            for some in (self.lost, self.stranded, self.unexcused, self.doubled)
        ]
        columns = ("rounds", "runs", "lost", "stranded", "unexcused", "doubled")
        yield " ".join([f"{'kind':16}", *(f"{name:>9}" for name in columns)])
        for kind in sorted(rounds):
            yield " ".join([f"{kind:16}", *(f"{some[kind]:9}" for some in (rounds, runs, *accidents))])

    def _by_kind(self, what: str, accidents: Sequence[Accident]) -> Iterator[str]:
        found: dict[tuple[int, str, bool], list[str]] = defaultdict(list)
        for each in sorted(accidents, key=lambda each: each.at):
            at = self._round(each.at)
            where = f"{at.kind}, {each.consumer}"
            found[at.number, where, each.excused].append(f"{each.run_id} at {each.at:%H:%M:%S}")
        for (number, where, excused), run_ids in sorted(found.items()):
            some = ", ".join(run_ids[:6]) + (f" and {len(run_ids) - 6} more" if len(run_ids) > 6 else "")
            yield f"{what}{' (excused)' if excused else ''}: round {number}, {where}: {some}"

    def _round(self, at: datetime) -> Round:
        return max((each for each in self.rounds if each.since <= at), key=lambda each: each.since)


@dataclass
class Chaos:
    """The Airflow that is disturbed, and what is known so far."""

    airflow: RealAirflow
    exa: StandIn
    dags: Path
    broken_for: float
    since: datetime = field(default_factory=partial(datetime.now, UTC))
    finished: dict[str, Finished] = field(default_factory=dict)
    outages: list[Outage] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    stranded: dict[tuple[str, str], Accident] = field(default_factory=dict)
    overdue: set[str] = field(default_factory=set)
    consumers: dict[str, str] = field(default_factory=dict)

    def rows(self, sql: str, *values: object) -> list[Any]:
        database = f"file:{self.airflow.home / 'airflow.db'}?mode=ro"
        with closing(sqlite3.connect(database, uri=True, timeout=30)) as connection:
            return connection.execute(sql, values).fetchall()

    def number(self, sql: str, *values: object) -> int:
        return int(self.rows(sql, *values)[0][0])

    def events(self) -> list[Event]:
        sql = """SELECT e.id, a.name, e.timestamp, e.extra FROM asset_event e
            JOIN asset a ON a.id = e.asset_id"""
        return [
            Event(id_, self.consumers[name], moment(at), reported(extra))
            for id_, name, at, extra in self.rows(sql)
        ]

    def learn_consumers(self) -> None:
        """Remember which DAG each asset starts, as a broken DAG has no assets for a while."""
        sql = """SELECT a.name, r.dag_id FROM asset a
            JOIN dag_schedule_asset_reference r ON r.asset_id = a.id"""
        self.consumers = dict(self.rows(sql))

    def consumed(self) -> dict[tuple[str, int], datetime | None]:
        """When the first DAG run that consumed an event started, by the DAG and the event's id."""
        sql = """SELECT d.dag_id, c.event_id, min(d.start_date) FROM dagrun_asset_event c
            JOIN dag_run d ON d.id = c.dag_run_id GROUP BY 1, 2"""
        return {(dag, event): at and moment(at) for dag, event, at in self.rows(sql)}

    def count(self) -> Count:
        now = datetime.now(UTC)
        finished = [run for run in list(self.finished.values()) if run.at <= now]
        return account(finished, self.events(), self.consumed().keys(), self.outages)

    def wait(self, ready: Callable[[], object], what: str, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > deadline:
                tails = [self.airflow.tail(name) for name in COMPONENTS]
                raise TimeoutError("\n".join([f"Waited {seconds} seconds for {what}.", *tails]))
            time.sleep(0.2)

    @contextmanager
    def outage(self, consumer: str | None = None) -> Iterator[None]:
        since = datetime.now(UTC)
        yield
        self.outages.append(Outage(consumer, since, datetime.now(UTC)))

    def check(self) -> None:
        """Start the triggerer anew if it has ended by itself, as one may that was stopped; no other may."""
        for name in COMPONENTS:
            if self.airflow.has_ended(name):
                if name != "triggerer":
                    raise RuntimeError(f"{name} has ended by itself.\n{self.airflow.tail(name)}")
                self.airflow.kill(name)
                self.airflow.start(name)

    def schedulable(self, consumer: str) -> bool:
        sql = "SELECT is_paused OR is_stale OR has_import_errors FROM dag WHERE dag_id = ?"
        return self.rows(sql, consumer) == [(0,)]

    def add_run(self, monitor: str, states: Sequence[tuple[float, str]], late: float = 0) -> None:
        """Add a run now, which finishes with the last of its states.

        :param late: how long it has been there before it is listed, in seconds.
        """
        now = datetime.now(UTC)
        created_at = max(now - timedelta(seconds=late), self.since)
        run_id = f"run_{len(self.exa.runs):05}"
        seconds, status = states[-1]
        shown_at = max(now, created_at + timedelta(seconds=seconds))
        self.finished[run_id] = Finished(run_id, status, shown_at)
        self.exa.add_run(
            monitor, states=states, created_at=created_at, run_id=run_id, failed_reason="no luck"
        )

    def finish_old(self, number: int, status: str) -> None:
        """Let this round's run finish that was there, and open, before Airflow was."""
        run_id = f"old_{number}"
        self.exa.move(run_id, status)
        self.finished[run_id] = Finished(run_id, status, datetime.now(UTC))


def moment(text: str) -> datetime:
    """A time as SQLite stores it for Airflow: without a zone, which is UTC."""
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def reported(extra: str) -> tuple[str, ...]:
    return tuple(run["run_id"] for run in json.loads(extra)["payload"]["runs"])


def traffic(chaos: Chaos, number: int, rng: Random, seconds: float) -> list[tuple[float, Callable[[], None]]]:
    """What the stand-in is to do within so many seconds, and when: runs that finish in all sorts of ways."""
    plan: list[tuple[float, Callable[[], None]]] = []

    def add(at: float, *args: Any) -> None:
        plan.append((at, lambda: chaos.add_run(*args)))

    for _ in range(int(seconds / rng.uniform(1.5, 3))):
        monitor, status, at = rng.choice(MONITORS), ended(rng), rng.uniform(0, seconds)
        how = rng.choice(["at once", "slow", "slow", "slow", "listed late"])
        if how == "at once":
            add(at, monitor, [(0, status)])
        elif how == "listed late":
            add(at, monitor, [(0, "created"), (2, "running"), (5, status)], rng.uniform(6, 20))
        else:
            last = rng.uniform(1, max(2, min(20, seconds - at)))
            add(at, monitor, [(0, "created"), (last / 3, "running"), (last, status)])
    if rng.random() < 0.25:
        monitor, status, at = rng.choice(MONITORS), ended(rng), rng.uniform(0, seconds)
        for each in range(8):
            add(at + each / 10, monitor, [(0, "running"), (1, status)])
    old_ends = ended(rng)
    plan.append((rng.uniform(0, seconds), lambda: chaos.finish_old(number, old_ends)))
    return sorted(plan, key=lambda each: each[0])


def ended(rng: Random) -> str:
    return rng.choice(["completed"] * 4 + ["failed"] * 2 + ["canceled"])


@contextmanager
def running(plan: Sequence[tuple[float, Callable[[], None]]]) -> Iterator[None]:
    """Carry out a plan in the background; the block ends no sooner than the plan."""
    begun = time.monotonic()

    def work() -> None:
        for at, action in plan:
            time.sleep(max(0, begun + at - time.monotonic()))
            action()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield
    thread.join()


def kill_triggerer(chaos: Chaos, rng: Random) -> None:
    """Kill it at any moment, or, half of the time, soon after an event was stored."""
    after_event = rng.random() < 0.5
    at, then, gap = rng.uniform(0.5, 10), rng.uniform(0, 1.5), rng.choice([0, rng.uniform(0, 8)])
    time.sleep(at)
    if after_event:
        before = chaos.number("SELECT count(*) FROM asset_event")
        with suppress(TimeoutError):
            chaos.wait(lambda: chaos.number("SELECT count(*) FROM asset_event") > before, "an event", 12)
        time.sleep(then)
    chaos.airflow.kill("triggerer")
    time.sleep(gap)
    chaos.airflow.start("triggerer")


def kill_scheduler(chaos: Chaos, rng: Random) -> None:
    time.sleep(rng.uniform(1, 6))
    with chaos.outage():
        chaos.airflow.kill("scheduler")
        time.sleep(rng.uniform(1, 12))
        chaos.airflow.start("scheduler")


def break_api(chaos: Chaos, rng: Random) -> None:
    """Two kinds of faults, one after the other."""
    faults = [
        Fault(status=503, times=None),
        Fault(status=429, retry_after="3", times=None),
        Fault(kind="reset", times=None),
        Fault(kind="hang", times=None),
        Fault(kind="html", times=None),
        Fault(kind="cut", times=None),
    ]
    time.sleep(rng.uniform(1, 5))
    for fault in rng.sample(faults, 2):
        chaos.exa.fail(fault)
        time.sleep(rng.uniform(3, 8))
        chaos.exa.heal()


def stop_one_of_two(chaos: Chaos, rng: Random) -> None:
    """Stop the triggerer until a second one has taken its triggers, continue it, and end the second."""
    chaos.airflow.start("triggerer-2")
    time.sleep(rng.uniform(0, 3))
    chaos.airflow.kill("triggerer", signal.SIGSTOP)
    time.sleep(rng.uniform(8, 15))
    chaos.airflow.kill("triggerer", signal.SIGCONT)
    time.sleep(rng.uniform(2, 8))
    chaos.airflow.kill("triggerer-2", rng.choice([signal.SIGKILL, signal.SIGTERM]))


def pause(chaos: Chaos, rng: Random) -> None:
    """Pause a DAG three times: what is under way just then is what may be lost."""
    for _ in range(3):
        consumer = rng.choice(list(WANTED))
        time.sleep(rng.uniform(0.5, 5))
        with chaos.outage(consumer):
            chaos.airflow.api("PATCH", f"dags/{consumer}", json={"is_paused": True})
            time.sleep(rng.uniform(1, 6))
            chaos.airflow.api("PATCH", f"dags/{consumer}", json={"is_paused": False})
            chaos.wait(partial(chaos.schedulable, consumer), f"{consumer} to be unpaused")


def break_file(chaos: Chaos, rng: Random) -> None:
    """Let a DAG's file have a syntax error for a while."""
    _without(chaos, rng, lambda path: path.write_text("def broken(:\n"))


def remove_file(chaos: Chaos, rng: Random) -> None:
    """Let a DAG's file be away for a while."""
    _without(chaos, rng, Path.unlink)


def _without(chaos: Chaos, rng: Random, spoil: Callable[[Path], object]) -> None:
    consumer = rng.choice(list(WANTED))
    path = chaos.dags / f"{consumer}.py"
    time.sleep(rng.uniform(1, 4))
    with chaos.outage(consumer):
        spoil(path)
        begun = time.monotonic()
        chaos.wait(lambda: not chaos.schedulable(consumer), f"Airflow to notice what {path.name} is")
        time.sleep(max(0, begun + chaos.broken_for - time.monotonic()))
        shutil.copyfile(DAGS / path.name, path)
        chaos.wait(lambda: chaos.schedulable(consumer), f"{consumer} to be there again")


#: What may happen in a round, and for how many seconds runs finish meanwhile.
KINDS: dict[str, tuple[Callable[[Chaos, Random], None], float]] = {
    "triggerer killed": (kill_triggerer, 16),
    "file broken": (break_file, 8),
    "paused": (pause, 20),
    "scheduler killed": (kill_scheduler, 16),
    "Exa fails": (break_api, 16),
    "two triggerers": (stop_one_of_two, 24),
    "file removed": (remove_file, 8),
}


def kinds_of(rounds: int, seed: int) -> list[str]:
    """What happens in each round: a few are all different; of many, two thirds are kills of the triggerer."""
    kill, *others = KINDS
    if rounds <= len(KINDS):
        return [kill, *others][:rounds]
    rest = [others[each % len(others)] for each in range(rounds // 3)]
    kinds = [kill] * (rounds - len(rest)) + rest
    Random(seed).shuffle(kinds)  # noqa: S311
    return kinds


def disturb(chaos: Chaos, number: int, kind: str, rng: Random) -> None:
    """One round: runs finish while something happens; then nothing does, until all is quiet."""
    act, seconds = KINDS[kind]
    if act in (break_file, remove_file):
        seconds += chaos.broken_for
    with round_of(chaos, number, kind), running(traffic(chaos, number, rng, seconds)):
        act(chaos, rng)
        chaos.check()


def warm_up(chaos: Chaos, runs: int) -> list[tuple[float, float]]:
    """Let runs finish undisturbed, so that no event has to wait for another, and return the latencies."""
    assets = [(monitor, statuses[0]) for statuses in WANTED.values() for monitor in MONITORS]
    with round_of(chaos, 0, "undisturbed"):
        for each in range(runs):
            monitor, status = assets[each % len(assets)]
            chaos.add_run(monitor, [(0, status)])
            time.sleep(APART / len(assets))
    chaos.wait(lambda: all(chaos.consumed().values()), "the DAG runs to start")
    ends, starts = {run.run_id: run.at for run in chaos.finished.values()}, chaos.consumed()
    return [
        ((event.at - ends[run_id]).total_seconds(), (start - ends[run_id]).total_seconds())
        for event in chaos.events()
        for run_id in event.run_ids
        if run_id in ends and (start := starts.get((event.consumer, event.id)))
    ]


@contextmanager
def round_of(chaos: Chaos, number: int, kind: str) -> Iterator[None]:
    """Note a round, and who is stranded when all is quiet after it."""
    since = datetime.now(UTC)
    yield
    settle(chaos)
    for each in chaos.count().stranded:
        if each.at >= since:
            chaos.stranded[each.consumer, each.run_id] = each
    chaos.rounds.append(Round(number, kind, since, datetime.now(UTC)))


def settle(chaos: Chaos) -> None:
    """Wait until every run is finished, in an event and consumed, or for too long.

    Those that earlier rounds have waited for in vain are not waited for again, nor are those in events where
    nothing is queued any more.
    """
    last = max((run.at for run in chaos.finished.values()), default=chaos.since)
    time.sleep(max(0.0, (last - datetime.now(UTC)).total_seconds()))
    deadline = time.monotonic() + PATIENCE
    idle_from = time.monotonic()
    while time.monotonic() < min(deadline, idle_from + GRACE):
        count = chaos.count()
        missing = {each.run_id for each in count.lost} - chaos.overdue
        waiting = {(each.consumer, each.run_id) for each in count.stranded} - chaos.stranded.keys()
        if not missing and not waiting:
            return
        if missing or chaos.number("SELECT count(*) FROM asset_dag_run_queue"):
            idle_from = time.monotonic()
        time.sleep(0.5)
    chaos.overdue |= {each.run_id for each in chaos.count().lost}


def remember(exa: StandIn, rng: Random, rounds: int) -> None:
    """Give the monitors a past: runs that finished long ago, and for each round one that has not yet."""
    now = datetime.now(UTC)
    past = [(f"past_{each}", ended(rng)) for each in range(HISTORY * len(MONITORS))]
    for run_id, status in [*past, *((f"old_{each + 1}", "running") for each in range(rounds))]:
        created_at = now - timedelta(hours=rng.uniform(2, 9))
        exa.add_run(rng.choice(MONITORS), status=status, created_at=created_at, run_id=run_id)


def run(
    rounds: int = 45,
    seed: int = 1,
    *,
    api: str = "websets",
    only: Collection[int] = (),
    broken_for: float = 120,
    undisturbed: int = 20,
    keep: bool = False,
    say: Callable[[str], object] = lambda line: None,
) -> Report:
    """Run a chaos test.

    :param api: which of Exa's APIs is asked.
    :param only: the numbers of the only rounds to run, from 1 on; each is the same as among all.
    :param broken_for: for how many seconds a DAG's file is broken or away.
    :param undisturbed: how many runs finish before the first round, to measure latencies.
    :param keep: whether to leave Airflow's folder behind.
    :param say: called with a line about each step.
    """
    with StandIn() as exa, tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        remember(exa, Random(seed), rounds)  # noqa: S311
        dags = shutil.copytree(DAGS, Path(folder) / "dags", ignore=shutil.ignore_patterns("__pycache__"))
        env = {"AIRFLOW_CONN_EXA_DEFAULT": exa.connection(), "EXA_API": api, **SETTINGS}
        with RealAirflow(dags, env, dag_processor=True, keep=keep, say=say) as airflow:
            chaos = Chaos(airflow, exa, dags, broken_for)
            assets = len(WANTED) * len(MONITORS)
            cursors = "SELECT count(*) FROM variable WHERE key LIKE 'exa_cursor/%'"
            chaos.wait(lambda: chaos.number(cursors) >= assets, "the cursors")
            chaos.since = datetime.now(UTC)
            chaos.learn_consumers()
            latencies = warm_up(chaos, undisturbed)
            for number, kind in enumerate(kinds_of(rounds, seed), 1):
                if not only or number in only:
                    disturb(chaos, number, kind, Random(seed * 1000 + number))  # noqa: S311
                    say(progress(chaos))
            chaos.overdue.clear()
            settle(chaos)
            return report(chaos, latencies)


def progress(chaos: Chaos) -> str:
    last, count = chaos.rounds[-1], chaos.count()
    took = (last.until - last.since).total_seconds()
    return (
        f"round {last.number}, {last.kind}, {took:.0f} s: {len(chaos.finished)} runs so far, "
        f"missing {len(count.lost)}, stranded {len(chaos.stranded)}, doubled {len(count.doubled)}"
    )


def report(chaos: Chaos, latencies: list[tuple[float, float]]) -> Report:
    count = chaos.count()
    left = {(each.consumer, each.run_id): each for each in count.stranded}
    stranded = left | chaos.stranded
    rescued = len(stranded) - len(left)
    finished = list(chaos.finished.values())
    return Report(
        count.lost,
        list(stranded.values()),
        count.doubled,
        count.strange,
        chaos.rounds,
        finished,
        rescued,
        latencies,
    )


def main(args: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--api", choices=APIS, default="websets", help="which of Exa's APIs is asked")
    parser.add_argument("--rounds", type=int, default=45)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--only", type=int, nargs="+", default=(), metavar="ROUND", help="run only these rounds of them"
    )
    parser.add_argument(
        "--broken-for", type=float, default=120, metavar="SECONDS", help="how long a file is broken"
    )
    parser.add_argument(
        "--undisturbed", type=int, default=20, metavar="RUNS", help="how many runs to time first"
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave Airflow's folder with logs and database behind"
    )
    begun = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - begun:6.1f} s  {line}", flush=True)

    found = run(**vars(parser.parse_args(args)), say=say)
    print(*found.lines(), sep="\n", flush=True)
    return 0 if found.ok else 1


if __name__ == "__main__":
    sys.exit(main())
