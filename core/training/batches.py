"""Batches of inputs by row number.

Small data sets are held on the device. Large ones are read from their files by threads, ahead of their use. Inputs that
are stored in float16 are converted to float32 on the device, batch by batch.
"""

from abc import ABC, abstractmethod
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
from core.session import DeviceCache, Session
from core.system.thread_pool import map_ahead
from core.training import AUGMENTATIONS

CLIPS_PER_COPY = 64  # clips copied to the device at a time; a second copy of all clips may not fit into memory
N_READERS = 4  # number of threads that read batches ahead, one batch each
CROP_STREAM = 2  # seeds crop positions differently from the other random numbers of an epoch


class InputSource(ABC):
    """Inputs of a network by row number. Row ``v * n_clips + i`` is version v of clip i; version 0 is plain.

    Attributes
    ----------
    n_versions, n_clips
        Number of versions (plain and augmented) and of clips.
    device
        Device of the batches.
    is_channels_last
        Whether inputs are images that are laid out channels-last.
    on_device
        All inputs (rows, ...) on the device; None if they do not fit there or are read from files.
    """

    n_versions: int
    n_clips: int
    device: torch.device
    is_channels_last: bool = False
    on_device: torch.Tensor | None = None

    def batches(self, rows: torch.Tensor, batch_size: int, *, epoch: int | None = None) -> Iterator[Any]:
        """Yield the inputs of `rows` in order, in the batches of `split_batches`.

        Parameters
        ----------
        rows
            Row numbers, int64, on the CPU.
        batch_size
            Number of inputs in a batch.
        epoch
            Training epoch from 0, for inputs that change from epoch to epoch; None in evaluation.
        """
        if self.on_device is None:
            yield from self._read_ahead(split_batches(rows, batch_size), epoch)
            return
        for part in split_batches(copy_to_device(rows, self.device), batch_size):
            batch = self.on_device[part].float()
            yield batch.permute(0, 3, 1, 2) if self.is_channels_last else batch

    @property
    def is_vectors(self) -> bool:
        """Whether the inputs are vectors and all of them are on the device."""
        return self.on_device is not None and self.on_device.ndim == 2

    @abstractmethod
    def _read(self, rows: torch.Tensor, epoch: int | None) -> Any:
        """Read one batch into CPU memory, pinned if it goes to a GPU."""

    def _read_ahead(self, parts: list[torch.Tensor], epoch: int | None) -> Iterator[Any]:
        with ThreadPoolExecutor(N_READERS) as pool:
            for batch in map_ahead(pool, partial(self._read, epoch=epoch), parts, N_READERS + 1):
                yield self._copy_batch(batch)

    def _copy_batch(self, batch: Any) -> Any:
        batch = batch.to(self.device, non_blocking=True).float()
        return batch.contiguous(memory_format=torch.channels_last) if self.is_channels_last else batch


