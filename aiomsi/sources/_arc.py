"""The agent of Azure Arc: where it is, and the key file that it wants to see read.

The agent answers a first request with the path of a file that only its friends can read, and wants its content.
Whoever squats on the agent's port could name any file, so a path is checked before it is opened, and the file before it
is read.

Source: Microsoft documentation, "Authenticate against Azure resources with Azure Arc-enabled servers".
"""

from __future__ import annotations

import errno
import re
import stat
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from aiomsi._errors import AiomsiError, SecurityError, SourceUnavailableError, TokenRefusedError
from aiomsi.sources._files import UnfitFileError, read_small

if TYPE_CHECKING:
    from pathlib import Path

    from aiomsi.sources._messages import Answer
    from aiomsi.sources._surroundings import Surroundings

__all__ = ["agent_is_here", "key_for"]

_SOURCE = "azure_arc"
_LONGEST_KEY = 4096  # Bytes.
_REALM = re.compile(r'Basic\s+realm=(?:"(?P<quoted>[^"]*)"|(?P<plain>[^",]*))', re.IGNORECASE)


async def agent_is_here(surroundings: Surroundings) -> bool:
    """Return whether the agent's program is installed; services often do not inherit the variables that tell of it."""
    if surroundings.platform == "win32":
        folder = surroundings.get("ProgramFiles")
        program: PurePath | None = (
            PureWindowsPath(folder) / "AzureConnectedMachineAgent" / "himds.exe" if folder else None
        )
    else:
        program = PurePosixPath("/opt/azcmagent/bin/himds") if surroundings.platform == "linux" else None
    if program is None or not program.is_absolute():
        return False
    return await anyio.Path(surroundings.place(program)).is_file()


async def key_for(challenge: Answer, surroundings: Surroundings) -> str:
    """Return the content of the key file that *challenge*, an answer with status 401, names.

    Raises:
        SourceUnavailableError: there is no agent for this platform.
        SecurityError: it names no file in the agent's folder, or not one that the agent has written.
        TokenRefusedError: this process may not read the file.
    """
    folder = _folder(surroundings)
    named = _named_in(challenge, folder)
    path = surroundings.place(named)
    try:
        content = await anyio.to_thread.run_sync(_read_key, path)
    except (UnfitFileError, OSError) as error:
        raise _unreadable(error, named) from None
    try:
        key = content.decode("ascii").strip()
    except UnicodeDecodeError:
        key = "\0"
    problem = _key_problem(key, named)
    if problem is not None:
        del key, content  # A traceback may show what our frames hold.
        raise problem
    return key


def _folder(surroundings: Surroundings) -> PurePath:
    if surroundings.platform == "linux":
        return PurePosixPath("/var/opt/azcmagent/tokens")
    if surroundings.platform == "win32":
        data = surroundings.get("ProgramData") or r"C:\ProgramData"
        return PureWindowsPath(data) / "AzureConnectedMachineAgent" / "Tokens"
    raise SourceUnavailableError(
        f"there is no agent of Azure Arc for this platform ({surroundings.platform}); is something else listening"
        " there? Unset IDENTITY_ENDPOINT and IMDS_ENDPOINT",
        source=_SOURCE,
    )


def _named_in(challenge: Answer, folder: PurePath) -> PurePath:
    match = _REALM.fullmatch(challenge.headers.get("www-authenticate", "").strip())
    text = (match["quoted"] or match["plain"] or "").strip() if match is not None else ""
    named = type(folder)(text)
    # Not resolved: a path with `..` in it, or of another folder, has another parent.
    if not text.isprintable() or named.parent != folder or named.suffix != ".key":
        raise SecurityError(
            f"Azure Arc asked for a file that is no key of its agent, which are {folder / '<name>.key'}; nothing was"
            " read. Something else may be listening on the agent's port",
            source=_SOURCE,
        )
    return named


def _read_key(path: Path) -> bytes:
    content, status = read_small(path, _LONGEST_KEY, link=False)
    if path.is_symlink():  # Where links cannot be refused on opening.
        raise UnfitFileError("is a symbolic link")
    owners = {0, path.parent.stat().st_uid}
    if status.st_uid not in owners or status.st_mode & stat.S_IWOTH:
        raise UnfitFileError("was not written by the agent")
    if status.st_nlink != 1:  # Somebody may have given a name in the agent's folder to a file that is secret.
        raise UnfitFileError("has another name elsewhere")
    return content


def _unreadable(error: UnfitFileError | OSError, named: PurePath) -> AiomsiError:
    if isinstance(error, UnfitFileError):
        return SecurityError(f"the key file {named} {error}, and was not sent", source=_SOURCE)
    if error.errno in (errno.ELOOP, errno.EMLINK):
        return SecurityError(f"the key file {named} is a symbolic link, and was not read", source=_SOURCE)
    what = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
    return TokenRefusedError(
        f"the key file {named} of Azure Arc {what}; let this process run as a member of the group himds (Linux:"
        " `sudo usermod -aG himds <user>`) or of the agent's group of extensions (Windows), or as an administrator",
        source=_SOURCE,
    )


def _key_problem(key: str, named: PurePath) -> AiomsiError | None:
    if not key:
        return TokenRefusedError(f"the key file {named} of Azure Arc is empty; ask again", source=_SOURCE)
    if not key.isprintable():
        return SecurityError(
            f"the key file {named} holds characters that no HTTP header may, and was not sent", source=_SOURCE
        )
    return None
