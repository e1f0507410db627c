"""What Exa says and what it means, without a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pendulum
import pytest
from pendulum import DateTime

from airflow_provider_exa.protocol import models
from airflow_provider_exa.protocol.errors import ExaInputError
from airflow_provider_exa.protocol.models import DIALECTS, Dialect, MonitorRun

SAMPLES = Path(__file__).parents[3] / "shared" / "exa" / "samples"
RUN = {"id": "run_1", "status": "completed", "createdAt": "2026-01-31T06:00:00.000Z"}
SIX = pendulum.datetime(2026, 1, 31, 6)


def parse(dialect: Dialect = DIALECTS["websets"], **fields: Any) -> MonitorRun:
    """A run as Exa would send it with these fields."""
    return models.parse_run(dialect, "mon_a", RUN | fields)


def sample(name: str) -> Any:
    """What one of the sample files holds."""
    path = SAMPLES / name
    if not path.exists():
        pytest.skip("Exa's samples are not beside the repository")
    return json.loads(path.read_text())


# --- runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "word", "status", "finished"),
    [
        (DIALECTS["websets"], "created", "created", False),
        (DIALECTS["websets"], "running", "running", False),
        (DIALECTS["websets"], "completed", "completed", True),
        (DIALECTS["websets"], "failed", "failed", True),
        (DIALECTS["websets"], "canceled", "canceled", True),
        (DIALECTS["search"], "pending", "created", False),
        (DIALECTS["search"], "cancelled", "canceled", True),
        (DIALECTS["search"], "completed", "completed", True),
    ],
)
def test_a_status_is_told_in_the_words_of_websets(
    dialect: Dialect, word: str, status: str, finished: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Each API's own word becomes the word of Websets, which says whether the run is finished."""
    run = parse(dialect, status=word)
    assert (run.status, run.finished, caplog.messages) == (status, finished, [])


def test_an_unknown_status_is_kept_and_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    """A word that is new here counts as not finished, and the log says so one time for each word."""
    runs = [parse(status=word) for word in ("paused", "paused", "queued")]
    assert [(run.status, run.finished) for run in runs] == [
        ("paused", False),
        ("paused", False),
        ("queued", False),
    ]
    assert [
        repr(word) in message for word, message in zip(("paused", "queued"), caplog.messages, strict=True)
    ]


def test_a_run_needs_three_fields_and_keeps_those_it_does_not_know() -> None:
    """What Exa leaves out is None, the monitor is the one asked for, and ``raw`` is what was sent."""
    run = parse(output={"results": []}, durationMs=44000)
    assert run.raw == {**RUN, "output": {"results": []}, "durationMs": 44000}
    assert run.as_dict() == dict.fromkeys(models.RUN_FIELDS) | {
        "id": "run_1",
        "monitor_id": "mon_a",
        "status": "completed",
        "created_at": "2026-01-31T06:00:00+00:00",
    }


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T06:00:00.000Z",
        "2026-01-31T06:00:00Z",
        "2026-01-31T06:00:00",
        "2026-01-31T07:30:00+01:30",
        "2026-01-30T22:00:00-08:00",
    ],
)
def test_every_time_is_a_pendulum_moment_in_utc(text: str) -> None:
    """An offset is counted in, and a time without a zone is taken as UTC."""
    run = parse(createdAt=text, completedAt=text)
    for moment in (run.created_at, run.completed_at):
        assert isinstance(moment, DateTime)
        assert (moment, moment.timezone_name) == (SIX, "UTC")


def test_a_run_as_a_dict_is_json_without_what_exa_sent() -> None:
    """What goes to XCom has strings and None only, and each time says that it is UTC."""
    values = parse(type="search", failedReason="why", failedAt="2026-01-31T06:00:01.234Z").as_dict()
    assert json.loads(json.dumps(values)) == values
    assert tuple(values) == models.RUN_FIELDS
    assert "raw" not in values
    assert (values["failed_at"], values["failed_reason"]) == ("2026-01-31T06:00:01.234000+00:00", "why")


