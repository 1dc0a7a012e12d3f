"""How numbers are written for people, in tables and on axes."""

import re
from collections.abc import Iterable
from typing import Any

import pandas as pd

from core.errors import printable

MINUS = "−"


def format_text(value: object) -> str:
    """Write a value as it is, on one line, without what would do something to a terminal."""
    return " ".join(printable(str(value)).split())


def format_percent(value: float, *, digits: int = 1) -> str:
    """Write a fraction as a percentage without its sign, which belongs in the column's title: 0.612 is 61.2."""
    return _typeset_minus(f"{100 * value:.{digits}f}")


def format_points(value: float, *, digits: int = 1) -> str:
    """Write a difference of fractions as percentage points, always with its sign: 0.021 is +2.1."""
    shown = format_percent(value, digits=digits)
    return shown if shown.startswith(MINUS) or not shown.strip("0.") else f"+{shown}"


def format_number(value: float, *, digits: int = 3) -> str:
    """Write a number with so many decimals."""
    return _typeset_minus(f"{value:.{digits}f}")


def format_p_value(value: float) -> str:
    """Write a p-value with three decimals, and what would be 0.000 as below .001."""
    return "<.001" if value < 0.0005 else format_number(value)


def format_count(value: float) -> str:
    """Write a whole number."""
    return _typeset_minus(f"{value:.0f}")


def format_average(value: float) -> str:
    """Write a mean of whole numbers: whole where it is, else with one decimal."""
    return format_count(value) if float(value).is_integer() else format_number(value, digits=1)


def format_milliseconds(value: float) -> str:
    """Write a duration in milliseconds with three digits, and at most three decimals: 0.012, 4.56, 1234."""
    digits = 3 if value < 0.9995 else 2 if value < 9.995 else 1 if value < 99.95 else 0
    return format_number(value, digits=digits)


def format_magnitude(value: float) -> str:
    """Write a count with three digits: 3371234 is 3.37 M."""
    for exponent, unit in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        scaled = value / 10**exponent
        if scaled >= 0.9995:  # what would be rounded to 1000 of the unit below
            digits = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
            return f"{scaled:.{digits}f} {unit}"
    return f"{value:.0f}"


def format_seconds(value: float) -> str:
    """Write a duration in the unit that fits: 0.03 s, 4.2 s, 75 s is 1 min 15 s, 4800 s is 1 h 20 min."""
    if 0.005 <= value < 0.095:
        return f"{value:.2f} s"
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(value / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def format_metric(value: float, metric: str) -> str:
    """Write a number of a metric as its name says: fractions as percentages, changes as points, counts, durations.

    Parameters
    ----------
    value
        A fraction 0 to 1, a count, seconds or megabytes.
    metric
        Its name, as in `analysis.published.numbers`; a plain number is written of one that is not known here.
    """
    name = re.sub("(_best_epoch)?(_low|_high)?$", "", metric)
    if name.startswith("delta"):
        return format_points(value)
    if name.endswith(("accuracy", "precision", "recall", "f1", "score")):
        return format_percent(value)
    if name.endswith(("seconds", "time_to_converge")):
        return format_seconds(value)
    if name.endswith("_ms"):
        return format_milliseconds(value)
    if name.endswith(("parameters", "with_statistics")):
        return f"{value:,.0f}"  # to the unit, which is what a total is known by
    if name.endswith(("clips", "epochs", "epoch")):
        return f"{value:,.0f}" if value >= 1000 else format_average(value)
    return _typeset_minus(f"{value:.4g}")


def metric_title(metric: str) -> str:
    """Name a metric, or one bound of it, in words: ``delta_high`` is a change, at most."""
    for suffix, words in (("_low", "at least"), ("_high", "at most")):
        if metric.endswith(suffix):
            return f"{metric_title(metric.removesuffix(suffix))}, {words}"
    return {"delta": "change", "lr": "learning rate"}.get(metric, metric.replace("_", " "))


def format_ranges(numbers: Iterable[int]) -> str:
    """Write whole numbers as ranges: 1, 2, 3, 5 is 1–3, 5."""
    runs: list[list[int]] = []
    for n in sorted(set(numbers)):
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


def _typeset_minus(shown: str) -> str:
    """Set a typographic minus, and none before a zero."""
    if not shown.startswith("-"):
        return shown
    return MINUS + shown[1:] if shown.strip("-0.") else shown[1:]


def to_csv(frame: pd.DataFrame) -> str:
    """Write a frame as CSV in full precision; no text in it is a formula to a spreadsheet.

    A text that begins with ``=``, ``+``, ``-`` or ``@`` and is no number gets an apostrophe before it, which
    spreadsheets do not show (OWASP, CSV injection). Lists are written with spaces between their items.
    """
    return frame.map(_escape_csv).rename(columns=_escape_csv).to_csv(index=False, lineterminator="\n")


def _escape_csv(value: Any) -> Any:
    if isinstance(value, list | tuple):
        value = " ".join(map(str, value))
    if isinstance(value, str):
        value = value.replace("\r", r"\x0d")  # which is not quoted, and would begin a row
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t")) and not _is_number(value):
        return "'" + value
    return value


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
