"""When one fetch asks once more. What happens between fetches is the provider's business."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from aiomsi._clock import sleep
from aiomsi._errors import EndpointError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiomsi._clock import Clock

__all__ = ["Patience", "persist"]

_T = TypeVar("_T")
_UPGRADE_STEP = 10.0  # Seconds between the attempts while a host is being upgraded.


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a host is asked again, with waits of 1, 2, 4, … seconds, or longer if it says so.

    *answers* counts the attempts after answers that mean "not now", *throttled* those after a 429, *network* those
    after no answer at all. *upgrade* is for how many seconds a 410 is waited out.
    """

    answers: int = 3
    throttled: int = 3
    network: int = 3
    upgrade: float = 0.0

    def wait(self, error: EndpointError, failures: int, *, elapsed: float) -> float | None:
        """Return the seconds until the next attempt, or None if there is to be none. Pure.

        *failures* are those so far, not counting a 410; *elapsed* are the seconds since the first attempt began.
        """
        if error.status == 410:
            wait = _UPGRADE_STEP if elapsed < self.upgrade else None
        else:
            special = {None: self.network, 429: self.throttled}
            wait = 2.0 ** (failures - 1) if failures <= special.get(error.status, self.answers) else None
        return None if wait is None else max(wait, error.retry_after or 0.0)


async def persist(
    attempt: Callable[[], Awaitable[_T]], patience: Patience, *, clock: Clock, until: float, limit: float | None = None
) -> _T:
    """Return what *attempt* returns, repeating it after an EndpointError as *patience* says.

    No attempt begins after *until* (monotonic seconds), nor later than *limit* seconds after the first.
    """
    began, failures = clock.monotonic(), 0
    last = until if limit is None else min(until, began + limit)
    while True:
        try:
            return await attempt()
        except EndpointError as error:
            failures += error.status != 410
            wait = patience.wait(error, failures, elapsed=clock.monotonic() - began)
            if wait is None or clock.monotonic() + wait >= last:
                raise
        await sleep(clock, wait)
