"""The identity of a Kubernetes workload: a service account's token, exchanged for one of Entra's."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

import anyio.to_thread

from aiomsi._clock import sleep
from aiomsi._errors import ConfigurationError, SourceUnavailableError
from aiomsi.sources._entra import (
    ASSERTION_TYPE,
    TIME_LIMIT,
    Proof,
    application,
    check_capabilities,
    entra_token,
)
from aiomsi.sources._files import UnfitFileError, read_small
from aiomsi.sources._surroundings import Surroundings
from aiomsi.sources._token_proxy import TokenProxy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiomsi._clock import Clock
    from aiomsi._source import TokenRequest
    from aiomsi._token import AccessToken

__all__ = ["WorkloadIdentity"]

_LARGEST_FILE = 64 * 1024
_SECOND_LOOK = 1.0  # Seconds until a file that was empty, as if being written, is read again.


class WorkloadIdentity:
    """The federated identity of a Kubernetes workload, on AKS or anywhere else with its webhook.

    *client_id*, *tenant_id*, *token_file* and *authority* (the URL of the cloud's Entra) are taken from
    `AZURE_CLIENT_ID`, `AZURE_TENANT_ID`, `AZURE_FEDERATED_TOKEN_FILE` and `AZURE_AUTHORITY_HOST` where they are not
    given. The file is read for each request, since it is renewed every hour. With *use_token_proxy* the token is asked
    for through the proxy of an AKS identity binding, which `AZURE_KUBERNETES_TOKEN_PROXY` names.

    *client_capabilities*, such as "CP1", are declared to Entra. *retry_timeout* is for how many seconds a fetch is
    retried (None: as Entra's documentation says).

    Source: Microsoft documentation, "Use Microsoft Entra Workload ID with AKS"; RFC 7523.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: a capability is misspelt.
    """

    name = "workload_identity"
    chooses_tenant = True
    time_limit = TIME_LIMIT

    def __init__(
        self,
        *,
        client_id: str | None = None,
        tenant_id: str | None = None,
        token_file: str | None = None,
        authority: str | None = None,
        use_token_proxy: bool = False,
        client_capabilities: Sequence[str] = (),
        retry_timeout: float | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        self._surroundings = surroundings or Surroundings()
        self._client_id = client_id
        self._tenant_id = tenant_id
        self._token_file = None if token_file is None else str(token_file)
        self._authority = authority
        self._capabilities = check_capabilities(client_capabilities)
        self._retry_timeout = retry_timeout
        self._proxy = TokenProxy(self._surroundings) if use_token_proxy else None

    def __repr__(self) -> str:
        given = (("client_id", self._client_id), ("tenant_id", self._tenant_id), ("token_file", self._token_file))
        return f"WorkloadIdentity({', '.join(f'{name}={value!r}' for name, value in given if value)})"

    async def fetch(self, request: TokenRequest) -> AccessToken:
        """Exchange the service account's token for one of Entra's.

        Raises:
            SourceUnavailableError: this is no such workload.
            ConfigurationError: something is missing or malformed; nothing was sent.
            AiomsiError: see the subclasses.
        """
        file = self._token_file or self._surroundings.get("AZURE_FEDERATED_TOKEN_FILE")
        if file is None:
            raise SourceUnavailableError(
                "there is no workload identity: AZURE_FEDERATED_TOKEN_FILE is not set; on Kubernetes, label the pod"
                " azure.workload.identity/use: 'true' and annotate its service account with the client id",
                resource=request.resource,
                source=self.name,
            )
        app = application(
            self._surroundings,
            self.name,
            client_id=self._client_id,
            tenant_id=self._tenant_id,
            authority=self._authority,
            capabilities=self._capabilities,
        )
        route = await self._proxy.route() if self._proxy is not None else None

        async def prove() -> Proof:
            return await self._assertion(file, request.clock)

        return await entra_token(
            app,
            request,
            prove,
            surroundings=self._surroundings,
            route=route,
            retry_timeout=self._retry_timeout,
        )

    async def _assertion(self, file: str, clock: Clock) -> Proof:
        proof = await self._read(file)
        if proof is None:
            await sleep(clock, _SECOND_LOOK)
            proof = await self._read(file)
        if proof is None:
            raise ConfigurationError(f"the token file {file!r} is empty; is it being renewed?", source=self.name)
        return proof

    async def _read(self, file: str) -> Proof | None:
        """Return what the file proves, or None if it is empty."""
        path = (PureWindowsPath if self._surroundings.platform == "win32" else PurePosixPath)(file)
        if not path.is_absolute():
            raise ConfigurationError(f"the token file is {file!r}, which is no absolute path", source=self.name)
        try:
            content, _ = await anyio.to_thread.run_sync(read_small, self._surroundings.place(path), _LARGEST_FILE)
        except (OSError, UnfitFileError) as error:
            what = error if isinstance(error, UnfitFileError) else f"cannot be read: {error.strerror}"
            raise ConfigurationError(f"the token file {file!r} {what}", source=self.name) from None
        return _proof(content)


def _proof(content: bytes) -> Proof | None:
    # Blanks and the newline at the end would become part of the assertion.
    text = content.decode("ascii", errors="replace").strip()
    return Proof({"client_assertion": text, "client_assertion_type": ASSERTION_TYPE}) if text else None
