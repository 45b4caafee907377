"""How often an endpoint was asked, and for what."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from questions import EVERY_HOST, VAULT, Client, client_of

from aiomsi.endpoint import Hits, IdentityEndpoint, Refused
from aiomsi.endpoint.hits import Tally

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with client_of(tmp_path) as client:
        yield client


async def test_each_request_is_counted_once(client: Client, tmp_path: Path) -> None:
    """Token requests count by host and resource, however they are answered, and what hosts turn away counts apart."""
    async with IdentityEndpoint(hosts=EVERY_HOST, root=tmp_path) as endpoint:
        before = endpoint.hits
        endpoint.script(Refused(503))
        for host in EVERY_HOST:
            await client.ask(endpoint, host)
        await client.ask(endpoint, "imds", resource="https://other")
        await client.ask(endpoint, "imds", resource=None)
        await client.session.get(endpoint.url)
        hits = endpoint.hits
        assert hits.by_host == {**dict.fromkeys(EVERY_HOST, 1), "imds": 2}
        assert hits.by_resource == {VAULT: len(EVERY_HOST), "https://other": 1}
        assert hits.refused == 3  # Arc's challenge is one of them.
        assert (hits.token_requests, hits.total) == (len(endpoint.token_requests), len(endpoint.requests))
        assert before.total == 0


async def test_what_was_not_asked_is_zero() -> None:
    """A test may ask about a host or resource that nobody asked for."""
    hits = IdentityEndpoint().hits
    assert (hits.by_host["imds"], hits.by_resource[VAULT], hits.total) == (0, 0, 0)


def test_strangers_cannot_fill_the_memory() -> None:
    """Only so many resources are told apart; the counts stay true."""
    tally = Tally()
    for number in range(1_500):
        tally.admit("imds", f"https://{number}")
    tally.admit("imds", "https://7")
    hits = tally.hits
    assert len(hits.by_resource) == 1_001
    assert (hits.by_resource["(others)"], hits.by_resource["https://7"]) == (500, 2)
    assert hits.token_requests == hits.by_resource.total() == 1_501


def test_hits_are_a_moment() -> None:
    """What was read does not change afterwards."""
    tally = Tally()
    before = tally.hits
    tally.admit("imds", VAULT)
    tally.refuse()
    assert before.total == 0
    assert tally.hits == Hits(1, Counter(imds=1), Counter({VAULT: 1}))
