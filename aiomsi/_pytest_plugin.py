"""What pytest finds by itself where aiomsi is installed: an emulator for each test that asks for it, and a provider.

Every test run imports this module, so it imports nothing but pytest until a fixture is used.
"""

from __future__ import annotations

import difflib
import inspect
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aiomsi import TokenProvider
    from aiomsi.endpoint import IdentityEndpoint

__all__ = ["identity_endpoint", "pytest_configure", "token_provider"]

_MARKER = "identity_endpoint"
_HELP = (
    f"{_MARKER}(hosts=['app_service', ...], lifetime=86400.0, latency=0.0, ...): "
    "the arguments of aiomsi.endpoint.IdentityEndpoint for the fixture of that name; of several markers the nearest "
    "decides about each. The first of the hosts is the one that token_provider asks."
)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _HELP)


@pytest.fixture
def identity_endpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[IdentityEndpoint]:
    """An `aiomsi.endpoint.IdentityEndpoint` that serves in a thread of its own, for tests with and without a loop.

    Its arguments are those of the marker of the same name; without one it plays App Service and IMDS. What hosts keep
    in files is below a temporary folder.
    """
    from aiomsi.endpoint import IdentityEndpoint  # noqa: PLC0415  (heavy)

    options = _options(request.node, list(inspect.signature(IdentityEndpoint).parameters))
    options.setdefault("root", tmp_path_factory.mktemp(_MARKER))
    try:
        endpoint = IdentityEndpoint(**options)
    except (TypeError, ValueError) as error:
        pytest.fail(f"the marker {_MARKER!r} makes no sense: {error}", pytrace=False)
    with endpoint:
        yield endpoint


@pytest.fixture
def token_provider(identity_endpoint: IdentityEndpoint) -> TokenProvider:
    """An `aiomsi.TokenProvider` whose tokens come from `identity_endpoint`, as the first of the hosts that it plays.

    It needs no event loop before it is used, and leaves nothing open: a test may await it, or call `asyncio.run`. The
    environment of the process is neither read nor changed.
    """
    from aiomsi import TokenProvider  # noqa: PLC0415  (heavy)
    from aiomsi.sources import ManagedIdentity, Surroundings  # noqa: PLC0415  (heavy)

    host = identity_endpoint.hosts[0]
    surroundings = Surroundings(
        environ=identity_endpoint.environ(host),
        # It is the agent of Arc for Linux that the endpoint plays.
        platform="linux" if host == "azure_arc" else sys.platform,
        root=identity_endpoint.root,
        imds_url=identity_endpoint.url,
        arc_url=identity_endpoint.url,
    )
    return TokenProvider(ManagedIdentity(surroundings=surroundings))


def _options(test: pytest.Item, known: Sequence[str]) -> dict[str, Any]:
    """Return the arguments that the markers of *test* give, each from the nearest that has it."""
    options: dict[str, Any] = {}
    for marker in test.iter_markers(_MARKER):
        if marker.args:
            pytest.fail(f"the marker {_MARKER!r} takes its arguments by name: {', '.join(known)}", pytrace=False)
        for name, value in marker.kwargs.items():
            if name not in known:
                close = difflib.get_close_matches(name, known, 1)
                advice = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
                pytest.fail(f"the marker {_MARKER!r} has no argument {name!r}; {advice}", pytrace=False)
            options.setdefault(name, value)
    return options
