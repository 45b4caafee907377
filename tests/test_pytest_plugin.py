"""The fixtures in a user's own project: a folder with nothing in it but tests, and pytest in a process of its own."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sybil import Document
from sybil.parsers.markdown import CodeBlockParser

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiomsi import TokenProvider
    from aiomsi.endpoint import IdentityEndpoint

pytest_plugins = ["pytester"]

HEAD = """
    import asyncio
    import os
    import threading

    import pytest

    from aiomsi.endpoint import Gate, Hang, Refused

    VAULT = "https://vault.azure.net"

"""
TAIL = """

    def test_nothing_is_left():
        assert threading.enumerate() == [threading.main_thread()]
"""
CONFIGURATION = """
    [pytest]
    addopts = --strict-markers --strict-config -p no:cacheprovider {}
    filterwarnings = error
"""
ASYNCIO = """
    asyncio_mode = {}
    asyncio_default_fixture_loop_scope = function
"""

README = Path(__file__).parent.parent / "README.md"
EXAMPLES = [
    example.parsed
    for example in Document.parse(str(README), CodeBlockParser(language="python", evaluator=lambda _example: None))
    if "def test_" in example.parsed
]


@pytest.fixture
def run(pytester: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    """Run a user's tests, and after them one that finds every thread that is left."""

    def run(tests: str, options: str = "", asyncio_mode: str | None = "strict", tail: str = TAIL) -> pytest.RunResult:
        if asyncio_mode is None:
            options += " -p no:asyncio"
        configuration = textwrap.dedent(CONFIGURATION).format(options)
        pytester.makeini(configuration + (textwrap.dedent(ASYNCIO).format(asyncio_mode) if asyncio_mode else ""))
        pytester.makepyfile(textwrap.dedent(HEAD) + textwrap.dedent(tests) + textwrap.dedent(tail))
        return pytester.runpytest_subprocess()

    return run


def test_a_synchronous_test_has_both(run: Callable[..., pytest.RunResult]) -> None:
    """A test without a loop asks by `asyncio.run`, reads counters, writes scripts; the environment stays as it is."""
    run(
        """
        def test_sync(identity_endpoint, token_provider):
            before = dict(os.environ)
            token = asyncio.run(token_provider.token(VAULT))
            assert asyncio.run(token_provider.token(VAULT)) == token
            assert identity_endpoint.hits.by_resource[VAULT] == 1
            assert [request.resource for request in identity_endpoint.token_requests] == [VAULT]
            assert identity_endpoint.url in identity_endpoint.environ("imds")["AZURE_POD_IDENTITY_AUTHORITY_HOST"]
            identity_endpoint.script(Refused(400, message="no such principal"))
            with pytest.raises(Exception, match="no such principal"):
                asyncio.run(token_provider.token("https://other"))
            del before["PYTEST_CURRENT_TEST"]
            assert before.items() <= os.environ.items()
            assert "IDENTITY_ENDPOINT" not in os.environ


        def test_another_one_has_its_own(identity_endpoint, token_provider):
            assert identity_endpoint.hits.total == 0
            assert token_provider.peek(VAULT) is None
        """
    ).assert_outcomes(passed=3)


@pytest.mark.parametrize(
    ("asyncio_mode", "mark", "options"),
    [
        ("strict", "@pytest.mark.asyncio", ""),
        ("strict", "@pytest.mark.asyncio", "-p no:anyio"),
        ("auto", "", ""),
        ("strict", "@pytest.mark.anyio", ""),
        (None, "@pytest.mark.anyio", ""),
    ],
)
def test_an_asynchronous_test_has_both(
    run: Callable[..., pytest.RunResult], asyncio_mode: str | None, mark: str, options: str
) -> None:
    """With pytest-asyncio in both modes, or anyio's plugin, alone or beside each other, a test awaits tokens."""
    result = run(
        f"""
        @pytest.fixture(params=["asyncio"])
        def anyio_backend(request):
            return request.param


        {mark}
        async def test_async(identity_endpoint, token_provider):
            gate = Gate()
            identity_endpoint.script(gate)
            tokens = [asyncio.create_task(token_provider.token(VAULT)) for _ in range(100)]
            await gate.reached()
            gate.open()
            assert len(set(await asyncio.gather(*tokens))) == 1
            assert identity_endpoint.hits.token_requests == 1


        {mark}
        async def test_another_loop(token_provider):
            assert await token_provider.token(VAULT)
        """,
        options,
        asyncio_mode,
    )
    result.assert_outcomes(passed=3)


