"""Validate user arguments, at parse time where possible."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from os import PathLike
from typing import Any

from pendulum import DateTime

from airflow_provider_exa.protocol.errors import ExaInputError
from airflow_provider_exa.protocol.models import parse_time

#: The longest interval, in seconds: some 30 years, which Python's clocks can still count.
MAX_SECONDS = 1e9


@contextmanager
def naming(owner: str) -> Iterator[None]:
    """
    Begin the argument errors of a ``with`` block with their owner, which Airflow's import errors leave out.

    :param owner: such as ``ExaMonitorRunSensor(task_id='wait')``
    """
    try:
        yield
    except ExaInputError as error:
        raise ExaInputError(f"{owner}: {error}") from None


def is_template(value: object) -> bool:
    """Return whether only a running task knows the value: a Jinja template, or another task's output."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    return hasattr(value, "resolve") and not isinstance(value, PathLike)


def check_id(what: str, value: object) -> None:
    """
    Raise if the value cannot be an id of Exa's; a template passes.

    :raises ExaInputError: it is no string, is empty, or has a slash, ``?``, ``#``, a control character or
        white space at an end
    """
    if not is_template(value):
        text = check_segment(what, value)
        if text != text.strip() or not text.isprintable() or set(text) & set("/?#\\"):
            raise ExaInputError(f"{what} {text!r:.100} cannot be an id of Exa's; give the id alone")


def check_segment(what: str, value: object) -> str:
    """
    Return the value if it can be a URL path segment.

    :raises ExaInputError: it is no string, is empty, ``.`` or ``..``, or cannot be encoded
    """
    usable = isinstance(value, str) and value.strip() and value not in (".", "..")
    if not usable or any("\ud800" <= character <= "\udfff" for character in str(value)):
        raise ExaInputError(f"{what} is {value!r:.100}; it must be an id of Exa's, a string")
    return str(value)


def check_conn_id(what: str, value: object) -> None:
    """
    Raise if the value cannot be the id of an Airflow connection.

    :raises ExaInputError: it is no string, or is empty
    """
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ExaInputError(f"{what}={value!r:.100} is not the id of an Airflow connection")


def as_run_id(value: object) -> str:
    """
    Return the run id that a task was given: a string, or a run as a dict, such as another task's output.

    :raises ExaInputError: it is neither
    """
    return check_segment("run_id", value["id"] if isinstance(value, Mapping) and "id" in value else value)


def check_words(what: str, values: object, known: Sequence[str]) -> tuple[str, ...]:
    """
    Return the words as a tuple.

    :raises ExaInputError: a word is not one of ``known``, or one string stands in place of several
    """
    if isinstance(values, str) or not isinstance(values, Collection):
        raise ExaInputError(f"{what}={values!r:.100} must be a list or tuple of {_listed(known)}")
    if unknown := [value for value in values if value not in known]:
        raise ExaInputError(f"{what} has {unknown[0]!r:.100}, which is not one of {_listed(known)}")
    return tuple(values)


def _listed(words: Sequence[str]) -> str:
    return ", ".join(map(repr, words))


def check_seconds(what: str, value: object) -> None:
    """
    Raise if the value cannot be an interval.

    :raises ExaInputError: it is no number, not above 0, or longer than a task can wait
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value <= MAX_SECONDS:  # type: ignore[operator]
        raise ExaInputError(f"{what}={value!r:.100} is not a number of seconds above 0")


def check_count(what: str, value: object) -> None:
    """
    Raise if the value cannot be a number of things.

    :raises ExaInputError: it is no whole number, or not above 0
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ExaInputError(f"{what}={value!r:.100} is not a whole number above 0")


def check_time(what: str, value: Any) -> None:
    """
    Raise if the value cannot be a time; None and templates pass.

    :raises ExaInputError: it is neither a datetime nor a date and time in ISO 8601
    """
    if value is not None and not is_template(value):
        as_time(what, value)


def as_time(what: str, value: datetime | str) -> DateTime:
    """
    Return a moment in UTC; a time without a zone is taken as UTC.

    It is cut to the millisecond, as Exa's times are: a run created within this one is not before it.

    :raises ExaInputError: the value is neither a datetime nor a date and time in ISO 8601
    """
    try:
        moment = parse_time(value.isoformat() if isinstance(value, datetime) else value)
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    except (TypeError, ValueError, OverflowError):
        raise ExaInputError(f"{what}={value!r:.100} is not a time such as '2026-01-31T06:00:00Z'") from None


#: How a templated argument is checked once it is rendered; of these, the last four may be left out.
_RENDERED: dict[str, Callable[[str, Any], object]] = {
    "exa_conn_id": check_conn_id,
    "monitor_id": check_segment,
    "run_id": lambda _, value: as_run_id(value),
    "webset_id": check_segment,
    "created_after": as_time,
    "created_before": as_time,
}
_REQUIRED = ("exa_conn_id", "monitor_id")


def check_rendered(name: str, value: object) -> None:
    """
    Raise if a templated argument, of any operator, has rendered to what it cannot be.

    :raises ExaInputError: it has
    """
    if name in _RENDERED and (value is not None or name in _REQUIRED):
        _RENDERED[name](name, value)
