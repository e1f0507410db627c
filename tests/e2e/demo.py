"""The demo: a DAG takes one way when a monitor run completed and another when it failed, in a real Airflow.

The monitors are those of a stand-in for Exa. With ``EXA_API_KEY`` and ``EXA_MONITOR_ID`` in the environment
Exa itself is asked, for that monitor's first run of the last 30 days. ``EXA_API`` says under which API:
``websets`` (default) or ``search``. With ``KEEP=1``, Airflow's UI stays up until Ctrl-C.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow_provider_exa.standin import StandIn
from tests.e2e.real_airflow import APIS, RealAirflow, States

DAGS = Path(__file__).parents[2] / "dags"
DAG_ID = "exa_branch_on_outcome"
TASKS = ("wait_for_run", "choose_path", "load", "alert", "join")
WAYS = {"completed": "load", "failed": "alert", "canceled": "alert"}
PATHS = {outcome: f"wait_for_run → choose_path → {way} → join" for outcome, way in WAYS.items()}
KEY = os.environ.get("EXA_API_KEY", "")
API = os.environ.get("EXA_API", "websets")
START = time.monotonic()


def show(line: str) -> None:
    print(line.replace(KEY, "***") if KEY else line, flush=True)


def step(line: str) -> None:
    show(f"{time.monotonic() - START:5.1f} s  {line}")


def demo(connection: str, expected: Mapping[str, Collection[str]], created_after: str | None = None) -> bool:
    """Run the DAG for several monitors at once and show what happens; returns whether it was as expected.

    :param connection: what Airflow's connection to Exa is.
    :param expected: the outcomes that each monitor's run may have.
    :param created_after: from when on to take runs (ISO 8601); None: from now on.
    """
    # Nothing is to run but what is triggered here.
    env = {
        "AIRFLOW_CONN_EXA_DEFAULT": connection,
        "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
        "EXA_API": API,
    }
    with RealAirflow(DAGS, env, say=step) as airflow:
        runs = {
            monitor: airflow.trigger(DAG_ID, {"monitor_id": monitor, "created_after": created_after})
            for monitor in expected
        }
        step(f"triggered {DAG_ID} for {' and for '.join(runs)}")
        seen: dict[str, States] = {monitor: {} for monitor in runs}

        def show_changes(_: States) -> None:
            for monitor, run_id in runs.items():
                states = airflow.task_states(DAG_ID, run_id)
                if changes := [f"{it} {states[it]}" for it in TASKS if states[it] != seen[monitor].get(it)]:
                    step(f"{monitor}: {', '.join(changes)}")
                seen[monitor] = states

        for run_id in runs.values():
            airflow.wait(DAG_ID, run_id, on_progress=show_changes)

        show(f"\n{'DAG run for':28}  {'outcome':9}  path")
        surprises = []
        for monitor, run_id in runs.items():
            found = seen[monitor]["wait_for_run"] == "success"
            outcome = airflow.xcom(DAG_ID, run_id, "wait_for_run")["status"] if found else "unknown"
            path = taken(seen[monitor])
            show(f"{monitor:28}  {outcome:9}  {path}")
            if outcome not in expected[monitor] or path != PATHS[outcome]:
                ways = " or ".join(f"{it} ({PATHS[it]})" for it in expected[monitor])
                surprises.append(f"Not as expected: {monitor} should be {ways}.")
                surprises += errors(airflow, run_id)
        show("\n".join(["", *surprises]))

        if os.environ.get("KEEP"):
            show(f"Airflow stays up at {airflow.url} until Ctrl-C.")
            with suppress(KeyboardInterrupt):
                signal.pause()
    return not surprises


def taken(states: States) -> str:
    """Return the path: the tasks that ran, with what became of one that did not succeed."""
    ran = [it for it in TASKS if states[it] not in (None, "skipped", "upstream_failed")]
    return " → ".join(it if states[it] == "success" else f"{it} ({states[it]})" for it in ran)


def errors(airflow: RealAirflow, run_id: str) -> list[str]:
    """Return what the tasks of a DAG run raised."""
    logs = "".join(airflow.task_log(DAG_ID, run_id, task) for task in TASKS)
    details = [json.loads(line).get("error_detail") for line in logs.splitlines()]
    return [f"{raised[0]['exc_type']}: {raised[0]['exc_value']}" for raised in details if raised]


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    monitor = os.environ.get("EXA_MONITOR_ID")
    try:
        if API not in APIS:
            raise RuntimeError(f"The API is {' or '.join(APIS)}, not {API!r}.")
        if KEY and monitor:
            step(f"asking Exa's {API} API about {monitor}")
            month_ago = datetime.now(UTC) - timedelta(days=30)
            connection = json.dumps({"conn_type": "exa", "password": KEY})
            return not demo(connection, {monitor: list(WAYS)}, month_ago.isoformat())
        step(f"asking a stand-in's {API} API; Exa itself is asked if EXA_API_KEY and EXA_MONITOR_ID are set")
        expected = {"mon_completes": ["completed"], "mon_fails": ["failed"]}
        with StandIn() as exa:
            for monitor, (outcome,) in expected.items():
                states = [(0, "created"), (2, "running"), (6, outcome)]
                exa.every(monitor, seconds=10, states=states, failed_reason="search_failed")
            return not demo(exa.connection(), expected)
    except (RuntimeError, TimeoutError) as error:
        show(f"\nThe demo did not come to its end. {error}")
        return 1
    except KeyboardInterrupt:
        show("\nStopped.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
