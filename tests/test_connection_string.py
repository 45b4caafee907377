"""Connection strings of the AppAuthentication library."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiomsi import ConfigurationError, TokenProvider
from aiomsi.sources import from_connection_string

CLIENT_ID = "11111111-aaaa-4bbb-8ccc-000000000001"


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("RunAs=App", "ManagedIdentity()"),
        ("RunAs=App;", "ManagedIdentity()"),
        ("RunAs=App; ", "ManagedIdentity()"),
        (" runas = app ;", "ManagedIdentity()"),
        ("RunAs='App'", "ManagedIdentity()"),
        ('RunAs="App";', "ManagedIdentity()"),
        (f"RunAs=App;AppId={CLIENT_ID}", f"ManagedIdentity(client_id='{CLIENT_ID}')"),
        (f"AppId='{CLIENT_ID}';RunAs=App", f"ManagedIdentity(client_id='{CLIENT_ID}')"),
        ("RunAs=Developer;DeveloperTool=AzureCLI", "AzureCLI()"),
        ("RunAs=developer;DEVELOPERTOOL=azurecli;", "AzureCLI()"),
    ],
)
def test_what_is_understood(text: str, source: str) -> None:
    """Keys and names in any case, quoted or not, with or without the last semicolon."""
    assert repr(from_connection_string(text)) == source


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty"),
        (" ", "is empty"),
        ("RunAs", "not of the form"),
        ("=App", "not of the form"),
        (";", "not of the form"),
        ("RunAs='App", "not of the form"),
        ("RunAs='App'x", "not of the form"),
        ("RunAs=", "a value is empty"),
        ("RunAs=''", "a value is empty"),
        ("RunAs=App;RunAs=App", "repeated"),
        ("AppId=x", "has no RunAs"),
        ("Run==As=App", "has no RunAs"),
        ("RunAs=Nobody", "RunAs is not supported"),
        ("RunAs=CurrentUser", "RunAs is not supported"),
        ("RunAs=Developer", "needs DeveloperTool=AzureCLI"),
        ("RunAs=Developer;DeveloperTool=Notepad", "needs DeveloperTool=AzureCLI"),
        ("RunAs=App;AppId=my-app", "AppId is not a client id"),
        ("RunAs=App;AppId='it''s'", "AppId is not a client id"),
        ('RunAs=App;AppId="a ""b"""', "AppId is not a client id"),
        (f"RunAs=App;AppId={CLIENT_ID};AppKey=hunter2;TenantId=t", "appkey, tenantid"),
        ("RunAs=App;hunter2=x", "an unknown one"),
    ],
)
def test_what_is_wrong_is_told_without_any_value(text: str, complaint: str) -> None:
    """The message says what is wrong and which forms there are, but shows nothing that may be a secret."""
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        from_connection_string(text)
    assert "RunAs=App;AppId=<client id>" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@given(st.text(alphabet="abRunAs=;'\" \\\n"))
def test_no_text_breaks_the_parser(text: str) -> None:
    """Any text is a source or a ConfigurationError, soon."""
    try:
        from_connection_string(text)
    except ConfigurationError as error:
        assert "connection string is wrong" in str(error)  # noqa: PT017  (either is fine)


def test_another_type_is_told() -> None:
    """A connection string is a string."""
    with pytest.raises(TypeError, match="not bytes"):
        from_connection_string(b"RunAs=App")  # type: ignore[arg-type]


def test_a_provider_is_made_from_a_connection_string() -> None:
    """The classmethod takes the options of the constructor."""
    provider = TokenProvider.from_connection_string("RunAs=App", max_resources=3)
    assert repr(provider) == "<TokenProvider source=managed_identity tokens=0 in_flight=0>"
    with pytest.raises(ConfigurationError):
        TokenProvider.from_connection_string("RunAs=Nobody")
