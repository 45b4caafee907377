"""Tokens in the form in which Microsoft's ODBC driver takes them."""

from __future__ import annotations

import struct
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiomsi.adapters.odbc import SQL_COPT_SS_ACCESS_TOKEN, access_token_struct

if TYPE_CHECKING:
    from aiomsi import TokenProvider


def test_the_number_of_the_attribute() -> None:
    """The driver's header, msodbcsql.h, gives it this number."""
    assert SQL_COPT_SS_ACCESS_TOKEN == 1256


def test_each_byte_of_a_token_is_followed_by_a_zero() -> None:
    """The structure is a length in bytes of four bytes, and so many bytes without an end mark."""
    assert access_token_struct("abc") == b"\x06\x00\x00\x00a\x00b\x00c\x00"


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1))
def test_the_driver_reads_back_what_was_given(token: str) -> None:
    """Whatever a token holds, its length and its text come out again."""
    packed = access_token_struct(token)
    (length,) = struct.unpack_from("<I", packed)
    assert (length, packed[4:].decode("utf-16-le")) == (len(packed) - 4, token)


async def test_the_token_of_a_provider_fits(provider: TokenProvider) -> None:
    """What `token` returns is what it takes."""
    packed = access_token_struct(await provider.token("https://database.windows.net/"))
    assert packed[4::2] == b"token-1"


@pytest.mark.parametrize("token", ["", "Bearer s3cret", "s3cret\n", "s3cret\x00", "s3crét", "\ud800s3cret"], ids=ascii)
def test_what_is_no_token_is_refused(token: str) -> None:
    """A mistake is told before the driver would only say that the login failed, and without showing the token."""
    with pytest.raises(ValueError, match="pass it alone, without `Bearer`") as caught:
        access_token_struct(token)
    assert "s3cr" not in _in_our_frames(caught.value)


@pytest.mark.parametrize("token", [None, b"s3cret", ["s3cret"]], ids=repr)
def test_what_is_no_string_is_refused(token: Any) -> None:
    """The error names the type that came, and not the token."""
    with pytest.raises(TypeError, match=f"token is a string, not {type(token).__name__}") as caught:
        access_token_struct(token)
    assert "s3cr" not in _in_our_frames(caught.value)


def _in_our_frames(error: BaseException) -> str:
    """Return what a reporter of errors that shows local variables would show of our frames."""
    found = traceback.TracebackException.from_exception(error, capture_locals=True)
    ours = [
        frame.locals for frame in found.stack if frame.filename.endswith("odbc.py") and "tests" not in frame.filename
    ]
    assert ours
    return f"{error} {ours}"
