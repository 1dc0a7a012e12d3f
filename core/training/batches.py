"""Batches by index: small sets are held on the device whole, large ones are read from their files ahead of use.

What is stored in float16 stays so until it is on the device, and is float32 in every batch.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch

from core.cache.array_file import ArrayReader
from core.cache.entries import Entry
from core.config.run import Run
from core.inputs.store.compute import LazyWaveforms
from core.inputs.store.float16 import Float16Rows
from core.inputs.store.on_the_fly import OnTheFlyInputs
from core.inputs.store.stored_inputs import DatasetInputs
from core.inputs.store.stored_waveforms import Waveforms
from core.io.thread_pool import map_ahead
from core.session import DeviceCache, Session
from core.training import AUGMENTATIONS

CLIPS_PER_COPY = 64  # clips that are copied to the device at once
N_READERS = 4  # threads, a batch each; one more batch is ready
CROP_STREAM = 2  # tells the numbers that place segments from others of the same seed and epoch


class InputSource:
    """Inputs of a network, looked up by row.

    Parameters
    ----------
    arrays
        One array (clips, ...) for each version of the clips: plain first, augmented ones after.
    key
        Names the content of the arrays; runs with one key share what is on the device.
    device, channels_last
        Where batches are needed, and whether images are laid out channels-last.
    device_cache
        What is on the device already.

    Attributes
    ----------
    on_device
        All versions one after the other, on the device; None where they do not fit there.
    """

    def __init__(
        self,
        arrays: Sequence[np.ndarray],
        *,
        key: str,
        device: torch.device,
        channels_last: bool,
        device_cache: DeviceCache,
    ) -> None:
        self.arrays = arrays
        self.n_versions, self.n_clips = len(arrays), len(arrays[0])
        self.device = device
        self.is_channels_last = arrays[0].ndim == 4 and channels_last
        size = sum(array.nbytes for array in arrays)
        self.on_device = device_cache.get(f"{key}-{device}-{self.is_channels_last}", size, self._load)
        self.readers = [ArrayReader(array) for array in arrays] if self.on_device is None else []

    def batches(self, rows: torch.Tensor, batch_size: int, *, epoch: int | None = None) -> Iterator[Any]:
        """Go through `rows` (int64, on the CPU) in order; row ``v * n_clips + i`` is version v of clip i.

        They come as `split_batches` parts them.

        Parameters
        ----------
        rows, batch_size
            Which, and how many at a time.
        epoch
            That is trained in, from 0; None for what is the same in every epoch.
        """
        if self.on_device is None:
            yield from self._read_ahead(split_batches(rows, batch_size), epoch)
            return
        for part in split_batches(copy_to_device(rows, self.device), batch_size):
            yield self._view(self.on_device[part]).float()

    @property
    def is_vectors(self) -> bool:
        """Whether an input is a vector, and all of them are on the device."""
        return self.on_device is not None and self.on_device.ndim == 2

    def _load(self) -> torch.Tensor:
        """Copy all versions to the device, in the layout batches are taken out of without another copy.

        They go there a piece at a time: there may be no room for all of them twice.
        """
        size = self.arrays[0].shape[1:]
        shape = (*size[1:], size[0]) if self.is_channels_last else size
        whole = torch.empty(
            (self.n_versions, self.n_clips, *shape), dtype=_torch_dtype(self.arrays[0]), device=self.device
        )
        for version, array in zip(whole, self.arrays, strict=True):
            for start in range(0, self.n_clips, CLIPS_PER_COPY):
                piece = torch.from_numpy(np.array(array[start : start + CLIPS_PER_COPY]))
                version[start : start + CLIPS_PER_COPY] = piece.permute(0, 2, 3, 1) if self.is_channels_last else piece
        return whole.flatten(0, 1)

    def _view(self, batch: torch.Tensor) -> torch.Tensor:
        return batch.permute(0, 3, 1, 2) if self.is_channels_last else batch

    def _read(self, rows: torch.Tensor, epoch: int | None) -> Any:
        """Read rows in the order they have on the disk, to where a GPU copies from without waiting."""
        kind, pinned = _torch_dtype(self.arrays[0]), self.device.type == "cuda"
        batch = torch.empty((len(rows), *self.arrays[0].shape[1:]), dtype=kind, pin_memory=pinned)
        out, order = batch.numpy(), np.argsort(rows.numpy(), kind="stable")
        version, clip = np.divmod(rows.numpy()[order], self.n_clips)
        for v, reader in enumerate(self.readers):
            reader.read(clip[version == v], out, order[version == v])
        return batch

    def _read_ahead(self, parts: list[torch.Tensor], epoch: int | None) -> Iterator[Any]:
        with ThreadPoolExecutor(N_READERS) as pool:
            for batch in map_ahead(pool, partial(self._read, epoch=epoch), parts, N_READERS + 1):
                yield self._to_device(batch)

    def _to_device(self, batch: Any) -> Any:
        batch = batch.to(self.device, non_blocking=True).float()
        return batch.contiguous(memory_format=torch.channels_last) if self.is_channels_last else batch


class WaveformSource(InputSource):
    """Waveforms read by seeking: of each recording a segment drawn anew in every epoch, or as much as there is.

    Parameters
    ----------
    versions
        Plain waveforms first, augmented ones after.
    seed
        Which segments are drawn, together with the epoch and the clip; None for none.
    device
        Where batches are needed: tensors (batch, samples), or lists of (samples,) where lengths differ.
    """

    def __init__(self, versions: Sequence[Waveforms], *, seed: int | None, device: torch.device) -> None:
        self.versions, self.seed, self.device = versions, seed, device
        self.n_versions, self.n_clips = len(versions), len(versions[0])
        self.is_channels_last, self.on_device = False, None

    def _read(self, rows: torch.Tensor, epoch: int | None) -> Any:
        chances = None
        if self.seed is not None and epoch is not None:
            chances = draw_crop_positions(self.seed, epoch, self.versions[0].clip_rows)
        versions, clips = np.divmod(rows.numpy(), self.n_clips)
        reads = [
            partial(self.versions[version].read, int(clip), None if chances is None else float(chances[clip]))
            for version, clip in zip(versions, clips, strict=True)
        ]
        if self.versions[0].too_long(clips):
            return LazyWaveforms(reads, self.device)
        waveforms = [torch.from_numpy(read()) for read in reads]
        if len({len(y) for y in waveforms}) > 1:
            return waveforms
        batch = torch.stack(waveforms)
        return batch.pin_memory() if self.device.type == "cuda" else batch

    def _to_device(self, batch: Any) -> Any:
        if isinstance(batch, LazyWaveforms):
            return batch
        if isinstance(batch, list):
            return [y.to(self.device, non_blocking=True) for y in batch]
        return super()._to_device(batch)


def make_source(versions: Sequence[DatasetInputs | Entry], run: Run, session: Session) -> InputSource:
    """Make the source of a run's network: its stored images, activations of them, or waveforms for live ones."""
    live = [version.waveforms for version in versions if isinstance(version, OnTheFlyInputs)]
    arrays: Sequence[Any] = [waveforms.table for waveforms in live] or [version.array for version in versions]
    arrays = [array.stored if isinstance(array, Float16Rows) else array for array in arrays]
    whole = [array for array in arrays if isinstance(array, np.ndarray)]
    if len(whole) < len(versions):
        segments = AUGMENTATIONS[run.training.augment].crops_recordings
        return WaveformSource(live, seed=run.seed if segments else None, device=session.device)
    return InputSource(
        whole,
        key="-".join(version.key for version in live or versions),
        device=session.device,
        channels_last=run.training.channels_last,
        device_cache=session.device_cache,
    )


def _torch_dtype(array: np.ndarray) -> torch.dtype:
    return torch.from_numpy(np.empty(0, array.dtype)).dtype


def copy_to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Send a tensor of the CPU to a device, without waiting until it is there."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def draw_crop_positions(seed: int, epoch: int, clips: np.ndarray) -> np.ndarray:
    """Return where each clip's segment of an epoch begins, 0 to below 1: it hangs on (seed, epoch, clip) alone.

    Parameters
    ----------
    seed, epoch
        Of the run, and from 0.
    clips
        (clips,) rows of the data set's table, ascending.
    """
    drawn = np.random.default_rng((seed, epoch, CROP_STREAM)).random(int(clips[-1]) + 1)
    return np.asarray(drawn[clips])


def split_batches(rows: torch.Tensor, batch_size: int) -> list[torch.Tensor]:
    """Part rows (..., rows) into batches along their last axis, in order.

    A last batch of one row joins the one before it: batch norm cannot train on a single value per channel.
    """
    parts = list(torch.split(rows, batch_size, dim=-1))
    if len(parts) > 1 and parts[-1].shape[-1] == 1:
        parts[-2:] = [torch.cat(parts[-2:], dim=-1)]
    return parts
