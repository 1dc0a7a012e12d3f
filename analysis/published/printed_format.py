"""Format our numbers as a report prints its numbers: in the same unit and with the same number of decimals."""

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis.output.number_format import MINUS, format_metric
from analysis.output.tables import PLUS_MINUS
from analysis.published.numbers import is_fraction, metric_base

NUMBER = r"\d*\.?\d+"
MILLIONS = 1e-6
UNITS = (  # text in the report, factor, our text
    (r"%", 100.0, "%"),
    (r"\d\s?M\b", MILLIONS, "M"),
    (r"million", MILLIONS, " million"),
)


@dataclass(frozen=True)
class PrintedFormat:
    """Unit and precision of a printed number.

    Attributes
    ----------
    scale
        Factor from our value to the unit of the report.
    decimals
        Number of decimals.
    suffix
        Unit after the number.
    leading_zero
        Whether a fraction starts with 0, as in 0.54 and not .54.
    thousands
        Whether thousands are separated by commas.
    signed
        Whether positive numbers have a sign.
    """

    scale: float = 1.0
    decimals: int = 0
    suffix: str = ""
    leading_zero: bool = True
    thousands: bool = False
    signed: bool = False

    def format(self, value: float, std: float = math.nan) -> str:
        """Return a number, with its standard deviation if it has one.

        A number with a unit of millions has at least two digits.
        """
        text = self._number(value)
        sign = "+" if self.signed and value > 0 and text.strip("0.,") else ""
        spread = "" if math.isnan(std) else PLUS_MINUS + self._number(std)
        return sign + text.replace("-", MINUS, 1) + spread + self.suffix

    def _number(self, value: float) -> str:
        """Return a number without a plus sign and without its unit."""
        scaled, decimals = value * self.scale, self.decimals
        if self.scale == MILLIONS and scaled:
            decimals = max(decimals, 1 - math.floor(math.log10(abs(scaled))))
        text = f"{scaled:{',' * self.thousands}.{decimals}f}"
        if text.startswith("-") and not text.strip("-0.,"):
            text = text[1:]
        return text if self.leading_zero else re.sub(r"^(-?)0\.", r"\1.", text)


def read_printed_format(published: Mapping[str, Any]) -> PrintedFormat | None:
    """Return unit and precision of a published number, a row of ``published.csv``; None if they cannot be derived.

    They are read from the text in ``printed`` or, if it is empty, from the number in ``value``.
    """
    value, printed, metric = float(published["value"]), str(published["printed"]), str(published["metric"])
    text = re.sub(r"[,:]", "", printed)  # one report prints 0.980:76923
    units = [(scale, suffix) for pattern, scale, suffix in UNITS if re.search(pattern, text)] or [
        (1.0, ""),
        (100.0, ""),
    ]
    for token, (scale, suffix) in itertools.product(re.findall(NUMBER, text), units):
        if math.isclose(float(token), abs(value) * scale, rel_tol=1e-9):
            return PrintedFormat(
                scale=scale,
                decimals=len(token.partition(".")[2]),
                suffix=suffix,
                leading_zero=not token.startswith("."),
                thousands=bool(re.search(r"\d,\d", printed)),
            )
    plain = re.fullmatch(r"-?\d*\.(\d+)", str(published["value_text"]))
    decimals = len(plain[1]) if plain else 0
    is_change = metric_base(metric).startswith("delta")
    if not printed and (is_fraction(metric) or is_change):
        return PrintedFormat(100.0, max(1, decimals - 2), " points" if is_change else "%", signed=is_change)
    if not printed and decimals and "seconds" not in metric and "_ms" not in metric:
        return PrintedFormat(decimals=decimals)
    return None


def format_published(published: Mapping[str, Any]) -> str:
    """Return a published number as the report prints it."""
    if published["printed"]:
        return str(published["printed"])
    text = _format(published, float(published["value"]), float(published["std"]))
    return f"about {text}" if published["approximate"] else text


def format_ours(published: Mapping[str, Any], value: float, std: float) -> str:
    """Return one of our numbers in the unit and precision of a published one."""
    return _format(published, value, std)


def _format(published: Mapping[str, Any], value: float, std: float) -> str:
    """Return a number in the printed format of `published` or, if it has none, in our format of the metric."""
    if printed := read_printed_format(published):
        return printed.format(value, std)
    metric = str(published["metric"])
    unit = "%" * is_fraction(metric)
    spread = "" if math.isnan(std) else PLUS_MINUS + format_metric(std, metric).lstrip("+")
    return format_metric(value, metric) + spread + unit
