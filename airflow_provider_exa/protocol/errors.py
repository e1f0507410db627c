"""
The errors of this package.

.. code-block:: text

    ExaError
    ├── ExaTransientError        no answer, 408, 429, 5xx: it may succeed later
    │   ├── ExaNotStartedError   Exa was asked for a run and says that it started none
    │   └── ExaBadAnswerError    an answer that cannot be read; a later one may be
    │       └── ExaHugeAnswerError  an answer that is too large to be read, or to arrive in time
    └── ExaPermanentError        asking again does not help: every other status; an AirflowFailException,
        │                        so a task fails without retries
        ├── ExaIncompleteListingError  a listing cannot be read to its end
        │   └── ExaEndlessListingError  it comes back to a page it had, or has too many
        ├── ExaInputError        an argument or a connection cannot be used (a ValueError)
        └── ExaRunFailedError    the run waited for ended in a way that fails the task
"""

from __future__ import annotations

from collections.abc import Iterator

from airflow.providers.common.compat.sdk import AirflowFailException


class ExaError(Exception):
    """
    Anything that goes wrong between this package and Exa.

    :param status: the HTTP status of Exa's answer; None if the error is not about one
    """

    def __init__(self, message: str = "", *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ExaTransientError(ExaError):
    """
    Exa could not answer now; the same request may succeed later.

    :param status: the HTTP status of Exa's answer; None if there was no answer
    :param retry_after: seconds that Exa asked to wait, if it did
    :param repeatable: whether the request may be sent again without doing something twice
    """

    def __init__(
        self,
        message: str = "",
        *,
        status: int | None = None,
        retry_after: float | None = None,
        repeatable: bool = True,
    ) -> None:
        super().__init__(message, status=status)
        self.retry_after = retry_after
        self.repeatable = repeatable


class ExaNotStartedError(ExaTransientError):
    """Exa was asked to start a run, and says that it did not; as it does not say why, it may another time."""


class ExaBadAnswerError(ExaTransientError):
    """Exa's answer cannot be read: not JSON, not the shape its documentation describes, or too large."""


class ExaHugeAnswerError(ExaBadAnswerError):
    """Exa's answer is too large to be read, or to arrive in time; asking for less may help, repeating not."""

    def __init__(self, message: str = "", *, status: int | None = None) -> None:
        super().__init__(message, status=status, repeatable=False)


class ExaPermanentError(ExaError, AirflowFailException):
    """Exa refused; asking again does not help."""


class ExaIncompleteListingError(ExaPermanentError):
    """A listing cannot be read to its end, and the part beyond is needed."""


class ExaEndlessListingError(ExaIncompleteListingError):
    """A listing came back to a page it had, or has more pages than may be asked for."""


class ExaInputError(ExaPermanentError, ValueError):
    """An argument, or a setting of the connection, cannot be used."""


class ExaRunFailedError(ExaPermanentError):
    """The run that a task waited for ended in a way that fails the task."""


def _descendants(error: type[ExaError]) -> Iterator[type[ExaError]]:
    for child in error.__subclasses__():
        yield child
        yield from _descendants(child)


#: By name, for errors that pass from one process to another.
ERRORS = {error.__name__: error for error in _descendants(ExaError)}
