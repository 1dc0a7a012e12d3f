"""How every figure looks, and how it is written: one column of a paper wide, safe for the colour-blind, vector PDF."""

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.output.number_format import csv
from analysis.output.writers import write_formats

COLUMN_WIDTH, PAGE_WIDTH = 3.5, 7.16  # inches: one column of a paper, and both
DPI = 300  # of a PNG
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")  # Okabe and Ito 2008
MARKERS = "osD^vPX"
STYLES = ("-", "--", "-.")  # of lines that must share colours
GREY = "#767676"
STYLE: Any = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "errorbar.capsize": 2,
    "pdf.fonttype": 42,  # embed TrueType fonts, which journals ask for
}
styled = mpl.rc_context(STYLE)  # a decorator: the style holds while the function draws, and nowhere else


@styled
def new(*, height: float = 2.5, width: float = COLUMN_WIDTH) -> tuple[Figure, Axes]:
    """Make a figure of one panel, `width` by `height` inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


@styled
def panels(ax: Axes, rows: int, columns: int) -> list[list[Axes]]:
    """Put `rows` by `columns` panels in the place of a figure's only one."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    ax.remove()
    made: list[list[Axes]] = figure.subplots(rows, columns, squeeze=False).tolist()
    return made


@styled
def name_above(ax: Axes) -> None:
    """Name the lines of a panel once, above all panels of its figure."""
    figure = ax.get_figure(root=True)
    handles, labels = ax.get_legend_handles_labels()
    if figure is not None and len(labels) > 1:
        room = 17 * figure.get_figwidth()  # characters of 7 points in a line, of which the handles take four
        columns = max(1, min(len(labels), int(room / (4 + max(map(len, labels))))))
        figure.legend(handles, labels, loc="outside upper left", ncols=columns)


def _break_labels(figure: Figure) -> None:
    """Write the name of a vertical axis that is longer than the figure is high in two lines, at its middle comma."""
    figure.draw_without_rendering()
    for ax in figure.axes:
        label = ax.yaxis.label
        extent, text = label.get_window_extent(), label.get_text()
        gaps = [k for k, character in enumerate(text) if character == " "]
        cuts = [k for k in gaps if text[k - 1] == ","] or gaps
        if cuts and "\n" not in text and (extent.y0 < 0 or extent.y1 > figure.bbox.height):
            cut = min(cuts, key=lambda k: abs(k - len(text) / 2))
            label.set_text(f"{text[:cut]}\n{text[cut + 1 :]}")


@styled
def save(figure: Figure, path: Path, data: pd.DataFrame | None, *, dpi: int = DPI) -> list[Path]:
    """Write a figure as PNG and PDF, and its data beside it as CSV.

    Parameters
    ----------
    figure, data
        The figure and what it shows (None where that is in another file). The same figure always gives the same
        bytes.
    path
        Where to write, without suffix.
    dpi
        Of the PNG.

    Returns
    -------
    list of Path
        The files: .png, .pdf and, with `data`, .csv.

    Raises
    ------
    UserError
        Where the folder is read-only or full.
    """
    return write_formats(path, contents(figure, dpi=dpi) | csv_of(data))


@styled
def contents(figure: Figure, *, dpi: int) -> dict[str, bytes]:
    """Draw a figure; return the content of its files by suffix, ``.png`` first."""
    _break_labels(figure)
    png, pdf = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=dpi, metadata={"Software": None})
    figure.set_layout_engine("none")  # in the PDF everything stands where it does in the PNG
    figure.savefig(pdf, format="pdf", dpi=dpi, metadata={"CreationDate": None})
    return {".png": png.getvalue(), ".pdf": pdf.getvalue()}


def csv_of(data: pd.DataFrame | None) -> dict[str, bytes]:
    """Return the content of the file of what a figure shows, by its suffix; none where that is in another file."""
    return {} if data is None else {".csv": csv(data).encode()}
