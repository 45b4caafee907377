"""Who asked `aiomsi serve` for what: the last requests, and how often each resource was asked for."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from aiomsi.endpoint import Answer, ReceivedRequest, TokenAsked

__all__ = ["Entry", "Traffic", "printable"]

_HERE = (None, "127.0.0.1", "::1")
_LAST = 12
_MOST_NEWS = 100  # More in a fraction of a second is nothing that anybody reads.
_MOST_RESOURCES = 1_000
_LONGEST = 200  # Characters of what a client says of itself or wants.


Seen: TypeAlias = "tuple[ReceivedRequest, TokenAsked | None, Answer]"


@dataclass(frozen=True, slots=True)
class Entry:
    """One request, in words that can be shown on any terminal; *at* is Unix time in seconds, UTC."""

    at: float
    client: str
    protocol: str
    resource: str
    identity: str | None
    """The identity that it selected, such as "client_id 1111…", or None if it took what there is."""
    status: int
    reason: str | None
    """Why there was no token."""


class Traffic:
    """What an endpoint was asked, bounded however long it runs and whatever is asked."""

    def __init__(self) -> None:
        # Only kept here, and put into words when they are shown: whoever asks waits for this.
        self._last: deque[Seen] = deque(maxlen=_LAST)
        self._news: deque[Seen] = deque(maxlen=_MOST_NEWS)
        self._seen = 0
        self._told = 0  # Of those; by a thread of its own.
        self.given: Counter[str] = Counter()
        """How many tokens, by resource."""
        self.refused = 0

    @property
    def last(self) -> list[Entry]:
        """The last requests."""
        return [_entry(*seen) for seen in self._last.copy()]

    def observe(self, received: ReceivedRequest, asked: TokenAsked | None, answer: Answer) -> None:
        """Take in one request that was answered."""
        seen = received, asked, answer
        self._last.append(seen)
        self._news.append(seen)
        self._seen += 1
        if answer.status != HTTPStatus.OK or asked is None:
            self.refused += 1
        elif asked.resource in self.given or len(self.given) < _MOST_RESOURCES:
            self.given[asked.resource] += 1

    def news(self) -> tuple[int, list[Entry]]:
        """Return the requests since this was last asked: how many are left out, and the newest, which are not."""
        seen = self._seen
        newest = [_entry(*self._news.popleft()) for _ in range(len(self._news))]
        left_out = max(0, seen - self._told - len(newest))  # Some of the newest may have come since.
        self._told += left_out + len(newest)
        return left_out, newest


def _entry(received: ReceivedRequest, asked: TokenAsked | None, answer: Answer) -> Entry:
    """Return what there is to say of a request that got *answer*."""
    product = received.headers.get("user-agent", "").split(" ")[0]
    where = "" if received.remote in _HERE else f" at {received.remote}"
    return Entry(
        at=received.received_at,
        client=printable(f"{product or 'somebody'}{where}"),
        protocol=received.host or "unknown",
        resource=printable(asked.resource if asked else received.resource or "-"),
        identity=printable(f"{asked.identity_kind} {asked.identity}") if asked and asked.identity else None,
        status=answer.status,
        reason=None if answer.status == HTTPStatus.OK else _reason(answer),
    )


def _reason(answer: Answer) -> str | None:
    """Return what *answer* says, in whichever of the hosts' shapes it does."""
    said = answer.body if isinstance(answer.body, Mapping) else {}
    nested = said.get("error")
    where = (said, nested if isinstance(nested, Mapping) else {})
    found = (part.get(name) for part in where for name in ("message", "exceptionMessage", "error_description"))
    text = next((text for text in found if isinstance(text, str)), None)
    return None if text is None else printable(text.replace("\n", " "))


def printable(text: str) -> str:
    """Return *text* without anything that a terminal would obey instead of showing it, and not for ever."""
    if not text.isprintable():  # As nearly every text is, which is found out fast.
        text = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
