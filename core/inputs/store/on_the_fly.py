"""Live inputs: images that are made of stored waveforms where the network is, and never stored.

The same modules make them as make the stored ones, so on a CPU they are the same to the bit.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
import torch
from torch import nn

from core.cache.entries import key_of
from core.config.run import Clip, Frontend, identity
from core.errors import UserError
from core.inputs.base import Kind
from core.inputs.input_of_run import input_kind
from core.inputs.store.build_inputs import BATCH, too_loud
from core.inputs.store.compute import Unread, make_inputs
from core.inputs.store.stored_inputs import Images, decided_by
from core.inputs.store.stored_waveforms import Waveforms

if TYPE_CHECKING:
    from core.datasets.dataset import Dataset


class FromWaveforms(nn.Module):
    """A network's first module over waveforms: their images, changed as batches of images are.

    Parameters
    ----------
    kind
        Makes the images.
    augment, change
        What changes them while training, and what while validating and testing.
    channels_last
        Whether images are laid out channels-last, as what follows has it.
    """

    def __init__(self, kind: Kind, *, augment: nn.Module, change: nn.Module, channels_last: bool) -> None:
        super().__init__()
        self.kind = kind
        self.augment, self.change = augment, change
        self.channels_last = channels_last

    def forward(self, waveforms: Any) -> torch.Tensor:
        """Turn waveforms (batch, samples), or a list of (samples,), into inputs (batch, ...) in fp32."""
        made = make_inputs(self.kind, waveforms)
        if self.channels_last and made.ndim == 4:
            made = made.contiguous(memory_format=torch.channels_last)
        with torch.autocast(made.device.type, enabled=False):
            changed: torch.Tensor = (self.augment if self.training else self.change)(made)
            return changed


class MadeArray:
    """What an array of stored images would hold, made of waveforms when it is looked up (`core.inputs.base.Rows`).

    Parameters
    ----------
    waveforms
        A waveform of each clip; longer recordings give the segment that is tested on.
    kind, device
        What makes images of them, and where.
    shape
        That each is given; by default the kind's.
    """

    def __init__(
        self, waveforms: Waveforms, kind: Kind, device: torch.device, *, shape: tuple[int, ...] | None = None
    ) -> None:
        self.waveforms, self.kind, self.device = waveforms, kind, device
        self.shape = (len(waveforms), *(kind.shape if shape is None else shape))
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return len(self.waveforms)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Make the inputs of some rows, named as NumPy's are; float32."""
        chosen = np.arange(len(self))[rows]
        made = np.empty((chosen.size, *self.shape[1:]), np.float32)
        for start in range(0, chosen.size, BATCH):
            part = chosen.ravel()[start : start + BATCH]
            found = Unread([partial(self.waveforms.read, int(row)) for row in part], self.device)
            sounds = found if self.waveforms.too_long(part) else list(found)
            inputs = make_inputs(self.kind, sounds).cpu().numpy()
            made[start : start + BATCH] = inputs.reshape(len(part), *self.shape[1:])
        return made.reshape(*chosen.shape, *self.shape[1:])

    def reshape(self, clips: SupportsIndex, /, *shape: SupportsIndex) -> "MadeArray":
        """Give every input another shape."""
        return MadeArray(self.waveforms, self.kind, self.device, shape=tuple(map(int, shape)))


@dataclass(frozen=True)
class LiveImages(Images):
    """Images of stored waveforms.

    Attributes
    ----------
    waveforms
        What they are made of.
    """

    waveforms: Waveforms

    @property
    def entry(self) -> str:
        """Where in the cache the waveforms are."""
        return f"waveforms/{self.waveforms.key}"


def live_images(
    waveforms: Waveforms, dataset: "Dataset", *, clip: Clip, frontend: Frontend, device: torch.device
) -> LiveImages:
    """Return the images of waveforms, none of them made yet.

    Raises
    ------
    UserError
        Naming a clip that is too loud to have a spectrogram.
    """
    array = MadeArray(waveforms, input_kind(clip, frontend).to(device), device)
    for row in waveforms.loud:
        if not np.isfinite(array[row]).all():
            path = dataset.clips["path"].iloc[waveforms.kept[row]]
            reason = too_loud(array.kind)
            raise UserError(
                f"{path} of {dataset.name} is {reason}; take it out of the data set, or leave out --on-the-fly"
            )
    made_from = {"live": waveforms.key, "clip": identity(clip), "device": device.type, **decided_by(frontend)}
    return LiveImages(array, waveforms.kept, waveforms.bad, key_of(made_from), waveforms)
