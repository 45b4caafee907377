"""What a service asks for when it answers 401: the header WWW-Authenticate. Pure.

The header comes from outside, so nothing is guessed: a challenge that is returned kept to the grammar to its end, and
each of its parameters stood in it once.

Source: RFC 9110 §11.6.1; Microsoft documentation, "Claims challenges, claims requests, and client capabilities" and
"Authentication, requests and responses" of Key Vault.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiomsi._errors import SecurityError
from aiomsi._resource import is_name, resource_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Challenge", "VaultChallenge", "claims_of", "parse_challenges", "vault_challenge"]

_LONGEST = 16 * 1024  # Characters, of all fields together.
_MOST = 32

# Nothing that repeats can match what follows it, so that a text is read in a time proportional to its length.
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"  # noqa: S105  (the grammar's word for a word)
_BLANKS = r"[ \t]*+"
_END = rf"{_BLANKS}(?:,|\Z)"
_BEGIN = rf"(?P<scheme>{_TOKEN})(?:[ ]++(?!{_BLANKS}=)|(?={_END}))"
_TOKEN68 = rf"(?P<token68>[0-9A-Za-z._~+/-]++=*+)(?={_END})"
_PLAIN = r"[\t !#-\[\]-~\x80-\U0010ffff]*+"
_QUOTED = rf'"(?P<quoted>{_PLAIN}(?:\\[\t -~\x80-\U0010ffff]{_PLAIN})*)"'
_PARAMETER = rf"(?P<name>{_TOKEN}){_BLANKS}={_BLANKS}(?:(?P<word>{_TOKEN})|{_QUOTED})"
_NEXT = re.compile(rf"{_BLANKS}{_BEGIN}")
_ELEMENT = re.compile(rf"{_BLANKS}(?:{_BEGIN}(?:{_TOKEN68})?)?(?:{_PARAMETER})?{_END}")
_ESCAPED = re.compile(r"\\(.)")

# A name of several labels in ASCII, whose last is no number: no address, no user information, no dot at the end.
_HTTPS = re.compile(
    r"(?ai:https)://(?![^:/?#]{254})(?P<host>(?:[0-9A-Za-z_-]{1,63}\.)+[A-Za-z][0-9A-Za-z-]{0,62})"
    r"(?::(?P<port>[0-9]{0,5}))?(?:/(?P<first>[^/?#]*))?(?:[/?#](?s:.*))?"
)
_NO_TENANT = "adfs"  # AD FS, on Azure Stack Hub, has this in its place.


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authenticate that a service offers.

    *scheme* and the names of *parameters* are in lower case; *token68* is what stands in place of parameters, or None.
    """

    scheme: str
    parameters: Mapping[str, str] = field(repr=False)
    token68: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class VaultChallenge:
    """What a key vault or managed HSM wants a token for, and of which tenant; None where it names none."""

    resource: str
    tenant_id: str | None


def parse_challenges(values: Iterable[str]) -> list[Challenge]:
    """Return the challenges in *values*, the fields named WWW-Authenticate of one answer, in their order.

    A syntax error drops the challenge in which it is and the rest of its field. A challenge that has a parameter twice
    is dropped. So is what comes after the 32nd challenge, and each field from the one with which all of them together
    exceed 16 KiB. Nothing is raised.

    Source: RFC 9110 §11.2, §11.6.1 and §5.6.1.2 (empty elements of a list).
    """
    found: list[Challenge] = []
    length = 0
    for value in values:
        length += len(value) + 1
        if length > _LONGEST:
            break
        found += filter(None, map(_challenge, _elements(value)))
    return found[:_MOST]


def _elements(value: str) -> list[list[re.Match[str]]]:
    """Return the list elements of each whole challenge in *value*; the first of each has the scheme."""
    found: list[list[re.Match[str]]] = []
    position = 0
    while position < len(value):
        element = _ELEMENT.match(value, position)
        if element is None:
            # What is not the beginning of another challenge belongs to the last one.
            return found if _NEXT.match(value, position) else found[:-1]
        if element["scheme"]:
            found.append([element])
        elif element["name"]:
            if not found or found[-1][0]["token68"]:
                return found[:-1]
            found[-1].append(element)
        position = element.end()
    return found


