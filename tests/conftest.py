"""What every test may use: a running stand-in for Exa, and retries that do not wait."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest

# Before anything of Airflow's is imported: it makes a home with settings, logs and a database.
_home = tempfile.TemporaryDirectory(prefix="airflow-")
os.environ |= {"AIRFLOW_HOME": _home.name, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}

from airflow_provider_exa.protocol.models import warn_once  # noqa: E402
from airflow_provider_exa.standin import StandIn  # noqa: E402


@pytest.fixture(autouse=True)
def _fresh_warnings() -> None:
    warn_once.cache_clear()


@pytest.fixture
def exa(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A stand-in with the monitor ``mon_a``, which the connection ``exa_default`` leads to."""
    with StandIn(api_key="standin-key-1234") as server:
        server.add_monitor("mon_a")
        monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", server.connection())
        yield server


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that retries would have waited, instead of the waits."""
    pauses: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", pauses.append)
    return pauses
