"""Principal components of vectors, as the network's first module: standardised first, fitted to training rows alone."""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import torch

from core.errors import UserError
from core.inputs.base import Rows
from core.models.input_transform.normalise import Normalise
from core.registry import Lazy

PCA = Lazy("sklearn.decomposition:PCA")  # takes a second to import


class Components(Normalise):
    """Standardise vectors and project them on their principal components; not whitened.

    Unscaled, the features with the largest numbers would be all of the variance.

    Parameters
    ----------
    mean, std
        One number per feature, in its unit.
    axes
        (features, components) of the standardised vectors, orthonormal, the strongest first.
    """

    axes: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], axes: np.ndarray) -> None:
        super().__init__(mean, std)
        self.mean, self.std = self.mean.view(1, -1), self.std.view(1, -1)
        self.register_buffer("axes", torch.tensor(axes, dtype=torch.float32))

    @classmethod
    def fitted(cls, vectors: Rows, rows: np.ndarray, *, pca: float) -> Self:
        """Fit to the vectors (clips, features) that `rows` name, (training clips,).

        Parameters
        ----------
        pca
            Below 1: as many components as hold more than this share of the variance; else their number.

        Raises
        ------
        UserError
            For fewer rows than features, more components than either, and what `Normalise.of` refuses.
        """
        n_features = vectors.shape[1]
        if pca > n_features or len(rows) <= min(pca, n_features):
            raise UserError(
                f"--pca {pca:g}: {len(rows)} training rows of {n_features} features have at most "
                f"{min(len(rows) - 1, n_features)} components; give less"
            )
        if pca < 1 and len(rows) <= n_features:
            raise UserError(
                f"--pca {pca:g}: {len(rows)} training rows are too few to say how {n_features} features vary; leave it "
                "out, or give a number of components"
            )
        standard = Normalise.of(vectors, rows)
        mean, std = (buffer.numpy().astype(np.float64).ravel() for buffer in (standard.mean, standard.std))
        found = PCA(pca if pca < 1 else int(pca), svd_solver="full").fit((vectors[rows] - mean) / std)
        return cls(mean.tolist(), std.tolist(), found.components_.T)

    @classmethod
    def restored(cls, tensors: Mapping[str, torch.Tensor]) -> Self:
        """Make the map whose ``state_dict()`` was kept."""
        return cls(tensors["mean"].ravel().tolist(), tensors["std"].ravel().tolist(), tensors["axes"].numpy())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map vectors (batch, features) to (batch, components), in deviations."""
        projected: torch.Tensor = super().forward(x) @ self.axes
        return projected
