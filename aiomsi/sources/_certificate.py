"""Certificates that an application proves itself with (extra `certificate`: PyJWT and cryptography).

Source: RFC 7523; Microsoft documentation, "Application authentication certificate credentials".
"""

from __future__ import annotations

import base64
import hashlib
import os
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from aiomsi._errors import AiomsiError, ConfigurationError, SourceUnavailableError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.x509 import Certificate

__all__ = ["Algorithm", "SigningKey", "encoded", "load_certificate", "misfit", "sign"]

Algorithm: TypeAlias = Literal["PS256", "RS256"]
_LONGEST_PATH = 1000
_LIFETIME = 600  # Seconds.
_FEWEST_BITS = 2048  # For both algorithms (RFC 7518, sections 3.3 and 3.5).


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key, and the certificates that vouch for it, its own first."""

    key: RSAPrivateKey = field(repr=False)
    chain: tuple[Certificate, ...]


def misfit(certificate: object, password: object) -> Exception | None:
    """Return what is wrong with the arguments; not raised here, where local variables hold what is secret."""
    if not isinstance(certificate, str | bytes | os.PathLike):
        return TypeError(f"certificate is a path, or content as bytes, not {type(certificate).__name__}")
    if not isinstance(password, str | bytes | None):
        return TypeError(f"password is a string or bytes, not {type(password).__name__}")
    if not certificate:
        return ValueError("certificate is empty; give the path of a file, or its content as bytes")
    if b"\0" in (encoded(password) or b""):  # Over which cryptography may panic.
        return ValueError("password holds a NUL character, which no password does")
    path = "" if isinstance(certificate, bytes) else str(certificate)
    if "-----BEGIN" in path or len(path) > _LONGEST_PATH:  # Errors would show it as a path.
        return ValueError("certificate is the path of a file if it is a string; give its content as bytes")
    return None


def encoded(password: str | bytes | None) -> bytes | None:
    """Return *password* as bytes, however odd it is."""
    return password.encode(errors="surrogatepass") if isinstance(password, str) else password


def load_certificate(content: bytes, password: bytes | None, what: str) -> SigningKey | AiomsiError:
    """Return the key and the certificates in *content*, PEM or PKCS#12, or an error that calls it *what*. Blocks.

    The error is not raised here, where local variables hold the key: SourceUnavailableError if the extra is not
    installed, ConfigurationError if there is no RSA key that can be read, or no certificate for it.
    """
    if not _is_installed():
        return SourceUnavailableError(f"{what} needs the extra `certificate`; run: pip install 'aiomsi[certificate]'")
    load = _pem if b"-----BEGIN" in content else _pkcs12
    found = load(content, password or None)  # An empty variable means that there is none.
    key = found if isinstance(found, str) else _signing_key(*found)
    return ConfigurationError(f"{what} {key}") if isinstance(key, str) else key


def _is_installed() -> bool:
    try:
        import cryptography  # noqa: F401, PLC0415  (an extra, as everything of it below)
        import jwt  # noqa: F401, PLC0415
    except ImportError:
        return False
    return True


def _pem(content: bytes, password: bytes | None) -> tuple[Any, list[Certificate]] | str:
    """Return the key and the certificates, or what is wrong."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415
    from cryptography.x509 import load_pem_x509_certificates  # noqa: PLC0415

    try:
        key = load_pem_private_key(content, password)
    except TypeError:
        return "is encrypted: give its password" if password is None else "is not encrypted: give no password"
    except (ValueError, UnsupportedAlgorithm):
        return f"holds no private key that can be read{'' if password is None else ' with this password'}"
    try:
        return key, load_pem_x509_certificates(content)
    except ValueError:
        return "holds a private key, but no certificate that can be read: put it into the same file"


def _pkcs12(content: bytes, password: bytes | None) -> tuple[Any, list[Certificate]] | str:
    """Return the key and the certificates, or what is wrong."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization.pkcs12 import load_key_and_certificates  # noqa: PLC0415

    try:
        key, own, others = load_key_and_certificates(content, password)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return f"is neither PEM nor PKCS#12, or {'needs a password' if password is None else 'has another password'}"
    return key, [certificate for certificate in (own, *others) if certificate is not None]


def _signing_key(key: Any, certificates: list[Certificate]) -> SigningKey | str:
    """Return *key* with what vouches for it among *certificates*, or what is wrong."""
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey  # noqa: PLC0415

    if not isinstance(key, RSAPrivateKey):
        return "has no RSA key, which is what Entra takes"
    if key.key_size < _FEWEST_BITS:
        return f"has an RSA key of {key.key_size} bits, where {_FEWEST_BITS} are needed"
    own = next((certificate for certificate in certificates if _is_for(certificate, key)), None)
    if own is None:
        return "has no certificate for its key"
    try:
        return SigningKey(key, _chain(own, certificates))
    except ValueError:
        return "holds a certificate that cannot be read"


def _is_for(certificate: Certificate, key: RSAPrivateKey) -> bool:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415

    try:
        return certificate.public_key() == key.public_key()
    except (ValueError, UnsupportedAlgorithm):  # An authority's certificate may be of any kind.
        return False


def _chain(own: Certificate, certificates: list[Certificate]) -> tuple[Certificate, ...]:
    """Return *own*, and then the one that certifies it, and so on (RFC 7515, section 4.1.6), whatever their order."""
    chain, rest = [own], [certificate for certificate in certificates if certificate != own]
    while issuers := [certificate for certificate in rest if certificate.subject == chain[-1].issuer]:
        chain.append(issuers[0])
        rest.remove(issuers[0])
    return tuple(chain)


def sign(
    signer: SigningKey,
    client_id: str,
    audience: str,
    now: float,
    *,
    algorithm: Algorithm = "PS256",
    send_chain: bool = False,
) -> str:
    """Return an assertion of *client_id* to *audience*, good for ten minutes from *now* (Unix time in seconds)."""
    import jwt  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415

    chain = [certificate.public_bytes(Encoding.DER) for certificate in signer.chain]
    # RS256 is for those that know a certificate by its SHA-1 only.
    name, digest = ("x5t#S256", hashlib.sha256) if algorithm == "PS256" else ("x5t", hashlib.sha1)
    headers: dict[str, Any] = {name: _text(digest(chain[0], usedforsecurity=False).digest())}
    if send_chain:
        headers["x5c"] = [base64.b64encode(certificate).decode() for certificate in chain]
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


def _text(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
