"""A stand-in, and a session that asks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from airflow_provider_exa.standin import StandIn
from tests.standin.asking import RUNS


@pytest.fixture
def exa() -> Iterator[StandIn]:
    with StandIn() as standin:
        yield standin


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        session.headers["x-api-key"] = "standin-key"
        yield session


@pytest.fixture
def ask(exa: StandIn, session: requests.Session) -> Callable[..., requests.Response]:
    def ask(path: str = RUNS, method: str = "GET", **options: Any) -> requests.Response:
        return session.request(method, exa.url + path, **{"timeout": 10, "allow_redirects": False} | options)

    return ask
