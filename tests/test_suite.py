"""The tests themselves: each has a kind, a pure one is pure, and the user's environment changes nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.environment import isolate, with_network
from tests.kinds import KINDS

pytestmark = pytest.mark.package

ROOT = Path(__file__).parent.parent

HOSTILE = {
    "AIRFLOW_HOME": "/nonexistent/airflow",
    "AIRFLOW_CONFIG": "/nonexistent/airflow.cfg",
    "AIRFLOW_CONN_EXA_DEFAULT": "exa://:leaked@exa.invalid",
    "AIRFLOW_VAR_EXA": "leaked",
    "AIRFLOW__CORE__DEFAULT_TASK_RETRIES": "7",
    "AIRFLOW__CORE__DEFAULT_TIMEZONE": "Asia/Tokyo",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "True",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://nobody@exa.invalid/none",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
    "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": "True",
    "AIRFLOW__SECRETS__BACKEND": "no.such.Backend",
    "ALL_PROXY": "http://127.0.0.1:9",
    "CURL_CA_BUNDLE": "/nonexistent/ca.pem",
    "EXA_API": "search",
    "EXA_API_KEY": "leaked",
    "EXA_MONITOR_ID": "leaked",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "exa.invalid",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
    "REQUESTS_CA_BUNDLE": "/nonexistent/ca.pem",
    "SSL_CERT_DIR": "/nonexistent",
    "SSL_CERT_FILE": "/nonexistent/ca.pem",
    "TZ": "Asia/Kolkata",
    "http_proxy": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "no_proxy": "exa.invalid",
}

SELECTION = (
    "tests/client/test_transport.py",
    "tests/protocol/test_models.py",
    "tests/protocol/test_paging.py",
    "tests/test_provider.py",
    "tests/test_readme.py",
)


def run_pytest(*arguments: str | Path, **env: str) -> tuple[str, Counter[str]]:
    """Run pytest in a process of its own, and return its output and how many tests had which outcome."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rA",
        "-p",
        "no:cacheprovider",
        "--tb=short",
        *arguments,
    ]
    # Neither options of the outer pytest nor its share of a parallel run are for the inner one.
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    done = subprocess.run(
        list(map(str, command)), check=False, cwd=ROOT, env=inherited | env, capture_output=True, text=True
    )
    words = (line.partition(" ")[0] for line in done.stdout.splitlines())
    return done.stdout + done.stderr, Counter(word for word in words if word.isupper())


def test_a_users_environment_changes_no_result() -> None:
    """Settings for Airflow, connections, keys, proxies, certificates and time zone are not the tests'."""
    output, outcomes = run_pytest(*SELECTION, "-m", "pure or http", **HOSTILE)
    assert outcomes["PASSED"] > 100
    assert not outcomes["FAILED"] + outcomes["ERROR"], output[-5000:]


def test_settings_for_the_network_are_kept_for_pip() -> None:
    """Who reaches a package registry through a proxy only can still run the tests that install the wheel."""
    environ = dict(HOSTILE)
    isolate(environ)
    assert not HOSTILE.keys() & environ.keys() - {"TZ"}
    kept = with_network(environ)
    assert kept == {name: HOSTILE[name] for name in kept}
    assert {"HTTP_PROXY", "https_proxy", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"} <= kept.keys()


IMPURE = """
    import asyncio, os, socket, subprocess, threading
    from contextlib import suppress
    import pytest
    from airflow_provider_exa.standin import StandIn

    def connect():
        socket.create_connection(("127.0.0.1", 9), 1)

    def in_a_thread():
        thread = threading.Thread(target=swallow)
        thread.start()
        thread.join()

    def swallow():
        with suppress(BaseException):
            connect()

    ACTS = [
        connect,
        swallow,
        in_a_thread,
        StandIn,
        lambda: socket.socket().bind(("127.0.0.1", 0)),
        lambda: socket.getaddrinfo("localhost", 80),
        lambda: subprocess.run(["true"]),
        lambda: os.system("true"),
    ]

    @pytest.mark.pure
    @pytest.mark.parametrize("act", ACTS)
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    def test_impure(act):
        act()

    @pytest.mark.pure
    def test_pure():
        asyncio.run(asyncio.sleep(0))
"""


def own_test_file(folder: Path, code: str) -> tuple[str, Counter[str]]:
    """Run a file of tests that has this folder's conftest."""
    path = folder / "test_own.py"
    path.write_text("\n".join(line.removeprefix("    ") for line in code.splitlines()))
    return run_pytest("-p", "tests.conftest", "-c", ROOT / "pyproject.toml", "--rootdir", folder, path)


def test_a_pure_test_that_opens_a_socket_or_starts_a_process_fails(tmp_path: Path) -> None:
    """So it does where the error is caught and where another thread does it; an event loop is allowed."""
    output, outcomes = own_test_file(tmp_path, IMPURE)
    assert outcomes["PASSED"] == 1 + 2, output  # these two fail after they have passed, in a fixture
    assert outcomes["FAILED"] == 8 - 2, output
    assert outcomes["ERROR"] == 8, output


def test_a_test_of_two_kinds_is_refused(tmp_path: Path) -> None:
    """Which targets of the Makefile run it would be unclear."""
    code = """
    import pytest

    @pytest.mark.pure
    @pytest.mark.http
    def test_of_two_kinds():
        pass
    """
    output, _ = own_test_file(tmp_path, code)
    assert "test_own.py::test_of_two_kinds is marked http and pure; one kind is allowed." in output


def test_no_test_is_without_a_kind() -> None:
    """Each of the Makefile's targets selects tests by these markers, and ``make test`` by all of them."""
    output, _ = run_pytest("tests", "--collect-only", "-m", " and ".join(f"not {kind}" for kind in KINDS))
    assert "no tests collected" in output, output[-2000:]


def test_this_one_may_open_sockets() -> None:
    """Only pure tests are watched."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert server.getsockname()[1]
