"""Tokens for the clients of the Azure SDK: the real ones, over sockets and TLS, to services on loopback."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
import uuid
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from azure.core import AsyncPipelineClient
from azure.core.credentials import TokenRequestOptions
from azure.core.credentials_async import AsyncSupportsTokenInfo, AsyncTokenCredential
from azure.core.exceptions import ClientAuthenticationError
from azure.core.pipeline.policies import AsyncBearerTokenCredentialPolicy, AsyncRetryPolicy
from azure.core.pipeline.transport import AioHttpTransport
from azure.core.rest import HttpRequest
from azure.identity.aio import ChainedTokenCredential
from azure.keyvault.secrets.aio import SecretClient
from azure.storage.blob.aio import BlobServiceClient
from support import internet

from aiomsi import EndpointError, TokenProvider, TokenRefusedError
from aiomsi.adapters.azure_core import TokenCredential
from aiomsi.testing import ManualClock, ScriptedSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from support import Internet

VAULT = "https://vault.azure.net"
SCOPE = f"{VAULT}/.default"
STORAGE = "https://storage.azure.com"
TENANT = "00000000-0000-0000-0000-00000000000a"
CLAIMS = '{"access_token":{"nbf":{"essential":true,"value":"1760000000"}}}'
CLAIMS_CHALLENGE = (
    'Bearer realm="", authorization_uri="https://login.example/common", error="insufficient_claims", '
    f'claims="{base64.b64encode(CLAIMS.encode()).decode()}"'
)
CALLS: dict[str, Callable[[TokenCredential], Awaitable[Any]]] = {
    "get_token": lambda credential: credential.get_token(SCOPE),
    "get_token_info": lambda credential: credential.get_token_info(SCOPE),
}


@pytest.fixture
def credential(provider: TokenProvider) -> TokenCredential:
    return TokenCredential(provider)


# The protocols


async def test_it_is_what_azure_core_takes(credential: TokenCredential) -> None:
    """To a type checker and at run time it is both kinds of asynchronous credential."""
    first: AsyncTokenCredential = credential
    second: AsyncSupportsTokenInfo = credential
    assert isinstance(first, AsyncTokenCredential)
    assert isinstance(second, AsyncSupportsTokenInfo)


def test_azure_core_is_not_imported() -> None:
    """Nothing needs to be installed for it."""
    script = "import sys; import aiomsi.adapters.azure_core; print([x for x in sys.modules if x.startswith('azure')])"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


async def test_a_token_and_its_end(credential: TokenCredential, clock: ManualClock, source: ScriptedSource) -> None:
    """`get_token` gives a named pair, with the end as a whole number that is not too late."""
    source.lifetime = 3600.9
    token = await credential.get_token(SCOPE)
    text, expires_on = token
    assert (text, expires_on) == (token.token, token.expires_on) == ("token-1", int(clock.wall() + 3600))
    assert isinstance(expires_on, int)
    assert [request.resource for request in source.requests] == [VAULT]


async def test_a_token_and_when_to_ask_for_the_next(
    credential: TokenCredential, clock: ManualClock, source: ScriptedSource
) -> None:
    """`get_token_info` says too when to ask again; who then does gets the held one at once, and soon the newer one."""
    source.refresh_in = 1000
    token = await credential.get_token_info(SCOPE)
    now = int(clock.wall())
    assert (token.token, token.token_type) == ("token-1", "Bearer")
    assert (token.expires_on, token.refresh_on) == (now + 86_400, now + 1000)
    await clock.advance(1001)
    assert (await credential.get_token_info(SCOPE)).token == "token-1"
    await clock.settle()
    assert (await credential.get_token_info(SCOPE)).token == "token-2"


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_no_token_is_printed(
    credential: TokenCredential, source: ScriptedSource, call: Callable[[TokenCredential], Awaitable[Any]]
) -> None:
    """Neither by what it returns, where azure-core's own classes do, nor by the credential."""
    source.script("s3cret")
    token = await call(credential)
    assert token.token == "s3cret"
    assert "expires_on=" in repr(token)
    assert "s3cret" not in f"{token!r} {token} {credential!r}"
    assert repr(credential) == "<TokenCredential <TokenProvider source=scripted tokens=1 in_flight=0>>"


