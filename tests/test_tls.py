"""Whom to believe over TLS."""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import aiohttp
import pytest
import trustme
from cryptography import x509

from aiomsi.sources import Surroundings
from aiomsi.sources._tls import Sha1Pin, system_trust, trust

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NOT_BEGUN = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"
BROKEN = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def other_authority() -> trustme.CA:
    return trustme.CA()


def pem(authority: trustme.CA) -> str:
    return authority.cert_pem.bytes().decode()


def der(authority: trustme.CA) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pem(authority))


def among(**environ: str) -> Surroundings:
    return Surroundings(environ=environ)


def believes(context: ssl.SSLContext | None, authority: trustme.CA) -> bool:
    """Return whether a client with *context* finishes a handshake with a server of *authority*."""
    assert context is not None
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("host.example").configure_cert(server_context)
    upstream, downstream = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(downstream, upstream, server_hostname="host.example")
    server = server_context.wrap_bio(upstream, downstream, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
    return True


def hashed(authority: trustme.CA) -> str:
    """Return the name under which OpenSSL looks for *authority* in a folder: from a digest of its subject."""
    identifiers = {
        x509.NameOID.ORGANIZATION_NAME: b"\x55\x04\x0a",
        x509.NameOID.ORGANIZATIONAL_UNIT_NAME: b"\x55\x04\x0b",
    }
    canonical = b"".join(
        _tagged(
            0x31, _tagged(0x30, _tagged(0x06, identifiers[part.oid]) + _tagged(0x0C, str(part.value).lower().encode()))
        )
        for part in x509.load_der_x509_certificate(der(authority)).subject
    )
    return f"{int.from_bytes(hashlib.sha1(canonical, usedforsecurity=False).digest()[:4], 'little'):08x}.0"


def _tagged(tag: int, content: bytes) -> bytes:
    return bytes((tag, len(content))) + content


# What OpenSSL's variables name


@pytest.mark.parametrize("environ", [{}, {"SSL_CERT_FILE": ""}, {"SSL_CERT_FILE": "", "SSL_CERT_DIR": ""}])
def test_where_nothing_is_named_the_process_s_own_trust_counts(environ: dict[str, str]) -> None:
    """Without the variables there is no context of ours, so that the HTTP library's is used."""
    assert system_trust(among(**environ)) is None


def test_the_file_that_is_named_is_believed(tmp_path: Path, authority: trustme.CA, other_authority: trustme.CA) -> None:
    """A company's own authority is believed once SSL_CERT_FILE names it, and nobody else is."""
    file = tmp_path / "ca.pem"
    file.write_text(pem(authority))
    context = system_trust(among(SSL_CERT_FILE=str(file)))
    assert believes(context, authority)
    assert not believes(context, other_authority)


def test_the_folder_that_is_named_is_believed(
    tmp_path: Path, authority: trustme.CA, other_authority: trustme.CA
) -> None:
    """So is one that lies in a folder of SSL_CERT_DIR, which may name several."""
    (tmp_path / hashed(authority)).write_text(pem(authority))
    context = system_trust(among(SSL_CERT_DIR=f"/nowhere:{tmp_path}"))
    assert believes(context, authority)
    assert not believes(context, other_authority)


def test_who_names_a_folder_keeps_the_system_s_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: trustme.CA
) -> None:
    """Each variable replaces its own half of what the system believes, as it does for every other program."""
    file = tmp_path / "ca.pem"
    file.write_text(pem(authority))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    assert believes(system_trust(among(SSL_CERT_DIR=str(tmp_path))), authority)


@pytest.mark.parametrize(
    ("variable", "content"),
    [
        ("SSL_CERT_FILE", None),
        ("SSL_CERT_FILE", ""),
        ("SSL_CERT_FILE", "no certificate"),
        ("SSL_CERT_FILE", BROKEN),
        ("SSL_CERT_DIR", None),
        ("SSL_CERT_DIR", "a file"),
    ],
)
def test_what_is_named_but_cannot_be_read_is_an_error(tmp_path: Path, variable: str, content: str | None) -> None:
    """It is told, rather than that the certificates of all hosts are not trusted."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(OSError, match=r"."):
        system_trust(among(**{variable: str(path)}))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes on this platform")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """A named pipe to which nobody writes is no file of authorities, and nobody waits at it."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError):
        system_trust(among(SSL_CERT_FILE=str(tmp_path / "pipe")))


# What somebody else names


def test_only_the_given_authorities_are_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: trustme.CA, other_authority: trustme.CA
) -> None:
    """Where a platform names the authorities of its proxy, neither the system's nor the environment's count."""
    file = tmp_path / "ca.pem"
    file.write_text(pem(other_authority))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context = trust(pem(authority))
    assert context.get_ca_certs(binary_form=True) == [der(authority)]
    assert believes(context, authority)
    assert not believes(context, other_authority)


def test_each_of_several_authorities_is_believed(authority: trustme.CA, other_authority: trustme.CA) -> None:
    """While an authority is being replaced there are two."""
    context = trust(f"# the old one\n{pem(authority)}\n# the new one\n{pem(other_authority)}")
    assert believes(context, authority)
    assert believes(context, other_authority)


@pytest.mark.parametrize("text", ["", "\n", "no certificate", NOT_BEGUN, BROKEN])
def test_what_holds_no_authority_is_an_error(text: str) -> None:
    """With nothing to believe, OpenSSL would fall back on the system's authorities."""
    with pytest.raises((OSError, ValueError)):
        trust(text)


def test_half_a_file_is_an_error(authority: trustme.CA) -> None:
    """A file that is being written is not taken for what it will be."""
    text = pem(authority)
    with pytest.raises(OSError, match="PEM"):
        trust(text + text[: len(text) // 2])


def test_names_are_checked(authority: trustme.CA) -> None:
    """A certificate of the right authority for another host is not enough."""
    context = trust(pem(authority))
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)


# A certificate that is known by its digest


@asynccontextmanager
async def connected(context: ssl.SSLContext | None) -> AsyncIterator[asyncio.Transport]:
    """Yield a connection to a server with *context*, or to one without TLS."""

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=context)
    unverified = None
    if context is not None:
        unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2], ssl=unverified)
    try:
        yield cast("asyncio.Transport", writer.transport)
    finally:
        writer.close()
        server.close()


async def test_the_certificate_that_is_pinned_is_believed(authority: trustme.CA) -> None:
    """Whoever has signed it, its digest says that it is the one; any other digest says that it is not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = authority.issue_cert("localhost")
    certificate.configure_cert(context)
    shown = ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode())
    pin = Sha1Pin(hashlib.sha1(shown, usedforsecurity=False).digest())
    other = Sha1Pin(bytes(20))
    async with connected(context) as transport:
        pin.check(transport)
        with pytest.raises(aiohttp.ServerFingerprintMismatch) as caught:
            other.check(transport)
    assert (caught.value.got, caught.value.expected) == (pin.fingerprint, other.fingerprint)


async def test_who_shows_no_certificate_is_not_believed() -> None:
    """A connection without TLS has no certificate, and so none that is pinned."""
    empty = hashlib.sha1(b"", usedforsecurity=False).digest()
    async with connected(None) as transport:
        with pytest.raises(aiohttp.ServerFingerprintMismatch):
            Sha1Pin(bytes(20)).check(transport)
        with pytest.raises(aiohttp.ServerFingerprintMismatch):
            Sha1Pin(empty).check(transport)
