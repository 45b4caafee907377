"""Jobs of Azure Pipelines and GitHub Actions: who vouches for them, who hears what, and what is told if it fails."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from applications import abandoned, cancelled, crowded
from pods import CLIENT_ID, TENANT_ID, VAULT, Pod, assertion, check_silence, pod, refusal

from aiomsi import (
    AccessToken,
    ConfigurationError,
    EndpointError,
    MalformedResponseError,
    SecurityError,
    SourceUnavailableError,
    TokenRefusedError,
)
from aiomsi.endpoint import Answer
from aiomsi.sources import AzurePipelines, GitHubActions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from aiomsi import AiomsiError

ENTRA = "login.microsoftonline.com"
CONNECTION = "77777777-aaaa-4bbb-8ccc-000000000007"
JOB_TOKEN = "hunter2.is-the-token.of-the-job"


@dataclass(frozen=True)
class Service:
    """How a service vouches, and how its source is made."""

    kind: type[AzurePipelines | GitHubActions]
    title: str
    host: str
    path: str
    query: dict[str, str]
    kept: dict[str, str]
    headers: dict[str, str]
    method: str
    member: str
    variables: dict[str, str]
    url_variable: str
    token_variable: str
    advice: str


PIPELINES = Service(
    kind=AzurePipelines,
    title="Azure Pipelines",
    host="dev.azure.example",
    path="/contoso/_apis/oidctoken",
    query={"api-version": "7.1", "serviceConnectionId": CONNECTION},
    kept={},
    headers={"Content-Type": "application/json", "X-TFS-FedAuthRedirect": "Suppress"},
    method="POST",
    member="oidcToken",
    variables={
        "SYSTEM_OIDCREQUESTURI": "https://dev.azure.example/contoso/_apis/oidctoken",
        "SYSTEM_ACCESSTOKEN": JOB_TOKEN,
        "AZURESUBSCRIPTION_TENANT_ID": TENANT_ID,
        "AZURESUBSCRIPTION_CLIENT_ID": CLIENT_ID,
        "AZURESUBSCRIPTION_SERVICE_CONNECTION_ID": CONNECTION,
    },
    url_variable="SYSTEM_OIDCREQUESTURI",
    token_variable="SYSTEM_ACCESSTOKEN",
    advice="env: SYSTEM_ACCESSTOKEN: $(System.AccessToken)",
)
GITHUB = Service(
    kind=GitHubActions,
    title="GitHub Actions",
    host="pipelines.actions.example",
    path="/a/b/idtoken",
    query={"audience": "api://AzureADTokenExchange"},
    kept={"job": "a b"},
    headers={},
    method="GET",
    member="value",
    variables={
        "ACTIONS_ID_TOKEN_REQUEST_URL": "https://pipelines.actions.example/a/b/idtoken?job=a+b",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": JOB_TOKEN,
        "AZURE_TENANT_ID": TENANT_ID,
        "AZURE_CLIENT_ID": CLIENT_ID,
    },
    url_variable="ACTIONS_ID_TOKEN_REQUEST_URL",
    token_variable="ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    advice="`id-token: write`",
)


class Job:
    """A job whose service vouches for it, each time anew; its *vouches* are answered before that, in order."""

    def __init__(self, service: Service, pod: Pod) -> None:
        self.service = service
        self.pod = pod
        self.vouches: deque[Answer] = deque()
        self._answer = pod.internet.answer
        self._serial = 0
        pod.internet.answer = self.answer
        pod.environ = {**pod.internet.environ, **service.variables}
        pod.secrets.append("hunter2")

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.host != self.service.host:
            return await self._answer(request)
        if self.pod.before_answer is not None:
            await self.pod.before_answer()
        if self.vouches:
            answer = self.vouches.popleft()
        else:
            self._serial += 1
            said = assertion(self._serial)
            self.pod.secrets += said.split(".")[1:]
            answer = Answer(body={self.service.member: said})
        return web.Response(status=answer.status, headers=answer.headers, body=answer.content)

    def source(self, **options: Any) -> AzurePipelines | GitHubActions:
        return self.service.kind(surroundings=self.pod.surroundings, **options)

    async def error(self, kind: type[AiomsiError], **options: Any) -> AiomsiError:
        return await self.pod.error(kind, self.source(**options))

    @property
    def of_service(self) -> list[web.Request]:
        """What the service was asked."""
        return [request for request in self.pod.requests if request.host == self.service.host]

    @property
    def of_entra(self) -> list[dict[str, str]]:
        """What Entra was asked."""
        pairs = zip(self.pod.requests, self.pod.forms, strict=True)
        return [form for request, form in pairs if request.host != self.service.host]


@asynccontextmanager
async def opened(service: Service, folder: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Job]:
    caplog.set_level(logging.DEBUG)
    clouds = ("login.microsoftonline.us", "login.chinacloudapi.cn", "login.partner.microsoftonline.cn")
    async with pod(folder, service.host, *clouds) as found:
        yield Job(service, found)
        assert [secret for secret in found.secrets if secret in caplog.text] == []


@pytest.fixture(params=[PIPELINES, GITHUB], ids=["Azure Pipelines", "GitHub Actions"])
async def job(request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Job]:
    """A job of either service."""
    async with opened(request.param, tmp_path, caplog) as found:
        yield found


@pytest.fixture
async def pipeline(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Job]:
    """A job of Azure Pipelines."""
    async with opened(PIPELINES, tmp_path, caplog) as found:
        yield found


@pytest.fixture
async def action(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Job]:
    """A job of GitHub Actions."""
    async with opened(GITHUB, tmp_path, caplog) as found:
        yield found


# What is sent


async def test_who_hears_what(job: Job) -> None:
    """The service gets the job's token and nothing else, and Entra its assertion and not the token."""
    token = await job.pod.token(job.source())
    assert (token.token, token.resource, token.source) == ("entra-gave-this", VAULT, job.service.kind.name)
    asked, exchanged = job.pod.requests
    assert (asked.host, asked.method, asked.path) == (job.service.host, job.service.method, job.service.path)
    assert dict(asked.query) == {**job.service.query, **job.service.kept}
    expected = {**job.service.headers, "Authorization": f"Bearer {JOB_TOKEN}"}
    assert {name: asked.headers[name] for name in expected} == expected
    assert (asked.secure, job.pod.forms[0], "Cookie" in asked.headers) == (True, {}, False)
    assert (exchanged.host, exchanged.path_qs) == (ENTRA, f"/{TENANT_ID}/oauth2/v2.0/token")
    assert "Authorization" not in exchanged.headers
    assert job.of_entra == [
        {
            "client_id": CLIENT_ID,
            "grant_type": "client_credentials",
            "scope": "https://vault.azure.net/.default",
            "client_assertion": assertion(1),
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        }
    ]


