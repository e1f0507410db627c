"""Which run of a monitor is meant."""

from __future__ import annotations

import json
from datetime import datetime
from itertools import permutations
from typing import Any

import pytest
from pendulum import UTC, DateTime

from airflow_provider_exa.protocol.errors import ExaError, ExaInputError
from airflow_provider_exa.protocol.paging import BEGINNING_OF_TIME
from airflow_provider_exa.waiting.selection import RunSelector, StartedRun
from tests.waiting.memory import START, Exa, make_run

BEGINNING = RunSelector(created_after=BEGINNING_OF_TIME)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, "none"),
        ({"run_id": "run_1", "pick": "next"}, "run_id, pick"),
        ({"run_id": "run_1", "created_after": START}, "run_id, created_after"),
        ({"created_after": START, "pick": "latest"}, "created_after, pick"),
        ({"run_id": "run_1", "created_after": START, "pick": "next"}, "run_id, created_after, pick"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_none_or_several_ways_to_select_are_refused(given: dict[str, Any], named: str) -> None:
    """The error names the four ways there are and those that were given."""
    with pytest.raises(ExaInputError) as caught:
        RunSelector(**given)
    message = str(caught.value)
    for way in ("run_id='…'", "created_after=…", "pick='latest'", "pick='next'"):
        assert way in message
    assert message.endswith(f"given: {named}")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"pick": "newest"}, r"pick='newest' is not one of 'latest', 'next'"),
        ({"pick": ""}, r"pick='' is not one of"),
        ({"run_id": ""}, r"run_id is ''"),
        ({"run_id": ".."}, r"run_id is '\.\.'"),
        ({"run_id": "run/1"}, r"run_id 'run/1' cannot be an id"),
        ({"run_id": {"id": "run/1"}}, r"run_id 'run/1' cannot be an id"),
        ({"run_id": {"run": 1}}, r"run_id is \{'run': 1\}"),
        ({"run_id": 5}, r"run_id is 5"),
        ({"created_after": "soon"}, r"created_after='soon' is not a time"),
        ({"created_after": "P1D"}, r"created_after='P1D' is not a time"),
        ({"created_after": ""}, r"created_after='' is not a time"),
        ({"created_after": 5}, r"created_after=5 is not a time"),
    ],
    ids=str,
)
def test_values_that_cannot_be_are_refused_while_parsing(given: dict[str, Any], words: str) -> None:
    """Arguments that stand in the DAG file are checked there."""
    with pytest.raises(ExaInputError, match=words):
        RunSelector(**given).check()


@pytest.mark.parametrize(
    ("given", "resolved"),
    [
        ({"run_id": "run_1"}, {"run_id": "run_1"}),
        ({"run_id": make_run("run_1").as_dict()}, {"run_id": "run_1"}),
        ({"pick": "latest"}, {"pick": "latest"}),
        ({"pick": "latest", "idle": True}, {"pick": "latest", "idle": True}),
        ({"pick": "next", "idle": True}, {"created_after": START, "idle": True}),
        ({"run_id": "run_1", "idle": True}, {"run_id": "run_1", "idle": True}),
        ({"created_after": "2026-01-30T01:00:00+01:00"}, {"created_after": START.subtract(days=1)}),
        ({"created_after": datetime(2026, 1, 30)}, {"created_after": START.subtract(days=1)}),  # noqa: DTZ001
    ],
    ids=str,
)
def test_a_resolved_selector_stays_the_same(given: dict[str, Any], resolved: dict[str, Any]) -> None:
    """``next`` is the moment when the task started, times are in UTC, and later starts change nothing."""
    selector = RunSelector(**given).resolve(START)
    assert selector == RunSelector(**resolved)
    assert selector.resolve(START.add(days=1)) == selector
    if selector.created_after is not None:
        assert isinstance(selector.created_after, DateTime)
        assert selector.created_after.tzinfo is UTC


@pytest.mark.parametrize(
    "given",
    [
        {"created_after": "{{ data_interval_end }}"},
        {"run_id": {"run": "run_1"}},
        {"run_id": ["run_1"]},
        {"run_id": 5},
        {"run_id": ""},
    ],
    ids=str,
)
def test_rendered_values_are_checked_when_the_task_runs(given: dict[str, Any]) -> None:
    """A template can turn out to be anything, and so can another task's output."""
    (name,) = given
    with pytest.raises(ExaInputError, match=name):
        RunSelector(**given).resolve(START)


