"""A report's experiments, all in one command, from a file in ablations/studies."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro

import ablations
from ablations import ABLATIONS
from core.errors import UserError, nearest, unknown
from core.fields import option

RUNS = "commands.run_study:run_study"
FOLDER = Path(ablations.__file__).parent / "studies"
KEYS = ("title", "source", "scales", "experiments", "tables")
EXPERIMENT_KEYS = ("item", "command")


@dataclass(frozen=True)
class Study:
    """Run every experiment of a report and set its tables and figures beside the published numbers.

    The plan and an estimate of its time are shown first. Options after the study's name hold for every experiment
    and replace the file's, so other data sets, backbones, folds and seeds are a word away.

    Example: run_ablation.py study rethinking-cnn --scale quick
    """

    name: Annotated[str, tyro.conf.Positional] = option("rethinking-cnn", "The study: a file of ablations/studies.")
    scale: str = option("full", "full: as in the report; quick: under 15 minutes on two CPU cores, embedded data.")

    runs: ClassVar[str] = RUNS
    plans: ClassVar[bool] = True  # has the options of a run
    trains: ClassVar[bool] = True


@dataclass(frozen=True)
class Figures:
    """Redraw every table and figure of a study from the store alone; runs that are missing show as missing.

    Example: run_ablation.py figures --for rethinking-cnn --scale quick
    """

    name: str = option("rethinking-cnn", "The study: a file of ablations/studies.", flag="for")
    scale: str = option("full", "The scale the study was run with.")

    runs: ClassVar[str] = RUNS
    plans: ClassVar[bool] = True
    trains: ClassVar[bool] = False


@dataclass(frozen=True)
class Experiment:
    """One command of a study, and the table or figure of the report it answers."""

    item: str
    command: str
    options: Mapping[str, Sequence[str]]  # values by flag, without dashes


@dataclass(frozen=True)
class Recipe:
    """A study as its file and its scale give it."""

    name: str
    title: str
    source: str
    experiments: tuple[Experiment, ...]
    tables: Mapping[str, Sequence[str]]  # further tables of the report, by the items they are made of


def studies() -> tuple[str, ...]:
    """Name the studies."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def read_study(name: str, scale: str, given: Mapping[str, Sequence[str]], *, folder: Path = FOLDER) -> Recipe:
    """Read a study.

    Parameters
    ----------
    name
        Of a file in `folder`.
    scale
        One of the file's scales.
    given
        Options from the command line, by flag; they replace the file's.
    folder
        Where the files are.

    Raises
    ------
    UserError
        For an unknown study, scale, key or command, with the nearest match.
    """
    path = folder / f"{name}.toml"
    if not path.exists():
        raise unknown("study", name, sorted(p.stem for p in folder.glob("*.toml")))
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: {error}") from None
    _check_keys(content, KEYS, str(path))
    scales = content.get("scales", {})
    if scale not in scales:
        raise unknown("scale", scale, scales)
    experiments = []
    for entry in content.get("experiments", []):
        where = f"{path}, experiment '{entry.get('item', '?')}'"
        _check_keys(entry, (*EXPERIMENT_KEYS, *scales), where)
        if missing := [key for key in EXPERIMENT_KEYS if key not in entry]:
            raise UserError(f"{where} lacks {' and '.join(missing)}")
        if entry["command"] not in ABLATIONS:
            raise unknown(f"command in {where}:", entry["command"], ABLATIONS)
        values = {**_words(scales[scale]), **_words(entry.get(scale, {})), **given}
        experiments.append(Experiment(entry["item"], entry["command"], values))
    return Recipe(name, content["title"], content["source"], tuple(experiments), content.get("tables", {}))


def split_words(words: Sequence[str]) -> dict[str, list[str]]:
    """Map each ``--flag`` of a command line to the words after it."""
    found: dict[str, list[str]] = {}
    flag = ""
    for word in words:
        if word.startswith("--"):
            flag, equals, value = word[2:].partition("=")
            found[flag] = [value] if equals else []
        elif flag:
            found[flag].append(word)
    return found


def join_words(options: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the words of a command line; the reverse of `split_words`."""
    return [word for flag, values in options.items() for word in (f"--{flag}", *values)]


def _words(options: Mapping[str, Any]) -> dict[str, list[str]]:
    return {key: [str(v) for v in (value if isinstance(value, list) else [value])] for key, value in options.items()}


def _check_keys(values: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in values:
        if key not in known:
            match = nearest(key, known)
            hint = f"did you mean '{match}'?" if match else f"use {', '.join(known)}"
            raise UserError(f"{where} has the unknown key '{key}': {hint}")
