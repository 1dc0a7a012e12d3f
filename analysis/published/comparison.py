"""Tables of published numbers with the rows and columns of the report, with our numbers beside them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.output.number_format import metric_title
from analysis.output.output_folder import OutputFolder
from analysis.output.tables import MISSING, Column
from analysis.published.class_level import ENTRY, ENTRY_NOTE, class_level_rows, describe_subject, split_class
from analysis.published.matching import OwnRow, collect_own_rows, find_matches, list_backbones
from analysis.published.numbers import list_published, load_published, setting_columns
from analysis.published.printed_format import format_ours, format_published
from analysis.published.settings import describe_point
from analysis.published.statements import write_statements

DIFFERS_TITLE = "Differs in"
COMPARED_NOTE = (
    "Ours / published, in the unit and precision of the report. Both are from the same epoch: the best epoch on the "
    "test fold (optimistic) if the report gives that one, otherwise the last epoch."
)
DIFFERS_NOTE = (
    "Differs in: settings of our runs that differ from the report. Settings that it does not state are not compared."
)
PUBLISHED_ONLY_NOTE = "Published numbers only: none of our runs has the same data set and the same network."


def write_published_comparison(
    results: OutputFolder,
    frame: pd.DataFrame,
    study: str,
    item: str,
    *,
    title: str,
    folder: Path,
    name: str = "published",
    in_study: bool = True,
) -> None:
    """Write the published numbers and statements of an item beside our results, in one table each.

    The table of numbers has the rows and columns of the report. ``<name>-numbers.csv`` has one row for each number.

    Parameters
    ----------
    results
        Output folder. Its `published_as` is the name of our data set in the published numbers.
    frame
        Rows of the analysis; the column ``run_ids`` has the runs of a row, if there are any.
    study, item, folder
        Parameters of `load_published`.
    title
        Title of the report.
    name
        Name of the table.
    in_study
        True for the command `study`, whose experiment reproduces the published table. False for a single ablation: then
        a published number is shown only if the ablation has a value for it with the same backbone and starting weights.
    """
    if study not in list_published(folder):
        return
    published = load_published(study, folder=folder)
    published = published[published["item"] == item]
    if published.empty:
        return
    by_class = pd.DataFrame(class_level_rows(results.plan, results.session.store, published))
    own_rows = collect_own_rows(frame, results) + collect_own_rows(by_class, results)
    numbers, statements = published[published["claim"] == ""], published[published["claim"] != ""]
    caption = f"{title}, {item}: {{}}"
    joined = join_numbers(numbers, own_rows, results.plan.datasets, in_study=in_study)
    if len(joined) and (in_study or joined["ours"].notna().any()):
        _write_numbers(results, joined, name, caption=caption)
    write_statements(
        results,
        statements,
        own_rows,
        name="statements" if in_study else f"{name}-statements",
        caption=caption.format("statements of the report, and what our runs show"),
        in_study=in_study,
    )


def join_numbers(
    published: pd.DataFrame, own_rows: Sequence[OwnRow], data_sets: Mapping[str, Any], *, in_study: bool
) -> pd.DataFrame:
    """Return the published numbers of an item with ours.

    There is one row for each pair of a published number and one of ours, and for each published number without a match.

    Parameters
    ----------
    published
        Numbers of the item.
    own_rows
        Our rows.
    data_sets
        Data sets of our runs by ``data.content``.
    in_study
        As in `write_published_comparison`; if False, published numbers without a match are left out.

    Returns
    -------
    DataFrame
        The columns of the published numbers except settings, with ``published`` and ``published_std`` in place of
        ``value`` and ``std``; ``row`` and ``column`` of our table; ``ours`` and ``ours_std``; ``differs_in``; and the
        two numbers as text, ``ours_text`` and ``published_text``.
    """
    settings = setting_columns(published)
    backbones = list_backbones(published)
    several_sets = published["data"].nunique() > 1
    rows = []
    for record in published.to_dict("records"):
        number = {str(key): value for key, value in record.items()}
        matches = find_matches(
            number, own_rows, settings=settings, data_sets=data_sets, item_backbones=backbones, in_study=in_study
        )
        cells = {key: value for key, value in number.items() if key not in settings}
        cells["published"], cells["published_std"] = cells.pop("value"), cells.pop("std")
        row, column = _row_and_column(number, several_sets=several_sets)
        cells |= {"row": row, "column": column, "published_text": format_published(number)}
        points = [match.row.point for match in matches]
        for match in matches:
            backbone = "" if number["backbone"] else match.row.backbone
            label = ", ".join(filter(None, [backbone, describe_point(match.row.point, points)]))
            rows.append(
                cells
                | {
                    "row": f"{row} ({label})" if label else row,
                    "ours": match.value,
                    "ours_std": match.std,
                    "ours_text": format_ours(number, match.value, match.std),
                    "differs_in": ", ".join(match.differences),
                }
            )
        if not matches and in_study:
            rows.append(cells | {"ours": math.nan, "ours_std": math.nan, "ours_text": "", "differs_in": ""})
    frame = pd.DataFrame(rows)
    return frame.drop(columns=["claim", "compared-with", "differs", "value_text"], errors="ignore")


def _row_and_column(published: Mapping[str, Any], *, several_sets: bool) -> tuple[str, str]:
    """Return row and column of a number: those of the report or, for a number in its text, its subject and metric."""
    _, part = split_class(published["condition"])
    row = published["row"] or describe_subject(published, several_sets=several_sets)
    column = ", ".join(filter(None, [metric_title(published["metric"]), part]))
    return row, published["column"] or column[:1].upper() + column[1:]


def shape_table(joined: pd.DataFrame) -> tuple[pd.DataFrame, list[Column]]:
    """Return a table with the rows and columns of the report, from the result of `join_numbers`.

    A cell is "ours / published", or only the published number if the whole table has no number of ours. If any settings
    differ, the last column lists them.
    """
    has_ours = bool(joined["ours"].notna().any())
    by_row = {row: list(dict.fromkeys(part["column"])) for row, part in joined.groupby("row", sort=False)}
    titles = list(dict.fromkeys([*max(by_row.values(), key=len), *joined["column"]]))  # in the order of the fullest row
    rows = []
    for row, part in joined.groupby("row", sort=False):
        cells: dict[str, Any] = {"row": row}
        for column, numbers in part.groupby("column", sort=False):
            texts = [
                f"{number['ours_text'] or MISSING} / {number['published_text']}"
                if has_ours
                else number["published_text"]
                for number in numbers.to_dict("records")
            ]
            cells[str(column)] = "; ".join(dict.fromkeys(texts))
        rows.append(cells | {DIFFERS_TITLE: _join_differences(part)})
    table = pd.DataFrame(rows).reindex(columns=["row", *titles, DIFFERS_TITLE])
    columns = [Column("row", ""), *(Column(title, title, str) for title in titles)]
    if (table[DIFFERS_TITLE] != "").any():
        return table, [*columns, Column(DIFFERS_TITLE, DIFFERS_TITLE)]
    return table.drop(columns=DIFFERS_TITLE), columns


def _join_differences(part: pd.DataFrame) -> str:
    """Return the differences of a row of the table; if its columns have different ones, each with its columns."""
    compared = part[part["ours"].notna()].drop_duplicates(["column", "differs_in"])
    columns = {str(text): list(group["column"]) for text, group in compared.groupby("differs_in", sort=False)}
    if len(columns) < 2:
        return next(iter(columns), "")
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in columns.items() if text)


def _write_numbers(results: OutputFolder, joined: pd.DataFrame, name: str, *, caption: str) -> None:
    """Write the table of numbers; `caption` has a placeholder for its content."""
    table, columns = shape_table(joined)
    compared = joined["ours"].notna()
    notes = [COMPARED_NOTE] if compared.any() else [PUBLISHED_ONLY_NOTE]
    if DIFFERS_TITLE in table:
        notes.append(DIFFERS_NOTE)
    if joined[compared]["condition"].map(lambda condition: bool(ENTRY.fullmatch(condition))).any():
        notes.append(ENTRY_NOTE)
    for number in joined.drop_duplicates(["row", "column", "contradiction"]).to_dict("records"):
        if number["contradiction"]:
            place = ", ".join(filter(None, [number["row"], number["column"]]))
            notes.append(f"Contradiction in the report: {place}: {number['published_text']}; {number['contradiction']}")
    results.write_table(
        name,
        table,
        columns,
        caption=caption.format("our numbers and the published ones" if compared.any() else "the published numbers"),
        footnotes=notes,
        show=bool(compared.any()),
        numbers=joined,
    )
