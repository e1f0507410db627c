"""
The pages of a listing, and the rule where paging may stop, without I/O.

Exa promises neither an order nor that a listing can be read to its end. So a page says how far back it shows
every run, and why the listing goes no further if it should.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import nlargest
from typing import Any, Generic, TypeVar

from pendulum import UTC, DateTime

from airflow_provider_exa.protocol.errors import (
    ExaBadAnswerError,
    ExaEndlessListingError,
    ExaError,
    ExaHugeAnswerError,
    ExaIncompleteListingError,
)
from airflow_provider_exa.protocol.messages import (
    MAX_QUOTED,
    MAX_SEARCHED,
    UNREADABLE,
    Call,
    Request,
    is_bad_key,
    or_error,
    read,
)
from airflow_provider_exa.protocol.models import MonitorRun, warn_once
from airflow_provider_exa.protocol.page_size import forgo_limit, note_arrival, shrink, size_of, sized_params

T = TypeVar("T")
#: Two moments, or none.
Ends = tuple[DateTime, ...]

BEGINNING_OF_TIME = DateTime(1, 1, 1, tzinfo=UTC)
END_OF_TIME = DateTime(9999, 12, 31, tzinfo=UTC)
MAX_PAGES = 1000
#: Pages of one run show an order only together; so many of them hardly do by chance.
MIN_PAGES_IN_ORDER = 10
#: An oldest-first listing of more pages than this is gone on from where it ended.
MIN_PAGES_TO_RESUME = 3


@dataclass(frozen=True)
class Listing(Generic[T]):
    """
    A page that is still to be fetched.

    :param since: paging may stop where a page shows that all later ones lie before this moment
    :param number: of this page, from 1
    :param cursors: those of the pages before this one
    :param newest_first: when the first and the last run on the pages before this one were created; None if
        those do not list their runs newest first
    """

    path: str
    parse: Callable[[Any], T]
    params: Mapping[str, str | int] = field(default_factory=dict)
    max_pages: int = MAX_PAGES
    since: DateTime | None = None
    number: int = 1
    cursors: frozenset[str] = frozenset()
    newest_first: Ends | None = ()


@dataclass(frozen=True)
class Page(Generic[T]):
    """
    One page of a listing.

    :param items: those that can be read
    :param next_page: None at the end of the listing, or where nothing later is needed
    :param truncated: why items are missing on this page or behind it; None if none are
    :param readable: how many items come before the first that cannot be read
    :param unreadable: that item, and why it cannot be read
    :param is_last: whether the listing ends with this page
    :param listed_back_to: the moment before which all later pages lie, if this one shows that
    """

    items: Sequence[T]
    next_page: Listing[T] | None = None
    truncated: ExaError | None = None
    readable: int | None = None
    unreadable: str | None = None
    is_last: bool = False
    listed_back_to: DateTime | None = None


@dataclass(frozen=True)
class ListedRuns:
    """
    The runs of one or more pages.

    :param runs: by id
    :param listed_back_to: every run created after this moment is among them
    :param truncated: why the listing goes no further than that; None if it does
    :param stale: the ids of runs that an earlier poll has shown and this one has not, and that may change
    :param resume: the page to go on from at the next poll, where the oldest runs are listed first
    """

    runs: Mapping[str, MonitorRun]
    listed_back_to: DateTime
    truncated: ExaError | None = None
    stale: frozenset[str] = frozenset()
    resume: Listing[MonitorRun] | None = None


def covers(listed_back_to: DateTime | None, since: DateTime) -> bool:
    """Return whether every run created since a moment is known."""
    return listed_back_to is not None and (listed_back_to < since or listed_back_to == BEGINNING_OF_TIME)


def fetch_page(listing: Listing[T]) -> Call[Page[T]]:
    """
    Fetch one page, in a smaller size where it is too large to arrive; that size is remembered.

    :raises ExaHugeAnswerError: one item alone is too large
    """
    if endless := _endless(listing):
        return Page((), truncated=endless)
    while True:
        params = sized_params(listing.path, listing.params)
        try:
            page = yield from _fetch_page(listing, params)
        except ExaHugeAnswerError:
            if not shrink(listing.path, size_of(params)):
                raise
        else:
            note_arrival(listing.path, size_of(params), size_of(listing.params))
            return page
        warn_once(f"A listing is too large to be read; it is listed in smaller pages ({listing.path}).")


def list_back_to(listing: Listing[MonitorRun], earlier: ListedRuns | None = None) -> Call[ListedRuns]:
    """
    List runs page by page, as far back as ``listing.since``.

    :param earlier: the same listing at an earlier poll; one that showed the oldest runs first is gone on
        from where it ended
    :raises ExaError: the first page cannot be fetched; trouble with a later one truncates the listing
    """
    if earlier and earlier.resume and covers(earlier.listed_back_to, listing.since or BEGINNING_OF_TIME):
        resumed = yield from _resume(earlier, replace(earlier.resume, since=listing.since))
        if resumed:
            return resumed
    runs: dict[str, MonitorRun] = {}
    back_to, truncated = END_OF_TIME, None
    places: list[Listing[MonitorRun]] = []
    is_oldest_first = True
    page_of: Listing[MonitorRun] | None = listing
    while page_of:
        try:
            page = yield from fetch_page(page_of)
        except ExaError as error:
            if page_of is listing:
                raise
            return ListedRuns(runs, back_to, truncated or error)
        runs |= {run.id: run for run in page.items}
        is_oldest_first = is_oldest_first and _shows_oldest_first(page)
        places.append(page_of)
        page_of = page.next_page
        if not truncated:
            back_to, truncated = min(back_to, _complete_back_to(page)), page.truncated
    # What Exa lists late is still found if it is among the runs of the last two pages.
    can_resume = is_oldest_first and not truncated and len(places) > MIN_PAGES_TO_RESUME
    return ListedRuns(runs, back_to, truncated, resume=places[-2] if can_resume else None)


def _resume(earlier: ListedRuns, page_of: Listing[MonitorRun]) -> Call[ListedRuns | None]:
    """List what has come to a listing since an earlier poll; return None where it has to be listed anew."""
    fresh: dict[str, MonitorRun] = {}
    places = [replace(page_of, number=MIN_PAGES_TO_RESUME, cursors=frozenset())]
    while True:
        page = yield from or_error(fetch_page(places[-1]))
        if isinstance(page, ExaError) or page.truncated or not _shows_oldest_first(page):
            return None
        fresh |= {run.id: run for run in page.items}
        if not page.next_page:
            break
        places.append(page.next_page)
    since = page_of.since or BEGINNING_OF_TIME
    older = {run_id: run for run_id, run in earlier.runs.items() if run.created_at >= since}
    stale = frozenset(run_id for run_id, run in older.items() if run_id not in fresh and not run.finished)
    back_to = earlier.listed_back_to if since == BEGINNING_OF_TIME else since.subtract(microseconds=1)
    return ListedRuns({**older, **fresh}, back_to, None, stale, places[-2:][0])


def _shows_oldest_first(page: Page[MonitorRun]) -> bool:
    times = [run.created_at for run in page.items]
    return times == sorted(times) and (page.is_last or times[:1] != times[-1:])


def newest_runs(
    listing: Listing[MonitorRun], limit: int, keep: Callable[[MonitorRun], bool]
) -> Call[list[MonitorRun]]:
    """
    List the newest runs that ``keep`` lets pass, newest first.

    :raises ExaError: the listing is truncated before it has shown them all
    """
    found: dict[str, MonitorRun] = {}
    page_of: Listing[MonitorRun] | None = listing
    while page_of:
        page = yield from fetch_page(page_of)
        found |= {run.id: run for run in page.items if keep(run)}
        found = {run.id: run for run in nlargest(limit, found.values(), key=sort_key)}
        if len(found) == limit and _complete_back_to(page) <= min(run.created_at for run in found.values()):
            break
        if page.truncated:
            raise page.truncated
        page_of = page.next_page
    return list(found.values())


def sort_key(run: MonitorRun) -> tuple[DateTime, str]:
    """Sort runs by the time they were created, and by id where that is the same."""
    return run.created_at, run.id


def listed_back_to(runs: Sequence[MonitorRun]) -> DateTime | None:
    """Return the moment before which all later pages lie, if these runs show newest-first order."""
    # unverified: the order in which Websets lists runs. It is believed page by page, where a page shows it.
    return _last_of(_newest_first(runs, ()))


def _newest_first(runs: Sequence[MonitorRun], before: Ends | None) -> Ends | None:
    """Return when the first and the last run were created, from those before on; None if not newest first."""
    if before is None:
        return None
    times = [*before, *(run.created_at for run in runs)]
    return (*times[:1], *times[-1:]) if times == sorted(times, reverse=True) else None


def _last_of(newest_first: Ends | None) -> DateTime | None:
    if newest_first and newest_first[-1] < newest_first[0]:
        return newest_first[-1]
    return None


def _complete_back_to(page: Page[MonitorRun]) -> DateTime:
    """Return the moment since which the listing is complete, as far as this page shows."""
    if page.is_last and page.readable is None:
        return BEGINNING_OF_TIME
    if page.listed_back_to is None or page.readable == 0:
        return END_OF_TIME
    return page.listed_back_to if page.readable is None else page.items[page.readable - 1].created_at


def _endless(listing: Listing[Any]) -> ExaError | None:
    less = "Ask for less of it, with a later created_after or a smaller limit"
    if str(listing.params.get("cursor", "")) in listing.cursors:
        return ExaEndlessListingError(
            f"A listing came back to a cursor that it had, after {listing.number - 1} pages, and would not "
            f"end ({listing.path}). {less}."
        )
    if listing.number > listing.max_pages:
        return ExaEndlessListingError(
            f"A listing has more than {listing.max_pages} pages ({listing.path}). {less}, or raise max_pages."
        )
    return None


def _fetch_page(listing: Listing[T], params: Mapping[str, str | int]) -> Call[Page[T]]:
    parse = functools.partial(_parse_page, listing)
    request = Request(listing.path, params, parse=parse)
    response = yield request
    suspect = {1: "limit", 2: "cursor"}.get(listing.number)
    # unverified: Websets documents no parameter for its list of runs, so a 400 to the first use of one may
    # mean that Exa does not know it.
    if response.status != 400 or suspect not in params or is_bad_key(response):
        return _explain(listing, read(request, response, parse), response.redact)
    params = {name: value for name, value in params.items() if name != suspect}
    request = Request(listing.path, params, parse=parse)
    response = yield request
    page = _explain(listing, read(request, response, parse), response.redact)
    warn_once(f"Exa refuses the parameter {suspect!r}; listed without it ({listing.path}).")
    if suspect == "limit":
        forgo_limit(listing.path)
        return page
    return Page((), truncated=_incomplete(listing, "Exa refuses the parameter 'cursor'"))


def _explain(listing: Listing[T], page: Page[T], redact: Callable[[str], str]) -> Page[T]:
    """Say which item could not be read, without secrets."""
    if page.unreadable is None:
        return page
    why = redact(page.unreadable)[:MAX_QUOTED]
    error = ExaBadAnswerError(f"A listing holds an unreadable item ({why}; {listing.path}).")
    warn_once(f"{error} It is left out.")
    return replace(page, truncated=error)


def _parse_page(listing: Listing[T], body: Mapping[str, Any]) -> Page[T]:
    data, cursor = body["data"], body.get("nextCursor")
    if not isinstance(data, list):
        raise TypeError(f"'data' is {data!r:.100}")
    page = _parse_items(listing, data)
    runs = [item for item in page.items if isinstance(item, MonitorRun)]
    newest_first = _newest_first(runs, listing.newest_first)
    shown = listed_back_to(runs)
    if shown is None and listing.number >= MIN_PAGES_IN_ORDER:
        shown = _last_of(newest_first)
    page = replace(page, listed_back_to=shown)
    has_more = body.get("hasMore")
    if not (cursor if has_more is None else has_more):
        return replace(page, is_last=True)
    if listing.since and shown and shown < listing.since:
        return page
    # unverified: whether a list of runs can have this. Exa's list of imports was seen with it.
    if not data or not cursor:
        why = "a page is empty, yet has more behind it" if cursor else "it has more, but no cursor for it"
        return replace(page, truncated=_incomplete(listing, why))
    next_page = replace(
        listing,
        params={**listing.params, "cursor": str(cursor)},
        number=listing.number + 1,
        cursors=listing.cursors | {str(listing.params.get("cursor", ""))},
        newest_first=newest_first,
    )
    return replace(page, next_page=next_page)


def _parse_items(listing: Listing[T], data: Sequence[Any]) -> Page[T]:
    items: list[T] = []
    unreadable, readable = None, None
    for item in data:
        try:
            items.append(listing.parse(item))
        except UNREADABLE as error:
            if unreadable is None:
                unreadable = f"{type(error).__name__}: {error}; {item!r}"[:MAX_SEARCHED]
                readable = len(items)
    return Page(items, readable=readable, unreadable=unreadable)


def _incomplete(listing: Listing[Any], why: str) -> ExaError:
    text = f"A listing cannot be read to its end: {why} (page {listing.number} of {listing.path})."
    warn_once(text)
    return ExaIncompleteListingError(text)
