"""What a source sees of the machine it runs on: the only module that names the real one."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import PurePath

__all__ = ["Surroundings"]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a source is: this process and machine, or what a test makes of them.

    *environ* is read at each fetch, since platforms rotate the secrets in it. *platform* is as in `sys.platform`,
    *root* the root of the file system, under which every other path is looked for; *imds_url* and *arc_url* are scheme
    and authority of the Instance Metadata Service and of the agent of Azure Arc.
    """

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    platform: str = sys.platform
    root: Path = Path("/")
    imds_url: str = "http://169.254.169.254"
    arc_url: str = "http://127.0.0.1:40342"

    def get(self, variable: str) -> str | None:
        """Return the value of an environment variable, or None if it is unset or empty."""
        return self.environ.get(variable) or None

    def place(self, path: PurePath) -> Path:
        """Return where the absolute *path* is, given the root; one that lies under the root already is there."""
        given = Path(path)
        whole = self.root == Path("/") or given.is_relative_to(self.root)
        return given if whole else self.root.joinpath(*path.parts[1:])
