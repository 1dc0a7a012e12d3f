"""Inputs that are computed from stored waveforms during training and not stored (``--on-the-fly``).

The same modules compute stored inputs, so on a CPU both are bit-identical.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
import torch
from torch import nn

from core.cache.entries import cache_key
from core.config.run import Clip, Frontend, identity
from core.errors import UserError
from core.inputs.base import InputKind
from core.inputs.input_kind import build_input_kind
from core.inputs.store.build_inputs import BATCH_SIZE, too_loud_reason
from core.inputs.store.compute import LazyWaveforms, compute_inputs
from core.inputs.store.stored_inputs import DatasetInputs, frontend_key_fields
from core.inputs.store.stored_waveforms import Waveforms

if TYPE_CHECKING:
    from core.datasets.dataset import Dataset


class WaveformsToInputs(nn.Module):
    """First module of a network that reads waveforms: computes inputs and augments them.

    Parameters
    ----------
    kind
        Module that computes the inputs.
    augment, change
        Module that changes the inputs in training mode, and module that changes them in evaluation mode.
    channels_last
        Whether images are returned in the channels-last memory format.
    """

    def __init__(self, kind: InputKind, *, augment: nn.Module, change: nn.Module, channels_last: bool) -> None:
        super().__init__()
        self.kind = kind
        self.augment, self.change = augment, change
        self.channels_last = channels_last

    def forward(self, waveforms: Any) -> torch.Tensor:
        """Return inputs (batch, ...), float32, of waveforms (batch, samples) or a list of waveforms (samples,)."""
        inputs = compute_inputs(self.kind, waveforms)
        if self.channels_last and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with torch.autocast(inputs.device.type, enabled=False):
            outputs: torch.Tensor = (self.augment if self.training else self.change)(inputs)
            return outputs


class LazyInputs:
    """Array of inputs whose rows are computed from waveforms on access (`core.inputs.base.ArrayLike`).

    Parameters
    ----------
    waveforms
        Waveform of each clip. For a longer recording, the segment that `fit_length` chooses is used.
    kind, device
        Module that computes the inputs, and its device.
    shape
        Shape of each input; by default that of `kind`.
    """

    def __init__(
        self, waveforms: Waveforms, kind: InputKind, device: torch.device, *, shape: tuple[int, ...] | None = None
    ) -> None:
        self.waveforms, self.kind, self.device = waveforms, kind, device
        self.shape = (len(waveforms), *(kind.shape if shape is None else shape))
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return len(self.waveforms)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Compute the inputs of the rows selected by a NumPy index, float32."""
        selected = np.arange(len(self))[rows]
        inputs = np.empty((selected.size, *self.shape[1:]), np.float32)
        for start in range(0, selected.size, BATCH_SIZE):
            part = selected.ravel()[start : start + BATCH_SIZE]
            lazy = LazyWaveforms([partial(self.waveforms.read, int(row)) for row in part], self.device)
            sounds = lazy if self.waveforms.too_long(part) else list(lazy)
            batch = compute_inputs(self.kind, sounds).cpu().numpy()
            inputs[start : start + BATCH_SIZE] = batch.reshape(len(part), *self.shape[1:])
        return inputs.reshape(*selected.shape, *self.shape[1:])

    def reshape(self, clips: SupportsIndex, /, *shape: SupportsIndex) -> "LazyInputs":
        """Return the array with another shape of its rows."""
        return LazyInputs(self.waveforms, self.kind, self.device, shape=tuple(map(int, shape)))


@dataclass(frozen=True)
class OnTheFlyInputs(DatasetInputs):
    """Inputs of a data set that are computed from stored waveforms on access.

    Attributes
    ----------
    waveforms
        The stored waveforms.
    """

    waveforms: Waveforms

    @property
    def entry(self) -> str:
        """Folder of the waveforms, relative to the cache."""
        return f"waveforms/{self.waveforms.key}"


def make_on_the_fly_inputs(
    waveforms: Waveforms, dataset: "Dataset", *, clip: Clip, frontend: Frontend, device: torch.device
) -> OnTheFlyInputs:
    """Return the inputs of waveforms without computing them yet.

    Raises
    ------
    UserError
        A clip is so loud that its spectrogram is not finite; the message names it.
    """
    array = LazyInputs(waveforms, build_input_kind(clip, frontend).to(device), device)
    for row in waveforms.loud:
        if not np.isfinite(array[row]).all():
            path = dataset.clips["path"].iloc[waveforms.clip_rows[row]]
            reason = too_loud_reason(array.kind)
            raise UserError(
                f"{path} of {dataset.name} is {reason}; take it out of the data set, or leave out --on-the-fly"
            )
    key_fields = {"live": waveforms.key, "clip": identity(clip), "device": device.type, **frontend_key_fields(frontend)}
    return OnTheFlyInputs(array, waveforms.clip_rows, waveforms.unusable, cache_key(key_fields), waveforms)
