"""Style of all figures: width of a paper column, colour-blind safe colours, PNG and vector PDF.

``--style`` changes it (`analysis.output.paper_style`).
"""

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine

from analysis.output.fonts import add_fonts, without_glyph_warnings
from analysis.output.number_format import to_csv
from analysis.output.paper_style import active_style
from analysis.output.writers import write_formats
from core.errors import unknown_name_error

COLUMN_WIDTH, PAGE_WIDTH = 3.5, 7.16  # inches: one column, and both columns of a two-column paper
DEFAULT_SIZE = {"width": COLUMN_WIDTH, "height": 2.5}  # inches
DPI = 300  # of the PNG files
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")  # Okabe and Ito 2008
MARKERS = "osD^vPX"
STYLES = ("-", "--", "-.")  # line styles, which distinguish lines of the same colour
GREY = "#767676"
FONT_SIZE = 8.0  # points, of axis labels
RC_PARAMS: Any = {
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
    "pdf.fonttype": 42,  # embed TrueType fonts, as journals require
}
MAX_VECTOR_CELLS = 1000  # figures whose heat maps have more cells get no SVG file
NARROW_SUFFIX = "-narrow.svg"  # of a figure whose panels are stacked for a narrow screen
DARK_STYLE = """
@media (prefers-color-scheme: dark) {
svg { fill: #e8eaed; }
[style*="fill: #000000"] { fill: #e8eaed !important; }
[style*="fill: #767676"] { fill: #b0b6bd !important; }
[style*="fill: #ffffff; stroke"] { fill: #1b1f24 !important; }
[style*="fill: #0072b2"] { fill: #56a9e0 !important; }
[style*="stroke: #000000"] { stroke: #e8eaed !important; }
[style*="stroke: #767676"] { stroke: #b0b6bd !important; }
[style*="stroke: #0072b2"] { stroke: #56a9e0 !important; }
}
"""
FONT_SIZES = {  # points, with the default font size
    **dict.fromkeys(("font.size", "axes.labelsize", "axes.titlesize"), 8.0),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize", "legend.title_fontsize"), 7.0),
}
GENERIC_FONTS = ("serif", "sans-serif", "monospace")
P = ParamSpec("P")
R = TypeVar("R")


def scale_font(points: float) -> float:
    """Return a font size that is `points` with the default style, scaled to the style in use."""
    return points * (active_style().font_size or FONT_SIZE) / FONT_SIZE


def pick_colour(k: int) -> str:
    """Return the colour of the k-th line or bar; after the last colour they begin again."""
    colours = active_style().colours or COLOURS
    return colours[k % len(colours)]


