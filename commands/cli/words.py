"""The words of a command line: which of them belong to which option, and what is wrong with them, in one line.

`tyro` would say it in a box of several, and without the word that was meant.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

import tyro

from core.errors import UserError, nearest

PROGRAM = "run_ablation.py"
MANY = 1_000_000  # words that may follow an option of several values


def check_words(cls: type, name: str, arguments: Sequence[str]) -> None:
    """Refuse what no command line of an option class can be.

    Parameters
    ----------
    cls
        As `commands.cli.parser.option_class` makes it.
    name
        The command's.
    arguments
        The words after it.

    Raises
    ------
    UserError
        For an option that is unknown (with the nearest) or there twice, one without its value or with one too many, a
        word that belongs to none, and one that is no number where a number is needed.
    """
    known = flags(cls)
    see = f"see `{PROGRAM} {name} --help`"
    said: set[str] = set()
    for position, word in enumerate(arguments):
        if not word.startswith("--") or word == "--help":
            continue
        flag, equals, _ = word.replace("_", "-").partition("=")
        if flag not in known:
            match = nearest(flag, known)
            hint = f"did you mean '{match}'?" if match else see
            raise UserError(f"unknown option '{flag}' of {name}: {hint}")
        if flag in said:
            hint = "several values go after one of them" if known[flag] == MANY else "once is enough"
            raise UserError(f"{flag} is given twice: {hint}")
        said.add(flag)
        following = arguments[position + 1 : position + 2]
        if known[flag] and not equals and (not following or following[0].startswith("--")):
            raise UserError(f"{flag} needs a value; {see}")
        if equals and not known[flag]:
            raise UserError(f"{word}: {flag} takes no value")
    places = sum(option.positional for option in _options(cls))
    if strays := _strays(arguments, known)[places:]:
        raise UserError(f"'{strays[0]}' belongs to no option of {name}: values stand behind theirs; {see}")
    numbers = {option.flag: option.kind for option in _options(cls) if option.kind in (int, float)}
    for flag, values in split_words(arguments, known).items():
        for word in values if flag in numbers else ():
            _check_number(flag, word, numbers[flag])


def flags(cls: type) -> dict[str, int]:
    """Map every flag of an option class to how many words may follow it: none, one, or `MANY`."""
    found: dict[str, int] = {}
    for option in _options(cls):
        if not option.positional:
            found["--" + option.flag] = option.words
        if option.kind is bool:
            found["--no-" + option.flag] = option.words
    return found


def split_words(words: Sequence[str], known: Mapping[str, int]) -> dict[str, list[str]]:
    """Map each flag of a command line, without dashes, to the words that are its own; `known` is that of `flags`."""
    found: dict[str, list[str]] = {}
    for flag, word in _owned(words, known):
        if flag is not None:
            found.setdefault(flag, []).extend([] if word is None else [word])
    return found


def join_words(options: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the words of a command line; the reverse of `split_words`."""
    return [word for flag, values in options.items() for word in (f"--{flag}", *values)]


def _owned(words: Sequence[str], known: Mapping[str, int]) -> Iterator[tuple[str | None, str | None]]:
    """Go through a command line: each flag without dashes, with no word, then with each of its own; strays without."""
    flag, room = "", 0
    for word in words:
        if word.startswith("--"):
            said, equals, value = word.partition("=")
            flag = said.replace("_", "-")[2:]
            room = 0 if equals else known.get(f"--{flag}", MANY)
            yield flag, value if equals else None
        elif room:
            room -= 1
            yield flag, word
        else:
            yield None, word


def _strays(words: Sequence[str], known: Mapping[str, int]) -> list[str | None]:
    """Return the words that are neither an option nor the value of one."""
    return [word for flag, word in _owned(words, known) if flag is None and word not in (None, "-h")]


@dataclasses.dataclass(frozen=True)
class _Option:
    """An option: its flag without dashes, how many words may follow, of what type, and whether it has no flag."""

    flag: str
    words: int
    kind: Any
    positional: bool


def _options(cls: type) -> Iterator[_Option]:
    """Go through the options of a class."""
    for f in dataclasses.fields(cls):
        if dataclasses.is_dataclass(f.type):
            yield from _options(f.type)  # type: ignore[arg-type]
            continue
        marks = getattr(f.type, "__metadata__", ())
        configured = next((mark for mark in marks if getattr(mark, "name", None)), None)
        flag = (configured.name if configured else f.name).replace("_", "-")
        kind = get_args(f.type)[0] if marks else f.type
        if isinstance(f.default, bool):
            yield _Option(flag, 0, bool, positional=False)
        else:
            words = MANY if get_origin(kind) is tuple else 1
            yield _Option(flag, words, next(iter(get_args(kind)), kind), positional=tyro.conf.Positional in marks)


def _check_number(flag: str, word: str, kind: type) -> None:
    try:
        kind(word)
    except ValueError:
        raise UserError(f"--{flag} {word}: give {'a whole number' if kind is int else 'a number'}") from None
