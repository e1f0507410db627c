"""What one more API takes: a row in models.py and an answer in the stand-in; tried with a toy."""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pendulum
import pytest

import airflow_provider_exa
from airflow_provider_exa import operators
from airflow_provider_exa.hooks import ExaHook
from airflow_provider_exa.protocol.models import DIALECTS, FINISHED, RUN_FIELDS, STATUSES, Dialect, Monitor
from airflow_provider_exa.standin import StandIn, wire
from airflow_provider_exa.standin.bodies import Api, iso
from tests import test_waiting
from tests.events.conftest import asset_states, variables  # noqa: F401 (fixtures)
from tests.events.triggerer import Triggerer, until

#: The fields of a dialect that each module reads: where APIs differ in more than words.
READS = {
    "hooks.py": {"trigger", "websets"},
    "operators/base.py": {"websets"},
    "operators/listing.py": {"websets"},
    "operators/triggering.py": {"trigger"},
    "operators/waiting.py": {"websets"},
    "protocol/endpoints.py": {"base", "run_page_size"},
    "protocol/models.py": {"enabled", "keys", "statuses"},
    "protocol/results.py": {"output"},
    "sensors.py": {"websets"},
}
#: Exa's keys outside models.py: what all APIs say, and what Websets says of items, where only it is spoken.
KEYS = {
    "protocol/endpoints.py": {"websetId"},
    "protocol/messages.py": {"requestId"},
    "protocol/paging.py": {"hasMore", "nextCursor"},
    "protocol/results.py": {"createdAt", "sourceId"},
}

PACKAGE = Path(airflow_provider_exa.__file__).parent
MODULES = {str(path.relative_to(PACKAGE)): path.read_text() for path in PACKAGE.rglob("*.py")}
SAID = [
    {row.base, row.enabled, row.output or "", *row.keys.values(), *row.statuses} for row in DIALECTS.values()
]
OURS = {"", *STATUSES, *RUN_FIELDS, *(each.name for each in fields(Monitor))}
#: What some API says but not all, unless this package says it as well.
PECULIAR = {word for said in SAID for word in said if not all(word in each for each in SAID)} - OURS
DIALECT = ("dialect", "dialect_of")


def name_of(node: Any) -> str:
    """The last name in ``a.name``, ``a.name(…)`` or ``name: annotation``, bare of underscores."""
    node = getattr(node, "func", node)
    names = (getattr(node, key, None) for key in ("attr", "id", "arg"))
    return next((name.lstrip("_") for name in names if name), "")


def survey(source: str) -> tuple[set[str], set[str], set[str]]:
    """
    The fields of dialects that are read, where it is asked which API it is, and the words of Exa.

    To read a field is ``dialect.field`` or ``dialect_of(api, field=…)``; a dialect by any other name counts
    as well. Docstrings do not count, nor do the defaults of parameters ``api``.
    """
    read, asked, texts, keywords = set[str](), set[str](), set[str](), set[str]()
    skipped: set[Any] = set()
    for node in ast.walk(ast.parse(source)):  # whatever is in a node comes after it
        match node:
            case ast.Expr(value=ast.Constant() as docstring):
                skipped.add(docstring)
            case ast.arguments():
                parameters = [*node.args[::-1][: len(node.defaults)], *node.kwonlyargs]
                pairs = zip(parameters, [*node.defaults[::-1], *node.kw_defaults], strict=True)
                skipped |= {default for parameter, default in pairs if parameter.arg == "api"}
            case ast.Constant(value=str(text)) if node not in skipped:
                texts.add(text)
            case ast.Compare() if "api" in map(name_of, (node.left, *node.comparators)):
                asked.add(ast.unparse(node))
            case ast.Attribute(value=value, attr=field) if name_of(value) in DIALECT:
                read.add(field)
            case ast.Call() if name_of(node) == "dialect_of":
                read |= {str(keyword.arg) for keyword in node.keywords}
            case ast.keyword(arg=str(name)):
                keywords.add(name)
            case ast.Assign() | ast.AnnAssign() | ast.NamedExpr() if name_of(node.value) in DIALECT:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                read |= {ast.unparse(each) for each in targets if name_of(each) != "dialect"}
            case ast.arg(annotation=ast.Name(id="Dialect")) if name_of(node) != "dialect":
                read.add(ast.unparse(node))
    words = {text for text in texts | keywords if re.fullmatch("[a-z]+([A-Z][a-z]+)+", text)}
    words |= {word for word in PECULIAR if word in texts or ("/" in word and word in " ".join(texts))}
    return read, asked | (texts & DIALECTS.keys()), words


