"""Everything that can go wrong.

AiomsiError
├── SourceUnavailableError   nobody answers here: no endpoint, no `az`, nobody logged in   → the next source is asked
├── ConfigurationError       the environment or the connection string is wrong; nothing was sent
├── TokenRefusedError        somebody answered, and the answer is no
├── MalformedResponseError   somebody answered, and it makes no sense
├── EndpointError            it is there but cannot serve now; `retry_after` may say when
├── SecurityError            a check of ours failed before a secret or a token was let out
├── ProviderClosedError      used after aclose()                                           (also a RuntimeError)
└── WrongLoopError           a cold call from a second loop while the first one runs       (also a RuntimeError)

Wrong arguments are plain ValueError or TypeError at the call.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "AiomsiError",
    "ConfigurationError",
    "EndpointError",
    "MalformedResponseError",
    "ProviderClosedError",
    "SecurityError",
    "SourceUnavailableError",
    "TokenRefusedError",
    "WrongLoopError",
    "about",
    "another",
    "without_frames",
]


class AiomsiError(Exception):
    """A token could not be had; the message says what was tried, what came back and what to do.

    *resource* is what a token was wanted for, *source* the name of what was asked, *status* the HTTP status or exit
    code of its answer, *code* its error code, *retry_after* the seconds it asked us to wait; each None where unknown.
    """

    def __init__(
        self,
        message: str,
        *,
        resource: str | None = None,
        source: str | None = None,
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.resource = resource
        self.source = source
        self.status = status
        self.code = code
        self.retry_after = retry_after


class SourceUnavailableError(AiomsiError):
    """Nobody answers here, so that the next source of a chain is asked."""


class ConfigurationError(AiomsiError):
    """The environment or the connection string is wrong; nothing was sent."""


class TokenRefusedError(AiomsiError):
    """Somebody answered, and the answer is no."""


class MalformedResponseError(AiomsiError):
    """Somebody answered, and it makes no sense."""


class EndpointError(AiomsiError):
    """The source is there but cannot serve now: refused connection, HTTP 429 or 5xx, deadline."""


class SecurityError(AiomsiError):
    """A check of ours failed before a secret or a token was let out."""


class ProviderClosedError(AiomsiError, RuntimeError):
    """The provider was used after `aclose()`."""


class WrongLoopError(AiomsiError, RuntimeError):
    """A token had to be fetched on a second event loop while the provider's own one runs."""


@contextmanager
def about(resource: str, source: str | None = None) -> Iterator[None]:
    """Let every error of the block say what was asked for, and of whom, if it does not yet."""
    try:
        yield
    except AiomsiError as error:
        error.resource = error.resource or resource
        error.source = error.source or source
        raise


_E = TypeVar("_E", bound=BaseException)


def another(error: _E) -> _E:
    """Return a new instance of *error*, to be raised by one waiter only.

    One instance raised by many callers grows a traceback of all their frames and keeps their locals alive. The new
    one has the same cause but no traceback, which also cuts off the frames that held a secret while it was sent.
    """
    try:
        new = copy.copy(error)
    except Exception:  # noqa: BLE001  (a foreign class whose constructor copy cannot call)
        new = error
    if new is error or type(new) is not type(error) or new.args != error.args:
        return without_frames(error)  # Sharing it beats changing what it says.
    if hasattr(error, "__notes__"):
        new.__notes__ = [*error.__notes__]  # Or a note that one caller adds would be seen by all.
    new.__cause__ = error.__cause__
    new.__suppress_context__ = True
    return new


def without_frames(error: _E) -> _E:
    """Return *error* without tracebacks, its causes and members too: their frames may hold secrets and callers."""
    seen: set[int] = set()
    rest: list[BaseException | None] = [error]
    while rest:
        step = rest.pop()
        if step is None or id(step) in seen:
            continue
        seen.add(id(step))
        rest += [step.__cause__, *(step.exceptions if isinstance(step, BaseExceptionGroup) else ())]
        with suppress(Exception):  # An exception may forbid to be changed.
            step.__traceback__ = step.__context__ = None
    return error
