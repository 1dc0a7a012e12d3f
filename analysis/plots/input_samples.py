"""Input samples of every class: an image of each input and the sound it is computed from."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import soundfile
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from analysis.output.image_view import ImageAxes, draw_image
from analysis.output.output_folder import OutputFolder
from analysis.output.paper_style import use_style
from analysis.output.style import PAGE_WIDTH, escape_mathtext, scale_font, with_style
from analysis.output.writers import to_file_name
from core.audio.reading import read_waveform
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.inputs.input_kind import get_input_layout
from core.inputs.store.stored_inputs import DatasetInputs
from core.models.input_transform.colour import MIN_RANGE
from core.system.atomic_files import atomic_write
from core.training.fit_input_transform import fit_normalisation
from core.training.load_inputs import load_plain_inputs, split_rows

MAX_COLUMNS = 5  # clips per row
DPI = 150
DEFAULT_COLOUR_MAP = "magma"  # for inputs without colours of their own
WAVEFORM_POINTS = 500  # points of a drawn waveform
MAX_NAME_LENGTH = 100  # characters of a class name in file names
SEED = 0


@dataclass(frozen=True)
class Sample:
    """An input of the network, to be drawn.

    Attributes
    ----------
    title
        Class of the clip.
    values
        Mean over the channels, shape (height, width); height 1 for waveforms.
    low, high
        Values at both ends of the colour map. The network receives `low` as 0 and `high` as 1. With ``--normalise
        train``, they are the smallest and the largest value of all samples.
    own_range
        Whether `low` and `high` are the minimum and the maximum of this input.
    """

    title: str
    values: np.ndarray
    low: float
    high: float
    own_range: bool = False


def write_input_samples(results: OutputFolder, *, per_class: int, time_axis: str = "x") -> None:
    """Write a figure with clips of all classes, and an image and a sound file of each of these clips.

    Parameters
    ----------
    results
        Output folder of a plan with one run, which need not be trained.
    per_class
        Largest number of clips per class, from the test fold.
    time_axis
        Axis of the time in the figures, ``x`` or ``y``.

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
    samples = make_samples(run, dataset, images, rows)
    if run.frontend.normalise == "train":
        view = replace(view, unit="standard deviations")
    if time_axis == "y":
        view, samples = view.transpose(), [replace(sample, values=sample.values.T) for sample in samples]
    cmap = DEFAULT_COLOUR_MAP if run.frontend.colour == "none" else run.frontend.colour
    with use_style(results.paper):
        files = results.save_figure(make_clip_grid(samples, view, cmap=cmap), results.folder / "samples")
    results.add_item("figure", "samples", _caption(run, dataset, view), files)
    for row, sample in zip(rows, samples, strict=True):
        name = f"{to_file_name(sample.title)[:MAX_NAME_LENGTH]}-{row}"
        sound = _write_sound(results, run, dataset, paths[row], name)
        with use_style(results.paper):
            files = results.save_figure(
                make_clip_grid([sample], view, cmap=cmap), results.folder / "clips" / name, dpi=DPI
            )
        facts = {"clip": paths[row], "sound": sound, "class": sample.title}
        results.add_item("map", name, f"{paths[row]} ({sample.title})", files, **facts)


def make_samples(run: Run, dataset: Dataset, images: DatasetInputs, rows: Sequence[int]) -> list[Sample]:
    """Return the inputs with the indices `rows` as samples.

    With ``--normalise train`` their values are normalised, in standard deviations of the training clips. Otherwise they
    are in the unit of the input, and the input transform of the network maps the range from `Sample.low` to
    `Sample.high` to 0 .. 1.
    """
    labels = dataset.clips["label"].to_numpy()[images.clip_rows]
    inputs = [np.asarray(images.array[row]) for row in rows]
    if run.frontend.normalise == "train":
        normalise = fit_normalisation(run, images, split_rows(run, dataset, images))
        inputs = [normalise(torch.tensor(image)[None]).numpy()[0] for image in inputs]
    limits = [_range(run, image, inputs) for image in inputs]
    height_and_width = ImageAxes.from_run(run).shape[1:]
    return [
        Sample(dataset.class_names[labels[row]], image.reshape(-1, *height_and_width).mean(axis=0), *limit)
        for row, image, limit in zip(rows, inputs, limits, strict=True)
    ]


