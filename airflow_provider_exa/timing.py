"""Seconds that the package waits or allows where neither the user nor Exa sets them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Timing:
    """
    Every duration that is a decision of this package, in seconds; a test replaces them all at once.

    :param max_retry_after: the longest ``Retry-After`` that is obeyed
    :param default_pause: how long a 429 without ``Retry-After`` closes a connection
    :param rate_limit_window: any window of this length carries a limited number of requests; a bit more than
        a second, as requests do not all take the same time on their way
    :param rate_recovery_interval: after a 429, the rate grows by one request a window in each such interval
    :param refresh_after_failure: how often a connection is read anew, at most, while requests get no answer
    :param refresh_interval: how often a connection in use is read anew anyway
    :param max_triggerer_timeout: the longest answer time that a connection may ask for in the triggerer
    :param first_poll_jitter: how far the first polls of monitors are spread, so that a restart is no burst
    :param listing_patience: how long a poll's single runs wait for its listing, which may show them
    :param min_poll_interval: between two polls of a monitor, however short an interval is asked for
    :param repeat_log_after: how often a wait logs again that nothing has changed
    :param first_event_margin: how long after a worker's heartbeat a trigger's first event may come
    :param run_listed_within: how long after a trigger a run may be missing from the listing
    :param run_listed_interval: how often the listing is searched for such a run
    :param replacement_delay: how long after the cancelation of a run its replacement may be missing
    :param min_event_gap: between two events of one asset; of two that meet a scheduler together, Airflow 3.3
        strands the second
    :param confirmation_delay: how long after Airflow calls an event stored its stream may still be cancelled,
        which means that it was not
    :param max_trouble_interval: between polls of an asset while Exa cannot answer
    :param permanent_error_interval: between polls of an asset while its key is bad or its monitor unknown
    :param max_walk_interval: between tries to read a listing that has not been shown to its end
    :param cursor_rewrite_interval: how often a cursor's Airflow Variable is written without news
    :param takeover_window: how long Airflow may take to end the trigger of an asset that was replaced, and to
        put the asset away
    :param variable_retry_interval: between tries to read or write a cursor's Airflow Variable
    """

    max_retry_after: float = 60.0
    default_pause: float = 5.0
    rate_limit_window: float = 1.05
    rate_recovery_interval: float = 3.0
    refresh_after_failure: float = 30.0
    refresh_interval: float = 300.0
    max_triggerer_timeout: float = 60.0
    first_poll_jitter: float = 2.0
    listing_patience: float = 2.0
    min_poll_interval: float = 1.0
    repeat_log_after: float = 300.0
    first_event_margin: float = 5.0
    run_listed_within: float = 60.0
    run_listed_interval: float = 2.0
    replacement_delay: float = 10.0
    min_event_gap: float = 10.0
    confirmation_delay: float = 3.0
    max_trouble_interval: float = 60.0
    permanent_error_interval: float = 300.0
    max_walk_interval: float = 3600.0
    cursor_rewrite_interval: float = 900.0
    takeover_window: float = 600.0
    variable_retry_interval: float = 30.0


_current = Timing()


def timing() -> Timing:
    """Return the durations that are in force."""
    return _current


@contextmanager
def use_timing(replacement: Timing) -> Iterator[Timing]:
    """Put other durations in force for the length of a ``with`` block, in every thread."""
    global _current  # noqa: PLW0603 (one process, one timing)
    before, _current = _current, replacement
    try:
        yield replacement
    finally:
        _current = before
