"""The files of a study, and what ``study.toml`` can contain.

A study reproduces one report and is one folder, ``ablations/studies/<name>/``:

- ``study.toml``: title, source, preset, scales and experiments. Options have the names of the command line.
  ``[scales.quick]`` applies to every experiment of the scale ``quick``, ``[experiments.options]`` to one experiment at
  every scale, and ``[experiments.quick]`` to one experiment at that scale. Each of these overrides the ones before.
  ``[tables]`` and ``[figures]`` define items that combine several experiments. A table is a list of experiments; a
  figure is ``{figure = "bars", metric = "f1", of = [...]}``, ``{figure = "confusion", of = [...]}`` or
  ``{figure = "curves", of = [...]}``. The metric is a name or a list of names; for curves it is optional, for example
  ``["train_loss", "validation_loss"]``.
- ``published.csv``: the numbers and statements of the report (`analysis.published.numbers`).
- ``README.md``: what the report states, what only its authors' code shows, and what we chose.
"""

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

import ablations
from ablations.planning.presets import Preset, read_preset
from core.errors import UserError, unknown_name_error
from core.registry import Lazy, Registry
from core.system.atomic_files import read_regular_file
from core.system.toml_tables import convert_table

DEFAULT_STUDY = "rethinking-cnn"  # its preset is also called "paper"
OPTIONS_KEY = "options"  # key of an experiment's options that apply at every scale
FIGURES = Registry(
    "figure",
    {  # functions that draw the runs of several experiments
        "bars": "analysis.plots.multi_experiment:write_bar_figure",
        "confusion": "analysis.plots.multi_experiment:write_confusion_figure",
        "curves": "analysis.plots.multi_experiment:write_curve_figure",
    },
)
METRIC_CHECKS = {  # raise UserError for an unknown metric; lazy because they import pandas
    "bars": Lazy("analysis.metrics.registry:check_metrics"),
    "curves": Lazy("analysis.plots.learning_curves:check_curves"),
}
Text = Annotated[str, msgspec.Meta(min_length=1)]
Items = Annotated[list[str], msgspec.Meta(min_length=1)]
Value = bool | str | int | float | list[str | int | float]


class StudyFile(msgspec.Struct, forbid_unknown_fields=True):
    """The content of a ``study.toml``. Experiments and figures stay dictionaries, and are checked one by one later."""

    title: Text
    source: Text
    experiments: Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1)]
    scales: dict[str, dict[str, Any]] = {}
    preset: list[dict[str, Any]] = []
    tables: dict[str, Items] = {}
    figures: dict[str, dict[str, Any]] = {}


