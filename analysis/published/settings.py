"""Settings that a report states for a number, compared with those of our runs."""

from collections.abc import Mapping, Sequence
from typing import Any, get_origin

from core.config.options import stored_value, typed_value
from core.config.run import Run, field_of, option_keys
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.inputs.input_kind import get_input_shape
from core.models.stages import parse_stage

FREEZE = "freeze"  # last frozen stage, set by an ablation
TEST_FOLDS, SEEDS, SPLIT = "test-folds", "seeds", "split"
DESIGN_COLUMNS = {  # settings of an experiment that are not options of one run
    TEST_FOLDS: "number of test folds",
    SEEDS: "number of networks per fold that differ in their seed",
    SPLIT: "percent of the clips for training/validation/testing, such as 80/10/10",
}
SIZE_SETTINGS = ("head", "mlp-layers", FREEZE)  # those that decide the size of a network
SPLIT_TOLERANCE = 1.5  # percentage points; whole clips and groups do not give exact fractions


def parse_setting(column: str, text: str) -> Any:
    """Return the value of a setting from its text.

    Raises
    ------
    ValueError
        If the text is not a value of the setting.
    """
    if column == FREEZE:
        return text
    if column == SPLIT:
        shares = tuple(float(part) for part in text.split("/"))
        if len(shares) != 3 or abs(sum(shares) - 100) > SPLIT_TOLERANCE:
            raise ValueError("give three percentages with the sum 100")
        return shares
    if column in DESIGN_COLUMNS:
        return int(text)
    f = field_of(option_keys()[column])
    kind: Any = f.type
    if kind is bool:
        return {"true": True, "false": False}[text.lower()]
    if get_origin(kind) is tuple:
        return tuple(int(part) for part in text.split())
    if kind is str:
        try:
            value = stored_value(f, text)
        except UserError as error:
            raise ValueError(str(error)) from None
        if f.metadata["choices"] and value not in f.metadata["choices"]:
            raise ValueError(f"choose from {', '.join(f.metadata['choices'])}")
        return value
    return kind(text)


def list_setting_differences(
    stated: Mapping[str, str], runs: Sequence[Run], datasets: Mapping[str, Dataset]
) -> list[str]:
    """Return the settings of runs that differ from the stated ones, such as "epochs 8 instead of 70".

    Parameters
    ----------
    stated
        Settings that the report states, by column of ``published.csv``; empty settings are not compared.
    runs
        Runs of one of our numbers; without runs, the result is empty.
    datasets
        Data sets of the runs by ``data.content``.
    """
    differences = []
    for column, text in stated.items():
        if not text or not runs:
            continue
        if column == SPLIT:
            ours = _read_splits(runs, datasets)
            stated_split = parse_setting(column, text)
            if all(
                max(abs(a - b) for a, b in zip(split, stated_split, strict=True)) <= SPLIT_TOLERANCE for split in ours
            ):
                continue
            words = {"/".join(f"{percentage:.0f}" for percentage in split) for split in ours}
        else:
            values = _read_values(column, runs)
            if values <= {_resolve_for_runs(column, text, runs)}:  # an unused setting has no value
                continue
            words = {_format_value(column, value) for value in values}
        differences.append(f"{column} {' and '.join(sorted(words))} instead of {text}")
    return differences


def _read_values(column: str, runs: Sequence[Run]) -> set[Any]:
    """Return the values of a setting in the runs that use it."""
    if column == TEST_FOLDS:
        return {len({run.data.fold for run in runs})}
    if column == SEEDS:
        return {len({run.seed for run in runs})}
    if column == FREEZE:
        return {run.model.freeze for run in runs}
    group, _, name = option_keys()[column].rpartition("__")
    f = field_of(option_keys()[column])
    values = set()
    for run in runs:
        part = getattr(run, group) if group else run
        if f.metadata["used_when"]:
            other, *needed = f.metadata["used_when"]
            if getattr(part, other) not in needed:
                continue
        values.add(getattr(part, name))
    return values


def _resolve_for_runs(column: str, text: str, runs: Sequence[Run]) -> Any:
    """Return the value of a stated setting; a stage such as "last" becomes a stage of the network of the runs."""
    if column == FREEZE:
        return parse_stage(text, runs[0].model.network, get_input_shape(runs[0]))
    return parse_setting(column, text)


def _read_splits(runs: Sequence[Run], datasets: Mapping[str, Dataset]) -> list[tuple[float, float, float]]:
    """Return the mean percentages of training, validation and test clips over the folds.

    The list has one entry for each data set and fraction of validation clips.
    """
    by_kind: dict[tuple[str, float], set[int]] = {}
    for run in runs:
        if run.data.content in datasets:
            by_kind.setdefault((run.data.content, run.data.validation), set()).add(run.data.fold)
    shares = []
    for (content, validation), folds in by_kind.items():
        counts = [[len(part) for part in datasets[content].split(fold, validation=validation)] for fold in folds]
        totals = [sum(part) for part in zip(*counts, strict=True)]
        train, held_out, test = (100 * total / sum(totals) for total in totals)
        shares.append((train, held_out, test))
    return shares


def _format_value(column: str, value: Any) -> str:
    """Return the value of a setting as text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    typed = typed_value(field_of(option_keys()[column]), value) if column in option_keys() else value
    return str(typed) or "none"


def describe_point(point: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    """Return the options of a grid point whose values differ from those of other points, such as "lr 0.001"."""
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in point.items()
        if any(other.get(name) != value for other in others)
    )
