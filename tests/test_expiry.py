"""When a token ends, in all the ways in which hosts write it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiomsi import AccessToken
from aiomsi.sources._expiry import read_moment, read_seconds
from aiomsi.sources._messages import Answer
from aiomsi.sources._token_answer import token_in

NOW = 1_760_000_000.0


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        (1586984735, 1586984735),
        ("1506484173", 1506484173),
        (" 1760003600 ", 1760003600),
        (1760003600.75, 1760003600),
        ("1760003600.75", 1760003600),
        ("+1760003600", 1760003600),
        (3599, NOW + 3599),
        ("3599", NOW + 3599),
        (3599.9, NOW + 3599),
        (0, NOW),
        ("-1", NOW - 1),
        (978307199, NOW + 978307199),
        (978307200, 978307200),
        ("10/11/2017 7:06:40 PM +00:00", 1507748800),
        ("1/16/2020 5:24:12 AM +00:00", 1579152252),
        ("06/20/2019 02:57:58 +00:00", 1560999478),
        ("09/14/2017 00:00:00 PM +00:00", 1505347200),
        ("09/14/2017 12:00:00 AM +00:00", 1505347200),
        ("09/14/2017 12:00:00 PM +00:00", 1505390400),
        ("3/4/2021 1:02:03 pm +00:00", 1614862923),
        ("10/11/2017 7:06:40 PM+00:00", 1507748800),
        ("10/11/2017 19:06:40", 1507748800),
        ("10/11/2017 9:06:40 PM +02:00", 1507748800),
        ("2024-10-18T19:51:37Z", 1729281097),
        ("2024-10-18 19:51:37", 1729281097),
        ("2021-07-02 08:00:34Z", 1625212834),
        ("2024-10-18T21:51:37+02:00", 1729281097),
        ("2024-10-18T21:51:37+0200", 1729281097),
        ("2024-10-18T14:21:37-05:30", 1729281097),
        ("2024-10-18T19:51:37.1234567+00:00", 1729281097),
        ("2024-10-18T19:51:37.9999999999999Z", 1729281097),
        ("2020-11-12 13:50:47.114324", 1605189047),
    ],
)
def test_what_is_understood(value: object, moment: float) -> None:
    """Unix seconds, seconds from now, American dates and ISO 8601, with or without a zone."""
    assert read_moment(value, NOW) == moment


@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        None,
        "",
        " ",
        "soon",
        [],
        {},
        math.nan,
        math.inf,
        -math.inf,
        10**400,
        "1e9",
        "0x10",
        "١٧٦٠٠٠٣٦٠٠",
        "9" * 5000,
        1760003600000,
        "13/40/2020 5:24:12 AM +00:00",
        "20/06/2019 02:57:58 +00:00",
        "06/20/2019 13:57:58 PM +00:00",
        "06/20/2019 02:57:58 +99:00",
        "2024-02-30T00:00:00Z",
        "2024-10-18T25:00:00Z",
        "2024-10-18",
        "0000-01-01T00:00:00Z",
    ],
)
def test_what_is_not_understood(value: object) -> None:
    """A wrong guess would serve a dead token, so there is none: not for booleans, day-first dates or milliseconds."""
    assert read_moment(value, NOW) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3599", 3599),
        (3599, 3599),
        (86398.9998935, 86398),
        (True, None),
        (0, None),
        (-5, None),
        ("soon", None),
        (10**12, None),
    ],
)
def test_durations(value: object, seconds: float | None) -> None:
    """A lifetime is a positive number of seconds, cut to whole ones."""
    assert read_seconds(value) == seconds


VAULT = "https://vault.azure.net"
OF_AN_HOUR = "eyJhbGciOiJub25lIn0.eyJleHAiOjE3NjAwMDM2MDB9."  # Its `exp` is NOW + 3600.


def answered(**members: Any) -> AccessToken | str:
    """Return what is made of an answer with *members*, in their order."""
    body = json.dumps({"access_token": "t", **members}).encode()
    return token_in(Answer(200, {}, body), VAULT, "somebody", NOW)


@pytest.mark.parametrize(
    ("members", "left"),
    [
        ({"expires_on": "1760003600", "expires_in": "86399"}, 3600),
        ({"expires_in": "86399", "expires_on": "1760003600"}, 3600),
        ({"expires_on": "3599"}, 3599),
        ({"expires_on": None, "expires_in": "600"}, 600),
        ({"expires_on": "", "expires_in": 600}, 600),
        ({"expires_on": "soon", "expires_in": 86398.9998935}, 86398),
        ({"expires_in": 600, "access_token": OF_AN_HOUR}, 600),
        ({"access_token": OF_AN_HOUR}, 3600),
    ],
)
def test_which_member_says_when_a_token_ends(members: dict[str, Any], left: float) -> None:
    """`expires_in` counts from issuance, so it is second to `expires_on`; a token's own claim is the last resort."""
    token = answered(**members)
    assert isinstance(token, AccessToken)
    assert token.expires_on == NOW + left


@pytest.mark.parametrize(
    ("refresh_in", "refresh_on"),
    [("1800", NOW + 1800), (1800, NOW + 1800), (1800.9, NOW + 1800), ("soon", None), (None, None), (True, None)],
)
def test_when_the_host_wants_to_be_asked_again(refresh_in: object, refresh_on: float | None) -> None:
    """`refresh_in` is a number or the text of one; what makes no sense is no reason to drop a token."""
    token = answered(expires_in=3600, refresh_in=refresh_in)
    assert isinstance(token, AccessToken)
    assert token.refresh_on == refresh_on


@pytest.mark.parametrize("echo", [{}, {"resource": None}, {"resource": f"{VAULT}/"}, {"resource": "00000002-0000"}])
def test_a_token_is_for_what_was_asked(echo: dict[str, Any]) -> None:
    """Whether and how the host repeats the resource makes no difference."""
    token = answered(expires_in=3600, **echo)
    assert isinstance(token, AccessToken)
    assert token.resource == VAULT


@given(st.text() | st.floats() | st.integers() | st.booleans() | st.none())
def test_nothing_breaks_the_reading(value: object) -> None:
    """Any value is a finite moment or none."""
    moment = read_moment(value, NOW)
    assert moment is None or math.isfinite(moment)
