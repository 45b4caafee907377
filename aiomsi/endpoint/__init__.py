"""A managed identity endpoint of your own: a real HTTP server on loopback that speaks the host's side of the protocols.

It imports nothing else of aiomsi, so that a client and this endpoint cannot be wrong in the same way.
"""

from .faults import Answer, Drip, Gate, Hang, Huge, Reset, Slow, Step, Truncated
from .guard import Guard
from .received import ReceivedRequest
from .server import IdentityEndpoint, Observer
from .tokens import IssueRefused, TokenAsked, TokenGiven

__all__ = [
    "Answer",
    "Drip",
    "Gate",
    "Guard",
    "Hang",
    "Huge",
    "IdentityEndpoint",
    "IssueRefused",
    "Observer",
    "ReceivedRequest",
    "Reset",
    "Slow",
    "Step",
    "TokenAsked",
    "TokenGiven",
    "Truncated",
]
