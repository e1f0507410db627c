"""One request to Exa and its answer, read or turned into an error, without I/O."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import pendulum
from pendulum import UTC

from airflow_provider_exa.protocol.errors import (
    ExaBadAnswerError,
    ExaError,
    ExaPermanentError,
    ExaTransientError,
)

T = TypeVar("T")

#: The longest quotation of Exa's words in an error, in characters.
MAX_QUOTED = 200
#: How much of a body is searched for words to quote, in bytes.
MAX_SEARCHED = 4096
#: What reading an answer of an unexpected shape raises.
UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
#: Half a pair of surrogates may be meant where a body has one of these.
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]|\0")


@dataclass(frozen=True)
class Request:
    """
    One HTTP request: a path below the connection's base URL and its query parameters.

    :param parse: reads the JSON of a success, in the thread that sends the request; if it raises, a GET is
        sent again
    """

    path: str
    params: Mapping[str, str | int] = field(default_factory=dict)
    method: str = "GET"
    parse: Callable[[Any], Any] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Response:
    """
    One HTTP answer, its JSON decoded where it is made: in the thread that sent the request.

    :param body: without the API key, should a server have repeated it
    :param url: the URL of the request, without query parameters
    :param headers: those that say something, by lower-case name
    :param redact: takes secrets out of a text
    :param conn_id: the Airflow connection of the request
    :param parsed: the result of the request's ``parse``; None if it has none
    :param data: the decoded body; None where ``not_json`` says why it is none
    """

    status: int
    body: bytes = field(repr=False)
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    redact: Callable[[str], str] = field(default=str, repr=False)
    conn_id: str = "exa_default"
    parsed: Any = field(default=None, repr=False)
    data: Any = field(default=None, repr=False)
    not_json: Exception | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Decode the body, once."""
        if self.data is not None or self.not_json:
            return
        try:
            object.__setattr__(self, "data", decode(self.body))
        except (ValueError, RecursionError) as error:
            object.__setattr__(self, "not_json", error)


def decode(body: bytes) -> Any:
    """
    Decode JSON to values that JSON can hold: neither ``NaN`` nor infinity, and no half of a surrogate pair.

    :raises ValueError: it is no JSON
    :raises RecursionError: it is nested too deeply
    """
    data = json.loads(body, parse_constant=lambda _: None, parse_float=_finite)
    if not SURROGATE.search(body):
        return data
    text = json.dumps(data, ensure_ascii=False).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return json.loads(text)


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


#: A call yields a request and is sent its response; or it yields calls to be made beside each other, and is
#: sent a list of their results and errors.
Call = Generator["Request | list[Call[Any]]", Any, T]


ADVICE = {
    400: "Check the arguments of the request, and the API key: Exa answers 400 to some bad keys.",
    402: "The team is out of credits; add some in Exa's dashboard.",
    403: "The API key may not do this; check which team it belongs to.",
    404: "Check the id, the API that api= names, the team of the API key, and the connection's host.",
    407: "Check the proxy of connection {conn_id!r} and its password.",
    429: "The team has sent more requests than Exa allows.",
}

REDIRECT_ADVICE = (
    "redirects are not followed, so that the API key stays with its host. Set the host of connection "
    "{conn_id!r} to the address of Exa's API."
)

HOST_ADVICE = "Check that the host of connection {conn_id!r} is Exa's API."


def is_success(status: int) -> bool:
    """Return whether Exa did as it was asked."""
    return 200 <= status < 300


def is_redirect(status: int) -> bool:
    """Return whether the answer points to another URL."""
    return 300 <= status < 400


def is_transient(status: int) -> bool:
    """Return whether a request that was answered with this status may succeed later."""
    return status < 200 or status in (408, 429) or status >= 500


def is_bad_key(response: Response) -> bool:
    """Return whether Exa refused the API key: 401 by its documentation, 400 in recordings."""
    # unverified: which of the two Exa answers today.
    return response.status == 401 or (response.status == 400 and b"api-key" in response.body.lower())


def doubts_connection(response: Response) -> bool:
    """Return whether another key, host or proxy might have been answered otherwise."""
    return is_bad_key(response) or is_redirect(response.status) or response.status in (403, 404, 407)


