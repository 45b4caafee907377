"""What the .NET library AppAuthentication, whose connection strings we read, was tested for, and what tests it here.

Each line names one of its tests, and the tests of ours that ask for the same, or says why that makes no sense here.
"""

from __future__ import annotations

from guards import Guards, mistakes

NO_REFRESH_TOKENS = "Each login is a whole chain, and the provider keeps its token; there is no silent way beside it."
NO_STORE = "There is no certificate store outside Windows; a connection string that names one is refused with advice."
NO_SQL = "SqlClient is .NET's; a driver here is handed a token by `aiomsi.adapters.odbc` or `.sqlalchemy`."

UNDERSTOOD = "test_connection_string::test_what_is_understood"
WRONG = "test_connection_string::test_what_is_wrong_is_told_without_any_value"
ODD_ANSWER = "test_managed_identity::test_a_wrong_answer_is_shown_by_its_shape"
REFUSED = "test_managed_identity::test_a_refusal_says_what_to_do"

ACCEPTANCE: dict[str, list[tuple[str, Guards]]] = {
    "AzureServiceTokenProvider": [
        (
            "GetAppAuthResultCacheTest",
            [
                "test_provider::test_a_crowd_shares_one_fetch",
                "test_provider::test_a_used_token_is_refreshed_behind_everybody_s_back",
                "test_provider::test_an_expired_token_is_never_served",
            ],
        ),
        (
            "GetTokenExceptionTest",
            [
                "test_provider::test_a_failure_is_repeated_for_a_while_and_then_the_next_caller_probes",
                REFUSED,
            ],
        ),
        ("InvalidAzureAdInstanceTest", ["test_entra_application::test_an_authority_that_is_none"]),
        ("NullOrEmptyAzureAdInstanceTest", ["test_entra_application::test_an_authority"]),
        (
            "ResourceNullOrEmptyWhenGettingTokenTest",
            [
                "test_provider::test_a_wrong_resource_is_told_before_anything_is_sent",
                "test_provider::test_a_resource_of_another_type_is_told",
            ],
        ),
        ("UnspecifiedConnectionStringTest", ["test_chain::test_the_connection_string_of_the_environment_decides"]),
        ("DiscoveryTestFirstSuccess", ["test_chain::test_a_host_that_the_environment_names_is_asked_and_nobody_else"]),
        (
            "DiscoveryTestFirstFail",
            [
                "test_chain::test_the_first_that_is_there_answers",
                "test_chain::test_where_nobody_answers_the_probe_the_tool_does",
            ],
        ),
        ("DiscoveryTestBothFail", ["test_selection::test_everything_said_together"]),
        ("RemainMockable", "Nothing has to be overridden: a test gives the provider a ScriptedSource, or an endpoint."),
        ("InjectHttpFactory", "There is one transport, whose only choices, proxy and trust, the environment makes."),
        ("SideLoadHttpFactory", "There is no state of the process that could be set from the side."),
        ("VerifyPublicSignatures", ["test_public_api::test_the_public_names"]),
    ],
    "AzureServiceTokenProviderFactory": [
        ("AzureCliValidTest", [UNDERSTOOD]),
        ("AzureCliInvalidDeveloperToolTest", [WRONG]),
        ("AzureCliInvalidRunAsTest", [WRONG]),
        ("AzureCliInvalidConnectionStringTest", [WRONG]),
        ("AzureCliRepeatedKeyConnectionStringTest", [WRONG]),
        (
            "AzureCliIncorrectFormatConnectionStringTest",
            [WRONG, "test_connection_string::test_no_text_breaks_the_parser"],
        ),
        ("AzureCliConnectionStringNullOrEmptyTest", [WRONG, "test_connection_string::test_another_type_is_told"]),
        ("AzureCliConnectionStringNoCertLocationOrAppKeyTest", [WRONG]),
        ("AzureCliConnectionStringInvalidCertLocationTest", [WRONG]),
        ("AzureCliConnectionStringEndsWithSpaceTest", [UNDERSTOOD]),
        ("ActiveDirectoryIntegratedValidTest", [UNDERSTOOD]),
        ("ActiveDirectoryNotSupportedInNetCoreTest", [WRONG]),
        ("ManagedServiceIdentityValidTest", [UNDERSTOOD]),
        ("ManagedUserAssignedIdentityValidTest", [UNDERSTOOD]),
        ("CertValidTest", NO_STORE),
        ("ClientSecretValidTest", [UNDERSTOOD]),
        (
            "ConnectionStringParametersWithQuoteEscapingPositiveTest",
            [UNDERSTOOD, "test_connection_string::test_a_value_may_be_quoted"],
        ),
        ("ConnectionStringParametersWithQuoteEscapingNegativeTest", [WRONG]),
    ],
    "MsiAccessTokenProvider": [
        (
            "GetTokenUsingManagedIdentityAzureVm",
            [
                "test_managed_identity::test_the_system_assigned_identity",
                "test_managed_identity::test_a_user_assigned_identity",
            ],
        ),
        (
            "GetTokenUsingManagedIdentityAppServices",
            [
                "test_managed_identity::test_the_system_assigned_identity",
                "test_managed_identity::test_a_user_assigned_identity",
            ],
        ),
        (
            "Service Fabric, in its mock only",
            [
                "test_other_hosts::test_service_fabric_is_asked_over_tls_with_its_secret",
                "test_other_hosts::test_service_fabric_takes_no_selection",
            ],
        ),
        ("ParseErrorMsiGetTokenTest", [ODD_ANSWER]),
        ("MsiResponseMissingTokenTest", [ODD_ANSWER]),
        ("UnauthorizedTest", [REFUSED]),
        ("IncorrectFormatTest", [REFUSED]),
        (
            "HttpResponseExceptionTest",
            [
                "test_managed_identity::test_a_broken_connection_is_retried",
                "test_managed_identity::test_a_refused_connection_is_retried_where_the_environment_names_the_host",
            ],
        ),
        ("AzureVmImdsTimeoutTest", ["test_chain::test_the_probe_takes_a_second_at_most"]),
        (
            "TransientErrorRetryTest",
            [
                "test_managed_identity::test_how_often_each_status_is_retried",
                "test_managed_identity::test_an_outage_that_ends_during_the_retries_is_not_seen",
                "test_managed_identity::test_an_answer_that_does_not_come_to_an_end_is_given_up",
            ],
        ),
        (
            "MsiRetryTimeoutTest",
            [
                "test_connection_string::test_how_long_a_managed_identity_is_retried",
                "test_other_hosts::test_retrying_can_be_limited",
            ],
        ),
        (
            "AppServicesDifferentCultureTest",
            ["test_expiry::test_what_is_understood", "test_expiry::test_what_is_not_understood"],
        ),
    ],
    "AzureCliAccessTokenProvider": [
        (
            "GetTokenUsingAzureCliTest",
            ["test_tools::test_a_token_comes_with_all_that_is_known", "test_azure_cli::test_the_question_is_plain"],
        ),
        ("CliNotFoundTest", ["test_azure_cli::test_without_az_the_message_says_where_to_get_it"]),
        ("FailedToGetTokenUsingAzureCliTest", ["test_azure_cli::test_a_failure_is_told_by_its_text"]),
        ("ResourceInvalidCharsTest", ["test_tools::test_what_a_shell_would_read_never_reaches_a_tool"]),
    ],
    "ProcessManager": [
        (
            "RequestCancellationTest",
            [
                "test_subprocess::test_a_cancelled_call_leaves_no_process",
                "test_subprocess::test_a_program_that_takes_too_long_is_stopped_with_its_offspring",
            ],
        ),
    ],
    "WindowsAuthentication": [
        ("SilentSuccessTest", NO_REFRESH_TOKENS),
        ("SilentFailAndUserCredentialSuccessTest", ["end_to_end/test_integrated::test_the_chain"]),
        ("SilentFailAndUserCredentialFailTest", ["end_to_end/test_integrated::test_entra_does_not_take_the_assertion"]),
        ("SilentFailAndUserCredentialExceptionTest", ["end_to_end/test_integrated::test_no_ticket"]),
    ],
    "VisualStudioAccessTokenProvider": [
        (
            "GetTokenTest",
            ["test_tools::test_a_token_comes_with_all_that_is_known", "test_visual_studio::test_the_question_is_plain"],
        ),
        ("TokenProviderFileNotFoundTest", ["test_visual_studio::test_without_the_file_it_is_unavailable"]),
        ("TokenProvidersNotFoundTest", ["test_visual_studio::test_without_any_it_is_unavailable"]),
        (
            "FailedToGetToken",
            [
                "test_visual_studio::test_a_failure_is_told_by_its_code",
                "test_visual_studio::test_all_failures_are_told",
            ],
        ),
        ("ResourceInvalidCharsTest", ["test_tools::test_what_a_shell_would_read_never_reaches_a_tool"]),
        ("ParseFileWithOneProvider", ["test_visual_studio::test_the_question_is_plain"]),
        ("ParseFileWithMultipleProviders", ["test_visual_studio::test_the_preferred_one_goes_first"]),
        ("ParseFileError", ["test_visual_studio::test_a_broken_file_is_named"]),
    ],
    "ClientSecretAccessTokenProvider": [
        ("ClientSecretSuccessTest", ["test_client_credentials::test_a_secret_is_shown_to_entra_alone"]),
        ("ClientSecretFailTest", ["test_client_credentials::test_a_secret_that_is_refused"]),
        ("ClientSecretFailTestWithTenant", ["test_client_credentials::test_a_secret_that_is_refused"]),
        ("ClientSecretRedactionTest", ["test_client_credentials::test_a_secret_that_comes_back_is_not_shown"]),
        ("ClientIdNullOrEmptyTest", ["test_client_credentials::test_wrong_arguments_are_told_at_once"]),
        ("ClientSecretNullOrEmptyTest", ["test_client_credentials::test_wrong_arguments_are_told_at_once"]),
    ],
    "ClientCertificateAzureServiceTokenProvider": [
        ("ThumbprintSuccessTest", NO_STORE),
        ("ThumbprintFailTest", NO_STORE),
        ("ClientIdNullOrEmptyTest", ["test_client_credentials::test_wrong_arguments_are_told_at_once"]),
        ("StoreLocationNullOrEmptyTest", NO_STORE),
        ("CertSubjectNameOrThumbprintNullOrEmptyTest", NO_STORE),
        ("InvalidStoreLocationTest", NO_STORE),
        ("SubjectNameSuccessTest", NO_STORE),
        ("CannotAcquireTokenThroughCertTest", ["test_client_credentials::test_a_certificate_that_entra_does_not_know"]),
        ("CertificateNotFoundTest", ["test_client_credentials::test_a_file_that_cannot_be_used_is_named"]),
        (
            "KeyVaultCertificateSecretIdentifierSuccessTest",
            [
                "test_key_vault_certificate::test_who_hears_what",
                "test_key_vault_certificate::test_the_tenant_of_the_application",
            ],
        ),
        ("KeyVaultCertificateNotFoundTest", ["test_key_vault_certificate::test_a_vault_that_refuses"]),
    ],
    "KeyVaultClient": [
        (
            "KeyVaultUnavailable",
            [
                "test_key_vault_certificate::test_a_vault_that_cannot_be_reached",
                "test_key_vault_certificate::test_a_vault_in_trouble_is_asked_again",
            ],
        ),
        ("SecretIdentifierInvalidUriTest", [WRONG, "test_key_vault_certificate::test_an_identifier_that_is_none"]),
        ("SecretIdentifierInvalidSchemeTest", [WRONG, "test_key_vault_certificate::test_an_identifier_that_is_none"]),
        ("SecretIdentifierInvalidTypeTest", [WRONG, "test_key_vault_certificate::test_an_identifier_that_is_none"]),
        (
            "HttpBearerChallengeMissingTest",
            "The resource follows from the vault's host, so no challenge is waited for.",
        ),
        ("HttpBearerChallengeInvalidTest", "The resource follows from the vault's host, so no challenge is read."),
        ("KeyVaultTokenProviderErrorTest", ["test_key_vault_certificate::test_the_reader_s_error_is_the_answer"]),
        ("InvalidKeyVaultSecretType", ["test_key_vault_certificate::test_a_secret_that_is_no_certificate"]),
        ("SecretNotFoundTest", ["test_key_vault_certificate::test_a_vault_that_refuses"]),
    ],
    "UriHelper": [
        ("GetAzureAdInstanceValidAuthorityTest", ["test_entra_application::test_an_authority"]),
        ("GetAzureAdInstanceInvalidAuthorityTest", ["test_entra_application::test_an_authority_that_is_none"]),
        ("GetAzureAdInstanceNullAuthorityTest", ["test_entra_application::test_an_authority"]),
        ("GetTenantValidAuthorityTest", ["test_challenge::test_a_vault_names_its_tenant"]),
        (
            "GetTenantInvalidAuthorityTest",
            [
                "test_challenge::test_a_vault_must_name_an_authorization_server",
                "test_challenge::test_a_tenant_must_be_a_guid_or_a_domain",
            ],
        ),
        ("GetTenantNullAuthorityTest", ["test_challenge::test_a_vault_must_name_an_authorization_server"]),
    ],
    "SqlAppAuthenticationProvider": [
        ("InvalidAuthority", NO_SQL),
        ("MissingResource", NO_SQL),
        ("InvalidUserId", NO_SQL),
        ("ValidUserId", NO_SQL),
    ],
    "AzureServiceTokenProviderException": [
        ("SerializableTest", ["test_provider::test_errors_can_be_sent_to_another_process"]),
    ],
    "Integration": [
        ("GetTokenUsingAzCliTest", ["end_to_end/test_real_azure_cli::test_the_command_line_prints_a_token"]),
        ("GetTokenUsingVisualStudio", "It needs somebody who is signed in to a real Visual Studio."),
        ("GetTokenUsingIntegratedWindowsAuthenticationTest", ["end_to_end/test_integrated::test_the_chain"]),
        ("ConnectToSqlDbWithSqlAppAuthProvider", "It needs a real database in Azure."),
        (
            "GetTokenUsingServicePrincipalWithCertTest",
            [
                "test_client_credentials::test_a_certificate_proves_itself_with_a_signature",
                "test_client_credentials::test_where_a_certificate_comes_from",
            ],
        ),
        (
            "GetTokenUsingServicePrincipalWithClientSecretTest",
            [
                "test_client_credentials::test_a_secret_is_shown_to_entra_alone",
                "test_connection_string::test_a_value_may_be_quoted",
            ],
        ),
        ("WrongResource", ["end_to_end/test_real_azure_cli::test_a_refusal_of_entra_is_told_with_its_code"]),
    ],
}


def test_every_idea_has_one_line() -> None:
    """No test of AppAuthentication is left out, and none comes twice."""
    assert sum(map(len, ACCEPTANCE.values())) == 104
    assert [group for group, lines in ACCEPTANCE.items() if len(dict(lines)) != len(lines)] == []


def test_every_idea_is_tested_or_explained() -> None:
    """What is said to do here what was asked there exists, and where nothing does there is a reason."""
    assert mistakes(guards for lines in ACCEPTANCE.values() for _, guards in lines) == []
