"""Where an analysis leaves its tables and figures: files in one folder, and what the terminal and ``--json`` show."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from rich.console import RenderableType

from analysis import figures, tables
from analysis.tables import Column
from core.plan import Plan
from core.session import Session


@dataclass
class Results:
    """The runs of a plan, and what has been made of them.

    Attributes
    ----------
    plan, session
        The runs, and the store and device they are in and on.
    folder
        Where files are written.
    files
        Those written, in order.
    shown
        What the terminal shows, in order.
    """

    plan: Plan
    session: Session
    folder: Path
    files: list[Path] = field(default_factory=list)
    shown: list[RenderableType] = field(default_factory=list)

    def table(
        self,
        name: str,
        frame: pd.DataFrame,
        columns: Sequence[Column],
        *,
        caption: str,
        footnotes: Sequence[str] = (),
        groups: Sequence[str] = (),
    ) -> None:
        """Write a table as CSV, Markdown and LaTeX, and show it; parameters are those of `tables.write_table`."""
        label = f"tab:{self.plan.ablation}-{name}"
        self.files += tables.write_table(
            frame,
            self.folder / name,
            columns=columns,
            caption=caption,
            label=label,
            footnotes=footnotes,
            groups=groups,
        )
        self.shown += [tables.console_table(frame, columns, title=caption, groups=groups), *footnotes]

    def figure(self, name: str, data: pd.DataFrame, draw: Callable[[Axes], Any], **size: float) -> None:
        """Draw on new axes and write the figure as PNG and PDF, with its data beside it as CSV."""
        figure, ax = figures.new(**size)
        draw(ax)
        self.files += figures.save(figure, self.folder / name, data)
