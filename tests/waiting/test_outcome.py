"""What the end of a run means for the task."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_exa.protocol import errors
from airflow_provider_exa.protocol.errors import ExaError, ExaRunFailedError, ExaTransientError
from airflow_provider_exa.waiting.outcome import is_decided, raise_for_outcome, unwrap_event
from tests.waiting.memory import make_run


@pytest.mark.parametrize(
    ("status", "fields", "words"),
    [
        ("failed", {"failedReason": "No credits left"}, "failed: No credits left"),
        ("failed", {"failedReason": {"code": 5}}, 'failed: {"code": 5}'),
        ("failed", {}, "failed: Exa gives no reason"),
        ("canceled", {}, "was canceled: Exa gives no reason"),
        ("completed", {}, "completed: Exa gives no reason"),
    ],
)
def test_an_outcome_that_fails_the_task_is_told_with_its_reason(
    status: str, fields: dict[str, Any], words: str
) -> None:
    """The error names the run and the monitor; an outcome that was not named passes."""
    run = make_run("run_1", status=status, **fields).as_dict()
    with pytest.raises(ExaRunFailedError) as caught:
        raise_for_outcome([run], [status])
    assert str(caught.value) == f"Run run_1 {words} (monitor mon_a)."
    raise_for_outcome([run], [])
    raise_for_outcome([run], {"failed", "canceled", "completed"} - {status})


def test_a_long_reason_is_cut() -> None:
    """A reason of a megabyte makes no error of a megabyte."""
    run = make_run("run_1", status="failed", failedReason="x" * 1_000_000).as_dict()
    with pytest.raises(ExaRunFailedError) as caught:
        raise_for_outcome([run], ["failed"])
    assert len(str(caught.value)) < 600


def test_an_error_about_many_runs_describes_the_first_few() -> None:
    """Three hundred that failed at once make a line that somebody reads."""
    runs = [
        make_run(f"run_{number}", status="failed", failedReason="x" * 10_000).as_dict()
        for number in range(300)
    ]
    with pytest.raises(ExaRunFailedError) as caught:
        raise_for_outcome(runs, ["failed"])
    told = str(caught.value)
    assert len(told) < 3000
    assert told.count(" failed: ") == 5
    assert told.endswith(" 295 more runs did not end well.")
    with pytest.raises(ExaRunFailedError) as caught:
        raise_for_outcome(runs[:5], ["failed"])
    assert str(caught.value).endswith("(monitor mon_a).")


def test_another_error_can_be_asked_for() -> None:
    """A task that may start another run is retried."""
    run = make_run("run_1", status="failed").as_dict()
    with pytest.raises(ExaTransientError):
        raise_for_outcome([run], ["failed"], error=ExaTransientError)


@pytest.mark.parametrize(
    ("statuses", "needed", "total", "decided", "passes"),
    [
        ("", 1, 2, False, None),
        ("c", 1, 2, True, True),
        ("f", 1, 2, False, None),
        ("ff", 1, 2, True, False),
        ("c", 2, 2, False, None),
        ("f", 2, 2, True, False),
        ("cf", 2, 3, False, None),
        ("cfc", 2, 3, True, True),
        ("ff", 2, 3, True, False),
        ("ccc", 3, 3, True, True),
    ],
)
def test_several_runs_are_judged_once_it_is_clear(
    *, statuses: str, needed: int, total: int, decided: bool, passes: bool | None
) -> None:
    """Enough good ends decide it, and so do too many bad ones; the error names each that failed."""
    words = {"c": "completed", "f": "failed"}
    runs = [make_run(f"run_{n}", status=words[each]).as_dict() for n, each in enumerate(statuses)]
    assert is_decided(runs, fail_on=["failed"], needed=needed, total=total) is decided
    if passes:
        raise_for_outcome(runs, ["failed"], needed)
    elif decided:
        with pytest.raises(ExaRunFailedError) as caught:
            raise_for_outcome(runs, ["failed"], needed)
        assert str(caught.value).count("failed: ") == statuses.count("f")


@pytest.mark.parametrize("error", errors.ERRORS.values())
def test_an_error_passes_through_an_event(error: type[ExaError]) -> None:
    """The task raises the error that its trigger met, and so fails or retries as if it had met it itself."""
    event = {"type": error.__name__, "error": "GET https://api.exa.ai got no answer."}
    with pytest.raises(error) as caught:
        unwrap_event(json.loads(json.dumps(event)))
    assert (type(caught.value), str(caught.value)) == (error, event["error"])


def test_an_error_of_another_version_is_an_error() -> None:
    """Its class may be unknown here."""
    with pytest.raises(ExaError, match="out of luck"):
        unwrap_event({"type": "ExaNewError", "error": "out of luck"})


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        ({"run": {"id": "run_1"}}, {"id": "run_1"}),
        ({"runs": {"mon_a": {}}}, {"mon_a": {}}),
        ({"runs": {}}, {}),
    ],
)
def test_an_event_brings_one_run_or_several(event: dict[str, Any], payload: Any) -> None:
    """As its trigger waits for one or for several."""
    assert unwrap_event(event) == payload
