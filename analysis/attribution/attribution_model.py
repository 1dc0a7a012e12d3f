"""A network prepared for attribution: no parameter gradients, folded batch norms, batches within a memory budget."""

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
from core.inference.fold_batch_norm import find_foldable_pairs, fold_batch_norms, is_traceable, replace_modules
from core.inference.trace import trace_network
from core.models.freeze_fuse_cut import avoid_inplace_copies

GIGABYTE = 10**9
CPU_MEMORY = GIGABYTE // 2  # bytes; larger batches are not faster, because they do not fit into the CPU caches
GPU_MEMORY_FRACTION = 0.25  # of the free memory
MAX_BATCH_SIZE = 1024  # images; larger batches are not faster
_TRANSIENT_ACTIVATIONS = 4  # copies of the largest activation in a backward pass, besides the saved activations
_IMAGE_COPIES = 8  # copies of an image in captum: path points, their list, gradients, scaled gradients, sums
_CLAMP_TYPES = (nn.ReLU6, nn.Hardtanh)
T = TypeVar("T")


class AttributionModel:
    """A copy of a network in evaluation mode whose batches use a bounded amount of memory.

    Batch norms of the copy are folded into the preceding convolutions (`core.inference.fold_batch_norm`), parameters
    have no gradients, and images are in channels-last layout, which is faster. ReLU and ReLU6 may work in place, which
    saves memory and does not change gradients. Code that stores the output of a layer in a hook must therefore use
    `without_inplace`. The original network is not changed.

    Parameters
    ----------
    network
        Network that maps images (batch, channels, n_mels, n_frames) in dB to logits (batch, classes).
    image_shape
        Shape of one image: (channels, n_mels, n_frames).
    device
        Device of the computation.
    memory
        Memory budget for the activations of one batch, in bytes. None: 0.5 GB on a CPU, a quarter of the free memory
        on a GPU.

    Attributes
    ----------
    batch_size
        Number of images in a full batch. It is a power of two, so that the default 64 steps of Integrated Gradients
        fill batches exactly.
    bytes_per_image
        Memory that one image needs in a forward and a backward pass.

    Raises
    ------
    UserError
        If one image needs more than `memory`.
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
        clamps: list[Any] = [
            m for m in self.network.modules() if type(m) in _CLAMP_TYPES and getattr(m, "inplace", False)
        ]
        avoid_inplace_copies(self.network)
        for module in clamps:
            module.__class__, module.inplace = InPlaceClamp, True
        self._dtype = next((p.dtype for p in self.network.parameters()), torch.float32)
        trace = trace_network(self.network, self._make_test_images(image_shape), is_traceable)
        replace_modules(self.network, fold_batch_norms(self.network, find_foldable_pairs(self.network, trace)))
        self.network.to(memory_format=torch.channels_last)
        budget = _default_memory(self.device) if memory is None else memory
        self.bytes_per_image = self._count_bytes_per_image(image_shape)
        if self.bytes_per_image > budget:
            raise UserError(
                f"one image takes {self.bytes_per_image / GIGABYTE:.2g} GB and the budget is "
                f"{budget / GIGABYTE:.2g} GB; raise --memory-gb"
            )
        self.batch_size = min(MAX_BATCH_SIZE, 1 << ((budget // self.bytes_per_image).bit_length() - 1))

    def to_device(self, array: np.ndarray) -> torch.Tensor:
        """Copy an array to the device of the network."""
        return torch.from_numpy(np.array(array)).to(self.device)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits (batch, classes) of images on the device, as a differentiable function of the images."""
        inputs = images.clone(
            memory_format=torch.channels_last
        )  # a first layer that works in place must not change `images`
        logits: torch.Tensor = self.network(inputs)
        return logits

    @contextmanager
    def without_inplace(self) -> Iterator[None]:
        """Disable in-place activation functions within the context, so that hooks see the output of a layer."""
        changed: list[Any] = [module for module in self.network.modules() if getattr(module, "inplace", False)]
        for module in changed:
            module.inplace = False
        try:
            yield
        finally:
            for module in changed:
                module.inplace = True

    def compute_logits(self, batches: Iterable[np.ndarray]) -> np.ndarray:
        """Return the logits (images, classes) as float32 for batches of images of any size."""
        with torch.no_grad():
            logits = [
                self(self.to_device(images[start : start + self.batch_size])).float().cpu()
                for images in batches
                for start in range(0, len(images), self.batch_size)
            ]
        return torch.cat(logits).numpy()

    def run_within_memory(self, work: Callable[[int], T]) -> T:
        """Return ``work(batch_size)``; after an out-of-memory error, halve `batch_size` and try again.

        Raises
        ------
        UserError
            If the device has not enough memory for a single image.
        """
        while True:
            try:
                return work(self.batch_size)
            except torch.OutOfMemoryError:
                if self.batch_size == 1:
                    raise UserError("the device has not enough memory for one image; use --device cpu") from None
            self.batch_size //= 2
            torch.cuda.empty_cache()

    def _count_bytes_per_image(self, image_shape: tuple[int, ...]) -> int:
        """Estimate the bytes that one image needs in a forward and a backward pass, from the tensors autograd saves."""
        saved: dict[int, int] = {}  # bytes by storage

        def count(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        images = self._make_test_images(image_shape).requires_grad_()
        with saved_tensors_hooks(count, lambda tensor: tensor):
            self(images)
        for tensor in (*self.network.parameters(), *self.network.buffers()):
            saved.pop(tensor.untyped_storage().data_ptr(), None)
        largest = max(saved.values(), default=0)
        return (sum(saved.values()) + _TRANSIENT_ACTIVATIONS * largest + _IMAGE_COPIES * images.nbytes) // len(images)

    def _make_test_images(self, image_shape: tuple[int, ...]) -> torch.Tensor:
        """Return two test images (2, *image_shape) of deterministic noise between -40 and 0 dB."""
        index = torch.arange(2 * math.prod(image_shape), dtype=self._dtype, device=self.device)
        return (20 * torch.sin(index**2 / 7) - 20).view(2, *image_shape)


class InPlaceClamp(nn.Hardtanh):
    """An in-place ReLU6 or Hardtanh that stores its output for the backward pass.

    The torch version stores a copy of its input. The output is sufficient, because the gradient is 1 where the output
    is strictly inside the range and 0 elsewhere.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Clamp a tensor of any shape to the range from ``min_val`` to ``max_val``."""
        if not self.inplace:
            return super().forward(x)
        clamped: torch.Tensor = _InPlaceClampFunction.apply(x, self.min_val, self.max_val)
        return clamped


class _InPlaceClampFunction(torch.autograd.Function):
    """Autograd function of `InPlaceClamp`."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, low: float, high: float) -> torch.Tensor:
        ctx.range = low, high
        ctx.mark_dirty(x.clamp_(low, high))
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Pass the gradient where the output, and therefore the input, is inside the range."""
        (output,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(*gradients, output, *ctx.range), None, None


def _default_memory(device: torch.device) -> int:
    """Return the default memory budget of a batch in bytes."""
    if device.type == "cuda":
        return int(GPU_MEMORY_FRACTION * torch.cuda.mem_get_info(device)[0])
    return CPU_MEMORY
