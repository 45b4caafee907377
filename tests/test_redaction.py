"""What may be said of an answer: never a token."""

from __future__ import annotations

import html
import json
import textwrap
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiomsi.sources._redaction import redact, shape

if TYPE_CHECKING:
    from collections.abc import Callable

JWT = "eyJhbGciOiJub25lIn0.eyJhdWQiOiJ4In0.c2lnbmF0dXJl"
OPAQUE = "abcDEF0123456789-_" * 5
SHORT = ("Xy7~Q8.an-opaque_one-Zz9", "c2hvcnQvb3BhcXVl+3==")


@pytest.mark.parametrize(
    "text",
    [
        f"unexpected answer {JWT}",
        f'{{"access_token": "{OPAQUE}", "x": 1}}',
        "{'accessToken': 'short-one'}",
        '"refresh_token" : "short-one"',
        f"Authorization: Bearer {JWT}",
        "Authorization: bearer short-one",
        f"token={OPAQUE}",
        f"broken in\n{JWT[:30]}",
        f"access_token={OPAQUE}",
        "client_secret=short-one&x=1",
        "Authorization: Basic c2hvcnQtb25lOnNob3J0LW9uZQ==",
        '{\\"accessToken\\": \\"short-one\\"}',
        "echo " + "abc/DEF+012" * 8,
        *(f"got token {opaque}" for opaque in SHORT),
        *(f"the secret is '{opaque}'" for opaque in SHORT),
        *(f"Authorization: Token {opaque}" for opaque in SHORT),
        *(f"Password={opaque}" for opaque in SHORT),
        *(f"pwd={opaque};" for opaque in SHORT),
        *(f"https://account.blob.core.windows.net/a?sv=1&sig={opaque}&se=2" for opaque in SHORT),
        *(f"az login --password {opaque} --tenant t" for opaque in SHORT),
        *(f"az login -p '{opaque}'" for opaque in SHORT),
        *(f"azd auth login --client-secret {opaque}" for opaque in SHORT),
        *(f"proxy http://user:{opaque}@proxy.example:8080/ refused" for opaque in SHORT),
    ],
)
def test_tokens_are_taken_out_of_texts(text: str) -> None:
    """A JWT, a member named like a token, a bearer header and any very long word are redacted."""
    said = redact(text)
    assert "<redacted>" in said
    for secret in (JWT[:30], OPAQUE, "short-one", "c2hvcnQtb25l", "abc/DEF+012abc", *SHORT):
        assert secret not in said


@pytest.mark.parametrize("width", [40, 60, 63, 72, 80, 120])
def test_a_token_that_is_wrapped_is_taken_out_whole(width: int) -> None:
    """A tool breaks its lines where the terminal ends, in the middle of a token too."""
    token = ".".join(["eyJhbGciOiJub25lIn0", OPAQUE * 5, OPAQUE * 4])
    lines = textwrap.wrap(f"ERROR: the answer was {token}", width, break_on_hyphens=False)
    said = redact("\n".join(lines)) + redact("\n     | ".join(lines))
    assert said.startswith("ERROR: the answer was <redacted>")
    assert not any(token[start : start + 16] in said for start in range(len(token) - 16))


def test_messages_stay_readable() -> None:
    """What people need stays: names, paths, GUIDs, URLs, codes; on one line and not endless."""
    text = "AADSTS500011: https://vault.azure.net was not found in tenant 11111111-aaaa-4bbb-8ccc-000000000001"
    assert redact(text) == text
    for text in (
        "AADSTS7000215: Ensure the secret being sent is the client secret value, not the client secret ID, please.",
        "a secret added to app '11111111-aaaa-4bbb-8ccc-000000000001'",
        "the token endpoint answered: key vault not-found-in-subscription, header is missing, secret is wrong",
        "az login --tenant contoso.onmicrosoft.com; give --password or --certificate; at http://user@host.example:80/a",
    ):
        assert redact(text) == text
    assert redact("two\nlines\t\x1b[31m") == "two lines [31m"
    assert len(redact("word " * 500)) == 401


@pytest.mark.parametrize("piece", ["-", "a-", "--key", "eyJ|", "token ", "://:", "=", " "])
def test_no_text_takes_long(piece: str) -> None:
    """A tool or a host may say much, and whatever it likes: the time is proportional to the length."""
    assert redact("eyJhbGci" + piece * (1 << 18)).startswith("<redacted>")


def test_a_known_secret_is_taken_out_however_short() -> None:
    """What was sent may be echoed."""
    assert redact("no such secret: hunter2!", "hunter2", None) == "no such secret: <redacted>"
    assert redact("hunter2 is wrong", "hunter2") == "<redacted> is wrong"


SECRET = "a\"b/c\\d & e+<f>'=é"
WAYS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "in JSON": lambda secret: json.dumps(secret)[1:-1],
    "in a form": quote_plus,
    "in a URL": quote,
    "in a query": lambda secret: quote(secret, safe=""),
    "in HTML": html.escape,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_known_secret_is_taken_out_however_it_is_written(way: Callable[[str], str]) -> None:
    """Whoever echoes it may do so in JSON, a form, a URL or a page."""
    assert redact(f"no such thing: {way(SECRET)}!", "b/c", SECRET) == "no such thing: <redacted>!"


def test_paths_and_urls_are_not_taken_for_tokens() -> None:
    """The resource id of an identity is long, and needed."""
    path = "/subscriptions/33333333-0000-4000-8000-000000000003/resourceGroups/rg/providers/Microsoft.ManagedIdentity/x"
    url = "https://myvault.vault.azure.net/secrets/a-name/0123456789abcdef0123456789abcdef0123456789abcdef"
    assert redact(f"not assigned: {path}, see {url}") == f"not assigned: {path}, see {url}"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "an empty body"),
        (b" \n", "an empty body"),
        (b"<!DOCTYPE html>", "HTML of 15 bytes"),
        (b'{"access_token": "abc', "something that is not JSON of 21 bytes"),
        (b"\xff\xfe", "something that is not JSON of 2 bytes"),
        (b"[" * 100_000, "something that is not JSON of 100000 bytes"),
        (b"[1]", "JSON that is an array instead of an object"),
        (b"null", "JSON that is null instead of an object"),
        (b"{}", "a JSON object with no members"),
        (
            b'{"access_token": "abc", "expires_on": true, "a": {}, "b": [], "c": 1, "d": ""}',
            (
                "a JSON object with access_token: text of 3 characters, expires_on: true, a: an object, b: an array,"
                " c: a number, d: empty text"
            ),
        ),
    ],
)
def test_the_shape_of_an_answer(body: bytes, said: str) -> None:
    """Members and types are named, values are not."""
    assert shape(body) == said


@given(st.dictionaries(st.text(), st.text(min_size=8)))
def test_no_value_is_in_a_shape(answer: dict[str, str]) -> None:
    """Whatever an answer holds, its texts are not shown."""
    shown = shape(json.dumps(answer).encode())
    assert not any(
        value in shown for name, value in answer.items() if value not in name and value.isalpha() and value not in _OURS
    )


_OURS = "a JSON object with no members text of characters"
