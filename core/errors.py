"""Errors that are the user's to mend, said in one line: what, where, what to do."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input; the command line prints the message as one line and exits with status 2."""


def nearest(value: str, choices: Iterable[str]) -> str | None:
    """Return the choice most like `value`, or None where nothing is alike."""
    matches = difflib.get_close_matches(value.lower(), list(choices), n=1, cutoff=0.5)
    return matches[0] if matches else None


def unknown(kind: str, value: str, choices: Iterable[str]) -> UserError:
    """Make the error for a name that is not one of `choices`, with the nearest match first."""
    choices = list(choices)
    match = nearest(value, choices)
    hint = f"did you mean '{match}'? " if match else ""
    return UserError(f"unknown {kind} '{value}': {hint}choose from {', '.join(choices)}")
