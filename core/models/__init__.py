"""Networks: families of them found by name, seen as stages; nothing heavy is imported before it is needed.

A new family is a module with a `Family` (`core.models.family`), and its line in `FAMILIES`.
"""

from typing import TYPE_CHECKING

from core.errors import unknown
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


def names() -> tuple[str, ...]:
    """Return every backbone that can be listed; families may own more, such as ``timm:NAME``."""
    return tuple(name for family in FAMILIES.values() for name in family.names())


def family_of(name: str) -> "Family":
    """Return the family that a backbone belongs to.

    Raises
    ------
    UserError
        For a name that no family owns, with the nearest that one does.
    """
    for family in FAMILIES.values():
        if family.owns(name):
            found: Family = family
            return found
    patterns = tuple(family.pattern for family in FAMILIES.values() if family.pattern)
    raise unknown("backbone", name, (*names(), *patterns))
