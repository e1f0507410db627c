"""One request and its answer: what is read, what is an error, and in which words."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from airflow_provider_exa.client.client import Client, drive
from airflow_provider_exa.hooks import ExaHook
from airflow_provider_exa.protocol import errors, messages
from airflow_provider_exa.protocol.errors import (
    ERRORS,
    ExaBadAnswerError,
    ExaError,
    ExaInputError,
    ExaPermanentError,
    ExaTransientError,
)
from airflow_provider_exa.protocol.messages import Request, Response, ask
from airflow_provider_exa.standin import Fault, StandIn
from tests.protocol.damage import damaged

SAMPLES = Path(__file__).parents[3] / "shared" / "exa" / "samples"
RUN: dict[str, Any] = {"id": "run_1", "status": "completed", "createdAt": "2026-01-31T06:00:00.000Z"}
URL = "https://api.exa.ai/websets/v0/monitors/mon_a"
MONITOR = Request("/websets/v0/monitors/mon_a")

Ask = Callable[[ExaHook], Any]


def list_runs(hook: ExaHook) -> list[str]:
    """The ids of a monitor's runs."""
    return [run.id for run in hook.list_monitor_runs("mon_a")]


def get_run(hook: ExaHook) -> object:
    """A run that has its monitor's id."""
    return hook.get_monitor_run("mon_a", "mon_a")


def get_monitor(hook: ExaHook) -> object:
    """The monitor."""
    return hook.get_monitor("mon_a")


def sample(name: str) -> Any:
    """What one of the sample files holds."""
    path = SAMPLES / name
    if not path.exists():
        pytest.skip("Exa's samples are not beside the repository")
    return json.loads(path.read_text())


def refused(status: int, body: object, **options: Any) -> ExaError:
    """The error for an answer with this status and JSON."""
    headers = options.pop("headers", {})
    response = Response(status, json.dumps(body).encode(), URL, headers, conn_id="exa_a")
    return messages.refusal(Request("/x", **options), response)


# --- answers that cannot be read ------------------------------------------------------------------


NOT_JSON = [b"", b"<html>Sign in</html>", b"\xff\xfe", b'{"data": [', b"[" * 100_000, b"1" * 5000]
BAD_MONITORS = damaged({"id": "mon_a", "status": "enabled"}, "id", "status")
BAD_RUNS = [
    *damaged(RUN, "id", "status", "createdAt"),
    *(json.dumps(RUN | {"createdAt": text}).encode() for text in ("soon", "0001-01-01T00:00:00+05:00")),
]


@pytest.mark.parametrize(
    ("read", "answer"),
    [
        *((read, answer) for read in (list_runs, get_run, get_monitor) for answer in NOT_JSON),
        *((list_runs, answer) for answer in damaged({"data": [RUN]}, "data")),
        *((get_run, run) for run in BAD_RUNS),
        *((get_monitor, monitor) for monitor in BAD_MONITORS),
    ],
    ids=lambda value: value[:70].decode(errors="replace") if isinstance(value, bytes) else value.__name__,
)
def test_an_answer_that_cannot_be_read_is_quoted(
    exa: StandIn, no_pauses: list[float], read: Ask, answer: bytes
) -> None:
    """The error begins with the news, and holds the status, the request id and how the body begins."""
    exa.fail(Fault(status=200, body=answer, times=None))
    with pytest.raises(ExaBadAnswerError, match=r"^Exa's answer cannot be read \(\w+: ") as caught:
        read(ExaHook())
    told = str(caught.value)
    assert repr(answer.decode(errors="replace")[:200]) in told
    assert f" (answered 200; GET {exa.url}/" in told
    assert ", request id req_" in told
    assert caught.value.status == 200


def test_another_monitor_than_the_one_asked_for_is_an_answer_that_cannot_be_read(
    exa: StandIn, no_pauses: list[float]
) -> None:
    """A wait would go by its webset."""
    exa.fail(Fault(status=200, body=b'{"id": "mon_b", "status": "enabled"}', times=None))
    with pytest.raises(ExaBadAnswerError, match=r"cannot be read \(ValueError: it is the monitor 'mon_b'\)"):
        get_monitor(ExaHook())


@pytest.mark.parametrize("answer", NOT_JSON, ids=lambda value: value[:20].decode(errors="replace"))
def test_a_get_is_sent_again_if_its_answer_is_no_json(
    exa: StandIn, no_pauses: list[float], answer: bytes
) -> None:
    """A proxy that answers for Exa once does not end a task."""
    exa.fail(Fault(status=200, body=answer))
    assert ExaHook().get_monitor("mon_a").id == "mon_a"
    assert (len(exa.requests), len(no_pauses)) == (2, 1)


