"""An application whose certificate lies in a key vault, which another identity may read."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import anyio.to_thread

from aiomsi._errors import AiomsiError, MalformedResponseError, about
from aiomsi._source import check_source, max_parallel, time_limit_of
from aiomsi._token import token_problem
from aiomsi.sources._certificate import SigningKey, load_certificate, sign
from aiomsi.sources._entra import ATTEMPT_LIMIT, TIME_LIMIT, application, public_peer
from aiomsi.sources._messages import Answer, Request
from aiomsi.sources._redaction import shape
from aiomsi.sources._refusals import plain_refusal
from aiomsi.sources._retrying import Patience, persist
from aiomsi.sources._surroundings import Surroundings
from aiomsi.sources._transport import connect
from aiomsi.sources.client_credentials import check_given, signed_token

if TYPE_CHECKING:
    from aiomsi._source import Source, TokenRequest
    from aiomsi._token import AccessToken
    from aiomsi.sources._entra import Application

__all__ = ["KeyVaultCertificate"]

_API_VERSION = "7.4"
# The Entra of the cloud that a vault is in, by the vault's domain.
_AUTHORITIES = {
    "vault.azure.net": "https://login.microsoftonline.com",
    "vault.azure.cn": "https://login.chinacloudapi.cn",
    "vault.usgovcloudapi.net": "https://login.microsoftonline.us",
}
_IDENTIFIER = re.compile(
    rf"https://[0-9a-z-]+\.(?P<domain>{'|'.join(map(re.escape, _AUTHORITIES))})/secrets/[0-9a-z-]+(/[0-9a-z]+)?/?",
    re.ASCII | re.IGNORECASE,
)
_PATIENCE = Patience()
_ADVICE = "is it there, and may whoever reads it get secrets (role Key Vault Secrets User)?"


class KeyVaultCertificate:
    """An application that proves itself with a certificate that is fetched from a key vault for each request.

    *secret_identifier* is the certificate's secret, `https://<vault>.vault.azure.net/secrets/<name>[/<version>]`, which
    *reader*, another source, may read. Without *tenant_id* the application is in the reader's tenant. Tokens are asked
    for at `AZURE_AUTHORITY_HOST`, or else in the vault's cloud.

    Source: Key Vault REST API, "Get Secret" 7.4.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: *secret_identifier* is not one, or *client_id* is empty.
    """

    name = "key_vault_certificate"
    chooses_tenant = True

    def __init__(
        self,
        *,
        secret_identifier: str,
        client_id: str,
        reader: Source,
        tenant_id: str | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        self._client_id, self._reader = client_id, reader
        match = _IDENTIFIER.fullmatch(check_given("secret_identifier", secret_identifier))
        if match is None:  # Not shown: it may hold a password.
            raise ValueError(
                "secret_identifier is not that of a certificate's secret, such as"
                " https://myvault.vault.azure.net/secrets/mycertificate"
            )
        check_given("client_id", client_id)
        check_source(reader)
        self._url = f"{secret_identifier.rstrip('/')}?api-version={_API_VERSION}"
        self._domain = match["domain"].lower()
        self._tenant_id = tenant_id if tenant_id is None else check_given("tenant_id", tenant_id)
        self._surroundings = surroundings or Surroundings()

    def __repr__(self) -> str:
        return f"KeyVaultCertificate(client_id={self._client_id!r}, reader={self._reader!r})"

    @property
    def time_limit(self) -> float:
        """Seconds after which a fetch is given up: the reader's, and what the vault and Entra may take."""
        return time_limit_of(self._reader) + ATTEMPT_LIMIT + TIME_LIMIT

    @property
    def max_parallel(self) -> int | None:
        """How many fetches the reader takes at the same time."""
        return max_parallel(self._reader)

    async def fetch(self, request: TokenRequest) -> AccessToken:
        """Fetch the certificate as the reader, and then one token as the application.

        Raises:
            SourceUnavailableError: the extra `certificate` is not installed, or the reader is not there.
            AiomsiError: see the subclasses.
        """
        asked = replace(request, resource=f"https://{self._domain}", tenant_id=None, claims=None, rejected_sha256=None)
        read = await self._reader.fetch(asked)
        with about(request.resource, self.name):
            problem = token_problem(read.token, read.expires_on, request.clock.wall())
            if problem is not None:  # It comes from a source that anybody may write.
                raise MalformedResponseError(f"the source {self._reader.name!r} returned {problem} for the key vault")
            app = self._application(read)
            answer = await self._secret(read, request)
            key = await anyio.to_thread.run_sync(_load, answer)
            if isinstance(key, AiomsiError):
                raise key
            return await signed_token(app, request, partial(sign, key), self._surroundings)

    def _application(self, read: AccessToken) -> Application:
        owner = read.principal
        variable = self._surroundings.get("AZURE_AUTHORITY_HOST")
        return application(
            self._surroundings,
            self.name,
            client_id=self._client_id,
            tenant_id=self._tenant_id or (owner.tenant_id if owner is not None else None),
            authority=None if variable else _AUTHORITIES[self._domain],
        )

    async def _secret(self, read: AccessToken, request: TokenRequest) -> Answer:
        sent = Request(self._url, {"Authorization": f"Bearer {read.token}"}, secrets=(read.token,))
        clock = request.clock
        peer = await public_peer(self._url, self._surroundings, self.name)
        async with connect(self._url, source=self.name, clock=clock, peer=peer) as line:

            async def attempt() -> Answer:
                answer = await line.send(sent, ATTEMPT_LIMIT, deadline=request.deadline)
                if answer.status == 200:
                    return answer
                what = "the key vault did not give out the certificate"
                raise plain_refusal(what, sent, answer, _ADVICE, self.name, clock.wall())

            return await persist(attempt, _PATIENCE, clock=clock, until=request.deadline)


def _load(answer: Answer) -> SigningKey | AiomsiError:
    """Return the key in *answer*, or what is wrong with it; not raised here, where local variables hold it."""
    content = _content(answer)
    if content:
        return load_certificate(content, None, "the certificate in the key vault")
    return MalformedResponseError(
        "the key vault answered with something else than a certificate, whose contentType is application/x-pkcs12 or"
        f" application/x-pem-file: it was {shape(answer.body)}"
    )


def _content(answer: Answer) -> bytes:
    """Return the PKCS#12 or PEM in *answer*, nothing if there is none."""
    kind, value = answer.members.get("contentType"), answer.members.get("value")
    if kind not in ("application/x-pkcs12", "application/x-pem-file") or not isinstance(value, str):
        return b""
    if kind == "application/x-pem-file":
        return value.encode(errors="replace")
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        return b""
