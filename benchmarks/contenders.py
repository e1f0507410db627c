"""One contender in a process of its own: takes a job as JSON, does it, prints what it cost as JSON."""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import selectors
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE_OF_MEMORY = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, kw_only=True)
class Load:
    """
    Waits, all in one event loop.

    :param waits: how many
    :param monitors: on how many monitors (jobs, things)
    :param poll: seconds between polls
    :param seconds: when those that go on are ended
    """

    port: int
    waits: int
    monitors: int
    poll: float
    seconds: float


Wait = Callable[[int], Awaitable[bool]]


# --- how each contender waits -----------------------------------------------------------------------


async def _event(trigger: Any) -> Any:
    """The payload of a trigger's event, as the triggerer gets it."""
    payload = None
    async for event in trigger.run():
        payload = event.payload
    return payload


def exa(load: Load) -> Wait:
    """This package's trigger."""
    import airflow_provider_exa.waiting.waiter  # noqa: F401 (the first trigger of a process imports it)
    from airflow_provider_exa.triggers import ExaMonitorRunTrigger

    async def wait(number: int) -> bool:
        trigger = ExaMonitorRunTrigger(
            f"m{number % load.monitors}",
            created_after="2026-01-01T23:30:00Z",
            poll_interval=load.poll,
        )
        return bool((await _event(trigger)).get("run", {}).get("status") == "completed")

    return wait


def dbt(load: Load) -> Wait:
    """The dbt Cloud provider's trigger."""
    from airflow.providers.dbt.cloud.triggers.dbt import DbtCloudRunJobTrigger

    async def wait(number: int) -> bool:
        trigger = DbtCloudRunJobTrigger(
            "dbt_cloud_default", number % load.monitors, time.time() + 86400, load.poll, account_id=1
        )
        return bool((await _event(trigger))["status"] == "success")

    return wait


def http(load: Load) -> Wait:
    """The http provider's sensor trigger."""
    from airflow.providers.http.triggers.http import HttpSensorTrigger

    async def wait(number: int) -> bool:
        trigger = HttpSensorTrigger(f"there/{number % load.monitors}", poke_interval=load.poll)
        return await _event(trigger) is True

    return wait


def exa_py(load: Load) -> Wait:
    """Exa's own client, one for all, in the loop that anyone would write around it."""
    from exa_py import AsyncExa

    client = AsyncExa("key", f"https://127.0.0.1:{load.port}")

    async def wait(number: int) -> bool:
        monitor = f"m{number % load.monitors}"
        while True:
            with suppress(Exception):
                run = await client.websets.monitors.runs.get(monitor, f"run-{monitor}-0")
                if run.status == "completed":
                    return True
            await asyncio.sleep(load.poll)

    return wait


@dataclass(frozen=True)
class Contender:
    """
    Somebody who waits.

    :param distribution: what has to be installed
    :param modules: what a DAG file imports for it
    """

    wait: Callable[[Load], Wait]
    distribution: str
    modules: tuple[str, ...]


CONTENDERS = {
    "exa": Contender(
        exa, "airflow-provider-exa", ("airflow_provider_exa.sensors", "airflow_provider_exa.operators")
    ),
    "dbt Cloud": Contender(
        dbt, "apache-airflow-providers-dbt-cloud", ("airflow.providers.dbt.cloud.sensors.dbt",)
    ),
    "http": Contender(http, "apache-airflow-providers-http", ("airflow.providers.http.sensors.http",)),
    "exa-py": Contender(exa_py, "exa-py", ("exa_py",)),
}


# --- what it costs ----------------------------------------------------------------------------------


class Meter(selectors.DefaultSelector):
    """
    The event loop's selector; knows the longest time that the loop did not come back to it.

    Less the time that the kernel let other processes have the CPU, which is none of the contender's doing.
    """

    def __init__(self) -> None:
        super().__init__()
        self._schedule = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.longest = 0.0
        self._since = self._clock()

    def _clock(self) -> float:
        """Seconds that pass while the process runs or sleeps, not while it waits for a CPU."""
        return time.monotonic() - int(os.pread(self._schedule, 99, 0).split()[1]) / 1e9

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for events, and say so if that took longer than it should, or if it was long ago."""
        began = self._clock()
        events = super().select(timeout)
        now = self._clock()
        overslept = now - began - max(timeout, 0.001) if timeout is not None and not events else 0.0
        self.longest = max(self.longest, began - self._since, overslept)
        self._since = now
        return events


meter = Meter()


def _resident() -> float:
    """Megabytes of memory that the process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_OF_MEMORY / 1e6


