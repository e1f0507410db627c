"""One HTTP request to Exa over ``requests``, which is imported when a transport is made."""

from __future__ import annotations

import functools
import platform
import ssl
from collections.abc import Iterator
from contextlib import suppress
from http.client import BadStatusLine, HTTPException
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from airflow_provider_exa.client.deadline import bounded, within
from airflow_provider_exa.client.redaction import Redactor
from airflow_provider_exa.client.settings import PROXY_FORM, ConnectionSettings, check_proxy
from airflow_provider_exa.protocol.errors import (
    ExaError,
    ExaHugeAnswerError,
    ExaInputError,
    ExaTransientError,
)
from airflow_provider_exa.protocol.messages import (
    MAX_QUOTED,
    MAX_SEARCHED,
    Request,
    Response,
    is_redirect,
    is_success,
    receive,
)

if TYPE_CHECKING:
    import requests
    from requests.adapters import HTTPAdapter

#: Seconds for a TCP connection to one address, again for its TLS, and for a proxy to open a tunnel.
CONNECT_TIMEOUT = 5.0
#: Bytes of an unpacked answer.
MAX_BODY = 16 * 1024 * 1024
#: An answer that has brought so many bytes when its time is over is too large, not lost.
LARGE_BODY = 8 * 1024
CHUNK = 64 * 1024
#: Seconds and bytes for the body of an answer that is no success.
REFUSAL_TIMEOUT = 2.0
MAX_REFUSAL = 64 * 1024
#: The headers of an answer that say something, by lower-case name.
HEADERS = ("retry-after", "x-request-id")
#: Requests under way at once over one transport.
POOL_SIZE = 16
#: Errors of requests and urllib3 whose cause says more.
GENERIC = ("ConnectionError", "ProtocolError", "InvalidChunkLength")
#: What OpenSSL calls an answer that is not TLS.
NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST")
#: How an answer in TLS begins, seen as HTTP.
TLS_ALERT = "\x15\x03"


