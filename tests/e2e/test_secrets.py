"""The API key is in no table and no log file of a real Airflow, wherever a server repeats it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing

import pendulum

from airflow_provider_exa.standin import Fault, StandIn
from tests.e2e.real_airflow import RealAirflow
from tests.e2e.test_assets import started
from tests.e2e.test_sensor import until
from tests.marked_key import KEYS, WAYS, found_in

KEY = KEYS["plain"]
ECHO = "; ".join(f"{way} {write(KEY).lstrip('.')}" for way, write in WAYS.items())
#: How the echo begins once the key is taken out of it.
LEFT = "whole ***; json ***; "
ERROR = json.dumps({"error": ECHO, "message": ECHO, "requestId": KEY}).encode()
WAITING = {"poke": "running", "deferred": "deferred", "operator": "deferred"}

#: A text, and before it the table or log file that holds it.
Evidence = tuple[str, str]


def values(airflow: RealAirflow) -> Iterator[Evidence]:
    """Yield each value in Airflow's database."""
    uri = f"file:{airflow.home / 'airflow.db'}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=30)) as database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            for row in database.execute(f'SELECT * FROM "{table}"'):  # noqa: S608 (a name from the database)
                for value in row:
                    yield table, value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def log_files(airflow: RealAirflow) -> Iterator[Evidence]:
    for path in airflow.home.rglob("*.log*"):
        yield path.name, path.read_text(errors="replace")


def holders(text: str, evidence: Iterable[Evidence]) -> set[str]:
    return {name for name, each in evidence if text in each}


def test_no_table_and_no_log_file_holds_the_key(airflow: RealAirflow, marked: StandIn) -> None:
    """Though it is in reasons, results, ids, statuses and errors while tasks and an asset wait."""
    since = pendulum.now("UTC")
    marked.trigger_options = {"results": [{"url": f"https://example.com/{KEY}", "title": ECHO}]}
    marked.fail(Fault(status=401, body=ERROR, path="marked_refused", times=None))
    runs = [
        marked.add_run(monitor, states=[(0, f"status {KEY}")], failed_reason=ECHO)
        for monitor in ("marked", "marked_too", "marked_asset")
    ]
    dag_run = airflow.trigger("e2e_secrets", {"since": since.isoformat()})
    until(lambda: WAITING.items() <= airflow.task_states("e2e_secrets", dag_run).items(), 120)
    evidence = list(values(airflow))
    assert holders("marked_too", evidence) >= {"trigger"}
    for path in ("/marked/", "/marked_asset/"):
        marked.fail(Fault(body=ERROR, path=path, times=3))
    until(lambda: sum(each.status == 503 for each in marked.requests) == 6)
    for run in runs:
        marked.move(run, "failed")
    states = airflow.wait("e2e_secrets", dag_run)
    until(lambda: started(airflow, "e2e_secrets_asset"), 120)
    assert {task for task, state in states.items() if state != "success"} == {"refused"}
    evidence += [*values(airflow), *log_files(airflow)]
    assert holders("marked_asset", evidence) >= {"variable", "serialized_dag"}
    assert holders(LEFT, evidence) >= {"xcom", "asset_event", "rendered_task_instance_fields"}
    assert holders(f"503: '{LEFT}", evidence) >= {"triggerer.log"}
    assert f"401: '{LEFT}" in airflow.task_log("e2e_secrets", dag_run, "refused")
    # JSON in JSON doubles the backslashes of an escape.
    texts = {(name, text.replace(r"\\", "\\")) for name, text in evidence}
    assert [(name, found) for name, text in texts if (found := found_in([text], KEY))] == []
