"""Assets on monitor runs: what tells two apart, what is refused, and what a DAG run gets of their events."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import reduce
from operator import and_, or_
from pkgutil import resolve_name
from typing import Any

import httpx
import pendulum
import pytest
from airflow.sdk import DAG, Asset
from airflow.serialization.serialized_objects import DagSerialization
from airflow.triggers.base import BaseEventTrigger

from airflow_provider_exa import assets
from airflow_provider_exa.assets import finished_runs, monitor_runs
from airflow_provider_exa.events.store import variable_of
from airflow_provider_exa.protocol.errors import ExaInputError
from airflow_provider_exa.protocol.models import DIALECTS
from airflow_provider_exa.triggers import ExaMonitorRunEventTrigger

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def trigger_of(asset: Asset) -> ExaMonitorRunEventTrigger:
    (watcher,) = asset.watchers
    assert isinstance(watcher.trigger, ExaMonitorRunEventTrigger)
    return watcher.trigger


def hash_of(asset: Asset) -> int:
    """What Airflow tells triggers apart by."""
    return BaseEventTrigger.hash(*trigger_of(asset).serialize())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {}),
        ({}, {"statuses": ["completed"], "api": "websets", "exa_conn_id": "exa_default", "start": "now"}),
        ({"statuses": ("failed", "canceled")}, {"statuses": ["canceled", "failed", "failed"]}),
        ({"statuses": {"failed": 1}}, {"statuses": {"failed"}}),
        ({"poll_interval": 60}, {"poll_interval": 60.0}),
        ({"start": MOMENT}, {"start": "2026-01-01T01:00:00+01:00"}),
        ({"start": MOMENT}, {"start": pendulum.datetime(2026, 1, 1)}),
        ({"start": MOMENT}, {"start": datetime(2026, 1, 1)}),  # noqa: DTZ001 (taken as UTC)
    ],
)
def test_who_asks_for_the_same_gets_the_same_asset(one: dict[str, Any], other: dict[str, Any]) -> None:
    """So DAGs in several files may each make it, and Airflow runs one trigger."""
    first, second = monitor_runs("mon_a", **one), monitor_runs("mon_a", **other)
    assert (first.name, first.uri, hash_of(first)) == (second.name, second.uri, hash_of(second))
    assert first == second


DIFFERENT: list[dict[str, Any]] = [
    {},
    {"monitor_id": "mon_b"},
    {"statuses": ["failed"]},
    {"statuses": ["completed", "failed"]},
    *({"api": api} for api in DIALECTS if api != "websets"),
    {"exa_conn_id": "exa_eu"},
    {"exa_conn_id": "exa_eu/poll_interval=30"},
    {"exa_conn_id": "exa_eu", "poll_interval": 30},
    {"poll_interval": 30},
    {"poll_interval": 0.5},
    {"start": MOMENT},
    {"start": "2026-01-01T00:00:00.001Z"},
    *(
        {"name": name}
        for name in [
            *("mine", "Mine", "mine/", "mine//", "/mine", "//mine", "mine/.", "mine/..", "mine%2F", "mine?"),
            *(
                "mine#1",
                "mine#2",
                "mine?b&a",
                "mine?a&b",
                "mine?a=1",
                "a@mine",
                "b@mine",
                "a:b@mine",
                "mine;a",
            ),
            *("my runs", "my+runs", "my%20runs", "runs[eu]", "runs[", "[::1", "ä", "a\u0308", "℀", "a\\b"),
            *("runs of " + 200 * "m", "runs of " + 201 * "m", "ü" * 500, "ü" * 501),
            *("http://mine", "exa://mine", "exa://monitor_runs/mine", "monitor_runs/mine"),
        ]
    ),
    {"poll_interval": 1_000_001},
    {"poll_interval": 60.00001},
]


@pytest.mark.parametrize("options", DIFFERENT, ids=str)
def test_whatever_differs_is_in_the_name(options: dict[str, Any]) -> None:
    """No two assets fight over one trigger or one cursor."""
    others = [each for each in DIFFERENT if isinstance(each, dict) and each != options]
    others += [{"poll_interval": 1_000_000}]
    asset, rest = _make(options), [_make(each) for each in others]
    assert asset.name not in {each.name for each in rest}
    assert asset.uri not in {each.uri for each in rest}
    assert hash_of(asset) not in {hash_of(each) for each in rest}
    assert key_of(asset) not in {key_of(each) for each in rest}
    assert trigger_of(asset).shared_stream_key() not in {
        trigger_of(each).shared_stream_key() for each in rest
    }


def key_of(asset: Asset) -> str:
    trigger = trigger_of(asset)
    return variable_of(trigger.api, trigger.monitor_id, trigger.asset_name)


def _make(options: dict[str, Any]) -> Asset:
    return monitor_runs(**{"monitor_id": "mon_a", **options})


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "exa_monitor/mon_a"),
        ({"api": "search"}, "exa_monitor/mon_a/api=search"),
        ({"statuses": ["canceled", "failed"]}, "exa_monitor/mon_a/statuses=failed+canceled"),
        (
            {"exa_conn_id": "exa eu", "poll_interval": 30, "start": MOMENT},
            "exa_monitor/mon_a/exa_conn_id=exa%20eu/poll_interval=30/start=2026-01-01T00:00:00Z",
        ),
        ({"poll_interval": 0.5}, "exa_monitor/mon_a/poll_interval=0.5"),
        ({"name": "mine", "poll_interval": 30}, "mine"),
    ],
)
def test_the_name_says_the_monitor_and_what_is_not_usual(options: dict[str, Any], name: str) -> None:
    """A person reads it in Airflow's list of assets."""
    asset = _make(options)
    assert asset.name == name
    assert [watcher.name for watcher in asset.watchers] == [name]


