"""Pages of a listing, and their cursors."""

from __future__ import annotations

from typing import Any

from airflow_provider_exa.standin.choices import Cursors

_PAGE_ONE = {"again", "more", "loop"}  # cursors that lead there: two of faults, one of a loop
_EXPIRED = "expired_"


def start_of_page(cursors: Cursors, cursor: str | None, ids: list[str]) -> int:
    """
    Return the number of objects before the requested page.

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
    """
    Return the fields of a page that lead to the next one.

    :param start: number of objects before this page.
    :param last_id: id of this page's last object; None: this is the last page.
    """
    if start and cursors == "looping":
        return {"hasMore": True, "nextCursor": "loop"}
    if start and cursors == "expires" and last_id:
        return {"hasMore": True, "nextCursor": _EXPIRED + last_id}
    return {"hasMore": last_id is not None, "nextCursor": None if cursors == "missing" else last_id}
