"""An endpoint with a thread of its own, and gates that are opened from another one."""

from __future__ import annotations

import asyncio
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from aiomsi import TokenProvider
from aiomsi.endpoint import Gate, IdentityEndpoint, Refused
from aiomsi.sources import ManagedIdentity, Surroundings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VAULT = "https://vault.azure.net"


def ask(endpoint: IdentityEndpoint) -> int:
    """Return the status that a client without any event loop gets."""
    variables = endpoint.environ("app_service_2017")
    url = f"{variables['MSI_ENDPOINT']}?api-version=2017-09-01&resource={VAULT}"
    request = urllib.request.Request(url, headers={"secret": variables["MSI_SECRET"]})  # noqa: S310  (loopback)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def only_the_main_thread() -> bool:
    return not [thread.name for thread in threading.enumerate() if "aiomsi" in thread.name]


def test_a_plain_with_serves_those_without_a_loop() -> None:
    """Script, counters and secret work from the test's thread, and with the block the thread ends."""
    with IdentityEndpoint() as endpoint:
        assert not only_the_main_thread()
        assert ask(endpoint) == 200
        endpoint.script(then=Refused(429))
        assert ask(endpoint) == 429
        endpoint.secret = "another"
        endpoint.script()
        assert ask(endpoint) == 200
        assert endpoint.hits.token_requests == len(endpoint.requests) == 3
    assert only_the_main_thread()


def test_a_script_is_replaced_between_two_requests() -> None:
    """Whenever the test's thread does it, each request plays the one script or the other, and none is lost."""
    with IdentityEndpoint() as endpoint, ThreadPoolExecutor(4) as callers:
        asking = [callers.submit(ask, endpoint) for _ in range(100)]
        while not all(call.done() for call in asking):
            endpoint.script(Refused(429), then=Refused(503))
            endpoint.script()
            assert endpoint.hits.token_requests <= 100
        assert {call.result() for call in asking} <= {200, 429, 503}
        assert endpoint.hits.token_requests == 100


def test_it_may_come_back() -> None:
    """After the block the port is closed; a second block is the same endpoint again."""
    endpoint = IdentityEndpoint()
    with endpoint:
        ask(endpoint)
    with pytest.raises(urllib.error.URLError):
        ask(endpoint)
    with endpoint:
        assert ask(endpoint) == 200


def test_a_failed_start_leaves_no_thread() -> None:
    """Where the port is taken, the error comes through, and nothing stays behind."""
    with IdentityEndpoint() as first:
        second = IdentityEndpoint(port=int(first.url.rpartition(":")[2]))
        with pytest.raises(OSError, match="bind on address"), second:
            pass
        with pytest.raises(RuntimeError, match="started already"), first:
            pass
        assert ask(first) == 200
    assert only_the_main_thread()


def test_an_error_in_the_block_ends_the_thread() -> None:
    """A test that fails is not hidden by its endpoint, nor does it keep the thread."""
    with pytest.raises(ZeroDivisionError), IdentityEndpoint():
        _ = 1 / 0
    assert only_the_main_thread()


@pytest.fixture
def endpoint() -> Iterator[IdentityEndpoint]:
    """An endpoint in a thread of its own."""
    with IdentityEndpoint() as endpoint:
        yield endpoint


async def test_it_serves_an_event_loop_as_well(endpoint: IdentityEndpoint) -> None:
    """An asynchronous client in the loop of the test is served by the thread beside it."""
    surroundings = Surroundings(environ=endpoint.environ("app_service"))
    async with TokenProvider(ManagedIdentity(surroundings=surroundings)) as provider:
        gate = Gate()
        endpoint.script(gate)
        asking = asyncio.create_task(provider.token(VAULT))
        await gate.reached()
        assert gate.held == 1
        gate.open()
        assert await asking


def test_a_federated_token_is_rotated_from_any_loop(tmp_path: Path) -> None:
    """What is asynchronous and needs no loop of its own may be run in one that is made for it."""
    with IdentityEndpoint(hosts=["entra"], root=tmp_path) as endpoint:
        file = endpoint.environ("entra")["AZURE_FEDERATED_TOKEN_FILE"]
        before = (tmp_path / file).read_text()
        asyncio.run(endpoint.rotate_federated_token())
        assert (tmp_path / file).read_text() != before
        assert endpoint.root == tmp_path


def test_a_gate_is_opened_from_another_thread() -> None:
    """A test without a loop waits until requests are held, and lets them go on."""
    gate = Gate()
    with IdentityEndpoint() as endpoint, ThreadPoolExecutor(3) as callers:
        endpoint.script(gate, then=gate)
        asking = [callers.submit(ask, endpoint) for _ in range(3)]
        gate.wait(3)
        gate.wait(2)
        assert gate.held == 3
        gate.open()
        assert [call.result() for call in asking] == [200] * 3
    assert gate.held == 0


def test_waiting_at_a_gate_ends() -> None:
    """Where nobody comes, the test is told; who comes later is held nevertheless."""
    gate = Gate()
    with pytest.raises(TimeoutError):
        gate.wait(timeout=0.01)
    with IdentityEndpoint() as endpoint, ThreadPoolExecutor(1) as callers:
        endpoint.script(gate)
        asking = callers.submit(ask, endpoint)
        gate.wait()
        gate.open()
        assert asking.result() == 200


async def test_who_leaves_the_watch_harms_nobody() -> None:
    """A test that gives up waiting for the gate is forgotten when somebody comes."""
    gate = Gate()
    watching = asyncio.create_task(gate.reached())
    await asyncio.sleep(0)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    holding = asyncio.create_task(gate.hold())
    await gate.reached()
    gate.open()
    await holding


def test_a_hanging_request_does_not_hold_up_the_end() -> None:
    """The block ends at once although a request hangs, and its client is cut off."""
    with ThreadPoolExecutor(1) as callers:
        with IdentityEndpoint() as endpoint:
            gate = Gate()
            endpoint.script(gate)
            asking = callers.submit(ask, endpoint)
            gate.wait()
        assert isinstance(asking.exception(), OSError)
    assert only_the_main_thread()
