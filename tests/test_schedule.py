"""When to fetch: pure functions, so every case is a line of a table."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiomsi import EndpointError, RefreshPolicy, SourceUnavailableError, TokenRefusedError
from aiomsi._backoff import Backoff
from aiomsi._schedule import Freshness, Moment, retry_delay, same_token_delay, timetable

POLICY = RefreshPolicy()
T0 = Moment(wall=1_760_000_000.0, monotonic=500.0)
HOUR = 3600.0


@pytest.mark.parametrize(
    ("life", "refresh_in", "base", "must"),
    [
        (24 * HOUR, None, 12 * HOUR, 24 * HOUR - 60),
        (7200, None, 3600, 7140),
        (7199, None, 6899, 7139),
        (HOUR, None, 3300, 3540),
        (500, None, 250, 450),
        (60, None, 30, 54),
        (24 * HOUR, 43_199, 43_199, 24 * HOUR - 60),
        (24 * HOUR, 0, 12 * HOUR, 24 * HOUR - 60),
        (24 * HOUR, -5, 12 * HOUR, 24 * HOUR - 60),
        (24 * HOUR, 24 * HOUR, 12 * HOUR, 24 * HOUR - 60),
    ],
)
def test_the_plan_of_a_token(life: float, refresh_in: float | None, base: float, must: float) -> None:
    """The refresh point is the host's if it is within the life, else half the life, or 300 s before its end."""
    refresh_on = None if refresh_in is None else T0.wall + refresh_in
    plan = timetable(POLICY, T0, T0.wall + life, refresh_on, chance=0)
    assert (plan.base, plan.soft, plan.must, plan.life) == (base, min(base, must), must, life)


@given(
    life=st.floats(0.001, 1e9),
    refresh_in=st.none() | st.floats(-1e9, 1e9),
    chance=st.floats(0, 1),
)
def test_the_points_of_a_plan_are_in_order(life: float, refresh_in: float | None, chance: float) -> None:
    """0 < soft ≤ must < life, whatever the host says; soft is drawn from the last tenth before base, or a second."""
    refresh_on = None if refresh_in is None else T0.wall + refresh_in
    plan = timetable(POLICY, T0, T0.wall + life, refresh_on, chance)
    assert 0 < plan.soft <= plan.must < plan.life
    assert min(plan.must, plan.base * 0.9) <= plan.soft * (1 + 1e-9)
    assert plan.soft <= max(plan.base, 1)


def test_freshness_goes_by_the_clock_that_says_more() -> None:
    """Neither a wall clock set back nor a suspended monotonic clock keeps a token alive."""
    plan = timetable(POLICY, T0, T0.wall + HOUR, None, chance=0)
    story = [
        (0, 0, Freshness.FRESH),
        (3299, 3299, Freshness.FRESH),
        (3300, 0, Freshness.DUE),
        (-HOUR, 3300, Freshness.DUE),
        (3539, 3539, Freshness.DUE),
        (3540, 3540, Freshness.MUST),
        (0, 3599, Freshness.MUST),
        (3600, 0, Freshness.EXPIRED),
        (-HOUR, 3600, Freshness.EXPIRED),
    ]
    for wall, monotonic, expected in story:
        now = Moment(T0.wall + wall, T0.monotonic + monotonic)
        assert plan.freshness(now) is expected, (wall, monotonic)


FOREIGN = KeyError("an error of somebody else's, who means something else by the same name")
FOREIGN.retry_after = "soon"  # type: ignore[attr-defined]
DOWN, REFUSED, ABSENT = EndpointError("down"), TokenRefusedError("no"), SourceUnavailableError("gone")


@pytest.mark.parametrize(
    ("error", "failures", "holding", "delay"),
    [
        (DOWN, 1, True, 30),
        (DOWN, 2, True, 60),
        (DOWN, 5, True, 300),
        (DOWN, 10_000, True, 300),
        (REFUSED, 1, True, 30),
        (DOWN, 1, False, 1),
        (DOWN, 4, False, 8),
        (DOWN, 10_000, False, 30),
        (REFUSED, 1, False, 30),
        (ABSENT, 1, False, 1),
        (ABSENT, 9, False, 2),
        (KeyError("bug"), 2, False, 2),
        (FOREIGN, 1, False, 1),
    ],
)
def test_the_wait_after_a_failure(error: Exception, failures: int, holding: bool, delay: float) -> None:
    """The wait doubles up to its limit."""
    assert retry_delay(POLICY, error, failures, holding=holding, chance=0.5) == delay


def test_the_wait_for_a_refresh_is_spread() -> None:
    """A fleet that failed together does not come back together: ± 20 %."""
    waits = [retry_delay(POLICY, DOWN, 1, holding=True, chance=chance) for chance in (0, 0.5, 1)]
    assert waits == pytest.approx([24, 30, 36])


def test_the_same_token_again_waits_a_quarter_of_its_life() -> None:
    """A quarter of the remaining life, and at least a minute."""
    assert [same_token_delay(POLICY, remaining) for remaining in (HOUR, 10)] == [900, 60]


def test_a_backoff_closes_the_gate_and_success_opens_it() -> None:
    """After a failure the error is raised until the wait is over; a success forgets it."""
    backoff = Backoff(RefreshPolicy(refresh_retry_spread=0))
    backoff.check(0)
    backoff.fail(DOWN, 100, holding=False)
    with pytest.raises(EndpointError):
        backoff.check(100.9)
    assert not backoff.is_open(100.9)
    backoff.check(101)
    backoff.succeed(101)
    assert (backoff.failures, backoff.error, backoff.is_open(101)) == (0, None, True)


@pytest.mark.parametrize(
    ("asked", "wait"), [(100, 100), (0.5, 1), (None, 1), (float("inf"), 1), (10**400, 1), ("soon", 1)]
)
def test_a_backoff_is_never_shorter_than_retry_after(asked: float | None, wait: float) -> None:
    """What the host asked for is kept if it is a number; else, and if it is less, the usual wait applies."""
    backoff = Backoff(POLICY)
    backoff.fail(EndpointError("throttled", retry_after=asked), 0, holding=False)
    assert backoff.retry_at == wait


def test_expiry_lifts_a_gate_that_no_failure_closed() -> None:
    """The wait for a newer token ends with the old one."""
    backoff = Backoff(POLICY)
    backoff.succeed(0, wait=900)
    assert not backoff.is_open(10)
    backoff.expire(10)
    assert backoff.is_open(10)


@pytest.mark.parametrize("field", dataclasses.fields(RefreshPolicy), ids=lambda field: field.name)
def test_a_wrong_policy_value_is_named(field: dataclasses.Field[float]) -> None:
    """Each value of a policy is checked, and the message names it."""
    name: str = field.name
    for wrong in (-1, float("nan"), float("inf"), 10**400):
        with pytest.raises(ValueError, match=rf"RefreshPolicy\.{name} is a .*, not {wrong}"):
            RefreshPolicy(**{name: wrong})
    for odd in (True, "5", None):
        with pytest.raises(TypeError, match=rf"RefreshPolicy\.{name} is a number, not {odd!r}"):
            RefreshPolicy(**{name: odd})  # type: ignore[arg-type]
    if name.endswith(("spread", "fraction")):
        with pytest.raises(ValueError, match="a fraction from 0 to 1"):
            RefreshPolicy(**{name: 1.5})