def test_a_marker_says_what_the_endpoint_is(run: Callable[..., pytest.RunResult]) -> None:
    """Its arguments are those of the class; the nearest marker decides about each, and all of them are known."""
    run(
        """
        import time

        pytestmark = pytest.mark.identity_endpoint(hosts=["imds"], latency=0.001)


        def test_module(identity_endpoint):
            assert (identity_endpoint.hosts, identity_endpoint.latency) == (("imds",), 0.001)


        @pytest.mark.identity_endpoint(hosts=["azure_arc", "app_service"], lifetime=600)
        class TestClass:
            @pytest.mark.identity_endpoint(lifetime=60)
            def test_method(self, identity_endpoint, token_provider):
                assert identity_endpoint.hosts == ("azure_arc", "app_service")
                assert identity_endpoint.latency == 0.001
                token = asyncio.run(token_provider.access_token(VAULT))
                assert 50 < token.expires_on - time.time() <= 61
                assert identity_endpoint.hits.by_host == {"azure_arc": 1}


        @pytest.mark.identity_endpoint(hosts=["entra"])
        def test_root(identity_endpoint, tmp_path):
            assert (identity_endpoint.root / "ca.pem").exists()
            assert not list(tmp_path.iterdir())


        @pytest.fixture
        def mine(tmp_path):
            return tmp_path


        def test_markers(pytestconfig):
            assert "identity_endpoint(hosts=" in str(pytestconfig.getini("markers"))
        """
    ).assert_outcomes(passed=5)


MISTAKES = {
    "hots=['imds']": "the marker 'identity_endpoint' has no argument 'hots'; did you mean 'hosts'?",
    "xyz=1": "the marker 'identity_endpoint' has no argument 'xyz'; known are issue, host, port,*",
    "['imds']": "the marker 'identity_endpoint' takes its arguments by name: issue, host,*",
    "hosts=['moon']": "the marker 'identity_endpoint' makes no sense: unknown host 'moon'; known are app_service,*",
    "latency='slow'": "the marker 'identity_endpoint' makes no sense: *",
}


def test_a_mistake_in_a_marker_is_told(run: Callable[..., pytest.RunResult]) -> None:
    """The test is an error in one line, without our frames, and nothing is left."""
    markers = (f"pytest.mark.identity_endpoint({arguments})" for arguments in MISTAKES)
    result = run(
        f"""
        @pytest.mark.parametrize("number", [
            pytest.param(number, marks=marker) for number, marker in enumerate([{", ".join(markers)}])
        ])
        def test_it(identity_endpoint, number):
            pass
        """
    )
    result.assert_outcomes(errors=len(MISTAKES), passed=1)
    result.stdout.fnmatch_lines([told.replace("[", "[[]") for told in MISTAKES.values()])
    result.stdout.no_fnmatch_line("*_pytest_plugin.py*")


def test_a_missing_extra_is_named(run: Callable[..., pytest.RunResult]) -> None:
    """Without trustme, a host over TLS tells what to install."""
    result = run(
        """
        import sys

        sys.modules["trustme"] = None


        @pytest.mark.identity_endpoint(hosts=["service_fabric"])
        def test_it(identity_endpoint):
            pass
        """
    )
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines(["*pip install 'aiomsi[[]testing]'*"])


