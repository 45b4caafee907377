"""Which application asks Entra, and where."""

from __future__ import annotations

from typing import Any

import pytest

from aiomsi import ConfigurationError
from aiomsi.sources import Surroundings
from aiomsi.sources._entra_application import Application, application, check_capabilities, check_retry_timeout

CLIENT_ID = "11111111-aaaa-4bbb-8ccc-000000000001"
TENANT_ID = "44444444-aaaa-4bbb-8ccc-000000000004"
VARIABLES = {"client_id": "AZURE_CLIENT_ID", "tenant_id": "AZURE_TENANT_ID", "authority": "AZURE_AUTHORITY_HOST"}


def among(environ: dict[str, str], **given: str | None) -> Application:
    """Return the application that *given* names among *environ*, in which all is well but for what *environ* says."""
    environ = {"AZURE_CLIENT_ID": CLIENT_ID, "AZURE_TENANT_ID": TENANT_ID, **environ}
    options: dict[str, str | None] = {"client_id": None, "tenant_id": None, "authority": None, **given}
    return application(Surroundings(environ=environ), "somebody", **options)  # type: ignore[arg-type]


def test_the_environment_says_who_asks() -> None:
    """Without arguments it is whom the platform has named, in the public cloud."""
    assert among({}) == Application("somebody", CLIENT_ID, TENANT_ID, "https://login.microsoftonline.com")


def test_arguments_win_over_the_environment() -> None:
    """What is given is taken, and what the environment says instead is not even looked at."""
    environ = dict.fromkeys(VARIABLES.values(), "no good at all")
    given = {"client_id": "an-app", "tenant_id": "contoso.onmicrosoft.com", "authority": "login.microsoftonline.us"}
    expected = Application("somebody", "an-app", "contoso.onmicrosoft.com", "https://login.microsoftonline.us")
    assert among(environ, **given) == expected


@pytest.mark.parametrize(
    ("text", "authority"),
    [
        ("", "https://login.microsoftonline.com"),
        ("https://login.microsoftonline.com/", "https://login.microsoftonline.com"),
        ("https://login.microsoftonline.us", "https://login.microsoftonline.us"),
        ("https://login.partner.microsoftonline.cn/", "https://login.partner.microsoftonline.cn"),
        ("login.chinacloudapi.cn", "https://login.chinacloudapi.cn"),
        ("login.contoso.example:8443/", "https://login.contoso.example:8443"),
        ("HTTPS://Login.Contoso.Example//", "HTTPS://Login.Contoso.Example"),
        ("https://login.contoso.example/adfs/", "https://login.contoso.example/adfs"),
        ("https://127.0.0.1:8443", "https://127.0.0.1:8443"),
        ("https://[::1]:8443/", "https://[::1]:8443"),
    ],
)
def test_an_authority(text: str, authority: str) -> None:
    """It may be a URL or the mere name of a host; slashes at its end do not matter."""
    assert among({}, authority=text).authority == authority
    assert among({"AZURE_AUTHORITY_HOST": text}).authority == authority


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("http://login.contoso.example", "does not begin with https://"),
        ("ftp://login.contoso.example", "does not begin with http"),
        ("https://", "names no host"),
        ("https://user@login.contoso.example", "holds user information"),
        ("https://:hunter2@login.contoso.example", "holds user information"),
        ("https://login.contoso.example\\@evil.example", "holds user information"),
        ("https://evil.example\\.contoso.example", "neither a name nor an ordinary IP address"),
        ("https://login.contoso.example?tenant=x", "has a query"),
        ("https://login.contoso.example/?", "has a query"),
        ("https://login.contoso.example/#top", "has a fragment"),
        ("https://login.contoso.example#", "has a query or a fragment"),
        ("https://login.contoso.example:0", "a wrong port"),
        ("https://login.contoso.example:65536", "is not a URL"),
        ("https://login.contoso.example:port", "is not a URL"),
        ("https://login contoso.example", "holds blanks"),
        ("https://login.contoso.example\n", "holds blanks or control characters"),
        ("https://[::1", "is not a URL"),
        ("https://134744072.010.1", "neither a name nor an ordinary IP address"),
        ("https://l\N{LATIN SMALL LETTER O WITH DIAERESIS}gin.contoso.example", "neither a name nor"),
        ("login.contoso.example?://", "does not begin with http"),
    ],
)
@pytest.mark.parametrize("named", ["authority", "AZURE_AUTHORITY_HOST"])
def test_an_authority_that_is_none(text: str, problem: str, named: str) -> None:
    """It is told which setting is wrong, and how, but not its text: it may be another variable's, and a secret."""
    given = {"authority": text} if named == "authority" else {}
    with pytest.raises(ConfigurationError) as caught:
        among({"AZURE_AUTHORITY_HOST": text}, **given)
    said = str(caught.value)
    assert said.startswith(f"{named} ")
    assert problem in said
    assert said.endswith("it should be like https://login.microsoftonline.com")
    assert ("contoso" in said, "hunter2" in said, caught.value.source) == (False, False, "somebody")


