"""How a provider asks for one token."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from aiomsi._clock import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:
    from aiomsi._token import AccessToken

__all__ = [
    "Source",
    "TokenRequest",
    "check_source",
    "chooses_tenant",
    "identity_key_of",
    "max_parallel",
    "time_limit_of",
]

_log = logging.getLogger("aiomsi.provider")

_TIME_LIMIT = 30.0


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """What a source is asked for.

    *claims* is the decoded JSON text of a claims challenge, *rejected_sha256* the lower-case hexadecimal SHA-256 of a
    token that a service refused. *deadline* is in seconds on `clock.monotonic()`: a source that cannot answer by then
    should give up at once rather than wait.
    """

    resource: str
    tenant_id: str | None = None
    claims: str | None = None
    rejected_sha256: str | None = None
    clock: Clock = SYSTEM_CLOCK
    deadline: float = math.inf


class Source(Protocol):
    """Something that can be asked for a token; it neither caches nor coalesces, since the provider does.

    A source may also have these attributes, and is taken to have the default where it does not:

    * ``time_limit``: seconds after which a fetch is given up (30).
    * ``max_parallel``: how many fetches may run at the same time (None: any number).
    * ``chooses_tenant``: whether ``request.tenant_id`` makes a difference (False).
    * ``identity_key()``: a short text that names the identity for which it would answer now, or None where that cannot
      be told (None). It is called on the event loop every few seconds, so it must not wait for anything; the text
      holds no secret. When it changes, all that was fetched for the former identity is dropped.
    """

    @property
    def name(self) -> str:
        """A short name for logs and errors, such as "imds"."""

    async def fetch(self, request: TokenRequest) -> AccessToken:
        """Fetch one token. Raise SourceUnavailableError where nobody answers, another AiomsiError if it fails."""


def check_source(source: object) -> None:
    """Raise TypeError if *source* is none, without showing it: it may be a connection string."""
    wanted = callable(getattr(source, "fetch", None)) and isinstance(getattr(source, "name", None), str)
    if isinstance(source, type) or not wanted:
        kind = f"the class {source.__name__}" if isinstance(source, type) else f"a {type(source).__name__}"
        raise TypeError(f"a source is an object with a `name` and an async `fetch`, such as AzureCLI(), not {kind}")


def time_limit_of(source: Source) -> float:
    """Return the seconds after which a fetch from *source* is given up."""
    return cast("float", getattr(source, "time_limit", _TIME_LIMIT))


def max_parallel(source: Source) -> int | None:
    """Return how many fetches *source* may be asked for at the same time, None meaning any number.

    Raises:
        ValueError: it says that none may.
    """
    most = cast("int | None", getattr(source, "max_parallel", None))
    if most is not None and most < 1:
        raise ValueError(f"max_parallel of the source {source.name!r} is {most!r}, but should be at least 1, or None")
    return most


def chooses_tenant(source: Source) -> bool:
    """Return whether *source* can be asked for a token of a particular tenant."""
    return bool(getattr(source, "chooses_tenant", False))


def identity_key_of(source: Source) -> str | None:
    """Return a text that names the identity for which *source* would answer now, None where that cannot be told."""
    try:
        tell = getattr(source, "identity_key", None)
        key = None if tell is None else tell()
    except Exception as error:  # noqa: BLE001  (not to know the identity is no reason to fail)
        # At this level, since it may go on every few seconds; the text of the error may hold a secret.
        _log.debug("the source %s could not tell its identity: %s", source.name, type(error).__name__)
        key = None
    return key if isinstance(key, str) and key else None
