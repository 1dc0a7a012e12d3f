"""What is taken for what: confusion matrices of the conditions of a plan, with margins, summed over folds and seeds."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes

from analysis.output.folder import OutputFolder
from analysis.output.number_format import format_text
from analysis.output.style import split_into_panels, with_style
from analysis.plots.learning_curves import Groups, missing_runs_note
from core.store.runs import Store

MAX_CLASSES_WITH_NUMBERS = 20  # the cells of a larger matrix have no room for numbers
MAX_CLASSES_PER_PANEL = 12  # and a matrix of more classes than these takes a page's width
MAX_PANELS = 6  # conditions beside each other in one figure; of more, each has a figure of its own
MAX_FIGURES = 12  # at most; a grid of many conditions and classes would take minutes to draw
MAX_NAME_LENGTH = 18  # characters of a class's name
MARGIN_LABEL = "All"
COLOUR_MAP = mpl.colormaps["cividis"].with_extremes(bad="#eeeeee")  # a class without clips has no share


@dataclass(frozen=True)
class ConfusionMatrix:
    """The confusion matrix of one group of runs."""

    values: dict[str, Any]  # what the runs have in common
    class_names: tuple[str, ...]
    clips: npt.NDArray[np.int64]  # (classes, classes): target by prediction, summed over the runs
    runs: int

    @property
    def title(self) -> str:
        """Name the group."""
        return ", ".join(format_text(value) for value in self.values.values())


def write_confusion_by_condition(
    results: OutputFolder, groups: Groups, *, caption: str, name: str = "confusion"
) -> None:
    """Write a confusion matrix of every condition: panels of one figure, or a figure each where they are many or large.

    Parameters are those of `analysis.plots.learning_curves.write_learning_curves`; `name` is that of the figure's
    file: of several,
    each ends in the name of its condition.
    """
    matrices = sum_confusion_matrices(groups, results.session.store)
    lost = sum(len(planned) for _, planned in groups) - sum(matrix.runs for matrix in matrices)
    write_confusion_matrices(results, matrices, caption=caption, name=name, lost=lost)


def write_confusion_matrices(
    results: OutputFolder,
    matrices: Sequence[ConfusionMatrix],
    *,
    caption: str,
    name: str = "confusion",
    lost: int = 0,
    counted: str = "test clips by target and predicted class, summed over folds and seeds",
) -> None:
    """Write matrices that were `counted`; parameters as `write_confusion_by_condition`, `lost` runs being left out."""
    if not matrices:
        return
    together = len(matrices) <= MAX_PANELS and max(len(m.class_names) for m in matrices) <= MAX_CLASSES_PER_PANEL
    said = (
        f"{counted}; colour is the share of the target's "
        "clips. All: a class's clips with its recall, or the clips predicted as it with its precision; in the corner "
        "the accuracy." + (f" {missing_runs_note(lost).capitalize()}." if lost else "")
    )
    if not together and len(matrices) > MAX_FIGURES:
        said += f" Of {len(matrices)} conditions the first {MAX_FIGURES} are drawn."
    for part in [matrices] if together else [[matrix] for matrix in matrices[:MAX_FIGURES]]:
        if together:
            file, of = name, ", ".join(dict.fromkeys(matrix.title for matrix in part))
        else:
            of = part[0].title
            file = f"{name}-{re.sub(r'[^A-Za-z0-9.]+', '-', of).strip('-')}"
        across = 1 if len(part) == 1 else 2
        down = -(-len(part) // across)
        size = 3.5 if together else 7.0
        results.write_figure(
            file,
            pd.concat([_matrix_cells(matrix) for matrix in part], ignore_index=True),
            partial(_draw_panels, part, down=down, across=across),
            caption=f"{caption}, {of}: {said}",
            height=size * 0.95 * down,
            width=size * across,
        )


def sum_confusion_matrices(groups: Groups, store: Store) -> list[ConfusionMatrix]:
    """Sum the matrices of each group's finished runs; a group without any has none."""
    found = []
    for values, planned in groups:
        records = [record for one in planned if (record := store.finished(one.run))]
        if records:
            clips = np.asarray([record.confusion for record in records], np.int64).sum(axis=0)
            found.append(ConfusionMatrix(values, records[0].class_names, clips, len(records)))
    return found


def _matrix_cells(matrix: ConfusionMatrix) -> pd.DataFrame:
    """Return a row for each cell: what it is of, ``target``, ``predicted``, ``clips`` and ``share``.

    The share is of the target's clips; in the column of all predictions the class's recall, in the row of all targets
    its precision, in the corner the accuracy.
    """
    clips, shares = add_margins(matrix.clips)
    names = [*matrix.class_names, MARGIN_LABEL]
    rows = [
        {**matrix.values, "target": target, "predicted": predicted, "clips": clips[i, j], "share": shares[i, j]}
        for i, target in enumerate(names)
        for j, predicted in enumerate(names)
    ]
    return pd.DataFrame(rows)


