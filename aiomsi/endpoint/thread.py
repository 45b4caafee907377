"""A thread with an event loop of its own, for tests that have none, or one that comes and goes."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from anyio.from_thread import start_blocking_portal

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager


class LoopThread:
    """Where one asynchronous context is open on behalf of callers that are not asynchronous."""

    __slots__ = ("_stack",)

    def __init__(self) -> None:
        self._stack = ExitStack()

    def enter(self, context: AbstractAsyncContextManager[object]) -> None:
        """Start the thread, and enter *context* in it; raises what that raises, and then the thread is gone."""
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal(name="aiomsi.endpoint"))
            stack.enter_context(portal.wrap_async_context_manager(context))
            self._stack = stack.pop_all()

    def exit(self) -> None:
        """Leave the context, and wait for the end of the thread; doing it twice does no harm."""
        self._stack.close()
