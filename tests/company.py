"""A company with a directory, a federation server of its own, and an Entra that it uses; all on loopback.

As a program, which is given a folder, it says where they are. Then it tells for each line, in a line of JSON, how often
they were asked until then; at the line "log_in" alice logs in anew before. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from federation_server import FederationServer, federation_server
from kerberos_realm import Realm, lacking, realm

from aiomsi.endpoint import IdentityEndpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["DOMAIN", "NAME", "PRINCIPAL", "Servers", "servers"]

PRINCIPAL = "alice@AD.CONTOSO.TEST"
"""What Kerberos calls a user."""
NAME = "alice@contoso.com"
"""What Entra calls her."""
DOMAIN = "ad.contoso.test"


@dataclass(frozen=True)
class Servers:
    """The federation server *adfs*, and *entra*; *environ* leads to them, and to the tickets."""

    adfs: FederationServer
    entra: IdentityEndpoint
    environ: dict[str, str]


@asynccontextmanager
async def servers(kerberos: Realm, folder: Path) -> AsyncIterator[Servers]:
    """Yield servers whose files are in *folder*; the process has to be in the realm."""
    async with (
        federation_server({PRINCIPAL: NAME}) as adfs,
        IdentityEndpoint(hosts=["entra"], root=folder) as entra,
    ):
        for domain in (DOMAIN, "contoso.com"):
            entra.domains.federate(domain, adfs.metadata_url, adfs.issued)
        trusted = folder / "authorities.pem"
        trusted.write_bytes((folder / "ca.pem").read_bytes() + adfs.authority)
        environ = {
            "AZURE_AUTHORITY_HOST": entra.environ("entra")["AZURE_AUTHORITY_HOST"],
            "SSL_CERT_FILE": str(trusted),
            "KRB5CCNAME": kerberos.environ["KRB5CCNAME"],
        }
        yield Servers(adfs, entra, environ)


def main() -> None:
    """Serve until standard input ends."""
    if (hint := lacking()) is not None:
        _say({"lacking": hint})
        return
    folder = Path(sys.argv[1])
    with realm(folder) as kerberos:
        os.environ.update(kerberos.environ)
        asyncio.run(_serve(kerberos, folder))


async def _serve(kerberos: Realm, folder: Path) -> None:
    async with servers(kerberos, folder) as found:
        where = {"adfs": found.adfs.url, "entra": found.entra.tls_url, "metadata": found.adfs.metadata_url}
        _say({**where, "environ": found.environ, "kerberos": kerberos.environ, "user": PRINCIPAL})
        while line := await asyncio.to_thread(sys.stdin.readline):
            if line.strip() == "log_in":
                await asyncio.to_thread(kerberos.log_in)
            counted = {"entra": len(found.entra.requests), "adfs": len(found.adfs.requests)}
            _say({**counted, "tickets": len(found.adfs.shown), "tokens": len(found.entra.token_requests)})


def _say(value: object) -> None:
    print(json.dumps(value), flush=True)  # noqa: T201  (whoever has started this program reads it)


if __name__ == "__main__":
    main()
