"""Tables of conditions as CSV, Markdown, LaTeX and on the terminal, all from one frame and one list of columns.

A frame has one row for each condition, with raw numbers: fractions 0 to 1, seconds, counts. An ablation says once
which columns it shows and how:

    COLUMNS = (
        Column("condition", "Frozen through"),
        Column("accuracy", "Accuracy (%)", percent, best="max", std="accuracy_std"),
        Column("trainable_parameters", "Trainable", magnitude),
        Column("published", "Published (%)", percent),
    )

Where the frame has a column ``runs`` (how many a condition was planned with), a last column says how many there are
and, from ``failed`` and ``missing``, how many of them gave nothing: "failed (2 of 5)". So no failure can vanish.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text
from tabulate import tabulate

from analysis.output.number_format import MINUS, format_count, format_ranges, format_text, to_csv
from analysis.output.writers import write_formats

MISSING = "–"
PLUS_MINUS = " ± "


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str  # of the frame's column
    title: str
    format: Callable[..., str] = format_text
    best: Literal["max", "min"] | None = None  # which value is set in bold
    std: str = ""  # the frame's column with its standard deviation
    mark: str = ""  # a column of flags: values so flagged are written "about ..."
    unit: str = ""  # a column that `format` takes beside each value, such as the metric that says how it is written


@dataclass(frozen=True)
class Cell:
    """One cell as it is shown; `sort` is the number it stands for, None where it is text."""

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
) -> list[Path]:
    """Write a table as CSV, Markdown and LaTeX.

    Parameters
    ----------
    frame
        One row for each condition. The CSV holds all of its columns, in full precision.
    path
        Where to write, without suffix.
    columns
        What Markdown and LaTeX show, in this order.
    caption, footnotes
        Plain text; the footnotes say which epoch, folds and seeds the numbers are of (see `protocol_note`).
    label
        LaTeX label, of letters, digits and ``:-_.``.
    groups
        Columns of the frame within which the best is sought, such as the data set; a rule parts the groups.

    Returns
    -------
    list of Path
        The files written: .csv, .md and .tex.

    Raises
    ------
    UserError
        Where the folder is read-only or full.
    ValueError
        For a column the frame does not have, or a label LaTeX cannot take.
    """
    contents = {
        ".csv": to_csv(frame),
        ".md": _markdown(frame, columns, caption, footnotes, groups),
        ".tex": to_latex(frame, columns=columns, caption=caption, label=label, footnotes=footnotes, groups=groups),
    }
    return write_formats(path, {suffix: content.encode() for suffix, content in contents.items()})


def make_console_table(
    frame: pd.DataFrame, columns: Sequence[Column], *, title: str = "", groups: Sequence[str] = ()
) -> Table:
    """Make the table for the terminal; names are shown as they are, never read as markup."""
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
        widest = max(map(len, words))  # titles may wrap between words, values nowhere
        table.add_column(
            Text(column.title), justify="left" if column.format is format_text else "right", min_width=widest
        )
    for block in blocks:
        for row in block:
            table.add_row(*(Text(cell.text, style="bold" if cell.bold else "") for cell in row))
        table.add_section()
    return table


def format_cells(
    frame: pd.DataFrame, columns: Sequence[Column], *, groups: Sequence[str] = ()
) -> tuple[list[str], list[list[Cell]]]:
    """Return the titles and the rows that a table shows, to be shown elsewhere; parameters as `write_table`."""
    rows = [row for block in _format_groups(frame, columns, groups) for row in block]
    return [column.title for column in _add_runs_column(frame, columns)], rows


def protocol_note(*, epoch: str, folds: Iterable[int], seeds: Iterable[int]) -> str:
    """Say what the numbers of a table are of, as its first footnote.

    Parameters
    ----------
    epoch
        Which epoch's numbers are shown, e.g. "last epoch" or "best epoch on the test fold".
    folds, seeds
        Those whose runs are averaged: seeds within a fold first, so that the deviation is between folds.
    """
    folds, seeds = set(folds), set(seeds)
    over = f"test fold{'s' * (len(folds) > 1)} {format_ranges(folds)}"
    over += f" and seed{'s' * (len(seeds) > 1)} {format_ranges(seeds)}"
    if len(folds) > 1 and len(seeds) > 1:
        over += ", seeds averaged within each fold"
    one = len(folds) == len(seeds) == 1
    return f"Numbers of the {epoch}; {'one run:' if one else 'mean ± standard deviation over'} {over}."


def to_latex(
    frame: pd.DataFrame,
    *,
    columns: Sequence[Column],
    caption: str,
    label: str,
    footnotes: Sequence[str] = (),
    groups: Sequence[str] = (),
) -> str:
    r"""Return a ``table`` environment for booktabs and graphicx; parameters and errors are those of `write_table`.

    A table wider than the line is made smaller to fit. Latin text compiles with any engine; other scripts need XeLaTeX
    or LuaLaTeX.
    """
    if not re.fullmatch(r"[A-Za-z0-9:._-]+", label):
        raise ValueError(f"label={label!r}: use letters, digits and :-_. only")
    shown = _add_runs_column(frame, columns)
    blocks = [
        "".join(f"    {' & '.join(map(_latex_cell, row))} \\\\\n" for row in block)
        for block in _format_groups(frame, columns, groups)
    ]
    lines = [
        "% needs \\usepackage{booktabs,graphicx}",
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{escape_latex(caption)}}}",
        f"  \\label{{{label}}}",
        "  \\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
        f"  \\begin{{tabular}}{{{''.join('l' if column.format is format_text else 'r' for column in shown)}}}",
        "    \\toprule",
        f"    {' & '.join(escape_latex(column.title) for column in shown)} \\\\",
        "    \\midrule",
        "    \\midrule\n".join(blocks) + "    \\bottomrule",
        "  \\end{tabular}}",
        *(f"  \\par\\smallskip{{\\footnotesize {escape_latex(note)}\\par}}" for note in footnotes),
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


_LATEX_ESCAPES = {
    "\\": r"\textbackslash{}",
    "[": "{[}",  # a row that began with it, or with *, would be an argument of the \\ before
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
    """Make any text, such as the name of a class or a backbone, safe in LaTeX."""
    return "".join(_LATEX_ESCAPES.get(character, character) for character in format_text(value))


def escape_markdown(value: str) -> str:
    """Make any text safe in a cell of a Markdown table; an underscore inside a word needs no help."""
    return re.sub(r"[\\|*`<>\[\]~$&]|(?<!\w)_|_(?!\w)", lambda match: "\\" + match.group(), format_text(value))


def _markdown(
    frame: pd.DataFrame, columns: Sequence[Column], caption: str, footnotes: Sequence[str], groups: Sequence[str]
) -> str:
    shown = _add_runs_column(frame, columns)
    rows = [[_markdown_cell(cell) for cell in row] for block in _format_groups(frame, columns, groups) for row in block]
    table = tabulate(
        rows,
        headers=[escape_markdown(column.title) for column in shown],
        tablefmt="pipe",
        disable_numparse=True,
        colalign=["left" if column.format is format_text else "right" for column in shown],
    )
    return "\n\n".join([f"**{escape_markdown(caption)}**", table, *map(escape_markdown, footnotes)]) + "\n"


def _markdown_cell(cell: Cell) -> str:
    return f"**{escape_markdown(cell.text)}**" if cell.bold else escape_markdown(cell.text)


def _latex_cell(cell: Cell) -> str:
    return f"\\textbf{{{escape_latex(cell.text)}}}" if cell.bold else escape_latex(cell.text)


def _add_runs_column(frame: pd.DataFrame, columns: Sequence[Column]) -> list[Column]:
    if absent := [column.name for column in columns if column.name not in frame]:
        raise ValueError(f"the frame has no column {', '.join(absent)}; it has {', '.join(map(str, frame.columns))}")
    return [*columns, Column("runs", "Runs", format_count)] if "runs" in frame else list(columns)


def _format_groups(frame: pd.DataFrame, columns: Sequence[Column], groups: Sequence[str]) -> list[list[list[Cell]]]:
    """Return the cells of every row, in blocks of one group each."""
    parts = [part for _, part in frame.groupby(list(groups), sort=False, dropna=False)] if groups else [frame]
    blocks = []
    for part in parts:
        by_column = [_format_column(part, column) for column in columns]
        if "runs" in frame:
            by_column.append([_format_runs(row) for row in part.to_dict("records")])
        blocks.append([list(row) for row in zip(*by_column, strict=True)])
    return blocks


def _format_column(part: pd.DataFrame, column: Column) -> list[Cell]:
    values = part[column.name].tolist()
    units = [(unit,) for unit in part[column.unit]] if column.unit else [()] * len(values)
    bare = [MISSING if pd.isna(v) else column.format(v, *unit) for v, unit in zip(values, units, strict=True)]
    best = _find_best(values, bare, column.best)
    stds = part[column.std].tolist() if column.std else [math.nan] * len(values)
    marks = part[column.mark].tolist() if column.mark else [False] * len(values)
    formatted = []
    for value, shown, std, unit, mark in zip(values, bare, stds, units, marks, strict=True):
        known = shown != MISSING and not pd.isna(std)
        full = shown + PLUS_MINUS + column.format(std, *unit).lstrip("+") if known else shown
        about = "about " if mark is True and shown != MISSING else ""
        number = column.format is not format_text and shown != MISSING and isinstance(value, int | float)
        formatted.append(Cell(about + full, float(value) if number else None, bold=shown == best))
    return formatted


def _find_best(values: Sequence[Any], shown: Sequence[str], direction: Literal["max", "min"] | None) -> str | None:
    """Return the best value as it is shown, so that what reads the same is treated the same; none if all tie."""
    present = {value: as_shown for value, as_shown in zip(values, shown, strict=True) if as_shown != MISSING}
    if direction is None or len(set(present.values())) < 2:
        return None
    return present[max(present) if direction == "max" else min(present)]


def _format_runs(row: dict[Any, Any]) -> Cell:
    planned = int(row["runs"])
    lost = [f"{kind} ({int(row[kind])} of {planned})" for kind in ("failed", "missing") if row.get(kind, 0) > 0]
    return Cell(", ".join(lost)) if lost else Cell(str(planned), planned)
