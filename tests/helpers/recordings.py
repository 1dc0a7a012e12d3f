"""Recordings as the product reads them, at their own sampling rates."""

from pathlib import Path

import numpy as np

from core.audio.reading import read_info, read_whole


def decode(path: Path) -> tuple[np.ndarray, int]:
    """Return a recording's samples, mono, float32, (samples,), and its sampling rate in Hz."""
    sr = read_info(path).sr
    return read_whole(path, sr=sr), sr
