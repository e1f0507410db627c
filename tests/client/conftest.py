"""Servers that say byte by byte what a test tells them, for what the stand-in does not say."""

from __future__ import annotations

import json
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from airflow_provider_exa.protocol.messages import Call, Request, ask


def monitor(monitor_id: str = "mon_a") -> Call[str]:
    """Ask for a monitor; the result is its id."""
    return ask(Request(f"/websets/v0/monitors/{monitor_id}"), lambda body: body["id"])


def beside(calls: Iterable[Call[Any]]) -> Call[list[Any]]:
    """Make calls beside each other; the result is a list of their results and errors."""
    return (yield list(calls))


def _connection(**fields: Any) -> Callable[[pytest.MonkeyPatch], None]:
    text = json.dumps({"conn_type": "exa", **fields})
    return lambda patch: patch.setenv("AIRFLOW_CONN_EXA_DEFAULT", text)


def _unusable(_settings: object) -> None:
    raise RuntimeError("no transport can be made")


def _break_transport(patch: pytest.MonkeyPatch) -> None:
    _connection(password="another-key-5678")(patch)
    for driver in ("client", "async_client"):
        patch.setattr(f"airflow_provider_exa.client.{driver}.Transport", _unusable)


#: What may happen to a connection in use so that it cannot be read anew.
RENEWALS_THAT_FAIL: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "gone": lambda patch: patch.delenv("AIRFLOW_CONN_EXA_DEFAULT"),
    "without a key": _connection(),
    "a proxy that is none": _connection(password="key", extra={"proxy": "nonsense"}),
    "a proxy without SOCKS": _connection(password="key", extra={"proxy": "socks5://127.0.0.1:9"}),
    "a password that cannot be sent": _connection(password="key", extra={"proxy": "http://u:\u0436@a"}),
    "an error of any kind": _break_transport,
}


#: What a server does with a connection once it has read the head of a request.
Script = Callable[["Speaker"], None]


class Wire(socketserver.ThreadingTCPServer):
    """A server that follows a script, or sends given bytes with a pause after each part."""

    allow_reuse_address = True
    request_queue_size = 1024
    daemon_threads = True

    def __init__(self, script: Script, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), Speaker)
        self.script = script
        self.heads: list[str] = []
        self.over = threading.Event()
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.server_address[1]}"
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gives up is no news."""


class Speaker(socketserver.StreamRequestHandler):
    """One connection to such a server, for one request."""

    server: Wire

    def handle(self) -> None:
        self.head = b"".join(iter(self.rfile.readline, b"\r\n")).decode()
        self.server.heads.append(self.head)
        with suppress(OSError):
            self.server.script(self)

    def say(self, *parts: bytes, pause: float = 0) -> None:
        """Send these parts, with a pause after each, until the server is closed."""
        for part in parts:
            self.wfile.write(part)
            if self.server.over.wait(pause):
                return

    def hang(self) -> None:
        """Do nothing until the server is closed."""
        self.server.over.wait()

    def drip(self, data: bytes) -> None:
        """Send a byte every 20 ms."""
        self.say(*(bytes([byte]) for byte in data), pause=0.02)

    def for_ever(self, part: bytes, pause: float = 0.0) -> None:
        """Send the same bytes until the client goes away."""
        while not self.server.over.is_set():
            self.say(part, pause=pause)


@pytest.fixture
def wire() -> Iterator[Callable[..., Wire]]:
    """Starts servers that follow a script, or answer with given bytes."""
    servers: list[Wire] = []

    def start(
        *parts: bytes, pause: float = 0, script: Script | None = None, tls: ssl.SSLContext | None = None
    ) -> Wire:
        server = Wire(script or (lambda speaker: speaker.say(*parts, pause=pause)), tls)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    yield start
    for server in servers:
        server.over.set()
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that nobody else has signed, and its private key, in one file."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stand-in")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


def until(condition: Callable[[], object], seconds: float = 5) -> None:
    """Wait, in a thread, until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.005)


@pytest.fixture
def dead() -> Iterator[int]:
    """A port that takes no connection, as behind a firewall: its queue is full."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]
        for filler in fillers:
            filler.close()
