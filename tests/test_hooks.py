"""The hook: an Airflow connection turned into calls to Exa."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any, Literal

import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_exa.hooks import ExaHook
from airflow_provider_exa.protocol.errors import (
    ExaBadAnswerError,
    ExaInputError,
    ExaNotStartedError,
    ExaPermanentError,
    ExaTransientError,
)
from airflow_provider_exa.standin import Fault, StandIn

KEY = "standin-key-1234"
START = pendulum.datetime(2026, 1, 31)
DEFAULTS = {
    "base_url": "https://api.exa.ai",
    "api_key": KEY,
    "timeout": 30.0,
    "retries": 4,
    "verify": True,
    "proxy": None,
    "conn_id": "exa_a",
}


@pytest.fixture
def connect(exa: StandIn, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ExaHook]:
    """Changes fields of the connection to the stand-in; returns a hook that uses it."""

    def connect(**fields: Any) -> ExaHook:
        monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", json.dumps(json.loads(exa.connection()) | fields))
        return ExaHook()

    return connect


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Reads the connection ``exa_a``, which has these fields and a key."""

    def account(**fields: Any) -> dict[str, Any]:
        connection = {"conn_type": "exa", "password": KEY} | fields
        if "extra" in fields:
            connection["extra"] = json.dumps(fields["extra"])
        monkeypatch.setenv("AIRFLOW_CONN_EXA_A", json.dumps(connection))
        return asdict(ExaHook("exa_a").client.settings)

    return account


Read = Callable[..., dict[str, Any]]


# --- the connection -------------------------------------------------------------------------------


def test_a_key_is_all_that_a_connection_needs(account: Read) -> None:
    """Everything else has a default, and white space around a pasted key does not count."""
    assert account(password=f" {KEY}\n") == DEFAULTS


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"host": ""}, "https://api.exa.ai"),
        ({"host": "api.exa.ai"}, "https://api.exa.ai"),
        ({"host": "https://api.exa.ai/"}, "https://api.exa.ai"),
        ({"host": "http://127.0.0.1:8080"}, "http://127.0.0.1:8080"),
        ({"host": "127.0.0.1", "port": 8080, "schema": "http"}, "http://127.0.0.1:8080"),
        ({"host": "[::1]", "port": 8080, "schema": "http"}, "http://[::1]:8080"),
        ({"host": "https://api.exa.ai", "schema": "http"}, "https://api.exa.ai"),
        ({"host": "https://gateway.corp/exa/"}, "https://gateway.corp/exa"),
        ({"host": " api.exa.ai "}, "https://api.exa.ai"),
        ({"host": "https://api.exa.ai\n"}, "https://api.exa.ai"),
        ({"host": "api.exa.ai", "schema": " https "}, "https://api.exa.ai"),
        ({"host": "::1", "port": 8080, "schema": "http"}, "http://[::1]:8080"),
        ({"host": "http://[::1]:8080"}, "http://[::1]:8080"),
        ({"host": "::1"}, "https://[::1]"),
        ({"host": "gateway.corp/exa", "port": 8443}, "https://gateway.corp:8443/exa"),
        ({"host": "https://gateway.corp:1234", "port": 8443}, "https://gateway.corp:1234"),
    ],
    ids=str,
)
def test_the_host_may_be_given_in_any_common_way(account: Read, fields: dict[str, Any], url: str) -> None:
    """With or without a scheme, a port and a path; https unless it says otherwise."""
    assert account(**fields)["base_url"] == url


