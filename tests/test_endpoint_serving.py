"""The endpoint as a server that runs for long, for others: where it listens, what it keeps, how it ends."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from aiomsi.endpoint import Drip, Gate, Hang, IdentityEndpoint, Slow

if TYPE_CHECKING:
    from pathlib import Path

    from aiomsi.endpoint import Answer, ReceivedRequest, TokenAsked

VAULT = "https://vault.azure.net"
CLIENT_ID = "11111111-aaaa-4bbb-8ccc-000000000001"


async def ask(
    endpoint: IdentityEndpoint,
    query: str = f"api-version=2019-08-01&resource={VAULT}",
    *,
    path: Path | None = None,
    secret: str | None = None,
    data: Any = None,
) -> int:
    connector = None if path is None else aiohttp.UnixConnector(str(path))
    headers = {"X-IDENTITY-HEADER": endpoint.secret if secret is None else secret}
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(f"{endpoint.url}/msi/token?{query}", headers=headers, data=data) as response,
    ):
        await response.read()
        return response.status


# Where


async def test_a_unix_socket_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Its mode is 0600, it answers there, and it is gone in the end."""
    path = tmp_path / "endpoint"
    async with IdentityEndpoint(unix_socket=path) as endpoint:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert endpoint.environ("app_service")["IDENTITY_ENDPOINT"] == "http://localhost/msi/token"
        assert await ask(endpoint, path=path) == 200
        assert endpoint.requests[0].remote is None
    assert not path.exists()
    async with endpoint:
        assert await ask(endpoint, path=path) == 200
    await endpoint.aclose()


async def test_a_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    """A process that was killed leaves its socket, which must not keep the next one from starting."""
    path = tmp_path / "endpoint"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    assert path.is_socket()
    async with IdentityEndpoint(unix_socket=path) as endpoint:
        assert await ask(endpoint, path=path) == 200


async def test_a_socket_in_use_is_left_alone(tmp_path: Path) -> None:
    """Two endpoints cannot be at one path: the second does not start, and the first goes on."""
    path = tmp_path / "endpoint"
    async with IdentityEndpoint(unix_socket=path) as endpoint:
        second = IdentityEndpoint(unix_socket=path)
        with pytest.raises(OSError, match="in use"):
            await second.start()
        await second.aclose()
        assert await ask(endpoint, path=path) == 200


async def test_what_is_at_the_path_by_then_is_somebody_elses(tmp_path: Path) -> None:
    """An endpoint removes its own socket when it closes, and never what another one has put there since."""
    path = tmp_path / "endpoint"
    async with IdentityEndpoint(unix_socket=path):
        path.unlink()
        path.write_text("precious")
    assert path.read_text() == "precious"
    path.unlink()
    async with IdentityEndpoint(unix_socket=path):
        path.unlink()


async def test_closing_that_is_cancelled_closes_all_the_same(tmp_path: Path) -> None:
    """Whoever has no patience for the end leaves no listener behind."""
    path, other = tmp_path / "endpoint", tmp_path / "another name of it"
    async with IdentityEndpoint(unix_socket=path) as endpoint:
        os.link(path, other)  # To be reached when the path is gone.
        assert await ask(endpoint, path=other) == 200
        closing = asyncio.create_task(endpoint.aclose(grace=30))
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises(aiohttp.ClientConnectionError):
            await ask(endpoint, path=other)


async def test_a_file_is_never_replaced_by_a_socket(tmp_path: Path) -> None:
    """Only a socket is; a mistyped path costs nobody a file."""
    path = tmp_path / "precious"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="no socket"):
        await IdentityEndpoint(unix_socket=path).start()
    assert path.read_text() == "precious"


async def test_a_folder_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    """The socket is not made where there is no folder for it, and nothing stays open."""
    with pytest.raises(FileNotFoundError):
        await IdentityEndpoint(unix_socket=tmp_path / "nowhere" / "endpoint").start()


