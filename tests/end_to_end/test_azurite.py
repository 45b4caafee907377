"""From the endpoint through both ways of sending tokens to Azurite, Microsoft's emulator of Azure Storage, and back."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import subprocess
import sys
import time
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import aiohttp
import pytest
import trustme
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline.transport import AioHttpTransport
from azure.storage.blob.aio import BlobServiceClient
from support import internet

from aiomsi import AZURE_PUBLIC_CLOUD, BearerAuth, TokenProvider
from aiomsi.adapters.azure_core import TokenCredential
from aiomsi.endpoint import IdentityEndpoint
from aiomsi.sources import ManagedIdentity, Surroundings
from aiomsi.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, web

pytestmark = [
    pytest.mark.azurite,
    pytest.mark.skipif(
        sys.platform == "win32", reason="npm's link to the program is a script there, which it outlives"
    ),
]

HINT = "set AIOMSI_TEST_AZURITE to the path of azurite-blob (npm install azurite: node_modules/.bin/azurite-blob)"
ACCOUNT = "devstoreaccount1"
HOST = f"{ACCOUNT}.blob.core.windows.net"
STORAGE = "https://storage.azure.com"
VERSION = {"x-ms-version": "2023-11-03"}
TWO_DAYS = 172_800  # Seconds; a token of the endpoint lives for one day.
CROWD = 60


@dataclass(frozen=True)
class Azurite:
    """An Azurite that runs, and the authority that its certificate is from."""

    port: int
    authority: trustme.CA
    authority_file: Path

    @property
    def account(self) -> str:
        """The URL of its account."""
        return f"https://127.0.0.1:{self.port}/{ACCOUNT}"


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """An Azurite on a free port of loopback, which checks tokens and keeps what it is given in memory."""
    program = os.environ.get("AIOMSI_TEST_AZURITE")
    if program is None:
        pytest.skip(HINT)
    folder = tmp_path_factory.mktemp("azurite")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    certificate = authority.issue_cert("127.0.0.1", "localhost", HOST)
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    # Telemetry would leave the machine.
    options = ["--silent", "--disableTelemetry", "--inMemoryPersistence", "--skipApiVersionCheck", "--oauth", "basic"]
    address = ["--blobHost", "127.0.0.1", "--blobPort", "0", "--cert", "cert.pem", "--key", "key.pem"]
    with subprocess.Popen(
        [Path(program).absolute(), *options, *address],
        cwd=folder,
        env={"PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            said = ""
            while not (found := re.search(r"listens on https://127\.0\.0\.1:(\d+)", said)):
                said = process.stdout.readline()
                assert said, "Azurite ended"
            drain = Thread(target=process.stdout.read)
            drain.start()
            yield Azurite(int(found[1]), authority, folder / "authority.pem")
        finally:
            process.kill()
        drain.join()


@pytest.fixture
async def endpoint() -> AsyncIterator[IdentityEndpoint]:
    async with IdentityEndpoint() as opened:
        yield opened


def managed_identity(endpoint: IdentityEndpoint) -> ManagedIdentity:
    return ManagedIdentity(surroundings=Surroundings(environ=endpoint.environ("app_service")))


@pytest.fixture
async def identity(endpoint: IdentityEndpoint) -> AsyncIterator[TokenProvider]:
    """A provider on the real clock, which Azurite goes by."""
    async with TokenProvider(managed_identity(endpoint)) as opened:
        yield opened


class Refused(Exception):  # noqa: N818
    """An answer other than success: its *status*, Azurite's *code* for it, and what it says."""

    def __init__(self, status: int, code: str | None, text: str) -> None:
        super().__init__(status, code, text)
        self.status = status
        self.code = code
        self.text = text


class Store(Protocol):
    """A container of Azurite's as a program sees it; *statuses* are those of all answers that came."""

    statuses: list[int]

    async def create(self) -> None:
        """Make the container."""

    async def put(self, name: str, content: bytes) -> None:
        """Make or replace a blob."""

    async def get(self, name: str) -> bytes:
        """Return what is in a blob."""

    async def names(self) -> list[str]:
        """Return the names of all blobs."""


@dataclass
class Place:
    """Where a container is, by which audience it is reached, and over which proxy."""

    azurite: Azurite
    account: str
    audience: str = STORAGE
    proxy: str | None = None
    container: str = field(default_factory=lambda: f"container-{uuid.uuid4().hex}")