@pytest.mark.parametrize(
    "host",
    [
        f"https://user:{KEY}@api.exa.ai",
        f"{KEY}@api.exa.ai",
        "ftp://api.exa.ai",
        "https://",
        "/websets",
        "api.exa.ai:port",
        "api.exa.ai:99999",
        f"api.exa.ai?x-api-key={KEY}",
        f"api.exa.ai#{KEY}",
        "http://[::1",
        "api .exa.ai",
        "https://api. exa.ai",
        "*.exa.ai",
        ".exa.ai",
        "api..exa.ai",
        f"{'a' * 64}.exa.ai",
        "api.exa.ai:0",
        "https://[exa]",
    ],
)
def test_an_unusable_host_is_an_error(account: Read, host: str) -> None:
    """It names the connection, and whatever secret was put there is not in it."""
    with pytest.raises(ExaInputError, match="'exa_a' has an unusable host: ") as caught:
        account(host=host)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("extra", "read"),
    [
        ({"timeout": 5}, {"timeout": 5.0}),
        ({"timeout": "2.5", "retries": "0"}, {"timeout": 2.5, "retries": 0}),
        ({"retries": 7}, {"retries": 7}),
        ({"verify": False}, {"verify": False}),
        ({"verify": "False"}, {"verify": False}),
        ({"verify": "true"}, {}),
        ({"ca_file": __file__}, {"verify": __file__}),
        ({"ca_file": __file__, "verify": False}, {"verify": False}),
        ({"proxy": "http://proxy.corp:3128"}, {"proxy": "http://proxy.corp:3128"}),
        ({"timeout": "", "retries": None, "verify": "", "ca_file": "", "proxy": ""}, {}),
    ],
    ids=str,
)
def test_an_extra_changes_its_setting(account: Read, extra: dict[str, Any], read: dict[str, Any]) -> None:
    """As JSON or as text, and a field that the form left empty is not given."""
    assert account(extra=extra) == DEFAULTS | read


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *product(["timeout"], (0, -1, "soon", "nan", float("inf"), [], 1_000_001, 1e12, "1e20", 10**400)),
        *product(["retries"], (-1, "few", "2.5", 2.5, [], float("inf"))),
        *product(["verify"], ("maybe", 2, [], "/etc/ca.pem")),
        *product(["ca_file"], ("/nonexistent", False, [])),
        *product(
            ["proxy"], ("http://", "proxy.corp", 3128, "ftp://proxy.corp", "http://p:99999", "http://p:x")
        ),
    ],
    ids=lambda value: str(value)[:10],
)
def test_a_bad_extra_is_an_error_that_names_it(account: Read, name: str, value: object) -> None:
    """It says which connection, which extra, and what it has to be."""
    with pytest.raises(ExaInputError, match=f"'exa_a' has the extra '{name}', which must be "):
        account(extra={name: value})


@pytest.mark.parametrize("extra", [[1, 2], "text", 5])
def test_an_extra_that_is_no_object_is_an_error_in_words(account: Read, extra: object) -> None:
    """JSON of the wrong kind is the user's mistake, not a traceback of this package's."""
    with pytest.raises(ExaInputError, match="'exa_a'"):
        account(extra=extra)


def test_an_unknown_extra_is_warned_about(account: Read, caplog: pytest.LogCaptureFixture) -> None:
    """A slip of the pen is ignored but not in silence, and its value is not told."""
    assert account(extra={"time_out": 5, "api_key": "another-secret"}) == DEFAULTS
    assert ["'time_out'" in caplog.messages[0], "'api_key'" in caplog.messages[1]] == [True, True]
    assert "another-secret" not in caplog.text


def test_a_connection_may_be_a_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's other way to write one gives every extra as text."""
    monkeypatch.setenv(
        "AIRFLOW_CONN_EXA_DEFAULT", f"exa://:{KEY}@gateway.corp:8443/?timeout=5&retries=2&verify=false"
    )
    assert asdict(ExaHook().client.settings) == DEFAULTS | {
        "conn_id": "exa_default",
        "base_url": "https://gateway.corp:8443",
        "timeout": 5.0,
        "retries": 2,
        "verify": False,
    }


