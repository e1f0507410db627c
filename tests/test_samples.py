"""The sample DAGs: what they make of many runs, of a run that comes twice, and of ids that are paths."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest
from airflow.sdk import DAG, ObjectStoragePath
from airflow.sdk.definitions.param import ParamsDict

from airflow_provider_exa.protocol.errors import ExaPermanentError
from airflow_provider_exa.standin import StandIn

FOLDER = Path(__file__).parent.parent / "dags"
MAX_MAP_LENGTH = 1024


def load_dag(dag_id: str) -> DAG:
    """A sample as Airflow reads it."""
    names: dict[str, Any] = {"__name__": "sample"}
    code = (FOLDER / f"{dag_id}.py").read_text().replace(f"\n{dag_id}()\n", f"\ndag_made = {dag_id}()\n")
    exec(compile(code, f"{dag_id}.py", "exec"), names)  # noqa: S102 (our own sample)
    dag = names["dag_made"]
    assert isinstance(dag, DAG)
    return dag


def function_of(dag: DAG, task_id: str) -> Callable[..., Any]:
    """The Python function of a task, mapped or not."""
    task: Any = dag.get_task(task_id)
    function: Callable[..., Any] = (
        getattr(task, "python_callable", None) or task.partial_kwargs["python_callable"]
    )
    return function


def events(*run_ids: str) -> dict[str, list[Any]]:
    """What a task gets of the events that hold these runs."""
    runs = [
        {
            "monitor_id": "mon_a",
            "run_id": run_id,
            "status": "completed",
            "type": "search",
            "created_at": "2026-01-01T00:00:00+00:00",
            "finished_at": "2026-01-01T00:00:00+00:00",
            "failed_reason": None,
        }
        for run_id in run_ids
    ]

    payload = {"api": "websets", "exa_conn_id": "exa_default", "runs": runs}
    return {"asset": [SimpleNamespace(extra={"payload": payload})]}


@pytest.mark.parametrize("count", [0, 1, 1000, 1001, 5000])
@pytest.mark.parametrize(
    ("dag_id", "task_id"), [("exa_on_completed_run", "runs_to_load"), ("exa_load_results", "runs")]
)
def test_a_task_is_mapped_over_any_number_of_runs(count: int, dag_id: str, task_id: str) -> None:
    """Each run has a task of its own, as long as Airflow maps so many."""
    run_ids = [f"run_{number:04}" for number in range(count)]
    split = function_of(load_dag(dag_id), task_id)
    batches = split(events(*run_ids))
    assert [run["run_id"] for batch in batches for run in batch] == run_ids
    assert len(batches) <= MAX_MAP_LENGTH
    assert count > 1000 or all(len(batch) == 1 for batch in batches)


def test_each_run_of_a_batch_is_loaded(exa: StandIn) -> None:
    """With the connection and the API that its event names."""
    run_ids = [exa.add_run("mon_a") for _ in range(2)]
    dag = load_dag("exa_on_completed_run")
    (*batches,) = function_of(dag, "runs_to_load")(events(*run_ids))
    loaded = [run["id"] for batch in batches for run in function_of(dag, "load")(batch)]
    assert sorted(loaded) == sorted(run_ids)


# --- what a run found, in a database ---------------------------------------------------------------


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a database, which ``sqlite_default`` leads to, and the folder of the sample's files."""
    path = tmp_path / "exa.db"
    monkeypatch.setenv("AIRFLOW_CONN_SQLITE_DEFAULT", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    monkeypatch.setenv("EXA_RESULTS", f"file://{tmp_path}/results")
    return path


def load_results(dag: DAG, database: Path, run_id: str, found: list[dict[str, Any]]) -> Callable[[], Any]:
    """Write what a run found as the operator does; return the task that loads it."""
    sql: Any = dag.get_task("create_table")
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(sql.sql)
    [[arguments]] = function_of(dag, "runs")(events(run_id))
    path = Path(arguments["path"].removeprefix("file://"))
    assert path.parent == database.parent / "results"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in found))
    return lambda: function_of(dag, "load")([arguments["path"]])