def test_beyond_loopback_only_if_said() -> None:
    """Any address will do for whoever says so, and clients are told it."""
    endpoint = IdentityEndpoint(host="172.17.0.1", port=8080, beyond_loopback=True)
    assert endpoint.url == "http://172.17.0.1:8080"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"host": "nowhere.example", "beyond_loopback": True}, "an IP address, not 'nowhere.example'"),
        ({"remembered": -1}, "remembered must be at least 0, not -1"),
        ({"hosts": ["service_fabric"], "unix_socket": "path"}, "unix_socket must be None"),
    ],
)
def test_arguments_that_make_no_sense_are_named(options: dict[str, Any], named: str) -> None:
    """A wrong argument is refused at once, and the message says what it should be."""
    with pytest.raises(ValueError, match=named):
        IdentityEndpoint(**options)


def test_where_there_are_no_unix_sockets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A platform without them says so at once."""
    monkeypatch.delattr(socket, "AF_UNIX")
    with pytest.raises(ValueError, match="on this platform"):
        IdentityEndpoint(unix_socket=tmp_path / "endpoint")


# What it keeps


@pytest.mark.parametrize("remembered", [0, 2])
async def test_only_so_many_requests_are_remembered(remembered: int) -> None:
    """An endpoint that runs for weeks does not grow."""
    async with IdentityEndpoint(remembered=remembered) as endpoint:
        for number in range(4):
            await ask(endpoint, f"api-version=2019-08-01&resource=r{number}")
        kept = [f"r{number}" for number in range(4 - remembered, 4)]
        assert [request.resource for request in endpoint.requests] == kept
        assert [request.resource for request in endpoint.token_requests] == kept


async def test_an_observer_is_told_of_each_answer() -> None:
    """It learns who asked, for what, as whom, and what came of it."""
    seen: list[tuple[str | None, str | None, int]] = []

    def observe(received: ReceivedRequest, asked: TokenAsked | None, answer: Answer) -> None:
        seen.append((received.remote, asked.identity if asked else None, answer.status))

    async with IdentityEndpoint(observe=observe) as endpoint:
        await ask(endpoint)
        await ask(endpoint, f"api-version=2019-08-01&resource={VAULT}&client_id={CLIENT_ID}")
        await ask(endpoint, secret="wrong")
        await ask(endpoint, "api-version=moon")
        endpoint.script(Slow(0))
        await ask(endpoint)
    assert seen == [
        ("127.0.0.1", None, 200),
        ("127.0.0.1", CLIENT_ID, 200),
        ("127.0.0.1", None, 403),
        ("127.0.0.1", None, 400),
        ("127.0.0.1", None, 200),
    ]


async def test_an_observer_is_told_of_those_who_leave() -> None:
    """Whoever hangs up before there is an answer is seen all the same: it may be that the issuer is slow."""
    seen: list[tuple[str | None, int]] = []

    def observe(_received: ReceivedRequest, asked: TokenAsked | None, answer: Answer) -> None:
        seen.append((asked.resource if asked else None, answer.status))

    gate = Gate()
    async with IdentityEndpoint(observe=observe) as endpoint:
        endpoint.script(gate)
        asking = asyncio.create_task(ask(endpoint))
        await gate.reached()
        asking.cancel()
        while gate.held:  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(0)
    assert seen == [(VAULT, 499)]


async def test_who_leaves_with_the_last_byte_has_the_answer() -> None:
    """However slowly it came: there is nothing more to wait for."""
    seen: list[int] = []
    async with IdentityEndpoint(observe=lambda *told: seen.append(told[2].status)) as endpoint:
        endpoint.script(then=Drip(0.001))
        for _ in range(2):
            assert await ask(endpoint, "api-version=2019-08-01&resource=r") == 200
    assert seen == [200] * 2


@pytest.mark.parametrize(
    "rest",
    [b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", b"Content-Length: 3\r\n\r\nab"],
    ids=["torn", "slow"],
)
async def test_a_body_that_never_is_one_is_refused(monkeypatch: pytest.MonkeyPatch, rest: bytes) -> None:
    """It is the client's mistake, so it is not told to ask again, and not waited for."""
    monkeypatch.setattr("aiomsi.endpoint.received._BODY_TIME", 0.05)
    async with IdentityEndpoint() as endpoint, asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(endpoint.url.rpartition(":")[2]))
        writer.write(b"GET /msi/token?api-version=2019-08-01&resource=r HTTP/1.1\r\nHost: localhost\r\n" + rest)
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
        writer.close()
        await writer.wait_closed()


