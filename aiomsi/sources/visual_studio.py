"""The developer, as signed in to Visual Studio."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from aiomsi._errors import (
    AiomsiError,
    ConfigurationError,
    SourceUnavailableError,
    TokenRefusedError,
    about,
    without_frames,
)
from aiomsi.sources._files import UnfitFileError, read_small
from aiomsi.sources._surroundings import Surroundings
from aiomsi.sources._tools import (
    MAX_PARALLEL,
    Tool,
    ask,
    check_option,
    check_plain,
    checked_timeout,
    entra_code,
    failure,
    printed_token,
)

if TYPE_CHECKING:
    from pathlib import Path

    from aiomsi._source import TokenRequest
    from aiomsi._token import AccessToken
    from aiomsi.sources._subprocess import Finished

__all__ = ["VisualStudio"]

_SIGN_IN = "sign in to Visual Studio: Tools > Options > Azure Service Authentication"
_VISUAL_STUDIO = Tool(source="visual_studio", program="Visual Studio", missing=_SIGN_IN, settings={})
_LARGEST_FILE = 64 * 1024


class VisualStudio:
    """The account chosen in Visual Studio for Azure services, or the same in another one of its tenants.

    Each installed version has a token provider, which is a program. *tenant_id* is a GUID or domain, *process_timeout*
    how many seconds all of them may take together; they can be slow to start.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: *tenant_id* holds characters that no tenant has, or *process_timeout* is not positive.
    """

    name = _VISUAL_STUDIO.source
    max_parallel = MAX_PARALLEL
    chooses_tenant = True

    def __init__(
        self,
        *,
        tenant_id: str | None = None,
        process_timeout: float = 30.0,
        surroundings: Surroundings | None = None,
    ) -> None:
        check_option(_VISUAL_STUDIO, "tenant_id", tenant_id)
        self.time_limit = checked_timeout(process_timeout)
        self._tenant_id = tenant_id
        self._surroundings = surroundings or Surroundings()

    def __repr__(self) -> str:
        return f"VisualStudio({f'tenant_id={self._tenant_id!r}' if self._tenant_id else ''})"

    async def fetch(self, request: TokenRequest) -> AccessToken:
        """Run the token providers of Visual Studio, the preferred one first, until one gives a token.

        Raises:
            SourceUnavailableError: there is none, or nobody is signed in.
            ConfigurationError: the resource or tenant cannot be passed to one, or the file that lists them is broken;
                nothing was run.
            AiomsiError: see the subclasses; the message has a line for each that was run.
        """
        tenant_id = request.tenant_id or self._tenant_id
        check_plain(_VISUAL_STUDIO, request, tenant_id)
        if request.claims is not None:
            raise TokenRefusedError(
                f"the service wants a token for {request.resource!r} with claims that Visual Studio cannot ask for;"
                f" {_SIGN_IN}, again",
                resource=request.resource,
                source=self.name,
            )
        with about(request.resource, self.name):
            tools = await anyio.to_thread.run_sync(_installed, self._surroundings)
        bounded = replace(request, deadline=min(request.deadline, request.clock.monotonic() + self.time_limit))
        failures: list[AiomsiError] = []
        for tool, arguments in tools:
            try:
                return await self._run(tool, arguments, tenant_id, bounded)
            except AiomsiError as error:
                failures.append(without_frames(error))
        raise _combined(failures, request.resource)

    async def _run(self, tool: Tool, own: list[str], tenant_id: str | None, request: TokenRequest) -> AccessToken:
        arguments = [*own, "--resource", request.resource, *(["--tenant", tenant_id] if tenant_id is not None else [])]
        finished = await ask(tool, arguments, request, surroundings=self._surroundings, limit=self.time_limit)
        if finished.exit_code != 0:
            raise _failure(tool, finished, request, self._surroundings)
        return printed_token(tool, finished, request, members=("access_token",), advice="update Visual Studio")


def _installed(surroundings: Surroundings) -> list[tuple[Tool, list[str]]]:
    """Return the token providers that are there, each with its own arguments, the preferred one first. Blocks."""
    file = _file(surroundings)
    try:
        listed = _listed(read_small(file, _LARGEST_FILE)[0])
    except (FileNotFoundError, NotADirectoryError):
        raise SourceUnavailableError(
            f"there is no {file}, in which Visual Studio lists its token providers; {_SIGN_IN}"
        ) from None
    except (OSError, UnfitFileError, ValueError) as error:
        what = f"cannot be read ({type(error).__name__})" if isinstance(error, OSError) else error
        raise ConfigurationError(f"{file} {what}; remove it, and {_SIGN_IN}") from None
    kind = _kind_of_path(surroundings)
    paths = [(kind(path), arguments) for path, arguments in listed]
    there = [
        (replace(_VISUAL_STUDIO, program=str(place)), arguments)
        for path, arguments in paths
        if path.is_absolute() and (place := surroundings.place(path)).is_file()
    ]
    if not there:
        raise SourceUnavailableError(
            f"{file} lists {len(listed)} token providers, none of which is there under an absolute path; {_SIGN_IN}"
        )
    return there


def _file(surroundings: Surroundings) -> Path:
    variable = "LOCALAPPDATA" if surroundings.platform == "win32" else "HOME"
    folder = _kind_of_path(surroundings)(surroundings.get(variable) or "")
    if not folder.is_absolute():
        raise SourceUnavailableError(
            f"{variable} is no absolute path, so where Visual Studio has its files is not known"
        )
    return surroundings.place(folder / ".IdentityService" / "AzureServiceAuth" / "tokenprovider.json")


def _kind_of_path(surroundings: Surroundings) -> type[PurePath]:
    return PureWindowsPath if surroundings.platform == "win32" else PurePosixPath


def _listed(content: bytes) -> list[tuple[str, list[str]]]:
    """Return path and arguments of each token provider, the preferred one first.

    Raises:
        ValueError: the file does not hold them; the text says what is wrong with it.
    """
    try:
        listed: Any = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise ValueError("holds no JSON") from None
    providers = listed.get("TokenProviders") if isinstance(listed, dict) else None
    if not isinstance(providers, list):
        raise ValueError("has no list of TokenProviders")  # noqa: TRY004  (of a file, not of an argument)
    if not all(map(_is_provider, providers)):
        raise ValueError("has a token provider without a Path, Arguments or a Preference that make sense")
    providers.sort(key=lambda provider: provider["Preference"])
    return [(provider["Path"], provider.get("Arguments") or []) for provider in providers]


def _is_provider(provider: Any) -> bool:
    if not isinstance(provider, dict) or not isinstance(provider.get("Preference"), int):
        return False
    arguments = provider.get("Arguments") or []
    texts = [provider.get("Path"), *(arguments if isinstance(arguments, list) else [None])]
    return all(isinstance(text, str) and text.isprintable() for text in texts)


def _failure(tool: Tool, finished: Finished, request: TokenRequest, surroundings: Surroundings) -> AiomsiError:
    said = finished.stderr.decode(errors="replace")
    codes = re.findall(r"\bTS[0-9]{3}\b", said)
    return failure(
        tool,
        finished,
        request,
        # "No accounts found"; the others are about the account that is signed in.
        kind=SourceUnavailableError if "TS005" in codes else TokenRefusedError,
        said=said,
        advice=_SIGN_IN,
        # The first one says no more than that there was an error.
        code=entra_code(said) or (codes[-1] if codes else None),
        surroundings=surroundings,
    )


def _combined(failures: list[AiomsiError], resource: str) -> AiomsiError:
    """Return one error for all, which is unavailable only if all are."""
    if len(failures) == 1:
        return failures[0]
    worst = next((error for error in failures if not isinstance(error, SourceUnavailableError)), failures[0])
    lines = [f"no token for {resource!r}: none of the {len(failures)} token providers of Visual Studio gave one"]
    lines += [f"- {error}" for error in failures]
    return type(worst)(
        "\n".join(lines), resource=resource, source=VisualStudio.name, status=worst.status, code=worst.code
    )
