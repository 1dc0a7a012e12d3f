"""The tables of the report page: the cells that a table's Markdown shows, each with the number it sorts by."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from analysis.formats import MINUS

FACTORS = {"": 1.0, "%": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
SECONDS = {"h": 3600.0, "min": 60.0, "s": 1.0, "ms": 1e-3}


@dataclass(frozen=True)
class Cell:
    """One cell as it is shown; `sort` is the number it stands for, None where it is text."""

    text: str
    sort: float | None = None
    bold: bool = False
    target: str = ""  # id of the element of the page that it links to


@dataclass(frozen=True)
class Table:
    """A table of the page; `left_out` rows did not fit it."""

    header: tuple[str, ...]
    rows: list[list[Cell]]
    numeric: tuple[bool, ...]  # columns set flush right
    left_out: int = 0


def table(header: Sequence[str], rows: Iterable[Sequence[str | Cell]], *, limit: int) -> Table:
    """Make a table of at most `limit` rows; a column is numeric where most of its cells stand for numbers."""
    every = [
        [cell if isinstance(cell, Cell) else Cell(str(cell), sort_value(str(cell))) for cell in row] for row in rows
    ]
    columns = [[row[k] for row in every if k < len(row)] for k in range(len(header))]
    numeric = tuple(2 * sum(cell.sort is not None for cell in cells) > len(cells) for cells in columns)
    return Table(tuple(header), every[:limit], numeric, max(0, len(every) - limit))


def from_markdown(text: str, *, limit: int) -> Table | None:
    """Read the first table of a Markdown text, as `analysis.tables` writes it; None where there is none."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    if len(lines) < 2 or not re.fullmatch(r"[|: -]+", lines[1]):
        return None
    header, rows = _cells(lines[0]), [_cells(line) for line in lines[2:]]
    return table([cell.text for cell in header], _even(rows, len(header)), limit=limit)


def from_csv(text: str, *, limit: int) -> Table | None:
    """Read a CSV text; None where it has no header."""
    rows = list(csv.reader(io.StringIO(text)))
    return table(rows[0], _even(rows[1:], len(rows[0])), limit=limit) if rows and rows[0] else None


def sort_value(shown: str) -> float | None:
    """Return the number that a cell written by `analysis.formats` stands for, None where it is text.

    "about 90.0", "67.5 ± 1.2", "+5.8", "3.38 M" and "1 h 20 min" are 90, 67.5, 5.8, 3,380,000 and 4800.
    """
    text = shown.strip().removeprefix("about ").partition(" ± ")[0].replace(MINUS, "-")
    if re.fullmatch(r"(\d+(\.\d+)? (h|min|s|ms)( |$))+", text):
        return sum(float(value) * SECONDS[unit] for value, unit in re.findall(r"(\d+(?:\.\d+)?) (h|min|ms|s)", text))
    match = re.fullmatch(r"(?:[<≤>≥] ?)?([+-]?\d+(?:\.\d*)?(?:e[+-]?\d+)?) ?([%kMGT]?)", text)
    return float(match[1]) * FACTORS[match[2]] if match else None


def _even(rows: list[list[Any]], width: int) -> Iterable[list[Any]]:
    """Bring every row to the header's width."""
    for row in rows:
        yield [cell for cell, _ in zip_longest(row[:width], range(width), fillvalue="")]


def _cells(line: str) -> list[Cell]:
    return [_cell(found.strip()) for found in re.findall(r"((?:\\.|[^\\|])*)\|", line[1:])]


def _cell(markdown: str) -> Cell:
    bold = len(markdown) > 4 and markdown.startswith("**") and markdown.endswith("**")
    text = re.sub(r"\\(.)", r"\1", markdown[2:-2] if bold else markdown)
    return Cell(text, sort_value(text), bold)
