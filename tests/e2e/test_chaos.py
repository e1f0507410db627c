"""No finished run is lost, whatever happens: a short form of ``python -m tests.e2e.chaos``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.e2e.accounting import Count, Event, Finished, Outage, Report, Round, account
from tests.e2e.chaos import kinds_of, run
from tests.e2e.disturbances import KINDS

START = datetime(2026, 1, 1, tzinfo=UTC)
WANTED = {"dag": ("completed",), "other": ("failed", "canceled")}


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


def ids(count: Count) -> dict[str, list[str]]:
    return {what: [each.run_id for each in accidents] for what, accidents in vars(count).items() if accidents}


@pytest.mark.parametrize(("api", "rounds"), [("websets", (1, 2, 3)), ("search", (3, 4, 5))])
def test_no_run_is_lost_in_a_little_chaos(api: str, rounds: tuple[int, ...]) -> None:
    """Disturbances of different kinds, and every run reaches the DAG that wants it."""
    found = run(5, seed=1, api=api, only=rounds, broken_for=12, undisturbed=0, say=print)
    print(*found.lines(), sep="\n")
    assert len({each.kind for each in found.rounds if each.number}) == 3
    assert len(found.finished) >= 20
    assert not found.lost
    assert not found.unexcused
    assert not found.strange


@pytest.mark.parametrize(
    ("events", "consumed", "expected"),
    [
        ([], [], {"lost": ["a"]}),
        ([Event(1, "dag", at(1), ("a",))], [], {"stranded": ["a"]}),
        ([Event(1, "dag", at(1), ("a",))], [("other", 1)], {"stranded": ["a"]}),
        ([Event(1, "dag", at(1), ("a",))], [("dag", 1)], {}),
        ([Event(1, "other", at(1), ("a",))], [("other", 1)], {"lost": ["a"], "strange": ["a"]}),
        ([Event(1, "dag", at(1), ("a",)), Event(2, "dag", at(2), ("a",))], [("dag", 1)], {"doubled": ["a"]}),
        (
            [Event(1, "dag", at(1), ("a",)), Event(2, "dag", at(2), ("a",))],
            [],
            {"stranded": ["a"], "doubled": ["a"]},
        ),
        ([Event(1, "dag", at(1), ("a", "never_ended"))], [("dag", 1)], {"strange": ["never_ended"]}),
        (
            [Event(1, "dag", at(1), ("a",)), Event(2, "other", at(1), ("a",), ("completed", "failed"))],
            [("dag", 1)],
            {},
        ),
        (
            [Event(1, "dag", at(1), ("a", "b"), ("completed", "failed"))],
            [("dag", 1)],
            {"strange": ["b"]},
        ),
    ],
)
def test_what_became_of_a_run_is_counted(
    events: list[Event], consumed: list[tuple[str, int]], expected: dict[str, list[str]]
) -> None:
    """A run is lost, stranded, doubled, reported to the wrong one, or nothing of this."""
    assert ids(account([Finished("a", "completed", at(0))], events, consumed, wanted=WANTED)) == expected


@pytest.mark.parametrize(
    ("outages", "excused"),
    [
        ([], False),
        ([Outage(None, at(0), at(2))], True),
        ([Outage("dag", at(0), at(2))], True),
        ([Outage("other", at(0), at(2))], False),
        ([Outage(None, at(2), at(3))], False),
    ],
)
def test_a_stranded_run_is_excused_by_an_outage_of_its_consumer(outages: list[Outage], excused: bool) -> None:
    """What counts is whether its consumer could be queued when the event was stored."""
    event = Event(1, "dag", at(1), ("a",))
    (stranded,) = account([Finished("a", "completed", at(0))], [event], [], outages, WANTED).stranded
    assert stranded.excused == excused


def test_a_report_sums_up_and_fails_for_what_is_lost_or_not_excused() -> None:
    """Its last line can be read by a machine, and doubles are no failure."""
    runs = [Finished(name, "completed", at(1)) for name in ("lost", "stranded", "twice")]
    events = [
        Event(1, "dag", at(1), ("stranded", "twice")),
        Event(2, "dag", at(2), ("twice",)),
    ]
    rounds = [Round(1, "paused", at(0), at(9))]
    outages = [Outage("dag", at(0), at(1))]

    def report(runs: list[Finished], outages: list[Outage]) -> Report:
        count = account(runs, events, [("dag", 2)], outages, WANTED)
        return Report(count.lost, count.stranded, count.doubled, count.strange, rounds, runs)

    assert not report(runs, outages).ok
    assert report(runs[1:], outages).ok
    assert not report(runs[1:], []).ok
    lines = list(report(runs, outages).lines())
    assert "lost: round 1, paused, dag: lost at 00:00:01" in lines
    assert "stranded (excused): round 1, paused, dag: stranded at 00:00:01" in lines
    assert lines[-1] == "lost 1, stranded 1, doubled 1, rounds 1, runs 3"


def test_the_full_form_kills_the_triggerer_thirty_times_and_does_all_else_too() -> None:
    """Which is decided by the seed."""
    kinds = kinds_of(45, seed=1)
    assert kinds.count("triggerer killed") == 30
    assert all(kinds.count(kind) >= 2 for kind in [*KINDS][:-1])
    assert set(kinds) == set(KINDS)
    assert kinds == kinds_of(45, seed=1) != kinds_of(45, seed=2)
