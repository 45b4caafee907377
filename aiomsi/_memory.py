"""Which resources are remembered: so many at most, and rather those that are in use."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiomsi._slot import Slot

__all__ = ["Memory", "SlotName", "TenantResource"]


@dataclass(frozen=True, slots=True)
class TenantResource:
    """The name of a slot for one tenant, which no caller's text equals."""

    resource: str
    tenant_id: str


SlotName: TypeAlias = str | TenantResource


class Memory:
    """At most *most* slots, except while more of them are busy; those not used for longest go first."""

    __slots__ = ("_most", "_queue", "by_name")

    def __init__(self, most: int) -> None:
        self.by_name: dict[SlotName, Slot] = {}
        """Each slot by each of its names: all that a warm call looks at."""
        self._most = most
        # Each slot once, with its names; the first is the next that may have to make room.
        self._queue: deque[tuple[Slot, tuple[SlotName, ...]]] = deque()

    def __iter__(self) -> Iterator[Slot]:
        """Return the slots of this moment. May be called from any thread."""
        return iter([slot for slot, _ in self._queue.copy()])

    def add(self, slot: Slot, *names: SlotName) -> None:
        """Remember *slot* by its *names*, and forget others until there is room for it."""
        self._make_room()
        self._queue.append((slot, names))
        self.by_name |= dict.fromkeys(names, slot)

    def clear(self) -> list[Slot]:
        """Forget all slots, and return them."""
        slots = list(self)
        self._queue.clear()
        self.by_name.clear()
        return slots

    def _make_room(self) -> None:
        # To look at all that are busy each time would make n cold calls at once cost n times n.
        patience = 2 * self._most
        while patience and len(self._queue) >= self._most:
            slot, names = self._queue[0]
            if slot.busy:
                patience -= 1
                self._queue.rotate(-1)
            elif slot.used:
                slot.used, slot.spared = False, True
                self._queue.rotate(-1)
            else:
                self._queue.popleft()
                slot.retire()
                for name in names:
                    del self.by_name[name]
