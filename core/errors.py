"""Errors that are the user's to mend, said in one line: what, where, what to do."""

import difflib
from collections.abc import Iterable

FEW = 12  # choices that an error lists although one of them is near


class UserError(Exception):
    """Bad input; the command line prints the message as one line and exits with status 2."""


def nearest(value: str, choices: Iterable[str]) -> str | None:
    """Return the choice most like `value`, or None where nothing is alike."""
    return next(iter(_alike(value, choices)), None)


def unknown(kind: str, value: str, choices: Iterable[str]) -> UserError:
    """Make the error for a name that is not one of `choices`: the nearest first, and all of them where they are few."""
    choices = list(choices)
    alike = _alike(value, choices)
    many = len(choices) > FEW and alike
    hint = f"did you mean {' or '.join(map(repr, alike if many else alike[:1]))}?" if alike else ""
    listed = "" if many else f"choose from {', '.join(choices)}"
    return UserError(f"unknown {kind} '{value}': {' '.join(filter(None, (hint, listed)))}")


def _alike(value: str, choices: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(value.lower(), list(choices), n=3, cutoff=0.5)
