"""Whether the source would still answer for the identity whose tokens are held: somebody may log in as another."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING

from aiomsi._schedule import LEAST_WAIT
from aiomsi._source import identity_key_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiomsi._clock import Clock, Timer
    from aiomsi._source import Source

__all__ = ["Lookout"]


class Lookout:
    """Remembers for which identity a source answers, and calls *look* every *interval* seconds while it is armed.

    *look* is a method, which is referred to weakly: a forgotten provider must not be kept alive. Only a key counts: as
    long as the source tells none, nothing is compared, and no timer set.
    """

    __slots__ = ("_clock", "_interval", "_key", "_look", "_source", "_timer")

    def __init__(self, source: Source, clock: Clock, interval: float, look: Callable[[], object]) -> None:
        self._source = source
        self._clock = clock
        self._interval = max(interval, LEAST_WAIT)
        self._look = weakref.WeakMethod(look)
        self._key: str | None = None  # The last one that was told.
        self._timer: Timer | None = None

    @property
    def lapsed(self) -> bool:
        """Whether an identity is known, but nothing would tell if it changed."""
        return self._key is not None and self._timer is None

    def arm(self) -> None:
        """Set the timer, unless it is set, or the source has never told for whom it answers."""
        if self._key is None:
            self._key = identity_key_of(self._source)
        if self.lapsed:
            self._timer = self._clock.call_later(self._interval, partial(_ring, self._look))

    def disarm(self) -> None:
        """Let nothing more happen by itself."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def has_changed(self) -> bool:
        """Return whether the source would answer for another identity than when it last told, and remember which."""
        former, self._key = self._key, identity_key_of(self._source) or self._key
        return former not in (None, self._key)


def _ring(look: weakref.WeakMethod[Callable[[], object]]) -> None:
    found = look()
    if found is not None:
        found()
