"""How a listing is cut into pages, and how far its cursors can be followed."""

from __future__ import annotations

from typing import Any, Literal

Cursors = Literal["honoured", "ignored", "missing", "looping", "expires"]

_PAGE_ONE = {"again", "more", "loop"}  # where the cursors of faults lead, and the one that ends a loop
_EXPIRED = "expired_"


def start_of_page(cursors: Cursors, cursor: str | None, ids: list[str]) -> int:
    """Return how many objects come before the page that a cursor asks for.

    :raises ValueError: the cursor is unknown, or has expired.
    """
    if cursor is None or cursor in _PAGE_ONE or cursors == "ignored":
        return 0
    if cursors == "expires" and cursor.startswith(_EXPIRED):
        raise ValueError("cursor has expired")
    if cursor not in ids:
        raise ValueError("cursor is unknown")
    return ids.index(cursor) + 1


def next_page(cursors: Cursors, start: int, last_id: str | None) -> dict[str, Any]:
    """Return what a page says of the next one.

    :param start: how many objects come before this page.
    :param last_id: of this page's objects; None: this is the last page.
    """
    if start and cursors == "looping":
        return {"hasMore": True, "nextCursor": "loop"}
    if start and cursors == "expires" and last_id:
        return {"hasMore": True, "nextCursor": _EXPIRED + last_id}
    return {"hasMore": last_id is not None, "nextCursor": None if cursors == "missing" else last_id}
