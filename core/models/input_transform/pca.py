"""PCA of feature vectors as the first module of a network, fitted to the training rows after standardisation."""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import torch

from core.errors import UserError
from core.inputs.base import ArrayLike
from core.models.input_transform.normalise import Normalise
from core.registry import Lazy

PCA = Lazy("sklearn.decomposition:PCA")  # takes a second to import


class PcaProjection(Normalise):
    """Standardise vectors and project them on their principal components, without whitening.

    Without standardisation the features of the largest scale would dominate the variance.

    Parameters
    ----------
    mean, std
        One value per feature, in the feature's unit.
    axes
        Principal axes (features, components) of the standardised vectors, by decreasing variance.
    """

    axes: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], axes: np.ndarray) -> None:
        super().__init__(mean, std)
        self.mean, self.std = self.mean.view(1, -1), self.std.view(1, -1)
        self.register_buffer("axes", torch.tensor(axes, dtype=torch.float32))

    @classmethod
    def fitted(cls, vectors: ArrayLike, rows: np.ndarray, *, pca: float) -> Self:
        """Fit to the rows `rows` (training clips,) of `vectors` (clips, features).

        Parameters
        ----------
        pca
            Below 1: fraction of the variance to keep; otherwise the number of components.

        Raises
        ------
        UserError
            If there are fewer rows than features, too few rows or features for the components, or for the errors of
            `Normalise.of`.
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
        """Return the projection with a stored ``state_dict()``."""
        return cls(tensors["mean"].ravel().tolist(), tensors["std"].ravel().tolist(), tensors["axes"].numpy())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project vectors (batch, features) to (batch, components), in units of standard deviations."""
        projected: torch.Tensor = super().forward(x) @ self.axes
        return projected
