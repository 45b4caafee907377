"""Connection strings of the AppAuthentication library."""

from __future__ import annotations

import asyncio
import traceback
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pods import pod
from support import PacedClock

from aiomsi import ConfigurationError, EndpointError, TokenProvider
from aiomsi.endpoint import Answer, IdentityEndpoint
from aiomsi.sources import Surroundings, TokenRequest, from_connection_string

if TYPE_CHECKING:
    from pathlib import Path

CLIENT_ID = "11111111-aaaa-4bbb-8ccc-000000000001"
VAULT_SECRET = "https://myvault.vault.azure.net/secrets/mine"
OF_VAULT = f"RunAs=App;AppId=a;KeyVaultCertificateSecretIdentifier={VAULT_SECRET}"


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
        ("RunAs=Developer;DeveloperTool=VisualStudio", "VisualStudio()"),
        ("RunAs=Developer;DeveloperTool=AzurePowerShell", "AzurePowerShell()"),
        ("RunAs=Developer;DeveloperTool=AzureDeveloperCLI", "AzureDeveloperCLI()"),
        ("RunAs=Developer;DeveloperTool=AzureCLI;TenantId=contoso.example", "AzureCLI(tenant_id='contoso.example')"),
        ("RunAs=App;AppId=an-app;TenantId=t;AppKey=hunter2", "ClientSecret(tenant_id='t', client_id='an-app')"),
        ("RunAs=App;AppId=a;TenantId=t;AppKey='it''s; == \"'", "ClientSecret(tenant_id='t', client_id='a')"),
        (f"RunAs=App;MsiRetryTimeout=0;AppId={CLIENT_ID}", f"ManagedIdentity(client_id='{CLIENT_ID}')"),
        (
            f"{OF_VAULT};TenantId=t;KeyVaultUserAssignedManagedIdentityId={CLIENT_ID}",
            f"KeyVaultCertificate(client_id='a', reader=ManagedIdentity(client_id='{CLIENT_ID}'))",
        ),
        ("RunAs=CurrentUser", "IntegratedAuth()"),
        ("runas=currentuser;TenantId=contoso.example;", "IntegratedAuth(tenant_id='contoso.example')"),
        ("RunAs=Workload", "WorkloadIdentity()"),
        ("RunAs=Workload;AppId=a;TenantId=t", "WorkloadIdentity(client_id='a', tenant_id='t')"),
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
        ("RunAs=CurrentUser;AppId=x", r"1 of its keys \(AppId\) do not belong"),
        ("RunAs=CurrentUser;AppKey=hunter2", r"1 of its keys \(AppKey\) do not belong"),
        ("RunAs=Developer", "RunAs=Developer needs DeveloperTool"),
        ("RunAs=Developer;DeveloperTool=Notepad", "DeveloperTool is none of AzureCLI"),
        ("RunAs=Developer;DeveloperTool=AzureCLI;TenantId='hunter2 & co'", "TenantId holds characters"),
        ("RunAs=Developer;DeveloperTool=AzureCLI;AppKey=hunter2", r"1 of its keys \(AppKey\) do not belong"),
        ("RunAs=App;AppId=hunter2", "is not a client id"),
        ("RunAs=App;AppId='it''s'", "is not a client id"),
        ('RunAs=App;AppId="a ""b"""', "is not a client id"),
        ("RunAs=App;AppKey=hunter2", "AppKey needs AppId"),
        ("RunAs=App;AppId=a;TenantId=t;AppKey='hunter2\n'", "AppKey holds control characters"),
        (f"RunAs=App;AppId={CLIENT_ID};AppKey=hunter2", "AppKey needs TenantId"),
        (f"RunAs=App;AppId={CLIENT_ID};TenantId=t", r"\(TenantId\) do not belong"),
        (f"RunAs=App;AppId={CLIENT_ID};TenantId=t;AppKey=hunter2;MsiRetryTimeout=1", "MsiRetryTimeout"),
        ("RunAs=App;MsiRetryTimeout=-1", "MsiRetryTimeout is a whole number"),
        ("RunAs=App;MsiRetryTimeout=soon", "MsiRetryTimeout is a whole number"),
        (f"RunAs=App;AppId={CLIENT_ID};TenantId=t;CertificateThumbprint=a", "CertificateThumbprint mean a certificate"),
        (
            f"RunAs=App;AppId={CLIENT_ID};CertificateSubjectName=CN=a;CertificateStoreLocation=CurrentUser",
            "export the certificate",
        ),
        (f"{OF_VAULT}.evil/x", "not of the form https"),
        (OF_VAULT.replace("myvault.", "my"), "not of the form https"),
        (OF_VAULT.replace("https", "http"), "not of the form https"),
        (OF_VAULT.replace("/secrets/", "/keys/"), "not of the form https"),
        (f"RunAs=App;KeyVaultCertificateSecretIdentifier={VAULT_SECRET}", "Identifier needs AppId"),
        (f"{OF_VAULT};KeyVaultUserAssignedManagedIdentityId=hunter2", "is not a client id"),
        ("RunAs=Workload;AppKey=hunter2", "AppKey"),
        ("RunAs=App;hunter2=x", "an unknown one"),
        ("RunAs=App;AppId= 'hunter2", "not of the form"),
        ("RunAs=App; =hunter2", "not of the form"),
    ],
)
def test_what_is_wrong_is_told_without_any_value(text: str, complaint: str) -> None:
    """The message says what is wrong and which forms there are, but shows nothing that may be a secret."""
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        from_connection_string(text)
    assert "RunAs=App[;AppId=<client id>]" in str(caught.value)
    said = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "hunter2" not in said.split("from_connection_string")[-1]
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("hunter2", "hunter2"),
        ("  hunter 2  ", "hunter 2"),
        ("it's", "it's"),
        ('say "hi"', 'say "hi"'),
        ("a=b==", "a=b=="),
        ("'hunter2'", "hunter2"),
        ("'  hunter2  '", "  hunter2  "),
        ("'a;b=c'", "a;b=c"),
        ("'it''s'", "it's"),
        ("'say \"hi\"'", 'say "hi"'),
        ('"hunter2"', "hunter2"),
        ('"a;b=c"', "a;b=c"),
        ('"say ""hi"""', 'say "hi"'),
        ('"it\'s"', "it's"),
        ("''''", "'"),
    ],
)
async def test_a_value_may_be_quoted(tmp_path: Path, written: str, meant: str) -> None:
    """Within quotes of one kind those of the other mean nothing, and a doubled one means one."""
    async with pod(tmp_path) as opened:
        text = f"RunAs=App;AppId={CLIENT_ID};TenantId=t;AppKey={written} ;"
        await opened.token(from_connection_string(text, opened.surroundings))
    assert opened.forms[0]["client_secret"] == meant


