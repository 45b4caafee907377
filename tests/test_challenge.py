"""What a service asks for when it answers 401."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiomsi import SecurityError, _challenge
from aiomsi._challenge import Challenge, VaultChallenge, claims_of, parse_challenges, vault_challenge

if TYPE_CHECKING:
    from collections.abc import Iterator

Vector = dict[str, Any]

VECTORS: list[Vector] = json.loads((Path(__file__).parent / "vectors.json").read_text())
OF_VAULTS = [vector for vector in VECTORS if vector["source"] == "key_vault_challenge"]
OF_CLAIMS = [vector for vector in VECTORS if vector["source"] == "claims_challenge"]

TENANT = "44444444-aaaa-4bbb-8ccc-000000000004"
AUTHORITY = f"https://login.microsoftonline.com/{TENANT}"
VAULT = "https://demo.vault.azure.net/secrets/s1?api-version=7.5"
CLAIMS = '{"access_token":{"nbf":{"essential":true,"value":"1603742800"}}}'

TOKEN_CHARACTERS = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
TOKEN68_CHARACTERS = "-._~+/0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def named(vector: Vector) -> str:
    return str(vector["name"])


def read(*values: str) -> list[tuple[str, dict[str, str] | str | None]]:
    """Return the scheme of each challenge with its parameters or what stands in their place."""
    return [(each.scheme, each.token68 or dict(each.parameters)) for each in parse_challenges(values)]


def bearer(**parameters: str) -> list[Challenge]:
    return [Challenge("bearer", parameters)]


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def challenged(claims: str) -> str:
    return f'Bearer error="insufficient_claims", claims="{claims}"'


# The vectors.


@pytest.mark.parametrize("vector", OF_VAULTS, ids=named)
def test_a_vector_of_a_vault(vector: Vector) -> None:
    """A vault's challenge is answered with a token for its resource and tenant, or refused."""
    challenges = parse_challenges([vector["response"]["headers"]["WWW-Authenticate"]])
    asked, expected = vector["expect_request"]["url"], vector["expect"]
    if expected.get("error_kind"):
        assert (expected["error_kind"], expected["retry"]) == ("security", False)
        with pytest.raises(SecurityError):
            vault_challenge(challenges, asked)
        return
    found = vault_challenge(challenges, asked)
    assert (found is not None) is expected["retry"]
    assert found == VaultChallenge(expected["scope"].removesuffix("/.default"), expected["tenant"])
    assert claims_of(challenges) == expected["claims"]


@pytest.mark.parametrize("vector", OF_CLAIMS, ids=named)
def test_a_vector_of_claims(vector: Vector) -> None:
    """A request is sent again with the decoded claims of a challenge, if it has some."""
    challenges = parse_challenges([vector["response"]["headers"]["WWW-Authenticate"]])
    assert claims_of(challenges) == vector["expect"]["claims"]
    assert (claims_of(challenges) is not None) is vector["expect"]["retry"]
    assert vault_challenge(challenges, vector["expect_request"]["url"]) is None


def test_no_vector_of_challenges_is_left_out() -> None:
    """There are as many as `test_vectors` leaves to this module."""
    assert (len(OF_VAULTS), len(OF_CLAIMS)) == (6, 6)


# The grammar.


