"""The kind of each test, which is one of four markers, and a guard that keeps pure tests pure."""

from __future__ import annotations

import inspect
import socket
import socketserver
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from airflow_provider_exa.standin import StandIn

KINDS = {
    "pure": "opens no socket and starts no process",
    "http": "talks to a stand-in or a raw socket on the loopback interface",
    "package": "builds and installs the wheel, or starts a fresh Python",
    "e2e": "starts real Airflow processes",
}
E2E = Path(__file__).parent / "e2e"

#: A test is of kind http where its code, or code of this folder that it calls, names one of these.
SERVERS = (StandIn, socket, socketserver, subprocess)

#: Modules, or beginnings of their names, whose code is read for such names.
FOLLOWED = ("tests.", "airflow_provider_exa.standin.plugin")

#: Audit events of Python that a pure test must not raise.
FORBIDDEN = frozenset(
    {
        "socket.bind",
        "socket.connect",
        "socket.getaddrinfo",
        "socket.sendto",
        "subprocess.Popen",
        "os.exec",
        "os.fork",
        "os.posix_spawn",
        "os.system",
    }
)


def kind_of(item: pytest.Item) -> str:
    """
    Return the kind of a test: the one it is marked with, else one that follows from its folder and its code.

    :raises pytest.UsageError: it is marked with more than one
    """
    given = {mark.name for mark in item.iter_markers() if mark.name in KINDS}
    given |= {"e2e"} if E2E in item.path.parents else set()
    if len(given) > 1:
        raise pytest.UsageError(
            f"{item.nodeid} is marked {' and '.join(sorted(given))}; one kind is allowed."
        )
    return given.pop() if given else "http" if _reaches_a_server(item) else "pure"


def _reaches_a_server(item: pytest.Item) -> bool:
    info: Any = item
    fixtures = [each.func for found in info._fixtureinfo.name2fixturedefs.values() for each in found]
    parameters = info.callspec.params.values() if hasattr(info, "callspec") else []
    todo: list[Any] = [info.function, *fixtures, *parameters]
    seen = set()
    while todo:
        each = todo.pop()
        if any(each is server for server in SERVERS):
            return True
        if id(each) not in seen:
            seen.add(id(each))
            todo.extend(_named_by(each))
    return False


def _named_by(value: Any) -> Iterator[Any]:
    """Yield the objects that a function or a class of the tests names."""
    value = inspect.unwrap(value) if callable(value) else value
    value = getattr(value, "func", value)  # a partial
    value = getattr(value, "__func__", value)  # a method
    if not getattr(value, "__module__", "").startswith(FOLLOWED):
        return
    if inspect.isclass(value):
        yield from vars(value).values()
        yield from (sys.modules[base.__module__] for base in value.__mro__)
    elif inspect.isfunction(value):
        yield from (value.__globals__[name] for name in _names(value.__code__) if name in value.__globals__)
        yield from (cell.cell_contents for cell in value.__closure__ or ())


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _names(each)


class NotPureError(BaseException):
    """A pure test opened a socket or started a process; no ``except Exception`` hides it."""


_offences: list[str] | None = None


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if _offences is not None and event in FORBIDDEN:
        offence = f"{event}{arguments!r:.150}"
        _offences.append(offence)
        raise NotPureError(f"A pure test must not do this: {offence}. Mark the test http or package.")


sys.addaudithook(_refuse)


@contextmanager
def only_pure() -> Iterator[list[str]]:
    """Refuse sockets and processes for the length of a ``with`` block, and list the attempts."""
    global _offences  # noqa: PLW0603 (an audit hook stays for good, and so needs a switch)
    _offences = []
    try:
        yield _offences
    finally:
        _offences = None
