"""Computation of inputs from waveforms. On a CPU, an input does not depend on other clips or on threads."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from core.inputs.base import InputKind
from core.system.thread_pool import CancellablePool
from core.system.torch_settings import full_precision, torch_threads


class LazyWaveforms(Sequence[torch.Tensor]):
    """Waveforms that together are too long for the memory; each is read on access.

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

    On a CPU they are computed one by one, since sums depend on the batch size and the number of threads. On a GPU all
    waveforms of one length are computed together.

    Parameters
    ----------
    kind
        Module that computes the inputs, on the same device.
    waveforms
        One or more of shape (samples,), or a tensor (clips, samples). `LazyWaveforms` are read one at a time.

    Returns
    -------
    Inputs, shape (clips, *kind.shape).
    """
    if not isinstance(waveforms, torch.Tensor | list):
        return torch.cat([compute_inputs(kind, [waveforms[i]]) for i in range(len(waveforms))])
    if waveforms[0].device.type == "cpu":
        return _compute_one_by_one(kind, waveforms)
    with torch.no_grad(), full_precision():
        if isinstance(waveforms, torch.Tensor):
            all_inputs: torch.Tensor = kind(waveforms)
            return all_inputs
        by_length: dict[int, list[int]] = {}
        for i, y in enumerate(waveforms):
            by_length.setdefault(len(y), []).append(i)
        inputs: dict[int, torch.Tensor] = {}
        for group in by_length.values():
            inputs |= zip(group, kind(torch.stack([waveforms[i] for i in group])), strict=True)
        return torch.stack([inputs[i] for i in range(len(inputs))])


def _compute_one_by_one(kind: InputKind, waveforms: Sequence[torch.Tensor]) -> torch.Tensor:
    def compute(some: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):  # both apply only to this thread
            return [kind(y[None])[0] for y in some]

    n_threads = min(torch.get_num_threads(), len(waveforms))
    with torch_threads(1):  # the number of threads changes rounding errors
        if n_threads == 1:
            return torch.stack(compute(waveforms))
        # Without the initializer, a new thread uses all cores for its first products.
        with CancellablePool(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return torch.stack([one_input for (one_input,) in pool.map(compute, ([y] for y in waveforms))])
