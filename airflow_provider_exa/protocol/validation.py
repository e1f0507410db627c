"""What a user may give: ids, words and times, refused as early as it can be told that they are none."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from pendulum import DateTime

from airflow_provider_exa.protocol.errors import ExaInputError
from airflow_provider_exa.protocol.models import parse_time


def is_template(value: object) -> bool:
    """Whether the value is known only when the task runs: a Jinja template, or another task's output."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    return hasattr(value, "resolve")


def check_id(what: str, value: object) -> None:
    """
    Refuse, while a DAG is parsed, what cannot be an id.

    :raises ExaInputError: it is None, empty, or has a slash, ``?``, ``#``, white space at an end or a control
        character
    """
    if not is_template(value):
        check_segment(what, value)
        value = str(value)
        if value != value.strip() or not value.isprintable() or set(value) & set("/?#\\"):
            raise ExaInputError(f"{what} {value!r} cannot be an id of Exa's; give the id alone")


def check_segment(what: str, value: object) -> None:
    """
    Refuse what quoting cannot make a segment of a path of.

    :raises ExaInputError: it is no string, empty, ``.`` or ``..``
    """
    if not isinstance(value, str) or not value.strip() or value in (".", ".."):
        raise ExaInputError(f"{what} is {value!r}; it must be an id of Exa's")


def check_words(what: str, values: object, known: Sequence[str]) -> tuple[str, ...]:
    """
    The words as a tuple, if each is known.

    :raises ExaInputError: a word is not one of ``known``, or one string was given where several belong
    """
    if isinstance(values, str) or not isinstance(values, Collection):
        raise ExaInputError(f"{what}={values!r} must be a list or tuple of {', '.join(map(repr, known))}")
    if unknown := [value for value in values if value not in known]:
        raise ExaInputError(f"{what} has {unknown[0]!r}, which is not one of {', '.join(map(repr, known))}")
    return tuple(values)


def check_seconds(what: str, value: object) -> None:
    """
    Refuse what cannot be an interval.

    :raises ExaInputError: it is no number, or not above 0
    """
    if not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ExaInputError(f"{what}={value!r} is not a number of seconds above 0")


def check_time(what: str, value: Any) -> None:
    """
    Refuse, while a DAG is parsed, what cannot be a time; None is none.

    :raises ExaInputError: it is neither a datetime nor a date and time in ISO 8601
    """
    if value is not None and not is_template(value):
        as_time(what, value)


def as_time(what: str, value: datetime | str) -> DateTime:
    """
    A moment in UTC from what a user or a template gives; without a time zone it is taken as UTC.

    It is cut to the millisecond, as Exa's times are: a run created within this one is not before it.

    :raises ExaInputError: it is neither a datetime nor a date and time in ISO 8601
    """
    try:
        moment = parse_time(value.isoformat() if isinstance(value, datetime) else value)
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    except (TypeError, ValueError, OverflowError):
        raise ExaInputError(f"{what}={value!r:.100} is not a time such as '2026-01-31T06:00:00Z'") from None
