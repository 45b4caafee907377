"""Which proxy leads to a public service. (Local endpoints are never asked through one.) Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # (typeshed does not know it)

from aiomsi._errors import ConfigurationError

if TYPE_CHECKING:
    from aiomsi.sources._surroundings import Surroundings

__all__ = ["EXCEPTIONS", "PROXIES", "proxy_for"]

PROXIES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
EXCEPTIONS = ("no_proxy", "NO_PROXY")
_HOST = re.compile(r"[0-9a-z_-]{1,63}(\.[0-9a-z_-]{1,63})*\.?|[0-9a-f.:]+")  # A name, or an address of IPv6.


def proxy_for(url: str, surroundings: Surroundings) -> str | None:
    """Return the URL of the proxy for the https *url*, from `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, or None.

    Raises:
        ConfigurationError: it is none that can be used.
    """
    variable = _first(surroundings, PROXIES)
    exceptions = surroundings.get(_first(surroundings, EXCEPTIONS)) or ""
    if not variable or proxy_bypass_environment(urlsplit(url).netloc, {"no": exceptions}):
        return None
    proxy = _proxy(surroundings.get(variable) or "")
    if proxy is None:  # Not shown: it may hold a password.
        raise ConfigurationError(
            f"{variable} holds no URL of an http proxy, such as http://proxy.example:3128, or a name or password whose"
            " special characters are not percent-encoded"
        )
    return proxy


def _first(surroundings: Surroundings, variables: tuple[str, ...]) -> str:
    """Return the first of *variables* that is set, or nothing."""
    return next((name for name in variables if surroundings.get(name)), "")


def _proxy(text: str) -> str | None:
    """Return *text* with a scheme, or None if it is not what an HTTP library takes (its errors would show it)."""
    text = text if "://" in text else f"http://{text}"
    try:
        url = urlsplit(text)
        user, password = unquote(url.username or ""), unquote(url.password or "")
        f"{user}{password}".encode("latin-1")  # In which they are sent.
        usable = (
            (text.isprintable() and " " not in text)
            and (url.scheme in ("http", "https") and _HOST.fullmatch(url.hostname or "") and url.port != 0)
            and (":" not in user and url.path in ("", "/") and not url.query and not url.fragment)
        )
    except ValueError:
        return None
    return text if usable else None
