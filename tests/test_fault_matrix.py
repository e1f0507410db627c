"""Every fault at every door: a hook, a poke, a deferred task and an asset."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from airflow_provider_exa.events import store, stream
from airflow_provider_exa.hooks import ExaHook
from airflow_provider_exa.protocol.errors import ExaError, ExaTransientError
from airflow_provider_exa.sensors import ExaMonitorRunSensor
from airflow_provider_exa.timing import Timing
from tests.client.conftest import Speaker, Wire, wire  # noqa: F401 (a fixture)
from tests.conftest import IMPATIENT
from tests.events.triggerer import START, Triggerer, Variables, complaints, until
from tests.faults import BODIES, FAULTS, FINE, HOSTS, RUN, TIMEOUT, Case, answer, page, say, whole
from tests.tasks import POKE_INTERVAL, Ended, Task

KEY = "marked-key-0123456789"
FAULTY = FAULTS | BODIES | HOSTS
#: Polls of a wait that goes on though its fault ought to have ended it.
MAX_POLLS = 20
HOUR = timedelta(hours=1)
#: The sensor's argument, by the beginning of a door's name: a run that is listed, or asked for by its id.
BY_LISTING: dict[str, Any] = {"created_after": "2026-01-01"}
BY_ID: dict[str, Any] = {"run_id": "run_1"}


@pytest.fixture
def impatience() -> Timing:
    """Short pauses; and a connection that is read anew for every request, as its host may change."""
    return replace(
        IMPATIENT,
        max_retry_after=0.02,
        default_pause=0.02,
        rate_recovery_interval=0.01,
        refresh_interval=0.0,
        refresh_after_failure=0.0,
        max_trouble_interval=0.05,
        permanent_error_interval=0.05,
    )


def running(speaker: Speaker) -> None:
    """Answer as Exa does while a run is under way, which it does not list yet."""
    path = speaker.head.split()[1]
    if path.endswith("/runs"):
        speaker.say(answer(page()))
    elif "/runs/" in path:
        speaker.say(answer(whole(RUN | {"status": "running"})))
    else:
        speaker.say(answer(b'{"id": "mon_a", "status": "enabled", "websetId": "ws_a"}'))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Certificates that nobody else has signed, each with its private key, by name."""
    now, here = datetime.now(UTC), x509.IPAddress(ip_address("127.0.0.1"))
    folder = tmp_path_factory.mktemp("tls")
    return {
        "self-signed": _certificate(folder / "self-signed.pem", here, now + HOUR),
        "expired": _certificate(folder / "expired.pem", here, now - HOUR),
        "other": _certificate(folder / "other.pem", x509.DNSName("exa.invalid"), now + HOUR),
    }


def _certificate(path: Path, name: x509.GeneralName, until: datetime) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stand-in")])
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(until - 2 * HOUR)
        .not_valid_after(until)
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


