"""Four indices of the similarity of activations x and y of the same datapoints.

========== ============================== ============ ========= =====================================================
index      value                          range        symmetric invariant to
========== ============================== ============ ========= =====================================================
svcca      mean canonical correlation of  0 to 1       yes       rotation and isotropic scaling of x or y; invertible
           the principal directions                              linear maps if all variance is kept
pwcca      canonical correlations,        0 to 1       no        invertible linear maps of y, isotropic scaling of x
           weighted by the neurons of x
cka        centred kernel alignment,      about 0 to 1 yes       rotation and isotropic scaling of x or y
           linear, unbiased
procrustes overlap after the best         0 to 1       yes       rotation and isotropic scaling of x or y
           rotation
========== ============================== ============ ========= =====================================================

All computations use float64 and centred sums over datapoints (`analysis.similarity.streaming_moments`). A direction is
used if its standard deviation exceeds 1e-5 of the largest one; smaller values are rounding errors of float32
activations. If x or y is constant, the value is 0. With at least as many neurons as datapoints, both kinds of CCA at
full variance are 1 for any activations (Kornblith et al. 2019, arXiv 1905.00414), and so is their noise floor.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from analysis.similarity.streaming_moments import CentredMoments, Moments
from core.errors import UserError, unknown_name_error

RANK_TOLERANCE = 1e-5  # relative to the largest standard deviation
MIN_DATAPOINTS_PER_NEURON = 5  # recommended by the authors of SVCCA (github.com/google/svcca, tutorial 001)


@dataclass(frozen=True)
class Similarity:
    """Value of a similarity index, and numbers that show how reliable it is.

    Attributes
    ----------
    value
        The index; 1 for equal representations.
    n_directions
        Number of directions of x and of y that were compared.
    n_neurons
        Number of columns of x and of y.
    n_datapoints
        Number of rows of x and of y.
    noise_floor
        The same index for the same activations if clips are paired at random (one random pairing). It measures the
        similarity that is due to chance or common to all clips. For `cka` without spatial positions it is about 0, and
        may be negative. NaN if every batch was a single clip.
    """

    value: float
    n_directions: tuple[int, int]
    n_neurons: tuple[int, int]
    n_datapoints: int
    noise_floor: float

    @property
    def above_floor(self) -> float:
        """``(value - noise_floor) / (1 - noise_floor)``: 0 at the floor, 1 for equal representations.

        NaN if the floor is 1, as with fewer datapoints than neurons.
        """
        room = 1 - self.noise_floor
        return (self.value - self.noise_floor) / room if room > 1e-6 else float("nan")

    @property
    def has_few_datapoints(self) -> bool:
        """Whether there are fewer than 5 datapoints per neuron of x or of y, whichever has more neurons.

        CCA is then high for any activations. Independent activations have a value of .64, .39 and .27 at 2, 5 and 10
        datapoints per neuron if all directions are compared.
        """
        return self.n_datapoints < MIN_DATAPOINTS_PER_NEURON * max(self.n_neurons)


def svcca(x: Any, y: Any, *, explained_variance: float = 0.99, seed: int = 0) -> Similarity:
    """Compute singular vector canonical correlation analysis (Raghu et al. 2017, arXiv 1706.05806).

    Parameters
    ----------
    x, y
        Activations of the same datapoints, arrays or tensors of shape (datapoints, neurons).
    explained_variance
        Fraction of the variance in the principal directions that are compared, above 0 and at most 1. Variance is the
        sum of squared singular values. (The tutorial of the authors sums the singular values, which keeps more
        directions.)
    seed
        Seed of the random pairing for the noise floor.

    Returns
    -------
    Similarity
        Mean of the canonical correlations. Their number is the number of directions of x or of y, whichever is smaller.

    Raises
    ------
    UserError
        If x and y are not two real, finite matrices with the same number of rows (at least 2), or
        `explained_variance` is out of range.
    """
    return _compare(x, y, "svcca", explained_variance=explained_variance, seed=seed)


def pwcca(x: Any, y: Any, *, seed: int = 0) -> Similarity:
    """Compute projection weighted CCA (Morcos et al. 2018, arXiv 1806.05759), weighted by x.

    The weight of the canonical variable h_i of x is sum_j |<h_i, x_j>| over the neurons x_j of x. ``pwcca(x, y)``
    therefore measures how much of x is contained in y and differs from ``pwcca(y, x)``. All directions above the rank
    tolerance are used.

    Parameters
    ----------
    x, y
        Activations of the same datapoints, arrays or tensors of shape (datapoints, neurons).
    seed
        Seed of the random pairing for the noise floor.

    Raises
    ------
    UserError
        As for `svcca`.
    """
    return _compare(x, y, "pwcca", seed=seed)


def cka(x: Any, y: Any, *, seed: int = 0) -> Similarity:
    """Compute linear centred kernel alignment with the unbiased estimator for few datapoints.

    HSIC is estimated by equation 5 of Song et al. (2012, JMLR 13), as in Nguyen et al. 2021 (arXiv 2010.15327).
    The value is not limited to positive numbers: unrelated activations have values around 0 of either sign.
    `n_directions` has the ranks of x and y; no direction is discarded.

    Parameters
    ----------
    x, y
        Activations of the same datapoints, arrays or tensors of shape (datapoints, neurons).
    seed
        Seed of the random pairing for the noise floor.

    Raises
    ------
    UserError
        As for `svcca`, and for fewer than 4 datapoints.
    """
    return _compare(x, y, "cka", seed=seed)


def procrustes(x: Any, y: Any, *, seed: int = 0) -> Similarity:
    """Compute 1 - d / 2, where d is the squared orthogonal Procrustes distance (Ding et al. 2021).

    x and y are centred and scaled to unit Frobenius norm. The value then equals the nuclear norm of x'y (arXiv
    2108.01661, equation 2). `n_directions` has the ranks of x and y; no direction is discarded.

    Parameters
    ----------
    x, y
        Activations of the same datapoints, arrays or tensors of shape (datapoints, neurons).
    seed
        Seed of the random pairing for the noise floor.

    Raises
    ------
    UserError
        As for `svcca`.
    """
    return _compare(x, y, "procrustes", seed=seed)


def check_options(index: str, explained_variance: float) -> None:
    """Raise a UserError if the index is unknown or the explained variance is out of range."""
    if index not in INDICES:
        raise unknown_name_error("similarity index", index, INDICES)
    if not 0 < explained_variance <= 1:
        raise UserError(f"explained_variance is {explained_variance:g}: must be above 0 and at most 1")


def similarity(moments: Moments, index: str, *, explained_variance: float = 0.99) -> Similarity:
    """Compute an index from the moments of all datapoints.

    Parameters
    ----------
    moments
        Moments of x and y; with norms for `cka`.
    index
        One of `INDICES`.
    explained_variance
        Fraction of variance, for `svcca`.

    Raises
    ------
    UserError
        As for the function with the name of the index.
    """
    check_options(index, explained_variance)
    centred = moments.centred()
    value, noise_floor, n_directions = INDICES[index](centred, explained_variance)
    return Similarity(value, n_directions, moments.n_neurons, moments.n_datapoints, noise_floor)


def _compare(x: Any, y: Any, index: str, *, explained_variance: float = 0.99, seed: int) -> Similarity:
    """Compute an index of two arrays, and warn if there are few datapoints."""
    check_options(index, explained_variance)
    moments = Moments(seed=seed, norms=index == "cka")
    moments.add(x, y)
    result = similarity(moments, index, explained_variance=explained_variance)
    if result.has_few_datapoints:
        warnings.warn(
            f"{index} of {result.n_datapoints} datapoints with {max(result.n_neurons)} neurons: use at least "
            f"{MIN_DATAPOINTS_PER_NEURON} datapoints per neuron, or compare the value with its noise floor",
            stacklevel=3,
        )
    return result


def _principal_directions(outer: Tensor, rounding: float) -> tuple[Tensor, Tensor]:
    """Return the squared singular values above the rank tolerance in descending order, and the singular vectors.

    `outer` is the matrix of products (neurons, neurons); vectors are its columns.
    """
    squares, vectors = torch.linalg.eigh(outer)
    squares, vectors = squares.flip(0), vectors.flip(1)
    rank = int((squares > max(RANK_TOLERANCE**2 * float(squares[0]), rounding)).sum())
    return squares[:rank], vectors[:, :rank]


def _ranks(sums: CentredMoments) -> tuple[int, int]:
    """Return the ranks of x and y."""
    x, y = (
        _principal_directions(z, rounding)[0] for z, rounding in zip((sums.xx, sums.yy), sums.rounding, strict=True)
    )
    return len(x), len(y)


# Each of the functions below returns the index, its noise floor, and the numbers of compared directions of x and of y.
def _svcca(sums: CentredMoments, explained_variance: float) -> tuple[float, float, tuple[int, int]]:
    bases = []
    for outer, rounding in ((sums.xx, sums.rounding[0]), (sums.yy, sums.rounding[1])):
        squares, vectors = _principal_directions(outer, rounding)
        cumulative = squares.cumsum(0)
        n_kept = (
            int((cumulative < explained_variance * squares.sum()).sum()) + 1
        )  # including the direction that reaches the fraction
        bases.append(vectors[:, :n_kept] / squares[:n_kept].sqrt())
    left, right = bases

    def mean(cross: Tensor) -> float:
        return float(torch.linalg.svdvals(left.T @ cross @ right).clamp(0, 1).mean())

    return _score_with_floor(mean, sums, (left.shape[1], right.shape[1]))


def _pwcca(sums: CentredMoments, explained_variance: float) -> tuple[float, float, tuple[int, int]]:
    squares_x, vectors_x = _principal_directions(sums.xx, sums.rounding[0])
    squares_y, vectors_y = _principal_directions(sums.yy, sums.rounding[1])
    left, right = vectors_x / squares_x.sqrt(), vectors_y / squares_y.sqrt()

    def weighted(cross: Tensor) -> float:
        variables, correlations, _ = torch.linalg.svd(left.T @ cross @ right, full_matrices=False)
        weights = (vectors_x * squares_x.sqrt() @ variables).abs().sum(0)  # (x neurons, variables) before the sum
        return float(weights @ correlations.clamp(0, 1) / weights.sum())

    return _score_with_floor(weighted, sums, (len(squares_x), len(squares_y)))


def _cka(sums: CentredMoments, explained_variance: float) -> tuple[float, float, tuple[int, int]]:
    n, traces, norms = sums.n_datapoints, (float(sums.xx.trace()), float(sums.yy.trace())), sums.norms
    if norms is None:
        raise ValueError("cka needs moments with norms: Moments(norms=True)")
    if n < 4:
        raise UserError(f"cka needs at least 4 datapoints, got {n}")
    n_directions = _ranks(sums)
    if 0 in n_directions:
        return 0.0, 0.0, n_directions

    def hsic(i: int, j: int, outer: Tensor, norm: float) -> float:
        """Return the unbiased HSIC times n (n - 3); i and j are 0 for centred x and 1 for centred y."""
        correction = n / (n - 2) * norm - traces[i] * traces[j] / ((n - 1) * (n - 2))
        return float(outer.square().sum()) - correction

    hsic_x, hsic_y = hsic(0, 0, sums.xx, float(norms[0, 0])), hsic(1, 1, sums.yy, float(norms[1, 1]))
    if hsic_x <= 1e-12 * traces[0] ** 2 or hsic_y <= 1e-12 * traces[1] ** 2:  # all variance is in a single datapoint
        return 0.0, 0.0, n_directions
    scale = (hsic_x * hsic_y) ** 0.5
    value, floor = hsic(0, 1, sums.xy, float(norms[0, 1])), hsic(0, 1, sums.shuffled, sums.shuffled_norm)
    return value / scale, floor / scale, n_directions


def _procrustes(sums: CentredMoments, explained_variance: float) -> tuple[float, float, tuple[int, int]]:
    size = float(sums.xx.trace() * sums.yy.trace()) ** 0.5

    def overlap(cross: Tensor) -> float:
        return min(float(torch.linalg.svdvals(cross).sum()) / size, 1.0)

    return _score_with_floor(overlap, sums, _ranks(sums))


def _score_with_floor(
    score: Callable[[Tensor], float], sums: CentredMoments, n_directions: tuple[int, int]
) -> tuple[float, float, tuple[int, int]]:
    """Compute an index for the correct and for the random pairs; return value, noise floor and numbers of directions.

    `score` computes the index from the sums of products of x and y.
    """
    if 0 in n_directions:
        return 0.0, 0.0, n_directions
    return score(sums.xy), score(sums.shuffled) if sums.shuffled.isfinite().all() else float("nan"), n_directions


INDICES: dict[str, Callable[[CentredMoments, float], tuple[float, float, tuple[int, int]]]] = {
    "svcca": _svcca,
    "pwcca": _pwcca,
    "cka": _cka,
    "procrustes": _procrustes,
}
