"""SAML assertions as a federation server signs them: whoever changes a single byte breaks the signature."""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from functools import cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

__all__ = ["TOKEN_TYPES", "is_intact", "signed_assertion"]

TOKEN_TYPES = {
    "urn:oasis:names:tc:SAML:1.0:assertion": "saml1_1",
    "http://docs.oasis-open.org/wss/oasis-wss-saml-token-profile-1.1#SAMLV1.1": "saml1_1",
    "urn:oasis:names:tc:SAML:2.0:assertion": "saml2",
    "http://docs.oasis-open.org/wss/oasis-wss-saml-token-profile-1.1#SAMLV2.0": "saml2",
}

# Blanks, quotes, comments, prefixes and entities that a parser forgets, so that to write it anew would change bytes.
_SAML_1 = """<saml:Assertion  MajorVersion="1" MinorVersion='1'
    AssertionID="_{id}" Issuer="http://sts.contoso.test/adfs/services/trust"
    xmlns:saml="urn:oasis:names:tc:SAML:1.0:assertion"
    ><!-- whose: {user} --><saml:Conditions NotBefore="2025-10-09T08:53:20.000Z"\
   NotOnOrAfter="2025-10-09T09:53:20.000Z">
<saml:AudienceRestrictionCondition><saml:Audience>{audience}</saml:Audience>\
</saml:AudienceRestrictionCondition></saml:Conditions>\
<saml:AttributeStatement><saml:Attribute AttributeName="UPN" AttributeNamespace="http://schemas.xmlsoap.org/claims"
><saml:AttributeValue >{user}</saml:AttributeValue ></saml:Attribute><saml:Attribute AttributeName="Name"\
 AttributeNamespace="http://schemas.xmlsoap.org/claims"><saml:AttributeValue>\
K\u00e4the &#x26; S\u00f8n &gt; <![CDATA[</saml:Assertion>]]>\
</saml:AttributeValue></saml:Attribute></saml:AttributeStatement>{signature}</saml:Assertion\t>"""
_SAML_2 = """<Assertion xmlns='urn:oasis:names:tc:SAML:2.0:assertion' ID="_{id}"
  IssueInstant="2025-10-09T08:53:20.000Z"  Version="2.0"><Issuer>http://sts.contoso.test/adfs/services/trust</Issuer>{signature}<Subject><NameID\
 Format="urn:oasis:names:tc:SAML:2.0:nameid-format:persistent">aW1tdXRhYmxl</NameID></Subject><!-- > --><Conditions\
><AudienceRestriction><Audience>{audience}</Audience></AudienceRestriction></Conditions
><AttributeStatement><Attribute Name="http://schemas.xmlsoap.org/claims/UPN"><AttributeValue xmlns:x="urn:x"\
>{user}</AttributeValue></Attribute></AttributeStatement></Assertion>"""
_SIGNATURE = """<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:SignedInfo><ds:CanonicalizationMethod\
 Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"></ds:CanonicalizationMethod><ds:SignatureMethod\
 Algorithm="http://www.w3.org/2001/04/xmldsig-more#rsa-sha256" /><ds:Reference URI="#_{id}"><ds:Transforms>\
<ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature" /></ds:Transforms><ds:DigestMethod\
 Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"/><ds:DigestValue>{digest}</ds:DigestValue></ds:Reference>
</ds:SignedInfo><ds:SignatureValue></ds:SignatureValue></ds:Signature>"""
_VALUE = re.compile(rb"(?<=<ds:SignatureValue>)[^<]*(?=</ds:SignatureValue>)")


def signed_assertion(kind: str, user: str, audience: str) -> bytes:
    """Return a new assertion of the *kind* "saml1_1" or "saml2" to *audience* that it is *user*."""
    said = {"id": uuid.uuid4(), "user": user, "audience": audience}
    template = {"saml1_1": _SAML_1, "saml2": _SAML_2}[kind]
    digest = hashlib.sha256(template.format(**said, signature="").encode()).digest()
    signature = _SIGNATURE.format(**said, digest=base64.b64encode(digest).decode())
    unsigned = template.format(**said, signature=signature).encode()
    value = _key().sign(unsigned, padding.PKCS1v15(), hashes.SHA256())
    return _VALUE.sub(base64.b64encode(value), unsigned)


def is_intact(assertion: bytes) -> bool:
    """Return whether *assertion* is one that was signed here, down to the last byte."""
    found = _VALUE.search(assertion)
    if found is None:
        return False
    try:
        value = base64.b64decode(found[0], validate=True)
        _key().public_key().verify(value, _VALUE.sub(b"", assertion), padding.PKCS1v15(), hashes.SHA256())
    except (ValueError, InvalidSignature):
        return False
    return base64.b64encode(value) == found[0]


@cache
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)