class Exa:
    """A server that is well, breaks, and is well again."""

    def __init__(
        self,
        start: Callable[..., Wire],
        certificates: dict[str, Path],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self._start = start
        self._certificates = certificates
        self._monkeypatch = monkeypatch
        self.server = start(script=running)
        self.state = "well"
        self.polls = 0
        self._lead_to(self.server.url)

    def _lead_to(self, host: str, **extra: Any) -> None:
        extra = {"timeout": TIMEOUT, "retries": 0} | extra
        connection = {"conn_type": "exa", "host": host, "password": KEY, "extra": extra}
        self._monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", json.dumps(connection))

    def fail(self, case: Case) -> None:
        """Begin with a fault."""
        self.state = "broken"
        if case.script:
            self.server.script = case.script
        elif path := self._certificates.get(case.host):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(path)
            trusted = {} if case.host == "self-signed" else {"ca_file": str(path)}
            self._lead_to(self._start(script=say(answer(FINE)), tls=context).url, **trusted)
        else:
            self._lead_to(case.host)

    def heal(self) -> None:
        """Answer that the run has been completed."""
        self.state = "healed"
        self.server.script = say(answer(FINE))
        self._lead_to(self.server.url)

    def tick(self, case: Case, *, heals: bool) -> None:
        """Between two polls of a task: break after the first, and heal after the next, if it heals."""
        self.polls += 1
        assert self.polls < MAX_POLLS, "the wait goes on"
        if self.state == "well":
            self.fail(case)
        elif heals and self.state == "broken":
            self.heal()


@pytest.fixture
def exa(
    wire: Callable[..., Wire],  # noqa: F811 (that fixture)
    certificates: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Exa:
    """The server of the connection."""
    return Exa(wire, certificates, monkeypatch)


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[Variables]:
    """Airflow's Variables in memory."""
    nobody: Any = SimpleNamespace(requests=[])
    kept = Variables(nobody)
    monkeypatch.setattr(stream, "Variable", kept)
    monkeypatch.setattr(store, "_is_watched", {})
    return kept


def sensor(**options: Any) -> Callable[[], ExaMonitorRunSensor]:
    """Makes the sensor of a task anew, as each of its processes does."""
    return lambda: ExaMonitorRunSensor(
        task_id="wait", monitor_id="mon_a", poke_interval=POKE_INTERVAL, timeout=60, **options
    )


def is_transient(error: type[ExaError] | None) -> bool:
    """Whether a wait outlasts the error."""
    return error is not None and issubclass(error, ExaTransientError)


def assert_ended(ended: Ended, error: type[ExaError] | None, told: str) -> None:
    """The try ended with this error, or with the run."""
    if error is None:
        assert (ended.state, ended.error) == ("success", None)
        assert ended.xcom["id"] == "run_1"
        json.dumps(ended.xcom, ensure_ascii=False, allow_nan=False).encode()
    else:
        assert (ended.state, type(ended.error)) == ("failed", error)
        assert str(ended.error)[:100].startswith(told[:100])


HOOK: dict[str, Callable[[ExaHook], Any]] = {
    "hook": lambda hook: [run.id for run in hook.list_monitor_runs("mon_a")],
    "hook by id": lambda hook: [hook.get_monitor_run("mon_a", "run_1").id],
}


@pytest.mark.parametrize("name", FAULTY)
@pytest.mark.parametrize("door", HOOK)
def test_a_hook_raises_what_a_fault_means(exa: Exa, door: str, name: str) -> None:
    """It lists each run once, or says within a hundred characters what is wrong."""
    error, told = FAULTY[name].at(door)
    exa.fail(FAULTY[name])
    if error is None:
        runs = HOOK[door](ExaHook())
        assert runs.count("run_1") == 1
        assert len(set(runs)) == len(runs)
        return
    with pytest.raises(ExaError) as raised:
        HOOK[door](ExaHook())
    assert type(raised.value) is error
    assert str(raised.value)[:100].startswith(told[:100])


@pytest.mark.parametrize("name", FAULTY)
def test_a_first_poll_that_fails_fails_the_task(exa: Exa, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Whatever the fault, the task says at once what is wrong."""
    exa.fail(FAULTY[name])
    task = Task(sensor(deferrable=True, **BY_LISTING), lambda: exa.tick(FAULTY[name], heals=False))
    assert_ended(task.run(monkeypatch), *FAULTY[name].at("poke"))
    assert exa.polls == 0


@pytest.mark.parametrize("name", FAULTY)
@pytest.mark.parametrize("door", ["poke", "deferred", "deferred by id"])
def test_a_wait_outlasts_a_fault_that_may_pass(
    exa: Exa, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], door: str, name: str
) -> None:
    """It logs what is wrong, and ends with the run; a fault that does not pass ends it."""
    error, told = FAULTY[name].at(door)
    options = BY_ID if door.endswith("by id") else BY_LISTING
    make = sensor(deferrable=door.startswith("deferred"), **options)
    heals = is_transient(error)
    ended = Task(make, lambda: exa.tick(FAULTY[name], heals=heals)).run(monkeypatch)
    assert_ended(ended, None if heals else error, told)
    assert exa.state == ("healed" if heals else "broken")
    if heals:
        assert told[:100] in capfd.readouterr().out


@pytest.mark.parametrize("name", FAULTY)
def test_an_asset_outlasts_every_fault(
    exa: Exa, variables: Variables, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """It logs what is wrong, and reports the run once; a fault that changes nothing is not worth a line."""
    error, told = FAULTY[name].at("asset")

    async def watch() -> None:
        async with Triggerer() as triggerer:
            triggerer.watch(start=START, poll_interval=0.02)
            await until(lambda: len(exa.server.heads) > 2)
            exa.fail(FAULTY[name])
            if error is None:
                await until(lambda: "run_1" in triggerer.runs)
                assert complaints(caplog) == []
            else:
                await until(lambda: any(line[:100].startswith(told[:100]) for line in complaints(caplog)))
                exa.heal()
                await until(lambda: "run_1" in triggerer.runs)
            assert len(set(triggerer.runs)) == len(triggerer.runs)
            for event in triggerer.sent:
                json.dumps(event, ensure_ascii=False, allow_nan=False).encode()

    asyncio.run(watch())


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_status_that_is_new_is_no_end(
    exa: Exa, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, deferrable: bool
) -> None:
    """The wait goes on until Exa says one that is known; the log says so once."""
    resting = Case(say(answer(whole(RUN | {"status": "resting"}))))
    make = sensor(deferrable=deferrable, **BY_LISTING)
    ended = Task(make, lambda: exa.tick(resting, heals=True)).run(monkeypatch)
    assert_ended(ended, None, "")
    assert exa.state == "healed"
    assert [line[:45] for line in complaints(caplog)] == ["Exa reports the run status 'resting', which i"]


@pytest.mark.parametrize("status", ["running", "resting"])
def test_a_run_that_goes_back_is_reported_once(
    exa: Exa, variables: Variables, caplog: pytest.LogCaptureFixture, status: str
) -> None:
    """Exa may say that a run is completed, then that it is not, and then again that it is."""
    states = [FINE, whole(RUN | {"status": status})] * 2 + [FINE]

    async def watch() -> None:
        async with Triggerer() as triggerer:
            triggerer.watch(start=START, poll_interval=0.02)
            for state in states:
                exa.server.script = say(answer(state))
                before = len(exa.server.heads)
                await until(lambda before=before: len(exa.server.heads) > before + 4)
            assert triggerer.runs == ["run_1"]

    asyncio.run(watch())
    assert not any("asset" in line for line in complaints(caplog))


def test_an_end_is_believed_though_the_run_goes_back(exa: Exa, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deferred task ends with what its trigger saw; nobody asks again."""
    exa.fail(Case(say(answer(FINE))))
    ended = Task(sensor(deferrable=True, **BY_ID), lambda: exa.tick(Case(), heals=False)).run(monkeypatch)
    assert_ended(ended, None, "")
    assert len(exa.server.heads) == 1
