"""What disturbs a real Airflow: runs that end in all sorts of ways, and something that happens meanwhile."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from airflow_provider_exa.standin import Fault, StandIn
from tests.e2e.accounting import WANTED, Accident, Count, Event, Finished, Outage, Round, account
from tests.e2e.real_airflow import COMPONENTS, RealAirflow

DAGS = Path(__file__).parent / "chaos_dags"
MONITORS = ("chaos_a", "chaos_b", "chaos_c")
#: Statuses that include those that a DAG wants.
WIDER = {
    "chaos_completed": ("completed", "failed"),
    "chaos_ended_badly": ("completed", "failed", "canceled"),
}
SECOND_CONNECTION = "exa_second"
#: The line of a DAG's file that says how its assets differ from the usual ones.
CHANGED = "CHANGED: dict[str, Any] = "
#: A DAG on so many assets, paused at first, and their monitors.
MANY = "chaos_many"
MANY_MONITORS = [f"chaos_many_{number}" for number in range(40)]


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
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def rows(self, sql: str, *values: object) -> list[Any]:
        database = f"file:{self.airflow.home / 'airflow.db'}?mode=ro"
        with closing(sqlite3.connect(database, uri=True, timeout=30)) as connection:
            return connection.execute(sql, values).fetchall()

    def number(self, sql: str, *values: object) -> int:
        return int(self.rows(sql, *values)[0][0])

    def events(self) -> list[Event]:
        sql = """SELECT e.id, a.name, a.extra, e.timestamp, e.extra FROM asset_event e
            JOIN asset a ON a.id = e.asset_id"""
        return [
            Event(
                id_, self.consumers[name], moment(at), reported(extra), tuple(json.loads(asset)["statuses"])
            )
            for id_, name, asset, at, extra in self.rows(sql)
        ]

    def learn_consumers(self) -> None:
        """Remember which DAG each asset starts, even while it is broken or has other assets."""
        sql = """SELECT a.name, r.dag_id FROM asset a
            JOIN dag_schedule_asset_reference r ON r.asset_id = a.id"""
        self.consumers |= dict(self.rows(sql))

    def assets_of(self, dag_id: str) -> set[str]:
        sql = """SELECT a.name FROM asset a
            JOIN dag_schedule_asset_reference r ON r.asset_id = a.id WHERE r.dag_id = ?"""
        return {name for (name,) in self.rows(sql, dag_id)}

    def queued(self) -> Counter[str]:
        """How many assets each DAG is queued for, without those that it no longer has."""
        sql = """SELECT q.target_dag_id FROM asset_dag_run_queue q
            JOIN dag_schedule_asset_reference r ON r.asset_id = q.asset_id AND r.dag_id = q.target_dag_id"""
        return Counter(dag_id for (dag_id,) in self.rows(sql))

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

    def triggers(self, dag_id: str) -> int:
        """How many triggers of a DAG's assets a triggerer has taken."""
        sql = """SELECT count(DISTINCT t.id) FROM trigger t
            JOIN asset_watcher w ON w.trigger_id = t.id
            JOIN dag_schedule_asset_reference r ON r.asset_id = w.asset_id
            WHERE r.dag_id = ? AND t.triggerer_id IS NOT NULL"""
        return self.number(sql, dag_id)

    def schedulable(self, consumer: str) -> bool:
        sql = "SELECT is_paused OR is_stale OR has_import_errors FROM dag WHERE dag_id = ?"
        return self.rows(sql, consumer) == [(0,)]

    def add_run(self, monitor: str, states: Sequence[tuple[float, str]], late: float = 0) -> None:
        """Add a run now, which finishes with the last of its states.

        :param late: how long it has been there before it is listed, in seconds.
        """
        now = datetime.now(UTC)
        created_at = max(now - timedelta(seconds=late), self.since)
        run_id = f"run_{next(self.numbers):05}"
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
            set_paused(chaos, consumer, True)
            time.sleep(rng.uniform(1, 6))
            set_paused(chaos, consumer, False)
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


