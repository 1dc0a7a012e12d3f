"""Compare the values of any option of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar

from ablations.base import Ablation, freeze_through, write_condition_report
from core.config.options import flag_of, option, typed_value
from core.config.run import Run, field_of, option_keys, run_options
from core.errors import UserError, unknown_name_error
from core.registry import Lazy

if TYPE_CHECKING:
    import pandas as pd

    from analysis.output.output_folder import OutputFolder
    from core.plan import Plan
    from core.store.run_store import Store

option_title = Lazy("analysis.output.number_format:option_title")

# Options that select the clips. They are not compared, because their runs would not have the same test clips.
NOT_COMPARABLE = (
    "data__name",
    "data__fold",
    "data__folds",
    "data__set_aside",
    "data__per_class",
    "data__label",
    "data__group",
)


@dataclass(frozen=True)
class Compare(Ablation):
    """Compare the values of one option; the first value is the reference.

    Any option of a run can be compared: backbones, inputs, losses, schedules, augmentations. If several options have
    several values, --by names the one to compare, and the others give one row each. Without several values, one
    network is trained and described.

    Examples
    --------
    run_ablation.py compare --length-mode pad loop --seed 0 1 2
    run_ablation.py compare --lr 1e-2 1e-3 1e-4 --freeze last
    run_ablation.py compare --backbone resnet18 resnet50 --lr 1e-3 1e-4 --by backbone
    run_ablation.py compare --augment none rotate --with-leak
    """

    by: str = option("", "Option to compare, such as length-mode (default: the only one with several values).")
    condition_words: ClassVar[Mapping[str, str]] = {"base": "unchanged network"}

    freeze: str = option("none", "Freeze every network through this stage: none, stem (or 0), 1 .. N, or last.")
    with_leak: bool = option(
        False,
        "For --augment rotate, also add rotate-all, which rotates validation and test images too. It reproduces a "
        "data leak of one paper, for comparison.",
    )

    def expand_grid(self, points: list[dict[str, Any]], store: "Store") -> list[dict[str, Any]]:
        """Return the grid; --with-leak adds one point with ``--augment rotate-all`` after each one with ``rotate``."""
        if not self.with_leak:
            return points
        extended = []
        for point in points:
            extended.append(point)
            if point.get("training__augment") == "rotate":
                extended.append({**point, "training__augment": "rotate-tests"})  # stored value of --augment rotate-all
        if len(extended) == len(points):
            raise UserError("--with-leak adds rotated test clips to --augment rotate: give --augment rotate too")
        return extended

    def compared_field(self, points: list[dict[str, Any]]) -> str:
        """Return the ``group__field`` of --by, or of the only option with several values; "" if there is none."""
        if self.by:
            key = _option_key(self.by.removeprefix("--"))
            if any(key not in point for point in points):
                raise UserError(
                    f"--by {self.by}: nothing to compare; give --{self.by.removeprefix('--')} several values"
                )
            return key
        keys = {key for point in points for key in point if key != "seed" and key not in NOT_COMPARABLE}
        several = sorted(key for key in keys if len({str(point.get(key)) for point in points}) > 1)
        if len(several) > 1:
            names = ", ".join(flag_of(field_of(key))[2:] for key in several)
            raise UserError(f"several options have several values ({names}); add --by {names.split(',')[0]}")
        return several[0] if several else ""

    def conditions(self, base: Run, scratch: Run) -> dict[str, Run]:
        """Return the base run, frozen through the stage of --freeze."""
        return {"base": freeze_through(base, self.freeze)}

    def analyse(self, results: "OutputFolder") -> "pd.DataFrame":
        """Write the condition report with bars, because the conditions have no order."""
        flag = find_compared_option(results.plan)
        name = (self.by or flag).removeprefix("--")
        title = option_title(name.replace("-", "_")) if name else "Condition"
        subject = f"{flag} {self.subject}".strip()
        frame: pd.DataFrame = write_condition_report(results, title=title, subject=subject, draw_bars=True)
        return frame


def find_compared_option(plan: "Plan") -> str:
    """Return the option whose values are the names of the conditions, such as ``--lr``; "" if there is none."""
    for key, field in run_options().items():
        get = attrgetter(key.replace("__", "."))
        if all(str(typed_value(field, get(each.run))) == each.condition for each in plan.planned):
            return flag_of(field)
    return ""


def _option_key(name: str) -> str:
    """Return the ``group__field`` of an option by its name on the command line.

    Raises
    ------
    UserError
        If the option is unknown or cannot be compared.
    """
    usable = {flag: key for flag, key in option_keys().items() if key not in NOT_COMPARABLE}
    flag = name.replace("_", "-")
    if flag not in usable:
        raise unknown_name_error("option", flag, usable)
    return usable[flag]
