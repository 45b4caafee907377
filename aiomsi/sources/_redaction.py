"""What may be said of an answer: never a token. Pure."""

from __future__ import annotations

import html
import json
import re
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["redact", "shape"]

_LONGEST = 400
_SECRETS = (
    # A JWT, or a piece of one; and what is left of it on the next lines, since tools break theirs as the terminal does.
    re.compile(r"()\beyJ[\w.+/=-]+(?:[\s|]+[\w.+/=-]{16,})*"),
    re.compile(r"(?i)(\bbearer\s+)\S+"),
    re.compile(r"(?i)(\bbasic\s+)[\w+/=]{12,}"),
    # What follows the name of a secret, and does not look like a word; the value of an option; the password in a URL.
    re.compile(r"""(?i)(\b(?:token|secret|password|key)\s+(?:is\s+)?["']?)(?=[^\s0-9]*[0-9])[\w.+/=~-]{16,}"""),
    re.compile(r"""(?i)((?<![\w-])-(?:p|[\w-]*(?:token|secret|password|key))\s+["']?)[^\s"']{6,}"""),
    re.compile(r"(://[^\s/@:]*:)[^\s/@]+(?=@)"),
    re.compile(  # What is called a token or a secret, in JSON (escaped or not), a form or a header.
        r"""(?i)((?:token|secret|password|pwd|\bsig|header|key|authorization)["'\\]*\s*[=:]\s*["'\\]*)[^\s"'\\,;&}]+"""
    ),
    # No word of a message is that long, but for paths and URLs; an opaque token is.
    re.compile(r"()[\w.+=~-]{64,}"),
    re.compile(r"()(?<![\w+/=~:.-])[\w+=~-][\w+/=~-]{63,}"),
)


def _in_json(secret: str) -> str:
    return json.dumps(secret)[1:-1]


# How an answer may show what was sent: as it was, and in the ways of JSON, forms, URLs and HTML.
_WAYS: tuple[Callable[[str], str], ...] = (str, _in_json, quote_plus, quote, partial(quote, safe=""), html.escape)


def redact(text: str, *secrets: str | None) -> str:
    """Return *text*, shortened, on one line, without *secrets* and whatever else could be one."""
    known = {way(secret) for secret in filter(None, secrets) for way in _WAYS}
    for written in sorted(known, key=len, reverse=True):  # One may be a part of another.
        text = text.replace(written, "<redacted>")
    for pattern in _SECRETS:
        text = pattern.sub(r"\1<redacted>", text)
    text = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def shape(body: bytes) -> str:
    """Return what kind of thing *body* is, naming members and types but no values."""
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError):
        if not body.strip():
            return "an empty body"
        kind = "HTML" if body.lstrip()[:1] == b"<" else "something that is not JSON"
        return f"{kind} of {len(body)} bytes"
    if not isinstance(value, dict):
        return f"JSON that is {_kind(value)} instead of an object"
    members = ", ".join(f"{redact(name)[:40]}: {_kind(member)}" for name, member in list(value.items())[:12])
    return "a JSON object with " + (members or "no members")


def _kind(value: object) -> str:
    if isinstance(value, str):
        return f"text of {len(value)} characters" if value else "empty text"
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return "an object" if isinstance(value, dict) else "an array" if isinstance(value, list) else "a number"
