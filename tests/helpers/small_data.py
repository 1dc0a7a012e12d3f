"""Small data sets of noise, and data sets that are refused."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile

from core.datasets import load_dataset
from core.errors import UserError


def write_class_folders(root: Path, counts: Mapping[str, int]) -> Path:
    """Write different recordings of 0.1 s, with a number of clips for each class; return their folder."""
    for number, (label, count) in enumerate(counts.items()):
        (root / label).mkdir(parents=True, exist_ok=True)
        for k in range(count):
            y = np.random.default_rng([number, k]).uniform(-0.5, 0.5, 800)
            soundfile.write(root / label / f"{k}.wav", y, 8000)
    return root


def load_refused(path: Path, name: str = "folder") -> str:
    """Load a data set that is refused; return the message."""
    with pytest.raises(UserError) as caught:
        load_dataset(name, path)
    message = str(caught.value)
    assert message.isprintable()
    return message
