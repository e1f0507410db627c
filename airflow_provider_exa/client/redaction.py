"""Secrets taken out of texts, however a server has written them."""

from __future__ import annotations

import base64
import functools
import html
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import AnyStr
from urllib.parse import quote, quote_plus

#: A part of a secret is taken out of a text if it has at least so many characters.
MIN_PART = 8
#: The same for an answer, where a shorter part may be one of a time.
MIN_PART_OF_BODY = 16
#: The same for the key in base64 in an answer: 18 of its own characters. Shorter ones take longer to find.
MIN_BASE64_OF_BODY = 24
#: A shorter password is left in, as it may be part of any word.
MIN_SECRET = 4
REDACTED = "***"

_USER_INFO = re.compile(r"(?<=://)[^\s/?#]*@")
#: A character by its code: in a URL, as JSON has it, and as Python has it, in JSON.
_BY_CODE = ("%{:02x}", "%{:02X}", r"\u00{:02x}", r"\u00{:02X}", r"\\x{:02x}", r"\\x{:02X}")
_HALF_AN_ESCAPE = re.compile(rb"\\u[0-9a-fA-F]{0,3}\Z")

#: A text as a server writes each of its characters, and how many of them are a part to be taken out.
Written = tuple[tuple[bytes, ...], int]


class Redactor:
    """
    Takes secrets out of texts: whole or in part, escaped, quoted, or in base64; and the user info of any URL.

    :param key: the API key
    :param others: further secrets, such as the password of a proxy
    """

    def __init__(self, key: str, others: Iterable[str] = ()) -> None:
        self._key = key
        self._others = tuple(other for other in others if len(other) >= MIN_SECRET)

    def text(self, text: str) -> str:
        """Take every trace of the secrets out of a text that is meant for people."""
        if not self._may_be_in(text):
            return _USER_INFO.sub(f"{REDACTED}@", text)
        # A match at each place, so that parts that overlap make one.
        spans = [match.span(1) for match in self._anywhere.finditer(text) if match.group(1)]
        return _USER_INFO.sub(f"{REDACTED}@", _replace(text, spans, REDACTED))

    def body(self, body: bytes) -> bytes:
        """
        Take the API key out of an answer, which stays JSON if it is: the whole key, and long parts of it.

        A body may hold megabytes, so only the usual ways to write a key are looked for; a text that is made
        of the body goes through :meth:`text` as well. Short parts of the key are left in, as they may be
        Exa's own data, and so is a short key: it is a stand-in's.
        """
        if len(self._key) < MIN_PART:
            return body
        spans = list(_find_parts(body, self._written))
        if any(code.search(body) for code in self._codes):
            spans += _find_parts(body, self._by_code)
            spans += [_whole(body, *match.span()) for match in self._mixed.finditer(body)]
        return _replace(body, sorted(spans), REDACTED.encode())

    def _may_be_in(self, text: str) -> bool:
        """Return whether a text may hold a secret; tells most that do not in a tenth of the time."""
        if any(escape in text for escape in ("\\", "%", "&", *self._others)):
            return True
        sizes = {len(part) for part in self._plain_parts}
        places = ((start, start + size) for size in sizes for start in range(len(text) - size + 1))
        return any(text[start:stop] in self._plain_parts for start, stop in places)

    @functools.cached_property
    def _plain_parts(self) -> frozenset[str]:
        encoded = [each for secret in (self._key, *self._others) for each in _in_base64(secret)]
        return frozenset(part for text in (self._key, *encoded) for part in _parts(text))

    @functools.cached_property
    def _written(self) -> set[Written]:
        """The key as it is usually written in JSON."""
        in_json = [json.dumps(char)[1:-1] for char in self._key]
        ways = [
            in_json,
            [char.replace("/", r"\/") for char in in_json],
            [quote(char, safe="") for char in self._key],
            [quote(char) for char in self._key],
            [quote_plus(char) for char in self._key],
            [html.escape(char) for char in self._key],
        ]
        in_base64 = {_as_written(each, MIN_BASE64_OF_BODY) for each in _in_base64(self._key)}
        return in_base64 | {_as_written(each, MIN_PART_OF_BODY) for each in ways}

    @functools.cached_property
    def _by_code(self) -> set[Written]:
        """The key with all of its characters by their codes."""
        ways = ([way.format(ord(char)) for char in self._key] for way in _BY_CODE)
        return {_as_written(each, MIN_PART_OF_BODY) for each in ways}

    @functools.cached_property
    def _codes(self) -> list[re.Pattern[bytes]]:
        """Escapes of the key's characters; other answers hardly escape a letter or a digit."""
        codes = "|".join(sorted(map(_hex, set(self._key))))
        return [re.compile(f"{sign}(?:{codes})".encode()) for sign in ("%", r"\\(?:u00|x)")]

    @functools.cached_property
    def _mixed(self) -> re.Pattern[bytes]:
        """The key with any of its characters escaped."""
        return re.compile("".join(map(_any_way, self._key)).encode())

    @functools.cached_property
    def _anywhere(self) -> re.Pattern[str]:
        parts = ["".join(map(_any_way, part)) for part in _parts(self._key)]
        for secret in (self._key, *self._others):
            for aligned in _in_base64(secret):
                parts += map(re.escape, _parts(aligned))
        for secret in self._others:
            parts.append("".join(map(_any_way, secret)))
        return re.compile(f"(?=({'|'.join(parts)}))")


