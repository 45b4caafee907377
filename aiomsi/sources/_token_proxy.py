"""The proxy of an AKS identity binding, which is asked for tokens in place of Entra.

Source: Microsoft documentation, "Set up identity bindings on Azure Kubernetes Service".
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio.to_thread

from aiomsi._errors import ConfigurationError
from aiomsi.sources._entra import Route
from aiomsi.sources._files import UnfitFileError, read_small
from aiomsi.sources._tls import trust
from aiomsi.sources._transport import Peer
from aiomsi.sources._wire import url_problem

if TYPE_CHECKING:
    import ssl

    from aiomsi.sources._surroundings import Surroundings

__all__ = ["TokenProxy"]

_SOURCE = "workload_identity"
_PROXY = "AZURE_KUBERNETES_TOKEN_PROXY"
_SERVER_NAME = "AZURE_KUBERNETES_SNI_NAME"
_CA_FILE = "AZURE_KUBERNETES_CA_FILE"
_CA_DATA = "AZURE_KUBERNETES_CA_DATA"
_LARGEST_FILE = 1024 * 1024


class TokenProxy:
    """Where the variables of an identity binding lead.

    Its certificate authorities are renewed while the pod runs, and their file can be empty for a moment: then those
    read last still count.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._anchors: str | None = None

    async def route(self) -> Route:
        """Return where to ask, and whom to believe.

        Raises:
            ConfigurationError: the variables are wrong, or the authorities cannot be read; nothing was sent.
        """
        base = _base(self._surroundings.get(_PROXY))
        file, data = self._surroundings.get(_CA_FILE), self._surroundings.get(_CA_DATA)
        if file and data:
            raise _wrong(f"{_CA_FILE} and {_CA_DATA} are both set; only one may be")
        context = None
        if file:
            context = await anyio.to_thread.run_sync(self._from_file, file)
        elif data:
            context = await anyio.to_thread.run_sync(_trust, data, _CA_DATA)
        return Route(base, Peer(context, server_name=self._surroundings.get(_SERVER_NAME)))

    def _from_file(self, file: str) -> ssl.SSLContext:
        try:
            content, _ = read_small(self._surroundings.place(PurePosixPath(file)), _LARGEST_FILE)
            anchors = content.decode("ascii")
            context = trust(anchors)
        except (OSError, UnfitFileError, ValueError) as error:
            if self._anchors is None:
                raise _wrong(f"{_CA_FILE} names {file!r}, which holds no certificates that can be read") from error
            return trust(self._anchors)
        self._anchors = anchors
        return context


def _trust(anchors: str, variable: str) -> ssl.SSLContext:
    try:
        return trust(anchors)
    except (OSError, ValueError) as error:
        raise _wrong(f"{variable} holds no certificates that can be read") from error


def _base(text: str | None) -> str:
    if text is None:
        raise _wrong(f"{_PROXY} is not set, but the token proxy was asked for")
    problem = url_problem(text)
    if problem is None and urlsplit(text).scheme != "https":
        problem = "does not begin with https://"
    if problem is None and urlsplit(text).query:
        problem = "has a query"
    if problem is not None:
        raise _wrong(f"{_PROXY} {problem}; it should be like https://proxy.example:8443/path")
    return text.rstrip("/")


def _wrong(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{what}; AKS sets these variables: restart the pod, or leave use_token_proxy out", source=_SOURCE
    )
