"""What can be asked of Exa, and the paging of its listings, over real HTTP."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from typing import Any

import pendulum
import pytest

from airflow_provider_exa import hooks
from airflow_provider_exa.hooks import ExaHook
from airflow_provider_exa.protocol import endpoints, paging
from airflow_provider_exa.protocol.errors import (
    ExaBadAnswerError,
    ExaEndlessListingError,
    ExaError,
    ExaHugeAnswerError,
    ExaIncompleteListingError,
    ExaInputError,
    ExaPermanentError,
)
from airflow_provider_exa.protocol.messages import Response
from airflow_provider_exa.protocol.models import DIALECTS, MonitorRun, parse_run
from airflow_provider_exa.standin import Fault, StandIn
from airflow_provider_exa.waiting.progress import Progress
from airflow_provider_exa.waiting.selection import RunSelector
from airflow_provider_exa.waiting.waiter import poll_once
from tests.protocol.damage import damaged

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


BAD_RUNS = [
    *damaged(RUN, "id", "status", "createdAt"),
    *(json.dumps(RUN | {"createdAt": text}).encode() for text in ("soon", "0001-01-01T00:00:00+05:00")),
    *(json.dumps(RUN | {"completedAt": other}).encode() for other in ("soon", 5)),
]


@pytest.mark.parametrize("run", BAD_RUNS, ids=lambda run: run[:70].decode())
def test_one_run_that_cannot_be_read_leaves_the_others(
    exa: StandIn, run: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """They come first; then the error quotes it, as a partial load that looks whole is data loss."""
    good = [json.dumps(RUN | {"id": run_id}).encode() for run_id in ("run_2", "run_3")]
    exa.fail(Fault(status=200, body=b'{"data": [%b, %b, %b]}' % (good[0], run, good[1])))
    runs = ExaHook().list_monitor_runs("mon_a")
    assert [next(runs).id, next(runs).id] == ["run_2", "run_3"]
    with pytest.raises(ExaBadAnswerError, match=r"^A listing holds an unreadable item \(") as caught:
        next(runs)
    assert repr(json.loads(run))[:200] in str(caught.value)
    assert warnings_of(caplog) == [f"{caught.value} It is left out."]


def test_runs_after_one_that_cannot_be_read_are_handed_over(exa: StandIn) -> None:
    """Those of its page; the listing ends there."""
    exa.fail(Fault(status=200, body=body(RUN, {}, RUN | {"id": "run_2"}, hasMore=True, nextCursor="a")))
    runs = ExaHook().list_monitor_runs("mon_a")
    assert [next(runs).id, next(runs).id] == ["run_1", "run_2"]
    with pytest.raises(ExaBadAnswerError, match="unreadable"):
        next(runs)
    assert len(exa.requests) == 1


@pytest.mark.parametrize("place", range(150, 190, 3))
def test_a_key_is_taken_out_of_an_item_before_that_is_cut(place: int) -> None:
    """No part of it is left at the edge of the quotation."""
    key = "standin-key-1234"
    item = {"id": "run_1", "note": "x" * place + key}
    answer = Response(200, body(item), "", redact=lambda text: text.replace(key, "***"))
    call = paging.fetch_page(endpoints.list_runs(WEBSETS, "mon_a"))
    next(call)
    with pytest.raises(StopIteration) as done:
        call.send(answer)
    assert "standin" not in str(done.value.value.truncated)


# --- paging ---------------------------------------------------------------------------------------


def test_a_run_holds_what_exa_sent(exa: StandIn) -> None:
    """Whether it is listed or asked for by its id; only polls go without."""
    exa.add_run("mon_a", run_id="mon_a")
    listed, asked_for = next(ExaHook().list_monitor_runs("mon_a")), get_run(ExaHook())
    assert listed.raw == asked_for.raw
    assert listed.raw["id"] == "mon_a"


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


@pytest.mark.parametrize("shift", [1, 2, 3, 7, 40])
def test_a_listing_that_shifts_repeats_no_run(exa: StandIn, shift: int) -> None:
    """Runs are made while it is read, and push the others onto later pages."""
    runs = [RUN | {"id": f"run_{number}"} for number in range(60)]
    new = [RUN | {"id": f"new_{number}"} for number in range(shift)]
    shifted = [*new, *runs]
    exa.fail(Fault(status=200, body=body(*runs[:5], hasMore=True, nextCursor="5")))
    for start in range(5, len(shifted), 5):
        more = start + 5 < len(shifted)
        page = body(*shifted[start : start + 5], hasMore=more, nextCursor=str(start + 5))
        exa.fail(Fault(status=200, body=page))
    listed = list_runs(ExaHook())
    assert len(listed) == len(set(listed))
    assert set(listed) >= {run["id"] for run in runs}


def test_a_long_listing_keeps_few_ids(exa: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of them: what comes again much later is listed again."""
    monkeypatch.setattr(hooks, "MAX_IDS", 4)
    pages = ["abc", "dab", "efg", "hab", ""]
    for number, ids in enumerate(pages, 1):
        runs = [RUN | {"id": run_id} for run_id in ids]
        exa.fail(Fault(status=200, body=body(*runs, hasMore=bool(ids), nextCursor=str(number))))
    exa.fail(Fault(status=200, body=body()))
    runs_of = ExaHook().list_monitor_runs("mon_a")
    assert "".join(next(runs_of).id for _ in range(10)) == "abcdefghab"


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
    with pytest.raises(ExaPermanentError, match="came back to a cursor that it had, after 2 pages"):
        list_runs(ExaHook())
    assert len(exa.requests) == 2


