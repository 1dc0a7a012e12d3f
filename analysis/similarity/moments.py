"""Sums over datapoints from which every similarity index follows: memory grows with neurons squared, not with clips.

Symbols: x and y are two sets of activations of the same datapoints, (datapoints, neurons); z = [u v] is the two side by
side, each measured from a fixed origin near its mean, so that a mean far larger than the spread does not swallow it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.errors import UserError

CHUNK = 2**18  # numbers of z held as float64 at a time (2 MB): they stay in cache from one step to the next
PARTNERS = 16  # datapoints per neuron that the noise floor is drawn from, at most of the first batch


@dataclass(frozen=True)
class Centred:
    """Sums about the mean, over all datapoints; float64.

    Attributes
    ----------
    n_datapoints
        Rows of x and of y.
    xx, yy, xy
        Sums of products, shape (x neurons, x neurons), (y neurons, y neurons) and (x neurons, y neurons).
    shuffled
        As `xy`, for y's datapoints paired with x's at random; NaN if no batch had two datapoints to exchange. Over
        all pairings its squared Frobenius norm is the trace of `xx` times that of `yy`, by n_datapoints - 1.
    norms
        [[sum k k, sum k l], [sum k l, sum l l]] with k and l the squared distance of each datapoint of x and of y
        from the mean, shape (2, 2); None where they were not summed.
    rounding
        Sums of squares below which all of x (of y) is rounding error of its mean.
    """

    n_datapoints: int
    xx: Tensor
    yy: Tensor
    xy: Tensor
    shuffled: Tensor
    norms: Tensor | None
    rounding: tuple[float, float]


class Moments:
    """The running sums of two sets of activations of the same datapoints.

    They are kept in float64 on the device of x (in main memory for a device without float64, such as Apple's MPS).

    The pairing at random behind the noise floor exchanges y's datapoints within each batch and leaves out what the
    means of the batches share, so that neighbours alike (clips ordered by class) do not pass for chance; then it is
    scaled to the size that an exchange among all datapoints has on average. One batch with everything in it is an
    ordinary permutation, batches of shuffled clips amount to one, and of ordered clips the floor of CCA errs on the
    high side. A batch of one datapoint adds nothing. Of a large batch some datapoints drawn at random stand for the
    rest (16 per neuron, of a second batch half as many, of a third a third) and count for it. The positions of one clip
    count as datapoints of their own, though they resemble each other: for folded maps the floor is the lowest that
    chance allows.

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
    def add(self, x: Any, y: Any) -> None:
        """Add a batch of datapoints.

        Parameters
        ----------
        x, y
            Arrays or tensors of the same datapoints in the same order, shape (datapoints, neurons); the numbers of
            neurons may differ. Neither is changed or kept.

        Raises
        ------
        UserError
            For another shape, or another number of neurons than in the batches before.
        """
        x, y = _matrix("x", x), _matrix("y", y)
        if len(x) != len(y):
            raise UserError(f"x has {len(x)} datapoints and y {len(y)}: give both the same clips, in the same order")
        if not self.n_datapoints:
            self._start(x, y)
        for name, matrix, neurons in zip("xy", (x, y), self.n_neurons, strict=True):
            if matrix.shape[1] != neurons:
                raise UserError(f"{name} has {matrix.shape[1]} neurons, the batches before had {neurons}")
        self._accumulate(x, y)
        self._pair_at_random(x, y)

    def _start(self, x: Any, y: Any) -> None:
        self.n_neurons = width, height = x.shape[1], y.shape[1]
        device = x.device if isinstance(x, Tensor) and x.device.type != "mps" else torch.device("cpu")
        self._zeros = torch.zeros((), dtype=torch.float64, device=device).new_zeros
        self._generator = torch.Generator(device).manual_seed(self._seed)
        self._origin = self._zeros(width + height)
        self._origin = next(self._chunks(x, y)).mean(0)
        self._sum = torch.zeros_like(self._origin)
        self._outer = self._zeros(width + height, width + height)  # sum z z', above the diagonal
        self._cubic = self._zeros(2, width + height)  # sum |u|^2 z; sum |v|^2 z
        self._quartic = self._zeros(2, 2)  # sum |u|^4, |u|^2 |v|^2; |u|^2 |v|^2, |v|^4
        self._shuffled = self._zeros(width, height)
        self._chance = self._zeros(())  # mean over all pairings of the squared norm of the one above

    def _chunks(self, x: Any, y: Any, rows_x: Tensor | None = None, rows_y: Tensor | None = None) -> Iterator[Tensor]:
        """Yield z in float64, or the chosen rows of x beside those of y, piecewise and always in the same memory.

        A neuron's datapoints lie side by side, which the products of two neurons are fastest with.
        """
        width, size = self.n_neurons[0], max(CHUNK // sum(self.n_neurons), 1)
        n = len(x) if rows_x is None else len(rows_x)
        buffer = self._origin.new_empty(sum(self.n_neurons), min(size, n))
        for start in range(0, n, size):
            piece = slice(start, min(start + size, n))
            z = buffer[:, : piece.stop - start].T
            for matrix, rows, part in ((x, rows_x, slice(None, width)), (y, rows_y, slice(width, None))):
                picked = _pick(matrix, piece if rows is None else rows[piece], buffer.device)
                torch.sub(picked, self._origin[part], out=z[:, part])
            yield z

    def _accumulate(self, x: Any, y: Any) -> None:
        width = self.n_neurons[0]
        for z in self._chunks(x, y):
            step = max(z.shape[1] // 4, 32)
            for start in range(0, z.shape[1], step):  # the result is symmetric: what is right of the diagonal says all
                self._outer[start : start + step, start:].addmm_(z[:, start : start + step].T, z[:, start:])
            self._sum += z.sum(0)
            if self._with_norms:
                norms = _norms(z, width)
                self._cubic.addmm_(norms, z)
                self._quartic.addmm_(norms, norms.T)
        self.n_datapoints += len(x)

    def _pair_at_random(self, x: Any, y: Any) -> None:
        if len(x) < 2:
            return
        width = self.n_neurons[0]
        order = torch.randperm(len(x), generator=self._generator, device=self._origin.device)
        # Fewer of each further batch, and each of them counts for more: the batches weigh alike, the work grows slowly.
        chosen = order[: max(PARTNERS * max(self.n_neurons) * len(x) // self.n_datapoints, 2)]
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

    def centred(self) -> Centred:
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
        scale = (xx.trace() * yy.trace() / (n - 1) / self._chance).sqrt()
        return Centred(
            n_datapoints=n,
            xx=xx,
            yy=yy,
            xy=outer[:width, width:],
            shuffled=self._shuffled * scale,
            norms=self._centred_norms(whole, mean) if self._with_norms else None,
            rounding=(_rounding(self._origin[:width], n), _rounding(self._origin[width:], n)),
        )

    def _centred_norms(self, outer: Tensor, mean: Tensor) -> Tensor:
        """Move the sums of products of squared norms from the origin to the mean.

        With d and e the means of u and v, the sum of |u - d|^2 |v - e|^2 is, multiplied out, sum |u|^2 |v|^2
        - 2 e.sum |u|^2 v - 2 d.sum |v|^2 u + |e|^2 sum |u|^2 + |d|^2 sum |v|^2 + 4 d'(sum u v') e - 3 n |d|^2 |e|^2.
        """
        width = self.n_neurons[0]
        parts = (slice(None, width), slice(width, None))
        squares = [outer.diagonal()[part].sum() for part in parts]
        shifts = [mean[part].dot(mean[part]) for part in parts]
        result = self._quartic.clone()
        for i, a in enumerate(parts):
            for j, b in enumerate(parts):
                result[i, j] += (
                    -2 * self._cubic[i, b].dot(mean[b])
                    - 2 * self._cubic[j, a].dot(mean[a])
                    + shifts[j] * squares[i]
                    + shifts[i] * squares[j]
                    + 4 * mean[a].dot(outer[a, b] @ mean[b])
                    - 3 * self.n_datapoints * shifts[i] * shifts[j]
                )
        return result


def _matrix(name: str, value: Any) -> Any:
    matrix = value if isinstance(value, Tensor) else np.asarray(value)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise UserError(f"{name} has the shape {tuple(matrix.shape)}: similarity needs (datapoints, neurons)")
    if matrix.is_complex() if isinstance(matrix, Tensor) else matrix.dtype.kind not in "biuf":
        raise UserError(f"{name} holds values of type {matrix.dtype}: similarity needs real numbers")
    return matrix


def _pick(matrix: Any, rows: slice | Tensor, device: torch.device) -> Tensor:
    if isinstance(matrix, Tensor):
        picked = matrix[rows if isinstance(rows, slice) else rows.to(matrix.device)].to(device)
    else:
        picked = torch.from_numpy(np.array(matrix[rows if isinstance(rows, slice) else rows.cpu().numpy()])).to(device)
    return picked if picked.is_floating_point() else picked.double()


def _norms(z: Tensor, width: int) -> Tensor:
    """Return the squared lengths of u and of v, shape (2, datapoints)."""
    return torch.stack([torch.linalg.vector_norm(part, dim=1) for part in (z[:, :width], z[:, width:])]).square_()


def _rounding(origin: Tensor, n: int) -> float:
    return n * (16 * np.finfo(np.float64).eps * float(origin.abs().max())) ** 2
