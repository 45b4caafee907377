"""What may be said of an answer: never a token. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["redact", "shape"]

_LONGEST = 400
_SECRETS = (
    re.compile(r"()\beyJ[\w.+/=-]+"),  # A JWT, or a piece of one.
    re.compile(r"(?i)(\bbearer\s+)\S+"),
    re.compile(r"(?i)(\bbasic\s+)[\w+/=]{12,}"),
    re.compile(  # What is called a token or a secret, in JSON (escaped or not), a form or a header.
        r"""(?i)((?:token|secret|password|header|key|authorization)["'\\]*\s*[=:]\s*["'\\]*)[^\s"'\\,;&}]+"""
    ),
    # No word of a message is that long, but for paths and URLs; an opaque token is.
    re.compile(r"()[\w.+=~-]{64,}"),
    re.compile(r"()(?<![\w+/=~:.-])[\w+=~-][\w+/=~-]{63,}"),
)


def redact(text: str, *secrets: str | None) -> str:
    """Return *text*, shortened, on one line, without *secrets* and whatever else could be one."""
    for secret in filter(None, secrets):
        text = text.replace(secret, "<redacted>")
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
