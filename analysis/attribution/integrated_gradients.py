"""Integrated Gradients with an adaptive number of steps and full batches.

Integrated Gradients (Sundararajan, Taly and Yan 2017, arXiv:1703.01365) average the gradient of the target's logit
along the straight line from a baseline to the input, and multiply it by input minus baseline. The sum of the
attributions is then the logit of the input minus that of the baseline (completeness). The deviation from this sum
measures the error of the numerical integral. The tests compare the results with captum.
"""

from dataclasses import dataclass

import numpy as np
import torch

from analysis.attribution.attribution_model import AttributionModel
from core.progress import Progress, no_progress

ROUNDING_TOLERANCE = 1e-5  # accepted error from float32 rounding, also if the difference of the logits is 0
MIN_STEPS_PER_BASELINE = 8  # smallest number of steps per baseline if a clip has several baselines


@dataclass(frozen=True)
class IGSettings:
    """Accuracy of the numerical integral.

    Attributes
    ----------
    n_steps
        Initial number of Gauss-Legendre points on a path.
    tolerance
        Largest accepted completeness error, relative to the difference of the logits.
    max_steps
        Largest number of steps. A clip that needs more keeps its most accurate result.
    """

    n_steps: int = 64
    tolerance: float = 0.05
    max_steps: int = 1024


@dataclass(frozen=True)
class IGResult:
    """Integrated Gradients of some clips.

    Attributes
    ----------
    attributions
        Attributions (clips, channels, n_mels, n_frames) in logit.
    gradients
        Mean gradients along the paths, of the same shape, in logit per dB. Attributions are these gradients times
        ``inputs - baselines``.
    convergence_delta
        Sum of the attributions minus the difference of the logits, shape (clips,).
    steps
        Number of steps used for each clip, shape (clips,).
    """

    attributions: np.ndarray
    gradients: np.ndarray
    convergence_delta: np.ndarray
    steps: np.ndarray