def rows(database: Path) -> list[tuple[str, str | None]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT run_id, url FROM exa_results ORDER BY run_id, number").fetchall()


FOUND = [{"url": "https://a"}, {"properties": {"url": "https://b"}}, {"properties": None}]


@pytest.mark.parametrize(
    "run_id",
    ["run_1", "../../outside", "..", ".", "a/b", "/etc/passwd", "a\\b", "run?x#y", "100%25", "ä.b.c", "~"],
)
def test_a_run_is_loaded_whatever_its_id_is(database: Path, run_id: str) -> None:
    """Its file stays in the folder; a second time, its rows are replaced, and those of others are not."""
    dag = load_dag("exa_load_results")
    load_results(dag, database, "another", FOUND[:1])()
    for found in (FOUND, FOUND, FOUND[:2], []):
        assert load_results(dag, database, run_id, found)() == len(found)
        urls = ["https://a", "https://b", None][: len(found)]
        assert sorted(rows(database), key=str) == sorted(
            [("another", "https://a"), *((run_id, url) for url in urls)], key=str
        )


@pytest.mark.usefixtures("database")
def test_what_each_run_of_a_batch_found_is_written(exa: StandIn) -> None:
    """Each to a file of its own, as a result a line."""
    days = (pendulum.datetime(2026, 1, day) for day in (1, 2))
    run_ids = [exa.add_run("mon_a", results=FOUND, created_at=day) for day in days]
    dag = load_dag("exa_load_results")
    runs = [run for batch in function_of(dag, "runs")(events(*run_ids)) for run in batch]
    paths = function_of(dag, "results")(runs)
    assert paths == [run["path"] for run in runs]
    assert [ObjectStoragePath(path).read_text().count("\n") for path in paths] == [len(FOUND)] * 2


def test_two_dag_runs_that_load_one_run_leave_its_rows_once(database: Path) -> None:
    """They delete and insert in one transaction each."""
    load = load_results(load_dag("exa_load_results"), database, "run_1", FOUND * 100)
    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(rows(database)) == 300


def test_a_load_that_fails_leaves_the_rows_that_were_there(database: Path) -> None:
    """Nobody sees a run without its rows."""
    dag = load_dag("exa_load_results")
    load_results(dag, database, "run_1", FOUND)()
    load = load_results(dag, database, "run_1", [{"url": "https://a"}, {"url": ["no", "text"]}])
    with pytest.raises(sqlite3.Error):
        load()
    assert len(rows(database)) == 3


def test_the_table_takes_no_row_of_a_run_twice(database: Path) -> None:
    """In a database where two transactions do not wait for each other, the later one has to try again."""
    dag = load_dag("exa_load_results")
    load_results(dag, database, "run_1", FOUND)()
    with closing(sqlite3.connect(database)) as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute("INSERT INTO exa_results (run_id, number) VALUES ('run_1', 0)")
    task: Any = dag.get_task("load")
    assert task.partial_kwargs["retries"] > 0


# --- the other samples -----------------------------------------------------------------------------


def test_the_branching_sample_runs_only_for_a_monitor_that_somebody_names() -> None:
    """It has no schedule, and a DAG run without a monitor id is refused."""
    dag = load_dag("exa_branch_on_outcome")
    assert dag.schedule is None
    params = ParamsDict(dag.params)
    with pytest.raises(Exception, match="monitor_id"):
        params.validate()
    params["monitor_id"] = "mon_a"
    assert params.validate() == {"monitor_id": "mon_a", "created_after": None}


def test_the_report_is_asked_for_no_more_monitors_than_airflow_maps() -> None:
    """A DAG run for more is refused."""
    params = ParamsDict(load_dag("exa_monitor_report").params)
    params["monitor_ids"] = ["mon_a"] * 1000
    params.validate()
    with pytest.raises(Exception, match="monitor_ids"):
        params["monitor_ids"] = ["mon_a"] * 1001


def test_the_alarm_names_each_run_that_did_not_complete() -> None:
    """With the reason, where there is one."""
    alert = function_of(load_dag("exa_on_failed_run"), "alert")
    (line,) = alert(events("run_1"))
    assert line == ("Run run_1 of monitor mon_a completed at 2026-01-01T00:00:00+00:00: no reason given")


def test_a_run_that_is_gone_fails_its_load(exa: StandIn) -> None:
    """With Exa's words."""
    dag = load_dag("exa_on_completed_run")
    (batch,) = function_of(dag, "runs_to_load")(events("run_gone"))
    with pytest.raises(ExaPermanentError):
        function_of(dag, "load")(batch)
