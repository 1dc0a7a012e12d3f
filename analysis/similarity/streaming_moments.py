"""Sums over datapoints from which every similarity index follows: memory grows with neurons squared, not with clips.

Symbols: x and y are two sets of activations of the same datapoints, (datapoints, neurons); z = [u v] is the two side by
side, each measured from a fixed origin near its mean, so that a mean far larger than the spread does not swallow it.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.errors import UserError

CHUNK_SIZE = 2**18  # numbers of z held as float64 at a time (2 MB): they stay in cache from one step to the next
MAX_PAIRS_PER_NEURON = (
    16  # datapoints per neuron that the noise floor is drawn from, at most of the first batch, without positions
)
MIN_PAIRS_PER_NEURON = 32  # datapoints per neuron that are mis-paired of a batch of maps, at least, where it has more
POSITION_STRIDES = (4, 3, 2)  # of the positions that stand for all


@dataclass(frozen=True)
class CentredMoments:
    """Sums about the mean, over all datapoints; float64.

    Attributes
    ----------
    n_datapoints
        Rows of x and of y.
    xx, yy, xy
        Sums of products, shape (x neurons, x neurons), (y neurons, y neurons) and (x neurons, y neurons).
    shuffled
        As `xy`, for y's clips paired with x's at random; NaN if no batch had two clips to exchange. Where every clip is
        one datapoint, its squared Frobenius norm is, over all pairings, the trace of `xx` times that of `yy`, by
        n_datapoints - 1.
    norms
        [[sum k k, sum k l], [sum k l, sum l l]] with k and l the squared distance of each datapoint of x and of y
        from the mean, shape (2, 2); None where they were not summed.
    shuffled_norm
        sum k l for the pairing at random; where every clip is one datapoint, its mean over all pairings.
    rounding
        Sums of squares below which all of x (of y) is rounding error of its mean.
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
    """The running sums of two sets of activations of the same datapoints.

    They are kept in float64 on the device of x (in main memory for a device without float64, such as Apple's MPS).

    The noise floor is the same index on the same activations with the clips of y paired with those of x at random.
    What all clips share, such as the mean map of a layer, is therefore part of it.

    Of maps, whole clips are exchanged, none meets its own, and every position stays beside itself: within a batch, y
    moves on by a number of clips drawn at random. Of a large batch every second, third or fourth position stands for
    all, so that at least 32 datapoints per neuron do. That is one draw, of few pairs where there are few clips. Clips
    that are alike and stand side by side, such as those of one class, raise the floor: give them in random order.

    Where every clip is one datapoint, y's datapoints are exchanged at random within each batch, what the means of the
    batches share is left out, so that neighbours alike do not pass for chance, and the result is scaled to the size
    that an exchange among all datapoints has on average. One batch with everything in it is an ordinary permutation,
    batches of shuffled clips amount to one, and of ordered clips the floor of CCA errs on the high side. Of a large
    batch some datapoints drawn at random stand for the rest (16 per neuron, of a second batch half as many, of a third
    a third) and count for it.

    A batch of one clip adds nothing to the floor.

    Parameters
    ----------
    seed
        Of the pairing at random.
    norms
        Sum the products of squared distances from the mean too, which `cka` needs and no other index.
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
            Arrays or tensors of the same datapoints in the same order, shape (datapoints, neurons); the numbers of
            neurons may differ. Neither is changed or kept.
        positions
            Datapoints of each clip, which lie together and in the same order for every clip.

        Raises
        ------
        UserError
            For another shape, another number of neurons than in the batches before, or a part of a clip.
        """
        x, y = _check_matrix("x", x), _check_matrix("y", y)
        if len(x) != len(y):
            raise UserError(f"x has {len(x)} datapoints and y {len(y)}: give both the same clips, in the same order")
        if positions < 1 or len(x) % positions:
            raise UserError(f"{len(x)} datapoints are not whole clips of {positions} positions: give clips whole")
        if not self.n_datapoints:
            self._start(x, y, maps=positions > 1)
        for name, matrix, neurons in zip("xy", (x, y), self.n_neurons, strict=True):
            if matrix.shape[1] != neurons:
                raise UserError(f"{name} has {matrix.shape[1]} neurons, the batches before had {neurons}")
        z = self._accumulate(x, y)
        if not self._maps:
            self._pair_datapoints(x, y)
        elif len(x) > positions:
            self._pair_clips(x, y, z, positions)

    def _start(self, x: Any, y: Any, *, maps: bool) -> None:
        self._maps = maps
        self.n_neurons = width, height = x.shape[1], y.shape[1]
        device = x.device if isinstance(x, Tensor) and x.device.type != "mps" else torch.device("cpu")
        self._zeros = torch.zeros((), dtype=torch.float64, device=device).new_zeros
        self._generator = torch.Generator(device).manual_seed(self._seed)
        self._shifts = random.Random(self._seed)
        self._origin = self._zeros(width + height)
        self._origin = next(self._chunks(x, y)).mean(0)
        self._sum = torch.zeros_like(self._origin)
        self._outer = self._zeros(width + height, width + height)  # sum z z', above the diagonal
        self._cubic = self._zeros(2, width + height)  # sum |u|^2 z; sum |v|^2 z
        self._quartic = self._zeros(2, 2)  # sum |u|^4, |u|^2 |v|^2; |u|^2 |v|^2, |v|^4
        self._shuffled = self._zeros(width, height)
        self._chance = self._zeros(())  # without positions: mean over all pairings of the squared norm of the above
        # With positions: how many datapoints found one of another clip, and, v being that one's, their sum z;
        # sum |u|^2 v; sum |v|^2 u; sum |u|^2, |v|^2, |u|^2 |v|^2.
        self._n_paired, self._paired_sum = 0, torch.zeros_like(self._origin)
        self._paired_cubic = self._zeros(height), self._zeros(width)
        self._paired_norms = self._zeros(3)

    def _chunks(self, x: Any, y: Any, rows_x: Tensor | None = None, rows_y: Tensor | None = None) -> Iterator[Tensor]:
        """Yield z in float64, or the chosen rows of x beside those of y, piecewise and always in the same memory.

        A neuron's datapoints lie side by side, which the products of two neurons are fastest with.
        """
        width, size = self.n_neurons[0], max(CHUNK_SIZE // sum(self.n_neurons), 1)
        n = len(x) if rows_x is None else len(rows_x)
        buffer = self._origin.new_empty(sum(self.n_neurons), min(size, n))
        for start in range(0, n, size):
            piece = slice(start, min(start + size, n))
            z = buffer[:, : piece.stop - start].T
            for matrix, rows, part in ((x, rows_x, slice(None, width)), (y, rows_y, slice(width, None))):
                picked = _take_rows(matrix, piece if rows is None else rows[piece], buffer.device)
                torch.sub(picked, self._origin[part], out=z[:, part])
            yield z

    def _accumulate(self, x: Any, y: Any) -> Tensor:
        """Add to the sums, and return the last piece of z."""
        width = self.n_neurons[0]
        for z in self._chunks(x, y):
            step = max(z.shape[1] // 4, 32)
            for start in range(0, z.shape[1], step):  # the result is symmetric: what is right of the diagonal says all
                self._outer[start : start + step, start:].addmm_(z[:, start : start + step].T, z[:, start:])
            self._sum += z.sum(0)
            if self._with_norms:
                norms = _squared_lengths(z, width)
                self._cubic.addmm_(norms, z)
                self._quartic.addmm_(norms, norms.T)
        self.n_datapoints += len(x)
        return z

    def _pair_clips(self, x: Any, y: Any, z: Tensor, positions: int) -> None:
        """Pair each clip of x with the y of one some clips further on; z are both in float64 if they fit in a piece."""
        n, width = len(x), self.n_neurons[0]
        ahead, stride, whole = positions * self._shifts.randrange(1, n // positions), 1, len(z) == n
        self._n_paired += n
        if not whole:
            most = n // (MIN_PAIRS_PER_NEURON * max(self.n_neurons))
            stride = next((k for k in POSITION_STRIDES if k <= most and positions % k == 0), 1)
            first = self._shifts.randrange(stride)
            x, y, n, ahead = x[first::stride], y[first::stride], n // stride, ahead // stride
        # Views, where a permutation would copy: the first clips of y belong to the last ones of x.
        for of_x, of_y in ((slice(n - ahead), slice(ahead, n)), (slice(n - ahead, n), slice(ahead))):
            if whole:
                self._add_pairs(z[of_x, :width], z[of_y, width:], 1)
            else:
                for piece in self._chunks(x[of_x], y[of_y]):
                    self._add_pairs(piece[:, :width], piece[:, width:], stride)

    def _add_pairs(self, u: Tensor, v: Tensor, weight: int) -> None:
        self._shuffled.addmm_(u.T, v, alpha=weight)
        self._paired_sum.add_(torch.cat([u.sum(0), v.sum(0)]), alpha=weight)
        if self._with_norms:
            squares_u, squares_v = (torch.linalg.vector_norm(side, dim=1).square_() for side in (u, v))
            self._paired_cubic[0].addmv_(v.T, squares_u, alpha=weight)
            self._paired_cubic[1].addmv_(u.T, squares_v, alpha=weight)
            sums = torch.stack([squares_u.sum(), squares_v.sum(), squares_u.dot(squares_v)])
            self._paired_norms.add_(sums, alpha=weight)

    def _pair_datapoints(self, x: Any, y: Any) -> None:
        """Exchange some datapoints, which are clips of their own, at random; leave out what their mean says."""
        if len(x) < 2:
            return
        width = self.n_neurons[0]
        order = torch.randperm(len(x), generator=self._generator, device=self._origin.device)
        # Fewer of each further batch, and each of them counts for more: the batches weigh alike, the work grows slowly.
        chosen = order[: max(MAX_PAIRS_PER_NEURON * max(self.n_neurons) * len(x) // self.n_datapoints, 2)]
        n = len(chosen)
        weight = len(x) / n
        partners = chosen[torch.randperm(n, generator=self._generator, device=chosen.device)]
        total, squares = torch.zeros_like(self._origin), self._zeros(2)
        for z in self._chunks(x, y, chosen, partners):
            self._shuffled.addmm_(z[:, :width].T, z[:, width:], alpha=weight**0.5)
            squares += torch.stack([part.square().sum() for part in (z[:, :width], z[:, width:])])
            total += z.sum(0)
        self._shuffled.addr_(total[:width], total[width:], alpha=-(weight**0.5) / n)
        spreads = squares - torch.stack([part.dot(part) for part in (total[:width], total[width:])]) / n
        self._chance += weight * spreads.prod() / (n - 1)

    def centred(self) -> CentredMoments:
        """Return the sums about the mean of all datapoints.

        Raises
        ------
        UserError
            With fewer than 2 datapoints, or where an activation was NaN or infinite.
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
        shuffled, shuffled_norm = self._mispaired() if self._maps else self._exchanged(xx.trace() * yy.trace())
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

    def _exchanged(self, traces: Tensor) -> tuple[Tensor, float]:
        """Return the sums over exchanged datapoints, as large as an exchange among all has them on average."""
        n = self.n_datapoints
        return self._shuffled * (traces / (n - 1) / self._chance).sqrt(), float(traces) / n

    def _mispaired(self) -> tuple[Tensor, float]:
        """Return the sums over mis-paired clips about their mean; they stand for clips alone in their batch too."""
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
    """Move the sum over n datapoints of |u|^2 |v|^2 from the origin to the means d of u and e of v.

    The sum of |u - d|^2 |v - e|^2 is, multiplied out, sum |u|^2 |v|^2 - 2 e.sum |u|^2 v - 2 d.sum |v|^2 u
    + |e|^2 sum |u|^2 + |d|^2 sum |v|^2 + 4 d'(sum u v') e - 3 n |d|^2 |e|^2.
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


def _check_matrix(name: str, value: Any) -> Any:
    matrix = value if isinstance(value, Tensor) else np.asarray(value)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise UserError(f"{name} has the shape {tuple(matrix.shape)}: similarity needs (datapoints, neurons)")
    if matrix.is_complex() if isinstance(matrix, Tensor) else matrix.dtype.kind not in "biuf":
        raise UserError(f"{name} holds values of type {matrix.dtype}: similarity needs real numbers")
    return matrix


def _take_rows(matrix: Any, rows: slice | Tensor, device: torch.device) -> Tensor:
    if isinstance(matrix, Tensor):
        picked = matrix[rows if isinstance(rows, slice) else rows.to(matrix.device)].to(device)
    else:
        picked = torch.from_numpy(np.array(matrix[rows if isinstance(rows, slice) else rows.cpu().numpy()])).to(device)
    return picked if picked.is_floating_point() else picked.double()


def _squared_lengths(z: Tensor, width: int) -> Tensor:
    """Return the squared lengths of u and of v, shape (2, datapoints)."""
    return torch.stack([torch.linalg.vector_norm(part, dim=1) for part in (z[:, :width], z[:, width:])]).square_()


def _rounding_error(origin: Tensor, n: int) -> float:
    return n * (16 * np.finfo(np.float64).eps * float(origin.abs().max())) ** 2