@pytest.mark.parametrize(
    ("value", "challenges"),
    [
        ("", []),
        (" ,\t, ,", []),
        ("Negotiate", [("negotiate", {})]),
        ("Negotiate ", [("negotiate", {})]),
        ("Negotiate, Basic ,NTLM", [("negotiate", {}), ("basic", {}), ("ntlm", {})]),
        ("Basic QWxhZGRpbg==", [("basic", "QWxhZGRpbg==")]),
        ("Basic QWxhZGRpbg== , NTLM a.b_c~d+e/f-1", [("basic", "QWxhZGRpbg=="), ("ntlm", "a.b_c~d+e/f-1")]),
        ("Basic a=", [("basic", "a=")]),
        ("Basic a=b", [("basic", {"a": "b"})]),
        ('Basic a=""', [("basic", {"a": ""})]),
        ('Basic   a\t= \t"b" \t', [("basic", {"a": "b"})]),
        ("Basic a =b, c= d", [("basic", {"a": "b", "c": "d"})]),
        ("Basic , ,a=b, ,c=d,,", [("basic", {"a": "b", "c": "d"})]),
        ("Basic,a=b", [("basic", {"a": "b"})]),
        ("bEaReR ReAlM=X", [("bearer", {"realm": "X"})]),
        (
            'Basic realm="simple", Newauth realm="apps", type=1, title="Login to \\"apps\\""',
            [("basic", {"realm": "simple"}), ("newauth", {"realm": "apps", "type": "1", "title": 'Login to "apps"'})],
        ),
        ('A b="\\\\", c="\\x", d="\\\\\\""', [("a", {"b": "\\", "c": "x", "d": '\\"'})]),
        ('A b="Bearer c=d, Bearer", e=f', [("a", {"b": "Bearer c=d, Bearer", "e": "f"})]),
        ('A b="=,=", c="https://d.example/?e=f,g"', [("a", {"b": "=,=", "c": "https://d.example/?e=f,g"})]),
        ('A b="\t Ünïcödé \udcff\U0010ffff"', [("a", {"b": "\t Ünïcödé \udcff\U0010ffff"})]),
        ("!#$%&'*+-.^_`|~ a=b", [("!#$%&'*+-.^_`|~", {"a": "b"})]),
        ("A a, B b=c, d=e, F", [("a", "a"), ("b", {"b": "c", "d": "e"}), ("f", {})]),
    ],
)
def test_the_grammar(value: str, challenges: list[tuple[str, Any]]) -> None:
    """Schemes, parameters in both forms, blanks, empty elements and what stands in place of parameters are told."""
    assert read(value) == challenges


@pytest.mark.parametrize(
    ("value", "challenges"),
    [
        ("a=b", []),
        ("=", []),
        ('"Bearer"', []),
        ("Bearer\ta=b", []),
        ("Bearer \ta=b", []),
        ("Bearer a=b c=d", []),
        ('Bearer a="b"c', []),
        ('Bearer a="b" c', []),
        ('Bearer a="b', []),
        ('Bearer a="b\\"', []),
        ('Bearer a="\\', []),
        ("Bearer a=https://b.example", []),
        ("Bearer a=b, c=", []),
        ("Bearer a=b, c = ", []),
        ("Bearer a=b, =c", []),
        ("Bearer a=b, ;", []),
        ("Bearer a=b\r\nX: y", []),
        ('Bearer a="b\r\nX: y"', []),
        ('Bearer a="\x00"', []),
        ('Bearer a="\\\x7f"', []),
        ("Bearer ä=b", []),
        ("Bearer abc===, a=b", []),
        ("Bearer ab=c=", []),
        ("Basic, Bearer a=b, c", [("basic", {}), ("bearer", {"a": "b"}), ("c", {})]),
        ('Basic a=b, Bearer c="d', [("basic", {"a": "b"})]),
        ('Basic a=b,  Bearer c=d, e="f', [("basic", {"a": "b"})]),
        ("Basic a=b, Bearer c d e, Negotiate", [("basic", {"a": "b"})]),
        ("Basic a=b, Bearer c==, d=e, Negotiate", [("basic", {"a": "b"})]),
    ],
)
def test_a_syntax_error_drops_its_challenge_and_what_follows(value: str, challenges: list[tuple[str, Any]]) -> None:
    """What is returned was whole before the error, and nothing is guessed of the rest of the field."""
    assert read(value) == challenges


def test_each_field_is_read_for_itself() -> None:
    """An error in one field leaves the others alone, and no field goes on with the challenge of another."""
    assert read("Basic a=b", 'Bearer c="', "d=e", "Negotiate f, g=h", "NTLM") == [("basic", {"a": "b"}), ("ntlm", {})]


