"""Read ``study.toml`` files: the experiments of a study, the tables and figures they reproduce, and presets.

The folder ``ablations/studies/<name>/`` has three files about a paper or report:

- ``study.toml``: experiments, scales and presets. ``[[experiments]]`` have an ``item`` (table or figure of the paper),
  a ``command`` and options as on the command line. Options of ``[scales.quick]`` apply to all experiments at the scale
  quick, those of ``[experiments.options]`` to one experiment at all scales, and those of ``[experiments.quick]`` to one
  experiment at one scale; the more specific ones win. ``[tables]`` and ``[figures]`` are items that combine several
  experiments: a list of them, or ``{figure = "bars", metric = "f1", of = [...]}``. Figures are ``bars``, ``confusion``
  and ``curves``; a metric of curves, such as ``train_loss``, is optional.
- ``published.csv``: published numbers (`analysis.published.numbers`).
- ``README.md``: settings that the paper states, settings found in its code only, and our own choices.

Errors in a file are one line with the file, the entry and the most similar valid name.
"""

import contextlib
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ablations
from commands.cli.presets import Preset, read_preset
from core.config.run import Model
from core.errors import UserError, closest_name, unknown_name_error
from core.registry import Lazy, Registry

STUDIES_FOLDER = Path(ablations.__file__).parent / "studies"
DEFAULT_STUDY = "rethinking-cnn"  # study of the preset called paper
STUDY_KEYS = ("title", "source", "preset", "scales", "experiments", "tables", "figures")
EXPERIMENT_KEYS = ("item", "command")
FIGURE_KEYS = ("figure", "of", "metric")
FIGURES = Registry(
    "figure",
    {  # functions that draw the runs of several experiments
        "bars": "analysis.plots.multi_experiment:write_bar_figure",
        "confusion": "analysis.plots.multi_experiment:write_confusion_figure",
        "curves": "analysis.plots.multi_experiment:write_curve_figure",
    },
)
METRIC_CHECKS = {  # refuse an unknown metric of a figure; imported late, because they import pandas
    "bars": Lazy("analysis.metrics.registry:check_metrics"),
    "curves": Lazy("analysis.plots.learning_curves:check_curves"),
}
OPTIONS_KEY = "options"  # key of the options of an experiment at all scales


@dataclass(frozen=True)
class ExperimentSpec:
    """One experiment of a study: a command, and the table or figure of the paper that it reproduces."""

    item: str
    command: str
    options: Mapping[str, Sequence[str]]  # values by flag, without dashes


@dataclass(frozen=True)
class FigureSpec:
    """A figure of several experiments."""

    kind: str  # key of `FIGURES`
    of: tuple[str, ...]  # items of the experiments
    metric: str = ""  # metric of bars, or the only metric of curves


@dataclass(frozen=True)
class StudySpec:
    """The content of a ``study.toml`` at one scale."""

    name: str
    title: str
    source: str
    entries: tuple[ExperimentSpec, ...]
    tables: Mapping[str, Sequence[str]]  # experiments of each combined table, by item
    figures: Mapping[str, FigureSpec]  # combined figures, by item


def list_studies(folder: Path | None = None) -> tuple[str, ...]:
    """Return the names of all folders of studies."""
    return tuple(
        sorted(path.name for path in (folder or STUDIES_FOLDER).iterdir() if path.is_dir() and path.name[0] not in "._")
    )


def list_runnable_studies(folder: Path | None = None) -> tuple[str, ...]:
    """Return the names of the studies with a ``study.toml``."""
    return tuple(name for name in list_studies(folder) if ((folder or STUDIES_FOLDER) / name / "study.toml").exists())


