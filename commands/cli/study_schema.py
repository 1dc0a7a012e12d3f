"""Where a report is kept, and what its study says.

A report is one folder, ``ablations/studies/<name>/``:

- ``study.toml``: its experiments, the scales they are run at, the report's settings, and which item each answers.
  Options are those of the command line, the nearer replacing the farther: ``[scales.quick]`` holds for every
  experiment, ``[experiments.options]`` for one at every scale, ``[experiments.quick]`` for one at that scale.
  ``[tables]`` and ``[figures]`` name items that are made of several experiments: a list of these, or
  ``{figure = "bars", metric = "f1", of = [...]}``, ``{figure = "confusion", ..}``, ``{figure = "curves", ..}``, which
  may have a metric such as ``train_loss`` too;
- ``published.csv``: its own numbers (`analysis.published.numbers`);
- ``README.md``: what the report says, what only its authors' code says, and what is our choice.

A mistake in a study is one line that names the file, the place and the nearest right word.
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
DEFAULT_STUDY = "rethinking-cnn"  # the report that this toolkit was begun with; its preset is also called paper
STUDY_KEYS = ("title", "source", "preset", "scales", "experiments", "tables", "figures")
EXPERIMENT_KEYS = ("item", "command")
FIGURE_KEYS = ("figure", "of", "metric")
FIGURES = Registry(
    "figure",
    {  # a function that draws the runs of several experiments
        "bars": "analysis.plots.multi_experiment:write_bar_figure",
        "confusion": "analysis.plots.multi_experiment:write_confusion_figure",
        "curves": "analysis.plots.multi_experiment:write_curve_figure",
    },
)
METRIC_CHECKS = {  # refuse an unknown metric of a figure; imported late, because they import pandas
    "bars": Lazy("analysis.metrics.registry:check_metrics"),
    "curves": Lazy("analysis.plots.learning_curves:check_curves"),
}
OPTIONS_KEY = "options"  # of an experiment: those that it has at every scale


@dataclass(frozen=True)
class ExperimentSpec:
    """One experiment of a study: a command, and the table or figure of the report it answers."""

    item: str
    command: str
    options: Mapping[str, Sequence[str]]  # values by flag, without dashes


@dataclass(frozen=True)
class FigureSpec:
    """A figure of a report that shows several experiments."""

    kind: str  # of FIGURES
    of: tuple[str, ...]  # experiments
    metric: str = ""  # that bars show, or the only one of the curves


@dataclass(frozen=True)
class StudySpec:
    """A study as its file and its scale give it."""

    name: str
    title: str
    source: str
    entries: tuple[ExperimentSpec, ...]
    tables: Mapping[str, Sequence[str]]  # further items of the report, by the experiments they are made of
    figures: Mapping[str, FigureSpec]  # likewise


def list_studies(folder: Path | None = None) -> tuple[str, ...]:
    """Name the reports that have a folder."""
    return tuple(
        sorted(path.name for path in (folder or STUDIES_FOLDER).iterdir() if path.is_dir() and path.name[0] not in "._")
    )


def list_runnable_studies(folder: Path | None = None) -> tuple[str, ...]:
    """Name the reports that have a study."""
    return tuple(name for name in list_studies(folder) if ((folder or STUDIES_FOLDER) / name / "study.toml").exists())


def read_study(
    name: str, scale: str, given: Mapping[str, Sequence[str]], *, commands: Sequence[str], folder: Path | None = None
) -> StudySpec:
    """Read a study.

    Parameters
    ----------
    name
        Of a folder in `folder`.
    scale
        One of the file's scales.
    given
        Options from the command line, by flag; they replace the file's.
    commands
        The names of the commands that an experiment may be.
    folder
        Where the reports are.

    Raises
    ------
    UserError
        For an unknown study, scale, key or command, with the nearest match, and whatever else a file can have wrong.
    """
    content, where = _read_file(name, folder or STUDIES_FOLDER)
    scales = _table(content.get("scales", {}), f"{where}: scales")
    if OPTIONS_KEY in scales:
        raise UserError(
            f"{where}: no scale can be called {OPTIONS_KEY}, which is what an experiment has at every scale"
        )
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
    """Return the preset of a report by its name; ``paper`` is `DEFAULT_STUDY`'s, and "" is none.

    Raises
    ------
    UserError
        For a name that is none, with the nearest, and for mistakes in the file.
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
    """Return what says which weights a report's settings start from, by report, data set and backbone.

    A report whose settings cannot be read starts from pretrained ones: its own command says what is wrong with it.
    """
    presets = {}
    for name in list_runnable_studies(folder):
        with contextlib.suppress(UserError):
            presets[name] = load_preset(name, folder=folder)

    def weights(report: str, data: str, backbone: str) -> str:
        point = presets.get(report, Preset())({"data__name": data, "model__backbone": backbone})
        return str(point.get("model__weights", Model.weights))

    return weights