def add_margins(matrix: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Add the sums of rows and columns to a confusion matrix.

    Parameters
    ----------
    matrix
        Clips, shape (classes, classes): target by prediction.

    Returns
    -------
    clips
        Shape (classes + 1, classes + 1), the last row and column being sums.
    shares
        Of the same shape, 0 to 1: of the target's clips; in the last column recall, in the last row precision, in the
        corner accuracy; nan of a class without clips.
    """
    counts = np.asarray(matrix, dtype=np.int64)
    clips = np.pad(counts, (0, 1))
    clips[-1, :-1], clips[:-1, -1], clips[-1, -1] = counts.sum(axis=0), counts.sum(axis=1), counts.sum()
    right, whole = np.diag(counts), clips.astype(np.float64)
    whole[whole == 0] = np.nan
    shares = clips / whole[:, -1:]
    shares[:-1, -1], shares[-1, :-1], shares[-1, -1] = (
        right / whole[:-1, -1],
        right / whole[-1, :-1],
        right.sum() / whole[-1, -1],
    )
    return clips, shares


@with_style
def _draw_panels(matrices: Sequence[ConfusionMatrix], ax: Axes, *, down: int, across: int) -> None:
    grid = [panel for row in split_into_panels(ax, down, across) for panel in row]
    for matrix, panel in zip(matrices, grid, strict=False):
        draw_confusion_matrix(matrix.clips, matrix.class_names, panel, room=1 / down)
        panel.set_title(_shorten_name(matrix.title), loc="left")
    for panel in grid[len(matrices) :]:
        panel.set_axis_off()


@with_style
def draw_confusion_matrix(matrix: npt.ArrayLike, class_names: Sequence[str], ax: Axes, *, room: float = 1.0) -> Axes:
    """Draw a confusion matrix with its margins.

    Parameters
    ----------
    matrix
        Clips, shape (classes, classes): target by prediction.
    class_names
        One name for each class.
    ax
        Where to draw.
    room
        Share of the figure's height that the panel has.
    """
    counts = np.asarray(matrix)
    n = len(class_names)
    if counts.shape != (n, n):
        raise ValueError(f"matrix {counts.shape} and {n} class names do not fit")
    clips, shares = add_margins(counts)
    cell = 72 * 0.62 * room * ax.figure.bbox.height / ax.figure.dpi / (n + 1.2)  # points
    ax.imshow(shares[:-1, :-1], cmap=COLOUR_MAP, vmin=0, vmax=1)
    centres = [*range(n), n + 0.2]  # a gap before the margins
    if n <= MAX_CLASSES_WITH_NUMBERS:
        for (row, column), share in np.ndenumerate(shares):
            margin = row == n or column == n
            words = f"{clips[row, column]}" if not margin else _format_margin(int(clips[row, column]), float(share))
            colour = "black" if margin or not share <= 0.5 else "white"
            size = min(6.5, cell * (0.36 if margin else 0.5))
            ax.text(centres[column], centres[row], words, color=colour, ha="center", va="center", fontsize=size)
    else:
        for part, extent in (
            (shares[:-1, -1:], (n - 0.3, n + 0.7, n - 0.5, -0.5)),
            (shares[-1:, :-1], (-0.5, n - 0.5, n + 0.7, n - 0.3)),
            (shares[-1:, -1:], (n - 0.3, n + 0.7, n + 0.7, n - 0.3)),
        ):
            ax.imshow(part, cmap=COLOUR_MAP, vmin=0, vmax=1, extent=extent)
    ax.set(xlim=(-0.5, n + 0.75), ylim=(n + 0.75, -0.5), aspect="equal", xlabel="Predicted", ylabel="Target")
    names = [*map(_shorten_name, class_names), MARGIN_LABEL]
    ax.set_xticks(centres, names, rotation=90, fontsize=min(7.0, 0.9 * cell))
    ax.set_yticks(centres, names, fontsize=min(7.0, 0.9 * cell))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def _format_margin(clips: int, share: float) -> str:
    return f"{clips}\n{100 * share:.0f} %" if np.isfinite(share) else f"{clips}"


def _shorten_name(name: str) -> str:
    """Shorten a name, and keep it from being read as mathematics."""
    shown = format_text(name)
    return (shown if len(shown) <= MAX_NAME_LENGTH else shown[: MAX_NAME_LENGTH - 1] + "…").replace("$", r"\$")