def _replace(text: AnyStr, spans: Iterable[tuple[int, int]], mark: AnyStr) -> AnyStr:
    """Put a mark into the place of each span; those that overlap or touch become one."""
    pieces: list[AnyStr] = []
    end = 0
    for start, stop in spans:
        if start > end or not pieces:
            pieces += [text[end:start], mark]
        end = max(end, stop)
    pieces.append(text[end:])
    return text[:0].join(pieces)


def _as_written(chars: Sequence[str], min_part: int) -> Written:
    return tuple(char.encode() for char in chars), min(min_part, len(chars))


def _find_parts(body: bytes, texts: Iterable[Written]) -> Iterator[tuple[int, int]]:
    """
    Find the long parts of texts in a body.

    A block of twelve characters begins at every fifth character of the text, so one begins among the first
    five of any part of sixteen and ends within it. There are few blocks, and a body without them has no part.
    """
    for chars, part in texts:
        size = part * 3 // 4
        for first in range(0, len(chars) - size + 1, part - size + 1):
            at, block = -1, b"".join(chars[first : first + size])
            while (at := body.find(block, at + 1)) >= 0:
                start, before = _extend_left(body, at, chars[:first])
                stop, after = _extend_right(body, at + len(block), chars[first + size :])
                if before + size + after >= part:
                    yield _whole(body, start, stop)


def _extend_left(body: bytes, start: int, written: Sequence[bytes]) -> tuple[int, int]:
    """Return where the characters before a place in a body begin that are a text's last, and how many."""
    for count, char in enumerate(reversed(written)):
        if not body.endswith(char, 0, start):
            return start, count
        start -= len(char)
    return start, len(written)


def _extend_right(body: bytes, stop: int, written: Sequence[bytes]) -> tuple[int, int]:
    """Return where the characters from a place in a body on end that are a text's first, and how many."""
    for count, char in enumerate(written):
        if not body.startswith(char, stop):
            return stop, count
        stop += len(char)
    return stop, len(written)


def _whole(body: bytes, start: int, stop: int) -> tuple[int, int]:
    """Extend a span to the escape that it begins in, half of which would be no JSON."""
    if half := _HALF_AN_ESCAPE.search(body, max(0, start - 5), start):
        start = half.start()
    while body[start - 1 : start] == b"\\":
        start -= 1
    return start, stop


def _parts(secret: str) -> list[str]:
    size = min(MIN_PART, len(secret))
    return [secret[start : start + size] for start in range(len(secret) - size + 1)]


def _any_way(char: str) -> str:
    """Make a pattern of a character and its escapes in JSON, Python, URLs and HTML."""
    code = ord(char)
    hex_ = _hex(char)
    # JSON in JSON in JSON has seven backslashes; a run without limit would be read again from each of them.
    ways = [
        rf"\\{{0,7}}{re.escape(char)}",
        rf"\\{{1,7}}(?:u00|x){hex_}",
        f"%{hex_}",
        f"&#0*{code};",
        f"&#[xX]0*{hex_};",
    ]
    if (named := html.escape(char)) != char:
        ways.append(re.escape(named))
    return f"(?:{'|'.join(ways)})"


def _hex(char: str) -> str:
    return "".join(f"[{digit}{digit.upper()}]" for digit in f"{ord(char):02x}")


def _in_base64(secret: str) -> list[str]:
    """Return the settled part of a secret in base64, for each place in a group of three bytes."""
    found = []
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + secret.encode()).decode().rstrip("=")
        settled = encoded[-(-offset * 8 // 6) : (offset + len(secret)) * 8 // 6]
        if len(settled) >= MIN_PART:
            found.append(settled)
    return found
