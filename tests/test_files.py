"""Small files, and what takes their place."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

import pytest

from aiomsi.sources._files import UnfitFileError, absolute, read_small

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    """Fail the test after which a descriptor is open that was not before."""
    before = _next_descriptor()
    yield
    assert _next_descriptor() == before


def _next_descriptor() -> int:
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    return descriptor


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    return path


def test_a_file_is_read_whole(file: Path) -> None:
    """The content comes with the status of the very file that was read."""
    content, status = read_small(file, 100)
    assert content == b"0123456789"
    assert status.st_ino == file.stat().st_ino


def test_a_file_may_be_as_long_as_it_may_be(file: Path) -> None:
    """The limit is the last length that is read."""
    assert read_small(file, 10)[0] == b"0123456789"
    with pytest.raises(UnfitFileError, match="has more than 9 bytes"):
        read_small(file, 9)


def test_a_file_whose_length_is_not_what_it_says_is_not_read_on(file: Path) -> None:
    """Some files of the kernel say that they are empty; what they hold is limited all the same."""
    endless = Path("/proc/self/status")
    assert endless.stat().st_size < 10 <= file.stat().st_size
    with pytest.raises(UnfitFileError, match="has more than 10 bytes"):
        read_small(endless, 10)


def test_a_symbolic_link_is_followed_unless_it_must_not_be(file: Path) -> None:
    """Kubernetes projects files as links; a key of an agent's is none."""
    link = file.with_name("link")
    link.symlink_to(file)
    assert read_small(link, 100)[0] == b"0123456789"
    with pytest.raises(OSError, match="symbolic"):
        read_small(link, 100, link=False)


@pytest.mark.parametrize("kind", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_read(tmp_path: Path, kind: Callable[[Path], None]) -> None:
    """A folder has no content, and a pipe has none until somebody writes to it; nobody waits for that."""
    kind(tmp_path / "thing")
    with pytest.raises(UnfitFileError, match="is no regular file"):
        read_small(tmp_path / "thing", 100)


def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    """The system's own errors are passed on."""
    with pytest.raises(FileNotFoundError):
        read_small(tmp_path / "nothing", 100)


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    """A name with a zero in it, which no system call takes, is told like any other unfit file."""
    with pytest.raises(UnfitFileError, match="has a name that no file can have"):
        read_small(tmp_path / "a\0b", 100)


@pytest.mark.parametrize(
    ("text", "platform", "path"),
    [
        ("/var/run/token", "linux", PurePosixPath("/var/run/token")),
        ("/var/run/token", "darwin", PurePosixPath("/var/run/token")),
        ("C:\\var\\run\\token", "win32", PureWindowsPath("C:/var/run/token")),
        ("/var/run/token", "win32", PureWindowsPath("/var/run/token")),
        ("\\var\\run\\token", "win32", PureWindowsPath("/var/run/token")),
    ],
)
def test_an_absolute_path(text: str, platform: str, path: Path) -> None:
    """A path begins at a root; that of a pod on Windows has no drive."""
    assert absolute(text, platform) == path


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("", "linux"),
        (".", "linux"),
        ("run/token", "linux"),
        ("../token", "linux"),
        ("~/token", "linux"),
        ("C:\\run\\token", "linux"),
        ("run\\token", "win32"),
        ("C:token", "win32"),
    ],
)
def test_a_relative_path(text: str, platform: str) -> None:
    """Where a relative path leads depends on where a process was started, so it is not taken."""
    with pytest.raises(UnfitFileError, match="is no absolute path"):
        absolute(text, platform)
