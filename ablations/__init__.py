"""Ablations of transfer learning: one module per ablation, and what ``import ablations`` gives a Python program.

An ablation defines the conditions of a base run and the analysis of the finished runs.

>>> import ablations
>>> results = ablations.open_results("results")
>>> results.runs
>>> results.run("89aa").network
>>> ablations.plan("freeze", block=3).run().table
"""

import pkgutil
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def _check_packages() -> None:
    """Raise ImportError if Python finds another package in place of one of ours."""
    for name in ("core", "analysis"):
        module = sys.modules.get(name)
        spec = getattr(module, "__spec__", None) if module else PathFinder.find_spec(name)
        found = getattr(module, "__file__", None) or getattr(spec, "origin", None)
        found = found or next(iter(getattr(spec, "submodule_search_locations", None) or ()), None)
        if found and Path(found).resolve() not in (ROOT / name / "__init__.py", ROOT / name):
            raise ImportError(
                f"{found} hides the package '{name}' of this toolkit, {ROOT / name}: rename it, or start Python in "
                f"another folder"
            )


_check_packages()

from core.registry import Registry  # noqa: E402

ABLATIONS = Registry(
    "ablation",
    {  # command: class; the docstring of the class is the help of the command
        "attribute": "ablations.attribute:Attribute",
        "pretraining": "ablations.pretraining:Pretraining",
        "weight-change": "ablations.weight_change:WeightChange",
        "fusion": "ablations.fusion:Fusion",
        "freeze": "ablations.freeze:Freeze",
        "cutoff": "ablations.cutoff:Cutoff",
        "compare": "ablations.compare:Compare",
        "ensemble": "ablations.ensemble:Ensemble",
    },
)
STUDIES_FOLDER = Path(__file__).parent / "studies"  # one folder for each study: study.toml, published.csv, README.md
INTERFACE = {  # for Python programs; imported when used
    "open_results": "ablations.interface.open_results:open_results",
    "plan": "ablations.interface.planned_ablation:plan",
    "similarity": "ablations.interface.own_networks:similarity",
    "layer_similarity": "ablations.interface.own_networks:layer_similarity",
    "integrated_gradients": "ablations.interface.own_networks:integrated_gradients",
    "UserError": "core.errors:UserError",
}


def __getattr__(name: str) -> Any:
    if name not in INTERFACE:
        raise AttributeError(f"module 'ablations' has no attribute '{name}'")
    value = globals()[name] = pkgutil.resolve_name(INTERFACE[name])
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *INTERFACE})
