"""The client of a worker: its deadline, its retries, and its connection."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowNotFoundException

from airflow_provider_exa.client.client import Client
from airflow_provider_exa.protocol.errors import (
    ExaError,
    ExaInputError,
    ExaPermanentError,
    ExaTransientError,
)
from airflow_provider_exa.protocol.messages import Request, ask
from airflow_provider_exa.standin import Fault, StandIn
from airflow_provider_exa.timing import Timing, use_timing
from tests.client.conftest import RENEWALS_THAT_FAIL, Speaker, Wire, beside, monitor

KEY = "standin-key-1234"


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Changes the connection ``exa_default``."""

    def connect(host: str, password: str = KEY, **extra: Any) -> None:
        connection = {"conn_type": "exa", "host": host, "password": password, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", json.dumps(connection))

    return connect


# --- the deadline ---------------------------------------------------------------------------------


def test_a_retry_that_would_start_too_late_is_not_waited_for(exa: StandIn) -> None:
    """The last error is raised at once, as Exa asked for a longer wait than there is time."""
    exa.fail(Fault(status=503, retry_after="30", times=None))
    began = time.monotonic()
    with closing(Client("exa_default")) as client, pytest.raises(ExaTransientError, match="answered 503"):
        client.call(monitor(), deadline=began + 2)
    assert time.monotonic() - began < 1
    assert len(exa.requests) == 1


def test_no_answer_outlasts_the_deadline(wire: Callable[..., Wire], connect: Callable[..., None]) -> None:
    """A connection that allows half a minute gets what is left, and no retry after it."""
    connect(wire(script=Speaker.hang).url, timeout=30)
    began = time.monotonic()
    with closing(Client("exa_default")) as client, pytest.raises(ExaTransientError, match="ReadTimeout"):
        client.call(monitor(), deadline=began + 1.2)
    assert 1 < time.monotonic() - began < 2


def test_a_deadline_that_has_passed_leaves_time_for_one_request(exa: StandIn) -> None:
    """A poke that starts late still polls."""
    with closing(Client("exa_default")) as client:
        assert client.call(monitor(), deadline=time.monotonic() - 5) == "mon_a"


def test_without_a_deadline_retries_go_on(exa: StandIn, no_pauses: list[float]) -> None:
    """As the connection says."""
    exa.fail(Fault(times=4))
    with closing(Client("exa_default")) as client:
        assert client.call(monitor()) == "mon_a"
    assert len(no_pauses) == 4


def test_the_timeout_of_the_connection_counts_whole(exa: StandIn, connect: Callable[..., None]) -> None:
    """In a worker no bound of the triggerer's shortens it."""
    connect(exa.url, timeout=5)
    exa.fail(Fault(kind="hang"))
    began = time.monotonic()
    with (
        use_timing(Timing(max_triggerer_timeout=0.1)),
        closing(Client("exa_default")) as client,
        pytest.raises(ExaTransientError, match="ReadTimeout"),
    ):
        client.call(monitor(), deadline=began + 1.1, retries=0)
    assert time.monotonic() - began >= 1


def test_retries_may_be_given(exa: StandIn, no_pauses: list[float]) -> None:
    """They beat those of the connection."""
    exa.fail(Fault(times=None))
    with closing(Client("exa_default")) as client, pytest.raises(ExaTransientError):
        client.call(monitor(), retries=1)
    assert len(exa.requests) == 2


def test_calls_beside_each_other_follow_each_other(exa: StandIn) -> None:
    """Each gives its result or its error."""
    with closing(Client("exa_default")) as client:
        found, missing = client.call(beside([monitor(), monitor("mon_none")]))
    assert found == "mon_a"
    assert isinstance(missing, ExaPermanentError)
    assert missing.status == 404


# --- the connection -------------------------------------------------------------------------------


def test_a_lookup_that_fails_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's own exception passes, so that a task has its retries: a secrets backend may be down."""
    with pytest.raises(AirflowNotFoundException) as caught:
        Client("exa_none").call(monitor())
    assert not isinstance(caught.value, AirflowFailException)


def test_a_connection_that_cannot_be_used_is_a_verdict(connect: Callable[..., None]) -> None:
    """It was found, and lacks its key."""
    connect("", password="")
    with pytest.raises(ExaInputError, match="'exa_default' has no API key"):
        Client("exa_default").call(monitor())


def test_a_corrected_scheme_is_taken_up_at_once(
    wire: Callable[..., Wire], exa: StandIn, connect: Callable[..., None]
) -> None:
    """No request reached Exa before, so even a POST is sent again."""
    speaks_tls = wire(b"\x15\x03\x03\0\x02\x02\x46\r\n")
    connect(speaks_tls.url)
    trigger = ask(Request("/monitors/mon_a/trigger", method="POST"), lambda body: body["triggered"])
    with closing(Client("exa_default")) as client:
        assert client.settings.base_url == speaks_tls.url
        connect(exa.url)
        assert client.call(trigger) is True
    assert len(exa.requests) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": "http://127.0.0.1:9"},
        {"password": "another-key-5678"},
        {"proxy": "http://127.0.0.1:9"},
        {"host": "/nowhere"},
    ],
    ids=["host", "key", "proxy", "path"],
)
def test_a_corrected_connection_is_taken_up_at_once(
    exa: StandIn, connect: Callable[..., None], no_pauses: list[float], wrong: dict[str, Any]
) -> None:
    """The request that met the fault is sent again to the right place, before any pause."""
    host = wrong.pop("host", "")
    connect(host if "://" in host else exa.url + host, **wrong)
    with closing(Client("exa_default")) as client:
        assert client.settings.retries == 4
        connect(exa.url)
        assert client.call(monitor()) == "mon_a"
    assert no_pauses == []


