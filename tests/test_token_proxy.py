"""The token proxy of an AKS identity binding: where it is, and whom to believe there."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trustme
from pods import CLIENT_ID, PROVES_ITSELF, TENANT_ID, Pod, assertion, pod, refusal

from aiomsi import AccessToken, ConfigurationError, SecurityError
from aiomsi.endpoint import Answer
from aiomsi.sources import Surroundings, WorkloadIdentity

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

PROXY = "AZURE_KUBERNETES_TOKEN_PROXY"
NAME = "AZURE_KUBERNETES_SNI_NAME"
CA_FILE = "AZURE_KUBERNETES_CA_FILE"
CA_DATA = "AZURE_KUBERNETES_CA_DATA"
PATH = f"/{TENANT_ID}/oauth2/v2.0/token"


@pytest.fixture
async def bound(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Pod]:
    """A pod with an identity binding: its token proxy is a server for localhost and proxy.example."""
    caplog.set_level(logging.DEBUG)
    async with pod(tmp_path, "proxy.example") as opened:
        opened.environ[PROXY] = f"https://localhost:{opened.internet.port}"
        opened.environ[CA_FILE] = opened.environ.pop("SSL_CERT_FILE")
        yield opened
        assert [secret for secret in opened.secrets if secret in caplog.text] == []


def by_proxy(bound: Pod) -> WorkloadIdentity:
    return WorkloadIdentity(use_token_proxy=True, surroundings=bound.surroundings)


def another_authority() -> str:
    return trustme.CA().cert_pem.bytes().decode()


async def misplaced(bound: Pod) -> str:
    """Return what is said of a configuration with which nothing is sent."""
    error = await bound.error(ConfigurationError, by_proxy(bound))
    assert (bound.requests, bound.internet.hosts) == ([], [])
    assert "restart the pod, or leave use_token_proxy out" in str(error)
    return str(error)


# Where it is


async def test_it_is_asked_in_place_of_entra(bound: Pod) -> None:
    """The request is the one for Entra, without a way over the proxies of the environment."""
    token = await bound.token(by_proxy(bound))
    assert token.token == "entra-gave-this"
    assert bound.internet.hosts == []
    assert [request.path_qs for request in bound.requests] == [PATH]
    assert bound.requests[0].headers["Host"] == f"localhost:{bound.internet.port}"
    assert bound.forms[0]["client_id"] == CLIENT_ID
    assert bound.forms[0]["client_assertion"] == assertion()


@pytest.mark.parametrize("path", ["/base", "/base/", "/base/path//"])
async def test_its_path_comes_first_and_once(bound: Pod, path: str) -> None:
    """However often it is asked again, what is asked for is below its own path."""
    bound.environ[PROXY] += path
    bound.answers.extend([Answer(503, ""), refusal(700024, status=401), Answer(429, "")])
    outcome, waits = await bound.fetched(by_proxy(bound))
    assert isinstance(outcome, AccessToken)
    assert waits == [1.0, 1.0, 1.0]
    assert [request.path_qs for request in bound.requests] == [path.rstrip("/") + PATH] * 4


async def test_a_request_may_choose_the_tenant(bound: Pod) -> None:
    """The tenant is part of what the proxy is asked."""
    await bound.token(by_proxy(bound), tenant_id="contoso.onmicrosoft.com")
    assert bound.requests[0].path == "/contoso.onmicrosoft.com/oauth2/v2.0/token"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("http://localhost", "does not begin with https://"),
        ("localhost:8443", "does not begin with http"),
        ("https://", "names no host"),
        ("https://user:hunter2@localhost", "holds user information"),
        ("https://localhost/?a=b", "has a query"),
        ("https://localhost?", "has a query or a fragment"),
        ("https://localhost#", "has a query or a fragment"),
        ("https://localhost/#a", "has a fragment"),
        ("https://local host", "holds blanks"),
        ("https://localhost:99999", "is not a URL"),
    ],
)
async def test_a_place_that_is_none(bound: Pod, text: str, problem: str) -> None:
    """What is wrong with the variable is told, and nothing is sent; what it holds is not repeated."""
    bound.environ[PROXY] = text
    said = await misplaced(bound)
    assert said.startswith(f"{PROXY} ")
    assert problem in said
    assert "hunter2" not in said


@pytest.mark.parametrize("missing", ["AZURE_TENANT_ID", "AZURE_CLIENT_ID"])
async def test_who_asks_is_still_needed(bound: Pod, missing: str) -> None:
    """The proxy does not know whose token is wanted, nor in which tenant."""
    del bound.environ[missing]
    error = await bound.error(ConfigurationError, by_proxy(bound))
    assert missing in str(error)
    assert bound.requests == []


async def test_it_has_to_be_somewhere(bound: Pod) -> None:
    """Who asks for the proxy and has none is told so, rather than sent to Entra."""
    del bound.environ[PROXY]
    assert f"{PROXY} is not set" in await misplaced(bound)


async def test_it_is_off_unless_it_is_asked_for(bound: Pod) -> None:
    """Its variables alone, wrong ones too, change nothing: the token comes from Entra."""
    bound.environ["SSL_CERT_FILE"] = bound.environ[CA_FILE]
    bound.environ |= {PROXY: "nonsense", NAME: "..", CA_DATA: "nonsense"}
    await bound.token()
    assert bound.internet.hosts == ["login.microsoftonline.com:443"]


# Which name it shows


@asynccontextmanager
async def one_that_listens(authority: trustme.CA, names: list[str | None]) -> AsyncIterator[int]:
    """Yield the port of a server for proxy.example that puts down in *names* by which it is called."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("proxy.example").configure_cert(context)
    context.sni_callback = lambda _connection, name, _context: names.append(name)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps(PROVES_ITSELF.body).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_it_is_called_by_the_name_it_shows(bound: Pod) -> None:
    """The name of the variable is sent in the handshake, and looked for in the certificate."""
    authority, names = trustme.CA(), list[str | None]()
    async with one_that_listens(authority, names) as port:
        bound.environ |= {PROXY: f"https://127.0.0.1:{port}", NAME: "proxy.example"}
        (bound.folder / "authority.pem").write_bytes(authority.cert_pem.bytes())
        await bound.token(by_proxy(bound))
    assert names == ["proxy.example"]


