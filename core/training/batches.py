"""Batches by index: small sets are held on the device whole, large ones are read from their memory map ahead of use."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from core.session import Residents


class Source:
    """Inputs of a network, looked up by row.

    Parameters
    ----------
    arrays
        One array (clips, ...) for each version of the clips: plain first, augmented ones after.
    key
        Names the content of the arrays; runs with one key share what is on the device.
    device, channels_last
        Where batches are needed, and whether images are laid out channels-last.
    residents
        What is on the device already.
    """

    def __init__(
        self, arrays: Sequence[np.ndarray], *, key: str, device: torch.device, channels_last: bool, residents: Residents
    ) -> None:
        self.arrays = arrays
        self.n_clips = len(arrays[0])
        self.device = device
        self.image = arrays[0].ndim == 4 and channels_last
        size = sum(array.nbytes for array in arrays)
        self._whole = residents.get(f"{key}-{device}-{self.image}", size, self._load)

    def batches(self, rows: torch.Tensor, batch_size: int) -> Iterator[torch.Tensor]:
        """Go through `rows` (int64, on the CPU) in order; row ``v * n_clips + i`` is version v of clip i.

        A last batch of one row joins the one before it: batch norm cannot train on a single value per channel.
        """
        parts = list(torch.split(rows, batch_size))
        if len(parts) > 1 and len(parts[-1]) == 1:
            parts[-2:] = [torch.cat(parts[-2:])]
        if self._whole is None:
            yield from self._read_ahead(parts)
            return
        for part in parts:
            yield self._view(self._whole[part.to(self.device)])

    def _load(self) -> torch.Tensor:
        """Copy all versions to the device, in the layout batches are taken out of without another copy."""
        whole = torch.from_numpy(np.concatenate([np.asarray(array) for array in self.arrays]))
        if self.image:
            whole = whole.permute(0, 2, 3, 1).contiguous()
        return whole.to(self.device)

    def _view(self, batch: torch.Tensor) -> torch.Tensor:
        return batch.permute(0, 3, 1, 2) if self.image else batch

    def _read(self, rows: torch.Tensor) -> torch.Tensor:
        version, clip = np.divmod(rows.numpy(), self.n_clips)
        batch = np.empty((len(rows), *self.arrays[0].shape[1:]), np.float32)
        for v in np.unique(version):
            batch[version == v] = self.arrays[v][clip[version == v]]
        tensor = torch.from_numpy(batch)
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def _read_ahead(self, parts: list[torch.Tensor]) -> Iterator[torch.Tensor]:
        with ThreadPoolExecutor(1) as pool:
            waiting: list[Future[torch.Tensor]] = [pool.submit(self._read, part) for part in parts[:2]]
            for i in range(len(parts)):
                batch = waiting.pop(0).result().to(self.device, non_blocking=True)
                if i + 2 < len(parts):
                    waiting.append(pool.submit(self._read, parts[i + 2]))
                yield batch.contiguous(memory_format=torch.channels_last) if self.image else batch
