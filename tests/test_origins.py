"""Which tokens may go where, and the ready-made mappings of whole clouds."""

from __future__ import annotations

import string
import tracemalloc
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from aiomsi import AZURE_CHINA, AZURE_PUBLIC_CLOUD, AZURE_US_GOVERNMENT
from aiomsi._origins import Origins
from aiomsi._resource import resource_of

if TYPE_CHECKING:
    from collections.abc import Mapping

VAULT = "https://vault.azure.net"


def found(origins: Origins, url: str, *, encoded: bool = False) -> str | None:
    """Return what *origins* say of a request to *url*, as aiohttp would make it."""
    parts = URL(url, encoded=encoded)
    return origins.resource(parts.scheme, parts.raw_host or "", parts.explicit_port)


# What is found.


@pytest.mark.parametrize(
    ("origin", "url"),
    [
        ("https://a.example", "https://a.example/path?query#fragment"),
        ("https://a.example/", "https://a.example"),
        ("HTTPS://A.Example", "https://a.EXAMPLE"),
        ("https://a.example", "https://a.example:443"),
        ("https://a.example:443", "https://a.example"),
        ("https://a.example:8443", "https://a.example:8443"),
        ("https://a.example", "wss://a.example"),
        ("https://a.example", "wss://a.example:443"),
        ("https://a.example:8443", "wss://a.example:8443"),
        ("https://localhost", "https://localhost"),
        ("https://a_b.example", "https://a_b.example"),
        ("https://xn--mnchen-3ya.example", "https://münchen.example"),
        ("https://192.0.2.7:1", "https://192.0.2.7:1"),
        ("https://[2001:DB8:0::7]", "https://[2001:db8::7]"),
        ("https://*.a.example", "https://b.a.example"),
        ("https://*.a.example:8443", "wss://b.a.example:8443"),
        ("https://*.a.example", "https://münchen.a.example"),
        ("http://localhost", "http://localhost"),
        ("http://localhost", "ws://localhost:80"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://127.0.0.1", "http://127.0.0.1"),
        ("http://127.3.2.1:80", "http://127.3.2.1"),
        ("http://[::1]:9", "http://[::1]:9"),
    ],
)
def test_an_origin_is_found_however_it_is_written(origin: str, url: str) -> None:
    """Case, the scheme's own port, and a path make no difference, and a WebSocket is a request to the same origin."""
    assert found(Origins({origin: VAULT}, allow_http_on_loopback=True), url) == VAULT


@pytest.mark.parametrize(
    ("origin", "url"),
    [
        ("https://a.example", "http://a.example"),
        ("https://a.example", "ws://a.example"),
        ("https://a.example", "http://a.example:443"),
        ("https://a.example", "ftp://a.example"),
        ("https://a.example", "https://a.example:80"),
        ("https://a.example", "https://a.example:8443"),
        ("https://a.example:8443", "https://a.example"),
        ("https://a.example", "https://a.example."),
        ("https://a.example", "https://b.a.example"),
        ("https://a.example", "https://a.example.b"),
        ("https://a.example", "https://ba.example"),
        ("https://a.example", "https://a.example@b.example"),
        ("https://a.example", "https://а.example"),  # noqa: RUF001  (Cyrillic, which is what is tried)
        ("https://192.0.2.7", "https://192.0.2.70"),
        ("https://*.a.example", "https://a.example"),
        ("https://*.a.example", "https://c.b.a.example"),
        ("https://*.a.example", "https://b.a.example."),
        ("https://*.a.example", "https://.a.example"),
        ("https://*.a.example", "https://ba.example"),
        ("https://*.a.example", "https://b.a.example:8443"),
        ("https://*.a.example", "http://b.a.example"),
        ("https://*.a.example", "https://b.a.example.c"),
        ("https://*.a.example", "https://localhost"),
        ("https://*.a.example", "https://b%2ea.example"),
        ("http://localhost", "https://localhost"),
        ("http://localhost:8080", "http://localhost"),
        ("http://127.0.0.1", "http://localhost"),
        ("http://127.0.0.1", "http://127.0.0.2"),
    ],
)
def test_another_origin_is_not_found(origin: str, url: str) -> None:
    """Scheme, host and port must all be the same, and an asterisk is one label: not none, not two, no part of one."""
    assert found(Origins({origin: VAULT}, allow_http_on_loopback=True), url, encoded="%" in url) is None


def test_an_origin_comes_before_a_wildcard() -> None:
    """What is said of one host in particular counts more than what is said of all."""
    origins = Origins({"https://*.a.example": "all", "https://b.a.example": "one"})
    assert (found(origins, "https://b.a.example"), found(origins, "https://c.a.example")) == ("one", "all")


def test_a_scope_names_its_resource() -> None:
    """A mapping may hold scopes, as any other place where a resource is asked for."""
    assert found(Origins({"https://a.example": f"{VAULT}/.default"}), "https://a.example") == VAULT


def test_an_empty_mapping_finds_nothing() -> None:
    """Nothing is mapped unless it is said."""
    assert found(Origins({}), "https://a.example") is None


MAPPED = {
    "https://a": "1",
    "https://a.b:8443": "2",
    "https://a.b.c": "3",
    "https://*.b.c": "4",
    "https://*.a.b.c:8443": "5",
    "http://localhost": "6",
}
ORIGINS = Origins(MAPPED, allow_http_on_loopback=True)
PORTS = {"https": 443, "wss": 443, "http": 80, "ws": 80}
LABELS = st.sampled_from(["a", "b", "c", "localhost"]) | st.text(string.ascii_lowercase + "0-_", max_size=3)


def expected(scheme: str, host: str, port: int | None) -> str | None:
    """Say in another way what `MAPPED` has for an origin."""
    for origin, resource in MAPPED.items():
        parts = urlsplit(origin)
        labels, theirs = host.split("."), (parts.hostname or "").split(".")
        if (
            PORTS.get(scheme, 0) == PORTS[parts.scheme]
            and (PORTS[scheme] if port is None else port) == (parts.port or PORTS[parts.scheme])
            and len(labels) == len(theirs)
            and all(label == their or (their == "*" and label) for label, their in zip(labels, theirs, strict=True))
        ):
            return resource
    return None


@given(
    st.sampled_from(["https", "http", "wss", "ws", "ftp", ""]),
    st.lists(LABELS, max_size=4).map(".".join),
    st.sampled_from([None, 443, 80, 8443, 0]) | st.integers(1, 65535),
)
def test_nothing_matches_that_was_not_mapped(scheme: str, host: str, port: int | None) -> None:
    """Whatever the host, and whatever was asked before: it is one of the mapping, or has a label for an asterisk."""
    assert ORIGINS.resource(scheme, host, port) == expected(scheme, host, port)


def test_any_number_of_hosts_may_be_below_an_asterisk() -> None:
    """Each of them is found, however often, and they do not fill the memory."""
    origins = Origins({"https://*.b.c": "all"})
    tracemalloc.start()
    try:
        for number in (*range(20_000), *range(20_000)):
            assert origins.resource("https", f"h{number}.b.c", None) == "all"
        assert tracemalloc.get_traced_memory()[0] < 500_000
    finally:
        tracemalloc.stop()


@given(st.text(), st.sampled_from([None, 443]))
def test_no_other_text_matches(host: str, port: int | None) -> None:
    """What is no host of the mapping in ASCII never matches, whatever a resolver might make of it."""
    answer = Origins({"https://*.b.c": "all"}).resource("https", f"{host}.b.c", port)
    assert answer == ("all" if host and host.isascii() and "." not in host else None)


# What is refused.


@pytest.mark.parametrize(
    ("origin", "why"),
    [
        ("", "does not begin with https"),
        ("a.example", "does not begin with https"),
        ("//a.example", "does not begin with https"),
        ("ftp://a.example", "does not begin with https"),
        ("wss://a.example", "does not begin with https"),
        ("https://[::1", "is no origin"),
        ("https://a.example:x", "is no origin"),
        ("https://a.example:65536", "is no origin"),
        ("https:a.example", "more than an origin"),
        ("https://a.example/path", "more than an origin"),
        ("https://a.example?", "more than an origin"),
        ("https://a.example#", "more than an origin"),
        ("https://user@a.example", "more than an origin"),
        ("https://@a.example", "more than an origin"),
        (" https://a.example", "more than an origin"),
        ("https://a.example/ ", "more than an origin"),
        ("https://a.ex\tample", "more than an origin"),
        ("https://a.example\n", "more than an origin"),
        ("https://", "names no host"),
        ("https://:443", "names no host"),
        ("https://a..example", "names no host"),
        ("https://.a.example", "names no host"),
        ("https://a.example.", "names no host"),
        ("https://-a.example", "names no host"),
        ("https://a-.example", "names no host"),
        ("https://a%2eexample", "names no host"),
        ("https://a\\.example", "names no host"),
        ("https://münchen.example", "names no host"),
        ("https://\u212aey.example", "names no host"),
        ("https://127.1", "names no host"),
        ("https://a.7", "names no host"),
        ("https://*", "names no host"),
        ("https://*.example", "names no host"),
        ("https://*.2.0.192", "names no host"),
        ("https://a.*.example", "names no host"),
        ("https://*.*.a.example", "names no host"),
        ("https://*a.b.example", "names no host"),
        ("https://**.a.example", "names no host"),
        ("http://a.example", "plain http"),
        ("http://localhost.a.example", "plain http"),
        ("http://192.168.0.1", "plain http"),
        ("http://0.0.0.0", "plain http"),
        ("http://*.localhost.a", "plain http"),
    ],
)
def test_what_is_no_origin_is_refused(origin: str, why: str) -> None:
    """An origin that would never match, or match too much, is told at once, and plain http leads nowhere but here."""
    with pytest.raises(ValueError, match=why):
        Origins({origin: VAULT}, allow_http_on_loopback=True)


@pytest.mark.parametrize("origin", ["http://localhost", "http://127.0.0.1:8080", "http://[::1]"])
def test_plain_http_on_loopback_must_be_allowed(origin: str) -> None:
    """Whoever sends tokens to a server of his own, as in tests, says so."""
    with pytest.raises(ValueError, match="allow_http_on_loopback=True"):
        Origins({origin: VAULT})


@pytest.mark.parametrize(
    "origin",
    [
        "https://user:hunter2@a.example",
        "https://hunter2@[::1",
        "https://a.example/?sig=hunter2",
        "https://a.example/?user@sig=hunter2",
        "https://a.example#\nhunter2",
        "http://a.example?hunter2",
        "hunter2@a.example",
    ],
)
def test_what_is_refused_is_told_without_its_secrets(origin: str) -> None:
    """A URL that was pasted in with a password or a signature does not show it in the error."""
    with pytest.raises(ValueError, match=r"origin|https") as told:
        Origins({origin: VAULT})
    assert "hunter2" not in str(told.value)
    assert told.value.__suppress_context__ or told.value.__context__ is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://a.example", "https://A.example/"),
        ("https://a.example", "https://a.example:443"),
        ("https://*.a.example:443", "https://*.a.example"),
        ("http://localhost:80", "http://localhost"),
        ("https://[::1]", "https://[0::1]"),
    ],
)
def test_the_same_origin_twice_is_refused(one: str, other: str) -> None:
    """Nobody can know which of two resources was meant."""
    with pytest.raises(ValueError, match="twice"):
        Origins({one: VAULT, other: "https://storage.azure.com/"}, allow_http_on_loopback=True)


