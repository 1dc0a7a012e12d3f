"""The tables of the report page: cells as an analysis describes them, each with the number it sorts by."""

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from markupsafe import Markup


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


@dataclass(frozen=True)
class Listing:
    """A long table that is searched and paged: its first rows are written out, the rest is data for the script."""

    written: Table
    rest: list[list[Cell]]

    @property
    def length(self) -> int:
        """Rows in all."""
        return len(self.written.rows) + len(self.rest)

    @property
    def rest_as_json(self) -> Markup:
        """The rest as JSON that ends no element: a text, or text, number and target of each cell."""
        rows = [
            [[c.text, c.sort, c.target] if c.target else c.text if c.sort is None else [c.text, c.sort] for c in row]
            for row in self.rest
        ]
        text = json.dumps(rows, separators=(",", ":"))
        return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def make_listing(whole: Table, *, written: int) -> Listing:
    """Make a listing of a table, of which so many rows are written out."""
    return Listing(replace(whole, rows=whole.rows[:written]), whole.rows[written:])


def make_table(header: Sequence[str], rows: Iterable[Sequence[str | Cell]], *, limit: int) -> Table:
    """Make a table of at most `limit` rows; a column is numeric where most of its cells stand for numbers."""
    every = [[cell if isinstance(cell, Cell) else Cell(cell, _parse_number(cell)) for cell in row] for row in rows]
    columns = [[row[k] for row in every if k < len(row)] for k in range(len(header))]
    numeric = tuple(2 * sum(cell.sort is not None for cell in cells) > len(cells) for cells in columns)
    return Table(tuple(header), every[:limit], numeric, max(0, len(every) - limit))


def parse_description(cells: Any, *, limit: int) -> Table | None:
    """Read the cells that ``analysis.json`` gives of a table; None where it gives none, or none that can be read."""
    try:
        header = [str(title) for title in cells["header"]]
        rows = [[_parse_cell(cell) for cell in row] for row in cells["rows"]]
    except (TypeError, KeyError, AttributeError, ValueError, OverflowError):
        return None
    return make_table(header, _pad_rows(rows, len(header)), limit=limit) if header else None


def parse_csv(text: str, *, limit: int) -> Table | None:
    """Read a CSV text; None where it has no header."""
    rows = list(csv.reader(io.StringIO(text)))
    return make_table(rows[0], _pad_rows(rows[1:], len(rows[0])), limit=limit) if rows and rows[0] else None


def _parse_cell(cell: Any) -> Cell:
    sort = cell.get("sort")
    known = isinstance(sort, int | float) and math.isfinite(sort)
    return Cell(str(cell["text"]), float(sort) if known else None, cell.get("bold") is True)


def _parse_number(shown: str) -> float | None:
    """Return the number that a plain cell is, None where it is text."""
    try:
        value = float(shown)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _pad_rows(rows: list[list[Any]], width: int) -> Iterable[list[Any]]:
    """Bring every row to the header's width."""
    for row in rows:
        yield [cell for cell, _ in zip_longest(row[:width], range(width), fillvalue="")]
