"""The style of a paper: sizes, font, colours, names and captions of tables and figures, from a TOML file (``--style``).

All keys are optional; `examples/paper.toml` has them all. A style changes how results are shown, and no number.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import pandas as pd

from core.errors import UserError, unknown_name_error
from core.system.atomic_files import read_regular_file
from core.system.toml_tables import convert_table

CM_PER_INCH = 2.54
Size = Annotated[float, msgspec.Meta(ge=2, le=60)]  # cm
Text = Annotated[str, msgspec.Meta(min_length=1)]
LABEL = r"[A-Za-z0-9:._-]+"


class TableStyle(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Style of one table; ``footnotes`` overrides that of all tables."""

    columns: tuple[Text, ...] = ()
    footnotes: bool | None = None
    caption: str = ""
    label: str = ""


class FigureStyle(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Style of one figure; its sizes override those of all figures."""

    width_cm: Size | None = None
    height_cm: Size | None = None
    panels: tuple[Text, ...] = ()
    caption: str = ""
    label: str = ""


class _StyleFile(msgspec.Struct, forbid_unknown_fields=True):
    """The keys of the file; the tables of one table or figure are converted one by one, to name them in errors."""

    width_cm: Size | None = None
    page_width_cm: Size | None = None
    font: str = ""
    font_size: Annotated[float, msgspec.Meta(ge=4, le=30)] | None = None
    colours: tuple[Text, ...] = ()
    panel_letters: bool = False
    footnotes: bool = True
    order: tuple[Text, ...] = ()
    names: dict[str, Text] = {}
    tables: dict[str, dict[str, Any]] = {}
    figures: dict[str, dict[str, Any]] = {}


class PaperStyle(msgspec.Struct, frozen=True):
    """A style.

    Attributes
    ----------
    width_cm, page_width_cm
        Width of figures of one column, and of wider figures; their heights keep the proportions. None: the default.
    font, font_size
        Font family, and size of axis labels in points; ticks and legends are smaller. "" and None: the default.
    colours
        Colours of lines and bars, such as "#0072B2", in the order of use; (): the default.
    panel_letters
        Whether the panels of a figure get the letters (a), (b) and so on.
    footnotes
        Whether tables have footnotes.
    order
        Names of conditions, data sets and networks in the order of rows, lines and bars; others follow.
    names
        Text to show in place of the name of a condition, data set, network or column.
    tables, figures
        Style of single tables and figures by the name of their file.
    """

    width_cm: float | None = None
    page_width_cm: float | None = None
    font: str = ""
    font_size: float | None = None
    colours: tuple[str, ...] = ()
    panel_letters: bool = False
    footnotes: bool = True
    order: tuple[str, ...] = ()
    names: dict[str, str] = {}
    tables: dict[str, TableStyle] = {}
    figures: dict[str, FigureStyle] = {}

    def table(self, name: str) -> TableStyle:
        """Return the style of the table with this name."""
        return self.tables.get(name, TableStyle())

    def figure(self, name: str) -> FigureStyle:
        """Return the style of the figure with this name."""
        return self.figures.get(name, FigureStyle())

    def rename(self, text: str) -> str:
        """Return a text as it is shown: a name, or names separated by commas, as in ``resnet18, block3``."""
        if text in self.names or not self.names:
            return self.names.get(text, text)
        return ", ".join(self.names.get(part, part) for part in text.split(", "))

    def sort_names(self, names: Iterable[str]) -> list[str]:
        """Return names in the order of the style; others follow in their own order."""
        return sorted(names, key=self._rank)

    def sort_rows(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of a frame in the order of the style, by the columns that contain its names, left to right.

        Rows that the style does not order keep their places among themselves.
        """
        if not self.order:
            return frame
        texts = [name for name in frame if frame[name].map(lambda value: isinstance(value, str)).all()]
        ranks = [frame[name].map(self._rank).to_numpy() for name in texts if set(frame[name]) & set(self.order)]
        if not ranks:
            return frame
        return frame.iloc[np.lexsort(ranks[::-1])]  # stable; the last key of lexsort is the first to sort by

    def check_items(self, tables: Iterable[str], figures: Iterable[str]) -> None:
        """Raise `UserError` if the style has a table or figure that is not among these names."""
        for kind, wanted, known in (("table", self.tables, list(tables)), ("figure", self.figures, list(figures))):
            for name in wanted:
                if name not in known:
                    raise unknown_name_error(f"{kind} in --style:", name, known)

    def _rank(self, name: str) -> int:
        return self.order.index(name) if name in self.order else len(self.order)


DEFAULT = PaperStyle()
_active = DEFAULT


def active_style() -> PaperStyle:
    """Return the style of the block `use_style`, or the default."""
    return _active


@contextmanager
def use_style(style: PaperStyle) -> Iterator[None]:
    """Use a style for all figures that are drawn inside the block."""
    global _active  # noqa: PLW0603
    before, _active = _active, style
    try:
        yield
    finally:
        _active = before


def load_style(path: Path | None) -> PaperStyle:
    """Read the style of a file; None: the default style.

    Raises
    ------
    UserError
        If the file cannot be read, a key is unknown (with the nearest match), or a value is not allowed.
    """
    if path is None:
        return DEFAULT
    try:
        content = msgspec.toml.decode(read_regular_file(path))
    except OSError as error:
        raise UserError(f"--style {path}: cannot be read ({error.strerror})") from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UserError(f"--style {path}: {error}") from None
    where = f"--style {path}"
    file: _StyleFile = convert_table(content, _StyleFile, where)
    tables = {
        name: convert_table(value, TableStyle, f"{where}, [tables.{name}]") for name, value in file.tables.items()
    }
    figures = {
        name: convert_table(value, FigureStyle, f"{where}, [figures.{name}]") for name, value in file.figures.items()
    }
    for colour in file.colours:
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
            raise UserError(f"{where}: colours: {colour!r} is no colour such as '#0072B2'")
    for name, item in [*tables.items(), *figures.items()]:
        if item.label and not re.fullmatch(LABEL, item.label):
            raise UserError(f"{where}, {name}: label {item.label!r}: use letters, digits and :-_. only")
    values = {name: getattr(file, name) for name in file.__struct_fields__ if name not in ("tables", "figures")}
    return PaperStyle(**values, tables=tables, figures=figures)


def select_panels(frame: pd.DataFrame, column: str, panels: Sequence[str], figure: str) -> pd.DataFrame:
    """Return the rows of the chosen panels of a figure, in the order of `panels`.

    Raises
    ------
    UserError
        If the figure has no such panel.
    """
    if not panels:
        return frame
    if not column:
        raise UserError(f"--style: the figure {figure} has one panel; remove its key 'panels'")
    known = [str(name) for name in frame[column].unique()]
    for name in panels:
        if name not in known:
            raise unknown_name_error(f"panel of the figure {figure} in --style:", name, known)
    return pd.concat([frame[frame[column].astype(str) == name] for name in panels], ignore_index=True)
