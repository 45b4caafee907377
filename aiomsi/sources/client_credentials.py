"""An application that proves itself with a secret or a certificate, where no platform does it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread

from aiomsi._errors import AiomsiError, ConfigurationError, about
from aiomsi.sources._certificate import SigningKey, encoded, load_certificate, misfit, sign
from aiomsi.sources._entra import ASSERTION_TYPE, TIME_LIMIT, Proof, application, check_capabilities, entra_token
from aiomsi.sources._files import UnfitFileError, read_small
from aiomsi.sources._surroundings import Surroundings

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from aiomsi._source import TokenRequest
    from aiomsi._token import AccessToken
    from aiomsi.sources._certificate import Algorithm
    from aiomsi.sources._entra import Application

__all__ = ["ClientCertificate", "ClientSecret", "check_given", "signed_token"]

_LARGEST_FILE = 256 * 1024


class ClientSecret:
    """An application that proves itself with a secret of its own: for where there is no managed identity.

    *tenant_id* and *client_id* say which application; *authority* is the URL of the cloud's Entra, otherwise taken
    from `AZURE_AUTHORITY_HOST`. *client_capabilities*, such as "CP1", are declared to Entra.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is empty, the secret holds control characters, or a capability is misspelt.
    """

    name = "client_secret"
    chooses_tenant = True
    time_limit = TIME_LIMIT

    def __init__(
        self,
        *,
        tenant_id: str,
        client_id: str,
        client_secret: str,
        authority: str | None = None,
        client_capabilities: Sequence[str] = (),
        surroundings: Surroundings | None = None,
    ) -> None:
        self._tenant_id, self._client_id = tenant_id, client_id
        proof = _proof(client_secret)
        del client_secret  # A traceback may show what a frame holds.
        if not isinstance(proof, Proof):
            raise proof
        self._proof = proof
        self._surroundings = surroundings or Surroundings()
        self._application = _application(
            self._surroundings, self.name, tenant_id, client_id, authority, client_capabilities
        )

    def __repr__(self) -> str:
        return f"ClientSecret(tenant_id={self._tenant_id!r}, client_id={self._client_id!r})"

    async def fetch(self, request: TokenRequest) -> AccessToken:
        """Show the secret to Entra, and nobody else, for one token.

        Raises:
            ConfigurationError: the application or the authority is malformed; nothing was sent.
            AiomsiError: see the subclasses.
        """
        with about(request.resource, self.name):
            return await entra_token(self._application(), request, self._prove, surroundings=self._surroundings)

    async def _prove(self) -> Proof:
        return self._proof


def _proof(secret: object) -> Proof | Exception:
    """Return what *secret* proves, or what is wrong with it; not raised here, where a variable holds it."""
    if not isinstance(secret, str):
        return TypeError(f"client_secret is a string, not {type(secret).__name__}")
    if not secret:
        return ValueError("client_secret is empty")
    if not secret.isprintable():
        return ValueError("client_secret holds control characters, such as the end of a line; strip() them")
    return Proof({"client_secret": secret})


class ClientCertificate:
    """An application that proves itself with the private key of a certificate (extra `certificate`).

    *certificate* is the path of a file, or its content as bytes: PEM with certificate and key, or PKCS#12, with
    *password* if it is encrypted. A file is read for each request, so that it may be renewed. With
    *send_certificate_chain* the certificates go along, for applications that trust a subject name and issuer.
    *algorithm* is "PS256", or "RS256" for what cannot check that. The rest is as for `ClientSecret`.

    Source: Microsoft documentation, "Application authentication certificate credentials"; RFC 7523.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is empty, *certificate* is content as text, *algorithm* is neither, or a capability is
            misspelt.
    """

    name = "client_certificate"
    chooses_tenant = True
    time_limit = TIME_LIMIT

    def __init__(  # noqa: PLR0913  (all of them are named, and each is one thing to say)
        self,
        *,
        tenant_id: str,
        client_id: str,
        certificate: str | os.PathLike[str] | bytes,
        password: str | bytes | None = None,
        send_certificate_chain: bool = False,
        algorithm: Algorithm = "PS256",
        authority: str | None = None,
        client_capabilities: Sequence[str] = (),
        surroundings: Surroundings | None = None,
    ) -> None:
        self._tenant_id, self._client_id = tenant_id, client_id
        problem = misfit(certificate, password)
        self._certificate, self._password = certificate, encoded(password)
        del certificate, password  # A traceback may show what a frame holds.
        if problem is not None:
            raise problem
        if algorithm not in ("PS256", "RS256"):
            raise ValueError(f"algorithm is 'PS256' or 'RS256', not {algorithm!r}")
        self._signing = partial(sign, algorithm=algorithm, send_chain=send_certificate_chain)
        self._surroundings = surroundings or Surroundings()
        self._application = _application(
            self._surroundings, self.name, tenant_id, client_id, authority, client_capabilities
        )

    def __repr__(self) -> str:
        return f"ClientCertificate(tenant_id={self._tenant_id!r}, client_id={self._client_id!r})"

    async def fetch(self, request: TokenRequest) -> AccessToken:
        """Sign an assertion that is good for ten minutes, and exchange it for one token.

        Raises:
            SourceUnavailableError: the extra `certificate` is not installed.
            ConfigurationError: the certificate cannot be read or used; nothing was sent.
            AiomsiError: see the subclasses.
        """
        with about(request.resource, self.name):
            app = self._application()
            key = await anyio.to_thread.run_sync(self._load)
            if isinstance(key, AiomsiError):
                raise key
            return await signed_token(app, request, partial(self._signing, key), self._surroundings)

    def _load(self) -> SigningKey | AiomsiError:
        """Return the key, or what is wrong with it; not raised here, where local variables hold it."""
        if isinstance(self._certificate, bytes):
            return load_certificate(self._certificate, self._password, "the certificate that was given")
        given = Path(self._certificate)
        path = self._surroundings.place(given.absolute())
        # Not shown where it may be something else, such as the password, by mistake.
        what = f"the certificate {str(path)!r}" if given.is_absolute() else "the certificate, whose path is relative,"
        try:
            content, _ = read_small(path, _LARGEST_FILE)
        except UnfitFileError as error:
            return ConfigurationError(f"{what} {error}")
        except OSError as error:
            return ConfigurationError(f"{what} cannot be read: {error.strerror}")
        return load_certificate(content, self._password, what)


async def signed_token(
    app: Application, request: TokenRequest, signing: Callable[[str, str, float], str], surroundings: Surroundings
) -> AccessToken:
    """Fetch one token for *app*, with a proof for each attempt from *signing*, which is `sign` with a key.

    Raises:
        AiomsiError: see the subclasses.
    """
    audience = f"{app.authority}/{request.tenant_id or app.tenant_id}/oauth2/v2.0/token"

    async def prove() -> Proof:
        assertion = await anyio.to_thread.run_sync(signing, app.client_id, audience, request.clock.wall())
        return Proof({"client_assertion": assertion, "client_assertion_type": ASSERTION_TYPE})

    return await entra_token(app, request, prove, surroundings=surroundings)


def _application(
    surroundings: Surroundings,
    source: str,
    tenant_id: str,
    client_id: str,
    authority: str | None,
    capabilities: Sequence[str],
) -> Callable[[], Application]:
    """Check the arguments, and return what makes an application of them at each fetch."""
    return partial(
        application,
        surroundings,
        source,
        client_id=check_given("client_id", client_id),
        tenant_id=check_given("tenant_id", tenant_id),
        authority=None if authority is None else check_given("authority", authority),
        capabilities=check_capabilities(capabilities),
    )


def check_given(name: str, value: str) -> str:
    """Return *value*, the argument *name*.

    Raises:
        TypeError: it is no string.
        ValueError: it is empty.
    """
    # Not shown: the argument next to it is a secret.
    if not isinstance(value, str):
        raise TypeError(f"{name} is a string, not {type(value).__name__}")
    if not value:
        raise ValueError(f"{name} is empty")
    return value
