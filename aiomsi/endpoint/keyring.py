"""What opens the doors of the hosts: the secret, Azure Arc's key files, and what Entra takes instead of a secret."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import uuid
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, cast

from .domains import Domains
from .tokens import fake_service_account_token

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Where Azure's own agents put them: Microsoft documentation of Arc-enabled servers and of AKS workload identity.
_KEYS = PurePosixPath("/var/opt/azcmagent/tokens")
_FEDERATED_TOKEN = PurePosixPath("/var/run/secrets/azure/tokens/azure-identity-token")
_AUTHORITIES = PurePosixPath("/ca.pem")
_MOST_KEYS = 100


class Keyring:
    """The proofs that are good at this endpoint, and their files below *root*, which stands for the file system's.

    Every file is for its owner only, and written in a thread. OSError comes through where that fails.
    """

    def __init__(self, root: Path | None, wall: Callable[[], float]) -> None:
        self.secret = secrets.token_urlsafe(32)
        self.federated_token: str | None = None
        self.domains = Domains()
        self._root = None if root is None else root.absolute()
        self._wall = wall
        self._keys: dict[str, PurePosixPath] = {}

    @property
    def files(self) -> dict[str, str]:
        """Where the files with lasting names are, by the names that the hosts' variables have for them."""
        if self._root is None:
            return {}
        return {
            "federated_token_file": str(self._place(_FEDERATED_TOKEN)),
            "authorities_file": str(self._place(_AUTHORITIES)),
        }

    def is_secret(self, shown: str) -> bool:
        """Return whether *shown* is the secret."""
        return hmac.compare_digest(shown.encode(errors="surrogateescape"), self.secret.encode())

    async def make_key_folder(self) -> None:
        """Make the folder of the key files, so that a root that cannot be used is found out at the start."""
        await asyncio.to_thread(self._place(_KEYS).mkdir, parents=True, exist_ok=True)

    async def issue_key(self) -> PurePosixPath:
        """Write a new key file, and return where it is as seen from inside the root."""
        key, path = secrets.token_urlsafe(48), _KEYS / f"{uuid.uuid4()}.key"
        await asyncio.to_thread(_write, self._place(path), key)
        self._keys[key] = path
        if len(self._keys) > _MOST_KEYS:  # Nobody came back for the oldest one.
            await self.spend_key(next(iter(self._keys)))
        return path

    async def spend_key(self, shown: str) -> bool:
        """Return whether *shown* is a key that was issued and not spent yet; now it is, and its file is gone."""
        path = self._keys.pop(shown, None)
        if path is None:
            return False
        await asyncio.to_thread(self._place(path).unlink, missing_ok=True)
        return True

    async def rotate_federated_token(self) -> None:
        """Replace the federated token by a new one; from now on only that one is good."""
        token = fake_service_account_token(self._wall())
        await asyncio.to_thread(_write, self._place(_FEDERATED_TOKEN), token)
        self.federated_token = token

    async def publish_authority(self, certificate: str) -> None:
        """Write the *certificate* of the authority to trust, as PEM, if there is a root to write it below."""
        if self._root is not None:
            await asyncio.to_thread(_write, self._place(_AUTHORITIES), certificate)

    def _place(self, path: PurePosixPath) -> Path:
        root = cast("Path", self._root)  # Hosts that have files are not played without it.
        return root.joinpath(*path.parts[1:])


def _write(path: Path, text: str) -> None:
    """Put *text* into the file *path* in one step, since a client may be reading it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    fresh.touch(mode=0o600)
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