def test_a_connection_in_use_is_read_anew_anyway(exa: StandIn, connect: Callable[..., None]) -> None:
    """A changed one is taken up even where the old one works."""
    with (
        StandIn(api_key=exa.api_key) as other,
        use_timing(Timing(refresh_interval=0.1)),
        closing(Client("exa_default")) as client,
    ):
        other.add_monitor("mon_a")
        client.call(monitor())
        connect(other.url)
        time.sleep(0.12)
        client.call(monitor())
        assert (len(exa.requests), len(other.requests)) == (1, 1)


@pytest.mark.parametrize("change", RENEWALS_THAT_FAIL)
def test_a_renewal_that_fails_keeps_the_settings_in_use(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    """It is warned about once."""
    with closing(Client("exa_default")) as client:
        client.call(monitor())
        RENEWALS_THAT_FAIL[change](monkeypatch)
        for _ in range(2):
            with pytest.raises(ExaPermanentError):
                client.call(monitor("mon_none"))
        assert client.call(monitor()) == "mon_a"
    assert caplog.text.count("cannot be read anew") == 1


@pytest.mark.parametrize(
    ("proxy", "variable"),
    [
        ("http://user:secret-word@proxy.corp:99999", None),
        ("http://user:secret-word@proxy.corp:port", None),
        ("http://user:secret-word@", None),
        ("gopher://user:secret-word@proxy.corp:70", None),
        ("http://user:secret-w\u043erd@proxy.corp", None),
        ("http://user:secret-w%D0%BErd@proxy.corp", None),
        ("http://us\u0435r:secret-word@proxy.corp", None),
        ("https://user:secret-\u4e2d@proxy.corp", None),
        ("http://user:secret-w\u043erd@proxy.corp", "HTTP_PROXY"),
        ("http://user:secret-word@proxy.corp:99999", "HTTP_PROXY"),
        ("http://user:secret-word@proxy.corp:port", "ALL_PROXY"),
        ("gopher://user:secret-word@proxy.corp", "http_proxy"),
        ("user:secret-word@proxy.corp:99999", "HTTP_PROXY"),
    ],
)
def test_a_proxy_that_cannot_be_one_is_refused_at_once(
    *,
    connect: Callable[..., None],
    no_pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
    proxy: str,
    variable: str | None,
) -> None:
    """The error names the setting, and not the password."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, proxy)
        connect("http://exa.invalid")
    else:
        connect("http://exa.invalid", proxy=proxy)
    with pytest.raises(ExaInputError, match="HTTP_PROXY" if variable else "extra 'proxy'") as caught:
        Client("exa_default").call(monitor())
    assert "secret" not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
    assert no_pauses == []


def test_a_proxy_in_trouble_does_not_tell_its_password(
    wire: Callable[..., Wire], connect: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in the URL, nor where the proxy itself repeats it."""
    proxy = wire(b"HTTP/1.1 502 Bad user:secret-word@ dXNlcjpzZWNyZXQtd29yZA==\r\nContent-Length: 17\r\n\r\n"
                 b"secret-word is it")  # fmt: skip
    for host in ("http://exa.invalid", "https://exa.invalid"):
        connect(host, proxy=proxy.url.replace("//", "//user:secret-word@"), retries=0)
        with pytest.raises(ExaError) as caught:
            Client("exa_default").call(monitor())
        told = f"{caught.value!r} {caught.value.__context__!r} {caplog.text}"
        assert "secret" not in told
        assert "dXNlcjpzZWNyZXQtd29yZA" not in told
