"""Maps of what a network listened to: attributions of clips, with all that is needed to judge them."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax
from torch import nn

from analysis.attribution import methods
from analysis.attribution.attribution_model import Explained
from analysis.attribution.integrated_gradients import Integral, integrated_gradients
from analysis.output.writers import write_formats
from core.progress import Progress, no_progress


@dataclass(frozen=True)
class Maps:
    """Attributions of some clips by one method against one baseline.

    Attributes
    ----------
    method, baseline
        Their names.
    inputs, attributions
        (clips, channels, n_mels, n_frames): dB, and units of the logit (per dB for ``saliency``).
    baselines
        (clips, images, channels, n_mels, n_frames) in dB.
    gradients
        Attributions without the factor ``inputs - baselines``; None where the method has no such factor.
    target
        (clips,): the class whose logit is attributed.
    logits
        (clips, classes) of the inputs.
    output, baseline_output
        (clips,): the target's logit for the input and for the baseline, the mean over several.
    convergence_delta
        (clips,): sum of the attributions minus ``output - baseline_output``; nan where the two need not be equal.
    steps
        (clips,): points on the path, or samples; 0 for a method without.
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

    @property
    def probabilities(self) -> np.ndarray:
        """(clips, classes) of the inputs."""
        return np.asarray(softmax(self.logits.astype(np.float64), axis=1))

    @property
    def error(self) -> np.ndarray:
        """(clips,): the sum's error as a share of the difference of the logits; 0 where both are nothing."""
        difference = np.abs(self.output - self.baseline_output)
        delta = np.abs(self.convergence_delta)
        return np.divide(delta, difference, out=np.where(delta > 0, np.inf, delta), where=difference > 0)

    @property
    def summed(self) -> np.ndarray:
        """The attributions of all channels together, (clips, n_mels, n_frames)."""
        return np.asarray(self.attributions.sum(axis=1))

    def arrays(self, clip: int) -> dict[str, np.ndarray]:
        """Return what belongs to one clip."""
        names = ("inputs", "baselines", "attributions", "target", "output", "baseline_output", "convergence_delta")
        return {name: np.asarray(getattr(self, name)[clip]) for name in (*names, "logits", "steps")}

    def save(self, path: Path, clip: int) -> list[Path]:
        """Write one clip's arrays as ``.npz``; `path` is without suffix."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **self.arrays(clip))
        return write_formats(path, {".npz": buffer.getvalue()})


def attribute(
    explained: Explained,
    inputs: np.ndarray,
    baselines: np.ndarray,
    target: np.ndarray,
    *,
    method: str = methods.INTEGRATED,
    baseline: str = "silence",
    layer: nn.Module | None = None,
    integral: Integral | None = None,
    progress: Progress = no_progress,
) -> Maps:
    """Attribute the logits of clips to the pixels of their images.

    Parameters
    ----------
    explained
        The network.
    inputs
        (clips, channels, n_mels, n_frames) in dB.
    baselines
        (clips, images, channels, n_mels, n_frames) in dB, as `analysis.attribution.baselines.make` gives them.
    target
        (clips,): the class whose logit is attributed.
    method, baseline
        Names; `baseline` is for the record.
    layer
        For ``gradcam``: a module of `explained.network`.
    integral, progress
        As in `integrated_gradients`; GradientShap takes as many samples as this has steps.

    Raises
    ------
    ValueError
        Where the shapes do not fit.
    """
    if baselines.ndim != 5 or (baselines.shape[0], *baselines.shape[2:]) != inputs.shape:
        raise ValueError(f"baselines {baselines.shape} and inputs {inputs.shape}: give (clips, images, *image)")
    integral = integral or Integral()
    outputs = _outputs(explained, inputs, baselines, target)
    asked = (explained, inputs, baselines, target, outputs["output"] - outputs["baseline_output"])
    if method == methods.INTEGRATED:
        made: dict[str, Any] = vars(integrated_gradients(*asked, integral=integral, progress=progress))
    else:
        made = _by(method, *asked, samples=integral.steps, layer=layer)
    return Maps(method=method, baseline=baseline, inputs=inputs, baselines=baselines, target=target, **outputs, **made)


def _outputs(
    explained: Explained, inputs: np.ndarray, baselines: np.ndarray, target: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the logits of the inputs, and the target's for the inputs and for the baselines (mean over images)."""
    logits, rows = explained.logits([inputs]), np.arange(len(inputs))
    at_baseline = np.stack([explained.logits([image])[rows, target] for image in baselines.swapaxes(0, 1)], axis=1)
    output, baseline_output = logits[rows, target].astype(np.float64), at_baseline.mean(axis=1, dtype=np.float64)
    return {"logits": logits, "output": output, "baseline_output": baseline_output}


def _by(
    method: str,
    explained: Explained,
    inputs: np.ndarray,
    baselines: np.ndarray,
    target: np.ndarray,
    difference: np.ndarray,
    *,
    samples: int,
    layer: nn.Module | None,
) -> dict[str, Any]:
    """Attribute by a method other than Integrated Gradients; return what it decides of `Maps`."""
    found = methods.attribute(method, explained, inputs, baselines, target, samples=samples, layer=layer)
    delta, steps = np.full(len(inputs), np.nan), np.zeros(len(inputs), np.int64)
    if method in methods.SUMS_UP:
        delta, steps = found.sum(axis=(1, 2, 3), dtype=np.float64) - difference, np.full(len(inputs), samples)
    return {"attributions": found, "gradients": None, "convergence_delta": delta, "steps": steps}


def class_profiles(
    maps: Maps, labels: np.ndarray, class_names: tuple[str, ...], axes: tuple[str, str] = ("mel", "frame")
) -> pd.DataFrame:
    """Average each class's maps over its clips, along height and along width.

    Parameters
    ----------
    maps
        Attributions.
    labels
        (clips,) the class of each.
    class_names
        Of all classes.
    axes
        What to call the axes of height and width.

    Returns
    -------
    frame
        ``class``, ``clips``, ``axis``, ``index`` along it, ``share``: of the clip's sum of absolute
        attributions, so that every clip counts the same; an axis sums to 1, and to 0 where the maps are zero.
    """
    weight = np.abs(maps.attributions).sum(axis=1, dtype=np.float64)
    total = weight.sum(axis=(1, 2), keepdims=True)
    share = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
    rows = []
    for label in np.unique(labels):
        part = share[labels == label].mean(axis=0)
        for axis, profile in zip(axes, (part.sum(axis=1), part.sum(axis=0)), strict=True):
            frame = pd.DataFrame({"index": np.arange(len(profile)), "share": profile})
            rows.append(
                frame.assign(**{"class": class_names[label], "clips": int(np.sum(labels == label)), "axis": axis})
            )
    return pd.concat(rows, ignore_index=True)[["class", "clips", "axis", "index", "share"]]