def integrated_gradients(
    model: AttributionModel,
    inputs: np.ndarray,
    baselines: np.ndarray,
    target: np.ndarray,
    difference: np.ndarray,
    *,
    ig_settings: IGSettings,
    progress: Progress = no_progress,
) -> IGResult:
    """Compute Integrated Gradients; double the steps of a clip until its completeness error is within the tolerance.

    Parameters
    ----------
    model, inputs, baselines, target
        As in `analysis.attribution.attribute`. Attributions are averaged over several baselines, which share the steps
        of a clip (at least 8 steps each).
    difference
        Logit of the target for the input minus its mean logit for the baselines, shape (clips,).
    ig_settings
        Steps and tolerance.
    progress
        Callback with (clips done, number of clips, description).
    """
    result = IGResult(
        attributions=np.zeros(inputs.shape, np.float32),
        gradients=np.zeros(inputs.shape, np.float32),
        convergence_delta=np.full(len(inputs), np.inf),
        steps=np.zeros(len(inputs), np.int64),
    )
    max_error = ig_settings.tolerance * np.abs(difference) + ROUNDING_TOLERANCE * (1 + np.abs(difference))
    n_baselines, steps, remaining = baselines.shape[1], ig_settings.n_steps, np.arange(len(inputs))
    while True:
        path_steps = steps if n_baselines == 1 else max(MIN_STEPS_PER_BASELINE, steps // n_baselines)
        clips_per_batch = max(1, model.batch_size // (path_steps * n_baselines))
        for start in range(0, len(remaining), clips_per_batch):
            progress(start, len(remaining), f"paths of {path_steps * n_baselines} steps")
            rows = remaining[start : start + clips_per_batch]
            _update_rows(model, inputs, baselines, target, difference, rows=rows, steps=path_steps, result=result)
        progress(len(remaining), len(remaining), f"paths of {path_steps * n_baselines} steps")
        remaining = remaining[np.abs(result.convergence_delta[remaining]) > max_error[remaining]]
        steps *= 2
        if not len(remaining) or steps > ig_settings.max_steps:
            return result


def _update_rows(
    model: AttributionModel,
    inputs: np.ndarray,
    baselines: np.ndarray,
    target: np.ndarray,
    difference: np.ndarray,
    *,
    rows: np.ndarray,
    steps: int,
    result: IGResult,
) -> None:
    """Attribute the clips `rows` with `steps` per path and store in `result` those with a smaller error than before."""
    shape = (len(rows), baselines.shape[1], *inputs.shape[1:])
    starts = np.broadcast_to(baselines[rows], shape)
    ends = np.broadcast_to(inputs[rows][:, None], shape)
    flat = (-1, *inputs.shape[1:])
    targets = np.repeat(target[rows], shape[1])
    gradients = mean_gradients(model, ends.reshape(flat), starts.reshape(flat), targets, steps=steps)
    gradients = gradients.reshape(shape)
    attributions = (gradients * (ends - starts)).mean(axis=1)
    delta = attributions.sum(axis=(1, 2, 3), dtype=np.float64) - difference[rows]
    better = np.abs(delta) < np.abs(result.convergence_delta[rows])  # more steps do not always reduce the error
    improved = rows[better]
    result.attributions[improved] = attributions[better]
    result.gradients[improved] = gradients.mean(axis=1)[better]
    result.convergence_delta[improved] = delta[better]
    result.steps[improved] = steps * shape[1]


def mean_gradients(
    model: AttributionModel, inputs: np.ndarray, baselines: np.ndarray, target: np.ndarray, *, steps: int
) -> np.ndarray:
    """Return the mean gradient of the target's logit along each path, in logit per dB.

    If a path has fewer steps than a batch has images, a batch contains several paths. Otherwise, the steps of a path
    are divided into batches of equal size. All batches are therefore nearly full and within the memory budget.

    Parameters
    ----------
    model
        The network.
    inputs, baselines
        Ends and starts of the paths, (paths, channels, n_mels, n_frames) in dB.
    target
        Class index of each path, shape (paths,).
    steps
        Number of Gauss-Legendre points on each path.

    Returns
    -------
    array
        Mean gradients (paths, channels, n_mels, n_frames).
    """
    positions, weights = (torch.from_numpy(each) for each in _gauss_legendre(steps))
    gradients: list[torch.Tensor] = []
    start = 0
    while start < len(inputs):

        def integrate(batch_size: int, start: int = start) -> torch.Tensor:
            paths = slice(start, start + max(1, batch_size // steps))
            n_parts = -(-steps // batch_size)
            part_size = -(-steps // n_parts)
            ends, starts, classes = (model.to_device(each[paths]) for each in (inputs, baselines, target))
            parts = zip(positions.split(part_size), weights.split(part_size), strict=True)
            sums = [_weighted_gradient(model, starts, ends, classes, *points).cpu() for points in parts]
            return torch.stack(sums).sum(dim=0)

        gradients.append(model.run_within_memory(integrate))
        start += len(gradients[-1])
    return torch.cat(gradients).numpy()


def _weighted_gradient(
    model: AttributionModel,
    starts: torch.Tensor,
    ends: torch.Tensor,
    target: torch.Tensor,
    positions: torch.Tensor,
    weights: torch.Tensor,
) -> torch.Tensor:
    """Return the weighted sum of the gradients at some `positions` (0 to 1) on each path, of the shape of `starts`."""
    positions, weights = (each.to(ends) for each in (positions, weights))
    along = positions.view(-1, *(1 for _ in starts.shape[1:]))
    points = starts[:, None] + along * (ends - starts)[:, None]
    points = points.flatten(0, 1).requires_grad_()  # (paths x positions, channels, n_mels, n_frames)
    logits = model(points).unflatten(0, (len(starts), len(positions)))
    target_logits = logits[torch.arange(len(starts)), :, target]
    (gradient,) = torch.autograd.grad((target_logits * weights).sum(), points)
    total: torch.Tensor = gradient.unflatten(0, (len(starts), len(positions))).sum(dim=1)
    return total


def _gauss_legendre(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the points of Gauss-Legendre quadrature on the interval from 0 to 1, and their weights."""
    points, weights = np.polynomial.legendre.leggauss(steps)
    return (1 + points) / 2, weights / 2
