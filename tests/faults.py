"""Faults of a server, byte by byte and in its JSON, and what each means for a caller."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_provider_exa.protocol.errors import (
    ExaBadAnswerError,
    ExaEndlessListingError,
    ExaError,
    ExaHugeAnswerError,
    ExaIncompleteListingError,
    ExaInputError,
    ExaPermanentError,
    ExaTransientError,
)
from tests.client.conftest import Script, Speaker

#: Seconds that an answer may take.
TIMEOUT = 0.2
RUN = {"id": "run_1", "status": "completed", "createdAt": "2026-01-31T06:00:00Z"}


def whole(run: Mapping[str, Any]) -> bytes:
    """JSON that is at once this run, a listing of it alone, and a monitor."""
    return json.dumps({**run, "data": [run], "hasMore": False}).encode()


FINE = whole(RUN)


@dataclass(frozen=True)
class Case:
    """
    A fault and what becomes of it.

    :param script: what the server does; None where the connection does not lead to it
    :param error: the class of the error: None if the answer is read, transient if a wait goes on, permanent
        if it ends
    :param told: how the error's message begins, within a hundred characters
    :param by_door: error and message, by the beginning of a door's name, where they differ
    :param host: where the connection leads to instead: a URL, or the name of a certificate
    """

    script: Script | None = None
    error: type[ExaError] | None = None
    told: str = ""
    by_door: Mapping[str, tuple[type[ExaError] | None, str]] = field(default_factory=dict)
    host: str = ""

    def at(self, door: str) -> tuple[type[ExaError] | None, str]:
        """The class of the error, and the beginning of its message, at one door."""
        return self.by_door.get(door, (self.error, self.told))


def no_answer(script: Script, why: str) -> Case:
    """A fault that leaves the request without an answer."""
    return Case(script, ExaTransientError, f"Exa gave no answer ({why}")


def unreadable(script: Script, why: str) -> Case:
    """A fault that leaves an answer that cannot be read."""
    return Case(script, ExaBadAnswerError, f"Exa's answer cannot be read ({why}")


def say(*parts: bytes) -> Script:
    """Send these bytes and close."""
    return lambda speaker: speaker.say(*parts)


def drip(data: bytes) -> Script:
    """Send these bytes one by one."""
    return lambda speaker: speaker.drip(data)


def head(*lines: str, status: str = "200 OK") -> bytes:
    """The head of an answer, after which the server closes the connection."""
    return "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *lines, "Connection: close", "")).encode(
        "latin-1"
    )


def answer(body: bytes, *lines: str, status: str = "200 OK") -> bytes:
    """A whole answer."""
    return head(f"Content-Length: {len(body)}", *lines, status=status) + body


def zipped(body: bytes) -> bytes:
    """An answer in gzip."""
    return answer(body, "Content-Encoding: gzip")


def then_hang(*parts: bytes) -> Script:
    """Send these bytes and nothing more."""

    def script(speaker: Speaker) -> None:
        speaker.say(*parts)
        speaker.hang()

    return script


def then_reset(*parts: bytes) -> Script:
    """Send these bytes and reset the connection."""

    def script(speaker: Speaker) -> None:
        speaker.say(*parts)
        time.sleep(0.02)
        speaker.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        speaker.rfile.close()
        speaker.connection.close()

    return script


def for_ever(start: bytes, part: bytes, pause: float = 0) -> Script:
    """Send these bytes, and then the same part again and again."""

    def script(speaker: Speaker) -> None:
        speaker.say(start)
        speaker.for_ever(part, pause)

    return script


LENGTH = f"Content-Length: {len(FINE)}"
CHUNKED = head("Transfer-Encoding: chunked")
CHUNK = f"{len(FINE):x}\r\n".encode() + FINE + b"\r\n"
GZIP = gzip.compress(FINE)
FAULTS: dict[str, Case] = {
    "nothing": no_answer(say(), "RemoteDisconnected: Remote end closed connection without res"),
    "reset before the headers": no_answer(
        then_reset(), "ConnectionResetError: [Errno 104] Connection reset by peer"
    ),
    "reset after the headers": no_answer(
        then_reset(head(LENGTH)), "ConnectionResetError: [Errno 104] Connection reset by peer"
    ),
    "reset in the body": no_answer(
        then_reset(head(LENGTH), FINE[:5]),
        "ConnectionResetError: [Errno 104] Connection reset by peer",
    ),
    "hang before the headers": no_answer(then_hang(), "ReadTimeout: timed out"),
    "hang in the status line": no_answer(then_hang(b"HTTP/1.1 2"), "ReadTimeout: timed out"),
    "hang in the headers": no_answer(then_hang(b"HTTP/1.1 200 OK\r\nX-A: b\r\n"), "ReadTimeout: timed out"),
    "hang in the body": no_answer(then_hang(head(LENGTH), FINE[:5]), "ReadTimeoutError: timed out"),
    "hang in a large body": Case(
        then_hang(head("Content-Length: 99999"), b"[" + b" " * 20000),
        ExaHugeAnswerError,
        f"Exa's answer did not arrive within {TIMEOUT} s, only 19 KiB of it",
    ),
    "status line byte by byte": no_answer(drip(b"HTTP/1.1 200 " + b"O" * 500), "ReadTimeout: timed out"),
    "headers byte by byte": no_answer(drip(head("X-Padding: " + "x" * 500)), "ReadTimeout: timed out"),
    "a header every 20 ms": no_answer(
        for_ever(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n", 0.02), "ReadTimeout: timed out"
    ),
    "body byte by byte": no_answer(drip(answer(FINE.ljust(500))), "ReadTimeout: timed out"),
    "100 Continue for ever": no_answer(
        for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01), "ReadTimeout: timed out"
    ),
    "100 Continue for ever, fast": no_answer(
        for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100), "ReadTimeout: timed out"
    ),
    "103 Early Hints for ever": no_answer(
        for_ever(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", 0.01), "ReadTimeout: timed out"
    ),
    "chunk sizes byte by byte": no_answer(for_ever(CHUNKED, b"0", 0.02), "ReadTimeoutError: timed out"),
    "chunks of one byte": no_answer(for_ever(CHUNKED, b"1\r\n \r\n", 0.02), "ReadTimeoutError: timed out"),
    "trailers for ever": no_answer(
        for_ever(CHUNKED + CHUNK + b"0\r\n", b"X-A: b\r\n", 0.02), "ReadTimeoutError: timed out"
    ),
    "gzip header for ever": no_answer(
        for_ever(head("Content-Encoding: gzip") + b"\x1f\x8b\x08\x08\0\0\0\0\0\xff", b"a", 0.02),
        "ReadTimeoutError: timed out",
    ),
    "a body for ever": Case(
        for_ever(head(), b" " * 65536), ExaHugeAnswerError, "Exa's answer has more than 16 MiB"
    ),
    "cut body": no_answer(
        say(head(f"Content-Length: {len(FINE) + 85}"), FINE),
        f"IncompleteRead: IncompleteRead({len(FINE)} bytes read, 85 more expect",
    ),
    "cut body of no length": unreadable(say(head(), FINE[:-1]), "JSONDecodeError: Expecting ',' delimiter"),
    "Content-Length too short": unreadable(
        say(head("Content-Length: 5"), FINE), "JSONDecodeError: Expecting ':' delimiter"
    ),
    "Content-Length is no number": Case(say(head("Content-Length: five"), FINE)),
    "Content-Length negative": Case(say(head("Content-Length: -5"), FINE)),
    "Content-Lengths that differ": no_answer(
        say(head("Content-Length: 5", LENGTH), FINE),
        "InvalidHeader: Content-Length contained multiple unmatching ",
    ),
    "chunk size is no number": no_answer(
        say(CHUNKED, b"zz\r\n" + FINE), "IncompleteRead: IncompleteRead(0 bytes read)"
    ),
    "chunk size is negative": no_answer(
        say(CHUNKED, b"-5\r\n" + FINE), "IncompleteRead: IncompleteRead(0 bytes read)"
    ),
    "cut chunk": no_answer(say(CHUNKED, b"fff\r\n" + FINE), "IncompleteRead: IncompleteRead(0 bytes read)"),
    "chunks without an end": no_answer(say(CHUNKED, CHUNK), "IncompleteRead: IncompleteRead(0 bytes read)"),
    "broken gzip": no_answer(
        say(zipped(b"no gzip")), "DecodeError: ('Received response with content-encoding: gzip"
    ),
    "cut gzip": unreadable(say(zipped(GZIP[:-12])), "JSONDecodeError: "),
    "gzip with a wrong checksum": no_answer(
        say(zipped(GZIP[:-8] + b"\0" * 8)), "DecodeError: ('Received response with content-encoding: gzip"
    ),
    "gzip": Case(say(zipped(GZIP))),
    "unknown encoding": Case(say(answer(FINE, "Content-Encoding: rot13"))),
    "bomb": Case(
        say(zipped(gzip.compress(b"\0" * 2**27))), ExaHugeAnswerError, "Exa's answer has more than 16 MiB"
    ),
    "HTML with 200": unreadable(
        say(answer(b"<html>Sign in</html>")), "JSONDecodeError: Expecting value: line 1"
    ),
    "HTML with 502": Case(
        say(answer(b"<html>Bad Gateway</html>", status="502 Bad Gateway")),
        ExaTransientError,
        "Exa answered 502: '<html>Bad Gateway</html>'",
    ),
    "empty 200": unreadable(say(answer(b"")), "JSONDecodeError: Expecting value: line 1"),
    "204": unreadable(say(head(status="204 No Content")), "JSONDecodeError: Expecting value: line 1"),
    "null": unreadable(say(answer(b"null")), "TypeError: 'NoneType' object is not subs"),
    "another shape": unreadable(say(answer(b"[1, 2]")), "TypeError: list indices must be integers"),
    "deep nesting": unreadable(say(answer(b"[" * 100_000)), "RecursionError: maximum recursion depth "),
    "a byte order mark": Case(say(answer(b"\xef\xbb\xbf" + FINE))),
    "no UTF-8": unreadable(say(answer(b'{"id": "\xff"}')), "UnicodeDecodeError: 'utf-8' codec can't "),
    "UTF-16": Case(say(answer(FINE.decode().encode("utf-16")))),
    "100 Continue first": Case(say(b"HTTP/1.1 100 Continue\r\n\r\n", answer(FINE))),
    "102 Processing first": Case(say(b"HTTP/1.1 102 Processing\r\n\r\n" * 3, answer(FINE))),
    "103 Early Hints first": Case(say(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n", answer(FINE))),
    "101 Switching Protocols": Case(
        say(head("Upgrade: h2c", status="101 Switching Protocols")), ExaTransientError, "Exa answered 101: ''"
    ),
    "a huge header": no_answer(
        say(answer(FINE, "X-Padding: " + "x" * 2**17)),
        "LineTooLong: got more than 65536 bytes when reading header l",
    ),
    "many headers": no_answer(
        say(answer(FINE, *["X-Padding: x"] * 200)), "HTTPException: got more than 100 headers"
    ),
    "a line that is no header": Case(say(head("no header", LENGTH), FINE)),
    "status 999": Case(
        say(answer(b"{}", status="999 Whatever")), ExaTransientError, "Exa answered 999: '{}'"
    ),
    "status 1000": no_answer(
        say(answer(b"{}", status="1000 Whatever")), "BadStatusLine: HTTP/1.1 1000 Whatever"
    ),
    "status 99": no_answer(say(answer(b"{}", status="99 Whatever")), "BadStatusLine: HTTP/1.1 99 Whatever"),
    "status is no number": no_answer(say(answer(b"{}", status="OK")), "BadStatusLine: HTTP/1.1 OK"),
    "SSH": no_answer(say(b"SSH-2.0-OpenSSH_9.6\r\n"), "BadStatusLine: SSH-2.0-OpenSSH_9.6"),
    "a TLS alert": Case(
        say(b"\x15\x03\x03\0\x02\x02\x46\r\n"),
        ExaInputError,
        "The host of connection 'exa_default' speaks TLS",
    ),
    "HTTP/0.9": no_answer(say(FINE), 'BadStatusLine: {"id": "run_1"'),
    "404": Case(
        say(answer(b'{"message": "Monitor not found"}', status="404 Not Found")),
        ExaPermanentError,
        "Exa answered 404: 'Monitor not found'",
    ),
    "404 that hangs": Case(
        then_hang(head(LENGTH, status="404 Not Found"), b"{"), ExaPermanentError, "Exa answered 404: '{'"
    ),
    "401": Case(
        say(answer(b'{"error": "Invalid API key"}', status="401 Unauthorized")),
        ExaPermanentError,
        "Exa refused the API key of connection 'exa_default' (401: 'Invalid API key'",
    ),
    "a redirect": Case(
        say(answer(b"", "Location: http://127.0.0.1:9/", status="302 Found")),
        ExaPermanentError,
        "Exa answered 302, a redirect",
    ),
    "a redirect without a Location": Case(
        say(answer(b"", status="302 Found")), ExaPermanentError, "Exa answered 302, a redirect"
    ),
    "a redirect that is no URL": Case(
        say(answer(b"", "Location: http://[::1", status="301 Moved")),
        ExaPermanentError,
        "Exa answered 301, a redirect",
    ),
    "a redirect to a bad port": Case(
        say(answer(b"", "Location: http://a:b/", status="307 Moved")),
        ExaPermanentError,
        "Exa answered 307, a redirect",
    ),
    "a redirect in no UTF-8": Case(
        say(answer(b"", "Location: /\xff\xfe", status="308 Moved")),
        ExaPermanentError,
        "Exa answered 308, a redirect",
    ),
    "a redirect whose body hangs": Case(
        then_hang(head("Location: /", "Content-Length: 99", status="302 Found")),
        ExaPermanentError,
        "Exa answered 302, a redirect",
    ),
    "a redirect that is a bomb": Case(
        say(
            answer(gzip.compress(b"\0" * 2**27), "Content-Encoding: gzip", "Location: /", status="302 Found")
        ),
        ExaPermanentError,
        "Exa answered 302, a redirect",
    ),
    "304": Case(say(head(status="304 Not Modified")), ExaPermanentError, "Exa answered 304, a redirect"),
}


def limited(status: str, *lines: str) -> Case:
    """Too many requests, or too much for Exa."""
    script = say(answer(b'{"error": "slow down"}', *lines, status=status))
    return Case(script, ExaTransientError, f"Exa answered {status[:3]}: 'slow down'")


RETRY_AFTER = {
    "none": (),
    "seconds": ("Retry-After: 1",),
    "a date": ("Retry-After: Sat, 31 Jan 2037 06:00:00 GMT",),
    "past": ("Retry-After: Sat, 31 Jan 2026 06:00:00 GMT",),
    "absurd": ("Retry-After: 1e300",),
    "infinite": ("Retry-After: inf",),
    "no number": ("Retry-After: nan",),
    "negative": ("Retry-After: -5",),
    "garbage": ("Retry-After: soon\xff",),
    "far date": ("Retry-After: Fri, 31 Dec 9999 23:59:59 -2359",),
    "twice": ("Retry-After: 1", "Retry-After: 2"),
}
FAULTS |= {f"429, Retry-After {name}": limited("429 Too Many", *lines) for name, lines in RETRY_AFTER.items()}
FAULTS["503, Retry-After seconds"] = limited("503 Busy", "Retry-After: 1")


# --- JSON that is odd: what a listing and a run hold ----------------------------------------------

LISTING = "A listing"
BY_LISTING = ("hook", "poke", "deferred", "asset")


def read_as(body: bytes) -> Case:
    """A run that is odd, but can be read."""
    return Case(say(answer(body)))


def odd(**fields: Any) -> Case:
    """A run with such fields, which can be read."""
    return read_as(whole(RUN | fields))


def broken(why: str, **fields: Any) -> Case:
    """A run with such fields, which cannot be read; the listing that holds it is not whole."""
    item = (ExaBadAnswerError, f"{LISTING} holds an unreadable item ({why}")
    by_door = dict.fromkeys(BY_LISTING, item)
    error = f"Exa's answer cannot be read ({why}"
    return Case(say(answer(whole(RUN | fields))), ExaBadAnswerError, error, by_door)


def page(*runs: object, **fields: Any) -> bytes:
    """A page of a listing."""
    return json.dumps({"data": runs, "hasMore": False, **fields}).encode()


def pages(first: bytes, second: bytes) -> Script:
    """Answer with two pages; a run or a monitor that is asked for by its id is fine."""

    def script(speaker: Speaker) -> None:
        path = speaker.head.split()[1]
        body = second if "cursor=" in path else first if path.endswith("/runs") else FINE
        speaker.say(answer(body))

    return script


def listed(first: bytes, second: bytes = b"") -> Case:
    """A listing that is odd, but can be read to its end."""
    return Case(pages(first, second))


def unlisted(
    error: type[ExaError], told: str, first: bytes, second: bytes = b"", *, logged: str = ""
) -> Case:
    """A listing that cannot be read to its end."""
    by_door = {**dict.fromkeys(BY_LISTING, (error, told)), "asset": (error, logged or told)}
    return Case(pages(first, second), None, "", by_door)


def no_page(why: str, body: object) -> Case:
    """A listing that is no page at all."""
    error = (ExaBadAnswerError, f"Exa's answer cannot be read ({why}")
    return Case(pages(json.dumps(body).encode(), b""), None, "", dict.fromkeys(BY_LISTING, error))


def item(why: str, value: object) -> Case:
    """A listing that holds something that is no run."""
    told = f"{LISTING} holds an unreadable item ({why}"
    return unlisted(ExaBadAnswerError, told, page(value))


def endless(why: str, first: bytes, second: bytes = b"") -> Case:
    """A listing without a way to its end."""
    return unlisted(ExaIncompleteListingError, f"{LISTING} cannot be read to its end: {why}", first, second)


NEWER = RUN | {"id": "run_2", "createdAt": "2026-02-28T06:00:00Z"}
DEEP: Any = {}
for _ in range(500):
    DEEP = {"in": DEEP}
BODIES: dict[str, Case] = {
    "time without a zone": odd(createdAt="2026-01-31T06:00:00"),
    "time with an offset": odd(createdAt="2026-01-31T06:00:00+05:30"),
    "time with nanoseconds": odd(createdAt="2026-01-31T06:00:00.123456789Z"),
    "day without a time": odd(createdAt="2026-01-31"),
    "year 9999": odd(createdAt="9999-12-31T23:59:59Z"),
    "no time of its end": odd(completedAt=None),
    "end in the year 9999": odd(completedAt="9999-12-31T23:59:59Z"),
    "time in milliseconds": broken("ValueError: Invalid isoformat", createdAt="1770120100000"),
    "end in milliseconds": broken("ValueError: Invalid isoformat", completedAt="1770120100000"),
    "time null": broken("TypeError: 'createdAt' is None", createdAt=None),
    "time a number": broken("TypeError: 'createdAt' is 1769839200", createdAt=1769839200),
    "time NaN": broken("TypeError: 'createdAt' is None", createdAt=float("nan")),
    "time no time": broken("ValueError: Invalid isoformat string: 'soon'", createdAt="soon"),
    "year 10000": broken("ValueError: ", createdAt="10000-01-01T00:00:00Z"),
    "beyond the last year": broken("OverflowError: ", createdAt="9999-12-31T23:59:59-12:00"),
    "end a number": broken("TypeError: ", completedAt=5),
    "id a number": broken("TypeError: 'id' is 7", id=7),
    "id null": broken("TypeError: 'id' is None", id=None),
    "id a list": broken("TypeError: 'id' is ['run_1']", id=["run_1"]),
    "id empty": broken("TypeError: 'id' is ''", id=""),
    "id of a megabyte": broken("ValueError: 'id' has 1048576 characters", id="x" * 2**20),
    "status of a megabyte": broken("ValueError: 'status' has 1048576 characters", status="x" * 2**20),
    "time of a megabyte": broken("ValueError: 'createdAt' has 1048576 characters", createdAt="x" * 2**20),
    "type of a megabyte": odd(type="x" * 2**20),
    "monitor id of a megabyte": odd(monitorId="x" * 2**20),
    "status null": broken("TypeError: 'status' is None", status=None),
    "status a list": broken("TypeError: 'status' is ['completed']", status=["completed"]),
    "run of another monitor": broken("ValueError: it is of the monitor 'mon_b'", monitorId="mon_b"),
    "unknown fields": odd(mood="fine", data2=[1], nested={"a": {"b": None}}),
    "unknown type": odd(type="census"),
    "type a number": odd(type=5),
    "monitor id a list": odd(monitorId=["mon_a"]),
    "reason an object": odd(failedReason={"code": 5}),
    "reason of a megabyte": odd(failedReason="x" * 2**20),
    "NaN and infinity": odd(score=float("nan"), failedReason=float("inf")),
    "half of a surrogate pair": odd(failedReason="cut \ud83c", mood="\udc00"),
    "deep, but not too deep": odd(nested=DEEP),
    "data null": no_page("TypeError: 'data' is None", {"data": None}),
    "data an object": no_page("TypeError: 'data' is {'run_1': {}}", {"data": {"run_1": {}}}),
    "no data": no_page("KeyError: 'data'", {"runs": []}),
    "an error with 200": no_page("KeyError: 'data'", {"error": "Something went wrong"}),
    "item null": item("TypeError: 'NoneType' object", None),
    "item a list": item("TypeError: list indices", ["run_1"]),
    "item a text": item("TypeError: string indices", "run_1"),
    "item without an id": item("KeyError: 'id'", {"status": "completed", "createdAt": RUN["createdAt"]}),
    "cursor a number": listed(page(NEWER, hasMore=True, nextCursor=7), page(RUN)),
    "cursor a list": listed(page(NEWER, hasMore=True, nextCursor=[1, 2]), page(RUN)),
    "cursor holds CR LF": listed(page(NEWER, hasMore=True, nextCursor="a\r\nx-api-key: b"), page(RUN)),
    "cursor holds NUL": listed(page(NEWER, hasMore=True, nextCursor="a\0b"), page(RUN)),
    "cursor holds half of a pair": listed(page(NEWER, hasMore=True, nextCursor="a\ud800"), page(RUN)),
    "cursor of 30,000 characters": listed(page(NEWER, hasMore=True, nextCursor="c" * 30_000), page(RUN)),
    "a cursor and no more": listed(page(RUN, nextCursor="a")),
    "more, but no cursor": endless("it has more, but no cursor", page(NEWER, hasMore=True)),
    "more behind an empty page": endless("a page is empty", page(hasMore=True, nextCursor="a")),
    "cursor that loops": unlisted(
        ExaEndlessListingError,
        f"{LISTING} came back to a cursor that it had",
        page(NEWER, hasMore=True, nextCursor="a"),
        page(NEWER, hasMore=True, nextCursor="a"),
        logged="Exa does not list all runs for the asset",
    ),
    "twice on a page": listed(page(RUN, RUN)),
    "on two pages": listed(page(NEWER, RUN, hasMore=True, nextCursor="a"), page(RUN)),
    "oldest first, on two pages": listed(page(RUN, NEWER, hasMore=True, nextCursor="a"), page(NEWER)),
    "two pages that are the same": listed(page(NEWER, RUN, hasMore=True, nextCursor="a"), page(NEWER, RUN)),
}


# --- hosts that are none, or not the one that is meant --------------------------------------------


def unreached(host: str, why: str) -> Case:
    """A host that is not reached."""
    return replace(no_answer(say(), why), script=None, host=host)


UNTRUSTED = "SSLError: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed"
HOSTS = {
    "refused": unreached("http://127.0.0.1:9", "ConnectionRefusedError: [Errno 111] Connection refused"),
    "no such host": unreached("http://exa.invalid", "gaierror: [Errno -"),
    "certificate signed by itself": unreached("self-signed", f"{UNTRUSTED}: self-sign"),
    "certificate expired": unreached("expired", f"{UNTRUSTED}: certificat"),
    "certificate of another host": unreached("other", f"{UNTRUSTED}: IP address"),
}
