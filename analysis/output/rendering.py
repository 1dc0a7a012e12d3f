"""Tables and figures as files, in the style of a paper, and what is needed to write them again.

A table or a figure is described by a frame with its numbers and by names of functions, so that the description can be
stored as JSON (``redraw.json`` in each folder of results). The command ``figures`` reads it.
"""

import math
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.output import style, tables
from analysis.output.number_format import format_text
from analysis.output.paper_style import CM_PER_INCH, PaperStyle, load_style, select_panels, use_style
from analysis.output.tables import Column, FullTable, escape_latex
from analysis.output.writers import write_formats
from core.errors import UserError, unknown_name_error

REDRAW = "redraw.json"
FUNCTIONS = "analysis."  # start of the names of all functions in a description
COLUMN_FIGURE = 3.6  # inches; wider figures span both columns of an article
RUN_COLUMNS = ("runs", "failed", "missing", "compared", "over")


@dataclass(frozen=True)
class TableItem:
    """A table: numbers, columns and texts.

    Attributes
    ----------
    name
        Name of its files.
    frame, columns, caption, label, footnotes, groups, full
        As in `analysis.output.tables.write_table`.
    mark
        What every caption has to say of the runs, such as that their settings are quick, or "".
    """

    name: str
    frame: pd.DataFrame
    columns: Sequence[Column]
    caption: str
    label: str
    footnotes: Sequence[str] = ()
    groups: Sequence[str] = ()
    full: FullTable | None = None
    mark: str = ""

    def in_style(self, paper: PaperStyle) -> "TableItem":
        """Return the table with the names, order, columns and texts of a style.

        Raises
        ------
        UserError
            If the style has a column that the table lacks.
        """
        own = paper.table(self.name)
        columns, frame = self._choose_columns(own.columns), paper.sort_rows(self.frame)
        if own.columns and "runs" not in own.columns:
            frame = frame.drop(columns="runs", errors="ignore")
        all_columns = [*columns, *(self.full.columns if self.full else ())]
        for name in {column.name for column in all_columns if column.format is format_text}:
            frame = frame.assign(**{name: [_rename(value, paper) for value in frame[name]]})
        footnotes = paper.footnotes if own.footnotes is None else own.footnotes
        full = self.full and FullTable(
            _rename_titles(self.full.columns, paper), self.full.footnotes if footnotes else ()
        )
        return replace(
            self,
            frame=frame,
            columns=_rename_titles(columns, paper),
            caption=mark_text(own.caption, self.mark) if own.caption else self.caption,
            label=own.label or self.label,
            footnotes=self.footnotes if footnotes else (),
            full=full,
        )

    def write(self, folder: Path, *, csv: bool = True) -> list[Path]:
        """Write the table as Markdown and LaTeX, and with `csv` its numbers."""
        return tables.write_table(
            self.frame,
            folder / self.name,
            columns=self.columns,
            caption=self.caption,
            label=self.label,
            footnotes=self.footnotes,
            groups=self.groups,
            full=self.full,
            csv=csv,
        )

    def describe(self) -> dict[str, Any]:
        """Return the entry of this table in ``analysis.json``."""
        header, rows = tables.format_cells(self.frame, self.columns, groups=self.groups)
        cells = {"header": header, "rows": [[asdict(cell) for cell in row] for row in rows]}
        return {"caption": self.caption, "footnotes": list(self.footnotes), "cells": cells}

    def to_json(self) -> dict[str, Any]:
        """Return the description of the table."""
        columns = [*self.columns, *(self.full.columns if self.full else ())]
        needed = {*self.groups, *RUN_COLUMNS}
        for column in columns:
            needed |= {column.name, column.std, column.mark, column.unit, *column.bounds}
        return {
            "kind": "table",
            "name": self.name,
            "frame": frame_to_json(self.frame[[name for name in self.frame if name in needed]]),
            "columns": [_column_to_json(column) for column in self.columns],
            "caption": self.caption,
            "label": self.label,
            "footnotes": list(self.footnotes),
            "groups": list(self.groups),
            "mark": self.mark,
            "full": self.full
            and {
                "columns": [_column_to_json(column) for column in self.full.columns],
                "footnotes": list(self.full.footnotes),
            },
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TableItem":
        """Return the table of a description."""
        full = values["full"]
        return cls(
            name=values["name"],
            frame=frame_from_json(values["frame"]),
            columns=[_column_from_json(each) for each in values["columns"]],
            caption=values["caption"],
            label=values["label"],
            footnotes=values["footnotes"],
            groups=values["groups"],
            full=full and FullTable([_column_from_json(each) for each in full["columns"]], full["footnotes"]),
            mark=values["mark"],
        )

    def _choose_columns(self, names: Sequence[str]) -> list[Column]:
        """Return the columns with these names or titles; without names, all columns of the table."""
        if not names:
            return list(self.columns)
        known: dict[str, Column] = {}
        for column in [*self.columns, *(self.full.columns if self.full else ())]:
            known.setdefault(column.name, column)
            known.setdefault(column.title.lower(), column)
        chosen = []
        for name in names:
            if name == "runs":
                continue
            if name.lower() not in known:
                raise unknown_name_error(f"column of the table {self.name} in --style:", name, [*known, "runs"])
            chosen.append(known[name.lower()])
        return chosen


@dataclass(frozen=True)
class FigureItem:
    """A figure: numbers, the function that draws them, and texts.

    Attributes
    ----------
    name
        Name of its files.
    frame
        The numbers.
    draw
        Function of this project that draws `frame` on axes: ``draw(frame, ax, **options)``.
    options
        Keyword arguments of `draw`; JSON values.
    caption, label
        LaTeX caption and label.
    panels
        Column of `frame` with the names of the panels, or "" for a single panel.
    size
        ``width`` and ``height`` in inches, as for `analysis.output.style.new_figure`.
    mark
        What the picture and every caption have to say of the runs, such as that their settings are quick, or "".
    """

    name: str
    frame: pd.DataFrame
    draw: Callable[..., Any]
    options: Mapping[str, Any]
    caption: str
    label: str
    panels: str
    size: Mapping[str, float]
    mark: str = ""

    def in_style(self, paper: PaperStyle) -> "FigureItem":
        """Return the figure with the order, panels, size and texts of a style.

        Raises
        ------
        UserError
            If the style has a panel that the figure lacks.
        """
        own = paper.figure(self.name)
        chosen = select_panels(paper.sort_rows(self.frame), self.panels, own.panels, self.name)
        width, height = (self.size.get(side, default) for side, default in style.DEFAULT_SIZE.items())
        general = paper.width_cm if width <= COLUMN_FIGURE else paper.page_width_cm
        new_width = (own.width_cm or general or width * CM_PER_INCH) / CM_PER_INCH
        new_height = own.height_cm / CM_PER_INCH if own.height_cm else height * new_width / width
        return replace(
            self,
            frame=chosen,
            caption=mark_text(own.caption, self.mark) if own.caption else self.caption,
            label=own.label or self.label,
            size={"width": new_width, "height": new_height},
        )

    def write(self, folder: Path, *, csv: bool = True) -> list[Path]:
        """Draw the figure and write it as PNG, PDF and LaTeX, and with `csv` its numbers."""
        figure, ax = style.new_figure(**self.size)
        self.draw(self.frame, ax, **self.options)
        style.add_panel_letters(figure)
        files = style.save_figure(figure, folder / self.name, self.frame if csv else None, note=self.mark.capitalize())
        latex = _figure_to_latex(self.name, self.caption, self.label, wide=self.size["width"] > COLUMN_FIGURE)
        return [*files, *write_formats(folder / self.name, {".tex": latex.encode()})]

    def to_json(self) -> dict[str, Any]:
        """Return the description of the figure."""
        return {
            "kind": "figure",
            "name": self.name,
            "frame": frame_to_json(self.frame),
            "draw": _function_name(self.draw),
            "options": dict(self.options),
            "caption": self.caption,
            "label": self.label,
            "panels": self.panels,
            "size": dict(self.size),
            "mark": self.mark,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "FigureItem":
        """Return the figure of a description."""
        frame, draw = frame_from_json(values["frame"]), _find_function(values["draw"])
        rest = {name: values[name] for name in ("name", "options", "caption", "label", "panels", "size", "mark")}
        return cls(frame=frame, draw=draw, **rest)


Item = TableItem | FigureItem


def mark_text(text: str, mark: str) -> str:
    """Return a caption or a sentence that ends with a mark in parentheses; the same text if `mark` is ""."""
    end = f" ({mark})"
    if not mark or text.rstrip(".").endswith(end):
        return text
    return f"{text[:-1]}{end}." if text.endswith(".") else text + end


def item_from_json(values: Mapping[str, Any]) -> Item:
    """Return the table or figure of a description."""
    return (TableItem if values["kind"] == "table" else FigureItem).from_json(values)


def write_in_style(item: Item, folder: Path, paper: PaperStyle, *, csv: bool = True) -> tuple[Item, list[Path]]:
    """Write an item in a style; return it as it is shown, and its files. Without `csv`, the numbers are not written."""
    with use_style(paper):
        shown = item.in_style(paper)
        return shown, shown.write(folder, csv=csv)


def check_style(path: Path) -> PaperStyle:
    """Return the style of a file, after a check that its font is installed.

    Raises
    ------
    UserError
        As `analysis.output.paper_style.load_style`, and for an unknown font.
    """
    paper = load_style(path)
    style.check_font(paper.font)
    return paper


def frame_to_json(frame: pd.DataFrame) -> dict[str, Any]:
    """Return a frame as JSON values: the values of each column, null for missing ones, and the types of the columns."""
    columns = {str(name): [_plain(value) for value in frame[name].tolist()] for name in frame}
    return {"columns": columns, "types": {str(name): str(frame[name].dtype) for name in frame}}


def frame_from_json(values: Mapping[str, Any]) -> pd.DataFrame:
    """Return the frame of `frame_to_json`."""
    columns = {
        name: pd.Series([_missing(value, values["types"][name]) for value in column], dtype=values["types"][name])
        for name, column in values["columns"].items()
    }
    return pd.DataFrame(columns)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


def _missing(value: Any, kind: str) -> Any:
    return math.nan if value is None and kind.startswith("float") else value


def _rename(value: Any, paper: PaperStyle) -> Any:
    return paper.rename(value) if isinstance(value, str) else value


def _rename_titles(columns: Sequence[Column], paper: PaperStyle) -> list[Column]:
    return [replace(column, title=paper.rename(column.title)) for column in columns]


def _column_to_json(column: Column) -> dict[str, Any]:
    values = {name: getattr(column, name) for name in ("name", "title", "best", "std", "mark", "unit")}
    return {**values, "bounds": list(column.bounds), "format": _function_name(column.format)}


def _column_from_json(values: Mapping[str, Any]) -> Column:
    return Column(**{**values, "bounds": tuple(values["bounds"]), "format": _find_function(values["format"])})


def _function_name(function: Callable[..., Any]) -> str:
    """Return the full name of a function of a module.

    Raises
    ------
    ValueError
        If it is a function inside another function, which has no such name.
    """
    name = f"{function.__module__}:{getattr(function, '__qualname__', '<object>')}"
    if "<" in name:
        raise ValueError(f"{name}: tables and figures need functions of a module")
    return name


def _find_function(name: str) -> Callable[..., Any]:
    """Return a function of the analyses by its full name."""
    if not name.startswith((FUNCTIONS, "core.")):
        raise UserError(f"{REDRAW}: {name} is no function of the analyses")
    found = pkgutil.resolve_name(name)
    if not callable(found):
        raise UserError(f"{REDRAW}: {name} is no function of the analyses")
    function: Callable[..., Any] = found
    return function


def _figure_to_latex(name: str, caption: str, label: str, *, wide: bool) -> str:
    """Return a LaTeX ``figure`` environment, or ``figure*`` for a figure that spans both columns."""
    environment = "figure*" if wide else "figure"
    lines = [
        "% needs \\usepackage{graphicx}",
        f"\\begin{{{environment}}}",
        "  \\centering",
        "  \\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
        f"  \\includegraphics{{{name}.pdf}}}}",
        f"  \\caption{{{escape_latex(caption)}}}",
        f"  \\label{{{label}}}",
        f"\\end{{{environment}}}",
    ]
    return "\n".join(lines) + "\n"
