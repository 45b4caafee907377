"""The documents of a federation server: what it says about itself, what it wants to be asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from defusedxml.ElementTree import fromstring

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from xml.etree.ElementTree import Element

__all__ = ["BOMB", "TRUSTS", "Trust", "fault", "metadata", "objections", "reply"]


@dataclass(frozen=True)
class Trust:
    """One version of WS-Trust, by the name that it has in the paths of AD FS."""

    path: str
    namespace: str
    key_type: str
    policy: str
    reply: str

    @property
    def action(self) -> str:
        return f"{self.namespace}/RST/Issue"


_ANSWER = """<t:RequestSecurityTokenResponse xmlns:t="{namespace}"><t:Lifetime>
<wsu:Created xmlns:wsu="http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd"
>2025-10-09T08:53:20.000Z</wsu:Created></t:Lifetime><wsp:AppliesTo xmlns:wsp="http://schemas.xmlsoap.org/ws/2004/09/policy"
><wsa:EndpointReference xmlns:wsa="http://www.w3.org/2005/08/addressing"><wsa:Address>{audience}</wsa:Address></wsa:EndpointReference
></wsp:AppliesTo><t:RequestedSecurityToken>{token}</t:RequestedSecurityToken><t:TokenType>{token_type}</t:TokenType
><t:RequestType>{namespace}/Issue</t:RequestType><t:KeyType>{key_type}</t:KeyType></t:RequestSecurityTokenResponse>"""

TRUSTS: Mapping[str, Trust] = {
    trust.path: trust
    for trust in (
        Trust(
            "13",
            "http://docs.oasis-open.org/ws-sx/ws-trust/200512",
            "http://docs.oasis-open.org/ws-sx/ws-trust/200512/Bearer",
            "http://docs.oasis-open.org/ws-sx/ws-securitypolicy/200702",
            f'<c:RequestSecurityTokenResponseCollection xmlns:c="{{namespace}}">{_ANSWER}'
            "</c:RequestSecurityTokenResponseCollection>",
        ),
        Trust(
            "2005",
            "http://schemas.xmlsoap.org/ws/2005/02/trust",
            "http://schemas.xmlsoap.org/ws/2005/05/identity/NoProofKey",
            "http://schemas.xmlsoap.org/ws/2005/07/securitypolicy",
            _ANSWER,
        ),
    )
}

_DEFINITIONS = """<wsdl:definitions name="SecurityTokenService" targetNamespace="http://schemas.microsoft.com/ws/2008/06/identity/securitytokenservice"
 xmlns:wsdl="http://schemas.xmlsoap.org/wsdl/" xmlns:soap12="http://schemas.xmlsoap.org/wsdl/soap12/"
 xmlns:wsp="http://schemas.xmlsoap.org/ws/2004/09/policy" xmlns:wsa10="http://www.w3.org/2005/08/addressing"
 xmlns:wsu="http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd"
 xmlns:tns="http://schemas.microsoft.com/ws/2008/06/identity/securitytokenservice">{policies}{bindings}
