"""The last look at a report before it is shown: no secret that is known here is in it, and nothing moves a terminal."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import quote, unquote

from aiomsi._command_line.doctor.proxies import VARIABLES
from aiomsi.sources._selection import CONNECTION_STRING
from aiomsi.sources._tools import secrets_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aiomsi.sources._surroundings import Surroundings

__all__ = ["known_secrets", "scrubbed"]

_T = TypeVar("_T")
_SHORTEST = 4  # Shorter ones would take half of every message away.
_LONGEST = 4_000
# A token, or an application's secret of Entra's making: people mix variables up, and then any of them may hold one.
_UNMISTAKABLE = re.compile(r"\beyJ[\w.+/=-]+|[\w.~-]{3}[0-9]Q~[\w.~-]{30,}")
_OURS = ("verdict", "subject")  # Words of our own, whatever a secret may be.
_PAIR = re.compile(r"""([^=;]+)=\s*("[^"]*"|'[^']*'|[^;]*)""")
_HARMLESS = ("runas", "appid", "tenantid", "developertool")  # A misspelt key may hold what the right one does.
_USER_INFORMATION = re.compile(r"(?:[a-z0-9+.-]+://)?(.*)@", re.IGNORECASE | re.DOTALL)


def known_secrets(surroundings: Surroundings, tokens: Iterable[str]) -> tuple[str, ...]:
    """Return the secrets that a message might show: those of the environment, and *tokens* with their parts."""
    found = set(secrets_in(surroundings))
    connection = surroundings.get(CONNECTION_STRING) or ""
    found |= {
        connection,
        *(value.strip("\"' ") for key, value in _PAIR.findall(connection) if key.strip().lower() not in _HARMLESS),
    }
    for variable in VARIABLES:
        match = _USER_INFORMATION.match(surroundings.get(variable) or "")
        if match is not None:  # The name in front of a password is none; alone it may be a token.
            found |= {match[1], match[1].partition(":")[2]}
    for token in tokens:
        found |= {token, *token.split(".")}
    ways = {way(secret) for secret in found for way in (str, quote, unquote)}
    # The longest first, or a part of a secret would be all that is taken from it.
    return tuple(sorted((secret for secret in ways if len(secret) >= _SHORTEST), key=len, reverse=True))


def scrubbed(value: _T, secrets: Sequence[str]) -> _T:
    """Return *value*, made of dataclasses, tuples and plain values, without *secrets* and control characters.

    Only a `message` may have several lines.
    """
    return cast("_T", _scrubbed(value, secrets))


def _scrubbed(value: Any, secrets: Sequence[str], name: str = "") -> Any:
    if isinstance(value, str):
        return _text(value, secrets, lines=name == "message")
    if isinstance(value, tuple):
        return tuple(_scrubbed(member, secrets) for member in value)
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value) if field.name not in _OURS]
        return replace(value, **{name: _scrubbed(getattr(value, name), secrets, name) for name in names})
    return value


def _text(text: str, secrets: Sequence[str], *, lines: bool) -> str:
    for secret in secrets:
        text = text.replace(secret, "<redacted>")
    text = _UNMISTAKABLE.sub("<redacted>", text)
    kept = "\n" if lines else ""
    text = "".join(character if character.isprintable() or character in kept else " " for character in text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