@pytest.mark.parametrize(
    ("name", "dialect", "expected"),
    [
        (
            "sdkmock_websets_monitor_run_exajs.json",
            DIALECTS["websets"],
            ("run_123456", "monitor_123456", "completed", "search", "2023-01-08T09:30:00+00:00", None),
        ),
        (
            "sdkmock_websets_monitor_run_exapy_no_failedReason.json",
            DIALECTS["websets"],
            ("run_123", "monitor_123", "completed", "search", "2023-01-01T10:00:00+00:00", None),
        ),
        (
            "doc_websets_list_runs_placeholder.json",
            DIALECTS["websets"],
            ("<string>", "<string>", "created", "search", "2023-11-07T05:31:56+00:00", "<string>"),
        ),
        (
            "doc_search_monitor_run.json",
            DIALECTS["search"],
            ("run_xyz789", "mon_abc123", "completed", None, "2026-03-17T09:00:45+00:00", None),
        ),
    ],
)
def test_the_sample_runs_are_understood(
    name: str, dialect: Dialect, expected: tuple[str | None, ...]
) -> None:
    """A run from Exa's documents or its SDKs' tests becomes the run that it describes."""
    body = sample(name)["body"]
    monitor_id = expected[1] or ""
    run = models.parse_run(dialect, monitor_id, body["data"][0] if "data" in body else body)
    fields = ("id", "monitor_id", "status", "type", "completed_at", "failed_reason")
    assert tuple(run.as_dict()[field] for field in fields) == expected


def test_a_monitor_needs_two_fields() -> None:
    """A monitor is enabled where its status is the API's word for it."""
    enabled, disabled = (
        models.parse_monitor(DIALECTS["websets"], {"id": "mon_a", "status": status, **more})
        for status, more in (("enabled", {}), ("disabled", {"websetId": "webset_1"}))
    )
    assert (enabled.enabled, enabled.webset_id) == (True, None)
    assert (disabled.enabled, disabled.webset_id) == (False, "webset_1")


def test_a_monitor_as_a_dict_is_json_without_what_exa_sent() -> None:
    """Its fields are those of the class."""
    monitor = models.parse_monitor(DIALECTS["websets"], {"id": "m", "status": "enabled", "websetId": "w"})
    assert monitor.as_dict() == {"id": "m", "status": "enabled", "enabled": True, "webset_id": "w"}


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_a_run_of_another_monitor_is_refused(dialect: Dialect) -> None:
    """One that names none is of the monitor that was asked for."""
    for sent in ({}, {"monitorId": None}, {"monitorId": ""}, {"monitorId": 7}, {"monitorId": "mon_a"}):
        assert parse(dialect, **sent).monitor_id == "mon_a"
    with pytest.raises(ValueError, match=r"^it is of the monitor 'mon_b'$"):
        parse(dialect, monitorId="mon_b")


MEGABYTE = "x" * 2**20


@pytest.mark.parametrize("key", ["id", "status", "createdAt"])
def test_a_run_is_refused_if_what_it_needs_is_too_long(key: str) -> None:
    """Its id and its status go into log lines, events and an Airflow Variable."""
    assert len(parse(id="x" * 500).id) == 500
    with pytest.raises(ValueError, match=f"^'{key}' has 501 characters$"):
        parse(**{key: "x" * 501})


def test_a_run_as_a_dict_is_small_whatever_exa_sends() -> None:
    """What it needs not is left out or cut; ``raw`` has all of it."""
    sent = {"type": MEGABYTE, "monitorId": MEGABYTE, "failedReason": MEGABYTE, "output": MEGABYTE}
    run = parse(**sent)
    assert (run.type, run.monitor_id, run.failed_reason) == (None, "mon_a", "x" * 2000)
    assert len(parse(failedReason=[MEGABYTE]).failed_reason or "") == 2000
    assert run.raw == RUN | sent
    assert len(json.dumps(run.as_dict())) < 3000


