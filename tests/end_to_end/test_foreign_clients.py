"""Programs that nobody here wrote get their tokens, from the emulator and from `aiomsi serve`.

Each of them asks for the token of the system-assigned identity (s), and of user-assigned identities by their client
(c), object (o) and resource id (r), where it can:

                          azure-identity   azure-identity   msal    @azure/    @azure/      az login
                                              aio                   identity   msal-node   --identity
    App Service 2019         s c o r        s c o r       s c o r    s c o r    s c o r     s c   r
    App Service 2017         s c            s c           s c        s c        s c           c
    IMDS                     s c o r        s c o r       s c o r    s c o r    s c o r     s c o
    Azure ML                 s c            s c           s c        s c        s c         -
    Azure Arc                s c o r        s c o r       s c o r    s c o r    s c o r     s
    Cloud Shell              s              s             -          s          s           -
    Service Fabric           s              s             s          s          s           -

What cannot be: 2017's protocol, which Azure ML has too, knows client ids only; Cloud Shell and Service Fabric know no
identities by name, and msal and `az` do not look for Cloud Shell where its variable says. Arc's key files are in a
folder that no client lets one move, so there has to be a namespace in which something else is mounted there. Node
knows no pins, so for Service Fabric it is told to trust the emulator's authority. `az`, which starts slowly, is spared
what differs in nothing but the server. `aiomsi serve` speaks the first three protocols.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from foreign_servers import emulator, serving_fake_tokens, serving_installed_az, serving_scripted_az
from installed_cli import AS_SERVICE, TENANT, InstalledCLI, choose_cloud, install, serving_entra
from island import island

from aiomsi._token import unverified_claims

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from foreign_servers import Server
    from island import Island

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the programs run here are shell scripts")

HINT = "set AIOMSI_TEST_NODE_MODULES to a folder in which `npm install @azure/identity @azure/msal-node` was run"
SHARED = "https://shared.example"
PYTHON_CLIENTS = ("azure_identity", "azure_identity_aio", "msal")
NODE_CLIENTS = ("js_azure_identity", "js_msal_node")
SERVERS = ("emulator", "serve_fake_tokens", "serve_scripted_az", "serve_installed_az")

# By protocol: its api-version, and what it calls the ids of a user-assigned identity.
PROTOCOLS: dict[str, tuple[str | None, dict[str, str]]] = {
    "app_service": (
        "2019-08-01",
        {"client_id": "client_id", "object_id": "object_id", "resource_id": "mi_res_id"},
    ),
    "app_service_2017": ("2017-09-01", {"client_id": "clientid"}),
    "imds": ("2018-02-01", {"client_id": "client_id", "object_id": "object_id", "resource_id": "msi_res_id"}),
    "azure_ml": ("2017-09-01", {"client_id": "clientid"}),
    "azure_arc": ("2020-06-01", {"client_id": "client_id", "object_id": "object_id", "resource_id": "msi_res_id"}),
    "cloud_shell": (None, {}),
    "service_fabric": ("2019-07-01-preview", {}),
}
OF_SERVE = ("app_service", "app_service_2017", "imds")
IDS = {
    "client_id": "11111111-aaaa-4bbb-8ccc-000000000001",
    "object_id": "88888888-aaaa-4bbb-8ccc-000000000008",
    "resource_id": "/subscriptions/1/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i",
}


@dataclass(frozen=True)
class Case:
    """A client that asks by one protocol for one identity: the system-assigned one, or another by one *kind* of id."""

    client: str
    protocol: str
    kind: str | None = None

    def __str__(self) -> str:
        return "-".join((self.protocol, self.client, self.kind or "system"))

    @property
    def resource(self) -> str:
        """What nobody else asks for."""
        return f"https://{str(self).replace('_', '-')}.example"

    @property
    def question(self) -> dict[str, str]:
        """What foreign_clients.py and foreign_clients.mjs are told."""
        question = {"client": self.client, "resource": self.resource}
        if self.kind is not None:
            parameter = PROTOCOLS[self.protocol][1][self.kind]
            question |= {"kind": self.kind, "id": IDS[self.kind], "parameter": parameter}
        return question

    @property
    def parameters(self) -> dict[str, str]:
        """What the protocol has it send."""
        version, names = PROTOCOLS[self.protocol]
        parameters = {"resource": self.resource}
        if version is not None:
            parameters["api-version"] = version
        if self.kind is not None:
            parameters[names[self.kind]] = IDS[self.kind]
        return parameters


CASES = [
    Case(client, protocol, kind)
    for protocol, (_, names) in PROTOCOLS.items()
    for client in PYTHON_CLIENTS + NODE_CLIENTS
    for kind in (None, *names)
    if (client, protocol) != ("msal", "cloud_shell")
]
CASES_OF = {
    "emulator": CASES,
    **{server: [case for case in CASES if case.protocol in OF_SERVE] for server in SERVERS[1:]},
}
AZ_CASES_OF = {
    "emulator": [
        Case("az", "app_service"),
        Case("az", "app_service", "client_id"),
        Case("az", "app_service", "resource_id"),
        Case("az", "app_service_2017", "client_id"),
        Case("az", "imds"),
        Case("az", "imds", "object_id"),
        Case("az", "azure_arc"),
    ],
    "serve_scripted_az": [Case("az", "app_service"), Case("az", "imds", "client_id")],
    "serve_installed_az": [Case("az", "app_service"), Case("az", "app_service", "client_id")],
}

Answer: TypeAlias = dict[str, Any]
"""A "token" and when it "expires_on", or an "error"."""
Servers: TypeAlias = "Callable[[str], Server]"
Answers: TypeAlias = "Callable[[str], dict[Case, Answer]]"


def encounters(table: dict[str, list[Case]], *servers: str) -> pytest.MarkDecorator:
    """Return the parameters of a test for each server and client, with the marks of what they need."""
    rows = []
    for server in servers:
        for case in table[server]:
            marks = [pytest.mark.node] if case.client in NODE_CLIENTS else []
            if case.client == "az" or server == "serve_installed_az":
                marks.append(pytest.mark.azure_cli)
            rows.append(pytest.param(server, case, marks=marks, id=f"{server}-{case}"))
    return pytest.mark.parametrize(("name", "case"), rows)


@dataclass(frozen=True)
class Entra:
    """An Entra ID at *url*, which an `az` in *folder* trusts."""

    url: str
    folder: Path


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Island]:
    """The island on which all of them run."""
    with island(tmp_path_factory.mktemp("island")) as found:
        yield found


@pytest.fixture(scope="module")
def entra(here: Island, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Entra]:
    """The Entra ID and the Azure Resource Manager of the island."""
    folder = tmp_path_factory.mktemp("entra")
    with serving_entra(folder, here.entrance) as url:
        yield Entra(url, folder)


@pytest.fixture(scope="module")
def az(here: Island, entra: Entra) -> InstalledCLI:
    """The real `az`, in the cloud of the island, with nobody logged in."""
    az = install(entra.folder, here.environ["HTTP_PROXY"], here.entrance)
    choose_cloud(az, entra.url)
    return az


def another(az: InstalledCLI, folder: Path, environ: dict[str, str]) -> InstalledCLI:
    """Return *az* with a login of its own, in *environ*."""
    shutil.copytree(az.environ["AZURE_CONFIG_DIR"], folder)
    return replace(az, environ={**az.environ, "AZURE_CONFIG_DIR": str(folder), **environ})


@pytest.fixture(scope="module")
def server_of(
    request: pytest.FixtureRequest, here: Island, entra: Entra, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Servers]:
    """The servers by name; each runs from when it is first wanted."""

    def opened(name: str) -> AbstractContextManager[Server]:
        match name:
            case "emulator":
                return emulator(here)
            case "serve_fake_tokens":
                return serving_fake_tokens(here)
            case "serve_scripted_az":
                resources = [case.resource for case in CASES_OF[name] + AZ_CASES_OF[name]]
                return serving_scripted_az(here, tmp_path_factory.mktemp(name), [*resources, entra.url])
        az = another(request.getfixturevalue("az"), tmp_path_factory.mktemp(name) / "azure", {})
        az.run("login", *AS_SERVICE, "--tenant", TENANT)
        return serving_installed_az(here, az, SHARED, entra.url)

    with ExitStack() as stack:
        yield cache(lambda name: stack.enter_context(opened(name)))


def missing(case: Case, here: Island) -> str | None:
    """Return what *case* needs and this machine does not have."""
    if case.client in NODE_CLIENTS and "AIOMSI_TEST_NODE_MODULES" not in os.environ:
        return HINT
    if case.protocol == "azure_arc" and not here.is_mounted:
        return "nothing can be mounted at /var/opt for those who run here"
    return None


@pytest.fixture(scope="module")
def answers_of(server_of: Servers, here: Island) -> Answers:
    """What each client got from a server: all of them ask at once."""

    @cache
    def answers(name: str) -> dict[Case, Answer]:
        cases = [case for case in CASES_OF[name] if missing(case, here) is None]
        groups = [list(each) for _, each in groupby(cases, lambda case: (case.protocol, case.client in NODE_CLIENTS))]
        with ThreadPoolExecutor() as pool:
            return {
                case: answer
                for answers in pool.map(partial(ask, server_of(name), here), groups)
                for case, answer in answers.items()
            }

    return answers


def ask(server: Server, here: Island, cases: Sequence[Case]) -> dict[Case, Answer]:
    """Let the clients of one language ask by one protocol, in a process of their own."""
    if cases[0].client in NODE_CLIENTS:
        program = [shutil.which("node") or "node", "foreign_clients.mjs", os.environ["AIOMSI_TEST_NODE_MODULES"]]
    else:
        program = [sys.executable, "foreign_clients.py"]
    program[1] = str(Path(__file__).with_name(program[1]))
    questions = [case.question | ({"resource": server.only} if server.only else {}) for case in cases]
    ended = subprocess.run(
        [*here.entrance, *program],
        env={**here.environ, "HOME": str(here.root), **server.environs[cases[0].protocol]},
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return dict(zip(cases, json.loads(ended.stdout), strict=True))


@pytest.fixture
def answer(answers_of: Answers, here: Island, name: str, case: Case) -> Answer:
    """What a client got from a server."""
    if reason := missing(case, here):
        pytest.skip(reason)
    answer = answers_of(name)[case]
    assert "error" not in answer, answer["error"]
    return answer


@pytest.fixture(scope="module")
def logins_of(server_of: Servers, here: Island, az: InstalledCLI, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """What `az` got from a server as each of its cases: all of them log in at once."""

    def log_in(server: Server, case: Case) -> Answer:
        own = another(az, tmp_path_factory.mktemp("az") / "azure", server.environs[case.protocol])
        identity = [f"--{case.kind.replace('_', '-')}", IDS[case.kind]] if case.kind else []
        own.run("login", "--identity", *identity)
        resource = server.only or case.resource
        printed = json.loads(own.run("account", "get-access-token", "--output", "json", "--resource", resource))
        return {"token": printed["accessToken"], "expires_on": printed["expires_on"]}

    @cache
    def logins(name: str) -> dict[Case, Answer]:
        cases = [case for case in AZ_CASES_OF[name] if missing(case, here) is None]
        with ThreadPoolExecutor() as pool:
            return dict(zip(cases, pool.map(partial(log_in, server_of(name)), cases), strict=True))

    return logins


def once_given(server: Server, case: Case) -> dict[str, Any]:
    """Return the token that was given for what *case* asks for: there is only one."""
    assert server.given is not None
    (given,) = [each for each in server.given() if each.resource == (server.only or case.resource)]
    return {"token": given.token, "expires_on": about(given.expires_on)}


def about(expires_on: float) -> Any:
    """Return what is equal to *expires_on*, give or take the seconds that a client waited.

    One that is told for how long a token is good counts from when it asked, or from when it was answered.
    """
    return pytest.approx(expires_on, abs=30)


def requests_at(server: Server) -> list[dict[str, Any]]:
    """Return what the emulator was asked."""
    assert server.requests is not None
    return server.requests()


def test_nobody_leaves(here: Island) -> None:
    """On the island there is no network but loopback, so a client that goes astray gets nowhere."""
    if not here.entrance:
        pytest.skip("a network namespace cannot be had")
    devices = subprocess.run([*here.entrance, "cat", "/proc/net/dev"], check=True, capture_output=True, text=True)
    assert [line.split()[0] for line in devices.stdout.splitlines()[2:]] == ["lo:"]


@encounters(CASES_OF, "emulator", "serve_scripted_az", "serve_installed_az")
def test_a_client_gets_what_was_given(server_of: Servers, name: str, case: Case, answer: Answer) -> None:
    """The one token that was given, by the emulator or by `az`, is the client's, and with it the time of its end."""
    assert answer == once_given(server_of(name), case)