async def test_azure_pipelines_is_kept_from_redirecting(pipeline: Job) -> None:
    """Without this header it answers a wrong token with a redirect to a page for people, not with an error."""
    await pipeline.pod.token(pipeline.source())
    assert pipeline.of_service[0].headers["X-TFS-FedAuthRedirect"] == "Suppress"


@pytest.mark.parametrize(
    ("end", "kept"),
    [
        ("", {}),
        ("/", {}),
        ("//", {}),
        ("?", {}),
        ("?a=b%26c&a=d/&e=", {"a": ["b&c", "d/"], "e": [""]}),
        ("/?{own}=x&a=b+c&{own}=y", {"a": ["b c"]}),
    ],
)
async def test_the_url_of_a_service_may_end_in_anything(job: Job, end: str, kept: dict[str, list[str]]) -> None:
    """A slash is dropped, a query is kept, and what we ask for is there once."""
    own = next(iter(job.service.query))
    url = f"https://{job.service.host}{job.service.path}{end.format(own=own)}"
    job.pod.environ[job.service.url_variable] = url
    await job.pod.token(job.source())
    (asked,) = job.of_service
    assert asked.path == job.service.path
    expected = {**kept, **{name: [value] for name, value in job.service.query.items()}}
    assert {name: asked.query.getall(name) for name in asked.query} == expected


@pytest.mark.parametrize(
    ("authority", "audience"),
    [
        ("https://login.microsoftonline.com/", "api://AzureADTokenExchange"),
        ("https://Login.MicrosoftOnline.US", "api://AzureADTokenExchangeUSGov"),
        ("login.chinacloudapi.cn", "api://AzureADTokenExchangeChina"),
        ("https://login.partner.microsoftonline.cn/", "api://AzureADTokenExchangeChina"),
    ],
)
@pytest.mark.parametrize("how", ["argument", "variable"])
async def test_github_vouches_to_the_cloud_that_is_asked(action: Job, how: str, authority: str, audience: str) -> None:
    """Each cloud has an audience of its own, and takes no assertion to another one."""
    if how == "variable":
        action.pod.environ["AZURE_AUTHORITY_HOST"] = authority
    await action.pod.token(action.source(**({"authority": authority} if how == "argument" else {})))
    assert action.of_service[0].query["audience"] == audience
    assert action.pod.requests[1].host.lower() == authority.removeprefix("https://").rstrip("/").lower()


