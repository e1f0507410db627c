"""Answers of Exa's that cannot be read."""

from __future__ import annotations

import json
from typing import Any


def damaged(whole: dict[str, Any], *keys: str) -> list[bytes]:
    """What is no object, and objects that lack one of the keys or hold something else there."""
    others: list[Any] = [None, "", 5, {}]
    bad: list[Any] = [None, "text", 5, []]
    bad += [{name: value for name, value in whole.items() if name != key} for key in keys]
    bad += [whole | {key: other} for key in keys for other in others]
    return [json.dumps(each).encode() for each in bad]
