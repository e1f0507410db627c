"""What every test may use: a running stand-in for Exa, short durations, and retries that do not wait."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.environment import isolate

# Before anything of Airflow's is imported: it makes a home with settings, logs and a database.
isolate(os.environ)
_home = tempfile.TemporaryDirectory(prefix="airflow-")
os.environ |= {"AIRFLOW_HOME": _home.name, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}

import croniter  # noqa: E402, F401 (its import starts a process, which must not be in a pure test)
import urllib3  # noqa: E402, F401 (its import binds a socket)

from airflow_provider_exa.protocol import page_size  # noqa: E402
from airflow_provider_exa.protocol.models import warn_once  # noqa: E402
from airflow_provider_exa.standin import StandIn  # noqa: E402
from airflow_provider_exa.timing import Timing, use_timing  # noqa: E402
from tests.kinds import KINDS, kind_of, only_pure  # noqa: E402

#: Durations for tests in one process: no jitter, short pauses. Limits that a test reaches only if it asks for
#: a long wait itself (``Retry-After``, the answer time) are the package's own.
IMPATIENT = Timing(
    default_pause=0.05,
    rate_limit_window=0.001,
    rate_recovery_interval=0.05,
    refresh_after_failure=0.1,
    first_poll_jitter=0.0,
    min_poll_interval=0.01,
    first_event_margin=-5.0,  # that is at once, as the workers' heartbeat is five seconds
    run_listed_within=0.5,
    run_listed_interval=0.02,
    replacement_delay=0.2,
    min_event_gap=0.02,
    confirmation_delay=0.01,
    max_trouble_interval=0.2,
    permanent_error_interval=0.2,
    variable_retry_interval=0.05,
)


# A busy machine is slow, which is no failure; and a test finds the same today as tomorrow.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run tests in an order that SEED decides")


def pytest_configure(config: pytest.Config) -> None:
    for kind, meaning in KINDS.items():
        config.addinivalue_line("markers", f"{kind}: {meaning}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if (kind := kind_of(item)) not in {mark.name for mark in item.iter_markers()}:
            item.add_marker(kind)
    if (seed := config.getoption("--shuffle")) is not None:
        random.Random(seed).shuffle(items)  # noqa: S311 (no secret)


@pytest.fixture(autouse=True)
def _pure(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a pure test that opens a socket or starts a process, even where its error is caught."""
    if not request.node.get_closest_marker("pure"):
        yield
        return
    with only_pure() as offences:
        yield
    assert not offences, "This pure test needs another kind: it did " + "; ".join(offences)


@pytest.fixture
def impatience() -> Timing:
    """The durations that are in force; a module that needs others overrides this fixture."""
    return IMPATIENT


@pytest.fixture(autouse=True)
def _timing(request: pytest.FixtureRequest, impatience: Timing) -> Iterator[None]:
    if request.node.get_closest_marker("e2e"):
        yield
        return
    with use_timing(impatience):
        yield


@pytest.fixture(autouse=True)
def _fresh_warnings() -> None:
    warn_once.cache_clear()
    page_size._page_sizes.clear()


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
