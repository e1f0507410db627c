"""An Airflow connection read as settings for requests to Exa."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urlsplit

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.sdk import BaseHook

from airflow_provider_exa.protocol.errors import ExaInputError

if TYPE_CHECKING:
    from airflow.sdk import Connection


log = logging.getLogger(__name__)


DEFAULT_HOST = "https://api.exa.ai"
#: The longest timeout in seconds; a socket counts milliseconds in 32 bits.
MAX_TIMEOUT = 1_000_000.0
PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
PROXY_FORM = "a URL such as http://proxy.example:3128, its user and password in Latin-1 at most"

_HOST_NAME = re.compile(r"\w[\w.-]*")


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not 0 < seconds <= MAX_TIMEOUT:
        raise ValueError
    return seconds


def _count(value: Any) -> int:
    count = int(value)
    if count < 0 or count != float(value):
        raise ValueError
    return count


def _path(value: Any) -> str:
    if not isinstance(value, str) or not Path(value).exists():
        raise ValueError
    return value


def check_proxy(value: Any) -> str:
    """
    Return the URL of a proxy.

    :raises ValueError: it cannot be one; the error does not show it, as it may hold a password
    """
    if not isinstance(value, str):
        raise ValueError
    parts = urlsplit(value.strip())
    if parts.scheme not in PROXY_SCHEMES or not _has_address(parts):
        raise ValueError
    if any(char > "\xff" for char in unquote(f"{parts.username}{parts.password}")):
        raise ValueError
    return value.strip()


def _has_address(parts: SplitResult) -> bool:
    """Return whether a URL names a host, and a port that can be one."""
    if parts.port == 0:  # a port that is no number, or out of range, is a ValueError
        return False
    host = parts.hostname or ""
    try:
        host.encode("idna")
        return bool(_HOST_NAME.fullmatch(host) or (":" in host and IPv6Address(host)))
    except (UnicodeError, AddressValueError):
        return False


def _flag(value: Any) -> bool:
    return {"true": True, "false": False}[str(value).lower()]


#: The extras of a connection: how each is read, and what it has to be.
EXTRAS: Mapping[str, tuple[Callable[[Any], Any], str]] = {
    "timeout": (_seconds, f"a number of seconds above 0, at most {MAX_TIMEOUT:.0f}"),
    "retries": (_count, "a whole number, 0 or more"),
    "verify": (_flag, "true or false"),
    "ca_file": (_path, "the path of a CA bundle that is there"),
    "proxy": (check_proxy, PROXY_FORM),
}


def read_settings(conn_id: str) -> ConnectionSettings:
    """
    Read the settings of an Airflow connection.

    :raises ExaInputError: the connection has no API key, or a setting that cannot be used; names the
        connection and the setting
    :raises AirflowNotFoundException: Airflow finds no such connection; it says so, too, if a secrets backend
        fails
    """
    return _parse_connection(BaseHook.get_connection(conn_id))


async def aread_settings(conn_id: str) -> ConnectionSettings:
    """Do as :func:`read_settings`, for an event loop."""
    try:
        connection = await BaseHook.aget_connection(conn_id)
    except AirflowNotFoundException:
        # In dag.test() only the synchronous lookup sees Airflow's database.
        connection = await asyncio.to_thread(BaseHook.get_connection, conn_id)
    return _parse_connection(connection)


def _parse_connection(connection: Connection) -> ConnectionSettings:
    where = f"The Airflow connection {connection.conn_id!r}"
    key = (connection.password or "").strip()
    if not key:
        raise ExaInputError(f"{where} has no API key; put it into the connection's password.")
    if not (key.isascii() and key.isprintable()):
        raise ExaInputError(f"{where} has a password with characters that no API key has.")
    try:
        url = base_url(connection.host or DEFAULT_HOST, connection.port, connection.schema)
    except ValueError as error:
        raise ExaInputError(f"{where} has an unusable host: {error}.") from None
    settings = _read_extras(where, connection.extra_dejson)
    ca_file = settings.pop("ca_file", None)
    if ca_file and settings.get("verify", True):
        settings["verify"] = ca_file
    return ConnectionSettings(url, key, **settings, conn_id=connection.conn_id)


def _read_extras(where: str, extra: object) -> dict[str, Any]:
    if not isinstance(extra, dict):
        raise ExaInputError(f"{where} has an extra that is no JSON object.")
    settings = {}
    for name, value in extra.items():
        if name not in EXTRAS:
            log.warning("%s has the extra %r, which is not one of %s.", where, name, ", ".join(EXTRAS))
        elif value is not None and value != "":
            read, wanted = EXTRAS[name]
            try:
                settings[name] = read(value)
            except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
                raise ExaInputError(f"{where} has the extra {name!r}, which must be {wanted}.") from None
    return settings


@dataclass(frozen=True)
class ConnectionSettings:
    """
    What an Airflow connection says of Exa.

    :param base_url: scheme, host and, where there is one, the path that the APIs are below
    :param timeout: seconds from the request to the last byte of its answer
    :param retries: how often one request is sent again
    :param verify: whether to check the server's certificate, or the path of a CA bundle to check it with
    :param proxy: URL of a proxy; None leaves it to the environment
    :param conn_id: the name of the connection, for errors
    """

    base_url: str
    api_key: str = field(repr=False)
    timeout: float = 30.0
    retries: int = 4
    verify: bool | str = True
    proxy: str | None = field(default=None, repr=False)
    conn_id: str = "exa_default"


def base_url(host: str, port: int | None, scheme: str | None) -> str:
    """
    Make a base URL of a connection's host, port and schema; https unless they say otherwise.

    :raises ValueError: it is no HTTP URL, or has a user name, a password, a query or a fragment
    """
    host = host.strip()
    if _is_ipv6(host):
        host = f"[{host}]"  # a connection that is given as a URI has lost them
    parts = urlsplit(host if "://" in host else f"{(scheme or '').strip() or 'https'}://{host}")
    odd = "@" in parts.netloc or parts.query or parts.fragment
    if parts.scheme not in ("http", "https") or odd or not _has_address(parts):
        raise ValueError("it must look like https://api.exa.ai, with the API key in the password")
    netloc = f"{parts.netloc}:{port}" if port and not parts.port else parts.netloc
    return f"{parts.scheme}://{netloc}{parts.path.rstrip('/')}"


def _is_ipv6(host: str) -> bool:
    try:
        return bool(IPv6Address(host))
    except AddressValueError:
        return False
