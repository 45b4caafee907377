"""Steps and rules as a person types them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiomsi.endpoint import (
    Answer,
    Drip,
    During,
    Expired,
    Hang,
    Huge,
    IdentityEndpoint,
    OnRequests,
    Refused,
    Reset,
    Rule,
    Skewed,
    Slow,
    Step,
    Truncated,
    parse_step,
)


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("ok", None),
        ("503", Refused(503)),
        ("429:3", Refused(429, retry_after=3)),
        ("429:3:date", Refused(429, retry_after=3, as_date=True)),
        ("status:204", Answer(204)),
        ("slow:2", Slow(2)),
        ("hang", Hang()),
        ("reset", Reset()),
        ("truncated", Truncated()),
        ("drip:0.1", Drip(0.1)),
        ("huge:1000000", Huge(1_000_000)),
        ("html", Answer.html()),
        ("html:503", Answer.html(status=503)),
        ("redirect", Answer.redirect()),
        ("redirect:http://127.0.0.1:8080/", Answer.redirect("http://127.0.0.1:8080/")),
        ("expired", Expired()),
        ("expired:3600", Expired(3600)),
        ("skew:-600", Skewed(-600)),
        ("503@3", OnRequests(3, 3, Refused(503))),
        ("hang@3-5", OnRequests(3, 5, Hang())),
        ("ok@3-", OnRequests(3, math.inf, None)),
        ("slow:2@10s-40.5s", During(10, 40.5, Slow(2))),
        ("reset@0.5s-", During(0.5, math.inf, Reset())),
    ],
)
def test_each_step_can_be_spelled(text: str, step: Step | Rule | None) -> None:
    """What is typed is what a script takes."""
    assert parse_step(text) == step
    IdentityEndpoint().script(parse_step(text))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "write one of ok, 503, 429:3"),
        ("hangs", "write one of ok"),
        ("Hang", "write one of ok"),
        ("1000", "write one of ok"),
        ("200", "status must be an HTTP error, 400 to 599, not 200"),
        ("429:soon", "after the colon comes a number, not 'soon'"),
        ("429:-3", "retry_after must be at least 0"),
        ("429:3:day", "nothing or 'date', not 'day'"),
        ("429::date", "comes a number, not ''"),
        ("status:", "comes a whole number, not ''"),
        ("status:42", "status must be 200 to 599, not 42"),
        ("slow", "comes a number, not ''"),
        ("slow:nan", "seconds must be at least 0, not nan"),
        ("hang:3", "nothing comes after the name, not '3'"),
        ("huge:1e6", "comes a whole number, not '1e6'"),
        ("html:yes", "comes a whole number, not 'yes'"),
        ("expired:never", "comes a number, not 'never'"),
        ("skew", "comes a number, not ''"),
        ("skew:inf", "seconds must be a finite number, not inf"),
        ("503@", "after the @, write one of 3, 3-5, 3-, 10s-40s, 10s-"),
        ("503@3-5s", "after the @"),
        ("503@10s", "after the @"),
        ("503@-3", "after the @"),
        ("503@0", "counted from 1 upwards, not from 0 to 0"),
        ("503@5-3", "not from 5 to 3"),
        ("503@40s-10s", "end must be later than start, not 40.0 to 10.0"),
        ("hang@3@4", "after the @"),
    ],
)
def test_what_is_misspelt_is_told(text: str, why: str) -> None:
    """The message holds what was typed, and what can be typed instead."""
    with pytest.raises(ValueError, match="is not a step") as caught:
        parse_step(text)
    assert repr(text) in str(caught.value)
    assert why in str(caught.value)


@given(st.one_of(st.text(), st.from_regex(r"(\d{1,4}|[a-z]{4,9})(:[^@]*)?(@[\d.s-]*)?", fullmatch=True)))
def test_anything_else_is_a_value_error(text: str) -> None:
    """Whatever is typed, it is a step or a ValueError."""
    try:
        IdentityEndpoint().script(parse_step(text))
    except ValueError as error:
        assert repr(text) in str(error)  # noqa: PT017  (it may just as well be a step)