def pick_line_style(k: int) -> str:
    """Return the style of the k-th line, which differs for lines of the same colour."""
    return STYLES[k // len(active_style().colours or COLOURS) % len(STYLES)]


def rc_params() -> Any:
    """Return the matplotlib settings of the style in use."""
    family = {"font.family": active_style().font} if active_style().font else {}
    return {**RC_PARAMS, **{name: scale_font(size) for name, size in FONT_SIZES.items()}, **family}


def with_style(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that draws: the style applies inside the function only."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with mpl.rc_context(rc_params()):
            return function(*args, **kwargs)

    return wrapper


def check_font(family: str) -> None:
    """Raise `UserError` if no font of this family is installed."""
    known = [*GENERIC_FONTS, *sorted(set(font_manager.get_font_names()))]
    if family and family not in known:
        raise unknown_name_error("font in --style:", family, known)


@with_style
def new_figure(*, height: float = DEFAULT_SIZE["height"], width: float = COLUMN_WIDTH) -> tuple[Figure, Axes]:
    """Return a figure of `width` by `height` inches with a single panel, and the axes of the panel."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


@with_style
def split_into_panels(ax: Axes, rows: int, columns: int) -> list[list[Axes]]:
    """Replace the only panel of a figure with a grid of panels; return the axes as `rows` lists of `columns`."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    ax.remove()
    grid: list[list[Axes]] = figure.subplots(rows, columns, squeeze=False).tolist()
    return grid


@with_style
def add_panel_letters(figure: Figure) -> None:
    """Write (a), (b) and so on above the panels of a figure, if the style asks for it and there are several."""
    panels = [ax for ax in figure.axes if ax.axison and ax.get_subplotspec() is not None]
    if not active_style().panel_letters or len(panels) < 2:
        return
    for k, ax in enumerate(panels):
        place: Any = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right", "va": "bottom"}
        ax.annotate(f"({chr(ord('a') + k % 26)})", (0, 1), (-4, 3), fontweight="bold", **place)


@with_style
def add_legend_above(ax: Axes, *, title: str = "") -> None:
    """Add one legend for the lines of a panel, above all panels of its figure."""
    figure = ax.get_figure(root=True)
    handles, labels = ax.get_legend_handles_labels()
    if figure is not None and len(labels) > 1:
        width = count_characters(figure.get_figwidth())  # a handle takes four
        columns = max(1, min(len(labels), int(width / (4 + max(map(len, labels))))))
        figure.legend(handles, labels, loc="outside upper left", ncols=columns, title=title, alignment="left")


def count_characters(width: float) -> float:
    """Return the number of characters of a legend or of ticks that fit into `width` inches."""
    return 17 * 7 / scale_font(7) * width


def escape_mathtext(value: str) -> str:
    """Escape dollar signs, which matplotlib would read as mathematics."""
    return value.replace("$", r"\$")


def _break_labels(figure: Figure) -> None:
    """Break vertical axis labels that are longer than the figure into two lines; the figure must be drawn already."""
    for ax in figure.axes:
        label = ax.yaxis.label
        extent, text = label.get_window_extent(), label.get_text()
        spaces = [k for k, character in enumerate(text) if character == " "]
        breaks = [k for k in spaces if text[k - 1] == ","] or spaces
        if breaks and "\n" not in text and (extent.y0 < 0 or extent.y1 > figure.bbox.height):
            middle = min(breaks, key=lambda k: abs(k - len(text) / 2))
            label.set_text(f"{text[:middle]}\n{text[middle + 1 :]}")


def _make_svg(figure: Figure) -> bytes:
    """Return a figure as SVG without date, doctype and random ids; on dark pages its black becomes light."""
    svg, has_heat_map = io.BytesIO(), _count_cells(figure) > 0
    with mpl.rc_context({"svg.hashsalt": "figure", "svg.fonttype": "path"}):
        figure.savefig(svg, format="svg", transparent=not has_heat_map, metadata={"Date": None, "Creator": None})
    text = svg.getvalue().decode()
    text = text[text.index("<svg") :]
    if not has_heat_map:
        text = text.replace("</svg>", f"<style>{DARK_STYLE}</style></svg>")
    return text.encode()


def _count_cells(figure: Figure) -> int:
    """Return the number of cells of all heat maps of a figure."""
    meshes = [each for ax in figure.axes for each in (*ax.images, *ax.collections)]
    arrays = [each.get_array() for each in meshes if isinstance(each, AxesImage | QuadMesh)]
    return sum(array.size for array in arrays if array is not None)


def _stack_panels(figure: Figure) -> bool:
    """Put the panels of a wide figure below each other, one column wide; return False if no panels are side by side."""
    specs = [spec for ax in figure.axes if (spec := ax.get_subplotspec())]
    has_columns = any(spec.colspan.start for spec in specs)
    if figure.get_figwidth() <= COLUMN_WIDTH or not has_columns or len(specs) < len(figure.axes):
        return False
    if _count_cells(figure):
        return False
    height = figure.get_figheight() / max(spec.rowspan.stop for spec in specs)
    grid = GridSpec(len(specs), 1, figure=figure)
    for k, ax in enumerate(figure.axes):
        ax.set_subplotspec(grid[k])
    for legend in figure.legends:
        legend.set_ncols(min(2, len(legend.get_texts())))
    figure.set_size_inches(COLUMN_WIDTH, height * len(specs))
    figure.set_layout_engine("constrained")
    return True


def _add_note(figure: Figure, note: str) -> None:
    """Write a line below a figure, in space that the layout leaves free."""
    height = 0.14 / figure.get_figheight()  # inches
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(rect=(0, height, 1, 1 - height))
    figure.text(0.01, 0.1 * height, note, fontsize=6, color=GREY, ha="left", va="bottom")


@with_style
def save_figure(
    figure: Figure, path: Path, data: pd.DataFrame | None = None, *, dpi: int = DPI, note: str = ""
) -> list[Path]:
    """Write a figure as PNG, PDF and SVG and its data as CSV.

    The SVG file follows light and dark mode, unless the figure has a heat map; there is none for large heat maps. A
    wide figure with panels side by side also gets an SVG file with stacked panels, for a narrow screen.

    The files have no timestamps: the same figure gives the same bytes. Each file is written atomically.

    Parameters
    ----------
    figure
        The figure.
    path
        The files' path without suffix.
    data
        The numbers shown in the figure, or None if another file has them.
    dpi
        Resolution of the PNG.
    note
        A line below the figure, or "".

    Returns
    -------
    list of Path
        The .png, .pdf and .svg files, and with `data` the .csv file.

    Raises
    ------
    UserError
        If the folder is read-only or full.
    """
    png, pdf = io.BytesIO(), io.BytesIO()
    if note:
        _add_note(figure, note)
    with without_glyph_warnings():
        figure.draw_without_rendering()  # labels of axes get their texts and places
        if add_fonts(figure):
            figure.draw_without_rendering()
        _break_labels(figure)
        figure.savefig(png, format="png", dpi=dpi, metadata={"Software": None})
        figure.set_layout_engine("none")  # keep the PNG's layout in the PDF
        figure.savefig(pdf, format="pdf", dpi=dpi, metadata={"CreationDate": None})
        vector = {".svg": _make_svg(figure)} if _count_cells(figure) <= MAX_VECTOR_CELLS else {}
        if vector and _stack_panels(figure):
            vector[NARROW_SUFFIX] = _make_svg(figure)
    table = {} if data is None else {".csv": to_csv(data).encode()}
    return write_formats(path, {".png": png.getvalue(), ".pdf": pdf.getvalue(), **vector, **table})