def _challenge(elements: list[re.Match[str]]) -> Challenge | None:
    named = [element for element in elements if element["name"]]
    parameters = {element["name"].lower(): _value(element) for element in named}
    if len(parameters) != len(named):
        return None
    return Challenge(elements[0]["scheme"].lower(), parameters, elements[0]["token68"])


def _value(element: re.Match[str]) -> str:
    return element["word"] or _ESCAPED.sub(r"\1", element["quoted"])


def claims_of(challenges: Iterable[Challenge]) -> str | None:
    """Return the claims that Entra is to put into the next token, as JSON text, or None if none are asked for.

    What counts is the first Bearer challenge with the error "insufficient_claims" whose claims are a JSON object, in
    base64 of either alphabet, padded or not.
    """
    asked = (challenge.parameters for challenge in challenges if challenge.scheme == "bearer")
    decoded = (_decoded(each.get("claims", "")) for each in asked if each.get("error") == "insufficient_claims")
    return next(filter(None, decoded), None)


def _decoded(claims: str) -> str | None:
    bare = claims.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        text = base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True).decode()
        return text if isinstance(json.loads(text), dict) else None
    except (ValueError, RecursionError):
        return None


def vault_challenge(challenges: Iterable[Challenge], url: str) -> VaultChallenge | None:
    """Return what the vault at *url*, the URL of the request, asks for, or None if no challenge is a vault's.

    A vault names a resource, or a scope that is a URL or stands beside an authorization server. The host of *url* must
    be below the resource's, at the same port; else whoever answers could ask for a token that is meant for another
    service. Of the authorization server's URL only the tenant is taken.

    Raises:
        SecurityError: the challenge asks for what it may not, or is not complete.
    """
    bearers = (challenge.parameters for challenge in challenges if challenge.scheme == "bearer")
    asked = next(filter(_is_of_a_vault, bearers), None)
    if asked is None:
        return None
    checked = _checked(asked, url)
    if isinstance(checked, VaultChallenge):
        return checked
    raise SecurityError(
        f"a key vault's challenge was refused, and no token was sent in answer: {checked}. Check the URL of the vault,"
        " and whether something else answers in its place"
    )


def _is_of_a_vault(parameters: Mapping[str, str]) -> bool:
    # Any OAuth service may name a scope (RFC 6750 §3), but only as a word of its own.
    scope = parameters.get("scope", "")
    return "resource" in parameters or bool(scope and (_authorization(parameters) or "://" in scope))


def _authorization(parameters: Mapping[str, str]) -> str:
    return parameters.get("authorization_uri") or parameters.get("authorization", "")


def _checked(parameters: Mapping[str, str], url: str) -> VaultChallenge | str:
    """Return what is asked for or, without showing more of it than hosts, why that is refused."""
    resource = _resource(parameters)
    here, there, authority = (_HTTPS.fullmatch(text) for text in (url, resource, _authorization(parameters)))
    if here is None:
        return "the request was to no https URL with an ordinary host name"
    if there is None:
        return f"{here['host']} names a resource that is no https URL with an ordinary host name"
    if not _origin(here).endswith(f".{_origin(there)}"):
        return f"{_origin(here)} asks for a token for {_origin(there)}, and is not below it"
    if authority is None:
        return f"{here['host']} names no https URL of an authorization server"
    tenant_id = authority["first"] or _NO_TENANT
    if not is_name(tenant_id):
        return f"{here['host']} names a tenant that is neither a GUID nor a domain"
    return VaultChallenge(resource, None if tenant_id.lower() == _NO_TENANT else tenant_id)


def _resource(parameters: Mapping[str, str]) -> str:
    try:
        return resource_of(parameters.get("scope") or parameters["resource"])
    except ValueError:
        return ""


def _origin(url: re.Match[str]) -> str:
    return f"{url['host'].lower()}:{int(url['port'] or 443)}"
