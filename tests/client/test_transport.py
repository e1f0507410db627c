"""How a request reaches Exa: what is sent, when it is sent again, and what never leaves the connection."""

from __future__ import annotations

import gzip
import json
import logging
import platform
import re
import ssl
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from tenacity import Retrying

from airflow_provider_exa.client.retries import retry_policy
from airflow_provider_exa.client.settings import MAX_TIMEOUT, ConnectionSettings
from airflow_provider_exa.client.transport import Transport
from airflow_provider_exa.hooks import ExaHook
from airflow_provider_exa.protocol.errors import (
    ExaError,
    ExaHugeAnswerError,
    ExaPermanentError,
    ExaTransientError,
)
from airflow_provider_exa.protocol.messages import Request, Response
from airflow_provider_exa.standin import Fault, StandIn
from tests.client.conftest import Wire

KEY = "standin/key-1234"
REST = "Connection: close\r\nContent-Length: 0\r\n\r\n"
MONITOR = Request("/websets/v0/monitors/mon_a")
FINE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
NOWHERE = "http://127.0.0.1:9"

Send = Callable[..., Response]


@pytest.fixture
def send(exa: StandIn) -> Iterator[Send]:
    """Sends a request for an account; what of the account is not given is the stand-in's."""
    transports: list[Transport] = []

    def send(request: Request = MONITOR, **account: Any) -> Response:
        transport = Transport(ConnectionSettings(**{"base_url": exa.url, "api_key": exa.api_key} | account))
        transports.append(transport)
        return Retrying(**retry_policy(transport.settings.retries))(transport.send, request)

    yield send
    for transport in transports:
        transport.close()


@pytest.fixture
def secure(wire: Callable[..., Wire], certificate: Path) -> Wire:
    """A server with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return wire(FINE, tls=context)


# --- what is sent ---------------------------------------------------------------------------------


def test_a_request_says_who_asks_and_holds_the_key_once(exa: StandIn, send: Send) -> None:
    """The key is in its own header, and the agent names the versions that are installed."""
    send()
    (request,) = exa.requests
    assert (request.method, request.path, request.query) == ("GET", MONITOR.path, {})
    assert request.headers["x-api-key"] == exa.api_key
    assert "authorization" not in request.headers
    assert request.headers["user-agent"] == (
        f"airflow-provider-exa/{version('airflow-provider-exa')} "
        f"(Airflow {version('apache-airflow')}; Python {platform.python_version()})"
    )


def test_requests_share_a_connection(exa: StandIn) -> None:
    """One session serves every call of a hook, refused ones included."""
    hook = ExaHook()
    for monitor_id in ("mon_a", "mon_none", "mon_a"):
        with suppress(ExaPermanentError):
            hook.get_monitor(monitor_id)
    assert (len(exa.requests), exa.connections) == (3, 1)


def test_netrc_is_not_read(exa: StandIn, send: Send, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ~/.netrc has for the host is not sent beside the key, nor instead of it."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password secret")
    monkeypatch.setenv("NETRC", str(netrc))
    send()
    assert exa.requests[0].headers.keys() & {"authorization", "x-api-key"} == {"x-api-key"}


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("given", ["ca_file", "verify"])
def test_the_accounts_certificates_beat_the_environments(
    *,
    secure: Wire,
    send: Send,
    certificate: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    given: str,
) -> None:
    """``verify=False`` and a CA file reach the request although the environment names another bundle."""
    monkeypatch.setenv(variable, str(tmp_path / "none.pem"))
    verify = str(certificate) if given == "ca_file" else False
    assert send(base_url=secure.url, verify=verify).status == 200


def test_an_unknown_certificate_is_refused(secure: Wire, send: Send) -> None:
    """By default the server has to prove who it is before it gets the key."""
    with pytest.raises(ExaTransientError, match=r"gave no answer.*certificate verify failed"):
        send(base_url=secure.url, retries=0)
    assert secure.heads == []


@pytest.mark.parametrize(
    ("base_url", "asked"),
    [
        ("http://exa.invalid", "GET http://exa.invalid/websets/v0/monitors/mon_a HTTP/1."),
        ("https://exa.invalid", "CONNECT exa.invalid:443 HTTP/1."),
    ],
)
def test_the_accounts_proxy_beats_the_environments(
    *,
    exa: StandIn,
    send: Send,
    wire: Callable[..., Wire],
    monkeypatch: pytest.MonkeyPatch,
    base_url: str,
    asked: str,
) -> None:
    """Every request goes through it, whatever the environment says, and TLS keeps the key from it."""
    proxy = wire(FINE)
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(variable, NOWHERE)
    monkeypatch.setenv("no_proxy", "*")
    with suppress(ExaTransientError):  # the proxy opens no tunnel
        send(base_url=base_url, proxy=proxy.url.replace("//", "//user:secret@"), retries=0)
    head = proxy.heads[0]
    assert head.startswith(asked)
    assert "Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=" in head
    assert (exa.api_key in head) is base_url.startswith("http:")


@pytest.mark.parametrize("proxy", [NOWHERE, "http://proxy.corp:port", "ftp://proxy.corp", "proxy.corp"])
def test_a_proxy_that_cannot_be_used_is_an_error_in_words(send: Send, proxy: str) -> None:
    """Whatever is wrong with it, the error is this package's and does not tell the proxy's password."""
    with pytest.raises(ExaError, match=r"[Pp]roxy") as caught:
        send(proxy=proxy.replace("//", "//user:secret@"), retries=0)
    assert "secret" not in str(caught.value)


def test_without_a_proxy_the_environments_is_used(
    send: Send, wire: Callable[..., Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that reaches the world through a proxy needs no setting."""
    proxy = wire(FINE)
    monkeypatch.setenv("http_proxy", proxy.url)
    assert send(base_url="http://exa.invalid").status == 200
    assert len(proxy.heads) == 1


