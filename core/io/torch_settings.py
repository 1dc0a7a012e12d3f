"""Global settings of torch that this toolkit changes: CPU threads, TF32 and cuDNN's benchmark mode."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL_NETWORK = 2**20  # weights; the steps of a smaller network are faster on one thread than on several


def set_up_torch(device: torch.device, threads: int) -> None:
    """Set the number of CPU threads, full fp32 precision, and on a GPU cuDNN's benchmark mode."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = device.type == "cuda"
    allow_tf32(False)  # analyses compute in fp32; training with --precision tf32 allows it


def allow_tf32(allow: bool) -> None:
    """Allow or forbid TF32, which rounds the factors of fp32 products to 10 bits; torch allows it in convolutions."""
    torch.backends.cudnn.allow_tf32 = allow
    torch.backends.cuda.matmul.allow_tf32 = allow


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Use `count` CPU threads inside a block. Sums and products depend on the number in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute matrix products in fp32 on a GPU inside a block: without TF32 and autocast."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.autocast("cuda", enabled=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
