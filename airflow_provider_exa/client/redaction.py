"""Secrets taken out of texts, however a server has written them."""

from __future__ import annotations

import base64
import functools
import html
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

#: A part of a secret is taken out if it has at least so many characters.
MIN_PART = 8
#: A shorter password is left in, as it may be part of any word.
MIN_SECRET = 4
REDACTED = "***"

_USER_INFO = re.compile(r"(?<=://)[^\s/?#]*@")


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
        pieces: list[str] = []
        end = 0
        for start, stop in spans:
            if start > end or not pieces:
                pieces += [text[end:start], REDACTED]
            end = max(end, stop)
        return _USER_INFO.sub(f"{REDACTED}@", "".join(pieces) + text[end:])

    def body(self, body: bytes) -> bytes:
        """
        Take the whole API key out of an answer.

        A body may hold megabytes, so only the usual ways to write a key are looked for; a text that is made
        of the body goes through :meth:`text` as well. Parts of the key are left in, as they may be Exa's own
        data, and so is a short key: it is a stand-in's.
        """
        if len(self._key) < MIN_PART:
            return body
        for written in self._written:
            if written in body:
                body = body.replace(written, REDACTED.encode())
        return self._escaped.sub(REDACTED.encode(), body) if b"\\u00" in body else body

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
    def _written(self) -> list[bytes]:
        key = self._key
        in_json = key.replace("\\", "\\\\").replace('"', '\\"')
        written = {
            key,
            in_json,
            in_json.replace("/", "\\/"),
            quote(key, safe=""),
            quote(key),
            quote_plus(key),
        }
        in_base64 = base64.b64encode(key.encode()).decode()
        return [each.encode() for each in sorted({*written, in_base64}, key=len, reverse=True)]

    @functools.cached_property
    def _escaped(self) -> re.Pattern[bytes]:
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


def _parts(secret: str) -> list[str]:
    size = min(MIN_PART, len(secret))
    return [secret[start : start + size] for start in range(len(secret) - size + 1)]


def _any_way(char: str) -> str:
    """Make a pattern of a character and its escapes in JSON, Python, URLs and HTML."""
    code = ord(char)
    hex_ = "".join(f"[{digit}{digit.upper()}]" for digit in f"{code:02x}")
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


def _in_base64(secret: str) -> list[str]:
    """Return the settled part of a secret in base64, for each place in a group of three bytes."""
    found = []
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + secret.encode()).decode().rstrip("=")
        settled = encoded[-(-offset * 8 // 6) : (offset + len(secret)) * 8 // 6]
        if len(settled) >= MIN_PART:
            found.append(settled)
    return found
