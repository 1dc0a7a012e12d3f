"""Images of one fold of ESC-50, from recordings to the written file, against the authors of a report.

Their code follows preprocessing/preprocessingESC.py of github.com/kamalesh0406/Audio-Classification
(arXiv:2007.11154): one recording after the other in one process, channels resized by Pillow, one pickle at the end.
Their report names librosa for the log-mel spectrograms, but their code uses PyTorch; both are measured. Ours builds the
images as commands do, on all cores. 400 recordings of 5 s at 44.1 kHz become images of 3 x 128 x 250. The recordings
are those of ABLATION_REAL_DATA, repeated as often as needed, or noise.
"""

import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache, partial
from itertools import cycle, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import librosa
import numpy as np
import pandas as pd
import soundfile
import torch
from PIL import Image
from torchvision.transforms import Resize

from commands.cli.process_setup import OPENMP, set_up_libraries
from core.config.run import Clip, Frontend
from core.datasets.dataset import Dataset
from core.inputs.input_kind import build_input_kind
from core.inputs.spectrogram import WINDOWS_MS
from core.inputs.store.compute import compute_inputs
from core.inputs.store.stored_inputs import load_inputs
from tests.benchmarks.comparison import REPEATS, Function, Row, compare, serve_times, worker_process

CLIPS, SECONDS, SR, N_FFT, N_MELS, SIZE = 400, 5, 44_100, 4410, 128, (128, 250)
TARGET = 3.0
CLIP, FRONTEND = Clip(sr=SR, duration=float(SECONDS)), Frontend(n_frames=SIZE[1], fmax=SR / 2)
MelPower = Callable[[np.ndarray, int, int], np.ndarray]


def measure() -> Iterator[Row]:
    """Yield a row for each library of the authors' code."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        fold = Path(folder) / "fold"
        _write_recordings(fold)
        _check_equal_images(fold)
        ours = stack.enter_context(worker_process(__name__, str(fold), "ours"))
        theirs = stack.enter_context(worker_process(__name__, str(fold), "authors", without=tuple(OPENMP)))
        for library in MEL_POWER:
            rounds = [(theirs(library), ours(library)) for _ in range(1 + REPEATS)]
            what = f"images of {CLIPS} clips of {SECONDS} s at {SR} Hz: authors' code with {library} / ours"
            yield compare(what, *zip(*rounds[1:], strict=True), TARGET)


def _write_recordings(fold: Path) -> None:
    fold.mkdir()
    if data := os.environ.get("ABLATION_REAL_DATA"):
        real = sorted((Path(data) / "esc50" / "audio").glob("*.wav"))
        for i, path in enumerate(islice(cycle(real), CLIPS)):
            shutil.copyfile(path, fold / f"{i:03}.wav")
        return
    rng = np.random.default_rng(0)
    for i in range(CLIPS):
        soundfile.write(fold / f"{i:03}.wav", 0.1 * rng.standard_normal(SECONDS * SR), SR)


def _check_equal_images(fold: Path) -> None:
    """Check that both give the same image, up to the base of the logarithm and the way of resizing."""
    y, _ = soundfile.read(min(fold.iterdir()), dtype="float32")
    (own,) = compute_inputs(build_input_kind(CLIP, FRONTEND), torch.from_numpy(y)[None]).numpy()
    for mel_power in MEL_POWER.values():
        decibels = 10 / np.log(10) * authors_image(y, mel_power)
        np.testing.assert_allclose(own, decibels, rtol=0, atol=0.05)


def mel_power_librosa(y: np.ndarray, window: int, hop: int) -> np.ndarray:
    """Return the mel power (bands, frames) of a waveform (samples,) by librosa."""
    return librosa.feature.melspectrogram(y=y, sr=SR, n_fft=N_FFT, win_length=window, hop_length=hop, n_mels=N_MELS)


def mel_power_torch(y: np.ndarray, window: int, hop: int) -> np.ndarray:
    """Return the mel power (bands, frames) of a waveform (samples,) by PyTorch."""
    hann = torch.hann_window(window)
    stft = torch.stft(torch.from_numpy(y), N_FFT, hop, window, hann, pad_mode="constant", return_complex=True)
    return (_filters() @ stft.abs().square()).numpy()


@cache
def _filters() -> torch.Tensor:
    return torch.from_numpy(librosa.filters.mel(sr=SR, n_fft=N_FFT, n_mels=N_MELS))


MEL_POWER: dict[str, MelPower] = {"librosa": mel_power_librosa, "torch": mel_power_torch}


def authors_image(y: np.ndarray, mel_power: MelPower) -> np.ndarray:
    """Return the image (3, 128, 250) of a waveform (samples,)."""
    channels = []
    for window, hop in WINDOWS_MS:
        power = mel_power(y, round(window * SR / 1000), round(hop * SR / 1000))
        channels.append(np.asarray(Resize(SIZE)(Image.fromarray(np.log(power + 1e-6)))))
    return np.array(channels)


def build_as_authors(library: str, fold: Path) -> None:
    """Write the images of all recordings of a folder to a pickle beside it."""
    values: list[dict[str, Any]] = []
    for path in sorted(fold.iterdir()):
        y, _ = librosa.load(path, sr=SR)
        values.append({"audio": y, "values": authors_image(y, MEL_POWER[library]), "target": 0})
    with fold.with_suffix(".pkl").open("wb") as file:
        pickle.dump(values, file, protocol=pickle.HIGHEST_PROTOCOL)


def build_as_commands(fold: Path) -> None:
    """Build the images of all recordings of a folder in a new cache."""
    paths = pd.DataFrame({"path": sorted(path.name for path in fold.iterdir())})
    dataset, folder = SimpleNamespace(vectors=None, name="fold", root=fold, clips=paths), fold.with_suffix(".cache")
    shutil.rmtree(folder, ignore_errors=True)
    load_inputs(cast("Dataset", dataset), content="fold", clip=CLIP, frontend=FRONTEND, cache=folder)


def _prepare(library: str) -> Function:
    fold, side = Path(sys.argv[1]), sys.argv[2]
    return partial(build_as_authors, library, fold) if side == "authors" else partial(build_as_commands, fold)


if __name__ == "__main__":
    if sys.argv[2] == "ours":
        set_up_libraries()
    serve_times(_prepare)
