"""What goes wrong, from a bad key to a connection that breaks."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from airflow_provider_exa.standin import Fault, StandIn
from tests.standin.asking import RUNS, SEARCH_RUNS, Ask, add_runs

KEY_HEADERS = [{"x-api-key": "{}"}, {"x-api-key": None, "Authorization": "Bearer {}"}]


@pytest.mark.parametrize("headers", KEY_HEADERS)
def test_a_key_passes_until_it_is_rotated(exa: StandIn, ask: Ask, headers: dict[str, str | None]) -> None:
    """Either header carries the key, and a changed key takes effect at once."""

    def status(key: str) -> int:
        return ask(headers={name: value and value.format(key) for name, value in headers.items()}).status_code

    assert (status("standin-key"), status("other")) == (200, 401)
    exa.api_key = "other"
    assert (status("standin-key"), status("other")) == (401, 200)


@pytest.mark.parametrize(
    "headers",
    [{"x-api-key": "wrong"}, {"x-api-key": None}, {"x-api-key": None, "Authorization": "standin-key"}],
)
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, {"error": "Invalid API key", "tag": "INVALID_API_KEY"}),
        (400, {"error": "x-api-key header is invalid"}),
    ],
)
def test_a_bad_key_is_refused(exa: StandIn, ask: Ask, headers: Any, status: Any, body: Any) -> None:
    """A wrong or missing key is answered as documented, or as recorded, on every path."""
    exa.bad_key_status = status
    for path in (RUNS, SEARCH_RUNS, "/elsewhere"):
        response = ask(path, headers=headers)
        assert response.status_code == status
        assert response.json() == {"requestId": response.headers["X-Request-Id"], **body}


def test_every_answer_has_its_own_request_id(exa: StandIn, ask: Ask) -> None:
    """Answers, errors and faults alike carry X-Request-Id."""
    exa.fail(Fault(path="broken"))
    answers = [ask(path) for path in (RUNS, RUNS, "/none", "/broken")]
    assert len({answer.headers["X-Request-Id"] for answer in answers}) == 4


@pytest.mark.parametrize("retry_after", [None, "7", "Wed, 21 Oct 2026 07:28:00 GMT"])
@pytest.mark.parametrize("status", [429, 500, 503, 529])
def test_a_fault_answers_with_a_status(exa: StandIn, ask: Ask, status: int, retry_after: str | None) -> None:
    """The status, Exa's error shape, and Retry-After as it was given."""
    exa.fail(Fault(status=status, retry_after=retry_after))
    response = ask()
    assert response.status_code == status
    assert response.json().keys() == {"requestId", "error", "tag"}
    assert response.headers.get("Retry-After") == retry_after


@pytest.mark.parametrize("body", [b"", b"not JSON", b'{"data": 5}'])
def test_a_fault_answers_with_a_body(exa: StandIn, ask: Ask, body: bytes) -> None:
    """Any body can be answered, under any status."""
    exa.fail(Fault(status=200, body=body))
    response = ask()
    assert (response.status_code, response.content) == (200, body)


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("hang", requests.ReadTimeout, "timed out"),
        ("reset", requests.ConnectionError, "reset by peer"),
        ("cut", requests.exceptions.ChunkedEncodingError, "IncompleteRead"),
    ],
)
def test_a_fault_breaks_the_connection(
    exa: StandIn, ask: Ask, kind: str, error: type[Exception], words: str
) -> None:
    """A request stays unanswered, or its connection ends before or amid the answer; the next is fine."""
    exa.fail(Fault(kind=kind))
    with pytest.raises(error, match=words):
        ask(timeout=0.2 if kind == "hang" else 10)
    assert ask().status_code == 200


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("repeat", {"hasMore": True, "nextCursor": "again"}),
        ("empty_more", {"data": [], "hasMore": True, "nextCursor": "more"}),
        ("no_cursor", {"hasMore": True, "nextCursor": None}),
    ],
)
def test_a_fault_spoils_the_paging(exa: StandIn, ask: Ask, kind: str, changed: dict[str, Any]) -> None:
    """A page says there is more, whichever cursor it is asked for."""
    add_runs(exa, 2)
    expected = ask().json() | changed
    exa.fail(Fault(kind=kind, times=None))
    assert ask().json() == expected
    assert ask(params={"cursor": changed["nextCursor"]}).json() == expected


@pytest.mark.parametrize("path", [RUNS, SEARCH_RUNS])
@pytest.mark.parametrize("kind", ["repeat", "empty_more"])
def test_a_cursor_of_a_fault_leads_to_page_one(exa: StandIn, ask: Ask, path: str, kind: str) -> None:
    """Once the fault is over, a client that follows it sees every run."""
    add_runs(exa, 5)
    exa.fail(Fault(kind=kind))
    cursor = ask(path).json()["nextCursor"]
    assert ask(path, params={"cursor": cursor}).json() == ask(path).json()


