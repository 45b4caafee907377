"""What is sent to a host, and what its answers mean. Pure: values in, values or errors out."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from aiomsi._errors import ConfigurationError, MalformedResponseError
from aiomsi._token import AccessToken, token_problem, unverified_claims
from aiomsi.sources._expiry import read_moment, read_seconds
from aiomsi.sources._hosts import IMDS
from aiomsi.sources._messages import Answer, Request
from aiomsi.sources._redaction import shape
from aiomsi.sources._refusals import refusal

if TYPE_CHECKING:
    from aiomsi.sources._hosts import Host, SelectorKind
    from aiomsi.sources._surroundings import Surroundings

_HOST_NAME = re.compile(r"(?!.{254})[0-9a-z_][0-9a-z_-]{0,62}(\.[0-9a-z_][0-9a-z_-]{0,62})*\.?")

__all__ = ["is_imds", "read_token", "token_request", "token_url"]


def token_request(
    host: Host, surroundings: Surroundings, resource: str, selector: tuple[SelectorKind, str] | None
) -> Request:
    """Return the request for a token.

    Raises:
        ConfigurationError: the environment is wrong, or *host* cannot select an identity in this way.
    """
    if not host.supported:
        raise ConfigurationError(
            f"this is {host.title}, as {' and '.join(host.variables)} say, which is not supported yet",
            resource=resource,
            source=host.name,
        )
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
    headers, secret = dict(host.headers), None
    if host.secret is not None:
        header, variable = host.secret
        headers[header] = secret = _secret(host, surroundings, variable)
    return Request(url._replace(query=urlencode(query, quote_via=quote, safe="")).geturl(), headers, secret=secret)


def token_url(host: Host, surroundings: Surroundings) -> str:
    """Return the URL at which *host* gives out tokens.

    Raises:
        ConfigurationError: the variable that holds it does not hold a URL.
    """
    variable = host.variables[0]
    text = surroundings.get(variable) or ""
    if host is IMDS and not text:
        variable, text = "imds_url", surroundings.imds_url
    problem = _url_problem(text)
    if problem:
        raise ConfigurationError(
            f"{variable} {problem}; it should be a URL such as http://127.0.0.1:41741/msi/token. The platform sets it:"
            " unset it if this is not a machine on Azure",
            source=host.name,
        )
    return text.rstrip("/") + host.path if host.path else text


def _url_problem(text: str) -> str | None:
    # The text itself is not shown: people mix these variables up, and the other one holds the secret.
    try:
        url = urlsplit(text)
        port_is_wrong = url.port == 0
    except ValueError:
        return "is not a URL"
    problems = (
        (not text.isprintable() or " " in text, "holds blanks or control characters"),
        (url.scheme not in ("http", "https"), "does not begin with http:// or https://"),
        (not url.hostname or port_is_wrong, "names no host, or a wrong port"),
        (url.username is not None or url.password is not None, "holds user information, which is never sent"),
        (not _is_host(url.hostname or ""), "names a host that is neither a name nor an ordinary IP address"),
        (bool(url.fragment), "has a fragment"),
    )
    return next((problem for applies, problem in problems if applies), None)


def _is_host(text: str) -> bool:
    # 134744072 and 010.010.010.010 are addresses too, to some resolvers but not to whoever checks addresses.
    if ":" in text or re.fullmatch(r"[0-9.]+", text):
        try:
            ipaddress.ip_address(text)
        except ValueError:
            return False
        return True
    return _HOST_NAME.fullmatch(text) is not None


def _secret(host: Host, surroundings: Surroundings, variable: str) -> str:
    text = surroundings.get(variable) or ""
    if not (text.isascii() and text.isprintable()) or text != text.strip():
        raise ConfigurationError(
            f"{variable} holds characters that no HTTP header may; the platform sets it: restart the app, or unset it",
            source=host.name,
        )
    return text


def read_token(
    host: Host, request: Request, answer: Answer, resource: str, selector: tuple[SelectorKind, str] | None, now: float
) -> AccessToken:
    """Return the token in *answer* to *request*.

    Raises:
        MalformedResponseError: it claims to be a success, but holds no token, or none whose end is known.
        AiomsiError: it is none; an EndpointError means that asking again can help.
    """
    if not 200 <= answer.status < 300:
        raise refusal(host, request, answer, resource, selector, now)
    token = _token_in(answer, resource, host.name, now)
    if isinstance(token, AccessToken):
        return token
    raise MalformedResponseError(
        f"{host.title} answered a request for {resource!r} with {token}: it was {shape(answer.body)}",
        resource=resource,
        source=host.name,
    )


def _token_in(answer: Answer, resource: str, source: str, now: float) -> AccessToken | str:
    """Return the token in *answer*, or what is wrong with it; not raised here, where local variables hold a token."""
    members = answer.members
    token = members.get("access_token")
    expires_on = _expiry(members, now)
    problem = token_problem(token, expires_on, now)
    if problem is not None or expires_on is None or not isinstance(token, str):
        return str(problem)
    refresh_in = read_seconds(members.get("refresh_in"))
    refresh_on = None if refresh_in is None else now + refresh_in
    return AccessToken(token, expires_on, refresh_on, resource, source)


def _expiry(members: dict[str, Any], now: float) -> float | None:
    # `expires_in` counts from the issuance of a token that the host may have cached, so it comes second (IMDS docs).
    expires_on = read_moment(members.get("expires_on"), now)
    if expires_on is None:
        expires_in = read_seconds(members.get("expires_in"))
        expires_on = None if expires_in is None else now + expires_in
    if expires_on is None:
        claims = unverified_claims(str(members.get("access_token"))) or {}
        expires_on = read_moment(claims.get("exp"), now)
    return expires_on


def is_imds(answer: Answer) -> bool:
    """Return whether *answer*, to a request without the Metadata header, is the Instance Metadata Service's own.

    Other clouds have something at the same address, and so have captive portals.
    """
    if answer.headers.get("server", "").startswith("IMDS/"):
        return True
    return answer.status == 400 and bool(answer.members.get("error"))
