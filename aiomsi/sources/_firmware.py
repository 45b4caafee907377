"""What the firmware of this machine says about its maker, which no request is needed to know."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from aiomsi.sources._surroundings import Surroundings

__all__ = ["is_azure", "vendor"]

_AZURE_CHASSIS = "7783-7084-3265-9085-8269-3286-77"
_AZURE_VENDOR = "Microsoft Corporation"


async def is_azure(surroundings: Surroundings) -> bool | None:
    """Return whether this is a virtual machine on Azure, or None if the firmware does not tell."""
    if surroundings.platform == "darwin":  # There are no machines of that kind on Azure.
        return False
    if await _dmi(surroundings, "chassis_asset_tag") == _AZURE_CHASSIS:
        return True
    maker = await vendor(surroundings)
    return False if maker and maker != _AZURE_VENDOR else None


async def vendor(surroundings: Surroundings) -> str | None:
    """Return who has made this machine, or None if the firmware does not tell."""
    return await _dmi(surroundings, "sys_vendor")


async def _dmi(surroundings: Surroundings, name: str) -> str | None:
    path = anyio.Path(surroundings.root) / "sys/class/dmi/id" / name
    try:
        return (await path.read_text()).strip()
    except (OSError, UnicodeDecodeError):
        return None
