"""In which sizes a listing is asked for whose pages do not always arrive."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from airflow_provider_exa.client.client import drive
from airflow_provider_exa.protocol import page_size, paging
from airflow_provider_exa.protocol.endpoints import list_runs
from airflow_provider_exa.protocol.errors import ExaHugeAnswerError
from airflow_provider_exa.protocol.messages import Request, Response
from airflow_provider_exa.protocol.models import DIALECTS
from tests.waiting.memory import START, make_body

SEARCH = DIALECTS["search"]


@dataclass
class Exa:
    """
    A monitor whose pages arrive up to some size.

    :param hours: when its runs were created, in the order in which they are listed
    :param arriving: how many runs a page may have
    :param asked: the sizes that were asked for
    """

    hours: Sequence[float]
    arriving: int = 20
    asked: list[int] = field(default_factory=list)

    def answer(self, request: Request) -> Response:
        limit, start = int(request.params["limit"]), int(request.params.get("cursor", 0))
        self.asked.append(limit)
        if limit > self.arriving:
            raise ExaHugeAnswerError("too large")
        end = start + limit
        data = [make_body(f"run_{place}", self.hours[place]) for place in range(len(self.hours))[start:end]]
        page = {"data": data, "hasMore": end < len(self.hours), "nextCursor": str(end)}
        return Response(200, json.dumps(page).encode(), "https://exa.test")

    def list_since(self, hour: float) -> paging.ListedRuns:
        """List the runs, as a poll does; remember in which sizes."""
        self.asked.clear()
        listing = list_runs(SEARCH, "mon_a", since=START.add(hours=hour), keep_raw=False)
        return drive(paging.list_back_to(listing), self.answer)


def newest_first(count: int, arriving: int) -> Exa:
    return Exa(range(count)[::-1], arriving)


def test_one_slow_moment_is_forgotten() -> None:
    """The size grows again while pages arrive, up to the one that is wanted, and nothing is remembered."""
    exa = newest_first(1005, arriving=0)
    with pytest.raises(ExaHugeAnswerError):
        exa.list_since(1000)
    assert exa.asked == [20, 4, 1]
    exa.arriving = 20
    most = [len(exa.asked) for _ in range(30) if exa.list_since(1000)]
    assert max(most) <= 10
    assert exa.asked == [20]
    assert page_size._page_sizes == {}


@pytest.mark.parametrize("arriving", [1, 2, 4, 19])
def test_a_size_that_does_not_arrive_is_tried_less_and_less_often(arriving: int) -> None:
    """Each try of a page that is too large costs 16 MiB."""
    exa = newest_first(1000, arriving)
    refused = 0
    for _ in range(10):
        listed = exa.list_since(-1)
        assert (len(listed.runs), listed.truncated) == (1000, None)
        refused += sum(limit > arriving for limit in exa.asked)
    assert refused <= 25


@pytest.mark.parametrize("arriving", [1, 2, 4])
def test_small_pages_show_their_order_too(arriving: int) -> None:
    """A listing that comes run by run is not read to its end either; it is complete as far as it was read."""
    exa = newest_first(5000, arriving)
    for _ in range(20):
        listed = exa.list_since(4997.5)
        assert listed.truncated is None
        assert listed.listed_back_to < START.add(hours=4997.5)
        hours = {round((run.created_at - START).total_seconds() / 3600) for run in listed.runs.values()}
        assert hours == set(range(5000 - len(hours), 5000))
        assert START.add(hours=min(hours)) == listed.listed_back_to
        assert len(exa.asked) <= 13


def test_the_newest_runs_are_found_where_pages_hold_one() -> None:
    """The rule where paging stops is the same."""
    exa = newest_first(3000, arriving=1)
    call = paging.newest_runs(list_runs(SEARCH, "mon_a", keep_raw=False), 3, lambda run: True)
    assert [run.id for run in drive(call, exa.answer)] == ["run_0", "run_1", "run_2"]
    assert len(exa.asked) <= 14


@pytest.mark.parametrize("seed", range(200))
def test_pages_of_one_run_in_any_order_are_read_to_the_end(seed: int) -> None:
    """A few runs that are in order by chance prove nothing: the newest may be the last."""
    hours = random.Random(seed).sample(range(40), 40)  # noqa: S311 (no secret)
    listed = Exa(hours, arriving=1).list_since(39)
    assert len(listed.runs) == 40
    assert listed.listed_back_to == paging.BEGINNING_OF_TIME


@pytest.mark.parametrize("newer", range(1, 9))
def test_nine_pages_of_one_run_show_no_order(newer: int) -> None:
    """Nor does a tenth that is newer than they are."""
    exa = Exa([*range(30, 30 - newer, -1), 50, *range(10)], arriving=1)
    assert "run_0" in exa.list_since(30).runs
    listed = exa.list_since(30)
    assert any(run.created_at == START.add(hours=50) for run in listed.runs.values())


def test_a_run_that_shifts_onto_the_next_page_disproves_no_order() -> None:
    """It comes twice where another was made meanwhile."""
    exa = Exa([*range(3000, 2995, -1), *range(2996, 0, -1)], arriving=1)
    exa.list_since(2999.5)
    assert len(exa.asked) <= 14


def test_a_size_is_remembered_for_so_many_listings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of a triggerer does not grow with the monitors that it has ever listed."""
    monkeypatch.setattr(page_size, "MAX_REMEMBERED", 3)
    for number in range(5):
        page_size.forgo_limit(f"/monitors/{number}/runs")
    assert list(page_size._page_sizes) == [f"/monitors/{number}/runs" for number in (2, 3, 4)]


def test_a_larger_page_is_tried_after_twice_as_many_pages_each_time() -> None:
    """Up to a bound, after which it stays."""
    page_size.shrink("/runs", 10)
    tried_after = []
    for _ in range(10):
        pages = 0
        while page_size.sized_params("/runs", {"limit": 10})["limit"] == 2:
            page_size.note_arrival("/runs", 2, 10)
            pages += 1
        tried_after.append(pages)
        assert page_size.shrink("/runs", 4)
    assert tried_after == [5, 10, 20, 40, 80, 160, 320, 640, 640, 640]
