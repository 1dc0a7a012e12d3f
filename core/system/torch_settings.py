"""Change global settings of torch, and restore them after code of a user has run."""

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

SMALL_NETWORK = 2**20  # number of weights; a smaller network trains faster on one thread than on several


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
    """Use `count` CPU threads inside a block. The last bits of sums and products depend on this number."""
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


@contextmanager
def restored_settings() -> Iterator[None]:
    """Restore global settings after a block that runs code of a user, so that it does not affect other runs.

    These are settings of torch that affect results (backends, default dtype and device, gradient mode, threads,
    deterministic algorithms, precision), the random generators of NumPy and Python, NumPy's handling of floating point
    errors, and matplotlib's parameters. Torch's generators are not restored.
    """
    with ExitStack() as restoring:
        for read, write in _SETTINGS:
            restoring.callback(_restore, read, write, read())
        restoring.callback(_restore_matplotlib, _matplotlib_parameters())
        yield


@contextmanager
def restored_generators() -> Iterator[None]:
    """Restore torch's random generators after a block."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        yield


def _restore(read: Callable[[], Any], write: Callable[[Any], object], value: Any) -> None:
    try:
        changed = repr(read()) != repr(value)
    except RuntimeError:  # torch refuses to read the precision while its old and new settings contradict each other
        changed = True
    if changed:  # setting the same value can have side effects, such as a device context
        write(value)


def _attribute(owner: Any, name: str) -> tuple[Callable[[], Any], Callable[[Any], object]]:
    return lambda: getattr(owner, name), lambda value: setattr(owner, name, value)


def _write_deterministic(value: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(value[0], warn_only=value[1])


def _write_mkldnn(enabled: bool) -> None:
    torch.backends.mkldnn.set_flags(enabled)


def _write_device(device: torch.device) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)


_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], object]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, _write_device),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    (
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        _write_deterministic,
    ),
    (lambda: torch.backends.mkldnn.enabled, _write_mkldnn),
    *(_attribute(torch.backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic", "allow_tf32")),
    _attribute(torch.backends.cuda.matmul, "allow_tf32"),
    _attribute(torch.backends.cuda.matmul, "allow_fp16_reduced_precision_reduction"),
    _attribute(torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction"),
    (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp),
    (torch.backends.cuda.mem_efficient_sdp_enabled, torch.backends.cuda.enable_mem_efficient_sdp),
    (torch.backends.cuda.math_sdp_enabled, torch.backends.cuda.enable_math_sdp),
    (lambda: torch.is_autocast_enabled("cpu"), lambda enabled: torch.set_autocast_enabled("cpu", enabled)),
    (random.getstate, random.setstate),
    (np.random.get_state, np.random.set_state),
    (np.geterr, lambda value: np.seterr(**value)),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),  # last: restored first
)


def _matplotlib_parameters() -> dict[str, Any] | None:
    """Return matplotlib's parameters, None if it is not imported."""
    return dict(sys.modules["matplotlib"].rcParams) if "matplotlib" in sys.modules else None


def _restore_matplotlib(before: dict[str, Any] | None) -> None:
    if matplotlib := sys.modules.get("matplotlib"):
        if before is None:
            matplotlib.rc_file_defaults()
        elif dict(matplotlib.rcParams) != before:
            dict.update(matplotlib.rcParams, before)