def test_an_asset_says_what_it_is_about() -> None:
    """Airflow shows its group and its extra, and keeps its URI as it is."""
    asset = monitor_runs("mon_a", api="search", statuses=["failed"])
    assert asset.uri == "exa://monitor_runs/exa_monitor/mon_a/api=search/statuses=failed"
    assert asset.group == "exa"
    assert asset.extra == {"monitor_id": "mon_a", "api": "search", "statuses": ["failed"]}


@pytest.mark.parametrize(
    "start",
    [
        pendulum.now("UTC").subtract(days=1).set(microsecond=123456),
        datetime(2026, 1, 1, 7, 3, 2, 654321),  # noqa: DTZ001 (taken as UTC)
    ],
)
def test_a_start_that_is_computed_from_the_current_time_is_warned_of(
    start: datetime, caplog: pytest.LogCaptureFixture
) -> None:
    """It makes a new asset whenever the DAG file is read."""
    monitor_runs("mon_a", start=start)
    (line,) = caplog.messages
    assert line.startswith("monitor_runs('mon_a'): start=")
    assert "Give a fixed moment" in line


@pytest.mark.parametrize("start", ["now", MOMENT, "2026-01-01", "2026-01-01T00:00:00.123456Z"])
def test_a_fixed_start_is_not_warned_of(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Nor is the usual one."""
    monitor_runs("mon_a", start=start)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"monitor_id": ""}, "monitor_id is ''"),
        ({"monitor_id": None}, "monitor_id is None"),
        ({"monitor_id": "mon/a"}, "monitor_id 'mon/a'"),
        ({"monitor_id": "mon_a "}, "monitor_id 'mon_a '"),
        ({"monitor_id": "{{ var.value.monitor }}"}, "template"),
        ({"exa_conn_id": "{{ var.value.connection }}"}, "template"),
        ({"exa_conn_id": ""}, "exa_conn_id=''"),
        ({"exa_conn_id": None}, "exa_conn_id=None"),
        ({"api": ["websets"]}, "api="),
        ({"name": "{{ ds }}"}, "template"),
        ({"start": "{{ ds }}"}, "template"),
        ({"statuses": ()}, "statuses is empty"),
        ({"statuses": ["done"]}, "statuses has 'done'"),
        ({"statuses": ["running"]}, "statuses has 'running'"),
        ({"statuses": "completed"}, "statuses='completed'"),
        ({"statuses": None}, "statuses=None"),
        ({"api": "webset"}, "api='webset'"),
        ({"poll_interval": 0}, "poll_interval=0"),
        ({"poll_interval": -1}, "poll_interval=-1"),
        ({"poll_interval": float("nan")}, "poll_interval=nan"),
        ({"poll_interval": "60"}, "poll_interval='60'"),
        ({"poll_interval": None}, "poll_interval=None"),
        ({"poll_interval": float("inf")}, "poll_interval=inf"),
        ({"poll_interval": 10**400}, "poll_interval=1000"),
        ({"start": "yesterday"}, "start='yesterday'"),
        ({"start": 7}, "start=7"),
        ({"start": None}, "start=None"),
        ({"name": ""}, "name=''"),
        ({"name": "  "}, "name='  '"),
        ({"name": 7}, "name=7"),
        ({"name": "x" * 1501}, "cannot exceed 1500"),
        ({"name": "\ud800"}, "name='\\ud800'"),
    ],
)
def test_what_cannot_be_is_refused_with_the_dag_file(options: dict[str, Any], says: str) -> None:
    """By a message that names the argument, not by an asset that is never updated."""
    with pytest.raises(ExaInputError) as caught:
        _make(options)
    assert says in str(caught.value)
    assert str(caught.value).startswith("monitor_runs(")


def test_an_older_airflow_is_told_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow 3.3, or else a sensor."""
    monkeypatch.setattr(assets, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"needs Airflow 3\.3 .*ExaMonitorRunSensor"):
        monitor_runs("mon_a")


def test_a_trigger_is_the_same_when_made_anew_of_its_arguments() -> None:
    """Through JSON, as Airflow keeps them."""
    trigger = trigger_of(
        monitor_runs("mon_a", statuses=["failed", "canceled"], start=MOMENT, poll_interval=7)
    )
    path, arguments = trigger.serialize()
    again = resolve_name(path)(**json.loads(json.dumps(arguments)))
    assert again.serialize() == (path, arguments)
    assert again.shared_stream_key() == trigger.shared_stream_key()
    assert arguments == {
        "asset_name": "exa_monitor/mon_a/statuses=failed+canceled/poll_interval=7/start=2026-01-01T00:00:00Z",
        "monitor_id": "mon_a",
        "statuses": ["failed", "canceled"],
        "api": "websets",
        "exa_conn_id": "exa_default",
        "poll_interval": 7.0,
        "start": "2026-01-01T00:00:00Z",
    }


def test_a_trigger_of_another_version_is_read() -> None:
    """Unknown arguments are ignored, and missing ones have defaults."""
    trigger = ExaMonitorRunEventTrigger(asset_name="mine", monitor_id="mon_a", from_another_version=7)
    assert trigger.serialize()[1] == {
        "asset_name": "mine",
        "monitor_id": "mon_a",
        "statuses": ("completed",),
        "api": "websets",
        "exa_conn_id": "exa_default",
        "poll_interval": 60,
        "start": "now",
    }


def watchers_in(value: Any) -> list[dict[str, Any]]:
    """All watchers anywhere in a serialized DAG."""
    if isinstance(value, dict):
        return [*value.get("watchers", []), *(each for item in value.values() for each in watchers_in(item))]
    return [each for item in value for each in watchers_in(item)] if isinstance(value, list) else []


@pytest.mark.parametrize("combine", [or_, and_], ids=["any", "all"])
def test_a_dag_keeps_the_watchers_of_its_schedule(combine: Callable[[Any, Any], Any]) -> None:
    """Assets can be combined, and Airflow's serialized DAG still says how each is watched."""
    made = [
        monitor_runs(monitor, statuses=["failed"], start=MOMENT) for monitor in ("mon_a", "mon_b", "mon_c")
    ]
    dag = DAG("consumer", schedule=reduce(combine, made), start_date=MOMENT)
    data = json.loads(json.dumps(DagSerialization.to_dict(dag)))
    found = {watcher["name"]: watcher["trigger"] for watcher in watchers_in(data)}
    assert found.keys() == {asset.name for asset in made}
    for asset in made:
        kept = found[asset.name]
        assert BaseEventTrigger.hash(kept["classpath"], kept["kwargs"]) == hash_of(asset)
    again = DagSerialization.from_dict(data)
    condition = again.timetable.asset_condition
    assert {asset.name: len(asset.watchers) for _, asset in condition.iter_assets()} == {
        asset.name: 1 for asset in made
    }


@pytest.mark.parametrize(
    "name",
    [
        "mine",
        "my runs",
        "ä/ö?ü#ß&%00",
        "x" * 1000,
        "runs\n\t/\\:*'\"`$",
        "/leading/and/trailing/",
        "…",
        "a/../../b",
        "a/./b",
    ],
)
def test_a_cursor_can_be_kept_whatever_asset_and_monitor_are_called(name: str) -> None:
    """Airflow takes keys of 250 characters, and sends them as the end of a URL's path."""
    for key in (variable_of("websets", "mon_a", name), variable_of("search", name, "mine")):
        check_key(key)


def check_key(key: str) -> None:
    assert key.startswith("exa_cursor/")
    assert len(key) <= 250
    url = httpx.URL(f"http://airflow/execution/variables/{key}")
    assert url.raw_path.decode() == f"/execution/variables/{key}"


# --- what a DAG run gets --------------------------------------------------------------------------


@dataclass
class Event:
    """An event of an asset, as a task gets it."""

    extra: dict[str, Any] = field(default_factory=dict)


def event(*runs: tuple[str, str], monitor_id: str = "mon_a", conn_id: str = "exa_default") -> Event:
    """An event with runs, each an id and when it was created."""
    records = [
        {
            "monitor_id": monitor_id,
            "run_id": run_id,
            "status": "completed",
            "type": "search",
            "created_at": created_at,
            "finished_at": created_at,
            "failed_reason": None,
        }
        for run_id, created_at in runs
    ]
    payload = {"api": "websets", "exa_conn_id": conn_id, "runs": records}
    return Event({"from_trigger": True, "payload": payload})


ONE = ("run_1", "2026-01-01T00:00:00+00:00")
TWO = ("run_2", "2026-01-01T00:00:00.001000+00:00")
THREE = ("run_3", "2026-01-02T00:00:00+00:00")


def test_each_run_comes_once_and_the_oldest_first() -> None:
    """From all events of all assets, though some hold the same run."""
    events = {
        "completed": [event(THREE), event(TWO, THREE)],
        "any end": [event(TWO, ONE)],
        "another monitor": [event(ONE, monitor_id="mon_b", conn_id="exa_eu")],
    }
    runs = finished_runs(events)
    assert [(run["monitor_id"], run["run_id"]) for run in runs] == [
        ("mon_a", "run_1"),
        ("mon_b", "run_1"),
        ("mon_a", "run_2"),
        ("mon_a", "run_3"),
    ]
    assert [run["exa_conn_id"] for run in runs] == ["exa_default", "exa_eu", "exa_default", "exa_default"]


def test_a_run_says_where_it_is_from_and_how_it_ended() -> None:
    """All that a task needs to ask for the rest."""
    assert finished_runs({"asset": [event(ONE)]}) == [
        {
            "api": "websets",
            "exa_conn_id": "exa_default",
            "monitor_id": "mon_a",
            "run_id": "run_1",
            "status": "completed",
            "type": "search",
            "created_at": ONE[1],
            "finished_at": ONE[1],
            "failed_reason": None,
        }
    ]


@pytest.mark.parametrize(
    "foreign",
    [
        {},
        {"from_trigger": True},
        {"payload": None},
        {"payload": "a message"},
        {"payload": 7},
        {"payload": []},
        {"payload": ["exa_conn_id"]},
        {"payload": {}},
        {"payload": {"runs": [{"run_id": "of somebody else"}]}},
        {"payload": {"exa_conn_id": "of somebody else"}},
        None,
    ],
    ids=str,
)
def test_events_of_other_assets_are_left_out(foreign: dict[str, Any] | None) -> None:
    """A DAG may be scheduled on those, too."""
    events = {"other": [Event(foreign)], "exa": [event(ONE), Event(foreign)]}
    assert [run["run_id"] for run in finished_runs(events)] == ["run_1"]


@pytest.mark.parametrize("name", ["api", "exa_conn_id", "monitor_id", "run_id", "status", "created_at"])
@pytest.mark.parametrize("value", [None, 5, [], {}])
def test_an_entry_that_is_no_run_is_left_out_with_a_warning(
    name: str, value: object, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever may create events of an asset may write anything into one."""
    forged, lacking = event(TWO), event(THREE)
    assert forged.extra
    assert lacking.extra
    forged.extra["payload"]["runs"][0][name] = value
    lacking.extra["payload"].pop(name, None)
    lacking.extra["payload"]["runs"][0].pop(name, None)
    if name in ("api", "exa_conn_id"):
        lacking = event()
    assert [run["run_id"] for run in finished_runs({"asset": [forged, event(ONE), lacking]})] == ["run_1"]
    assert sum("is left out" in message for message in caplog.messages) == (name[0] not in "ae") + 1


@pytest.mark.parametrize(
    "runs", [None, 5, "run_1", {"run_1": {}}, [None], [5], ["run_1"], [["run_1"]], [{}]], ids=str
)
def test_an_event_whose_runs_are_none_is_left_out_with_a_warning(
    runs: object, caplog: pytest.LogCaptureFixture
) -> None:
    """It stops no task that has others."""
    forged = event(TWO)
    assert forged.extra
    forged.extra["payload"]["runs"] = runs
    assert [run["run_id"] for run in finished_runs({"asset": [forged, event(ONE)]})] == ["run_1"]
    assert len(caplog.messages) == 1


def test_a_dag_run_that_somebody_started_has_no_runs() -> None:
    """There is no event then."""
    assert finished_runs({}) == []
    assert finished_runs({"asset": []}) == []
