"""Four indices of similarity between activations x and y of the same datapoints, each a row of the table below.

========== ================================ ============ ========= =============================================
index      value                            range        symmetric unchanged by
========== ================================ ============ ========= =============================================
svcca      mean canonical correlation of    0 to 1       yes       rotation and isotropic scale of x or y; every
           the main directions of x and y                          invertible map if all variance is kept
pwcca      canonical correlations, weighted 0 to 1       no        invertible maps of y, isotropic scale of x
           by what they say of x's neurons
cka        centred kernel alignment,        about 0 to 1 yes       rotation and isotropic scale of x or y
           linear, unbiased
procrustes overlap under the best rotation  0 to 1       yes       rotation and isotropic scale of x or y
========== ================================ ============ ========= =============================================

Everything is float64 and centred, worked out from sums over datapoints (`analysis.similarity.streaming_moments`). A
direction
counts if its standard deviation exceeds 1e-5 of the largest: activations are float32, and less is rounding error.
Where x or y is constant, nothing is shared: the value is 0. With as many neurons as datapoints or more, the two kinds
of CCA at full variance are 1 whatever the activations (Kornblith et al. 2019, arXiv 1905.00414), as is their floor.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from analysis.similarity.streaming_moments import CentredMoments, Moments
from core.errors import UserError, unknown_name_error

RANK_TOLERANCE = 1e-5  # of the largest standard deviation
MIN_DATAPOINTS_PER_NEURON = 5  # the least that the authors of SVCCA advise (github.com/google/svcca, tutorial 001)


@dataclass(frozen=True)
class Similarity:
    """A similarity and what it rests on.

    Attributes
    ----------
    value
        The index; 1 for the same representation.
    n_directions
        Directions of x and of y that were compared.
    n_datapoints
        Rows of x and of y.
    noise_floor
        The same index on the same activations with the clips of y mis-paired: what unrelated clips score here, by
        what all clips share and by chance. One draw of the pairs; for clips without positions about 0 and of either
        sign for `cka`. NaN if every batch was a single clip.
    """

    value: float
    n_directions: tuple[int, int]
    n_datapoints: int
    noise_floor: float


def svcca(x: Any, y: Any, *, explained_variance: float = 0.99, seed: int = 0) -> Similarity:
    """Compare by singular vector canonical correlation analysis (Raghu et al. 2017, arXiv 1706.05806).

    Parameters
    ----------
    x, y
        Activations of the same datapoints, arrays or tensors of shape (datapoints, neurons).
    explained_variance
        Share of the variance that the directions kept must hold, above 0, at most 1. Variance is the sum of squared
        singular values (the authors' tutorial sums the singular values themselves, which keeps more directions).
    seed
        Of the permutation behind the noise floor.

    Returns
    -------
    Similarity
        The mean of the canonical correlations, as many as the smaller of the two sides has directions.

    Raises
    ------
    UserError
        For inputs that are not two real, finite matrices with the same number of rows (at least 2), or an
        `explained_variance` out of range.
    """
    return _compare(x, y, "svcca", explained_variance=explained_variance, seed=seed)


def pwcca(x: Any, y: Any, *, seed: int = 0) -> Similarity:
    """Compare by projection weighted CCA (Morcos et al. 2018, arXiv 1806.05759), weighted by x.

    Canonical variable h_i of x has the weight sum_j |<h_i, x_j>| over x's neurons x_j, whichever side is wider. So
    ``pwcca(x, y)`` asks how much of x is found in y, and ``pwcca(y, x)`` is another question. Every direction above
    the rank cut counts.

    Parameters
    ----------
    x, y
        Activations of the same datapoints, arrays or tensors of shape (datapoints, neurons).
    seed
        Of the permutation behind the noise floor.

    Raises
    ------
    UserError
        As `svcca`.
    """
    return _compare(x, y, "pwcca", seed=seed)


def cka(x: Any, y: Any, *, seed: int = 0) -> Similarity:
    """Compare by linear centred kernel alignment, without its bias at few datapoints.

    HSIC is Song et al.'s unbiased estimate (2012, JMLR 13, equation 5), as in Nguyen et al. 2021 (arXiv 2010.15327).
    The value is not clipped: unrelated activations score around 0, slightly below as often as above.
    `n_directions` has the ranks of x and y; nothing is left out.

    Parameters
    ----------
    x, y
        Activations of the same datapoints, arrays or tensors of shape (datapoints, neurons).
    seed
        Of the permutation behind the noise floor.

    Raises
    ------
    UserError
        As `svcca`; and for fewer than 4 datapoints.
    """
    return _compare(x, y, "cka", seed=seed)


def procrustes(x: Any, y: Any, *, seed: int = 0) -> Similarity:
    """Compare under the best rotation: 1 - d / 2, with d the squared Procrustes distance (Ding et al. 2021).

    With x and y centred and scaled to unit Frobenius norm that is the nuclear norm of x'y (arXiv 2108.01661,
    equation 2). `n_directions` has the ranks of x and y; nothing is left out.

    Parameters
    ----------
    x, y
        Activations of the same datapoints, arrays or tensors of shape (datapoints, neurons).
    seed
        Of the permutation behind the noise floor.

    Raises
    ------
    UserError
        As `svcca`.
    """
    return _compare(x, y, "procrustes", seed=seed)


def check_options(index: str, explained_variance: float) -> None:
    """Raise a UserError for an index that does not exist or a share of variance out of range."""
    if index not in INDICES:
        raise unknown_name_error("similarity index", index, INDICES)
    if not 0 < explained_variance <= 1:
        raise UserError(f"explained_variance is {explained_variance:g}: give a share above 0 and at most 1")


def similarity(moments: Moments, index: str, *, explained_variance: float = 0.99) -> Similarity:
    """Work `index` out of the sums of all datapoints.

    Parameters
    ----------
    moments
        The sums; for `cka` with norms.
    index
        One of `INDICES`.
    explained_variance
        For `svcca`.

    Raises
    ------
    UserError
        As the function named like the index.
    """
    check_options(index, explained_variance)
    centred = moments.centred()
    value, noise_floor, n_directions = INDICES[index](centred, explained_variance)
    return Similarity(
        value=value, n_directions=n_directions, n_datapoints=centred.n_datapoints, noise_floor=noise_floor
    )


def has_too_few_datapoints(moments: Moments) -> bool:
    """Say whether there are too few datapoints for the wider of the two sides."""
    return moments.n_datapoints < MIN_DATAPOINTS_PER_NEURON * max(moments.n_neurons)


def _compare(x: Any, y: Any, index: str, *, explained_variance: float = 0.99, seed: int) -> Similarity:
    check_options(index, explained_variance)
    moments = Moments(seed=seed, norms=index == "cka")
    moments.add(x, y)
    result = similarity(moments, index, explained_variance=explained_variance)
    if has_too_few_datapoints(moments):
        warnings.warn(
            f"{index} of {moments.n_datapoints} datapoints with {max(moments.n_neurons)} neurons: give at least "
            f"{MIN_DATAPOINTS_PER_NEURON} datapoints per neuron, or read the value against its noise floor",
            stacklevel=3,
        )
    return result


def _principal_directions(outer: Tensor, rounding: float) -> tuple[Tensor, Tensor]:
    """Return the squared singular values above the rank cut, largest first, and their right singular vectors."""
    squares, vectors = torch.linalg.eigh(outer)
    squares, vectors = squares.flip(0), vectors.flip(1)
    rank = int((squares > max(RANK_TOLERANCE**2 * float(squares[0]), rounding)).sum())
    return squares[:rank], vectors[:, :rank]


def _ranks(sums: CentredMoments) -> tuple[int, int]:
    return len(_principal_directions(sums.xx, sums.rounding[0])[0]), len(
        _principal_directions(sums.yy, sums.rounding[1])[0]
    )


def _svcca(sums: CentredMoments, explained_variance: float) -> tuple[float, float, tuple[int, int]]:
    bases = []
    for outer, rounding in ((sums.xx, sums.rounding[0]), (sums.yy, sums.rounding[1])):
        squares, vectors = _principal_directions(outer, rounding)
        held = squares.cumsum(0)
        kept = int((held < explained_variance * squares.sum()).sum()) + 1  # the first to reach the share, included
        bases.append(vectors[:, :kept] / squares[:kept].sqrt())
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
        """Unbiased HSIC of centred sides i and j, times n (n - 3)."""
        own = n / (n - 2) * norm - traces[i] * traces[j] / ((n - 1) * (n - 2))
        return float(outer.square().sum()) - own

    own_x, own_y = hsic(0, 0, sums.xx, float(norms[0, 0])), hsic(1, 1, sums.yy, float(norms[1, 1]))
    if own_x <= 1e-12 * traces[0] ** 2 or own_y <= 1e-12 * traces[1] ** 2:  # all the spread is a single datapoint's
        return 0.0, 0.0, n_directions
    scale = (own_x * own_y) ** 0.5
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
    """Score the clips as they belong together and mis-paired."""
    if 0 in n_directions:
        return 0.0, 0.0, n_directions
    return score(sums.xy), score(sums.shuffled) if sums.shuffled.isfinite().all() else float("nan"), n_directions


INDICES: dict[str, Callable[[CentredMoments, float], tuple[float, float, tuple[int, int]]]] = {
    "svcca": _svcca,
    "pwcca": _pwcca,
    "cka": _cka,
    "procrustes": _procrustes,
}
