"""What a run found, from both of Exa's APIs, in a hook and in a DAG."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pendulum
import pytest

from airflow_provider_exa.hooks import ExaHook
from airflow_provider_exa.operators import ExaListMonitorRunResultsOperator
from airflow_provider_exa.protocol.errors import (
    ExaBadAnswerError,
    ExaIncompleteListingError,
    ExaInputError,
    ExaPermanentError,
)
from airflow_provider_exa.protocol.models import DIALECTS
from airflow_provider_exa.standin import Fault, StandIn
from tests.tasks import TaskInstance

START = pendulum.datetime(2026, 1, 1)


@pytest.fixture(params=list(DIALECTS))
def api(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def found(run_id: str, count: int) -> list[dict[str, Any]]:
    return [{"title": f"{run_id} {it}", "url": f"https://example.com/{run_id}/{it}"} for it in range(count)]


def add_runs(exa: StandIn, *counts: int) -> None:
    """Runs of successive days that found so many results each."""
    for day, count in enumerate(counts):
        run_id = f"run_{day}"
        states = [(0, "running"), (60, "completed")]
        created_at = START + timedelta(days=day)
        exa.add_run(
            "mon_a", run_id=run_id, states=states, created_at=created_at, results=found(run_id, count)
        )


def urls(results: Any) -> list[str]:
    """The pages that were found, which Websets has among an item's properties."""
    return [result.get("url") or result["properties"]["url"] for result in results]


def results(api: str, run_id: str) -> list[dict[str, Any]]:
    hook = ExaHook(api=api)
    return list(hook.list_run_results(hook.get_monitor_run("mon_a", run_id)))


@pytest.mark.parametrize("order", ["newest", "oldest", "shuffled"])
def test_a_run_gives_what_it_found_and_nothing_that_another_did(exa: StandIn, api: str, order: Any) -> None:
    """Neither what earlier runs found nor what later ones did, several pages of it."""
    exa.page_size = 1
    exa.order = order
    add_runs(exa, 2, 250, 3, 1)
    assert sorted(urls(results(api, "run_1"))) == sorted(it["url"] for it in found("run_1", 250))
    queries = [request.query for request in exa.requests if request.path.endswith("/items")]
    assert [query["limit"] for query in queries] == ["100"] * (3 if api == "websets" else 0)


def test_only_a_listing_that_may_hide_the_next_run_is_an_error(exa: StandIn) -> None:
    """What that run found would be taken for this one's; a run that is older may be missing."""
    exa.page_size, exa.cursors = 2, "missing"
    add_runs(exa, 1, 1, 1, 1)
    for run_id in ("run_3", "run_2"):
        assert urls(results("websets", run_id)) == [f"https://example.com/{run_id}/0"]
    with pytest.raises(ExaIncompleteListingError, match="no cursor for it"):
        results("websets", "run_1")


def test_a_run_that_found_nothing_or_failed_has_no_results(exa: StandIn, api: str) -> None:
    """An empty list, not an error: a DAG goes on."""
    add_runs(exa, 0)
    exa.add_run("mon_a", run_id="run_failed", status="failed")
    assert results(api, "run_0") == results(api, "run_failed") == []


def test_a_run_that_has_not_ended_is_refused(exa: StandIn, api: str) -> None:
    """What it has found so far is not what it found."""
    exa.add_run("mon_a", run_id="run_1", status="running")
    with pytest.raises(ExaInputError, match="Run run_1 is running and has no results yet"):
        results(api, "run_1")


def test_a_run_may_be_given_as_a_task_returns_it(exa: StandIn, api: str) -> None:
    """It is asked for by its id, as a dict holds no results."""
    add_runs(exa, 3)
    hook = ExaHook(api=api)
    (run,) = hook.list_monitor_runs("mon_a")
    for given in (run.as_dict(), {"id": "run_0", "monitor_id": "mon_a"}):
        assert urls(hook.list_run_results(given)) == urls(hook.list_run_results(run))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"id": "run_0"}, "^monitor_id is None"),
        ({"id": 5, "monitor_id": "mon_a"}, "^run_id is 5"),
        ({"monitor_id": "mon_a"}, "^run_id is "),
        ("run_0", "^run='run_0' is no run"),
        (None, "^run=None is no run"),
    ],
    ids=str,
)
def test_what_is_no_run_has_no_results(exa: StandIn, given: Any, told: str) -> None:
    """The error says what to give instead, and nothing is asked."""
    with pytest.raises(ExaInputError, match=told):
        list(ExaHook().list_run_results(given))
    assert exa.requests == []


