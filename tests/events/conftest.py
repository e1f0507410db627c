"""Airflow's Variables in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_exa.events import store, stream
from airflow_provider_exa.standin import StandIn
from airflow_provider_exa.timing import use_timing
from tests.events.triggerer import TIMING, AssetStates, Variables


@pytest.fixture
def asset_states(monkeypatch: pytest.MonkeyPatch) -> AssetStates:
    """Airflow's states of assets."""
    states = AssetStates()
    monkeypatch.setattr(stream, "AssetStateStoreAccessor", states)
    return states


@pytest.fixture
def variables(
    exa: StandIn, asset_states: AssetStates, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Variables]:
    """Variables in memory, and a package that is not patient."""
    kept = Variables(exa)
    monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection(retries=0))
    monkeypatch.setattr(stream, "Variable", kept)
    monkeypatch.setattr(store, "_is_watched", {})
    with use_timing(TIMING):
        yield kept
