"""Which identity a machine has: the platform's before the developer's, and never the wrong one for speed."""

from __future__ import annotations

import asyncio
import stat
from typing import TYPE_CHECKING

import pytest
from support import PacedClock

from aiomsi import (
    AccessToken,
    AiomsiError,
    ConfigurationError,
    EndpointError,
    SourceUnavailableError,
    TokenProvider,
    TokenRefusedError,
)
from aiomsi.endpoint import Answer, Gate, IdentityEndpoint, Refused
from aiomsi.sources import AzureCLI, FirstAvailable, ManagedIdentity, Surroundings, TokenRequest, default
from aiomsi.testing import ManualClock, ScriptedSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from aiomsi.sources import Source

VAULT = "https://vault.azure.net"
NOT_ANSWERING = "http://127.0.0.1:1"


@pytest.fixture
async def endpoint() -> AsyncIterator[IdentityEndpoint]:
    async with IdentityEndpoint() as opened:
        yield opened


@pytest.fixture
def firmware(tmp_path: Path) -> Path:
    """A file system whose firmware says nothing yet."""
    (tmp_path / "sys/class/dmi/id").mkdir(parents=True)
    return tmp_path


def says(firmware: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (firmware / "sys/class/dmi/id" / name).write_text(text)
    return firmware


def on_azure(firmware: Path) -> Path:
    return says(firmware, chassis_asset_tag="7783-7084-3265-9085-8269-3286-77")


def machine(root: Path, imds_url: str = NOT_ANSWERING, **environ: str) -> ManagedIdentity:
    return ManagedIdentity(surroundings=Surroundings(environ=environ, root=root, imds_url=imds_url))


async def fetch(source: Source) -> AccessToken:
    return await source.fetch(TokenRequest(VAULT))


@pytest.fixture
def tool() -> ScriptedSource:
    """A developer's tool that is logged in."""
    return ScriptedSource(name="tool")


# The order


async def test_the_first_that_is_there_answers() -> None:
    """Only an absent source moves on to the next."""
    sources = [ScriptedSource(name=name) for name in "abc"]
    sources[0].script(SourceUnavailableError("not here"))
    assert (await fetch(FirstAvailable(*sources))).source == "b"
    assert [len(source.requests) for source in sources] == [1, 1, 0]


@pytest.mark.parametrize("error", [TokenRefusedError("no"), EndpointError("down"), KeyError("bug")])
async def test_any_other_error_stops_the_chain(error: Exception) -> None:
    """Somebody who is there and says no is not passed over for somebody else."""
    sources = [ScriptedSource(), ScriptedSource()]
    sources[0].script(error)
    with pytest.raises(type(error)) as caught:
        await fetch(FirstAvailable(*sources))
    assert caught.value is error
    assert sources[1].requests == []


async def test_a_host_that_the_environment_names_is_asked_and_nobody_else(
    endpoint: IdentityEndpoint, firmware: Path, tool: ScriptedSource
) -> None:
    """With the platform's variables set there is no probe, and the developer's tool is not even started."""
    source = FirstAvailable(machine(firmware, **endpoint.environ("app_service")), tool)
    assert (await fetch(source)).source == "app_service"
    assert (len(endpoint.requests), tool.requests) == (1, [])


async def test_a_named_host_that_is_down_is_an_outage(firmware: Path, tool: ScriptedSource) -> None:
    """A sidecar that is down for a moment never hands the service to whoever ran `az login`."""
    clock = PacedClock()
    named = machine(firmware, IDENTITY_ENDPOINT=f"{NOT_ANSWERING}/msi/token", IDENTITY_HEADER="x")
    fetching = asyncio.ensure_future(FirstAvailable(named, tool).fetch(TokenRequest(VAULT, clock=clock)))
    await clock.pace(fetching)
    assert isinstance(fetching.exception(), EndpointError)
    assert tool.requests == []


async def test_the_firmware_of_an_azure_vm_is_believed_without_a_probe(
    endpoint: IdentityEndpoint, firmware: Path, tool: ScriptedSource
) -> None:
    """On an Azure VM the first request is the one for the token."""
    assert (await fetch(FirstAvailable(machine(on_azure(firmware), endpoint.url), tool))).source == "imds"
    assert [request.host for request in endpoint.token_requests] == ["imds"]
    assert (len(endpoint.requests), tool.requests) == (1, [])


async def test_the_firmware_of_another_maker_is_believed_without_a_probe(
    endpoint: IdentityEndpoint, firmware: Path, tool: ScriptedSource
) -> None:
    """On a laptop nothing is sent to the address of the Instance Metadata Service."""
    source = FirstAvailable(machine(says(firmware, sys_vendor="LENOVO"), endpoint.url), tool)
    assert (await fetch(source)).source == "tool"
    assert endpoint.requests == []


async def test_an_azure_vm_without_an_identity_leaves_it_to_the_developer(firmware: Path, tool: ScriptedSource) -> None:
    """A developer who works on an Azure VM reaches his own login."""
    async with IdentityEndpoint() as endpoint:
        refusal = {"error": "invalid_request", "error_description": "Identity not found"}
        endpoint.script(then=Answer(400, refusal))
        source = FirstAvailable(machine(on_azure(firmware), endpoint.url), tool)
        assert (await fetch(source)).source == "tool"


# The probe


async def test_where_nothing_tells_imds_is_probed_and_wins(
    endpoint: IdentityEndpoint, firmware: Path, tool: ScriptedSource
) -> None:
    """The tool was started meanwhile, but its token is dropped for the machine's."""
    assert (await fetch(FirstAvailable(machine(firmware, endpoint.url), tool))).source == "imds"
    assert [bool(request.query) for request in endpoint.requests] == [False, True]
    assert len(tool.requests) == 1


async def test_where_nobody_answers_the_probe_the_tool_does(firmware: Path, tool: ScriptedSource) -> None:
    """The tool's token needs no second start."""
    assert (await fetch(FirstAvailable(machine(firmware), tool))).source == "tool"
    assert len(tool.requests) == 1


async def test_the_tool_s_token_waits_for_the_verdict(firmware: Path, tool: ScriptedSource) -> None:
    """The right identity comes before speed: a slow IMDS is waited for, though the tool is done."""
    entered, answered = asyncio.Event(), asyncio.Event()

    async def slow_imds(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        entered.set()
        await answered.wait()
        writer.write(b"HTTP/1.1 404 Not Found\r\nServer: something else\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(slow_imds, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        source = FirstAvailable(machine(firmware, f"http://127.0.0.1:{port}"), tool)
        fetching = asyncio.ensure_future(source.fetch(TokenRequest(VAULT, clock=ManualClock())))
        await entered.wait()
        await ManualClock().settle()
        assert len(tool.requests) == 1
        assert not fetching.done()
        answered.set()
        assert (await fetching).source == "tool"


async def test_the_probe_takes_a_second_at_most(firmware: Path, tool: ScriptedSource) -> None:
    """An address that swallows everything does not hold a developer up for longer."""
    entered = asyncio.Event()

    async def swallow(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        entered.set()
        await _reader.read()
        writer.close()
        await writer.wait_closed()

    clock = PacedClock()
    async with await asyncio.start_server(swallow, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        source = FirstAvailable(machine(firmware, f"http://127.0.0.1:{port}"), tool)
        fetching = asyncio.ensure_future(source.fetch(TokenRequest(VAULT, clock=clock)))
        await entered.wait()
        await clock.advance(0.99)
        assert not fetching.done(), "less would overlook a busy host"
        await clock.advance(0.01)
        async with asyncio.timeout(10):
            assert (await fetching).source == "tool"


class BusyClock(ManualClock):
    """A clock that passes while the event loop is blocked: whatever is due by then is called at once."""

    def block(self, seconds: float) -> None:
        self._passed += seconds
        due = [timer for moment, _, timer in self._timers if moment <= self._passed and not timer.cancelled]
        self._timers = [entry for entry in self._timers if entry[2] not in due]
        for timer in due:
            timer.callback()


async def test_a_busy_program_does_not_overlook_its_host(
    endpoint: IdentityEndpoint, firmware: Path, tool: ScriptedSource
) -> None:
    """A loop that is blocked while the answer to the probe comes in sees it afterwards, and nobody becomes another."""
    clock = BusyClock()
    source = FirstAvailable(machine(firmware, endpoint.url), tool)
    fetching = asyncio.ensure_future(source.fetch(TokenRequest(VAULT, clock=clock)))
    while not clock.timers:  # noqa: ASYNC110  (the probe has begun when there is one, which sets no event)
        await asyncio.sleep(0)
    clock.block(1.2)
    assert (await fetching).source == "imds"
    assert tool.requests != []


async def test_a_mac_is_no_machine_on_azure(firmware: Path, endpoint: IdentityEndpoint, tool: ScriptedSource) -> None:
    """There, nothing has to be probed."""
    surroundings = Surroundings(environ={}, platform="darwin", root=firmware, imds_url=endpoint.url)
    assert (await fetch(FirstAvailable(ManagedIdentity(surroundings=surroundings), tool))).source == "tool"
    assert endpoint.requests == []


async def test_the_probe_hears_what_comes_within_the_second(firmware: Path, tool: ScriptedSource) -> None:
    """A host that takes its time is not overlooked."""
    entered, answered = asyncio.Event(), asyncio.Event()

    async def take_time(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        entered.set()
        await answered.wait()
        writer.write(b"HTTP/1.1 400 Bad Request\r\nServer: IMDS/1\r\nContent-Length: 2\r\n\r\nno")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    clock = ManualClock()
    async with await asyncio.start_server(take_time, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        source = FirstAvailable(machine(firmware, f"http://127.0.0.1:{port}"), tool)
        fetching = asyncio.ensure_future(source.fetch(TokenRequest(VAULT, clock=clock)))
        await entered.wait()
        await clock.advance(0.99)
        answered.set()
        with pytest.raises(TokenRefusedError):
            await fetching


async def test_a_positive_finding_sticks(endpoint: IdentityEndpoint, firmware: Path, tool: ScriptedSource) -> None:
    """Once IMDS has been found it is not probed again, and its silence is an outage."""
    source = FirstAvailable(machine(firmware, endpoint.url), tool)
    await fetch(source)
    await fetch(source)
    assert [bool(request.query) for request in endpoint.requests] == [False, True, True]
    await endpoint.aclose()
    clock = PacedClock()
    fetching = asyncio.ensure_future(source.fetch(TokenRequest(VAULT, clock=clock)))
    await clock.pace(fetching)
    assert isinstance(fetching.exception(), EndpointError)
    assert len(tool.requests) == 1


async def test_a_negative_finding_does_not_stick(firmware: Path, tool: ScriptedSource) -> None:
    """A network that comes up late is found at the next fetch."""
    async with IdentityEndpoint() as endpoint:
        source = FirstAvailable(machine(firmware, endpoint.url), tool)
        await endpoint.aclose()
        assert (await fetch(source)).source == "tool"
        await endpoint.start()
        assert (await fetch(source)).source == "imds"


@pytest.mark.parametrize("page", [b"x" * 100_000, b"<html>please log in</html>"])
async def test_whatever_answers_the_probe_instead_does_not_stop_the_tool(
    firmware: Path, tool: ScriptedSource, page: bytes
) -> None:
    """A captive portal is not IMDS, however odd its answer."""

    async def portal(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(portal, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert (await fetch(FirstAvailable(machine(firmware, f"http://127.0.0.1:{port}"), tool))).source == "tool"


async def test_two_fetches_at_once_are_one_identity(
    endpoint: IdentityEndpoint, firmware: Path, tool: ScriptedSource
) -> None:
    """If another fetch finds the machine's identity while this one's probe was in vain, the tool's token is dropped."""
    here = machine(firmware)
    tool.held = True
    source = FirstAvailable(here, tool)
    fetching = asyncio.ensure_future(source.fetch(TokenRequest(VAULT)))
    while not tool.requests:  # noqa: ASYNC110  (turns of the loop, not time)
        await asyncio.sleep(0)
    await asyncio.wait([asyncio.ensure_future(here.probe(TokenRequest(VAULT)))])
    object.__setattr__(here._surroundings, "imds_url", endpoint.url)
    await here.fetch(TokenRequest(VAULT))
    tool.release()
    assert (await fetching).source == "imds"


async def test_a_probe_that_fails_in_another_way_is_raised(firmware: Path, tool: ScriptedSource) -> None:
    """A misconfiguration is told, though the tool has a token."""
    with pytest.raises(ConfigurationError, match="imds_url"):
        await fetch(FirstAvailable(machine(firmware, "nonsense"), tool))


async def test_alone_or_last_the_machine_is_probed_too(endpoint: IdentityEndpoint, firmware: Path) -> None:
    """Without a tool after it there is nothing to start meanwhile."""
    absent = ScriptedSource()
    absent.script(SourceUnavailableError("not here"))
    assert (await fetch(FirstAvailable(absent, machine(firmware, endpoint.url)))).source == "imds"
    with pytest.raises(SourceUnavailableError, match="IMDS did not answer a probe"):
        await fetch(FirstAvailable(machine(firmware)))


async def test_one_machine_is_not_asked_before_another_s_verdict(endpoint: IdentityEndpoint, firmware: Path) -> None:
    """Only a tool is started beside a probe: of two machine identities each waits for its turn, probed itself."""
    client_id = "11111111-aaaa-4bbb-8ccc-000000000001"
    surroundings = Surroundings(environ={}, root=firmware, imds_url=endpoint.url)
    source = FirstAvailable(machine(firmware), ManagedIdentity(client_id=client_id, surroundings=surroundings))
    assert (await fetch(source)).source == "imds"
    assert [request.parameters.get("client_id") for request in endpoint.requests] == [None, client_id]


async def test_cancelling_a_fetch_ends_the_tool_that_was_started_meanwhile(
    firmware: Path, tool: ScriptedSource
) -> None:
    """Nothing is left running behind."""
    tool.held = True
    fetching = asyncio.ensure_future(FirstAvailable(machine(firmware), tool).fetch(TokenRequest(VAULT)))
    while not tool.requests:  # noqa: ASYNC110  (turns of the loop, not time)
        await asyncio.sleep(0)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert len(asyncio.all_tasks()) == 1


# When nobody is there


async def test_on_an_azure_vm_the_thing_to_do_is_another(endpoint: IdentityEndpoint, firmware: Path) -> None:
    """Where IMDS knows no identity, that is what to mend."""
    endpoint.script(then=Answer(400, {"error": "invalid_request", "error_description": "Identity not found"}))
    surroundings = Surroundings(environ={"PATH": "/nowhere"}, root=on_azure(firmware), imds_url=endpoint.url)
    with pytest.raises(SourceUnavailableError, match=r"To do: .*az vm identity assign"):
        await fetch(default(surroundings=surroundings))


async def test_sources_of_others_are_told_as_they_are(tool: ScriptedSource) -> None:
    """For sources that are not ours there is no advice to give."""
    tool.script(SourceUnavailableError("not here", source="mine"), SourceUnavailableError("nor here"))
    with pytest.raises(SourceUnavailableError) as caught:
        await fetch(FirstAvailable(tool, tool))
    assert str(caught.value).splitlines()[1:] == ["- mine: not here", "- unnamed: nor here"]


# The whole


def test_a_chain_is_as_able_as_its_members() -> None:
    """Limits add up or are the strictest, abilities are those of any."""
    chain = FirstAvailable(
        ScriptedSource(time_limit=5), ScriptedSource(time_limit=7, max_parallel=3, chooses_tenant=True)
    )
    assert (chain.time_limit, chain.max_parallel, chain.chooses_tenant) == (12, 3, True)
    chain = FirstAvailable(ScriptedSource())
    assert (chain.max_parallel, chain.chooses_tenant) == (None, False)
    assert repr(FirstAvailable(ManagedIdentity(), AzureCLI())) == "FirstAvailable(ManagedIdentity(), AzureCLI())"


async def test_each_member_has_the_time_that_it_would_have_alone(clock: ManualClock) -> None:
    """What the others may take is theirs, and never later than the whole chain has to answer."""
    first, second, third = (ScriptedSource(time_limit=limit) for limit in (5, 7, 9))
    first.script(SourceUnavailableError("not here"))
    second.script(SourceUnavailableError("nor here"))
    await FirstAvailable(first, second, third).fetch(TokenRequest(VAULT, clock=clock, deadline=8))
    assert [source.requests[0].deadline for source in (first, second, third)] == [5, 7, 8]


async def test_a_host_that_asks_for_a_longer_wait_than_its_limit_is_not_waited_for(
    endpoint: IdentityEndpoint, clock: ManualClock
) -> None:
    """The developer's tools, which are not asked there, do not lend it their time."""
    endpoint.script(then=Refused(429, retry_after=40))
    surroundings = Surroundings(environ=endpoint.environ("app_service"), imds_url=endpoint.url)
    async with TokenProvider(default(surroundings=surroundings), clock=clock) as provider:
        with pytest.raises(EndpointError) as caught:
            async with asyncio.timeout(5):
                await provider.token(VAULT)
    assert caught.value.retry_after == 40
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize("host", ["app_service", "imds"])
async def test_a_tenant_is_ignored_where_a_managed_identity_answers(
    endpoint: IdentityEndpoint, firmware: Path, host: str
) -> None:
    """The developer's tools, which could choose one, are not asked there, so no tenant needs a token of its own."""
    environ = endpoint.environ("app_service") if host == "app_service" else {}
    surroundings = Surroundings(environ=environ, root=on_azure(firmware), imds_url=endpoint.url)
    async with TokenProvider(default(surroundings=surroundings)) as provider:
        if host == "imds":  # Until it has answered, somebody may be logged in to `az`.
            await provider.token(VAULT)
        tokens = {(await provider.access_token(VAULT, tenant_id=tenant)).token for tenant in ("t1", "t2", None)}
        assert [resource.tenant_id for resource in provider.statistics().resources] == [None]
    assert len(tokens) == len(endpoint.requests) == 1


def test_before_a_managed_identity_is_found_a_chain_can_choose_a_tenant() -> None:
    """It may turn out to be the developer's."""
    for environ in ({}, {"AZURE_POD_IDENTITY_AUTHORITY_HOST": NOT_ANSWERING}):
        chain = FirstAvailable(ManagedIdentity(surroundings=Surroundings(environ=environ)), AzureCLI())
        assert chain.chooses_tenant


async def test_a_chain_names_the_identities_of_its_members(tool: ScriptedSource) -> None:
    """Until somebody has answered, and while it is one of those who can become another, all of them are named."""
    machine, other = ScriptedSource(name="machine"), ScriptedSource(name="other")
    chain = FirstAvailable(machine, tool, other)
    assert chain.identity_key() is None
    tool.identity, other.identity = "alice", "bob"
    assert chain.identity_key() == "tool: alice; other: bob"
    machine.script(SourceUnavailableError("not here"))
    await fetch(chain)
    assert chain.identity_key() == "tool: alice; other: bob"
    await fetch(chain)
    assert chain.identity_key() is None, "the machine answers now, and it cannot become somebody else"


def test_a_chain_is_made_of_sources() -> None:
    """Wrong members are told at once."""
    with pytest.raises(ValueError, match="at least one"):
        FirstAvailable()
    with pytest.raises(TypeError, match="a source is an object"):
        FirstAvailable(AzureCLI)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not a str") as caught:
        FirstAvailable("RunAs=App;AppKey=hunter2")  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)


def az(folder: Path) -> str:
    """Write a stand-in for `az` that is logged in, and return the PATH to it."""
    program = folder / "az"
    program.write_text('#!/bin/sh\necho \'{"accessToken": "from-az", "expires_on": 1999999999}\'\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return f"{folder}:/usr/bin:/bin"


async def test_without_any_argument_the_developer_s_login_serves(firmware: Path) -> None:
    """On a laptop `TokenProvider()` is whoever ran `az login`."""
    surroundings = Surroundings(environ={"PATH": az(firmware)}, root=firmware, imds_url=NOT_ANSWERING)
    async with TokenProvider(default(surroundings=surroundings)) as provider:
        token = await provider.access_token(VAULT)
        assert (token.token, token.source) == ("from-az", "azure_cli")
        assert repr(provider) == "<TokenProvider source=default tokens=1 in_flight=0>"


@pytest.mark.parametrize(
    ("text", "source"), [("RunAs=App;", "app_service"), ("RunAs=Developer; DeveloperTool=AzureCLI", "azure_cli")]
)
async def test_the_connection_string_of_the_environment_decides(
    endpoint: IdentityEndpoint, firmware: Path, text: str, source: str
) -> None:
    """`AzureServicesAuthConnectionString` says which identity it is, whatever else is there."""
    environ = {**endpoint.environ("app_service"), "PATH": az(firmware), "AzureServicesAuthConnectionString": text}
    chosen = default(surroundings=Surroundings(environ=environ, root=firmware, imds_url=NOT_ANSWERING))
    async with TokenProvider(chosen) as provider:
        assert (await provider.access_token(VAULT, tenant_id="t")).source == source


async def test_a_wrong_connection_string_of_the_environment_is_told(endpoint: IdentityEndpoint) -> None:
    """Nothing is sent to anybody with a connection string that is wrong."""
    environ = {**endpoint.environ("app_service"), "AzureServicesAuthConnectionString": "RunAs=Nobody"}
    async with TokenProvider(default(surroundings=Surroundings(environ=environ))) as provider:
        with pytest.raises(ConfigurationError, match="AzureServicesAuthConnectionString"):
            await provider.token(VAULT)
    assert endpoint.requests == []


def test_the_default_says_what_it_is() -> None:
    """Its repr is how to make it."""
    assert repr(default()) == "default()"


async def test_the_provider_without_arguments_uses_the_default(
    endpoint: IdentityEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two lines are all that a user writes."""
    for name, value in endpoint.environ("app_service").items():
        monkeypatch.setenv(name, value)
    provider = TokenProvider()
    assert (await provider.token(VAULT)).count(".") == 2
    assert len(endpoint.token_requests) == 1


async def test_a_crowd_on_a_slow_host_is_one_request(endpoint: IdentityEndpoint) -> None:
    """However many callers ask while the host takes its time, it is asked once."""
    gate = Gate()
    endpoint.script(gate)
    surroundings = Surroundings(environ=endpoint.environ("app_service"))
    async with TokenProvider(default(surroundings=surroundings)) as provider:
        callers = [asyncio.create_task(provider.token(VAULT)) for _ in range(1000)]
        await gate.reached()
        gate.open()
        assert len(set(await asyncio.gather(*callers))) == 1
    assert len(endpoint.token_requests) == 1


def test_errors_of_the_chain_are_ours(tool: ScriptedSource) -> None:
    """The combined error is caught like any other."""
    tool.script(SourceUnavailableError("a"), SourceUnavailableError("b"))
    with pytest.raises(AiomsiError):
        asyncio.run(TokenProvider(FirstAvailable(tool, tool)).token(VAULT))
