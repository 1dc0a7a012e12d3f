"""Input samples of every class: an image of each input and the sound it is computed from."""

import math
from collections.abc import Sequence

import numpy as np
import soundfile
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.output.image_view import ImageAxes, draw_image
from analysis.output.output_folder import OutputFolder
from analysis.output.style import PAGE_WIDTH, escape_mathtext, save_figure, with_style
from analysis.output.writers import to_file_name
from core.audio.reading import read_waveform
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.io.atomic_files import atomic_write
from core.training.run_inputs import load_plain_inputs, split_rows

MAX_COLUMNS = 5  # clips per row
DPI = 150
DEFAULT_COLOUR_MAP = "magma"  # for inputs without colours of their own
WAVEFORM_POINTS = 500  # points of a drawn waveform
SEED = 0


def write_input_samples(results: OutputFolder, *, per_class: int) -> None:
    """Write a figure with clips of all classes, and an image and a sound file of each of these clips.

    Parameters
    ----------
    results
        Output folder of a plan with one run, which need not be trained.
    per_class
        Largest number of clips per class, from the test fold.

    Raises
    ------
    UserError
        If the data set has no sounds, or the inputs are not images.
    """
    (run,) = results.plan.runs
    dataset = results.plan.datasets[run.data.content]
    if dataset.vectors is not None:
        raise UserError(
            f"samples: {dataset.name} has feature vectors instead of sounds; use data --data {dataset.name}"
        )
    if ImageAxes.from_run(run).across.names:
        raise UserError(
            f"samples: --input {run.frontend.kind} gives feature vectors, not images; choose another --input"
        )
    images = load_plain_inputs(run, dataset, results.session)
    view = ImageAxes.from_run(run)
    clips = dataset.clips.iloc[images.clip_rows]
    labels, paths = clips["label"].to_numpy(), clips["path"].tolist()
    rows = select_clips(labels, split_rows(run, dataset, images).test, per_class=per_class)
    inputs = {row: np.asarray(images.array[row]).reshape(view.shape).mean(axis=0) for row in rows}
    titles = {row: dataset.class_names[labels[row]] for row in rows}
    unit = f" in {view.unit}" if view.unit else ""
    cmap = DEFAULT_COLOUR_MAP if run.frontend.colour == "none" else run.frontend.colour
    figure = make_clip_grid([inputs[row] for row in rows], [titles[row] for row in rows], view, cmap=cmap)
    files = save_figure(figure, results.folder / "samples")
    results.add_item(
        "figure", "samples", f"{dataset.name}: clips of every class as {run.frontend.kind} inputs{unit}", files
    )
    for row in rows:
        name = to_file_name(f"{titles[row]}-{row}")
        sound = _write_sound(results, run, dataset, paths[row], name)
        figure = make_clip_grid([inputs[row]], [titles[row]], view, cmap=cmap)
        files = save_figure(figure, results.folder / "clips" / name, dpi=DPI)
        facts = {"clip": paths[row], "sound": sound, "class": titles[row]}
        results.add_item("map", name, f"{paths[row]} ({titles[row]})", files, **facts)


def select_clips(labels: np.ndarray, rows: np.ndarray, *, per_class: int) -> list[int]:
    """Select rows of every class at random with a fixed seed.

    Parameters
    ----------
    labels
        Class of each row, shape (clips,).
    rows
        Rows to choose from.
    per_class
        Largest number of rows per class.

    Returns
    -------
    list of int
        The rows, sorted by class.
    """
    shuffled = np.random.default_rng(SEED).permutation(rows)
    by_class = (shuffled[labels[shuffled] == label][:per_class] for label in np.unique(labels[rows]))
    return [int(row) for selected in by_class for row in np.sort(selected)]


@with_style
def make_clip_grid(
    images: Sequence[np.ndarray], titles: Sequence[str], view: ImageAxes, *, cmap: str = DEFAULT_COLOUR_MAP
) -> Figure:
    """Draw images or waveforms in rows of `MAX_COLUMNS`, all with the same value range.

    Parameters
    ----------
    images
        Mean over the channels of each input, shape (height, width); height 1 for waveforms.
    titles
        Title of each panel.
    view
        Axes of the inputs.
    cmap
        Name of a matplotlib colour map.
    """
    across = min(MAX_COLUMNS, len(images))
    down = math.ceil(len(images) / across)
    low = float(np.min([view.silence, *(image.min() for image in images)]))
    high = max(float(image.max()) for image in images) + 1e-9
    figure = Figure(figsize=(PAGE_WIDTH * across / MAX_COLUMNS + 0.6, 1.5 * down + 0.4), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False)
    is_line = view.shape[1] == 1
    for k, ax in enumerate(axes.flat):
        if k >= len(images):
            ax.set_axis_off()
            continue
        labelled = ("x" if k + across >= len(images) else "") + ("y" if k % across == 0 else "")
        if is_line:
            _draw_waveform(images[k][0], view, ax, highest=max(-low, high), labelled=labelled)
        else:
            drawn = draw_image(images[k], view, ax, cmap=cmap, low=low, high=high, labelled=labelled)
        ax.set_title(escape_mathtext(titles[k]), fontsize=8)
    if is_line:
        return figure
    bar = figure.colorbar(drawn, ax=axes, label=view.unit, shrink=0.8, aspect=30)
    bar.outline.set_visible(False)
    return figure


def _draw_waveform(y: np.ndarray, view: ImageAxes, ax: Axes, *, highest: float, labelled: str) -> None:
    """Draw the envelope of a waveform (samples,): minimum and maximum of `WAVEFORM_POINTS` parts."""
    parts = np.array_split(y, min(WAVEFORM_POINTS, len(y)))
    ax.fill_between(
        np.linspace(*view.across.edges, len(parts)),
        [float(part.min()) for part in parts],
        [float(part.max()) for part in parts],
        linewidth=0.5,
        edgecolor="face",
    )
    ax.set(xlim=view.across.edges, ylim=(-highest, highest))
    ax.tick_params(left="y" in labelled, labelleft="y" in labelled, bottom="x" in labelled, labelbottom="x" in labelled)
    ax.set(
        xlabel=view.across.label if "x" in labelled else "", ylabel=view.unit.capitalize() if "y" in labelled else ""
    )


def _write_sound(results: OutputFolder, run: Run, dataset: Dataset, path: str, name: str) -> str:
    """Write the waveform of a clip, as used for the input, as a WAV file; return its path inside the folder."""
    n_samples = round(run.clip.duration * run.clip.sr)
    y = read_waveform(dataset.root / path, sr=run.clip.sr, n_samples=n_samples, fit=run.clip.fit)
    file = results.folder / "clips" / f"{name}.wav"
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as temporary:
        soundfile.write(temporary, y, run.clip.sr, subtype="PCM_16", format="WAV")
    results.files.append(file)
    return file.relative_to(results.folder).as_posix()