async def test_a_job_s_token_is_read_for_each_request(job: Job) -> None:
    """The agent renews it while a long job runs."""
    source = job.source()
    await job.pod.token(source)
    job.pod.environ[job.service.token_variable] = "hunter2-renewed"
    await job.pod.token(source)
    assert [asked.headers["Authorization"] for asked in job.of_service] == [
        f"Bearer {JOB_TOKEN}",
        "Bearer hunter2-renewed",
    ]


async def test_arguments_win_over_the_environment(pipeline: Job) -> None:
    """What is said in code is meant, whatever the tasks of the pipeline have set."""
    source = pipeline.source(
        tenant_id="contoso.onmicrosoft.com",
        client_id="an-app",
        service_connection_id="a connection",
        system_access_token="hunter2-given",
    )
    await pipeline.pod.token(source)
    asked, exchanged = pipeline.pod.requests
    assert (asked.query["serviceConnectionId"], asked.headers["Authorization"]) == (
        "a connection",
        "Bearer hunter2-given",
    )
    assert exchanged.path == "/contoso.onmicrosoft.com/oauth2/v2.0/token"
    assert pipeline.of_entra[0]["client_id"] == "an-app"


async def test_what_the_tasks_of_azure_set_comes_before_what_everybody_sets(pipeline: Job) -> None:
    """The service connection's application is meant, and only without one the environment's."""
    pipeline.pod.environ |= {"AZURE_CLIENT_ID": "another", "AZURE_TENANT_ID": "another.example"}
    await pipeline.pod.token(pipeline.source())
    for name in ("CLIENT_ID", "TENANT_ID"):
        pipeline.pod.environ[f"AZURESUBSCRIPTION_{name}"] = ""
    await pipeline.pod.token(pipeline.source())
    assert [form["client_id"] for form in pipeline.of_entra] == [CLIENT_ID, "another"]
    paths = [request.path.split("/")[1] for request in pipeline.pod.requests if request.host == ENTRA]
    assert paths == [TENANT_ID, "another.example"]


async def test_arguments_say_which_application_an_action_is(action: Job) -> None:
    """What is said in code is meant, whatever else is set."""
    await action.pod.token(action.source(tenant_id="contoso.onmicrosoft.com", client_id="an-app"))
    assert action.pod.requests[1].path == "/contoso.onmicrosoft.com/oauth2/v2.0/token"
    assert action.of_entra[0]["client_id"] == "an-app"


async def test_a_request_may_choose_the_tenant(job: Job) -> None:
    """The same job may be known in another tenant; claims go to Entra, and not to the service."""
    source = job.source(client_capabilities=["CP1"])
    await job.pod.token(source, tenant_id="contoso.onmicrosoft.com", claims='{"access_token":{}}')
    assert job.pod.requests[1].path == "/contoso.onmicrosoft.com/oauth2/v2.0/token"
    assert job.of_entra[0]["claims"] == '{"access_token":{"xms_cc":{"values":["CP1"]}}}'
    assert dict(job.of_service[0].query) == {**job.service.query, **job.service.kept}
    assert source.chooses_tenant


# Something is missing


async def test_elsewhere_the_next_source_is_asked(job: Job) -> None:
    """Where the service does not run there is no such job, whatever else is missing."""
    job.pod.environ = dict(job.pod.internet.environ)
    error = await job.error(SourceUnavailableError)
    assert f"{job.service.url_variable} is not set" in str(error)
    assert job.pod.internet.hosts == []


async def test_an_action_without_permission_is_told_of_it(action: Job) -> None:
    """GitHub sets its variables only with the permission."""
    action.pod.environ[GITHUB.url_variable] = ""
    assert "give the job the permission `id-token: write`" in str(await action.error(SourceUnavailableError))


@pytest.mark.parametrize("text", ["", "hunter2\n", "hunter2\r\nX: y", "hunter2 3", "hunter2\u00e9", "hunter2\udc80"])
async def test_without_a_job_s_token_nothing_is_sent(job: Job, text: str) -> None:
    """A token that is missing or that no header may hold is told with how to get one."""
    job.pod.environ[job.service.token_variable] = text
    error = await job.error(ConfigurationError)
    assert f"{job.service.token_variable} is not set, or holds no token" in str(error)
    assert job.service.advice in str(error)
    assert job.pod.internet.hosts == []


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("TENANT_ID", "the tenant is not known: give tenant_id"),
        ("CLIENT_ID", "the client id is not known: give client_id"),
        ("SERVICE_CONNECTION_ID", "the service connection is not known: give service_connection_id"),
    ],
)
async def test_a_pipeline_without_its_names(pipeline: Job, name: str, advice: str) -> None:
    """It is told what is missing, and nothing is sent."""
    del pipeline.pod.environ[f"AZURESUBSCRIPTION_{name}"]
    assert advice in str(await pipeline.error(ConfigurationError))
    assert pipeline.pod.internet.hosts == []


