"""The pages of a listing, and where paging may stop, without I/O."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import nlargest
from typing import Any, Generic, TypeVar

from pendulum import DateTime

from airflow_provider_exa.protocol.errors import ExaEndlessListingError, ExaHugeAnswerError
from airflow_provider_exa.protocol.messages import Call, Request, read
from airflow_provider_exa.protocol.models import MonitorRun, warn_once

T = TypeVar("T")


MAX_PAGES = 1000


#: How many objects Exa puts on a page, at most, where it is not asked for a number: 50 by its documents.
PAGE_SIZE = 50


@dataclass(frozen=True)
class Listing(Generic[T]):
    """
    The place of one page in a listing.

    :param number: of this page, from 1
    :param cursors: that were asked for before this page
    """

    path: str
    parse: Callable[[Any], T]
    params: Mapping[str, str | int] = field(default_factory=dict)
    max_pages: int = MAX_PAGES
    number: int = 1
    cursors: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Page(Generic[T]):
    """
    The items of one page, and the place of the next one if there is more.

    :param cut: whether there is more that Exa does not let be listed
    """

    items: Sequence[T]
    following: Listing[T] | None
    cut: bool = False


def fetch_page(listing: Listing[T]) -> Call[Page[T]]:
    """
    One page of a listing, smaller than it would be where that is too large to be read.

    A listing of a search monitor's runs may hold what each has found, which has no limit but that.

    :raises ExaEndlessListingError: the cursor was given before, or there are more than ``max_pages``
    """
    try:
        return (yield from _fetch_page(listing))
    except ExaHugeAnswerError:
        limit = int(listing.params.get("limit", PAGE_SIZE))
        if limit == 1:
            raise
    warn_once(f"The listing {listing.path} is too large to be read; it is listed in smaller pages.")
    smaller = {**listing.params, "limit": max(1, limit // 5)}
    return (yield from fetch_page(replace(listing, params=smaller)))


def _fetch_page(listing: Listing[T]) -> Call[Page[T]]:
    """
    One page of a listing.

    Websets documents no parameter for its list of runs, so a 400 may mean that the server refuses
    ``limit`` (on the first page) or ``cursor`` (later): that one is left out and the page asked for again.
    Without its cursor that is page one again, so the listing ends there.
    """
    cursor = str(listing.params.get("cursor", ""))
    if cursor in listing.cursors:
        raise ExaEndlessListingError(
            f"The listing {listing.path} came back to the cursor {cursor!r} after {listing.number - 1} pages "
            "and would not end. Ask for less of it, with a later created_after or a smaller limit."
        )
    if listing.number > listing.max_pages:
        raise ExaEndlessListingError(
            f"The listing {listing.path} has more than {listing.max_pages} pages. Ask for less of it, with "
            "a later created_after or a smaller limit, or raise max_pages."
        )
    suspect = "cursor" if cursor else "limit"
    request = Request(listing.path, listing.params)
    response = yield request
    if refused := response.status == 400 and suspect in listing.params:
        listing = replace(
            listing, params={name: value for name, value in listing.params.items() if name != suspect}
        )
        request = Request(listing.path, listing.params)
        response = yield request
    page = read(request, response, functools.partial(_parse_page, listing, cursor))
    if refused:
        warn_once(f"Exa refuses the parameter {suspect!r} for {listing.path}; listed without it.")
        return page if suspect == "limit" else Page((), None, cut=True)
    return page


def _parse_page(listing: Listing[T], cursor: str, body: Mapping[str, Any]) -> Page[T]:
    data, following = body["data"], body.get("nextCursor")
    if not isinstance(data, list):
        raise TypeError(f"'data' is {data!r:.100}")
    page = Page([listing.parse(item) for item in data], None)
    if not body.get("hasMore", following):
        return page
    if not data or not following:
        warn_once(f"The listing {listing.path} says that it has more but not how to get it; it ends here.")
        return page
    place = replace(
        listing,
        params={**listing.params, "cursor": str(following)},
        number=listing.number + 1,
        cursors=listing.cursors | {cursor},
    )
    return replace(page, following=place)


def age(run: MonitorRun) -> tuple[DateTime, str]:
    """What runs are sorted by: when they were created, and their id where that is the same."""
    return run.created_at, run.id


def listed_back_to(page: Page[MonitorRun]) -> DateTime | None:
    """The moment before which all later pages lie, if this page itself shows newest-first order."""
    times = [run.created_at for run in page.items]
    if len(times) > 1 and times[-1] < times[0] and times == sorted(times, reverse=True):
        return times[-1]
    return None


def newest_runs(
    listing: Listing[MonitorRun], limit: int, keep: Callable[[MonitorRun], bool], since: DateTime | None
) -> Call[list[MonitorRun]]:
    """The newest runs that ``keep`` lets pass; none created before ``since`` has to be looked for."""
    found: dict[str, MonitorRun] = {}
    place: Listing[MonitorRun] | None = listing
    while place:
        page = yield from fetch_page(place)
        found |= {run.id: run for run in page.items if keep(run)}
        found = {run.id: run for run in nlargest(limit, found.values(), key=age)}
        edge = listed_back_to(page)
        full = len(found) == limit and min(run.created_at for run in found.values())
        if edge and ((full and edge <= full) or (since and edge < since)):
            break
        place = page.following
    return list(found.values())
