"""The pytest fixture `exa_standin`, for tests of DAGs that wait on Exa."""

from collections.abc import Iterator

import pytest

from airflow_provider_exa.standin import StandIn


@pytest.fixture
def exa_standin(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A running stand-in for Exa, to which the connection `exa_default` leads."""
    with StandIn() as exa:
        monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection())
        yield exa
