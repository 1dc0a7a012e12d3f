"""One file per ablation. Each turns a base run into conditions; none of them trains."""

import dataclasses
import importlib

ABLATIONS: dict[str, str] = {
    # command: the class that describes it; its docstring is the command's help
    "freeze": "ablations.freeze:Freeze",
}


def load(name: str) -> type:
    """Return the class of an ablation."""
    module, _, attribute = ABLATIONS[name].partition(":")
    found: type = getattr(importlib.import_module(module), attribute)
    assert dataclasses.is_dataclass(found)
    return found
