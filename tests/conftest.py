"""Small sounds and a small run, shared by all rooms."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from core.config import Run
from core.datasets import load
from core.datasets.table import Dataset
from core.execution import Execution
from core.plan import resolve
from core.session import Session

SR = 8000


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    """Keep tiny networks from spending their time on handing work between cores."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def real_data() -> Path:
    """Return the folder of real recordings, where the machine has one."""
    folder = os.environ.get("ABLATION_REAL_DATA")
    if not folder:
        pytest.skip("ABLATION_REAL_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of three classes (low, middle and high tones in noise) with ten clips of half a second each."""
    root = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    for label, hertz in (("low", 300), ("middle", 900), ("high", 2500)):
        (root / label).mkdir()
        for k in range(10):
            t = np.arange(SR // 2) / SR
            y = 0.3 * np.sin(2 * np.pi * hertz * rng.uniform(0.8, 1.25) * t) + 0.02 * rng.standard_normal(len(t))
            soundfile.write(root / label / f"{k}.wav", y, SR)
    return root


@pytest.fixture
def dataset(sounds: Path) -> Dataset:
    """Return the data set of `sounds`."""
    return load("folder", sounds)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """Return a session with a results folder of its own, on one CPU thread."""
    return Session(Execution(results=tmp_path / "results", device="cpu", threads=1))


@pytest.fixture
def run(dataset: Dataset, tmp_path: Path) -> Run:
    """Return a run that trains in a second: 32 x 32 images, EfficientNet-Lite0 with ImageNet weights, two epochs."""
    small = Run().replace(
        data__name="folder",
        clip__sr=SR,
        clip__duration=0.5,
        frontend__n_mels=32,
        frontend__n_frames=32,
        training__epochs=2,
        training__batch_size=8,
    )
    return resolve(small, dataset, dataset.fingerprint(tmp_path / "fingerprints"))
