"""Certificates: in which forms they are read, what is wrong with those that are not, and what is signed with them."""

from __future__ import annotations

import base64
import random
import sys
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from applications import PASSWORD, Paper, certificate, paper, private_key
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from hypothesis import given, settings
from hypothesis import strategies as st
from pods import check_silence

from aiomsi import ConfigurationError, SourceUnavailableError
from aiomsi.sources._certificate import SigningKey, load_certificate, misfit, sign

if TYPE_CHECKING:
    from collections.abc import Callable

APPLICATION, SOMEBODY = paper(), paper("somebody")
NOW = 1_760_000_000.75


def loaded(content: bytes, password: bytes | None = None) -> SigningKey:
    found = load_certificate(content, password, "the paper")
    assert isinstance(found, SigningKey), found
    return found


# In which form it comes


def notes(paper: Paper) -> bytes:
    """Return what `openssl pkcs12 -in … -nodes` prints: its remarks between the blocks."""
    remark = b"Bag Attributes\n    friendlyName: paper\nsubject=CN = application\n\n"
    return remark + paper.certificates_pem + remark.replace(b"subject", b"Key Attributes") + paper.key_pem()


@pytest.mark.parametrize(
    ("content", "password"),
    [
        (APPLICATION.key_pem() + APPLICATION.certificates_pem, None),
        (APPLICATION.certificates_pem + APPLICATION.key_pem(), None),
        (APPLICATION.certificates_pem + APPLICATION.key_pem(traditional=True), None),
        (APPLICATION.pem().replace(b"\n", b"\r\n"), None),
        (notes(APPLICATION), None),
        (APPLICATION.pem(), b""),
        (APPLICATION.certificates_pem + APPLICATION.key_pem(PASSWORD), PASSWORD.encode()),
        (APPLICATION.certificates_pem + APPLICATION.key_pem(PASSWORD, traditional=True), PASSWORD.encode()),
        (SOMEBODY.certificates_pem + APPLICATION.pem(), None),
        (APPLICATION.pkcs12(), None),
        (APPLICATION.pkcs12(), b""),
        (APPLICATION.pkcs12(PASSWORD), PASSWORD.encode()),
        (APPLICATION.pkcs12("Ünï\u20ac"), "Ünï\u20ac".encode()),
    ],
    ids=[
        "key first",
        "certificate first",
        "PKCS#1",
        "Windows lines",
        "notes",
        "empty password",
        "encrypted",
        "PKCS#1 encrypted",
        "another first",
        "PKCS#12",
        "PKCS#12 empty password",
        "PKCS#12 encrypted",
        "PKCS#12 password in Unicode",
    ],
)
def test_the_forms_in_which_it_is_read(content: bytes, password: bytes | None) -> None:
    """PEM in any order, PKCS#1 or PKCS#8, or PKCS#12, encrypted or not; an empty password is none."""
    found = loaded(content, password)
    assert found.key.private_numbers() == APPLICATION.key.private_numbers()
    assert found.chain == (APPLICATION.certificate,)


ROOT = certificate("root")
ISSUING = certificate("issuing", issuer="root")
OWN = certificate("application", issuer="issuing")
CHAIN = (OWN, ISSUING, ROOT)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("form", ["PEM", "PKCS#12"])
def test_the_chain_is_put_in_order(form: str, seed: int) -> None:
    """Its own certificate is the first, the one that certifies it the second; those of others are left out."""
    certificates = [*CHAIN, SOMEBODY.certificate, ISSUING]
    random.Random(seed).shuffle(certificates)  # noqa: S311  (any order)
    if form == "PEM":
        found = loaded(Paper(APPLICATION.key, certificates[0], tuple(certificates[1:])).pem())
    else:
        certificates.remove(OWN)
        found = loaded(Paper(APPLICATION.key, OWN, tuple(dict.fromkeys(certificates))).pkcs12())
    assert found.chain == CHAIN


def test_a_chain_may_be_incomplete() -> None:
    """What is missing at its end is missing, and a chain in a circle has an end."""
    assert loaded(Paper(APPLICATION.key, OWN, (ROOT,)).pem()).chain == (OWN,)
    circle = (certificate("issuing", issuer="root"), certificate("root", issuer="issuing"))
    assert loaded(Paper(APPLICATION.key, OWN, circle).pem()).chain == (OWN, *circle)


def altered(found: x509.Certificate, old: bytes, new: bytes) -> bytes:
    """Return *found* as PEM with other bytes in it, as no library would make it."""
    assert len(old) == len(new)
    der = found.public_bytes(serialization.Encoding.DER)
    assert old in der
    body = base64.encodebytes(der.replace(old, new))
    return b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"


RSA_ENCRYPTION, UNKNOWN_KIND = bytes.fromhex("2a864886f70d010101"), bytes.fromhex("2a864886f70d010163")


def test_an_authority_may_be_of_any_kind() -> None:
    """A certificate whose key is of a kind that nobody knows is not its own, and no reason to fail."""
    strange = altered(SOMEBODY.certificate, RSA_ENCRYPTION, UNKNOWN_KIND)
    assert loaded(strange + APPLICATION.pem()).chain == (APPLICATION.certificate,)