@pytest.mark.parametrize("scopes", [(), (SCOPE, SCOPE)], ids=len)
async def test_a_token_is_for_one_scope(credential: TokenCredential, scopes: tuple[str, ...]) -> None:
    """None or more than one is a mistake of the caller's."""
    for call in (credential.get_token, credential.get_token_info):
        with pytest.raises(ValueError, match="a token is for one scope"):
            await call(*scopes)


async def test_claims_and_a_tenant_reach_the_source(clock: ManualClock) -> None:
    """In both ways in which clients pass them."""
    source = ScriptedSource(chooses_tenant=True)
    async with TokenProvider(source, clock=clock) as provider:
        credential = TokenCredential(provider)
        await credential.get_token(SCOPE, claims=CLAIMS, tenant_id=TENANT, enable_cae=True)
        options = TokenRequestOptions(claims=CLAIMS, tenant_id=TENANT, enable_cae=True)
        await clock.advance(60)
        await credential.get_token_info(SCOPE, options=options)
    assert [(request.claims, request.tenant_id) for request in source.requests] == [(CLAIMS, TENANT)] * 2


async def test_what_says_nothing_changes_nothing(credential: TokenCredential, source: ScriptedSource) -> None:
    """Clients pass None, empty texts, and keywords of their own."""
    await credential.get_token(SCOPE, claims=None, tenant_id="", enable_cae=True, of_the_future=1)
    await credential.get_token_info(SCOPE, options={"claims": "", "of_the_future": 1})
    await credential.get_token_info(VAULT, options=None)
    assert [(request.claims, request.tenant_id) for request in source.requests] == [(None, None)]


async def test_closing_it_leaves_the_provider_open(credential: TokenCredential, provider: TokenProvider) -> None:
    """The provider is shared; who made it closes it."""
    async with credential as entered:
        assert entered is credential
    await credential.close()
    assert await provider.token(VAULT) == "token-1"


def test_a_wrong_argument_is_told_at_once() -> None:
    """Not with the first token."""
    with pytest.raises(TypeError, match="provider is a TokenProvider, not ScriptedSource"):
        TokenCredential(ScriptedSource())  # type: ignore[arg-type]


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("victim", [0, 2, 4], ids=["first", "middle", "last"])
async def test_a_cancelled_call_takes_nobody_along(
    credential: TokenCredential,
    source: ScriptedSource,
    clock: ManualClock,
    call: Callable[[TokenCredential], Awaitable[Any]],
    victim: int,
) -> None:
    """Whoever is cancelled, the others get the one token."""
    source.held = True
    callers = [asyncio.ensure_future(call(credential)) for _ in range(5)]
    await clock.settle()
    callers[victim].cancel()
    await clock.settle()
    assert [caller.done() for caller in callers].count(True) == 1
    source.release()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(outcomes.pop(victim), asyncio.CancelledError)
    assert [outcome.token for outcome in outcomes if not isinstance(outcome, BaseException)] == ["token-1"] * 4
    assert len(source.requests) == 1


# The clients


class Service:
    """What answers: the *script* of challenges is used up in order, then comes what each kind of request gets."""

    def __init__(self) -> None:
        self.script: list[str] = []
        self.sent: list[str | None] = []
        self.vault = f"vault-{uuid.uuid4().hex[:12]}.vault.azure.net"  # The SDK remembers challenges for ever.

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.sent.append(request.headers.get("Authorization"))
        if self.script:
            return web.Response(status=401, headers={"WWW-Authenticate": self.script.pop(0)})
        if request.path.startswith("/secrets/"):
            return web.json_response({"id": f"https://{self.vault}/secrets/name/1", "value": "value"})
        return web.Response(text="<StorageServiceProperties/>", content_type="application/xml")


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
async def net(tmp_path: Path, service: Service) -> AsyncIterator[Internet]:
    async with internet(tmp_path, service.answer, service.vault, "account.blob.core.windows.net") as found:
        yield found


def _transport(net: Internet) -> Any:
    return AioHttpTransport(connection_verify=net.environ["SSL_CERT_FILE"], use_env_settings=False)


