"""Tokens for the connections of aiokafka, such as those to Event Hubs (extra `kafka`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiomsi._errors import AiomsiError
from aiomsi._resource import resource_of

try:
    from aiokafka.abc import AbstractTokenProvider
    from aiokafka.errors import KafkaConnectionError
except ImportError as error:
    raise ImportError("aiomsi.adapters.kafka needs the extra `kafka`; run: pip install 'aiomsi[kafka]'") from error

if TYPE_CHECKING:
    from aiomsi._provider import TokenProvider as Provider

__all__ = ["TokenProvider"]


class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types.
    """Gives aiokafka a token for *resource* whenever it opens a connection.

        tokens = kafka.TokenProvider(provider, "https://mynamespace.servicebus.windows.net")
        producer = AIOKafkaProducer(
            bootstrap_servers="mynamespace.servicebus.windows.net:9093",
            security_protocol="SASL_SSL",
            ssl_context=ssl.create_default_context(),
            sasl_mechanism="OAUTHBEARER",
            sasl_oauth_token_provider=tokens,
        )

    The resource of Event Hubs is the address of the namespace, without a port. One object serves any number of
    producers, consumers and admin clients. A connection keeps the token with which it was opened; when that ends, the
    broker closes the connection, and aiokafka opens another.

    At level DEBUG aiokafka logs all that it sends, tokens too; keep its logger `aiokafka.conn` at INFO or above.

    Source: Microsoft documentation, "Azure Event Hubs for Apache Kafka"; RFC 7628.

    Raises:
        TypeError: *provider* is none, or *resource* no string.
        ValueError: *resource* is none.
    """

    def __init__(self, provider: Provider, resource: str) -> None:
        if not callable(getattr(provider, "access_token", None)):
            raise TypeError(f"provider is a TokenProvider of aiomsi, not {type(provider).__name__}")
        self._provider = provider
        self._resource = resource_of(resource)

    def __repr__(self) -> str:
        return f"<kafka.TokenProvider {self._resource} {self._provider!r}>"

    async def token(self) -> str:
        """Return the token for a new connection.

        Raises:
            aiokafka.errors.KafkaConnectionError: no token could be had; the cause says why.
        """
        try:
            return await self._provider.token(self._resource)
        except Exception as error:
            # Any other class would end the tasks of aiokafka that open connections again, for good.
            text = str(error) if isinstance(error, AiomsiError) else type(error).__name__
            raise KafkaConnectionError(f"no token for Kafka: {text}") from error

    def extensions(self) -> dict[str, str]:
        """Return what is sent beside the token: nothing."""
        return {}
