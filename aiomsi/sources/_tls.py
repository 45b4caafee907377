"""Whom to believe: how a peer proves over TLS that it is the one that a secret is meant for."""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    import asyncio

    from aiomsi.sources._surroundings import Surroundings

__all__ = ["Sha1Pin", "system_trust", "trust"]


class Sha1Pin(aiohttp.Fingerprint):
    """Believes the one certificate with this SHA-1 digest, whoever has signed it.

    It is compared after the handshake and before any request is written. (aiohttp's own takes no SHA-1.)
    """

    def __init__(self, digest: bytes) -> None:
        self._digest = digest

    @property
    def fingerprint(self) -> bytes:
        """The digest, as it was given."""
        return self._digest

    def check(self, transport: asyncio.Transport) -> None:
        """Raise ServerFingerprintMismatch if the peer has shown another certificate, or none."""
        connection = transport.get_extra_info("ssl_object")
        certificate = connection.getpeercert(binary_form=True) if connection is not None else None
        digest = hashlib.sha1(certificate or b"", usedforsecurity=False).digest()
        if not certificate or not hmac.compare_digest(digest, self._digest):
            host, port, *_ = transport.get_extra_info("peername")
            raise aiohttp.ServerFingerprintMismatch(self._digest, digest, host, port)


def trust(anchors: str) -> ssl.SSLContext:
    """Return a context that believes the certificate authorities in *anchors* (PEM), and no others. Blocks.

    Raises:
        ValueError: there are none in it.
    """
    if "-----BEGIN CERTIFICATE-----" not in anchors:  # With nothing to believe, the system's would be believed.
        raise ValueError("there is no certificate")
    return ssl.create_default_context(cadata=anchors)


def system_trust(surroundings: Surroundings) -> ssl.SSLContext | None:
    """Return a context for the authorities that OpenSSL's own variables name, or None if they name none. Blocks.

    As OpenSSL has it, who names a file does not lose the system's folder of authorities, nor the other way round.

    Raises:
        OSError: what they name cannot be read.
    """
    file, folder = surroundings.get("SSL_CERT_FILE"), surroundings.get("SSL_CERT_DIR")
    if not file and not folder:
        return None
    if file and not Path(file).is_file():  # A pipe would be waited for without end.
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), file)
    # OpenSSL itself would pass over a folder that is not there, and then believe nobody.
    if folder and not any(Path(part).is_dir() for part in folder.split(os.pathsep)):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder)
    context = ssl.create_default_context()
    context.load_verify_locations(file, folder)
    return context
