"""Attribution maps of clips, with their logits and completeness errors."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax
from torch import nn

from analysis.attribution import methods
from analysis.attribution.attribution_model import AttributionModel
from analysis.attribution.integrated_gradients import IGSettings, integrated_gradients
from analysis.output.writers import write_formats
from core.inputs.base import Axis
from core.progress import Progress, no_progress


@dataclass(frozen=True)
class AttributionMaps:
    """Attribution maps of some clips, for one method and one baseline.

    Attributes
    ----------
    method, baseline
        Names of the method and of the baseline.
    inputs
        Images (clips, channels, n_mels, n_frames) in dB.
    baselines
        Baselines (clips, images per clip, channels, n_mels, n_frames) in dB.
    attributions
        Attributions (clips, channels, n_mels, n_frames) in logit, or in logit per dB for ``saliency``.
    gradients
        Mean gradients, whose product with ``inputs - baselines`` gives the attributions; None for other methods than
        Integrated Gradients.
    target
        Class whose logit is attributed, shape (clips,).
    logits
        Logits of the inputs, shape (clips, classes).
    output, baseline_output
        Logit of the target for the input and for the baseline (mean over several baselines), shape (clips,).
    convergence_delta
        Sum of the attributions minus ``output - baseline_output``, shape (clips,); NaN for methods without
        completeness.
    steps
        Number of path points or samples, shape (clips,); 0 for methods that have none.
    has_probabilities
        Whether the softmax outputs are estimates of probabilities; False for hinge loss.
    """

    method: str
    baseline: str
    inputs: np.ndarray
    baselines: np.ndarray
    attributions: np.ndarray
    gradients: np.ndarray | None
    target: np.ndarray
    logits: np.ndarray
    output: np.ndarray
    baseline_output: np.ndarray
    convergence_delta: np.ndarray
    steps: np.ndarray
    has_probabilities: bool = True

    @property
    def probabilities(self) -> np.ndarray:
        """Softmax of the logits of the inputs, shape (clips, classes)."""
        return np.asarray(softmax(self.logits.astype(np.float64), axis=1))

    def describe_class(self, clip: int, index: int, class_names: Sequence[str]) -> str:
        """Return the name of a class, with its probability for a clip if the network gives probabilities."""
        return (
            f"{class_names[index]} {self.probabilities[clip, index]:.0%}"
            if self.has_probabilities
            else class_names[index]
        )

    @property
    def error(self) -> np.ndarray:
        """Absolute completeness error divided by the absolute difference of the logits, shape (clips,); 0 for 0 / 0."""
        difference = np.abs(self.output - self.baseline_output)
        delta = np.abs(self.convergence_delta)
        return np.divide(delta, difference, out=np.where(delta > 0, np.inf, delta), where=difference > 0)

    @property
    def channel_sum(self) -> np.ndarray:
        """Attributions summed over channels, shape (clips, n_mels, n_frames)."""
        return np.asarray(self.attributions.sum(axis=1))

    def clip_arrays(self, clip: int) -> dict[str, np.ndarray]:
        """Return the input, the attribution and the other arrays of one clip, by the names of the attributes."""
        names = ("inputs", "baselines", "attributions", "target", "output", "baseline_output", "convergence_delta")
        return {name: np.asarray(getattr(self, name)[clip]) for name in (*names, "logits", "steps")}

    def save_clip(self, path: Path, clip: int) -> list[Path]:
        """Write the arrays of one clip to ``path.npz`` and return the path of the file."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **self.clip_arrays(clip))
        return write_formats(path, {".npz": buffer.getvalue()})