async def test_it_has_to_show_that_name(bound: Pod) -> None:
    """A certificate for the host in the URL is not the one that was named."""
    bound.environ[NAME] = "another.example"
    await bound.error(SecurityError, by_proxy(bound))
    assert bound.requests == []


@pytest.mark.parametrize(
    "name",
    [
        "proxy.example:443",
        "https://proxy.example",
        "proxy.example/",
        "proxy.example?",
        "u@proxy.example",
        ".proxy.example",
        "*.example",
        "[::1]",
        "a b",
        "proxy.example\n",
        f"{'a' * 64}.example",
        "pr\u00f6xy.example",
    ],
)
async def test_a_name_that_is_none(bound: Pod, name: str) -> None:
    """What cannot be a host's name is told, and nothing is sent."""
    bound.environ[NAME] = name
    assert f"{NAME} should be the name of a host" in await misplaced(bound)


# Whom to believe


@pytest.mark.parametrize("variable", [CA_FILE, CA_DATA])
async def test_only_its_own_authorities_are_believed(bound: Pod, variable: str) -> None:
    """Neither the system's nor those of SSL_CERT_FILE can vouch for a token proxy that has its own."""
    bound.environ["SSL_CERT_FILE"] = bound.environ.pop(CA_FILE)
    other = another_authority()
    if variable == CA_FILE:
        (bound.folder / "other.pem").write_text(other)
        other = str(bound.folder / "other.pem")
    bound.environ[variable] = other
    error = await bound.error(SecurityError, by_proxy(bound))
    assert f"name its authority with {CA_FILE} or {CA_DATA}" in str(error)
    assert bound.requests == []


async def test_its_authorities_may_be_in_the_variable_itself(bound: Pod) -> None:
    """As PEM in the environment they count as those of a file do."""
    del bound.environ[CA_FILE]
    bound.environ[CA_DATA] = bound.internet.authority.decode()
    await bound.token(by_proxy(bound))
    assert len(bound.requests) == 1


async def test_without_authorities_of_its_own_the_system_s_are_believed(bound: Pod) -> None:
    """Then SSL_CERT_FILE counts, as for every public service; and where that is wrong, it is told."""
    file = bound.environ.pop(CA_FILE)
    await bound.error(SecurityError, by_proxy(bound))
    bound.environ["SSL_CERT_FILE"] = file
    await bound.token(by_proxy(bound))
    assert len(bound.requests) == 1
    bound.environ["SSL_CERT_FILE"] = "/nowhere/authority.pem"
    error = await bound.error(ConfigurationError, by_proxy(bound))
    assert "SSL_CERT_FILE" in str(error)


