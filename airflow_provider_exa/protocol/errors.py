"""
What Exa says and what it means: pure code, without I/O; of Airflow it knows one exception.

A call is a generator that yields a :class:`Request`, is sent the :class:`Response` and returns the
result; ``transport.py`` drives it. The errors:

.. code-block:: text

    ExaError
    ├── ExaTransientError        no answer, 408, 429, 5xx: it may succeed later
    │   ├── ExaNotStartedError   Exa was asked for a run and says that it started none
    │   └── ExaBadAnswerError    an answer that cannot be read; a later one may be
    │       └── ExaHugeAnswerError  an answer that is too large to be read
    └── ExaPermanentError        asking again does not help: every other status; an AirflowFailException,
        │                        so a task fails without retries
        ├── ExaEndlessListingError  a listing comes back to a page it had, or has too many
        ├── ExaInputError        what the caller gave cannot be asked (a ValueError)
        └── ExaRunFailedError    the run waited for ended in a way that fails the task
"""

from __future__ import annotations

from collections.abc import Iterator

from airflow.providers.common.compat.sdk import AirflowFailException


class ExaError(Exception):
    """Whatever goes wrong between this package and Exa."""


class ExaTransientError(ExaError):
    """
    Exa could not answer now; the same request may succeed later.

    :param status: what Exa answered; None if there was no answer
    :param retry_after: seconds that Exa asked to wait, if it did
    :param repeatable: whether the request may be sent again without doing something twice
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        repeatable: bool = True,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.repeatable = repeatable


class ExaNotStartedError(ExaTransientError):
    """Exa was asked to start a run, and says that it did not; as it does not say why, it may another time."""


class ExaBadAnswerError(ExaTransientError):
    """Exa's answer cannot be read: not JSON, not the shape its documents describe, or too large."""

    def __init__(self, message: str) -> None:
        super().__init__(message, repeatable=False)


class ExaHugeAnswerError(ExaBadAnswerError):
    """Exa's answer is too large to be read."""


class ExaPermanentError(ExaError, AirflowFailException):
    """Exa refused; asking again does not help."""


class ExaEndlessListingError(ExaPermanentError):
    """A listing came back to a page it had, or has more pages than may be asked for."""


class ExaInputError(ExaPermanentError, ValueError):
    """What the caller gave cannot be asked of Exa."""


class ExaRunFailedError(ExaPermanentError):
    """The run that a task waited for ended in a way that fails the task."""


def _descendants(error: type[ExaError]) -> Iterator[type[ExaError]]:
    for child in error.__subclasses__():
        yield child
        yield from _descendants(child)


#: By name, for errors that pass from one process to another.
ERRORS = {error.__name__: error for error in _descendants(ExaError)}
