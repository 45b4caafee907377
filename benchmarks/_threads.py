"""`msal.ManagedIdentityClient` with its token cache, shared by the threads of a pool: the way without asyncio."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import msal
import requests
from _support import without_collector

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST = 200  # As many threads as a pool can sensibly have; further callers queue for them.


def race(callers: int, resources: Sequence[str]) -> dict[str, float]:
    """Let all of them ask at once, for the first time, and return when the last one had a token."""
    with requests.Session() as session, ThreadPoolExecutor(min(callers, _MOST)) as pool:
        session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=_MOST))
        client = msal.ManagedIdentityClient(msal.SystemAssignedManagedIdentity(), http_client=session)
        with without_collector():
            began, worked = time.perf_counter(), time.process_time()
            for _ in pool.map(partial(_ask, client), (resources[each % len(resources)] for each in range(callers))):
                pass
            return {"seconds": time.perf_counter() - began, "cpu": time.process_time() - worked}


def _ask(client: msal.ManagedIdentityClient, resource: str) -> str:
    token: str = client.acquire_token_for_client(resource=resource)["access_token"]
    return token
