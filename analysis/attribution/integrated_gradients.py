"""Integrated Gradients, with as many steps as it takes and batches that are full.

Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", 2017 (arXiv:1703.01365): the gradient of the
target's logit, averaged along the straight line from a baseline to the input and multiplied by their difference. Its
sum is the difference of the two logits; by how much it is not says how well the integral was done. captum does the same
(the tests ask it), but runs the network's first convolution at every step instead of at the ends of the path.
"""

from dataclasses import dataclass

import numpy as np
import torch

from analysis.attribution.attribution_model import Explained
from core.progress import Progress, no_progress

ROUNDING = 1e-5  # of the logits: what float32 leaves of a difference that is zero
FEWEST_STEPS = 8  # on each path, where a clip's steps are shared among several baselines


@dataclass(frozen=True)
class Integral:
    """How well the integral is done."""

    steps: int = 64  # points on the path to begin with, placed by Gauss and Legendre
    tolerance: float = 0.05  # largest error of the sum, as a share of the difference of the logits
    limit: int = 1024  # most steps; what error is left then is said


@dataclass(frozen=True)
class Integrated:
    """Attributions of some clips.

    Attributes
    ----------
    attributions
        (clips, channels, n_mels, n_frames), in units of the logit.
    gradients
        The same without the factor ``inputs - baselines``: the mean gradient along the path, logit per dB.
    convergence_delta
        (clips,): sum of the attributions minus the difference of the logits.
    steps
        (clips,): steps that it took.
    """

    attributions: np.ndarray
    gradients: np.ndarray
    convergence_delta: np.ndarray
    steps: np.ndarray


def integrated_gradients(
    explained: Explained,
    inputs: np.ndarray,
    baselines: np.ndarray,
    target: np.ndarray,
    difference: np.ndarray,
    *,
    integral: Integral,
    progress: Progress = no_progress,
) -> Integrated:
    """Attribute clips, each with twice the steps until its attributions sum to the difference of the logits.

    Parameters
    ----------
    explained, inputs, baselines, target
        As in `analysis.attribution.attribute`. Over several baselines the attributions are averaged, and a clip's
        steps are shared among them (each has at least 8).
    difference
        (clips,): the target's logit for the input minus that for the baseline (the mean over several).
    integral
        How well to do it.
    progress
        Called with (clips done, clips, what is being done).
    """
    found = Integrated(
        attributions=np.zeros(inputs.shape, np.float32),
        gradients=np.zeros(inputs.shape, np.float32),
        convergence_delta=np.full(len(inputs), np.inf),
        steps=np.zeros(len(inputs), np.int64),
    )
    allowed = integral.tolerance * np.abs(difference) + ROUNDING * (1 + np.abs(difference))
    images, steps, todo = baselines.shape[1], integral.steps, np.arange(len(inputs))
    while True:
        each = steps if images == 1 else max(FEWEST_STEPS, steps // images)
        together = max(1, explained.rows // (each * images))
        for start in range(0, len(todo), together):
            progress(start, len(todo), f"paths of {each * images} steps")
            rows = todo[start : start + together]
            _attribute(explained, inputs, baselines, target, difference, rows=rows, steps=each, found=found)
        progress(len(todo), len(todo), f"paths of {each * images} steps")
        todo = todo[np.abs(found.convergence_delta[todo]) > allowed[todo]]
        steps *= 2
        if not len(todo) or steps > integral.limit:
            return found


def _attribute(
    explained: Explained,
    inputs: np.ndarray,
    baselines: np.ndarray,
    target: np.ndarray,
    difference: np.ndarray,
    *,
    rows: np.ndarray,
    steps: int,
    found: Integrated,
) -> None:
    """Attribute the clips `rows` with `steps` on each path, and keep what is nearer to its sum than what is there."""
    shape = (len(rows), baselines.shape[1], *inputs.shape[1:])
    starts = np.broadcast_to(baselines[rows], shape)
    ends = np.broadcast_to(inputs[rows][:, None], shape)
    flat = (-1, *inputs.shape[1:])
    targets = np.repeat(target[rows], shape[1])
    gradients = mean_gradients(explained, ends.reshape(flat), starts.reshape(flat), targets, steps=steps)
    gradients = gradients.reshape(shape)
    attributions = (gradients * (ends - starts)).mean(axis=1)
    delta = attributions.sum(axis=(1, 2, 3), dtype=np.float64) - difference[rows]
    better = np.abs(delta) < np.abs(found.convergence_delta[rows])  # the error need not fall with more steps
    kept = rows[better]
    found.attributions[kept] = attributions[better]
    found.gradients[kept] = gradients.mean(axis=1)[better]
    found.convergence_delta[kept] = delta[better]
    found.steps[kept] = steps * shape[1]


def mean_gradients(
    explained: Explained, inputs: np.ndarray, baselines: np.ndarray, target: np.ndarray, *, steps: int
) -> np.ndarray:
    """Return the mean gradient along each path, (paths, channels, n_mels, n_frames), logit per dB.

    Where a path has fewer steps than a batch has rows, several paths go together; where it has more, its steps are
    parted evenly. So a batch is full, and none is larger than the budget, whatever the number of clips and steps.
    """
    at, weights = (torch.from_numpy(each) for each in _gauss_legendre(steps))
    made = []
    start = 0
    while start < len(inputs):

        def part(rows: int, start: int = start) -> torch.Tensor:
            paths = slice(start, start + max(1, rows // steps))
            at_once = -(-steps // -(-steps // rows))  # the steps in as many equal parts as it needs
            ends, starts, t = (explained.placed(each[paths]) for each in (inputs, baselines, target))
            parts = zip(at.split(at_once), weights.split(at_once), strict=True)
            found = [_gradient(explained, starts, ends, t, *points).cpu() for points in parts]
            return torch.stack(found).sum(dim=0)

        made.append(explained.within_memory(part))
        start += len(made[-1])
    return torch.cat(made).numpy()


def _gradient(
    explained: Explained,
    starts: torch.Tensor,
    ends: torch.Tensor,
    target: torch.Tensor,
    at: torch.Tensor,
    weights: torch.Tensor,
) -> torch.Tensor:
    """Return the weighted sum of the gradients at some points of each path, `at` of the way along it."""
    at, weights = (each.to(ends) for each in (at, weights))
    along = at.view(-1, *(1 for _ in starts.shape[1:]))
    points = starts[:, None] + along * (ends - starts)[:, None]
    points = points.flatten(0, 1).requires_grad_()  # (paths x points, channels, n_mels, n_frames)
    logits = explained(points).unflatten(0, (len(starts), len(at)))
    chosen = logits[torch.arange(len(starts)), :, target]
    (found,) = torch.autograd.grad((chosen * weights).sum(), points)
    mean: torch.Tensor = found.unflatten(0, (len(starts), len(at))).sum(dim=1)
    return mean


def _gauss_legendre(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the points of a quadrature of the range from 0 to 1, and their weights."""
    at, weights = np.polynomial.legendre.leggauss(steps)
    return (1 + at) / 2, weights / 2
