"""A network as attributions need it: nothing trained, nothing slow, and batches that fit a budget of memory."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from core.errors import UserError
from core.inference.fold_batch_norm import find_foldable_pairs, folded_modules, is_traceable, replace_modules
from core.inference.trace import trace_network
from core.models.surgery import avoid_inplace_copies

GIGABYTE = 10**9
CPU_MEMORY = GIGABYTE // 2  # more is no quicker: the batches should stay near the caches
GPU_SHARE = 0.25  # of the memory that is free
LARGEST_BATCH = 1024  # rows; more would not fill any device better
_TRANSIENT = 4  # largest activations alive at once in a backward pass, on top of those kept for it
_COPIES = 8  # of an image, that captum makes: path points, their list, gradients, scaled gradients, sums
_CLAMPS = (nn.ReLU6, nn.Hardtanh)
T = TypeVar("T")


class Explained:
    """A copy of a network in evaluation mode, whose batches take a bounded amount of memory.

    The copy's batch norms are folded into the convolutions before them (`core.inference.fold_batch_norm`), its
    parameters have no gradients, and images are laid out channels-last, the faster layout. ReLU and ReLU6 may work in
    place, which saves memory and changes no gradient; only hooks must be read `out_of_place`. The given network is not
    changed.

    Parameters
    ----------
    network
        Maps images (batch, channels, n_mels, n_frames) in dB to logits (batch, classes).
    image_shape
        (channels, n_mels, n_frames).
    device
        Where to compute.
    memory
        Bytes that a batch's activations may take; None is half a gigabyte on a CPU and a quarter of what is free on
        a GPU.

    Attributes
    ----------
    rows
        Images in a full batch: a power of two, so that as many steps fill batches exactly.

    Raises
    ------
    UserError
        Where one image takes more than `memory`.
    """

    def __init__(
        self,
        network: nn.Module,
        image_shape: tuple[int, ...],
        *,
        device: torch.device | str = "cpu",
        memory: int | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.network = copy.deepcopy(network).to(self.device).eval()
        self.network.requires_grad_(False)
        clamps: list[Any] = [m for m in self.network.modules() if type(m) in _CLAMPS and getattr(m, "inplace", False)]
        avoid_inplace_copies(self.network)
        for module in clamps:
            module.__class__, module.inplace = Clamp, True
        self._dtype = next((p.dtype for p in self.network.parameters()), torch.float32)
        seen = trace_network(self.network, self._images(image_shape), is_traceable)
        replace_modules(self.network, folded_modules(self.network, find_foldable_pairs(self.network, seen)))
        self.network.to(memory_format=torch.channels_last)
        budget = _default_memory(self.device) if memory is None else memory
        self.row_bytes = self._row_bytes(image_shape)
        if self.row_bytes > budget:
            raise UserError(
                f"one image takes {self.row_bytes / GIGABYTE:.2g} GB and the budget is {budget / GIGABYTE:.2g} GB; "
                "raise --memory-gb"
            )
        self.rows = min(LARGEST_BATCH, 1 << ((budget // self.row_bytes).bit_length() - 1))

    def placed(self, array: np.ndarray) -> torch.Tensor:
        """Copy an array to the device."""
        return torch.from_numpy(np.array(array)).to(self.device)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Map images on the device to logits; this is what captum differentiates."""
        copied = images.clone(memory_format=torch.channels_last)  # a first activation in place would change the images
        logits: torch.Tensor = self.network(copied)
        return logits

    @contextmanager
    def out_of_place(self) -> Iterator[None]:
        """Let no activation function work in place, so that hooks see what a layer gave out."""
        changed: list[Any] = [module for module in self.network.modules() if getattr(module, "inplace", False)]
        for module in changed:
            module.inplace = False
        try:
            yield
        finally:
            for module in changed:
                module.inplace = True

    def logits(self, batches: Iterable[np.ndarray]) -> np.ndarray:
        """Return the logits (images, classes), float32, of images given in pieces of any size."""
        with torch.no_grad():
            made = [
                self(self.placed(images[start : start + self.rows])).float().cpu()
                for images in batches
                for start in range(0, len(images), self.rows)
            ]
        return torch.cat(made).numpy()

    def within_memory(self, work: Callable[[int], T]) -> T:
        """Return ``work(rows)``; where the device has no room after all, halve `rows` and try again."""
        while True:
            try:
                return work(self.rows)
            except torch.OutOfMemoryError:
                if self.rows == 1:
                    raise UserError("the device has no memory left for one image; say --device cpu") from None
            self.rows //= 2
            torch.cuda.empty_cache()

    def _row_bytes(self, image_shape: tuple[int, ...]) -> int:
        """Return what one image of a batch takes in a forward and a backward pass: counted, not guessed."""
        kept: dict[int, int] = {}

        def count(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        images = self._images(image_shape).requires_grad_()
        with saved_tensors_hooks(count, lambda tensor: tensor):
            self(images)
        for tensor in (*self.network.parameters(), *self.network.buffers()):
            kept.pop(tensor.untyped_storage().data_ptr(), None)
        largest = max(kept.values(), default=0)
        return (sum(kept.values()) + _TRANSIENT * largest + _COPIES * images.nbytes) // len(images)

    def _images(self, image_shape: tuple[int, ...]) -> torch.Tensor:
        """Make two images to try the network on: noise about the middle of the range, without a random generator."""
        count = torch.arange(2 * math.prod(image_shape), dtype=self._dtype, device=self.device)
        return (20 * torch.sin(count**2 / 7) - 20).view(2, *image_shape)


class Clamp(nn.Hardtanh):
    """A ReLU6 that overwrites its input, which torch's own copies for the gradient: what it gives out says as much."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Bring numbers of any shape into a range."""
        if not self.inplace:
            return super().forward(x)
        made: torch.Tensor = _Clamped.apply(x, self.min_val, self.max_val)
        return made


class _Clamped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, low: float, high: float) -> torch.Tensor:
        ctx.range = low, high
        ctx.mark_dirty(x.clamp_(low, high))
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Let the gradient through where the output is inside the range, and so the input was."""
        (made,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(*gradients, made, *ctx.range), None, None


def _default_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(GPU_SHARE * torch.cuda.mem_get_info(device)[0])
    return CPU_MEMORY
