"""The page sizes with which the pages of listings arrive, as this process has learned them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: How many objects Exa puts on a page, at most, where no ``limit`` is sent: 50, says its documentation.
DEFAULT_PAGE_SIZE = 50
#: Listings whose page size is remembered.
MAX_REMEMBERED = 1000
#: After so many pages of one size a larger one is tried; after twice as many, if that does not arrive.
PAGES_BEFORE_GROWTH = 5
MAX_PAGES_BEFORE_GROWTH = 640


@dataclass
class PageSize:
    """
    What is remembered of a listing.

    :param limit: the ``limit`` to send; None if Exa refuses the parameter
    :param arrived: the last ``limit`` that a page arrived with; 0 if none has
    :param pages: how many pages have arrived with it
    :param patience: after how many of them a larger one is tried
    """

    limit: int | None
    arrived: int = 0
    pages: int = 0
    patience: int = PAGES_BEFORE_GROWTH


#: By the path of the listing.
_page_sizes: dict[str, PageSize] = {}


def sized_params(path: str, params: Mapping[str, str | int]) -> Mapping[str, str | int]:
    """Return the parameters to ask for a page with: their ``limit`` is one that pages arrive with."""
    if path not in _page_sizes:
        return params
    limit = _page_sizes[path].limit
    given = {name: value for name, value in params.items() if name != "limit"}
    return given if limit is None else {**given, "limit": min(limit, size_of(params))}


def size_of(params: Mapping[str, str | int]) -> int:
    """Return how many objects a page holds, at most, that is asked for with these parameters."""
    return int(params.get("limit", DEFAULT_PAGE_SIZE))


def forgo_limit(path: str) -> None:
    """Remember that Exa refuses the parameter for this listing."""
    _remember(path, PageSize(None))


def shrink(path: str, limit: int) -> bool:
    """Remember that a page of this size did not arrive; return whether a smaller one can be asked for."""
    known = _page_sizes.get(path, PageSize(limit, arrived=limit))
    if limit == 1 or known.limit is None:
        return False
    if 0 < known.arrived < limit:  # a larger one was tried
        patience = min(2 * known.patience, MAX_PAGES_BEFORE_GROWTH)
        _remember(path, PageSize(known.arrived, known.arrived, patience=patience))
    else:
        _remember(path, PageSize(max(1, limit // 5), patience=known.patience))
    return True


def note_arrival(path: str, limit: int, wanted: int) -> None:
    """Remember that a page of this size has arrived; after some of them, try a larger one."""
    known = _page_sizes.get(path)
    if known is None or known.limit != limit:
        return
    if limit >= wanted:
        _page_sizes.pop(path, None)
        return
    known.pages = known.pages + 1 if known.arrived == limit else 1
    known.arrived = limit
    if known.pages >= known.patience:
        known.limit = min(2 * limit, wanted)


def _remember(path: str, page_size: PageSize) -> None:
    while len(_page_sizes) >= MAX_REMEMBERED:
        del _page_sizes[next(iter(_page_sizes))]
    _page_sizes[path] = page_size
