"""A Kubernetes pod with a workload identity, as several test modules need one."""

from __future__ import annotations

import asyncio
import base64
import json
import traceback
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web
from support import Internet, PacedClock, internet

from aiomsi import AccessToken, AiomsiError
from aiomsi.endpoint import Answer
from aiomsi.sources import Surroundings, TokenRequest, WorkloadIdentity

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from pathlib import Path

    from aiomsi.sources import Source

__all__ = [
    "CLIENT_ID",
    "ISSUER",
    "SUBJECT",
    "TENANT_ID",
    "VAULT",
    "Pod",
    "assertion",
    "check_silence",
    "pod",
    "refusal",
]

VAULT = "https://vault.azure.net"
CLIENT_ID = "11111111-aaaa-4bbb-8ccc-000000000001"
TENANT_ID = "44444444-aaaa-4bbb-8ccc-000000000004"
ISSUER = f"https://westeurope.oic.prod-aks.azure.com/{TENANT_ID}/99999999-aaaa-4bbb-8ccc-000000000009/"
SUBJECT = "system:serviceaccount:shop:orders"
PROVES_ITSELF = Answer(body={"token_type": "Bearer", "expires_in": 3599, "access_token": "entra-gave-this"})


def assertion(serial: int = 1, **claims: Any) -> str:
    """Return a service account's token, another one for each *serial*."""
    said = {"iss": ISSUER, "sub": SUBJECT, "aud": ["api://AzureADTokenExchange"], "serial": serial, **claims}
    parts = ({"alg": "RS256", "kid": "1"}, said, f"a signature, number {serial}, which nobody may see")
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)


def refusal(
    code: int, text: str = "Something is wrong.", *, status: int = 400, error: str = "invalid_client"
) -> Answer:
    """Return an answer in which Entra refuses with *code*."""
    said = {
        "error": error,
        "error_description": f"AADSTS{code}: {text} Trace ID: 00000000-0000-4000-8000-00000000000a",
        "error_codes": [code],
        "timestamp": "2025-10-09 08:53:20Z",
        "trace_id": "00000000-0000-4000-8000-00000000000a",
        "correlation_id": "00000000-0000-4000-8000-00000000000b",
        "error_uri": f"https://login.microsoftonline.com/error?code={code}",
    }
    return Answer(status, said)


class Pod:
    """What a source in the pod sees, and what those that it asks have seen of it.

    Its *answers* are given in order, and after them tokens; *before_answer* is called before each of them. None of its
    *secrets* may be seen anywhere.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token_file = folder / "azure-identity-token"
        self.clock = PacedClock()
        self.answers: deque[Answer] = deque()
        self.before_answer: Callable[[], Awaitable[object]] | None = None
        self.secrets: list[str] = []
        self.environ: dict[str, str] = {}
        self.internet: Internet

    def hold(self, text: str) -> None:
        """Let the token file hold *text*, which is secret from now on."""
        self.token_file.write_text(text)
        # Neither the whole nor a part of it; the header is the same in all of them.
        self.secrets += [part for part in (text.strip(), *text.strip().split(".")[1:]) if part]

    @property
    def surroundings(self) -> Surroundings:
        return Surroundings(environ=self.environ)

    @property
    def requests(self) -> list[web.Request]:
        return self.internet.requests

    @property
    def forms(self) -> list[dict[str, str]]:
        return self.internet.forms

    async def answer(self, _request: web.Request) -> web.StreamResponse:
        if self.before_answer is not None:
            await self.before_answer()
        answer = self.answers.popleft() if self.answers else PROVES_ITSELF
        return web.Response(status=answer.status, headers=answer.headers, body=answer.content)

    def asking(self, source: Source | None = None, *, limit: float = 60, **asked: Any) -> asyncio.Task[AccessToken]:
        """Begin to fetch a token, which is given up after *limit* seconds."""
        source = source or WorkloadIdentity(surroundings=self.surroundings)
        asked = {"resource": VAULT, "clock": self.clock, "deadline": self.clock.monotonic() + limit, **asked}
        return asyncio.ensure_future(source.fetch(TokenRequest(**asked)))

    async def fetched(
        self, source: Source | None = None, **asked: Any
    ) -> tuple[AccessToken | AiomsiError, list[float]]:
        """Fetch a token, moving over every wait; return what came of it, and the waits."""
        fetching = self.asking(source, **asked)
        waits = await self.clock.pace(fetching)
        error = fetching.exception()
        if error is None:
            return fetching.result(), waits
        check_silence(error, self.secrets)
        assert isinstance(error, AiomsiError), repr(error)
        assert (error.resource, error.source) == (
            asked.get("resource", VAULT),
            getattr(source, "name", "workload_identity"),
        )
        return error, waits

    async def token(self, source: Source | None = None, **asked: Any) -> AccessToken:
        outcome, _ = await self.fetched(source, **asked)
        assert isinstance(outcome, AccessToken), outcome
        return outcome

    async def error(self, kind: type[AiomsiError], source: Source | None = None, **asked: Any) -> AiomsiError:
        """Return the error, of exactly that kind, in which a fetch ends."""
        outcome, _ = await self.fetched(source, **asked)
        assert type(outcome) is kind, outcome
        return outcome


@asynccontextmanager
async def pod(folder: Path, *names: str) -> AsyncIterator[Pod]:
    """Yield a pod whose files are in *folder*; the internet has a certificate for the public Entra and for *names*."""
    opened = Pod(folder)
    opened.hold(assertion())
    async with internet(folder, opened.answer, "login.microsoftonline.com", *names) as opened.internet:
        opened.environ = {
            **opened.internet.environ,
            "AZURE_CLIENT_ID": CLIENT_ID,
            "AZURE_TENANT_ID": TENANT_ID,
            "AZURE_FEDERATED_TOKEN_FILE": str(opened.token_file),
        }
        yield opened


def check_silence(error: BaseException, secrets: Iterable[str]) -> None:
    """Assert that none of *secrets* can be seen in *error*, or in what caused it, by whatever means it is shown."""
    shown = []
    step: BaseException | None = error
    while step is not None:
        shown += [str(step), repr(step), repr(vars(step)), repr(step.args)]
        shown += traceback.TracebackException.from_exception(step, capture_locals=True).format()
        step = step.__cause__
    told = "\n".join(shown)
    assert [secret for secret in secrets if secret in told] == [], told
