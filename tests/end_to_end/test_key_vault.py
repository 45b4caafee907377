"""From the endpoint through both ways of sending tokens to a key vault, under a name and at a port as in Azure."""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol, TypeAlias

import aiohttp
import pytest
from aiohttp import web
from azure.core.exceptions import ClientAuthenticationError
from azure.keyvault.secrets.aio import SecretClient
from support import internet

from aiomsi import AZURE_PUBLIC_CLOUD, BearerAuth, TokenProvider
from aiomsi._token import unverified_claims
from aiomsi.adapters.azure_core import TokenCredential
from aiomsi.endpoint import IdentityEndpoint
from aiomsi.endpoint.tokens import FAKE_TENANT_ID
from aiomsi.sources import ManagedIdentity, Surroundings, WorkloadIdentity
from aiomsi.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from support import Internet

RESOURCE = "https://vault.azure.net"
ENTRA = "https://login.microsoftonline.com"
OTHER_TENANT = "55555555-aaaa-4bbb-8ccc-000000000005"
ALLOWED_TENANT = "66666666-aaaa-4bbb-8ccc-000000000006"
NOT_BEFORE = '"nbf":{"essential":true,"value":"1760000000"}'
CLAIMS = base64.b64encode(f'{{"access_token":{{{NOT_BEFORE}}}}}'.encode()).decode()
REVOKED = f'Bearer realm="", authorization_uri="{ENTRA}/common/oauth2/authorize", error="{{}}", claims="{CLAIMS}"'
API = {"api-version": "7.4"}
TWO_DAYS = 172_800  # Seconds; a token of the endpoint lives for one day.
CROWD = 60


class Vault:
    """A key vault of *tenant_id*, which asks whoever comes without a good token for one, as the documentation says.

    It names the error *revocation* to who comes with one of the tokens in *revoked*; *sent* are the tokens that came.
    """

    def __init__(self) -> None:
        self.host = f"vault-{uuid.uuid4().hex[:12]}.vault.azure.net"  # The SDK remembers challenges for ever.
        self.tenant_id = FAKE_TENANT_ID
        self.revocation = "insufficient_claims"
        self.revoked: set[str | None] = set()
        self.sent: list[str | None] = []
        self.secrets = {"name": "value"}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        self.sent.append(token or None)
        if token in self.revoked:
            return refusal(REVOKED.format(self.revocation))
        if scheme != "Bearer" or not self.takes(token):
            return refusal(f'Bearer authorization="{ENTRA}/{self.tenant_id}", resource="{RESOURCE}"')
        name = request.path.split("/")[2]
        if request.method == "PUT":
            self.secrets[name] = (await request.json())["value"]
        return web.json_response({"id": f"https://{self.host}/secrets/{name}/1", "value": self.secrets[name]})

    def takes(self, token: str) -> bool:
        """Return whether *token* is for key vaults, of this one's tenant, and still good."""
        claims = unverified_claims(token) or {}
        return (
            claims.get("aud") == RESOURCE
            and claims.get("tid") == self.tenant_id
            and claims.get("nbf", 0) <= time.time() < claims.get("exp", 0)
        )


def refusal(challenge: str) -> web.Response:
    error = {"code": "Unauthorized", "message": "AKV10000: Request is missing a Bearer or PoP token."}
    return web.json_response({"error": error}, status=401, headers={"WWW-Authenticate": challenge})


@pytest.fixture
def vault() -> Vault:
    return Vault()


@pytest.fixture
async def net(tmp_path: Path, vault: Vault) -> AsyncIterator[Internet]:
    async with internet(tmp_path, vault.answer, vault.host) as found:
        yield found


@pytest.fixture
async def endpoint() -> AsyncIterator[IdentityEndpoint]:
    async with IdentityEndpoint() as opened:
        yield opened


def managed_identity(endpoint: IdentityEndpoint) -> ManagedIdentity:
    return ManagedIdentity(surroundings=Surroundings(environ=endpoint.environ("app_service")))


@pytest.fixture
async def identity(endpoint: IdentityEndpoint) -> AsyncIterator[TokenProvider]:
    """A provider on the real clock, which the vault goes by."""
    async with TokenProvider(managed_identity(endpoint)) as opened:
        yield opened


