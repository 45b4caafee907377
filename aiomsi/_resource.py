"""What a token may be asked for."""

from __future__ import annotations

__all__ = ["resource_of"]

_DEFAULT_SCOPE = "/.default"


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