@pytest.mark.parametrize("second", ["claims=a", "claims=b", 'CLAIMS="a"'])
def test_a_parameter_that_stands_twice_makes_the_challenge_unusable(second: str) -> None:
    """Nobody can know which of the two was meant, in whatever case they are written; other challenges are kept."""
    assert read(f"Basic, Bearer claims=a, {second}, NTLM claims=c") == [("basic", {}), ("ntlm", {"claims": "c"})]


def test_a_challenge_prints_no_more_than_its_scheme() -> None:
    """What a service says may hold what is not for logs."""
    shown = repr(parse_challenges(["Negotiate c2VjcmV0", "Digest nonce=c2VjcmV0"]))
    assert shown == "[Challenge(scheme='negotiate'), Challenge(scheme='digest')]"


# What a writer to the grammar writes is read back.

tokens = st.text(TOKEN_CHARACTERS, min_size=1, max_size=12)
texts = st.text(
    st.characters(codec=None, exclude_categories=(), min_codepoint=0x20).filter(lambda character: character != "\x7f")
    | st.sampled_from('\t", =\\'),
    max_size=20,
)
token68s = st.builds(
    "{}{}".format, st.text(TOKEN68_CHARACTERS, min_size=1, max_size=20), st.sampled_from(["", "=", "=="])
)
blanks = st.text(" \t", max_size=2)
separators = st.builds("{},{}{}".format, blanks, st.sampled_from(["", ",", " ,\t, "]), blanks)
parameter_lists = st.dictionaries(tokens.map(str.lower), texts, max_size=5)
written_challenges = st.tuples(tokens.map(str.lower), parameter_lists | token68s)


def cased(text: str) -> st.SearchStrategy[str]:
    return st.sampled_from([text, text.upper(), text.title()])


@st.composite
def parameters(draw: st.DrawFn, name: str, value: str) -> str:
    """Draw a way of writing a parameter."""
    equals = f"{draw(blanks)}={draw(blanks)}"
    if value and set(value) <= set(TOKEN_CHARACTERS) and draw(st.booleans()):
        return draw(cased(name)) + equals + value
    escaped = [f"\\{each}" if each in '"\\' or draw(st.integers(0, 9)) == 0 else each for each in value]
    return f'{draw(cased(name))}{equals}"{"".join(escaped)}"'


@st.composite
def fields(draw: st.DrawFn) -> tuple[str, list[tuple[str, dict[str, str] | str]]]:
    """Draw the text of a field, in any of the ways in which it may be written, and what it says."""
    said = draw(st.lists(written_challenges, max_size=4))
    text = draw(separators | blanks)
    for scheme, content in said:
        text += draw(cased(scheme)) + draw(st.sampled_from([" ", "   "]))
        if isinstance(content, str):
            text += content
        else:
            elements = [draw(parameters(*item)) for item in content.items()]
            text += draw(st.sampled_from(["", ",", ", ,"])) + "".join(each + draw(separators) for each in elements)
        text += draw(separators)
    return text, said


@given(st.lists(fields(), max_size=3))
def test_what_is_written_is_read_back(written: list[tuple[str, list[tuple[str, Any]]]]) -> None:
    """However a challenge is written, its scheme, parameters and order come back."""
    assert read(*(text for text, _ in written)) == [challenge for _, said in written for challenge in said]


# Hostile fields.


class Counted:
    """A pattern that counts where it is asked to match."""

    def __init__(self, pattern: Any) -> None:
        self.pattern = pattern
        self.positions: list[int] = []

    def match(self, text: str, position: int) -> Any:
        self.positions.append(position)
        return self.pattern.match(text, position)


def looked_at(value: str) -> list[int]:
    with pytest.MonkeyPatch.context() as patch:
        pattern = Counted(_challenge._ELEMENT)
        patch.setattr(_challenge, "_ELEMENT", pattern)
        parse_challenges([value])
    return pattern.positions


