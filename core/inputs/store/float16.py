"""An array that is stored in float16, looked up in float32: what looks at single inputs need not know of it."""

from typing import Any, SupportsIndex

import numpy as np


class Halves:
    """Rows of an array (`core.inputs.base.Rows`), float32 wherever they are looked up.

    Parameters
    ----------
    stored
        (clips, ...), float16.
    """

    def __init__(self, stored: np.ndarray) -> None:
        self.stored = stored
        self.shape, self.ndim = stored.shape, stored.ndim

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return some rows, named as NumPy's are; float32."""
        return np.asarray(self.stored[rows], dtype=np.float32)

    def reshape(self, clips: SupportsIndex, /, *shape: SupportsIndex) -> "Halves":
        """Give every input another shape."""
        return Halves(self.stored.reshape(clips, *shape))