@pytest.mark.parametrize("host", ["[::1]", "%5B%3A%3A1%5D", "http%3A%2F%2F[::1]"])
def test_a_uri_may_name_an_address_of_ipv6(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """Airflow's way to read it loses the brackets."""
    monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", f"exa://:{KEY}@{host}:8080/http")
    assert ExaHook().client.settings.base_url == "http://[::1]:8080"


def test_a_missing_connection_is_an_error_in_words() -> None:
    """It names the connection that was looked for, and the test of it says the same."""
    hook = ExaHook("exa_none")
    with pytest.raises(AirflowNotFoundException, match="exa_none"):
        hook.get_monitor("mon_a")
    assert hook.test_connection()[0] is False


@pytest.mark.parametrize("password", [None, "", "  \n"])
def test_a_missing_key_names_the_connection(
    exa: StandIn, connect: Callable[..., ExaHook], password: str | None
) -> None:
    """The error says where to put the key, and Exa is not asked."""
    told = "The Airflow connection 'exa_default' has no API key; put it into the connection's password."
    hook = connect(password=password)
    with pytest.raises(ExaInputError) as caught:
        hook.get_monitor("mon_a")
    assert str(caught.value) == told
    assert hook.test_connection() == (False, told)
    assert exa.requests == []


@pytest.mark.parametrize(
    "password", ["half\nbetter-half", "half\r\nX-Other: half", "clé-1234567", "tab\tkey\x00"]
)
def test_a_key_that_no_header_can_hold_is_not_told(
    exa: StandIn, connect: Callable[..., ExaHook], password: str
) -> None:
    """The error names the connection and holds no part of the key."""
    with pytest.raises(ExaInputError, match="'exa_default' has a password with characters") as caught:
        connect(password=password).get_monitor("mon_a")
    assert not any(part in str(caught.value) for part in password.split())
    assert exa.requests == []


@pytest.mark.parametrize(("content", "words"), [(None, "'ca_file'"), ("no certificate", "certificate")])
def test_a_ca_file_that_cannot_be_used_is_an_error_in_words(
    exa: StandIn, connect: Callable[..., ExaHook], tmp_path: Path, content: str | None, words: str
) -> None:
    """A missing file or one of another kind is told like any other trouble with the connection."""
    path = tmp_path / "ca.pem"
    if content:
        path.write_text(content)
    hook = connect(host=exa.url.replace("http", "https"), extra={"ca_file": str(path)})
    ok, message = hook.test_connection()
    assert not ok
    assert words in message


# --- test_connection ------------------------------------------------------------------------------


def test_a_good_connection_says_where_it_leads(exa: StandIn) -> None:
    """One monitor is asked for, once."""
    assert ExaHook().test_connection() == (True, f"{exa.url} accepted the API key.")
    assert [(request.path, request.query) for request in exa.requests] == [
        ("/websets/v0/monitors", {"limit": "1"})
    ]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(status=503), "answered 503: 'Service Unavailable'"),
        (Fault(status=429, retry_after="60"), "answered 429: 'Too Many Requests'"),
        (Fault(kind="html"), "Check that the host of connection 'exa_default' is Exa's API"),
        (Fault(kind="reset"), "gave no answer"),
    ],
    ids=lambda value: f"{value.kind} {value.status}" if isinstance(value, Fault) else "",
)
def test_trouble_is_told_at_once(exa: StandIn, no_pauses: list[float], fault: Fault, words: str) -> None:
    """Whoever pressed the button does not wait for retries."""
    exa.fail(fault)
    ok, message = ExaHook().test_connection()
    assert not ok
    assert words in message
    assert (len(exa.requests), no_pauses) == (1, [])


@pytest.mark.parametrize("api", ["websets", "search"])
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(status=401, body=b'{"error": "no access"}', times=None), "(401: 'no access'; GET "),
        (Fault(status=403, times=None), "answered 403: 'Forbidden'"),
        (Fault(kind="redirect", location="/login", times=None), "redirects are not followed"),
    ],
    ids=lambda value: f"{value.kind} {value.status}" if isinstance(value, Fault) else "",
)
def test_what_either_api_refuses_is_told_of_the_one_that_is_meant(
    exa: StandIn, api: str, fault: Fault, words: str
) -> None:
    """The other one, which is asked as well, has nothing to add."""
    exa.fail(fault)
    ok, message = ExaHook(api=api).test_connection()
    assert not ok
    assert words in message
    paths = ["/websets/v0/monitors", "/monitors"][:: 1 if api == "websets" else -1]
    assert [request.path for request in exa.requests] == paths
    assert f"GET {exa.url}{paths[0]}, " in message


def test_a_team_may_have_one_of_the_apis_alone(exa: StandIn) -> None:
    """Airflow's Test button cannot say which is meant, so a key that either accepts is good."""
    exa.fail(Fault(status=401, body=b'{"error": "no access"}', path="/websets/", times=None))
    ok, message = ExaHook().test_connection()
    assert ok
    told = f"{exa.url} accepted the API key for api='search', but not for api='websets': Exa "
    assert message.startswith(told)
    assert "(401: 'no access'; GET " in message


