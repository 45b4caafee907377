"""Who is logged in to the Azure CLI, as its own files say."""

from __future__ import annotations

import itertools
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aiomsi.sources import Surroundings
from aiomsi.sources.azure_cli import AzureCLI

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="its paths are those of POSIX")

TENANT = "11111111-aaaa-4bbb-8ccc-000000000001"
OTHER_TENANT = "22222222-aaaa-4bbb-8ccc-000000000002"

_moments = itertools.count(1_760_000_000)


def account(number: int = 1, **members: Any) -> dict[str, Any]:
    """Return a subscription as `az` writes it down."""
    return {
        "id": f"33333333-aaaa-4bbb-8ccc-00000000000{number}",
        "name": f"Subscription {number}",
        "state": "Enabled",
        "user": {"name": "me@contoso.com", "type": "user"},
        "isDefault": number == 1,
        "tenantId": TENANT,
        "environmentName": "AzureCloud",
        "homeTenantId": TENANT,
        "managedByTenants": [],
        **members,
    }


class Home:
    """A home folder with the files of the Azure CLI, and a source that looks at them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / ".azure"
        self.folder.mkdir()
        self.environ = {"HOME": str(folder)}

    def holds(self, *accounts: dict[str, Any]) -> None:
        """Write the profile, as `az` does."""
        profile = {"installationId": "1", "subscriptions": list(accounts)}
        self.write("azureProfile.json", json.dumps(profile).encode("utf-8-sig"))

    def write(self, name: str, content: bytes) -> None:
        """Write a file, at a moment of its own, as if the last one was long ago."""
        file, moment = self.folder / name, next(_moments)
        file.write_bytes(content)
        os.utime(file, (moment, moment))

    def source(self, **options: Any) -> AzureCLI:
        """Return a source that looks here."""
        return AzureCLI(**options, surroundings=Surroundings(environ=self.environ))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


async def test_the_key_names_the_default_account(home: Home) -> None:
    """Cloud, user, tenant and subscription are what a token depends on, and the key holds nothing else."""
    home.holds(account(2), account(1))
    key = home.source().identity_key()
    assert key is not None
    assert json.loads(key) == ["AzureCloud", "user", "me@contoso.com", None, TENANT, account(1)["id"]]


CHANGES: dict[str, list[dict[str, Any]]] = {
    "user": [account(user={"name": "you@contoso.com", "type": "user"})],
    "kind of user": [account(user={"name": "me@contoso.com", "type": "servicePrincipal"})],
    "managed identity": [account(user={"name": "me@contoso.com", "type": "user", "assignedIdentityInfo": "MSI"})],
    "tenant": [account(tenantId=OTHER_TENANT)],
    "subscription": [account(1, isDefault=False), account(2, isDefault=True)],
    "logout": [],
}


@pytest.mark.parametrize("accounts", CHANGES.values(), ids=CHANGES)
async def test_another_account_is_another_key(home: Home, accounts: list[dict[str, Any]]) -> None:
    """Whatever makes `az` answer for somebody or something else changes the key, and undoing it brings it back."""
    home.holds(account(1), account(2))
    source = home.source()
    before = source.identity_key()
    home.holds(*accounts)
    assert source.identity_key() not in (before, None)
    home.holds(account(1), account(2))
    assert source.identity_key() == before


async def test_what_does_not_matter_does_not_count(home: Home) -> None:
    """Neither the age of the files counts, nor what `az` writes down about anything but the account in use."""
    home.holds(account(1), account(2))
    source = home.source()
    before = source.identity_key()
    home.holds(account(1), account(2))
    assert source.identity_key() == before
    home.holds(account(3), account(2, user={"name": "you@contoso.com"}), account(1, name="new name", state="Warned"))
    assert source.identity_key() == before


@pytest.mark.parametrize("subscription", ["33333333-AAAA-4bbb-8ccc-000000000002", "subscription 2"], ids=["id", "name"])
async def test_a_subscription_has_its_own_account(home: Home, subscription: str) -> None:
    """A subscription is found by its id or name in any case of letters, and the default one does not matter."""
    home.holds(account(1), account(2, user={"name": "you@contoso.com", "type": "user"}))
    source = home.source(subscription=subscription)
    before = source.identity_key()
    assert before is not None
    assert "you@contoso.com" in before
    home.holds(account(3, isDefault=True), account(2, user={"name": "you@contoso.com", "type": "user"}))
    assert source.identity_key() == before
    home.holds(account(1))
    assert source.identity_key() == "nobody"


async def test_a_tenant_goes_with_the_default_user(home: Home) -> None:
    """With a tenant the key is that tenant and whoever is the default user, whatever the default subscription."""
    home.holds(account(1), account(2))
    source = home.source(tenant_id=OTHER_TENANT)
    before = source.identity_key()
    assert before is not None
    assert json.loads(before) == ["AzureCloud", "user", "me@contoso.com", None, OTHER_TENANT]
    home.holds(account(1, isDefault=False), account(2, isDefault=True))
    assert source.identity_key() == before
    home.holds(account(1, user={"name": "you@contoso.com", "type": "user"}))
    assert source.identity_key() != before


@pytest.mark.parametrize(
    "profile",
    [
        None,
        b"{}",
        b'{"installationId": "1"}',
        b'{"subscriptions": null}',
        b'{"subscriptions": []}',
        json.dumps({"subscriptions": [account(2)]}).encode(),
        json.dumps({"subscriptions": [account(1, environmentName="AzureChinaCloud")]}).encode(),
    ],
    ids=["no file", "empty", "new", "null", "logged out", "no default", "another cloud"],
)
async def test_nobody_has_a_key_too(home: Home, profile: bytes | None) -> None:
    """Where nobody is logged in the key says so, so that a login is a change."""
    if profile is not None:
        home.write("azureProfile.json", profile)
    source = home.source()
    assert source.identity_key() == "nobody"
    home.holds(account(1))
    assert source.identity_key() not in ("nobody", None)


async def test_no_folder_means_nobody(home: Home) -> None:
    """Where `az` has never been run nobody is logged in, nor where there is a file in the folder's place."""
    home.folder.rmdir()
    assert home.source().identity_key() == "nobody"
    home.folder.touch()
    assert home.source().identity_key() == "nobody"


