"""Where tokens come from. Each source says how to get one token; `TokenProvider` does the rest."""

from aiomsi._source import Source, TokenRequest
from aiomsi.sources._surroundings import Surroundings
from aiomsi.sources.azure_cli import AzureCLI
from aiomsi.sources.chain import FirstAvailable
from aiomsi.sources.connection_string import from_connection_string
from aiomsi.sources.detected import default
from aiomsi.sources.managed_identity import ManagedIdentity

__all__ = [
    "AzureCLI",
    "FirstAvailable",
    "ManagedIdentity",
    "Source",
    "Surroundings",
    "TokenRequest",
    "default",
    "from_connection_string",
]