async def test_its_authorities_are_in_one_place(bound: Pod) -> None:
    """Two variables that may contradict each other are a mistake."""
    bound.environ[CA_DATA] = bound.internet.authority.decode()
    assert f"{CA_FILE} and {CA_DATA} are both set" in await misplaced(bound)


async def test_the_file_may_hold_more_than_certificates(bound: Pod) -> None:
    """Bundles name the owners of their certificates, in their own languages."""
    file = bound.folder / "authority.pem"
    file.write_bytes("# F\u0151tan\u00fas\u00edtv\u00e1ny\n".encode() + bound.internet.authority)
    await bound.token(by_proxy(bound))
    assert len(bound.requests) == 1


# Its authorities are renewed


async def test_a_renewed_file_is_believed_at_the_next_fetch(bound: Pod) -> None:
    """Who was not believed is, and who was is not any more, without a new source."""
    source, file = by_proxy(bound), bound.folder / "authority.pem"
    file.write_text(another_authority())
    await bound.error(SecurityError, source)
    file.write_bytes(bound.internet.authority)
    await bound.token(source)
    file.write_text(another_authority())
    await bound.error(SecurityError, source)
    assert len(bound.requests) == 1


def removed(file: Path) -> None:
    file.unlink()


def emptied(file: Path) -> None:
    file.write_text("")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def replaced(file: Path) -> None:
    file.unlink()
    file.mkdir()


def grown(file: Path) -> None:
    file.write_bytes(b"#" * (1024 * 1024 + 1))


HALFWAY = pytest.mark.parametrize("spoil", [removed, emptied, cut, replaced, grown])


@HALFWAY
async def test_in_the_middle_of_a_renewal_those_read_last_count(bound: Pod, spoil: Callable[[Path], None]) -> None:
    """A file that is away or unfinished for a moment does not end the service, whatever is believed then."""
    source, file = by_proxy(bound), bound.folder / "authority.pem"
    await bound.token(source)
    spoil(file)
    await bound.token(source)
    await bound.token(source)
    assert len(bound.requests) == 3


@HALFWAY
async def test_a_file_that_could_never_be_read_is_an_error(bound: Pod, spoil: Callable[[Path], None]) -> None:
    """At first there is nothing to fall back on, and certainly not the system's authorities."""
    spoil(bound.folder / "authority.pem")
    assert f"the certificate authorities of {CA_FILE} cannot be read" in await misplaced(bound)


async def test_those_of_another_file_do_not_count(bound: Pod) -> None:
    """What a former file held says nothing about a new one that cannot be read."""
    source = by_proxy(bound)
    await bound.token(source)
    bound.environ[CA_FILE] = str(bound.folder / "new.pem")
    error = await bound.error(ConfigurationError, source)
    assert CA_FILE in str(error)
    assert len(bound.requests) == 1


@pytest.mark.parametrize(
    ("variable", "text"),
    [(CA_FILE, "authority.pem"), (CA_FILE, "~/authority.pem"), (CA_DATA, "no certificate"), (CA_DATA, "/ca.pem")],
)
async def test_authorities_that_are_none(bound: Pod, variable: str, text: str) -> None:
    """A relative path and a text without certificates are told, and nothing is sent."""
    del bound.environ[CA_FILE]
    bound.environ[variable] = text
    assert f"the certificate authorities of {variable} cannot be read" in await misplaced(bound)


async def test_paths_of_windows(bound: Pod) -> None:
    """On Windows the file has a path as other files have there."""
    folder = bound.folder / "root/run"
    folder.mkdir(parents=True)
    (folder / "ca.pem").write_bytes(bound.internet.authority)
    (folder / "token").write_text(assertion())
    bound.environ |= {CA_FILE: "C:\\run\\ca.pem", "AZURE_FEDERATED_TOKEN_FILE": "/run/token"}
    surroundings = Surroundings(environ=bound.environ, platform="win32", root=bound.folder / "root")
    await bound.token(WorkloadIdentity(use_token_proxy=True, surroundings=surroundings))
    assert len(bound.requests) == 1
