"""Who may not ask an endpoint that gives out real tokens: web pages, proxies, and whoever a false name leads here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .received import ReceivedRequest

# What browsers add to the requests of a page (Fetch standard), and proxies to those that they pass on (RFC 7239, 9110).
_TELLTALES = frozenset({"origin", "forwarded", "via"})
_TELLTALE_PREFIXES = ("sec-fetch-", "x-forwarded-")
# Node's own fetch says this, which no browser does without saying more.
_NODE = ("sec-fetch-mode", "cors")


class Guard:
    """Turns away requests that no program on this machine makes of its own.

    A web page cannot ask, since browsers say where a request comes from; nor can whoever is behind a proxy; nor can a
    page whose name was made to lead here (DNS rebinding), since the Host header still holds that name. *host_names*
    are names, without a port, under which the endpoint is known beside its own address: "host.docker.internal".

    *advice* is what those read whom a host would turn away without a word, for want of its secret. Raises ValueError
    for a name that holds a port or is none.
    """

    def __init__(self, host_names: Iterable[str] = (), *, advice: str = "The secret is missing or wrong.") -> None:
        self.names = frozenset(map(_checked, host_names))
        """The names that it was told."""
        self.advice = advice

    def __repr__(self) -> str:
        return f"Guard({sorted(self.names)!r})"

    def objection(self, received: ReceivedRequest, own_names: frozenset[str]) -> str | None:
        """Return why *received* is turned away from an endpoint called *own_names*, or None if it is not."""
        for name, value in received.headers.items():
            if (name in _TELLTALES or name.startswith(_TELLTALE_PREFIXES)) and (name, value) != _NODE:
                return f"A request with the header {name!r} was made by a web page, or passed on by a proxy."
        asked = _without_port(received.headers.get("host", "")).lower()
        if asked in own_names or asked in self.names:
            return None
        return "The Host header does not name this endpoint; is it known by another name, which it was not told?"


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and not port.strip("0123456789") else host


def _checked(name: str) -> str:
    if not re.fullmatch(r"[0-9A-Za-z_.-]+", name):
        raise ValueError(f"a host name is like 'host.docker.internal', without a port, not {name!r}")
    return name.lower()
