"""Tables of the report page. Each cell has the number that its column is sorted by."""

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from markupsafe import Markup

from analysis.output import tables


@dataclass(frozen=True)
class Cell(tables.Cell):
    """A table cell that can link to an element of the page."""

    target: str = ""  # id of the element


@dataclass(frozen=True)
class Table:
    """A table of the page."""

    header: tuple[str, ...]
    rows: list[list[Cell]]
    numeric: tuple[bool, ...]  # columns that are aligned right
    left_out: int = 0  # number of rows above the limit


@dataclass(frozen=True)
class Listing:
    """A long table with search and pages: the first rows are HTML, the script reads the rest as JSON."""

    first: Table
    rest: list[list[Cell]]

    @property
    def length(self) -> int:
        """Number of all rows."""
        return len(self.first.rows) + len(self.rest)

    @property
    def rest_as_json(self) -> Markup:
        """The other rows as JSON, safe inside a script element. A cell is its text, or [text, sort, target]."""
        rows = [
            [[c.text, c.sort, c.target] if c.target else c.text if c.sort is None else [c.text, c.sort] for c in row]
            for row in self.rest
        ]
        text = json.dumps(rows, separators=(",", ":"))
        return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def make_listing(table: Table, *, n_first: int) -> Listing:
    """Return a listing whose first `n_first` rows are HTML."""
    return Listing(replace(table, rows=table.rows[:n_first]), table.rows[n_first:])


def make_table(header: Sequence[str], rows: Iterable[Sequence[str | Cell]], *, limit: int) -> Table:
    """Return a table of at most `limit` rows. A column is numeric if more than half of its cells are numbers."""
    cells = [[cell if isinstance(cell, Cell) else Cell(cell, _parse_number(cell)) for cell in row] for row in rows]
    columns = [[row[k] for row in cells if k < len(row)] for k in range(len(header))]
    numeric = tuple(2 * sum(cell.sort is not None for cell in column) > len(column) for column in columns)
    return Table(tuple(header), cells[:limit], numeric, max(0, len(cells) - limit))


def parse_description(cells: Any, *, limit: int) -> Table | None:
    """Return the table that ``analysis.json`` describes; None if there is none or it is damaged."""
    try:
        header = [str(title) for title in cells["header"]]
        rows = [[_parse_cell(cell) for cell in row] for row in cells["rows"]]
    except (TypeError, KeyError, AttributeError, ValueError, OverflowError):
        return None
    return make_table(header, _pad_rows(rows, len(header)), limit=limit) if header else None


def parse_csv(text: str, *, limit: int) -> Table | None:
    """Return the table of a CSV text; None if it has no header."""
    rows = list(csv.reader(io.StringIO(text)))
    return make_table(rows[0], _pad_rows(rows[1:], len(rows[0])), limit=limit) if rows and rows[0] else None


def _parse_cell(cell: Any) -> Cell:
    sort = cell.get("sort")
    is_number = isinstance(sort, int | float) and math.isfinite(sort)
    return Cell(str(cell["text"]), float(sort) if is_number else None, cell.get("bold") is True)


def _parse_number(text: str) -> float | None:
    """Return the finite number in a cell; None for any other text."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _pad_rows(rows: list[list[Any]], width: int) -> Iterable[list[Any]]:
    """Yield every row with as many cells as the header."""
    for row in rows:
        yield [cell for cell, _ in zip_longest(row[:width], range(width), fillvalue="")]