class PlainStore:
    """A container reached with nothing but aiohttp."""

    def __init__(self, session: aiohttp.ClientSession, url: str, proxy: str | None, statuses: list[int]) -> None:
        self.statuses = statuses
        self._session = session
        self._url = url
        self._proxy = proxy

    async def create(self) -> None:
        await self._send("PUT", "?restype=container")

    async def put(self, name: str, content: bytes) -> None:
        await self._send("PUT", f"/{name}", content, {"x-ms-blob-type": "BlockBlob"})

    async def get(self, name: str) -> bytes:
        return await self._send("GET", f"/{name}")

    async def names(self) -> list[str]:
        return re.findall("<Name>(.*?)</Name>", (await self._send("GET", "?restype=container&comp=list")).decode())

    async def _send(self, method: str, path: str, content: bytes = b"", headers: dict[str, str] | None = None) -> bytes:
        async with self._session.request(
            method, self._url + path, data=content or None, headers={**VERSION, **(headers or {})}, proxy=self._proxy
        ) as response:
            body = await response.read()
            if not response.ok:
                raise Refused(response.status, response.headers.get("x-ms-error-code"), body.decode())
            return body


@asynccontextmanager
async def through_aiohttp(provider: TokenProvider, place: Place) -> AsyncIterator[Store]:
    """Yield a store that is reached by an `aiohttp.ClientSession` with a `BearerAuth`."""
    statuses = []

    async def overhear(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        response = await handler(request)
        statuses.append(response.status)
        return response

    origin = f"https://127.0.0.1:{place.azurite.port}"
    auth = BearerAuth(provider, AZURE_PUBLIC_CLOUD if place.proxy else {origin: place.audience})
    connector = aiohttp.TCPConnector(ssl=trusting(place.azurite))
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(connector=connector, middlewares=[auth, overhear], timeout=timeout) as session:
        yield PlainStore(session, f"{place.account}/{place.container}", place.proxy, statuses)


class SDKStore:
    """A container reached with azure-storage-blob."""

    def __init__(self, client: BlobServiceClient, container: str, statuses: list[int]) -> None:
        self.statuses = statuses
        self._container: Any = client.get_container_client(container)

    async def create(self) -> None:
        await told(self._container.create_container())

    async def put(self, name: str, content: bytes) -> None:
        await told(self._container.upload_blob(name, content, overwrite=True))

    async def get(self, name: str) -> bytes:
        found: bytes = await (await told(self._container.download_blob(name))).readall()
        return found

    async def names(self) -> list[str]:
        return [name async for name in self._container.list_blob_names()]


async def told(operation: Awaitable[Any]) -> Any:
    """Return what *operation* returns, or raise what Azurite refused it with."""
    try:
        return await operation
    except HttpResponseError as error:
        raise Refused(error.status_code or 0, getattr(error, "error_code", None), str(error)) from None


@asynccontextmanager
async def through_the_sdk(provider: TokenProvider, place: Place) -> AsyncIterator[Store]:
    """Yield a store that is reached by a `BlobServiceClient` with a `TokenCredential`."""
    statuses: list[int] = []
    async with BlobServiceClient(
        place.account,
        credential=TokenCredential(provider),
        audience=place.audience,
        transport=AioHttpTransport(connection_verify=str(place.azurite.authority_file), use_env_settings=False),
        proxies={"https": place.proxy} if place.proxy else None,
        raw_response_hook=lambda response: statuses.append(response.http_response.status_code),
    ) as client:
        yield SDKStore(client, place.container, statuses)


def trusting(azurite: Azurite) -> ssl.SSLContext:
    context = ssl.create_default_context()
    azurite.authority.configure_trust(context)
    return context


Way: TypeAlias = "Callable[[TokenProvider, Place], AbstractAsyncContextManager[Store]]"


@pytest.fixture(params=[through_aiohttp, through_the_sdk], ids=["aiohttp", "azure_storage_blob"])
def reach(request: pytest.FixtureRequest) -> Way:
    """How a program reaches its container."""
    way: Way = request.param
    return way


@pytest.fixture
def place(azurite: Azurite) -> Place:
    return Place(azurite, azurite.account)


async def test_blobs_are_put_and_got_and_listed(reach: Way, place: Place, identity: TokenProvider) -> None:
    """Azurite takes the token for each kind of operation, and what was put comes back."""
    content = os.urandom(100_000)
    async with reach(identity, place) as store:
        await store.create()
        await store.put("first", content)
        await store.put("second", b"2")
        assert await store.names() == ["first", "second"]
        assert await store.get("first") == content
    assert set(store.statuses) <= {200, 201, 206}


async def test_a_crowd_needs_one_token(
    reach: Way, place: Place, identity: TokenProvider, endpoint: IdentityEndpoint
) -> None:
    """However much is done at once, the endpoint is asked once."""
    names = [f"blob-{number:03}" for number in range(CROWD)]
    async with reach(identity, place) as store, reach(identity, place) as other:
        # All at once, before there is a token.
        outcomes = await asyncio.gather(*(store.get("missing") for _ in names), return_exceptions=True)
        assert {outcome.status for outcome in outcomes if isinstance(outcome, Refused)} == {404}
        await store.create()
        await asyncio.gather(*(store.put(name, name.encode()) for name in names))
        assert await asyncio.gather(*(other.get(name) for name in names)) == [name.encode() for name in names]
        assert await other.names() == names
    assert [request.resource for request in endpoint.token_requests] == [STORAGE]


@pytest.mark.parametrize("audience", [STORAGE, f"{STORAGE}/", f"https://{HOST}", f"https://{HOST}/"])
async def test_an_audience_that_storage_knows(reach: Way, place: Place, identity: TokenProvider, audience: str) -> None:
    """All spellings that the documentation has are taken: those of all accounts, and those of this one."""
    place.audience = audience
    async with reach(identity, place) as store:
        await store.create()
        assert await store.names() == []


@pytest.mark.parametrize("audience", ["https://vault.azure.net", "https://another.blob.core.windows.net"])
async def test_a_token_for_something_else_is_refused_once(
    reach: Way, place: Place, identity: TokenProvider, endpoint: IdentityEndpoint, audience: str
) -> None:
    """A wrong audience is a 403 that says so; neither the request nor the token is tried again."""
    place.audience = audience
    async with reach(identity, place) as store:
        with pytest.raises(Refused, match="Invalid token audience") as caught:
            await store.create()
    assert (caught.value.status, caught.value.code) == (403, "AuthenticationFailed")
    assert (store.statuses, len(endpoint.token_requests)) == ([403], 1)


async def test_a_token_that_has_ended_is_refused_once(reach: Way, place: Place) -> None:
    """A machine whose clock is days slow gets a 403 that says why; neither the request nor the token is tried again."""
    slow = ManualClock(time.time() - TWO_DAYS)
    async with (
        IdentityEndpoint(wall=slow.wall) as endpoint,
        TokenProvider(managed_identity(endpoint), clock=slow) as provider,
        reach(provider, place) as store,
    ):
        with pytest.raises(Refused, match="The token is expired") as caught:
            await store.create()
    assert (caught.value.status, caught.value.code) == (403, "AuthenticationFailed")
    assert (store.statuses, len(endpoint.token_requests)) == ([403], 1)


async def test_an_account_s_own_name(
    reach: Way, azurite: Azurite, identity: TokenProvider, endpoint: IdentityEndpoint, tmp_path: Path
) -> None:
    """Under a name as in Azure, reached over a proxy, the public cloud's mapping is all that is needed."""
    async with internet(tmp_path, nobody) as net:
        net.port = azurite.port
        async with reach(identity, Place(azurite, f"https://{HOST}", proxy=net.environ["HTTPS_PROXY"])) as store:
            await store.create()
            await store.put("name", b"content")
            assert await store.get("name") == b"content"
    assert set(net.hosts) == {f"{HOST}:443"}
    assert [(request.resource or "").rstrip("/") for request in endpoint.token_requests] == [STORAGE]


async def nobody(_: web.Request) -> web.StreamResponse:
    raise AssertionError("everything leads to Azurite")


async def test_an_origin_that_is_not_mapped_gets_no_token(
    place: Place, identity: TokenProvider, endpoint: IdentityEndpoint
) -> None:
    """Azurite, which does look at tokens, refuses what comes without."""
    async with through_aiohttp(identity, place) as store:
        assert isinstance(store, PlainStore)
        store._url = store._url.replace("127.0.0.1", "localhost")
        with pytest.raises(Refused) as caught:
            await store.create()
    assert (caught.value.status, endpoint.token_requests) == (403, [])
