"""The protocol vectors, replayed: our client on one side of a socket, a server that says what they say on the other.

Those about challenges are replayed in `test_challenge`.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
from itertools import cycle
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from aioresponses import aioresponses
from support import Internet, PacedClock, internet

from aiomsi import (
    AccessToken,
    ConfigurationError,
    EndpointError,
    MalformedResponseError,
    SecurityError,
    SourceUnavailableError,
    TokenProvider,
    TokenRefusedError,
)
from aiomsi._slot import sha256_of
from aiomsi.sources import AzurePipelines, GitHubActions, ManagedIdentity, Surroundings, TokenRequest, WorkloadIdentity
from aiomsi.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from aiomsi.sources import Source

Vector = dict[str, Any]

VECTORS: list[Vector] = json.loads((Path(__file__).parent / "vectors.json").read_text())
ELSEWHERE = {"key_vault_challenge": 6, "claims_challenge": 6}  # In test_challenge.

PROBES = [v for v in VECTORS if v["source"] == "imds_probe"]
FETCHES = [v for v in VECTORS if v["source"] != "imds_probe" and v["source"] not in ELSEWHERE]
SCOPED = [v for v in FETCHES if "scope" in v]
SCOPES = [v for v in SCOPED if "token" in v["expect"]]
WRONG_SCOPES = [v for v in SCOPED if v["expect"].get("error_kind") == "config"]
BROKEN = [v for v in FETCHES if "transport_error" in v]
TOKENS = [v for v in FETCHES if v not in BROKEN and v not in SCOPED]

KINDS: dict[str, type[Exception]] = {
    "unavailable": SourceUnavailableError,
    "config": ConfigurationError,
    "identity_ambiguous": TokenRefusedError,
    "invalid_resource": TokenRefusedError,
    "auth_failed": TokenRefusedError,
    "bad_request": TokenRefusedError,
    "identity_not_found": TokenRefusedError,
    "identity_mismatch": SecurityError,
    "security": SecurityError,
    "not_ready": EndpointError,
    "gone": EndpointError,
    "throttled": EndpointError,
    "server_error": EndpointError,
    "invalid_response": MalformedResponseError,
}
FEDERATED = {"azure_pipelines", "github_actions"}
TENANT = "44444444-aaaa-4bbb-8ccc-000000000004"
NAMES = (
    "login.microsoftonline.com",
    "login.microsoftonline.us",
    "dev.azure.example",
    "pipelines.actions.example",
    "sni.aks.example",
)


class Replay:
    """A vector's hosts: a server for plain http and one for TLS, which give its answers and remember the requests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.legs: Iterator[Vector] = iter(())
        self.vouches = False
        self.requests: list[web.Request] = []
        self.forms: list[dict[str, str]] = []
        self.internet: Internet

    def play(self, vector: Vector) -> None:
        """Answer as *vector* says, from its first leg on; whatever is asked again is answered again."""
        legs = vector.get("exchange", [vector])
        self.vouches = vector["source"] in FEDERATED
        self.legs = cycle(leg["response"] for leg in legs)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.forms.append(form)
        if self.vouches and "client_assertion" in form:
            return web.json_response({"access_token": form["client_assertion"], "expires_in": 3600})
        answer = next(self.legs)
        content = answer["body"] if isinstance(answer["body"], str) else json.dumps(answer["body"])
        return web.Response(status=answer["status"], headers=answer["headers"], body=content.encode())


@pytest.fixture
async def replay(tmp_path: Path) -> AsyncIterator[Replay]:
    """Servers on loopback that stand for every host of the vectors."""
    replay = Replay(tmp_path)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", replay.handle)
    async with TestServer(application) as server, internet(tmp_path, replay.handle, *NAMES) as replay.internet:
        replay.port = server.port or 0
        yield replay


def placed(vector: Vector, replay: Replay) -> Surroundings:
    """Return what *vector* describes, its files in a folder and its hosts on loopback."""
    environ = {**vector["env"], **replay.internet.environ}
    for name in ("IDENTITY_ENDPOINT", "MSI_ENDPOINT", "AZURE_POD_IDENTITY_AUTHORITY_HOST"):
        if name in environ:
            secure = environ[name].startswith("https:")
            netloc = f"localhost:{replay.internet.port}" if secure else f"127.0.0.1:{replay.port}"
            environ[name] = urlsplit(environ[name])._replace(netloc=netloc).geturl()
    pin = environ.get("IDENTITY_SERVER_THUMBPRINT", "")
    if vector.get("tls", {}).get("peer_sha1") == pin.replace(":", "").lower() != "":
        digest = replay.internet.sha1
        colons = ":".join(digest[start : start + 2] for start in range(0, 40, 2)).upper()
        environ["IDENTITY_SERVER_THUMBPRINT"] = colons if ":" in pin else digest
    proxy = environ.get("AZURE_KUBERNETES_TOKEN_PROXY", "")
    environ["AZURE_KUBERNETES_TOKEN_PROXY"] = proxy.replace(
        "proxy.aks.example:8443", f"localhost:{replay.internet.port}"
    )
    for name, content in vector.get("files", {}).items():
        path = PureWindowsPath(name) if vector.get("platform") == "win32" else PurePosixPath(name)
        file = replay.folder.joinpath(*path.parts[1:])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(_content(content, replay))
    return Surroundings(
        environ=environ,
        platform=vector.get("platform", "linux"),
        root=replay.folder,
        imds_url=f"http://127.0.0.1:{replay.port}",
        arc_url=f"http://127.0.0.1:{replay.port}",
    )