class Output:
    """Another task's output, as Airflow hands it to an operator."""

    def resolve(self) -> str:
        return "run_1"


def test_templates_pass_while_parsing() -> None:
    """Only the task that runs knows their values."""
    RunSelector(run_id="{{ params.run_id }}").check()
    RunSelector(created_after="{{ data_interval_end }}").check()
    RunSelector(run_id=Output()).check()


@pytest.mark.parametrize(
    "selector",
    [
        RunSelector(run_id="run_1"),
        RunSelector(pick="latest", idle=True),
        RunSelector(created_after=START.add(microseconds=1000)),
        BEGINNING,
    ],
    ids=str,
)
def test_a_selector_survives_as_json(selector: RunSelector) -> None:
    """Also with keys that another version has added, and without those that it lacks."""
    values = json.loads(json.dumps(selector.as_dict()))
    assert RunSelector.from_dict(values) == selector
    assert RunSelector.from_dict({**values, "colour": "blue"}) == selector
    assert RunSelector.from_dict({key: value for key, value in values.items() if value}) == selector


RUNS = [
    make_run(run_id, hour)
    for run_id, hour in (("run_a", 0), ("run_b", 1), ("run_c", 1), ("run_d", 2), ("run_0", 2))
]


@pytest.mark.parametrize(
    ("selector", "run_id"),
    [
        (RunSelector(pick="latest"), "run_d"),
        (RunSelector(created_after=START), "run_a"),
        (RunSelector(created_after=START.add(hours=1)), "run_b"),
        (RunSelector(created_after=START.add(hours=1, microseconds=1)), "run_0"),
        (RunSelector(created_after=START.add(hours=3)), None),
        (BEGINNING, "run_a"),
        (StartedRun(START.add(hours=1), "run_b"), "run_c"),
        (StartedRun(START.add(hours=1)), "run_b"),
        (StartedRun(START.add(hours=3)), None),
    ],
    ids=str,
)
def test_runs_of_one_moment_are_no_matter_of_luck(
    selector: RunSelector | StartedRun, run_id: str | None
) -> None:
    """Every order of the same runs gives the same one."""
    selected = {
        getattr(selector.select(Exa(runs=order).poll(selector)), "id", None) for order in permutations(RUNS)
    }
    assert selected == {run_id}
    assert selector.select(Exa().poll(selector)) is None


@pytest.mark.parametrize(
    ("statuses", "previous", "run_id"),
    [
        ("completed running", "run_0", "run_1"),
        ("completed canceled running", "run_0", "run_2"),
        ("completed canceled canceled", "run_0", "run_2"),
        ("completed", "run_0", None),
        ("running", None, "run_0"),
        ("canceled running", None, "run_1"),
    ],
)
def test_a_started_run_is_the_earliest_new_one_that_was_not_canceled(
    statuses: str, previous: str | None, run_id: str | None
) -> None:
    """Exa cancels a run for the next; where all were canceled, the last counts."""
    runs = [make_run(f"run_{place}", place, status) for place, status in enumerate(statuses.split())]
    selector = StartedRun(START, previous)
    run = selector.select(Exa(runs=tuple(runs[::-1])).poll(selector))
    assert (run and run.id) == run_id


def test_the_first_to_come_is_the_earliest_of_those_that_come_together() -> None:
    """``latest`` without a run becomes the first run, not the newest of two that come between polls."""
    selector = RunSelector(pick="latest", idle=True).first_to_come()
    assert selector.select(Exa(runs=tuple(RUNS)).poll(selector)) == RUNS[0]
    assert selector.idle


@pytest.mark.parametrize(
    ("selector", "named"),
    [
        (RunSelector(pick="latest"), "the latest run"),
        (RunSelector(created_after=START), "the first run created at or after 2026-01-31"),
        (StartedRun(START), "the run that was started"),
    ],
    ids=str,
)
def test_an_error_says_which_run_cannot_be_told(selector: RunSelector | StartedRun, named: str) -> None:
    """With the reason, and what to write instead: a run may be hidden in what is not listed."""
    exa = Exa(runs=tuple(RUNS), cursors="missing", page_size=2)
    with pytest.raises(
        ExaError, match=rf" So {named}.* cannot be told from the 2 runs that are listed\. Give"
    ):
        selector.select(exa.poll(selector))


def test_a_started_run_is_told_as_json() -> None:
    """It names the newest run that was known before."""
    values = StartedRun(START, "run_0").as_dict()
    assert values == {"created_after": START.isoformat(), "previous_run_id": "run_0"}
