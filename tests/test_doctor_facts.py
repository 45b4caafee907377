"""What the doctor concludes, as pure functions: skew, proxies, platforms, access, advice, secrets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from test_tools import jwt

from aiomsi._command_line.doctor.advice import advise
from aiomsi._command_line.doctor.clock import Reading, issued, read_date, skew
from aiomsi._command_line.doctor.grants import commands_for, grant_for
from aiomsi._command_line.doctor.platforms import platform_of, title_of
from aiomsi._command_line.doctor.proxies import proxies
from aiomsi._command_line.doctor.report import (
    Asked,
    AzureCLIFacts,
    Conclusion,
    ErrorFacts,
    HostFacts,
    Identity,
    Program,
    ProxyFacts,
    Report,
    Skew,
    SourceFacts,
)
from aiomsi._command_line.doctor.secrecy import known_secrets, scrubbed
from aiomsi.sources import Surroundings

NOW = 1_760_000_000.0
OBJECT = "22222222-aaaa-4bbb-8ccc-000000000002"
CLIENT = "11111111-aaaa-4bbb-8ccc-000000000001"
APP = Identity("imds", NOW + 60, 60, "App", CLIENT, OBJECT, "a-tenant", None)
USER = Identity("azure_cli", NOW + 60, 60, "User", CLIENT, OBJECT, "a-tenant", "me@contoso.com")
RIGHT = Skew(0.0, False, "", "right", False)


def around(**environ: str) -> Surroundings:
    return Surroundings(environ=environ)


# The clock


@pytest.mark.parametrize(
    ("theirs", "seconds", "meaning", "matters"),
    [
        (NOW, 0.0, "right", False),
        (NOW - 1, 1.0, "right", False),
        (NOW - 120, 120.0, "120 s ahead, which does no harm", False),
        (NOW + 300, -300.0, "300 s behind, which does no harm", False),
        (NOW - 301, 301.0, "301 s ahead: tokens seem to end too early", True),
        (NOW + 3600, -3600.0, "3600 s behind: tokens are kept past their end", True),
    ],
)
def test_skew_by_another_clock(theirs: float, seconds: float, meaning: str, matters: bool) -> None:
    """From five minutes on a wrong clock matters, and in which direction decides what it does."""
    found = skew([Reading("imds", theirs, NOW, 0.1)], [], NOW)
    assert (found.seconds, found.at_least, found.matters) == (seconds, False, matters)
    assert found.meaning.startswith(meaning)
    assert "imds" in found.evidence


def test_the_quickest_answer_tells_the_time_best() -> None:
    """Of several clocks the one that took the least time to be read is believed."""
    found = skew([Reading("slow", NOW + 900, NOW, 5), Reading("quick", NOW, NOW, 0.1)], [], NOW)
    assert (found.seconds, "quick" in found.evidence) == (0.0, True)


def test_a_token_from_the_future() -> None:
    """A token that was made later than it is here proves that this clock is behind, at least so far."""
    found = skew([], [NOW - 50, NOW + 400], NOW)
    assert (found.seconds, found.at_least, found.matters) == (-400.0, True, True)
    assert found.meaning.startswith("at least 400 s behind")


@pytest.mark.parametrize("issues", [[], [NOW - 400], [NOW + 1]])
def test_a_token_from_the_past_tells_nothing(issues: list[float]) -> None:
    """A host may have had it for hours, so nothing is claimed."""
    found = skew([], issues, NOW)
    assert (found.seconds, found.matters, found.meaning) == (None, False, "not known to be wrong")


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"iat": 5, "nbf": 7}, 7.0),
        ({"iat": 5}, 5.0),
        ({"iat": True, "nbf": "9"}, None),
        ({}, None),
        ({"iat": 10**400}, None),
    ],
)
def test_when_a_token_was_made(claims: dict[str, Any], expected: float | None) -> None:
    """What is no moment is passed over."""
    assert issued(jwt(**claims)) == expected


def test_opaque_tokens_have_no_date() -> None:
    assert issued("opaque") is None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Thu, 09 Oct 2025 08:53:20 GMT", NOW),
        ("yesterday", None),
        (None, None),
        ("Thu, 32 Oct 2025 08:53:20 GMT", None),
    ],
)
def test_dates(header: str | None, expected: float | None) -> None:
    """A date that cannot be read is none."""
    assert read_date(header) == expected


# Proxies


def test_the_proxy_that_is_used_is_the_one_that_public_services_are_asked_through() -> None:
    """Of the proxies one is used, for public services; local hosts are never asked through any."""
    found = proxies(around(HTTP_PROXY="proxy:1", HTTPS_PROXY="https://proxy:2", all_proxy="socks5://proxy"), [])
    assert [(one.variable, one.address, one.used_by_aiomsi) for one in found.proxies] == [
        ("HTTP_PROXY", "http://proxy:1", False),
        ("HTTPS_PROXY", "https://proxy:2", True),
        ("all_proxy", "socks5://proxy", False),
    ]
    assert (found.in_the_way, found.culprit) == ((), None)


@pytest.mark.parametrize(
    "text", ["ftp://proxy", "http://[", "http://proxy:port", "http://me:1/2@proxy", "http://me:1#2@proxy", "://"]
)
def test_what_is_no_url_of_a_proxy_is_not_shown(text: str) -> None:
    """A password whose special characters are not encoded may be taken for anything."""
    assert [one.address for one in proxies(around(HTTP_PROXY=text), []).proxies] == ["no URL of a proxy"]


@pytest.mark.parametrize(
    ("environ", "caught", "culprit"),
    [
        ({}, (), None),
        ({"HTTPS_PROXY": "proxy"}, (), None),
        ({"HTTP_PROXY": "proxy"}, ("169.254.169.254", "localhost"), "HTTP_PROXY"),
        ({"ALL_PROXY": "proxy", "NO_PROXY": "localhost"}, ("169.254.169.254",), "ALL_PROXY"),
        ({"http_proxy": "proxy", "HTTP_PROXY": "other", "no_proxy": "*"}, (), None),
        ({"http_proxy": "proxy", "no_proxy": "169.254.169.254"}, ("localhost",), "http_proxy"),
        ({"http_proxy": "proxy", "NO_PROXY": "169.254.0.0/16, localhost"}, (), None),
        ({"http_proxy": "proxy", "NO_PROXY": "10.0.0.0/8,localhost"}, ("169.254.169.254",), "http_proxy"),
        ({"http_proxy": "proxy", "NO_PROXY": "nonsense/8"}, ("169.254.169.254", "localhost"), "http_proxy"),
    ],
)
def test_proxies_that_are_in_the_way(environ: dict[str, str], caught: tuple[str, ...], culprit: str | None) -> None:
    """Other programs ask local hosts through a proxy for http, unless NO_PROXY has them."""
    found = proxies(around(**environ), ["169.254.169.254", "localhost", "localhost"])
    assert (found.in_the_way, found.culprit) == (caught, culprit)


# Platforms


@pytest.mark.parametrize(
    ("environ", "kind"),
    [
        ({}, None),
        ({"WEBSITE_SITE_NAME": "x"}, "app_service"),
        ({"WEBSITE_SITE_NAME": "x", "FUNCTIONS_WORKER_RUNTIME": "python"}, "functions"),
        ({"CONTAINER_APP_NAME": "x", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "container_apps"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
        ({"GITHUB_ACTIONS": "true"}, "github_actions"),
        ({"AZUREML_RUN_ID": "x"}, "azure_ml"),
        ({"ACC_CLOUD": "PROD"}, "cloud_shell"),
        ({"Fabric_ApplicationName": "x"}, "service_fabric"),
    ],
)
def test_platforms_by_their_variables(environ: dict[str, str], kind: str | None) -> None:
    """A platform shows itself by its variables, before its identity is switched on."""
    found = platform_of(around(**environ), host=None, azure_vm=None, arc_agent=False)
    assert (None if found is None else found.name) == kind


def test_platforms_by_other_signs() -> None:
    """Where no variable tells, the host, the agent or the firmware does."""
    nothing = around()
    by_host = platform_of(nothing, host="app_service", azure_vm=True, arc_agent=True)
    by_agent = platform_of(nothing, host=None, azure_vm=None, arc_agent=True)
    by_firmware = platform_of(nothing, host=None, azure_vm=True, arc_agent=False)
    found = [one.name for one in (by_host, by_agent, by_firmware) if one is not None]
    assert found == ["app_service", "azure_arc", "virtual_machine"]
    assert title_of("kubernetes") == "Kubernetes"
    assert title_of(None) == "this platform"


@pytest.mark.parametrize(
    ("environ", "client_id", "command"),
    [
        (
            {"CONTAINER_APP_NAME": "orders"},
            None,
            "az containerapp identity assign --resource-group <group> --name orders --system-assigned",
        ),
        (
            {"CONTAINER_APP_NAME": "orders"},
            CLIENT,
            (
                "az containerapp identity assign --resource-group <group> --name orders"
                " --user-assigned <id of the identity>"
            ),
        ),
        (
            {"FUNCTIONS_WORKER_RUNTIME": "python", "WEBSITE_SITE_NAME": "$(rm -rf /)"},
            "$(rm)",
            "az functionapp identity assign --resource-group <group> --name <app>",
        ),
    ],
)
def test_commands_have_the_names_that_are_known(environ: dict[str, str], client_id: str | None, command: str) -> None:
    """Names from the environment are filled in, if they are plain ones; the rest is for the user."""
    surroundings = around(**environ)
    found = platform_of(surroundings, host=None, azure_vm=None, arc_agent=False)
    assert found is not None
    assert found.switched_on(surroundings, client_id)[-1] == command


# Access


@pytest.mark.parametrize(
    ("resource", "service", "part"),
    [
        ("https://management.azure.com/", "Azure Resource Manager", '--role "Reader" --scope "/subscriptions/'),
        ("https://vault.azure.net", "Key Vault", '--role "Key Vault Secrets User"'),
        ("https://mine.vault.usgovcloudapi.net", "Key Vault", "/Microsoft.KeyVault/vaults/<vault>"),
        ("cfa8b339-82a2-471a-a3c9-0fc0be7a4093", "Key Vault", '--role "Key Vault Secrets User"'),
        ("https://managedhsm.azure.net", "Managed HSM", "az keyvault role assignment create"),
        ("https://storage.azure.com/", "Storage", '--role "Storage Blob Data Contributor"'),
        ("https://mine.blob.core.windows.net", "Storage", '--role "Storage Blob Data Reader"'),
        ("https://database.windows.net/", "Azure SQL", "CREATE USER [<name>] FROM EXTERNAL PROVIDER"),
        (
            "https://ossrdbms-aad.database.windows.net",
            "Azure Database for PostgreSQL or MySQL",
            f"pgaadauth_create_principal_with_oid('<role>', '{OBJECT}', 'service'",
        ),
        ("https://servicebus.azure.net", "Service Bus", '"Azure Service Bus Data Sender"'),
        ("https://eventhubs.azure.net//", "Event Hubs", '"Azure Event Hubs Data Receiver"'),
        ("https://cognitiveservices.azure.com", "Azure AI services and Azure OpenAI", "OpenAI User"),
        ("https://search.azure.com", "AI Search", "Search Index Data Reader"),
        ("https://azconfig.io", "App Configuration", "App Configuration Data Reader"),
        ("https://mine.documents.azure.com", "Cosmos DB", f"--principal-id {OBJECT}"),
        ("https://containerregistry.azure.net", "Container Registry", "AcrPull"),
        ("https://api.loganalytics.io", "Log Analytics", "Log Analytics Reader"),
        ("https://monitor.azure.com", "Azure Monitor", "Monitoring Metrics Publisher"),
        ("https://redis.azure.com", "Azure Cache for Redis", f"--object-id {OBJECT}"),
        ("https://graph.microsoft.com", "Microsoft Graph", f"servicePrincipals/{OBJECT}/appRoleAssignments"),
        ("api://mine", "the service", '--role "<role>"'),
        ("https://notvault.azure.net.example", "the service", '--role "<role>"'),
    ],
)
def test_access_to_each_service(resource: str, service: str, part: str) -> None:
    """Each service has a way of its own to let somebody in; an unknown one gets the general form."""
    assert grant_for(resource).service == service
    told = commands_for(resource, APP)
    assert part in "\n".join(told)
    assert all("{" not in command or "'{" in command or '"{' in command for command in told)


def test_access_for_a_user() -> None:
    """A user is named as one, by name where that is what the service wants."""
    assert "--assignee-principal-type User" in commands_for("https://vault.azure.net", USER)[0]
    nobody = replace(USER, type=None)  # Of an opaque token nothing is known, so nothing is claimed.
    assert "ServicePrincipal " not in commands_for("https://vault.azure.net", nobody)[0]
    (first, *_) = commands_for("https://database.windows.net/", USER)
    assert first.startswith("CREATE USER [me@contoso.com] FROM EXTERNAL PROVIDER")
    mysql = commands_for("https://ossrdbms-aad.database.windows.net", USER)[-1]
    assert mysql == "MySQL: CREATE AADUSER '<name>' IDENTIFIED BY 'me@contoso.com';"
    (graph,) = commands_for("https://graph.microsoft.com", USER)
    assert graph.startswith("az login --tenant a-tenant --scope https://graph.microsoft.com/<permission")


def test_claims_cannot_become_commands() -> None:
    """A token says what it likes; in a command there is nothing that a shell or a database would take for its own."""
    evil = replace(USER, object_id='"; rm -rf $HOME `x` >.bashrc #', user_principal_name="x]; DROP TABLE y;--'")
    told = "\n".join(
        commands_for("https://vault.azure.net", evil) + commands_for("https://database.windows.net/", evil)
    )
    assert "rm_-rf__HOME" in told
    assert "x___DROP_TABLE" in told
    assert not {"`", "$"} & set(told)
    assert ">.bashrc" not in told
    assert " #" not in told


# Advice


def report(error: ErrorFacts | None = None, **parts: Any) -> Report:
    """Return a report on a machine where one source, which is asked, gave *error*."""
    source = SourceFacts("managed_identity", "failed", reached=True, seconds=0.1, error=error)
    whole = Report(
        program=Program("1", "3", "linux"),
        asked=Asked("https://vault.azure.net", None, None, "nothing"),
        conclusion=Conclusion(works=False, exit_code=3, error=error),
        sources=(source,),
        host=HostFacts(None, None, (), None, None, arc_agent=False),
        reach=(),
        clock=RIGHT,
        proxies=ProxyFacts(),
        azure_cli=AzureCLIFacts(None, None, 0.0, None, None, 0, None, None),
    )
    return replace(whole, **parts)


@pytest.mark.parametrize(
    ("platform", "command"),
    [
        ("linux", "sudo timedatectl set-ntp true"),
        ("win32", "w32tm /resync"),
        ("darwin", "sudo sntp -sS time.apple.com"),
    ],
)
def test_a_wrong_clock_is_set(platform: str, command: str) -> None:
    """A clock that is wrong by more than Azure puts up with is the first thing to mend, even if a token was had."""
    wrong = Skew(600.0, False, "", "600 s ahead", True)
    works = Conclusion(works=True, exit_code=0, source="imds", identity=APP)
    found = advise(report(clock=wrong, program=Program("1", "3", platform), conclusion=works), ())
    assert (found[0].subject, found[0].commands) == ("fix", (command,))
    assert found[1].subject == "grant"


@pytest.mark.parametrize(
    ("platform", "exceptions", "command"),
    [
        ("linux", None, 'export NO_PROXY="169.254.169.254"'),
        ("linux", "no_proxy", 'export no_proxy="$no_proxy,169.254.169.254"'),
        ("win32", None, '$env:NO_PROXY = "169.254.169.254"'),
        ("win32", "NO_PROXY", '$env:NO_PROXY = "$env:NO_PROXY,169.254.169.254"'),
    ],
)
def test_exceptions_are_added_to_those_that_there_are(platform: str, exceptions: str | None, command: str) -> None:
    """What is in NO_PROXY already stays there."""
    found = ProxyFacts((), exceptions, ("169.254.169.254",), "HTTP_PROXY")
    (advice,) = advise(report(proxies=found, program=Program("1", "3", platform)), ())
    assert (advice.subject, advice.commands) == ("note", (command,))


@pytest.mark.parametrize(
    ("code", "command"),
    [
        ("AADSTS7000222", 'az ad app credential reset --append --id "$AZURE_CLIENT_ID"'),
        ("AADSTS700027", 'az ad app credential reset --append --id "$AZURE_CLIENT_ID" --cert @<certificate>.pem'),
        ("AADSTS700016", 'az ad sp show --id "$AZURE_CLIENT_ID"'),
        (
            "AADSTS700213",
            (
                "az identity federated-credential create --resource-group <group> --identity-name <identity>"
                " --name <name> --issuer <issuer> --subject <subject> --audiences api://AzureADTokenExchange"
            ),
        ),
    ],
)
def test_codes_of_entra(code: str, command: str) -> None:
    """Where the code says what is wrong, a command mends it or looks at it."""
    error = ErrorFacts("TokenRefusedError", "no", "workload_identity", 400, code)
    assert advise(report(error), ())[0].commands[0] == command


def test_errors_of_other_sources_say_themselves_what_to_do() -> None:
    """A tool that is there and fails is told in its own words; one of many that is absent needs nothing to be done."""
    failed = ErrorFacts("TokenRefusedError", "no; run: azd auth login", "azure_developer_cli")
    absent = ErrorFacts("SourceUnavailableError", "not installed", "azure_developer_cli")
    told = [(advice.why, advice.commands) for advice in advise(report(failed), ())]
    assert told == [("no; run: azd auth login", ("azd auth login",))]
    assert [advice.why for advice in advise(report(absent), ())] == ["not installed"]
    among_others = report(absent)
    assert advise(replace(among_others, sources=among_others.sources * 2), ()) == ()


def test_a_host_that_is_throttling_says_no_time() -> None:
    """Without a time to wait, a while is to be waited."""
    error = ErrorFacts("EndpointError", "busy", "imds", 429)
    assert advise(report(error), ())[0].why == "imds is there but cannot serve now (HTTP 429); ask again in a while"


# Secrets


def test_the_longest_secret_is_taken_out_first() -> None:
    """A secret that holds another one leaves nothing of itself behind."""
    secrets = known_secrets(around(A_SECRET="abcd", B_SECRET="abcdefgh", C_SECRET="abc"), ["xxxx.yyyy.z"])
    assert scrubbed(("abcdefgh abcd abc xxxx.yyyy.z yyyy", 5, None), secrets) == (
        "<redacted> <redacted> abc <redacted> <redacted>",
        5,
        None,
    )


def test_words_that_are_ours_stay() -> None:
    """A password like "failed" does not take the verdict away."""
    source = SourceFacts("failed", "failed", reached=True, seconds=0.1)
    assert scrubbed(source, ["failed"]) == replace(source, name="<redacted>")


def test_encoded_secrets_are_found() -> None:
    """The user information of a proxy is taken out as it is written, and as it is meant."""
    secrets = known_secrets(around(HTTPS_PROXY="http://user:p%40ssword@proxy", HTTP_PROXY="a-token@proxy"), [])
    assert scrubbed("p@ssword, p%40ssword, user, a-token", secrets) == "<redacted>, <redacted>, user, <redacted>"


def test_only_messages_have_lines_and_none_is_endless() -> None:
    """Whatever comes from outside is one line, of limited length; the message of a chain has one for each source."""
    error = scrubbed(ErrorFacts("a\nb", "a\nb\x1b", code="c" * 5_000), [])
    assert (error.kind, error.message, len(error.code or "")) == ("a b", "a\nb ", 4_001)
