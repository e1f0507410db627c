"""One request to Exa and its answer, read or turned into an error, without I/O."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Request:
    """One HTTP request: a path below the connection's base URL and its query parameters."""

    path: str
    params: Mapping[str, str | int] = field(default_factory=dict)
    method: str = "GET"


@dataclass(frozen=True)
class Response:
    """
    One HTTP answer.

    :param url: what was asked, without query parameters
    :param headers: by lower-case name
    :param redact: takes the API key out of a text, if the answer holds it
    """

    status: int
    body: bytes
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    redact: Callable[[str], str] = field(default=str, repr=False, compare=False)


Call = Generator[Request, Response, T]


ADVICE = {
    400: "Check what was asked for, and the API key: Exa answers 400 to some bad keys.",
    401: "Check the API key, the password of the Airflow connection, and that its team has API access.",
    402: "The team is out of credits; add some in Exa's dashboard.",
    403: "The API key may not do this; check which team it belongs to.",
    404: "Check the id, that the API key belongs to the team that owns it, and the connection's host.",
    429: "The team has sent more requests than Exa allows.",
}


def is_transient(status: int) -> bool:
    """Whether a request that was answered with this status may succeed later."""
    return status in (408, 429) or status >= 500


def is_bad_key(response: Response) -> bool:
    """Whether Exa refused the API key: 401 by its documents, 400 in recordings."""
    return response.status == 401 or (response.status == 400 and b"api-key" in response.body.lower())


def refusal(request: Request, response: Response) -> ExaError:
    """The error for an answer whose status is not a success, in Exa's own words."""
    status, headers = response.status, response.headers
    message = f"{_asked(request, response)} was answered {status}: {_words(response)}"
    if is_transient(status):
        return ExaTransientError(
            message,
            status=status,
            retry_after=_seconds(headers.get("retry-after", "")),
            repeatable=request.method == "GET" or status in (429, 503),
        )
    if 300 <= status < 400:
        return ExaPermanentError(
            f"{message} It redirects, and redirects are not followed, so that the API key stays with its "
            "host. Set the connection's host to where the API is."
        )
    return ExaPermanentError(f"{message} {ADVICE.get(status, '')}".rstrip())


def _asked(request: Request, response: Response) -> str:
    return f"{request.method} {response.url}"


def _words(response: Response) -> str:
    """What the answer says: its message where it has one, else how its body begins; and the request's id."""
    try:
        body = json.loads(response.body)
        texts = [body[key] for key in ("message", "error") if isinstance(body.get(key), str)]
    except (ValueError, AttributeError, RecursionError):
        body, texts = {}, []
    text = texts[0][:500] if texts else response.body[:800].decode(errors="replace")[:200]
    request_id = response.headers.get("x-request-id") or body.get("requestId")
    return response.redact(f"{text!r}{f' (request id {request_id!s:.100})' if request_id else ''}.")


def _seconds(retry_after: str) -> float | None:
    """The seconds in a Retry-After header, which holds a number of them or a date."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(retry_after)
        return max(0.0, (moment - pendulum.now(UTC)).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None


def read(request: Request, response: Response, parse: Callable[[Any], T]) -> T:
    """The parsed body of a success; any other answer as its error."""
    if not 200 <= response.status < 300:
        raise refusal(request, response)
    try:
        return parse(json.loads(response.body))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        why = response.redact(f"{type(error).__name__}: {error!s:.200}")
        raise ExaBadAnswerError(
            f"{_asked(request, response)} was answered {response.status} with a body that cannot be read "
            f"({why}): {_words(response)} "
            "Check that the connection's host is Exa's API."
        ) from None
