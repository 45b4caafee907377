"""The protocol vectors, replayed: our client on one side of a socket, a server that says what they say on the other.

`vectors.json` holds requests and answers of every host; this file replays those of the hosts that are built.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from aioresponses import aioresponses
from support import PacedClock

from aiomsi import (
    AccessToken,
    EndpointError,
    MalformedResponseError,
    SourceUnavailableError,
    TokenProvider,
    TokenRefusedError,
)
from aiomsi.sources import ManagedIdentity, Surroundings, TokenRequest
from aiomsi.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Vector = dict[str, Any]

VECTORS: list[Vector] = json.loads((Path(__file__).parent / "vectors.json").read_text())
BUILT = {"app_service", "imds"}

TOKENS = [v for v in VECTORS if v["source"] in BUILT and v["expect_request"] is not None]
NOTHING_SENT = [v for v in VECTORS if v["source"] in BUILT and v["expect_request"] is None]
PROBES = [v for v in VECTORS if v["source"] == "imds_probe"]

KINDS: dict[str, type[Exception]] = {
    "unavailable": SourceUnavailableError,
    "identity_ambiguous": TokenRefusedError,
    "invalid_resource": TokenRefusedError,
    "auth_failed": TokenRefusedError,
    "bad_request": TokenRefusedError,
    "identity_not_found": TokenRefusedError,
    "not_ready": EndpointError,
    "gone": EndpointError,
    "throttled": EndpointError,
    "server_error": EndpointError,
    "invalid_response": MalformedResponseError,
}


class Replay:
    """A server that gives a vector's answer to everything, and remembers what it was asked."""

    def __init__(self) -> None:
        self.port = 0
        self.answer: Vector | None = None
        self.requests: list[web.Request] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        assert self.answer is not None
        body = self.answer["body"]
        content = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=self.answer["status"], headers=self.answer["headers"], body=content.encode())


@pytest.fixture
async def replay() -> AsyncIterator[Replay]:
    """A server on loopback that stands for every host of the vectors."""
    replay = Replay()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", replay.handle)
    async with TestServer(application) as server:
        replay.port = server.port or 0
        yield replay


def surroundings(vector: Vector, port: int) -> Surroundings:
    """Return what *vector* describes, with its host replaced by a port on loopback."""
    environ = dict(vector["env"])
    for name in ("IDENTITY_ENDPOINT", "AZURE_POD_IDENTITY_AUTHORITY_HOST"):
        if name in environ:
            environ[name] = urlsplit(environ[name])._replace(netloc=f"127.0.0.1:{port}").geturl()
    return Surroundings(environ=environ, root=Path("/nowhere"), imds_url=f"http://127.0.0.1:{port}")


def source(vector: Vector, port: int) -> ManagedIdentity:
    selector = (
        {} if vector["identity"]["type"] == "system" else {vector["identity"]["type"]: vector["identity"]["value"]}
    )
    capabilities = vector.get("args", {}).get("client_capabilities", ())
    return ManagedIdentity(**selector, client_capabilities=capabilities, surroundings=surroundings(vector, port))


def check_request(vector: Vector, request: web.Request) -> None:
    expected = vector["expect_request"]
    assert request.method == expected["method"]
    assert request.path == urlsplit(expected["url"]).path
    assert sorted(request.query.items()) == sorted(expected["query"].items())
    assert {name: request.headers[name] for name in expected["headers"]} == expected["headers"]
    for name in vector.get("expect_headers_absent", ()):
        assert name not in request.headers
    for name in vector.get("expect_query_absent", ()):
        assert name not in request.query


async def replayed(vector: Vector, port: int, clock: PacedClock) -> tuple[AccessToken | BaseException, list[float]]:
    """Fetch what *vector* asks for; return what came of it, and the waits between attempts."""
    request = TokenRequest(
        vector["resource"],
        claims=vector.get("args", {}).get("claims"),
        clock=clock,
        deadline=clock.monotonic() + 90,
    )
    fetching = asyncio.ensure_future(source(vector, port).fetch(request))
    waits = await clock.pace(fetching)
    return fetching.exception() or fetching.result(), waits


def check_outcome(vector: Vector, outcome: AccessToken | BaseException, waits: list[float]) -> None:
    expected = vector["expect"]
    if "error_kind" in expected:
        kind = KINDS[expected["error_kind"]]
        if kind is TokenRefusedError and expected["error_kind"] == "identity_not_found" and vector["source"] == "imds":
            kind = SourceUnavailableError
        assert type(outcome) is kind, outcome
    else:
        assert isinstance(outcome, AccessToken)
        assert (outcome.token, outcome.expires_on) == (expected["token"], expected["expires_on"])
        assert (outcome.resource, outcome.source) == (vector["resource"], vector["source"])
    assert bool(waits) is expected["retry"]
    assert sum(waits) >= expected.get("retry_min_total_s", 0)
    if waits:
        assert waits[0] >= expected.get("min_delay_s", 0)
        assert waits[0] == expected.get("retry_after_s", waits[0])


