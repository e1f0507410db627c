"""What can be asked of Exa, and the paging of its listings, over real HTTP."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from typing import Any

import pendulum
import pytest

from airflow_provider_exa.hooks import ExaHook
from airflow_provider_exa.protocol import endpoints, paging
from airflow_provider_exa.protocol.errors import (
    ExaBadAnswerError,
    ExaHugeAnswerError,
    ExaInputError,
    ExaPermanentError,
)
from airflow_provider_exa.protocol.models import DIALECTS, MonitorRun, parse_run
from airflow_provider_exa.standin import Fault, StandIn

WEBSETS = DIALECTS["websets"]
RUNS = "/websets/v0/monitors/mon_a/runs"
START = pendulum.datetime(2026, 1, 31)
RUN: dict[str, Any] = {"id": "run_1", "status": "completed", "createdAt": "2026-01-31T06:00:00.000Z"}

Ask = Callable[[ExaHook, str], Any]


def list_runs(hook: ExaHook, monitor_id: str = "mon_a", **options: Any) -> list[str]:
    """The ids of a monitor's runs."""
    return [run.id for run in hook.list_monitor_runs(monitor_id, **options)]


def get_run(hook: ExaHook, monitor_id: str = "mon_a") -> MonitorRun:
    """A run that has its monitor's id."""
    return hook.get_monitor_run(monitor_id, monitor_id)


def get_monitor(hook: ExaHook, monitor_id: str = "mon_a") -> object:
    """The monitor."""
    return hook.get_monitor(monitor_id)


def body(*runs: Any, **fields: Any) -> bytes:
    """A page of a listing."""
    return json.dumps({"data": runs, "hasMore": False, "nextCursor": None, **fields}).encode()


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged as a warning."""
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@pytest.fixture
def ten(exa: StandIn) -> list[str]:
    """The ids of ten runs of ``mon_a``, an hour apart, newest first; a page holds three."""
    exa.page_size = 3
    return [
        exa.add_run("mon_a", run_id=f"run_{hour}", created_at=START.add(hours=hour)) for hour in range(10)
    ][::-1]


# --- ids ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "odd",
    ["a/b", "../../websets", "a?limit=1", "a#b", "a b", "a\r\nb", "a\x00", "ü", "%2e%2e", "a%2Fb", "..."],
)
def test_an_odd_id_stays_one_segment_of_the_path(exa: StandIn, odd: str) -> None:
    """Whatever a template rendered to, Exa is asked for that id and no other URL."""
    exa.add_run(odd, run_id=odd)
    hook = ExaHook()
    assert (hook.get_monitor(odd).id, get_run(hook, odd).id, list_runs(hook, odd)) == (odd, odd, [odd])
    assert [request.path.count("/") for request in exa.requests] == [4, 6, 5]
    assert all(request.query == {} for request in exa.requests)


@pytest.mark.parametrize("ask", [list_runs, get_run, get_monitor])
@pytest.mark.parametrize("value", [".", "..", "", " ", None, 5])
def test_what_no_quoting_makes_a_segment_is_never_asked(exa: StandIn, ask: Ask, value: Any) -> None:
    """A dot would lead a level up and nothing would lead to the listing, so no request is sent."""
    with pytest.raises(ExaInputError, match=r"(monitor|run)_id is"):
        ask(ExaHook(), value)
    with pytest.raises(ExaInputError, match="run_id is"):
        ExaHook().get_monitor_run("mon_a", value)
    assert exa.requests == []


# --- answers that cannot be read ------------------------------------------------------------------


def damaged(whole: dict[str, Any], *keys: str) -> list[bytes]:
    """What is no object, and objects that lack one of the keys or hold something else there."""
    others: list[Any] = [None, "", 5, {}]
    bad: list[Any] = [None, "text", 5, []]
    bad += [{name: value for name, value in whole.items() if name != key} for key in keys]
    bad += [whole | {key: other} for key in keys for other in others]
    return [json.dumps(each).encode() for each in bad]


UNREADABLE = [b"", b"<html>Sign in</html>", b"\xff\xfe", b'{"data": [', b"[" * 100_000, b"1" * 5000]
BAD_LISTINGS = damaged({"data": [RUN]}, "data")
BAD_MONITORS = damaged({"id": "mon_a", "status": "enabled"}, "id", "status")
BAD_RUNS = [
    *damaged(RUN, "id", "status", "createdAt"),
    *(json.dumps(RUN | {"createdAt": text}).encode() for text in ("soon", "0001-01-01T00:00:00+05:00")),
    *(json.dumps(RUN | {"completedAt": other}).encode() for other in ("soon", 5)),
]


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        *((ask, answer) for ask in (list_runs, get_run, get_monitor) for answer in UNREADABLE),
        *((list_runs, answer) for answer in BAD_LISTINGS),
        *((list_runs, b'{"data": [%b]}' % run) for run in BAD_RUNS),
        *((get_run, run) for run in BAD_RUNS),
        *((get_monitor, monitor) for monitor in BAD_MONITORS),
    ],
    ids=lambda value: value[:70].decode(errors="replace") if isinstance(value, bytes) else value.__name__,
)
def test_an_answer_that_cannot_be_read_is_quoted(exa: StandIn, ask: Ask, answer: bytes) -> None:
    """The error holds the status, the request id and how the body begins; nothing is asked again."""
    exa.fail(Fault(status=200, body=answer))
    with pytest.raises(ExaBadAnswerError, match=r"answered 200 .*\(request id req_\w+\)") as caught:
        ask(ExaHook(), "mon_a")
    assert repr(answer.decode(errors="replace")[:200]) in str(caught.value)
    assert len(exa.requests) == 1


@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize("text", ["x" * 1000, "ü" * 1000, "😀" * 1000])
def test_no_more_than_200_characters_are_quoted(exa: StandIn, status: int, text: str) -> None:
    """A proxy's page is told as far as it helps, whatever its characters weigh."""
    exa.fail(Fault(status=status, body=text.encode()))
    with pytest.raises((ExaBadAnswerError, ExaPermanentError)) as caught:
        list_runs(ExaHook())
    assert text[:200] in str(caught.value)
    assert text[:201] not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        body(data="x" * 100_000),
        body(RUN | {"id": ["x" * 100_000]}),
        body(RUN | {"createdAt": "x" * 100_000}),
        body(requestId="x" * 100_000, data=None),
    ],
    ids=["data", "id", "createdAt", "requestId"],
)
def test_a_long_wrong_value_is_not_told_whole(exa: StandIn, answer: bytes) -> None:
    """JSON with a large value in the wrong place makes an error for people too."""
    exa.fail(Fault(status=200, body=answer))
    with pytest.raises(ExaBadAnswerError) as caught:
        list_runs(ExaHook())
    assert len(str(caught.value)) < 2000


