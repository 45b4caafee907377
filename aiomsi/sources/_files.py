"""Small files that the platform or the user puts there, read without trusting what they are."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["UnfitFileError", "read_small"]


class UnfitFileError(Exception):
    """There is a file, but not one that should be read; the text says what is wrong with it."""


def read_small(path: Path, most: int, *, link: bool = True) -> tuple[bytes, os.stat_result]:
    """Return the content of the regular file *path*, of *most* bytes at the most, and its status. Blocks.

    Raises:
        OSError: it cannot be opened; a symbolic link cannot unless *link*.
        UnfitFileError: it is no regular file, or longer; nothing was read.
    """
    # Without blocking, so that nobody waits at a pipe for somebody to write to it.
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags if link else flags | getattr(os, "O_NOFOLLOW", 0))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnfitFileError("is no regular file")
        if status.st_size > most:
            raise UnfitFileError(f"has more than {most} bytes")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(most + 1)
    finally:
        os.close(descriptor)
    if len(content) > most:
        raise UnfitFileError(f"grew beyond {most} bytes while it was read")
    return content, status
