"""The command line, called as a function and as a process; nothing but the emulator is ever asked."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from click.testing import CliRunner
from test_tools import StandIn

import aiomsi
from aiomsi import AccessToken
from aiomsi.__main__ import main
from aiomsi._command_line.commands import cli
from aiomsi._command_line.outcome import exit_code
from aiomsi._command_line.token_command import FORMATS
from aiomsi.endpoint import Answer, Gate, IdentityEndpoint
from aiomsi.sources import AzureCLI

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from click.testing import Result

    from aiomsi.endpoint import Step

VAULT = "https://vault.azure.net"
CLIENT_ID = "11111111-aaaa-4bbb-8ccc-000000000001"
TOOL = "RunAs=Developer;DeveloperTool=AzureCli"
NO_TOOLS = {"AzureServicesAuthConnectionString": TOOL, "PATH": ""}


@pytest.fixture
def portal() -> Iterator[BlockingPortal]:
    """An event loop in a thread of its own, since the commands run loops of theirs."""
    with start_blocking_portal() as opened:
        yield opened


@pytest.fixture
def endpoint(portal: BlockingPortal) -> Iterator[IdentityEndpoint]:
    with portal.wrap_async_context_manager(IdentityEndpoint()) as opened:
        yield opened


def surroundings(endpoint: IdentityEndpoint) -> dict[str, str]:
    return {"AzureServicesAuthConnectionString": "", **endpoint.environ("app_service")}


def invoke(environ: Mapping[str, str], *arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, env=environ, prog_name="aiomsi")


def start(environ: Mapping[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", *arguments],
        env={**os.environ, **environ},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate()
    return process.returncode, output, errors


# The token


def test_token_is_printed_alone(endpoint: IdentityEndpoint) -> None:
    """`aiomsi token` prints the token and a newline, and says nothing else anywhere."""
    result = invoke(surroundings(endpoint), "token", VAULT)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.endswith("\n")
    assert len(result.stdout.split(".")) == 3
    assert [request.resource for request in endpoint.requests] == [VAULT]


def test_token_as_a_process(endpoint: IdentityEndpoint) -> None:
    """`python -m aiomsi token` is the same command, and what it prints can go straight into a variable."""
    code, output, errors = finish(start(surroundings(endpoint), "-m", "aiomsi", "token", VAULT))
    assert (code, errors) == (0, "")
    assert len(output.split(".")) == 3
    assert output.count("\n") == 1


def test_header_output(endpoint: IdentityEndpoint) -> None:
    """`--output header` prints a header that curl takes as it is."""
    endpoint.script(Answer(body={"access_token": "opaque", "expires_on": "4000000000"}))
    result = invoke(surroundings(endpoint), "token", VAULT, "--output", "header")
    assert result.stdout == "Authorization: Bearer opaque\n"


def test_json_output(endpoint: IdentityEndpoint) -> None:
    """`--output json` prints one object with all that is known of the token, times as numbers."""
    result = invoke(surroundings(endpoint), "token", VAULT, "--output", "json")
    held = json.loads(result.stdout)
    assert set(held) == {"token", "expires_on", "refresh_on", "resource", "source", "token_type", "principal"}
    assert (held["resource"], held["source"], held["token_type"]) == (VAULT, "app_service", "Bearer")
    assert 0 < held["refresh_on"] < held["expires_on"]
    assert (held["principal"]["type"], held["principal"]["user_principal_name"]) == ("App", None)


def test_json_output_of_an_opaque_token() -> None:
    """A token that says nothing about its owner has no principal."""
    held = AccessToken("opaque", 2.0, 1.0, VAULT, "imds")
    assert json.loads(FORMATS["json"](held))["principal"] is None


def test_client_id_names_the_identity(endpoint: IdentityEndpoint) -> None:
    """`--client-id` asks for the token of that user-assigned identity."""
    result = invoke(surroundings(endpoint), "token", VAULT, "--client-id", CLIENT_ID, "--output", "json")
    assert json.loads(result.stdout)["principal"]["app_id"] == CLIENT_ID
    assert endpoint.requests[0].parameters["client_id"] == CLIENT_ID


def test_client_id_goes_past_the_connection_string(endpoint: IdentityEndpoint) -> None:
    """`--client-id` means a managed identity, whatever the environment would choose."""
    result = invoke(surroundings(endpoint) | NO_TOOLS, "token", VAULT, "--client-id", CLIENT_ID)
    assert result.exit_code == 0


def test_tenant_is_for_sources_that_can_choose(endpoint: IdentityEndpoint) -> None:
    """`--tenant` does no harm where the identity has one tenant only."""
    result = invoke(surroundings(endpoint), "token", VAULT, "--tenant", "contoso.example")
    assert result.exit_code == 0


def test_verbose_shows_logs_but_no_token(endpoint: IdentityEndpoint) -> None:
    """`--verbose` tells on standard error where the token came from, and never the token or the secret."""
    code, output, errors = finish(start(surroundings(endpoint), "-m", "aiomsi", "token", VAULT, "-v"))
    assert code == 0
    assert f"a token for {VAULT} came from app_service" in errors
    assert output.strip() not in errors
    assert output.split(".")[1] not in errors
    assert endpoint.secret not in errors


# Errors


def test_asyncio_does_not_talk_into_a_picture() -> None:
    """A crowd of connections that fills the table of open files would else be told a thousand times a second."""
    code = (
        "import logging; from aiomsi._command_line.outcome import logs_shown\n"
        "with logs_shown(shown=False): logging.getLogger('asyncio').error('socket.accept() out of system resource')"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], text=True, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    ("environ", "step", "arguments", "code"),
    [
        ({}, None, ["two words"], 2),
        ({}, None, [VAULT, "--client-id", "no-guid"], 2),
        ({}, None, [VAULT, "--output", "yaml"], 2),
        ({}, None, [], 2),
        (NO_TOOLS, None, [VAULT], 3),
        ({"IDENTITY_ENDPOINT": "no-url"}, None, [VAULT], 4),
        ({"IDENTITY_HEADER": "wrong"}, None, [VAULT], 5),
        ({}, Answer(200, "nonsense"), [VAULT], 6),
        ({}, Answer(503, headers={"Retry-After": "3600"}), [VAULT], 7),
        ({"IDENTITY_ENDPOINT": "http://8.8.8.8/"}, None, [VAULT], 8),
    ],
)
def test_exit_code_tells_the_kind_of_error(
    endpoint: IdentityEndpoint, environ: dict[str, str], step: Step | None, arguments: list[str], code: int
) -> None:
    """Each kind of error has an exit code of its own; its message is on standard error, and nothing on the other."""
    endpoint.script(then=step)
    result = invoke(surroundings(endpoint) | environ, "token", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr
    assert "Traceback" not in result.stderr


def test_error_of_no_special_kind() -> None:
    """What has no exit code of its own ends with 1."""
    assert exit_code(aiomsi.ProviderClosedError("closed")) == 1


def test_error_as_a_process(endpoint: IdentityEndpoint) -> None:
    """A person sees the message of an error and no traceback."""
    endpoint.script(then=Answer(200, "nonsense"))
    code, output, errors = finish(start(surroundings(endpoint), "-m", "aiomsi", "token", VAULT))
    assert (code, output) == (6, "")
    assert errors.startswith("aiomsi: App Service answered a request for 'https://vault.azure.net' with no token")
    assert "Traceback" not in errors


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT can be sent to one process")
def test_interrupt_is_quiet(portal: BlockingPortal, endpoint: IdentityEndpoint) -> None:
    """Ctrl-C during a fetch ends the command with 130, and without a word."""
    gate = Gate()
    endpoint.script(gate)
    process = start(surroundings(endpoint), "-m", "aiomsi", "token", VAULT)
    portal.call(gate.reached)
    process.send_signal(signal.SIGINT)
    assert finish(process) == (130, "", "")


@pytest.mark.parametrize(
    ("command", "called"),
    [("demo", "presentation.show"), ("doctor", "doctor.command.examined"), ("serve", "serve.command.serve")],
)
def test_interrupt_outside_of_the_loop_is_quiet(monkeypatch: pytest.MonkeyPatch, command: str, called: str) -> None:
    """Ctrl-C before and after the work is no different from one during it."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"aiomsi._command_line.{called}", interrupted)
    result = CliRunner().invoke(cli, [command])
    assert (result.exit_code, result.output) == (130, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
@pytest.mark.parametrize("command", [["token", VAULT], ["doctor", VAULT], ["doctor", VAULT, "--json"]])
def test_output_that_cannot_be_written(endpoint: IdentityEndpoint, command: list[str]) -> None:
    """A disk that is full is told in a line, as any other failure is."""
    with open("/dev/full", "w") as full:  # noqa: PTH123  (a device)
        done = subprocess.run(
            [sys.executable, "-P", "-m", "aiomsi", *command],
            env={**os.environ, **surroundings(endpoint), "AZURE_TOKEN_CREDENTIALS": "prod", "PATH": ""},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert re.fullmatch(r"aiomsi: .*No space left on device\n", done.stderr)


@pytest.mark.skipif(sys.platform == "win32", reason="the program run here is a shell script")
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_whatever_ends_it_takes_the_tools_along(tmp_path: Path, number: str) -> None:
    """A tool has a session of its own, so nobody else would end it."""
    az = StandIn(tmp_path, AzureCLI, "az", "")
    for name in ("here", "never"):
        os.mkfifo(tmp_path / name)
    az.does(f'cd "{tmp_path}"; echo $$ >here; exec cat never')
    environ = {**az.surroundings.environ, "AzureServicesAuthConnectionString": TOOL}
    process = start(environ, "-m", "aiomsi", "token", VAULT)
    tool = int((tmp_path / "here").read_text())
    process.send_signal(getattr(signal, number))
    assert finish(process) == (130, "", "")
    with pytest.raises(ProcessLookupError):
        os.kill(tool, 0)


# The door


def test_help_without_arguments() -> None:
    """`aiomsi` alone prints its help, with the commands and the exit codes."""
    result = invoke({})
    assert (result.exit_code, result.stderr) == (0, "")
    assert "token" in result.stdout
    assert "demo" in result.stdout
    assert "  8    a security check failed\n" in result.stdout


def test_version() -> None:
    """`aiomsi --version` prints the installed version."""
    assert invoke({}, "--version").stdout == f"aiomsi {importlib.metadata.version('aiomsi')}\n"


def test_main_is_the_entry_point(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The installed program runs `aiomsi.__main__:main`, and reads its arguments from the command line."""
    monkeypatch.setattr(sys, "argv", ["aiomsi", "--help"])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert capsys.readouterr().out.startswith("Usage: aiomsi [OPTIONS]")


def test_interrupt_before_anything_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C may come while the commands are still being loaded."""

    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("aiomsi._command_line.commands.cli", interrupted)
    with pytest.raises(SystemExit, match="130"):
        main()


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_missing_extra_is_named(missing: str) -> None:
    """Without click or rich, one line says what to install."""
    code = f"import sys; sys.modules[{missing!r}] = None; from aiomsi.__main__ import main; main()"
    message = "aiomsi: the command line needs an extra; run: pip install 'aiomsi[cli]'\n"
    assert finish(start({}, "-c", code)) == (1, "", message)


def test_door_is_light() -> None:
    """Whether the extra is there is found out before anything heavy is imported."""
    code = "import sys, aiomsi.__main__; print(sorted({'click', 'rich', 'aiohttp', 'asyncio'} & set(sys.modules)))"
    assert finish(start({}, "-c", code))[1] == "[]\n"


def test_help_needs_no_http_library() -> None:
    """The commands and their options are known without importing what only a fetch needs."""
    code = "import sys, aiomsi._command_line.commands; print(sorted({'rich', 'aiohttp'} & set(sys.modules)))"
    assert finish(start({}, "-c", code))[1] == "[]\n"
