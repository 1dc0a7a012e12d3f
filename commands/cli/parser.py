"""The command line: from the fields of the configuration to an `argparse` parser, and from words to values.

Options are made from the dataclasses of `core.config.run`, `core.config.execution` and each command's own class. A new
field there is a new option, with its help text, type and range, and needs no other code.
"""

import argparse
import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from commands.cli.study_schema import DEFAULT_STUDY, list_runnable_studies
from core import datasets
from core.config.execution import ExecutionOptions, RayOptions
from core.config.options import flag_of, list_problems, option, stored_value
from core.config.run import field_of, run_options
from core.errors import UserError, closest_name, unknown_name_error

PROGRAM = "run_ablation.py"
GROUP_TITLES = {  # of the groups of options
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
        Name of the command's own field, or ``group__field`` for an option of a run or of the execution.
    field
        The dataclass field, with default, help text and range in its metadata.
    group
        Heading in ``--help-all``; empty for the command's own options.
    many
        Whether it takes several values.
    text
        Whether its values stay text until the data set or the search space is known.
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
        found: type = inner[0] if inner else self.field.type  # type: ignore[assignment]
        return found

    @property
    def positional(self) -> bool:
        """Whether its values are given without a flag."""
        return bool(self.field.metadata["positional"])


@dataclass(frozen=True)
class Call:
    """One command line.

    Attributes
    ----------
    name
        Name of the command.
    command
        An instance of the command's class, made from its own options.
    words
        Words of every option that was given, by flag without dashes; a switch has none.
    values
        Values of the options of runs and of the execution that were given, by `Option.key`.
    arguments
        The words after the program's name.
    """

    name: str
    command: Any
    words: Mapping[str, Sequence[str]]
    values: Mapping[str, Any]
    arguments: Sequence[str]

    @property
    def line(self) -> str:
        """The command line as it can be typed again."""
        return shlex.join(["python", PROGRAM, *self.arguments])


def command_options(cls: type) -> list[Option]:
    """Return the options of a command's class.

    A class with a true class variable ``plans`` also has the options of a run and of its execution. With ``searches``,
    their numbers may be ranges such as ``1e-5:1e-2`` and stay text.
    """
    own = [Option(f.name, f, many=get_origin(f.type) is tuple) for f in dataclasses.fields(cls)]
    if not getattr(cls, "plans", False):
        return own
    ranges = getattr(cls, "searches", False)
    for key, f in run_options().items():
        scalar = not isinstance(f.default, bool | tuple)
        many = scalar or isinstance(f.default, tuple)
        text = scalar and (ranges or f.name == "fold")
        own.append(Option(key, f, GROUP_TITLES[key.partition("__")[0]], many=many, text=text))
    own.append(Option("seed", field_of("seed"), "Training", many=True))
    own.append(Option("preset", _preset_field(), "Training"))
    for key, part in (("execution", ExecutionOptions), ("ray", RayOptions)):
        visible = [f for f in dataclasses.fields(part) if f.metadata]
        own += [Option(f"{key}__{f.name}", f, GROUP_TITLES[key], many=get_origin(f.type) is tuple) for f in visible]
    return own


def read_command_line(commands: Mapping[str, type], arguments: Sequence[str]) -> Call:
    """Read the words after the program's name.

    Parameters
    ----------
    commands
        Class of each command; its fields are the options, its docstring is the help.
    arguments
        The words.

    Raises
    ------
    UserError
        For an unknown command or option, a missing, surplus or wrong value, in one line with the nearest right word.
    """
    name, *words = arguments
    if name not in commands:
        raise unknown_name_error("command", name, commands)
    made = make_call(name, commands[name], parse_words(name, commands[name], words))
    return dataclasses.replace(made, arguments=arguments)


def parse_words(name: str, cls: type, words: Sequence[str]) -> dict[str, list[str]]:
    """Sort the words after a command's name by option; errors are those of `read_command_line`."""
    options = command_options(cls)
    words = [_use_dashes(word) for word in words]
    _check_flags(name, words, list_flags(options))
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser._negative_number_matcher = re.compile("-[^-]")  # -1e-3 and -1:1 are values: no option has a single dash
    for one in options:
        if one.type is bool:
            parser.add_argument(f"--{one.flag}", dest=one.flag, action=argparse.BooleanOptionalAction)
        elif not one.positional:
            parser.add_argument(f"--{one.flag}", dest=one.flag, nargs="+" if one.many else None)
    try:
        found, strays = parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        flag = str(error.argument_name).partition("/")[0]
        if "explicit" in error.message:
            raise UserError(f"{flag} takes no value") from None
        raise UserError(f"{flag} needs a value; see `{PROGRAM} {name} --help`") from None
    given: dict[str, list[str]] = {}
    for one in options:
        if one.positional:
            given[one.flag], strays = (strays, []) if one.many else (strays[:1], strays[1:])
        elif (value := getattr(found, one.flag)) is not None:
            switch = isinstance(value, bool)
            given[one.flag if value is not False else f"no-{one.flag}"] = [] if switch else _as_list(value)
    if bad := strays or [word for one in options if one.positional for word in given[one.flag] if word[:1] == "-"]:
        raise UserError(_unexpected_message(bad[0], name, words, options))
    return {flag: values for flag, values in given.items() if values or flag in list_flags(options)}


def make_call(name: str, cls: type, words: Mapping[str, Sequence[str]]) -> Call:
    """Convert the words of each option, check their ranges, and make the command.

    Parameters
    ----------
    name, cls
        The command and its class.
    words
        Words by flag without dashes, as `parse_words` returns them.

    Raises
    ------
    UserError
        For an option the command does not have, and for a value of a wrong type or out of range.
    """
    options = command_options(cls)
    _check_flags(name, [f"--{flag}" for flag in words], list_flags(options) | {o.flag for o in options if o.positional})
    found: dict[str, Any] = {}
    for one in options:
        if f"no-{one.flag}" in words and one.type is bool:
            found[one.key] = False
        elif one.flag in words and (words[one.flag] or one.type is bool):
            found[one.key] = True if one.type is bool else _convert(one, words[one.flag])
    own = {f.name for f in dataclasses.fields(cls)}
    command = cls(**{key: value for key, value in found.items() if key in own})
    if wrong := list_problems(command):
        raise UserError("; ".join(wrong))
    typed = [word for flag, values in words.items() for word in (f"--{flag}", *values)]
    return Call(name, command, words, {k: v for k, v in found.items() if k not in own}, [name, *typed])


def list_flags(options: Sequence[Option]) -> set[str]:
    """Return every flag that can be typed, without dashes."""
    named = [one for one in options if not one.positional]
    return {one.flag for one in named} | {f"no-{one.flag}" for one in named if one.type is bool}


def _convert(one: Option, words: Sequence[str]) -> Any:
    """Convert the words of an option to its type."""
    values = tuple(words) if one.text else tuple(_convert_word(one, word) for word in words)
    return values if one.many else values[0]


def _convert_word(one: Option, word: str) -> Any:
    if one.type is Path:
        return datasets.expand_path(Path(word), f"--{one.flag}")
    if one.type is str:
        return stored_value(one.field, word)
    try:
        return one.type(word)
    except ValueError:
        raise UserError(f"--{one.flag} {word}: give {'a whole number' if one.type is int else 'a number'}") from None


def _check_flags(name: str, words: Sequence[str], known: set[str]) -> None:
    """Refuse options that are unknown, and options given twice."""
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
            raise UserError(f"{flag} is given twice: write it once, with all its values behind it")
        seen.add(flag)


def _unexpected_message(stray: str, name: str, words: Sequence[str], options: Sequence[Option]) -> str:
    """Return the message for a word that is not the value of an option, with the option that was probably meant."""
    before = words[: list(words).index(stray)]
    last = next((word for word in reversed(before) if word.startswith("--")), "")
    flag, equals, value = last.partition("=")
    by_flag = {one.flag: one for one in options}
    one = by_flag.get(flag[2:])
    own = next((o for o in options if not o.group and not o.positional and o.type is not bool), None)
    if one and one.type is not bool and not one.many:
        hint = f"{flag} takes one value"
    elif one and equals and one.many:
        hint = f"did you mean {flag} {value} {stray}?"
    elif own and not stray.startswith("-"):
        hint = f"did you mean --{own.flag} {stray}?"
    else:
        hint = f"see `{PROGRAM} {name} --help`"
    return f"unexpected argument '{stray}'; {hint}"


def _use_dashes(word: str) -> str:
    """Write an option with dashes where it was typed with underscores."""
    return re.sub(r"^--[^=]*", lambda flag: flag.group().replace("_", "-"), word)


def _as_list(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def _preset_field() -> "dataclasses.Field[Any]":
    names = ("paper", *list_runnable_studies())
    made: dataclasses.Field[Any] = option(
        "",
        f"Use a paper's settings for every option you do not give: {', '.join(names)}. paper is {DEFAULT_STUDY}.",
    )
    made.name, made.type = "preset", str
    return made