# --- when it is sent again ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        *(Fault(status=status) for status in (408, 429, 500, 502, 503, 504)),
        Fault(kind="reset"),
        Fault(kind="cut"),
        Fault(kind="hang"),
    ],
    ids=lambda fault: f"{fault.kind} {fault.status}",
)
def test_a_passing_fault_is_waited_out(
    exa: StandIn, no_pauses: list[float], monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    """No answer, half an answer, 408, 429 and 5xx are asked again after a short wait."""
    monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection(timeout=0.5))
    exa.fail(fault)
    assert ExaHook().get_monitor("mon_a").id == "mon_a"
    assert (len(exa.requests), len(no_pauses)) == (2, 1)
    assert 0 <= no_pauses[0] <= 1


@pytest.mark.parametrize("status", [400, 402, 403, 404, 409, 422])
def test_a_refusal_is_not_asked_again(exa: StandIn, no_pauses: list[float], status: int) -> None:
    """Asking again mends none of these, so the first answer is the error, in Exa's words."""
    exa.fail(Fault(status=status, body=b'{"message": "Not like this", "requestId": "req_7"}', times=None))
    with pytest.raises(
        ExaPermanentError, match=rf"Exa answered {status}: 'Not like this' \(GET http.*, request id req_"
    ):
        ExaHook().get_monitor("mon_a")
    assert (len(exa.requests), no_pauses) == (1, [])


