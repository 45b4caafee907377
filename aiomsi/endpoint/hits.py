"""How often an endpoint was asked, and for what."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

# Whoever asks chooses the names, so only so many are told apart.
_MOST_RESOURCES = 1_000
_OTHERS = "(others)"


@dataclass(frozen=True, slots=True)
class Hits:
    """How often an endpoint was asked until now.

    *by_host* and *by_resource* count the token requests, whatever they were answered; *refused* is how many others
    there were: probes, wrong secrets, unknown paths. After 1,000 different resources, further ones are counted together
    as "(others)".
    """

    refused: int
    by_host: Counter[str]
    by_resource: Counter[str]

    @property
    def total(self) -> int:
        """How many requests there were in all."""
        return self.refused + self.token_requests

    @property
    def token_requests(self) -> int:
        """How many requests asked properly for a token."""
        return self.by_host.total()


class Tally:
    """Counts as requests come in."""

    __slots__ = ("_by_host", "_by_resource", "_refused")

    def __init__(self) -> None:
        self._refused = 0
        self._by_host: Counter[str] = Counter()
        self._by_resource: Counter[str] = Counter()

    @property
    def hits(self) -> Hits:
        """The counts of this moment."""
        return Hits(self._refused, self._by_host.copy(), self._by_resource.copy())

    def refuse(self) -> None:
        """Count a request that is turned away."""
        self._refused += 1

    def admit(self, host: str, resource: str) -> None:
        """Count a request for a token."""
        self._by_host[host] += 1
        is_told_apart = resource in self._by_resource or len(self._by_resource) < _MOST_RESOURCES
        self._by_resource[resource if is_told_apart else _OTHERS] += 1