@given(st.text() | st.text('ABab=",\\ \t/'))
def test_any_text_is_read_in_one_pass(value: str) -> None:
    """Nothing raises, and each step goes on behind the last, one for each comma at most."""
    positions = looked_at(value)
    assert positions == sorted(set(positions))
    assert len(positions) <= value.count(",") + 1


@pytest.mark.parametrize(
    ("value", "steps"),
    [
        ("Bearer a=" + '"' * 16_000, 1),
        ('Bearer a="' + "x" * 16_000, 1),
        ('Bearer a="' + "\\" * 16_000, 1),
        ('Bearer a="' + '\\"' * 8_000, 1),
        ('Bearer a="' + '\\"' * 8_000 + '" b', 1),
        ("x" * 16_000 + "=", 1),
        ("x" * 16_000 + " " + "=" * 100, 1),
        ("Bearer" + " " * 16_000 + "!!", 1),
        ("Bearer a" + " \t" * 8_000 + "!!", 1),
        ("Bearer a=b" + " \t" * 8_000 + "!!", 1),
        ("Bearer " + "=" * 16_000, 1),
        ("Bearer a" + "=" * 16_000 + "!", 1),
        ("," * 16_000, 16_000),
        ("Bearer " + "a=b," * 4_000, 4_000),
    ],
    ids=range(14),
)
def test_what_would_make_a_reader_go_back_is_read_in_one_pass(value: str, steps: int) -> None:
    """Quotes, escapes and blanks that never end are an error, or are read, in as many steps as there are elements."""
    assert len(looked_at(value)) == steps
    assert claims_of(parse_challenges([value])) is None


def test_a_field_that_is_too_long_is_not_looked_at() -> None:
    """Ten megabytes cost nothing, and neither they nor what follows them is read."""
    huge = "Bearer a=b, " + "x" * 10_000_000
    assert looked_at(huge) == []
    assert read("Basic", huge, "NTLM") == [("basic", {})]


def test_all_fields_together_have_a_longest_length() -> None:
    """16 KiB with the commas between them are read to the last character, and not one more."""
    first = "Basic a=" + "b" * 8_000
    second = "NTLM c=" + "d" * (16 * 1024 - len(first) - 2 - 7)
    assert [scheme for scheme, _ in read(first, second)] == ["basic", "ntlm"]
    assert [scheme for scheme, _ in read(first, second + "d")] == ["basic"]
    assert [scheme for scheme, _ in read(first, second + "d", "Negotiate")] == ["basic"]


@pytest.mark.parametrize("values", [["A"] * 10_000, [", ".join(["A"] * 5_000)], ["A, A, A"] * 10_000])
def test_there_are_no_more_than_32_challenges(values: list[str]) -> None:
    """What comes after them is dropped."""
    assert read(*values) == [("a", {})] * 32


def test_not_even_empty_fields_are_read_without_end() -> None:
    """Each counts as the comma that would stand for it."""
    asked = 0

    def fields_without_end() -> Iterator[str]:
        nonlocal asked
        while True:
            asked += 1
            yield ""

    assert parse_challenges(fields_without_end()) == []
    assert asked == 16 * 1024 + 1


# Claims.


@pytest.mark.parametrize("text", [CLAIMS, "{}", ' {"ä": "\U0001f600?>~"}\n'])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("padding", ["", "=", "=="])
def test_claims_are_decoded(text: str, encode: Any, padding: str) -> None:
    """Both alphabets of base64 are read, whatever padding is there."""
    claims = encode(text.encode()).decode().rstrip("=") + padding
    assert claims_of(parse_challenges([challenged(claims)])) == text


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none()), st.booleans())
def test_any_object_is_decoded(content: dict[str, Any], plain: bool) -> None:
    """The text comes back as it was encoded."""
    text = json.dumps(content, ensure_ascii=plain)
    claims = base64.urlsafe_b64encode(text.encode(errors="replace")).decode().rstrip("=")
    assert claims_of(bearer(error="insufficient_claims", claims=claims)) == text.encode(errors="replace").decode()


