"""
What Exa says and what it means: pure code, without I/O; of Airflow it knows one exception.

A call is a generator that yields a :class:`Request`, is sent the :class:`Response` and returns the
result; ``transport.py`` drives it. The errors:

.. code-block:: text

    ExaError
    ├── ExaTransientError        no answer, 408, 429, 5xx: it may succeed later
    │   ├── ExaNotStartedError   Exa was asked for a run and says that it started none
    │   └── ExaBadAnswerError    an answer that cannot be read; a later one may be
    │       └── ExaHugeAnswerError  an answer that is too large to be read
    └── ExaPermanentError        asking again does not help: every other status; an AirflowFailException,
        │                        so a task fails without retries
        ├── ExaEndlessListingError  a listing comes back to a page it had, or has too many
        ├── ExaInputError        what the caller gave cannot be asked (a ValueError)
        └── ExaRunFailedError    the run waited for ended in a way that fails the task
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import pendulum
from airflow.providers.common.compat.sdk import AirflowFailException
from pendulum import UTC, DateTime

log = logging.getLogger(__name__)

T = TypeVar("T")

FINISHED = ("completed", "failed", "canceled")
STATUSES = ("created", "running", *FINISHED)


class ExaError(Exception):
    """Whatever goes wrong between this package and Exa."""


class ExaTransientError(ExaError):
    """
    Exa could not answer now; the same request may succeed later.

    :param status: what Exa answered; None if there was no answer
    :param retry_after: seconds that Exa asked to wait, if it did
    :param repeatable: whether the request may be sent again without doing something twice
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        repeatable: bool = True,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.repeatable = repeatable


class ExaNotStartedError(ExaTransientError):
    """Exa was asked to start a run, and says that it did not; as it does not say why, it may another time."""


class ExaBadAnswerError(ExaTransientError):
    """Exa's answer cannot be read: not JSON, not the shape its documents describe, or too large."""

    def __init__(self, message: str) -> None:
        super().__init__(message, repeatable=False)


class ExaHugeAnswerError(ExaBadAnswerError):
    """Exa's answer is too large to be read."""


class ExaPermanentError(ExaError, AirflowFailException):
    """Exa refused; asking again does not help."""


class ExaEndlessListingError(ExaPermanentError):
    """A listing came back to a page it had, or has more pages than may be asked for."""


class ExaInputError(ExaPermanentError, ValueError):
    """What the caller gave cannot be asked of Exa."""


class ExaRunFailedError(ExaPermanentError):
    """The run that a task waited for ended in a way that fails the task."""


def _descendants(error: type[ExaError]) -> Iterator[type[ExaError]]:
    for child in error.__subclasses__():
        yield child
        yield from _descendants(child)


#: By name, for errors that pass from one process to another.
ERRORS = {error.__name__: error for error in _descendants(ExaError)}


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


@dataclass(frozen=True)
class Dialect:
    """
    How one of Exa's monitor APIs words what this package says in the words of Websets.

    :param base: path of the API below the connection's base URL
    :param enabled: the status of a monitor that makes runs
    :param keys: the API's key for each field of a :class:`MonitorRun` that may be missing
    :param websets: whether a monitor belongs to a webset, where the items are that its runs find
    :param output: the API's key for what a run found, where the run itself holds it
    :param trigger: whether a run can be started
    :param statuses: the API's own words for a run's status, where they differ
    """

    base: str
    enabled: str
    keys: Mapping[str, str]
    websets: bool = False
    output: str | None = None
    trigger: bool = False
    statuses: Mapping[str, str] = field(default_factory=dict)


#: Source: Exa's OpenAPI documents; schemas ``Monitor`` and ``MonitorRun`` of Websets, ``SearchMonitor`` and
#: ``SearchMonitorRun`` of search.
DIALECTS = {
    "websets": Dialect(
        base="/websets/v0",
        enabled="enabled",
        keys={
            "updated_at": "updatedAt",
            "completed_at": "completedAt",
            "failed_at": "failedAt",
            "canceled_at": "canceledAt",
            "failed_reason": "failedReason",
        },
        websets=True,
    ),
    "search": Dialect(
        base="",
        enabled="active",
        keys={
            "updated_at": "updatedAt",
            "completed_at": "completedAt",
            "failed_at": "failedAt",
            "canceled_at": "cancelledAt",
            "failed_reason": "failReason",
        },
        output="output",
        trigger=True,
        statuses={"pending": "created", "cancelled": "canceled"},
    ),
}


