"""Who signs the users of a domain in: Entra itself, or a federation service that vouches for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

_CLOUD = {"cloud_instance_name": "microsoftonline.com", "cloud_audience_urn": "urn:federation:MicrosoftOnline"}


@dataclass(frozen=True, slots=True)
class _Federation:
    metadata_url: str
    issued: Mapping[bytes, str]


class Domains:
    """The domains that Entra knows; about all others its user realm discovery says "Unknown".

    Names of domains are taken in any case. It may be used from any thread.
    """

    def __init__(self) -> None:
        self._known: dict[str, _Federation | None] = {}

    def __repr__(self) -> str:
        return f"<Domains {' '.join(sorted(self._known))}>"

    def federate(self, domain: str, metadata_url: str, issued: Mapping[bytes, str]) -> None:
        """Let the federation service whose MEX document is at *metadata_url* sign in the users of *domain*.

        *issued* holds the SAML assertions that are good, byte for byte, each with the user principal name of whom it
        is about. It is looked at whenever one is shown, so the service may go on adding to it.
        """
        self._known[domain.lower()] = _Federation(metadata_url, issued)

    def manage(self, domain: str) -> None:
        """Let Entra itself sign in the users of *domain*."""
        self._known[domain.lower()] = None

    def realm(self, user: str) -> dict[str, str]:
        """Return what user realm discovery tells about *user*."""
        domain = user.rpartition("@")[2].lower()
        if domain not in self._known:
            return {"ver": "1.0", "account_type": "Unknown", **_CLOUD}
        federation = self._known[domain]
        if federation is None:
            return {"ver": "1.0", "account_type": "Managed", "domain_name": domain, **_CLOUD}
        return {
            "ver": "1.0",
            "account_type": "Federated",
            "domain_name": domain,
            "federation_protocol": "WSTrust",
            "federation_metadata_url": federation.metadata_url,
            "federation_active_auth_url": _beside(federation.metadata_url, "/adfs/services/trust/2005/usernamemixed"),
            **_CLOUD,
        }

    def user_of(self, assertion: bytes) -> str | None:
        """Return whom *assertion* is about, or None if no federation service has issued it."""
        for federation in list(self._known.values()):
            if federation is not None and (user := federation.issued.get(assertion)) is not None:
                return user
        return None

    @property
    def are_federated(self) -> bool:
        """Whether there is any federation service whose assertions are taken."""
        return any(federation is not None for federation in list(self._known.values()))


def _beside(url: str, path: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{path}"
