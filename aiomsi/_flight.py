"""Many callers, one call.

A flight is one asynchronous call that belongs to none of the callers who wait for it. Each of them awaits a future of
his own, so that a caller's cancellation touches only himself and costs the same however many others there are. (With
`asyncio.shield` on one shared task, cancelling N callers takes time in proportion to N squared.)
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["Flight"]

T = TypeVar("T")


class Flight(Generic[T]):
    """One call in the air, and those who wait for it.

    *landed* is called exactly once, before any waiter wakes, and returns what every waiter gets.
    """

    __slots__ = ("_landed", "_seats", "_task")

    def __init__(
        self, call: Coroutine[Any, Any, T], landed: Callable[[Flight[T], T | BaseException], T | BaseException]
    ) -> None:
        self._seats: dict[asyncio.Future[T | BaseException], None] = {}
        self._landed: Callable[[Flight[T], T | BaseException], T | BaseException] | None = landed
        # An empty context, so that the first caller's trace span and request do not adopt the call.
        # (Not `context=`, which a task factory of the older signature does not take.)
        self._task = contextvars.Context().run(asyncio.get_running_loop().create_task, call)
        # The outcome is taken in a callback rather than at the coroutine's end, which an eager task may have reached
        # before its owner could store the flight.
        self._task.add_done_callback(self._on_done, context=contextvars.Context())

    @property
    def task(self) -> asyncio.Task[T]:
        """The task that makes the call, for whoever must outlast it."""
        return self._task

    @property
    def waiting(self) -> int:
        """How many callers wait."""
        return len(self._seats)

    def board(self) -> asyncio.Future[T | BaseException]:
        """Return a future for one more waiter, who must `leave` however his wait ends.

        It results in what came of the call, an error included: an error set on the future itself would be logged as
        never retrieved if its waiter was cancelled in the same moment.
        """
        seat: asyncio.Future[T | BaseException] = asyncio.get_running_loop().create_future()
        self._seats[seat] = None
        return seat

    def leave(self, seat: asyncio.Future[T | BaseException]) -> None:
        """Forget a waiter; the flight goes on even without any."""
        self._seats.pop(seat, None)

    def release(self, outcome: T | BaseException) -> None:
        """Give *outcome* to all who wait now; the flight goes on."""
        seats, self._seats = self._seats, {}
        for seat in seats:
            if not seat.done():
                seat.set_result(outcome)

    def give_up(self, error: BaseException) -> None:
        """End the flight with *error* now: its task is cancelled, but not waited for."""
        self._land(error)
        self._task.cancel()

    def _on_done(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self._land(asyncio.CancelledError())
        else:
            error = task.exception()
            self._land(task.result() if error is None else error)

    def _land(self, outcome: T | BaseException) -> None:
        landed, self._landed = self._landed, None
        if landed is None:
            return
        try:
            outcome = landed(self, outcome)
        except Exception as error:  # noqa: BLE001  (whatever is wrong with the owner, nobody may wait for ever)
            outcome = error
        self.release(outcome)
