"""Which proxy leads to a public service. (Local endpoints are never asked through one.) Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # (typeshed does not know it)

from aiomsi._errors import ConfigurationError

if TYPE_CHECKING:
    from aiomsi.sources._surroundings import Surroundings

__all__ = ["proxy_for"]


def proxy_for(url: str, surroundings: Surroundings) -> str | None:
    """Return the URL of the proxy for the https *url*, from `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, or None.

    Raises:
        ConfigurationError: it is none that can be used.
    """
    variable, text = _first(surroundings, "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
    _, exceptions = _first(surroundings, "no_proxy", "NO_PROXY")
    if not text or proxy_bypass_environment(urlsplit(url).netloc, {"no": exceptions}):
        return None
    text = text if "://" in text else f"http://{text}"
    try:
        usable = urlsplit(text).scheme in ("http", "https") and bool(urlsplit(text).hostname)
    except ValueError:
        usable = False
    if usable:
        return text
    # The text may hold a password.
    raise ConfigurationError(f"{variable} holds no URL of an http proxy, such as http://proxy.example:3128")


def _first(surroundings: Surroundings, *variables: str) -> tuple[str, str]:
    """Return the first of *variables* that is set, and its value."""
    return next(((name, value) for name in variables if (value := surroundings.get(name))), ("", ""))
