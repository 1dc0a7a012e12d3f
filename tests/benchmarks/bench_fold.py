"""Images of one fold of ESC-50, from recordings to the written file, against what the authors of a report do.

Theirs is `tests.benchmarks.authors_images`, in a process of its own; ours is what every command does that has new
images to make, in another, on as many threads as there are cores. 400 recordings of 5 s at 44.1 kHz become three
channels of 128 x 250. The recordings are those of ABLATION_REAL_DATA, each as often as needed, or else noise.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import soundfile
import torch

from core.config.run import Clip, Frontend
from core.datasets.dataset import Dataset
from core.inputs.input_of_run import build_input_kind
from core.inputs.store.compute import compute_inputs
from core.inputs.store.stored_inputs import load_inputs
from tests.benchmarks.authors import serve
from tests.benchmarks.authors_images import SIZE, SR, image, librosas, torchs
from tests.benchmarks.bench_authors import elsewhere
from tests.benchmarks.comparison import REPEATS, row

CLIPS, SECONDS = 400, 5
TARGET = 3.0
CLIP, FRONTEND = Clip(sr=SR, duration=float(SECONDS)), Frontend(n_frames=SIZE[1], fmax=SR / 2)


def measure() -> Iterator[dict[str, Any]]:
    """Yield a row for each library that the authors' way makes log-mels with."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        fold = Path(folder) / "fold"
        _fill(fold)
        _check(fold)
        theirs = stack.enter_context(elsewhere("tests.benchmarks.authors_images"))
        ours = stack.enter_context(elsewhere("tests.benchmarks.bench_fold"))
        for library in ("librosa", "torch"):
            rounds = [(theirs(f"{library} {fold}"), ours(str(fold))) for _ in range(1 + REPEATS)][1:]
            what = f"images of {CLIPS} clips of {SECONDS} s at {SR} Hz: the authors' way with {library} / ours"
            yield row(what, *zip(*rounds, strict=True), TARGET)


def _fill(fold: Path) -> None:
    fold.mkdir()
    if data := os.environ.get("ABLATION_REAL_DATA"):
        real = sorted((Path(data) / "esc50" / "audio").glob("*.wav"))
        for i, path in enumerate(islice(cycle(real), CLIPS)):
            shutil.copyfile(path, fold / f"{i:03}.wav")
        return
    rng = np.random.default_rng(0)
    for i in range(CLIPS):
        soundfile.write(fold / f"{i:03}.wav", 0.1 * rng.standard_normal(SECONDS * SR), SR)


def _check(fold: Path) -> None:
    """See to it that both make the same of a recording, but for the logarithm's base and the ways to resize."""
    path = min(fold.iterdir())
    y, _ = soundfile.read(path, dtype="float32")
    (own,) = compute_inputs(build_input_kind(CLIP, FRONTEND), torch.from_numpy(y)[None]).numpy()
    for mel in (librosas, torchs):
        np.testing.assert_allclose(own, 10 / np.log(10) * image(y, mel), rtol=0, atol=0.05)  # decibels


def _images_of(fold: str) -> Callable[[], None]:
    """Return what makes the images of a folder, none of which are there."""
    paths = pd.DataFrame({"path": sorted(path.name for path in Path(fold).iterdir())})
    dataset, cache = SimpleNamespace(vectors=None, name="fold", root=Path(fold), clips=paths), Path(fold + "-cache")

    def make() -> None:
        shutil.rmtree(cache, ignore_errors=True)
        load_inputs(cast("Dataset", dataset), content="fold", clip=CLIP, frontend=FRONTEND, cache=cache)

    return make


if __name__ == "__main__":
    serve(_images_of)
