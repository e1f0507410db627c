"""How a request reaches Exa: one sender over a ``requests`` session, and when it is sent again."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from airflow_provider_exa.client.settings import ConnectionSettings
from airflow_provider_exa.protocol.errors import ExaHugeAnswerError, ExaTransientError
from airflow_provider_exa.protocol.messages import Request, Response, is_transient, refusal

if TYPE_CHECKING:
    import requests


log = logging.getLogger(__name__)


CONNECT_TIMEOUT = 5.0


MAX_BODY = 16 * 1024 * 1024


MAX_RETRY_AFTER = 60.0


POOL_SIZE = 16


_backoff = wait_random_exponential(multiplier=1, max=30)


class Transport:
    """Sends requests for one account over one session; its pool of connections is shared by threads."""

    def __init__(self, account: ConnectionSettings) -> None:
        # Here alone: to import requests takes a fifth of a second, which no DAG file is to pay for.
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.exceptions import HTTPError

        self.account = account
        self._failures = (OSError, HTTPError)  # requests' own errors are OSErrors
        self._new_request = requests.Request
        self._session: requests.Session = requests.Session()
        self._headers = {"User-Agent": user_agent(), "Accept": "application/json"}
        # What the environment says of proxies and certificates is looked up once, not for each request;
        # the account's own settings beat it.
        proxies = {"http": account.proxy, "https": account.proxy} if account.proxy else {}
        self._settings = self._session.merge_environment_settings(
            account.base_url, proxies, True, account.verify, None
        )
        adapter = HTTPAdapter(pool_connections=1, pool_maxsize=POOL_SIZE, pool_block=True)
        self._session.mount(account.base_url, adapter)

    def send_once(self, request: Request) -> Response:
        """
        One answer to one request.

        :raises ExaTransientError: no answer, or one that says that Exa cannot answer now
        :raises ExaHugeAnswerError: the answer has more than 16 MiB
        """
        url = self.account.base_url + request.path
        try:
            response = self._exchange(request, url)
        except self._failures as error:
            raise ExaTransientError(
                f"{request.method} {url} got no answer ({type(error).__name__}: {self._redact(str(error))}).",
                repeatable=request.method == "GET",
            ) from None
        if is_transient(response.status):
            raise refusal(request, response)
        return response

    def _exchange(self, request: Request, url: str) -> Response:
        deadline = time.monotonic() + self.account.timeout
        # Not Session.request, which would look for the host in ~/.netrc and merge settings for each request.
        headers = {**self._headers, "x-api-key": self.account.api_key}
        prepared = self._new_request(request.method, url, headers, params=request.params).prepare()
        with self._session.send(
            prepared,
            timeout=(min(CONNECT_TIMEOUT, self.account.timeout), self.account.timeout),
            allow_redirects=False,
            **self._settings,
        ) as answer:
            body = bytearray()
            # Not iter_content, which waits until a chunk is full: bytes may come one by one for ever.
            while chunk := answer.raw.read1(65536, decode_content=True):
                body += chunk
                if len(body) > MAX_BODY:
                    raise ExaHugeAnswerError(
                        f"{request.method} {url} was answered with more than {MAX_BODY >> 20} MiB."
                    )
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no whole answer in {self.account.timeout:g} s")
            return Response(
                status=answer.status_code,
                body=bytes(body),
                url=url,
                headers={name.lower(): value for name, value in answer.headers.items()},
                redact=self._redact,
            )

    def _redact(self, text: str) -> str:
        return text.replace(self.account.api_key, "***")

    def send(self, request: Request) -> Response:
        """Like :meth:`send_once`, repeated as :func:`retry_policy` says."""
        return Retrying(**retry_policy(self.account.retries))(self.send_once, request)

    async def asend_once(self, request: Request) -> Response:
        """Like :meth:`send_once`, from a thread of this package; to cancel it leaves the thread behind."""
        run = contextvars.copy_context().run
        return await asyncio.get_running_loop().run_in_executor(threads(), run, self.send_once, request)

    def close(self) -> None:
        """Close the session's connections."""
        self._session.close()


def retry_policy(retries: int) -> dict[str, Any]:
    """
    When and after how long a request is sent again, as arguments for tenacity.

    Only transient errors that may be repeated are. ``Retry-After`` is a floor, of a minute at most; else
    the waits grow from 1 s to 30 s, with jitter.
    """
    return {
        "retry": retry_if_exception(lambda e: isinstance(e, ExaTransientError) and e.repeatable),
        "stop": stop_after_attempt(retries + 1),
        "wait": _pause,
        "before_sleep": _log_retry,
        "reraise": True,
    }


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = getattr(error, "retry_after", None) or 0.0
    return max(_backoff(state), min(asked, MAX_RETRY_AFTER))


def _log_retry(state: RetryCallState) -> None:
    if state.outcome and state.next_action:
        log.warning("%s Asking again in %.1f s.", state.outcome.exception(), state.next_action.sleep)


@functools.cache
def threads() -> ThreadPoolExecutor:
    """The threads that send for an event loop: as many requests as there may be at once in a process."""
    return ThreadPoolExecutor(POOL_SIZE, thread_name_prefix="exa")


@functools.cache
def user_agent() -> str:
    """Who asks, for Exa's logs."""
    return (
        f"airflow-provider-exa/{version('airflow-provider-exa')} "
        f"(Airflow {version('apache-airflow')}; Python {platform.python_version()})"
    )
