"""The command line: find the command, and read the words of its options with an `argparse` parser."""

import argparse
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ablations.planning import PROGRAM
from ablations.planning.call import Call, Option, check_flags, command_options, list_flags, make_call
from core.errors import UserError, unknown_name_error


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
    """Return the values of each given option by flag; raise the errors of `read_command_line`.

    `words` are the arguments after the name of the command.
    """
    options = command_options(cls)
    words = [_use_dashes(word) for word in words]
    check_flags(name, words, list_flags(options))
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


def _unexpected_message(word: str, name: str, words: Sequence[str], options: Sequence[Option]) -> str:
    """Return the message for an argument that belongs to no option, with the option that was probably meant."""
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
