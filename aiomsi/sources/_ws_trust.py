"""WS-Trust, as far as a Kerberos login at a federation server needs it: documents in, documents out. Pure.

Sources: OASIS WS-Trust 1.3 and its version of February 2005; W3C WSDL 1.1, WS-Policy, WS-Addressing 1.0 and SOAP 1.2;
OASIS WS-Security SAML token profile 1.1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from aiomsi._errors import MalformedResponseError, SecurityError, TokenRefusedError
from aiomsi.sources._redaction import redact, shape
from aiomsi.sources._xml import first_child_of, parsed

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = [
    "Assertion",
    "Version",
    "WindowsTransport",
    "assertion_in",
    "fault_in",
    "request_for",
    "windows_transport_in",
]

_WSDL = "{http://schemas.xmlsoap.org/wsdl/}"
_SOAP_BINDING = "{http://schemas.xmlsoap.org/wsdl/soap12/}"
_OPERATION = f"{_WSDL}operation/{_SOAP_BINDING}operation"
_SOAP_OVER_HTTP = "http://schemas.xmlsoap.org/soap/http"
_POLICY = "{http://schemas.xmlsoap.org/ws/2004/09/policy}"
_POLICY_ID = "{http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd}Id"
_TICKETS = "{http://schemas.microsoft.com/ws/06/2004/policy/http}NegotiateAuthentication"
_OVER_TLS = {
    "{http://docs.oasis-open.org/ws-sx/ws-securitypolicy/200702}TransportBinding",
    "{http://schemas.xmlsoap.org/ws/2005/07/securitypolicy}TransportBinding",
}
_ADDRESS = "{http://www.w3.org/2005/08/addressing}EndpointReference/{http://www.w3.org/2005/08/addressing}Address"
_SOAP = "{http://www.w3.org/2003/05/soap-envelope}"


@dataclass(frozen=True, slots=True)
class Version:
    """One of the two versions of the protocol in use."""

    namespace: str
    key_type: str

    @property
    def action(self) -> str:
        """What a request for a token is called, in its SOAPAction header too."""
        return f"{self.namespace}/RST/Issue"


# The one to prefer comes first.
_VERSIONS = (
    Version(
        "http://docs.oasis-open.org/ws-sx/ws-trust/200512",
        "http://docs.oasis-open.org/ws-sx/ws-trust/200512/Bearer",
    ),
    Version(
        "http://schemas.xmlsoap.org/ws/2005/02/trust",
        "http://schemas.xmlsoap.org/ws/2005/05/identity/NoProofKey",
    ),
)

_GRANT_TYPE = "urn:ietf:params:oauth:grant-type:{}-bearer"
# By the type of the token: servers spell both kinds in two ways.
_GRANTS = {
    "urn:oasis:names:tc:SAML:1.0:assertion": "saml1_1",
    "http://docs.oasis-open.org/wss/oasis-wss-saml-token-profile-1.1#SAMLV1.1": "saml1_1",
    "urn:oasis:names:tc:SAML:2.0:assertion": "saml2",
    "http://docs.oasis-open.org/wss/oasis-wss-saml-token-profile-1.1#SAMLV2.0": "saml2",
}


@dataclass(frozen=True, slots=True)
class WindowsTransport:
    """Where a federation server takes Kerberos tickets, and in which version of the protocol."""

    address: str
    version: Version


@dataclass(frozen=True, slots=True)
class Assertion:
    """What a federation server asserts of a user: the very bytes that it signed, and the grant that takes them."""

    content: bytes = field(repr=False)
    grant_type: str


def windows_transport_in(metadata: bytes) -> WindowsTransport:
    """Return where the federation server with this *metadata* (MEX) takes Kerberos tickets.

    Raises:
        TokenRefusedError: it takes none.
        SecurityError: it would take them over plain http, or the document is an attack.
        MalformedResponseError: it is no XML.
    """
    root = parsed(metadata, "the federation server's metadata")
    policies = {f"#{policy.get(_POLICY_ID)}" for policy in root.iter(f"{_POLICY}Policy") if _takes_tickets(policy)}
    bindings = {binding.get("name"): _version(binding, policies) for binding in root.iter(f"{_WSDL}binding")}
    found: dict[Version, str] = {}
    for port in root.iter(f"{_WSDL}port"):
        version = bindings.get((port.get("binding") or "").rpartition(":")[2])
        address = port.findtext(_ADDRESS)
        if version is not None and address:
            found.setdefault(version, address.strip())
    for version in _VERSIONS:
        if version in found:
            return WindowsTransport(_checked(found[version]), version)
    raise TokenRefusedError(
        "the federation server takes no Kerberos tickets, since its metadata has no windowstransport endpoint; have it"
        " switched on (Enable-AdfsEndpoint), or run: az login"
    )


def _takes_tickets(policy: Element) -> bool:
    # Step by step, here and below: whatever nests without end would be looked through again and again.
    return any(
        way.find(_TICKETS) is not None and any(part.tag in _OVER_TLS for part in way)
        for way in policy.iterfind(f"{_POLICY}ExactlyOne/{_POLICY}All")
    )


def _version(binding: Element, policies: set[str]) -> Version | None:
    """Return the version of the protocol that *binding* speaks, if it falls under one of *policies*."""
    reference = binding.find(f"{_POLICY}PolicyReference")
    if reference is None or reference.get("URI") not in policies:
        return None
    transport = binding.find(f"{_SOAP_BINDING}binding")
    if transport is None or transport.get("transport") != _SOAP_OVER_HTTP:
        return None
    actions = {operation.get("soapAction") for operation in binding.iterfind(_OPERATION)}
    return next((version for version in _VERSIONS if version.action in actions), None)


def _checked(address: str) -> str:
    if not address.lower().startswith("https://"):
        raise SecurityError(
            f"the federation server's metadata names {redact(address)} for Kerberos tickets, which is not https, so"
            " nothing was sent there"
        )
    return address


def request_for(transport: WindowsTransport, audience: str, message_id: str) -> bytes:
    """Return the envelope in which *transport* is asked for an assertion to *audience*."""
    version = transport.version
    return (
        '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"'
        ' xmlns:a="http://www.w3.org/2005/08/addressing">'
        "<s:Header>"
        f'<a:Action s:mustUnderstand="1">{version.action}</a:Action>'
        f"<a:MessageID>urn:uuid:{escape(message_id)}</a:MessageID>"
        "<a:ReplyTo><a:Address>http://www.w3.org/2005/08/addressing/anonymous</a:Address></a:ReplyTo>"
        f'<a:To s:mustUnderstand="1">{escape(transport.address)}</a:To>'
        "</s:Header>"
        "<s:Body>"
        f'<t:RequestSecurityToken xmlns:t="{version.namespace}">'
        '<p:AppliesTo xmlns:p="http://schemas.xmlsoap.org/ws/2004/09/policy">'
        f"<a:EndpointReference><a:Address>{escape(audience)}</a:Address></a:EndpointReference>"
        "</p:AppliesTo>"
        f"<t:KeyType>{version.key_type}</t:KeyType>"
        f"<t:RequestType>{version.namespace}/Issue</t:RequestType>"
        "</t:RequestSecurityToken>"
        "</s:Body>"
        "</s:Envelope>"
    ).encode()


def assertion_in(reply: bytes, version: Version) -> Assertion:
    """Return the assertion in the *reply* to a request, byte for byte, or its signature would break.

    Raises:
        SecurityError: the document is an attack.
        MalformedResponseError: there is no assertion in it, or one of a kind that Entra does not take.
    """
    name = "the federation server's reply"
    root = parsed(reply, name)
    kind = root.findtext(f".//{{{version.namespace}}}TokenType") or ""
    content = first_child_of(f"{{{version.namespace}}}RequestedSecurityToken", reply)
    if content is None:
        raise MalformedResponseError(f"{name} holds no assertion: it was {shape(reply)}")
    parsed(content, "the assertion, without what is around it,")  # Or Entra could not read it alone either.
    grant = _GRANTS.get(kind.strip())
    if grant is None:
        raise MalformedResponseError(f"{name} holds a token of the kind {redact(kind)!r}, where SAML is wanted")
    return Assertion(content, _GRANT_TYPE.format(grant))


def fault_in(reply: bytes, *secrets: str) -> tuple[str, str] | None:
    """Return the code and the reason, without *secrets*, of the SOAP fault that *reply* is, or None if it is none."""
    try:
        fault = parsed(reply, "a fault").find(f"{_SOAP}Body/{_SOAP}Fault")
    except (MalformedResponseError, SecurityError):
        return None
    if fault is None:
        return None
    codes = [element.text or "" for element in fault.iter(f"{_SOAP}Value")] or [""]
    reason = fault.findtext(f"{_SOAP}Reason/{_SOAP}Text") or "without a reason"
    # The innermost code tells most; its prefix is a namespace.
    return redact(codes[-1].strip().rpartition(":")[2], *secrets), redact(reason, *secrets)
