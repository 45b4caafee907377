"""An application whose certificate lies in a key vault, which another identity may read."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from aiomsi._errors import ConfigurationError, MalformedResponseError, about
from aiomsi._source import time_limit_of
from aiomsi.sources._entra import ATTEMPT_LIMIT, TIME_LIMIT, public_peer
from aiomsi.sources._messages import Answer, Request
from aiomsi.sources._redaction import shape
from aiomsi.sources._refusals import plain_refusal
from aiomsi.sources._surroundings import Surroundings
from aiomsi.sources._transport import connect
from aiomsi.sources.client_credentials import ClientCertificate

if TYPE_CHECKING:
    from aiomsi._source import Source, TokenRequest
    from aiomsi._token import AccessToken

__all__ = ["KeyVaultCertificate"]

_API_VERSION = "7.4"
_IDENTIFIER = re.compile(
    r"https://[0-9A-Za-z-]+\.(?P<suffix>vault\.azure\.net|vault\.azure\.cn|vault\.usgovcloudapi\.net)"
    r"/secrets/[0-9A-Za-z-]+(/[0-9A-Za-z]+)?/?",
    re.IGNORECASE,
)


class KeyVaultCertificate:
    """An application that proves itself with a certificate that is fetched from a key vault for each request.

    *secret_identifier* is the certificate's secret, `https://<vault>.vault.azure.net/secrets/<name>[/<version>]`, which
    *reader*, another source, may read. Without *tenant_id* the application is in the reader's tenant.

    Source: Key Vault REST API, "Get Secret" 7.4.

    Raises:
        ValueError: *secret_identifier* is not one.
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
        match = _IDENTIFIER.fullmatch(secret_identifier)
        if match is None:
            raise ValueError(
                f"{secret_identifier!r} is no identifier of a certificate's secret, such as"
                " https://myvault.vault.azure.net/secrets/mycertificate"
            )
        self._url = f"{secret_identifier.rstrip('/')}?api-version={_API_VERSION}"
        self._resource = f"https://{match['suffix'].lower()}"
        self._client_id = client_id
        self._reader = reader
        self._tenant_id = tenant_id
        self._surroundings = surroundings or Surroundings()

    def __repr__(self) -> str:
        return f"KeyVaultCertificate(client_id={self._client_id!r}, reader={self._reader!r})"

    @property
    def time_limit(self) -> float:
        """Seconds after which a fetch is given up: the reader's, and what the vault and Entra may take."""
        return time_limit_of(self._reader) + ATTEMPT_LIMIT + TIME_LIMIT

    async def fetch(self, request: TokenRequest) -> AccessToken:
        """Fetch the certificate as the reader, and then one token as the application.

        Raises:
            AiomsiError: see the subclasses.
        """
        asked = replace(request, resource=self._resource, tenant_id=None, claims=None, rejected_sha256=None)
        read = await self._reader.fetch(asked)
        with about(request.resource, self.name):
            certificate = await self._certificate(read, request)
            owner = read.principal
            tenant_id = self._tenant_id or (owner.tenant_id if owner is not None else None)
            if tenant_id is None:
                raise ConfigurationError("the tenant cannot be told from the token for the vault; give a TenantId")
            application = ClientCertificate(
                tenant_id=tenant_id,
                client_id=self._client_id,
                certificate=_content(certificate),
                surroundings=self._surroundings,
            )
            return await application.fetch(request)

    async def _certificate(self, read: AccessToken, request: TokenRequest) -> Answer:
        sent = Request(self._url, {"Authorization": f"Bearer {read.token}"}, secrets=(read.token,))
        peer = await public_peer(self._url, self._surroundings, self.name)
        async with connect(self._url, source=self.name, clock=request.clock, peer=peer) as line:
            answer = await line.send(sent, min(ATTEMPT_LIMIT, request.deadline - request.clock.monotonic()))
        if answer.status != 200:
            raise plain_refusal(
                "the key vault gave no certificate",
                sent,
                answer,
                "may this identity read secrets there (role Key Vault Secrets User)?",
                self.name,
                request.clock.wall(),
            )
        if not _content(answer):
            raise MalformedResponseError(
                f"the key vault answered without a certificate (PKCS#12 or PEM): it was {shape(answer.body)}"
            )
        return answer


def _content(answer: Answer) -> bytes:
    """Return the PKCS#12 or PEM in *answer*, nothing if there is none; never kept where a traceback could show it."""
    value = answer.members.get("value")
    if not isinstance(value, str):
        return b""
    if answer.members.get("contentType") == "application/x-pem-file":
        return value.encode()
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return b""