@pytest.mark.parametrize("key", ["id", "status"])
def test_a_monitor_is_refused_if_what_it_needs_is_too_long(key: str) -> None:
    """Its webset is none if that has no id that can be one."""
    monitor = {"id": "mon_a", "status": "enabled", "websetId": MEGABYTE}
    assert models.parse_monitor(DIALECTS["websets"], monitor).webset_id is None
    with pytest.raises(ValueError, match=f"^'{key}' has 1048576 characters$"):
        models.parse_monitor(DIALECTS["websets"], monitor | {key: MEGABYTE})


@pytest.mark.parametrize(
    ("fields", "monitor_id", "type_"),
    [
        ({"monitorId": "mon_a", "type": "refresh"}, "mon_a", "refresh"),
        ({"monitorId": 5, "type": 5}, "mon_a", None),
        ({"monitorId": "", "completedAt": ""}, "mon_a", None),
    ],
    ids=str,
)
def test_a_run_says_whose_it_is_and_of_which_type(
    fields: dict[str, Any], monitor_id: str, type_: str | None
) -> None:
    """Where it says so in text; its monitor is else the one asked for."""
    run = parse(**fields)
    assert (run.monitor_id, run.type, run.completed_at) == (monitor_id, type_, None)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("no credits", "no credits"), (None, None), ({"code": 7}, '{"code": 7}'), (7, "7"), ([], "[]")],
)
def test_a_reason_is_text(sent: object, kept: str | None) -> None:
    """What is none is told as JSON."""
    assert parse(failedReason=sent).failed_reason == kept


@pytest.mark.parametrize(
    ("fields", "hour"),
    [
        ({}, 6),
        ({"updatedAt": 7}, 7),
        ({"updatedAt": 7, "canceledAt": 8}, 8),
        ({"updatedAt": 7, "canceledAt": 8, "failedAt": 9}, 9),
        ({"updatedAt": 7, "canceledAt": 8, "failedAt": 9, "completedAt": 10}, 10),
    ],
)
def test_a_run_ended_when_exa_says_or_last_changed(fields: dict[str, int], hour: int) -> None:
    """The first moment that is known counts, down to that of its creation."""
    times = {name: f"2026-01-31T{number:02}:00:00Z" for name, number in fields.items()}
    assert parse(**times).ended_at == pendulum.datetime(2026, 1, 31, hour)


def test_what_exa_sent_is_kept_unless_nobody_needs_it() -> None:
    """A poll of many runs would hold all that they have found."""
    assert parse().raw == RUN
    assert models.parse_run(DIALECTS["websets"], "mon_a", RUN, keep_raw=False).raw == {}


def test_a_run_is_the_same_whatever_else_exa_sends_of_it() -> None:
    """Nor is that in the logs, as a run may hold all that it found."""
    monitor, other = (
        models.parse_monitor(DIALECTS["websets"], {"id": "m", "status": "enabled", "new": new})
        for new in "ab"
    )
    for one, two in ((parse(new="a"), parse(new="b")), (monitor, other)):
        assert one == two
        assert "new" not in repr(one)


@pytest.mark.parametrize("api", ["nope", ["websets"], None, 5])
def test_what_is_no_api_is_refused(api: Any) -> None:
    """Whatever a template or a DAG file may hold."""
    with pytest.raises(ExaInputError, match=r"is not one of 'websets', 'search'$"):
        models.dialect_of(api)


def test_an_api_is_refused_for_what_it_cannot_do() -> None:
    """The error says which API can, and an argument that was not given needs none."""
    assert models.dialect_of("search", trigger="Triggering a monitor") is DIALECTS["search"]
    assert models.dialect_of("websets", trigger=None) is DIALECTS["websets"]
    assert models.dialect_of("websets", websets="Waiting for a webset") is DIALECTS["websets"]
    with pytest.raises(ExaInputError, match=r"^Waiting for a webset is not possible with api='search', only"):
        models.dialect_of("search", websets="Waiting for a webset")
    with pytest.raises(
        ExaInputError, match=r"^Triggering is not possible with .*websets', only with .*search'$"
    ):
        models.dialect_of("websets", trigger="Triggering")
