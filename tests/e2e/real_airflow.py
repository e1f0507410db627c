"""A real Airflow in a throwaway folder: its components are processes, and it is driven over its REST API.

Each component leads a session of its own, which holds all it starts, running tasks included. A guard (this
file, run as a script) knows the sessions. Whatever becomes of the process that holds the `RealAirflow`, the
guard then kills what is left of them and removes the folder.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import psutil
import requests

States = dict[str, str | None]

#: What the stand-in speaks. To import core's DIALECTS is to import Airflow, which writes into one's home.
APIS = ("websets", "search")

SETTINGS = {
    "API__HOST": "127.0.0.1",
    "API__MAXIMUM_PAGE_LIMIT": "1000",
    "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    "CORE__EXECUTOR": "LocalExecutor",
    "CORE__LOAD_EXAMPLES": "False",
    "CORE__PARALLELISM": "8",
    "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
    "LOGGING__NAMESPACE_LEVELS": "http.access=WARNING",
    # How soon an expired deferral and a killed triggerer are noticed.
    "SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "2",
    "TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "5",
}
# Without their log servers, which have fixed ports: the api-server finds the logs in the folder.
COMPONENTS = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
}


class RealAirflow:
    """Airflow's scheduler, api-server and triggerer for as long as a ``with`` block lasts.

    DAGs are read when it starts, which fails if one cannot be read, and later only by a DAG processor or
    ``cli("dags", "reserialize")``.

    :param dags: the folder of DAGs, or several.
    :param env: environment variables for Airflow, such as connections. Of this process's own environment,
        the variables of Airflow, Exa, OpenTelemetry and Python are not passed on.
    :param dag_processor: whether to run a DAG processor, too.
    :param keep: whether to leave the folder with logs and database behind.
    :param say: called with a line about each step of starting.
    """

    def __init__(
        self,
        dags: Path | Sequence[Path],
        env: Mapping[str, str] | None = None,
        *,
        dag_processor: bool = False,
        keep: bool = False,
        say: Callable[[str], object] = lambda line: None,
    ) -> None:
        self._dags = [dags] if isinstance(dags, Path) else dags
        self._given_env = env or {}
        self._names = [name for name in COMPONENTS if dag_processor or name != "dag-processor"]
        self._keep = keep
        self._say = say
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._http = requests.Session()
        self._http.trust_env = False

    def __enter__(self) -> Self:
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.home = Path(tempfile.mkdtemp(prefix="airflow-"))
        self._guard = subprocess.Popen(
            [sys.executable, __file__, *([] if self._keep else [self.home])],
            stdin=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        try:
            self._env = self._environment(port)
            self._say("creating Airflow's database")
            self.cli("db", "migrate")
            self._say(f"reading the DAGs, starting {', '.join(self._names)}")
            reading = self._launch("reserialize", ["dags", "reserialize"])
            self.start(*self._names)
            self._until(lambda: reading.poll() == 0, "the DAGs to be read", 120)
            if broken := self.api("GET", "importErrors")["import_errors"]:
                raise RuntimeError("\n".join(f"{it['filename']}: {it['stack_trace']}" for it in broken))
        except BaseException:
            self._stop()
            raise
        self._say(f"Airflow is up at {self.url}")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _environment(self, port: int) -> dict[str, str]:
        foreign = ("AIRFLOW", "EXA_", "OTEL_", "PYTHON")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        bundles = [
            {
                "name": f"{folder.name}-{number}",
                "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
                "kwargs": {"path": str(folder.resolve(strict=True))},
            }
            for number, folder in enumerate(self._dags)
        ]
        settings = SETTINGS | {
            "API__BASE_URL": self.url,
            "API__PORT": str(port),
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
        }
        own = {"AIRFLOW_HOME": str(self.home), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        return {**inherited, **own, **{f"AIRFLOW__{k}": v for k, v in settings.items()}, **self._given_env}

    def cli(self, *args: str) -> None:
        """Run an airflow command to its end; raises with what it printed if it fails."""
        process = self._launch(args[0], args)
        try:
            self._until(lambda: process.poll() == 0, f"airflow {' '.join(args)}", 120)
        finally:
            del self._processes[args[0]]

    def start(self, *names: str) -> None:
        """Start components, and wait until they are up; ``triggerer-2`` is one beside ``triggerer``."""
        since = datetime.now(UTC).isoformat()
        for name in names:
            self._launch(name, COMPONENTS[_component(name)])
        wanted = {_component(name).title().replace("-", "") + "Job" for name in names if name != "api-server"}

        def up() -> bool:
            try:
                jobs = self.api("GET", "jobs", params={"start_date_gte": since})["jobs"]
            except requests.ConnectionError:
                return False
            return wanted <= {it["job_type"] for it in jobs}

        self._until(up, f"{', '.join(names)} to be up", 120)

    def has_ended(self, name: str) -> bool:
        """Whether a component's main process has ended by itself."""
        return self._processes[name].poll() is not None

    def kill(self, name: str, sig: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to all processes of a component, and wait for their end if it is KILL.

        TERM goes to the main process, which is to end the others; after 15 seconds, what is left is killed.
        """
        session = {self.pid(name)}
        if sig not in (signal.SIGKILL, signal.SIGTERM):
            _send(sig, _members(session))
            return
        process = self._processes.pop(name)
        process.send_signal(sig)
        _end(session, grace=15 if sig == signal.SIGTERM else 0)
        process.wait()

    def pid(self, name: str) -> int:
        """Return the pid of a component's main process, which is the id of its session, too."""
        return self._processes[name].pid

    def _stop(self) -> None:
        self._http.close()
        for process in self._processes.values():
            process.terminate()
        _end({process.pid for process in self._processes.values()}, grace=3)
        self._guard.communicate()
        for process in self._processes.values():
            process.wait()

    def _launch(self, name: str, args: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-u", "-m", "airflow", *args],
                cwd=self.home,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        print(process.pid, file=self._guard.stdin, flush=True)
        self._processes[name] = process
        return process

    def _until(
        self, ready: Callable[[], bool], what: str, timeout: float, evidence: Callable[[], str] = lambda: ""
    ) -> None:
        """Wait; raises when a component has ended or a command has failed, and after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            for name, process in self._processes.items():
                status = process.poll()
                if status or (status == 0 and _component(name) in COMPONENTS):
                    raise RuntimeError(f"airflow {name} ended with status {status}.\n{self.tail(name)}")
            if ready():
                return
            if time.monotonic() > deadline:
                tails = [self.tail(name) for name in self._processes]
                raise TimeoutError("\n".join([f"Waited {timeout} seconds for {what}.", evidence(), *tails]))
            time.sleep(0.25)

    def tail(self, name: str) -> str:
        """Return how a component's output ends."""
        return _tail(self.home / f"{name}.log")

    def api(self, method: str, path: str, **kwargs: Any) -> Any:
        """Call Airflow's REST API and return the JSON; ``path`` is what follows ``/api/v2/``."""
        response = self._http.request(method, f"{self.url}/api/v2/{path}", timeout=60, **kwargs)
        if not response.ok:
            raise RuntimeError(f"{method} {path}: Airflow answered {response.status_code}: {response.text}")
        return response.json() if response.content else None

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Start a DAG run, with params from ``conf``, and return its id."""
        body = {"logical_date": None, "conf": conf or {}}
        return str(self.api("POST", f"dags/{dag_id}/dagRuns", json=body)["dag_run_id"])

    def dag_run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return what the REST API says of a DAG run, such as its ``state``."""
        return dict(self.api("GET", f"dags/{dag_id}/dagRuns/{run_id}"))

    def wait(
        self,
        dag_id: str,
        run_id: str,
        timeout: float = 180,
        on_progress: Callable[[States], object] = lambda states: None,
    ) -> States:
        """Wait until a DAG run has succeeded or failed, and return the states of its tasks.

        :param timeout: after how many seconds to raise a TimeoutError that shows states and logs.
        :param on_progress: called with the states of the tasks after each look, a few times a second.
        """

        def finished() -> bool:
            run = self.dag_run(dag_id, run_id)
            on_progress(self.task_states(dag_id, run_id))
            return run["state"] in ("success", "failed")

        def evidence() -> str:
            logs = [_tail(path) for path in sorted(self._task_logs(dag_id, run_id).rglob("*.log*"))]
            return "\n".join([str(self.task_states(dag_id, run_id)), *logs])

        self._until(finished, f"DAG run {run_id} of {dag_id}", timeout, evidence)
        return self.task_states(dag_id, run_id)

    def task_states(self, dag_id: str, run_id: str) -> States:
        """Return the states of a DAG run's tasks: ``{"task": "success", "mapped[0]": None}``."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances"
        return {
            it["task_id"] + (f"[{it['map_index']}]" if it["map_index"] >= 0 else ""): it["state"]
            for it in self.api("GET", path, params={"limit": 1000})["task_instances"]
        }

    def xcom(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> Any:
        """Return what a task returned."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        return self.api("GET", path, params={"map_index": map_index})["value"]

    def task_log(
        self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1
    ) -> str:
        """Return a task's log as JSON lines, and after it what its trigger logged."""
        folder = self._task_logs(dag_id, run_id) / f"task_id={task_id}"
        if map_index >= 0:
            folder /= f"map_index={map_index}"
        return "".join(path.read_text() for path in sorted(folder.glob(f"attempt={try_number}.log*")))

    def clear(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Let a task of a DAG run, and those that follow it, run again."""
        what = {"dag_run_id": run_id, "task_ids": [task_id], "include_downstream": True}
        how = {"only_failed": False, "dry_run": False}
        self.api("POST", f"dags/{dag_id}/clearTaskInstances", json=what | how)

    def _task_logs(self, dag_id: str, run_id: str) -> Path:
        return self.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}"


def _component(name: str) -> str:
    return name.removesuffix("-2")


def _free_port() -> int:
    """Return a port below those that systems hand out, lest one goes to another before Airflow takes it."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _tail(path: Path) -> str:
    return "\n".join([f"--- {path}", *path.read_text(errors="replace").splitlines()[-20:]])


def _members(sessions: Collection[int]) -> list[int]:
    """Return the processes in these sessions, without the dead that nobody has reaped."""
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(process.pid) in sessions and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def _send(sig: signal.Signals, pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, sig)


def _end(sessions: Collection[int], grace: float = 0) -> None:
    """Wait until nothing runs in these sessions; what does after so many seconds is killed."""
    deadline = time.monotonic() + grace
    while pids := _members(sessions):
        if time.monotonic() > deadline:
            _send(signal.SIGKILL, pids)
        time.sleep(0.05)


def guard(home: str | None = None) -> None:
    """Read ids of sessions until their writer closes its end or dies; end them, and remove its folder."""
    _end({int(line) for line in sys.stdin})
    if home:
        shutil.rmtree(home)


if __name__ == "__main__":
    guard(*sys.argv[1:])
