"""The options of a command, and a call of the command: its options with their values.

Options are the fields of the dataclasses of `core.config` and of the class of each command. To add an option, add a
field there, with its help text, type and range.
"""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from ablations.planning import PROGRAM, PROGRAM_WORDS
from ablations.planning.presets import QUICK_TEXT
from ablations.planning.study_schema import DEFAULT_STUDY, list_runnable_studies
from core import datasets
from core.config.execution import ExecutionOptions, RayOptions
from core.config.options import flag_of, list_problems, option, stored_value
from core.config.run import field_of, run_options
from core.errors import UserError, closest_name

GROUP_TITLES = {  # headings of the groups of options in --help-all
    "data": "Data",
    "clip": "Recordings",
    "frontend": "Network input",
    "model": "Model",
    "training": "Training",
    "execution": "Execution",
    "ray": "Ray",
}


@dataclass(frozen=True)
class Option:
    """One option of a command.

    Attributes
    ----------
    key
        Name of the field in the class of the command, or ``group__field`` for an option of a run or of execution.
    field
        The dataclass field, with default, help text and range in its metadata.
    group
        Heading in ``--help-all``; "" for options of the command itself.
    many
        Whether the option takes several values.
    text
        Whether values are kept as text, because their type depends on the data set or the search space.
    """

    key: str
    field: "dataclasses.Field[Any]"
    group: str = ""
    many: bool = False
    text: bool = False

    @property
    def flag(self) -> str:
        """Name on the command line, without dashes."""
        return flag_of(self.field)[2:]

    @property
    def type(self) -> type:
        """Type of one value: int, float, str, bool or Path."""
        inner = [kind for kind in get_args(self.field.type) if kind not in (type(None), ...)]
        value_type: type = inner[0] if inner else self.field.type  # type: ignore[assignment]
        return value_type

    @property
    def positional(self) -> bool:
        """Whether the values are given without a flag."""
        return bool(self.field.metadata["positional"])


@dataclass(frozen=True)
class Call:
    """One command line.

    Attributes
    ----------
    name
        Name of the command.
    command
        Instance of the class of the command.
    words
        Arguments of every given option by flag without dashes; empty for a switch.
    values
        Values of the given options of runs and of execution, by `Option.key`.
    arguments
        The arguments after the name of the program.
    """

    name: str
    command: Any
    words: Mapping[str, Sequence[str]]
    values: Mapping[str, Any]
    arguments: Sequence[str]

    @property
    def line(self) -> str:
        """The command line as text that can be typed again."""
        return shlex.join([*PROGRAM_WORDS, *self.arguments])


def command_options(cls: type) -> list[Option]:
    """Return the options of the class of a command.

    With the class variable ``plans = True`` a command also has the options of a run and of execution. With
    ``searches = True`` values may be ranges such as ``1e-5:1e-2``, so they stay text.
    """
    options = [Option(f.name, f, many=get_origin(f.type) is tuple) for f in dataclasses.fields(cls)]
    if not getattr(cls, "plans", False):
        return options
    ranges = getattr(cls, "searches", False)
    for key, f in run_options().items():
        scalar = not isinstance(f.default, bool | tuple)
        many = scalar or isinstance(f.default, tuple)
        text = scalar and (ranges or f.name == "fold")
        options.append(Option(key, f, GROUP_TITLES[key.partition("__")[0]], many=many, text=text))
    options.append(Option("seed", field_of("seed"), "Training", many=True))
    options.append(Option("preset", _preset_field(), "Training"))
    options.append(Option("quick", _quick_field(), "Training"))
    for key, part in (("execution", ExecutionOptions), ("ray", RayOptions)):
        visible = [f for f in dataclasses.fields(part) if f.metadata]
        options += [Option(f"{key}__{f.name}", f, GROUP_TITLES[key], many=get_origin(f.type) is tuple) for f in visible]
    return options


def make_call(name: str, cls: type, words: Mapping[str, Sequence[str]]) -> Call:
    """Convert the arguments of each option, check the values, and build the command.

    Parameters
    ----------
    name, cls
        Name and class of the command.
    words
        Arguments by flag without dashes, as `parse_words` returns them.

    Raises
    ------
    UserError
        For an option that the command does not have, and for a value of a wrong type or out of range.
    """
    options = command_options(cls)
    check_flags(name, [f"--{flag}" for flag in words], list_flags(options) | {o.flag for o in options if o.positional})
    values: dict[str, Any] = {}
    for opt in options:
        if f"no-{opt.flag}" in words and opt.type is bool:
            values[opt.key] = False
        elif opt.flag in words and (words[opt.flag] or opt.type is bool):
            values[opt.key] = True if opt.type is bool else _convert(opt, words[opt.flag])
    names = {f.name for f in dataclasses.fields(cls)}
    command = cls(**{key: value for key, value in values.items() if key in names})
    if problems := list_problems(command):
        raise UserError("; ".join(problems))
    arguments = [word for flag, texts in words.items() for word in (f"--{flag}", *texts)]
    return Call(name, command, words, {k: v for k, v in values.items() if k not in names}, [name, *arguments])


def list_flags(options: Sequence[Option]) -> set[str]:
    """Return all flags of options without dashes, with the no- form of switches."""
    named = [opt for opt in options if not opt.positional]
    return {opt.flag for opt in named} | {f"no-{opt.flag}" for opt in named if opt.type is bool}


def _convert(opt: Option, words: Sequence[str]) -> Any:
    """Convert the arguments of an option to its type."""
    values = tuple(words) if opt.text else tuple(_convert_word(opt, word) for word in words)
    return values if opt.many else values[0]


def _convert_word(opt: Option, word: str) -> Any:
    """Convert one argument to the type of its option."""
    if opt.type is Path:
        return datasets.expand_path(Path(word), f"--{opt.flag}")
    if opt.type is str:
        return stored_value(opt.field, word)
    try:
        return opt.type(word)
    except ValueError:
        raise UserError(f"--{opt.flag} {word}: give {'a whole number' if opt.type is int else 'a number'}") from None


def check_flags(name: str, words: Sequence[str], known: set[str]) -> None:
    """Raise `UserError` for unknown options and for options that are given twice."""
    seen: set[str] = set()
    for word in words:
        flag = word.partition("=")[0]
        if not flag.startswith("--"):
            continue
        if flag[2:] not in known:
            match = closest_name(flag, [f"--{choice}" for choice in sorted(known)])
            hint = f"did you mean '{match}'?" if match else f"see `{PROGRAM} {name} --help-all`"
            raise UserError(f"unknown option '{flag}' of {name}: {hint}")
        if flag in seen:
            raise UserError(f"{flag} is given twice: write it once, followed by all its values")
        seen.add(flag)


def _quick_field() -> "dataclasses.Field[Any]":
    quick: dataclasses.Field[Any] = option(
        False,
        f"Try the command in seconds: {QUICK_TEXT}, unless these options are given. All outputs are marked as quick.",
    )
    quick.name, quick.type = "quick", bool
    return quick


def _preset_field() -> "dataclasses.Field[Any]":
    """Return the field of ``--preset``, whose help lists the studies."""
    names = ("paper", *list_runnable_studies())
    preset: dataclasses.Field[Any] = option(
        "",
        f"Use the settings of a paper for all other options: {', '.join(names)}. paper is {DEFAULT_STUDY}.",
    )
    preset.name, preset.type = "preset", str
    return preset