@pytest.mark.parametrize(
    ("mapping", "error", "why"),
    [
        ("https://a.example", TypeError, "a mapping says"),
        ([("https://a.example", VAULT)], TypeError, "a mapping says"),
        (None, TypeError, "a mapping says"),
        ({b"https://a.example": VAULT}, TypeError, "an origin is a string"),
        ({"https://a.example": None}, TypeError, "a resource is a string"),
        ({"https://a.example": ""}, ValueError, "names no resource"),
        ({"https://a.example": f"{VAULT} {VAULT}"}, ValueError, "holds blanks"),
    ],
)
def test_what_is_no_mapping_is_refused(mapping: Any, error: type[Exception], why: str) -> None:
    """A list, a single URL and a resource that is none are told when the middleware is made."""
    with pytest.raises(error, match=why):
        Origins(mapping)


# Whole clouds.

CLOUDS = {"public": AZURE_PUBLIC_CLOUD, "government": AZURE_US_GOVERNMENT, "china": AZURE_CHINA}
# Where customers' own programs, or rules they write, get to see the headers of requests.
CUSTOMERS = (
    "servicebus.windows.net",
    "azurewebsites.net",
    "azurestaticapps.net",
    "azurecontainerapps.io",
    "azurecontainer.io",
    "azure-api.net",
    "cloudapp.azure.com",
    "cloudapp.net",
    "azurefd.net",
    "azureedge.net",
    "trafficmanager.net",
    "logic.azure.com",
    "ml.azure.com",
    "core.windows.net",
    "azurewebsites.us",
    "azurewebsites.cn",
    "servicebus.usgovcloudapi.net",
    "servicebus.chinacloudapi.cn",
    "azure-api.us",
    "azure-api.cn",
)