@pytest.mark.parametrize("extra", [{"retries": 0}, {"retries": 2}, {}])
@pytest.mark.parametrize("fault", [Fault(times=None), Fault(kind="reset", times=None)])
def test_the_tries_end(
    *,
    exa: StandIn,
    no_pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    extra: dict[str, int],
    fault: Fault,
) -> None:
    """A request is sent once and ``retries`` times more, each announced in the log, with growing waits."""
    monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection(**extra))
    exa.fail(fault)
    with pytest.raises(ExaTransientError, match=r"answered 503|gave no answer"):
        ExaHook().get_monitor("mon_a")
    retries = extra.get("retries", 4)
    assert (len(exa.requests), len(no_pauses)) == (retries + 1, retries)
    assert all(seconds <= 2**place for place, seconds in enumerate(no_pauses))
    assert caplog.text.count("Asking again in ") == retries


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("7", 7, 7),
        ("2.5", 2.5, 2.5),
        ("3600", 60, 60),
        ("inf", 60, 60),
        (timedelta(seconds=30), 28, 30),
        (timedelta(hours=1), 60, 60),
        (timedelta(hours=-1), 0, 1),
        ("-5", 0, 1),
        ("0", 0, 1),
        ("nan", 0, 1),
        ("soon", 0, 1),
    ],
    ids=str,
)
def test_retry_after_is_a_floor_of_a_minute_at_most(
    *, exa: StandIn, no_pauses: list[float], status: int, header: str | timedelta, least: float, most: float
) -> None:
    """Seconds or a date; what is neither, or has passed, leaves it to the backoff."""
    if isinstance(header, timedelta):
        header = format_datetime(datetime.now(UTC) + header, usegmt=True)
    exa.fail(Fault(status=status, retry_after=header))
    ExaHook().get_monitor("mon_a")
    assert len(no_pauses) == 1
    assert least <= no_pauses[0] <= most


@pytest.mark.parametrize(
    ("fault", "requests"),
    [
        (Fault(status=429), 2),
        (Fault(status=503), 2),
        (Fault(status=500), 1),
        (Fault(status=504), 1),
        (Fault(kind="reset"), 1),
        (Fault(kind="cut"), 1),
    ],
    ids=lambda value: f"{value.kind} {value.status}" if isinstance(value, Fault) else "",
)
def test_a_post_is_repeated_only_where_it_was_not_processed(
    exa: StandIn, send: Send, no_pauses: list[float], fault: Fault, requests: int
) -> None:
    """Exa says so with 429 and 503; after anything else the run may have been started."""
    exa.fail(fault)
    with suppress(ExaTransientError):
        send(Request("/websets/v0/monitors/mon_a/trigger", method="POST"))
    assert [request.method for request in exa.requests] == ["POST"] * requests


@pytest.mark.parametrize("kind", ["hang", "drip"])
def test_a_slow_server_costs_no_more_than_the_timeout(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Whether nothing comes or a byte now and then, which does not put it off, the hook gives up."""
    monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection(timeout=0.5, retries=0))
    exa.fail(Fault(kind=kind))
    start = time.monotonic()
    with pytest.raises(ExaTransientError, match="gave no answer"):
        ExaHook().get_monitor("mon_a")
    assert 0.4 < time.monotonic() - start < 3


def test_a_socket_takes_the_longest_timeout(exa: StandIn, send: Send) -> None:
    """A connection may have none that ends in an error of a library."""
    assert send(timeout=MAX_TIMEOUT).status == 200


# --- what comes back ------------------------------------------------------------------------------


def test_a_redirect_is_never_followed(exa: StandIn) -> None:
    """The other host is not asked, and so does not see the key."""
    with StandIn(api_key=exa.api_key) as other:
        other.add_monitor("mon_a")
        exa.fail(Fault(kind="redirect", location=f"{other.url}{MONITOR.path}"))
        with pytest.raises(ExaPermanentError, match=r"answered 302, a redirect .*redirects are not followed"):
            ExaHook().get_monitor("mon_a")
        assert (len(exa.requests), other.connections) == (1, 0)


def test_a_huge_answer_is_cut_off(exa: StandIn) -> None:
    """After 16 MiB it is an error, and it is not asked for again."""
    exa.fail(Fault(kind="huge"))
    with pytest.raises(ExaHugeAnswerError, match="more than 16 MiB"):
        ExaHook().get_monitor("mon_a")
    assert len(exa.requests) == 1


@pytest.mark.parametrize(("size", "fits"), [(2**24, True), (2**24 + 1, False)])
def test_the_limit_is_for_what_is_unpacked(
    send: Send, wire: Callable[..., Wire], size: int, fits: bool
) -> None:
    """A small answer that unpacks to a large one is cut off like a large one."""
    packed = gzip.compress(b"1".rjust(size))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    server = wire(head, packed)
    if fits:
        assert len(send(base_url=server.url).body) == size
    else:
        with pytest.raises(ExaHugeAnswerError, match="more than 16 MiB"):
            send(base_url=server.url)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Padding: x\r\n" * 200 + b"\r\n",
    ],
    ids=["no HTTP", "nothing", "no gzip", "cut chunks", "200 headers"],
)
def test_what_is_not_http_is_no_answer(send: Send, wire: Callable[..., Wire], answer: bytes) -> None:
    """Whatever the libraries below make of it, it is one of this package's errors."""
    with pytest.raises(ExaTransientError, match=r"^Exa gave no answer \(\w+: .*; GET http://"):
        send(base_url=wire(answer).url, retries=0)


# --- the key --------------------------------------------------------------------------------------

ECHOES = {
    "page": Fault(status=200, body=f"<p>no such key: {KEY}</p>".encode(), times=None),
    "words": Fault(status=404, body=json.dumps({"message": f"bad {KEY}"}).encode(), times=None),
    "request id": Fault(status=403, body=json.dumps({"requestId": KEY}).encode(), times=None),
    "value": Fault(status=200, body=json.dumps({"id": 5, "status": KEY}).encode(), times=None),
    "retried": Fault(status=503, body=KEY.encode() * 9, times=None),
    "escaped slash": Fault(status=404, body=json.dumps({"error": KEY}).replace("/", r"\/").encode()),
    "escaped letter": Fault(status=404, body=json.dumps({"error": KEY}).replace("y", r"\u0079").encode()),
}


@pytest.mark.parametrize("echo", ECHOES)
def test_a_key_that_a_server_echoes_is_told_to_nobody(
    exa: StandIn,
    no_pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    echo: str,
) -> None:
    """It is in no error, no traceback, no log record and no URL, whatever the body does with it."""
    exa.api_key = KEY
    monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection())
    exa.fail(ECHOES[echo])
    with caplog.at_level(logging.DEBUG), pytest.raises(ExaError) as caught:
        ExaHook().get_monitor("mon_a")
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert "***" in str(caught.value)
    assert KEY not in caplog.text
    assert not [request for request in exa.requests if KEY in f"{request.path}{request.query}"]
    assert exa.requests[0].headers["x-api-key"] == KEY


