"""The table of published numbers on the report page: those that the analyses have compared with ours."""

import io
from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from analysis.output.tables import MISSING
from analysis.report.read_analyses import NUMBERS_SUFFIX, Analysis, Item
from analysis.report.table_model import Cell, Table, make_table

HEADER = ("Report", "Data", "Row", "Column", "Epoch", "Published", "Ours", "Differs in", "Our table", "Source")
TEXTS = ("study", "item", "data", "row", "column", "epoch", "published_text", "ours_text", "differs_in", "source")
NUMBERS = ("published", "ours")


def make_published_table(analyses: Iterable[Analysis], *, limit: int) -> Table:
    """Return the published numbers beside which the analyses have a number of ours, each pair once."""
    rows: dict[tuple[str, ...], list[str | Cell]] = {}
    for analysis in analyses:
        for item in analysis.tables:
            for row in _iterate_compared(item):
                cells: list[str | Cell] = [
                    f"{row['study']} {row['item']}",
                    *(row[name] or MISSING for name in ("data", "row", "column", "epoch")),
                    Cell(row["published_text"], float(row["published"])),
                    Cell(row["ours_text"], float(row["ours"])),
                    row["differs_in"] or MISSING,
                    Cell(item.title, target=item.id),
                    row["source"],
                ]
                rows.setdefault(tuple(row[name] for name in (*TEXTS, *NUMBERS)), cells)
    return make_table(HEADER, rows.values(), limit=limit)


def _iterate_compared(item: Item) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table, as text, that have a published number and one of ours."""
    for source in item.sources:
        if not source.name.endswith(NUMBERS_SUFFIX):
            continue
        try:
            frame = pd.read_csv(io.StringIO(source.text), keep_default_na=False, dtype=str)
            compared = frame[[*TEXTS, *NUMBERS]][(frame["ours"] != "") & (frame["published"] != "")]
            compared.astype(dict.fromkeys(NUMBERS, float))
        except (ValueError, KeyError):  # a damaged file
            continue
        yield from ({str(name): value for name, value in row.items()} for row in compared.to_dict("records"))
