"""A gate at which requests wait until the test lets them go on."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future


class Gate:
    """Hold every request that comes to it until the test opens it; then answer them normally.

    Opening it lets through those who wait, and the gate holds again whoever comes next: one gate may be several steps
    of a script, or its `then`. It may be used from any thread and any event loop.

        gate = Gate()
        endpoint.script(gate)
        caller = asyncio.create_task(provider.token(resource))
        await gate.reached()  # Where nothing can be awaited: gate.wait().
        ...  # The request is in the air now, for as long as you like.
        gate.open()
    """

    __slots__ = ("_held", "_lock", "_watchers")

    def __init__(self) -> None:
        self._lock = threading.Lock()  # Held for a moment only, never over an await.
        self._held: set[Future[None]] = set()
        self._watchers: list[tuple[int, Future[None]]] = []

    def __repr__(self) -> str:
        return f"<Gate held={self.held}>"

    @property
    def held(self) -> int:
        """How many requests wait at the gate now."""
        return len(self._held)

    async def reached(self, count: int = 1) -> None:
        """Wait until at least *count* requests are held at the same time."""
        await asyncio.wrap_future(self._watch(count))

    def wait(self, count: int = 1, timeout: float = 10.0) -> None:
        """Block until at least *count* requests are held at the same time; TimeoutError after *timeout* seconds.

        Not for the thread of an event loop that has to do something before they are.
        """
        self._watch(count).result(timeout)

    def open(self) -> None:
        """Let through all requests that are held now."""
        with self._lock:
            held, self._held = self._held, set()
        for place in held:
            _settle(place)

    async def hold(self) -> None:
        """Wait in front of the gate: the endpoint does, on behalf of a request."""
        place: Future[None] = Future()
        with self._lock:
            self._held.add(place)
            content = [watcher for count, watcher in self._watchers if count <= len(self._held)]
            self._watchers = [(count, watcher) for count, watcher in self._watchers if count > len(self._held)]
        for watcher in content:
            _settle(watcher)
        try:
            await asyncio.wrap_future(place)
        finally:
            with self._lock:
                self._held.discard(place)

    def _watch(self, count: int) -> Future[None]:
        """Return a future that ends as soon as *count* requests are held."""
        watcher: Future[None] = Future()
        with self._lock:
            if count > len(self._held):
                self._watchers.append((count, watcher))
                return watcher
        watcher.set_result(None)
        return watcher


def _settle(future: Future[None]) -> None:
    """End *future*, unless whoever waited for it has left."""
    if future.set_running_or_notify_cancel():
        future.set_result(None)
