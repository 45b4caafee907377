"""Small files that the platform or the user puts there, read without trusting what they are."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path, PurePath

__all__ = ["UnfitFileError", "absolute", "content_of", "opened", "read_small"]


class UnfitFileError(Exception):
    """There is a file, but not one that should be read; the text says what is wrong with it."""


def absolute(text: str, platform: str) -> PurePath:
    """Return *text* as a path of *platform* (as in `sys.platform`).

    Raises:
        UnfitFileError: it is relative.
    """
    path = PureWindowsPath(text) if platform == "win32" else PurePosixPath(text)
    if not path.root:  # Not `is_absolute`: what Kubernetes mounts has a path without a drive, on Windows too.
        raise UnfitFileError("is no absolute path")
    return path


def read_small(path: Path, most: int, *, link: bool = True) -> tuple[bytes, os.stat_result]:
    """Return the content of the regular file *path*, of *most* bytes at the most, and its status. Blocks.

    Raises:
        OSError: it cannot be opened; a symbolic link cannot unless *link*.
        UnfitFileError: it is no regular file, or longer.
    """
    with opened(path, link=link) as (descriptor, status):
        return content_of(descriptor, status, most), status


@contextmanager
def opened(path: Path, *, link: bool = True) -> Iterator[tuple[int, os.stat_result]]:
    """Open the regular file *path*, without waiting for anybody, and yield its descriptor and its status.

    Raises:
        OSError: it cannot be opened; a symbolic link cannot unless *link*.
        UnfitFileError: it is no regular file.
    """
    descriptor = _opened(path, link=link)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnfitFileError("is no regular file")
        yield descriptor, status
    finally:
        os.close(descriptor)


def content_of(descriptor: int, status: os.stat_result, most: int) -> bytes:
    """Return what a file that was just opened holds.

    Raises:
        UnfitFileError: that is more than *most* bytes.
    """
    content = _content(descriptor, most) if status.st_size <= most else None
    if content is None:
        raise UnfitFileError(f"has more than {most} bytes")
    return content


def _opened(path: Path, *, link: bool) -> int:
    # Without blocking, so that nobody waits at a pipe for somebody to write to it.
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        return os.open(path, flags if link else flags | getattr(os, "O_NOFOLLOW", 0))
    except ValueError:
        raise UnfitFileError("has a name that no file can have") from None


def _content(descriptor: int, most: int) -> bytes | None:
    """Return what the file holds, or None if that is too much: its length is no promise."""
    content = b""
    while len(content) <= most and (more := os.read(descriptor, most + 1 - len(content))):
        content += more
    return content if len(content) <= most else None
