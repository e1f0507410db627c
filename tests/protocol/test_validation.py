"""What a user may give, and what is refused while a DAG is parsed."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pendulum
import pytest
from pendulum import UTC, DateTime

from airflow_provider_exa.protocol import models, validation
from airflow_provider_exa.protocol.errors import ExaInputError

SIX = pendulum.datetime(2026, 1, 31, 6)


@pytest.mark.parametrize(
    "value",
    ["", " ", ".", "..", "mon/a", "mon\\a", "mon?a", "mon#a", " mon", "mon\n", "mon\ta", "mon\x00a", None],
)
def test_what_cannot_be_an_id_is_refused_while_parsing(value: object) -> None:
    """An id that could lead to another URL, or is none at all, is an error that names the argument."""
    with pytest.raises(ExaInputError, match="monitor_id"):
        validation.check_id("monitor_id", value)


@pytest.mark.parametrize(
    "value", ["mon_01h", "mön a", "%2e", "...", "{{ params.id }}", "{% if x %}/{% endif %}"]
)
def test_an_id_or_a_template_of_one_passes(value: str) -> None:
    """Ids are opaque, and a template is known only when the task runs."""
    validation.check_id("monitor_id", value)


@pytest.mark.parametrize(
    "value",
    [
        "2026-01-31T06:00:00Z",
        "2026-01-31T07:00:00+01:00",
        "2026-01-31 06:00:00",
        "20260131T060000Z",
        SIX,
        SIX.in_timezone("Asia/Tokyo"),
        datetime(2026, 1, 31, 6),  # noqa: DTZ001 (naive on purpose)
        datetime(2026, 1, 31, 11, 30, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    ],
)
def test_a_time_may_be_given_in_any_common_way(value: datetime | str) -> None:
    """Aware, naive or as text, it is the same moment, in UTC."""
    moment = validation.as_time("created_after", value)
    assert isinstance(moment, DateTime)
    assert (moment, moment.tzinfo) == (SIX, UTC)
    validation.check_time("created_after", value)


def test_a_time_is_cut_to_the_millisecond() -> None:
    """Exa's times are, so that a run that was created within the same one is not before it."""
    moment = validation.as_time("created_after", "2026-01-31T06:00:00.123999Z")
    assert moment == SIX.add(microseconds=123_000)


@pytest.mark.parametrize(
    "value",
    [
        "soon",
        "",
        "None",
        "31.01.2026",
        "2026-13-01",
        "1769839200",
        "1770120100000",
        "1770120100000000",
        "17701201000000Z",
        "2026-01-31x06:00:00",
        "2026-01-31_06:00",
        "2026-01-310600",
        "2026-01-31T",
        "20260131 ",
        "P1D",
        "PT5M",
        "2026-01-01/2026-02-01",
        "06:00",
        "now",
        "0001-01-01T00:00:00+05:00",
    ],
)
@pytest.mark.parametrize("check", [validation.as_time, validation.check_time])
def test_what_is_no_moment_is_refused(check: Callable[[str, Any], object], value: str) -> None:
    """Garbage, durations and intervals, and what means another moment each day, name the argument."""
    with pytest.raises(ExaInputError, match=r"^created_after="):
        check("created_after", value)


@pytest.mark.parametrize("value", [5, date(2026, 1, 31)])
def test_a_value_that_can_never_be_a_time_is_refused_while_parsing(value: object) -> None:
    """A number or a date is no template, so the DAG file is the place to say so."""
    with pytest.raises(ExaInputError, match=r"^created_after="):
        validation.check_time("created_after", value)


@pytest.mark.parametrize("value", [None, "{{ ds }}", "{% if x %}now{% endif %}"])
def test_a_time_that_is_a_template_or_none_passes(value: object) -> None:
    """It is checked when the task runs."""
    validation.check_time("created_after", value)


