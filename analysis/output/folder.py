"""Where an analysis leaves its tables and figures: files in one folder, and what the terminal and ``--json`` show."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from rich.console import RenderableType

from analysis.output import style, tables
from analysis.output.provenance import provenance_notes
from analysis.output.tables import Column
from analysis.output.writers import write_formats
from core.plan import Plan
from core.session import Session


@dataclass
class OutputFolder:
    """The runs of a plan, and what has been made of them.

    Attributes
    ----------
    plan, session
        The runs, and the store and device they are in and on.
    folder
        Where files are written.
    files
        Those written, in order.
    console_output
        What the terminal shows, in order.
    items
        What `write_description` writes of each table and figure.
    published_as
        The name that published numbers have for the data set, where it is not ours.
    """

    plan: Plan
    session: Session
    folder: Path
    files: list[Path] = field(default_factory=list)
    console_output: list[RenderableType] = field(default_factory=list)
    items: list[dict[str, Any]] = field(default_factory=list)
    published_as: str = ""

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
    ) -> None:
        """Write a table as CSV, Markdown and LaTeX, and show it; parameters are those of `tables.write_table`.

        The main table, which is called ``table``, says too which of its runs were made elsewhere or earlier.
        """
        footnotes = [*footnotes, *(provenance_notes(self.plan, self.session) if name == "table" else ())]
        files = tables.write_table(
            frame,
            self.folder / name,
            columns=columns,
            caption=caption,
            label=f"tab:{self.plan.ablation}-{name}",
            footnotes=footnotes,
            groups=groups,
        )
        header, rows = tables.format_cells(frame, columns, groups=groups)
        plain = {"header": header, "rows": [[dataclasses.asdict(cell) for cell in row] for row in rows]}
        self.add_item("table", name, caption, files, footnotes=footnotes, cells=plain)
        if show:
            self.console_output += [tables.make_console_table(frame, columns, title=caption, groups=groups), *footnotes]

    def write_figure(
        self, name: str, data: pd.DataFrame, draw: Callable[[Axes], Any], *, caption: str, **size: float
    ) -> None:
        """Draw on new axes and write the figure as PNG and PDF, with its data beside it as CSV.

        `caption` says what is to be seen, also to those who cannot see it; `size` is that of `style.new_figure`.
        """
        figure, ax = style.new_figure(**size)
        draw(ax)
        self.add_item("figure", name, caption, style.save_figure(figure, self.folder / name, data))

    def write_description(self, command: str) -> None:
        """Write ``analysis.json``: the command that makes this folder, its runs, and what each file shows."""
        runs = [run.id for run in self.plan.runs]
        values = {"ablation": self.plan.ablation, "command": command, "runs": runs, "items": self.items}
        if self.published_as:
            values["published_as"] = self.published_as
        write_formats(self.folder / "analysis", {".json": json.dumps(values, indent=1).encode()})

    def add_item(self, kind: str, name: str, caption: str, files: Sequence[Path], **more: Any) -> None:
        """Take files of this folder into its description.

        Parameters
        ----------
        kind
            table, figure or map.
        name, caption
            What they are called, and what they show.
        files
            Already written, in `folder` or a folder inside it.
        more
            Facts about them, in JSON's types. For a map: ``clip``, the path that names the clip, ``sound``, its file,
            and what the network said of it.
        """
        self.files += files
        names = [file.relative_to(self.folder).as_posix() for file in files]
        self.items.append({"kind": kind, "name": name, "caption": caption, "files": names, **more})
