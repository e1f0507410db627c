"""The transport of an Airflow connection, and the rule when the connection is read anew."""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING

from airflow_provider_exa.client.settings import ConnectionSettings
from airflow_provider_exa.protocol.errors import ExaHugeAnswerError, ExaPermanentError, ExaTransientError
from airflow_provider_exa.protocol.messages import Response, doubts_connection
from airflow_provider_exa.timing import timing

if TYPE_CHECKING:
    from airflow_provider_exa.client.transport import Transport

log = logging.getLogger(__name__)

Outcome = Response | Exception


class Connection:
    """
    The transport that a client uses, and when the client has to read the Airflow connection anew.

    It is read anew before a refusal is believed that another key, host or proxy might mend; when Exa cannot
    answer, now and then; and now and then anyway.
    """

    def __init__(self, conn_id: str) -> None:
        self.conn_id = conn_id
        self.transport: Transport | None = None
        self.read_at = -math.inf
        self._due_at = math.inf
        self._failed_at = -math.inf
        self._warned = False

    def is_due(self) -> bool:
        """Return whether the connection has been in use for so long that it is read anew."""
        return time.monotonic() >= self._due_at

    def is_doubted_by(self, outcome: Outcome) -> bool:
        """Return whether this answer, or the lack of one, is a reason to read the connection anew."""
        if isinstance(outcome, Response):
            return doubts_connection(outcome)
        if isinstance(outcome, ExaPermanentError):  # no request reached Exa
            return True
        if not isinstance(outcome, ExaTransientError) or outcome.status == 429:
            return False
        if isinstance(outcome, ExaHugeAnswerError):
            return False
        now = time.monotonic()
        if now - self._failed_at < timing().refresh_after_failure:
            return False
        self._failed_at = now
        return True

    def begin_reading(self) -> None:
        """Note that the connection is being read."""
        self.read_at = time.monotonic()
        self._due_at = self.read_at + timing().refresh_interval

    def differs(self, settings: ConnectionSettings) -> bool:
        """Return whether the settings that were read need another transport."""
        changed = self.transport is None or self.transport.settings != settings
        self._warned = self._warned and changed
        return changed

    def replace(self, transport: Transport) -> None:
        """Use another transport from now on."""
        if self.transport:
            log.info("The Airflow connection %r has changed; its new settings are in use.", self.conn_id)
            self.transport.close()
        self.transport = transport
        self._warned = False

    def keep(self, error: Exception) -> None:
        """Go on with the settings in use, as the connection cannot be read anew; say so once."""
        self._due_at = min(self._due_at, time.monotonic() + timing().refresh_after_failure)
        if not self._warned:
            self._warned = True
            log.warning(
                "The Airflow connection %r cannot be read anew (%s: %s); its settings of before stay in use.",
                self.conn_id,
                type(error).__name__,
                error,
            )


def may_repeat(outcome: Outcome) -> bool:
    """Return whether a request with this outcome can be sent again without doing something twice."""
    return isinstance(outcome, Response | ExaPermanentError) or getattr(outcome, "repeatable", False)