def test_what_each_module_knows_of_the_apis() -> None:
    """None asks which API it is or says a word that only one has; each field is read somewhere."""
    surveys = {name: survey(text) for name, text in MODULES.items() if not name.startswith("standin/")}
    assert {name: read for name, (read, _, _) in surveys.items() if read} == READS
    assert set().union(*READS.values()) == {each.name for each in fields(Dialect)}
    del surveys["protocol/models.py"]
    assert {name: asked for name, (_, asked, _) in surveys.items() if asked} == {}
    assert {name: words for name, (_, _, words) in surveys.items() if words} == KEYS


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('def f(api="websets", *, b=1):\n    "search"', set()),
        ('def f(a, *, b="search", api="websets"): 0', {"search"}),
        ('if api == "search": 0', {"search", "api == 'search'"}),
        ("x = self._api in OLD", {"self._api in OLD"}),
        ('path = f"/websets/v0/monitors/{id}"', {"/websets/v0"}),
        ('run.raw["output"] or raw.get("failReason")', {"output", "failReason"}),
        ('monitor["enabled"], "the output of a run", f(webhookId=1)', {"webhookId"}),
        ("hook._dialect.base, dialect_of(api, trigger='x').output", {"base", "trigger", "output"}),
        ("def f(it: Dialect): (d := hook.dialect).output", {"it: Dialect", "d"}),
    ],
)
def test_a_survey_finds_what_it_is_for(source: str, found: set[str]) -> None:
    """Or it would prove nothing."""
    assert set().union(*survey(source)) == found


# --- one more API ---------------------------------------------------------------------------------

TOY = Dialect(
    base="/toy/v9",
    enabled="on",
    keys=dict(zip(DIALECTS["websets"].keys, ("changed", "done", "broke", "stopped", "why"), strict=True)),
    output="found",
    statuses=dict(zip(("queued", "working", "done", "broken", "stopped"), STATUSES, strict=True)),
)
TOY_API = Api(
    base="/toy/v9",
    max_limit=50,
    run_statuses={ours: word for word, ours in TOY.statuses.items()},
    monitor_statuses={"enabled": "on", "disabled": "off"},
    ended_at={"done": "done", "broken": "broke", "stopped": "stopped"},
    reason="why",
    filter="status",
    run_fields=lambda run, past: {
        "changed": iso(past[-1][0]),
        "updatedAt": None,
        "why": run.failed_reason if past[-1][1] == "failed" else None,
        "found": run.results,
    },
    monitor_fields=lambda monitor: {},
)
START, END = pendulum.datetime(2026, 1, 1), "2026-01-01T00:01:00+00:00"
FOUND = [{"url": "https://example.com/1"}]
MONITOR = {"id": "mon_a", "status": "on", "enabled": True, "webset_id": None}


