"""Whether this machine's clock is right, by what was asked anyway. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from aiomsi._command_line.doctor.report import Skew
from aiomsi._token import unverified_claims

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["TOLERANCE", "Reading", "issued", "read_date", "skew"]

TOLERANCE = 300.0  # Seconds by which Entra ID and Azure's services let a clock be wrong.
_LAST_MOMENT = 253_402_300_800  # The end of the year 9999.
_DATE_STEP = 1.0  # A Date header tells whole seconds.


@dataclass(frozen=True, slots=True)
class Reading:
    """Somebody else's clock and ours, read *within* so many seconds of each other."""

    whose: str
    theirs: float
    ours: float
    within: float


def read_date(header: str | None) -> float | None:
    """Return the moment that a Date header names (RFC 9110), or None."""
    try:
        return parsedate_to_datetime(header or "").timestamp()
    except (ValueError, OverflowError):
        return None


def issued(token: str) -> float | None:
    """Return the moment before which *token* says that it did not exist, or None if it does not."""
    claims = unverified_claims(token) or {}
    moments = [claims.get(name) for name in ("iat", "nbf")]
    known = [moment for moment in moments if isinstance(moment, int) and not isinstance(moment, bool)]
    return max((float(moment) for moment in known if 0 < moment < _LAST_MOMENT), default=None)


def skew(readings: Sequence[Reading], issues: Iterable[float], now: float) -> Skew:
    """Return how wrong our clock is, by other clocks, or else by when the tokens that we got at *now* were made."""
    if readings:
        best = min(readings, key=lambda reading: reading.within)
        difference = round(best.ours - best.theirs, 1)
        exact = best.within + _DATE_STEP
        evidence = f"the Date header of {best.whose}, exact to {exact:.0f} s"
        return Skew(difference, False, evidence, _meaning(difference, exact), abs(difference) > TOLERANCE)
    ahead = max((made - now for made in issues), default=0.0)
    if ahead > _DATE_STEP:
        difference = -round(ahead, 1)
        evidence = "the token says that it was made later than it is here"
        return Skew(difference, True, evidence, f"at least {_meaning(difference, _DATE_STEP)}", ahead > TOLERANCE)
    return Skew(None, False, "no other clock was seen", _UNKNOWN, False)


_UNKNOWN = "not known to be wrong"


def _meaning(difference: float, exact: float) -> str:
    if abs(difference) <= exact:
        return "right"
    how = f"{abs(difference):.0f} s {'ahead' if difference > 0 else 'behind'}"
    if abs(difference) <= TOLERANCE:
        return f"{how}, which does no harm"
    if difference > 0:
        return f"{how}: tokens seem to end too early, and what is signed here is refused as not yet valid"
    return f"{how}: tokens are kept past their end, which services refuse, and what is signed here has expired"
