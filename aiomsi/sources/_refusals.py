"""What a host means by an answer that holds no token. Pure."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from aiomsi._errors import AiomsiError, EndpointError, SourceUnavailableError, TokenRefusedError
from aiomsi.sources._hosts import IMDS
from aiomsi.sources._redaction import redact

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aiomsi.sources._hosts import Host, Selector
    from aiomsi.sources._messages import Answer, Request

__all__ = ["error_in", "plain_refusal", "refusal", "retry_after"]

_LONGEST_WAIT = 86_400.0  # A host that asks for more than a day is not believed.
_NO_IDENTITY = ("identity not found", "no user assigned or delegated", "unable to load requested managed identity")
_NO_RESOURCE = ("invalid_resource", "invalid_scope", "aadsts500011", "aadsts50001", "audiencenotsupported")
_MISSPELT = "check the spelling of the resource, its trailing slash, and the tenant"
_RESTART = "restart the app, so that it sees the current secret"
_UNAUTHORISED = {
    "azure_arc": "its agent did not take the key that it had written itself; restart it (`systemctl restart himdsd`)",
    "imds": "it must be asked from the machine's primary network interface, past no firewall or proxy",
}


def refusal(
    host: Host, request: Request, answer: Answer, resource: str, selector: Selector | None, now: float
) -> AiomsiError:
    """Return the error that *answer* to *request*, which is no success, means."""
    code, text = error_in(answer, request.secrets)
    kind, advice = _meaning(host, answer.status, code, text, selector)
    said = f": {text.rstrip('.')}" if text else ""
    named = f" ({code})" if code and code not in text else ""
    return kind(
        f"{host.title} answered a request for {resource!r} with HTTP {answer.status}{named}{said}; {advice}",
        resource=resource,
        source=host.name,
        status=answer.status,
        code=code,
        retry_after=retry_after(answer.headers, now) if kind is EndpointError else None,
    )


def plain_refusal(what: str, request: Request, answer: Answer, advice: str, source: str, now: float) -> AiomsiError:
    """Return the error that *answer* means where a service has no errors of its own kind; *what* begins the text."""
    code, text = error_in(answer, request.secrets)
    transient = answer.status in (408, 429) or answer.status >= 500
    kind = EndpointError if transient else TokenRefusedError
    said = f": {text.rstrip('.')}" if text else ""
    return kind(
        f"{what} (HTTP {answer.status}{said}); {'it will be asked again' if transient else advice}",
        source=source,
        status=answer.status,
        code=code,
        retry_after=retry_after(answer.headers, now) if transient else None,
    )


def _meaning(
    host: Host, status: int, code: str | None, text: str, selector: Selector | None
) -> tuple[type[AiomsiError], str]:
    """Return which error an answer is, and what to do about it."""
    said = f"{code} {text}".lower()
    # On a machine that is a developer's too, having no identity must not keep `az` from being asked.
    absent = host is IMDS and selector is None
    unauthorised = status in (401, 403) or code == "SecretHeaderNotFound"
    rules: tuple[tuple[bool, type[AiomsiError], str], ...] = (
        (_is_transient(host, status), EndpointError, "it will be asked again"),
        (
            host is IMDS and status == 403 and "unreachable" in said,
            SourceUnavailableError,
            "that was a proxy, not Azure",
        ),
        ("multiple user assigned identities" in said, TokenRefusedError, "say which one: ManagedIdentity(client_id=…)"),
        (
            status in host.no_identity or any(words in said for words in _NO_IDENTITY),
            SourceUnavailableError if absent else TokenRefusedError,
            f"assign {selector[1]!r} to it, or {host.advice}" if selector else host.advice,
        ),
        (any(words in said for words in _NO_RESOURCE), TokenRefusedError, _MISSPELT),
        (unauthorised, TokenRefusedError, _UNAUTHORISED.get(host.name, _RESTART)),
        (300 <= status < 400, TokenRefusedError, "redirects are not followed: they could lead the secret elsewhere"),
    )
    found = ((kind, advice) for applies, kind, advice in rules if applies)
    return next(found, (TokenRefusedError, "the request was not understood; is something else listening there?"))


def _is_transient(host: Host, status: int) -> bool:
    return status in (408, 429) or status >= 500 or status in host.also_retried


def error_in(answer: Answer, secrets: Sequence[str]) -> tuple[str | None, str]:
    """Return the code and the text of an error, in any of the shapes that hosts have for one, without *secrets*."""
    members = answer.members
    nested = members.get("error")
    inner = nested if isinstance(nested, dict) else {}
    code = _first(inner.get("code"), nested, members.get("errorCode"))
    text = _first(
        inner.get("message"),
        members.get("error_description"),
        members.get("exceptionMessage"),
        members.get("message"),
        None if members else answer.body.decode(errors="replace"),
    )
    text = redact(text or "", *secrets)
    aadsts = re.search(r"AADSTS[0-9]+", text)
    return redact(code, *secrets)[:64] if code else aadsts[0] if aadsts else None, text


def _first(*values: object) -> str | None:
    return next((value for value in values if isinstance(value, str) and value), None)


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that an answer asks to wait, given as seconds or as a date (RFC 9110), or None."""
    for name, scale in (("retry-after-ms", 0.001), ("x-ms-retry-after-ms", 0.001), ("retry-after", 1.0)):
        if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", number := headers.get(name, "").strip()):
            return min(float(number) * scale, _LONGEST_WAIT)
    try:
        moment = parsedate_to_datetime(headers.get("retry-after", "")).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(moment - now, 0.0), _LONGEST_WAIT)