def test_a_get_is_sent_again_if_its_answer_has_another_shape(exa: StandIn, no_pauses: list[float]) -> None:
    """The call's own parser says so, where the request is sent."""
    exa.fail(Fault(status=200, body=b"[]"))
    assert Client("exa_default").call(ask(MONITOR, lambda body: body["id"])) == "mon_a"
    assert (len(exa.requests), len(no_pauses)) == (2, 1)


@pytest.mark.parametrize("answer", [b"<p>", b"[]"])
def test_a_post_is_not_sent_again_if_its_answer_cannot_be_read(
    exa: StandIn, no_pauses: list[float], answer: bytes
) -> None:
    """What it was to do may have been done."""
    exa.fail(Fault(status=200, body=answer, times=None))
    request = Request("/monitors/mon_a/trigger", method="POST")
    with pytest.raises(ExaBadAnswerError) as caught:
        Client("exa_default").call(ask(request, lambda body: body["triggered"]))
    assert (caught.value.repeatable, len(exa.requests)) == (False, 1)


def test_a_parser_runs_once_where_the_request_is_sent() -> None:
    """Its result is handed on, so that a large page does not block an event loop."""
    parsed: list[Any] = []

    def send(request: Request) -> Response:
        response = messages.receive(request, Response(200, b'{"id": "mon_a"}', URL))
        assert len(parsed) == 1
        return response

    def parse(body: Any) -> Any:
        parsed.append(body)
        return body["id"]

    assert drive(ask(MONITOR, parse), send) == "mon_a"
    assert len(parsed) == 1


def test_trouble_is_an_error_where_the_request_is_sent_and_a_refusal_is_none() -> None:
    """The one is repeated there; the other is for the call, which may know a way round it."""
    with pytest.raises(ExaTransientError, match="answered 503"):
        messages.receive(MONITOR, Response(503, b"{}", URL))
    not_found = Response(404, b"{}", URL)
    assert messages.receive(MONITOR, not_found) is not_found


@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize("text", ["x" * 1000, "ü" * 1000, "😀" * 1000])
def test_no_more_than_200_characters_are_quoted(
    exa: StandIn, no_pauses: list[float], status: int, text: str
) -> None:
    """A proxy's page is told as far as it helps, whatever its characters weigh."""
    exa.fail(Fault(status=status, body=text.encode(), times=None))
    with pytest.raises((ExaBadAnswerError, ExaPermanentError)) as caught:
        list_runs(ExaHook())
    assert text[:200] in str(caught.value)
    assert text[:201] not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        {"data": "x" * 100_000},
        {"data": None, "requestId": "x" * 100_000},
        {"data": None, "message": "x" * 100_000},
    ],
    ids=["data", "requestId", "message"],
)
def test_a_long_wrong_value_is_not_told_whole(
    exa: StandIn, no_pauses: list[float], answer: dict[str, Any]
) -> None:
    """JSON with a large value in the wrong place makes an error for people too."""
    exa.fail(Fault(status=200, body=json.dumps(answer).encode(), times=None))
    with pytest.raises(ExaBadAnswerError) as caught:
        list_runs(ExaHook())
    assert len(str(caught.value)) < 1000


def test_a_proxys_page_is_an_error_and_no_empty_listing(exa: StandIn, no_pauses: list[float]) -> None:
    """An answer of 200 that is HTML says where to look: at the connection's host."""
    exa.fail(Fault(kind="html", times=None))
    with pytest.raises(ExaBadAnswerError, match=r"Sign in to continue.*the host of connection 'exa_default'"):
        list_runs(ExaHook())


# --- errors ---------------------------------------------------------------------------------------


def test_only_what_is_permanent_fails_a_task_without_retries() -> None:
    """Permanent errors are Airflow's own for that, and transient ones are no exception of Airflow's."""
    for permanent in (ExaPermanentError, ExaInputError, errors.ExaRunFailedError):
        assert issubclass(permanent, AirflowFailException)
    for transient in (ExaTransientError, ExaBadAnswerError):
        assert not issubclass(transient, AirflowException)
    assert issubclass(ExaInputError, ValueError)


def recorded_errors() -> list[tuple[int, dict[str, Any]]]:
    """Status and body of each error that the samples hold."""
    recorded = [
        (each["status"], each.get("json", {"message": each.get("message")}))
        for each in sample("error_bodies.json")["body"]
    ]
    for name in ("real_400_invalid_api_key.json", "real_404_import_not_found.json"):
        response = sample(name)["response"]
        recorded.append((response["status"]["code"], response["json"]))
    return recorded


