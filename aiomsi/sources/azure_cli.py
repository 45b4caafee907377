"""The developer, as logged in to the Azure CLI."""

from __future__ import annotations

import base64
import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from aiomsi._errors import (
    AiomsiError,
    ConfigurationError,
    EndpointError,
    MalformedResponseError,
    SourceUnavailableError,
    TokenRefusedError,
    about,
)
from aiomsi._token import AccessToken, token_problem, unverified_claims
from aiomsi.sources._expiry import read_moment
from aiomsi.sources._redaction import redact, shape
from aiomsi.sources._subprocess import run
from aiomsi.sources._surroundings import Surroundings

if TYPE_CHECKING:
    from aiomsi._source import TokenRequest
    from aiomsi.sources._subprocess import Finished

__all__ = ["AzureCLI"]

# What a command line takes on every platform without any quoting; `az` is a batch file on Windows.
_PLAIN = re.compile(r"[0-9A-Za-z][0-9A-Za-z\-._:/~?=+,@ ]*")
_SECRET_NAME = re.compile(r"(SECRET|HEADER|PASSWORD|TOKEN|KEY)$", re.IGNORECASE)
_SHORTEST_SECRET = 4  # Shorter ones would take half of every message away.
_SETTINGS = {"AZURE_CORE_NO_COLOR": "true", "AZURE_CORE_COLLECT_TELEMETRY": "false"}


class AzureCLI:
    """The account that `az login` has logged in, or another one of its tenants or subscriptions.

    At most one of *tenant_id* (a GUID or domain) and *subscription* (a GUID or name). *process_timeout* is how many
    seconds `az` may take; it can be slow to start.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: both are given, one holds characters that no tenant or subscription has, or *process_timeout* is
            not positive.
    """

    name = "azure_cli"

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
        for what, value in (("tenant_id", tenant_id), ("subscription", subscription)):
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{what} is a string, not {value!r}")
            if value is not None and not _PLAIN.fullmatch(value):
                raise ValueError(f"{what} is {value!r}, which cannot be passed to `az`; use the GUID")
        if isinstance(process_timeout, bool) or not isinstance(process_timeout, int | float):
            raise TypeError(f"process_timeout is a number of seconds, not {process_timeout!r}")
        if not 0 < process_timeout < float("inf"):
            raise ValueError(f"process_timeout is a positive number of seconds, not {process_timeout!r}")
        self._tenant_id = tenant_id
        self._subscription = subscription
        self._surroundings = surroundings or Surroundings()
        self.time_limit = float(process_timeout)
        # A subscription has its tenant.
        self.chooses_tenant = subscription is None

    def __repr__(self) -> str:
        given = (("tenant_id", self._tenant_id), ("subscription", self._subscription))
        return f"AzureCLI({', '.join(f'{name}={value!r}' for name, value in given if value)})"

    async def fetch(self, request: TokenRequest) -> AccessToken:
        """Run `az account get-access-token`.

        Raises:
            SourceUnavailableError: `az` is not installed, or nobody is logged in.
            ConfigurationError: the resource or tenant cannot be passed to it; nothing was run.
            AiomsiError: see the subclasses.
        """
        arguments = self._arguments(request)
        if request.claims is not None:
            challenge = base64.b64encode(request.claims.encode()).decode()
            raise TokenRefusedError(
                f"the service wants a token for {request.resource!r} with claims that `az` gets only at login;"
                f' run: az login --claims-challenge "{challenge}"',
                resource=request.resource,
                source=self.name,
            )
        with about(request.resource):
            finished = await run(
                "az",
                arguments,
                source=self.name,
                missing="install the Azure CLI (https://aka.ms/azure-cli) and run: az login",
                surroundings=self._surroundings,
                settings=_SETTINGS,
                clock=request.clock,
                limit=min(self.time_limit, request.deadline - request.clock.monotonic()),
            )
        if finished.exit_code != 0:
            raise _failure(finished, request.resource, self._surroundings)
        token = _token_in(finished.stdout, request.resource, request.clock.wall())
        if isinstance(token, AccessToken):
            return token
        raise MalformedResponseError(
            f"`az` printed {token}: it was {shape(finished.stdout)}; is it an old version? Run: az upgrade",
            resource=request.resource,
            source=self.name,
        )

    def _arguments(self, request: TokenRequest) -> list[str]:
        tenant_id = request.tenant_id or self._tenant_id
        for what, value in (("resource", request.resource), ("tenant", tenant_id)):
            if value is not None and not _PLAIN.fullmatch(value):
                raise ConfigurationError(
                    f"the {what} {value!r} holds characters that are not passed to a command line; `az` was not run",
                    resource=request.resource,
                    source=self.name,
                )
        arguments = ["account", "get-access-token", "--output", "json", "--resource", request.resource]
        if self._subscription is not None:
            return [*arguments, "--subscription", self._subscription]
        return [*arguments, "--tenant", tenant_id] if tenant_id is not None else arguments


