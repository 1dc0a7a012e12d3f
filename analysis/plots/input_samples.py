"""Clips of every class: a picture of each as a network sees it, and a sound of each as it hears it."""

import math
import re
from collections.abc import Sequence

import numpy as np
import soundfile
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.attribution.map_figures import draw_image
from analysis.output.folder import OutputFolder
from analysis.output.image_view import ImageAxes
from analysis.output.style import PAGE_WIDTH, save_figure, with_style
from core.audio.reading import read_waveform
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.io.atomic_files import atomic_write
from core.training.run_inputs import load_plain_inputs, split_rows

MAX_COLUMNS = 5  # classes side by side
DPI = 150
DEFAULT_COLOUR_MAP = "magma"  # where the network is given no colours
WAVEFORM_POINTS = 500  # of a waveform that is drawn
SEED = 0


def write_input_samples(results: OutputFolder, *, per_class: int) -> None:
    """Write a figure of all classes, and a picture and a sound of every clip that is in it.

    Parameters
    ----------
    results
        Of a plan of one run, whose inputs are shown; nothing of it need be trained.
    per_class
        Clips of each class, or as many as the test fold has.
    """
    (run,) = results.plan.runs
    dataset = results.plan.datasets[run.data.content]
    if dataset.vectors is not None:
        raise UserError(
            f"samples: {dataset.name} has rows of numbers and no sounds to show; see data --data {dataset.name}"
        )
    if ImageAxes.from_run(run).across.names:
        raise UserError(f"samples: --input {run.frontend.kind} gives numbers and no pictures; choose another kind")
    images = load_plain_inputs(run, dataset, results.session)
    scale = ImageAxes.from_run(run)
    clips = dataset.clips.iloc[images.clip_rows]
    labels, paths = clips["label"].to_numpy(), clips["path"].tolist()
    rows = select_clips(labels, split_rows(run, dataset, images).test, per_class=per_class)
    inputs = {row: np.asarray(images.array[row]).reshape(scale.shape).mean(axis=0) for row in rows}
    titles = {row: dataset.class_names[labels[row]] for row in rows}
    what = f"{dataset.name}: {run.frontend.kind} in {scale.unit or 'their own units'}"
    cmap = DEFAULT_COLOUR_MAP if run.frontend.colour == "none" else run.frontend.colour
    figure = make_clip_grid([inputs[row] for row in rows], [titles[row] for row in rows], scale, cmap=cmap)
    files = save_figure(figure, results.folder / "samples")
    results.add_item("figure", "samples", f"A clip of every class of {what}", files)
    for row in rows:
        name = re.sub(r"[^\w.-]+", "_", f"{titles[row]}-{row}", flags=re.ASCII)
        sound = _write_sound(results, run, dataset, paths[row], name)
        figure = make_clip_grid([inputs[row]], [titles[row]], scale, cmap=cmap)
        files = save_figure(figure, results.folder / "clips" / name, dpi=DPI)
        facts = {"clip": paths[row], "sound": sound, "class": titles[row]}
        results.add_item("map", name, f"{paths[row]} ({titles[row]})", files, **facts)


def select_clips(labels: np.ndarray, rows: np.ndarray, *, per_class: int) -> list[int]:
    """Choose rows of every class, class by class; the same ones at every call.

    Parameters
    ----------
    labels
        (clips,) class of each row.
    rows
        Those to choose from.
    per_class
        How many of each class, or as many as there are.
    """
    mixed = np.random.default_rng(SEED).permutation(rows)
    return [int(row) for label in np.unique(labels[rows]) for row in np.sort(mixed[labels[mixed] == label][:per_class])]


@with_style
def make_clip_grid(
    images: Sequence[np.ndarray], titles: Sequence[str], scale: ImageAxes, *, cmap: str = DEFAULT_COLOUR_MAP
) -> Figure:
    """Draw images (height, width) in rows of five, all in one range of colours; waveforms as lines in one range.

    Parameters
    ----------
    images
        Of the clips, the mean of their channels.
    titles
        One for each.
    scale
        What their pixels stand for.
    cmap
        Name of the colours.
    """
    across = min(MAX_COLUMNS, len(images))
    down = math.ceil(len(images) / across)
    low = float(np.min([scale.silence, *(image.min() for image in images)]))
    high = max(float(image.max()) for image in images) + 1e-9
    figure = Figure(figsize=(PAGE_WIDTH * across / MAX_COLUMNS + 0.6, 1.5 * down + 0.4), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False)
    is_line = scale.shape[1] == 1
    for k, ax in enumerate(axes.flat):
        if k >= len(images):
            ax.set_axis_off()
            continue
        shown = ("x" if k + across >= len(images) else "") + ("y" if k % across == 0 else "")
        if is_line:
            _draw_waveform(images[k][0], scale, ax, highest=max(-low, high), axes=shown)
        else:
            drawn = draw_image(images[k], scale, ax, cmap=cmap, low=low, high=high, axes=shown)
        ax.set_title(titles[k].replace("$", r"\$"), fontsize=8)
    if is_line:
        return figure
    bar = figure.colorbar(drawn, ax=axes, label=scale.unit, shrink=0.8, aspect=30)
    bar.outline.set_visible(False)
    return figure


def _draw_waveform(y: np.ndarray, scale: ImageAxes, ax: Axes, *, highest: float, axes: str) -> None:
    """Draw a waveform (samples,) as the range that it has in each of so many parts of it, as sound editors do."""
    parts = np.array_split(y, min(WAVEFORM_POINTS, len(y)))
    ax.fill_between(
        np.linspace(*scale.across.edges, len(parts)),
        [float(part.min()) for part in parts],
        [float(part.max()) for part in parts],
        linewidth=0.5,
        edgecolor="face",
    )
    ax.set(xlim=scale.across.edges, ylim=(-highest, highest))
    ax.tick_params(left="y" in axes, labelleft="y" in axes, bottom="x" in axes, labelbottom="x" in axes)
    ax.set(xlabel=scale.across.label if "x" in axes else "", ylabel=scale.unit.capitalize() if "y" in axes else "")


def _write_sound(results: OutputFolder, run: Run, dataset: Dataset, path: str, name: str) -> str:
    """Write the waveform that the input is made of as a WAV file; return its name in the folder."""
    n_samples = round(run.clip.duration * run.clip.sr)
    y = read_waveform(dataset.root / path, sr=run.clip.sr, n_samples=n_samples, fit=run.clip.fit)
    file = results.folder / "clips" / f"{name}.wav"
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as temporary:
        soundfile.write(temporary, y, run.clip.sr, subtype="PCM_16", format="WAV")
    results.files.append(file)
    return file.relative_to(results.folder).as_posix()
