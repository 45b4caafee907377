"""The way of a request through an endpoint: whom it asks, whether it is let in, what it gets, what is kept of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, TypeAlias

from .answers import Answers
from .faults import Answer
from .hits import Tally
from .playing import play, respond
from .protocol import admit, hosts_at, recognise
from .received import BODY_LIMIT, ReceivedRequest, receive
from .script import Performance, Script

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aiohttp import web

    from .guard import Guard
    from .keyring import Keyring
    from .protocol import Host
    from .tokens import Issue, TokenAsked

Observer: TypeAlias = "Callable[[ReceivedRequest, TokenAsked | None, Answer], object]"
"""Told of each answer: the request, what it asked for if it did so properly, and what it gets.

Who asked properly and left before there was an answer seems to get the status 499, as many servers call it.
"""

_MOST_PATHS = 100
_NOTHING_HERE = "Nobody gives out tokens at this path."
_LEFT = Answer(499, {"message": "The connection ended before there was an answer."})


class Reception:
    """Takes each request through the host that it speaks to; what its arguments mean, `IdentityEndpoint` says.

    *names* are what a Host header may call the endpoint. *latency*, in seconds, and what is being performed may be
    changed at any time.
    """

    def __init__(
        self,
        rows: Sequence[Host],
        keyring: Keyring,
        issue: Issue,
        wall: Callable[[], float],
        *,
        guard: Guard | None,
        names: frozenset[str],
        remembered: int | None,
        observe: Observer | None,
    ) -> None:
        # Whoever asks chooses the paths, so only so many are remembered.
        self._hosts_at = lru_cache(maxsize=_MOST_PATHS)(partial(hosts_at, rows))
        self._keyring = keyring
        self._answers = Answers(issue, wall)
        self._wall = wall
        self._guard = guard
        self._names = names
        self._remembered = remembered
        self._observe = observe
        self.latency = 0.0
        self.requests: list[ReceivedRequest] = []
        self.token_requests: list[ReceivedRequest] = []
        self.tally = Tally()
        self.perform(Script())

    def perform(self, script: Script) -> None:
        """Play *script* from now on."""
        self._performance = Performance(script, self._wall())

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer *request*."""
        now = self._wall()
        here = self._hosts_at(request.path, tls=request.scheme == "https")
        host = recognise(here, request.query.get("api-version"), now)
        received = await receive(request, now, None if isinstance(host, Answer) else host.name)
        self._remember(self.requests, received)
        if (objection := self._objection(received)) is not None:
            return await self._refuse(received, objection, {})
        if isinstance(host, Answer):
            return await self._refuse(received, host, {})
        verdict = await admit(host, received, self._keyring)
        if isinstance(verdict, Answer):
            return await self._refuse(received, verdict, host.headers)
        return await self._serve(request, host, received, verdict)

    async def _serve(
        self, request: web.BaseRequest, host: Host, received: ReceivedRequest, asked: TokenAsked
    ) -> web.StreamResponse:
        """Answer the proper question *asked* as the script wants it."""
        self._remember(self.token_requests, received)
        self.tally.admit(host.name, asked.resource)
        step = self._performance.next_step(received.received_at)
        try:
            await self._linger()
            if step is None:
                reply = await self._answers.answer(host, asked)
                response: web.StreamResponse = respond(reply, host.headers)
            else:
                hand_out = partial(self._answers.answer, host, asked, step)
                response = await play(step, request, hand_out, host.headers)
                reply = Answer(response.status)
        except asyncio.CancelledError:
            self._tell(received, asked, _LEFT)
            raise
        self._tell(received, asked, reply)
        return response

    def _objection(self, received: ReceivedRequest) -> Answer | None:
        if not received.whole:
            status = 413 if len(received.body) == BODY_LIMIT else 400
            return _forbidden(status, "The body is too long, too slow, or not what its headers say.")
        said = None if self._guard is None else self._guard.objection(received, self._names)
        return None if said is None else _forbidden(403, said)

    async def _refuse(self, received: ReceivedRequest, refusal: Answer, always: Mapping[str, str]) -> web.Response:
        self.tally.refuse()
        await self._linger()
        if self._guard is not None and not refusal.body:  # Who asks for real tokens is not left without a word.
            message = _NOTHING_HERE if received.host is None else self._guard.advice
            refusal = replace(refusal, body={"statusCode": refusal.status, "message": message})
        self._tell(received, None, refusal)
        return respond(refusal, always)

    async def _linger(self) -> None:
        if self.latency:
            await asyncio.sleep(self.latency)

    def _remember(self, record: list[ReceivedRequest], received: ReceivedRequest) -> None:
        if self._remembered == 0:
            return
        record.append(received)
        if self._remembered is not None and len(record) > self._remembered:
            del record[0]

    def _tell(self, received: ReceivedRequest, asked: TokenAsked | None, answer: Answer) -> None:
        if self._observe is not None:
            self._observe(received, asked, answer)


def _forbidden(status: int, message: str) -> Answer:
    return Answer(status, {"error": {"code": "Forbidden", "message": message}})