@pytest.mark.parametrize(
    ("status", "words"), [(400, "x-api-key header is invalid"), (401, "Invalid API key")]
)
def test_a_bad_key_is_told_in_exas_words(
    connect: Callable[..., ExaHook], exa: StandIn, status: Literal[400, 401], words: str
) -> None:
    """Both answers that Exa gives to one come with the advice to check it."""
    exa.bad_key_status = status
    ok, message = connect(password="another-key-5678").test_connection()
    assert not ok
    assert f"Exa refused the API key of connection 'exa_default' ({status}: '{words}'" in message
    assert "API key" in message
    assert "another-key-5678" not in message


def test_an_unreachable_host_is_told_at_once(connect: Callable[..., ExaHook], no_pauses: list[float]) -> None:
    """A closed port is reported with the URL that was asked."""
    ok, message = connect(host="http://127.0.0.1:9").test_connection()
    assert not ok
    assert message.startswith("Exa gave no answer (ConnectionRefusedError: ")
    assert "GET http://127.0.0.1:9/websets/v0/monitors)" in message
    assert no_pauses == []


# --- a rotated key --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401])
def test_a_key_rotated_in_the_connection_is_taken_up(
    exa: StandIn, connect: Callable[..., ExaHook], status: Literal[400, 401]
) -> None:
    """A long task goes on with the new key, at the cost of one request."""
    hook = ExaHook()
    hook.get_monitor("mon_a")
    exa.api_key, exa.bad_key_status = "another-key-5678", status
    connect(password="another-key-5678")
    assert [hook.get_monitor("mon_a").id for _ in range(2)] == ["mon_a", "mon_a"]
    assert [request.status for request in exa.requests] == [200, status, 200, 200]


@pytest.mark.parametrize("status", [400, 401])
@pytest.mark.parametrize(("password", "requests"), [(KEY, 1), ("third-key-9012", 2)])
def test_a_key_that_stays_bad_is_an_error(
    exa: StandIn, connect: Callable[..., ExaHook], status: Literal[400, 401], password: str, requests: int
) -> None:
    """Nothing is asked again if the connection has not changed; a new key that is bad too is tried once."""
    hook = ExaHook()
    assert hook.client.settings.api_key == KEY
    exa.api_key, exa.bad_key_status = "another-key-5678", status
    connect(password=password)
    with pytest.raises(ExaPermanentError, match=f"refused the API key .*{status}: "):
        hook.get_monitor("mon_a")
    assert len(exa.requests) == requests


# --- calls ----------------------------------------------------------------------------------------


def test_an_unknown_monitor_lists_no_runs_but_is_not_found(exa: StandIn) -> None:
    """Exa answers the listing as empty, so only asking for the monitor itself tells."""
    hook = ExaHook()
    assert list(hook.list_monitor_runs("mon_none")) == []
    for ask in (lambda: hook.get_monitor("mon_none"), lambda: hook.get_monitor_run("mon_a", "run_none")):
        with pytest.raises(ExaPermanentError, match=r"answered 404: 'Monitor.* not found'.*Check the id"):
            ask()
    assert [request.status for request in exa.requests] == [200, 404, 404]


def test_a_run_is_read_as_exa_has_it(exa: StandIn) -> None:
    """What was said of a failed run is what the hook returns."""
    run_id = exa.add_run(
        "mon_a", status="failed", failed_reason="No credits left", type="refresh", created_at=START
    )
    run = ExaHook().get_monitor_run("mon_a", run_id)
    assert (run.id, run.monitor_id, run.status, run.type) == (run_id, "mon_a", "failed", "refresh")
    assert (run.created_at, run.failed_at, run.completed_at) == (START, START, None)
    assert (run.failed_reason, run.raw["object"]) == ("No credits left", "monitor_run")


@pytest.mark.parametrize(("order", "pages"), [("newest", 2), ("oldest", 3), ("shuffled", 3)])
@pytest.mark.parametrize(
    "since",
    [START.add(hours=6), "2026-01-31T06:00:00Z", "2026-01-31T07:00:00+01:00", START.add(hours=6).naive()],
)
def test_runs_since_a_moment_are_the_same_in_any_order(
    exa: StandIn, order: Any, pages: int, since: datetime | str
) -> None:
    """The moment itself counts, and only a listing that shows newest-first order is not read to its end."""
    for hour in range(12):
        exa.add_run("mon_a", run_id=f"run_{hour:02}", created_at=START.add(hours=hour))
    exa.order, exa.page_size = order, 5
    found = [run.id for run in ExaHook().list_monitor_runs("mon_a", created_after=since)]
    assert sorted(found) == ["run_06", "run_07", "run_08", "run_09", "run_10", "run_11"]
    assert len(exa.requests) == pages


