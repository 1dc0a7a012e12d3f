"""Does a setting matter? The values of any option, side by side."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from ablations.base import Ablation, compare
from core.config.run import GROUPS, Run, option
from core.errors import UserError, unknown
from core.inputs.input_of_run import input_shape
from core.models.stages import stages_named

if TYPE_CHECKING:
    import pandas as pd

    from analysis.output.folder import OutputFolder
    from core.store.runs import Store

# Other clips are no other condition.
NEVER = ("data__name", "data__fold", "data__folds", "data__set_aside", "data__per_class", "data__label")


@dataclass(frozen=True)
class Compare(Ablation):
    """Set the values of one option against each other, the first value being the reference.

    The option that has several values makes the conditions: how clips are filled up, batch sizes, schedules, losses,
    inputs, backbones. Where several options have several values, --by names the one; the others make a row each.
    Without any, one network is trained and described. --augment none rotate --rotate-tests has three conditions: the
    last reproduces a report's leak, in whose code what is tested on was rotated too.

    Example: run_ablation.py compare --fit pad loop --data folder --data-root DIR --seed 0 1 2
    """

    by: str = option("", "Option whose values are the conditions, such as fit (default: the only one with several).")
    frozen: str = option("none", "Freeze every network through this stage: none, stem (or 0), 1 .. N, or last.")
    rotate_tests: bool = option(
        False,
        "Beside --augment rotate, rotate what is validated and tested on too, as another condition (augment "
        "rotate-tests): it reproduces a leak in a report's code, to be seen beside what is right.",
    )

    @property
    def title(self) -> str:  # type: ignore[override]
        """Name the conditions, in tables and on axes."""
        return self.by.removeprefix("--").replace("-", " ").capitalize() or "Condition"

    def points(self, points: list[dict[str, Any]], store: "Store") -> list[dict[str, Any]]:
        """Put the leak behind every point that rotates, where it was asked for."""
        if not self.rotate_tests:
            return points
        found = []
        for point in points:
            found.append(point)
            if point.get("training__augment") == "rotate":
                found.append({**point, "training__augment": "rotate-tests"})
        if len(found) == len(points):
            raise UserError("--rotate-tests does to tests what --augment rotate does to training clips: say that too")
        return found

    def varied(self, points: list[dict[str, Any]]) -> str:
        """Return the option that was named, or the only one with several values."""
        if self.by:
            key = _key(self.by.removeprefix("--"))
            if any(key not in point for point in points):
                raise UserError(
                    f"--by {self.by}: nothing to compare; give --{self.by.removeprefix('--')} several values"
                )
            return key
        keys = {key for point in points for key in point if key != "seed" and key not in NEVER}
        several = sorted(key for key in keys if len({str(point.get(key)) for point in points}) > 1)
        if len(several) > 1:
            names = ", ".join(key.partition("__")[2].replace("_", "-") for key in several)
            raise UserError(
                f"several options have several values ({names}): say which is compared, --by {names.split(',')[0]}"
            )
        return several[0] if several else ""

    def conditions(self, base: Run, scratch: Run) -> dict[str, Run]:
        """Freeze what is to be frozen everywhere."""
        stages = stages_named((self.frozen,), base.model.network, input_shape(base))
        return {"base": base.replace(model__freeze=stages[0]) if stages else base}

    def analyse(self, results: "OutputFolder") -> "pd.DataFrame":
        """Draw bars: there is no depth to walk along."""
        frame: pd.DataFrame = compare(results, title=self.title, bars=True)
        return frame


def _key(name: str) -> str:
    """Return ``group__field`` of an option by its name on the command line."""
    known = {
        f"{group}__{f.name}": f for group, part in GROUPS.items() for f in fields(part) if not f.metadata["hidden"]
    }
    flags = {(f.metadata["flag"] or f.name).replace("_", "-"): key for key, f in known.items()}
    usable = {flag: key for flag, key in flags.items() if key not in NEVER}
    flag = name.replace("_", "-")
    if flag not in usable:
        raise unknown("option", flag, usable)
    return usable[flag]