@pytest.mark.parametrize("name", ["TENANT_ID", "CLIENT_ID"])
async def test_an_action_without_its_names(action: Job, name: str) -> None:
    """It is told what is missing, and nothing is sent."""
    del action.pod.environ[f"AZURE_{name}"]
    assert f"AZURE_{name}" in str(await action.error(ConfigurationError))
    assert action.pod.internet.hosts == []


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://{host}/x", "does not begin with https://"),
        ("ftp://{host}/x", "does not begin with http"),
        ("{host}/x", "does not begin with http"),
        ("https://hunter2@{host}/x", "holds user information"),
        ("https://{host}/x#y", "has a fragment"),
        ("https://{host}/x y", "holds blanks"),
        ("https://{host}:port/x", "is not a URL"),
    ],
)
async def test_a_service_that_is_not_safe_is_not_asked(job: Job, url: str, problem: str) -> None:
    """The job's token is sent over TLS only, and to no host that a URL hides."""
    job.pod.environ[job.service.url_variable] = url.format(host=job.service.host)
    error = await job.error(ConfigurationError)
    assert str(error).startswith(f"{job.service.url_variable} {problem}")
    assert job.pod.internet.hosts == []


async def test_a_service_that_cannot_be_trusted_hears_nothing(job: Job) -> None:
    """The job's token is sent to the host that proves that it is the one in the URL."""
    job.pod.environ[job.service.url_variable] = "https://evil.example/"
    await job.error(SecurityError)
    assert (job.pod.internet.hosts, job.pod.requests) == (["evil.example:443"], [])


@pytest.mark.parametrize(("limit", "attempt"), [(25.0, 25.0), (30.5, 30.0)])
async def test_a_service_that_does_not_answer_is_given_up(job: Job, limit: float, attempt: float) -> None:
    """An attempt has half a minute, or what is left for the whole fetch."""
    reached, gate = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        reached.set()
        await gate.wait()

    job.pod.before_answer = hold
    fetching = job.pod.asking(job.source(), limit=limit)
    await reached.wait()
    assert await job.pod.clock.next_alarm(fetching) == attempt
    await job.pod.clock.advance(attempt)
    with pytest.raises(EndpointError, match="gave no complete answer in time"):
        await fetching
    gate.set()
    assert len(job.pod.requests) == 1


# An answer comes back


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 403, 404])
async def test_a_service_that_does_not_vouch(job: Job, status: int) -> None:
    """It is told who refused and what to do; Entra is not asked, no redirect followed, and nothing asked again."""
    location = {"Location": f"https://{ENTRA}/collect"}
    job.vouches.append(Answer(status, {"message": f"No to {JOB_TOKEN}."}, location))
    error = await job.error(TokenRefusedError)
    assert (error.status, len(job.pod.requests)) == (status, 1)
    said = f"{job.service.title} did not vouch for this job (HTTP {status}: No to <redacted>); "
    assert str(error).startswith(said)
    assert job.service.advice in str(error)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_a_service_in_trouble_is_asked_again(job: Job, status: int) -> None:
    """What will pass is waited for, and raised if it does not."""
    job.vouches.extend([Answer(status, f"<p>{JOB_TOKEN}</p>")] * 3)
    outcome, waits = await job.pod.fetched(job.source())
    assert isinstance(outcome, AccessToken)
    assert waits == [1.0, 2.0, 4.0]
    job.vouches.extend([Answer(status, "")] * 4)
    outcome, waits = await job.pod.fetched(job.source())
    assert type(outcome) is EndpointError
    assert (outcome.status, waits, len(job.of_entra)) == (status, [1.0, 2.0, 4.0], 1)


