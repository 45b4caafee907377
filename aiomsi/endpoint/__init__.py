"""A managed identity endpoint of your own: a real HTTP server on loopback that speaks the host's side of the protocols.

It imports nothing else of aiomsi, so that a client and this endpoint cannot be wrong in the same way.
"""

from .domains import Domains
from .faults import Answer, Drip, Expired, Hang, Huge, Refused, Reset, Skewed, Slow, Step, Truncated
from .gate import Gate
from .guard import Guard
from .hits import Hits
from .received import ReceivedRequest
from .reception import Observer
from .script import During, OnRequests, Rule
from .server import IdentityEndpoint
from .spelling import parse_step
from .tokens import IssueRefused, TokenAsked, TokenGiven

__all__ = [
    "Answer",
    "Domains",
    "Drip",
    "During",
    "Expired",
    "Gate",
    "Guard",
    "Hang",
    "Hits",
    "Huge",
    "IdentityEndpoint",
    "IssueRefused",
    "Observer",
    "OnRequests",
    "ReceivedRequest",
    "Refused",
    "Reset",
    "Rule",
    "Skewed",
    "Slow",
    "Step",
    "TokenAsked",
    "TokenGiven",
    "Truncated",
    "parse_step",
]
