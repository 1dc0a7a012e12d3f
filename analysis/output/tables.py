"""Tables as CSV, Markdown, LaTeX and terminal output, from one frame and one list of columns.

A frame has one row per condition with raw numbers: fractions from 0 to 1, seconds, counts. The columns define what a
table shows, and how:

    COLUMNS = (
        Column("condition", "Frozen through"),
        Column("accuracy", "Accuracy (%)", format_percent, best="max", std="accuracy_std"),
        Column("trainable_parameters", "Trainable", format_magnitude),
    )

If the frame has a column ``runs`` (number of planned runs), the table ends with a column "Runs". It shows this number
or, from the columns ``failed``, ``missing`` and ``compared``, the runs without a result ("failed (2 of 5)") and the
number of runs that are compared ("4 of 5 compared"). In a group of rows with one run each, no value is bold.

A table with many columns is written twice: as a narrow table, which fits a column of a two-column article at normal
size, and as a full table with all columns.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tabulate import tabulate

from analysis.output.number_format import MINUS, format_count, format_ranges, format_text, to_csv
from analysis.output.writers import write_formats

MISSING = "–"
PLUS_MINUS = " ± "
FULL = "-full"  # at the end of the names of full tables
COLUMN_POINTS = 229  # width of one column of a two-column article with 10 pt type, the narrowest common format
CHARACTER_POINTS, GAP_POINTS = 4.9, 8  # mean width of a 10 pt character, and width of the gap between table columns
MIN_TEXT_WIDTH = 10  # smallest width of a table column with wrapped texts, in characters


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    name
        Column of the frame.
    title
        Heading.
    format
        Formats a value; `format_text` marks a column of text.
    best
        Whether the largest or the smallest value is bold, if rows have several runs; None: no value is bold.
    std
        Column of the frame with the standard deviation, or "".
    bounds
        Columns of the frame with the bounds of the 95 % interval, shown as "61.2 [55.0, 67.4]"; () for none.
    mark
        Column of the frame with flags, or "": flagged values get the prefix "about".
    unit
        Column of the frame whose value `format` takes as second argument, such as the name of the metric, or "".
    """

    name: str
    title: str
    format: Callable[..., str] = format_text
    best: Literal["max", "min"] | None = None
    std: str = ""
    bounds: tuple[str, ...] = ()
    mark: str = ""
    unit: str = ""


@dataclass(frozen=True)
class FullTable:
    """All columns and footnotes of a table that is also written as a narrow table with fewer columns."""

    columns: Sequence[Column]
    footnotes: Sequence[str]


@dataclass(frozen=True)
class Cell:
    """A formatted cell; `sort` is the number by which the report page sorts its column, or None for text."""

    text: str
    sort: float | None = None
    bold: bool = False


def write_table(
    frame: pd.DataFrame,
    path: Path,
    *,
    columns: Sequence[Column],
    caption: str,
    label: str,
    footnotes: Sequence[str] = (),
    groups: Sequence[str] = (),
    full: "FullTable | None" = None,
    csv: bool = True,
) -> list[Path]:
    """Write a table as CSV, Markdown and LaTeX, and the full table as Markdown and LaTeX.

    Parameters
    ----------
    frame
        One row per condition. The CSV file contains all columns in full precision.
    path
        Path of the files without suffix.
    columns
        Columns of the Markdown and LaTeX tables, in order.
    caption, footnotes
        Plain text. The first footnote states epoch, folds and seeds (see `protocol_note`).
    label
        LaTeX label: letters, digits and ``:-_.``.
    groups
        Columns of the frame, such as the data set, that define groups of rows. The best value is marked in each group;
        a rule separates the groups.
    full
        Columns and footnotes of the full table, which is written to ``<path>-full``; None: there is none.
    csv
        Whether to write the CSV file.

    Returns
    -------
    list of Path
        The .csv, .md and .tex file, and the .md and .tex file of the full table.

    Raises
    ------
    UserError
        If the folder is read-only or full.
    ValueError
        If the frame lacks a column, or `label` is not valid in LaTeX.
    """
    contents = {
        **({".csv": to_csv(frame)} if csv else {}),
        ".md": _markdown(frame, columns, caption, footnotes, groups),
        ".tex": to_latex(frame, columns=columns, caption=caption, label=label, footnotes=footnotes, groups=groups),
    }
    if full:
        contents[f"{FULL}.md"] = _markdown(frame, full.columns, caption, full.footnotes, groups)
        contents[f"{FULL}.tex"] = to_latex(
            frame,
            columns=full.columns,
            caption=caption,
            label=f"{label}{FULL}",
            footnotes=full.footnotes,
            groups=groups,
        )
    return write_formats(path, {suffix: content.encode() for suffix, content in contents.items()})


