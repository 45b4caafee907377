"""The developer, as connected in Azure PowerShell."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from aiomsi._errors import AiomsiError, SourceUnavailableError, TokenRefusedError
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

__all__ = ["AzurePowerShell"]

_PWSH = Tool(
    source="azure_powershell",
    program="pwsh",
    missing="install PowerShell (https://aka.ms/powershell), and run in it: Install-Module Az.Accounts",
    settings={"NO_COLOR": "1", "POWERSHELL_TELEMETRY_OPTOUT": "1", "POWERSHELL_UPDATECHECK": "Off"},
)
_WINDOWS_POWERSHELL = replace(_PWSH, program="powershell")  # Part of Windows, while the other one has to be installed.

# Modules print whatever they like, so the answer is marked. The token is a SecureString since Az.Accounts 5.0.
_SCRIPT = """\
$ErrorActionPreference = 'Stop'
$ProgressPreference = $WarningPreference = 'SilentlyContinue'
try {
    Import-Module Az.Accounts -MinimumVersion 2.2.0
    $given = Get-AzAccessToken %(options)s
    $token = $given.Token
    if ($token -is [securestring]) {
        $token = [System.Net.NetworkCredential]::new('', $token).Password
    }
    $answer = @{ token = $token; expires_on = $given.ExpiresOn.ToUnixTimeSeconds() }
} catch {
    $answer = @{ error = $_.Exception.Message; id = $_.FullyQualifiedErrorId; type = $_.Exception.GetType().Name }
}
'aiomsi:' + (ConvertTo-Json -InputObject $answer -Compress)
if ($answer.error) { exit 1 }
"""
_ANSWER = re.compile(rb"^aiomsi:(\{.*\})\s*$", re.MULTILINE)


class AzurePowerShell:
    """The account that `Connect-AzAccount` has connected, or the same in another one of its tenants.

    *tenant_id* is a GUID or domain, *process_timeout* how many seconds PowerShell may take; it is slow to start.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: *tenant_id* holds characters that no tenant has, or *process_timeout* is not positive.
    """

    name = _PWSH.source
    max_parallel = MAX_PARALLEL
    chooses_tenant = True

    def __init__(
        self,
        *,
        tenant_id: str | None = None,
        process_timeout: float = 30.0,
        surroundings: Surroundings | None = None,
    ) -> None:
        check_option(_PWSH, "tenant_id", tenant_id)
        self.time_limit = checked_timeout(process_timeout)
        self._tenant_id = tenant_id
        self._surroundings = surroundings or Surroundings()

    def __repr__(self) -> str:
        return f"AzurePowerShell({f'tenant_id={self._tenant_id!r}' if self._tenant_id else ''})"

    async def fetch(self, request: TokenRequest) -> AccessToken:
        """Run `Get-AzAccessToken` in PowerShell, on Windows in Windows PowerShell if there is no other.

        Raises:
            SourceUnavailableError: PowerShell or its module Az.Accounts is not installed or must not run, or nobody is
                connected.
            ConfigurationError: the resource or tenant cannot be passed to it; nothing was run.
            AiomsiError: see the subclasses.
        """
        tenant_id = request.tenant_id or self._tenant_id
        check_plain(_PWSH, request, tenant_id)
        if request.claims is not None:
            tenant = f" -Tenant {tenant_id}" if tenant_id is not None else ""
            raise TokenRefusedError(
                f"the service wants a token for {request.resource!r} with claims that Azure PowerShell gets only when"
                " it connects; run in PowerShell, with Az.Accounts 5.2.0 or later:"
                f' Connect-AzAccount{tenant} -ClaimsChallenge "{encoded_claims(request.claims)}"',
                resource=request.resource,
                source=self.name,
            )
        finished = await self._run(_script(request.resource, tenant_id), request)
        if finished.exit_code != 0:
            raise _failure(finished, request, self._surroundings)
        return printed_token(
            _PWSH, _marked(finished), request, members=("token",), advice="try by hand: Get-AzAccessToken"
        )

    async def _run(self, script: str, request: TokenRequest) -> Finished:
        encoded = base64.b64encode(script.encode("utf-16-le")).decode()
        arguments = ["-NoProfile", "-NonInteractive", "-EncodedCommand", encoded]
        try:
            return await ask(_PWSH, arguments, request, surroundings=self._surroundings, limit=self.time_limit)
        except SourceUnavailableError:
            if self._surroundings.platform != "win32":
                raise
        return await ask(
            _WINDOWS_POWERSHELL, arguments, request, surroundings=self._surroundings, limit=self.time_limit
        )


def _script(resource: str, tenant_id: str | None) -> str:
    # Literals between single quotes, in which nothing has a meaning but a quote, and neither value holds one.
    options = f"-ResourceUrl '{resource}'" + (f" -TenantId '{tenant_id}'" if tenant_id is not None else "")
    return _SCRIPT % {"options": options}


def _marked(finished: Finished) -> Finished:
    """Return *finished* with the answer of the script alone as its output, if there is one."""
    answers = _ANSWER.findall(finished.stdout)
    return replace(finished, stdout=answers[-1]) if answers else finished


def _failure(finished: Finished, request: TokenRequest, surroundings: Surroundings) -> AiomsiError:
    said, what = _said(finished)
    code = entra_code(said)
    kind: type[AiomsiError] = SourceUnavailableError
    if code is not None:
        kind, advice = TokenRefusedError, "run in PowerShell: Connect-AzAccount"
    elif re.search(r"Modules_Module\w*NotFound", what):
        advice = "run in PowerShell: Install-Module Az.Accounts; it should be 2.2.0 or later"
    elif "PSSecurityException" in what or "AuthorizationManager check failed" in said:
        # Unavailable, since this is how Windows comes: whoever never used Azure PowerShell has another source.
        advice = "the execution policy forbids it; run: Set-ExecutionPolicy -Scope CurrentUser RemoteSigned"
    elif "Connect-AzAccount" in said:
        advice = "run in PowerShell: Connect-AzAccount"
    else:
        kind = TokenRefusedError
        advice = f"try the same by hand: Get-AzAccessToken -ResourceUrl {request.resource}"
    return failure(_PWSH, finished, request, kind=kind, said=said, advice=advice, code=code, surroundings=surroundings)


def _said(finished: Finished) -> tuple[str, str]:
    """Return the message of the error, and what kind of error it is, in words that are not translated."""
    for text in _ANSWER.findall(finished.stdout):
        try:
            answer = json.loads(text.decode(errors="replace"))
        except (ValueError, RecursionError):
            continue
        return str(answer.get("error")), f"{answer.get('type')} {answer.get('id')}"
    said = _readable(finished.stderr.decode(errors="replace"))
    return said, said


def _readable(said: str) -> str:
    """Return the errors in *said*, which PowerShell writes to a pipe as XML, without its colours."""
    if "#< CLIXML" in said:
        import html  # noqa: PLC0415  (slow to load, and seldom needed)

        said = html.unescape("".join(re.findall(r'<S S="Error">([^<]*)</S>', said)))
        said = re.sub(r"_x([0-9A-Fa-f]{4})_", lambda escaped: chr(int(escaped[1], 16)), said)
    return re.sub(r"\x1b\[[0-9;]*m", "", said)
