"""Plan and run an ablation from Python; the options have the names of the command line."""

import io
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablations import ABLATIONS
from ablations.planning.call import Call, Option, command_options, make_call
from ablations.planning.experiment import analyse_experiment, prepare
from ablations.planning.grid import read_execution_options
from ablations.planning.run_plan import execute
from analysis.output import style
from analysis.output.output_folder import OutputFolder
from analysis.output.tables import Column
from core.errors import UserError, unknown_name_error
from core.progress import make_reporter
from core.session import Session
from core.system.torch_settings import restored_generators, restored_settings, set_up_torch

NOT_IN_PYTHON = ("dry-run", "json")  # options of the terminal
DISPLAY_DPI = 120  # of figures in a notebook


def plan(ablation: str, **options: Any) -> "PlannedAblation":
    """Plan an ablation; nothing is trained yet.

    Parameters
    ----------
    ablation
        Name of the ablation, as on the command line: freeze, fusion, cutoff, compare, pretraining, weight-change,
        ensemble or attribute.
    options
        Options by their names on the command line, with underscores for dashes: ``block=3``, ``lr=[1e-3, 1e-4]``,
        ``fold="all"``, ``seed=range(3)``, ``results="results"``. Several values make a grid. None is the default.

    Returns
    -------
    PlannedAblation

    Raises
    ------
    UserError
        For an unknown ablation or option, with the most similar name, and for an invalid value.

    Examples
    --------
    >>> plan = ablations.plan("freeze", block=3, epochs=2)
    >>> plan.run()
    >>> plan.table
    """
    cls = ABLATIONS[ablation]
    call = make_call(ablation, cls, _make_words(ablation, command_options(cls), options))
    return PlannedAblation(call)