@encounters(CASES_OF, "serve_fake_tokens")
def test_a_client_gets_a_fake_token(case: Case, answer: Answer) -> None:
    """What `aiomsi serve` gives without any account is for the right resource, with the time of its end."""
    claims = unverified_claims(answer["token"])
    assert claims is not None
    assert claims["aud"] == case.resource
    assert answer["expires_on"] == about(claims["exp"])


@encounters(CASES_OF, "emulator")
@pytest.mark.usefixtures("answer")
def test_a_client_asks_once(server_of: Servers, name: str, case: Case) -> None:
    """A client says what its protocol says, and nothing twice, but where Azure Arc asks for a key first."""
    asked = [each for each in requests_at(server_of(name)) if each["resource"] == case.resource]
    assert len(asked) == (2 if case.protocol == "azure_arc" else 1)
    assert all(each["host"] == case.protocol and each["parameters"] == case.parameters for each in asked)


@encounters(AZ_CASES_OF, *AZ_CASES_OF)
def test_az_gets_what_was_given(server_of: Servers, logins_of: Answers, here: Island, name: str, case: Case) -> None:
    """`az login --identity` works, and the token that it brings is the one that was given, with the time of its end."""
    if reason := missing(case, here):
        pytest.skip(reason)
    assert logins_of(name)[case] == once_given(server_of(name), case)


@encounters(AZ_CASES_OF, "emulator")
def test_az_asks_once(
    server_of: Servers, logins_of: Answers, here: Island, entra: Entra, name: str, case: Case
) -> None:
    """`az` asks once to log in, which takes a token for Azure Resource Manager, and once for the token."""
    if reason := missing(case, here):
        pytest.skip(reason)
    logins_of(name)
    for resource in (entra.url, case.resource):
        parameters = {**case.parameters, "resource": resource}
        asked = [each for each in requests_at(server_of(name)) if each["parameters"] == parameters]
        assert [each["host"] for each in asked] == [case.protocol] * (2 if case.protocol == "azure_arc" else 1)