class Refused(Exception):  # noqa: N818
    """A 401 that the program sees."""


class Secrets(Protocol):
    """A vault as a program sees it."""

    async def get(self) -> str | None:
        """Return the secret."""

    async def set(self, value: str) -> None:
        """Replace the secret."""


class PlainSecrets:
    """The vault at *url*, read with nothing but aiohttp."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def get(self) -> str | None:
        return await self._send("GET", None)

    async def set(self, value: str) -> None:
        await self._send("PUT", {"value": value})

    async def _send(self, method: str, body: dict[str, str] | None) -> str | None:
        url = f"{self._url}/secrets/name"
        async with self._session.request(method, url, params=API, json=body) as response:
            if response.status == 401:
                raise Refused
            response.raise_for_status()
            value: str = (await response.json())["value"]
            return value


@asynccontextmanager
async def through_aiohttp(provider: TokenProvider, vault: Vault, net: Internet) -> AsyncIterator[Secrets]:
    """Yield a vault that is reached by an `aiohttp.ClientSession` with a `BearerAuth`."""
    context = ssl.create_default_context(cadata=net.authority.decode())
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context),
        middlewares=[BearerAuth(provider, AZURE_PUBLIC_CLOUD, allowed_tenants=[ALLOWED_TENANT])],
        proxy=net.environ["HTTPS_PROXY"],
        timeout=aiohttp.ClientTimeout(total=30),
    ) as session:
        yield PlainSecrets(session, f"https://{vault.host}")


class SDKSecrets:
    """The vault read with azure-keyvault-secrets."""

    def __init__(self, client: SecretClient) -> None:
        self._client = client

    async def get(self) -> str | None:
        try:
            value: str | None = (await self._client.get_secret("name")).value
        except ClientAuthenticationError:
            raise Refused from None
        return value

    async def set(self, value: str) -> None:
        await self._client.set_secret("name", value)


@asynccontextmanager
async def through_the_sdk(provider: TokenProvider, vault: Vault, net: Internet) -> AsyncIterator[Secrets]:
    """Yield a vault that is reached by a `SecretClient` with a `TokenCredential`."""
    async with SecretClient(
        f"https://{vault.host}",
        TokenCredential(provider),
        proxies={"https": net.environ["HTTPS_PROXY"]},
        connection_verify=net.environ["SSL_CERT_FILE"],
        use_env_settings=False,
    ) as client:
        yield SDKSecrets(client)


Way: TypeAlias = "Callable[[TokenProvider, Vault, Internet], AbstractAsyncContextManager[Secrets]]"


@pytest.fixture(params=[through_aiohttp, through_the_sdk], ids=["aiohttp", "azure_keyvault_secrets"])
def reach(request: pytest.FixtureRequest) -> Way:
    """How a program reaches its vault."""
    way: Way = request.param
    return way


@pytest.fixture
async def secrets(reach: Way, identity: TokenProvider, vault: Vault, net: Internet) -> AsyncIterator[Secrets]:
    async with reach(identity, vault, net) as found:
        yield found


async def test_a_secret_is_read_and_replaced(
    secrets: Secrets, vault: Vault, net: Internet, endpoint: IdentityEndpoint
) -> None:
    """The vault, under its own name and at the port of https, takes the one token that is fetched for it."""
    assert await secrets.get() == "value"
    await secrets.set("another value")
    assert await secrets.get() == "another value"
    assert set(net.hosts) == {f"{vault.host}:443"}
    assert [request.resource for request in endpoint.token_requests] == [RESOURCE]


async def test_only_the_sdk_asks_without_a_token_first(
    reach: Way, secrets: Secrets, vault: Vault, identity: TokenProvider
) -> None:
    """The mapping of `BearerAuth` says what the SDK is told by the challenge, so that it needs one request less."""
    await secrets.get()
    token = await identity.token(RESOURCE)
    assert vault.sent == ([token] if reach is through_aiohttp else [None, token])


async def test_a_crowd_needs_one_token(secrets: Secrets, endpoint: IdentityEndpoint) -> None:
    """However many read at once, before there is a token, the endpoint is asked once."""
    assert await asyncio.gather(*(secrets.get() for _ in range(CROWD))) == ["value"] * CROWD
    assert len(endpoint.token_requests) == 1


@pytest.mark.parametrize("revocation", ["insufficient_claims", "invalid_token"])
async def test_a_token_that_was_revoked_is_replaced(
    secrets: Secrets, vault: Vault, identity: TokenProvider, endpoint: IdentityEndpoint, revocation: str
) -> None:
    """The program sees nothing but its secret; the vault gets another token, and gets it from then on."""
    await secrets.get()
    first = await identity.token(RESOURCE)
    vault.revocation = revocation
    vault.revoked.add(first)
    vault.sent.clear()
    assert await secrets.get() == "value"
    second = await identity.token(RESOURCE)
    assert first != second
    assert await secrets.get() == "value"
    assert vault.sent == [first, second, second]
    assert len(endpoint.token_requests) == 2


async def test_what_is_sent_with_a_token_that_was_revoked_arrives_whole(
    secrets: Secrets, vault: Vault, identity: TokenProvider
) -> None:
    """The body goes along when the request is sent again."""
    await secrets.get()
    vault.revoked.add(await identity.token(RESOURCE))
    await secrets.set("another value")
    assert vault.secrets == {"name": "another value"}


async def test_a_crowd_whose_token_was_revoked_needs_one_more(
    secrets: Secrets, vault: Vault, identity: TokenProvider, endpoint: IdentityEndpoint
) -> None:
    """Everybody gets the secret, and the endpoint is asked once for all of them."""
    await secrets.get()
    vault.revoked.add(await identity.token(RESOURCE))
    assert await asyncio.gather(*(secrets.get() for _ in range(CROWD))) == ["value"] * CROWD
    assert len(endpoint.token_requests) == 2


async def test_a_vault_of_a_tenant_that_the_identity_is_not_in(
    secrets: Secrets, vault: Vault, endpoint: IdentityEndpoint
) -> None:
    """A managed identity has one tenant: the program sees the 401, after no more than one round."""
    vault.tenant_id = OTHER_TENANT
    with pytest.raises(Refused):
        await secrets.get()
    assert len(vault.sent) <= 2
    assert len(endpoint.token_requests) == 1


async def test_a_token_that_has_ended(reach: Way, vault: Vault, net: Internet) -> None:
    """On a machine whose clock is days slow no token will do: the program sees the 401, after one round."""
    slow = ManualClock(time.time() - TWO_DAYS)
    async with (
        IdentityEndpoint(wall=slow.wall) as endpoint,
        TokenProvider(managed_identity(endpoint), clock=slow) as provider,
        reach(provider, vault, net) as secrets,
    ):
        with pytest.raises(Refused):
            await secrets.get()
        assert len(endpoint.token_requests) <= 2
    assert len(vault.sent) == 2


async def test_a_vault_of_another_tenant_asks_for_claims(
    reach: Way, vault: Vault, net: Internet, tmp_path: Path
) -> None:
    """What the vault's challenges say, the tenant and later the claims, is what Entra is asked for."""
    vault.tenant_id = ALLOWED_TENANT
    async with IdentityEndpoint(hosts=["entra"], root=tmp_path / "root") as entra:
        source = WorkloadIdentity(surroundings=Surroundings(environ=entra.environ("entra")))
        async with TokenProvider(source) as provider, reach(provider, vault, net) as secrets:
            assert await secrets.get() == "value"
            vault.revoked.add(vault.sent[-1])
            assert await secrets.get() == "value"
    asked = [
        (request.path.split("/")[1], NOT_BEFORE in dict(request.form).get("claims", ""))
        for request in entra.token_requests
    ]
    # Before the first challenge the SDK asks for no token, and `BearerAuth` for one of the identity's own tenant.
    own = [(FAKE_TENANT_ID, False)] if reach is through_aiohttp else []
    assert asked == [*own, (ALLOWED_TENANT, False), (ALLOWED_TENANT, True)]
