"""What is sent to a host, and what its answers mean. Pure: values in, values or errors out."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from aiomsi._errors import (
    AiomsiError,
    ConfigurationError,
    EndpointError,
    MalformedResponseError,
    SourceUnavailableError,
    TokenRefusedError,
)
from aiomsi._token import AccessToken, unverified_claims
from aiomsi.sources._expiry import read_moment, read_seconds
from aiomsi.sources._hosts import IMDS
from aiomsi.sources._redaction import redact, shape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiomsi.sources._hosts import Host, SelectorKind
    from aiomsi.sources._surroundings import Surroundings

__all__ = ["Answer", "Request", "is_imds", "read_token", "token_from", "token_request", "token_url"]

_LONGEST_WAIT = 86_400.0  # A host that asks for more than a day is not believed.


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request; its headers may hold a secret and are never shown."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    method: str = "GET"


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer; its body may hold a token and is never shown. Header names are in lower case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


def token_request(
    host: Host, surroundings: Surroundings, resource: str, selector: tuple[SelectorKind, str] | None
) -> Request:
    """Return the request for a token.

    Raises:
        ConfigurationError: the environment is wrong, or *host* cannot select an identity in this way.
    """
    parameters = {"api-version": host.api_version, "resource": resource}
    if selector is not None:
        kind, value = selector
        if kind not in host.selectors:
            known = " or ".join(host.selectors)
            raise ConfigurationError(
                f"{host.title} cannot select a user-assigned identity by {kind}; use {known}",
                resource=resource,
                source=host.name,
            )
        parameters[host.selectors[kind]] = value
    url = urlsplit(token_url(host, surroundings))
    # Merged rather than appended: an endpoint may have a query already, and a name must not be sent twice.
    query = {**dict(parse_qsl(url.query, keep_blank_values=True)), **parameters}
    headers = dict(host.headers)
    if host.secret is not None:
        header, variable = host.secret
        headers[header] = _secret(host, surroundings, variable)
    return Request(url._replace(query=urlencode(query, quote_via=quote, safe="")).geturl(), headers)


def token_url(host: Host, surroundings: Surroundings) -> str:
    """Return the URL at which *host* gives out tokens.

    Raises:
        ConfigurationError: the variable that holds it does not hold a URL.
    """
    variable = host.variables[0]
    text = surroundings.get(variable)
    if host is IMDS:
        variable, text = (variable, text) if text else ("imds_url", surroundings.imds_url)
    problem = _url_problem(text or "")
    if problem:
        raise ConfigurationError(
            f"{variable} {problem}; it should be a URL such as http://127.0.0.1:41741/msi/token. The platform sets it:"
            " unset it if this is not a machine on Azure",
            source=host.name,
        )
    return f"{text}".rstrip("/") + host.path if host.path else f"{text}"


def _url_problem(text: str) -> str | None:
    # The text itself is not shown: people mix these variables up, and the other one holds the secret.
    if any(character.isspace() or not character.isprintable() for character in text):
        return "holds blanks or control characters"
    try:
        url = urlsplit(text)
        port_is_wrong = url.port == 0
    except ValueError:
        return "is not a URL"
    if url.scheme not in ("http", "https"):
        return "does not begin with http:// or https://"
    if not url.hostname or port_is_wrong:
        return "names no host, or a wrong port"
    if url.username is not None or url.password is not None:
        return "holds user information, which is never sent"
    return "has a fragment" if url.fragment else None


def _secret(host: Host, surroundings: Surroundings, variable: str) -> str:
    text = surroundings.get(variable) or ""
    if not (text.isascii() and text.isprintable()) or text != text.strip():
        raise ConfigurationError(
            f"{variable} holds characters that no HTTP header may; the platform sets it: restart the app, or unset it",
            source=host.name,
        )
    return text


def read_token(
    host: Host, answer: Answer, resource: str, selector: tuple[SelectorKind, str] | None, now: float
) -> AccessToken:
    """Return the token in *answer*.

    Raises:
        AiomsiError: there is none; EndpointError means that asking again can help.
    """
    if not 200 <= answer.status < 300:
        raise _refusal(host, answer, resource, selector, now)
    return token_from(answer.body, resource=resource, source=host.name, title=host.title, now=now)


def token_from(body: bytes, *, resource: str, source: str, title: str, now: float) -> AccessToken:
    """Return the token in *body*, the JSON of a successful answer that came at *now*.

    Raises:
        MalformedResponseError: it holds none, or none whose end is known.
    """
    answer = _json_object(body)
    token = answer.get("access_token")
    expires_on = _expiry(answer, now)
    if not isinstance(token, str) or not token:
        problem = "without an access_token"
    elif not (token.isascii() and token.isprintable()) or " " in token:
        problem = "with an access_token that no HTTP header can carry"
    elif expires_on is None:
        problem = "whose expires_on and expires_in cannot be read"
    elif expires_on <= now:
        problem = f"with a token that expired {now - expires_on:.0f} s ago (is this machine's clock right?)"
    else:
        refresh_in = read_seconds(answer.get("refresh_in"))
        return AccessToken(
            token=token,
            expires_on=expires_on,
            refresh_on=None if refresh_in is None else now + refresh_in,
            resource=resource,
            source=source,
        )
    raise MalformedResponseError(
        f"{title} answered a request for {resource!r} {problem}: it was {shape(body)}", resource=resource, source=source
    )


def _expiry(answer: dict[str, Any], now: float) -> float | None:
    # `expires_in` counts from the issuance of a token that the host may have cached, so it comes second (IMDS docs).
    expires_on = read_moment(answer.get("expires_on"), now)
    if expires_on is None:
        expires_in = read_seconds(answer.get("expires_in"))
        expires_on = None if expires_in is None else now + expires_in
    if expires_on is None:
        claims = unverified_claims(str(answer.get("access_token"))) or {}
        expires_on = read_moment(claims.get("exp"), now)
    return expires_on


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


# What was meant by an error


def _refusal(
    host: Host, answer: Answer, resource: str, selector: tuple[SelectorKind, str] | None, now: float
) -> AiomsiError:
    code, text = _error_in(answer.body)
    kind, advice = _meaning(host, answer.status, code, text, selector)
    said = f": {text}" if text else ""
    named = f" ({code})" if code and code not in text else ""
    return kind(
        f"{host.title} answered a request for {resource!r} with HTTP {answer.status}{named}{said}; {advice}",
        resource=resource,
        source=host.name,
        status=answer.status,
        code=code,
        retry_after=retry_after(answer.headers, now) if kind is EndpointError else None,
    )


def _meaning(
    host: Host, status: int, code: str | None, text: str, selector: tuple[SelectorKind, str] | None
) -> tuple[type[AiomsiError], str]:
    """Return which error an answer is, and what to do about it."""
    said = f"{code} {text}".lower()
    # On a machine that is a developer's too, having no identity must not keep `az` from being asked.
    absent = host is IMDS and selector is None
    rules: tuple[tuple[bool, type[AiomsiError], str], ...] = (
        (_is_transient(host, status), EndpointError, "it will be asked again"),
        (
            host is IMDS and status == 403 and "unreachable" in said,
            SourceUnavailableError,
            "that was a proxy, not Azure",
        ),
        ("multiple user assigned identities" in said, TokenRefusedError, "say which one: ManagedIdentity(client_id=…)"),
        (
            any(words in said for words in _NO_IDENTITY),
            SourceUnavailableError if absent else TokenRefusedError,
            f"assign {selector[1]!r} to it, or {host.advice}" if selector else host.advice,
        ),
        (
            any(words in said for words in _NO_RESOURCE),
            TokenRefusedError,
            "check the spelling of the resource, its trailing slash, and the tenant",
        ),
        (status in (401, 403), TokenRefusedError, _UNAUTHORISED.get(host.name, _RESTART)),
        (300 <= status < 400, TokenRefusedError, "redirects are not followed: they could lead the secret elsewhere"),
    )
    found = ((kind, advice) for applies, kind, advice in rules if applies)
    return next(found, (TokenRefusedError, "the request was not understood; is something else listening there?"))


def _is_transient(host: Host, status: int) -> bool:
    return status in (408, 429) or status >= 500 or status in host.also_retried


_NO_IDENTITY = ("identity not found", "no user assigned or delegated", "unable to load requested managed identity")
_NO_RESOURCE = ("invalid_resource", "aadsts500011", "aadsts50001")
_RESTART = "restart the app, so that it sees the current secret"
_UNAUTHORISED = {"imds": "it must be asked from the machine's primary network interface, past no firewall or proxy"}


def _error_in(body: bytes) -> tuple[str | None, str]:
    """Return the code and the text of an error, in any of the shapes that hosts have for one."""
    answer = _json_object(body)
    nested = answer.get("error")
    inner = nested if isinstance(nested, dict) else {}
    code = _first(inner.get("code"), nested, answer.get("errorCode"))
    text = _first(
        inner.get("message"),
        answer.get("error_description"),
        answer.get("exceptionMessage"),
        answer.get("message"),
        None if answer else body.decode(errors="replace"),
    )
    text = redact(text or "")
    aadsts = re.search(r"AADSTS[0-9]+", text)
    return redact(code)[:64] if code else aadsts[0] if aadsts else None, text


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


def is_imds(answer: Answer) -> bool:
    """Return whether *answer*, to a request without the Metadata header, is the Instance Metadata Service's own.

    Other clouds have something at the same address, and so have captive portals.
    """
    if answer.headers.get("server", "").startswith("IMDS/"):
        return True
    return answer.status == 400 and bool(_json_object(answer.body).get("error"))