def dialect_of(api: str, **needed: str | None) -> Dialect:
    """
    The row of :data:`DIALECTS` for an ``api=`` argument.

    :param needed: what, if anything, needs a field that not every API's row has, by that field
    """
    if not isinstance(api, str) or api not in DIALECTS:
        raise ExaInputError(f"api={api!r} is not one of {', '.join(map(repr, DIALECTS))}")
    for name, what in needed.items():
        able = [f"api={each!r}" for each, row in DIALECTS.items() if getattr(row, name)]
        if what and not getattr(DIALECTS[api], name):
            raise ExaInputError(f"{what} is not possible with api={api!r}, only with {' or '.join(able)}")
    return DIALECTS[api]


@dataclass(frozen=True, slots=True)
class MonitorRun:
    """
    One run of a monitor: one search of the web on the monitor's schedule.

    :param status: ``created``, ``running``, ``completed``, ``failed``, ``canceled``, or a word of Exa's
        that this version does not know, which counts as not finished
    :param type: what the run did, as Exa says it (``search`` or ``refresh``); a search monitor's says nothing
    :param failed_reason: why it failed, in Exa's words
    :param raw: the run as Exa sent it
    """

    id: str
    monitor_id: str
    status: str
    type: str | None
    created_at: DateTime
    updated_at: DateTime | None
    completed_at: DateTime | None
    failed_at: DateTime | None
    canceled_at: DateTime | None
    failed_reason: str | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @property
    def finished(self) -> bool:
        """Whether the run will change no more."""
        return self.status in FINISHED

    @property
    def ended_at(self) -> DateTime:
        """When the run ended, or, where Exa does not say it, when it was last known to change."""
        known = (self.completed_at, self.failed_at, self.canceled_at, self.updated_at)
        return next(filter(None, known), self.created_at)

    def as_dict(self) -> dict[str, str | None]:
        """Every field but ``raw``, times as ISO 8601 in UTC: JSON, and what goes to XCom."""
        values = {name: getattr(self, name) for name in RUN_FIELDS}
        return {
            name: value.isoformat() if isinstance(value, DateTime) else value
            for name, value in values.items()
        }


RUN_FIELDS = tuple(each.name for each in fields(MonitorRun) if each.name != "raw")


@dataclass(frozen=True)
class Monitor:
    """
    A monitor: a search of the web on a schedule.

    :param status: as Exa says it
    :param enabled: whether its schedule is on; of search monitors, one that is on may have none
    :param webset_id: the webset that its runs add to; a search monitor has none
    :param raw: the monitor as Exa sent it
    """

    id: str
    status: str
    enabled: bool
    webset_id: str | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    def as_dict(self) -> dict[str, str | bool | None]:
        """Every field but ``raw``: JSON, and what goes to XCom."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "raw"}


@functools.lru_cache(maxsize=256)
def warn_once(message: str) -> None:
    """Log a warning the first time that this process has it to say."""
    log.warning(message)


# --- what Exa answers -----------------------------------------------------------------------------

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


def parse_time(text: str) -> DateTime:
    """A moment as Exa writes it; pendulum's own parser takes ten times as long."""
    moment = datetime.fromisoformat(text)
    if moment.utcoffset():
        moment = moment.astimezone(UTC)
    return DateTime(
        moment.year,
        moment.month,
        moment.day,
        moment.hour,
        moment.minute,
        moment.second,
        moment.microsecond,
        tzinfo=UTC,
    )


def _text(item: Mapping[str, Any], key: str) -> str:
    """A string that has to be there."""
    value = item[key]
    if not isinstance(value, str) or not value:
        raise TypeError(f"{key!r} is {value!r:.100}")
    return value


def parse_run(dialect: Dialect, monitor_id: str, item: Mapping[str, Any]) -> MonitorRun:
    """A run as Exa sent it; only ``id``, ``status`` and ``createdAt`` have to be there."""
    status = _text(item, "status")
    status = dialect.statuses.get(status, status)
    if status not in STATUSES:
        warn_once(f"Exa reports the run status {status!r}, which is new here; it counts as not finished.")
    optional = {name: item.get(key) for name, key in dialect.keys.items()}
    return MonitorRun(
        id=_text(item, "id"),
        monitor_id=item.get("monitorId") or monitor_id,
        status=status,
        type=item.get("type"),
        created_at=parse_time(_text(item, "createdAt")),
        failed_reason=optional.pop("failed_reason"),
        raw=item,
        **{name: parse_time(text) if text else None for name, text in optional.items()},
    )


def parse_monitor(dialect: Dialect, item: Mapping[str, Any]) -> Monitor:
    """A monitor as Exa sent it; only ``id`` and ``status`` have to be there."""
    status = _text(item, "status")
    return Monitor(_text(item, "id"), status, status == dialect.enabled, item.get("websetId"), item)
