"""Every public name, used as users use it: ``mypy --strict`` checks this file, and nothing runs it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, assert_type

from airflow.sdk import DAG, Asset, Context

import airflow_provider_exa
from airflow_provider_exa.assets import FinishedRun, finished_runs, monitor_runs
from airflow_provider_exa.hooks import ExaHook
from airflow_provider_exa.links import ExaWebsetLink
from airflow_provider_exa.operators import (
    ExaListMonitorRunResultsOperator,
    ExaListMonitorRunsOperator,
    ExaListMonitorsOperator,
    ExaTriggerMonitorOperator,
    ExaWaitForMonitorRunsOperator,
)
from airflow_provider_exa.protocol.errors import (
    ExaBadAnswerError,
    ExaError,
    ExaInputError,
    ExaPermanentError,
    ExaRunFailedError,
    ExaTransientError,
)
from airflow_provider_exa.protocol.models import Monitor, MonitorRun
from airflow_provider_exa.sensors import ExaMonitorRunSensor
from airflow_provider_exa.standin import Fault, RecordedRequest, StandIn
from airflow_provider_exa.triggers import (
    ExaMonitorRunEventTrigger,
    ExaMonitorRunsTrigger,
    ExaMonitorRunTrigger,
    ExaStartedRunTrigger,
)

NOW = datetime.now(UTC)


def package() -> None:
    assert_type(airflow_provider_exa.__version__, str)
    assert_type(airflow_provider_exa.get_provider_info(), dict[str, Any])


def hook() -> None:
    exa = ExaHook()
    exa = ExaHook("exa_default")
    exa = ExaHook(exa_conn_id="exa_default", api="search")
    runs = exa.list_monitor_runs("mon_a", created_after=NOW, page_size=10, max_pages=5)
    assert_type(runs, Iterator[MonitorRun])
    run = exa.get_monitor_run("mon_a", "run_1")
    assert_type(run, MonitorRun)
    assert_type((run.id, run.monitor_id, run.status), tuple[str, str, str])
    assert_type(run.failed_reason, str | None)
    assert_type(exa.list_run_results(run, whole=True), Iterator[dict[str, Any]])
    assert_type(exa.get_monitor("mon_a"), Monitor)
    assert_type(exa.list_monitors(webset_id="webset_a"), Iterator[Monitor])
    exa.trigger_monitor("mon_a")
    assert_type(exa.test_connection(), tuple[bool, str])


def tasks() -> None:
    with DAG("exa"):
        ExaMonitorRunSensor(
            task_id="sensor",
            monitor_id="mon_a",
            created_after="{{ data_interval_start }}",
            fail_on=["failed"],
            wait_for_idle=True,
            exa_conn_id="exa_default",
            api="websets",
            deferrable=True,
            poke_interval=60,
            timeout=3600,
        )
        ExaMonitorRunSensor(task_id="by_id", monitor_id="mon_a", run_id="run_1")
        ExaMonitorRunSensor(task_id="latest", monitor_id="mon_a", pick="latest")
        ExaWaitForMonitorRunsOperator(
            task_id="several",
            monitor_ids=["mon_a", "mon_b"],
            created_after=NOW,
            wait_for="all",
            fail_on=(),
            poll_interval=30,
            deferrable=True,
        )
        ExaWaitForMonitorRunsOperator(
            task_id="given", runs=[{"monitor_id": "mon_a", "run_id": "run_1"}], wait_for=1
        )
        ExaTriggerMonitorOperator(
            task_id="trigger", monitor_id="mon_a", wait_for_completion=True, fail_on=["failed"], api="search"
        )
        ExaListMonitorRunsOperator(
            task_id="runs",
            monitor_id="mon_a",
            statuses=["completed"],
            created_after=NOW,
            created_before="2026-01-01",
            limit=10,
        )
        ExaListMonitorRunResultsOperator(
            task_id="results", monitor_id="mon_a", run_id="run_1", path="file:///tmp/results.jsonl"
        )
        ExaListMonitorsOperator(task_id="monitors", only_enabled=False, webset_id="webset_a")
    assert_type(ExaWebsetLink().name, str)


def results_of_tasks(context: Context) -> None:
    sensor = ExaMonitorRunSensor(task_id="sensor", monitor_id="mon_a", pick="next")
    sensor.execute(context)
    listing = ExaListMonitorRunsOperator(task_id="runs", monitor_id="mon_a")
    assert_type(listing.execute(context), list[dict[str, str | None]])


def assets() -> None:
    asset = monitor_runs(
        "mon_a",
        statuses=("completed", "failed"),
        api="search",
        exa_conn_id="exa_default",
        name="news",
        poll_interval=60,
        start=NOW,
    )
    assert_type(asset, Asset)
    with DAG("on_asset", schedule=[asset]):
        pass
    runs = finished_runs({asset: []})
    assert_type(runs, list[FinishedRun])
    assert_type(runs[0]["run_id"], str)


def triggers() -> None:
    ExaMonitorRunTrigger("mon_a", run_id="run_1", poll_interval=60, max_poll_interval=300)
    ExaMonitorRunsTrigger({"mon_a": {"run_id": "run_1"}}, 1, exa_conn_id="exa_default", api="websets")
    ExaStartedRunTrigger("mon_a", "2026-01-01T00:00:00Z", poll_interval=5)
    trigger = ExaMonitorRunEventTrigger(
        asset_name="news",
        monitor_id="mon_a",
        statuses=["completed"],
        api="search",
        exa_conn_id="exa_default",
        poll_interval=60,
        start="now",
    )
    assert_type(trigger.serialize(), tuple[str, dict[str, Any]])


def errors() -> None:
    try:
        ExaHook().get_monitor("mon_a")
    except ExaInputError as error:
        assert_type(str(error), str)
    except (ExaRunFailedError, ExaPermanentError):
        raise
    except ExaBadAnswerError:
        pass
    except ExaTransientError as error:
        assert_type(error.retry_after, float | None)
    except ExaError:
        pass


def stand_in() -> None:
    with StandIn(api_key="key", page_size=5, order="oldest", refuses={"cursor"}, on_busy="refuse") as exa:
        assert_type(exa.add_monitor("mon_a", status="enabled", webset_id="webset_a"), str)
        assert_type(exa.add_run("mon_a", status="completed", created_at=NOW, results=[{}]), str)
        exa.every("mon_a", seconds=1.0, states=[(0, "running"), (1, "completed")])
        exa.move("run_1", "failed")
        exa.fail(Fault(kind="status", status=429, retry_after="1", times=None))
        exa.heal()
        assert_type(exa.trigger("mon_a"), str | None)
        assert_type(exa.requests, list[RecordedRequest])
        assert_type((exa.url, exa.connections, exa.connection(timeout=5)), tuple[str, int, str])