@pytest.mark.skipif(aiohttp.__version__ < "3.14", reason="older ones wait for the first request for ever")
@pytest.mark.parametrize("sent", [b"", b"GET /msi/token HTTP/1.1\r\nX-Slow: "], ids=["nothing", "half"])
async def test_who_never_asks_is_hung_up_on(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    """Connections on which no request comes, or never all of it, are not kept for ever."""
    monkeypatch.setattr("aiomsi.endpoint.listening._IDLE_LIMIT", 0.05)
    async with IdentityEndpoint() as endpoint, asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(endpoint.url.rpartition(":")[2]))
        writer.write(sent)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_beyond_all_measure_is_refused(*, chunked: bool) -> None:
    """No request for a token is as long, so nothing more of it is read or kept."""

    async def pieces() -> Any:
        yield b"x" * 65_536
        yield b"x" * 65_536

    async with IdentityEndpoint() as endpoint:
        assert await ask(endpoint, data=pieces() if chunked else b"x" * 131_072) == 413
        assert len(endpoint.requests[0].body) == 65_536
        assert endpoint.token_requests == []


@pytest.mark.parametrize("headers", [{"X-Long": "x" * 9_000}, {f"X-{number}": "x" * 4_000 for number in range(200)}])
async def test_headers_beyond_all_measure_are_refused(headers: dict[str, str]) -> None:
    """They are refused while they come in, before anybody keeps them."""
    async with IdentityEndpoint() as endpoint, aiohttp.ClientSession() as session:
        try:
            async with session.get(f"{endpoint.url}/msi/token", headers=headers) as response:
                assert response.status == 400
        except aiohttp.ClientConnectionError:
            pass  # Cut off while it was still sending.
        assert endpoint.requests == []


# How it ends


async def test_requests_under_way_may_be_answered_first() -> None:
    """Whoever has asked already gets an answer, while nobody new gets in."""
    gate = Gate()
    async with IdentityEndpoint() as endpoint:
        endpoint.script(gate)
        asking = asyncio.create_task(ask(endpoint))
        await gate.reached()
        closing = asyncio.create_task(endpoint.aclose(grace=30))
        while "closed" not in repr(endpoint):  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(0)
        with pytest.raises(aiohttp.ClientConnectorError):
            await ask(endpoint)
        gate.open()
        assert await asking == 200
        await closing


async def test_who_asks_nothing_does_not_hold_up_the_end() -> None:
    """A connection that is kept alive is closed at once, however long the grace is."""
    async with asyncio.timeout(10), IdentityEndpoint() as endpoint, aiohttp.ClientSession() as session:
        async with session.get(endpoint.url) as response:
            assert response.status == 404
        await endpoint.aclose(grace=30)


async def test_the_grace_has_an_end() -> None:
    """A request that would never be answered is cut off when the time is up."""
    async with asyncio.timeout(10), IdentityEndpoint() as endpoint:
        endpoint.script(Hang())
        asking = asyncio.create_task(ask(endpoint))
        while not endpoint.token_requests:  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(0)
        await endpoint.aclose(grace=0.05)
        with pytest.raises(aiohttp.ClientError):
            await asking


async def test_keys_that_nobody_came_back_for_are_forgotten(tmp_path: Path) -> None:
    """Whoever asks Arc's agent without its key costs it a file, but only so many."""
    async with IdentityEndpoint(hosts=["azure_arc"], root=tmp_path) as endpoint, aiohttp.ClientSession() as session:
        url = f"{endpoint.url}/metadata/identity/oauth2/token?api-version=2020-06-01&resource={VAULT}"
        challenge = ""
        for _ in range(103):
            async with session.get(url, headers={"Metadata": "true"}) as response:
                challenge = response.headers["WWW-Authenticate"]
        keys = list((tmp_path / "var/opt/azcmagent/tokens").glob("*.key"))
        assert len(keys) == 100
        key = (tmp_path / challenge.partition("=")[2].lstrip("/")).read_text()
        async with session.get(url, headers={"Metadata": "true", "Authorization": f"Basic {key}"}) as response:
            assert response.status == 200