def _make_words(ablation: str, options: Sequence[Option], values: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return options as words of a command line, by flag without dashes."""
    by_name = {option.flag.replace("-", "_"): option for option in options if option.flag not in NOT_IN_PYTHON}
    words: dict[str, list[str]] = {}
    for name, value in values.items():
        if name not in by_name:
            raise unknown_name_error(f"option of {ablation}", name, by_name)
        option = by_name[name]
        if value is None:
            continue
        if option.type is bool:
            if not isinstance(value, bool | np.bool_):
                raise UserError(f"{name}={value!r}: give True or False")
            words[option.flag if value else f"no-{option.flag}"] = []
            continue
        several = not isinstance(value, str | Path) and isinstance(value, Iterable)
        words[option.flag] = [str(item) for item in value] if several else [str(value)]
        if len(words[option.flag]) != 1 and not (option.many and words[option.flag]):
            raise UserError(f"{name}={value!r}: give {'at least one value' if option.many else 'one value'}")
    return words


class PlannedAblation:
    """The runs of an ablation and, after `run`, their tables and figures; returned by `plan`.

    Attributes
    ----------
    command
        The same ablation as a command line.
    """

    def __init__(self, call: Call) -> None:
        self.command = call.line
        with ExitStack() as stack:
            self._enter(stack)
            reporter = stack.enter_context(make_reporter())
            self._session = Session(read_execution_options(call), reporter)
            self._experiment = prepare(call, self._session)
        self._output: KeptOutput | None = None

    @property
    def runs(self) -> pd.DataFrame:
        """The planned runs: ``run`` (id), ``condition``, ``data``, ``backbone``, ``fold``, ``seed`` and ``state``."""
        store, runs = self._session.store, self._experiment.plan.runs
        conditions = {planned.run.id: planned.condition for planned in reversed(self._experiment.plan.planned)}
        return pd.DataFrame(
            {
                "run": [run.id for run in runs],
                "condition": [conditions[run.id] for run in runs],
                "data": [run.data.display_name for run in runs],
                "backbone": [run.model.backbone for run in runs],
                "fold": [run.data.fold for run in runs],
                "seed": [run.seed for run in runs],
                "state": [store.status(run) for run in runs],
            }
        )

    def run(self) -> "PlannedAblation":
        """Train the runs that are not in the results folder yet, and write tables and figures.

        Finished runs are never trained again, and an interrupted call resumes. A failed run is reported by a warning,
        and left out of the tables.

        Returns
        -------
        PlannedAblation
            This object.

        Raises
        ------
        UserError
            If no run can be trained.
        """
        session, plan = self._session, self._experiment.plan
        with ExitStack() as stack:
            self._enter(stack)
            set_up_torch(session.device, session.threads)
            session.report = stack.enter_context(make_reporter())
            executed = execute(plan, session)
            output, _, executed = analyse_experiment(self._experiment, session, executed, make_folder=KeptOutput)
            output.write_description(self.command)
        self._output = output
        if executed.failed:
            warnings.warn(
                f"{executed.failed} of {len(plan.runs)} runs failed; see the column reason of open_results(...).runs",
                stacklevel=2,
            )
        return self

    @property
    def folder(self) -> Path:
        """Folder of the tables and figures."""
        return self._finished.folder

    @property
    def sentences(self) -> list[str]:
        """The result in sentences, one for each condition."""
        return self._finished.sentences

    @property
    def table(self) -> pd.DataFrame:
        """The main table: one row for each condition, with the columns that the command line prints."""
        frame, columns = self._find(self._finished.frames, "table", "table")
        return frame[list(dict.fromkeys(name for name in columns if name in frame))]

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables with all their columns, by name."""
        return {name: frame for name, (frame, _) in self._finished.frames.items()}

    @property
    def figure(self) -> Figure:
        """The main figure; a notebook displays it."""
        return self.draw().get_figure(root=True)  # type: ignore[return-value]

    @property
    def figures(self) -> list[str]:
        """Names of the figures that `draw` can draw."""
        return list(self._finished.drawings)

    def draw(self, name: str = "figure", ax: Axes | None = None) -> Axes:
        """Draw a figure.

        Parameters
        ----------
        name
            Name of the figure, one of `figures`.
        ax
            Axes to draw on; by default those of a new figure.

        Returns
        -------
        Axes
            Axes of the first panel of the figure.
        """
        draw, size = self._find(self._finished.drawings, name, "figure")
        with mpl.rc_context(style.RC_PARAMS):
            if ax is None:
                shape = (size.get("width", style.COLUMN_WIDTH), size.get("height", 2.5))
                ax = DisplayedFigure(figsize=shape, layout="constrained").add_subplot()
            figure = ax.get_figure(root=True)
            draw(ax)
        return ax if figure is None or ax in figure.axes else figure.axes[0]

    @property
    def _finished(self) -> "KeptOutput":
        if self._output is None:
            raise UserError("the ablation has only been planned: call run() first")
        return self._output

    def _find(self, found: Mapping[str, Any], name: str, kind: str) -> Any:
        if name in found:
            return found[name]
        if not found:
            raise UserError(f"{self._experiment.plan.ablation} has no {kind} here; see the files in {self.folder}")
        raise unknown_name_error(kind, name, found)

    @staticmethod
    def _enter(stack: ExitStack) -> None:
        """Restore the settings and random generators of torch, NumPy and Python at the end of the stack."""
        stack.enter_context(restored_settings())
        stack.enter_context(restored_generators())

    def __repr__(self) -> str:
        states = self.runs["state"].value_counts()
        counts = ", ".join(f"{count} {state}" for state, count in states.items())
        return "\n".join([f"PlannedAblation('{self._experiment.plan.ablation}', runs: {counts})", *self._sentences])

    def _repr_html_(self) -> str:
        shown = self.runs if self._output is None or "table" not in self._output.frames else self.table
        html = "".join(f"<p>{_escape(sentence)}</p>" for sentence in self._sentences)
        return f"{html}{shown.to_html(index=False)}"

    @property
    def _sentences(self) -> list[str]:
        return [] if self._output is None else self._output.sentences


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


@dataclass
class KeptOutput(OutputFolder):
    """An output folder that also keeps its tables and figures in memory.

    Attributes
    ----------
    frames
        Rows of each table, and the names of its printed columns, by name of the table.
    drawings
        Function that draws each figure on axes, and the size of the figure, by name of the figure.
    """

    frames: dict[str, tuple[pd.DataFrame, list[str]]] = field(default_factory=dict)
    drawings: dict[str, tuple[Callable[[Axes], Any], dict[str, float]]] = field(default_factory=dict)

    def write_table(self, name: str, frame: pd.DataFrame, columns: Sequence[Column], **more: Any) -> None:
        """Write a table as `OutputFolder.write_table`, and keep it."""
        numbers = more.get("numbers")
        self.frames[name] = frame if numbers is None else numbers, [column.name for column in columns]
        super().write_table(name, frame, columns, **more)

    def write_figure(self, name: str, data: pd.DataFrame, draw: Callable[..., Any], **more: Any) -> None:
        """Write a figure as `OutputFolder.write_figure`, and keep how it is drawn."""
        drawing = partial(draw, data, **(more.get("options") or {}))
        self.drawings[name] = drawing, {key: more[key] for key in ("width", "height") if key in more}
        super().write_figure(name, data, draw, **more)


class DisplayedFigure(Figure):
    """A figure that a notebook displays, also if pyplot is not used."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=DISPLAY_DPI)
        return buffer.getvalue()