def test_results_are_told_apart_by_ids_that_are_text(exa: StandIn) -> None:
    """What has none, or another, is never taken for a repetition."""
    add_runs(exa, 1)
    run = ExaHook().get_monitor_run("mon_a", "run_0")
    ids: list[Any] = [None, None, 1, "1", 1.0, True, [1], [1], {}, "", "a", "b", "1"]
    items = [{"id": id_, "place": place} for place, id_ in enumerate(ids)] + [{"place": 13}, {"place": 14}]
    pages = [{"data": items, "hasMore": True, "nextCursor": "x"}, {"data": [items[10], *items[:2]]}]
    for page in pages:
        exa.fail(Fault(status=200, body=json.dumps(page).encode(), path="/items"))
    listed = [result["place"] for result in ExaHook().list_run_results(run)]
    assert listed == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 0, 1]


@pytest.mark.parametrize(
    "output", [{"results": 5}, {"results": [1]}, {"results": [{}, 1]}, [1], "text"], ids=str
)
def test_an_output_that_cannot_be_read_is_quoted(exa: StandIn, output: Any) -> None:
    """Exa adds to its answers without notice."""
    exa.add_run("mon_a", run_id="run_1")
    run = {"id": "run_1", "status": "completed", "createdAt": "2026-01-01T00:00:00Z", "output": output}
    exa.fail(Fault(status=200, body=json.dumps(run).encode(), times=2))
    with pytest.raises(ExaBadAnswerError, match="The output of run run_1 holds no list of results"):
        results("search", "run_1")


@pytest.mark.parametrize("listed", [{}, {"output": None}, {"output": {"results": []}}], ids=str)
def test_what_a_listing_left_out_is_asked_for(exa: StandIn, listed: dict[str, Any]) -> None:
    """Exa's documents promise the full output with one run, not in a listing."""
    add_runs(exa, 1)
    hook = ExaHook(api="search")
    (run,) = hook.list_monitor_runs("mon_a")
    raw = {name: value for name, value in run.raw.items() if name != "output"}
    assert urls(hook.list_run_results(replace(run, raw=raw | listed))) == ["https://example.com/run_0/0"]


def run_operator(ti: TaskInstance | None = None, **arguments: Any) -> Any:
    operator = ExaListMonitorRunResultsOperator(task_id="results", monitor_id="mon_a", **arguments)
    return json.loads(json.dumps(operator.execute({"ti": ti or TaskInstance()})))


def test_results_are_written_to_a_file_and_told_by_path_and_count(
    exa: StandIn, api: str, tmp_path: Path
) -> None:
    """One result a line, in a folder that is made; a second try replaces what the first left."""
    add_runs(exa, 120)
    path = tmp_path / "new folder" / "run_0.jsonl"
    for _ in range(2):
        told = run_operator(run_id="run_0", api=api, path=f"file://{path}")
        assert told == {"path": f"file://{path}", "count": 120}
    lines = path.read_text().splitlines()
    assert sorted(urls(map(json.loads, lines))) == sorted(it["url"] for it in found("run_0", 120))


def test_a_try_that_fails_leaves_the_file_as_it_was(exa: StandIn, tmp_path: Path) -> None:
    """What another task reads is whole, though the results come page by page."""
    add_runs(exa, 120)
    path = tmp_path / "run_0.jsonl"
    path.write_text("whole\n")
    exa.fail(Fault(status=403, path="cursor="))
    with pytest.raises(ExaPermanentError, match="answered 403"):
        run_operator(run_id="run_0", path=f"file://{path}")
    assert path.read_text() == "whole\n"