def test_a_circle_of_cursors_is_an_error(exa: StandIn) -> None:
    """It need not be the last cursor that repeats."""
    for cursor in "aba":
        exa.fail(Fault(status=200, body=body(RUN, hasMore=True, nextCursor=cursor)))
    with pytest.raises(ExaPermanentError, match="came back to a cursor that it had, after 3 pages"):
        list_runs(ExaHook())
    assert len(exa.requests) == 3


@pytest.mark.parametrize(
    ("answer", "found", "why"),
    [
        (Fault(kind="no_cursor"), ["run_9", "run_8", "run_7"], "no cursor for it"),
        (Fault(kind="empty_more"), [], "a page is empty, yet has more behind it"),
        (Fault(status=200, body=body(RUN, hasMore=True)), ["run_1"], "no cursor for it"),
        (Fault(status=200, body=body(RUN, hasMore=True, nextCursor="")), ["run_1"], "no cursor for it"),
    ],
)
def test_more_without_a_way_to_it_is_an_error(
    *,
    exa: StandIn,
    ten: list[str],
    answer: Fault,
    found: list[str],
    why: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The runs before are handed over; a listing that is cut short is never taken for whole."""
    exa.fail(answer)
    runs = ExaHook().list_monitor_runs("mon_a")
    assert [next(runs).id for _ in found] == found
    with pytest.raises(
        ExaIncompleteListingError,
        match=f"^A listing cannot be read to its end: .*{why} \\(page 1 of {RUNS}\\)",
    ):
        next(runs)
    assert len(exa.requests) == 1
    assert len(warnings_of(caplog)) == 1


@pytest.mark.parametrize(
    ("fields", "pages"),
    [
        ({"hasMore": True, "nextCursor": "a"}, 2),
        ({"nextCursor": "a"}, 2),
        ({"hasMore": None, "nextCursor": "a"}, 2),
        ({"hasMore": False, "nextCursor": "a"}, 1),
        ({"hasMore": None, "nextCursor": None}, 1),
        ({"hasMore": False}, 1),
        ({}, 1),
    ],
    ids=str,
)
def test_has_more_decides_where_it_is_there_and_else_the_cursor(
    exa: StandIn, fields: dict[str, Any], pages: int
) -> None:
    """A last page may name a cursor, and a page that has more need not say so."""
    exa.fail(Fault(status=200, body=json.dumps({"data": [RUN], **fields}).encode()))
    exa.fail(Fault(status=200, body=body(RUN | {"id": "run_2"})))
    assert list_runs(ExaHook()) == ["run_1", "run_2"][:pages]
    assert [request.query for request in exa.requests] == [{}, {"cursor": "a"}][:pages]


@pytest.mark.parametrize("cursor", [7, [1, 2], "a\r\nx-api-key: b", "ü&limit=1#", "c" * 3000], ids=repr)
def test_a_cursor_is_sent_back_whatever_it_is_made_of(exa: StandIn, cursor: Any) -> None:
    """It is opaque, and stays one value of the query."""
    exa.fail(Fault(status=200, body=body(RUN, hasMore=True, nextCursor=cursor)))
    exa.fail(Fault(status=200, body=body(RUN | {"id": "run_2"})))
    assert list_runs(ExaHook()) == ["run_1", "run_2"]
    assert exa.requests[1].query == {"cursor": str(cursor)}


@pytest.mark.parametrize("max_pages", [1, 3, 4])
def test_more_pages_than_allowed_are_an_error(exa: StandIn, ten: list[str], max_pages: int) -> None:
    """The pages up to the cap are handed over, and the one above it is not asked for."""
    listing = ExaHook().list_monitor_runs("mon_a", max_pages=max_pages)
    if max_pages < 4:
        assert [next(listing).id for _ in range(3 * max_pages)] == ten[: 3 * max_pages]
        with pytest.raises(ExaEndlessListingError, match=f"more than {max_pages} pages.*raise max_pages"):
            next(listing)
        assert len(exa.requests) == max_pages
    else:
        assert [run.id for run in listing] == ten


def test_a_page_that_is_too_large_is_listed_in_smaller_ones(
    exa: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    """Each run of a search monitor may hold all that it found; the pages after that are as small at once."""
    found = [{"title": "long", "text": "x" * 900_000}]
    ids = [exa.add_run("mon_a", results=found) for _ in range(19)]
    assert list_runs(ExaHook(api="search")) == ids[::-1]
    assert [request.query.get("limit") for request in exa.requests] == ["20", "4", "4", "4", "4", "4"]
    (warning,) = warnings_of(caplog)
    assert warning.startswith(
        "A listing is too large to be read; it is listed in smaller pages (/monitors/mon_a/runs)"
    )
    exa.requests.clear()
    for _ in range(2):
        next(ExaHook(api="search").list_monitor_runs("mon_a"))
    assert [request.query for request in exa.requests] == [{"limit": "8"}, {"limit": "8"}]


def test_a_size_that_is_remembered_is_no_more_than_was_asked_for(exa: StandIn, ten: list[str]) -> None:
    """A listing with a smaller page keeps that; another listing keeps its own."""
    exa.fail(Fault(kind="huge"))
    list_runs(ExaHook())
    exa.add_run("mon_b")
    exa.requests.clear()
    for monitor_id, options in (("mon_a", {"page_size": 2}), ("mon_a", {"page_size": 20}), ("mon_b", {})):
        next(ExaHook().list_monitor_runs(monitor_id, **options))
    assert [request.query for request in exa.requests] == [{"limit": "2"}, {"limit": "10"}, {}]


def test_one_run_that_is_too_large_is_an_error(exa: StandIn, ten: list[str]) -> None:
    """There is no smaller page than that of one."""
    exa.fail(Fault(kind="huge", times=None))
    with pytest.raises(ExaHugeAnswerError, match="more than 16 MiB"):
        list_runs(ExaHook())
    assert [request.query.get("limit") for request in exa.requests] == [None, "10", "2", "1"]


def test_a_page_that_is_too_large_is_an_error_where_exa_takes_no_limit(exa: StandIn, ten: list[str]) -> None:
    """It cannot be asked for less at once."""
    exa.refuses = ["limit"]
    list_runs(ExaHook(), page_size=3)
    exa.requests.clear()
    exa.fail(Fault(kind="huge", times=None))
    with pytest.raises(ExaHugeAnswerError):
        list_runs(ExaHook(), page_size=3)
    assert [request.query for request in exa.requests] == [{}]


def test_a_refused_limit_is_left_out(exa: StandIn, ten: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """A 400 to it is asked again without it, once in a process, and warned about once."""
    exa.refuses = ["limit"]
    without = [{}, {"cursor": "run_7"}, {"cursor": "run_4"}, {"cursor": "run_1"}]
    for _ in range(2):
        assert list_runs(ExaHook(), page_size=3) == ten
    assert [request.query for request in exa.requests] == [{"limit": "3"}, *without, *without]
    assert warnings_of(caplog) == [f"Exa refuses the parameter 'limit'; listed without it ({RUNS})."]


@pytest.mark.parametrize("refuses", [["cursor"], ["limit", "cursor"]], ids=str)
def test_a_refused_cursor_is_an_error_for_all_that_lies_beyond(
    exa: StandIn, ten: list[str], refuses: list[str]
) -> None:
    """The first page is handed over once; the rest cannot be had."""
    exa.refuses = refuses
    runs = ExaHook().list_monitor_runs("mon_a", page_size=3)
    assert [next(runs).id for _ in range(3)] == ten[:3]
    with pytest.raises(ExaIncompleteListingError, match="Exa refuses the parameter 'cursor'"):
        next(runs)
    assert "cursor" not in exa.requests[-1].query


@pytest.mark.parametrize("page", [3, 4])
def test_a_400_amid_a_listing_is_an_error(exa: StandIn, ten: list[str], page: int) -> None:
    """A cursor that was honoured once is supported, so it has expired, say."""
    runs = ExaHook().list_monitor_runs("mon_a")
    assert [next(runs).id for _ in range(3 * page - 3)] == ten[: 3 * page - 3]
    exa.fail(Fault(status=400, body=b'{"error": "cursor has expired"}'))
    with pytest.raises(ExaPermanentError, match="answered 400: 'cursor has expired'"):
        next(runs)
    assert len(exa.requests) == page


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
    with pytest.raises(ExaPermanentError, match=f"refused the API key .*{status}: '{told}'"):
        next(runs)
    assert "refuses" not in caplog.text


LONG_ID = "monitor_01k9abcdefghjkmnpqrstvwxyz_012345678"


@pytest.mark.parametrize(
    ("page", "news"),
    [
        (body(RUN, hasMore=True), "A listing cannot be read to its end: it has more, but no cursor for it"),
        (body(hasMore=True, nextCursor="a"), "A listing cannot be read to its end: a page is empty, yet has"),
        (body({"id": 5}), "A listing holds an unreadable item (TypeError: 'id' is 5; {'id': 5}"),
        (
            body(RUN, hasMore=True, nextCursor="a"),
            "A listing came back to a cursor that it had, after 2 pages",
        ),
    ],
    ids=["no cursor", "empty", "unreadable", "loop"],
)
@pytest.mark.parametrize("door", ["hook", "wait"])
def test_an_error_about_a_listing_begins_with_the_news(
    *, exa: StandIn, no_pauses: list[float], page: bytes, news: str, door: str
) -> None:
    """A hundred characters are all that Airflow shows of a line, and an id can have forty."""
    exa.fail(Fault(status=200, body=page, path="/runs", times=None))
    if door == "hook":
        with pytest.raises(ExaError) as caught:
            list_runs(ExaHook(), LONG_ID)
        assert LONG_ID in str(caught.value)
        told = str(caught.value)
    else:
        wait = Progress(LONG_ID, RunSelector(created_after=START.subtract(days=1)), START)
        observation, _ = poll_once(ExaHook().client, "websets", wait, confirm=True)
        told = str(observation.error)
    assert told.startswith(news)
    assert len(news) <= 100


# --- the newest runs ------------------------------------------------------------------------------


def newest(hook: ExaHook, limit: int, **options: Any) -> list[str]:
    """The ids of a monitor's newest runs."""
    keep = options.pop("keep", lambda run: True)
    listing = endpoints.list_runs(WEBSETS, "mon_a", **options)
    return [run.id for run in hook.call(paging.newest_runs(listing, limit, keep))]


@pytest.mark.parametrize("order", ["newest", "oldest", "shuffled"])
@pytest.mark.parametrize("limit", [1, 3, 5, 10, 11])
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


@pytest.mark.parametrize("limit", [3, 4])
@pytest.mark.parametrize("fault", ["no_cursor", "empty_more"])
def test_the_newest_runs_are_certain_or_an_error(
    exa: StandIn, ten: list[str], fault: str, limit: int
) -> None:
    """A listing that is cut short after them has shown them all; one that is cut before has not."""
    exa.fail(Fault(kind=fault, path="cursor=run_7"))
    exa.fail(Fault(kind=fault, path="cursor=run_4"))
    if limit == 3:
        assert newest(ExaHook(), limit) == ten[:3]
    else:
        with pytest.raises(ExaIncompleteListingError):
            newest(ExaHook(), 7)


def test_a_run_that_cannot_be_read_may_be_among_the_newest(exa: StandIn) -> None:
    """Those before it are certain, those behind it are not."""
    three, one = (
        RUN | {"id": f"run_{hour}", "createdAt": START.add(hours=hour).isoformat()} for hour in (3, 1)
    )
    exa.fail(Fault(status=200, body=body(three, {"id": "run_2"}, one), times=2))
    assert newest(ExaHook(), 1) == ["run_3"]
    with pytest.raises(ExaBadAnswerError, match="unreadable"):
        newest(ExaHook(), 2)


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
    assert paging.listed_back_to(runs) == (None if edge is None else START.add(hours=edge))


# --- back to a moment -----------------------------------------------------------------------------


def back_to(**options: Any) -> paging.ListedRuns:
    """List the runs of ``mon_a``."""
    return ExaHook().call(paging.list_back_to(endpoints.list_runs(WEBSETS, "mon_a", **options)))


def test_a_listing_that_was_read_to_its_end_is_complete(exa: StandIn, ten: list[str]) -> None:
    """Whatever its order."""
    for order in ("newest", "oldest", "shuffled"):
        exa.order = order  # type: ignore[assignment]
        listed = back_to(since=paging.BEGINNING_OF_TIME)
        assert set(listed.runs) == set(ten)
        assert (listed.listed_back_to, listed.truncated) == (paging.BEGINNING_OF_TIME, None)


def test_a_listing_is_complete_back_to_the_last_run_of_its_last_page(exa: StandIn, ten: list[str]) -> None:
    """No page is asked for that nobody needs."""
    listed = back_to(since=START.add(hours=7, minutes=1))
    assert (listed.listed_back_to, listed.truncated) == (START.add(hours=7), None)
    listed = back_to(since=START.add(hours=7))
    assert (listed.listed_back_to, listed.truncated) == (START.add(hours=4), None)
    assert len(exa.requests) == 3


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(status=503, times=None, path="cursor=run_4"), "answered 503"),
        (Fault(kind="html", times=None, path="cursor=run_4"), "cannot be read"),
        (Fault(status=404, path="cursor=run_4"), "answered 404"),
        (Fault(kind="empty_more", path="cursor=run_4"), "a page is empty"),
    ],
    ids=["503", "html", "404", "empty"],
)
def test_trouble_with_a_later_page_cuts_the_listing_off_there(
    *, exa: StandIn, ten: list[str], no_pauses: list[float], fault: Fault, error: str
) -> None:
    """The pages before are kept, with the moment back to which they are complete."""
    exa.fail(fault)
    listed = back_to(since=START)
    assert listed.listed_back_to == START.add(hours=4)
    assert set(listed.runs) == set(ten[:6])
    assert error in str(listed.truncated)