def read_study(
    name: str, scale: str, given: Mapping[str, Sequence[str]], *, commands: Sequence[str], folder: Path | None = None
) -> StudySpec:
    """Read a study.

    Parameters
    ----------
    name
        Name of the study.
    scale
        Name of a scale of the study.
    given
        Values of options of the command line by flag, which override those of the file.
    commands
        Names of the commands that an experiment may use.
    folder
        Folder of all studies, by default `STUDIES_FOLDER`.

    Raises
    ------
    UserError
        For an unknown study, scale, key or command, with the most similar name, and for other errors in the file.
    """
    content, where = _read_file(name, folder or STUDIES_FOLDER)
    scales = _table(content.get("scales", {}), f"{where}: scales")
    if OPTIONS_KEY in scales:
        raise UserError(f"{where}: no scale can be called {OPTIONS_KEY}: this key is for options at every scale")
    if scale not in scales:
        raise unknown_name_error(f"scale of {name}:", scale, scales)
    common = _words(scales[scale], f"{where}, scale {scale}")
    entries = []
    for k, entry in enumerate(_list(content, "experiments", where), start=1):
        here = f"{where}, experiment {entry.get('item', k)!r}"
        _check_keys(entry, (*EXPERIMENT_KEYS, OPTIONS_KEY, *scales), here)
        item, command = (_text(entry, key, here) for key in EXPERIMENT_KEYS)
        if command not in commands:
            raise unknown_name_error(f"command in {here}:", command, commands)
        own = {key: _words(entry.get(key, {}), f"{here}, {key}") for key in (OPTIONS_KEY, *scales)}
        entries.append(ExperimentSpec(item, command, {**common, **own[OPTIONS_KEY], **own[scale], **given}))
    if not entries:
        raise UserError(f"{where} has no [[experiments]]")
    items = [entry.item for entry in entries]
    tables = _tables(content.get("tables", {}), items, where)
    figures = _figures(content.get("figures", {}), items, where)
    _check_items([*items, *tables, *figures], where)
    title, source = (_text(content, key, where) for key in ("title", "source"))
    return StudySpec(name, title, source, tuple(entries), tables, figures)


def load_preset(name: str, *, folder: Path | None = None) -> Preset:
    """Return the preset of a study; ``paper`` is the preset of `DEFAULT_STUDY`, and "" is an empty preset.

    Raises
    ------
    UserError
        For an unknown name, with the most similar one, and for errors in the file.
    """
    if not name:
        return Preset()
    names = ("paper", *list_runnable_studies(folder))
    if name not in names:
        raise unknown_name_error("preset", name, names)
    content, where = _read_file(DEFAULT_STUDY if name == "paper" else name, folder or STUDIES_FOLDER)
    if "preset" not in content:
        raise UserError(f"{where} has no [[preset]]")
    return read_preset(content["preset"], where)


def preset_weights_lookup(*, folder: Path | None = None) -> Callable[[str, str, str], str]:
    """Return a function of study, data set and backbone that returns the starting weights of the preset.

    A study whose preset cannot be read has the default weights; the command ``study`` reports its errors.
    """
    presets = {}
    for name in list_runnable_studies(folder):
        with contextlib.suppress(UserError):
            presets[name] = load_preset(name, folder=folder)

    def weights(study: str, data: str, backbone: str) -> str:
        point = presets.get(study, Preset())({"data__name": data, "model__backbone": backbone})
        return str(point.get("model__weights", Model.weights))

    return weights


def commands_by_item(*, folder: Path | None = None) -> dict[tuple[str, str], set[str]]:
    """Return the commands of each item of each study, by ``(study, item)``.

    Studies that cannot be read are skipped; the command ``study`` reports their errors.
    """
    commands: dict[tuple[str, str], set[str]] = {}
    for name in list_runnable_studies(folder):
        try:
            content, where = _read_file(name, folder or STUDIES_FOLDER)
            experiments = _list(content, "experiments", where)
            by_item = {_text(entry, "item", where): entry.get("command", "") for entry in experiments}
            tables = _tables(content.get("tables", {}), list(by_item), where)
            figures = _figures(content.get("figures", {}), list(by_item), where)
        except UserError:
            continue
        combined = tables | {item: [*figure.of] for item, figure in figures.items()}
        commands |= {(name, item): {command} for item, command in by_item.items()}
        commands |= {(name, item): {by_item[part] for part in parts} for item, parts in combined.items()}
    return commands


