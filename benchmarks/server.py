"""The server that every contender asks: one fast process, over TLS, that counts what it is asked."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import ssl
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import IO, Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

#: When the newest run of every monitor was created; a wait for the first run since then finds that one.
CREATED = datetime(2026, 1, 2, tzinfo=UTC)
PAGE = 25


@dataclass(frozen=True)
class Tally:
    """What the server was asked: requests in all and in the busiest second, and TLS connections."""

    requests: int
    busiest_second: int
    connections: int


class Server:
    """
    The server's process, and how to tell it what to do.

    :param folder: where :func:`make_certificates` left its files
    :param delay: seconds before each answer
    :param faults: what the requests meet, in turns: ``hang``, ``reset``, ``503`` or ``answer``
    """

    def __init__(self, folder: Path, delay: float = 0.0, faults: tuple[str, ...] = ("answer",)) -> None:
        argv = [sys.executable, "-m", "benchmarks.server", str(folder), str(delay), *faults]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
        self.port: int = self._read()

    def finish(self) -> None:
        """Let every run end now."""
        self._ask("finish")

    def tally(self) -> Tally:
        """What was asked since the start."""
        return Tally(**self._ask("tally"))

    def _ask(self, command: str) -> Any:
        assert self._process.stdin  # noqa: S101 (for mypy)
        print(command, file=self._process.stdin, flush=True)
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout  # noqa: S101 (for mypy)
        return json.loads(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()


def make_certificates(folder: Path) -> None:
    """A certificate authority of this benchmark's own, ``ca.pem``, and the server's ``server.pem``."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Benchmark CA")])
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    ca = _certificate(ca_name, ca_name, ca_key, ca_key, x509.BasicConstraints(ca=True, path_length=None))
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    server = _certificate(name, ca_name, key, ca_key, address)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "ca.pem").write_bytes(ca)
    (folder / "server.pem").write_bytes(secret + server)


def _certificate(
    name: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    extension: x509.ExtensionType,
) -> bytes:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder(issuer, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


# --- what it answers --------------------------------------------------------------------------------


def _run(monitor: str, number: int, finished: bool) -> dict[str, Any]:
    """A monitor's run, number 0 being the newest, as Exa writes it."""
    created = (CREATED - timedelta(hours=number)).isoformat().replace("+00:00", "Z")
    ended = finished or number > 0
    return {
        "id": f"run-{monitor}-{number}",
        "object": "monitor_run",
        "monitorId": monitor,
        "status": "completed" if ended else "running",
        "type": "search",
        "completedAt": created if ended else None,
        "failedAt": None,
        "canceledAt": None,
        "failedReason": None,
        "createdAt": created,
        "updatedAt": created,
    }


def _page(finished: bool, monitor: str, cursor: str | None) -> tuple[int, Any]:
    """A page of runs; the monitor ``pages-7`` has seven pages, others have one."""
    first = int(cursor or 0)
    pages = int(monitor.removeprefix("pages-")) if monitor.startswith("pages-") else 1
    more = first + PAGE < PAGE * pages
    runs = [_run(monitor, number, finished) for number in range(first, first + PAGE)]
    return 200, {"data": runs, "hasMore": more, "nextCursor": str(first + PAGE) if more else None}


def _monitors(finished: bool) -> tuple[int, Any]:
    """The monitors that many waits share, with their webset."""
    monitors = [{"id": f"m{number}", "status": "enabled", "websetId": "webset"} for number in range(10)]
    return 200, {"data": monitors, "hasMore": False, "nextCursor": None}


def _dbt_run(finished: bool, run: str) -> tuple[int, Any]:
    return 200, {
        "status": {"code": 200, "is_success": True},
        "data": {"id": run, "status": 10 if finished else 3},
    }


_MONITORS = "/websets/v0/monitors"
_RUNS = f"{_MONITORS}/([^/?]+)/runs"
#: What there is, as Exa, as dbt Cloud, and as something that an HTTP sensor waits for.
_ENDPOINTS: dict[str, Callable[..., tuple[int, Any]]] = {
    rf"{_MONITORS}\?limit=\d+": _monitors,
    rf"{_RUNS}(?:\?cursor=(\d+))?": _page,
    rf"{_RUNS}/run-[^/]+-(\d+)": lambda finished, monitor, n: (200, _run(monitor, int(n), finished)),
    r"/api/v2/accounts/1/runs/(\d+)/": _dbt_run,
    r"/there/(\d+)": lambda finished, thing: (200 if finished else 404, {"thing": thing}),
}


@cache
def _answer(path: str, finished: bool) -> bytes:
    for pattern, endpoint in _ENDPOINTS.items():
        if match := re.fullmatch(pattern, path):
            return _encode(*endpoint(finished, *match.groups()))
    return _encode(400, {"error": f"no such path: {path}"})


def _encode(status: int, content: Any) -> bytes:
    body = json.dumps(content).encode()
    head = f"HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


# --- how it answers ---------------------------------------------------------------------------------


class _State:
    def __init__(self, delay: float, faults: list[str]) -> None:
        self.delay = delay
        self.faults = itertools.cycle(faults)
        self.finished = False
        self.times: list[float] = []
        self.connections = 0

    def tally(self) -> Tally:
        busiest = start = 0
        for end, at in enumerate(self.times):
            while self.times[start] <= at - 1:
                start += 1
            busiest = max(busiest, end - start + 1)
        return Tally(len(self.times), busiest, self.connections)


class _Connection(asyncio.Protocol):
    def __init__(self, state: _State) -> None:
        self._state = state
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 (for mypy)
        self._transport = transport
        self._state.connections += 1

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            loop = asyncio.get_running_loop()
            self._state.times.append(loop.time())
            loop.call_later(self._state.delay, self._respond, head.split(b" ", 2)[1].decode())

    def _respond(self, path: str) -> None:
        fault = next(self._state.faults)
        if fault == "reset":
            self._transport.abort()
        elif fault == "503":
            self._transport.write(_encode(503, {"error": "Service Unavailable"}))
        elif fault == "answer":
            self._transport.write(_answer(path, self._state.finished))


async def _serve(folder: Path, state: _State) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(state), "127.0.0.1", 0, ssl=context, backlog=4096)
    _say(server.sockets[0].getsockname()[1])
    while command := await asyncio.to_thread(sys.stdin.readline):
        state.finished = state.finished or command == "finish\n"
        _say(asdict(state.tally()))


def _say(news: Any, to: IO[str] = sys.stdout) -> None:
    print(json.dumps(news), file=to, flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), _State(float(sys.argv[2]), sys.argv[3:])))
