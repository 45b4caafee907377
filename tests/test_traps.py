"""What has gone wrong for others who ask Azure for tokens, and which test fails if it goes wrong here.

The numbers are those of our list of traps. Each line names the tests that fail when the code that avoids the trap is
taken away, or says why nobody can fall into it here.
"""

from __future__ import annotations

from guards import Guards, mistakes

TRAPS: list[tuple[int, str, Guards]] = [
    # Which host is it?
    (
        1,
        "App Service sets the old pair of variables beside the new one",
        ["test_managed_identity::test_which_host_the_environment_names"],
    ),
    (
        2,
        "an empty variable counts as set",
        [
            "test_managed_identity::test_which_host_the_environment_names",
            "test_managed_identity::test_the_environment_tells_where_we_are",
            "test_other_hosts::test_the_placeholder_of_azure_ml_names_nobody",
        ],
    ),
    (
        3,
        "an endpoint without its secret is a dead end",
        [
            "test_managed_identity::test_which_host_the_environment_names",
            "test_managed_identity::test_the_environment_tells_where_we_are",
        ],
    ),
    (
        4,
        "a secret or thumbprint is there without its endpoint",
        ["test_managed_identity::test_which_host_the_environment_names"],
    ),
    (
        5,
        "a service on an Arc machine lacks the variables, and IMDS is asked in vain",
        ["test_azure_arc::test_the_agent_is_found_by_its_program"],
    ),
    (6, "the synchronous and the asynchronous way choose differently", "There is no synchronous way."),
    (
        7,
        "the host once found is remembered by the process",
        ["test_managed_identity::test_what_the_environment_names_is_found_out_anew_each_time"],
    ),
    (
        8,
        "AZURE_CLIENT_ID is taken for the machine's user-assigned identity",
        [
            "test_managed_identity::test_a_client_id_of_the_environment_names_no_identity_of_the_machine",
            "test_selection::test_the_user_assigned_identity_of_the_environment_is_the_one_asked_for",
        ],
    ),
    (
        9,
        "workload identity is seen only where AZURE_AUTHORITY_HOST is set too",
        ["test_managed_identity::test_which_host_the_environment_names"],
    ),
    (
        10,
        "on Windows the agent's program and its keys are in different folders",
        ["test_azure_arc::test_where_the_program_is", "test_azure_arc::test_windows_has_its_own_folder"],
    ),
    # What is asked
    (
        11,
        "a resource id is mi_res_id here and msi_res_id there",
        [
            "test_managed_identity::test_a_user_assigned_identity",
            "test_azure_arc::test_a_user_assigned_identity_is_echoed",
        ],
    ),
    (
        12,
        "the protocol of 2017 spells it clientid",
        [
            "test_managed_identity::test_a_user_assigned_identity",
            "test_other_hosts::test_azure_ml_names_the_identity_itself",
        ],
    ),
    (
        13,
        "an identity named in an unknown way silently becomes the system-assigned one",
        [
            "test_managed_identity::test_a_way_of_naming_that_is_none_is_an_error",
            "test_managed_identity::test_what_a_host_cannot_select_by_is_told_before_anything_is_sent",
            "test_other_hosts::test_service_fabric_takes_no_selection",
        ],
    ),
    (
        14,
        "Azure ML answers for the logged-in user where no client id is sent",
        [
            "test_other_hosts::test_azure_ml_names_the_identity_itself",
            "test_other_hosts::test_any_other_text_is_not_passed_on",
        ],
    ),
    (
        15,
        "the protocol of 2017 answers for the system-assigned identity instead of an unknown one",
        ["test_other_hosts::test_a_token_of_somebody_else_is_dropped"],
    ),
    (
        16,
        "the Metadata header is `true` in lower case, for App Service's relatives too",
        [
            "test_managed_identity::test_no_proxy_cookie_or_compression_is_involved",
            "test_azure_arc::test_the_key_file_is_shown_to_have_been_read",
            "test_other_hosts::test_cloud_shell_gives_the_user_s_token",
        ],
    ),
    (
        17,
        "any X-Forwarded-For is refused",
        ["test_managed_identity::test_no_proxy_cookie_or_compression_is_involved"],
    ),
    (
        18,
        "the endpoint has a query already, and no parameter may come twice",
        ["test_managed_identity::test_an_endpoint_may_have_a_query"],
    ),
    (
        19,
        "a proxy from the environment gets in between",
        [
            "test_managed_identity::test_no_proxy_cookie_or_compression_is_involved",
            "test_other_hosts::test_proxies_of_the_environment_are_ignored",
        ],
    ),
    (20, "a redirect carries the secret elsewhere", ["test_other_hosts::test_a_redirect_is_not_followed"]),
    (
        21,
        "localhost is ::1 first, where nobody listens",
        [
            "test_managed_identity::test_localhost_is_tried_at_all_of_its_addresses",
            "test_azure_arc::test_the_agent_is_asked_at_an_address_that_needs_no_resolving",
        ],
    ),
    (
        22,
        "the platform rotates the secret in the environment",
        ["test_managed_identity::test_a_rotated_secret_is_read_anew"],
    ),
    (
        23,
        "the secret of another host is sent to IMDS in plain text",
        ["test_managed_identity::test_imds_gets_no_secret"],
    ),
    # Azure Arc
    (
        24,
        "whoever squats on the agent's port names a file to be read",
        [
            "test_azure_arc::test_a_file_that_is_no_key_of_the_agent_is_not_opened",
            "test_azure_arc::test_a_file_that_the_agent_cannot_have_written_is_not_sent",
            "test_azure_arc::test_a_file_of_somebody_else_is_not_sent",
            "test_azure_arc::test_a_link_is_refused_where_opening_does_not_refuse_it",
        ],
    ),
    (
        25,
        "the key is sent as it is, not encoded once more",
        [
            "test_azure_arc::test_the_content_is_stripped_and_sent_as_it_is",
            "test_azure_arc::test_the_key_file_is_shown_to_have_been_read",
        ],
    ),
    (
        26,
        "a newline at the end of the key makes an illegal header",
        ["test_azure_arc::test_the_content_is_stripped_and_sent_as_it_is"],
    ),
    (
        27,
        "an old agent ignores which identity is asked for",
        ["test_azure_arc::test_an_old_agent_s_token_for_somebody_else_is_dropped"],
    ),
    (
        28,
        "the identity is echoed in another case of letters",
        [
            "test_azure_arc::test_a_user_assigned_identity_is_echoed",
            "test_other_hosts::test_a_token_of_somebody_else_is_dropped",
        ],
    ),
    (
        29,
        "one challenge follows the other for ever",
        ["test_azure_arc::test_the_content_is_stripped_and_sent_as_it_is"],
    ),
    # Service Fabric
    (
        30,
        "whoever is on the port gets the secret, since certificates are not checked",
        [
            "test_other_hosts::test_another_certificate_hears_no_byte_of_the_secret",
            "test_other_hosts::test_a_valid_chain_does_not_replace_the_pin",
            "test_other_hosts::test_service_fabric_in_plain_http_is_refused",
            "test_tls::test_the_certificate_that_is_pinned_is_believed",
        ],
    ),
    (
        31,
        "the thumbprint has colons, blanks and capitals",
        ["test_other_hosts::test_a_thumbprint_is_read_in_every_style"],
    ),
    (
        32,
        "a 404 is final here, and passes on IMDS",
        [
            "test_other_hosts::test_an_application_without_identity_is_told_at_once",
            "test_managed_identity::test_how_often_each_status_is_retried",
        ],
    ),
    (
        33,
        "aiohttp takes no digest of SHA-1",
        ["test_other_hosts::test_service_fabric_is_asked_over_tls_with_its_secret"],
    ),
    # What is answered
    (
        34,
        "`expires_in` counts from issuance, which may be hours ago",
        ["test_expiry::test_which_member_says_when_a_token_ends"],
    ),
    (35, "`expires_on` is a date", ["test_expiry::test_what_is_understood"]),
    (36, "a second has seven decimal places", ["test_expiry::test_what_is_understood"]),
    (37, "a clock of twelve hours, with an hour 00 PM", ["test_expiry::test_what_is_understood"]),
    (
        38,
        "`expires_in` is a fraction",
        ["test_expiry::test_durations", "test_expiry::test_which_member_says_when_a_token_ends"],
    ),
    (39, "`refresh_in` is a text", ["test_expiry::test_when_the_host_wants_to_be_asked_again"]),
    (40, "the resource is not repeated in the answer", ["test_expiry::test_a_token_is_for_what_was_asked"]),
    (
        41,
        "the resource is repeated differently, and the token never found again",
        ["test_expiry::test_a_token_is_for_what_was_asked"],
    ),
    (42, "true is a number in Python", ["test_expiry::test_what_is_not_understood", "test_expiry::test_durations"]),
    (43, "a small `expires_on` is a number of seconds from now", ["test_expiry::test_what_is_understood"]),
    (44, "the token is empty", ["test_managed_identity::test_a_wrong_answer_is_shown_by_its_shape"]),
    (45, "the last of two members wins", ["test_expiry::test_which_member_says_when_a_token_ends"]),
    (
        46,
        "the type of the content is wrong, or a page comes with a 200",
        [
            "test_managed_identity::test_a_token_is_one_whatever_its_type_is_said_to_be",
            "test_managed_identity::test_a_wrong_answer_is_shown_by_its_shape",
        ],
    ),
    (
        47,
        "each host has its own shape for errors, and the message may be null",
        [
            "test_managed_identity::test_a_refusal_says_what_to_do",
            "test_other_hosts::test_azure_ml_writes_its_errors_as_text",
        ],
    ),
    (
        48,
        "what cannot be read escapes as a ValueError",
        [
            "test_expiry::test_what_is_not_understood",
            "test_expiry::test_nothing_breaks_the_reading",
            "test_managed_identity::test_a_wrong_answer_is_shown_by_its_shape",
        ],
    ),
    (
        49,
        "a date is read with the day first",
        ["test_expiry::test_what_is_understood", "test_expiry::test_what_is_not_understood"],
    ),
    # Asking again
    (
        50,
        "IMDS is away for 70 seconds after a 410",
        ["test_managed_identity::test_how_often_each_status_is_retried"],
    ),
    (51, "a refusal is asked for again", ["test_managed_identity::test_how_often_each_status_is_retried"]),
    (52, "Retry-After is a date", ["test_managed_identity::test_retry_after_stretches_a_wait"]),
    (
        53,
        "a crowd is throttled",
        [
            "test_provider::test_a_crowd_shares_one_fetch",
            "test_provider::test_waiting_for_a_place_does_not_count_against_the_time_limit",
            "test_managed_identity::test_imds_is_asked_by_four_at_most",
        ],
    ),
    (
        54,
        "a probe does real work, is too short, or its failure is remembered",
        [
            "test_managed_identity::test_only_imds_itself_passes_the_probe",
            "test_chain::test_the_probe_takes_a_second_at_most",
            "test_chain::test_the_probe_hears_what_comes_within_the_second",
            "test_chain::test_a_negative_finding_does_not_stick",
        ],
    ),
    (
        55,
        "Docker's proxy answers in place of IMDS",
        [
            "test_managed_identity::test_a_refusal_says_what_to_do",
            "test_managed_identity::test_only_imds_itself_passes_the_probe",
        ],
    ),
    (
        56,
        "an unknown resource is reported as a missing identity",
        ["test_managed_identity::test_a_refusal_says_what_to_do"],
    ),
    (
        57,
        "one caller's cancellation ends what the others wait for",
        ["test_cancellation::test_a_cancelled_caller_takes_nobody_along"],
    ),
    (
        58,
        "a change of roles is seen only in the next token",
        "It is the platform that keeps tokens for hours, and no client can make it forget them; the README says so.",
    ),
    (
        59,
        "a container's sidecar refuses connections at first",
        ["test_managed_identity::test_a_refused_connection_is_retried_where_the_environment_names_the_host"],
    ),
    (
        60,
        "a second attempt is answered from memory",
        [
            "test_managed_identity::test_how_often_each_status_is_retried",
            "test_managed_identity::test_an_outage_that_ends_during_the_retries_is_not_seen",
        ],
    ),
    (
        61,
        "an early refresh that fails is raised though the token is good",
        [
            "test_provider::test_while_a_token_is_valid_failures_are_swallowed_and_backed_off",
            "test_provider::test_in_the_last_minute_a_failing_refresh_is_not_the_callers_concern",
        ],
    ),
    # Federation, claims, and the rest
    (
        62,
        "the token file is renewed, and ends in a newline",
        [
            "test_workload_identity::test_the_file_is_read_for_each_request",
            "test_workload_identity::test_what_is_around_the_token_is_not_sent",
            "test_workload_identity::test_a_stale_assertion_is_read_anew_and_sent_once_more",
            "test_workload_identity::test_each_retry_carries_the_assertion_of_its_moment",
        ],
    ),
    (
        63,
        "AZURE_AUTHORITY_HOST ends in a slash, and must not be plain http",
        ["test_entra_application::test_an_authority", "test_entra_application::test_an_authority_that_is_none"],
    ),
    (
        64,
        "the authorities of the token proxy are renewed, and their file is empty for a moment",
        [
            "test_token_proxy::test_a_renewed_file_is_believed_at_the_next_fetch",
            "test_token_proxy::test_in_the_middle_of_a_renewal_those_read_last_count",
        ],
    ),
    (
        65,
        "a second attempt puts the token proxy's path in front once more",
        ["test_token_proxy::test_its_path_comes_first_and_once"],
    ),
    (
        66,
        "claims, capabilities or a digest reach an endpoint that does not know them",
        [
            "test_other_hosts::test_nobody_else_is_told",
            "test_other_hosts::test_what_service_fabric_is_told_of_a_refused_token",
        ],
    ),
    (
        67,
        "a challenge is split at signs that its values contain",
        [
            "test_challenge::test_the_grammar",
            "test_challenge::test_what_is_written_is_read_back",
            "test_challenge::test_a_vector_of_claims",
        ],
    ),
    (
        68,
        "evilvault.azure.net ends like vault.azure.net",
        [
            "test_challenge::test_a_host_that_is_not_below_the_resource_gets_no_token",
            "test_connection_string::test_what_is_wrong_is_told_without_any_value",
        ],
    ),
    (
        69,
        "a resource loses more than one suffix, or a slash",
        [
            "test_token::test_a_scope_loses_one_suffix_and_nothing_else",
            "test_provider::test_a_trailing_slash_is_another_resource",
        ],
    ),
    (
        70,
        "Azure Pipelines answers a wrong token with a redirect to a page",
        ["test_federation::test_azure_pipelines_is_kept_from_redirecting"],
    ),
    (
        71,
        "GitHub's URL has a query already",
        ["test_federation::test_the_url_of_a_service_may_end_in_anything"],
    ),
    (
        72,
        "a token of Cloud Shell is a person's",
        [
            "test_other_hosts::test_cloud_shell_gives_the_user_s_token",
            "test_other_hosts::test_cloud_shell_cannot_be_anybody_else",
        ],
    ),
    (
        73,
        "a secret is in a log, a message or a traceback",
        [
            "test_managed_identity::test_a_host_that_echoes_the_secret_does_not_get_it_into_an_error",
            "test_managed_identity::test_not_even_the_source_s_own_errors_hold_frames_with_secrets",
            "test_managed_identity::test_no_answer_puts_a_token_into_an_error",
            "test_azure_arc::test_an_answer_that_echoes_the_key_shows_none_of_it",
            "test_provider::test_no_token_is_in_any_repr",
            "test_redaction::test_tokens_are_taken_out_of_texts",
            "test_command_line::test_verbose_shows_logs_but_no_token",
            "test_entra::test_a_proof_that_comes_back_is_not_shown",
            "test_tools::test_a_secret_in_what_is_printed_goes_nowhere",
        ],
    ),
]


def test_every_trap_has_one_line() -> None:
    """The traps are numbered from 1 to 73, and none is left out."""
    assert [number for number, _, _ in TRAPS] == [*range(1, 74)]


def test_every_guard_is_a_test() -> None:
    """What is said to guard against a trap exists, and where nothing guards there is a reason."""
    assert mistakes(guards for _, _, guards in TRAPS) == []
