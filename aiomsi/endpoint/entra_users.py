"""Entra's side towards federated users: where they are signed in, and what their federation service's word is worth.

Sources: Microsoft documentation, "Microsoft identity platform and OAuth 2.0 SAML bearer assertion flow", "Microsoft
Entra authentication and authorization error codes"; RFC 7522.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from .faults import Answer
from .tokens import IssueRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .keyring import Keyring
    from .received import ReceivedRequest

# The grants with a SAML assertion, and the namespaces of the assertions that they are for.
SAML_GRANTS = {
    "urn:ietf:params:oauth:grant-type:saml1_1-bearer": "urn:oasis:names:tc:SAML:1.0:assertion",
    "urn:ietf:params:oauth:grant-type:saml2-bearer": "urn:oasis:names:tc:SAML:2.0:assertion",
}
_NAMESPACE = re.compile(rb"""<(?:([\w.-]+):)?Assertion\s(?:[^>]*\s)?xmlns(?::\1)?\s*=\s*["']([^"']*)["']""")
# What the client may want to know about the user, beside a token for the resource (OpenID Connect).
_OF_OPENID = frozenset({"openid", "profile", "email", "offline_access"})


def user_realm(received: ReceivedRequest, keyring: Keyring) -> Answer:
    """Tell who signs in the user whom the path names."""
    return Answer(body=keyring.domains.realm(unquote(received.path.rpartition("/")[2])))


def user_of(given: Mapping[str, str], keyring: Keyring) -> str:
    """Return whom the assertion of a SAML grant is about; raises IssueRefused if it is not good."""
    try:
        assertion = base64.b64decode(given["assertion"], validate=True)
    except binascii.Error:
        message = "SAML token is invalid: the parameter 'assertion' is not standard base64."
        raise IssueRefused(400, "AADSTS50008", message) from None
    expected, actual = SAML_GRANTS[given["grant_type"]], _namespace(assertion)
    if actual != expected:
        message = f"Cannot read SecurityToken. Expected element is (Assertion, {expected}), the actual one is in "
        raise IssueRefused(400, "AADSTS50008", f"{message}{actual!r}.")
    if not keyring.domains.are_federated:
        raise IssueRefused(400, "AADSTS50107", "The requested federation realm object does not exist.")
    user = keyring.domains.user_of(assertion)
    if user is None:
        raise IssueRefused(400, "AADSTS50008", "Unable to verify token signature. No assertion like this was issued.")
    return user


def without_openid(scope: str) -> str:
    """Return *scope* without what is about the user, and not about the resource."""
    return " ".join(word for word in scope.split(" ") if word not in _OF_OPENID)


def _namespace(assertion: bytes) -> str | None:
    found = _NAMESPACE.search(assertion)
    return None if found is None else found[2].decode(errors="replace")