async def test_each_exchange_has_an_assertion_of_its_own(job: Job) -> None:
    """While Entra is in trouble, or says that an assertion is out of date, the service vouches anew."""
    job.pod.answers.extend([Answer(503, ""), refusal(700024, status=401), Answer(429, "")])
    outcome, _ = await job.pod.fetched(job.source())
    assert isinstance(outcome, AccessToken)
    assert [form["client_assertion"] for form in job.of_entra] == [assertion(serial) for serial in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    "value",
    [None, "", 7, ["hunter2"], {"value": "hunter2"}, "hunter2 hunter2", "hunter2\n", "hunter2\ud800", "hunter2\u00e9"],
    ids=ascii,
)
async def test_an_answer_without_an_assertion(job: Job, value: object) -> None:
    """What is no token is not passed on, and is shown by its shape only."""
    job.vouches.append(Answer(body={job.service.member: value}))
    error = await job.error(MalformedResponseError)
    assert f"{job.service.title} answered without a token as {job.service.member}" in str(error)
    assert job.of_entra == []


@pytest.mark.parametrize("body", ["", "<html>hunter2</html>", '"hunter2"', {"token": "hunter2"}])
async def test_an_answer_of_another_kind(job: Job, body: Any) -> None:
    """A page, or a member of another name, is no assertion."""
    job.vouches.append(Answer(body=body))
    await job.error(MalformedResponseError)
    assert (len(job.of_service), job.of_entra) == (1, [])


async def test_a_missing_federated_credential_is_described(job: Job) -> None:
    """Entra's refusal tells the issuer and the subject that the service has vouched for."""
    job.pod.answers.append(refusal(700213, "No matching federated identity record found."))
    error = await job.error(TokenRefusedError)
    assert "no federated credential for issuer 'https://westeurope.oic" in str(error)


@pytest.mark.parametrize("answer", [Answer(400, assertion(1)), Answer(500, {"message": f"Got {assertion(1)}."})])
async def test_an_assertion_that_comes_back_is_not_shown(job: Job, answer: Answer) -> None:
    """Whatever Entra repeats of it, the error does not."""
    job.pod.answers.extend([answer] * 4)
    outcome, _ = await job.pod.fetched(job.source())
    assert "<redacted>" in str(outcome)


# Arguments


@pytest.mark.parametrize(
    ("kind", "wrong", "error", "said"),
    [
        (AzurePipelines, {"system_access_token": b"hunter2"}, TypeError, "system_access_token is a string, not bytes"),
        (AzurePipelines, {"service_connection_id": 7}, TypeError, "service_connection_id is a string, not int"),
        *(
            (kind, wrong, error, said)
            for kind in (AzurePipelines, GitHubActions)
            for wrong, error, said in (
                ({"tenant_id": 7}, TypeError, "tenant_id is a string, not int"),
                ({"client_id": b""}, TypeError, "client_id is a string, not bytes"),
                ({"authority": ["x"]}, TypeError, "authority is a string, not list"),
                ({"client_capabilities": "CP1"}, TypeError, "client_capabilities is a sequence of strings"),
                ({"client_capabilities": ["CP 1"]}, ValueError, "is no client capability"),
            )
        ),
    ],
)
def test_wrong_arguments_are_told_at_once(
    kind: Callable[..., object], wrong: dict[str, Any], error: type[Exception], said: str
) -> None:
    """Nothing is tried with them, and neither the error nor its traceback shows the job's token."""
    secret = {"system_access_token": "hunter2"} if kind is AzurePipelines else {}
    with pytest.raises(error, match=said) as caught:
        kind(**{**secret, **wrong})
    check_silence(caught.value.with_traceback(caught.tb.tb_next), ["hunter2"])  # Without this very frame.


def test_a_source_shows_no_secret() -> None:
    """Its text says which application it is."""
    pipelines = AzurePipelines(client_id="c", service_connection_id="s", system_access_token="hunter2")
    assert repr(pipelines) == "AzurePipelines(client_id='c', service_connection_id='s')"
    assert repr(GitHubActions(client_id="c")) == "GitHubActions(client_id='c')"


# Many callers


async def test_a_crowd_makes_one_exchange(job: Job) -> None:
    """However many want a token at once, the service and Entra are asked once each."""
    assert await crowded(job.pod, job.source()) == 2


@pytest.mark.parametrize("stage", [1, 2], ids=["while it vouches", "while Entra answers"])
@pytest.mark.parametrize("victim", [0, 1, 2, None], ids=["first", "middle", "last", "all"])
async def test_a_cancelled_caller_takes_nobody_along(job: Job, stage: int, victim: int | None) -> None:
    """Whoever leaves while the service or Entra answers, the others get their token, and nothing is left behind."""
    await cancelled(job.pod, job.source(), stage, victim)


@pytest.mark.parametrize("stage", [1, 2], ids=["while it vouches", "while Entra answers"])
async def test_a_fetch_that_is_cancelled_leaves_nothing(job: Job, stage: int) -> None:
    """Its connections are closed with it."""
    await abandoned(job.pod, job.source(), stage)