def test_an_error_is_told_in_exas_own_words() -> None:
    """Whichever shape the body has, the error says the status, the words, what was asked and the id."""
    for status, body in recorded_errors():
        error = refused(status, body)
        told = str(error)
        assert isinstance(error, ExaTransientError if status == 429 else ExaPermanentError)
        assert error.status == status
        assert told.startswith(f"Exa answered {status}: ") or f"'exa_a' ({status}: " in told
        assert repr(body.get("message") or body["error"]) in told
        assert f"GET {URL}" in told
        assert body.get("requestId", "") in told


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (
            401,
            {"error": "Invalid API key"},
            f"Exa refused the API key of connection 'exa_a' (401: 'Invalid API key'; GET {URL}). Check ",
        ),
        (
            400,
            {"error": "x-api-key header is invalid", "requestId": "r_1"},
            "Exa refused the API key of connection 'exa_a' (400: 'x-api-key header is invalid'; "
            f"GET {URL}, request id r_1). Check ",
        ),
        (
            404,
            {"message": "Monitor not found", "requestId": "r_1"},
            f"Exa answered 404: 'Monitor not found' (GET {URL}, request id r_1). Check the id, the API that "
            "api= names, ",
        ),
        (
            400,
            {"message": "bad limit", "error": "Bad Request"},
            f"Exa answered 400: 'bad limit' (GET {URL}). Check the arguments",
        ),
        (403, {"error": "no"}, f"Exa answered 403: 'no' (GET {URL}). The API key may not do this"),
        (400, {"error": "bad limit"}, f"Exa answered 400: 'bad limit' (GET {URL}). Check the arguments"),
        (402, {}, f"Exa answered 402: '{{}}' (GET {URL}). The team is out of credits"),
        (302, {}, f"Exa answered 302, a redirect (GET {URL}); redirects are not followed"),
        (407, {}, f"Exa answered 407: '{{}}' (GET {URL}). Check the proxy of connection 'exa_a'"),
        (429, {"error": "slow"}, f"Exa answered 429: 'slow' (GET {URL}). The team has sent more requests"),
        (503, {"error": "busy"}, f"Exa answered 503: 'busy' (GET {URL})."),
        (999, {"error": "what"}, f"Exa answered 999: 'what' (GET {URL})."),
    ],
)
def test_an_error_begins_with_the_news(status: int, body: dict[str, str], told: str) -> None:
    """A hundred characters are all that Airflow shows of a line."""
    assert str(refused(status, body)).startswith(told)


def test_trouble_may_pass_with_the_next_request_unless_its_error_says_otherwise() -> None:
    """An answer that is too large stays so."""
    assert ExaTransientError("no answer").repeatable is True
    assert errors.ExaHugeAnswerError("more than 16 MiB").repeatable is False


@pytest.mark.parametrize(
    ("headers", "body", "told"),
    [
        ({"x-request-id": "a"}, {"requestId": "b"}, "request id a)"),
        ({"x-request-id": "a"}, {}, "request id a)"),
        ({}, {"requestId": "b"}, "request id b)"),
        ({}, {"requestId": "b" * 101}, f"request id {'b' * 100})"),
        ({}, ["requestId"], f"(GET {URL})"),
    ],
    ids=["both", "header", "body", "long", "none"],
)
def test_an_error_has_the_request_id_that_exa_gave(headers: dict[str, str], body: object, told: str) -> None:
    """Exa's support asks for it; a proxy may send one of any length."""
    assert told in str(refused(503, body, headers=headers))


