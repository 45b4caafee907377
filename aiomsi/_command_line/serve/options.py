"""What `aiomsi serve` was told, and whether it makes sense together."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiomsi._resource import resource_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["DOCKER_NAME", "ServeOptions", "problem"]

DOCKER_NAME = "host.docker.internal"
"""What containers call the machine that they run on."""

_USUAL = ("app_service", "app_service_2017")
_SECRETLESS = "imds"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """The options of the command line; each is explained there."""

    source: str | None = None
    tenant: str | None = None
    allow: tuple[str, ...] = ()
    imds: bool = False
    emulate: bool = False
    play: tuple[str, ...] = ()
    root: Path | None = None
    lifetime: float | None = None
    latency: float | None = None
    script: tuple[str, ...] = ()
    date_text: bool = False
    host: str = "127.0.0.1"
    port: int = 0
    imds_port: int = 0
    host_names: tuple[str, ...] = ()
    beyond_loopback: bool = False
    socket: Path | None = None
    output: str = "env"

    @property
    def hosts(self) -> tuple[str, ...]:
        """The protocols to speak."""
        if self.play:
            return tuple(dict.fromkeys(self.play))
        if self.socket is not None:  # Where one endpoint listens.
            return _USUAL
        return (*_USUAL, _SECRETLESS) if self.imds or self.emulate else _USUAL

    @property
    def groups(self) -> tuple[tuple[tuple[str, ...], int], ...]:
        """The protocols that share a port, and that port: the one without a secret has its own."""
        with_secret = tuple(host for host in self.hosts if host != _SECRETLESS)
        groups = ((with_secret, self.port), ((_SECRETLESS,) if _SECRETLESS in self.hosts else (), self.imds_port))
        return tuple((hosts, port) for hosts, port in groups if hosts)

    @property
    def names(self) -> tuple[str, ...]:
        """The names under which clients may ask, beside the address; the first is the one to tell them."""
        return self.host_names or ((DOCKER_NAME,) if self.output == "docker" else ())


def problem(options: ServeOptions) -> str | None:
    """Return what is wrong with *options* and what to do about it, or None."""
    found = (_wrong_resource(options.allow), _wrong_protocols(options), _wrong_address(options), _wrong_socket(options))
    return next(filter(None, found), None)


def _wrong_resource(allowed: Iterable[str]) -> str | None:
    for resource in allowed:
        try:
            resource_of(resource)
        except ValueError as error:
            return f"--allow: {error}"
    return None


def _wrong_protocols(options: ServeOptions) -> str | None:
    real_tokens = not options.emulate
    if real_tokens and options.imds and not options.allow:
        return "--imds has no secret, so say with --allow which resources it may give tokens for"
    emulation = (
        ("--play", bool(options.play)),
        ("--root", options.root is not None),
        ("--latency", options.latency is not None),
        ("--date-text", options.date_text),
        ("--script", bool(options.script)),
        ("--lifetime", options.lifetime is not None),
    )
    for name, given in emulation:
        if real_tokens and given:
            return f"{name} is for the emulator; add --emulate"
    if options.imds and options.play:
        return "--imds and --play exclude each other; say --play imds"
    if options.emulate and (options.tenant or options.source):
        return "--emulate gives out fake tokens, so --source and --tenant have no meaning"
    return None


def _wrong_address(options: ServeOptions) -> str | None:
    try:
        address = ipaddress.ip_address(options.host)
    except ValueError:
        return f"--host is an IP address to listen on, not {options.host!r}; --host-name takes names"
    if not address.is_loopback and not options.beyond_loopback:
        return (
            f"{options.host} can be reached from other machines or containers: whoever gets there and knows the secret"
            " (IMDS has none) gets your tokens, over plain http. If you mean it, add --beyond-loopback"
        )
    if address.is_unspecified and not options.names:
        return f"--host {options.host} is no address to ask at; say with --host-name what clients call this machine"
    return None


def _wrong_socket(options: ServeOptions) -> str | None:
    if options.socket is None:
        return None
    if options.host != ServeOptions().host or options.port or options.imds or options.imds_port:
        return "--socket goes without --host, --port and --imds"
    if options.output == "docker":
        return "--socket goes without --output docker, since no SDK in a container asks at one"
    if len(options.groups) > 1:
        return "--socket is one socket, and IMDS wants one of its own; play it alone"
    return None