@pytest.mark.parametrize("text", ["RunAs=App;{}x", "RunAs=App;x{}x", "RunAs={}'", "RunAs=''{}x", "{}="])
@pytest.mark.parametrize("filling", [" ", "''", "x ", "== "])
def test_no_text_takes_long(text: str, filling: str) -> None:
    """What is wrong is so soon, however long it is."""
    with pytest.raises(ConfigurationError, match="connection string is wrong"):
        from_connection_string(text.format(filling * 20_000))


@given(st.text(alphabet="abRunAs=;'\" \\\n"))
def test_no_text_breaks_the_parser(text: str) -> None:
    """Any text is a source or a ConfigurationError, soon."""
    try:
        from_connection_string(text)
    except ConfigurationError as error:
        assert "connection string is wrong" in str(error)  # noqa: PT017  (either is fine)


def test_a_key_vault_is_read_as_whoever_this_is_by_default() -> None:
    """Without an identity for the vault, the default one reads it, the connection string of the environment aside."""
    text = f"{OF_VAULT};MsiRetryTimeout=7"
    environ = {"AzureServicesAuthConnectionString": text, "AZURE_TOKEN_CREDENTIALS": "prod"}
    source = from_connection_string(text, Surroundings(environ=environ))
    assert repr(source) == "KeyVaultCertificate(client_id='a', reader=ManagedIdentity())"


@pytest.mark.parametrize(
    ("option", "waits"), [("", [1, 2, 4]), ("MsiRetryTimeout=2;", [1]), ("MsiRetryTimeout=0;", [])]
)
async def test_how_long_a_managed_identity_is_retried(option: str, waits: list[float]) -> None:
    """MsiRetryTimeout is for how many seconds a host that is in trouble is asked again."""
    async with IdentityEndpoint() as endpoint:
        endpoint.script(then=Answer(503))
        source = from_connection_string(f"RunAs=App;{option}", Surroundings(environ=endpoint.environ("app_service")))
        clock = PacedClock()
        request = TokenRequest("https://vault.azure.net", clock=clock, deadline=clock.monotonic() + 90)
        fetching = asyncio.ensure_future(source.fetch(request))
        assert await clock.pace(fetching) == waits
    assert isinstance(fetching.exception(), EndpointError)


def test_what_is_wrong_with_the_environment_is_told_too() -> None:
    """Where the environment should say who reads the key vault, its mistakes are told without the connection string."""
    text = f"RunAs=App;AppId=hunter2;KeyVaultCertificateSecretIdentifier={VAULT_SECRET}"
    with pytest.raises(ConfigurationError, match="AZURE_TOKEN_CREDENTIALS is 'nobody'") as caught:
        from_connection_string(text, Surroundings(environ={"AZURE_TOKEN_CREDENTIALS": "nobody"}))
    assert caught.value.__traceback__ is not None
    assert "text" not in caught.value.__traceback__.tb_next.tb_frame.f_locals  # type: ignore[union-attr]


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