def test_a_fault_may_spoil_one_page(exa: StandIn, ask: Ask) -> None:
    """A path with a cursor is a page, and the pages before and after it are as they were."""
    add_runs(exa, 6)
    exa.fail(Fault(kind="empty_more", path="cursor=run_1", times=None))
    pages = [ask(params={"limit": 2, "cursor": cursor}).json() for cursor in (None, "run_1", "run_3")]
    assert [[run["id"] for run in page["data"]] for page in pages] == [
        ["run_0", "run_1"],
        [],
        ["run_4", "run_5"],
    ]


@pytest.mark.parametrize("kind", ["repeat", "empty_more", "no_cursor", "bad_item"])
def test_a_fault_of_a_listing_leaves_an_error_as_it_is(exa: StandIn, ask: Ask, kind: str) -> None:
    """A request without a key is answered so, and nothing is added to it."""
    exa.fail(Fault(kind=kind))
    response = ask(headers={"x-api-key": "wrong"})
    assert (response.status_code, response.json().keys()) == (401, {"requestId", "error", "tag"})


@pytest.mark.parametrize("lacks", ["createdAt", "status", "id"])
@pytest.mark.parametrize(("item", "met"), [(0, 0), (2, 2), ("run_1", 1), (7, None), ("run_none", None)])
def test_a_fault_takes_a_key_from_one_item(
    exa: StandIn, ask: Ask, lacks: str, item: int | str, met: int | None
) -> None:
    """The item is named by its place or its id, in either API, and the rest of the page is whole."""
    add_runs(exa, 3)
    for path in (RUNS, SEARCH_RUNS):
        whole = ask(path).json()
        exa.fail(Fault(kind="bad_item", item=item, lacks=lacks))
        spoilt = ask(path).json()
        if met is not None:
            del whole["data"][met][lacks]
        assert spoilt == whole


def test_a_fault_takes_a_key_from_a_single_object(exa: StandIn, ask: Ask) -> None:
    """A run that is named by its id lacks the key wherever it is shown, and other runs lack none."""
    add_runs(exa, 2)
    exa.fail(Fault(kind="bad_item", item="run_1", times=None))
    assert ["createdAt" in ask(f"{RUNS}/{run}").json() for run in ("run_0", "run_1")] == [True, False]
    assert ["createdAt" in run for run in ask().json()["data"]] == [True, False]


def test_a_fault_answers_with_a_proxys_page(exa: StandIn, ask: Ask) -> None:
    """A proxy between Airflow and Exa may answer 200 with HTML."""
    exa.fail(Fault(kind="html"))
    response = ask()
    assert (response.status_code, response.headers["Content-Type"]) == (200, "text/html")
    assert response.text.startswith("<!DOCTYPE html>")


def test_a_fault_redirects(exa: StandIn, ask: Ask) -> None:
    """A redirect leads where it was told to."""
    exa.fail(Fault(kind="redirect", location="http://127.0.0.1:9/elsewhere"))
    response = ask()
    assert (response.status_code, response.headers["Location"]) == (302, "http://127.0.0.1:9/elsewhere")


def test_a_fault_answers_at_great_length(exa: StandIn, ask: Ask) -> None:
    """The answer is valid JSON of more than 16 MiB, and does not announce its length."""
    exa.fail(Fault(kind="huge"))
    response = ask()
    assert len(response.content) > 2**24
    assert "Content-Length" not in response.headers
    assert response.json()["data"] == []


def test_a_fault_answers_byte_by_byte(exa: StandIn, ask: Ask) -> None:
    """The answer begins, but is long in coming."""
    exa.fail(Fault(kind="drip"))
    with ask(stream=True) as response:
        assert response.raw.read(2) == b'{"'


def test_a_fault_meets_the_next_requests_it_fits(exa: StandIn, ask: Ask) -> None:
    """A fault counts its requests, spares other paths, and gives way to the one before it."""
    exa.fail(Fault(status=500, times=2, path="/runs"))
    exa.fail(Fault(status=503, path="cursor=2"))
    exa.fail(Fault(status=502, times=None, path="mon_b"))
    monitors = "/websets/v0/monitors"
    paths = [monitors, RUNS, f"{RUNS}?cursor=2", f"{RUNS}?cursor=2", RUNS, f"{monitors}/mon_b", "/mon_b"]
    assert [ask(path).status_code for path in paths] == [200, 500, 500, 503, 200, 502, 502]
    exa.heal()
    assert ask("/mon_b").status_code == 404


def test_an_unknown_fault_is_refused() -> None:
    """A misspelt kind is an error where it is written, not in the server."""
    with pytest.raises(ValueError, match="no fault 'hnag'; there are status, hang"):
        Fault(kind="hnag")
