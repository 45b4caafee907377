"""Connection strings of the AppAuthentication library."""

from __future__ import annotations

import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiomsi import ConfigurationError, TokenProvider
from aiomsi.sources import Surroundings, from_connection_string

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
        ("RunAs=CurrentUser", "Integrated Authentication.* is not supported yet"),
        ("RunAs=Developer", "RunAs=Developer needs DeveloperTool"),
        ("RunAs=Developer;DeveloperTool=Notepad", "DeveloperTool is none of AzureCLI"),
        ("RunAs=Developer;DeveloperTool=AzureCLI;TenantId='hunter2 & co'", "TenantId holds characters"),
        ("RunAs=Developer;DeveloperTool=AzureCLI;AppKey=hunter2", r"1 of its keys \(AppKey\) do not belong"),
        ("RunAs=App;AppId=hunter2", "is not a client id"),
        ("RunAs=App;AppId='it''s'", "is not a client id"),
        ('RunAs=App;AppId="a ""b"""', "is not a client id"),
        ("RunAs=App;AppKey=hunter2", "AppKey needs AppId"),
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
        (f"RunAs=App;KeyVaultCertificateSecretIdentifier={VAULT_SECRET}", "Identifier needs AppId"),
        (f"{OF_VAULT};KeyVaultUserAssignedManagedIdentityId=hunter2", "is not a client id"),
        ("RunAs=Workload;AppKey=hunter2", "AppKey"),
        ("RunAs=App;hunter2=x", "an unknown one"),
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
