"""The retry policy of both clients."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from tenacity import (
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

from airflow_provider_exa.protocol.errors import ExaTransientError
from airflow_provider_exa.timing import timing

log = logging.getLogger(__name__)

_backoff = wait_random_exponential(multiplier=1, max=30)


def retry_policy(
    retries: int, *, deadline: float | None = None, closed_for: Callable[[], float] = lambda: 0.0
) -> dict[str, Any]:
    """
    Say when and after how long a request is sent again, as arguments for tenacity.

    Only transient errors that may be repeated are. ``Retry-After`` is a floor, up to a bound; else the waits
    grow from 1 s to 30 s, with jitter.

    :param retries: how often it is sent again, at most
    :param deadline: of ``time.monotonic()``; a retry that would start later is not waited for
    :param closed_for: says how many seconds nothing is sent for another reason
    """

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = getattr(error, "retry_after", None) or 0.0
        return max(_backoff(state), min(asked, timing().max_retry_after), closed_for())

    stop = stop_after_attempt(retries + 1)
    return {
        "retry": retry_if_exception(lambda e: isinstance(e, ExaTransientError) and e.repeatable),
        "stop": stop if deadline is None else stop | stop_before_delay(deadline - time.monotonic()),
        "wait": wait,
        "before_sleep": _log_retry,
        "reraise": True,
    }


def _log_retry(state: RetryCallState) -> None:
    if state.outcome and state.next_action:
        log.warning("%s Asking again in %.1f s.", state.outcome.exception(), state.next_action.sleep)
