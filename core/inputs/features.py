"""Feature vectors: the rows of a data set's table, or features computed with librosa."""

from functools import cached_property

import numpy as np
import torch

from core.config.run import Clip, Frontend
from core.errors import UserError
from core.inputs.base import Axis, InputKind, Layout, normalise_peak
from core.inputs.gtzan_features import GtzanFeatures, list_feature_names
from core.inputs.log_mel import build_mel_filters
from core.inputs.spectrogram import check_band

DEFAULT_N_FFT = 2048  # frame length in samples


class Features(InputKind):
    """Vectors of features: the columns of a feature table, or features of a recording (`core.inputs.gtzan_features`).

    Parameters
    ----------
    clip
        Clip options; `sr` is used, and `duration` to check the length.
    frontend
        Uses `columns` for a table. For recordings uses `window` and `hop` (0: 2048 samples and a quarter of it),
        `padding`, `peak`, `n_mfcc`, and the fields of the mel filters.
    """

    unit = "its own unit"
    libraries = ("librosa",)

    def __init__(self, *, clip: Clip, frontend: Frontend) -> None:
        super().__init__(clip=clip, frontend=frontend)
        self.use_layout(self.layout(clip, frontend))
        self.peak, self.sr = frontend.peak, clip.sr
        self.measures = None if frontend.columns else _make_gtzan_features(clip, frontend)
        self.axes = (Axis("feature", "Feature", np.arange(float(*self.shape)), names=_list_feature_names(frontend)),)

    @classmethod
    def layout(cls, clip: Clip, frontend: Frontend) -> Layout:
        """Return the layout of a vector of features.

        Raises
        ------
        UserError
            If clips are shorter than a frame, or no bin lies in the frequency range.
        """
        window = frontend.window or DEFAULT_N_FFT
        if not frontend.columns:
            if (samples := round(clip.sr * clip.duration)) < window:
                raise UserError(
                    f"--input features: clips have {samples} samples, a frame has {window}; give a smaller --n-fft"
                )
            check_band(clip, frontend, n_fft=window, is_open=True)
        return Layout((len(_list_feature_names(frontend)),))

    @cached_property
    def silence(self) -> np.ndarray | None:
        """Features of a silent recording, (features,); None for a table."""
        return self.measures(np.zeros(self.sr, np.float32)) if self.measures else None

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Convert waveforms (batch, samples) to vectors (batch, features).

        Raises
        ------
        UserError
            For a feature table, whose rows `core.inputs.store.stored_inputs.load_inputs` returns.
        """
        if self.measures is None:
            raise UserError("features of a table cannot be computed from sounds")
        sounds = (normalise_peak(y) if self.peak else y).cpu().numpy()
        return torch.from_numpy(np.stack([self.measures(sound) for sound in sounds])).to(y.device)


def _make_gtzan_features(clip: Clip, frontend: Frontend) -> GtzanFeatures:
    window = frontend.window or DEFAULT_N_FFT
    return GtzanFeatures(
        sr=clip.sr,
        n_fft=window,
        hop_length=frontend.hop or max(1, window // 4),
        pad_mode="reflect" if frontend.padding == "reflect" else "constant",
        filters=build_mel_filters(clip=clip, frontend=frontend, n_fft=window)[0],
        n_mfcc=frontend.n_mfcc,
    )


def _list_feature_names(frontend: Frontend) -> tuple[str, ...]:
    return frontend.columns or list_feature_names(frontend.n_mfcc)
