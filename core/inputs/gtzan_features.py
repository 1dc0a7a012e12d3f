"""The 57 features of the table that is distributed with GTZAN, computed with librosa.

It is not documented how the table was made. Here each feature is the librosa function of the same name with default
settings. ``harmony`` and ``perceptr`` are the waveforms of `librosa.effects.hpss`; ``tempo`` is from
`librosa.beat.beat_track`.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from core.registry import Lazy

librosa, ndimage = Lazy("librosa"), Lazy("scipy.ndimage")  # take seconds to import; a plan computes no features

# Series whose mean and variance are features: over samples for harmony and perceptr, over frames for the others.
SERIES = (
    "chroma_stft",
    "rms",
    "spectral_centroid",
    "spectral_bandwidth",
    "rolloff",
    "zero_crossing_rate",
    "harmony",
    "perceptr",
)
MOMENTS = ("mean", "var")

MEDIAN_SIZE = 31  # size of the median filters in frames or bins (librosa's default)


def list_feature_names(n_mfcc: int) -> tuple[str, ...]:
    """Return the names of the features in order: 57 names for 20 coefficients."""
    coefficients = [f"mfcc{k + 1}" for k in range(n_mfcc)]
    before, after = ([f"{name}_{of}" for name in part for of in MOMENTS] for part in (SERIES, coefficients))
    return (*before, "tempo", *after)


@dataclass(frozen=True, kw_only=True)
class GtzanFeatures:
    """Callable that computes the features of GTZAN's table from a waveform.

    Parameters
    ----------
    sr
        Sampling rate in Hz.
    n_fft, hop_length
        Frame length and hop length in samples.
    pad_mode
        Padding at both ends: ``constant`` (silence) or ``reflect``.
    filters
        Mel filters (n_mels, bins), for the cepstral coefficients and the tempo.
    n_mfcc
        Number of cepstral coefficients, at most the number of filters.
    """

    sr: int
    n_fft: int
    hop_length: int
    pad_mode: Literal["constant", "reflect"]
    filters: np.ndarray
    n_mfcc: int

    def __call__(self, y: np.ndarray) -> np.ndarray:
        """Return the features of a waveform (samples,): (features,) float32 in the order of `list_feature_names`."""
        spectrum = librosa.stft(y, n_fft=self.n_fft, hop_length=self.hop_length, pad_mode=self.pad_mode)
        series = self._over_time(y, spectrum)
        decibels = librosa.power_to_db(self.filters @ np.abs(spectrum) ** 2)  # (n_mels, frames)
        coefficients = librosa.feature.mfcc(S=decibels, n_mfcc=self.n_mfcc)
        before, after = (
            [moment for values in part for moment in (values.mean(dtype=np.float64), values.var(dtype=np.float64))]
            for part in ([series[name] for name in SERIES], coefficients)
        )
        return np.array([*before, self._tempo(decibels), *after], dtype=np.float32)

    def _over_time(self, y: np.ndarray, spectrum: np.ndarray) -> dict[str, np.ndarray]:
        """Return the series of `SERIES` by name, from a waveform (samples,) and its spectrum (bins, frames)."""
        sr, n_fft, hop_length = self.sr, self.n_fft, self.hop_length
        magnitude = np.abs(spectrum)
        power = magnitude**2
        tuning = self._tuning(power)
        centroid = librosa.feature.spectral_centroid(S=magnitude, sr=sr, n_fft=n_fft)
        harmony, perceptr = (
            librosa.istft(spectrum * mask, n_fft=n_fft, hop_length=hop_length, length=len(y))
            for mask in _compute_hpss_masks(magnitude)
        )
        return {
            "chroma_stft": librosa.feature.chroma_stft(S=power, sr=sr, n_fft=n_fft, tuning=tuning),
            "rms": librosa.feature.rms(y=y, frame_length=n_fft, hop_length=hop_length, pad_mode=self.pad_mode),
            "spectral_centroid": centroid,
            "spectral_bandwidth": librosa.feature.spectral_bandwidth(
                S=magnitude, sr=sr, n_fft=n_fft, centroid=centroid
            ),
            "rolloff": librosa.feature.spectral_rolloff(S=magnitude, sr=sr, n_fft=n_fft),
            "zero_crossing_rate": librosa.feature.zero_crossing_rate(y, frame_length=n_fft, hop_length=hop_length),
            "harmony": harmony,
            "perceptr": perceptr,
        }

    def _tuning(self, power: np.ndarray) -> float:
        """Return the result of `librosa.estimate_tuning`: the deviation of loud pitches from semitones, or 0."""
        pitches, loudness = librosa.piptrack(S=power, sr=self.sr, n_fft=self.n_fft)
        if not (is_pitch := pitches > 0).any():
            return 0.0
        return librosa.pitch_tuning(pitches[is_pitch & (loudness >= np.median(loudness[is_pitch]))], bins_per_octave=12)

    def _tempo(self, decibels: np.ndarray) -> float:
        """Return the initial tempo of `librosa.beat.beat_track` in beats per minute; 0 without onsets."""
        sr, hop_length = self.sr, self.hop_length
        onsets = librosa.onset.onset_strength(
            S=decibels, sr=sr, n_fft=self.n_fft, hop_length=hop_length, aggregate=np.median
        )
        if not onsets.any():
            return 0.0
        return float(librosa.feature.tempo(onset_envelope=onsets, sr=sr, hop_length=hop_length)[0])


def _compute_hpss_masks(magnitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the harmonic and the percussive mask of `librosa.decompose.hpss`, (bins, frames).

    Medians are taken row by row, where SciPy's algorithm is six times as fast as for images.
    """
    along = np.stack([ndimage.median_filter(row, MEDIAN_SIZE) for row in magnitude])
    across = np.stack([ndimage.median_filter(column, MEDIAN_SIZE) for column in magnitude.T]).T
    harmonic = librosa.util.softmask(along, across, power=2, split_zeros=True)
    return harmonic, librosa.util.softmask(across, along, power=2, split_zeros=True)