@pytest.mark.parametrize("cloud", CLOUDS.values(), ids=CLOUDS)
def test_every_origin_of_a_cloud_is_one(cloud: Mapping[str, str]) -> None:
    """A ready-made mapping is taken as it is, its resources are resources, and all of it is https."""
    origins = Origins(cloud)
    for origin, resource in cloud.items():
        assert resource_of(resource) == resource
        assert resource.startswith("https://")
        assert found(origins, origin.replace("*", "customer")) == resource


@pytest.mark.parametrize("cloud", CLOUDS.values(), ids=CLOUDS)
@pytest.mark.parametrize("domain", CUSTOMERS)
def test_no_cloud_sends_tokens_to_customers(cloud: Mapping[str, str], domain: str) -> None:
    """Neither the domain nor a host below it is in a mapping where customers' code could see the token."""
    origins = Origins(cloud)
    assert [found(origins, f"https://{host}") for host in (domain, f"a.{domain}", f"a.b.{domain}")] == [None] * 3


def test_clouds_share_no_origin() -> None:
    """Mappings can be merged, since no host belongs to two clouds."""
    assert len({**AZURE_PUBLIC_CLOUD, **AZURE_US_GOVERNMENT, **AZURE_CHINA}) == sum(map(len, CLOUDS.values()))


