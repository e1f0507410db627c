"""One real Airflow for all e2e tests, a stand-in, and one that repeats its key."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_exa.standin import StandIn
from tests.e2e.real_airflow import RealAirflow
from tests.marked_key import KEYS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def standin() -> Iterator[StandIn]:
    with StandIn(api_key="standin-key-1234") as server:
        # Watched from the start; an unknown monitor is looked for again only after a while.
        for monitor in (
            "e2e_sample",
            "e2e_search",
            "e2e_paused",
            "takeover_a",
            "takeover_b",
            *(f"e2e_burst_{number}" for number in range(5)),
        ):
            server.add_monitor(monitor)
            server.add_run(monitor, run_id=f"history_of_{monitor}")
        yield server


@pytest.fixture(scope="session")
def marked() -> Iterator[StandIn]:
    """A stand-in with a marked key, which is also in an id."""
    key = KEYS["plain"]
    with StandIn(api_key=key) as server:
        for monitor in ("marked", "marked_too", "marked_search", "marked_refused", "marked_asset"):
            server.add_monitor(monitor, webset_id=f"webset_{key}")
        server.add_run("marked_asset", run_id="history_of_marked_asset")
        yield server


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the sample DAG puts what runs found: files, and a database."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="session")
def changing_dags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of DAG files that tests write."""
    return tmp_path_factory.mktemp("changing")


@pytest.fixture(scope="session")
def airflow(standin: StandIn, marked: StandIn, results: Path, changing_dags: Path) -> Iterator[RealAirflow]:
    env = {
        "AIRFLOW_CONN_EXA_DEFAULT": standin.connection(),
        "AIRFLOW_CONN_EXA_MARKED": marked.connection(),
        "AIRFLOW_CONN_SQLITE_DEFAULT": json.dumps({"conn_type": "sqlite", "host": f"{results}/exa.db"}),
        "AIRFLOW__CORE__FERNET_KEY": "",  # so that a dump of the database shows all it holds
        "EXA_MONITOR_ID": "e2e_sample",
        "EXA_RESULTS": f"file://{results}/files",
        # How soon an asset that no DAG refers to any more is put away.
        "AIRFLOW__SCHEDULER__PARSING_CLEANUP_INTERVAL": "4",
    }
    dags = [ROOT / "dags", Path(__file__).parent / "dags", changing_dags]
    with RealAirflow(dags, env, keep="KEEP" in os.environ, say=print) as running:
        yield running
