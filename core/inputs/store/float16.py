"""Arrays that are stored in float16 and read in float32."""

from typing import Any, SupportsIndex

import numpy as np


class Float16Rows:
    """A float16 array whose rows are converted to float32 on access (`core.inputs.base.ArrayLike`).

    Parameters
    ----------
    stored
        Shape (clips, ...), float16.
    """

    def __init__(self, stored: np.ndarray) -> None:
        self.stored = stored
        self.shape, self.ndim = stored.shape, stored.ndim

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return the rows that an index of NumPy selects, float32."""
        return np.asarray(self.stored[rows], dtype=np.float32)

    def reshape(self, clips: SupportsIndex, /, *shape: SupportsIndex) -> "Float16Rows":
        """Return the array with another shape of each input."""
        return Float16Rows(self.stored.reshape(clips, *shape))
