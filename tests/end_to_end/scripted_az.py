"""A program that stands in for `az`: it gives a new token for everything, and writes down what it gave.

    python scripted_az.py LOG account get-access-token --output json --resource RESOURCE

adds a line of JSON to the file LOG each time it is started.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

LIFETIME = 7200  # Seconds.
TENANT = "77777777-aaaa-4bbb-8ccc-000000000007"


def main() -> None:
    """Print a token as `az` does."""
    resource = sys.argv[sys.argv.index("--resource") + 1]
    expires_on = int(time.time()) + LIFETIME
    token = jwt({"aud": resource, "tid": TENANT, "oid": TENANT, "exp": expires_on, "uti": f"start-{os.getpid()}"})
    with Path(sys.argv[1]).open("a") as log:
        log.write(json.dumps({"resource": resource, "token": token, "expires_on": expires_on}) + "\n")
    answer = {"accessToken": token, "expires_on": expires_on, "tenant": TENANT, "tokenType": "Bearer"}
    sys.stdout.write(json.dumps(answer) + "\n")


def jwt(claims: dict[str, Any]) -> str:
    """Return a token with *claims*, which nobody has signed."""
    parts = [*(json.dumps(part) for part in ({"alg": "none", "typ": "JWT"}, claims)), "not a signature"]
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)


if __name__ == "__main__":
    main()
