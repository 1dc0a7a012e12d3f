"""Errors that are the user's to mend, said in one line: what, where, what to do."""

import difflib
import re
import traceback
from collections.abc import Iterable

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
MAX_LISTED_CHOICES = 12  # choices that an error lists although one of them is near


class UserError(Exception):
    """Bad input; the command line prints the message as one line and exits with status 2."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class ResultsError(UserError):
    """The results folder cannot be read or written, which affects every run: the whole command ends."""


def printable(text: str) -> str:
    r"""Return a text on one line that does nothing to a terminal.

    Line breaks become spaces. What moves the cursor, changes colours or turns the writing direction round is written as
    its number, as is a byte of a file name that is no UTF-8: ``\x1b``, ``\u202e``, ``\xff``.
    """
    return _UNSAFE.sub(lambda found: _escape(found.group()), " ".join(text.splitlines()))


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte that is no UTF-8 (PEP 383)
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def closest_name(value: str, choices: Iterable[str]) -> str | None:
    """Return the choice most like `value`, or None where nothing is alike."""
    return next(iter(_close_matches(value, choices)), None)


def unknown_name_error(kind: str, value: str, choices: Iterable[str]) -> UserError:
    """Make the error for a name that is not one of `choices`: the nearest first, and all of them where they are few."""
    choices = list(choices)
    alike = _close_matches(value, choices)
    many = len(choices) > MAX_LISTED_CHOICES and alike
    hint = f"did you mean {' or '.join(map(repr, alike if many else alike[:1]))}?" if alike else ""
    listed = "" if many else f"choose from {', '.join(choices)}"
    return UserError(f"unknown {kind} '{value}': {' '.join(filter(None, (hint, listed)))}")


def _close_matches(value: str, choices: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(value.lower(), list(choices), n=3, cutoff=0.5)


def describe_failure(error: BaseException) -> dict[str, str]:
    """Return what is kept of an error that a run failed for: its ``reason`` in one line, and the ``trace``."""
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return {"reason": reason, "trace": "".join(traceback.format_exception(error))}