@pytest.mark.parametrize(
    "claims",
    [
        "",
        "=",
        "%%%",
        "e30=x",
        "e3 0",
        "e",
        "ë30",
        "{}",
        encoded("[]"),
        encoded("[{}]"),
        encoded('"{}"'),
        encoded("null"),
        encoded("1"),
        encoded("9" * 5_000),
        encoded("{'a': 1}"),
        encoded('{"a": 1'),
        encoded("{}{}"),
        encoded("\ufeff{}"),
        encoded('{"a":' * 2_000),
        encoded("[" * 12_000),
        base64.b64encode(b'{"a": "\xff"}').decode(),
        base64.b64encode("{}".encode("utf-16")).decode(),
    ],
)
def test_what_does_not_decode_to_an_object_is_no_claims(claims: str) -> None:
    """Nothing is guessed, and nothing is raised."""
    assert claims_of(bearer(error="insufficient_claims", claims=claims)) is None
    assert claims_of(parse_challenges([challenged(claims)])) is None


def test_claims_of_a_megabyte_are_not_read() -> None:
    """They make the field too long."""
    assert claims_of(parse_challenges([challenged(encoded(json.dumps({"a": "b" * 1_000_000})))])) is None


@given(st.text())
def test_no_claims_raise(claims: str) -> None:
    """Whatever stands there is the text of an object, or nothing."""
    found = claims_of(bearer(error="insufficient_claims", claims=claims))
    assert found is None or isinstance(json.loads(found), dict)


def test_the_first_claims_that_can_be_used_are() -> None:
    """Other schemes, other errors and what cannot be decoded are passed over, within a field and between fields."""
    ours = encoded(CLAIMS)
    fields = [
        f'Basic error="insufficient_claims", claims="{ours}"',
        f'Bearer error="invalid_token", claims="{ours}"',
        f'Bearer claims="{ours}"',
        f'Bearer error="Insufficient_claims", claims="{ours}"',
        'Bearer error="insufficient_claims"',
        challenged("%%%"),
        f'X a="Bearer error=insufficient_claims, claims={ours}"',
    ]
    assert claims_of(parse_challenges(fields)) is None
    second = challenged(encoded('{"second": {}}'))
    assert claims_of(parse_challenges([*fields, f"PoP nonce=n1, {challenged(ours)}, {second}"])) == CLAIMS


# Key vaults.


@pytest.mark.parametrize(
    ("url", "parameters", "resource", "tenant_id"),
    [
        (VAULT, {"resource": "https://vault.azure.net"}, "https://vault.azure.net", TENANT),
        (VAULT, {"resource": "https://vault.azure.net/"}, "https://vault.azure.net/", TENANT),
        (VAULT, {"resource": "HTTPS://Vault.Azure.NET"}, "HTTPS://Vault.Azure.NET", TENANT),
        (VAULT, {"resource": "https://vault.azure.net:443"}, "https://vault.azure.net:443", TENANT),
        (VAULT, {"scope": "https://vault.azure.net/.default"}, "https://vault.azure.net", TENANT),
        (VAULT, {"scope": "https://vault.azure.net//.default"}, "https://vault.azure.net/", TENANT),
        (
            VAULT,
            {"scope": "https://vault.azure.net/.default", "resource": "https://evil.example"},
            "https://vault.azure.net",
            TENANT,
        ),
        (VAULT, {"scope": "", "resource": "https://vault.azure.net"}, "https://vault.azure.net", TENANT),
        (
            "https://demo.vault.azure.net:443",
            {"resource": "https://vault.azure.net"},
            "https://vault.azure.net",
            TENANT,
        ),
        ("https://demo.vault.azure.net:", {"resource": "https://vault.azure.net"}, "https://vault.azure.net", TENANT),
        (
            "https://demo.vault.azure.net:8443/keys",
            {"resource": "https://vault.azure.net:8443"},
            "https://vault.azure.net:8443",
            TENANT,
        ),
        (
            "HTTPS://DEMO.Vault.Azure.NET?a#b",
            {"resource": "https://vault.azure.net"},
            "https://vault.azure.net",
            TENANT,
        ),
        (
            "https://demo.managedhsm.azure.net/keys/ä\\@\n",
            {"resource": "https://managedhsm.azure.net"},
            "https://managedhsm.azure.net",
            TENANT,
        ),
        (
            "https://xn--mnchen-3ya.vault.azure.net",
            {"resource": "https://vault.azure.net"},
            "https://vault.azure.net",
            TENANT,
        ),
    ],
)
def test_a_vault_names_its_resource(url: str, parameters: dict[str, str], resource: str, tenant_id: str) -> None:
    """A scope goes before a resource, which is kept as it is written; case and the usual port make no difference."""
    challenges = bearer(authorization=AUTHORITY, **parameters)
    assert vault_challenge(challenges, url) == VaultChallenge(resource, tenant_id)