@pytest.mark.parametrize(
    ("url", "resource"),
    [
        ("https://myvault.vault.azure.net/secrets/s", "https://vault.azure.net"),
        ("https://myhsm.managedhsm.azure.net/keys/k", "https://managedhsm.azure.net"),
        ("https://account.blob.core.windows.net/c/b", "https://storage.azure.com/"),
        ("https://account.table.core.usgovcloudapi.net", "https://storage.azure.com/"),
        ("https://management.azure.com/subscriptions", "https://management.azure.com/"),
        ("https://myvault.vault.usgovcloudapi.net", "https://vault.usgovcloudapi.net"),
        ("https://myvault.vault.azure.cn", "https://vault.azure.cn"),
        ("https://my.openai.azure.com/openai/deployments", "https://cognitiveservices.azure.com"),
    ],
)
def test_what_the_clouds_say_of_some_services(url: str, resource: str) -> None:
    """The resources are those that the services' tokens are for."""
    assert found(Origins({**AZURE_PUBLIC_CLOUD, **AZURE_US_GOVERNMENT, **AZURE_CHINA}), url) == resource


def test_a_cloud_cannot_be_changed() -> None:
    """It is extended by making another mapping, so that no library changes it for all."""
    with pytest.raises(TypeError):
        AZURE_PUBLIC_CLOUD["https://a.example"] = VAULT  # type: ignore[index]
