"""What may be said of an answer: never a token."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiomsi.sources._redaction import redact, shape

JWT = "eyJhbGciOiJub25lIn0.eyJhdWQiOiJ4In0.c2lnbmF0dXJl"
OPAQUE = "abcDEF0123456789-_" * 5


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
    ],
)
def test_tokens_are_taken_out_of_texts(text: str) -> None:
    """A JWT, a member named like a token, a bearer header and any very long word are redacted."""
    said = redact(text)
    assert "<redacted>" in said
    for secret in (JWT[:30], OPAQUE, "short-one", "c2hvcnQtb25l", "abc/DEF+012abc"):
        assert secret not in said


def test_messages_stay_readable() -> None:
    """What people need stays: names, paths, GUIDs, URLs, codes; on one line and not endless."""
    text = "AADSTS500011: https://vault.azure.net was not found in tenant 11111111-aaaa-4bbb-8ccc-000000000001"
    assert redact(text) == text
    assert redact("two\nlines\t\x1b[31m") == "two lines [31m"
    assert len(redact("word " * 500)) == 401


def test_a_known_secret_is_taken_out_however_short() -> None:
    """What was sent may be echoed."""
    assert redact("no such secret: hunter2!", "hunter2", None) == "no such secret: <redacted>"
    assert redact("hunter2 is wrong", "hunter2") == "<redacted> is wrong"


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