async def wait(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """All waits at once: CPU seconds, the longest stall, and when each wait ended well."""
    load = Load(**options)
    waiting = CONTENDERS[name].wait(load)
    ends: list[float] = []

    async def one(number: int) -> None:
        if await waiting(number):
            ends.append(time.monotonic())

    gc.collect()
    ready()
    meter.reset()
    began, before = time.monotonic(), time.process_time()
    tasks = []
    for number in range(load.waits):  # one after another, as the triggerer starts them
        tasks.append(asyncio.create_task(one(number)))
        await asyncio.sleep(0)
    done, late = await asyncio.wait(tasks, timeout=began + load.seconds - time.monotonic())
    cpu = time.process_time() - before
    stall = meter.longest
    await _end(late)
    return {"cpu": cpu, "stall": stall, "ends": ends, "wrong": len(done) - len(ends)}


async def memory(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Megabytes that all waits but the first add to the process, at the most."""
    load = Load(**options)
    waiting = CONTENDERS[name].wait(load)
    tasks = [asyncio.ensure_future(waiting(0))]
    ready()
    await asyncio.sleep(load.seconds / 2)
    gc.collect()
    before = most = _resident()
    tasks += [asyncio.ensure_future(waiting(number)) for number in range(1, load.waits)]
    end = time.monotonic() + load.seconds
    while time.monotonic() < end:
        await asyncio.sleep(0.1)
        most = max(most, _resident())
    await _end(set(tasks))
    return {"memory": most - before}


async def stalls(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The longest stall of each of five rounds of ``seconds``, whose waits no trouble may end."""
    load = Load(**options)
    waiting = CONTENDERS[name].wait(load)
    tasks = [asyncio.ensure_future(waiting(number)) for number in range(load.waits)]
    ready()
    rounds = []
    for _ in range(5):
        meter.reset()
        await asyncio.sleep(load.seconds)
        rounds.append(meter.longest)
    ended = sum(task.done() for task in tasks)
    await _end(set(tasks))
    return {"rounds": rounds, "ended": ended}


async def _end(tasks: set[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# --- listing ----------------------------------------------------------------------------------------

Listing = Callable[[str], Iterator[Any]]


def _exa_listing(port: int) -> Listing:
    from airflow_provider_exa.hooks import ExaHook

    return lambda monitor: ExaHook().list_monitor_runs(monitor)


def _exa_py_listing(port: int) -> Listing:
    from exa_py import Exa

    client = Exa("key", f"https://127.0.0.1:{port}")

    def runs(monitor: str) -> Iterator[Any]:
        query: dict[str, str] = {}
        while True:
            page = client.websets.monitors.runs.list(monitor, extra_query=query)
            yield from page.data
            if not page.has_more:
                return
            query = {"cursor": page.next_cursor}

    return runs


def _exa_py_listing_over_one_connection(port: int) -> Listing:
    import requests

    requests.get = requests.Session().get  # type: ignore[assignment]  # what exa-py calls; a connection for each call is not its parsing
    return _exa_py_listing(port)


def _bare_listing(port: int) -> Listing:
    import requests

    session = requests.Session()

    def runs(monitor: str) -> Iterator[Any]:
        query: dict[str, str] = {}
        while True:
            url = f"https://127.0.0.1:{port}/websets/v0/monitors/{monitor}/runs"
            page = session.get(url, params=query, timeout=10).json()
            yield from page["data"]
            if not page["hasMore"]:
                return
            query = {"cursor": page["nextCursor"]}

    return runs


LISTINGS: dict[str, Callable[[int], Listing]] = {
    "exa": _exa_listing,
    "exa-py": _exa_py_listing,
    "exa-py, one connection": _exa_py_listing_over_one_connection,
    "requests": _bare_listing,
}


async def listing(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """CPU seconds of listing so many pages, the least of three times; megabytes at the most, also for 40."""
    runs, pages = LISTINGS[name](options["port"]), options["pages"]
    ready()
    listed = sum(1 for _ in runs("pages-2"))  # whatever is imported or kept at the first use
    peaks = []
    for count in (40, pages):
        tracemalloc.start()
        listed = sum(1 for _ in runs(f"pages-{count}"))
        peaks.append(tracemalloc.get_traced_memory()[1] / 1e6)
        tracemalloc.stop()
    costs = []
    for _ in range(3):
        before = time.process_time()
        listed = sum(1 for _ in runs(f"pages-{pages}"))
        costs.append(time.process_time() - before)
    return {"cpu": min(costs), "runs": listed, "peaks": peaks}


# --- the process ------------------------------------------------------------------------------------


async def importing(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """CPU seconds that a DAG file which has imported ``airflow.sdk`` pays for the sensors."""
    import airflow.sdk  # noqa: F401

    ready()
    before = time.process_time()
    for module in CONTENDERS[name].modules:
        importlib.import_module(module)
    return {"cpu": time.process_time() - before}


def ready() -> None:
    """Say that all is imported, and wait for the word to start."""
    print("ready", flush=True)
    sys.stdin.readline()


JOBS = {job.__name__: job for job in (wait, memory, stalls, listing, importing)}

if __name__ == "__main__":
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(meter)) as runner:
        result = runner.run(JOBS[sys.argv[1]](sys.argv[2], json.loads(sys.argv[3])))
    print("result", json.dumps(result))