def _range(run: Run, image: np.ndarray, inputs: Sequence[np.ndarray]) -> tuple[float, float, bool]:
    """Return the values at both ends of the colour map, and whether they are the minimum and maximum of this image."""
    fixed = get_input_layout(run.clip, run.frontend).value_range
    if run.frontend.normalise == "train" or (run.frontend.levels == "fixed" and fixed is None):
        return float(min(each.min() for each in inputs)), float(max(each.max() for each in inputs)), False
    if run.frontend.levels == "fixed" and fixed:
        return *fixed, False
    low, high = float(image.min()), float(image.max())
    return low, max(high, low + MIN_RANGE), True


def _caption(run: Run, dataset: Dataset, view: ImageAxes) -> str:
    """Return the caption of the figure: what is drawn, and the range of the colours."""
    parts = [f"{dataset.name}: clips of every class as {run.frontend.kind} inputs"]
    if len(view.channels) > 1:
        parts.append(f"mean of the {len(view.channels)} channels")
    if run.frontend.normalise == "train":
        parts.append("in standard deviations of the training clips")
    elif run.frontend.levels == "image":
        parts.append(f"each from its own lowest to its own highest value in {view.unit}, as the network receives it")
    else:
        parts.append(f"all in the range in {view.unit} that the network receives as 0 to 1")
    return ", ".join(parts)


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
def make_clip_grid(samples: Sequence[Sample], view: ImageAxes, *, cmap: str = DEFAULT_COLOUR_MAP) -> Figure:
    """Draw images or waveforms in rows of `MAX_COLUMNS`.

    If each image has its own range, its title states the range, and the colour bar is relative to it.

    Parameters
    ----------
    samples
        Inputs to draw.
    view
        Axes of the inputs.
    cmap
        Name of a matplotlib colour map.
    """
    across = min(MAX_COLUMNS, len(samples))
    down = math.ceil(len(samples) / across)
    own_range = len(samples) > 1 and samples[0].own_range
    figure = Figure(figsize=(PAGE_WIDTH * across / MAX_COLUMNS + 0.6, 1.5 * down + 0.4), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False)
    is_line = view.shape[1] == 1
    drawn: ScalarMappable
    for ax in axes.flat[len(samples) :]:
        ax.set_axis_off()
    for k, (ax, sample) in enumerate(zip(axes.flat, samples, strict=False)):
        labelled = ("x" if k + across >= len(samples) else "") + ("y" if k % across == 0 else "")
        limits = {"low": sample.low, "high": sample.high}
        if is_line:
            _draw_waveform(sample.values[0], view, ax, highest=max(-sample.low, sample.high), labelled=labelled)
        else:
            drawn = draw_image(sample.values, view, ax, cmap=cmap, labelled=labelled, **limits)
        note = f"\n{sample.low:.0f} to {sample.high:.0f} {view.unit}" if own_range else ""
        ax.set_title(escape_mathtext(sample.title + note), fontsize=scale_font(8 - own_range))
    if is_line:
        return figure
    label = view.unit
    if own_range:
        drawn, label = ScalarMappable(Normalize(0, 1), cmap), "Position in the range of the image"
    below, above = (any(outside) for outside in zip(*(_exceeds_range(sample) for sample in samples), strict=True))
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
    bar = figure.colorbar(drawn, ax=axes, label=label, shrink=0.8, aspect=30, extend=extend[below, above])
    bar.outline.set_visible(False)
    return figure


def _exceeds_range(sample: Sample) -> tuple[bool, bool]:
    """Return whether the sample has values below, and whether it has values above the range of the colour map."""
    return bool(sample.values.min() < sample.low), bool(sample.values.max() > sample.high)


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
    content = io.BytesIO()  # libsndfile reports a full disk as "System error."
    soundfile.write(content, y, run.clip.sr, subtype="PCM_16", format="WAV")
    with atomic_write(file) as temporary:
        temporary.write_bytes(content.getvalue())
    results.files.append(file)
    return file.relative_to(results.folder).as_posix()
