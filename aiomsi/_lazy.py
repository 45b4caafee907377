"""Names that a package exports and only loads when they are used (PEP 562)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["lazily"]


def lazily(namespace: dict[str, Any], homes: Mapping[str, Sequence[str]]) -> Callable[[str], object]:
    """Return the `__getattr__` of the package with *namespace*, whose names are at home in the modules of *homes*.

    Importing a corner of a package then does not pull in the whole.
    """
    package = namespace["__name__"]

    def find(name: str) -> object:
        for module, names in homes.items():
            if name in names:
                namespace[name] = getattr(import_module(module), name)
                return namespace[name]
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find