@pytest.mark.parametrize(
    ("authorization", "tenant_id"),
    [
        (AUTHORITY, TENANT),
        (f"{AUTHORITY}/oauth2/authorize", TENANT),
        (f"{AUTHORITY}?a=b/c", TENANT),
        (f"{AUTHORITY}#a", TENANT),
        ("HTTPS://login.windows.net:443/contoso.onmicrosoft.com/", "contoso.onmicrosoft.com"),
        ("https://login.example/common", "common"),
        ("https://login.example/" + "a" * 253, "a" * 253),
        ("https://adfs.example/adfs", None),
        ("https://adfs.example/ADFS/oauth2", None),
        ("https://login.example/", None),
        ("https://login.example", None),
        ("https://login.example?tenant", None),
        (f"https://login.example//{TENANT}", None),
    ],
)
@pytest.mark.parametrize("name", ["authorization", "authorization_uri"])
def test_a_vault_names_its_tenant(authorization: str, name: str, tenant_id: str | None) -> None:
    """It is the first segment of the authorization URL's path; AD FS has none, and nor has a URL without a path."""
    challenges = bearer(resource="https://vault.azure.net", **{name: authorization})
    assert vault_challenge(challenges, VAULT) == VaultChallenge("https://vault.azure.net", tenant_id)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        'Basic resource="https://vault.azure.net"',
        f'PoP authorization="{AUTHORITY}", resource="https://vault.azure.net"',
        'Bearer realm="https://demo.azurecr.io/oauth2/token",service="demo.azurecr.io",scope="registry:catalog:*"',
        'Bearer realm="example", scope="openid profile"',
        f'Bearer authorization_uri="{AUTHORITY}", error="invalid_token"',
        f'Bearer authorization_uri="{AUTHORITY}", scope=""',
        f'Bearer authorization="{AUTHORITY}", resource="https://vault.azure.net", resource="https://vault.azure.net"',
        f'Bearer authorization="{AUTHORITY}", resource="https://vault.azure.net',
    ],
)
def test_what_is_no_challenge_of_a_vault(value: str) -> None:
    """Other schemes and other services' challenges ask for nothing here, and nor does one that cannot be read."""
    assert vault_challenge(parse_challenges([value]), VAULT) is None


def test_the_first_challenge_of_a_vault_decides() -> None:
    """A challenge that is refused is not made good by another one."""
    good, bad = f'authorization="{AUTHORITY}", resource="https://vault.azure.net"', "resource=vault"
    found = vault_challenge(parse_challenges([f"Basic, Bearer a=b, Bearer {good}, Bearer {bad}"]), VAULT)
    assert found == VaultChallenge("https://vault.azure.net", TENANT)
    with pytest.raises(SecurityError, match="no https URL"):
        vault_challenge(parse_challenges([f"Bearer {bad}", f"Bearer {good}"]), VAULT)