<wsdl:service name="SecurityTokenService">{ports}</wsdl:service></wsdl:definitions>"""
_METADATA = """<Metadata xmlns="http://schemas.xmlsoap.org/ws/2004/09/mex"><MetadataSection
 Dialect="http://schemas.xmlsoap.org/wsdl/">{}</MetadataSection></Metadata>"""
_POLICY = """<wsp:Policy wsu:Id="{name}_policy"><wsp:ExactlyOne><wsp:All>{proof}<sp:TransportBinding
 xmlns:sp="{policy}"><wsp:Policy><sp:TransportToken/></wsp:Policy></sp:TransportBinding></wsp:All></wsp:ExactlyOne></wsp:Policy>"""
_BINDING = """<wsdl:binding name="{name}" type="tns:IWSTrust"><wsp:PolicyReference URI="#{name}_policy"/><soap12:binding
 transport="http://schemas.xmlsoap.org/soap/http"/><wsdl:operation name="TrustIssue"><soap12:operation
 soapAction="{action}" style="document"/></wsdl:operation></wsdl:binding>"""
_PORT = """<wsdl:port name="{name}" binding="tns:{name}"><soap12:address location="{address}"/><wsa10:EndpointReference
><wsa10:Address>{address}</wsa10:Address></wsa10:EndpointReference></wsdl:port>"""
_PROOFS = {
    "windowstransport": '<http:NegotiateAuthentication xmlns:http="http://schemas.microsoft.com/ws/06/2004/policy/http"/>',
    "usernamemixed": "<sp:SignedEncryptedSupportingTokens xmlns:sp='{policy}'/>",
}

BOMB = b"""<?xml version="1.0"?><!DOCTYPE bomb [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;">]><bomb>&d;&d;&d;&d;</bomb>"""

_SOAP = "{http://www.w3.org/2003/05/soap-envelope}"
_WSA = "{http://www.w3.org/2005/08/addressing}"
_WSP = "{http://schemas.xmlsoap.org/ws/2004/09/policy}"
_ENVELOPE = """<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:a="http://www.w3.org/2005/08/addressing"
><s:Header><a:Action s:mustUnderstand="1">{action}</a:Action></s:Header><s:Body
>{body}</s:Body></s:Envelope>"""
_FAULT = """<s:Fault><s:Code><s:Value>s:Sender</s:Value><s:Subcode><s:Value xmlns:t="{namespace}"
>t:{code}</s:Value></s:Subcode></s:Code><s:Reason><s:Text xml:lang="en-US">{reason}</s:Text></s:Reason></s:Fault>"""


def metadata(
    base: str,
    *,
    versions: Iterable[str] = ("2005", "13"),
    kinds: Iterable[str] = ("usernamemixed", "windowstransport"),
    padding: str = "",
    nested: bool = False,
    size: int = 0,
) -> bytes:
    """Return the MEX document of the server at *base*, which has endpoints of these *versions* and *kinds*.

    Its addresses are surrounded by *padding*; what is *nested* lies deeper; and it has at least *size* bytes.
    """
    parts: dict[str, list[str]] = {"policies": [], "bindings": [], "ports": []}
    for trust in (TRUSTS[version] for version in versions):
        for kind in kinds:
            said = {"name": f"{kind}_{trust.path}", "action": trust.action, "policy": trust.policy}
            proof = _PROOFS[kind].format(**said)
            address = f"{padding}{base}/adfs/services/trust/{trust.path}/{kind}{padding}"
            parts["policies"].append(_POLICY.format(**said, proof=proof))
            parts["bindings"].append(_BINDING.format(**said))
            parts["ports"].append(_PORT.format(**said, address=address))
    definitions = _DEFINITIONS.format(**{name: "".join(texts) for name, texts in parts.items()})
    document = _METADATA.format(definitions) if nested else definitions
    return f"{document}\n<!--{' ' * (size - len(document))}-->".encode()


def objections(trust: Trust, url: str, audience: str, headers: Mapping[str, str], envelope: bytes) -> list[str]:
    """Return what is wrong with an *envelope* that asks at *url*, with these *headers*, for a token to *audience*."""
    root = fromstring(envelope, forbid_dtd=True)
    asked = f"{_SOAP}Body/{{{trust.namespace}}}RequestSecurityToken"
    wanted = {
        f"{_SOAP}Header/{_WSA}Action": trust.action,
        f"{_SOAP}Header/{_WSA}To": url,
        f"{_SOAP}Header/{_WSA}ReplyTo/{_WSA}Address": "http://www.w3.org/2005/08/addressing/anonymous",
        f"{asked}/{_WSP}AppliesTo/{_WSA}EndpointReference/{_WSA}Address": audience,
        f"{asked}/{{{trust.namespace}}}KeyType": trust.key_type,
        f"{asked}/{{{trust.namespace}}}RequestType": f"{trust.namespace}/Issue",
    }
    found = [f"{path} is {root.findtext(path)!r}" for path, text in wanted.items() if root.findtext(path) != text]
    if headers.get("SOAPAction", "").strip('"') != trust.action:
        found.append("the header SOAPAction is not the action")
    if not headers.get("Content-Type", "").startswith("application/soap+xml"):
        found.append("the header Content-Type is not that of SOAP 1.2")
    if not _message_id(root).startswith("urn:uuid:"):
        found.append("the MessageID is no UUID")
    return found


def _message_id(root: Element) -> str:
    return root.findtext(f"{_SOAP}Header/{_WSA}MessageID") or ""


def reply(trust: Trust, audience: str, token_type: str, token: bytes) -> bytes:
    """Return an envelope that holds *token*, an assertion to *audience*, byte for byte."""
    said = {"namespace": trust.namespace, "key_type": trust.key_type, "audience": escape(audience)}
    body = trust.reply.format(**said, token_type=token_type, token="{token}")
    action = f"{trust.namespace}/RSTRC/IssueFinal"
    before, _, after = _ENVELOPE.format(action=action, body=body).partition("{token}")
    return before.encode() + token + after.encode()


def fault(trust: Trust, code: str, reason: str) -> bytes:
    """Return an envelope that refuses."""
    said = _FAULT.format(namespace=trust.namespace, code=code, reason=escape(reason))
    return _ENVELOPE.format(action="http://www.w3.org/2005/08/addressing/soap/fault", body=said).encode()
