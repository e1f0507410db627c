"""An asset whose monitor is watched in another way goes on from where it was."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from contextlib import suppress
from typing import Any, ClassVar

import pendulum
import pytest
from airflow.sdk._shared.secrets_masker import DEFAULT_SENSITIVE_FIELDS
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from airflow_provider_exa.events import store
from airflow_provider_exa.events.store import CursorStore, variable_of
from airflow_provider_exa.protocol.models import FINISHED, MonitorRun
from airflow_provider_exa.protocol.paging import BEGINNING_OF_TIME
from airflow_provider_exa.standin import StandIn
from airflow_provider_exa.timing import Timing, use_timing
from tests.events.runs import make_run
from tests.events.triggerer import START, AssetStates, Triggerer, Variables, more_polls, until


class Memory:
    """Airflow's Variables."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def get(self, key: str) -> str:
        return self.texts[key]

    def keys(self, prefix: str) -> list[str]:
        return [key for key in self.texts if key.startswith(prefix)]

    def set(self, key: str, value: str, description: str) -> None:
        self.texts[key] = value

    def delete(self, key: str) -> None:
        del self.texts[key]


CHANGES: dict[str, dict[str, Any]] = {
    "interval": {"poll_interval": 0.06},
    "connection": {"exa_conn_id": "exa_renamed"},
    "statuses": {"statuses": ["completed", "failed"]},
    "name": {"name": "mine"},
    "start": {"start": START},
    "all": {"poll_interval": 0.06, "exa_conn_id": "exa_renamed", "statuses": ["failed", "completed"]},
}


