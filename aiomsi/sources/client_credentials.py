"""An application that proves itself with a secret or a certificate, where no platform does it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread

from aiomsi._errors import ConfigurationError
from aiomsi.sources._certificate import SigningKey, load_certificate, sign
from aiomsi.sources._entra import ASSERTION_TYPE, TIME_LIMIT, Proof, application, check_capabilities, entra_token
from aiomsi.sources._files import UnfitFileError, read_small
from aiomsi.sources._surroundings import Surroundings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiomsi._source import TokenRequest
    from aiomsi._token import AccessToken
    from aiomsi.sources._certificate import Algorithm
    from aiomsi.sources._entra import Application

__all__ = ["ClientCertificate", "ClientSecret"]

_LARGEST_FILE = 256 * 1024


class ClientSecret:
    """An application that proves itself with a secret of its own: for where there is no managed identity.

    *tenant_id* and *client_id* say which application; *authority* is the URL of the cloud's Entra, otherwise taken
    from `AZURE_AUTHORITY_HOST`. *client_capabilities*, such as "CP1", are declared to Entra.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: the secret is empty, or a capability is misspelt.
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
        if not isinstance(client_secret, str):
            raise TypeError(f"client_secret is a string, not {type(client_secret).__name__}")
        if not client_secret:
            raise ValueError("client_secret is empty")
        self._surroundings = surroundings or Surroundings()
        self._tenant_id = _given("tenant_id", tenant_id)
        self._client_id = _given("client_id", client_id)
        self._proof = Proof({"client_secret": client_secret})
        self._authority = authority
        self._capabilities = check_capabilities(client_capabilities)

    def __repr__(self) -> str:
        return f"ClientSecret(tenant_id={self._tenant_id!r}, client_id={self._client_id!r})"

    async def fetch(self, request: TokenRequest) -> AccessToken:
        """Show the secret to Entra, and nobody else, for one token.

        Raises:
            ConfigurationError: the application or the authority is malformed; nothing was sent.
            AiomsiError: see the subclasses.
        """
        app = application(
            self._surroundings,
            self.name,
            client_id=self._client_id,
            tenant_id=self._tenant_id,
            authority=self._authority,
            capabilities=self._capabilities,
        )
        return await entra_token(app, request, self._prove, surroundings=self._surroundings)

    async def _prove(self) -> Proof:
        return self._proof


class ClientCertificate:
    """An application that proves itself with the private key of a certificate (extra `certificate`).

    *certificate* is the path of a file, or its content as bytes: PEM with certificate and key, or PKCS#12, with
    *password* if it is encrypted. A file is read for each request, so that it may be renewed. With
    *send_certificate_chain* the certificates go along, for applications that trust a subject name and issuer.
    *algorithm* is "PS256", or "RS256" for what cannot check that. The rest is as for `ClientSecret`.

    Source: Microsoft documentation, "Application authentication certificate credentials"; RFC 7523.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is empty, or *algorithm* is neither.
    """

    name = "client_certificate"
    chooses_tenant = True
    time_limit = TIME_LIMIT

    def __init__(
        self,
        *,
        tenant_id: str,
        client_id: str,
        certificate: str | Path | bytes,
        password: str | bytes | None = None,
        send_certificate_chain: bool = False,
        algorithm: Algorithm = "PS256",
        authority: str | None = None,
        client_capabilities: Sequence[str] = (),
        surroundings: Surroundings | None = None,
    ) -> None:
        if algorithm not in ("PS256", "RS256"):
            raise ValueError(f"algorithm is 'PS256' or 'RS256', not {algorithm!r}")
        if not certificate:
            raise ValueError("certificate is empty; give the path of a file, or its content as bytes")
        self._surroundings = surroundings or Surroundings()
        self._tenant_id = _given("tenant_id", tenant_id)
        self._client_id = _given("client_id", client_id)
        self._certificate = certificate
        self._password = password.encode() if isinstance(password, str) else password
        self._send_chain = send_certificate_chain
        self._algorithm: Algorithm = algorithm
        self._authority = authority
        self._capabilities = check_capabilities(client_capabilities)

    def __repr__(self) -> str:
        return f"ClientCertificate(tenant_id={self._tenant_id!r}, client_id={self._client_id!r})"

    async def fetch(self, request: TokenRequest) -> AccessToken:
        """Sign an assertion that is good for ten minutes, and exchange it for one token.

        Raises:
            SourceUnavailableError: the extra `certificate` is not installed.
            ConfigurationError: the certificate cannot be read or used; nothing was sent.
            AiomsiError: see the subclasses.
        """
        app = application(
            self._surroundings,
            self.name,
            client_id=self._client_id,
            tenant_id=self._tenant_id,
            authority=self._authority,
            capabilities=self._capabilities,
        )
        key = await anyio.to_thread.run_sync(self._load)
        tenant_id = request.tenant_id or app.tenant_id

        async def prove() -> Proof:
            return await anyio.to_thread.run_sync(self._sign, key, app, tenant_id, request.clock.wall())

        return await entra_token(app, request, prove, surroundings=self._surroundings)

    def _load(self) -> SigningKey:
        if isinstance(self._certificate, bytes):
            return load_certificate(self._certificate, self._password, "the given certificate", self.name)
        path = self._surroundings.place(Path(self._certificate).absolute())
        try:
            content, _ = read_small(path, _LARGEST_FILE)
        except (OSError, UnfitFileError) as error:
            what = error if isinstance(error, UnfitFileError) else f"cannot be read: {error.strerror}"
            raise ConfigurationError(f"the certificate {str(path)!r} {what}", source=self.name) from None
        return load_certificate(content, self._password, f"the certificate {str(path)!r}", self.name)

    def _sign(self, key: SigningKey, app: Application, tenant_id: str, now: float) -> Proof:
        audience = f"{app.authority}/{tenant_id}/oauth2/v2.0/token"
        assertion = sign(key, app.client_id, audience, now, algorithm=self._algorithm, send_chain=self._send_chain)
        return Proof({"client_assertion": assertion, "client_assertion_type": ASSERTION_TYPE})


def _given(name: str, value: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} is a string, not {value!r}")
    if not value:
        raise ValueError(f"{name} is empty")
    return value
