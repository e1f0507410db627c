"""The six scenarios: each starts a server and contenders, and says what it found as figures."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.contenders import LISTINGS
from benchmarks.server import Server, Tally, make_certificates

OURS = "exa"


@dataclass(frozen=True)
class Figure:
    """
    One measured thing.

    :param values: by contender
    :param limit: what ours may be at most
    :param against: ``limit`` is the part of these contenders' best value
    """

    scenario: str
    name: str
    unit: str
    values: Mapping[str, float]
    limit: float | None = None
    against: tuple[str, ...] | None = None

    @property
    def best(self) -> float | None:
        """The best value of a peer that ours is held against."""
        return min((self.values[name] for name in self.against or () if name in self.values), default=None)

    @property
    def target(self) -> float | None:
        """What ours may be at most, if anything was said of it."""
        if self.against is None:
            return self.limit
        return None if self.best is None or self.limit is None else self.limit * self.best

    @property
    def met(self) -> bool:
        """Whether ours is within its target."""
        return self.target is None or self.values[OURS] <= self.target


class Child:
    """A contender's process, from its imports to its result."""

    def __init__(self, job: str, name: str, env: Mapping[str, str], **options: Any) -> None:
        argv = [sys.executable, "-m", "benchmarks.contenders", job, name, json.dumps(options)]
        self._name = f"{job} {name}"
        self._process = subprocess.Popen(  # noqa: S603
            argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._line("ready")

    def start(self) -> None:
        """Give the word."""
        assert self._process.stdin  # noqa: S101 (for mypy)
        print(file=self._process.stdin, flush=True)

    def result(self) -> dict[str, Any]:
        """What it measured."""
        found: dict[str, Any] = json.loads(self._line("result"))
        self._process.communicate()
        return found

    def _line(self, word: str) -> str:
        assert self._process.stdout  # noqa: S101 (for mypy)
        for line in self._process.stdout:
            if line.startswith(word):
                return line.removeprefix(word)
        raise RuntimeError(f"{self._name} ended before it said {word!r}")


@dataclass
class Bench:
    """
    What all scenarios share.

    :param names: the contenders that are installed
    :param quick: whether this run only shows that everything works
    """

    folder: Path
    names: list[str]
    quick: bool
    figures: list[Figure] = field(default_factory=list)

    @property
    def peers(self) -> tuple[str, ...]:
        """All contenders but this package."""
        return tuple(name for name in self.names if name != OURS)

    def env(self, port: int = 0) -> dict[str, str]:
        """The environment of a contender: what a user would give it, for a server at this port."""
        ca = str(self.folder / "ca.pem")
        host, key = "https://127.0.0.1", "key"
        exa = {
            "conn_type": "exa", "host": host, "port": port, "password": key,
            "extra": {"ca_file": ca, "timeout": 3},
        }  # fmt: skip
        return {
            **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
            "AIRFLOW_HOME": str(self.folder),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
            "AIRFLOW_CONN_EXA_DEFAULT": json.dumps(exa),
            "AIRFLOW_CONN_DBT_CLOUD_DEFAULT": json.dumps(
                {"conn_type": "dbt_cloud", "host": f"127.0.0.1:{port}", "password": key}
            ),
            "AIRFLOW_CONN_HTTP_DEFAULT": json.dumps({"conn_type": "http", "host": host, "port": port}),
            "SSL_CERT_FILE": ca,
            "REQUESTS_CA_BUNDLE": ca,
        }

    def child(self, job: str, name: str, server: Server | None = None, **options: Any) -> Child:
        """A contender that is ready to start."""
        port = server.port if server else 0
        return Child(job, name, self.env(port), port=port, **options)

    def note(self, *figures: Figure) -> None:
        """Keep figures, and print them at once."""
        for figure in figures:
            values = ", ".join(f"{name} {value:.4g}" for name, value in figure.values.items())
            print(
                f"# {figure.scenario}: {figure.name} ({figure.unit}): {values}", file=sys.stderr, flush=True
            )
        self.figures += figures


@dataclass(frozen=True)
class Waited:
    """What one contender's waits cost, until each had its event."""

    tally: Tally
    cpu: float
    stall: float
    found_after: float


def wait(bench: Bench, name: str, waits: int, monitors: int = 10) -> Waited:
    """
    All waits begin at once; after some polls all runs end at once.

    They end when those who poll without jitter poll again, so "found after" is not half an interval for
    anybody: it is how far a contender's polls have drifted or were spread.

    :raises RuntimeError: a wait did not end as it should
    """
    poll, seconds = (2, 12) if bench.quick else (5, 30)
    with Server(bench.folder) as server:
        load = {"waits": waits, "monitors": monitors, "poll": poll, "seconds": seconds + 120}
        child = bench.child("wait", name, server, **load)
        child.start()
        time.sleep(seconds)
        finished_at = time.monotonic()
        server.finish()
        found = child.result()
        tally = server.tally()
    if len(found["ends"]) != waits:
        raise RuntimeError(
            f"{name}: {waits} waits, {len(found['ends'])} found their run, {found['wrong']} erred"
        )
    after = statistics.median(found["ends"]) - finished_at
    return Waited(tally, found["cpu"], found["stall"], after)


def _memory(bench: Bench, loads: Iterable[tuple[str, int]]) -> list[float]:
    """Megabytes that many waits take, for several contenders or numbers of waits at the same time."""
    seconds = 4 if bench.quick else 16

    def one(load: tuple[str, int]) -> float:
        name, waits = load
        with Server(bench.folder) as server:
            options = {"waits": waits, "monitors": 10, "poll": 5, "seconds": seconds}
            child = bench.child("memory", name, server, **options)
            child.start()
            return float(child.result()["memory"])

    with ThreadPoolExecutor() as pool:
        return list(pool.map(one, loads))


def crowd(bench: Bench) -> None:
    """1,000 waits on 10 monitors beside the peers', and how ours grow."""
    waits = 50 if bench.quick else 1000
    sizes = (10, 50) if bench.quick else (10, 100, 1000, 10_000)
    found = {name: wait(bench, name, waits) for name in bench.names}
    memory = dict(zip(bench.names, _memory(bench, [(name, waits) for name in bench.names]), strict=True))
    scenario = f"{waits:,} waits on 10 monitors"
    bench.note(
        Figure(scenario, "requests", "", {n: w.tally.requests for n, w in found.items()}, 72),
        Figure(scenario, "connections", "", {n: w.tally.connections for n, w in found.items()}, 16),
        Figure(scenario, "CPU", "s", {n: w.cpu for n, w in found.items()}, 0.1, bench.peers),
        Figure(scenario, "longest stall", "ms", {n: w.stall * 1e3 for n, w in found.items()}, 50),
        Figure(scenario, "found after", "s", {n: w.found_after for n, w in found.items()}, 2.7),
        Figure(scenario, "memory", "MB", memory, 10),
    )
    others = [size for size in sizes if size != waits]
    with ThreadPoolExecutor() as pool:
        waited = list(pool.map(lambda size: wait(bench, OURS, size), others))
    grown = dict(zip(others, waited, strict=True)) | {waits: found[OURS]}
    megabytes = dict(zip(others, _memory(bench, [(OURS, size) for size in others]), strict=True))
    megabytes[waits] = memory[OURS]
    for size in sizes:
        scenario = f"growth: {size:,} waits on 10 monitors"
        bench.note(
            Figure(scenario, "requests", "", {OURS: grown[size].tally.requests}),
            Figure(scenario, "CPU", "s", {OURS: grown[size].cpu}),
            Figure(scenario, "longest stall", "ms", {OURS: grown[size].stall * 1e3}),
            Figure(scenario, "memory", "MB", {OURS: megabytes[size]}),
        )


def breadth(bench: Bench) -> None:
    """As many monitors as waits, and a server that takes its time: ours alone, then all peers together."""
    waits, seconds, poll = (50, 6, 3) if bench.quick else (1000, 119, 60)
    load = {"waits": waits, "monitors": waits, "poll": poll, "seconds": seconds}

    def run(names: Iterable[str]) -> dict[str, tuple[float, Tally]]:
        with ExitStack() as stack:
            servers = {name: stack.enter_context(Server(bench.folder, delay=0.3)) for name in names}
            children = {name: bench.child("wait", name, server, **load) for name, server in servers.items()}
            for child in children.values():
                child.start()
                time.sleep(0 if bench.quick else 5)  # so that their bursts do not meet
            cpu = {name: child.result()["cpu"] for name, child in children.items()}
            return {name: (cpu[name], server.tally()) for name, server in servers.items()}

    found = run([OURS]) | run(bench.peers)
    scenario = f"{waits:,} waits on {waits:,} monitors, {seconds} s"
    busiest = {name: tally.busiest_second for name, (_, tally) in found.items()}
    bench.note(
        Figure(scenario, "requests", "", {name: tally.requests for name, (_, tally) in found.items()}),
        Figure(scenario, "busiest second", "requests", busiest, 20),
        Figure(scenario, "CPU", "s", {name: cpu for name, (cpu, _) in found.items()}, 1.0, bench.peers),
    )


def pages(bench: Bench) -> None:
    """Listing many runs: CPU for each, and whether memory grows with the pages."""
    count = 80 if bench.quick else 400
    names = [name for name in LISTINGS if "exa-py" in bench.names or "exa-py" not in name]
    with Server(bench.folder) as server:
        found = {}
        for name in names:
            child = bench.child("listing", name, server, pages=count)
            child.start()
            found[name] = child.result()
    if wrong := [name for name, each in found.items() if each["runs"] != count * 25]:
        raise RuntimeError(f"{', '.join(wrong)} did not list {count * 25} runs")
    cost = {name: each["cpu"] / each["runs"] * 1e6 for name, each in found.items()}
    growth = {name: each["peaks"][1] - each["peaks"][0] for name, each in found.items()}
    scenario = f"{count * 25:,} runs in {count} pages"
    bench.note(
        Figure(scenario, "CPU for a run", "µs", cost, 0.75, ("exa-py",)),
        Figure(scenario, "memory beyond that of 40 pages", "MB", growth, 0.25),
    )


def imports(bench: Bench) -> None:
    """What a DAG file pays for importing the sensors."""

    def once(name: str) -> float:
        child = bench.child("importing", name)
        child.start()
        return float(child.result()["cpu"]) * 1e3

    rounds = 1 if bench.quick else 5
    cost = {name: statistics.median(once(name) for _ in range(rounds)) for name in bench.names}
    bench.note(Figure("importing the sensors", "CPU", "ms", cost, 60))


def trouble(bench: Bench) -> None:
    """Waits on a server that hangs, resets and answers 503: the loop must not notice."""
    waits, seconds = (50, 1) if bench.quick else (500, 12)
    with Server(bench.folder, faults=("hang", "reset", "503", "answer")) as server:
        load = {"waits": waits, "monitors": waits // 10, "poll": 5, "seconds": seconds}
        child = bench.child("stalls", OURS, server, **load)
        child.start()
        found = child.result()
        if server.tally().requests < waits // 10:
            raise RuntimeError("the server in trouble was hardly asked")
    if found["ended"]:
        raise RuntimeError(f"{found['ended']} waits ended for trouble that they should have waited out")
    longest = {OURS: statistics.median(found["rounds"]) * 1e3}
    bench.note(
        Figure(f"{waits} waits, a server in trouble", "longest stall, median of 5", "ms", longest, 100)
    )


SCENARIOS = (imports, pages, crowd, trouble, breadth)


def measure(names: list[str], quick: bool) -> list[Figure]:
    """Run all scenarios."""
    with tempfile.TemporaryDirectory(prefix="exa-bench-") as folder:
        make_certificates(Path(folder))
        bench = Bench(Path(folder), names, quick)
        for scenario in SCENARIOS:
            scenario(bench)
        return bench.figures