def named(vector: Vector) -> str:
    return str(vector["name"])


@pytest.mark.parametrize("vector", [v for v in TOKENS if "transport_error" not in v], ids=named)
async def test_a_token_vector(vector: Vector, replay: Replay, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent, what comes of the answer, and whether it is asked again, are as the vector says."""
    for name in {"HTTP_PROXY", "http_proxy"} & set(vector["env"]):
        monkeypatch.setenv(name, vector["env"][name])
    replay.answer = vector["response"]
    clock = PacedClock(vector["now"])
    outcome, waits = await replayed(vector, replay.port, clock)
    check_outcome(vector, outcome, waits)
    for request in replay.requests:
        check_request(vector, request)
    assert len(replay.requests) == len(waits) + 1 <= vector.get("max_requests", 99)


@pytest.mark.parametrize("vector", [v for v in TOKENS if "transport_error" in v], ids=named)
async def test_a_vector_of_a_broken_network(vector: Vector) -> None:
    """Where nobody answers it is tried again, and where nothing but silence named the host it is not there."""
    broken = {
        "connect_timeout": aiohttp.ConnectionTimeoutError(),
        "read_timeout": aiohttp.ServerTimeoutError(),
    }
    with aioresponses() as network:
        network.get(re.compile(".*"), exception=broken[vector["transport_error"]], repeat=True)
        outcome, waits = await replayed(vector, 1, PacedClock(vector["now"]))
    assert isinstance(outcome, SourceUnavailableError)
    assert isinstance(outcome.__cause__, EndpointError)
    assert (vector["expect"]["error_kind"], bool(waits)) == ("network", vector["expect"]["retry"])


@pytest.mark.parametrize("vector", [v for v in TOKENS if "refresh_on" in v["expect"]], ids=named)
async def test_a_refresh_vector(vector: Vector, replay: Replay) -> None:
    """The moment of refresh is the host's, else half-life; a short token's host says nothing, and 300 s remain."""
    replay.answer = vector["response"]
    clock = ManualClock(vector["now"])
    async with TokenProvider(source(vector, replay.port), clock=clock) as provider:
        token = await provider.access_token(vector["resource"])
    assert token.refresh_on == (vector["expect"]["refresh_on"] or token.expires_on - 300)


@pytest.mark.parametrize("vector", [v for v in TOKENS if "scope" in v], ids=named)
async def test_a_scope_vector(vector: Vector, replay: Replay) -> None:
    """A scope is sent as the resource that it names."""
    replay.answer = vector["response"]
    async with TokenProvider(source(vector, replay.port), clock=ManualClock(vector["now"])) as provider:
        assert await provider.token(vector["scope"]) == vector["expect"]["token"]
    check_request(vector, replay.requests[0])


@pytest.mark.parametrize("vector", NOTHING_SENT, ids=named)
async def test_a_vector_of_wrong_arguments(vector: Vector, replay: Replay) -> None:
    """What names no single resource is told, and nothing is sent."""
    assert vector["expect"]["error_kind"] == "config"
    async with TokenProvider(source(vector, replay.port)) as provider:
        with pytest.raises((TypeError, ValueError), match="resource"):
            await provider.token(vector["scope"])
    assert replay.requests == []


@pytest.mark.parametrize("vector", PROBES, ids=named)
async def test_a_probe_vector(vector: Vector, replay: Replay) -> None:
    """IMDS is recognised by its own answer to a request without header and query, and only where it must be."""
    replay.answer = vector["response"]
    machine = ManagedIdentity(surroundings=surroundings(vector, replay.port))
    found = await machine.here()
    if vector["expect_request"] is None:
        assert found is vector["expect"]["available"]
        assert replay.requests == []
        return
    assert found is None
    assert await machine.probe(TokenRequest("unused")) is vector["expect"]["available"]
    (request,) = replay.requests
    check_request(vector, request)
    assert await machine.here() is (True if vector["expect"]["available"] else None)


def test_no_vector_is_left_out() -> None:
    """Each vector of the hosts that are built is replayed by one of the tests above."""
    assert len(TOKENS) + len(NOTHING_SENT) == sum(vector["source"] in BUILT for vector in VECTORS) == 86
    assert len(PROBES) == 3
