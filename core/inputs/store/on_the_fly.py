"""Inputs that are computed from stored waveforms during training and never stored.

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
from core.inputs.input_of_run import build_input_kind
from core.inputs.store.build_inputs import BATCH_SIZE, too_loud_reason
from core.inputs.store.compute import LazyWaveforms, compute_inputs
from core.inputs.store.stored_inputs import DatasetInputs, frontend_key_fields
from core.inputs.store.stored_waveforms import Waveforms

if TYPE_CHECKING:
    from core.datasets.dataset import Dataset


class WaveformsToInputs(nn.Module):
    """First module of a network on waveforms: computes their inputs and augments them.

    Parameters
    ----------
    kind
        Front end that computes the inputs.
    augment, change
        Applied to the inputs in training, and in validation and testing.
    channels_last
        Whether images are returned in the channels-last layout.
    """

    def __init__(self, kind: InputKind, *, augment: nn.Module, change: nn.Module, channels_last: bool) -> None:
        super().__init__()
        self.kind = kind
        self.augment, self.change = augment, change
        self.channels_last = channels_last

    def forward(self, waveforms: Any) -> torch.Tensor:
        """Return inputs (batch, ...) in fp32 of waveforms (batch, samples), or of a list of (samples,)."""
        made = compute_inputs(self.kind, waveforms)
        if self.channels_last and made.ndim == 4:
            made = made.contiguous(memory_format=torch.channels_last)
        with torch.autocast(made.device.type, enabled=False):
            changed: torch.Tensor = (self.augment if self.training else self.change)(made)
            return changed


class LazyInputs:
    """Acts as an array of stored inputs, but computes its rows on access (`core.inputs.base.ArrayLike`).

    Parameters
    ----------
    waveforms
        Waveform of each clip; of a longer recording the segment that is used for testing.
    kind, device
        Front end, and the device that computes.
    shape
        Shape of each input; by default the kind's.
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
        """Compute the inputs of the rows that an index of NumPy selects; float32."""
        chosen = np.arange(len(self))[rows]
        made = np.empty((chosen.size, *self.shape[1:]), np.float32)
        for start in range(0, chosen.size, BATCH_SIZE):
            part = chosen.ravel()[start : start + BATCH_SIZE]
            found = LazyWaveforms([partial(self.waveforms.read, int(row)) for row in part], self.device)
            sounds = found if self.waveforms.too_long(part) else list(found)
            inputs = compute_inputs(self.kind, sounds).cpu().numpy()
            made[start : start + BATCH_SIZE] = inputs.reshape(len(part), *self.shape[1:])
        return made.reshape(*chosen.shape, *self.shape[1:])

    def reshape(self, clips: SupportsIndex, /, *shape: SupportsIndex) -> "LazyInputs":
        """Return the array with another shape of each input."""
        return LazyInputs(self.waveforms, self.kind, self.device, shape=tuple(map(int, shape)))


@dataclass(frozen=True)
class OnTheFlyInputs(DatasetInputs):
    """Inputs that are computed from stored waveforms on access.

    Attributes
    ----------
    waveforms
        The stored waveforms.
    """

    waveforms: Waveforms

    @property
    def entry(self) -> str:
        """Folder of the waveforms in the cache."""
        return f"waveforms/{self.waveforms.key}"


def make_on_the_fly_inputs(
    waveforms: Waveforms, dataset: "Dataset", *, clip: Clip, frontend: Frontend, device: torch.device
) -> OnTheFlyInputs:
    """Return the inputs of waveforms; none is computed yet.

    Raises
    ------
    UserError
        A clip is so loud that its spectrogram is not finite.
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