def reconfigure(chaos: Chaos, rng: Random) -> None:
    """Change how a DAG's assets are watched in three ways, one after the other, and then back."""
    consumer = rng.choice(list(WANTED))
    changes: list[dict[str, Any]] = [
        {"poll_interval": rng.choice([1, 3])},
        {"exa_conn_id": SECOND_CONNECTION},
        {"statuses": WIDER[consumer]},
    ]
    for changed in [*rng.sample(changes, len(changes)), {}]:
        time.sleep(rng.uniform(1, 5))
        change_assets(chaos, rng, consumer, changed)


def change_assets(chaos: Chaos, rng: Random, consumer: str, changed: Mapping[str, Any]) -> None:
    """Give a DAG other assets while runs end, and wait until it has them.

    Airflow starts no DAG run for an asset that the DAG had when the event was stored, and has no longer when
    the scheduler's turn comes. So nothing may be queued at the beginning, and the change is an outage.
    """
    path, before = chaos.dags / f"{consumer}.py", chaos.assets_of(consumer)
    usual = f"{CHANGED}{{}}\n"
    text = (DAGS / path.name).read_text()
    if usual not in text:
        raise ValueError(f"{path.name} has no line {usual!r}")
    whole = path.with_suffix(".new")
    whole.write_text(text.replace(usual, f"{CHANGED}{changed!r}\n"))
    chaos.wait(lambda: not chaos.queued()[consumer], f"the DAG runs of {consumer}")
    with running(burst(chaos, consumer, rng, 3)), chaos.outage(consumer):
        whole.replace(path)
        chaos.wait(lambda: chaos.assets_of(consumer) != before, f"the assets of {consumer} with {changed}")
    chaos.learn_consumers()


def create_many(chaos: Chaos, rng: Random) -> None:
    """Twice let 40 triggers start in one go, while those of a DAG are taken away and events stored."""
    for monitor in MANY_MONITORS:
        chaos.exa.add_monitor(monitor)
    for _ in range(2):
        consumer = rng.choice(list(WANTED))
        time.sleep(rng.uniform(3, 8))
        set_paused(chaos, MANY, False)
        with chaos.outage(consumer):
            set_paused(chaos, consumer, True)
            with running(burst(chaos, consumer, rng, 6)):
                read_again(chaos, MANY)
                time.sleep(rng.uniform(0, 1))
                read_again(chaos, consumer)
                chaos.wait(lambda: chaos.triggers(MANY) == len(MANY_MONITORS), "the new triggers to run")
            set_paused(chaos, consumer, False)
        set_paused(chaos, MANY, True)
        chaos.wait(lambda: chaos.triggers(MANY) == 0, "the new triggers to be gone")


def burst(chaos: Chaos, consumer: str, rng: Random, seconds: int) -> list[tuple[float, Callable[[], None]]]:
    """Runs that a DAG wants: one of each monitor in each second."""
    states = [(0, WANTED[consumer][0])]
    plan: list[tuple[float, Callable[[], None]]] = [
        (second + rng.random(), partial(chaos.add_run, monitor, states))
        for second in range(seconds)
        for monitor in MONITORS
    ]
    return sorted(plan, key=lambda each: each[0])


def set_paused(chaos: Chaos, dag_id: str, is_paused: bool) -> None:
    chaos.airflow.api("PATCH", f"dags/{dag_id}", json={"is_paused": is_paused})


def read_again(chaos: Chaos, dag_id: str) -> None:
    """Let the DAG processor read a DAG's file now; only then triggers follow a pause."""
    (chaos.dags / f"{dag_id}.py").touch()


#: What may happen in a round, and for how many seconds runs finish meanwhile.
KINDS: dict[str, tuple[Callable[[Chaos, Random], None], float]] = {
    "triggerer killed": (kill_triggerer, 16),
    "file broken": (break_file, 8),
    "reconfigured": (reconfigure, 20),
    "scheduler killed": (kill_scheduler, 16),
    "Exa fails": (break_api, 16),
    "40 new triggers": (create_many, 30),
    "paused": (pause, 20),
    "two triggerers": (stop_one_of_two, 24),
    "file removed": (remove_file, 8),
}