def test_a_bad_moment_asks_nothing(exa: StandIn) -> None:
    """It is an error in words before any request."""
    with pytest.raises(ExaInputError, match="created_after='soon' is not a time"):
        list(ExaHook().list_monitor_runs("mon_a", created_after="soon"))
    assert exa.requests == []


@pytest.mark.parametrize(
    ("options", "found", "queries"),
    [
        ({}, ["mon_c", "mon_b", "mon_a"], [{}]),
        ({"webset_id": "webset_1"}, ["mon_c", "mon_b"], [{"websetId": "webset_1"}]),
        (
            {"webset_id": "webset_1", "page_size": 1},
            ["mon_c", "mon_b"],
            [
                {"websetId": "webset_1", "limit": "1"},
                {"websetId": "webset_1", "limit": "1", "cursor": "mon_c"},
            ],
        ),
    ],
    ids=str,
)
def test_monitors_are_listed_page_by_page(
    exa: StandIn, options: dict[str, Any], found: list[str], queries: list[dict[str, str]]
) -> None:
    """All of the team's, or those of a webset; what is not asked for is not sent."""
    exa.add_monitor("mon_b", webset_id="webset_1")
    exa.add_monitor("mon_c", webset_id="webset_1", status="disabled")
    monitors = list(ExaHook().list_monitors(**options))
    assert [monitor.id for monitor in monitors] == found
    assert (monitors[0].enabled, monitors[0].webset_id) == (False, "webset_1")
    assert [request.query for request in exa.requests] == queries


@pytest.mark.parametrize("name", ["page_size", "max_pages"])
@pytest.mark.parametrize("value", [0, -1, "5", 2.5, True])
def test_a_bad_count_asks_nothing(exa: StandIn, name: str, value: Any) -> None:
    """It is an error in words before any request."""
    for ask in (ExaHook().list_monitors, lambda **options: ExaHook().list_monitor_runs("mon_a", **options)):
        with pytest.raises(ExaInputError, match=f"^{name}=.* is not a whole number above 0$"):
            ask(**{name: value})
    with pytest.raises(ExaInputError, match=r"^max_pages=None is not"):
        ExaHook().list_monitors(max_pages=None)  # type: ignore[arg-type]
    assert exa.requests == []


def test_more_monitor_pages_than_allowed_are_an_error(exa: StandIn) -> None:
    """The cap is there for monitors too."""
    exa.add_monitor("mon_b")
    with pytest.raises(ExaPermanentError, match="more than 1 pages"):
        list(ExaHook().list_monitors(page_size=1, max_pages=1))


def test_an_unknown_api_is_refused() -> None:
    """The hook speaks only the dialects there are."""
    with pytest.raises(ExaInputError, match="api='search-monitors'"):
        ExaHook(api="search-monitors")


# --- starting a run -------------------------------------------------------------------------------

TRIGGER = ("POST", "/monitors/mon_a/trigger")


def asked(exa: StandIn) -> list[tuple[str, str]]:
    """The method and the path of each request."""
    return [(request.method, request.path) for request in exa.requests]


def refused(hook: ExaHook) -> ExaTransientError:
    """The error that it is to start a run of ``mon_a``."""
    with pytest.raises(ExaTransientError) as caught:
        hook.trigger_monitor("mon_a")
    return caught.value


def test_a_run_is_started_by_one_post(exa: StandIn) -> None:
    """Exa does not say which, so nothing is returned."""
    assert ExaHook(api="search").trigger_monitor("mon_a") is None
    assert asked(exa) == [TRIGGER]
    assert [run.monitor_id for run in exa.runs.values()] == ["mon_a"]


