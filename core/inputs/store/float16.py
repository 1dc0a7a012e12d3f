"""Arrays that are stored in float16 and read in float32."""

from typing import Any, SupportsIndex

import numpy as np


class Float16Rows:
    """A float16 array whose rows are converted to float32 on access (`core.inputs.base.ArrayLike`).

    Parameters
    ----------
    stored
        Array (clips, ...), float16.
    """

    def __init__(self, stored: np.ndarray) -> None:
        self.stored = stored
        self.shape, self.ndim = stored.shape, stored.ndim

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return the rows selected by a NumPy index, float32."""
        return np.asarray(self.stored[rows], dtype=np.float32)

    def reshape(self, clips: SupportsIndex, /, *shape: SupportsIndex) -> "Float16Rows":
        """Return the array with another shape of its rows."""
        return Float16Rows(self.stored.reshape(clips, *shape))