def make_console_table(
    frame: pd.DataFrame, columns: Sequence[Column], *, title: str = "", groups: Sequence[str] = ()
) -> Table:
    """Return the table for the terminal; text is never interpreted as markup."""
    table = Table(
        title=Text(title) if title else None,
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    blocks = _format_groups(frame, columns, groups)
    for k, column in enumerate(_add_runs_column(frame, columns)):
        words = [*column.title.split(), *(row[k].text for block in blocks for row in block)]
        widest = max(map(len, words))  # titles may wrap between words, values may not
        table.add_column(
            Text(column.title), justify="left" if column.format is format_text else "right", min_width=widest
        )
    for block in blocks:
        for row in block:
            table.add_row(*(Text(cell.text, style="bold" if cell.bold else "") for cell in row))
        table.add_section()
    return table


def align_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as lines of text with aligned columns; rich needs seconds to lay out thousands of rows."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in (header, *rows))


def print_console_table(table: Table, console: Console) -> None:
    """Print a table in full: a narrow terminal may wrap its lines, but no column is cut off."""
    console.print(table, width=max(console.width, console.measure(table).minimum), crop=False)


def format_cells(
    frame: pd.DataFrame, columns: Sequence[Column], *, groups: Sequence[str] = ()
) -> tuple[list[str], list[list[Cell]]]:
    """Return the column titles and the formatted cells of each row of a table; parameters as in `write_table`."""
    rows = [row for block in _format_groups(frame, columns, groups) for row in block]
    return [column.title for column in _add_runs_column(frame, columns)], rows


def protocol_note(*, epoch: str, folds: Iterable[int], seeds: Iterable[int]) -> str:
    """Return the first footnote of a table: epoch, test folds and seeds of its numbers.

    Parameters
    ----------
    epoch
        Evaluated epoch, e.g. "last epoch".
    folds, seeds
        Test folds and seeds of the runs.
    """
    folds, seeds = set(folds), set(seeds)
    runs = f"test fold{'s' * (len(folds) > 1)} {format_ranges(folds)}"
    runs += f" and seed{'s' * (len(seeds) > 1)} {format_ranges(seeds)}"
    if len(folds) == len(seeds) == 1:
        return f"Results of the {epoch}; a single run per condition ({runs})."
    if len(folds) > 1 and len(seeds) > 1:
        runs += "; seeds are averaged within each fold first"
    return f"Results of the {epoch}; mean ± standard deviation, or mean [95 % interval], over {runs}."


def to_latex(
    frame: pd.DataFrame,
    *,
    columns: Sequence[Column],
    caption: str,
    label: str,
    footnotes: Sequence[str] = (),
    groups: Sequence[str] = (),
) -> str:
    r"""Return a LaTeX table; parameters and errors as in `write_table`.

    It needs the package booktabs, and a table of full width graphicx too. A table that fits a column of a two-column
    article is a ``table`` of normal size; the values of `groups` are then the headings of its groups, and long texts
    are wrapped. Other tables are a ``table*``, which spans both columns, and are scaled down if they are wider. Latin
    text compiles with any engine; other scripts need XeLaTeX or LuaLaTeX.
    """
    if not re.fullmatch(r"[A-Za-z0-9:._-]+", label):
        raise ValueError(f"label={label!r}: use letters, digits and :-_. only")
    columns = list(columns)
    blocks = _format_groups(frame, columns, groups)
    all_columns = _add_runs_column(frame, columns)
    narrow = _make_narrow_latex(all_columns, blocks, groups)
    environment, packages, body = narrow or ("table*", "booktabs,graphicx", _make_wide_latex(all_columns, blocks))
    lines = [
        f"% needs \\usepackage{{{packages}}}",
        f"\\begin{{{environment}}}",
        "  \\centering",
        f"  \\caption{{{escape_latex(caption)}}}",
        f"  \\label{{{label}}}",
        *body,
        *(f"  \\par\\smallskip{{\\footnotesize\\raggedright {escape_latex(note)}\\par}}" for note in footnotes),
        f"\\end{{{environment}}}",
    ]
    return "\n".join(lines) + "\n"


def _make_wide_latex(columns: Sequence[Column], blocks: Sequence[Sequence[Sequence[Cell]]]) -> list[str]:
    """Return the lines of a table that is scaled down to the width of the page."""
    rows = ["".join(f"    {' & '.join(map(_latex_cell, row))} \\\\\n" for row in block) for block in blocks]
    return [
        "  \\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
        f"  \\begin{{tabular}}{{{''.join('l' if column.format is format_text else 'r' for column in columns)}}}",
        "    \\toprule",
        f"    {' & '.join(escape_latex(column.title) for column in columns)} \\\\",
        "    \\midrule",
        "    \\midrule\n".join(rows) + "    \\bottomrule",
        "  \\end{tabular}}",
    ]


def _make_narrow_latex(
    columns: Sequence[Column], blocks: Sequence[Sequence[Sequence[Cell]]], groups: Sequence[str]
) -> tuple[str, str, list[str]] | None:
    """Return environment, packages and lines of a table that fits a narrow column; None if it does not fit.

    The number of runs is left out if every row has all its runs, because the first footnote states it.
    """
    is_heading = [column.name in groups for column in columns]
    if all(is_heading):
        is_heading = [False] * len(columns)
    cells = [row for block in blocks for row in block]
    complete = (
        columns[-1].name == "runs" and len({row[-1].text for row in cells}) == 1 and cells[0][-1].sort is not None
    )
    used = [k for k in range(len(columns) - complete) if not is_heading[k]]
    widths = [max([len(row[k].text) for row in cells] + [len(word) for word in columns[k].title.split()]) for k in used]
    max_width = (COLUMN_POINTS - GAP_POINTS * (len(used) - 1)) / CHARACTER_POINTS  # of all columns, in characters
    texts = [n for n, k in enumerate(used) if columns[k].format is format_text]
    while sum(widths) > max_width:
        longest = max(texts, key=lambda n: widths[n], default=None)
        if longest is None or widths[longest] <= MIN_TEXT_WIDTH:
            return None
        widths[longest] -= 1
    longest_cells = [max(len(row[k].text) for row in cells) if cells else 0 for k in used]
    kinds = []
    for n in range(len(used)):
        wrapped = n in texts and widths[n] < longest_cells[n]
        kinds.append(
            f"p{{{widths[n] * CHARACTER_POINTS / COLUMN_POINTS:.2f}\\linewidth}}"
            if wrapped
            else "l"
            if n in texts
            else "r"
        )
    rows = []
    for block in blocks:
        heading = ", ".join(escape_latex(block[0][k].text) for k in range(len(columns)) if is_heading[k])
        lines = []
        if heading:
            kind = "l" if len(heading) <= sum(widths) else "p{\\linewidth}"
            lines.append(f"    \\multicolumn{{{len(used)}}}{{@{{}}{kind}@{{}}}}{{\\emph{{{heading}}}}} \\\\\n")
        for row in block:
            prefixes = ("\\raggedright " * (kind[0] == "p") for kind in kinds)
            line = " & ".join(prefix + _latex_cell(row[k]) for prefix, k in zip(prefixes, used, strict=True))
            lines.append(f"    {line} \\\\\n")
        rows.append("".join(lines))
    header = [_latex_title(columns[k].title, widths[n], kinds[n]) for n, k in enumerate(used)]
    body = [
        "  \\setlength{\\tabcolsep}{4pt}",
        f"  \\begin{{tabular}}{{@{{}}{''.join(kinds)}@{{}}}}",
        "    \\toprule",
        f"    {' & '.join(header)} \\\\",
        "    \\midrule",
        "    \\midrule\n".join(rows) + "    \\bottomrule",
        "  \\end{tabular}",
    ]
    return "table", "booktabs", body


def _latex_title(title: str, width: int, kind: str) -> str:
    """Return a column heading; if it is longer than the cells of the column, it is broken between words."""
    lines: list[str] = []
    for word in title.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    escaped = [escape_latex(line) for line in lines]
    if len(escaped) < 2:
        return "".join(escaped)
    side, text = "r" if kind == "r" else "l", r"\\".join(escaped)
    return f"\\begin{{tabular}}[b]{{@{{}}{side}@{{}}}}{text}\\end{{tabular}}"


_LATEX_ESCAPES = {
    "\\": r"\textbackslash{}",
    "[": "{[}",  # at the start of a row, [ and * would be read as arguments of the \\ before
    "*": "{*}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    MINUS: "$-$",
    "–": "--",
    "×": r"$\times$",
    "Δ": r"$\Delta$",
    **{character: f"\\{character}" for character in "_%&#${}"},
}


def escape_latex(value: str) -> str:
    """Escape text, such as the name of a class, for LaTeX."""
    return "".join(_LATEX_ESCAPES.get(character, character) for character in format_text(value))


def escape_markdown(value: str) -> str:
    """Escape text for a cell of a Markdown table; underscores inside words need no escape."""
    return re.sub(r"[\\|*`<>\[\]~$&]|(?<!\w)_|_(?!\w)", lambda match: "\\" + match.group(), format_text(value))


def _markdown(
    frame: pd.DataFrame, columns: Sequence[Column], caption: str, footnotes: Sequence[str], groups: Sequence[str]
) -> str:
    all_columns = _add_runs_column(frame, columns)
    rows = [[_markdown_cell(cell) for cell in row] for block in _format_groups(frame, columns, groups) for row in block]
    table = tabulate(
        rows,
        headers=[escape_markdown(column.title) for column in all_columns],
        tablefmt="pipe",
        disable_numparse=True,
        colalign=["left" if column.format is format_text else "right" for column in all_columns],
    )
    return "\n\n".join([f"**{escape_markdown(caption)}**", table, *map(escape_markdown, footnotes)]) + "\n"


def _markdown_cell(cell: Cell) -> str:
    return f"**{escape_markdown(cell.text)}**" if cell.bold else escape_markdown(cell.text)


def _latex_cell(cell: Cell) -> str:
    return f"\\textbf{{{escape_latex(cell.text)}}}" if cell.bold else escape_latex(cell.text)


def _add_runs_column(frame: pd.DataFrame, columns: Sequence[Column]) -> list[Column]:
    """Return the columns, and the column "Runs" if the frame has it; raise ValueError if the frame lacks a column."""
    if absent := [column.name for column in columns if column.name not in frame]:
        raise ValueError(f"the frame has no column {', '.join(absent)}; it has {', '.join(map(str, frame.columns))}")
    return [*columns, Column("runs", "Runs", format_count)] if "runs" in frame else list(columns)


def _format_groups(frame: pd.DataFrame, columns: Sequence[Column], groups: Sequence[str]) -> list[list[list[Cell]]]:
    """Return the formatted cells as a list of groups; a group is a list of rows."""
    parts = [part for _, part in frame.groupby(list(groups), sort=False, dropna=False)] if groups else [frame]
    blocks = []
    for part in parts:
        counts = next((part[name] for name in ("compared", "runs") if name in part), None)
        single = counts is not None and counts.max() <= 1
        by_column = [_format_column(part, replace(column, best=None) if single else column) for column in columns]
        if "runs" in frame:
            by_column.append([_format_runs(row) for row in part.to_dict("records")])
        blocks.append([list(row) for row in zip(*by_column, strict=True)])
    return blocks


def _format_column(part: pd.DataFrame, column: Column) -> list[Cell]:
    """Return the formatted cells of one column, for the rows `part` of one group."""
    values = part[column.name].tolist()
    units = [(unit,) for unit in part[column.unit]] if column.unit else [()] * len(values)
    texts = [MISSING if pd.isna(v) else column.format(v, *unit) for v, unit in zip(values, units, strict=True)]
    best = _find_best(values, texts, column.best)
    stds = part[column.std].tolist() if column.std else [math.nan] * len(values)
    bounds = part[list(column.bounds)].to_numpy().tolist() if column.bounds else [()] * len(values)
    marks = part[column.mark].tolist() if column.mark else [False] * len(values)
    cells = []
    for value, text, std, limits, unit, mark in zip(values, texts, stds, bounds, units, marks, strict=True):
        has_std = text != MISSING and not pd.isna(std)
        full = text + PLUS_MINUS + column.format(std, *unit).lstrip("+") if has_std else text
        if limits and text != MISSING and not any(map(pd.isna, limits)):
            full += f" [{', '.join(column.format(limit, *unit) for limit in limits)}]"
        prefix = "about " if mark is True and text != MISSING else ""
        is_number = column.format is not format_text and text != MISSING and isinstance(value, int | float)
        cells.append(Cell(prefix + full, float(value) if is_number else None, bold=text == best))
    return cells


def _find_best(values: Sequence[Any], texts: Sequence[str], direction: Literal["max", "min"] | None) -> str | None:
    """Return the text of the best value, so that values with the same text are all bold; None if all are equal."""
    present = {value: text for value, text in zip(values, texts, strict=True) if text != MISSING}
    if direction is None or len(set(present.values())) < 2:
        return None
    return present[max(present) if direction == "max" else min(present)]


def _format_runs(row: dict[Any, Any]) -> Cell:
    """Return the cell of the column "Runs"."""
    planned = int(row["runs"])
    lost = [f"{kind} ({int(row[kind])} of {planned})" for kind in ("failed", "missing") if row.get(kind, 0) > 0]
    compared = int(row.get("compared", planned))
    if compared < planned - sum(int(row.get(kind, 0)) for kind in ("failed", "missing")):
        lost.append(f"{compared} of {planned} compared")
    return Cell(", ".join(lost)) if lost else Cell(str(planned), planned)