@pytest.mark.parametrize(("triggers", "status"), [(True, "disabled"), (False, "active")])
def test_a_run_that_exa_does_not_start_is_trouble_that_may_pass(
    exa: StandIn, no_pauses: list[float], triggers: bool, status: str
) -> None:
    """The error says what may be the reason, which Exa does not; it is asked once, and may be again."""
    exa.triggers = triggers
    exa.add_monitor("mon_a", status=status)
    error = refused(ExaHook(api="search"))
    assert (type(error), error.repeatable) == (ExaNotStartedError, True)
    assert f"Exa started no run of monitor mon_a, which is {status}," in str(error)
    assert asked(exa) == [TRIGGER, ("GET", "/monitors/mon_a")]
    assert (exa.runs, no_pauses) == ({}, [])


@pytest.mark.parametrize("status", [404, 503])
def test_trouble_with_the_monitor_does_not_hide_that_no_run_was_started(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, no_pauses: list[float], status: int
) -> None:
    """It is asked for only to say more."""
    exa.triggers = False
    monkeypatch.setattr(
        exa, "next_fault", lambda path: Fault(status=status) if path.endswith("/mon_a") else None
    )
    error = refused(ExaHook(api="search"))
    assert (type(error), error.repeatable) == (ExaNotStartedError, True)
    assert "Exa started no run of monitor mon_a, and does not say why (" in str(error)


def test_a_websets_monitor_cannot_be_told_to_run(exa: StandIn) -> None:
    """That API has no such request, so none is sent."""
    with pytest.raises(ExaInputError, match="starting a run is not possible with api='websets', only with"):
        ExaHook().trigger_monitor("mon_a")
    assert exa.requests == []


def test_an_unknown_monitor_cannot_be_told_to_run(exa: StandIn, no_pauses: list[float]) -> None:
    """As for every other request it is a 404 in Exa's words, and is not asked again."""
    with pytest.raises(ExaPermanentError, match=r"answered 404: 'Monitor not found'.*Check the id"):
        ExaHook(api="search").trigger_monitor("mon_none")
    assert asked(exa) == [("POST", "/monitors/mon_none/trigger")]
    assert no_pauses == []


@pytest.mark.parametrize(
    ("fault", "started"),
    [
        (Fault(kind="reset", times=None), 0),
        (Fault(kind="hang", times=None), 0),
        (Fault(kind="cut", times=None), 1),
        (Fault(status=500, times=None), 0),
        (Fault(status=504, times=None), 0),
    ],
    ids=lambda value: f"{value.kind} {value.status}" if isinstance(value, Fault) else "",
)
def test_a_post_that_may_have_started_a_run_is_not_sent_again(
    *,
    exa: StandIn,
    connect: Callable[..., ExaHook],
    no_pauses: list[float],
    fault: Fault,
    started: int,
) -> None:
    """Or it would start another, which cancels the first; the error says that by ``repeatable``."""
    connect(extra={"timeout": 0.3})
    exa.fail(fault)
    assert refused(ExaHook(api="search")).repeatable is False
    assert asked(exa) == [TRIGGER]
    assert (len(exa.runs), no_pauses) == (started, [])


@pytest.mark.parametrize("status", [429, 503])
def test_a_post_that_exa_turned_away_is_sent_again(
    exa: StandIn, connect: Callable[..., ExaHook], no_pauses: list[float], status: int
) -> None:
    """It has started nothing; and where Exa goes on so, whoever calls may try again as well."""
    exa.fail(Fault(status=status, times=2))
    hook = ExaHook(api="search")
    hook.trigger_monitor("mon_a")
    assert asked(exa) == [TRIGGER] * 3
    assert (len(exa.runs), len(no_pauses)) == (1, 2)
    connect(extra={"retries": 1})
    exa.fail(Fault(status=status, times=None))
    assert refused(ExaHook(api="search")).repeatable is True
    assert asked(exa) == [TRIGGER] * 5
    assert len(exa.runs) == 1


@pytest.mark.parametrize(
    "body", [b"{}", b'{"triggered": null}', b'{"triggered": 1}', b'{"triggered": "false"}', b"[true]", b"<p>"]
)
def test_what_was_started_must_be_said_clearly(exa: StandIn, no_pauses: list[float], body: bytes) -> None:
    """An answer that cannot be read may mean either, so the request is not sent again."""
    exa.fail(Fault(status=200, body=body, times=None))
    error = refused(ExaHook(api="search"))
    assert (type(error), error.repeatable) == (ExaBadAnswerError, False)
    assert asked(exa) == [TRIGGER]
    assert no_pauses == []
