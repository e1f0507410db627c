"""A marked key: the ways in which a server writes it, and the search for parts of it."""

from __future__ import annotations

import base64
import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import quote

#: No two of their parts of eight characters are alike, and none is part of a usual text.
KEYS = {
    "plain": "Zq7-Wk3vX9pLm2RtB6-hYc8NdF4sGj5TzA",
    "quotes": "Zq7'Wk3\"vX9'pLm2Rt\"B6hYc'8NdF4sGj5",
    "backslashes": "Zq7\\Wk3vX\\9pLm2R\\tB6hYc8N\\dF4sGj5",
}


def in_json(text: str) -> str:
    return "".join(f"\\u{ord(char):04x}" for char in text)


def in_percent(text: str) -> str:
    return "".join(f"%{ord(char):02X}" for char in text)


def in_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


#: How a server writes the key: the base64 of all three begins at another place in a group of three bytes.
WAYS: dict[str, Callable[[str], str]] = {
    "whole": str,
    "json": in_json,
    "URL": lambda key: quote(key, safe=""),
    "percent": in_percent,
    "base64": in_base64,
    "base64 after a scheme": lambda key: in_base64(f"Bearer {key}"),
    "base64 after a user": lambda key: in_base64(f"user:{key}"),
    "first part": lambda key: key[:20],
    "middle part": lambda key: key[7:27],
    "last part": lambda key: key[-20:],
    "after a long text": lambda key: "." * 190 + key,
    "at the end of what is searched": lambda key: "." * (4096 - 12) + key,
}


def needles(secret: str) -> Iterator[str]:
    """Yield each part of a secret as it may be written; three groups of base64 hold eight characters."""
    for start in range(len(secret) - 7):
        part = secret[start : start + 8]
        yield from {part, json.dumps(part)[1:-1], repr(part)[1:-1], quote(part, safe="")}
        yield from (in_json(part), in_percent(part), in_percent(part).lower())
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + secret.encode()).decode()
        settled = encoded[-(-offset * 8 // 6) : (offset + len(secret)) * 8 // 6]
        yield from (settled[start : start + 12] for start in range(len(settled) - 11))


@functools.cache
def pattern_of(secret: str) -> re.Pattern[str]:
    return re.compile("|".join(sorted(set(map(re.escape, needles(secret))))))


def found_in(evidence: Iterable[str], secret: str) -> list[str]:
    """Return the texts in which a part of a secret is, each with its surroundings."""
    hits = ((text, pattern_of(secret).search(text)) for text in dict.fromkeys(evidence))
    return [text[max(0, hit.start() - 200) : hit.end() + 100] for text, hit in hits if hit]