@pytest.fixture
async def live(source: ScriptedSource) -> AsyncIterator[TokenProvider]:
    """A provider on the real clock, which is what the SDK's clients go by."""
    async with TokenProvider(source) as opened:
        yield opened


def _core(net: Internet, credential: TokenCredential) -> AsyncPipelineClient[Any, Any]:
    policy = AsyncBearerTokenCredentialPolicy(credential, SCOPE)
    policies = [AsyncRetryPolicy(), policy]
    return AsyncPipelineClient(f"https://localhost:{net.port}", policies=policies, transport=_transport(net))


def _blobs(net: Internet, credential: TokenCredential) -> BlobServiceClient:
    proxies = {"https": net.environ["HTTPS_PROXY"]}
    url = "https://account.blob.core.windows.net"
    return BlobServiceClient(url, credential=credential, transport=_transport(net), proxies=proxies)


def _secrets(net: Internet, credential: TokenCredential, vault: str) -> SecretClient:
    proxies = {"https": net.environ["HTTPS_PROXY"]}
    return SecretClient(f"https://{vault}", credential=credential, transport=_transport(net), proxies=proxies)


async def _get(net: Internet, client: AsyncPipelineClient[Any, Any]) -> int:
    response = await client.send_request(HttpRequest("GET", f"https://localhost:{net.port}/"))
    return int(response.status_code)


async def test_the_policy_sends_the_token_and_keeps_it(net: Internet, live: TokenProvider, service: Service) -> None:
    """A client asks once, and again only when the next token is due."""
    async with _core(net, TokenCredential(live)) as client:
        assert [await _get(net, client) for _ in range(3)] == [200] * 3
    assert service.sent == ["Bearer token-1"] * 3


async def test_claims_that_a_service_asks_for_reach_the_source(
    net: Internet, live: TokenProvider, service: Service, source: ScriptedSource
) -> None:
    """A claims challenge of continuous access evaluation makes the policy ask for another token."""
    service.script = [CLAIMS_CHALLENGE]
    async with _core(net, TokenCredential(live)) as client:
        assert await _get(net, client) == 200
    assert service.sent == ["Bearer token-1", "Bearer token-2"]
    assert [request.claims for request in source.requests] == [None, CLAIMS]


async def test_a_storage_client_gets_its_token(
    net: Internet, live: TokenProvider, service: Service, source: ScriptedSource
) -> None:
    """The audience that azure-storage-blob asks for is the resource that the source is asked for."""
    async with _blobs(net, TokenCredential(live)) as client:
        await client.get_service_properties()
    assert service.sent == ["Bearer token-1"]
    assert [request.resource for request in source.requests] == [STORAGE]
    assert net.hosts == ["account.blob.core.windows.net:443"]


async def test_a_storage_client_is_told_its_tenant(net: Internet, service: Service) -> None:
    """The challenge of a storage account names its tenant, which the source is asked for."""
    uri = f"https://login.microsoftonline.com/{TENANT}/oauth2/authorize"
    service.script = [f"Bearer authorization_uri={uri} resource_id={STORAGE}"]
    source = ScriptedSource(chooses_tenant=True)
    async with TokenProvider(source) as live, _blobs(net, TokenCredential(live)) as client:
        await client.get_service_properties()
    assert service.sent == ["Bearer token-1", "Bearer token-2"]
    assert [request.tenant_id for request in source.requests] == [None, TENANT]


async def test_a_key_vault_client_gets_its_token(net: Internet, service: Service) -> None:
    """It asks without a token first, then with one of the vault's tenant, then with the claims that it is told."""
    authority = f"https://login.microsoftonline.com/{TENANT}"
    service.script = [f'Bearer authorization="{authority}", resource="{VAULT}"', CLAIMS_CHALLENGE]
    source = ScriptedSource(chooses_tenant=True)
    async with TokenProvider(source) as live, _secrets(net, TokenCredential(live), service.vault) as client:
        assert (await client.get_secret("name")).value == "value"
        assert (await client.get_secret("name")).value == "value"
    assert service.sent == [None, "Bearer token-1", "Bearer token-2", "Bearer token-2"]
    asked = [(request.resource, request.tenant_id, request.claims) for request in source.requests]
    assert asked == [(VAULT, TENANT, None), (VAULT, TENANT, CLAIMS)]


