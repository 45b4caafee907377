"""The proxy of an AKS identity binding, which is asked for tokens in place of Entra.

Source: Microsoft documentation, "Set up identity bindings on Azure Kubernetes Service".
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio.to_thread

from aiomsi._errors import ConfigurationError
from aiomsi.sources._entra import CONNECT_LIMIT, Route
from aiomsi.sources._entra_application import base_problem
from aiomsi.sources._files import UnfitFileError, absolute, read_small
from aiomsi.sources._tls import system_trust, trust
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
        self._last = ("", "")  # The file that could be read, and the authorities that it held.

    async def route(self) -> Route:
        """Return where to ask, and whom to believe.

        Raises:
            ConfigurationError: the variables are wrong, or the authorities cannot be read; nothing was sent.
        """
        get = self._surroundings.get
        base, server_name = _base(get(_PROXY)), _host(get(_SERVER_NAME))
        file, data = get(_CA_FILE), get(_CA_DATA)
        if file and data:
            raise _wrong(f"{_CA_FILE} and {_CA_DATA} are both set; only one may be")
        try:
            believed = await anyio.to_thread.run_sync(self._trust, file, data)
        except (OSError, UnfitFileError, ValueError) as error:
            where = _CA_FILE if file else _CA_DATA if data else "SSL_CERT_FILE or SSL_CERT_DIR"
            raise _wrong(f"the certificate authorities of {where} cannot be read: {error}") from error
        remedy = f"name its authority with {_CA_FILE} or {_CA_DATA}"
        return Route(base, Peer(believed, server_name=server_name, remedy=remedy, connect_limit=CONNECT_LIMIT))

    def _trust(self, file: str | None, data: str | None) -> ssl.SSLContext | None:
        if file:
            return self._from_file(file)
        return trust(data) if data else system_trust(self._surroundings)

    def _from_file(self, file: str) -> ssl.SSLContext:
        try:
            path = self._surroundings.place(absolute(file, self._surroundings.platform))
            content, _ = read_small(path, _LARGEST_FILE)
            anchors = content.decode("ascii", errors="ignore")  # Comments may be in any language.
            context = trust(anchors)
        except (OSError, UnfitFileError, ValueError):
            former, anchors = self._last
            if former != file:
                raise
            return trust(anchors)
        self._last = (file, anchors)
        return context


def _base(text: str | None) -> str:
    problem = "is not set, but the token proxy was asked for" if text is None else base_problem(text)
    if text is None or problem is not None:
        raise _wrong(f"{_PROXY} {problem}; it should be like https://proxy.example:8443/path")
    return text.rstrip("/")


def _host(name: str | None) -> str | None:
    if name is None:
        return None
    url = f"https://{name}"
    if url_problem(url) is not None or urlsplit(url).hostname != name.lower():
        raise _wrong(f"{_SERVER_NAME} should be the name of a host, and nothing else")
    return name


def _wrong(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{what}; AKS sets these variables: restart the pod, or leave use_token_proxy out", source=_SOURCE
    )
