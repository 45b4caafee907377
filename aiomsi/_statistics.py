"""What a provider holds and does, as values that say nothing secret."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiomsi._errors import AiomsiError

if TYPE_CHECKING:
    from aiomsi._slot import Slot

__all__ = ["ProviderStatistics", "ResourceStatistics", "describe"]


@dataclass(frozen=True, slots=True)
class ResourceStatistics:
    """One resource at one moment.

    *state* is one of EMPTY, FETCHING, FRESH, DUE, REFRESHING, DORMANT, MUST, EXPIRED, FAILED. *fetches* counts how
    often the source was asked, *failures* how often in vain; *failures_in_a_row* is 0 after a success. *expires_on*
    and *refresh_on* are Unix times in seconds, UTC, or None without a valid token. *last_error* is the text of the
    failure that the source has not recovered from.
    """

    resource: str
    tenant_id: str | None
    state: str
    source: str | None
    expires_on: float | None
    refresh_on: float | None
    waiting: int
    in_flight: int
    fetches: int
    failures: int
    failures_in_a_row: int
    last_error: str | None


@dataclass(frozen=True, slots=True)
class ProviderStatistics:
    """A provider at one moment: sums over its resources, and each of them."""

    resources: tuple[ResourceStatistics, ...]

    @property
    def tokens(self) -> int:
        """How many valid tokens are held."""
        return sum(resource.expires_on is not None for resource in self.resources)

    @property
    def in_flight(self) -> int:
        """How many fetches are under way."""
        return sum(resource.in_flight for resource in self.resources)

    @property
    def waiting(self) -> int:
        """How many callers wait."""
        return sum(resource.waiting for resource in self.resources)

    @property
    def fetches(self) -> int:
        """How often the source was asked."""
        return sum(resource.fetches for resource in self.resources)

    @property
    def failures(self) -> int:
        """How often the source was asked in vain."""
        return sum(resource.failures for resource in self.resources)


def describe(slot: Slot) -> ResourceStatistics:
    """Return what *slot* holds and does now."""
    token = slot.held
    error = slot.backoff.error
    return ResourceStatistics(
        resource=slot.resource,
        tenant_id=slot.tenant_id,
        state=slot.state,
        source=token.source if token else None,
        expires_on=token.expires_on if token else None,
        refresh_on=token.refresh_on if token else None,
        waiting=sum(flight.waiting for flight in slot.flights),
        in_flight=len(slot.flights),
        fetches=slot.fetches,
        failures=slot.failed,
        failures_in_a_row=slot.backoff.failures,
        last_error=None if error is None else str(error) if isinstance(error, AiomsiError) else type(error).__name__,
    )
