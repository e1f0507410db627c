"""The API key and a proxy's password are nowhere but in the request, wherever a server repeats them."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import threading
import traceback
from collections.abc import Callable, Iterator
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider_exa.client import async_client
from airflow_provider_exa.client.settings import read_settings
from airflow_provider_exa.client.transport import Transport
from airflow_provider_exa.events import store, stream
from airflow_provider_exa.hooks import ExaHook
from airflow_provider_exa.operators import (
    ExaListMonitorRunResultsOperator,
    ExaListMonitorRunsOperator,
    ExaListMonitorsOperator,
    ExaTriggerMonitorOperator,
    ExaWaitForMonitorRunsOperator,
)
from airflow_provider_exa.protocol.errors import ExaError
from airflow_provider_exa.protocol.messages import Request
from airflow_provider_exa.sensors import ExaMonitorRunSensor
from airflow_provider_exa.timing import Timing, use_timing
from tests import tasks
from tests.client.conftest import Speaker, Wire
from tests.events.triggerer import Triggerer, Variables, until
from tests.marked_key import KEYS, WAYS, found_in
from tests.tasks import POKE_INTERVAL, Store, Task

USER, PASSWORD = "Vx1Jr5Mb8", "Kw6Pz2Ug9Dn3Hs7Ql4"

TIMES = {"createdAt": "2026-05-01T00:00:00Z", "updatedAt": "2026-05-01T00:01:00Z"}
FAILED = {
    "id": "run_1",
    "monitorId": "mon_a",
    "status": "failed",
    "type": "search",
    "failedAt": "2026-05-01T00:01:00Z",
    **TIMES,
}
COMPLETED = {**FAILED, "status": "completed", "completedAt": "2026-05-01T00:01:00Z"}
MONITOR = {"id": "mon_a", "status": "enabled", "websetId": "webset_1", **TIMES}
WEBSET = {"id": "webset_1", "status": "idle", "searches": [], **TIMES}


def objects(path: str, run: dict[str, Any], monitor: dict[str, Any]) -> Any:
    """What Exa answers to a path, with this run and this monitor."""
    path = path.split("?", 1)[0].removesuffix("/")
    if path.endswith("/trigger"):
        return {"triggered": True}
    if path.endswith("/runs"):
        return {"data": [run], "hasMore": False, "nextCursor": None}
    if "/runs/" in path:
        return run
    if path.endswith("/monitors"):
        return {"data": [monitor], "hasMore": False, "nextCursor": None}
    return WEBSET | {"id": monitor["websetId"]} if "/websets/" in path.replace("/websets/v0", "") else monitor


def answer(body: Any, status: str = "200 OK", headers: str = "") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).replace("\\\\u00", "\\u00").encode()
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\nConnection: close\r\n{headers}\r\n"
    return head.encode("latin-1") + data


def in_run(**fields: Any) -> Callable[[str, str], bytes]:
    """Answer with a run in which ``KEY`` stands for the key."""

    def body(path: str, key: str) -> bytes:
        text = json.dumps(objects(path, FAILED | fields, MONITOR))
        return answer(json.loads(text.replace("KEY", json.dumps(key)[1:-1])))

    return body


def in_monitor(**fields: Any) -> Callable[[str, str], bytes]:
    def body(path: str, key: str) -> bytes:
        text = json.dumps(objects(path, COMPLETED, MONITOR | fields))
        return answer(json.loads(text.replace("KEY", json.dumps(key)[1:-1])))

    return body


def page(**fields: Any) -> Callable[[str, str], bytes]:
    """Answer each listing with a page that says so, in which ``KEY`` stands for the key."""

    def body(path: str, key: str) -> bytes:
        text = json.dumps({"data": [COMPLETED], **fields}).replace("KEY", json.dumps(key)[1:-1])
        whole = objects(path, COMPLETED, MONITOR)
        return answer(json.loads(text) if "data" in whole else whole)

    return body


def refused(status: str, form: str = "json") -> Callable[[str, str], bytes]:
    def body(path: str, key: str) -> bytes:
        bodies: dict[str, Any] = {
            "json": {"error": f"{key} is bad", "message": f"your key {key} is bad", "requestId": key},
            "html": f"<html><title>{key}</title><a href='/login?key={key}'>log in</a></html>".encode(),
            "list": [key, {key: key}],
        }
        return answer(bodies[form], status)

    return body


def header(name: str, status: str = "503 Service Unavailable") -> Callable[[str, str], bytes]:
    return lambda path, key: answer({"error": "no"}, status, f"{name}: {key}\r\n")


#: Where a server writes the key.
PLACES: dict[str, Callable[[str, str], bytes]] = {
    "reason": in_run(failedReason="KEY is why", failReason="KEY is why"),
    "reason that is an object": in_run(failedReason={"KEY": ["KEY"]}, failReason={"why": {"why": "KEY"}}),
    "run id": in_run(id="run_KEY"),
    "status": in_run(status="KEY"),
    "type": in_run(type="KEY", status="completed"),
    "monitor of a run": in_run(monitorId="KEY"),
    "bad time": in_run(createdAt="KEY"),
    "missing status": in_run(status=None, title="KEY"),
    "odd id": in_run(id=["KEY"]),
    "output": in_run(status="completed", output={"results": [{"url": "KEY"}], "content": {"a": "KEY"}}),
    "monitor status": in_monitor(status="KEY"),
    "monitor id": in_monitor(id="KEY", websetId="KEY"),
    "data that is a text": page(data="KEY"),
    "data of texts": page(data=["KEY", {"id": "KEY"}]),
    "cursor": page(hasMore=True, nextCursor="KEY"),
    "cursor that is an object": page(hasMore=True, nextCursor={"KEY": "KEY"}),
    "more without a cursor": page(hasMore="KEY", nextCursor=None, error="KEY"),
    "401": refused("401 Unauthorized"),
    "400": refused("400 Bad Request"),
    "404": refused("404 Not Found", "html"),
    "403": refused("403 Forbidden", "list"),
    "500": refused("500 Internal Server Error"),
    "HTML": refused("200 OK", "html"),
    "list": refused("200 OK", "list"),
    "request id": header("X-Request-Id"),
    "request id of a 401": header("X-Request-Id", "401 Unauthorized"),
    "Retry-After": header("Retry-After"),
    "Location": header("Location", "302 Found"),
    "Location elsewhere": lambda path, key: answer(b"", "307 x", f"Location: http://{key}:x/{key}\r\n"),
    "reason phrase": lambda path, key: answer({"error": "no"}, f"500 {key}"),
    "status line": lambda path, key: f"{key} 200 OK\r\n\r\n".encode(),
    "status that is no number": lambda path, key: f"HTTP/1.1 {key} {key}\r\n\r\n".encode(),
    "broken header": lambda path, key: answer({}, headers=f"{key}\r\n {key}: {key}\r\n"),
    "broken length": lambda path, key: answer({}, headers=f"Content-Length: {key}\r\n"),
    "broken chunk": lambda path, key: (
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{key}\r\n{key}\r\n".encode()
    ),
    "broken gzip": lambda path, key: answer(key.encode(), headers="Content-Encoding: gzip\r\n"),
    "cookie": lambda path, key: answer({"error": key}, "500 x", f"Set-Cookie: {key}={key}; domain={key}\r\n"),
    "too deep": lambda path, key: answer(b"[" * 100_000 + key.encode()),
}


class EnoughError(Exception):
    """The test has seen enough of a wait that would go on."""


class Evidence:
    """What a door has left behind, as texts."""

    site: Site

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, *values: Any) -> None:
        for value in values:
            self.texts += [repr(value), str(value)]
            if isinstance(value, BaseException):
                self._note_error(value)

    def _note_error(self, error: BaseException) -> None:
        seen: list[BaseException] = []
        todo: list[BaseException | None] = [error]
        while todo:
            each = todo.pop()
            if each is not None and each not in seen:
                seen.append(each)
                todo += [each.__cause__, each.__context__]
                self.texts += [repr(each.args), "".join(traceback.format_exception(each))]


def sensor(**arguments: Any) -> BaseOperator:
    choice = {} if {"run_id", "pick"} & arguments.keys() else {"created_after": "2026-01-01"}
    return ExaMonitorRunSensor(
        task_id="t", monitor_id="mon_a", poke_interval=POKE_INTERVAL, **choice, **arguments
    )


def over(operator: type[BaseOperator], **arguments: Any) -> Callable[[], BaseOperator]:
    return lambda: operator(task_id="t", **arguments)


WAIT = {
    "monitor_ids": ["mon_a", "mon_b"],
    "created_after": "2026-01-01",
    "poll_interval": POKE_INTERVAL,
}
STARTS: dict[str, Any] = {
    "monitor_id": "mon_a",
    "wait_for_completion": True,
    "poll_interval": POKE_INTERVAL,
}
TASKS: dict[str, Callable[[], BaseOperator]] = {
    "poke": sensor,
    "reschedule": lambda: sensor(mode="reschedule", fail_on=()),
    "soft_fail": lambda: sensor(soft_fail=True, run_id="run_1", wait_for_idle=True),
    "deferred": lambda: sensor(deferrable=True),
    "deferred that passes": lambda: sensor(deferrable=True, pick="latest", fail_on=(), api="search"),
    "operator": over(ExaWaitForMonitorRunsOperator, **WAIT, fail_on=()),
    "deferred operator": over(ExaWaitForMonitorRunsOperator, **WAIT, deferrable=True),
    "runs": over(ExaListMonitorRunsOperator, monitor_id="mon_a"),
    "monitors": over(ExaListMonitorsOperator, only_enabled=False),
    "results": over(ExaListMonitorRunResultsOperator, monitor_id="mon_a", run_id="run_1"),
    "search results": over(
        ExaListMonitorRunResultsOperator, monitor_id="mon_a", run_id="run_1", api="search"
    ),
    "trigger": over(ExaTriggerMonitorOperator, **STARTS),
    "deferred trigger": over(ExaTriggerMonitorOperator, **STARTS, deferrable=True),
}


class Site:
    """A server that is Exa, or a proxy on the way, and that repeats the key after some honest answers."""

    def __init__(self, place: str, key: str, written: str, honest: int, retries: int) -> None:
        self.retries = retries
        self.place, self.key, self.written, self.honest = PLACES[place], key, written, honest
        self.asked = 0
        self.wire = Wire(self._script, None)
        threading.Thread(target=self.wire.serve_forever, args=(0.01,), daemon=True).start()

    def _script(self, speaker: Speaker) -> None:
        self.asked += 1
        path = speaker.head.split(" ", 2)[1]
        if self.asked <= self.honest:
            running = {**FAILED, "status": "running", "failedAt": None}
            speaker.say(answer(objects(path, running, MONITOR)))
        else:
            speaker.say(self.place(path, self.written))

    def connection(self) -> str:
        extra = {
            "retries": self.retries,
            "timeout": 2,
            "proxy": self.wire.url.replace("//", f"//{USER}:{PASSWORD}@"),
        }
        return json.dumps(
            {"conn_type": "exa", "host": "http://exa.invalid", "password": self.key, "extra": extra}
        )

    def close(self) -> None:
        self.wire.over.set()
        self.wire.shutdown()
        self.wire.server_close()


@pytest.fixture
def evidence(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[Evidence]:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    monkeypatch.setattr(async_client, "REQUESTS_PER_WINDOW", 1000, raising=False)
    with use_timing(
        Timing(
            default_pause=0.01,
            rate_limit_window=0.001,
            refresh_after_failure=0.05,
            first_poll_jitter=0.0,
            min_poll_interval=0.01,
            first_event_margin=-5.0,
            run_listed_within=0.05,
            run_listed_interval=0.01,
            replacement_delay=0.01,
            min_event_gap=0.02,
            confirmation_delay=0.01,
            max_trouble_interval=0.05,
            permanent_error_interval=0.05,
            max_walk_interval=0.05,
            variable_retry_interval=0.05,
            max_retry_after=0.02,
        )
    ):
        yield Evidence()


@pytest.fixture
def visit(
    evidence: Evidence,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[Callable[..., None]]:
    """Go through a door to such a server, then look for secrets in all that it has left behind."""
    sites: list[Site] = []

    def visit(door: Callable[[Evidence], object], key: str, written: str, place: str, honest: int) -> None:
        site = Site(place, key, written, honest, retries=int(door is use_hook))
        sites.append(site)
        evidence.site = site
        monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", site.connection())
        door(evidence)
        assert site.asked > honest or not honest, "the server was not asked for what it repeats"
        output = capfd.readouterr()
        logs = [f"{record.getMessage()} {record.args!r}" for record in caplog.records]
        traces = [
            "".join(traceback.format_exception(record.exc_info[1]))
            for record in caplog.records
            if record.exc_info
        ]
        everything = [*evidence.texts, *logs, *traces, caplog.text, output.out, output.err]
        for secret in (key, PASSWORD):
            assert found_in(everything, secret) == []

    yield visit
    for site in sites:
        site.close()


def run_task(make: Callable[[], BaseOperator], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def door(evidence: Evidence) -> None:
        passes = iter(range(6))

        def enough() -> None:
            if next(passes, None) is None:
                raise EnoughError

        defer = tasks.defer

        def noting(deferred: Any) -> Any:
            evidence.note(deferred.trigger, deferred.trigger.serialize(), deferred.kwargs)
            resumed = defer(deferred)
            evidence.note(resumed)
            return resumed

        monkeypatch.setattr(tasks, "defer", noting)
        kept = Store()
        made: list[BaseOperator] = []

        def remake() -> BaseOperator:
            made.append(make())
            return made[-1]

        ended = Task(remake, passes=enough, store=kept).run(monkeypatch)
        evidence.note(kept.kept, json.dumps(ended.xcom), ended, ended.xcom)
        if ended.error:
            evidence.note(ended.error)
        for task in made:
            evidence.note(task, task.hook, task.hook.client, task.webset_id)  # type: ignore[attr-defined]

    return door


def calls_of(hook: ExaHook) -> list[Callable[[], object]]:
    return [
        lambda: list(hook.list_monitor_runs("mon_a", max_pages=2)),
        functools.partial(hook.get_monitor_run, "mon_a", "run_1"),
        functools.partial(hook.get_monitor, "mon_a"),
        lambda: list(hook.list_monitors(max_pages=2)),
        functools.partial(hook.trigger_monitor, "mon_a"),
        hook.test_connection,
    ]


def use_hook(evidence: Evidence) -> None:
    for api in ("websets", "search"):
        hook = ExaHook(api=api)
        for call in calls_of(hook):
            try:
                evidence.note(call())
            except Exception as error:
                evidence.note(error)
        evidence.note(hook, hook.client, hook.client.settings)


def use_transport(evidence: Evidence) -> None:
    settings = read_settings("exa_default")
    transport, request = Transport(settings), Request("/monitors/mon_a/runs")
    evidence.note(settings, transport, request)
    try:
        response = transport.send(request)
    except ExaError as error:
        evidence.note(error)
    else:
        evidence.note(response, response.data, response.headers)


def watch_asset(monkeypatch: pytest.MonkeyPatch) -> Callable[[Evidence], None]:
    def door(evidence: Evidence) -> None:
        requests: Any = SimpleNamespace(requests=[])
        variables = Variables(requests)
        monkeypatch.setattr(stream, "Variable", variables)
        monkeypatch.setattr(store, "_is_watched", {})

        async def watch() -> None:
            async with Triggerer() as triggerer:
                statuses = ("completed", "failed", "canceled")
                task = triggerer.watch(statuses=statuses, start="2026-01-01T00:00:00Z")
                # A later request shows that the one before was taken in.
                await until(lambda: evidence.site.asked > evidence.site.honest + 1)
                await asyncio.sleep(0.1)
                evidence.note(triggerer.sent)
                if task.done() and not task.cancelled() and task.exception():
                    evidence.note(task.exception())

        asyncio.run(watch())
        evidence.note(variables.texts, variables.kept)

    return door


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("key", KEYS)
def test_the_search_finds_a_key_however_it_is_written(key: str, way: str) -> None:
    """Else the other tests would pass whatever is left behind."""
    assert found_in([f"key {WAYS[way](KEYS[key])}!"], KEYS[key])


#: Each place meets each way to write the key, with one of the keys and before or after an honest answer.
CASES = [
    pytest.param(place, way, key, number % 2, id=f"{place}-{way}-{key}")
    for number, (place, way) in enumerate(product(PLACES, WAYS))
    for key in [list(KEYS)[number % len(KEYS)]]
    if (list(PLACES).index(place) + list(WAYS).index(way)) % 5 == 0
]


@pytest.mark.parametrize(("place", "way", "key", "honest"), CASES)
def test_no_call_repeats_a_secret(
    visit: Callable[..., None], place: str, way: str, key: str, honest: int
) -> None:
    """Neither what it returns or raises, nor any object that it was made with, nor the log."""
    visit(use_transport, KEYS[key], WAYS[way](KEYS[key]), place, 0)
    visit(use_hook, KEYS[key], WAYS[way](KEYS[key]), place, honest)


@pytest.mark.parametrize(
    ("place", "door"),
    [
        (place, door)
        for (number, place), (other, door) in product(enumerate(PLACES), enumerate(TASKS))
        if (number + other) % 2 == 0
    ],
)
def test_no_task_repeats_a_secret(
    visit: Callable[..., None], monkeypatch: pytest.MonkeyPatch, door: str, place: str
) -> None:
    """Neither its XCom, its errors, what it remembers, its trigger and event, nor its log."""
    number = list(TASKS).index(door) // 2 + list(PLACES).index(place)
    way, key = list(WAYS)[number % len(WAYS)], list(KEYS.values())[number % len(KEYS)]
    waits = door not in ("runs", "monitors", "results", "search results")
    visit(run_task(TASKS[door], monkeypatch), key, WAYS[way](key), place, number % 2 if waits else 0)


@pytest.mark.parametrize("place", PLACES)
def test_no_asset_repeats_a_secret(
    visit: Callable[..., None], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Neither its events, its Variable, nor its log."""
    number = list(PLACES).index(place)
    way, key = list(WAYS)[number % len(WAYS)], list(KEYS.values())[number % len(KEYS)]
    visit(watch_asset(monkeypatch), key, WAYS[way](key), place, number % 2)


@pytest.mark.parametrize("key", KEYS.values(), ids=list(KEYS))
def test_no_dag_holds_a_secret(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """What Airflow stores of a DAG names the connection only."""
    connection = {"conn_type": "exa", "password": key, "extra": {"proxy": f"http://{USER}:{PASSWORD}@p:1"}}
    monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", json.dumps(connection))
    for name, make in TASKS.items():
        with DAG(dag_id="d", schedule=None) as dag:
            task = make()
            task.hook.client.settings  # type: ignore[attr-defined]  # noqa: B018 (reads the connection)
        serialized = json.dumps(DagSerialization.to_dict(dag))
        assert "exa_default" in serialized
        assert found_in([serialized], key) + found_in([serialized], PASSWORD) == [], name