def _token_in(stdout: bytes, resource: str, now: float) -> AccessToken | str:
    """Return the token in *stdout*, or what is wrong with it; not raised here, where local variables hold a token."""
    try:
        printed: Any = json.loads(stdout)
    except (ValueError, RecursionError):
        printed = None
    token = printed.get("accessToken") if isinstance(printed, dict) else None
    expires_on = _expiry(printed, token, now) if isinstance(token, str) else None
    problem = token_problem(token, expires_on, now)
    if problem is not None or expires_on is None or not isinstance(token, str):
        return str(problem)
    return AccessToken(token, expires_on, None, resource, AzureCLI.name)


def _expiry(printed: dict[str, Any], token: str, now: float) -> float | None:
    # Since 2.54 there is `expires_on`, in Unix seconds. Before, only `expiresOn`, in local time without a zone, which
    # is ambiguous for an hour each autumn: the token itself knows better, and the earlier reading is the safe one.
    expires_on = read_moment(printed.get("expires_on"), now)
    if expires_on is None:
        expires_on = read_moment((unverified_claims(token) or {}).get("exp"), now)
    if expires_on is None:
        try:
            expires_on = datetime.fromisoformat(printed["expiresOn"]).replace(fold=0).timestamp()
        except (KeyError, TypeError, ValueError, OverflowError, OSError):
            return None
    return expires_on


def _failure(finished: Finished, resource: str, surroundings: Surroundings) -> AiomsiError:
    said = finished.stderr.decode(errors="replace")
    aadsts = re.search(r"AADSTS[0-9]+", said)
    kind: type[AiomsiError]
    if aadsts is not None:
        kind, advice = TokenRefusedError, "run: az login"
    elif "az login" in said or "az account set" in said:
        kind, advice = SourceUnavailableError, "run: az login"
    elif "Traceback" in said or "unexpected error" in said:
        kind, advice = EndpointError, "is the network up? Try: az account get-access-token"
    else:
        kind, advice = TokenRefusedError, "try the same by hand: az account get-access-token --resource " + resource
    text = redact(_last_error(said), *_secrets(surroundings)) or "nothing"
    return kind(
        f"`az` gave no token for {resource!r} (exit code {finished.exit_code}): {text.rstrip('.')}; {advice}",
        resource=resource,
        source=AzureCLI.name,
        status=finished.exit_code,
        code=aadsts[0] if aadsts else None,
    )


def _last_error(said: str) -> str:
    """Return the part of *said* that tells most: the exception of a traceback, or all from the last ERROR on."""
    exceptions = re.findall(r"^[\w.]+(?:Error|Exception): .*", said, re.MULTILINE)
    if exceptions:
        return str(exceptions[-1])
    return said[max(said.rfind("ERROR:"), 0) :].removeprefix("ERROR:").strip()


def _secrets(surroundings: Surroundings) -> list[str]:
    """Return the values in the environment that `az` was given and might print."""
    return [
        value
        for name, value in surroundings.environ.items()
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET
    ]
