"""The table of the README: its rows, and where in the results their numbers stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from _results import Place

if TYPE_CHECKING:
    from _results import Document

Format: TypeAlias = Callable[[float], str]

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Number:
    """A number of the results, and how it is written."""

    place: Place
    column: str
    written: Format

    def text(self, document: Document) -> str:
        """Return the number as the README has it, or say that there is none."""
        cell = self.place.cell(document, self.column)
        return self.written(cell) if isinstance(cell, int | float) else NOT_MEASURED


@dataclass(frozen=True)
class Text:
    """A text with numbers in the places of its braces."""

    template: str
    numbers: tuple[Number, ...] = ()

    def text(self, document: Document) -> str:
        """Return the text with its numbers."""
        return self.template.format(*(number.text(document) for number in self.numbers))


def count(value: float) -> str:
    """Write a whole number."""
    return f"{value:,.0f}"


def ratio(value: float) -> str:
    """Write a ratio: with the digits that differ from one run to the next left out."""
    return f"{value:.2f}" if value < 2 else f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def quantity(unit: str, value: float) -> str:
    """Write a measured value with its unit."""
    return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.2g} {unit}"


def _one(place: Place, column: str, written: Format) -> Text:
    return Text("{}", (Number(place, column, written),))


def _two(template: str, first: Place, second: Place, column: str, written: Format) -> Text:
    return Text(template, (Number(first, column, written), Number(second, column, written)))


_PERCENT = partial(quantity, "%")
_SECONDS = partial(quantity, "s")
_MILLISECONDS = partial(quantity, "ms")
_MEGABYTES = partial(quantity, "MB")
_NANOSECONDS = partial(quantity, "ns")


def _in_brackets(written: Format) -> Format:
    return lambda value: f"({written(value)})"


def _requests(callers: int) -> Place:
    return Place("stampede", "requests made *", {"callers": callers, "resources": 1})


def _warm(call: str) -> Place:
    return Place("hot_path", "a warm call on asyncio *", {"call": call})


def _refresh(who: str) -> Place:
    return Place("refresh", "one refresh that takes 1 s, at 2,000 calls/s", {"who": who})


def _outage(who: str) -> Place:
    return Place("outage", "a token is held*, at 100 calls/s", {"who": who})


def _bare_outage(who: str) -> Place:
    return Place("outage", "no token is held*, at 100 calls/s", {"who": who})


def _cancelling(who: str) -> Place:
    return Place("waiters", "cancelling 20,000 callers who wait *", {"who": who})


def _authorising(who: str) -> Place:
    return Place("middleware", "without sending it, *", {"who": who})


def _served() -> Place:
    return Place("serve", "requests for a token that is held, over 100 connections *", {"who": "aiomsi serve"})


def _laptop(seconds: str, who: str) -> Number:
    place = Place("detection", f"a first token, *imported *; `az` takes {seconds} s", {"who": who})
    return Number(place, "ms", _MILLISECONDS)


def _laptops(seconds: str) -> tuple[Text, Text]:
    ours = ("aiomsi: default(), another maker", "aiomsi: default(), silent firmware")
    theirs = ("azure: DefaultAzureCredential()", "azure: DefaultAzureCredential(), told `dev`")
    return (
        Text("{}; silent firmware: {}", tuple(_laptop(seconds, who) for who in ours)),
        Text("{}; `AZURE_TOKEN_CREDENTIALS=dev`: {}", tuple(_laptop(seconds, who) for who in theirs)),
    )


def _fleet(who: str) -> Place:
    return Place("fleet", "the day after a deploy, with tokens of 24 h", {"rule": who, "processes": 1_000})


def _import(statement: str) -> Place:
    return Place("footprint", "a fresh interpreter *", {"statement": statement})


def _installed(packages: str) -> Text:
    place = Place("footprint", "what pip installs", {"command": f"pip install {packages}"})
    return Text("{} packages, {}", (Number(place, "packages", count), Number(place, "MB", _MEGABYTES)))


_NO_RIVAL = Text("")
_BEARER = "azure bearer provider"

ROWS: tuple[tuple[str, Text, Text], ...] = (
    (
        "requests for 1,000 callers at once",
        _one(_requests(1_000), "aiomsi", count),
        Text(
            "{} ({})",
            (Number(_requests(1_000), "azure get_token", count), Number(_requests(1_000), _BEARER, count)),
        ),
    ),
    (
        "requests for 100,000 callers at once",
        _one(_requests(100_000), "aiomsi", count),
        Text("not tried ({})", (Number(_requests(100_000), _BEARER, count),)),
    ),
    (
        "a warm call, in empty awaits",
        _one(_warm("aiomsi: await token"), "x empty await", ratio),
        _two("{} ({})", _warm("azure: get_token"), _warm("azure: bearer provider"), "x empty await", ratio),
    ),
    (
        "callers who waited for a refresh of 1 s, at 2,000 calls/s",
        _one(_refresh("aiomsi"), "waited", count),
        _one(_refresh(_BEARER), "waited", _in_brackets(count)),
    ),
    (
        "callers who waited in an outage of 10 minutes, with a token to be refreshed",
        _one(_outage("aiomsi"), "waited %", _PERCENT),
        _one(_outage(_BEARER), "waited %", _in_brackets(_PERCENT)),
    ),
    (
        "… and who got an error",
        _one(_outage("aiomsi"), "errors %", _PERCENT),
        _one(_outage(_BEARER), "errors %", _in_brackets(_PERCENT)),
    ),
    (
        "… who got an error, with no token",
        _one(_bare_outage("aiomsi"), "errors %", _PERCENT),
        _one(_bare_outage(_BEARER), "errors %", _in_brackets(_PERCENT)),
    ),
    (
        "… the longest wait, with no token",
        _one(_bare_outage("aiomsi"), "longest call s", _SECONDS),
        _one(_bare_outage(_BEARER), "longest call s", _in_brackets(_SECONDS)),
    ),
    (
        "… the first token after it, with no token before",
        _one(_bare_outage("aiomsi"), "back after s", _SECONDS),
        _one(_bare_outage(_BEARER), "back after s", _in_brackets(_SECONDS)),
    ),
    (
        "cancelling 20,000 callers who wait",
        _one(_cancelling("aiomsi"), "seconds", _SECONDS),
        Text(
            "({}); `asyncio.shield`: {}",
            (
                Number(_cancelling(_BEARER), "seconds", _SECONDS),
                Number(_cancelling("control: shielded task"), "seconds", _SECONDS),
            ),
        ),
    ),
    (
        "authorising a request, beyond sending it",
        Text(
            "{}; wildcard: {}",
            (
                Number(_authorising("aiomsi: BearerAuth, an origin"), "ns", _NANOSECONDS),
                Number(_authorising("aiomsi: BearerAuth, a wildcard"), "ns", _NANOSECONDS),
            ),
        ),
        _one(_authorising("azure-core: bearer token policy"), "ns", _NANOSECONDS),
    ),
    (
        "answers of `aiomsi serve`, in those of a bare aiohttp handler",
        _one(_served(), "x handler", ratio),
        _NO_RIVAL,
    ),
    (
        "a first token on a laptop whose `az` takes 0.3 s",
        *_laptops("0.3"),
    ),
    (
        "… whose `az` takes 1.5 s",
        *_laptops("1.5"),
    ),
    (
        "importing it and making a provider (a credential), in imports of aiohttp",
        _one(_import("the same, and TokenProvider()"), "x import aiohttp", ratio),
        _one(_import("the same, and DefaultAzureCredential()"), "x import aiohttp", ratio),
    ),
    (
        "what pip installs",
        _installed("aiomsi"),
        _installed("azure-identity aiohttp"),
    ),
    (
        "requests in a fleet's worst second: 1,000 started at once, tokens of 24 h",
        _one(_fleet("aiomsi"), "worst second", count),
        _one(_fleet("azure-identity (Python)"), "worst second", count),
    ),
)
