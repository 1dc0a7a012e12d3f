"""Running sums of products, from which every similarity index is computed.

Their memory grows with the square of the number of neurons, but not with the number of clips.

Derivation
----------
Let x_i and y_i be the activations of datapoint i (n datapoints), and let u_i = x_i - o and v_i = y_i - p be their
differences from a fixed origin near the mean. The origin keeps float64 sums accurate if the mean is much larger than
the standard deviation. z = [u v] has the neurons of both sides as columns. Let d and e be the means of u and v.

Second moments. With the running sums S = sum z_i and Q = sum z_i z_i', the centred matrix of products is
Q - S S' / n. Its blocks are x'x, y'y and x'y of centred activations. SVCCA, PWCCA and Procrustes need only these: the
singular values and right singular vectors of x are the roots of the eigenvalues and the eigenvectors of x'x.

Fourth moments. CKA needs the unbiased HSIC of the kernels K = x x' and L = y y' (Song et al. 2012, JMLR 13, equation
5), an n x n problem. Centred kernels have row sums of 0. If the diagonals are set to 0, as in equation 5, the row sums
are -k_i and -l_i, where k_i = |u_i - d|^2 and l_i = |v_i - e|^2. The estimate therefore reduces to

    n (n - 3) HSIC = |x'y|^2 - n / (n - 2) sum k_i l_i + tr(K) tr(L) / ((n - 1) (n - 2))

with |x'y|^2 the squared Frobenius norm, tr(K) = tr(x'x) and tr(L) = tr(y'y). Only sum k_i l_i is not a second moment.
Multiplied out, with sum u_i = n d and sum v_i = n e,

    sum |u_i - d|^2 |v_i - e|^2 = sum |u_i|^2 |v_i|^2 - 2 e' sum |u_i|^2 v_i - 2 d' sum |v_i|^2 u_i
                                  + |e|^2 sum |u_i|^2 + |d|^2 sum |v_i|^2 + 4 d' (sum u_i v_i') e - 3 n |d|^2 |e|^2,

so the sums of |u|^2 z, |v|^2 z (cubic) and |u|^2 |v|^2 (quartic) are sufficient.

Noise floor. The sums are also accumulated with the clips of y paired at random with those of x. For a random
permutation of all n datapoints, the expected squared norm of x'y is tr(x'x) tr(y'y) / (n - 1). Permutations within
batches are scaled to this size.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.errors import UserError

CHUNK_SIZE = 2**18  # elements of z in float64 at a time (2 MB, so that they stay in the cache)
# The noise floor is computed from pairs of unrelated datapoints. If each clip is one datapoint, at most 16 pairs per
# neuron of the first batch are used. If each clip has several positions (height x width), some positions are left out
# if a batch still has at least 32 pairs per neuron.
MAX_PAIRS_PER_NEURON, MIN_PAIRS_PER_NEURON = 16, 32
POSITION_STRIDES = (4, 3, 2)  # strides of the positions that are used in large batches


@dataclass(frozen=True)
class CentredMoments:
    """Sums of products about the mean of all datapoints, in float64.

    Attributes
    ----------
    n_datapoints
        Number of rows of x and of y.
    xx, yy, xy
        Sums of products of shape (x neurons, x neurons), (y neurons, y neurons) and (x neurons, y neurons).
    shuffled
        As `xy`, but each clip of x is paired with a random clip of y; NaN if no batch had two clips. If every clip is
        one datapoint, it is scaled: its squared Frobenius norm is tr(xx) tr(yy) / (n_datapoints - 1) on average over
        all pairings.
    norms
        [[sum k k, sum k l], [sum k l, sum l l]], where k and l are the squared distances of a datapoint of x and of y
        from the mean, shape (2, 2); None if they were not accumulated.
    shuffled_norm
        sum k l for the random pairing; the mean over all pairings if every clip is one datapoint.
    rounding
        For x and for y: sums of squares up to this value are rounding errors.
    """

    n_datapoints: int
    xx: Tensor
    yy: Tensor
    xy: Tensor
    shuffled: Tensor
    norms: Tensor | None
    shuffled_norm: float
    rounding: tuple[float, float]


class Moments:
    """Running sums of products of activations x and y of the same datapoints, and of x and y of randomly paired clips.

    The sums are float64 on the device of x (on the CPU if the device has no float64, such as Apple's MPS).

    The sums of randomly paired clips give the noise floor of an index. It includes the similarity that all clips have
    in common, such as the mean activation at each position.

    Clips with several positions
        Within each batch, y is shifted by a random number of clips. Positions stay aligned, and no clip is paired with
        itself. Large batches use every second, third or fourth position, with at least 32 datapoints per neuron.
        Similar neighbours, such as clips of one class, raise the floor, so the clips should be in random order.
    One datapoint per clip
        The datapoints of y are permuted within each batch. The mean of the batch is subtracted first, so that similar
        neighbours do not raise the floor. The sum is scaled to the expected size for a permutation of all datapoints.
        Of large batches, a random subset with larger weights is used: 16 datapoints per neuron of the first batch, half
        as many of the second batch, a third as many of the third.

    A batch of one clip does not contribute to the floor.

    Parameters
    ----------
    seed
        Seed of the random pairing.
    norms
        Whether to accumulate the fourth moments, which only `cka` needs.
    """

    def __init__(self, *, seed: int = 0, norms: bool = True) -> None:
        self.n_datapoints = 0
        self.n_neurons = (0, 0)
        self._seed = seed
        self._with_norms = norms

    @torch.no_grad()
    def add(self, x: Any, y: Any, *, positions: int = 1) -> None:
        """Add a batch of datapoints.

        Parameters
        ----------
        x, y
            Arrays or tensors of the same datapoints in the same order, shape (datapoints, neurons). The numbers of
            neurons may differ.
        positions
            Number of datapoints of each clip. They must be consecutive rows, in the same order for every clip.

        Raises
        ------
        UserError
            If the shapes do not match, the number of neurons differs from earlier batches, or a clip is incomplete.
        """
        x, y = _as_matrix("x", x), _as_matrix("y", y)
        if len(x) != len(y):
            raise UserError(f"x has {len(x)} datapoints and y {len(y)}; they must be of the same clips")
        if positions < 1 or len(x) % positions:
            raise UserError(f"{len(x)} datapoints are not a multiple of {positions} positions per clip")
        if not self.n_datapoints:
            self._start(x, y, has_positions=positions > 1)
        for name, matrix, neurons in zip("xy", (x, y), self.n_neurons, strict=True):
            if matrix.shape[1] != neurons:
                raise UserError(f"{name} has {matrix.shape[1]} neurons; earlier batches had {neurons}")
        z = self._accumulate(x, y)
        if not self._has_positions:
            self._pair_datapoints(x, y)
        elif len(x) > positions:
            self._pair_clips(x, y, z, positions)

    def _start(self, x: Tensor, y: Tensor, *, has_positions: bool) -> None:
        """Create all sums, as zeros, from the shapes and the device of the first batch."""
        self._has_positions = has_positions
        self.n_neurons = width, height = x.shape[1], y.shape[1]
        device = x.device if x.device.type != "mps" else torch.device("cpu")
        self._zeros = torch.zeros((), dtype=torch.float64, device=device).new_zeros
        self._generator = torch.Generator(device).manual_seed(self._seed)
        self._shifts = random.Random(self._seed)
        self._origin = self._zeros(width + height)
        self._origin = next(self._chunks(x, y)).mean(0)
        self._sum = torch.zeros_like(self._origin)
        self._outer = self._zeros(width + height, width + height)  # sum z z', upper triangle
        self._cubic = self._zeros(2, width + height)  # sum |u|^2 z; sum |v|^2 z
        self._quartic = self._zeros(2, 2)  # sum |u|^4, |u|^2 |v|^2; |u|^2 |v|^2, |v|^4
        self._shuffled = self._zeros(width, height)
        self._expected_square = self._zeros(())  # mean squared norm of _shuffled over pairings
        # Sums for clips with several positions, where v is that of the paired clip: number of pairs, sum z;
        # sum |u|^2 v, sum |v|^2 u; sum |u|^2, sum |v|^2, sum |u|^2 |v|^2.
        self._n_paired, self._paired_sum = 0, torch.zeros_like(self._origin)
        self._paired_cubic = self._zeros(height), self._zeros(width)
        self._paired_norms = self._zeros(3)

    def _chunks(
        self, x: Tensor, y: Tensor, rows_x: Tensor | None = None, rows_y: Tensor | None = None
    ) -> Iterator[Tensor]:
        """Yield z (rows, neurons) in float64 in chunks, for all rows or for `rows_x` and `rows_y` of x and y.

        All chunks share one buffer. It is column-major, which is the fastest layout for products of neurons.
        """
        width, size = self.n_neurons[0], max(CHUNK_SIZE // sum(self.n_neurons), 1)
        n = len(x) if rows_x is None else len(rows_x)
        buffer = self._origin.new_empty(sum(self.n_neurons), min(size, n))
        for start in range(0, n, size):
            piece = slice(start, min(start + size, n))
            z = buffer[:, : piece.stop - start].T
            for matrix, rows, part in ((x, rows_x, slice(None, width)), (y, rows_y, slice(width, None))):
                selected = matrix[piece if rows is None else rows[piece].to(matrix.device)]
                torch.sub(selected.to(buffer.device), self._origin[part], out=z[:, part])
            yield z

    def _accumulate(self, x: Tensor, y: Tensor) -> Tensor:
        """Add a batch to the sums and return its last chunk of z."""
        width = self.n_neurons[0]
        for z in self._chunks(x, y):
            step = max(z.shape[1] // 4, 32)
            for start in range(0, z.shape[1], step):  # symmetric: the upper triangle is sufficient
                self._outer[start : start + step, start:].addmm_(z[:, start : start + step].T, z[:, start:])
            self._sum += z.sum(0)
            if self._with_norms:
                norms = _squared_lengths(z, width)
                self._cubic.addmm_(norms, z)
                self._quartic.addmm_(norms, norms.T)
        self.n_datapoints += len(x)
        return z

    def _pair_clips(self, x: Tensor, y: Tensor, z: Tensor, positions: int) -> None:
        """Add the products of x with y shifted by a random number of clips.

        `z` is used instead of x and y if the batch fits in one chunk.
        """
        n, width = len(x), self.n_neurons[0]
        shift, stride, in_one_chunk = positions * self._shifts.randrange(1, n // positions), 1, len(z) == n
        self._n_paired += n
        if not in_one_chunk:
            max_stride = n // (MIN_PAIRS_PER_NEURON * max(self.n_neurons))
            stride = next((k for k in POSITION_STRIDES if k <= max_stride and positions % k == 0), 1)
            first = self._shifts.randrange(stride)
            x, y, n, shift = x[first::stride], y[first::stride], n // stride, shift // stride
        # A shift needs only views; a permutation would copy. The first clips of y are paired with the last ones of x.
        for rows_x, rows_y in ((slice(n - shift), slice(shift, n)), (slice(n - shift, n), slice(shift))):
            if in_one_chunk:
                self._add_pairs(z[rows_x, :width], z[rows_y, width:], 1)
            else:
                for piece in self._chunks(x[rows_x], y[rows_y]):
                    self._add_pairs(piece[:, :width], piece[:, width:], stride)

    def _add_pairs(self, u: Tensor, v: Tensor, weight: int) -> None:
        """Add the products of u with v of randomly paired clips, multiplied by `weight`."""
        self._shuffled.addmm_(u.T, v, alpha=weight)
        self._paired_sum.add_(torch.cat([u.sum(0), v.sum(0)]), alpha=weight)
        if self._with_norms:
            squares_u, squares_v = (torch.linalg.vector_norm(side, dim=1).square_() for side in (u, v))
            self._paired_cubic[0].addmv_(v.T, squares_u, alpha=weight)
            self._paired_cubic[1].addmv_(u.T, squares_v, alpha=weight)
            sums = torch.stack([squares_u.sum(), squares_v.sum(), squares_u.dot(squares_v)])
            self._paired_norms.add_(sums, alpha=weight)

    def _pair_datapoints(self, x: Tensor, y: Tensor) -> None:
        """Add the centred products of some datapoints of x with permuted datapoints of y."""
        if len(x) < 2:
            return
        width = self.n_neurons[0]
        order = torch.randperm(len(x), generator=self._generator, device=self._origin.device)
        # Later batches use fewer datapoints with larger weights: all batches count equally, and the cost grows slowly.
        selected = order[: max(MAX_PAIRS_PER_NEURON * max(self.n_neurons) * len(x) // self.n_datapoints, 2)]
        n = len(selected)
        weight = len(x) / n
        partners = selected[torch.randperm(n, generator=self._generator, device=selected.device)]
        total, squares = torch.zeros_like(self._origin), self._zeros(2)
        for z in self._chunks(x, y, selected, partners):
            self._shuffled.addmm_(z[:, :width].T, z[:, width:], alpha=weight**0.5)
            squares += torch.stack([part.square().sum() for part in (z[:, :width], z[:, width:])])
            total += z.sum(0)
        self._shuffled.addr_(total[:width], total[width:], alpha=-(weight**0.5) / n)
        variances = squares - torch.stack([part.dot(part) for part in (total[:width], total[width:])]) / n
        self._expected_square += weight * variances.prod() / (n - 1)

    def centred(self) -> CentredMoments:
        """Return the sums about the mean of all datapoints.

        Raises
        ------
        UserError
            If there are fewer than 2 datapoints, or an activation is NaN or infinite.
        """
        n, width = self.n_datapoints, self.n_neurons[0]
        if n < 2:
            raise UserError(f"similarity needs at least 2 datapoints, got {n}")
        for name, part in (("x", self._sum[:width]), ("y", self._sum[width:])):
            if broken := int((~part.isfinite()).sum()):
                raise UserError(f"{name} has NaN or infinite activations in {broken} of its {len(part)} neurons")
        mean = self._sum / n
        whole = self._outer.triu() + self._outer.triu(1).T
        outer = torch.addr(whole, mean, mean, alpha=-n)
        xx, yy = outer[:width, :width], outer[width:, width:]
        shuffled, shuffled_norm = (
            self._sums_of_mispaired_clips()
            if self._has_positions
            else self._sums_of_permuted_datapoints(xx.trace() * yy.trace())
        )
        return CentredMoments(
            n_datapoints=n,
            xx=xx,
            yy=yy,
            xy=outer[:width, width:],
            shuffled=shuffled,
            norms=self._centred_norms(whole, mean) if self._with_norms else None,
            shuffled_norm=shuffled_norm,
            rounding=(_rounding_error(self._origin[:width], n), _rounding_error(self._origin[width:], n)),
        )

    def _sums_of_permuted_datapoints(self, traces: Tensor) -> tuple[Tensor, float]:
        """Return the sums over permuted datapoints, scaled to the expected size of a permutation of all datapoints."""
        n = self.n_datapoints
        return self._shuffled * (traces / (n - 1) / self._expected_square).sqrt(), float(traces) / n

    def _sums_of_mispaired_clips(self) -> tuple[Tensor, float]:
        """Return the centred sums over mis-paired clips, scaled to the number of all datapoints."""
        n, width = self._n_paired, self.n_neurons[0]
        if not n:
            return torch.full_like(self._shuffled, torch.nan), float("nan")
        mean = self._paired_sum / n
        norm = _centre_norm_product(
            self._paired_norms[2],
            cubic=self._paired_cubic,
            squares=(self._paired_norms[0], self._paired_norms[1]),
            cross=self._shuffled,
            means=(mean[:width], mean[width:]),
            n=n,
        )
        shuffled = torch.addr(self._shuffled, mean[:width], mean[width:], alpha=-n)
        return shuffled * (self.n_datapoints / n), float(norm) * (self.n_datapoints / n)

    def _centred_norms(self, outer: Tensor, mean: Tensor) -> Tensor:
        """Return `CentredMoments.norms`, shape (2, 2)."""
        width = self.n_neurons[0]
        parts = (slice(None, width), slice(width, None))
        squares = [outer.diagonal()[part].sum() for part in parts]
        result = torch.zeros_like(self._quartic)
        for i, a in enumerate(parts):
            for j, b in enumerate(parts):
                result[i, j] = _centre_norm_product(
                    self._quartic[i, j],
                    cubic=(self._cubic[i, b], self._cubic[j, a]),
                    squares=(squares[i], squares[j]),
                    cross=outer[a, b],
                    means=(mean[a], mean[b]),
                    n=self.n_datapoints,
                )
        return result


def _centre_norm_product(
    quartic: Tensor,
    *,
    cubic: tuple[Tensor, Tensor],
    squares: tuple[Tensor, Tensor],
    cross: Tensor,
    means: tuple[Tensor, Tensor],
    n: int,
) -> Tensor:
    """Return sum |u - d|^2 |v - e|^2 over n datapoints from uncentred sums (derivation: see the module docstring).

    Parameters
    ----------
    quartic
        sum |u|^2 |v|^2.
    cubic
        sum |u|^2 v and sum |v|^2 u.
    squares
        sum |u|^2 and sum |v|^2.
    cross
        sum u v', shape (u neurons, v neurons).
    means
        The means d of u and e of v.
    n
        Number of datapoints.
    """
    d, e = means
    return (
        quartic
        - 2 * cubic[0].dot(e)
        - 2 * cubic[1].dot(d)
        + e.dot(e) * squares[0]
        + d.dot(d) * squares[1]
        + 4 * d.dot(cross @ e)
        - 3 * n * d.dot(d) * e.dot(e)
    )


def _as_matrix(name: str, value: Any) -> Tensor:
    """Return activations as a floating-point tensor (datapoints, neurons)."""
    array = value if isinstance(value, Tensor) else np.asarray(value)
    if array.ndim != 2 or 0 in array.shape:
        raise UserError(f"{name} has the shape {tuple(array.shape)}: similarity needs (datapoints, neurons)")
    if array.is_complex() if isinstance(array, Tensor) else array.dtype.kind not in "biuf":
        raise UserError(f"{name} holds values of type {array.dtype}: similarity needs real numbers")
    matrix = array if isinstance(array, Tensor) else torch.tensor(array)
    return matrix if matrix.is_floating_point() else matrix.double()


def _squared_lengths(z: Tensor, width: int) -> Tensor:
    """Return the squared norms of the rows of u and of v, shape (2, datapoints)."""
    return torch.stack([torch.linalg.vector_norm(part, dim=1) for part in (z[:, :width], z[:, width:])]).square_()


def _rounding_error(origin: Tensor, n: int) -> float:
    """Return a bound of the sum of squares that rounding errors of `n` datapoints can have."""
    return n * (16 * np.finfo(np.float64).eps * float(origin.abs().max())) ** 2