@pytest.mark.parametrize(
    "url",
    [
        "https://evilvault.azure.net/secrets/s1",
        "https://vault.azure.net/secrets/s1",
        "https://myvault.vault.azure.net.evil.example/secrets/s1",
        "https://evil.example/demo.vault.azure.net",
        "https://evil.example?.vault.azure.net",
        "https://evil.example#.vault.azure.net",
        "https://demo.vault.azure.net:8443/secrets/s1",
        "https://demo.vault.azure.net:44300/secrets/s1",
        "https://demo.vaultxazure.net/secrets/s1",
    ],
)
def test_a_host_that_is_not_below_the_resource_gets_no_token(url: str) -> None:
    """Look-alikes, the resource's own host and other ports are told apart from what is below it."""
    challenges = bearer(authorization=AUTHORITY, resource="https://vault.azure.net")
    with pytest.raises(SecurityError, match=r"asks for a token for vault\.azure\.net:443, and is not below it"):
        vault_challenge(challenges, url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "demo.vault.azure.net",
        "/secrets/s1",
        "http://demo.vault.azure.net/secrets/s1",
        " https://demo.vault.azure.net",
        "https:demo.vault.azure.net",
        "https:///demo.vault.azure.net",
        "https://demo.vault.azure.net./secrets/s1",
        "https://demo..vault.azure.net",
        "https://.vault.azure.net",
        "https://evil.example\\.vault.azure.net",
        "https://demo.vault.azure.net\\@evil.example",
        "https://user@demo.vault.azure.net",
        "https://user:word@demo.vault.azure.net",
        "https://evil.example@demo.vault.azure.net",
        "https://demo.vault.azure.net:443@evil.example",
        "https://evil.example%2f.vault.azure.net",
        "https://evil.example\t.vault.azure.net",
        "https://evil.example;.vault.azure.net",
        "https://demo.vault.azure.net:port",
        "https://demo.vault.azure.net:-443",
        "https://demo.vault.azure.net:" + "4" * 5_000,
        "https://demo.vault.azure.net:٤٤٣",
        "https://münchen.vault.azure.net",
        "https://demo。vault.azure.net",
        "https://demo.vault.azure.net\u212a",
        "http\u017f://demo.vault.azure.net",
        "https://127.0.0.1",
        "https://[::1]",
        "https://localhost",
        f"https://{'a' * 64}.vault.azure.net",
        f"https://{'a.' * 125}vault.azure.net",
    ],
)
def test_a_request_to_no_ordinary_host_gets_no_token(url: str) -> None:
    """Nothing is compared with what is not plainly a host name behind https."""
    challenges = bearer(authorization=AUTHORITY, resource="https://vault.azure.net")
    with pytest.raises(SecurityError, match="the request was to no https URL with an ordinary host name"):
        vault_challenge(challenges, url)


@pytest.mark.parametrize(
    "resource",
    [
        "",
        "vault",
        "vault.azure.net",
        "//vault.azure.net",
        "http://vault.azure.net",
        "api://vault.azure.net",
        "https://",
        "https:///vault.azure.net",
        "https://net",
        "https://net.",
        "https://.net",
        "https://vault.azure.net.",
        "https://.vault.azure.net",
        "https://user@vault.azure.net",
        "https://evil.example\\.azure.net",
        "https://vault.azure.net\\@evil.example",
        "https://vault.azure.net :443",
        "https://vault.azure.net https://evil.example",
        "https://vault.azure.net\x00",
        "https://vault.azure.net/.default/.default",
        "https://vaült.azure.net",
        "https://vault。azure.net",
        "http\u017f://vault.azure.net",
        "https://0.0.1",
        "https://127.0.0.1",
        "https://[::1]",
        "https://0x7f.1",
        f"https://{'a.' * 125}net.xyz",
    ],
)
@pytest.mark.parametrize("name", ["resource", "scope"])
def test_a_resource_of_no_ordinary_host_is_refused(resource: str, name: str) -> None:
    """A top-level domain, an address or anything that is read in more than one way is no vault's resource."""
    challenges = bearer(authorization=AUTHORITY, **{"resource": "x", name: resource})
    with pytest.raises(SecurityError, match=r"demo\.vault\.azure\.net names a resource that is no https URL"):
        vault_challenge(challenges, VAULT)