async def test_a_hundred_calls_of_many_clients_cause_one_fetch(
    net: Internet, live: TokenProvider, service: Service, source: ScriptedSource
) -> None:
    """Each client has a token of its own to keep, and all of them come from one fetch."""
    credential = TokenCredential(live)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(_blobs(net, credential)) for _ in range(10)]
        await asyncio.gather(*(client.get_service_properties() for client in clients * 10))
    assert service.sent == ["Bearer token-1"] * 100
    assert len(source.requests) == 1


@pytest.mark.parametrize("victim", [0, 2, 4], ids=["first", "middle", "last"])
async def test_a_cancelled_call_of_a_client_takes_nobody_along(
    net: Internet, live: TokenProvider, service: Service, source: ScriptedSource, clock: ManualClock, victim: int
) -> None:
    """Also the first, who holds the lock under which a client's calls wait for the token."""
    source.held = True
    async with _core(net, TokenCredential(live)) as client:
        callers = [asyncio.create_task(_get(net, client)) for _ in range(5)]
        await clock.settle()
        callers[victim].cancel()
        await clock.settle()
        assert [caller.done() for caller in callers].count(True) == 1
        source.release()
        outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(outcomes.pop(victim), asyncio.CancelledError)
    assert outcomes == [200] * 4
    assert service.sent == ["Bearer token-1"] * 4
    assert len(source.requests) == 1


# Errors


@pytest.mark.parametrize("kind", ["core", "blobs"])
async def test_an_error_comes_out_at_once(
    net: Internet, live: TokenProvider, service: Service, source: ScriptedSource, kind: str
) -> None:
    """No retry policy of the SDK takes it for its own and asks again."""
    source.script(EndpointError("down", retry_after=9))
    credential = TokenCredential(live)
    if kind == "core":
        async with _core(net, credential) as core:
            with pytest.raises(EndpointError, match="down"):
                await _get(net, core)
    else:
        async with _blobs(net, credential) as blobs:
            with pytest.raises(EndpointError, match="down"):
                await blobs.get_service_properties()
    assert service.sent == []
    assert len(source.requests) == 1


async def test_an_error_of_azure_core_s_would_be_retried(
    net: Internet, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why ours are not: the storage clients ask four times, over a minute, for a token that was refused."""

    class Refusing(TokenCredential):
        asked = 0

        async def get_token_info(self, *scopes: str, options: Any = None) -> Any:  # noqa: ARG002
            self.asked += 1
            raise ClientAuthenticationError("no")

    waits: list[float] = []

    async def sleep(duration: float) -> None:
        waits.append(duration)

    transport = _transport(net)
    monkeypatch.setattr(transport, "sleep", sleep)
    credential = Refusing(TokenProvider(ScriptedSource()))
    client = BlobServiceClient("https://account.blob.core.windows.net", credential=credential, transport=transport)
    async with client:
        with pytest.raises(ClientAuthenticationError):
            await client.get_service_properties()
    assert (credential.asked, service.sent) == (4, [])
    assert sum(waits) > 60


async def test_an_error_while_answering_a_challenge_comes_out(
    net: Internet, live: TokenProvider, service: Service, source: ScriptedSource
) -> None:
    """With the 401 that led to it as its cause, and without the token that was refused."""
    source.script("s3cret", TokenRefusedError("not with these claims"))
    service.script = [CLAIMS_CHALLENGE]
    async with _core(net, TokenCredential(live)) as client:
        with pytest.raises(TokenRefusedError, match="not with these claims") as caught:
            await _get(net, client)
    assert "s3cret" not in f"{caught.value!r} {caught.value.__cause__!r}"
    assert len(source.requests) == 2


async def test_an_error_ends_a_chain_of_azure_identity(credential: TokenCredential, source: ScriptedSource) -> None:
    """The chain goes on only after errors of azure-identity; what ours says is in its error."""
    source.script(TokenRefusedError("this identity may not"))
    with pytest.raises(ClientAuthenticationError, match="this identity may not"):
        await ChainedTokenCredential(credential, credential).get_token(SCOPE)
    assert len(source.requests) == 1
