"""Computes inputs from waveforms. On a CPU an input depends neither on the rest of the batch nor on threads."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from core.inputs.base import InputKind
from core.io.thread_pool import CancellablePool
from core.io.torch_settings import full_precision, torch_threads


class LazyWaveforms(Sequence[torch.Tensor]):
    """Waveforms that are too long to be in memory together: each is read on access.

    Parameters
    ----------
    reads
        Functions that return one waveform each, shape (samples,), float32.
    device
        Device of the returned tensors.
    """

    def __init__(self, reads: Sequence[Callable[[], np.ndarray]], device: torch.device) -> None:
        self.reads, self.device = reads, device

    def __len__(self) -> int:
        return len(self.reads)

    def __getitem__(self, i: Any) -> Any:
        """Read one waveform (samples,)."""
        return torch.from_numpy(self.reads[i]()).to(self.device)


def compute_inputs(kind: InputKind, waveforms: Sequence[torch.Tensor]) -> torch.Tensor:
    """Compute inputs from waveforms on their device, without gradients.

    A CPU computes them one by one: its sums depend on the size of the batch and the number of threads. A GPU computes
    all waveforms of one length at once.

    Parameters
    ----------
    kind
        Front end, on the same device.
    waveforms
        At least one, each of shape (samples,), or a tensor (clips, samples). `LazyWaveforms` are read one at a time.

    Returns
    -------
    Inputs, shape (clips, *shape of the kind).
    """
    if not isinstance(waveforms, torch.Tensor | list):
        return torch.cat([compute_inputs(kind, [waveforms[i]]) for i in range(len(waveforms))])
    if waveforms[0].device.type == "cpu":
        return _compute_one_by_one(kind, waveforms)
    with torch.no_grad(), full_precision():
        if isinstance(waveforms, torch.Tensor):
            whole: torch.Tensor = kind(waveforms)
            return whole
        lengths: dict[int, list[int]] = {}
        for i, y in enumerate(waveforms):
            lengths.setdefault(len(y), []).append(i)
        made: dict[int, torch.Tensor] = {}
        for group in lengths.values():
            made |= zip(group, kind(torch.stack([waveforms[i] for i in group])), strict=True)
        return torch.stack([made[i] for i in range(len(made))])


def _compute_one_by_one(kind: InputKind, waveforms: Sequence[torch.Tensor]) -> torch.Tensor:
    def make_all(some: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):  # both settings belong to a thread
            return [kind(y[None])[0] for y in some]

    at_once = min(torch.get_num_threads(), len(waveforms))
    with torch_threads(1):  # how a product is split among threads decides its last bits
        if at_once == 1:
            return torch.stack(make_all(waveforms))
        # Without this a new thread uses all cores for its first products.
        with CancellablePool(at_once, initializer=torch.set_num_threads, initargs=(1,)) as makers:
            return torch.stack([made for (made,) in makers.map(make_all, ([y] for y in waveforms))])