@pytest.mark.parametrize(
    "text", ["../common", "..", ".", "a/b", "a b", "a\n", " ", "a?b", "a#b", "a%2Fb", "\u00e4", "a8Q~secret"]
)
@pytest.mark.parametrize("option", ["client_id", "tenant_id"])
def test_a_client_or_tenant_that_is_none(text: str, option: str) -> None:
    """What would change the path of the URL is told; not the text, which may be the secret next to it."""
    for environ, given in (({VARIABLES[option]: text}, {}), ({}, {option: text})):
        with pytest.raises(ConfigurationError, match="is neither a GUID nor a domain") as caught:
            among(environ, **given)
        assert str(caught.value).endswith(f"give {option}, or set {VARIABLES[option]}")
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("option", ["client_id", "tenant_id"])
def test_a_client_or_tenant_that_is_missing(option: str) -> None:
    """There is no application and no tenant by default; an empty text is none."""
    with pytest.raises(ConfigurationError, match=f"is not known: give {option}, or set {VARIABLES[option]}"):
        among({VARIABLES[option]: ""}, **{option: ""})


@pytest.mark.parametrize("capabilities", ["CP1", b"CP1", 1, None, ("CP1", 1), {"CP1"}, iter(["CP1"])])
def test_capabilities_that_are_no_words(capabilities: Any) -> None:
    """A text would be taken for its letters, and what can be read only once would be empty the second time."""
    with pytest.raises(TypeError, match="client_capabilities is a sequence of strings"):
        check_capabilities(capabilities)


@pytest.mark.parametrize("capability", ["", "CP1,CP2", "CP 1", 'CP1"', "CP1\n"])
def test_a_capability_that_is_misspelt(capability: str) -> None:
    """A list in one text is not what Entra knows."""
    with pytest.raises(ValueError, match="is no client capability"):
        check_capabilities(["CP1", capability])


def test_capabilities_are_declared_once_each() -> None:
    """They keep their order, and become a value that nobody changes any more."""
    assert check_capabilities(["CP1", "X_1", "CP1"]) == ("CP1", "X_1")
    assert check_capabilities(()) == ()


@pytest.mark.parametrize("seconds", [None, 0, 1, 2.5])
def test_a_retry_timeout(seconds: float | None) -> None:
    """It is a number of seconds, zero too, or None."""
    assert check_retry_timeout(seconds) == seconds


@pytest.mark.parametrize("seconds", [True, "1", [1]])
def test_a_retry_timeout_that_is_no_number(seconds: Any) -> None:
    """A text is not read, and a truth value is no number."""
    with pytest.raises(TypeError, match="retry_timeout is a number of seconds"):
        check_retry_timeout(seconds)


@pytest.mark.parametrize("seconds", [-1, -0.001, float("inf"), float("nan")])
def test_a_retry_timeout_that_makes_no_sense(seconds: float) -> None:
    """Nobody retries for less than no time, or for ever."""
    with pytest.raises(ValueError, match="that is not negative"):
        check_retry_timeout(seconds)
