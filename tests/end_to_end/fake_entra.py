"""An Entra ID and Azure Resource Manager on loopback, as far as `az login --service-principal` needs them.

    python fake_entra.py CERTIFICATE LOG

serves https with the key and certificate in the file CERTIFICATE, prints its URL, and adds a line of JSON to the file
LOG for each token it was asked for, with the token if it gave one. Every client gets a token for everything, but for
resources whose name begins with "https://refused", which it does not know, and "https://outage", for which it is down.
"""

from __future__ import annotations

import base64
import json
import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

LIFETIME = 3600
SUBSCRIPTIONS = [
    {
        "id": f"/subscriptions/{identifier}",
        "subscriptionId": identifier,
        "displayName": name,
        "state": "Enabled",
        "subscriptionPolicies": {"spendingLimit": "Off"},
    }
    for identifier, name in (
        ("33333333-aaaa-4bbb-8ccc-000000000003", "Test Subscription"),
        ("66666666-aaaa-4bbb-8ccc-000000000006", "Other Subscription"),
    )
]


class FakeEntra(ThreadingHTTPServer):
    """Serve https on a free port of loopback."""

    daemon_threads = True

    def __init__(self, certificate: Path, log: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"https://localhost:{self.server_port}"
        self._log = log

    def answer(self, path: str, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """Return the status and the body for a request."""
        tenant, _, rest = path.strip("/").partition("/")
        if rest == "v2.0/.well-known/openid-configuration":
            return 200, self._configuration(f"{self.url}/{tenant}")
        if rest == "oauth2/v2.0/token":
            return self._token(tenant, form["scope"])
        if tenant == "subscriptions":
            return 200, {"value": SUBSCRIPTIONS}
        return 404, {"error": "not_found"}

    def _configuration(self, authority: str) -> dict[str, Any]:
        return {
            "issuer": f"{authority}/v2.0",
            "authorization_endpoint": f"{authority}/oauth2/v2.0/authorize",
            "token_endpoint": f"{authority}/oauth2/v2.0/token",
            "device_authorization_endpoint": f"{authority}/oauth2/v2.0/devicecode",
        }

    def _token(self, tenant: str, scope: str) -> tuple[int, dict[str, Any]]:
        asked = {"tenant": tenant, "scope": scope}
        if scope.startswith("https://outage"):
            self._write(asked)
            return 503, {}
        if scope.startswith("https://refused"):
            self._write(asked)
            return 400, {"error": "invalid_resource", "error_description": "AADSTS500011: The resource was not found."}
        now = int(time.time())
        expires_on = now + LIFETIME
        token = _jwt({"aud": scope, "tid": tenant, "iat": now, "exp": expires_on})
        self._write(asked | {"token": token, "expires_on": expires_on})
        return 200, {"token_type": "Bearer", "expires_in": LIFETIME, "access_token": token}

    def _write(self, line: dict[str, Any]) -> None:
        with self._log.open("a") as log:
            log.write(json.dumps(line) + "\n")


class _Handler(BaseHTTPRequestHandler):
    server: FakeEntra

    def do_GET(self) -> None:
        self._reply({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self._reply({name: values[0] for name, values in parse_qs(body).items()})

    def _reply(self, form: dict[str, str]) -> None:
        status, content = self.server.answer(urlsplit(self.path).path, form)
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _jwt(claims: dict[str, Any]) -> str:
    parts = [*(json.dumps(part) for part in ({"alg": "none", "typ": "JWT"}, claims)), "not a signature"]
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)


if __name__ == "__main__":
    entra = FakeEntra(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.write(f"{entra.url}\n")
    sys.stdout.flush()
    entra.serve_forever()
