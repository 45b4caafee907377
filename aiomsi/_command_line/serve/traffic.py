"""Who asked `aiomsi serve` for what: the last requests, and how often each resource was asked for."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiomsi.endpoint import ReceivedRequest, TokenAsked

__all__ = ["Entry", "Traffic", "printable"]

_OK = 200
_HERE = (None, "127.0.0.1", "::1")
_LAST = 12
_LONGEST = 200  # Characters of what a client says of itself or wants.


class Entry(NamedTuple):
    """One request as it came, made fast and told apart fast; its properties can be shown on any terminal."""

    at: int
    """Unix time in whole seconds, UTC."""
    host: str | None
    asked: TokenAsked | None
    wanted: str | None
    """The resource that it named, if it did not ask for it properly."""
    status: int
    remote: str | None
    user_agent: str

    @property
    def client(self) -> str:
        """Who asked."""
        product = self.user_agent.split(" ")[0]
        where = "" if self.remote in _HERE else f" at {self.remote}"
        return printable(f"{product or 'somebody'}{where}")

    @property
    def protocol(self) -> str:
        """Which protocol it spoke."""
        return self.host or "unknown"

    @property
    def resource(self) -> str:
        """What a token was asked for."""
        return printable(self.asked.resource if self.asked else self.wanted or "-")

    @property
    def identity(self) -> str | None:
        """The identity that it selected, such as "client_id 1111…", or None if it took what there is."""
        if self.asked is None or not self.asked.identity:
            return None
        return printable(f"{self.asked.identity_kind} {self.asked.identity}")


class Traffic:
    """What an endpoint was asked, bounded however long it runs; *listeners* are told of each request."""

    def __init__(self) -> None:
        self.last: deque[Entry] = deque(maxlen=_LAST)
        self.given: Counter[str] = Counter()
        """How many tokens, by resource; only resources that there was a token for, so that nobody can fill it."""
        self.refused = 0
        self.listeners: list[Callable[[Entry], object]] = []

    def observe(self, received: ReceivedRequest, asked: TokenAsked | None, status: int) -> None:
        """Take in one request that was answered."""
        wanted = None if asked else received.resource
        user_agent = received.headers.get("user-agent", "")
        entry = Entry(int(received.received_at), received.host, asked, wanted, status, received.remote, user_agent)
        self.last.append(entry)
        if asked and status == _OK:
            self.given[asked.resource] += 1
        else:
            self.refused += 1
        for listener in self.listeners:
            listener(entry)


def printable(text: str) -> str:
    """Return *text* without anything that a terminal would obey instead of showing it, and not for ever."""
    if not text.isprintable():  # As nearly every text is, which is found out fast.
        text = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
