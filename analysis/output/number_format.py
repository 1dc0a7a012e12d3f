"""Number formats for tables, captions and axes."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from core.errors import escape_controls, printable

MINUS = "−"
OPTIONS_WITHOUT_NAME = ("condition", "data", "backbone", "weights")  # their values are clear without the option's name


def format_text(value: object) -> str:
    """Return a value as text on one line, without control characters."""
    return " ".join(printable(str(value)).split())


def format_point(values: Mapping[Any, Any]) -> str:
    """Return grid options and a condition as text: ``lr 0.001, none`` for ``{"lr": 0.001, "condition": "none"}``."""
    return ", ".join(
        format_text(value if name in OPTIONS_WITHOUT_NAME else f"{name.replace('_', ' ')} {value}")
        for name, value in values.items()
    )


def option_title(name: str) -> str:
    """Return the title of an option in tables and figures: ``batch_size`` becomes "Batch size"."""
    return {"lr": "Learning rate"}.get(name, name.replace("_", " ").capitalize())


def format_percent(value: float) -> str:
    """Return a fraction as a percentage without the percent sign: 0.612 becomes 61.2."""
    return _typeset_minus(f"{100 * value:.1f}")


def format_points(value: float) -> str:
    """Return a difference of fractions in percentage points with its sign: 0.021 becomes +2.1."""
    text = format_percent(value)
    return text if text.startswith(MINUS) or not text.strip("0.") else f"+{text}"


def format_number(value: float, *, digits: int = 3) -> str:
    """Return a number with `digits` decimals."""
    return _typeset_minus(f"{value:.{digits}f}")


def format_p_value(value: float) -> str:
    """Return a p-value with three decimals, or "<.001"."""
    return "<.001" if value < 0.0005 else format_number(value)


def format_count(value: float) -> str:
    """Return a number as text, rounded to an integer."""
    return _typeset_minus(f"{value:.0f}")


def format_integer(value: int) -> str:
    """Return an integer with commas between thousands: 3371234 becomes 3,371,234."""
    return f"{value:,}"


def format_flag(value: bool) -> str:
    """Return "yes" for True and "" for False."""
    return "yes" if value else ""


def format_average(value: float) -> str:
    """Return a mean of integers with one decimal, or none if the mean is an integer."""
    return format_count(value) if float(value).is_integer() else format_number(value, digits=1)


def format_milliseconds(value: float) -> str:
    """Return milliseconds with three significant digits and at most three decimals: 0.012, 4.56, 1234."""
    digits = 3 if value < 0.9995 else 2 if value < 9.995 else 1 if value < 99.95 else 0
    return format_number(value, digits=digits)


def format_magnitude(value: float) -> str:
    """Return a count with three significant digits: 3371234 becomes 3.37 M."""
    for exponent, unit in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        scaled = value / 10**exponent
        if scaled >= 0.9995:  # a smaller value rounds to at most 999 of the next unit
            digits = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
            return f"{scaled:.{digits}f} {unit}"
    return f"{value:.0f}"


def format_seconds(value: float) -> str:
    """Return a duration in suitable units: 0.03 s, 4.2 s, 1 min 15 s, 1 h 20 min."""
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
    """Return the value of a metric in the format that its name implies.

    Parameters
    ----------
    value
        A fraction from 0 to 1, a count, seconds, milliseconds or megabytes.
    metric
        Name of the metric, as in `analysis.published.numbers`. Unknown names get four significant digits.
    """
    name = _base_name(metric)
    if name.startswith("delta"):
        return format_points(value)
    if is_percentage(metric):
        return format_percent(value)
    if name.endswith(("seconds", "time_to_converge")):
        return format_seconds(value)
    if name.endswith("_ms"):
        return format_milliseconds(value)
    if name.endswith(("parameters", "with_statistics")):
        return f"{value:,.0f}"  # papers give all digits
    if name.endswith(("clips", "epochs", "epoch")):
        return f"{value:,.0f}" if value >= 1000 else format_average(value)
    return _typeset_minus(f"{value:.4g}")


def is_percentage(metric: str) -> bool:
    """Return whether the name of a metric implies a fraction, which is shown in percent."""
    return _base_name(metric).endswith(("accuracy", "precision", "recall", "f1", "score"))


def _base_name(metric: str) -> str:
    """Return the name of a metric without the epoch and the bound."""
    return re.sub("(_best_epoch|_validation_epoch)?(_low|_high)?$", "", metric)


def format_option(value: Any) -> str:
    """Return the value of an option as text for tables and command lines."""
    return f"{value:g}" if isinstance(value, float) else format_text(value)


def metric_title(metric: str) -> str:
    """Return the title of a metric, or of a bound of a metric: ``delta_high`` becomes "change, at most"."""
    for suffix, words in (("_low", "at least"), ("_high", "at most")):
        if metric.endswith(suffix):
            return f"{metric_title(metric.removesuffix(suffix))}, {words}"
    return {"delta": "change", "lr": "learning rate"}.get(metric, metric.replace("_", " "))


def format_ranges(numbers: Iterable[int]) -> str:
    """Return integers as ranges: 1, 2, 3, 5 becomes "1–3, 5"."""
    runs: list[list[int]] = []
    for n in sorted(set(numbers)):
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


def _typeset_minus(text: str) -> str:
    """Replace a leading hyphen with a minus sign; remove it if the number is zero."""
    if not text.startswith("-"):
        return text
    return MINUS + text[1:] if text.strip("-0.") else text[1:]


def to_csv(frame: pd.DataFrame) -> str:
    """Return a frame as CSV in full precision, protected against CSV injection (OWASP).

    Text that begins with ``=``, ``+``, ``-`` or ``@`` and is not a number gets a leading apostrophe, so that
    spreadsheets do not read it as a formula. Items of lists are joined with spaces.
    """
    return frame.map(_escape_csv).rename(columns=_escape_csv).to_csv(index=False, lineterminator="\n")


def _escape_csv(value: Any) -> Any:
    """Return a cell for `to_csv`: lists joined, control characters escaped, formulas with a leading apostrophe."""
    if isinstance(value, list | tuple):
        value = " ".join(map(str, value))
    if isinstance(value, str):
        value = escape_controls(value)  # pandas does not quote "\r", and readers take it for the end of a row
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t")) and not _is_number(value):
        return "'" + value
    return value


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def json_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as dictionaries of JSON types by column, with None for NaN."""

    def plain(value: Any) -> Any:
        if hasattr(value, "item"):
            value = value.item()
        return None if isinstance(value, float) and math.isnan(value) else value

    return [{str(key): plain(value) for key, value in row.items()} for row in frame.to_dict("records")]