def test_a_proxys_page_is_an_error_and_no_empty_listing(exa: StandIn) -> None:
    """An answer of 200 that is HTML says where to look: at the connection's host."""
    exa.fail(Fault(kind="html"))
    with pytest.raises(ExaBadAnswerError, match=r"Sign in to continue.*connection's host"):
        list_runs(ExaHook())


# --- paging ---------------------------------------------------------------------------------------


def test_a_page_is_asked_for_when_it_is_needed(exa: StandIn, ten: list[str]) -> None:
    """Nothing is asked before the first run is wanted, and no page before its first run is."""
    runs = ExaHook().list_monitor_runs("mon_a")
    assert exa.requests == []
    asked = [(run.id, len(exa.requests)) for run in runs]
    assert asked == [(run_id, 1 + place // 3) for place, run_id in enumerate(ten)]


def test_one_page_is_in_memory_at_a_time(exa: StandIn) -> None:
    """Runs that were handed over are not kept."""
    exa.page_size = 20
    for hour in range(100):
        exa.add_run("mon_many", created_at=START.add(hours=hour))
    alive = [
        sum(type(each) is MonitorRun and each.monitor_id == "mon_many" for each in gc.get_objects())
        for place, _ in enumerate(ExaHook().list_monitor_runs("mon_many"))
        if place % 20 == 0
    ]
    assert len(alive) == 5
    assert max(alive) <= 21


@pytest.mark.parametrize(
    ("options", "queries"),
    [
        ({}, [{}, {"cursor": "run_7"}, {"cursor": "run_4"}, {"cursor": "run_1"}]),
        ({"page_size": 6}, [{"limit": "6"}, {"limit": "6", "cursor": "run_4"}]),
    ],
)
def test_a_page_size_is_sent_with_every_page_and_only_when_given(
    exa: StandIn, ten: list[str], options: dict[str, Any], queries: list[dict[str, str]]
) -> None:
    """Websets documents no parameter for its runs, so none is sent that nobody asked for."""
    assert list_runs(ExaHook(), **options) == ten
    assert [request.query for request in exa.requests] == queries


@pytest.mark.parametrize(
    "server", [{"cursors": "ignored"}, {"faults": [Fault(kind="repeat", times=None)]}], ids=str
)
def test_a_cursor_that_repeats_is_an_error(exa: StandIn, ten: list[str], server: dict[str, Any]) -> None:
    """A server that ignores the cursor is noticed at its second page, not followed for ever."""
    exa.cursors = server.get("cursors", "honoured")
    for fault in server.get("faults", ()):
        exa.fail(fault)
    with pytest.raises(ExaPermanentError, match=r"came back to the cursor '\w+' after 2 pages"):
        list_runs(ExaHook())
    assert len(exa.requests) == 2


def test_a_circle_of_cursors_is_an_error(exa: StandIn) -> None:
    """It need not be the last cursor that repeats."""
    for cursor in "aba":
        exa.fail(Fault(status=200, body=body(RUN, hasMore=True, nextCursor=cursor)))
    with pytest.raises(ExaPermanentError, match="cursor 'a' after 3 pages"):
        list_runs(ExaHook())
    assert len(exa.requests) == 3


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (Fault(kind="no_cursor"), ["run_9", "run_8", "run_7"]),
        (Fault(kind="empty_more"), []),
        (Fault(status=200, body=body(RUN, hasMore=True)), ["run_1"]),
        (Fault(status=200, body=body(RUN, hasMore=True, nextCursor="")), ["run_1"]),
    ],
)
def test_more_without_a_way_to_it_ends_the_listing(
    exa: StandIn, ten: list[str], answer: Fault, found: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """``hasMore`` without a cursor, and an empty page that has more, end it with one warning."""
    exa.fail(answer)
    assert list_runs(ExaHook()) == found
    assert len(exa.requests) == 1
    (warning,) = warnings_of(caplog)
    assert warning.startswith(f"The listing {RUNS} says that it has more but not how to get it")


def test_a_last_page_may_name_a_cursor(exa: StandIn) -> None:
    """``hasMore`` decides where it is there; where it is not, the cursor does."""
    exa.fail(Fault(status=200, body=json.dumps({"data": [RUN], "nextCursor": "a"}).encode()))
    exa.fail(Fault(status=200, body=body(RUN, nextCursor="b")))
    assert list_runs(ExaHook()) == ["run_1", "run_1"]
    assert [request.query for request in exa.requests] == [{}, {"cursor": "a"}]


@pytest.mark.parametrize("max_pages", [1, 3, 4])
def test_more_pages_than_allowed_are_an_error(exa: StandIn, ten: list[str], max_pages: int) -> None:
    """The pages up to the cap are handed over, and the one above it is not asked for."""
    found = []
    listing = ExaHook().list_monitor_runs("mon_a", max_pages=max_pages)
    if max_pages < 4:
        with pytest.raises(ExaPermanentError, match=f"more than {max_pages} pages.*raise max_pages"):
            found += [run.id for run in listing]
        assert len(exa.requests) == max_pages
    else:
        assert [run.id for run in listing] == ten


def test_a_page_that_is_too_large_is_listed_in_smaller_ones(
    exa: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    """Each run of a search monitor may hold all that it found; the pages after that are as small at once."""
    found = [{"title": "long", "text": "x" * 700_000}]
    ids = [exa.add_run("mon_a", results=found) for _ in range(25)]
    assert list_runs(ExaHook(api="search")) == ids[::-1]
    assert [request.query.get("limit") for request in exa.requests] == [None, "10", "10", "10"]
    (warning,) = warnings_of(caplog)
    assert warning.startswith("The listing /monitors/mon_a/runs is too large to be read")


def test_one_run_that_is_too_large_is_an_error(exa: StandIn, ten: list[str]) -> None:
    """There is no smaller page than that of one."""
    exa.fail(Fault(kind="huge", times=None))
    with pytest.raises(ExaHugeAnswerError, match="more than 16 MiB"):
        list_runs(ExaHook())
    assert [request.query.get("limit") for request in exa.requests] == [None, "10", "2", "1"]


@pytest.mark.parametrize(
    ("refuses", "found", "queries"),
    [
        (["limit"], 10, [{"limit": "3"}, {}, {"cursor": "run_7"}, {"cursor": "run_4"}, {"cursor": "run_1"}]),
        (["cursor"], 3, [{"limit": "3"}, {"limit": "3", "cursor": "run_7"}, {"limit": "3"}]),
        (["limit", "cursor"], 3, [{"limit": "3"}, {}, {"cursor": "run_7"}, {}]),
    ],
    ids=str,
)
def test_a_refused_parameter_is_left_out(
    *,
    exa: StandIn,
    ten: list[str],
    caplog: pytest.LogCaptureFixture,
    refuses: list[str],
    found: int,
    queries: list[dict[str, str]],
) -> None:
    """A 400 to ``limit`` or ``cursor`` is asked again without it, once, and warned about once."""
    exa.refuses = refuses
    hook = ExaHook()
    assert list_runs(hook, page_size=3) == ten[:found]
    assert [request.query for request in exa.requests] == queries
    assert list_runs(hook, page_size=3) == ten[:found]
    assert warnings_of(caplog) == [
        f"Exa refuses the parameter {name!r} for {RUNS}; listed without it." for name in refuses
    ]


def test_a_400_that_is_about_something_else_is_told(exa: StandIn, ten: list[str]) -> None:
    """Asked again without the parameter and refused again, the listing fails with Exa's words."""
    exa.fail(Fault(status=400, body=b'{"error": "out of order"}', times=2))
    with pytest.raises(ExaPermanentError, match="answered 400: 'out of order'"):
        list_runs(ExaHook(), page_size=3)
    assert len(exa.requests) == 2


@pytest.mark.parametrize(("pages", "words"), [(0, {"page_size": 3}), (1, {})], ids=["limit", "cursor"])
@pytest.mark.parametrize(("status", "told"), [(400, "x-api-key header is invalid"), (401, "Invalid API key")])
def test_a_bad_key_is_not_taken_for_a_refused_parameter(
    *,
    exa: StandIn,
    ten: list[str],
    pages: int,
    words: dict[str, Any],
    status: Any,
    told: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whether at the first page or at a later one, the error is Exa's own words about the key."""
    runs = ExaHook().list_monitor_runs("mon_a", **words)
    for _ in range(3 * pages):
        next(runs)
    exa.api_key, exa.bad_key_status = "another-key-5678", status
    with pytest.raises(ExaPermanentError, match=f"answered {status}: '{told}'.*Check.* API key"):
        next(runs)
    assert "refuses" not in caplog.text


# --- the newest runs ------------------------------------------------------------------------------


def newest(hook: ExaHook, limit: int, **options: Any) -> list[str]:
    """The ids of a monitor's newest runs."""
    options = {"keep": lambda run: True, "since": None} | options
    return [
        run.id
        for run in hook.call(paging.newest_runs(endpoints.list_runs(WEBSETS, "mon_a"), limit, **options))
    ]


@pytest.mark.parametrize("order", ["newest", "oldest", "shuffled"])
@pytest.mark.parametrize("limit", [1, 3, 4, 10, 11])
def test_the_newest_runs_are_found_in_any_order(exa: StandIn, ten: list[str], order: Any, limit: int) -> None:
    """They come newest first, and a listing that shows that order is not read to its end."""
    exa.page_size, exa.order = 5, order
    assert newest(ExaHook(), limit) == ten[:limit]
    assert len(exa.requests) == (1 if order == "newest" and limit < 6 else 2)


def test_runs_that_are_not_wanted_do_not_count(exa: StandIn, ten: list[str]) -> None:
    """The listing is read until enough runs pass the filter."""
    even = lambda run: int(run.id[-1]) % 2 == 0  # noqa: E731
    assert newest(ExaHook(), 2, keep=even) == ["run_8", "run_6"]
    assert len(exa.requests) == 2


def test_nothing_older_than_asked_for_is_looked_for(exa: StandIn, ten: list[str]) -> None:
    """A page that shows newest-first order and ends before ``since`` is the last one."""
    late = START.add(hours=8)
    assert newest(ExaHook(), 100, since=late, keep=lambda run: run.created_at >= late) == ["run_9", "run_8"]
    assert len(exa.requests) == 1


def test_a_run_on_two_pages_is_listed_once(exa: StandIn) -> None:
    """A run that is made while the listing is read shifts the others onto the next page."""
    three, two, one = (
        RUN | {"id": f"run_{hour}", "createdAt": START.add(hours=hour).isoformat()} for hour in (3, 2, 1)
    )
    for page in (body(three, two, hasMore=True, nextCursor="a"), body(two, one)):
        exa.fail(Fault(status=200, body=page))
    assert newest(ExaHook(), 5) == ["run_3", "run_2", "run_1"]


@pytest.mark.parametrize(
    ("hours", "edge"),
    [
        ([], None),
        ([5], None),
        ([5, 5], None),
        ([5, 4], 4),
        ([5, 5, 3, 3], 3),
        ([3, 4, 5], None),
        ([5, 3, 4], None),
        ([4, 5, 3], None),
    ],
)
def test_only_a_page_that_shows_its_order_says_what_cannot_come(hours: list[int], edge: int | None) -> None:
    """One run, or runs of one moment, show no order; one run out of place disproves it."""
    runs = [
        parse_run(WEBSETS, "mon_a", RUN | {"createdAt": START.add(hours=hour).isoformat()}) for hour in hours
    ]
    assert paging.listed_back_to(paging.Page(runs, None)) == (None if edge is None else START.add(hours=edge))
