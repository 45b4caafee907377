"""A certificate for the hosts that are asked over TLS."""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a server on loopback shows to its clients, and what they need to trust it or to know it again."""

    context: ssl.SSLContext
    thumbprint: str
    """The SHA-1 of the server's certificate (DER), in hexadecimal digits, as Service Fabric tells it."""
    authority: str
    """The certificate of the root authority, as PEM."""


def issue_certificate(*names: str) -> Certificate:
    """Return a new certificate for localhost, 127.0.0.1 and *names*, in a chain of three; blocks for a moment.

    Raises ImportError if trustme is not installed.
    """
    try:
        import trustme  # noqa: PLC0415  # Wanted by the hosts over TLS only.
    except ImportError as error:
        message = "a host that is asked over TLS needs trustme to be played; run: pip install 'aiomsi[testing]'"
        raise ImportError(message, name="trustme") from error
    root = trustme.CA()
    issued = trustme.CA(parent_cert=root).issue_cert(*dict.fromkeys(("localhost", "127.0.0.1", *names)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued.configure_cert(context)
    shown = ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())
    thumbprint = hashlib.sha1(shown, usedforsecurity=False).hexdigest()
    return Certificate(context, thumbprint, root.cert_pem.bytes().decode())
