"""Which tokens may go where: origins, with or without a wildcard, and the resource that each one's tokens are for.

An origin is scheme, host and port (RFC 6454). Pure.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from itertools import product
from urllib.parse import urlsplit

from aiomsi._resource import resource_of

__all__ = ["Origins"]

_MOST_HOSTS = 1_024  # Whoever chooses where requests go may name any number below a wildcard.
_PORTS = {"https": 443, "http": 80}
_SCHEMES = {"https": ("https", "wss"), "http": ("http", "ws")}  # WebSockets begin as such requests (RFC 6455).
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
# What ends in a number is an address, if a malformed one; below an address there are no names.
_NAME = re.compile(rf"(?:\*\.{_LABEL}\.)?(?:{_LABEL}\.)*(?![0-9]+\Z){_LABEL}")


class Origins:
    """What *mapping*, of origins to resources, says of one origin.

    An origin is like `https://myvault.vault.azure.net`, or `https://*.vault.azure.net`, where the asterisk stands for
    exactly one label. Plain http is for loopback, and only if *allow_http_on_loopback*.

    Raises:
        TypeError: *mapping* is none, or an origin or resource is no string.
        ValueError: an origin is malformed, in plain http where that is not allowed, or there twice.
    """

    __slots__ = ("_hosts",)

    def __init__(self, mapping: Mapping[str, str], *, allow_http_on_loopback: bool = False) -> None:
        if not isinstance(mapping, Mapping):
            raise TypeError(f"a mapping says which origins get tokens for which resource, not {type(mapping).__name__}")
        # By scheme and port, in every way to write them: hosts, and for wildcards what follows the asterisk.
        self._hosts: dict[tuple[str, int | None], tuple[dict[str, str], dict[str, str]]] = {}
        for origin, resource in mapping.items():
            scheme, host, port = _parsed(origin, allow_http_on_loopback=allow_http_on_loopback)
            for place in product(_SCHEMES[scheme], {port, None} if port == _PORTS[scheme] else {port}):
                known = self._hosts.setdefault(place, ({}, {}))[host.startswith("*")]
                if host.removeprefix("*") in known:
                    raise ValueError(f"the origin {origin!r} is there twice")
                known[host.removeprefix("*")] = resource_of(resource)

    def resource(self, scheme: str, host: str, port: int | None) -> str | None:
        """Return the resource whose tokens may go to an origin, or None if none may.

        *host* is in lower case, as a name in ASCII or an address; *port* None is the scheme's own.
        """
        hosts = self._hosts.get((scheme, port))
        if hosts is None:
            return None
        exact, wild = hosts
        found = exact.get(host)
        if found is None and wild:
            dot = host.find(".")
            found = wild.get(host[dot:]) if dot > 0 and host.isascii() else None
            if found is not None and len(exact) < _MOST_HOSTS:  # A service asks few hosts, and each of them often.
                exact[host] = found
        return found


def _parsed(origin: str, *, allow_http_on_loopback: bool) -> tuple[str, str, int]:
    if not isinstance(origin, str):
        raise TypeError(f"an origin is a string such as 'https://myvault.vault.azure.net', not {type(origin).__name__}")
    # Neither of what stands before an @ nor of what stands behind a ? or #: passwords and signatures do.
    shown = repr(re.split("[?#]", origin)[0][origin.rfind("@") + 1 :])
    try:
        url = urlsplit(origin)
        host, port = _host(url.hostname or ""), url.port
    except ValueError:
        raise ValueError(f"{shown} is no origin such as 'https://myvault.vault.azure.net'") from None
    if url.scheme not in _PORTS:
        raise ValueError(f"{shown} does not begin with https://")
    if url.path not in ("", "/") or set(origin) & set("?#@ ") or not origin.isprintable():
        raise ValueError(f"{shown} is more than an origin; leave out all but scheme, host and port")
    if host is None or not origin.isascii():
        raise ValueError(
            f"{shown} names no host; an internationalised name is written in ASCII, and an asterisk stands for the"
            " first of at least three labels"
        )
    if url.scheme == "http" and not (allow_http_on_loopback and _is_loopback(host)):
        raise ValueError(
            f"{shown} is plain http, which a token must not travel by, unless it is on loopback and you"
            " allow it: allow_http_on_loopback=True"
        )
    return url.scheme, host, _PORTS[url.scheme] if port is None else port


def _host(text: str) -> str | None:
    """Return *text* as requests name that host, or None if it is none."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text if _NAME.fullmatch(text) else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