@pytest.mark.parametrize(("status", "bad"), [(401, True), (400, True), (403, False), (500, False)])
def test_a_bad_key_is_known_by_both_of_its_answers(status: int, bad: bool) -> None:
    """401 as documented, and 400 as recorded, where the body names the header."""
    body = b'{"error": "x-api-key header is invalid"}'
    assert messages.is_bad_key(Response(status, body, "")) is bad
    assert messages.is_bad_key(Response(status, body.upper(), "")) is bad
    assert messages.is_bad_key(Response(400, b'{"error": "Invalid request"}', "")) is False


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"[NaN, Infinity, -Infinity, 1e999, -1e999, 1.5, -2]", [None, None, None, None, None, 1.5, -2]),
        (rb'["a\ud800b", "\uDFFF", "\udc00\ud800"]', ["a\ufffdb", "\ufffd", "\ufffd\ufffd"]),
        (rb'{"\ud800": 1}', {"\ufffd": 1}),
        (b'["a\xed\xa0\x80b"]', ["a\ufffdb"]),
        ('["a\ud800"]'.encode("utf-16", "surrogatepass"), ["a\ufffd"]),
        (rb'["\ud83d\ude00", "\\ud800", "\u00e9", "\ud83d\ude00\ud800"]', ["😀", "\\ud800", "é", "😀\ufffd"]),
    ],
    ids=ascii,
)
def test_what_is_decoded_can_be_encoded(body: bytes, value: object) -> None:
    """Neither XCom nor JSON Lines can hold half of a surrogate pair, or a number that is none."""
    data = Response(200, body, "").data
    assert data == value
    json.dumps(data, ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize(("body", "data"), [(b'{"a": 1}', {"a": 1}), (b"<p>", None)])
def test_an_answer_is_decoded_once(body: bytes, data: object) -> None:
    """A page may be of many MiB; what was made of it goes along where the answer is passed on."""
    whole = Response(200, body, URL)
    passed_on = replace(whole, body=b"[]")
    assert (passed_on.data, passed_on.not_json) == (whole.data, whole.not_json)
    assert (passed_on.data, passed_on.not_json is None) == (data, data is not None)


def test_what_is_logged_of_an_answer_is_not_what_it_holds() -> None:
    """It may be large, or nobody's business."""
    request = Request("/monitors", parse=json.loads)
    assert repr(request) == "Request(path='/monitors', params={}, method='GET')"
    for body in (b'{"a": 1}', b"<p>"):
        response = Response(200, body, URL, {"x": "y"}, parsed=[1])
        assert repr(response) == f"Response(status=200, url='{URL}', conn_id='exa_default')"


@pytest.mark.parametrize(
    ("first", "last", "is_success", "is_redirect", "is_transient"),
    [
        (100, 199, False, False, True),
        (200, 299, True, False, False),
        (300, 399, False, True, False),
        (400, 407, False, False, False),
        (408, 408, False, False, True),
        (409, 428, False, False, False),
        (429, 429, False, False, True),
        (430, 499, False, False, False),
        (500, 599, False, False, True),
    ],
)
def test_a_status_is_of_one_kind(
    *, first: int, last: int, is_success: bool, is_redirect: bool, is_transient: bool
) -> None:
    """Also those that Exa is not known to answer with."""
    for status in (first, last):
        assert messages.is_success(status) is is_success
        assert messages.is_redirect(status) is is_redirect
        assert messages.is_transient(status) is is_transient


@pytest.mark.parametrize(
    ("statuses", "doubted"),
    [
        ((300, 302, 399, 401, 403, 404, 407), True),
        ((200, 299, 400, 402, 405, 406, 408, 409, 429, 500), False),
    ],
)
def test_another_connection_might_mend_some_refusals(statuses: tuple[int, ...], doubted: bool) -> None:
    """A bad key, a redirect, and what Exa does not show to everybody."""
    for status in statuses:
        assert messages.doubts_connection(Response(status, b"", "")) is doubted
    assert messages.doubts_connection(Response(400, b'{"error": "X-API-Key header is invalid"}', ""))


@pytest.mark.parametrize(
    ("method", "status", "repeatable"),
    [
        *(("GET", status, True) for status in (408, 429, 500, 503)),
        *(("POST", status, status in (429, 503)) for status in (408, 429, 500, 502, 503, 504)),
    ],
)
def test_only_what_has_done_nothing_may_be_repeated(method: str, status: int, repeatable: bool) -> None:
    """A GET never does; a POST has not where Exa turned it away."""
    error = refused(status, {}, method=method)
    assert isinstance(error, ExaTransientError)
    assert error.repeatable is repeatable


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("0", 0, 0),
        ("0.5", 0.5, 0.5),
        ("7", 7, 7),
        ("-5", 0, 0),
        (format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True), 80_000, 86_400),
        ("Sat, 31 Jan 2026 06:00:00 GMT", 0, 0),
        ("soon", None, None),
        ("", None, None),
    ],
    ids=["none", "half", "whole", "negative", "a date", "past", "garbage", "empty"],
)
def test_exa_says_how_long_to_wait_in_seconds_or_by_a_date(
    header: str, least: float | None, most: float | None
) -> None:
    """A moment that has passed is no time to wait, and a header that cannot be read says nothing."""
    error = refused(429, {}, headers={"retry-after": header})
    assert isinstance(error, ExaTransientError)
    if least is None or most is None:
        assert error.retry_after is None
    else:
        assert error.retry_after is not None
        assert least <= error.retry_after <= most


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, ExaTransientError) for status in (102, 408, 429, 500, 502, 503, 504, 599, 999)),
        *((status, ExaPermanentError) for status in (301, 304, 400, 401, 402, 403, 409, 422, 451)),
        (404, ExaPermanentError),
    ],
)
def test_a_status_says_whether_to_ask_again(status: int, kind: type[ExaError]) -> None:
    """No answer yet, too much and trouble at Exa's pass; everything else does not."""
    assert type(refused(status, {})) is kind


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_can_be_made_anew_from_its_name_and_message(name: str) -> None:
    """It passes from the triggerer to a worker that way, and through pickle with all it knows."""
    error = ERRORS[name]("Exa says no.")
    assert str(error) == str(ERRORS[name](message="Exa says no.")) == "Exa says no."
    assert error.status is None
    error.status = 418
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 (made here)
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
