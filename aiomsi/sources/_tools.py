"""What the sources that run a developer's tool share: its options, its command line, its answer and its failure."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from aiomsi._errors import ConfigurationError, MalformedResponseError, about
from aiomsi._token import AccessToken, token_problem, unverified_claims
from aiomsi.sources._expiry import read_moment
from aiomsi.sources._redaction import redact, shape
from aiomsi.sources._subprocess import run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aiomsi._errors import AiomsiError
    from aiomsi._source import TokenRequest
    from aiomsi.sources._subprocess import Finished
    from aiomsi.sources._surroundings import Surroundings

__all__ = [
    "MAX_PARALLEL",
    "Tool",
    "ask",
    "check_option",
    "check_plain",
    "checked_timeout",
    "encoded_claims",
    "entra_code",
    "failure",
    "printed_token",
    "secrets_in",
]

MAX_PARALLEL = 8
"""How many programs of one tool run at the same time: each takes a second of a processor, and a hundred megabytes."""

# What a command line takes on every platform without any quoting (`az` is a batch file on Windows), and a script of
# PowerShell between single quotes.
_PLAIN = re.compile(r"[0-9A-Za-z][0-9A-Za-z\-._:/~?=+,@ ]*")
_SECRET_NAME = re.compile(r"(SECRET|HEADER|PASSWORD|_PWD|TOKEN|_PAT|KEY|CONNECTION_?STRING)$", re.IGNORECASE)
_SHORTEST_SECRET = 4  # Shorter ones would take half of every message away.


@dataclass(frozen=True, slots=True)
class Tool:
    """A program of the developer's, and the name of the source that runs it.

    *program* is looked for on the PATH, unless it is an absolute path; *missing* says what to do where it is not there.
    *settings* are added to its environment.
    """

    source: str
    program: str
    missing: str
    settings: Mapping[str, str]


def check_option(tool: Tool, what: str, value: str | None) -> None:
    """Raise TypeError or ValueError if the option *what* cannot be passed to *tool*."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{what} is a string, not {value!r}")
    if value is not None and not _PLAIN.fullmatch(value):
        raise ValueError(f"{what} is {value!r}, which cannot be passed to `{tool.program}`; use the GUID")


def checked_timeout(process_timeout: float) -> float:
    """Return *process_timeout*, in seconds.

    Raises:
        TypeError: it is no number.
        ValueError: it is not positive, or endless.
    """
    if isinstance(process_timeout, bool) or not isinstance(process_timeout, int | float):
        raise TypeError(f"process_timeout is a number of seconds, not {process_timeout!r}")
    if not 0 < process_timeout < float("inf"):
        raise ValueError(f"process_timeout is a positive number of seconds, not {process_timeout!r}")
    return float(process_timeout)


def check_plain(tool: Tool, request: TokenRequest, tenant_id: str | None) -> None:
    """Raise ConfigurationError if the resource of *request* or *tenant_id* must not come near a command line."""
    for what, value in (("resource", request.resource), ("tenant", tenant_id)):
        if value is not None and not _PLAIN.fullmatch(value):
            raise ConfigurationError(
                f"the {what} {value!r} holds characters that are not passed to a command line;"
                f" `{tool.program}` was not run",
                resource=request.resource,
                source=tool.source,
            )


def encoded_claims(claims: str) -> str:
    """Return *claims* as all the tools take them, in base64 (RFC 4648, section 4)."""
    return base64.b64encode(claims.encode()).decode()


async def ask(
    tool: Tool, arguments: list[str], request: TokenRequest, *, surroundings: Surroundings, limit: float
) -> Finished:
    """Run *tool* for *limit* seconds at the most, or what is left of *request*'s time.

    Raises:
        SourceUnavailableError: it is not there, or cannot be started.
        EndpointError: it took too long.
        MalformedResponseError: it printed more than a token can be.
    """
    with about(request.resource):
        return await run(
            tool.program,
            arguments,
            source=tool.source,
            missing=tool.missing,
            surroundings=surroundings,
            settings=tool.settings,
            clock=request.clock,
            limit=min(limit, request.deadline - request.clock.monotonic()),
        )


def printed_token(
    tool: Tool, finished: Finished, request: TokenRequest, *, members: Sequence[str], advice: str
) -> AccessToken:
    """Return the token that *tool* has printed, in a JSON object under one of the names *members*.

    Raises:
        MalformedResponseError: there is none that can be used.
    """
    token = _read(finished.stdout, members, request.resource, tool.source, request.clock.wall())
    if isinstance(token, AccessToken):
        return token
    raise MalformedResponseError(
        f"`{tool.program}` printed {token}: it was {shape(finished.stdout)}; {advice}",
        resource=request.resource,
        source=tool.source,
    )


def _read(stdout: bytes, members: Sequence[str], resource: str, source: str, now: float) -> AccessToken | str:
    """Return the token in *stdout*, or what is wrong with it; not raised here, where local variables hold a token."""
    try:
        printed: Any = json.loads(stdout)
    except (ValueError, RecursionError):
        printed = None
    found = [printed[name] for name in members if name in printed] if isinstance(printed, dict) else []
    token = found[0] if found else None
    expires_on = _expiry(printed, token, now) if isinstance(token, str) else None
    problem = token_problem(token, expires_on, now)
    if problem is not None or expires_on is None or not isinstance(token, str):
        return str(problem)
    return AccessToken(token, expires_on, None, resource, source)


def _expiry(printed: dict[str, Any], token: str, now: float) -> float | None:
    # `expiresOn` is in local time without a zone where `az` prints it (alone before 2.54), which is ambiguous for an
    # hour each autumn: the token itself knows better, and the earlier reading is the safe one. azd adds the zone.
    date = _date(printed.get("expiresOn"))
    expires_on = read_moment(printed.get("expires_on"), now)
    if expires_on is None and date is not None and date.tzinfo is not None:
        expires_on = date.timestamp()
    if expires_on is None:
        expires_on = read_moment((unverified_claims(token) or {}).get("exp"), now)
    if expires_on is None and date is not None:
        try:
            expires_on = date.replace(fold=0).timestamp()
        except (ValueError, OverflowError, OSError):
            return None
    return expires_on


def _date(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None


def entra_code(said: str) -> str | None:
    """Return the code of Entra ID's own error in *said*, if there is one."""
    found = re.search(r"AADSTS[0-9]+", said)
    return found[0] if found else None


def failure(
    tool: Tool,
    finished: Finished,
    request: TokenRequest,
    *,
    kind: type[AiomsiError],
    said: str,
    advice: str,
    code: str | None,
    surroundings: Surroundings,
) -> AiomsiError:
    """Return the error that *tool* told in the words *said*, which are redacted, and what to do."""
    text = redact(said, *secrets_in(surroundings)).rstrip(".") or "nothing"
    return kind(
        f"`{tool.program}` gave no token for {request.resource!r} (exit code {finished.exit_code}): {text}; {advice}",
        resource=request.resource,
        source=tool.source,
        status=finished.exit_code,
        code=code,
    )


def secrets_in(surroundings: Surroundings) -> list[str]:
    """Return the values in the environment that a tool was given and might print."""
    return [
        value
        for name, value in surroundings.environ.items()
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET
    ]
