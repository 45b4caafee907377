"""The README's recipes are true: the very text of each runs on an app service, against Azure as it is on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import pkgutil
import re
import ssl
import struct
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import httpx
import pytest
import trustme
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import create_async_engine
from support import internet
from test_readme import README, blocks, execute, recipe_of

import aiomsi
from aiomsi import adapters
from aiomsi.endpoint import IdentityEndpoint, TokenGiven

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from aiomsi.endpoint import TokenAsked

RECIPES = {name: example for example in blocks("python") if (name := recipe_of(example)) is not None}
HOSTS = ["myvault.vault.azure.net", "myaccount.blob.core.windows.net", "myresource.openai.azure.com"]
VAULT = ("myvault.vault.azure.net", "Bearer for:https://vault.azure.net")
DATABASE_PASSWORD = "for:https://ossrdbms-aad.database.windows.net"
CHALLENGE = (
    'Bearer authorization="https://login.microsoftonline.com/00000000-0000-0000-0000-00000000000a", '
    'resource="https://vault.azure.net"'
)
ANSWERS: dict[str, dict[str, Any]] = {
    "/secrets": {"value": [{"id": "https://myvault.vault.azure.net/secrets/db"}]},
    "/secrets/db": {"id": "https://myvault.vault.azure.net/secrets/db/1", "value": "s3cret"},
    "/openai/deployments/my-deployment/chat/completions": {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "my-deployment",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello, you."}}],
    },
}


class Azure:
    """What the recipes' requests reach: *asked* are the host and the Authorization of each."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        authorization = request.headers.get("Authorization")
        self.asked.append((request.host, authorization))
        if authorization is None:
            return web.Response(status=401, headers={"WWW-Authenticate": CHALLENGE})
        if request.host.endswith("blob.core.windows.net"):
            headers = {"Content-Range": "bytes 0-2/3", "ETag": '"1"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
            return web.Response(status=206, body=b"a,b", headers=headers)
        return web.json_response(ANSWERS[request.path.rstrip("/")])


async def issue(asked: TokenAsked) -> TokenGiven:
    """Give out a token that says what it is for."""
    return TokenGiven(f"for:{asked.resource}", time.time() + 86_400)


@pytest.fixture
async def app_service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Where the recipes run."""
    async with IdentityEndpoint(issue) as endpoint:
        for name, value in endpoint.environ("app_service").items():
            monkeypatch.setenv(name, value)
        yield


@pytest.fixture
async def azure(app_service: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Azure]:  # noqa: ARG001
    """A network where the environment's proxy leads to every host, and their authority is trusted."""
    found = Azure()
    async with internet(tmp_path, found.answer, *HOSTS) as net:
        for name, value in net.environ.items():
            monkeypatch.setenv(name, value)
        # aiohttp alone takes no proxy from the environment unless told to, and reads whom to trust when it is imported.
        as_told = functools.partialmethod(aiohttp.ClientSession.__init__, trust_env=True)
        monkeypatch.setattr(aiohttp.ClientSession, "__init__", as_told)
        monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", ssl.create_default_context())
        yield found


async def cooked(name: str) -> dict[str, Any]:
    """Run a recipe and return the names that it has made."""
    namespace: dict[str, Any] = {"__name__": "recipe"}
    await execute(str(RECIPES[name].parsed), RECIPES[name].line, namespace)
    return namespace


# Recipes


def test_each_recipe_has_a_test() -> None:
    """No block of the README stays unexecuted because of its mark, and no mark goes astray."""
    assert [name for name in RECIPES if f"test_{name}" not in globals()] == []
    assert len(RECIPES) == README.read_text(encoding="utf-8").count("<!-- recipe:")


async def test_middleware(azure: Azure) -> None:
    """A key vault's secret, with nothing but aiohttp."""
    names = await cooked("middleware")
    assert names["secret"] == "s3cret"
    assert azure.asked == [VAULT]


async def test_fastapi(azure: Azure) -> None:
    """The application begins its lifespan, serves with the session of that, and ends it."""
    app = (await cooked("fastapi"))["app"]
    async with app.router.lifespan_context(app) as state:

        async def with_state(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": dict(state)}, receive, send)  # As servers do, and httpx does not.

        async with httpx.AsyncClient(transport=httpx.ASGITransport(with_state), base_url="http://localhost") as client:
            response = await client.get("/secrets")
    assert response.json() == ["https://myvault.vault.azure.net/secrets/db"]
    assert azure.asked == [VAULT]
    assert state["azure"].closed


async def test_aiohttp_web(azure: Azure) -> None:
    """The application has its session from start to clean-up."""
    names = await cooked("aiohttp_web")
    async with TestClient(TestServer(names["app"])) as client:
        assert await (await client.get("/secrets")).json() == ["https://myvault.vault.azure.net/secrets/db"]
    assert azure.asked == [VAULT]
    assert names["app"][names["AZURE"]].closed


async def test_azure_sdk(azure: Azure) -> None:
    """Two clients share a credential, and the vault's challenge is answered, which the SDK remembers for ever."""
    names = await cooked("azure_sdk")
    assert (names["secret"], names["content"]) == ("s3cret", b"a,b")
    storage = ("myaccount.blob.core.windows.net", "Bearer for:https://storage.azure.com")
    assert [asked for asked in azure.asked if asked != (VAULT[0], None)] == [VAULT, storage]


async def test_openai(azure: Azure) -> None:
    """The client asks the provider, and sends what it got."""
    names = await cooked("openai")
    assert names["completion"].choices[0].message.content == "Hello, you."
    assert azure.asked == [("myresource.openai.azure.com", "Bearer for:https://cognitiveservices.azure.com")]


class PostgreSQL:
    """As much of a server as takes a password over TLS and tells its version; *passwords* are those that it was given.

    Source: PostgreSQL documentation, "Frontend/Backend Protocol".
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.passwords: list[str] = []
        self.serving: set[asyncio.Task[None]] = set()

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving.add(asyncio.ensure_future(self._until_left(reader, writer)))

    async def _until_left(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A pool that is closed leaves those connections anyhow that it is about to make.
        with contextlib.suppress(EOFError, OSError):
            await self._converse(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)  # The request for TLS.
        writer.write(b"S")
        await writer.start_tls(self.context)
        (length,) = struct.unpack("!I", await reader.readexactly(4))
        await reader.readexactly(length - 4)
        writer.write(_message(b"R", struct.pack("!I", 3)))  # The password, please, as it is.
        _, password = await _received(reader)
        self.passwords.append(password.rstrip(b"\0").decode())
        writer.write(_message(b"R", bytes(4)) + _message(b"S", b"server_version\x0016.0\0") + _message(b"Z", b"I"))
        status = b"I"
        while (received := await _received(reader))[0] != b"X":
            status = {b"BEGIN\0": b"T", b"COMMIT\0": b"I"}.get(received[1], status)
            writer.write(_answer(*received, status))


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


async def _received(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    kind, length = struct.unpack("!cI", await reader.readexactly(5))
    return kind, await reader.readexactly(length - 4)


def _answer(kind: bytes, body: bytes, status: bytes) -> bytes:
    """Return the answer to one message of a query for the version, or of a command."""
    name = _message(b"T", struct.pack("!h8sihihih", 1, b"version\0", 0, 0, 25, -1, -1, 0))
    row = _message(b"D", struct.pack("!hi4s", 1, 4, b"16.0"))
    done, ready = _message(b"C", b"SELECT 1\0"), _message(b"Z", status)
    answers = {
        b"P": _message(b"1", b""),
        b"D": _message(b"t", bytes(2)) + name,
        b"B": _message(b"2", b""),
        b"E": row + done,
        b"H": b"",
        b"S": ready,
        b"Q": (name + row if body.startswith(b"select version()") else b"") + done + ready,
    }
    return answers[kind]


@pytest.fixture
async def server(
    app_service: None,  # noqa: ARG001
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[PostgreSQL, int]]:
    """A database server whose authority is trusted, and its port."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("myserver.postgres.database.azure.com").configure_cert(context)
    found = PostgreSQL(context)
    listening = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    yield found, listening.sockets[0].getsockname()[1]
    listening.close()
    await asyncio.gather(*found.serving)


async def test_asyncpg(server: tuple[PostgreSQL, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the pool's connections asks for the password."""
    loop = asyncio.get_running_loop()
    connect = loop.create_connection

    async def connect_here(factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        # asyncpg has no variable for an address beside the name, which is what the certificate is for.
        return await connect(factory, *((host, port) if host is None else ("127.0.0.1", server[1])), **options)

    monkeypatch.setattr(loop, "create_connection", connect_here)
    assert (await cooked("asyncpg"))["version"] == "16.0"
    assert server[0].passwords == [DATABASE_PASSWORD] * 10


async def test_psycopg_pool(server: tuple[PostgreSQL, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the pool's connections asks for the keywords."""
    monkeypatch.setenv("PGHOSTADDR", "127.0.0.1")
    monkeypatch.setenv("PGPORT", str(server[1]))
    assert (await cooked("psycopg_pool"))["version"] == ("16.0",)
    assert set(server[0].passwords) == {DATABASE_PASSWORD}


# The table of adapters


def rows() -> Iterator[tuple[str, str, str]]:
    """Yield of each line of the table how it imports its adapter, how it uses it, and which extra that needs."""
    section = README.read_text(encoding="utf-8").partition("| For | Import |")[2].partition("\n\n")[0]
    for line in section.splitlines()[2:]:
        _, _, imported, used, extra, _ = line.split("|")
        yield re.findall("`(.+)`", imported)[0], re.findall("`(.+)`", used)[0], extra.strip(" `")


ROWS = list(rows())


def test_the_table_has_each_adapter() -> None:
    """Every public module of `aiomsi.adapters` is there, with the extra that its documentation names, if any."""
    modules = {module.name for module in pkgutil.iter_modules(adapters.__path__) if not module.name.startswith("_")}
    listed = {name: extra for imported, _, extra in ROWS for name in re.findall(r"\w+", imported) if name in modules}
    documented = {name: str(importlib.import_module(f"aiomsi.adapters.{name}").__doc__) for name in modules}
    extras = {name: re.findall(r"\(extra `(\w+)`\)", text) for name, text in documented.items()}
    assert listed == {name: "".join(found) for name, found in extras.items()}


@pytest.mark.parametrize("row", ROWS, ids=[imported for imported, *_ in ROWS])
async def test_each_line_of_the_table_runs(row: tuple[str, str, str], provider: aiomsi.TokenProvider) -> None:
    """It makes what the other library takes, out of a provider and of that library's own."""
    namespace: dict[str, Any] = {
        "AZURE_PUBLIC_CLOUD": aiomsi.AZURE_PUBLIC_CLOUD,
        "Redis": Redis,
        "engine": create_async_engine("postgresql+asyncpg://name@localhost/db"),
        "grpc": grpc,
        "httpx": httpx,
        "provider": provider,
    }
    imported, used, _ = row
    before = set(namespace)
    await execute(f"{imported}\n{used}", 1, namespace)
    assert set(namespace) > before
    if "client" in namespace:
        await namespace["client"].aclose()