class FigureSpec(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A figure that combines several experiments."""

    figure: Text  # a name in FIGURES
    of: Items  # items of the experiments
    metric: str | tuple[str, ...] = ()  # metrics of the bars, or of the curves

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics."""
        return (self.metric,) if isinstance(self.metric, str) else self.metric


@dataclass(frozen=True)
class ExperimentSpec:
    """One experiment of a study: a command, and the table or figure of the report that it reproduces."""

    item: str
    command: str
    options: Mapping[str, Sequence[str]]  # values by flag, without dashes


@dataclass(frozen=True)
class StudySpec:
    """A study at one scale."""

    name: str
    title: str
    source: str
    experiments: tuple[ExperimentSpec, ...]
    tables: Mapping[str, Sequence[str]]  # by item of the table: items of the experiments that it combines
    figures: Mapping[str, FigureSpec]  # by item of the figure

    @property
    def combined_items(self) -> dict[str, Sequence[str]]:
        """Items of the combined experiments, by item of the table or figure that combines them."""
        return _merge(self.tables, self.figures)


def list_studies() -> tuple[str, ...]:
    """Return the names of the studies, which are folders of `ablations.STUDIES_FOLDER`."""
    folders = (path for path in ablations.STUDIES_FOLDER.iterdir() if path.is_dir())
    return tuple(sorted(path.name for path in folders if path.name[0] not in "._"))


def list_runnable_studies() -> tuple[str, ...]:
    """Return the names of the studies that have a ``study.toml``."""
    return tuple(name for name in list_studies() if (ablations.STUDIES_FOLDER / name / "study.toml").exists())


def read_study(name: str, scale: str, overrides: Mapping[str, Sequence[str]], *, commands: Sequence[str]) -> StudySpec:
    """Read a study at one scale.

    Parameters
    ----------
    name
        Name of the study.
    scale
        Name of one of its scales.
    overrides
        Options of the command line by flag; they override those of the file.
    commands
        Names of the commands that an experiment can use.

    Raises
    ------
    UserError
        If the study, scale, command or a key is unknown (with the nearest match), or a value is not allowed.
    """
    file, where = _read_file(name)
    if OPTIONS_KEY in file.scales:
        raise UserError(f"{where}: rename the scale '{OPTIONS_KEY}'; this key holds the options of every scale")
    if not file.scales:
        raise UserError(f"{where}: add a table of scales, such as [scales.quick]")
    if scale not in file.scales:
        raise unknown_name_error(f"scale of {name}:", scale, file.scales)
    scale_options = _read_options(file.scales[scale], f"{where}, scale {scale}")
    experiments = []
    for k, table in enumerate(file.experiments, start=1):
        place = f"{where}, experiment {table.get('item', k)!r}"
        item, command = _read_experiment(table, file.scales, place)
        if command not in commands:
            raise unknown_name_error(f"command in {place}:", command, commands)
        own = {key: _read_options(table.get(key, {}), f"{place}, {key}") for key in (OPTIONS_KEY, *file.scales)}
        options = {**scale_options, **own[OPTIONS_KEY], **own[scale], **overrides}
        experiments.append(ExperimentSpec(item, command, options))
    items = [experiment.item for experiment in experiments]
    figures = _read_figures(file, items, where)
    _check_folder_names([*items, *file.tables, *figures], where)
    return StudySpec(name, file.title, file.source, tuple(experiments), file.tables, figures)


def load_preset(name: str) -> Preset:
    """Return the preset of a study; ``paper`` is that of `DEFAULT_STUDY`, and "" is an empty preset.

    Raises
    ------
    UserError
        If the study is unknown (with the nearest match), has no preset, or its file has a mistake.
    """
    if not name:
        return Preset()
    names = ("paper", *list_runnable_studies())
    if name not in names:
        raise unknown_name_error("preset", name, names)
    file, where = _read_file(DEFAULT_STUDY if name == "paper" else name)
    if not file.preset:
        raise UserError(f"{where}: add a [[preset]]")
    return read_preset(file.preset, where)


def commands_by_item() -> dict[tuple[str, str], set[str]]:
    """Map each ``(study, item)`` to the commands that reproduce it; studies with mistakes are skipped."""
    commands: dict[tuple[str, str], set[str]] = {}
    for name in list_runnable_studies():
        with contextlib.suppress(UserError):
            file, where = _read_file(name)
            by_item = dict(_read_experiment(table, file.scales, where) for table in file.experiments)
            combined = _merge(file.tables, _read_figures(file, by_item, where))
            commands |= {(name, item): {command} for item, command in by_item.items()}
            commands |= {(name, item): {by_item[part] for part in parts} for item, parts in combined.items()}
    return commands


def folder_name(item: str) -> str:
    """Return the folder name of a table or figure: ``figure-2a`` for ``Figure 2a``."""
    return re.sub(r"[^a-z0-9]+", "-", item.lower()).strip("-")


def _read_file(name: str) -> tuple[StudyFile, str]:
    """Return the checked file of a study, and its name for messages."""
    if name not in list_studies():  # also refuses paths outside the folder
        raise unknown_name_error("study", name, list_studies())
    where = f"{name}/study.toml"
    try:
        content = msgspec.toml.decode(read_regular_file(ablations.STUDIES_FOLDER / where))
    except FileNotFoundError:
        choices = ", ".join(list_runnable_studies())
        raise UserError(f"{name} has published numbers but no study.toml; choose from {choices}") from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UserError(f"{where}: {error}") from None
    except OSError as error:
        raise UserError(f"{where} cannot be read ({error.strerror})") from None
    return convert_table(content, StudyFile, where), where


def _read_experiment(table: Mapping[str, Any], scales: Iterable[str], where: str) -> tuple[str, str]:
    """Return item and command of an ``[[experiments]]`` table; its other keys are options by scale."""
    fields: list[Any] = [("item", Text), ("command", Text)]
    fields += [(key, dict[str, Any], {}) for key in (OPTIONS_KEY, *scales)]
    experiment = convert_table(table, msgspec.defstruct("Experiment", fields, forbid_unknown_fields=True), where)
    return experiment.item, experiment.command


def _read_options(table: Mapping[str, Any], where: str) -> dict[str, list[str]]:
    """Return options as words of a command line, by flag."""
    options: dict[str, list[str]] = {}
    for flag, content in table.items():
        value: Value = convert_table(content, Value, f"{where}: {flag}")
        if isinstance(value, bool):
            options[flag if value else f"no-{flag}"] = []
            continue
        options[flag] = [str(word) for word in (value if isinstance(value, list) else [value])]
        if any(word.startswith("--") for word in options[flag]):
            raise UserError(f"{where}: {flag} = {content!r}: give a value, not another option")
    return options


def _read_figures(file: StudyFile, items: Iterable[str], where: str) -> dict[str, FigureSpec]:
    """Return the figures by item, after checking that tables and figures combine only experiments of the study."""
    figures = {item: _read_figure(table, f"{where}, figure '{item}'") for item, table in file.figures.items()}
    for item, parts in _merge(file.tables, figures).items():
        for part in parts:
            if part not in items:
                raise unknown_name_error(f"experiment in {where}, '{item}':", part, items)
    return figures


def _read_figure(table: Mapping[str, Any], where: str) -> FigureSpec:
    """Read and check one table of ``[figures]``."""
    figure: FigureSpec = convert_table(table, FigureSpec, where)
    if figure.figure not in FIGURES:
        raise unknown_name_error(f"figure in {where}:", figure.figure, FIGURES)
    if figure.metric and figure.figure not in METRIC_CHECKS:
        raise UserError(f"{where}: remove the key 'metric', which a figure of {figure.figure} does not have")
    if figure.figure == "bars" and not figure.metric:
        raise UserError(f"{where}: add the key 'metric'")
    if figure.metrics:
        METRIC_CHECKS[figure.figure](figure.metrics)
    return figure


def _merge(tables: Mapping[str, Sequence[str]], figures: Mapping[str, FigureSpec]) -> dict[str, Sequence[str]]:
    """Return the experiments of each combined table and figure, by item."""
    return {**tables, **{item: figure.of for item, figure in figures.items()}}


def _check_folder_names(items: Sequence[str], where: str) -> None:
    """Refuse two items with the same folder."""
    folders: dict[str, str] = {}
    for item in items:
        folder = folder_name(item)
        if not folder:
            raise UserError(f"{where}: the item '{item}' needs a letter or a digit")
        if folder in folders:
            raise UserError(f"{where}: rename one of the items '{folders[folder]}' and '{item}': same folder {folder}")
        folders[folder] = item
