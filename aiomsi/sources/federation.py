"""Jobs that have an identity without any secret: their service vouches for them, and Entra trusts that service."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiomsi._errors import ConfigurationError, SourceUnavailableError, about
from aiomsi.sources._entra import TIME_LIMIT, application, check_capabilities
from aiomsi.sources._surroundings import Surroundings
from aiomsi.sources._vouching import Voucher, vouched_token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiomsi._source import TokenRequest
    from aiomsi._token import AccessToken

__all__ = ["AzurePipelines", "GitHubActions"]

# Whom the service vouches to, by the host of the cloud's Entra.
_AUDIENCE = "api://AzureADTokenExchange"
_AUDIENCES = {
    "login.microsoftonline.us": f"{_AUDIENCE}USGov",
    "login.chinacloudapi.cn": f"{_AUDIENCE}China",
    "login.partner.microsoftonline.cn": f"{_AUDIENCE}China",
}


class AzurePipelines:
    """The identity of a job in Azure Pipelines, through a service connection with workload identity federation.

    *tenant_id*, *client_id* and *service_connection_id* say which; the tasks of Azure set them as
    `AZURESUBSCRIPTION_TENANT_ID`, `AZURESUBSCRIPTION_CLIENT_ID` and `AZURESUBSCRIPTION_SERVICE_CONNECTION_ID`.
    *system_access_token* is the job's token; by default it is read for each request from `SYSTEM_ACCESSTOKEN`, which
    the pipeline has to map. *authority* is the URL of the cloud's Entra, otherwise taken from `AZURE_AUTHORITY_HOST`.
    *client_capabilities*, such as "CP1", are declared to Entra.

    Source: Microsoft documentation, "Oidctoken - Create" (Azure DevOps REST API 7.1).

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: a capability is misspelt.
    """

    name = "azure_pipelines"
    chooses_tenant = True
    time_limit = TIME_LIMIT

    def __init__(
        self,
        *,
        tenant_id: str | None = None,
        client_id: str | None = None,
        service_connection_id: str | None = None,
        system_access_token: str | None = None,
        authority: str | None = None,
        client_capabilities: Sequence[str] = (),
        surroundings: Surroundings | None = None,
    ) -> None:
        self._client_id, self._connection, self._token = client_id, service_connection_id, system_access_token
        del system_access_token  # A traceback may show what a frame holds.
        if not isinstance(self._token, str | None):
            raise TypeError(f"system_access_token is a string, not {type(self._token).__name__}")
        self._surroundings = surroundings or Surroundings()
        self._tenant_id = _check_text("tenant_id", tenant_id)
        _check_text("client_id", client_id)
        _check_text("service_connection_id", service_connection_id)
        self._application = partial(
            application,
            self._surroundings,
            self.name,
            authority=_check_text("authority", authority),
            capabilities=check_capabilities(client_capabilities),
        )

    def __repr__(self) -> str:
        return f"AzurePipelines(client_id={self._client_id!r}, service_connection_id={self._connection!r})"

    async def fetch(self, request: TokenRequest) -> AccessToken:
        """Have the pipeline vouch for its job, and exchange that for one token of Entra's.

        Raises:
            SourceUnavailableError: this is no job of a pipeline.
            ConfigurationError: something is missing or malformed; nothing was sent.
            AiomsiError: see the subclasses.
        """
        get = self._surroundings.get
        with about(request.resource, self.name):
            voucher = self._voucher()
            app = self._application(
                client_id=self._client_id or get("AZURESUBSCRIPTION_CLIENT_ID"),
                tenant_id=self._tenant_id or get("AZURESUBSCRIPTION_TENANT_ID"),
            )
            return await vouched_token(voucher, app, request, self._surroundings)

    def _voucher(self) -> Voucher:
        get = self._surroundings.get
        if not get("SYSTEM_OIDCREQUESTURI"):
            raise SourceUnavailableError("this is no job of Azure Pipelines: SYSTEM_OIDCREQUESTURI is not set")
        connection = self._connection or get("AZURESUBSCRIPTION_SERVICE_CONNECTION_ID")
        if not connection:
            raise ConfigurationError(
                "the service connection is not known: give service_connection_id, as the project's settings have it"
            )
        return Voucher(
            title="Azure Pipelines",
            method="POST",
            url_variable="SYSTEM_OIDCREQUESTURI",
            query={"api-version": "7.1", "serviceConnectionId": connection},
            # Or it would answer a wrong token with a redirect to a page for logging in.
            headers={"Content-Type": "application/json", "X-TFS-FedAuthRedirect": "Suppress"},
            token_variable="SYSTEM_ACCESSTOKEN",  # noqa: S106  (its name)
            token=self._token,
            member="oidcToken",
            advice="map the job's token into the step (env: SYSTEM_ACCESSTOKEN: $(System.AccessToken)), and see whether"
            " the pipeline is permitted to use the service connection",
        )


class GitHubActions:
    """The identity of a job in GitHub Actions, through a federated credential of an application or identity.

    *tenant_id* and *client_id* say which, otherwise taken from `AZURE_TENANT_ID` and `AZURE_CLIENT_ID`; *authority* is
    the URL of the cloud's Entra, otherwise taken from `AZURE_AUTHORITY_HOST`. *client_capabilities*, such as "CP1", are
    declared to Entra. The job needs `permissions: id-token: write`.

    Source: GitHub documentation, "OpenID Connect reference".

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: a capability is misspelt.
    """

    name = "github_actions"
    chooses_tenant = True
    time_limit = TIME_LIMIT

    def __init__(
        self,
        *,
        tenant_id: str | None = None,
        client_id: str | None = None,
        authority: str | None = None,
        client_capabilities: Sequence[str] = (),
        surroundings: Surroundings | None = None,
    ) -> None:
        self._surroundings = surroundings or Surroundings()
        self._client_id = client_id
        self._application = partial(
            application,
            self._surroundings,
            self.name,
            client_id=_check_text("client_id", client_id),
            tenant_id=_check_text("tenant_id", tenant_id),
            authority=_check_text("authority", authority),
            capabilities=check_capabilities(client_capabilities),
        )

    def __repr__(self) -> str:
        return f"GitHubActions(client_id={self._client_id!r})"

    async def fetch(self, request: TokenRequest) -> AccessToken:
        """Have GitHub vouch for its job, and exchange that for one token of Entra's.

        Raises:
            SourceUnavailableError: this is no job of GitHub's, or one without the permission.
            ConfigurationError: something is missing or malformed; nothing was sent.
            AiomsiError: see the subclasses.
        """
        with about(request.resource, self.name):
            if not self._surroundings.get("ACTIONS_ID_TOKEN_REQUEST_URL"):
                raise SourceUnavailableError(
                    "this is no job of GitHub Actions that may ask for an identity: ACTIONS_ID_TOKEN_REQUEST_URL is"
                    " not set; give the job the permission `id-token: write`"
                )
            app = self._application()
            audience = _AUDIENCES.get(urlsplit(app.authority).hostname or "", _AUDIENCE)
            return await vouched_token(_github(audience), app, request, self._surroundings)


def _github(audience: str) -> Voucher:
    return Voucher(
        title="GitHub Actions",
        method="GET",
        url_variable="ACTIONS_ID_TOKEN_REQUEST_URL",
        query={"audience": audience},
        headers={},
        token_variable="ACTIONS_ID_TOKEN_REQUEST_TOKEN",  # noqa: S106  (its name)
        token=None,
        member="value",
        advice="give the job the permission `id-token: write`",
    )


def _check_text(name: str, value: str | None) -> str | None:
    if not isinstance(value, str | None):  # Not shown: people mix them up, and the one next to it is secret.
        raise TypeError(f"{name} is a string, not {type(value).__name__}")
    return value