def attribute(
    model: AttributionModel,
    inputs: np.ndarray,
    baselines: np.ndarray,
    target: np.ndarray,
    *,
    method: str = methods.INTEGRATED_GRADIENTS,
    baseline: str = "silence",
    layer: nn.Module | None = None,
    ig_settings: IGSettings | None = None,
    progress: Progress = no_progress,
) -> AttributionMaps:
    """Attribute a logit of each clip to the pixels of its image.

    Parameters
    ----------
    model
        The network.
    inputs
        Images (clips, channels, n_mels, n_frames) in dB.
    baselines
        Baselines (clips, images per clip, channels, n_mels, n_frames) in dB, for example from
        `analysis.attribution.baselines.make_baseline`.
    target
        Class whose logit is attributed, shape (clips,).
    method
        Name of the method, one of `analysis.attribution.methods.METHOD_NAMES`.
    baseline
        Name of the baseline; it is only stored in the result.
    layer
        Module of `model.network`, for ``gradcam``.
    ig_settings, progress
        As in `integrated_gradients`. GradientShap draws ``ig_settings.n_steps`` samples.

    Raises
    ------
    ValueError
        If the shapes of inputs and baselines do not match.
    """
    if baselines.ndim != 5 or (baselines.shape[0], *baselines.shape[2:]) != inputs.shape:
        raise ValueError(f"shape {baselines.shape} of baselines does not match inputs {inputs.shape}")
    ig_settings = ig_settings or IGSettings()
    outputs: dict[str, Any] = _compute_outputs(model, inputs, baselines, target)
    arguments = (model, inputs, baselines, target, outputs["output"] - outputs["baseline_output"])
    if method == methods.INTEGRATED_GRADIENTS:
        fields: dict[str, Any] = vars(integrated_gradients(*arguments, ig_settings=ig_settings, progress=progress))
    else:
        fields = _run_other_method(method, *arguments, samples=ig_settings.n_steps, layer=layer)
    return AttributionMaps(
        method=method, baseline=baseline, inputs=inputs, baselines=baselines, target=target, **outputs, **fields
    )


def _compute_outputs(
    model: AttributionModel, inputs: np.ndarray, baselines: np.ndarray, target: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the logits of the inputs, and the target's logit for the inputs and for the baselines (mean)."""
    logits, rows = model.compute_logits([inputs]), np.arange(len(inputs))
    at_baseline = np.stack([model.compute_logits([image])[rows, target] for image in baselines.swapaxes(0, 1)], axis=1)
    output, baseline_output = logits[rows, target].astype(np.float64), at_baseline.mean(axis=1, dtype=np.float64)
    return {"logits": logits, "output": output, "baseline_output": baseline_output}


def _run_other_method(
    method: str,
    model: AttributionModel,
    inputs: np.ndarray,
    baselines: np.ndarray,
    target: np.ndarray,
    difference: np.ndarray,
    *,
    samples: int,
    layer: nn.Module | None,
) -> dict[str, Any]:
    """Run a method other than Integrated Gradients and return the fields of `AttributionMaps` that depend on it."""
    attributions = methods.run_method(method, model, inputs, baselines, target, samples=samples, layer=layer)
    delta, steps = np.full(len(inputs), np.nan), np.zeros(len(inputs), np.int64)
    if method in methods.COMPLETE_METHODS:
        delta, steps = attributions.sum(axis=(1, 2, 3), dtype=np.float64) - difference, np.full(len(inputs), samples)
    return {"attributions": attributions, "gradients": None, "convergence_delta": delta, "steps": steps}


def class_profiles(
    maps: AttributionMaps, labels: np.ndarray, class_names: Sequence[str], axes: tuple[Axis, Axis]
) -> pd.DataFrame:
    """Average the maps of each class over its clips, and sum them along rows and along columns of the image.

    Parameters
    ----------
    maps
        Attribution maps.
    labels
        Class of each clip, shape (clips,).
    class_names
        Names of all classes.
    axes
        Axes of height and width.

    Returns
    -------
    DataFrame
        One row for each class, axis and position on the axis (not for a height of one row). Columns: ``class``,
        ``clips`` (number of clips), ``axis``, ``index`` (position), ``share`` (fraction of the absolute attribution at
        this position), and for features their ``name``. Each clip has the same weight. The fractions along an axis sum
        to 1, or to 0 if all maps are zero.
    """
    weight = np.abs(maps.attributions).sum(axis=1, dtype=np.float64)
    total = weight.sum(axis=(1, 2), keepdims=True)
    share = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
    rows = []
    for label in np.unique(labels):
        part = share[labels == label].mean(axis=0)
        for axis, profile in zip(axes, (part.sum(axis=1), part.sum(axis=0)), strict=True):
            if axis is axes[0] and len(profile) == 1:
                continue
            keys = {"class": class_names[label], "clips": int(np.sum(labels == label)), "axis": axis.name}
            frame = pd.DataFrame({**keys, "index": np.arange(len(profile)), "share": profile})
            rows.append(frame.assign(name=axis.names) if axis.names else frame)
    return pd.concat(rows, ignore_index=True)