def test_a_scope_beside_an_authorization_server_is_a_vault_s() -> None:
    """It is refused where it is no URL, as a resource is."""
    with pytest.raises(SecurityError, match="names a resource that is no https URL"):
        vault_challenge(bearer(authorization=AUTHORITY, scope="vault"), VAULT)


def test_addresses_are_below_nothing() -> None:
    """The numbers of an address are no labels of a name."""
    challenges = bearer(authorization=AUTHORITY, resource="https://0.0.1")
    with pytest.raises(SecurityError):
        vault_challenge(challenges, "https://127.0.0.1/secrets/s1")


@pytest.mark.parametrize(
    "authorization",
    ["", TENANT, f"http://login.microsoftonline.com/{TENANT}", f"https://evil@login.example/{TENANT}", "https://login"],
)
def test_a_vault_must_name_an_authorization_server(authorization: str) -> None:
    """Its URL is https with an ordinary host name, although nobody is asked there."""
    challenges = bearer(authorization=authorization, resource="https://vault.azure.net")
    with pytest.raises(SecurityError, match="names no https URL of an authorization server"):
        vault_challenge(challenges, VAULT)


def test_a_scope_that_is_a_url_needs_an_authorization_server_too() -> None:
    """It is no OAuth service's word, so it is a vault's, and not complete."""
    with pytest.raises(SecurityError, match="names no https URL of an authorization server"):
        vault_challenge(bearer(scope="https://vault.azure.net/.default"), VAULT)


@pytest.mark.parametrize(
    "segment", [".", "..", "...", "a b", "a%2fb", "%2e%2e", "a\\b", "tenant;a", "a@b", "ä", "a\n", " ", "a" * 254]
)
def test_a_tenant_must_be_a_guid_or_a_domain(segment: str) -> None:
    """It becomes a part of the URL at which tokens are asked for."""
    challenges = bearer(authorization=f"https://login.example/{segment}", resource="https://vault.azure.net")
    with pytest.raises(SecurityError, match="names a tenant that is neither a GUID nor a domain"):
        vault_challenge(challenges, VAULT)


@pytest.mark.parametrize(
    "parameters",
    [
        {"resource": "eyJzZWNyZXQ"},
        {"resource": "https://evil.example/eyJzZWNyZXQ?eyJzZWNyZXQ#eyJzZWNyZXQ"},
        {"resource": "https://vault.azure.net", "authorization": "eyJzZWNyZXQ"},
        {"resource": "https://vault.azure.net", "authorization": "https://login.example/eyJ@eyJzZWNyZXQ"},
    ],
)
def test_an_error_names_hosts_and_no_more_of_the_challenge(parameters: dict[str, str]) -> None:
    """A service may send back what it was sent, and that is no text for logs."""
    with pytest.raises(
        SecurityError, match=r"no token was sent in answer: demo\.vault\.azure\.net.*Check the URL"
    ) as caught:
        vault_challenge(bearer(nonce="eyJzZWNyZXQ", **parameters), VAULT)
    assert "eyJ" not in str(caught.value)
    assert "s1" not in str(caught.value)


@given(st.text(), st.text(), st.text())
def test_no_challenge_of_a_vault_breaks_the_reading(resource: str, authorization: str, url: str) -> None:
    """Whatever stands there is refused in one way."""
    with pytest.raises(SecurityError):
        vault_challenge(bearer(resource=resource, authorization=authorization), url)
