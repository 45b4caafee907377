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


def _cancelling(who: str) -> Place:
    return Place("waiters", "cancelling 20,000 callers who wait *", {"who": who})


def _authorising(who: str) -> Place:
    return Place("middleware", "without sending it, *", {"who": who})


def _served() -> Place:
    return Place("serve", "requests for a token that is held, over 100 connections *", {"who": "aiomsi serve"})


def _laptop(who: str) -> Place:
    return Place("detection", "a first token, all imported *; `az` takes 0.3 s", {"who": who})


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
        _one(_refresh("aiomsi"), "waited %", _PERCENT),
        _one(_refresh(_BEARER), "waited %", _in_brackets(_PERCENT)),
    ),
    (
        "callers who waited in an outage of 10 minutes, with a valid token",
        _one(_outage("aiomsi"), "waited %", _PERCENT),
        _one(_outage(_BEARER), "waited %", _in_brackets(_PERCENT)),
    ),
    (
        "… and who got an error",
        _one(_outage("aiomsi"), "errors %", _PERCENT),
        _one(_outage(_BEARER), "errors %", _in_brackets(_PERCENT)),
    ),
    (
        "cancelling 20,000 callers who wait",
        _one(_cancelling("aiomsi"), "seconds", _SECONDS),
        Text("not shared; `asyncio.shield`: {}", (Number(_cancelling("control: shielded task"), "seconds", _SECONDS),)),
    ),
    (
        "authorising a request, beyond sending it",
        _one(_authorising("aiomsi: BearerAuth, an origin"), "ns", _NANOSECONDS),
        _one(_authorising("azure-core: bearer token policy"), "ns", _NANOSECONDS),
    ),
    (
        "answers of `aiomsi serve`, in those of a bare aiohttp handler",
        _one(_served(), "x handler", ratio),
        _NO_RIVAL,
    ),
    (
        "time to a first token on a laptop, in times of `az` alone",
        _one(_laptop("aiomsi: default(), another maker"), "x tool alone", ratio),
        _one(_laptop("azure: DefaultAzureCredential()"), "x tool alone", ratio),
    ),
    (
        "importing it and making a provider, in imports of aiohttp",
        _one(_import("the same, and TokenProvider()"), "x import aiohttp", ratio),
        _one(_import("import azure.identity.aio"), "x import aiohttp", ratio),
    ),
    (
        "what pip installs",
        _installed("aiomsi"),
        _installed("azure-identity aiohttp"),
    ),
    (
        "requests in a fleet's worst second of a day: 1,000 processes, tokens of 24 h",
        _one(_fleet("aiomsi"), "worst second", count),
        _one(_fleet("azure-identity (Python)"), "worst second", count),
    ),
)