def test_trouble_with_the_first_page_is_an_error(
    exa: StandIn, ten: list[str], no_pauses: list[float]
) -> None:
    """Nothing was listed at all."""
    exa.fail(Fault(status=404))
    with pytest.raises(ExaPermanentError, match="answered 404"):
        back_to(since=START)


@pytest.mark.parametrize(
    ("bad", "hour"),
    [("9", None), ("8", 9), ("7", 8), ("6", 7), ("5", 6), ("4", 5), ("3 4", 5)],
)
def test_an_unreadable_run_makes_the_listing_incomplete_there(
    exa: StandIn, bad: str, hour: int | None
) -> None:
    """Back to the run before it; the others are listed, also those behind it."""
    runs = [
        RUN | {"id": f"run_{number}", "createdAt": START.add(hours=number).isoformat()}
        for number in range(9, 1, -1)
    ]
    unreadable = {f"run_{number}" for number in bad.split()}
    items = [{} if run["id"] in unreadable else run for run in runs]
    exa.fail(Fault(status=200, body=body(*items[:4], hasMore=True, nextCursor="a")))
    exa.fail(Fault(status=200, body=body(*items[4:], hasMore=True, nextCursor="b")))
    exa.fail(Fault(status=200, body=body()))
    listed = back_to(since=START)
    assert set(listed.runs) == {run["id"] for run in runs} - unreadable
    assert listed.listed_back_to == (paging.END_OF_TIME if hour is None else START.add(hours=hour))
    assert isinstance(listed.truncated, ExaBadAnswerError)
