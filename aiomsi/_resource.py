"""What a token may be asked for, and what may be the name of a tenant or an application."""

from __future__ import annotations

import re

__all__ = ["is_name", "resource_of", "scope_of"]

_DEFAULT_SCOPE = "/.default"
_NAME = re.compile(r"(?!\.+\Z)[0-9A-Za-z.-]{1,253}")  # In a path, dots alone would lead elsewhere.


def resource_of(text: str) -> str:
    """Return the resource that *text* names: itself, or without one `/.default` if it is a scope.

    Nothing else is normalised: a trailing slash ends up in the token's audience, and some services compare it.

    Raises:
        TypeError: *text* is not a string.
        ValueError: it is empty, holds blanks or control characters, or is no single scope.
    """
    if not isinstance(text, str):
        raise TypeError(
            f"a resource is a string such as 'https://vault.azure.net', not {text!r}; ask for one at a time"
        )
    if not text.isprintable() or " " in text:
        raise ValueError(
            f"the resource {text!r} holds blanks or control characters; pass one resource such as"
            " 'https://vault.azure.net', or one scope ending in '/.default'"
        )
    resource = text.removesuffix(_DEFAULT_SCOPE)
    if resource.endswith(_DEFAULT_SCOPE):
        raise ValueError(f"{text!r} ends in '/.default' twice; once makes it a scope")
    if not resource:
        raise ValueError(f"{text!r} names no resource; pass one such as 'https://vault.azure.net'")
    return resource


def scope_of(resource: str) -> str:
    """Return the scope that names *resource*."""
    return resource + _DEFAULT_SCOPE


def is_name(text: str) -> bool:
    """Return whether *text* can be the name of a tenant or an application: a GUID, or a domain."""
    return _NAME.fullmatch(text) is not None
