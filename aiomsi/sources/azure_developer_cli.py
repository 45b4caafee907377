"""The developer, as logged in to the Azure Developer CLI."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aiomsi._errors import AiomsiError, EndpointError, SourceUnavailableError, TokenRefusedError
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

__all__ = ["AzureDeveloperCLI"]

_AZD = Tool(
    source="azure_developer_cli",
    program="azd",
    missing="install the Azure Developer CLI (https://aka.ms/azd) and run: azd auth login",
    settings={
        "NO_COLOR": "true",
        "AZURE_DEV_COLLECT_TELEMETRY": "false",
        "AZD_SKIP_UPDATE_CHECK": "true",
        "AZD_SKIP_FIRST_RUN": "true",
    },
)
_MOST_LINES = 100  # Of each side; no error has more, and half a million would hold up the event loop for seconds.


class AzureDeveloperCLI:
    """The account that `azd auth login` has logged in, or the same in another one of its tenants.

    *tenant_id* is a GUID or domain, *process_timeout* how many seconds `azd` may take.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: *tenant_id* holds characters that no tenant has, or *process_timeout* is not positive.
    """

    name = _AZD.source
    max_parallel = MAX_PARALLEL
    chooses_tenant = True

    def __init__(
        self,
        *,
        tenant_id: str | None = None,
        process_timeout: float = 30.0,
        surroundings: Surroundings | None = None,
    ) -> None:
        check_option(_AZD, "tenant_id", tenant_id)
        self.time_limit = checked_timeout(process_timeout)
        self._tenant_id = tenant_id
        self._surroundings = surroundings or Surroundings()

    def __repr__(self) -> str:
        return f"AzureDeveloperCLI({f'tenant_id={self._tenant_id!r}' if self._tenant_id else ''})"

    async def fetch(self, request: TokenRequest) -> AccessToken:
        """Run `azd auth token`.

        Raises:
            SourceUnavailableError: `azd` is not installed, or nobody is logged in.
            ConfigurationError: the resource or tenant cannot be passed to it; nothing was run.
            AiomsiError: see the subclasses.
        """
        arguments = self._arguments(request)
        finished = await ask(_AZD, arguments, request, surroundings=self._surroundings, limit=self.time_limit)
        if finished.exit_code != 0:
            raise _failure(finished, request, self._surroundings)
        # Where it stands in for `az`, it calls the token as `az` does.
        return printed_token(
            _AZD, finished, request, members=("token", "accessToken"), advice="is it an old version? Update it"
        )

    def _arguments(self, request: TokenRequest) -> list[str]:
        tenant_id = request.tenant_id or self._tenant_id
        check_plain(_AZD, request, tenant_id)
        arguments = ["auth", "token", "--output", "json", "--no-prompt", "--scope", f"{request.resource}/.default"]
        if tenant_id is not None:
            arguments += ["--tenant-id", tenant_id]
        if request.claims is not None:
            arguments += ["--claims", encoded_claims(request.claims)]
        return arguments


def _failure(finished: Finished, request: TokenRequest, surroundings: Surroundings) -> AiomsiError:
    said = _said(finished)
    code = entra_code(said)
    kind: type[AiomsiError] = TokenRefusedError
    if code is not None:
        advice = "run: azd auth login"
    elif "unknown flag: --claims" in said:
        advice = "update azd to 1.18.1 or later (https://aka.ms/azd), which can pass on the claims of a challenge"
    elif "azd auth login" in said:
        kind, advice = SourceUnavailableError, "run: azd auth login"
    elif "dial tcp" in said:
        kind, advice = EndpointError, "is the network up? Try: azd auth token --output json"
    else:
        advice = f"try the same by hand: azd auth token --output json --scope {request.resource}/.default"
    return failure(_AZD, finished, request, kind=kind, said=said, advice=advice, code=code, surroundings=surroundings)


def _said(finished: Finished) -> str:
    """Return the messages in the lines of JSON that azd prints, on whichever side, or else its plain words."""
    plain, other = (side.decode(errors="replace") for side in (finished.stderr, finished.stdout))
    lines = [*plain.splitlines()[:_MOST_LINES], *other.splitlines()[:_MOST_LINES]]
    said = " ".join(map(_message, lines)).strip() or plain
    return said.replace("fetching token: ", "")  # What follows "token:" would be taken for one, and redacted.


def _message(line: str) -> str:
    """Return the message that a line of JSON holds: `error` since azd 1.23.7, `data.message` before."""
    try:
        event: Any = json.loads(line)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(event, dict):
        return ""
    data = event.get("data")
    message = event.get("error") or (data.get("message") if isinstance(data, dict) else None)
    return message if isinstance(message, str) else ""
