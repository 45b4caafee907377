"""Whose turn which step of a script is: by place, by number and by time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from questions import NOW, Client, client_of

from aiomsi.endpoint import Answer, During, Hang, IdentityEndpoint, OnRequests, Refused, Reset, Slow
from aiomsi.endpoint.script import Performance, Script, script_of
from aiomsi.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from aiomsi.endpoint import Rule, Step

DOWN, SLOW, LOST = Answer(503), Slow(1), Reset()

steps = st.sampled_from([None, DOWN, SLOW, LOST])
numbers = st.integers(1, 12)
moments = st.floats(0, 12)
rules = st.one_of(
    st.builds(lambda first, more, step: OnRequests(first, first + more, step), numbers, st.integers(0, 5), steps),
    st.builds(OnRequests, numbers, st.just(math.inf), steps),
    st.builds(lambda start, more, step: During(start, start + more, step), moments, st.floats(0.25, 5), steps),
)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with client_of(tmp_path) as client:
        yield client


async def statuses(client: Client, endpoint: IdentityEndpoint, count: int) -> list[int]:
    """Return what that many token requests were answered."""
    return [(await client.ask(endpoint, "imds")).status for _ in range(count)]


@given(st.lists(steps), steps, numbers)
def test_without_rules_each_request_gets_the_step_at_its_place(
    sequence: list[Step | None], then: Step | None, number: int
) -> None:
    """The sequence is used up in order, whatever the time, and then its end is played for ever."""
    expected = dict(enumerate(sequence, start=1)).get(number, then)
    assert script_of(sequence, then).step_for(number, 1e9) is expected


@given(st.lists(rules), st.lists(steps), steps, numbers, moments)
def test_the_first_rule_that_applies_decides(
    rules: list[Rule], sequence: list[Step | None], then: Step | None, number: int, elapsed: float
) -> None:
    """Of several rules the first wins; where none applies, the request gets what it would get without them."""
    script = Script(tuple(rules), tuple(sequence), then)
    applying = [
        rule.step
        for rule in rules
        if (
            number in range(rule.first, 100) and number <= rule.last
            if isinstance(rule, OnRequests)
            else rule.start <= elapsed < rule.end
        )
    ]
    plain = script_of(sequence, then).step_for(number, elapsed)
    assert script.step_for(number, elapsed) is (applying[0] if applying else plain)


@given(st.lists(st.one_of(steps, rules)), steps)
def test_rules_may_stand_anywhere_among_the_steps(parts: list[Step | Rule | None], then: Step | None) -> None:
    """Where a rule stands makes no difference to the sequence."""
    script = script_of(parts, then)
    assert [*script.rules] == [part for part in parts if isinstance(part, OnRequests | During)]
    assert [*script.steps] == [part for part in parts if not isinstance(part, OnRequests | During)]


@given(st.floats(0.25, 100), st.lists(st.floats(-10, 110), max_size=20))
def test_an_outage_lasts_from_its_start_to_its_end(end: float, arrivals: list[float]) -> None:
    """Requests count from the moment at which the script was set; those from before it, or a clock set back, from 0."""
    performance = Performance(script_of([During(0, end, DOWN)], None), NOW)
    for arrival in arrivals:
        now = NOW + arrival
        assert (performance.next_step(now) is DOWN) is (now - NOW < end)


async def test_a_rule_is_for_some_requests(client: Client) -> None:
    """The third to fifth requests fail, and those that are refused by the host are not counted."""
    async with IdentityEndpoint() as endpoint:
        endpoint.script(OnRequests(3, 5, Refused(503)))
        assert await statuses(client, endpoint, 2) == [200, 200]
        await client.session.get(endpoint.url)
        assert await statuses(client, endpoint, 4) == [503, 503, 503, 200]


async def test_a_rule_may_be_an_exception(client: Client) -> None:
    """A rule without a step answers normally in the midst of what goes wrong."""
    async with IdentityEndpoint() as endpoint:
        endpoint.script(Answer(429), OnRequests(2, 2, None), OnRequests(5, math.inf, Answer(410)), then=Answer(500))
        assert await statuses(client, endpoint, 6) == [429, 200, 500, 500, 410, 410]


async def test_a_rule_is_for_some_time(client: Client) -> None:
    """From second 10 to 40 by the endpoint's clock the host is down, and no test has to wait for it."""
    clock = ManualClock()
    async with IdentityEndpoint(wall=clock.wall) as endpoint:
        await clock.advance(100)
        endpoint.script(During(10, 40, Refused(503)), Refused(500))
        seen = []
        for passing in (0, 9.5, 0.5, 29.5, 0.5):
            await clock.advance(passing)
            seen += await statuses(client, endpoint, 1)
        assert seen == [500, 200, 503, 503, 200]
        endpoint.script(During(0, math.inf, Refused(503)))
        assert await statuses(client, endpoint, 1) == [503]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: OnRequests(0, 1, None), "from 0 to 1"),
        (lambda: OnRequests(3, 2, None), "from 3 to 2"),
        (lambda: OnRequests(1, math.nan, None), "nan"),
        (lambda: During(-1, 1, None), "-1"),
        (lambda: During(2, 2, None), "2 to 2"),
        (lambda: During(0, math.nan, None), "nan"),
    ],
)
def test_rules_that_make_no_sense_are_named(make: Any, named: str) -> None:
    """A range that nothing can be in is refused at once."""
    with pytest.raises(ValueError, match=named):
        make()


@pytest.mark.parametrize(
    ("make", "arguments"), [(OnRequests, (1, 1, Hang)), (During, (0, 1, 503)), (script_of, ([OnRequests], None))]
)
def test_a_rule_wants_a_step(make: Any, arguments: Any) -> None:
    """A class instead of an instance, or a bare number, is caught before the first request."""
    with pytest.raises(TypeError, match="is not a step"):
        make(*arguments)