@pytest.mark.parametrize("values", ["failed", None, 5, ["failed", "lost"], [["failed"]]])
def test_words_that_are_not_known_are_refused(values: object) -> None:
    """One string where several belong would be taken letter by letter, so it is refused too."""
    with pytest.raises(ExaInputError, match=r"fail_on.*'failed', 'canceled'"):
        validation.check_words("fail_on", values, ("failed", "canceled"))
    assert validation.check_words("fail_on", ["canceled"], ("failed", "canceled")) == ("canceled",)


def test_the_first_word_that_is_not_known_is_quoted() -> None:
    """Beside those that there are."""
    with pytest.raises(ExaInputError, match=r"^fail_on has 'no', which is not one of 'failed', 'canceled'$"):
        validation.check_words("fail_on", ["failed", "no", "nor"], ("failed", "canceled"))


def test_an_unknown_api_is_refused() -> None:
    """The error names the ones there are."""
    with pytest.raises(ExaInputError, match=r"api='webset' is not one of 'websets'"):
        models.dialect_of("webset")


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", True, None, math.inf, [1]])
def test_what_cannot_be_a_count_is_refused(value: object) -> None:
    """The error names the argument and quotes the value."""
    validation.check_count("max_pages", 1)
    with pytest.raises(ExaInputError, match=r"^max_pages=.* is not a whole number above 0$"):
        validation.check_count("max_pages", value)


@pytest.mark.parametrize("value", [0.001, 1, 60.5])
def test_a_number_above_zero_is_an_interval(value: object) -> None:
    """It may be whole or not."""
    validation.check_seconds("poll_interval", value)


@pytest.mark.parametrize(
    "value", [0, 0.0, -1, math.inf, -math.inf, math.nan, True, None, "60", [60], 10**400]
)
def test_what_cannot_be_an_interval_is_refused(value: object) -> None:
    """The error names the argument and quotes the value."""
    with pytest.raises(ExaInputError, match=r"^poll_interval=.* is not a number of seconds above 0$"):
        validation.check_seconds("poll_interval", value)


@pytest.mark.parametrize("value", ["run_1", "my_id", {"id": "run_1", "status": "created"}, {"id": "run_1"}])
def test_a_run_id_is_a_string_or_that_of_a_run(value: Any) -> None:
    """The output of another task may be the run itself."""
    assert validation.as_run_id(value) == (value if isinstance(value, str) else "run_1")


@pytest.mark.parametrize(
    "value", [7, None, "", ".", {}, {"run": "run_1"}, {"id": 7}, ["id"], "a\ud800", "\udfff", "a\udc00b"]
)
def test_what_holds_no_run_id_is_refused(value: object) -> None:
    """A dict without an id, a number, or text that no URL can hold."""
    with pytest.raises(ExaInputError, match=r"^run_id is .*; it must be an id of Exa's, a string$"):
        validation.as_run_id(value)


@pytest.mark.parametrize("character", ["\ud7ff", "\ue000"])
def test_a_character_beside_the_surrogates_may_be_in_an_id(character: str) -> None:
    """Only half a character has no encoding."""
    assert validation.check_segment("run_id", character) == character


def test_an_argument_error_begins_with_its_owner() -> None:
    """Airflow's import errors do not say which task it is about; other errors are left alone."""
    with pytest.raises(ExaInputError, match=r"^Sensor 'wait': no$"), validation.naming("Sensor 'wait'"):
        raise ExaInputError("no")
    with pytest.raises(KeyError, match="no"), validation.naming("Sensor 'wait'"):
        raise KeyError("no")


class Output:
    """Another task's output, as Airflow hands it to an operator."""

    def resolve(self) -> str:
        return "mon_a"


@pytest.mark.parametrize(
    ("value", "is_template"),
    [
        ("{{ x }}", True),
        ("{% x %}", True),
        (Output(), True),
        ("mon_a", False),
        ("{ x }", False),
        (7, False),
        (Path("mon_a"), False),
    ],
)
def test_only_a_running_task_knows_a_template(value: object, is_template: bool) -> None:
    """Either mark of Jinja's makes one, and so does the output of a task."""
    assert validation.is_template(value) is is_template
