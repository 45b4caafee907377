"""Documents of federation servers: what is understood, what is refused, and that not a byte of an assertion changes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiomsi import AiomsiError, MalformedResponseError, SecurityError, TokenRefusedError
from aiomsi.sources._ws_trust import WindowsTransport, assertion_in, fault_in, request_for, windows_transport_in
from aiomsi.sources._xml import first_child_of, parsed

if TYPE_CHECKING:
    from aiomsi.sources._ws_trust import Version

TRUST_13 = "http://docs.oasis-open.org/ws-sx/ws-trust/200512"
TRUST_2005 = "http://schemas.xmlsoap.org/ws/2005/02/trust"
SAML_1 = "urn:oasis:names:tc:SAML:1.0:assertion"
HOST = "https://sts.contoso.com/adfs/services/trust"
AUDIENCE = "urn:federation:MicrosoftOnline"
BOMB = b'<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><a>&b;</a>'

# Metadata


def policy(name: str, *, tickets: bool = True, tls: str | None = None) -> str:
    """Return a policy under which tickets are taken over TLS, or that lacks one of these."""
    security = "http://docs.oasis-open.org/ws-sx/ws-securitypolicy/200702" if tls is None else tls
    negotiate = '<http:NegotiateAuthentication xmlns:http="http://schemas.microsoft.com/ws/06/2004/policy/http"/>'
    return (
        f'<wsp:Policy wsu:Id="{name}"><wsp:ExactlyOne><wsp:All>{negotiate if tickets else ""}'
        f'<sp:TransportBinding xmlns:sp="{security}"/></wsp:All></wsp:ExactlyOne></wsp:Policy>'
    )


def binding(name: str, under: str, action: str, transport: str = "http://schemas.xmlsoap.org/soap/http") -> str:
    reference = f'<wsp:PolicyReference URI="#{under}"/>' if under else ""
    soap = f'<soap12:binding transport="{transport}"/>' if transport else ""
    operation = f'<wsdl:operation name="Issue"><soap12:operation soapAction="{action}"/></wsdl:operation>'
    return f'<wsdl:binding name="{name}" type="tns:any">{reference}{soap}{operation}</wsdl:binding>'


def port(name: str, address: str | None) -> str:
    where = (
        ""
        if address is None
        else f"<wsa10:EndpointReference><wsa10:Address>{address}</wsa10:Address></wsa10:EndpointReference>"
    )
    return f'<wsdl:port name="port" binding="tns:{name}">{where}</wsdl:port>'


def metadata(*parts: str) -> bytes:
    inner = "".join(parts)
    return (
        '<?xml version="1.0" encoding="utf-8"?><wsdl:definitions xmlns:wsdl="http://schemas.xmlsoap.org/wsdl/"'
        ' xmlns:wsp="http://schemas.xmlsoap.org/ws/2004/09/policy" xmlns:tns="urn:tns"'
        ' xmlns:soap12="http://schemas.xmlsoap.org/wsdl/soap12/" xmlns:wsa10="http://www.w3.org/2005/08/addressing"'
        ' xmlns:wsu="http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd">'
        f"{inner}</wsdl:definitions>"
    ).encode()


NEW = (policy("p13"), binding("b13", "p13", f"{TRUST_13}/RST/Issue"), port("b13", f"{HOST}/13/windowstransport"))
OLD = (policy("p05"), binding("b05", "p05", f"{TRUST_2005}/RST/Issue"), port("b05", f"{HOST}/2005/windowstransport"))


@pytest.mark.parametrize("parts", [(*NEW, *OLD), (*OLD, *NEW), (*reversed(NEW), *reversed(OLD))])
def test_the_newer_version_is_preferred(parts: tuple[str, ...]) -> None:
    """Wherever it stands."""
    found = windows_transport_in(metadata(*parts))
    assert (found.address, found.version.namespace) == (f"{HOST}/13/windowstransport", TRUST_13)


def test_the_older_version_will_do() -> None:
    """Where there is no other one."""
    found = windows_transport_in(metadata(*OLD))
    assert (found.address, found.version.namespace) == (f"{HOST}/2005/windowstransport", TRUST_2005)


@pytest.mark.parametrize(
    "parts",
    [
        (*NEW[:2], port("b13", f"\n   {HOST}/13/windowstransport \n  ")),
        ("<wsdl:service><wsdl:documentation>", *NEW, "</wsdl:documentation></wsdl:service>"),
        (policy("p13", tls="http://schemas.xmlsoap.org/ws/2005/07/securitypolicy"), *NEW[1:]),
        (*NEW, port("b13", "https://another.example/later")),
        (policy("forms", tickets=False), binding("forms", "forms", f"{TRUST_13}/RST/Issue"), port("forms", HOST), *NEW),
    ],
    ids=["padded", "nested", "older policy", "two ports", "another way in"],
)
def test_documents_of_all_kinds(parts: tuple[str, ...]) -> None:
    """Blanks around an address, nesting and what else is there make no difference."""
    assert windows_transport_in(metadata(*parts)).address == f"{HOST}/13/windowstransport"


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (policy("p13", tickets=False), *NEW[1:]),
        (policy("p13", tls="urn:another"), *NEW[1:]),
        (policy("another"), *NEW[1:]),
        (NEW[0], binding("b13", "", f"{TRUST_13}/RST/Issue"), NEW[2]),
        (NEW[0], binding("b13", "p13", f"{TRUST_13}/RST/Renew"), NEW[2]),
        (NEW[0], binding("b13", "p13", f"{TRUST_13}/RST/Issue", transport="urn:another"), NEW[2]),
        (NEW[0], binding("b13", "p13", f"{TRUST_13}/RST/Issue", transport=""), NEW[2]),
        (*NEW[:2], port("another", f"{HOST}/13/windowstransport")),
        (*NEW[:2], port("b13", None)),
        (*NEW[:2], port("b13", "")),
    ],
)
def test_a_server_that_takes_no_tickets(parts: tuple[str, ...]) -> None:
    """Then that is a refusal, which says how to switch it on."""
    with pytest.raises(TokenRefusedError, match="Enable-AdfsEndpoint"):
        windows_transport_in(metadata(*parts))


@pytest.mark.parametrize(
    "nested",
    ["<wsp:Policy>", "<wsdl:port>", binding("b13", "p13", "urn:another").removesuffix("</wsdl:binding>")],
    ids=["policies", "ports", "bindings"],
)
def test_what_nests_without_end_is_soon_read(nested: str) -> None:
    """The time for a document grows as its length, however it is made."""
    count = 1_000_000 // len(nested)
    closing = f"</{nested[1:].partition('>')[0].partition(' ')[0]}>"
    begun = time.process_time()
    with pytest.raises(TokenRefusedError, match="Enable-AdfsEndpoint"):
        windows_transport_in(metadata(policy("p13"), nested * count, closing * count))
    assert time.process_time() - begun < 3  # In place of minutes.


@pytest.mark.parametrize("address", ["http://sts.contoso.com/adfs", "HTTP://sts.contoso.com", "ftp://x", "/adfs"])
def test_a_ticket_goes_nowhere_without_tls(address: str) -> None:
    """An address that is not https is an attack or a mistake, and nothing is sent there."""
    with pytest.raises(SecurityError, match="not https"):
        windows_transport_in(metadata(*NEW[:2], port("b13", address), *OLD))


# The question


@pytest.mark.parametrize("parts", [NEW, OLD])
def test_the_question_is_well_formed_whatever_it_holds(parts: tuple[str, ...]) -> None:
    """What is put into it stays text, however odd."""
    version = windows_transport_in(metadata(*parts)).version
    transport = WindowsTransport("https://sts.contoso.com/?a=1&b=<2>", version)
    root = parsed(request_for(transport, "urn:<&>", "the-id"), "it")
    addresses = [element.text for element in root.iter("{http://www.w3.org/2005/08/addressing}Address")]
    assert addresses == ["http://www.w3.org/2005/08/addressing/anonymous", "urn:<&>"]
    assert root.findtext(".//{http://www.w3.org/2005/08/addressing}To") == transport.address
    assert root.findtext(".//{http://www.w3.org/2005/08/addressing}MessageID") == "urn:uuid:the-id"
    assert root.findtext(f".//{{{version.namespace}}}RequestType") == f"{version.namespace}/Issue"
    assert root.findtext(f".//{{{version.namespace}}}KeyType") == version.key_type
    assert root.findtext(".//{http://www.w3.org/2005/08/addressing}Action") == version.action


# The answer


def version(namespace: str = TRUST_13) -> Version:
    return windows_transport_in(metadata(*(NEW if namespace == TRUST_13 else OLD))).version


def reply(assertion: str, kind: str = SAML_1, namespace: str = TRUST_13) -> bytes:
    one = (
        f"<t:RequestSecurityTokenResponse><t:TokenType>{kind}</t:TokenType>"
        f"<t:RequestedSecurityToken>\n {assertion}\n</t:RequestedSecurityToken></t:RequestSecurityTokenResponse>"
    )
    many = f"<t:RequestSecurityTokenResponseCollection>{one}</t:RequestSecurityTokenResponseCollection>"
    return (
        f'<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:t="{namespace}"><s:Body>'
        f"{many if namespace == TRUST_13 else one}</s:Body></s:Envelope>"
    ).encode()


@pytest.mark.parametrize("namespace", [TRUST_13, TRUST_2005])
@pytest.mark.parametrize(
    ("kind", "grant"),
    [
        (SAML_1, "saml1_1"),
        ("http://docs.oasis-open.org/wss/oasis-wss-saml-token-profile-1.1#SAMLV1.1", "saml1_1"),
        ("urn:oasis:names:tc:SAML:2.0:assertion", "saml2"),
        (" http://docs.oasis-open.org/wss/oasis-wss-saml-token-profile-1.1#SAMLV2.0\n", "saml2"),
    ],
)
def test_which_grant_takes_an_assertion(kind: str, grant: str, namespace: str) -> None:
    """Servers spell both versions of SAML in two ways."""
    found = assertion_in(reply("<a>x</a>", kind, namespace), version(namespace))
    assert found.grant_type == f"urn:ietf:params:oauth:grant-type:{grant}-bearer"
    assert (found.content, repr(found)) == (b"<a>x</a>", f"Assertion(grant_type={found.grant_type!r})")


@pytest.mark.parametrize(
    "assertion",
    [
        '<saml:Assertion xmlns:saml="urn:s"   Id = "1" ><saml:A/>  text <!-- > --> é</saml:Assertion >',
        "<a b='\"' c=\"'\"><a><![CDATA[</a>]]></a>\t\r\n</a\n>",
        '<a xmlns="urn:a"><b xmlns=""/><c xmlns:x="urn:x" x:y="z"></c><?pi > ?></a>',
        "<a><RequestedSecurityToken><b/></RequestedSecurityToken></a>",
    ],
)
def test_not_a_byte_changes(assertion: str) -> None:
    """Or the signature over it would be no good."""
    assert assertion_in(reply(assertion), version()).content == assertion.encode()


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="<>&\ufffe\uffff"), max_size=20)


@given(texts, texts.filter(lambda text: '"' not in text), st.sampled_from(["", " ", "\n", "\t "]))
def test_not_a_byte_of_any_assertion_changes(text: str, value: str, blank: str) -> None:
    """Whatever letters, blanks and attributes are in it."""
    assertion = f'<a{blank or " "}b="{value}"{blank}>{text}<c>{text}</c{blank}><!--{blank}--></a{blank}>'
    assert assertion_in(reply(assertion), version()).content == assertion.encode()


@pytest.mark.parametrize(
    ("document", "kind", "said"),
    [
        (b"", MalformedResponseError, "is no XML"),
        (b"<html>please log in", MalformedResponseError, "is no XML"),
        (b"\xff\xfe", MalformedResponseError, "is no XML"),
        (b'<?xml version="1.0" encoding="moon"?><a/>', MalformedResponseError, "is no XML"),
        (b"<html/>", MalformedResponseError, "holds no assertion: it was HTML of 7 bytes"),
        (reply(""), MalformedResponseError, "holds no assertion"),
        (reply("only text"), MalformedResponseError, "holds no assertion"),
        (reply("<a>x</a>", "urn:jwt"), MalformedResponseError, "a token of the kind 'urn:jwt'"),
        (reply("<a>x</a>", ""), MalformedResponseError, "a token of the kind ''"),
        (reply("<t:a>x</t:a>"), MalformedResponseError, "without what is around it"),
        (BOMB, SecurityError, "as attacks do"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', SecurityError, "as attacks do"),
    ],
)
def test_replies_that_hold_none(document: bytes, kind: type[AiomsiError], said: str) -> None:
    """Each is told by what it is; nothing of it is shown, and no entity is expanded."""
    with pytest.raises(kind, match=said) as caught:
        assertion_in(document, version())
    assert type(caught.value) is kind
    with pytest.raises(AiomsiError):
        windows_transport_in(document)


def test_an_element_that_is_not_there() -> None:
    """There is no child of what is missing, or of what has none."""
    assert first_child_of("a", b"<b><c/></b>") is None
    assert first_child_of("a", b"<a>text</a>") is None


def fault(**changes: Any) -> bytes:
    parts = {
        "code": "<s:Code><s:Value>s:Sender</s:Value><s:Subcode><s:Value>a:RequestFailed</s:Value></s:Subcode></s:Code>",
        "reason": '<s:Reason><s:Text xml:lang="en-US">ID3242: not  authenticated.</s:Text></s:Reason>',
        **changes,
    }
    return (
        f'<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body><s:Fault>{"".join(parts.values())}'
        "</s:Fault></s:Body></s:Envelope>"
    ).encode()


@pytest.mark.parametrize(
    ("document", "found"),
    [
        (fault(), ("RequestFailed", "ID3242: not authenticated.")),
        (fault(code=""), ("", "ID3242: not authenticated.")),
        (fault(code="<s:Code><s:Value/></s:Code>"), ("", "ID3242: not authenticated.")),
        (fault(reason=""), ("RequestFailed", "without a reason")),
        (fault(reason="<s:Reason><s:Text>Bearer abc.def</s:Text></s:Reason>"), ("RequestFailed", "Bearer <redacted>")),
        (reply("<a/>"), None),
        (b"<html>Service Unavailable", None),
        (BOMB, None),
    ],
)
def test_what_a_fault_says(document: bytes, found: tuple[str, str] | None) -> None:
    """Its innermost code and its reason, without what could be a secret; whatever else is no fault."""
    assert fault_in(document) == found
