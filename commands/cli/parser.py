"""The command line: build an `argparse` parser from the configuration classes, and convert arguments to values.

Options are the fields of the dataclasses of `core.config` and of the class of each command. To add an option, add a
field there, with its help text, type and range.
"""

import argparse
import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from commands.cli import PROGRAM
from commands.cli.study_schema import DEFAULT_STUDY, list_runnable_studies
from core import datasets
from core.config.execution import ExecutionOptions, RayOptions
from core.config.options import flag_of, list_problems, option, stored_value
from core.config.run import field_of, run_options
from core.errors import UserError, closest_name, unknown_name_error

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
        Whether values stay text, because their type depends on the data set or the search space.
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
        """The command line, to be typed again."""
        return shlex.join(["python", PROGRAM, *self.arguments])


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
    for key, part in (("execution", ExecutionOptions), ("ray", RayOptions)):
        visible = [f for f in dataclasses.fields(part) if f.metadata]
        options += [Option(f"{key}__{f.name}", f, GROUP_TITLES[key], many=get_origin(f.type) is tuple) for f in visible]
    return options


def read_command_line(commands: Mapping[str, type], arguments: Sequence[str]) -> Call:
    """Read the arguments after the name of the program.

    Parameters
    ----------
    commands
        Class of each command by name; its fields are the options, and its docstring is the help.
    arguments
        The arguments.

    Raises
    ------
    UserError
        For an unknown command or option (with the most similar name), and for a missing, additional or invalid value.
    """
    name, *words = arguments
    if name not in commands:
        raise unknown_name_error("command", name, commands)
    call = make_call(name, commands[name], parse_words(name, commands[name], words))
    return dataclasses.replace(call, arguments=arguments)


def parse_words(name: str, cls: type, words: Sequence[str]) -> dict[str, list[str]]:
    """Return the arguments after the name of a command by flag; raise the errors of `read_command_line`."""
    options = command_options(cls)
    words = [_use_dashes(word) for word in words]
    _check_flags(name, words, list_flags(options))
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser._negative_number_matcher = re.compile("-[^-]")  # -1e-3 and -1:1 are values, as no option has a single dash
    for opt in options:
        if opt.type is bool:
            parser.add_argument(f"--{opt.flag}", dest=opt.flag, action=argparse.BooleanOptionalAction)
        elif not opt.positional:
            parser.add_argument(f"--{opt.flag}", dest=opt.flag, nargs="+" if opt.many else None)
    try:
        namespace, unexpected = parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        flag = str(error.argument_name).partition("/")[0]
        if "explicit" in error.message:
            raise UserError(f"{flag} takes no value") from None
        raise UserError(f"{flag} needs a value; see `{PROGRAM} {name} --help`") from None
    words_by_flag: dict[str, list[str]] = {}
    for opt in options:
        if opt.positional:
            words_by_flag[opt.flag], unexpected = (unexpected, []) if opt.many else (unexpected[:1], unexpected[1:])
        elif (value := getattr(namespace, opt.flag)) is not None:
            flag = opt.flag if value is not False else f"no-{opt.flag}"
            words_by_flag[flag] = [] if isinstance(value, bool) else _as_list(value)
    positionals = [word for opt in options if opt.positional for word in words_by_flag[opt.flag]]
    if bad := unexpected or [word for word in positionals if word[:1] == "-"]:
        raise UserError(_unexpected_message(bad[0], name, words, options))
    return {flag: values for flag, values in words_by_flag.items() if values or flag in list_flags(options)}


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
    _check_flags(name, [f"--{flag}" for flag in words], list_flags(options) | {o.flag for o in options if o.positional})
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
    if opt.type is Path:
        return datasets.expand_path(Path(word), f"--{opt.flag}")
    if opt.type is str:
        return stored_value(opt.field, word)
    try:
        return opt.type(word)
    except ValueError:
        raise UserError(f"--{opt.flag} {word}: give {'a whole number' if opt.type is int else 'a number'}") from None


def _check_flags(name: str, words: Sequence[str], known: set[str]) -> None:
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


def _unexpected_message(word: str, name: str, words: Sequence[str], options: Sequence[Option]) -> str:
    """Return the message for an argument that is no value of an option, with the option that was probably meant."""
    before = words[: list(words).index(word)]
    last = next((other for other in reversed(before) if other.startswith("--")), "")
    flag, equals, value = last.partition("=")
    by_flag = {opt.flag: opt for opt in options}
    opt = by_flag.get(flag[2:])
    first = next((o for o in options if not o.group and not o.positional and o.type is not bool), None)
    if opt and opt.type is not bool and not opt.many:
        hint = f"{flag} takes one value"
    elif opt and equals and opt.many:
        hint = f"did you mean {flag} {value} {word}?"
    elif first and not word.startswith("-"):
        hint = f"did you mean --{first.flag} {word}?"
    else:
        hint = f"see `{PROGRAM} {name} --help`"
    return f"unexpected argument '{word}'; {hint}"


def _use_dashes(word: str) -> str:
    """Replace underscores by dashes in the name of an option."""
    return re.sub(r"^--[^=]*", lambda flag: flag.group().replace("_", "-"), word)


def _as_list(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def _preset_field() -> "dataclasses.Field[Any]":
    names = ("paper", *list_runnable_studies())
    preset: dataclasses.Field[Any] = option(
        "",
        f"Use the settings of a paper for all other options: {', '.join(names)}. paper is {DEFAULT_STUDY}.",
    )
    preset.name, preset.type = "preset", str
    return preset
