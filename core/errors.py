"""Errors that a user can fix, with a message of one line: the option or file, its value, and the remedy."""

import difflib
import re
import traceback
from collections.abc import Iterable

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
MAX_LISTED_CHOICES = 12  # longer lists of choices are not printed if a similar name is found


class UserError(Exception):
    """Bad input. The command line prints the message on one line and exits with status 2."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class ResultsError(UserError):
    """The results folder cannot be read or written. This affects every run, so the whole command ends."""


class MachineError(ResultsError):
    """Memory, threads or open files have run out, or a disk fails. The command ends, and no run is marked as failed."""


def printable(text: str) -> str:
    r"""Return a text on one line, without control characters.

    Line breaks become spaces. Characters that move the cursor, change colours or reverse the writing direction are
    escaped (``\x1b``, ``\u202e``), and so are bytes of file names that are not valid UTF-8 (``\xff``).
    """
    return escape_controls(" ".join(text.splitlines()))


def escape_controls(text: str) -> str:
    """Return a text with the control characters escaped as in `printable`, except tabs and line feeds."""
    return _UNSAFE.sub(lambda match: _escape(match.group()), text)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not valid UTF-8, as Python stores it (PEP 383)
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def closest_name(value: str, choices: Iterable[str]) -> str | None:
    """Return the choice most similar to `value`, or None if no choice is similar."""
    return next(iter(_close_matches(value, choices)), None)


def unknown_name_error(kind: str, value: str, choices: Iterable[str]) -> UserError:
    """Return the error for a name that is not one of `choices`, with similar names or a list of the choices."""
    choices = list(choices)
    matches = _close_matches(value, choices)
    is_long = len(choices) > MAX_LISTED_CHOICES and matches
    hint = f"did you mean {' or '.join(map(repr, matches if is_long else matches[:1]))}?" if matches else ""
    listing = "" if is_long else f"choose from {', '.join(choices)}"
    return UserError(f"unknown {kind} '{value}': {' '.join(filter(None, (hint, listing)))}")


def _close_matches(value: str, choices: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(value.lower(), list(choices), n=3, cutoff=0.5)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if there is no message."""
    lines = error_message(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def error_message(error: BaseException) -> str:
    """Return the message of an error, "" if computing it fails, as it may for errors of a user's network."""
    try:
        return str(error)
    except Exception:
        return ""


def describe_failure(error: BaseException) -> dict[str, str]:
    """Return the entries that the store keeps for a failed run: ``reason`` (one line) and ``trace`` (traceback)."""
    reason = ": ".join(filter(None, (type(error).__name__, error_message(error).strip()))).splitlines()[0]
    return {"reason": reason, "trace": "".join(traceback.format_exception(error))}