def test_a_text_that_was_cut_amid_an_emoji_is_written(exa: StandIn, tmp_path: Path) -> None:
    """JSON can say half a character, which neither UTF-8 nor XCom can; the rest of the text stays."""
    result = {"title": "Ünïcode 🎉 and half of one \ud83c"}
    exa.add_run("mon_a", run_id="run_1", results=[result])
    run_operator(run_id="run_1", api="search", path=f"file://{tmp_path}/it.jsonl")
    text = (tmp_path / "it.jsonl").read_text(encoding="utf-8")
    assert json.loads(text) == {"title": "Ünïcode 🎉 and half of one \ufffd"}


@pytest.mark.parametrize("inline", [True, False])
def test_what_a_run_says_of_its_results_as_a_whole_is_an_xcom(
    exa: StandIn, api: str, tmp_path: Path, *, inline: bool
) -> None:
    """What a search monitor was told to write of them; Websets writes nothing, nor does a run that failed."""
    add_runs(exa, 1)
    exa.add_run("mon_a", run_id="run_failed", status="failed")
    told, nothing = TaskInstance(), TaskInstance()
    where = {} if inline else {"path": f"file://{tmp_path}/it.jsonl"}
    run_operator(told, run_id="run_0", api=api, **where)
    run_operator(nothing, run_id="run_failed", api=api, **where)
    summary = {"content": "run_0 0", "grounding": []}
    assert told.xcoms == ({"summary": summary} if api == "search" else {})
    assert nothing.xcoms == {}


def test_a_run_that_holds_its_results_is_asked_for_once(exa: StandIn) -> None:
    """It may be large; the webset's link costs a search monitor no request."""
    add_runs(exa, 1)
    run_operator(run_id="run_0", api="search")
    assert [request.path for request in exa.requests] == ["/monitors/mon_a/runs/run_0"]


def test_a_run_that_holds_no_results_is_not_asked_for(exa: StandIn) -> None:
    """Its webset has them, which its monitor names; the listing shows when the next run began."""
    add_runs(exa, 1)
    hook = ExaHook()
    run = hook.get_monitor_run("mon_a", "run_0")
    exa.requests.clear()
    assert len(list(hook.list_run_results(run))) == 1
    ends = [request.path.rpartition("/")[2] for request in exa.requests]
    assert ends == ["mon_a", hook.get_monitor("mon_a").webset_id, "runs", "items"]


def test_no_results_make_an_empty_file(exa: StandIn, tmp_path: Path) -> None:
    """What reads it next finds it."""
    exa.add_run("mon_a", run_id="run_1", status="failed")
    assert run_operator(run_id="run_1", api="search", path=f"file://{tmp_path}/it.jsonl")["count"] == 0
    assert (tmp_path / "it.jsonl").read_text() == ""


def test_results_are_returned_where_there_is_no_path(exa: StandIn, api: str) -> None:
    """Small ones may go to XCom; more than a MiB is refused."""
    add_runs(exa, 2)
    assert urls(run_operator(run_id="run_0", api=api)) == urls(found("run_0", 2))
    big = [result | {"text": "x" * 100_000} for result in found("big", 11)]
    for count in (10, 11):
        created_at = START + timedelta(days=count)
        exa.add_run("mon_a", run_id=f"run_of_{count}", created_at=created_at, results=big[:count])
    assert len(run_operator(run_id="run_of_10", api=api)) == 10
    with pytest.raises(ExaInputError, match="more than 1 MiB of results; give a path"):
        run_operator(run_id="run_of_11", api=api)


def test_an_unknown_run_is_an_error(exa: StandIn, api: str) -> None:
    """In Exa's own words."""
    with pytest.raises(ExaPermanentError, match="answered 404"):
        run_operator(run_id="run_x", api=api)


@pytest.mark.parametrize("arguments", [{"run_id": ""}, {"run_id": "a?b"}, {"api": "serach"}], ids=str)
def test_bad_arguments_are_refused_while_the_dag_is_parsed(arguments: dict[str, Any]) -> None:
    """The DAG's import error says what to write instead."""
    with pytest.raises(ValueError, match=r"run_id|serach"):
        ExaListMonitorRunResultsOperator(
            task_id="results", **{"monitor_id": "mon_a", "run_id": "run_1", **arguments}
        )