def _content(content: Any, replay: Replay) -> bytes:
    if isinstance(content, str):
        return replay.internet.authority if "CERTIFICATE" in content else content.encode()
    if "content_repeat" in content:
        text, times = content["content_repeat"]
        return str(text * times).encode()
    return str(content.get("content", "")).encode()


def source(vector: Vector, surroundings: Surroundings) -> Source:
    """Return the source that *vector* is about."""
    args, identity = vector.get("args", {}), vector["identity"]
    named = {} if identity["type"] == "system" else {identity["type"]: identity["value"]}
    if vector["source"] == "azure_pipelines":
        return AzurePipelines(
            tenant_id=TENANT,
            client_id=identity["value"],
            service_connection_id=args["service_connection_id"],
            system_access_token=args["system_access_token"],
            surroundings=surroundings,
        )
    if vector["source"] == "github_actions":
        return GitHubActions(tenant_id=TENANT, client_id=identity["value"], surroundings=surroundings)
    if "use_token_proxy" in args:
        return WorkloadIdentity(use_token_proxy=True, surroundings=surroundings)
    return ManagedIdentity(**named, client_capabilities=args.get("client_capabilities", ()), surroundings=surroundings)


def check_request(vector: Vector, request: web.Request, form: dict[str, str], replay: Replay) -> None:
    expected = vector["expect_request"]
    url = urlsplit(expected["url"])
    assert request.method == expected["method"]
    assert request.path == url.path
    assert sorted(request.query.items()) == sorted(expected["query"].items())
    assert {name: request.headers[name] for name in expected["headers"]} == expected["headers"]
    wanted = expected["body"] or {}
    assert {name: json.loads(value) if name == "claims" else value for name, value in form.items()} == wanted
    assert request.secure is (url.scheme == "https")
    if replay.internet.hosts:
        assert set(replay.internet.hosts) >= {f"{url.hostname}:443"}
    for name in vector.get("expect_headers_absent", ()):
        assert name not in request.headers
    for name in vector.get("expect_query_absent", ()):
        assert name not in request.query


async def replayed(
    vector: Vector, surroundings: Surroundings, clock: PacedClock
) -> tuple[AccessToken | BaseException, list[float]]:
    """Fetch what *vector* asks for; return what came of it, and the waits between attempts."""
    args = vector.get("args", {})
    request = TokenRequest(
        vector["resource"],
        claims=args.get("claims"),
        rejected_sha256=sha256_of(args["cached_token"]) if "cached_token" in args else None,
        clock=clock,
        deadline=clock.monotonic() + 90,
    )
    fetching = asyncio.ensure_future(source(vector, surroundings).fetch(request))
    waits = await clock.pace(fetching)
    return fetching.exception() or fetching.result(), waits


def check_outcome(vector: Vector, outcome: AccessToken | BaseException, waits: list[float]) -> None:
    expected = vector["expect"]
    if "error_kind" in expected:
        kind = KINDS[expected["error_kind"]]
        if expected["error_kind"] == "identity_not_found" and vector["source"] == "imds":
            kind = SourceUnavailableError
        assert type(outcome) is kind, outcome
    else:
        assert isinstance(outcome, AccessToken), outcome
        assert outcome.token == expected["token"]
        assert outcome.expires_on == expected["expires_on"] or expected["expires_on"] is None
        assert (outcome.resource, outcome.source) == (vector["resource"], vector["source"])
    assert bool(waits) is expected["retry"]
    assert sum(waits) >= expected.get("retry_min_total_s", 0)
    if waits:
        assert waits[0] >= expected.get("min_delay_s", 0)
        assert waits[0] == expected.get("retry_after_s", waits[0])


def named(vector: Vector) -> str:
    return str(vector["name"])