@pytest.fixture
def toy(exa: StandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A stand-in that speaks the toy, too; nothing else may be spoken."""
    monkeypatch.setitem(DIALECTS, "toy", TOY)
    routes = [("GET", TOY.base + path, TOY_API, answer) for path, answer in wire._BOTH.items()]
    monkeypatch.setattr(wire, "_ROUTES", wire._ROUTES + routes)
    yield exa
    assert {each.path[:16] for each in exa.requests} == {"/toy/v9/monitors"}


@pytest.fixture
def runs(toy: StandIn) -> dict[str, dict[str, Any]]:
    """A run in each state, called like it, and what this package is to say of it."""
    known = {}
    for status in STATUSES:
        states = [(0, "created"), (60, status)]
        toy.add_run("mon_a", run_id=status, states=states, created_at=START, failed_reason="?", results=FOUND)
        known[status] = {
            **dict.fromkeys(RUN_FIELDS),
            "id": status,
            "monitor_id": "mon_a",
            "status": status,
            "created_at": START.isoformat(),
            "updated_at": END,
            **({f"{status}_at": END} if status in FINISHED else {}),
            "failed_reason": "?" if status == "failed" else None,
        }
    return known


def test_the_hook_speaks_the_toy(toy: StandIn, runs: dict[str, dict[str, Any]]) -> None:
    """Page by page and one by one, in the words of this package."""
    toy.page_size = 2
    toy.add_monitor("mon_off", status="disabled")
    hook = ExaHook(api="toy")
    listed = list(hook.list_monitor_runs("mon_a"))
    assert len(toy.requests) == 3
    assert {run.raw["status"] for run in listed} == TOY.statuses.keys()
    assert {run.id: run.as_dict() for run in listed} == runs
    assert {each: hook.get_monitor_run("mon_a", each).as_dict() for each in runs} == runs
    assert list(hook.list_run_results(listed[0])) == FOUND
    assert hook.get_monitor("mon_a").as_dict() == MONITOR
    assert {each.id: each.enabled for each in hook.list_monitors()} == {"mon_a": True, "mon_off": False}
    with pytest.raises(ValueError, match="api='toy'"):
        list(hook.list_monitors(webset_id="webset_a"))


def test_the_operators_speak_the_toy(toy: StandIn, runs: dict[str, dict[str, Any]]) -> None:
    """What a DAG lists is told apart by the words of this package."""
    same: dict[str, Any] = {"task_id": "list", "api": "toy"}
    bad = ("failed", "canceled")
    listed = operators.ExaListMonitorRunsOperator(monitor_id="mon_a", statuses=bad, **same).execute({})
    assert {run["id"]: run for run in listed} == {status: runs[status] for status in bad}
    assert operators.ExaListMonitorsOperator(**same).execute({}) == [MONITOR]


@pytest.mark.parametrize("mode", test_waiting.MODES)
@pytest.mark.parametrize("case", ["completed", "failed", "canceled", "unknown_status", "unknown_monitor"])
def test_waits_speak_the_toy(toy: StandIn, monkeypatch: pytest.MonkeyPatch, case: str, mode: str) -> None:
    """By the very test that the others pass."""
    row = test_waiting.CASES[case]

    def story(exa: StandIn) -> Iterator[None]:
        yield from row.story(exa)
        yield from [None] * 50
        exa.api_key = "none"  # or a run whose end is not understood would be waited for without end

    options = {"mode": mode, "flags": "default", "api": "toy"}
    test_waiting.test_every_mode_ends_the_same(toy, monkeypatch, case=replace(row, story=story), **options)


@pytest.mark.usefixtures("variables")
def test_an_asset_speaks_the_toy(toy: StandIn, runs: dict[str, dict[str, Any]]) -> None:
    """Its event says how a run ended, when and why in the words of this package."""

    async def scenario() -> list[dict[str, Any]]:
        async with Triggerer() as triggerer:
            triggerer.watch(api="toy", statuses=["failed"], start=START)
            await until(lambda: triggerer.sent)
            return triggerer.sent

    (event,) = asyncio.run(scenario())
    (run,) = event["runs"]
    assert (event["api"], run["status"]) == ("toy", "failed")
    assert (run["finished_at"], run["failed_reason"]) == (END, "?")
