"""Requests and answers, which may hold secrets and show none."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FORM", "Answer", "Request", "form"]

FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request; its headers and body may hold a secret and are never shown."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    method: str = "GET"
    body: bytes | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """The secrets in it, which an answer might echo."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer; its body may hold a token and is never shown. Header names are in lower case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def members(self) -> dict[str, Any]:
        """The members of the JSON object that the body is, whatever its type is said to be; none if it is none."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}


def form(members: Mapping[str, str]) -> bytes:
    """Return *members* as the body of a POST of the type `FORM`."""
    return urlencode(members).encode()
