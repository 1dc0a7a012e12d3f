"""Convert the options of a command line to the points of a grid, the preset and the options of execution."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from ablations.planning.call import Call
from ablations.planning.presets import Preset, make_quick_preset
from ablations.planning.study_schema import load_preset
from core.config.execution import ExecutionOptions, RayOptions
from core.config.options import flag_of, list_problems, typed_value
from core.config.run import Run, field_of, run_options
from core.errors import UserError
from core.registry import Lazy

MAX_POINTS = 100_000  # combinations of the values of one command line; planning them takes about a minute
check_curves = Lazy("analysis.plots.learning_curves:check_curves")
check_style = Lazy("analysis.output.rendering:check_style")  # imports matplotlib
check_metrics = Lazy("analysis.metrics.registry:check_requested_metrics")  # imports pandas, which --help does not need


def make_grid(call: Call) -> list[dict[str, Any]]:
    """Return one dictionary ``{group__field: value}`` for each combination of the given values.

    Presets are applied later. ``fold`` stays text (a number or ``all``) until the data set is known.

    Raises
    ------
    UserError
        If there are more than `MAX_POINTS` combinations.
    """
    options = explicit_options(call)
    count = math.prod(len(values) for values in options.values())
    if count > MAX_POINTS:
        raise UserError(
            f"the given values have {count:,} combinations, and the limit is {MAX_POINTS:,}; give fewer values"
        )
    points: list[dict[str, Any]] = [{}]
    for key, values in options.items():
        points = [point | {key: value} for point in points for value in values]
    return points


def explicit_options(call: Call) -> dict[str, tuple[Any, ...]]:
    """Return the values of the given options of a run, by ``group__field``; the seed is always included."""
    values_by_key = {}
    for key, f in run_options().items():
        if key in call.values:
            values = call.values[key]
            if not isinstance(f.default, bool | tuple):
                values_by_key[key] = values
            elif values != f.default:
                values_by_key[key] = (values,)
    return values_by_key | {"seed": call.values.get("seed", (Run.seed,))}


def find_ignored_options(call: Call, runs: Iterable[Run]) -> list[str]:
    """Return a message for each given option that no run uses, with the setting it needs."""
    runs, messages = list(runs), []
    for key, values in explicit_options(call).items():
        f = field_of(key)
        if not f.metadata["used_when"]:
            continue
        group = key.partition("__")[0]
        name, *needed = f.metadata["used_when"]
        if not any(getattr(getattr(run, group), name) in needed for run in runs):
            items = values[0] if isinstance(f.default, tuple) else values
            typed = " ".join(str(typed_value(f, value)) for value in items)
            messages.append(f"{flag_of(f)} {typed} is ignored: it only applies with {needed_setting(f)}")
    return messages


def needed_setting(f: "dataclasses.Field[Any]") -> str:
    """Return the setting that an option needs, such as ``--optimizer sgd``, or "" if it needs none."""
    if not f.metadata["used_when"]:
        return ""
    name, *needed = f.metadata["used_when"]
    other = next(field for field in run_options().values() if field.name == name)
    return f"{flag_of(other)} {' or '.join(typed_value(other, value) for value in needed)}"


def read_execution_options(call: Call) -> ExecutionOptions:
    """Return the options of execution of a command line.

    Raises
    ------
    UserError
        For a value out of range, for an unknown metric or curve, and for an option of Ray without ``--ray``.
    """
    parts: dict[str, dict[str, Any]] = {"execution": {}, "ray": {}}
    for key, value in call.values.items():
        group, _, name = key.partition("__")
        if group in parts:
            parts[group][name] = value
    options = ExecutionOptions(**parts["execution"], cluster=RayOptions(**parts["ray"]))
    if parts["ray"] and not options.cluster.ray:
        f = next(f for f in dataclasses.fields(RayOptions) if f.name in parts["ray"])
        raise UserError(f"{flag_of(f)} needs --ray: add --ray local, or leave it out")
    if problems := list_problems(options):
        raise UserError("; ".join(problems))
    check_metrics(options.metric)
    if options.style:
        check_style(options.style)
    if "curves" in parts["execution"]:  # the check imports matplotlib
        check_curves(options.curves)
    return options


def read_preset_option(call: Call) -> Preset:
    """Return the preset of ``--preset`` or ``--quick``, or an empty preset without these options.

    Raises
    ------
    UserError
        For an unknown preset, and for both options together.
    """
    if not call.values.get("quick"):
        return load_preset(call.values.get("preset", ""))
    if call.values.get("preset"):
        raise UserError(
            f"--quick does not apply with --preset {call.values['preset']}, which sets epochs and images too: leave "
            "one out (a study has --scale quick)"
        )
    return make_quick_preset(has_image_size="frontend__image" in explicit_options(call))
