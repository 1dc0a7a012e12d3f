"""Images of a fold's recordings, as the authors of "Rethinking CNN Models for Audio Classification" make them.

After what their repository does (github.com/kamalesh0406/Audio-Classification, preprocessing/preprocessingESC.py): one
recording after the other in one process, every channel resized by Pillow, all written at the end in one pickle. Their
report names librosa for the log-mels, their code transforms and multiplies with PyTorch: both are here. In a process of
its own that imports nothing of ours: every line of its input is ``librosa`` or ``torch``, a blank and a folder, and its
answer is the seconds.
"""

import pickle
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import torch
from PIL import Image
from torchvision.transforms import Resize

from tests.benchmarks.authors import serve

SR, N_FFT, BANDS, SIZE = 44_100, 4410, 128, (128, 250)
WINDOWS_MS = ((25, 10), (50, 25), (100, 50))


def librosas(y: np.ndarray, window: int, hop: int) -> np.ndarray:
    """Return the mel power (bands, frames) of a waveform (samples,)."""
    mel: np.ndarray = librosa.feature.melspectrogram(
        y=y, sr=SR, n_fft=N_FFT, win_length=window, hop_length=hop, n_mels=BANDS
    )
    return mel


def torchs(y: np.ndarray, window: int, hop: int) -> np.ndarray:
    """Return the same by PyTorch, its filters made once."""
    hann = torch.hann_window(window)
    stft = torch.stft(torch.from_numpy(y), N_FFT, hop, window, hann, pad_mode="constant", return_complex=True)
    return (_filters() @ stft.abs().square()).numpy()


@cache
def _filters() -> torch.Tensor:
    return torch.from_numpy(librosa.filters.mel(sr=SR, n_fft=N_FFT, n_mels=BANDS))


def image(y: np.ndarray, mel: Callable[[np.ndarray, int, int], np.ndarray]) -> np.ndarray:
    """Return the image (3, 128, 250) of a waveform (samples,)."""
    channels = []
    for window, hop in WINDOWS_MS:
        power = mel(y, round(window * SR / 1000), round(hop * SR / 1000))
        channels.append(np.asarray(Resize(SIZE)(Image.fromarray(np.log(power + 1e-6)))))
    return np.array(channels)


def make(mel: Callable[[np.ndarray, int, int], np.ndarray], folder: Path) -> None:
    """Make the images of all recordings of a folder and write them beside it."""
    values: list[dict[str, Any]] = []
    for path in sorted(folder.iterdir()):
        y, _ = librosa.load(path, sr=SR)
        values.append({"audio": y, "values": image(y, mel), "target": 0})
    with folder.with_suffix(".pkl").open("wb") as file:
        pickle.dump(values, file, protocol=pickle.HIGHEST_PROTOCOL)


def images_of(words: str) -> Callable[[], None]:
    """Return what makes the images of a folder with a library, as ``librosa FOLDER`` says it."""
    library, _, folder = words.partition(" ")
    return partial(make, {"librosa": librosas, "torch": torchs}[library], Path(folder))


if __name__ == "__main__":
    serve(images_of)