@pytest.mark.parametrize(
    ("config", "environ", "cloud"),
    [
        (None, {}, "AzureCloud"),
        (b"", {}, "AzureCloud"),
        (b"[core]\ncollect_telemetry = 100%\n", {}, "AzureCloud"),
        (b"[cloud]\nname = AzureChinaCloud\n", {}, "AzureChinaCloud"),
        (b"\xef\xbb\xbf[cloud]\r\nname = AzureChinaCloud\r\n", {}, "AzureChinaCloud"),
        (b"[cloud]\nname = x\n[cloud]\nname = AzureChinaCloud\n", {}, "AzureChinaCloud"),
        (b"[cloud]\nname = AzureCloud\n", {"AZURE_CLOUD_NAME": "AzureChinaCloud"}, "AzureChinaCloud"),
    ],
    ids=["no file", "empty", "no section", "named", "Windows", "twice", "variable"],
)
async def test_the_active_cloud_has_its_own_accounts(
    home: Home, config: bytes | None, environ: dict[str, str], cloud: str
) -> None:
    """`az cloud set` changes the account, as does the variable that `az` reads before its configuration."""
    accounts = [account(number, isDefault=True) for number in (1, 2)]
    for each, name in zip(accounts, ("AzureCloud", "AzureChinaCloud"), strict=True):
        each["environmentName"] = name
    home.holds(*accounts)
    if config is not None:
        home.write("config", config)
    home.environ |= environ
    key = home.source().identity_key()
    assert key is not None
    assert json.loads(key)[0] == cloud
    assert json.loads(key)[-1] == next(each["id"] for each in accounts if each["environmentName"] == cloud)


BROKEN = {
    "empty": ("azureProfile.json", b""),
    "half written": ("azureProfile.json", json.dumps({"subscriptions": [account()]}).encode()[:100]),
    "list": ("azureProfile.json", b"[]"),
    "object": ("azureProfile.json", b'{"subscriptions": {"id": 1}}'),
    "numbers": ("azureProfile.json", b'{"subscriptions": [1]}'),
    "deep": ("azureProfile.json", b"[" * 200_000),
    "encoding": ("azureProfile.json", b"\xff\xfe"),
    "huge": ("azureProfile.json", b"{}" + b" " * 4 * 1024 * 1024),
    "no section": ("config", b"name = AzureCloud\n"),
    "half a section": ("config", b"[clo"),
    "encoding of config": ("config", b"\xff\xfe"),
}


