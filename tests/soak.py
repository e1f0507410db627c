"""
Soaks a thousand waits and twenty assets in random faults, all in one event loop.

    python -m tests.soak [--minutes 10] [--seed 1] [--log FILE]

The stand-in runs in a process of its own, so that only the package is measured. After the given minutes its
faults are healed, and what is due may still come for as long as a wait may be late. A wait is *stuck* if its
run ended longer ago than a few polls and the longest pause take, and it has no event; a run is *lost* if an
asset that wants it has reported it in no event at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import json
import logging
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

from airflow_provider_exa.standin import Fault, StandIn
from tests.environment import isolate

WAITS, MONITORS, ASSETS = 1000, 50, 20
#: Seconds between polls: at the shortest, all need half of the requests that Exa allows.
INTERVALS = (10, 15, 20)
#: Seconds after the end of its run in which a wait may have its event: three of the longest intervals, the
#: longest pause that the package makes, and the ten seconds before a trigger's first event.
LATE = 3 * max(INTERVALS) + 60 + 10
#: Growth that counts as flat. Memory: what the allocator rounds, and what the soak itself notes. Sockets and
#: threads: a pool of sixteen that is not full in the first third may be so in the last.
FLAT_MEGABYTES, FLAT_SOCKETS, FLAT_THREADS = 12, 16, 16
MAX_PER_SECOND = 20
#: Seconds for which one mood of the stand-in lasts, and what share of the requests goes wrong in it.
MOOD, SHARES = 4, (0, 0, 0.02, 0.1, 0.5)
CURSORS = ("honoured", "honoured", "honoured", "expires")
FAULTS: list[tuple[int, dict[str, Any]]] = [
    (20, {"status": 500}),
    (10, {"status": 502, "body": b"<html>Bad gateway</html>"}),
    (20, {"status": 503, "retry_after": "2"}),
    (1, {"status": 429}),
    (1, {"status": 429, "retry_after": "3"}),
    (20, {"kind": "reset"}),
    (10, {"kind": "hang"}),
    (20, {"kind": "cut"}),
    (10, {"kind": "html"}),
    (1, {"kind": "huge"}),
    (20, {"kind": "bad_item"}),
]
STATUSES = (
    ("completed",),
    ("completed", "failed"),
    ("failed", "canceled"),
    ("completed", "failed", "canceled"),
)


@dataclass(frozen=True)
class Planned:
    """A run to come: when it is created and has ended, in seconds since 1970."""

    id: str
    monitor: str
    created: float
    ended: float
    status: str


def api_of(monitor: str) -> Any:
    return ("websets", "search")[int(monitor[1:]) % 2]


def plan(random: Random, began: float, seconds: float) -> list[Planned]:
    """All runs, from the oldest to the newest: of each monitor some old ones, and one now and then."""
    runs = []
    for monitor in (f"m{number}" for number in range(MONITORS)):
        moments = [began - 7200 + 60 * number for number in range(30)]
        now = began
        while (now := now + random.uniform(10, 45)) < began + seconds:
            moments.append(now)
        for created in moments:
            ended = created + random.uniform(0.5, 25)
            if ended < began + seconds:
                status = random.choices(("completed", "failed", "canceled"), (8, 2, 1))[0]
                run_id = f"run_{monitor}_{len(runs)}"
                runs.append(Planned(run_id, monitor, round(created, 3), round(ended, 3), status))
    return sorted(runs, key=lambda run: run.created)


class MoodyStandIn(StandIn):
    """A stand-in whose requests go wrong at random."""

    def next_fault(self, path: str) -> Fault | None:
        if self.random is None or self.random.random() >= self.share:
            return None
        weights, faults = zip(*FAULTS, strict=True)
        (options,) = self.random.choices(faults, weights)
        self.faults[options.get("kind") or options["status"]] += 1
        return Fault(**options, **({"item": self.random.randrange(5)} if "kind" in options else {}))

    random: Random | None = None
    share: float = 0
    faults: Counter[Any]


def serve(pipe: Connection, runs: list[Planned], seed: int) -> None:
    """Run the stand-in: its port to the pipe, then moods until told to heal, then its count of requests."""
    exa = MoodyStandIn(keep_requests=10**7)
    exa.faults, exa.random = Counter(), Random(seed)  # noqa: S311 (no secret)
    for number in range(MONITORS):
        exa.add_monitor(f"m{number}", api=api_of(f"m{number}"))
    coming, moods, mood_ends = deque(runs), Random(seed), 0.0  # noqa: S311
    pipe.send((exa.port, exa.api_key))
    healed = False
    while not (healed and pipe.poll()):
        now = time.time()
        while coming and coming[0].created <= now:
            run = coming.popleft()
            ends_after = run.ended - run.created
            states = [(0, "created"), (ends_after / 3, "running"), (ends_after, run.status)]
            created_at = datetime.fromtimestamp(run.created, UTC)
            exa.add_run(run.monitor, run_id=run.id, created_at=created_at, states=states)
        if not healed and pipe.poll():
            pipe.recv()
            healed, exa.random, exa.cursors = True, None, "honoured"
        elif not healed and now > mood_ends:
            mood_ends = now + MOOD
            exa.share, exa.cursors = moods.choice(SHARES), moods.choice(CURSORS)
        time.sleep(0.05)
    arrivals = sorted(each.at for each in exa.requests)
    busiest = max(bisect_left(arrivals, at + 1) - place for place, at in enumerate(arrivals))
    pipe.send((len(arrivals), busiest, exa.faults))
    pipe.recv()


@dataclass(eq=False)
class Wait:
    """A wait under way, and the runs that it has to find; None where there is none to come."""

    trigger: Any
    expected: dict[str, Planned | None]
    began: float

    @property
    def due(self) -> float:
        """When it may end."""
        return max(self.began, *(run.ended if run else float("inf") for run in self.expected.values()))


class Crowd:
    """The waits and the assets in an event loop, and what becomes of them."""

    def __init__(self, runs: list[Planned], began: float, ends: float, random: Random) -> None:
        self.runs, self.began, self.ends, self.random = runs, began, ends, random
        self.of_monitor: dict[str, list[Planned]] = defaultdict(list)
        for run in runs:
            self.of_monitor[run.monitor].append(run)
        self.waits: set[Wait] = set()
        self.stuck: set[Wait] = set()
        self.counts: Counter[str] = Counter()
        self.latest = 0.0
        self.assets = [f"m{number}" for number in range(ASSETS)]
        self.watched_since: dict[str, float] = {}
        self.reported: Counter[str] = Counter()

    def new_wait(self) -> Wait:
        from airflow_provider_exa.triggers import ExaMonitorRunsTrigger, ExaMonitorRunTrigger

        random, now = self.random, time.time()
        moment = round(now - random.choice((0, 5, 60)), 3)
        since = datetime.fromtimestamp(moment, UTC).isoformat()
        monitors = random.sample([*self.of_monitor], 1 if random.random() < 0.9 else 3)
        monitor, api = monitors[0], api_of(monitors[0])
        options: dict[str, Any] = {"poll_interval": random.choice(INTERVALS), "api": api, "started_at": since}
        if len(monitors) > 1:
            monitors = [each for each in monitors if api_of(each) == api]
            selectors = {each: {"created_after": since} for each in monitors}
            trigger: Any = ExaMonitorRunsTrigger(selectors, fail_on=(), **options)
        elif random.random() < 0.3:
            run = random.choice([run for run in self.of_monitor[monitor] if run.created < now - 0.5][-10:])
            return Wait(ExaMonitorRunTrigger(monitor, run.id, **options), {monitor: run}, now)
        else:
            which: Any = random.choice(({"created_after": since}, {"pick": "next"}))
            trigger = ExaMonitorRunTrigger(monitor, **which, **options)
        return Wait(trigger, {each: self._first_since(each, moment) for each in monitors}, now)

    def _first_since(self, monitor: str, moment: float) -> Planned | None:
        runs = self.of_monitor[monitor]
        place = bisect_left(runs, moment, key=lambda run: run.created)
        return runs[place] if place < len(runs) else None

    async def keep_waiting(self) -> None:
        """Wait for one run after the other; leave some waits before they end."""
        while time.time() < self.ends:
            wait = self.new_wait()
            self.waits.add(wait)
            lifetime = self.random.uniform(0.1, 40) if self.random.random() < 0.2 else None
            try:
                async with asyncio.timeout(lifetime):
                    self.check(wait, [event.payload async for event in wait.trigger.run()])
            except TimeoutError:
                self.counts["waits cancelled"] += 1
            except Exception:
                logging.getLogger("airflow_provider_exa").exception("A trigger has crashed.")
                self.counts["triggers crashed"] += 1
            finally:
                self.waits.discard(wait)

    def check(self, wait: Wait, payloads: list[dict[str, Any]]) -> None:
        (payload,) = payloads
        if "error" in payload:
            self.counts[f"waits failed: {payload['type']}: {payload['error']:.160}"] += 1
            return
        found = payload.get("runs") or {payload["run"]["monitor_id"]: payload["run"]}
        ends = {monitor: (run["id"], run["status"]) for monitor, run in found.items()}
        expected = {monitor: run and (run.id, run.status) for monitor, run in wait.expected.items()}
        self.counts["waits ended" if ends == expected else f"wrong runs: {ends} for {expected}"] += 1
        self.latest = max(self.latest, time.time() - wait.due)

    def watch(self, triggerer: Any, monitor: str, interval: int) -> asyncio.Task[None]:
        self.watched_since.setdefault(monitor, time.time() + 3)
        options = {"api": api_of(monitor), "statuses": self.statuses_of(monitor), "poll_interval": interval}
        task: asyncio.Task[None] = triggerer.watch(monitor, **options)
        return task

    def statuses_of(self, monitor: str) -> tuple[str, ...]:
        return STATUSES[self.assets.index(monitor) % len(STATUSES)]

    async def keep_watching(self, triggerer: Any, variables: Any) -> None:
        """Watch all assets; now and then change the interval of one, and break the Variables."""
        tasks = {monitor: self.watch(triggerer, monitor, 10) for monitor in self.assets}
        await asyncio.sleep(10)
        while time.time() < self.ends:
            variables.broken = set(self.random.choice(((), (), (), ("read",), ("write",))))
            ended = [monitor for monitor, task in tasks.items() if task.done()]
            self.counts["assets crashed"] += len(ended)
            for monitor in {*ended, self.random.choice(self.assets)}:
                tasks[monitor].cancel()
                await asyncio.gather(tasks[monitor], return_exceptions=True)
                triggerer.tasks.remove(tasks[monitor])
                tasks[monitor] = self.watch(triggerer, monitor, self.random.choice((10, 12, 15)))
            self.collect(triggerer)
            await asyncio.sleep(5)
        variables.broken = set()

    def collect(self, triggerer: Any) -> None:
        self.reported.update(triggerer.runs)
        triggerer.sent.clear()
        triggerer.sent_at.clear()

    def note_stuck(self) -> None:
        now = time.time()
        self.stuck |= {wait for wait in self.waits if wait.due + LATE < now}

    def lost(self) -> list[Planned]:
        return [
            run
            for run in self.runs
            if run.monitor in self.watched_since
            and run.ended > self.watched_since[run.monitor]
            and run.status in self.statuses_of(run.monitor)
            and run.id not in self.reported
        ]

    def is_settled(self) -> bool:
        return not self.lost() and all(wait.due == float("inf") for wait in self.waits)


class Meter:
    """What the process holds, over time."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, int, int]] = []

    def sample(self) -> None:
        links = []
        for each in Path("/proc/self/fd").iterdir():
            with suppress(OSError):
                links.append(os.readlink(each))
        sockets = sum(link.startswith("socket:") for link in links)
        self.samples.append((time.time(), sockets, threading.active_count()))

    def growth(self, began: float, ends: float) -> tuple[int, int]:
        """By how many the most sockets and threads of the last third are more than those of the first."""
        third = (ends - began) / 3
        first = [each for each in self.samples if each[0] <= began + third]
        last = [each for each in self.samples if each[0] >= ends - third]
        sockets, threads = (max(e[n] for e in last) - max(e[n] for e in first) for n in (1, 2))
        return sockets, threads

    @staticmethod
    def megabytes() -> float:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def soak(crowd: Crowd, meter: Meter, pipe: Connection) -> float:
    """Let the crowd run for its time and as long as something is due; return the growth of its memory."""
    from airflow_provider_exa.events import stream
    from tests.events.triggerer import Triggerer, Variables

    class PlainVariables(Variables):
        def set(self, *args: Any, **kwargs: Any) -> None:
            super().set(*args, **kwargs)
            self.kept.clear()

    variables: Any = PlainVariables(SimpleNamespace(requests=[]))  # type: ignore[arg-type]
    stream.Variable = variables  # type: ignore[misc]
    before = None
    async with Triggerer() as triggerer:
        waiting = [asyncio.ensure_future(crowd.keep_waiting()) for _ in range(WAITS)]
        watching = asyncio.ensure_future(crowd.keep_watching(triggerer, variables))
        while time.time() < crowd.ends:
            await asyncio.sleep(1)
            meter.sample()
            crowd.note_stuck()
            if before is None and time.time() > crowd.began + (crowd.ends - crowd.began) / 3:
                before = meter.megabytes()
        grown = meter.megabytes() - (before or 0)
        pipe.send("heal")
        await watching
        while not crowd.is_settled() and time.time() < crowd.ends + LATE:
            await asyncio.sleep(1)
            crowd.collect(triggerer)
        crowd.stuck |= {wait for wait in crowd.waits if wait.due < time.time() - LATE}
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    return grown


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.split("\n")[1])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", type=Path, default=Path(os.devnull), help="file for the package's log")
    options = parser.parse_args()
    isolate(os.environ)
    began = time.time() + 5
    runs = plan(Random(options.seed), began, options.minutes * 60)  # noqa: S311 (no secret)
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    server = context.Process(target=serve, args=(other, runs, options.seed), daemon=True)
    server.start()
    port, key = pipe.recv()
    connection = {"conn_type": "exa", "host": f"http://127.0.0.1:{port}", "password": key}
    extra = {"timeout": 3, "retries": 2}
    with tempfile.TemporaryDirectory(prefix="airflow-") as home:
        os.environ |= {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW_CONN_EXA_DEFAULT": json.dumps(connection | {"extra": extra}),
        }
        import structlog

        import airflow_provider_exa.triggers  # noqa: F401 (now, as it makes a home)

        logging.basicConfig(filename=options.log, level=logging.INFO, force=True)
        # The waits' own lines go to Airflow's log of a task: here they would be thousands.
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        time.sleep(max(0.0, began - time.time()))
        crowd = Crowd(runs, began, began + options.minutes * 60, Random(options.seed))  # noqa: S311
        meter = Meter()
        memory = asyncio.run(soak(crowd, meter, pipe))
    pipe.send("report")
    requests, busiest, faults = pipe.recv()
    pipe.send("end")
    server.join()
    sockets, threads = meter.growth(crowd.began, crowd.ends)
    doubled = sum(count > 1 for count in crowd.reported.values())
    print(f"requests {requests}, of which went wrong: {dict(faults)}")
    print(f"runs reported {len(crowd.reported)}, more than once {doubled}, latest wait {crowd.latest:.0f} s")
    for what, count in crowd.counts.most_common():
        print(f"{what} {count}")
    for wait in list(crowd.stuck)[:10]:
        print(f"stuck: {wait.trigger.serialize()}, expected {wait.expected}")
    for run in crowd.lost()[:10]:
        print(f"lost: {run}")
    stuck, lost = len(crowd.stuck), len(crowd.lost())
    print(
        f"waits stuck {stuck}, runs lost {lost}, requests in the busiest second {busiest}, "
        f"memory {memory:+.1f} MB, sockets {sockets:+d}, threads {threads:+d}, minutes {options.minutes:g}"
    )
    is_flat = memory <= FLAT_MEGABYTES and sockets <= FLAT_SOCKETS and threads <= FLAT_THREADS
    is_right = not any(what.startswith(("wrong", "triggers crashed")) for what in crowd.counts)
    return 0 if not stuck and not lost and busiest <= MAX_PER_SECOND and is_flat and is_right else 1


if __name__ == "__main__":
    sys.exit(main())
