"""The managed identity clients of azure-identity and msal, in a process whose environment says where they are.

    python foreign_clients.py

reads a JSON list of questions, asks them all at once, and prints the list of answers: each is a token and its end
(Unix time), or an error. A question names its "client", a "resource", and, for a user-assigned identity, its "kind" and
its "id", and the "parameter" by which the protocol names it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, TypeAlias

import msal
import requests
from azure.identity import ManagedIdentityCredential
from azure.identity.aio import ManagedIdentityCredential as AsyncManagedIdentityCredential

Question: TypeAlias = dict[str, str]


def azure_identity(question: Question) -> tuple[str, float]:
    """Ask the synchronous credential."""
    with ManagedIdentityCredential(**_options(question, question.get("kind"))) as credential:
        token = credential.get_token(f"{question['resource']}/.default")
    return token.token, token.expires_on


async def azure_identity_aio(question: Question) -> tuple[str, float]:
    """Ask the asynchronous credential, which sends what it is given as it is given."""
    async with AsyncManagedIdentityCredential(**_options(question, question.get("parameter"))) as credential:
        token = await credential.get_token(f"{question['resource']}/.default")
    return token.token, token.expires_on


def msal_client(question: Question) -> tuple[str, float]:
    """Ask msal, on which the synchronous credential builds."""
    identity: Any = msal.SystemAssignedManagedIdentity()
    if "kind" in question:
        identity = msal.UserAssignedManagedIdentity(**{question["kind"]: question["id"]})
    with requests.Session() as session:
        client = msal.ManagedIdentityClient(identity, http_client=session)
        now = time.time()
        answer = client.acquire_token_for_client(resource=question["resource"])
    if "access_token" not in answer:
        raise RuntimeError(answer)
    return answer["access_token"], now + answer["expires_in"]


def _options(question: Question, name: str | None) -> dict[str, Any]:
    match question.get("kind"):
        case None:
            return {}
        case "client_id":
            return {"client_id": question["id"]}
        case _:
            return {"identity_config": {name: question["id"]}}


async def answer(question: Question) -> dict[str, Any]:
    """Return what the client says."""
    try:
        match question["client"]:
            case "azure_identity_aio":
                token, expires_on = await azure_identity_aio(question)
            case "azure_identity":
                token, expires_on = await asyncio.to_thread(azure_identity, question)
            case _:
                token, expires_on = await asyncio.to_thread(msal_client, question)
    except Exception as error:  # noqa: BLE001  # Whatever it is, the test shows it.
        return {"error": repr(error)}
    return {"token": token, "expires_on": expires_on}


async def main() -> None:
    """Answer all questions."""
    questions = json.load(sys.stdin)
    json.dump(await asyncio.gather(*map(answer, questions)), sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
