"""The developer, as logged in to the Azure CLI."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aiomsi._errors import AiomsiError, EndpointError, SourceUnavailableError, TokenRefusedError
from aiomsi.sources._azure_cli_profile import AzureCLIProfile
from aiomsi.sources._surroundings import Surroundings
from aiomsi.sources._tools import (
    MAX_PARALLEL,
    Tool,
    ask,
    check_option,
    check_plain,
    checked_timeout,
    encoded_claims,
    entra_code,
    failure,
    printed_token,
)

if TYPE_CHECKING:
    from aiomsi._source import TokenRequest
    from aiomsi._token import AccessToken
    from aiomsi.sources._subprocess import Finished

__all__ = ["AZ", "AzureCLI"]

AZ = Tool(
    source="azure_cli",
    program="az",
    missing="install the Azure CLI (https://aka.ms/azure-cli) and run: az login",
    settings={"AZURE_CORE_NO_COLOR": "true", "AZURE_CORE_COLLECT_TELEMETRY": "false"},
)


class AzureCLI:
    """The account that `az login` has logged in, or another one of its tenants or subscriptions.

    At most one of *tenant_id* (a GUID or domain) and *subscription* (a GUID or name). *process_timeout* is how many
    seconds `az` may take; it can be slow to start.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: both are given, one holds characters that no tenant or subscription has, or *process_timeout* is
            not positive.
    """

    name = AZ.source
    max_parallel = MAX_PARALLEL

    def __init__(
        self,
        *,
        tenant_id: str | None = None,
        subscription: str | None = None,
        process_timeout: float = 30.0,
        surroundings: Surroundings | None = None,
    ) -> None:
        if tenant_id is not None and subscription is not None:
            raise ValueError(
                "`az` takes either a tenant or a subscription; give only one of tenant_id and subscription"
            )
        check_option(AZ, "tenant_id", tenant_id)
        check_option(AZ, "subscription", subscription)
        self.time_limit = checked_timeout(process_timeout)
        self._tenant_id = tenant_id
        self._subscription = subscription
        self._surroundings = surroundings or Surroundings()
        self._profile = AzureCLIProfile(self._surroundings)
        # A subscription has its tenant.
        self.chooses_tenant = subscription is None

    def __repr__(self) -> str:
        given = (("tenant_id", self._tenant_id), ("subscription", self._subscription))
        return f"AzureCLI({', '.join(f'{name}={value!r}' for name, value in given if value)})"

    def identity_key(self) -> str | None:
        """Return a text that names the account which would answer now, or None if that cannot be told.

        It changes with `az login`, `az logout`, `az account set` and `az cloud set`, and holds no secret. Read from the
        profile of the Azure CLI, without running it.
        """
        return self._profile.identity(tenant_id=self._tenant_id, subscription=self._subscription)

    async def fetch(self, request: TokenRequest) -> AccessToken:
        """Run `az account get-access-token`.

        Raises:
            SourceUnavailableError: `az` is not installed, or nobody is logged in.
            ConfigurationError: the resource or tenant cannot be passed to it; nothing was run.
            AiomsiError: see the subclasses.
        """
        arguments = self._arguments(request)
        if request.claims is not None:
            raise TokenRefusedError(
                f"the service wants a token for {request.resource!r} with claims that `az` gets only at login;"
                f' run: az login --claims-challenge "{encoded_claims(request.claims)}"',
                resource=request.resource,
                source=self.name,
            )
        finished = await ask(AZ, arguments, request, surroundings=self._surroundings, limit=self.time_limit)
        if finished.exit_code != 0:
            raise _failure(finished, request, self._surroundings)
        return printed_token(
            AZ, finished, request, members=("accessToken",), advice="is it an old version? Run: az upgrade"
        )

    def _arguments(self, request: TokenRequest) -> list[str]:
        tenant_id = request.tenant_id or self._tenant_id
        check_plain(AZ, request, tenant_id)
        arguments = ["account", "get-access-token", "--output", "json", "--resource", request.resource]
        if self._subscription is not None:
            return [*arguments, "--subscription", self._subscription]
        return [*arguments, "--tenant", tenant_id] if tenant_id is not None else arguments


def _failure(finished: Finished, request: TokenRequest, surroundings: Surroundings) -> AiomsiError:
    said = finished.stderr.decode(errors="replace")
    code = entra_code(said)
    kind: type[AiomsiError]
    if code is not None:
        kind, advice = TokenRefusedError, "run: az login"
    elif "az login" in said or "az account set" in said:
        kind, advice = SourceUnavailableError, "run: az login"
    elif "Traceback" in said or "unexpected error" in said:
        kind, advice = EndpointError, "is the network up? Try: az account get-access-token"
    else:
        kind = TokenRefusedError
        advice = f"try the same by hand: az account get-access-token --resource {request.resource}"
    return failure(
        AZ,
        finished,
        request,
        kind=kind,
        said=_last_error(said),
        advice=advice,
        code=code,
        surroundings=surroundings,
    )


def _last_error(said: str) -> str:
    """Return the part of *said* that tells most: the exception of a traceback, or all from the last ERROR on."""
    exceptions = re.findall(r"^[\w.]+(?:Error|Exception): .*", said, re.MULTILINE)
    if exceptions:
        return str(exceptions[-1])
    return said[max(said.rfind("ERROR:"), 0) :].removeprefix("ERROR:").strip()