# What is wrong with it


def other_key(key: Any) -> bytes:
    return bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


ELLIPTIC = ec.derive_private_key(7, ec.SECP256R1())
SMALL = private_key("small", 1024)
PUBLIC = APPLICATION.key.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
NO_KEY = pkcs12.serialize_key_and_certificates(None, None, None, [ROOT], serialization.NoEncryption())
NO_CERTIFICATE = pkcs12.serialize_key_and_certificates(None, APPLICATION.key, None, None, serialization.NoEncryption())
OF_ELLIPTIC = certificate("elliptic", key=ELLIPTIC.public_key(), issuer="root").public_bytes(serialization.Encoding.PEM)
OF_SMALL = certificate("small", key=SMALL.public_key(), issuer="root").public_bytes(serialization.Encoding.PEM)

WRONG: dict[str, tuple[bytes, str | None, str]] = {
    "empty": (b"", None, "is neither PEM nor PKCS#12, or needs a password"),
    "garbage": (b"hunter2\x00\xff" * 99, None, "is neither PEM nor PKCS#12, or needs a password"),
    "a mere beginning": (b"-----BEGIN PRIVATE KEY-----\n", None, "holds no private key that can be read"),
    "cut off": (APPLICATION.pem()[:900], None, "holds no private key that can be read"),
    "PKCS#12 cut off": (APPLICATION.pkcs12()[:900], None, "is neither PEM nor PKCS#12"),
    "encrypted": (APPLICATION.pem(PASSWORD), None, "is encrypted: give its password"),
    "encrypted, empty password": (APPLICATION.pem(PASSWORD), "", "is encrypted: give its password"),
    "wrong password": (APPLICATION.pem(PASSWORD), "hunter2", "that can be read with this password"),
    "not encrypted": (APPLICATION.pem(), "hunter2", "is not encrypted: give no password"),
    "long password": (APPLICATION.pem(PASSWORD), "hunter2" * 999, "that can be read with this password"),
    "PKCS#12 without password": (APPLICATION.pkcs12(PASSWORD), None, "or needs a password"),
    "PKCS#12, wrong password": (APPLICATION.pkcs12(PASSWORD), "hunter2", "or has another password"),
    "PKCS#12, odd password": (APPLICATION.pkcs12(PASSWORD), "hunter2\ud800", "or has another password"),
    "no key": (APPLICATION.certificates_pem, None, "holds no private key that can be read"),
    "a public key": (PUBLIC + APPLICATION.certificates_pem, None, "holds no private key that can be read"),
    "PKCS#12 without key": (NO_KEY, None, "has no RSA key, which is what Entra takes"),
    "no certificate": (APPLICATION.key_pem(), None, "but no certificate that can be read: put it into the same file"),
    "PKCS#12 without certificate": (NO_CERTIFICATE, None, "has no certificate for its key"),
    "a broken certificate": (
        APPLICATION.pem().replace(b"CERTIFICATE-----\nMII", b"CERTIFICATE-----\nMIX"),
        None,
        "but no certificate that can be read",
    ),
    "somebody's certificate": (APPLICATION.key_pem() + SOMEBODY.certificates_pem, None, "no certificate for its key"),
    "elliptic": (other_key(ELLIPTIC) + OF_ELLIPTIC, None, "has no RSA key, which is what Entra takes"),
    "small": (other_key(SMALL) + OF_SMALL, None, "has an RSA key of 1024 bits, where 2048 are needed"),
    "an unreadable name": (
        APPLICATION.key_pem()
        + altered(OWN, b"issuing", b"issu\xff\xff\xff")
        + ISSUING.public_bytes(serialization.Encoding.PEM),
        None,
        "holds a certificate that cannot be read",
    ),
}


@pytest.mark.parametrize(("content", "password", "problem"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_told(content: bytes, password: str | None, problem: str) -> None:
    """The error says what is wrong with what, and holds nothing of it."""
    given_password = None if password is None else password.encode(errors="surrogatepass")
    error = load_certificate(content, given_password, "the paper")
    assert type(error) is ConfigurationError
    assert str(error).startswith("the paper ")
    assert problem in str(error)
    check_silence(error, [*APPLICATION.secrets, PASSWORD, "hunter2"])


BASES = [APPLICATION.pem(), APPLICATION.pkcs12(), APPLICATION.pem(PASSWORD), Paper(APPLICATION.key, OWN, CHAIN).pem()]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(BASES),
    st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 255)), max_size=3),
    st.integers(0, 9_000),
    st.none() | st.binary(max_size=9).filter(lambda password: b"\0" not in password),
)
def test_no_content_breaks_the_reading(
    base: bytes, changes: list[tuple[int, int]], end: int, password: bytes | None
) -> None:
    """Whatever is in a file is a key with its certificate, or an error that says that it is not."""
    content = bytearray(base)
    for place, value in changes:
        content[place % len(content)] = value
    found = load_certificate(bytes(content[:end]), password, "the paper")
    if not isinstance(found, ConfigurationError):
        assert isinstance(found, SigningKey)
        assert found.chain[0].public_key() == found.key.public_key()