def test_a_user_may_have_an_endpoint_of_his_own(run: Callable[..., pytest.RunResult]) -> None:
    """A fixture that overrides ours, with a wider scope say, is the one that the provider asks."""
    run(
        """
        from aiomsi.endpoint import IdentityEndpoint


        @pytest.fixture(scope="module")
        def identity_endpoint():
            with IdentityEndpoint(hosts=["imds"]) as endpoint:
                yield endpoint


        @pytest.mark.parametrize("number", [1, 2])
        def test_it(identity_endpoint, token_provider, number):
            asyncio.run(token_provider.token(VAULT))
            assert identity_endpoint.hits.by_host == {"imds": number}
        """,
        tail="",
    ).assert_outcomes(passed=2)


def test_whatever_happens_nothing_is_left(run: Callable[..., pytest.RunResult]) -> None:
    """Tests that fail, and tests that end while requests hang, leave no thread, no task and no warning behind."""
    result = run(
        """
        def test_failing(identity_endpoint, token_provider):
            asyncio.run(token_provider.token(VAULT))
            assert 1 == 2


        @pytest.mark.asyncio
        @pytest.mark.parametrize("step", [Hang(), Gate(), Refused(503, retry_after=3600)])
        async def test_hanging(identity_endpoint, token_provider, step):
            identity_endpoint.script(then=step)
            waiting = asyncio.create_task(token_provider.token(VAULT))
            while not identity_endpoint.token_requests:
                await asyncio.sleep(0)


        def test_giving_up(identity_endpoint, token_provider):
            identity_endpoint.script(then=Hang())

            async def give_up():
                async with asyncio.timeout(0.2):
                    await token_provider.token(VAULT)

            with pytest.raises(TimeoutError):
                asyncio.run(give_up())


        @pytest.mark.anyio
        @pytest.mark.parametrize("anyio_backend", ["asyncio"])
        async def test_failing_while_it_hangs(identity_endpoint, token_provider):
            identity_endpoint.script(then=Hang())
            waiting = asyncio.create_task(token_provider.token(VAULT))
            while not identity_endpoint.token_requests:
                await asyncio.sleep(0)
            assert 1 == 2
        """
    )
    result.assert_outcomes(passed=5, failed=2)
    assert "destroyed" not in result.stdout.str() + result.stderr.str()


def test_the_plugin_can_be_switched_off(run: Callable[..., pytest.RunResult]) -> None:
    """Without it the fixtures are not known, and nothing of ours was imported."""
    result = run(
        """
        import sys


        def test_nothing_came_along():
            assert "aiomsi._pytest_plugin" not in sys.modules


        def test_it(identity_endpoint):
            pass
        """,
        "-p no:aiomsi",
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*fixture 'identity_endpoint' not found*"])


def test_who_uses_no_fixture_pays_nothing(pytester: pytest.Pytester) -> None:
    """A test run that does not ask for them imports neither aiohttp nor the emulator."""
    pytester.makepyfile(
        """
        import sys


        def test_it():
            assert "aiomsi._pytest_plugin" in sys.modules
            assert not {"aiohttp", "aiomsi.endpoint", "aiomsi.sources", "aiomsi._provider"} & sys.modules.keys()
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:asyncio").assert_outcomes(passed=1)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_of_the_readme_pass(run: Callable[..., pytest.RunResult], number: int) -> None:
    """What the README shows as tests are tests."""
    tests = EXAMPLES[number]
    run("", tail=f"\n{tests}").assert_outcomes(passed=tests.count("def test_"))


async def test_they_work_here_as_well(identity_endpoint: IdentityEndpoint, token_provider: TokenProvider) -> None:
    """On each event loop that this machine has, and with an eye on blocking calls."""
    assert await token_provider.token("https://vault.azure.net")
    assert identity_endpoint.hits.by_host == {"app_service": 1}