@pytest.mark.parametrize(("name", "content"), BROKEN.values(), ids=BROKEN)
async def test_what_cannot_be_read_changes_nothing(home: Home, name: str, content: bytes) -> None:
    """`az` may be writing: until its files make sense again the key is the last one, or unknown."""
    home.holds(account(2, isDefault=True))
    source, before = home.source(), home.source().identity_key()
    assert source.identity_key() == before
    home.write(name, content)
    assert source.identity_key() == before
    assert home.source().identity_key() is None
    home.write(name, b"" if name == "config" else json.dumps({"subscriptions": [account(1)]}).encode())
    assert source.identity_key() not in (None, "nobody" if name == "config" else before)


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("kind", [os.mkdir, os.mkfifo, link_to_itself])
async def test_what_is_no_file_is_not_waited_for(home: Home, kind: Callable[[Path], None]) -> None:
    """A folder, a pipe or what cannot be opened in the place of a file tells nothing, and holds nobody up."""
    home.holds(account(1))
    source = home.source()
    before = source.identity_key()
    (home.folder / "azureProfile.json").unlink()
    kind(home.folder / "azureProfile.json")
    assert source.identity_key() == before
    assert home.source().identity_key() is None


async def test_an_account_without_a_user_is_one_too(home: Home) -> None:
    """Members that `az` always writes but which are missing are no reason to stumble."""
    home.holds({"isDefault": True, "environmentName": "AzureCloud"})
    assert home.source().identity_key() == '["AzureCloud", null, null, null, null, null]'


async def test_the_files_are_read_only_when_they_have_changed(home: Home) -> None:
    """Looking costs next to nothing: what has the same age, size and number on the disk is not read again."""
    home.holds(account(1))
    source, profile = home.source(), home.folder / "azureProfile.json"
    before, status = source.identity_key(), profile.stat()
    profile.write_bytes(profile.read_bytes().replace(b"me@contoso", b"us@contoso"))
    os.utime(profile, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert source.identity_key() == before
    os.utime(profile)
    assert source.identity_key() == home.source().identity_key() != before


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


async def test_no_file_stays_open(home: Home) -> None:
    """However often it is looked, and whatever is found, nothing is left open."""
    home.holds(account(1))
    source, before = home.source(), open_files()
    for content in (b"{}", b"", b"[]"):
        source.identity_key()
        home.write("azureProfile.json", content)
        source.identity_key()
    assert open_files() == before


@pytest.mark.parametrize(
    ("platform", "environ"),
    [
        ("linux", {"HOME": "/home/me"}),
        ("linux", {"HOME": "/nowhere", "AZURE_CONFIG_DIR": "/home/me/.azure"}),
        ("win32", {"USERPROFILE": r"C:\home\me"}),
        ("win32", {"AZURE_CONFIG_DIR": r"C:\home\me\.azure"}),
    ],
    ids=["home", "variable", "Windows", "variable on Windows"],
)
async def test_the_files_are_where_az_looks_for_them(tmp_path: Path, platform: str, environ: dict[str, str]) -> None:
    """The folder is what `az` is told, or one in the home folder, under the root of the file system."""
    (tmp_path / "home" / "me").mkdir(parents=True)
    Home(tmp_path / "home" / "me").holds(account(1))
    surroundings = Surroundings(environ=environ, platform=platform, root=tmp_path)
    key = AzureCLI(surroundings=surroundings).identity_key()
    assert key is not None
    assert "me@contoso.com" in key


@pytest.mark.parametrize("environ", [{}, {"HOME": "relative"}, {"HOME": "/", "AZURE_CONFIG_DIR": "relative"}], ids=str)
async def test_without_a_folder_nothing_is_known(environ: dict[str, str]) -> None:
    """Where the files cannot be placed there is no key, rather than that of nobody."""
    assert AzureCLI(surroundings=Surroundings(environ=environ)).identity_key() is None