@pytest.fixture(autouse=True)
def _second_connection(exa: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_EXA_RENAMED", exa.connection(retries=0))


async def watch_until(true: Any, **options: Any) -> list[str]:
    """Watch until something is true, then stop; return the runs that were reported."""
    async with Triggerer() as triggerer:
        triggerer.watch(**options)
        await until(lambda: true(triggerer))
        return triggerer.runs


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_loses_and_replays_nothing(exa: StandIn, variables: Variables, change: str) -> None:
    """What ends in between is reported; what was before is not; one Variable is left."""
    exa.add_run("mon_a", run_id="history", created_at=START)
    exa.add_run("mon_a", run_id="slow", status="running", created_at=START)

    async def scenario() -> None:
        await watch_until(lambda _: variables.texts and variables.cursor["open"])
        for round_, options in enumerate([CHANGES[change], {}, CHANGES[change]]):
            ended = exa.add_run("mon_a", run_id=f"run_{round_}")
            runs = await watch_until(
                lambda each, run_id=ended: (
                    run_id in each.runs
                    and len(variables.texts) == 1
                    and run_id in variables.cursor["reported"]
                ),
                **options,
            )
            assert runs == [ended]
        exa.move("slow", "completed")
        assert await watch_until(lambda each: each.runs) == ["slow"]

    asyncio.run(scenario())


def test_another_status_reports_no_history(exa: StandIn, variables: Variables) -> None:
    """Neither for a named asset nor for one whose name says it; what ends in between is reported."""

    async def scenario(**options: Any) -> None:
        await watch_until(lambda _: variables.texts, **options)
        exa.add_run("mon_a", run_id="seen", status="failed")
        await watch_until(
            lambda _: any("seen" in json.loads(text).get("skipped", ()) for text in variables.texts.values()),
            **options,
        )
        exa.add_run("mon_a", run_id="between", status="failed")
        options["statuses"] = ["failed"]
        assert await watch_until(lambda each: each.runs, **options) == ["between"]

    for options in ({}, {"name": "mine"}):
        asyncio.run(scenario(**options))
        variables.texts.clear()
        exa.runs.clear()
        exa.monitors.clear()
        exa.add_monitor("mon_a")


def test_a_named_asset_of_another_monitor_starts_anew(exa: StandIn, variables: Variables) -> None:
    """It has neither open runs of the old monitor nor reports history of the new one."""
    exa.add_monitor("mon_b")
    exa.add_run("mon_a", run_id="slow", status="running", created_at=START)
    exa.add_run("mon_b", run_id="history", created_at=START)

    async def scenario() -> None:
        await watch_until(lambda _: variables.texts and variables.cursor["open"], name="mine")
        async with Triggerer() as triggerer:
            triggerer.watch("mon_b", name="mine")
            await until(lambda: len(variables.texts) == 2)
            before = len(exa.requests)
            await more_polls(exa)
            assert triggerer.runs == []
            assert all("mon_a" not in each.path for each in exa.requests[before:])
            place = json.loads(variables.texts[variable_of("websets", "mon_b", "mine")])
            assert place["open"] == []

    asyncio.run(scenario())


def test_assets_of_one_monitor_each_have_a_place(exa: StandIn, variables: Variables) -> None:
    """A second one that is added takes none away, though it reports the same outcomes."""
    exa.add_run("mon_a", run_id="run_0", status="running")

    async def scenario() -> None:
        async with Triggerer() as triggerer:
            triggerer.watch()
            await until(lambda: variables.texts and variables.cursor["open"])
            triggerer.watch(poll_interval=0.06)
            triggerer.watch(statuses=["failed"])
            await until(lambda: len(variables.texts) == 3)
            await more_polls(exa, 6)
            assert len(variables.texts) == 3
            exa.move("run_0", "completed")
            await until(lambda: triggerer.runs == ["run_0"] * 2)

    asyncio.run(scenario())


def test_a_paused_asset_keeps_its_place_beside_one_that_is_added(exa: StandIn, variables: Variables) -> None:
    """Also when it is changed while it is paused."""

    async def scenario(**options: Any) -> None:
        await watch_until(lambda _: variables.texts)
        for key, text in variables.texts.items():
            long_ago = pendulum.now("UTC").subtract(days=2).isoformat()
            variables.texts[key] = json.dumps({**json.loads(text), "polled_at": long_ago})
        run = exa.add_run("mon_a")
        added = ["failed"] if options else ["completed", "failed"]
        seen = "skipped" if options else "reported"
        await watch_until(
            lambda _: any(run in json.loads(text).get(seen, ()) for text in variables.texts.values()),
            statuses=added,
        )
        assert len(variables.texts) == 2
        assert await watch_until(lambda each: each.runs, **options) == [run]
        variables.texts.clear()

    asyncio.run(scenario())
    asyncio.run(scenario(poll_interval=0.06))


def test_an_asset_that_is_replaced_may_end_a_moment_later(exa: StandIn, variables: Variables) -> None:
    """A triggerer starts new triggers before it cancels old ones."""

    async def scenario() -> None:
        async with Triggerer() as triggerer:
            old = triggerer.watch()
            await until(lambda: variables.texts)
            (old_key,) = variables.texts
            triggerer.watch(poll_interval=0.06)
            await until(lambda: len(variables.texts) == 2)
            old.cancel()
            with suppress(asyncio.CancelledError):
                await old
            await until(lambda: old_key not in variables.texts)
            run = exa.add_run("mon_a")
            await until(lambda: triggerer.runs == [run])

    asyncio.run(scenario())


def test_a_deleted_variable_of_an_asset_that_is_watched_is_written_again(
    exa: StandIn, variables: Variables
) -> None:
    """Another triggerer may have taken it for that of a replaced one."""

    async def scenario() -> None:
        async with Triggerer() as triggerer:
            triggerer.watch()
            await more_polls(exa)
            (text,) = variables.texts.values()
            variables.texts.clear()
            exa.add_run("mon_a", status="running")
            await until(lambda: variables.texts and variables.cursor["open"])
            assert variables.cursor["start"] == json.loads(text)["start"]

    asyncio.run(scenario())


def test_a_start_that_moves_is_warned_of_in_the_triggerer_too(
    exa: StandIn, variables: Variables, caplog: pytest.LogCaptureFixture
) -> None:
    """A moment without microseconds may be computed as well; it replays nothing."""
    exa.add_run("mon_a", run_id="run_0", created_at=START)

    async def scenario() -> None:
        for day in (2, 3, 4):
            async with Triggerer() as triggerer:
                triggerer.watch(start=START.replace(month=day))
                await more_polls(exa)
                assert triggerer.runs == []

    asyncio.run(scenario())
    assert sum("differs only in its start" in line for line in caplog.messages) == 2
    assert len(variables.texts) == 1


def test_a_first_start_is_logged_and_a_later_one_is_not(
    exa: StandIn, variables: Variables, caplog: pytest.LogCaptureFixture
) -> None:
    """A Variable that something has wiped would lose runs silently."""
    caplog.set_level(logging.INFO)
    exa.page_size = 10
    for number in range(45):
        exa.add_run("mon_a", created_at=START.replace(month=1 + number % 9))

    async def scenario() -> None:
        for _ in range(2):
            async with Triggerer() as triggerer:
                triggerer.watch()
                await until(lambda: any("for the first time" in line for line in caplog.messages))
                await more_polls(exa)

    asyncio.run(scenario())
    (line,) = (line for line in caplog.messages if "for the first time" in line)
    (start,) = {json.loads(text)["start"][:19] for text in variables.texts.values()}
    assert "45 runs of monitor mon_a ended before" in line
    assert start in line


def test_a_rubbish_place_of_another_asset_is_not_taken_for_none(
    exa: StandIn, variables: Variables, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be the one to take over, so a person has to mend or delete it."""

    async def scenario() -> None:
        await watch_until(lambda _: variables.texts)
        (key,) = variables.texts
        variables.texts[key] = "rubbish"
        async with Triggerer() as triggerer:
            triggerer.watch(poll_interval=0.06)
            await until(lambda: any(key in line and "no cursor" in line for line in caplog.messages))
            assert len(variables.texts) == 1
            del variables.texts[key]
            await until(lambda: variables.texts)

    asyncio.run(scenario())


def test_a_place_that_is_gone_on_from_is_watched_from_then_on(exa: StandIn, variables: Variables) -> None:
    """Its Variable says so at once, and what it reports now."""

    async def scenario() -> None:
        await watch_until(lambda _: variables.texts, name="mine")
        place = {**variables.cursor, "polled_at": START.isoformat()}
        variables.texts[variables.key] = json.dumps(place)
        await watch_until(
            lambda _: (
                variables.cursor["statuses"] == ["failed"]
                and variables.cursor["polled_at"] > START.isoformat()
            ),
            name="mine",
            statuses=["failed"],
        )

    asyncio.run(scenario())


def test_an_asset_that_is_watched_again_says_so_without_news(exa: StandIn, variables: Variables) -> None:
    """Its Variable may have been written long ago."""

    async def scenario() -> None:
        await watch_until(lambda _: variables.texts)
        variables.texts[variables.key] = json.dumps({**variables.cursor, "polled_at": START.isoformat()})
        await watch_until(lambda _: variables.cursor["polled_at"] > START.isoformat())

    asyncio.run(scenario())


def test_an_asset_of_other_outcomes_replaces_none(exa: StandIn, variables: Variables) -> None:
    """It is added beside the first, which may be paused just now."""

    async def scenario() -> None:
        await watch_until(lambda _: variables.texts)
        run = exa.add_run("mon_a")
        await watch_until(lambda _: len(variables.texts) == 2, statuses=["failed"])
        async with Triggerer() as triggerer:
            triggerer.watch(statuses=["failed"])
            await more_polls(exa, 6)
            assert len(variables.texts) == 2
        assert await watch_until(lambda each: each.runs) == [run]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("is_watched_elsewhere", "is_paused"), [(True, False), (False, False), (False, True)]
)
def test_a_replaced_asset_is_told_from_one_that_is_still_in_use(
    monkeypatch: pytest.MonkeyPatch, *, is_watched_elsewhere: bool, is_paused: bool
) -> None:
    """
    Another triggerer that watches it writes its Variable now and then, and a DAG refers to it while it is
    paused or polled rarely; this holds through a restart.
    """
    monkeypatch.setattr(store, "_is_watched", {})
    variables, states = Memory(), AssetStates()
    states.paused = {"old"} if is_paused else set()

    def make(asset: str) -> CursorStore:
        return CursorStore(
            variables,
            states,
            asset=asset,
            statuses=FINISHED,
            api="websets",
            monitor_id="mon_a",
            start="now",
        )

    async def scenario() -> None:
        old = make("old")
        await old.load()
        await make("new").load()
        assert len(variables.texts) == 2
        new = make("new")
        await new.load()
        await new.keep()
        assert len(variables.texts) == 2
        if is_watched_elsewhere:
            await asyncio.sleep(0.15)
            await old.keep()
        await asyncio.sleep(0.4)
        await new.keep()
        assert (old.key in variables.texts) == (is_watched_elsewhere or is_paused)
        await new.keep()
        assert "replaces" not in json.loads(variables.texts[new.key])

    with use_timing(Timing(cursor_rewrite_interval=0.1)):
        asyncio.run(scenario())


@pytest.mark.parametrize("is_broken", [False, True])
def test_a_paused_asset_loses_nothing_to_one_that_is_added_at_once(
    exa: StandIn, variables: Variables, asset_states: AssetStates, is_broken: bool
) -> None:
    """A DAG still refers to it, or Airflow does not say, so it keeps its Variable and its place."""

    async def scenario() -> None:
        await watch_until(lambda _: variables.texts)
        (key,) = variables.texts
        asset_states.paused = {"exa_monitor/mon_a/poll_interval=0.05"}
        asset_states.is_broken = is_broken
        run = exa.add_run("mon_a")
        async with Triggerer() as triggerer:
            triggerer.watch(poll_interval=0.06)
            await until(lambda: triggerer.runs == [run])
            await more_polls(exa, 6)
            assert key in variables.texts
            assert len(variables.texts) == 2
        assert await watch_until(lambda each: each.runs) == [run]

    asyncio.run(scenario())


def test_ids_that_differ_in_case_share_no_place(exa: StandIn, variables: Variables) -> None:
    """A database may ignore the case of a prefix."""
    exa.add_monitor("MON_A")
    keys = variables.keys
    variables.keys = lambda prefix="": [  # type: ignore[method-assign]
        key for key in keys() if key.lower().startswith(prefix.lower())
    ]
    run = exa.add_run("MON_A", created_at=START)

    async def scenario() -> None:
        await watch_until(lambda _: variables.texts)
        async with Triggerer() as triggerer:
            triggerer.watch("MON_A", start=START)
            await until(lambda: triggerer.runs == [run])
            assert len(variables.texts) == 2

    asyncio.run(scenario())


class Changes(RuleBasedStateMachine):
    """One asset is changed, stopped and killed at any moment while runs end."""

    statuses: ClassVar[list[list[str]]] = [["completed"], ["completed", "failed"], ["canceled", "completed"]]
    is_lossless_only = False

    @initialize()
    def begin(self) -> None:
        """It is watched for the first time."""
        self.variables = Memory()
        self.runs: dict[str, MonitorRun] = {}
        self.promised: set[str] = set()
        self.reported: Counter[str] = Counter()
        self.had_accident = False
        self.watched: Any = None
        store._is_watched.clear()
        self.start(["completed"], 60)

    def start(self, statuses: list[str], interval: int) -> None:
        self.wanted = statuses
        self.store = CursorStore(
            self.variables,
            AssetStates(),
            asset=f"{'+'.join(statuses)}/{interval}",
            statuses=statuses,
            api="websets",
            monitor_id="mon_a",
            start="now",
        )
        self.watched = self.store.watching()
        self.watched.__enter__()
        self.cursor = asyncio.run(self.store.load())
        self.promised &= {run.id for run in self.runs.values() if run.status in statuses}

    @rule(status=st.sampled_from(["running", "completed", "failed", "canceled"]))
    def a_run_is_created(self, status: str) -> None:
        """It may have ended at once."""
        run_id, now = f"run_{len(self.runs):02}", pendulum.now("UTC")
        self.runs[run_id] = make_run(run_id, status, now, now if status != "running" else None)
        if status in self.wanted:
            self.promised.add(run_id)

    @rule(status=st.sampled_from(["completed", "failed", "canceled"]))
    def open_runs_end(self, status: str) -> None:
        """All of them."""
        for run in self.runs.values():
            if run.status == "running":
                self.runs[run.id] = make_run(run.id, status, run.created_at, pendulum.now("UTC"))
                if status in self.wanted:
                    self.promised.add(run.id)

    @rule(is_stored=st.booleans(), is_kept=st.booleans())
    def poll(self, is_stored: bool, is_kept: bool) -> None:
        """What has ended is reported, and noted or not."""
        now = pendulum.now("UTC")
        self.cursor.observe(self.runs.values(), self.wanted, now, listed_back_to=BEGINNING_OF_TIME)
        batch = [run.id for run in self.cursor.batch()]
        if is_stored:
            self.reported.update(batch)
            self.cursor.confirm(batch)
        if is_kept:
            asyncio.run(self.store.keep())
        elif is_stored and batch:
            self.had_accident = True  # what is not noted may come again

    @rule(data=st.data(), interval=st.sampled_from([60, 30]), is_killed=st.booleans())
    def it_is_changed(self, data: st.DataObject, interval: int, is_killed: bool) -> None:
        """Or started again as it was; a triggerer that is killed forgets what it has watched."""
        self.watched.__exit__(None, None, None)
        if is_killed:
            store._is_watched.clear()
            self.had_accident = True
        self.start(data.draw(st.sampled_from(self.statuses)), interval)

    def teardown(self) -> None:
        """It is watched on: every run that was wanted all the time is reported."""
        if not hasattr(self, "cursor"):
            return
        self.poll(is_stored=True, is_kept=True)
        assert self.promised <= self.reported.keys(), self.promised - self.reported.keys()
        if not self.is_lossless_only and not self.had_accident:
            assert self.reported == dict.fromkeys(self.reported, 1)


class ChangesOfAnyKind(Changes):
    """Its outcomes may have nothing in common, so another place may be older, and runs come again."""

    statuses: ClassVar[list[list[str]]] = [["completed"], ["failed"], ["canceled"], ["failed", "completed"]]
    is_lossless_only = True


@pytest.mark.parametrize("machine", [Changes, ChangesOfAnyKind])
def test_no_change_loses_a_run(machine: type[Changes]) -> None:
    """Nor repeats one, where the outcomes stay alike and everything was noted."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            derandomize=True, deadline=None, max_examples=60, stateful_step_count=25, database=None
        ),
    )


# --- keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", [*sorted(DEFAULT_SENSITIVE_FIELDS), "ACCESS_TOKEN", "My_Password"])
def test_no_key_looks_like_a_secret(word: str) -> None:
    """Airflow would hide the cursor in its UI."""
    for monitor, name in ((f"mon_{word}", "mine"), ("mon_a", word)):
        key = variable_of("websets", monitor, name)
        assert not any(field in key.lower() for field in DEFAULT_SENSITIVE_FIELDS)


def test_a_key_says_which_monitor_it_is_about() -> None:
    """And no two monitors or assets have the same."""
    assert variable_of("websets", "mon_a", "mine").startswith("exa_cursor/websets/mon_a/")
    monitors = ["mon_a", "mon a", "mon_token", "mon_secret", "mon.a", ".mon", "_mon", "m" * 100, "m" * 101]
    keys = {
        variable_of(api, each, name) for api in ("websets", "search") for each in monitors for name in "ab"
    }
    assert len(keys) == 4 * len(monitors)
    families = [store.family_of("websets", each) for each in monitors]
    assert not any(a != b and a.startswith(b) for a in families for b in families)