def folder_name(item: str) -> str:
    """Return the folder name of an item: ``figure-2a`` for ``Figure 2a``."""
    return re.sub(r"[^a-z0-9]+", "-", item.lower()).strip("-")


def _read_file(name: str, folder: Path) -> tuple[dict[str, Any], str]:
    """Return the content of the file of a study, and the name of the file for messages."""
    if name not in list_studies(folder):  # also refuses paths such as ../x
        raise unknown_name_error("study", name, list_studies(folder))
    path = folder / name / "study.toml"
    where = f"{name}/study.toml"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{name} has no study.toml: only its published numbers are there; "
            f"studies: {', '.join(list_runnable_studies(folder))}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{where}: {error}") from None
    except OSError as error:
        raise UserError(f"{where} cannot be read ({error.strerror})") from None
    _check_keys(content, STUDY_KEYS, where)
    return content, where


def _tables(content: Any, items: Sequence[str], where: str) -> dict[str, list[str]]:
    for item, parts in _table(content, f"{where}: tables").items():
        _check_parts(parts, items, f"{where}, table '{item}'")
    return dict(content)


def _figures(content: Any, items: Sequence[str], where: str) -> dict[str, FigureSpec]:
    figures = {}
    for item, figure in _table(content, f"{where}: figures").items():
        here = f"{where}, figure '{item}'"
        _check_keys(_table(figure, here), FIGURE_KEYS, here)
        kind = _text(figure, "figure", here)
        if kind not in FIGURES:
            raise unknown_name_error(f"figure in {here}:", kind, FIGURES)
        _check_parts(figure.get("of"), items, here)
        metric = _text(figure, "metric", here) if kind == "bars" or "metric" in figure else ""
        if metric and kind not in METRIC_CHECKS:
            raise UserError(f"{here}: {kind} has no metric")
        if metric:
            METRIC_CHECKS[kind]([metric])
        figures[item] = FigureSpec(kind, tuple(figure["of"]), metric)
    return figures


def _check_parts(parts: Any, items: Sequence[str], where: str) -> None:
    """Check the experiments of a combined item."""
    if not isinstance(parts, list) or not parts:
        raise UserError(f"{where} must have a list of experiments")
    for part in parts:
        if part not in items:
            raise unknown_name_error(f"experiment in {where}:", str(part), items)


def _check_items(items: Sequence[str], where: str) -> None:
    """Raise `UserError` for two items with the same folder name."""
    folders: dict[str, str] = {}
    for item in items:
        if not folder_name(item):
            raise UserError(f"{where}: the item '{item}' needs a letter or a digit")
        if folder_name(item) in folders:
            raise UserError(
                f"{where}: the items '{folders[folder_name(item)]}' and '{item}' have the same folder name; rename one"
            )
        folders[folder_name(item)] = item


def _words(options: Any, where: str) -> dict[str, list[str]]:
    """Return the values of options as text, by flag."""
    words: dict[str, list[str]] = {}
    for flag, value in _table(options, where).items():
        if isinstance(value, bool):
            words[flag if value else f"no-{flag}"] = []
            continue
        values = value if isinstance(value, list) else [value]
        for item in values:
            if not isinstance(item, str | int | float) or isinstance(item, bool) or str(item).startswith("--"):
                raise UserError(f"{where}: {flag} = {value!r} must be a text, a number, or a list of them")
        words[flag] = [str(item) for item in values]
    return words


def _list(content: Mapping[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    entries = content.get(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{where}: write its {key} as [[{key}]]")
    return entries


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where} must be a table")
    return value


def _text(content: Mapping[str, Any], key: str, where: str) -> str:
    if key not in content:
        raise UserError(f"{where} lacks {key}")
    if not isinstance(content[key], str) or not content[key].strip():
        raise UserError(f"{where}: {key} must be a text")
    text: str = content[key]
    return text


def _check_keys(values: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in values:
        if key not in known:
            match = closest_name(key, known)
            hint = f"did you mean '{match}'?" if match else f"use {', '.join(known)}"
            raise UserError(f"{where} has the unknown key '{key}': {hint}")
