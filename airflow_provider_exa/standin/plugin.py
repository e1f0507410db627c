"""The pytest fixture `exa_standin`, for tests of DAGs that wait on Exa."""

from collections.abc import Iterator

import pytest

from airflow_provider_exa.standin import StandIn


@pytest.fixture
def exa_standin(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Run a stand-in for Exa, and point the connection `exa_default` to it."""
    with StandIn() as exa:
        monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection())
        yield exa
