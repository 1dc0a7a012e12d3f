"""Output folder of an analysis: tables, figures and maps as files, and the output for the terminal."""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from rich.console import RenderableType

from analysis.output import style, tables
from analysis.output.number_format import to_csv
from analysis.output.paper_style import PaperStyle, load_style
from analysis.output.provenance import provenance_notes
from analysis.output.rendering import REDRAW, FigureItem, Item, TableItem, mark_text, write_in_style
from analysis.output.results_index import write_index
from analysis.output.tables import Column, FullTable
from analysis.output.writers import write_formats
from core.errors import UserError, escape_controls
from core.plan import Plan
from core.session import Session

MAIN_ITEMS = ("table", "figure")
QUICK_MARK = "quick settings"  # in captions of tables and figures of runs with --quick
QUICK_NOTE = (
    "Quick settings (--quick): smaller images and few epochs. They show that a command works; they are no results."
)


@dataclass
class OutputFolder:
    """The output folder of an analysis, with the plan that it analyses.

    Attributes
    ----------
    plan
        The analysed runs.
    session
        Store of the runs, device, and execution options.
    folder
        Path of the folder.
    files
        Files written so far, in order.
    console_output
        Tables and lines for the terminal, in order.
    items
        Descriptions of tables, figures and maps for `write_description`.
    redraw
        What is needed to write the tables and figures again (`analysis.output.rendering`).
    sentences
        The result in sentences, one for each condition.
    published_as
        Published name of the data set, given by ``--published-dataset``; otherwise "".
    analysis
        With ``--name``: the folder that the analysis has without this option, relative to the results; otherwise "".
    """

    plan: Plan
    session: Session
    folder: Path
    files: list[Path] = field(default_factory=list)
    console_output: list[RenderableType] = field(default_factory=list)
    items: list[dict[str, Any]] = field(default_factory=list)
    redraw: list[dict[str, Any]] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    published_as: str = ""
    analysis: str = ""

    def write_table(
        self,
        name: str,
        frame: pd.DataFrame,
        columns: Sequence[Column],
        *,
        caption: str,
        footnotes: Sequence[str] = (),
        groups: Sequence[str] = (),
        show: bool = True,
        numbers: pd.DataFrame | None = None,
        full: FullTable | None = None,
    ) -> None:
        """Write a table as CSV, Markdown and LaTeX, and print it on the terminal if `show` is True.

        If the cells of `frame` are texts, `numbers` has their values as numbers, for the file ``<name>-numbers.csv``.
        The other parameters are those of `tables.write_table`. The main table, named ``table``, gets additional
        footnotes if runs were trained with other library versions or on another device (`provenance_notes`).
        """
        caption = self._mark(caption)
        quick = [QUICK_NOTE] if self.plan.is_quick else []
        provenance = provenance_notes(self.plan, self.session) if name == "table" else []
        footnotes = [*quick, *footnotes, *provenance]
        if full:
            full = FullTable(full.columns, [*quick, *full.footnotes, *provenance])
        label = self.make_label("tab", name)
        item = TableItem(name, frame, columns, caption, label, footnotes, groups, full, self._quick_mark)
        shown, files = self._write(item)
        assert isinstance(shown, TableItem)
        if numbers is not None:
            files += write_formats(self.folder / f"{name}-numbers", {".csv": to_csv(numbers).encode()})
        self.add_item("table", name, files=files, **shown.describe())
        if show:
            table = tables.make_console_table(shown.frame, shown.columns, title=shown.caption, groups=groups)
            self.console_output += [table, *shown.footnotes]

    def write_figure(
        self,
        name: str,
        data: pd.DataFrame,
        draw: Callable[..., Any],
        *,
        caption: str,
        options: Mapping[str, Any] | None = None,
        panels: str = "",
        **size: float,
    ) -> None:
        """Draw a figure and write it as PNG, PDF, SVG and LaTeX, and its data as CSV.

        Parameters
        ----------
        name
            File name without suffix.
        data
            The numbers shown in the figure.
        draw
            Function of a module that draws: ``draw(data, ax, **options)``.
        caption
            Description of the figure; the report page uses it as alternative text as well.
        options
            Keyword arguments of `draw`; JSON values.
        panels
            Column of `data` with the names of the panels, or "" for a single panel.
        size
            ``width`` and ``height`` in inches, as for `style.new_figure`.
        """
        label = self.make_label("fig", name)
        item = FigureItem(
            name,
            data,
            draw,
            options or {},
            self._mark(caption),
            label,
            panels,
            {**style.DEFAULT_SIZE, **size},
            self._quick_mark,
        )
        shown, files = self._write(item)
        self.add_item("figure", name, shown.caption, files)

    def _write(self, item: Item) -> tuple[Item, list[Path]]:
        """Write an item in the style of ``--style``, and keep it for the command ``figures`` if it can be described."""
        with suppress(ValueError):  # a format or drawing function without a name, such as a lambda
            self.redraw.append(item.to_json())
        return write_in_style(item, self.folder, self.paper)

    @property
    def paper(self) -> PaperStyle:
        """The style of ``--style``."""
        return load_style(self.session.execution.style)

    def list_unused_styles(self) -> list[str]:
        """Return a message about a table or figure of ``--style`` that this folder does not have."""
        names = {kind: [item["name"] for item in self.redraw if item["kind"] == kind] for kind in ("table", "figure")}
        try:
            self.paper.check_items(names["table"], names["figure"])
        except UserError as error:
            return [str(error)]
        return []

    def save_figure(
        self, figure: Figure, path: Path, data: pd.DataFrame | None = None, *, dpi: int = style.DPI
    ) -> list[Path]:
        """Write a figure (`style.save_figure`); the figure says so if runs have quick settings."""
        return style.save_figure(figure, path, data, dpi=dpi, note=self._quick_mark.capitalize())

    @property
    def _quick_mark(self) -> str:
        return QUICK_MARK if self.plan.is_quick else ""

    def _mark(self, text: str) -> str:
        """Return a caption or a sentence; it ends with a mark if runs have quick settings."""
        return mark_text(text, self._quick_mark)

    def subfolder(self, plan: Plan, name: str) -> "OutputFolder":
        """Return the output folder of another plan inside this one, such as an experiment of a study."""
        analysis = f"{self.analysis}/{name}" * bool(self.analysis)
        return dataclasses.replace(
            self,
            plan=plan,
            folder=self.folder / name,
            analysis=analysis,
            files=[],
            console_output=[],
            items=[],
            redraw=[],
            sentences=[],
        )

    def make_label(self, kind: str, name: str) -> str:
        """Return a LaTeX label that no other folder has: "tab:freeze-esc50-resnet18-3fbfc0e4" for the main table.

        Parameters
        ----------
        kind
            "tab" or "fig".
        name
            Name of the table or figure; ``table`` and ``figure``, the main ones, are left out.
        """
        root = self.session.store.output
        folder = self.folder.relative_to(root).parts if self.folder.is_relative_to(root) else (self.folder.name,)
        parts = [*folder, *([name] if name not in MAIN_ITEMS else [])]
        return f"{kind}:{re.sub(r'[^A-Za-z0-9.-]+', '-', '-'.join(parts))}"

    def write_description(self, command: str) -> None:
        """Write ``analysis.json`` and, if there are sentences, ``summary.md``.

        ``analysis.json`` has the command, the run ids, the sentences, and a description of every file in the folder.
        ``redraw.json`` has what the command ``figures`` needs. The index of all results
        (`analysis.output.results_index`) is updated.
        """
        self.sentences = [self._mark(sentence) for sentence in self.sentences]
        if self.sentences:
            text = f"`{command}`\n\n" + "".join(f"- {sentence}\n" for sentence in self.sentences)
            self.files += write_formats(
                self.folder / "summary", {".md": escape_controls(text).encode("utf-8", "replace")}
            )
        runs = [run.id for run in self.plan.runs]
        values: dict[str, Any] = {"ablation": self.plan.ablation, "command": command, "runs": runs, "items": self.items}
        if self.sentences:
            values["sentences"] = self.sentences
        if self.plan.is_quick:
            values["quick"] = True
        if self.published_as:
            values["published_as"] = self.published_as
        write_formats(self.folder / REDRAW.removesuffix(".json"), {".json": json.dumps(self.redraw).encode()})
        if self.analysis:
            values["analysis"] = self.analysis
        write_formats(self.folder / "analysis", {".json": json.dumps(values, indent=1).encode()})
        if self.folder.is_relative_to(self.session.store.output):
            write_index(self.session.store.output)

    def add_item(self, kind: str, name: str, caption: str, files: Sequence[Path], **more: Any) -> None:
        """Add a table, figure or map to the description of this folder.

        Parameters
        ----------
        kind
            "table", "figure" or "map".
        name, caption
            Name and caption of the item.
        files
            Existing files of the item, inside `folder`.
        more
            Further facts as JSON values. For a map: ``clip`` (path of the clip), ``sound`` (name of its sound file),
            and the prediction of the network.
        """
        self.files += files
        caption = self._mark(caption)
        names = [file.relative_to(self.folder).as_posix() for file in files]
        self.items.append({"kind": kind, "name": name, "caption": caption, "files": names, **more})
