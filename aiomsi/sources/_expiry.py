"""When a token ends, in all the ways in which hosts write it. Pure.

Numbers are Unix seconds or, if small, seconds from now. Dates are American (month first) or ISO 8601. A date without a
zone is UTC. Anything else is None: a wrong guess would serve a dead token or never refresh a living one.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, timezone

__all__ = ["read_moment", "read_seconds"]

_FIRST_DATE = 978_307_200  # 2001-01-01; MSAL.NET takes smaller numbers as relative too.
_LAST_DATE = 253_402_300_800  # The year 10000.

_NUMBER = re.compile(r"\s*([+-]?[0-9]{1,20}(?:\.[0-9]*)?)\s*")
_ZONE = r" ?(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2})?"
_AMERICAN = re.compile(
    r"(?P<month>[0-9]{1,2})/(?P<day>[0-9]{1,2})/(?P<year>[0-9]{4}) "
    r"(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})(?: ?(?P<half>AM|PM))?" + _ZONE,
    re.IGNORECASE,
)
_ISO = re.compile(
    r"(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})[T ]"
    r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})(?:\.[0-9]+)?" + _ZONE,
    re.IGNORECASE,
)


def read_moment(value: object, now: float) -> float | None:
    """Return the Unix time in seconds, UTC, that *value* means at *now*, or None if it means none."""
    number = _number(value)
    if number is not None:
        number = math.floor(number)
        return now + number if number < _FIRST_DATE else number if number < _LAST_DATE else None
    return _date(value.strip()) if isinstance(value, str) else None


def read_seconds(value: object) -> float | None:
    """Return the duration in whole seconds that *value* means, or None if it means none."""
    number = _number(value)
    return math.floor(number) if number is not None and 0 < number < _FIRST_DATE else None


def _number(value: object) -> float | None:
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value)
        return float(match[1]) if match else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LAST_DATE < value < 2 * _LAST_DATE:
        return None
    return value


def _date(text: str) -> float | None:
    match = _AMERICAN.fullmatch(text) or _ISO.fullmatch(text)
    if match is None:
        return None
    part = match.groupdict()
    hour = _hour(int(part["hour"]), part.get("half"))
    if hour is None:
        return None
    try:
        date = datetime(
            int(part["year"]),
            int(part["month"]),
            int(part["day"]),
            hour,
            int(part["minute"]),
            int(part["second"]),
            tzinfo=_zone(part["zone"]),
        )
    except ValueError:
        return None
    return date.timestamp()


def _hour(hour: int, half: str | None) -> int | None:
    # Hour 0 with a half stands in an old sample of the documentation; reading it as 0 is the earlier, safe reading.
    if half is None or hour == 0:
        return hour
    if hour > 12:
        return None
    return hour % 12 + (12 if half.upper() == "PM" else 0)


def _zone(text: str | None) -> timezone:
    if text is None or text in "Zz":
        return UTC
    sign = -1 if text[0] == "-" else 1
    return timezone(sign * timedelta(hours=int(text[1:3]), minutes=int(text[-2:])))
