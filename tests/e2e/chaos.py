"""Disturbs a real Airflow whose DAGs start when monitor runs finish, and counts what becomes of each run.

    python -m tests.e2e.chaos [--api {websets,search}] [--rounds N] [--seed S] [--only ROUND ...]
        [--broken-for SECONDS] [--undisturbed RUNS] [--keep]

A run is *lost* if it is in no asset event, *stranded* if it is in one that started no DAG run of its
consumer, and *doubled* if it is in several. A stranded one is excused if Airflow had no way to queue its
consumer when the event was stored: no scheduler was up, or the DAG was paused, broken, removed or about to
get other assets.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from airflow_provider_exa.standin import StandIn
from tests.e2e.accounting import WANTED, Report, Round
from tests.e2e.disturbances import (
    DAGS,
    KINDS,
    MONITORS,
    SECOND_CONNECTION,
    Chaos,
    break_file,
    ended,
    remove_file,
    running,
    traffic,
)
from tests.e2e.real_airflow import APIS, RealAirflow

#: Events of one asset are at least so many seconds apart, and some more to be sure.
MIN_EVENT_GAP = 13
#: How long to wait for the runs of a round, and for DAG runs where nothing is queued any more.
PATIENCE, GRACE = 90, 4
#: How many runs each monitor has from before, which fill several pages.
HISTORY = 60
SETTINGS = {
    "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "4",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "2",
    # By default 30: a DAG that changes again sooner is queued for its new assets, but starts no DAG run yet.
    "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0",
    # How soon an asset that no DAG refers to any more is put away.
    "AIRFLOW__SCHEDULER__PARSING_CLEANUP_INTERVAL": "5",
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
            time.sleep(MIN_EVENT_GAP / len(assets))
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
    wait_until_quiet(chaos)
    for each in chaos.count().stranded:
        if each.at >= since:
            chaos.stranded[each.consumer, each.run_id] = each
    chaos.rounds.append(Round(number, kind, since, datetime.now(UTC)))


def wait_until_quiet(chaos: Chaos) -> None:
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
        if missing or chaos.queued():
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
        connections = {
            f"AIRFLOW_CONN_{name.upper()}": exa.connection() for name in ("exa_default", SECOND_CONNECTION)
        }
        env = {**connections, "EXA_API": api, **SETTINGS}
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
            wait_until_quiet(chaos)
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
