"""The identity of a Kubernetes workload: a service account's token, exchanged for one of Entra's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio.to_thread

from aiomsi._clock import sleep
from aiomsi._errors import ConfigurationError, SourceUnavailableError, about
from aiomsi.sources._entra import ASSERTION_TYPE, TIME_LIMIT, Proof, entra_token
from aiomsi.sources._entra_application import application, check_capabilities, check_retry_timeout
from aiomsi.sources._files import UnfitFileError, absolute, read_small
from aiomsi.sources._surroundings import Surroundings
from aiomsi.sources._token_proxy import TokenProxy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import PurePath

    from aiomsi._clock import Clock
    from aiomsi._source import TokenRequest
    from aiomsi._token import AccessToken

__all__ = ["WorkloadIdentity"]

_FILE = "AZURE_FEDERATED_TOKEN_FILE"
_LARGEST_FILE = 64 * 1024
_EMPTY = "is empty; is it being renewed?"
_SECOND_LOOK = 1.0  # Seconds until a file that was empty, as if being written, is read again.


class WorkloadIdentity:
    """The federated identity of a Kubernetes workload, on AKS or anywhere else with its webhook.

    *client_id*, *tenant_id*, *token_file* and *authority* (the URL of the cloud's Entra) are taken from
    `AZURE_CLIENT_ID`, `AZURE_TENANT_ID`, `AZURE_FEDERATED_TOKEN_FILE` and `AZURE_AUTHORITY_HOST` where they are not
    given. The file is read for each request, since it is renewed every hour. With *use_token_proxy* the token is asked
    for through the proxy of an AKS identity binding, which `AZURE_KUBERNETES_TOKEN_PROXY` names.

    *client_capabilities*, such as "CP1", are declared to Entra. *retry_timeout* is for how many seconds a fetch is
    retried (0: not at all; None: as Entra's documentation says).

    Source: Microsoft documentation, "Use Microsoft Entra Workload ID with AKS"; RFC 7523.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: a capability is misspelt, or *retry_timeout* is negative.
    """

    name = "workload_identity"
    chooses_tenant = True
    time_limit = TIME_LIMIT

    def __init__(
        self,
        *,
        client_id: str | None = None,
        tenant_id: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        authority: str | None = None,
        use_token_proxy: bool = False,
        client_capabilities: Sequence[str] = (),
        retry_timeout: float | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        file = None if token_file is None else os.fspath(token_file)
        given = {"client_id": client_id, "tenant_id": tenant_id, "token_file": file, "authority": authority}
        for name, value in given.items():
            if not isinstance(value, str | None):
                raise TypeError(f"{name} is a string, not {value!r}")
        self._surroundings = surroundings or Surroundings()
        self._client_id = client_id
        self._tenant_id = tenant_id
        self._token_file = file
        self._authority = authority
        self._capabilities = check_capabilities(client_capabilities)
        self._retry_timeout = check_retry_timeout(retry_timeout)
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
        with about(request.resource, self.name):
            file = self._file()
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
                app, request, prove, surroundings=self._surroundings, route=route, retry_timeout=self._retry_timeout
            )

    def _file(self) -> PurePath:
        if not self._token_file and not self._surroundings.get(_FILE):
            raise SourceUnavailableError(
                f"there is no workload identity: {_FILE} is not set; on Kubernetes, label the pod"
                " azure.workload.identity/use: 'true' and annotate its service account with the client id"
            )
        file = self._path()
        if file is None:
            raise ConfigurationError(f"the token file is no absolute path: give token_file, or set {_FILE}")
        return file

    def _path(self) -> PurePath | None:
        """Return where the token is, or None if that is no path; not raised here: it may be the token itself."""
        try:
            return absolute(self._token_file or self._surroundings.get(_FILE) or "", self._surroundings.platform)
        except UnfitFileError:
            return None

    async def _assertion(self, file: PurePath, clock: Clock) -> Proof:
        found = await self._read(file)
        if found == _EMPTY:
            await sleep(clock, _SECOND_LOOK)
            found = await self._read(file)
        if isinstance(found, Proof):
            return found
        raise ConfigurationError(f"the token file {str(file)!r} {found}", source=self.name)

    async def _read(self, file: PurePath) -> Proof | str:
        """Return what *file* proves, or what is wrong with it; not raised here, where variables hold the proof."""
        try:
            content, _ = await anyio.to_thread.run_sync(read_small, self._surroundings.place(file), _LARGEST_FILE)
        except UnfitFileError as error:
            return str(error)
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        return _proof(content)


def _proof(content: bytes) -> Proof | str:
    # Blanks, the newline at the end and a byte-order mark would become part of the assertion.
    text = content.decode("utf-8-sig", errors="replace").strip()
    if not text:
        return _EMPTY
    if not (text.isascii() and text.isprintable()) or " " in text:  # Nobody's private key is sent by mistake.
        return "holds something else than a token, which has neither blanks nor lines"
    return Proof({"client_assertion": text, "client_assertion_type": ASSERTION_TYPE})
