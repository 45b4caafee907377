"""The developer, as logged in to Active Directory: no tool and no password, only the Kerberos ticket of the login.

The domain's federation server (AD FS) takes the ticket and asserts who it is of, and Entra takes that assertion.

Source: Microsoft documentation, "Integrated Windows authentication" (MSAL); MS-OAPX; RFC 7522.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from aiomsi._errors import SourceUnavailableError, about
from aiomsi.sources._redaction import redact
from aiomsi.sources._surroundings import Surroundings

if TYPE_CHECKING:
    from aiomsi._source import TokenRequest
    from aiomsi._token import AccessToken

__all__ = ["IntegratedAuth"]

APP_AUTHENTICATION = "d7813711-9094-4ad3-a062-cac3ec74ebe8"
"""The client id of the AppAuthentication library, which Entra knows in every tenant."""

_USER = re.compile(r"[^@\s/\\?#%\x00-\x1f\ud800-\udfff]+@[0-9A-Za-z.-]+")
_ANY_TENANT = "organizations"


class IntegratedAuth:
    """The user who is logged in to Active Directory on this machine, by the Kerberos ticket of that login.

    Needs the extra `integrated`, and a domain that is federated: whose login page is the company's own AD FS.
    *username* is the user's name at Entra, by default that of the ticket, which may differ. *tenant_id* asks for tokens
    of another tenant than the user's own; *authority* is the URL of the cloud's Entra, otherwise taken from
    `AZURE_AUTHORITY_HOST`; *client_id* is the application for which tokens are asked, by default the one of the
    AppAuthentication library. The tickets are those of the cache that `KRB5CCNAME` names or of the usual one, on
    Windows those of the login; how Kerberos is set up is read from the process's own environment (`KRB5_CONFIG`).

    Raises:
        TypeError: an argument is not a string.
        ValueError: *username* is not like alice@contoso.com.
    """

    name = "integrated"
    chooses_tenant = True
    time_limit = 60.0

    def __init__(
        self,
        *,
        username: str | None = None,
        tenant_id: str | None = None,
        authority: str | None = None,
        client_id: str = APP_AUTHENTICATION,
        surroundings: Surroundings | None = None,
    ) -> None:
        given = {"username": username, "tenant_id": tenant_id, "authority": authority, "client_id": client_id}
        for name, value in given.items():
            if not isinstance(value, str | None):
                raise TypeError(f"{name} is a string, not {type(value).__name__}")
        if username is not None and not _USER.fullmatch(username):
            raise ValueError(f"username is {username!r}, but should be like alice@contoso.com")
        self._username, self._tenant_id = username, tenant_id
        self._authority, self._client_id = authority, client_id
        self._surroundings = surroundings or Surroundings()

    def __repr__(self) -> str:
        given = (("username", self._username), ("tenant_id", self._tenant_id))
        return f"IntegratedAuth({', '.join(f'{name}={value!r}' for name, value in given if value)})"

    async def fetch(self, request: TokenRequest) -> AccessToken:
        """Log in to the federation server with the ticket, and exchange what it asserts for one token of Entra's.

        Raises:
            SourceUnavailableError: nobody is logged in, the user's domain is not federated, or the extra is missing.
            ConfigurationError: something is malformed; nothing was sent.
            SecurityError: a server did not prove who it is, or would have been asked over plain http.
            AiomsiError: see the subclasses.
        """
        # Loaded only now: it is the last of the usual sources, to which few programs come.
        from aiomsi.sources._entra import Proof, Route, application, entra_token, public_peer  # noqa: PLC0415
        from aiomsi.sources._federated_login import FederatedLogin  # noqa: PLC0415

        with about(request.resource, self.name):
            app = application(
                self._surroundings,
                self.name,
                client_id=self._client_id,
                tenant_id=request.tenant_id or self._tenant_id or _ANY_TENANT,
                authority=self._authority,
            )
            user = self._username or await self._ticket_owner(request)
            entra = await public_peer(app.authority, self._surroundings, self.name)
            login = FederatedLogin(self.name, request, self._surroundings, entra)
            realm = await login.realm(app.authority, user)
            assertion = await login.assertion(await login.transport(realm), realm.audience)

            async def prove() -> Proof:
                return Proof({"assertion": base64.b64encode(assertion.content).decode()}, assertion.grant_type)

            route = Route(app.authority, entra)
            return await entra_token(app, request, prove, surroundings=self._surroundings, route=route)

    async def _ticket_owner(self, request: TokenRequest) -> str:
        from aiomsi.sources._kerberos import logged_in_user  # noqa: PLC0415  (as above)

        here = self._surroundings
        name = await logged_in_user(here.platform, here.get("KRB5CCNAME"), request.clock, request.deadline)
        if not _USER.fullmatch(name):
            raise SourceUnavailableError(
                f"the ticket is of {redact(name)!r}, which is no user's name at Entra; give username, such as"
                " alice@contoso.com"
            )
        return name