class ArraySource(InputSource):
    """Inputs from stored arrays.

    Parameters
    ----------
    arrays
        One array (clips, ...) per version: plain first, augmented ones after.
    key
        Text that identifies the content of the arrays. Runs with the same key share one copy on the device.
    device
        Device of the batches.
    channels_last
        Whether images are laid out channels-last.
    device_cache
        Cache of the arrays that are already on the device.
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

    def _load(self) -> torch.Tensor:
        """Copy all versions to the device: (rows, ...), images as (rows, height, width, channels) if channels-last."""
        size = self.arrays[0].shape[1:]
        shape = (*size[1:], size[0]) if self.is_channels_last else size
        whole = torch.empty(
            (self.n_versions, self.n_clips, *shape), dtype=_torch_dtype(self.arrays[0]), device=self.device
        )
        for version, array in zip(whole, self.arrays, strict=True):
            for start in range(0, self.n_clips, CLIPS_PER_COPY):
                part = torch.from_numpy(np.array(array[start : start + CLIPS_PER_COPY]))
                version[start : start + CLIPS_PER_COPY] = part.permute(0, 2, 3, 1) if self.is_channels_last else part
        return whole.flatten(0, 1)

    def _read(self, rows: torch.Tensor, epoch: int | None) -> Any:
        dtype, pinned = _torch_dtype(self.arrays[0]), self.device.type == "cuda"
        batch = torch.empty((len(rows), *self.arrays[0].shape[1:]), dtype=dtype, pin_memory=pinned)
        out, order = batch.numpy(), np.argsort(rows.numpy(), kind="stable")  # in the order of the file
        version, clip = np.divmod(rows.numpy()[order], self.n_clips)
        for v, reader in enumerate(self.readers):
            reader.read(clip[version == v], out, order[version == v])
        return batch


class WaveformSource(InputSource):
    """Waveforms from files: random crops of recordings in training, or whole clips.

    Batches are tensors (batch, samples), or sequences of tensors (samples,) if the lengths differ.

    Parameters
    ----------
    versions
        Plain waveforms first, augmented ones after.
    seed
        Seed of the crop positions; None for no crops.
    device
        Device of the batches.
    """

    def __init__(self, versions: Sequence[Waveforms], *, seed: int | None, device: torch.device) -> None:
        self.versions, self.seed, self.device = versions, seed, device
        self.n_versions, self.n_clips = len(versions), len(versions[0])

    def _read(self, rows: torch.Tensor, epoch: int | None) -> Any:
        positions = None
        if self.seed is not None and epoch is not None:
            positions = draw_crop_positions(self.seed, epoch, self.versions[0].clip_rows)
        versions, clips = np.divmod(rows.numpy(), self.n_clips)
        reads = [
            partial(self.versions[version].read, int(clip), None if positions is None else float(positions[clip]))
            for version, clip in zip(versions, clips, strict=True)
        ]
        if self.versions[0].too_long(clips):
            return LazyWaveforms(reads, self.device)
        waveforms = [torch.from_numpy(read()) for read in reads]
        if len({len(y) for y in waveforms}) > 1:
            return waveforms
        batch = torch.stack(waveforms)
        return batch.pin_memory() if self.device.type == "cuda" else batch

    def _copy_batch(self, batch: Any) -> Any:
        if isinstance(batch, LazyWaveforms):
            return batch
        if isinstance(batch, list):
            return [y.to(self.device, non_blocking=True) for y in batch]
        return super()._copy_batch(batch)


def make_source(versions: Sequence[DatasetInputs | Entry], run: Run, session: Session) -> InputSource:
    """Make the source of stored inputs, of activations of a frozen prefix, or of waveforms (``--on-the-fly``)."""
    live = [version.waveforms for version in versions if isinstance(version, OnTheFlyInputs)]
    arrays: Sequence[Any] = [waveforms.table for waveforms in live] or [version.array for version in versions]
    arrays = [array.stored if isinstance(array, Float16Rows) else array for array in arrays]
    in_memory = [array for array in arrays if isinstance(array, np.ndarray)]
    if len(in_memory) < len(versions):
        has_crops = AUGMENTATIONS[run.training.augment].crops_recordings
        return WaveformSource(live, seed=run.seed if has_crops else None, device=session.device)
    return ArraySource(
        in_memory,
        key="-".join(version.key for version in live or versions),
        device=session.device,
        channels_last=run.training.channels_last,
        device_cache=session.device_cache,
    )


def _torch_dtype(array: np.ndarray) -> torch.dtype:
    return torch.from_numpy(np.empty(0, array.dtype)).dtype


def copy_to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a CPU tensor to a device without waiting for the copy to finish."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def draw_crop_positions(seed: int, epoch: int, clips: np.ndarray) -> np.ndarray:
    """Draw the position of each clip's crop in its recording, from 0 (start) to below 1 (end), (clips,).

    A position depends only on seed, epoch and clip.

    Parameters
    ----------
    seed
        Seed of the run.
    epoch
        Epoch from 0.
    clips
        Row of each clip in the table of the data set, ascending, (clips,).
    """
    positions = np.random.default_rng((seed, epoch, CROP_STREAM)).random(int(clips[-1]) + 1)
    return np.asarray(positions[clips])


def split_batches(rows: torch.Tensor, batch_size: int) -> list[torch.Tensor]:
    """Split rows (..., rows) into batches along their last axis, in order.

    A last batch of one row is merged into the batch before it, because batch norm cannot train on one value per
    channel.
    """
    parts = list(torch.split(rows, batch_size, dim=-1))
    if len(parts) > 1 and parts[-1].shape[-1] == 1:
        parts[-2:] = [torch.cat(parts[-2:], dim=-1)]
    return parts