def forbid(vector: Vector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the files unreadable that *vector* says are, even for a process that may read everything."""
    forbidden = {PurePosixPath(name).name for name, file in vector.get("files", {}).items() if "error" in file}
    opened = os.open

    def open_(path: Any, *arguments: Any) -> int:
        if Path(path).name in forbidden:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, *arguments)

    monkeypatch.setattr("aiomsi.sources._files.os.open", open_)


@pytest.mark.parametrize("vector", TOKENS, ids=named)
async def test_a_vector(vector: Vector, replay: Replay, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent, what comes of the answer, and whether it is asked again, are as the vector says."""
    for name in {"HTTP_PROXY", "http_proxy"} & set(vector["env"]):
        monkeypatch.setenv(name, vector["env"][name])
    forbid(vector, monkeypatch)
    replay.play(vector)
    outcome, waits = await replayed(vector, placed(vector, replay), PacedClock(vector["now"]))
    check_outcome(vector, outcome, waits)
    legs = [] if vector["expect_request"] is None else vector.get("exchange", [vector]) * (len(waits) + 1)
    asked = [*zip(replay.requests, replay.forms, strict=True)]
    if vector["source"] in FEDERATED and isinstance(outcome, AccessToken):
        del asked[-1]  # The exchange for a token, which other vectors show.
    assert len(asked) == len(legs) <= vector.get("max_requests", 99)
    for leg, (request, form) in zip(legs, asked, strict=True):
        check_request({**vector, **leg}, request, form, replay)


@pytest.mark.parametrize("vector", BROKEN, ids=named)
async def test_a_vector_of_a_broken_network(vector: Vector, replay: Replay) -> None:
    """Where nobody answers it is tried again, and where nothing but silence named the host it is not there."""
    broken = {
        "connect_timeout": aiohttp.ConnectionTimeoutError(),
        "read_timeout": aiohttp.ServerTimeoutError(),
    }
    with aioresponses() as network:
        network.get(re.compile(".*"), exception=broken[vector["transport_error"]], repeat=True)
        outcome, waits = await replayed(vector, placed(vector, replay), PacedClock(vector["now"]))
    assert isinstance(outcome, SourceUnavailableError)
    assert isinstance(outcome.__cause__, EndpointError)
    assert (vector["expect"]["error_kind"], bool(waits)) == ("network", vector["expect"]["retry"])


@pytest.mark.parametrize("vector", [v for v in TOKENS if "refresh_on" in v["expect"]], ids=named)
async def test_a_refresh_vector(vector: Vector, replay: Replay) -> None:
    """The moment of refresh is the host's, else half-life; a short token's host says nothing, and 300 s remain."""
    replay.play(vector)
    clock = ManualClock(vector["now"])
    async with TokenProvider(source(vector, placed(vector, replay)), clock=clock) as provider:
        token = await provider.access_token(vector["resource"])
    assert token.refresh_on == (vector["expect"]["refresh_on"] or token.expires_on - 300)


@pytest.mark.parametrize("vector", SCOPES, ids=named)
async def test_a_scope_vector(vector: Vector, replay: Replay) -> None:
    """A scope is sent as the resource that it names."""
    replay.play(vector)
    clock = ManualClock(vector["now"])
    async with TokenProvider(source(vector, placed(vector, replay)), clock=clock) as provider:
        assert await provider.token(vector["scope"]) == vector["expect"]["token"]
    check_request(vector, replay.requests[0], replay.forms[0], replay)


@pytest.mark.parametrize("vector", WRONG_SCOPES, ids=named)
async def test_a_vector_of_wrong_arguments(vector: Vector, replay: Replay) -> None:
    """What names no single resource is told, and nothing is sent."""
    async with TokenProvider(source(vector, placed(vector, replay))) as provider:
        with pytest.raises((TypeError, ValueError), match="resource"):
            await provider.token(vector["scope"])
    assert replay.requests == []


@pytest.mark.parametrize("vector", PROBES, ids=named)
async def test_a_probe_vector(vector: Vector, replay: Replay) -> None:
    """IMDS is recognised by its own answer to a request without header and query, and only where it must be."""
    replay.play(vector)
    machine = ManagedIdentity(surroundings=placed(vector, replay))
    found = await machine.here()
    if vector["expect_request"] is None:
        assert found is vector["expect"]["available"]
        assert replay.requests == []
        return
    assert found is None
    assert await machine.probe(TokenRequest("unused")) is vector["expect"]["available"]
    check_request(vector, replay.requests[0], replay.forms[0], replay)
    assert len(replay.requests) == 1
    assert await machine.here() is (True if vector["expect"]["available"] else None)


def test_no_vector_is_left_out() -> None:
    """Each vector is replayed here or in `test_challenge`."""
    kinds = [TOKENS, BROKEN, SCOPES, WRONG_SCOPES, PROBES]
    assert [len(kind) for kind in kinds] == [139, 2, 10, 3, 3]
    assert sum(map(len, kinds)) + sum(ELSEWHERE.values()) == len(VECTORS) == 169
