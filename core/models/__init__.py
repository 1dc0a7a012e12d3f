"""Backbones by name. Every network belongs to a family and is seen as stages: stem, block1 .. blockN, head.

Importing this package imports neither torch nor a model library. A new family is one module with a `Family`
(`core.models.family`) and one line in `FAMILIES`.
"""

from typing import TYPE_CHECKING

from core.errors import unknown_name_error
from core.registry import Registry

if TYPE_CHECKING:
    from core.models.family import Family

FAMILIES = Registry(
    "network family",
    {
        "lites": "core.models.families.efficientnet_lite:FAMILY",
        "torchvision": "core.models.families.torchvision_models:FAMILY",
        "timm": "core.models.families.timm_models:FAMILY",
        "own": "core.models.families.paper_networks:FAMILY",
        "user": "core.models.families.user_file:FAMILY",
    },
)


def list_backbones() -> tuple[str, ...]:
    """Return the names of all backbones that can be listed; others, such as ``timm:NAME``, follow a pattern."""
    return tuple(name for family in FAMILIES.values() for name in family.names())


def find_family(name: str) -> "Family":
    """Return the family that a backbone belongs to.

    Raises
    ------
    UserError
        If no family has a backbone of this name; the message names the nearest one.
    """
    for family in FAMILIES.values():
        if family.owns(name):
            found: Family = family
            return found
    patterns = tuple(family.pattern for family in FAMILIES.values() if family.pattern)
    raise unknown_name_error("backbone", name, (*list_backbones(), *patterns))