class Transport:
    """
    Sends requests with the settings of a connection; its pool of TCP connections is shared by threads.

    :raises ExaInputError: the host or the proxy, also one that the environment names, cannot be used
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        # Here alone: to import requests takes a fifth of a second, which no DAG file is to pay for.
        import requests
        from requests.utils import select_proxy
        from urllib3.exceptions import HTTPError

        self.settings = settings
        self._failures = (OSError, HTTPError, HTTPException)  # requests' own errors are OSErrors
        self._new_request = requests.Request
        # What the environment says of proxies and certificates is looked up once, not for each request;
        # the connection's own settings beat it.
        proxies = {"http": settings.proxy, "https": settings.proxy} if settings.proxy else {}
        with requests.Session() as session:
            self._options: Any = session.merge_environment_settings(
                settings.base_url, proxies, True, settings.verify, None
            )
        proxy = _check_selected(settings, select_proxy(settings.base_url, self._options["proxies"]))
        # Not a session, which would read the body of a redirect, and look for the host in ~/.netrc.
        self._adapter = _new_adapter()
        parts = urlsplit(proxy or "")
        self._redactor = Redactor(settings.api_key, map(unquote, filter(None, (parts.password,))))
        try:
            prepared = self._new_request("GET", settings.base_url).prepare()
            self._adapter.get_connection_with_tls_context(
                prepared, self._options["verify"], self._options["proxies"]
            )
        except (ValueError, *self._failures) as error:
            unusable = f"unusable host or proxy ({self._redactor.text(str(error))[:MAX_QUOTED]})"
        else:
            return
        raise ExaInputError(f"The Airflow connection {settings.conn_id!r} has an {unusable}.")

    def send(self, request: Request, timeout: float | None = None) -> Response:
        """
        Send one request, once.

        :param timeout: seconds for the whole answer, if that is less than the connection allows
        :raises ExaTransientError: there is no answer, or it cannot be read, or Exa cannot answer now
        :raises ExaHugeAnswerError: the answer has more than 16 MiB, or did not arrive in time
        :raises ExaInputError: one side speaks TLS and the other does not
        """
        seconds = min(self.settings.timeout, timeout or self.settings.timeout)
        url = self.settings.base_url + request.path
        try:
            response = self._exchange(request, url, seconds)
        except self._failures as error:
            failure = self._failure(error, f"{request.method} {url}", repeatable=request.method == "GET")
        else:
            return receive(request, response)
        raise failure  # here, so that the error of a library, which quotes the server, is not its context

    def _exchange(self, request: Request, url: str, seconds: float) -> Response:
        headers = {
            "User-Agent": user_agent(),
            "Accept": "application/json",
            "x-api-key": self.settings.api_key,
        }
        prepared = self._new_request(request.method, url, headers, params=request.params).prepare()
        timeout = (min(CONNECT_TIMEOUT, seconds), seconds)
        text = self._redactor.text
        with within(seconds), self._adapter.send(prepared, timeout=timeout, **self._options) as answer:
            if is_success(answer.status_code):
                body = self._read(answer, f"{request.method} {url}", seconds)
            else:
                body = self._read_refusal(answer)
            return Response(
                status=answer.status_code,
                body=self._redactor.body(body),
                url=url,
                headers={name: text(value) for name in HEADERS if (value := answer.headers.get(name))},
                redact=text,
                conn_id=self.settings.conn_id,
            )

    def _read(self, answer: requests.Response, asked: str, seconds: float) -> bytes:
        # In blocks: a thread that frees a large one keeps as much memory ever after (malloc's thresholds).
        blocks = [bytearray()]
        size = 0
        try:
            # Not iter_content, which waits until a chunk is full: bytes may come one by one for ever.
            while chunk := answer.raw.read1(CHUNK, decode_content=True):
                if len(blocks[-1]) >= CHUNK:
                    blocks.append(bytearray())
                blocks[-1] += chunk
                size += len(chunk)
                if size > MAX_BODY:
                    raise ExaHugeAnswerError(f"Exa's answer has more than {MAX_BODY >> 20} MiB ({asked}).")
        except self._failures as error:
            if size < LARGE_BODY or not _find(error, TimeoutError):
                raise
        else:
            return b"".join(blocks)
        raise ExaHugeAnswerError(
            f"Exa's answer did not arrive within {seconds:g} s, only {size >> 10} KiB of it ({asked}). "
            "Ask for less at once, or give the connection a longer timeout."
        )

    def _read_refusal(self, answer: requests.Response) -> bytes:
        """Read what comes soon of a body that says why; the status counts without it."""
        body = bytearray()
        if not is_redirect(answer.status_code):
            with suppress(*self._failures), within(REFUSAL_TIMEOUT):
                while len(body) < MAX_REFUSAL and (chunk := answer.raw.read1(CHUNK, decode_content=True)):
                    body += chunk
        return bytes(body)

    def _failure(self, error: Exception, asked: str, *, repeatable: bool) -> ExaError:
        conn_id = self.settings.conn_id
        causes = list(_causes(error))
        via = "proxy" if any("ProxyError" in type(cause).__name__ for cause in causes) else "host"
        if (no_tls := _find(error, ssl.SSLError)) and no_tls.reason in NO_TLS:
            return ExaInputError(
                f"The {via} of connection {conn_id!r} does not speak TLS ({asked}). "
                f"Begin it with http:// if that is meant, or check its port."
            )
        if (odd := _find(error, BadStatusLine)) and odd.line.startswith(TLS_ALERT):
            return ExaInputError(
                f"The {via} of connection {conn_id!r} speaks TLS ({asked}). Begin it with https://."
            )
        cause = next(cause for cause in reversed(causes) if isinstance(cause, self._failures))
        why = "timed out" if isinstance(cause, TimeoutError) else str(cause)[:MAX_SEARCHED]
        named = cause if type(error).__name__ in GENERIC else error
        why = self._redactor.text(" ".join(f"{type(named).__name__}: {why}".split()))[:MAX_QUOTED]
        return ExaTransientError(
            f"Exa gave no answer ({why}; {asked}). Check the host and the proxy of connection {conn_id!r}.",
            repeatable=repeatable,
        )

    def close(self) -> None:
        """Close the connections that no request uses."""
        self._adapter.close()


def _new_adapter() -> HTTPAdapter:
    from requests.adapters import HTTPAdapter

    class BoundedAdapter(HTTPAdapter):
        def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
            """Return the pool of a request, which makes connections that read within a deadline."""
            # Here, and not where pools are made: the managers of proxies go by more than one spelling.
            pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
            pool.ConnectionCls = bounded(pool.ConnectionCls)
            return pool

    return BoundedAdapter(pool_connections=1, pool_maxsize=POOL_SIZE, pool_block=True)


def _check_selected(settings: ConnectionSettings, proxy: str | None) -> str | None:
    """Return the proxy in use as a URL; the environment may leave out its scheme."""
    if not proxy:
        return None
    try:
        return check_proxy(proxy if "://" in proxy else f"http://{proxy}")
    except ValueError:
        pass
    raise ExaInputError(
        f"The environment names a proxy that cannot be used (HTTP_PROXY, HTTPS_PROXY or ALL_PROXY, for "
        f"{settings.base_url}); it must be {PROXY_FORM}."
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Follow an error to its cause; urllib3 keeps some as an argument."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause and id(cause) not in seen:
        yield cause
        seen.add(id(cause))
        inner = [getattr(cause, "reason", None), *cause.args, cause.__cause__, cause.__context__]
        cause = next(
            (each for each in inner if isinstance(each, BaseException) and id(each) not in seen), None
        )


def _find(error: BaseException, kind: type[Any]) -> Any:
    return next((cause for cause in _causes(error) if isinstance(cause, kind)), None)


@functools.cache
def user_agent() -> str:
    """Say who asks, for Exa's logs."""
    return (
        f"airflow-provider-exa/{version('airflow-provider-exa')} "
        f"(Airflow {version('apache-airflow')}; Python {platform.python_version()})"
    )