@pytest.mark.parametrize(
    "answer",
    [
        f"HTTP/1.1 404 Not Found\r\nX-Request-Id: {KEY}\r\n{REST}",
        f"HTTP/1.1 503 Busy\r\nRetry-After: {KEY}\r\nX-Request-Id: {KEY}\r\n{REST}",
        f"HTTP/1.1 302 Found\r\nLocation: /?key={KEY}\r\nX-Request-Id: {KEY}\r\n{REST}",
        f"NOTHTTP {KEY}\r\n",
    ],
    ids=["refused", "busy", "redirect", "no HTTP"],
)
def test_a_key_in_a_header_is_told_to_nobody(
    wire: Callable[..., Wire],
    no_pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    answer: str,
) -> None:
    """A server that puts it into a header, or into what is no HTTP, spreads it no further."""
    connection = {"conn_type": "exa", "host": wire(answer.encode()).url, "password": KEY}
    monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", json.dumps(connection))
    with caplog.at_level(logging.DEBUG), pytest.raises(ExaError) as caught:
        ExaHook().get_monitor("mon_a")
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert "***" in str(caught.value)
    assert KEY not in caplog.text


@pytest.mark.parametrize("show", [repr, str])
def test_nothing_shows_a_secret(exa: StandIn, show: Callable[[object], str]) -> None:
    """Neither the key nor the password of a proxy is in what a log line would say of these objects."""
    settings = ConnectionSettings(exa.url, exa.api_key, proxy="http://user:secret@proxy.corp")
    hook = ExaHook()
    assert hook.client.settings.api_key == exa.api_key
    for thing in (settings, Transport(settings), hook, hook.get_conn(), hook.client.settings):
        assert not re.search(f"{exa.api_key}|secret", show(thing))


def test_a_short_made_up_key_leaves_answers_alone(exa: StandIn, send: Send) -> None:
    """What is taken out of answers is no part of a word: a stand-in's key may be one letter."""
    exa.api_key = "m"
    assert json.loads(send().body)["id"] == "mon_a"
