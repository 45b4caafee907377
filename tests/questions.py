"""How to ask each host that the emulator plays, without any client of ours."""

from __future__ import annotations

import base64
import json
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from aiomsi.endpoint import IdentityEndpoint

__all__ = [
    "EVERY_HOST",
    "JWT_BEARER",
    "METADATA_PATH",
    "NOW",
    "VAULT",
    "Client",
    "Question",
    "Reply",
    "claims",
    "client_of",
    "proper",
]

NOW = 1_760_000_000.0
VAULT = "https://vault.azure.net"
METADATA_PATH = "/metadata/identity/oauth2/token"
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
EVERY_HOST = (
    "app_service",
    "app_service_2017",
    "imds",
    "azure_ml",
    "cloud_shell",
    "azure_arc",
    "service_fabric",
    "entra",
)


@dataclass(frozen=True)
class Question:
    """A request that a test sends: a proper one, until the test changes something about it."""

    url: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] | None = None

    @property
    def method(self) -> str:
        return "GET" if self.form is None else "POST"

    def but(self, **changes: str | None) -> Question:
        """Return the same with other parameters in its query or form; those that are None are left out."""
        given = {**(self.query if self.form is None else self.form), **changes}
        kept = {name: value for name, value in given.items() if value is not None}
        return replace(self, query=kept) if self.form is None else replace(self, form=kept)

    def with_headers(self, **headers: str) -> Question:
        return replace(self, headers={**self.headers, **headers})


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.content)


class Client:
    """Sends questions, every one of them on a connection of its own; it trusts the endpoint's authority alone."""

    def __init__(self, session: aiohttp.ClientSession, root: Path) -> None:
        self.session = session
        self.root = root

    async def send(self, question: Question) -> Reply:
        trusted = self.root / "ca.pem"
        async with self.session.request(
            question.method,
            question.url,
            params=question.query,
            headers=question.headers,
            data=question.form,
            ssl=ssl.create_default_context(cafile=trusted) if trusted.exists() else True,
        ) as response:
            return Reply(response.status, response.headers, await response.read())

    async def ask(self, endpoint: IdentityEndpoint, host: str, **changes: str | None) -> Reply:
        """Ask as *host* wants to be asked, answering a challenge."""
        question = proper(endpoint, host).but(**changes)
        if host != "azure_arc":
            return await self.send(question)
        return await self.send(question.with_headers(Authorization=f"Basic {await self.new_key(endpoint)}"))

    async def new_key(self, endpoint: IdentityEndpoint) -> str:
        """Return what is in the key file that the agent of Arc names."""
        return self.key_file((await self.send(proper(endpoint, "azure_arc"))).headers).read_text()

    def key_file(self, headers: Mapping[str, str]) -> Path:
        scheme, _, path = headers["WWW-Authenticate"].partition(" realm=")
        assert (scheme, path[0]) == ("Basic", "/")
        return self.root / path[1:]


@asynccontextmanager
async def client_of(root: Path) -> AsyncIterator[Client]:
    """Yield a client that does not reuse connections, for an endpoint whose files are below *root*."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        yield Client(session, root)


def proper(endpoint: IdentityEndpoint, host: str) -> Question:  # noqa: PLR0911  # One for each host.
    """Return a proper question, built from the variables that the endpoint hands out."""
    variables = endpoint.environ(host)
    metadata = {"Metadata": "true"}
    match host:
        case "app_service":
            query = {"api-version": "2019-08-01", "resource": VAULT}
            return Question(variables["IDENTITY_ENDPOINT"], query, {"X-IDENTITY-HEADER": variables["IDENTITY_HEADER"]})
        case "app_service_2017":
            query = {"api-version": "2017-09-01", "resource": VAULT}
            return Question(variables["MSI_ENDPOINT"], query, {"secret": variables["MSI_SECRET"]})
        case "azure_ml":
            query = {"api-version": "2017-09-01", "resource": VAULT}
            return Question(variables["MSI_ENDPOINT"], query, {"secret": variables["MSI_SECRET"]})
        case "cloud_shell":
            return Question(variables["MSI_ENDPOINT"], headers=metadata, form={"resource": VAULT})
        case "azure_arc":
            query = {"api-version": "2020-06-01", "resource": VAULT}
            return Question(variables["IDENTITY_ENDPOINT"], query, metadata)
        case "service_fabric":
            query = {"api-version": "2019-07-01-preview", "resource": VAULT}
            return Question(variables["IDENTITY_ENDPOINT"], query, {"Secret": variables["IDENTITY_HEADER"]})
        case "imds":
            query = {"api-version": "2018-02-01", "resource": VAULT}
            return Question(variables["AZURE_POD_IDENTITY_AUTHORITY_HOST"] + METADATA_PATH, query, metadata)
    assert host == "entra"
    form = {
        "client_id": variables["AZURE_CLIENT_ID"],
        "grant_type": "client_credentials",
        "scope": f"{VAULT}/.default",
        "client_assertion_type": JWT_BEARER,
        "client_assertion": Path(variables["AZURE_FEDERATED_TOKEN_FILE"]).read_text(),
    }
    url = f"{variables['AZURE_AUTHORITY_HOST']}{variables['AZURE_TENANT_ID']}/oauth2/v2.0/token"
    return Question(url, form=form)


def claims(token: str) -> dict[str, Any]:
    """Return the payload of *token*."""
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))  # type: ignore[no-any-return]