def refusal(request: Request, response: Response) -> ExaError:
    """Make the error for an answer whose status is not a success, in Exa's own words."""
    status = response.status
    asked = _asked(request, response)
    if is_transient(status):
        return ExaTransientError(
            _sentence(f"Exa answered {status}: {_words(response)} ({asked}).", response),
            status=status,
            retry_after=_seconds(response.headers.get("retry-after", "")),
            repeatable=request.method == "GET" or status in (429, 503),
        )
    if is_bad_key(response):
        return ExaPermanentError(
            f"Exa refused the API key of connection {response.conn_id!r} ({status}: {_words(response)}; "
            f"{asked}). Check the connection's password, and that the key's team has API access.",
            status=status,
        )
    if is_redirect(status):
        advice = REDIRECT_ADVICE.format(conn_id=response.conn_id)
        return ExaPermanentError(f"Exa answered {status}, a redirect ({asked}); {advice}", status=status)
    message = _sentence(f"Exa answered {status}: {_words(response)} ({asked}).", response)
    return ExaPermanentError(message, status=status)


def _sentence(news: str, response: Response) -> str:
    advice = ADVICE.get(response.status, "").format(conn_id=response.conn_id)
    return f"{news} {advice}".rstrip()


def _asked(request: Request, response: Response) -> str:
    """Say how Exa was asked, with the id of the request where it gave one."""
    body = response.data if isinstance(response.data, dict) else {}
    request_id = response.headers.get("x-request-id") or body.get("requestId")
    text = f", request id {response.redact(str(request_id))[:100]}" if request_id else ""
    return f"{request.method} {response.url}{text}"


def _words(response: Response) -> str:
    """Quote the answer: its message where it has one, else the beginning of its body."""
    body = response.data if isinstance(response.data, dict) else {}
    texts = [body[key] for key in ("message", "error") if isinstance(body.get(key), str)]
    text = texts[0] if texts else response.body[:MAX_SEARCHED].decode(errors="replace")
    return repr(response.redact(text[:MAX_SEARCHED])[:MAX_QUOTED])


def _seconds(retry_after: str) -> float | None:
    """Read a Retry-After header, which holds seconds or a date."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(retry_after)
        return max(0.0, (moment - pendulum.now(UTC)).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None


def receive(request: Request, response: Response) -> Response:
    """
    Take in an answer: parse a success as the request says.

    A refusal is returned as it is, as a call may know a way round it.

    :raises ExaTransientError: Exa cannot answer now, or its answer cannot be read
    """
    if is_transient(response.status):
        raise refusal(request, response)
    if not is_success(response.status):
        return response
    if request.parse is None:
        _parse(request, response, lambda data: data)
        return response
    return replace(response, parsed=_parse(request, response, request.parse))


def read(request: Request, response: Response, parse: Callable[[Any], T]) -> T:
    """Return the parsed body of a success; raise any other answer as its error."""
    if not is_success(response.status):
        raise refusal(request, response)
    if response.parsed is not None and request.parse is parse:
        parsed: T = response.parsed
        return parsed
    return _parse(request, response, parse)


def ask(request: Request, parse: Callable[[Any], T]) -> Call[T]:
    """Send a request whose answer ``parse`` reads; a GET with an answer that it cannot read is sent again."""
    request = replace(request, parse=parse)
    response = yield request
    return read(request, response, parse)


def or_error(call: Call[T]) -> Call[T | ExaError]:
    """Return a call's result, or its error where others must go on."""
    try:
        return (yield from call)
    except ExaError as error:
        return error


def _parse(request: Request, response: Response, parse: Callable[[Any], T]) -> T:
    try:
        if response.not_json:
            raise response.not_json
        return parse(response.data)
    except UNREADABLE as error:
        why = response.redact(f"{type(error).__name__}: {error}"[:MAX_SEARCHED])[:MAX_QUOTED]
        text = (
            f"Exa's answer cannot be read ({why}): {_words(response)} (answered {response.status}; "
            f"{_asked(request, response)}). {HOST_ADVICE.format(conn_id=response.conn_id)}"
        )
    raise ExaBadAnswerError(text, status=response.status, repeatable=request.method == "GET")
