"""Which application asks Entra for a token, and where: from arguments, and otherwise from the environment. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiomsi._errors import ConfigurationError
from aiomsi._resource import is_name
from aiomsi.sources._wire import url_problem

if TYPE_CHECKING:
    from aiomsi.sources._surroundings import Surroundings

__all__ = ["Application", "application", "base_problem", "check_capabilities", "check_name", "check_retry_timeout"]

_PUBLIC_AUTHORITY = "https://login.microsoftonline.com"
_CAPABILITY = re.compile(r"[0-9A-Za-z_.-]+")


@dataclass(frozen=True, slots=True)
class Application:
    """Who asks, and where: *authority* is the URL of the cloud's Entra without a slash at its end."""

    source: str
    client_id: str
    tenant_id: str
    authority: str
    capabilities: tuple[str, ...] = ()


def application(
    surroundings: Surroundings,
    source: str,
    *,
    client_id: str | None,
    tenant_id: str | None,
    authority: str | None,
    capabilities: tuple[str, ...] = (),
) -> Application:
    """Return who asks, from what was given and otherwise from the environment.

    Raises:
        ConfigurationError: the client or the tenant is not known, or something is malformed.
    """
    get = surroundings.get
    return Application(
        source,
        check_name("client id", client_id or get("AZURE_CLIENT_ID"), "client_id, or set AZURE_CLIENT_ID", source),
        check_name("tenant", tenant_id or get("AZURE_TENANT_ID"), "tenant_id, or set AZURE_TENANT_ID", source),
        _authority(authority, get("AZURE_AUTHORITY_HOST"), source),
        capabilities,
    )


def check_name(what: str, text: str | None, remedy: str, source: str) -> str:
    """Return *text* if it is the name of an application or a tenant, a GUID or a domain.

    Raises:
        ConfigurationError: it is not.
    """
    if text and is_name(text):
        return text
    # Not shown: the variable next to it holds a secret.
    problem = "is neither a GUID nor a domain" if text else "is not known"
    raise ConfigurationError(f"the {what} {problem}: give {remedy}", source=source)


def _authority(given: str | None, variable: str | None, source: str) -> str:
    text = given or variable or _PUBLIC_AUTHORITY
    text = text if "://" in text else f"https://{text}"
    problem = base_problem(text)
    if problem is not None:
        what = "authority" if given else "AZURE_AUTHORITY_HOST"
        raise ConfigurationError(f"{what} {problem}; it should be like {_PUBLIC_AUTHORITY}", source=source)
    return text.rstrip("/")


def base_problem(text: str) -> str | None:
    """Return what is wrong with *text* as the https URL below which tokens are asked for, or None."""
    problem = url_problem(text)
    if problem is None and urlsplit(text).scheme != "https":
        problem = "does not begin with https://"
    # Even an empty one would swallow the path that is added.
    if problem is None and ("?" in text or "#" in text):
        problem = "has a query or a fragment"
    return problem


def check_capabilities(capabilities: Sequence[str]) -> tuple[str, ...]:
    """Return *capabilities* as a tuple, each once.

    Raises:
        TypeError: it is no sequence of strings.
        ValueError: one of them is not a plain word.
    """
    listed = not isinstance(capabilities, str) and isinstance(capabilities, Sequence)
    if not listed or not all(isinstance(capability, str) for capability in capabilities):
        raise TypeError(f"client_capabilities is a sequence of strings such as ('CP1',), not {capabilities!r}")
    for capability in capabilities:
        if not _CAPABILITY.fullmatch(capability):
            raise ValueError(f"{capability!r} is no client capability; the one in use is 'CP1'")
    return tuple(dict.fromkeys(capabilities))


def check_retry_timeout(seconds: float | None) -> float | None:
    """Return *seconds* as a number, or None if it is None.

    Raises:
        TypeError: it is no number.
        ValueError: it is negative, or not finite.
    """
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"retry_timeout is a number of seconds, not {seconds!r}")
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"retry_timeout is a number of seconds that is not negative, not {seconds!r}")
    return float(seconds)
