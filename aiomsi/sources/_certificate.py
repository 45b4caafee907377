"""Certificates that an application proves itself with (extra `certificate`: PyJWT and cryptography).

Source: RFC 7523; Microsoft documentation, "Application authentication certificate credentials".
"""

from __future__ import annotations

import base64
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from aiomsi._errors import ConfigurationError, SourceUnavailableError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.x509 import Certificate

__all__ = ["Algorithm", "SigningKey", "load_certificate", "sign"]

Algorithm: TypeAlias = Literal["PS256", "RS256"]
_LIFETIME = 600  # Seconds.


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key, and the certificates that vouch for it, its own first."""

    key: RSAPrivateKey = field(repr=False)
    chain: tuple[Certificate, ...]


def load_certificate(content: bytes, password: bytes | None, what: str, source: str) -> SigningKey:
    """Return the key and the certificates in *content*, PEM or PKCS#12; *what* names it in errors. Blocks.

    Raises:
        SourceUnavailableError: the extra is not installed.
        ConfigurationError: it is neither, or the password is wrong, or there is no RSA key or no certificate for it.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415  (an extra)
    except ImportError:
        raise SourceUnavailableError(
            f"{what} needs the extra `certificate`; run: pip install 'aiomsi[certificate]'", source=source
        ) from None
    try:
        key, chain = _pem(content, password) if b"-----BEGIN" in content else _pkcs12(content, password)
    except (ValueError, TypeError) as error:
        problem = "is neither PEM nor PKCS#12 with an RSA key and a certificate, or the password is wrong"
        # Without its frames: they hold the password.
        raise ConfigurationError(f"{what} {problem} ({type(error).__name__})", source=source) from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ConfigurationError(f"{what} has no RSA key, which is what Entra takes", source=source)
    # The files of authorities hold certificates in any order.
    own = [certificate for certificate in chain if certificate.public_key() == key.public_key()]
    if not own:
        raise ConfigurationError(f"{what} has no certificate for its key", source=source)
    return SigningKey(key, (own[0], *(certificate for certificate in chain if certificate != own[0])))


def _pem(content: bytes, password: bytes | None) -> tuple[Any, list[Certificate]]:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415
    from cryptography.x509 import load_pem_x509_certificates  # noqa: PLC0415

    return load_pem_private_key(content, password), load_pem_x509_certificates(content)


def _pkcs12(content: bytes, password: bytes | None) -> tuple[Any, list[Certificate]]:
    from cryptography.hazmat.primitives.serialization.pkcs12 import load_key_and_certificates  # noqa: PLC0415

    key, own, others = load_key_and_certificates(content, password)
    return key, [certificate for certificate in (own, *others) if certificate is not None]


def sign(
    signer: SigningKey, client_id: str, audience: str, now: float, *, algorithm: Algorithm, send_chain: bool
) -> str:
    """Return an assertion of *client_id* to *audience*, good for ten minutes from *now* (Unix time in seconds)."""
    import jwt  # noqa: PLC0415  (an extra)
    from cryptography.hazmat.primitives.hashes import SHA1, SHA256  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415

    own = signer.chain[0]
    # RS256 is for those that know a certificate by its SHA-1 only.
    named = {"x5t#S256": own.fingerprint(SHA256())} if algorithm == "PS256" else {"x5t": own.fingerprint(SHA1())}  # noqa: S303
    headers: dict[str, Any] = {
        name: base64.urlsafe_b64encode(digest).rstrip(b"=").decode() for name, digest in named.items()
    }
    if send_chain:
        headers["x5c"] = [base64.b64encode(one.public_bytes(Encoding.DER)).decode() for one in signer.chain]
    claims = {
        "aud": audience,
        "iss": client_id,
        "sub": client_id,
        "jti": str(uuid.uuid4()),
        "nbf": int(now),
        "iat": int(now),
        "exp": int(now) + _LIFETIME,
    }
    return jwt.encode(claims, signer.key, algorithm, headers)
