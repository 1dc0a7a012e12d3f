"""Settings of a study: the value of every option in each of its experiments, for ``--dry-run``."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from ablations.planning.call import Call, command_options
from core.config.options import flag_of, typed_value
from core.config.run import Run, run_options

ITEM_SEPARATOR = "; "  # items may contain commas
NO_SETTINGS = (
    "precision",
    "channels_last",
    "compile",
    "stored_as",
    "by",
)  # not listed, because they only decide how runs are computed or compared
# Options that have no effect with some inputs or networks: a function tells whether a run uses the option.
CONDITIONAL_FIELDS: Mapping[str, Callable[[Run], bool]] = {
    "channels": lambda run: not run.frontend.window,
    "window": lambda run: run.frontend.window > 0,
    "hop": lambda run: run.frontend.window > 0,
    "n_mels": lambda run: run.frontend.kind != "logspec" or not run.frontend.image,
    "n_frames": lambda run: not run.frontend.image,
    "mel": lambda run: run.frontend.kind in ("logmel", "mfcc", "features"),
    "mel_norm": lambda run: run.frontend.kind in ("logmel", "mfcc", "features"),
    "n_mfcc": lambda run: run.frontend.kind in ("mfcc", "features"),
    "levels": lambda run: run.frontend.normalise != "train",
    "colour": lambda run: run.frontend.normalise != "train",
    "pca": lambda run: run.frontend.kind == "features",
    "layers": lambda run: run.model.backbone == "mlp",
    "dropout": lambda run: not run.model.own_dropout,
    "frozen_batch_norm": lambda run: run.model.freeze != "none",
    "step_size": lambda run: not run.training.milestones,
    "monitor": lambda run: run.training.patience > 0 or run.training.schedule == "plateau",
}


@dataclass(frozen=True)
class Setting:
    """The value of an option, and the experiments that have it.

    Attributes
    ----------
    flag
        The option, with its dashes.
    value
        Its value as on the command line. Different values of the runs of one experiment are separated by commas.
    items
        Items of the experiments, in the order of the study.
    """

    flag: str
    value: str
    items: tuple[str, ...]


def list_settings(experiments: Iterable[tuple[str, Call, Sequence[Run]]]) -> list[Setting]:
    """Return the settings of experiments, ordered by option; options without an effect are left out.

    Parameters
    ----------
    experiments
        Item, command line and planned runs of each experiment; those without runs are left out.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for item, call, runs in experiments:
        for flag, value in (_settings_of_experiment(call, runs) if runs else {}).items():
            found.setdefault(flag, {}).setdefault(value, []).append(item)
    return [Setting(flag, value, tuple(names)) for flag, values in found.items() for value, names in values.items()]


def _settings_of_experiment(call: Call, runs: Sequence[Run]) -> dict[str, str]:
    """Return the values of the options of the runs, and of the given options of the command, by flag."""
    values: dict[str, str] = {}
    for key, f in run_options().items():
        group, _, name = key.partition("__")
        if name in NO_SETTINGS or f.metadata["decides"] == "repeat":
            continue
        texts = [_format_value(f, getattr(getattr(run, group), name)) for run in runs if _has_effect(f, group, run)]
        if any(texts):
            values[flag_of(f)] = ", ".join(dict.fromkeys(filter(None, texts)))
    for option in command_options(type(call.command)):
        if not option.group and option.flag in call.words and option.key not in NO_SETTINGS:
            values[f"--{option.flag}"] = _format_value(option.field, getattr(call.command, option.key))
    return values


def _has_effect(f: "dataclasses.Field[Any]", group: str, run: Run) -> bool:
    """Return whether an option, given by its dataclass field, influences the result of a run."""
    if f.metadata["used_when"]:
        name, *needed = f.metadata["used_when"]
        if getattr(getattr(run, group), name) not in needed:
            return False
    if group in ("clip", "frontend") and run.frontend.columns:  # inputs are rows of a table of features
        return f.name in ("normalise", "pca")
    return f.name not in CONDITIONAL_FIELDS or CONDITIONAL_FIELDS[f.name](run)


def _format_value(f: "dataclasses.Field[Any]", value: Any) -> str:
    """Return a value as on the command line; "" for an option that is switched off."""
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, tuple):
        return " ".join(str(typed_value(f, part)) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(typed_value(f, value))


def print_settings(settings: Sequence[Setting], console: Console) -> None:
    """Print settings: those of all experiments once, then those of each group of experiments."""
    every = tuple(dict.fromkeys(item for setting in settings for item in setting.items))
    groups: dict[tuple[str, ...], list[str]] = {}
    for setting in settings:
        groups.setdefault(setting.items, []).append(f"{setting.flag} {setting.value}")
    for names, texts in sorted(groups.items(), key=lambda group: -len(group[0])):
        title = "all items" if len(names) == len(every) else ITEM_SEPARATOR.join(names)
        console.print(f"Settings of {title}: {', '.join(texts)}", style="dim", soft_wrap=True)
