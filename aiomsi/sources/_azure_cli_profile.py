"""Who is logged in to the Azure CLI, as its own files say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from aiomsi.sources._files import UnfitFileError, content_of, opened

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aiomsi.sources._surroundings import Surroundings

__all__ = ["AzureCLIProfile", "default_account"]

_NOBODY = "nobody"
_USUAL_CLOUD = "AzureCloud"
_LARGEST_FILE = 4 * 1024 * 1024  # Some developers have thousands of subscriptions.

_T = TypeVar("_T")


class AzureCLIProfile:
    """The accounts of the Azure CLI, looked up on the event loop every few seconds.

    What the files hold decides, never when they were written: `az` rewrites them with every command.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._accounts = _Watched[Sequence[dict[str, Any]]](_accounts_in, absent=())
        self._cloud = _Watched(_cloud_in, absent=_USUAL_CLOUD)
        self._last: str | None = None

    def identity(self, *, tenant_id: str | None, subscription: str | None) -> str | None:
        """Return a text that names the default account, with another tenant, or that of a subscription.

        "nobody" if there is no such account; None if nothing is known. While a file cannot be read, such as when it is
        half written, the text is the last one.
        """
        try:
            found = self.look()
        except (OSError, UnfitFileError, ValueError, RecursionError):
            return self._last
        if found is None:
            return None
        cloud, accounts = found
        account = default_account(accounts, cloud, subscription)
        self._last = _NOBODY if account is None else _identity(account, cloud, tenant_id)
        return self._last

    def look(self) -> tuple[str, Sequence[dict[str, Any]]] | None:
        """Return the active cloud and the accounts of all clouds, or None if there is no home to look in.

        Raises:
            OSError: a file cannot be read.
            UnfitFileError: it should not be, being no file or too large.
            ValueError: a file makes no sense, such as when it is half written; or a RecursionError.
        """
        folder = _folder(self._surroundings)
        if folder is None:
            return None
        cloud = self._surroundings.get("AZURE_CLOUD_NAME") or self._cloud.look(folder / "config")
        return cloud, self._accounts.look(folder / "azureProfile.json")


class _Watched(Generic[_T]):
    """The meaning of a small file, found out anew only when the file has changed."""

    def __init__(self, parse: Callable[[bytes], _T], *, absent: _T) -> None:
        self._parse = parse
        self._absent = absent
        self._parsed: tuple[object, _T] | None = None

    def look(self, path: Path) -> _T:
        """Return what the file means now. Raise OSError, UnfitFileError or whatever the parser raises."""
        try:
            with opened(path) as (descriptor, status):
                version = path, status.st_mtime_ns, status.st_size, status.st_ino
                if self._parsed is None or self._parsed[0] != version:
                    self._parsed = version, self._parse(content_of(descriptor, status, _LARGEST_FILE))
                return self._parsed[1]
        except (FileNotFoundError, NotADirectoryError):
            return self._absent


def _folder(surroundings: Surroundings) -> Path | None:
    """Return where `az` has its files, or None if there is no home."""
    windows = surroundings.platform == "win32"
    kind = PureWindowsPath if windows else PurePosixPath
    given = surroundings.get("AZURE_CONFIG_DIR")
    home = surroundings.get("USERPROFILE" if windows else "HOME")
    folder = kind(given) if given else kind(home, ".azure") if home else None
    return surroundings.place(folder) if folder is not None and folder.is_absolute() else None


def _accounts_in(content: bytes) -> Sequence[dict[str, Any]]:
    profile = json.loads(content.decode("utf-8-sig"))
    # There is no such member before the first login, and an empty list after a logout.
    accounts = profile.get("subscriptions") or [] if isinstance(profile, dict) else None
    if not isinstance(accounts, list) or not all(isinstance(account, dict) for account in accounts):
        raise ValueError("this is no profile of the Azure CLI")
    return accounts


def _cloud_in(content: bytes) -> str:
    import configparser  # noqa: PLC0415  (slow to load, and most programs run where there is no such file)

    config = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        config.read_string(content.decode("utf-8-sig"))
    except configparser.Error as error:
        raise ValueError("this is no configuration of the Azure CLI") from error
    return config.get("cloud", "name", fallback=_USUAL_CLOUD)


def default_account(
    accounts: Sequence[dict[str, Any]], cloud: str, subscription: str | None = None
) -> dict[str, Any] | None:
    """Return the account that `az` would choose, which is one of the active *cloud*, for a *subscription* if given."""
    for account in accounts:
        if account.get("environmentName") != cloud:
            continue
        if subscription is None and account.get("isDefault"):
            return account
        names = (str(account.get("id")).lower(), str(account.get("name")).lower())
        if subscription is not None and subscription.lower() in names:
            return account
    return None


def _identity(account: dict[str, Any], cloud: str, tenant_id: str | None) -> str:
    user = account.get("user")
    if not isinstance(user, dict):
        user = {}
    # A user-assigned identity is told from another only by this member.
    parts = [cloud, user.get("type"), user.get("name"), user.get("assignedIdentityInfo")]
    parts += [account.get("tenantId"), account.get("id")] if tenant_id is None else [tenant_id]
    return json.dumps(parts)
