"""What is sent to a host, and what its answers mean. Pure: values in, values or errors out."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from aiomsi._errors import ConfigurationError, MalformedResponseError, SecurityError
from aiomsi._token import AccessToken
from aiomsi.sources._messages import FORM, Answer, Request, form
from aiomsi.sources._redaction import shape
from aiomsi.sources._refusals import refusal
from aiomsi.sources._token_answer import token_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiomsi._source import TokenRequest
    from aiomsi.sources._hosts import Host, Selector
    from aiomsi.sources._surroundings import Surroundings

_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_HOST_NAME = re.compile(r"(?!.{254})[0-9a-z_][0-9a-z_-]{0,62}(\.[0-9a-z_][0-9a-z_-]{0,62})*\.?")

__all__ = ["is_guid", "is_imds", "pin_of", "read_token", "token_request", "token_url", "url_problem"]


def token_request(
    host: Host,
    surroundings: Surroundings,
    asked: TokenRequest,
    selector: Selector | None,
    capabilities: Sequence[str] = (),
) -> Request:
    """Return the request for a token.

    Raises:
        ConfigurationError: the environment is wrong, or *host* cannot select an identity in this way.
    """
    parameters = {"resource": asked.resource}
    if host.api_version is not None:
        parameters["api-version"] = host.api_version
    parameters |= _selection(host, surroundings, selector)
    if host.knows_capabilities:
        if capabilities:
            parameters["xms_cc"] = ",".join(capabilities)
        if asked.rejected_sha256 is not None:
            parameters["token_sha256_to_refresh"] = asked.rejected_sha256
    url = token_url(host, surroundings)
    if host.method == "POST":
        return Request(url, {**host.headers, "Content-Type": FORM}, "POST", form(parameters))
    parts = urlsplit(url)
    # Merged rather than appended: an endpoint may have a query already, and a name must not be sent twice.
    query = {**dict(parse_qsl(parts.query, keep_blank_values=True)), **parameters}
    headers, secrets = dict(host.headers), []
    if host.secret is not None:
        header, variable = host.secret
        headers[header] = _secret(host, surroundings, variable)
        secrets = [headers[header]]
    url = parts._replace(query=urlencode(query, quote_via=quote, safe="")).geturl()
    return Request(url, headers, secrets=tuple(secrets))


def _selection(host: Host, surroundings: Surroundings, selector: Selector | None) -> dict[str, str]:
    if selector is None:
        text = surroundings.get(host.default_client_id) if host.default_client_id else None
        if text is None or text.lower() == "clientid":  # What Azure ML sets where no identity is switched on.
            return {}
        if not is_guid(text):
            raise ConfigurationError(
                f"{host.default_client_id} is no GUID, as client ids are; the platform sets it: unset it, or name the"
                " identity yourself with ManagedIdentity(client_id=…)",
                source=host.name,
            )
        return {host.selectors["client_id"]: text}
    kind, value = selector
    if kind in host.selectors:
        return {host.selectors[kind]: value}
    why = host.selection or f"use {' or '.join(host.selectors)}"
    raise ConfigurationError(f"{host.title} cannot select a user-assigned identity by {kind}; {why}", source=host.name)


def token_url(host: Host, surroundings: Surroundings) -> str:
    """Return the URL at which *host* gives out tokens.

    Raises:
        ConfigurationError: the variable that holds it does not hold a URL, or not one that is safe enough.
    """
    variable = next(iter(host.variables), "")
    text = surroundings.get(variable) or ""
    if host.address is not None and not text:
        variable, text = host.address, getattr(surroundings, host.address)
    problem = url_problem(text)
    if problem is None and host.pin is not None and urlsplit(text).scheme != "https":
        problem = f"does not begin with https://, which {host.title} always does"
    if problem is not None:
        raise ConfigurationError(
            f"{variable} {problem}; it should be a URL such as http://127.0.0.1:41741/msi/token. The platform sets it:"
            " unset it if this is not a machine on Azure",
            source=host.name,
        )
    return text.rstrip("/") + host.path if host.path else text


def url_problem(text: str) -> str | None:
    """Return what is wrong with *text* as the URL of a service, or None.

    The text itself is not shown: people mix variables up, and the other one holds the secret.
    """
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


def is_guid(text: str) -> bool:
    """Return whether *text* is a GUID, as client and object ids are."""
    return _GUID.fullmatch(text) is not None


def _secret(host: Host, surroundings: Surroundings, variable: str) -> str:
    text = surroundings.get(variable) or ""
    if not (text.isascii() and text.isprintable()) or text != text.strip():
        raise ConfigurationError(
            f"{variable} holds characters that no HTTP header may; the platform sets it: restart the app, or unset it",
            source=host.name,
        )
    return text


def pin_of(host: Host, surroundings: Surroundings) -> bytes | None:
    """Return the SHA-1 digest of the certificate that *host* must show, or None if it is trusted otherwise.

    Raises:
        ConfigurationError: the variable holds no such digest.
    """
    if host.pin is None:
        return None
    text = re.sub(r"[\s:]", "", surroundings.get(host.pin) or "")
    if not re.fullmatch(r"[0-9A-Fa-f]{40}", text):
        raise ConfigurationError(
            f"{host.pin} should hold the SHA-1 of a certificate, 40 hexadecimal digits, but holds {len(text)}"
            " characters; the platform sets it: restart the application",
            source=host.name,
        )
    return bytes.fromhex(text)


def read_token(
    host: Host, request: Request, answer: Answer, resource: str, selector: Selector | None, now: float
) -> AccessToken:
    """Return the token in *answer* to *request*.

    Raises:
        MalformedResponseError: it claims to be a success, but holds no token, or none whose end is known.
        SecurityError: the token is for another identity than the one selected.
        AiomsiError: it is none; an EndpointError means that asking again can help.
    """
    if not 200 <= answer.status < 300:
        raise refusal(host, request, answer, resource, selector, now)
    token = token_in(answer, resource, host.name, now)
    if not isinstance(token, AccessToken):
        raise MalformedResponseError(
            f"{host.title} answered a request for {resource!r} with {token}: it was {shape(answer.body)}",
            resource=resource,
            source=host.name,
        )
    if selector is not None and not _is_for(host, answer, selector):
        raise SecurityError(
            f"{host.title} answered for another identity than the one with {selector[0]} {selector[1]!r}, whose token"
            f" for {resource!r} was asked for; assign that identity to it, and bring its agent up to date",
            resource=resource,
            source=host.name,
        )
    return token


def _is_for(host: Host, answer: Answer, selector: Selector) -> bool:
    kind, wanted = selector
    members = answer.members
    named = [members[name] for name in host.echo.get(kind, ()) if members.get(name)]
    if not named:
        return not host.echo_needed
    return all(str(name).lower() == wanted.lower() for name in named)


def is_imds(answer: Answer) -> bool:
    """Return whether *answer*, to a request without the Metadata header, is the Instance Metadata Service's own.

    Other clouds have something at the same address, and so have captive portals.
    """
    if answer.headers.get("server", "").startswith("IMDS/"):
        return True
    return answer.status == 400 and bool(answer.members.get("error"))