def commands_by_item(*, folder: Path | None = None) -> dict[tuple[str, str], set[str]]:
    """Map each item of each report, as ``(report, item)``, to the commands whose conditions it is about.

    A study that cannot be read is passed over: its own command says what is wrong with it.
    """
    found: dict[tuple[str, str], set[str]] = {}
    for name in list_runnable_studies(folder):
        try:
            content, where = _read_file(name, folder or STUDIES_FOLDER)
            of = {
                _text(entry, "item", where): entry.get("command", "") for entry in _list(content, "experiments", where)
            }
            tables = _tables(content.get("tables", {}), list(of), where)
            tables |= {item: [*one.of] for item, one in _figures(content.get("figures", {}), list(of), where).items()}
        except UserError:
            continue
        found |= {(name, item): {command} for item, command in of.items()}
        found |= {(name, item): {of[part] for part in parts} for item, parts in tables.items()}
    return found


def folder_name(item: str) -> str:
    """Turn a table's or figure's name into a folder's: ``Figure 2a`` is ``figure-2a``."""
    return re.sub(r"[^a-z0-9]+", "-", item.lower()).strip("-")


def _read_file(name: str, folder: Path) -> tuple[dict[str, Any], str]:
    """Return what a study's file says, and the file's name for messages."""
    if name not in list_studies(folder):  # so that no name leads out of the folder
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
    found = {}
    for item, asked in _table(content, f"{where}: figures").items():
        here = f"{where}, figure '{item}'"
        _check_keys(_table(asked, here), FIGURE_KEYS, here)
        kind = _text(asked, "figure", here)
        if kind not in FIGURES:
            raise unknown_name_error(f"figure in {here}:", kind, FIGURES)
        _check_parts(asked.get("of"), items, here)
        metric = _text(asked, "metric", here) if kind == "bars" or "metric" in asked else ""
        if metric and kind not in METRIC_CHECKS:
            raise UserError(f"{here}: {kind} has no metric")
        if metric:
            METRIC_CHECKS[kind]([metric])
        found[item] = FigureSpec(kind, tuple(asked["of"]), metric)
    return found


def _check_parts(parts: Any, items: Sequence[str], where: str) -> None:
    """Check the experiments that an item is made of."""
    if not isinstance(parts, list) or not parts:
        raise UserError(f"{where} must be of a list of experiments")
    for part in parts:
        if part not in items:
            raise unknown_name_error(f"experiment in {where}:", str(part), items)


def _check_items(items: Sequence[str], where: str) -> None:
    """Refuse two items that would share a folder."""
    folders: dict[str, str] = {}
    for item in items:
        if not folder_name(item):
            raise UserError(f"{where}: the item '{item}' needs a letter or a digit")
        if folder_name(item) in folders:
            raise UserError(
                f"{where}: the items '{folders[folder_name(item)]}' and '{item}' would share a folder; rename one"
            )
        folders[folder_name(item)] = item


def _words(options: Any, where: str) -> dict[str, list[str]]:
    """Return options as the words of a command line, by flag."""
    found: dict[str, list[str]] = {}
    for flag, value in _table(options, where).items():
        if isinstance(value, bool):
            found[flag if value else f"no-{flag}"] = []
            continue
        values = value if isinstance(value, list) else [value]
        for one in values:
            if not isinstance(one, str | int | float) or isinstance(one, bool) or str(one).startswith("--"):
                raise UserError(f"{where}: {flag} = {value!r} must be a text, a number, or a list of them")
        found[flag] = [str(one) for one in values]
    return found


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