@pytest.mark.parametrize("module", ["cryptography", "jwt"])
def test_without_the_extra_it_is_unavailable(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Who lacks one of its packages is told what to install."""
    monkeypatch.setitem(sys.modules, module, None)
    error = load_certificate(APPLICATION.pem(), None, "the paper")
    assert type(error) is SourceUnavailableError
    assert str(error) == "the paper needs the extra `certificate`; run: pip install 'aiomsi[certificate]'"


@pytest.mark.parametrize(
    ("certificate", "password", "error"),
    [
        ("/etc/app.pem", None, None),
        (b"content", b"password", None),
        (b"-----BEGIN" * 999, "password", None),
        (None, None, TypeError("certificate is a path, or content as bytes, not NoneType")),
        (bytearray(b"hunter2"), None, TypeError("certificate is a path, or content as bytes, not bytearray")),
        ("/etc/app.pem", 7, TypeError("password is a string or bytes, not int")),
        ("", None, ValueError("certificate is empty; give the path of a file, or its content as bytes")),
        (b"", None, ValueError("certificate is empty; give the path of a file, or its content as bytes")),
        (b"content", "a\0b", ValueError("password holds a NUL character, which no password does")),
        (b"content", b"\0", ValueError("password holds a NUL character, which no password does")),
    ],
)
def test_arguments(certificate: object, password: object, error: Exception | None) -> None:
    """A certificate is a path or bytes, and its password text or bytes."""
    found = misfit(certificate, password)
    assert (type(found), str(found)) == (type(error), str(error))


@pytest.mark.parametrize("text", [APPLICATION.pem().decode(), base64.b64encode(APPLICATION.pkcs12()).decode()])
def test_content_is_not_taken_for_a_path(text: str) -> None:
    """Who gives a string that is the content is told, since a path is shown in errors."""
    error = misfit(text, None)
    assert type(error) is ValueError
    check_silence(error, APPLICATION.secrets)
    assert text[:20] not in str(error)


# What is signed


def signed(signer: SigningKey, **options: Any) -> str:
    chosen = {"algorithm": "PS256", "send_chain": False, **options}
    return sign(signer, "an-app", "https://login.example/t/oauth2/v2.0/token", NOW, **chosen)


def thumbprint(found: x509.Certificate, digest: Callable[[], hashes.HashAlgorithm]) -> str:
    return base64.urlsafe_b64encode(found.fingerprint(digest())).rstrip(b"=").decode()


def test_what_an_assertion_says() -> None:
    """It is by the application about itself, to one endpoint, and good for ten minutes."""
    assertion = signed(loaded(APPLICATION.pem()))
    claims = jwt.decode(assertion, options={"verify_signature": False})
    assert claims == {
        "aud": "https://login.example/t/oauth2/v2.0/token",
        "iss": "an-app",
        "sub": "an-app",
        "jti": claims["jti"],
        "nbf": 1_760_000_000,
        "iat": 1_760_000_000,
        "exp": 1_760_000_600,
    }


def test_no_two_assertions_are_the_same() -> None:
    """Each has an id of its own, so that one that was overheard can be told from the next."""
    signer = loaded(APPLICATION.pem())
    ids = {jwt.decode(signed(signer), options={"verify_signature": False})["jti"] for _ in range(9)}
    assert len(ids) == 9


@pytest.mark.parametrize(
    ("algorithm", "name", "digest"), [("PS256", "x5t#S256", hashes.SHA256), ("RS256", "x5t", hashes.SHA1)]
)
def test_an_assertion_can_be_verified_and_names_its_certificate(
    algorithm: str, name: str, digest: Callable[[], hashes.HashAlgorithm]
) -> None:
    """PS256 names it by SHA-256; RS256, which is for those that know no better, by SHA-1."""
    assertion = signed(loaded(APPLICATION.pem()), algorithm=algorithm)
    key = APPLICATION.certificate.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    claims = jwt.decode(assertion, key, algorithms=[algorithm], options={"verify_exp": False, "verify_aud": False})
    assert claims["iss"] == "an-app"
    assert jwt.get_unverified_header(assertion) == {
        "alg": algorithm,
        "typ": "JWT",
        name: thumbprint(APPLICATION.certificate, digest),
    }


def test_the_certificates_may_go_along() -> None:
    """Where the application trusts a name and an issuer, all are sent, its own first."""
    signer = loaded(Paper(APPLICATION.key, ROOT, (OWN, ISSUING)).pem())
    header = jwt.get_unverified_header(signed(signer, send_chain=True))
    assert [x509.load_der_x509_certificate(base64.b64decode(one)) for one in header["x5c"]] == [*CHAIN]
    assert header["x5t#S256"] == thumbprint(OWN, hashes.SHA256)


def test_a_key_is_not_shown() -> None:
    """What was loaded shows its certificates only."""
    shown = repr(loaded(APPLICATION.pem()))
    assert "CN=application" in shown
    assert [secret for secret in APPLICATION.secrets if secret in shown] == []
