"""The frozen prefix of a network: computed once, with its activations cached.

The cache key covers the inputs, every tensor of the prefix, and the settings of the computation. Folds, seeds and
ablations with the same prefix share one entry, and a deeper prefix starts from the activations of a shallower one.

Gain: 20 epochs of a network frozen through the last block take 22.5 times as long without the cache, and 1.94 times
through block 3 (``python -m tests.benchmarks training``). Prefixes through blocks 1 to 4 of ResNet-50 take 1.75 times
as long if each starts from the images (``python -m tests.benchmarks evaluation``). See `docs/speed.md`.
"""

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from core.cache.array_file import ArrayWriter, Part
from core.cache.entries import Entry, find_entry, load_or_build
from core.config.run import Run
from core.inference.fast_evaluation import can_fold, evaluation_batch_size, fast_eval
from core.inference.precision import DTYPES, CastTo, ComputeMode
from core.inputs.store.stored_inputs import DatasetInputs
from core.models import freeze_fuse_cut
from core.models.backbone import Backbone
from core.session import Session
from core.system.thread_pool import CancellablePool

PART_SIZE = 1024  # clips in one part; if the process is killed, finished parts are kept
FOLDING_VERSION = 4  # part of the cache key; to be increased if the folding of batch norms changes
DTYPE_FACT = "dtype"  # key of the stored dtype of activations that were computed in 16 bits
CLIP_MS_FACT = "ms_per_clip"  # key of the stored milliseconds per clip, part of the inference time of the network


def split_at_freeze(normalise: nn.Module, backbone: Backbone, freeze: str) -> tuple[nn.Module, nn.Module]:
    """Split a network into its frozen prefix and the rest, which is trained on the output of the prefix.

    If all blocks are frozen, the prefix includes the pooling of the head, which has no parameters, so that one vector
    per clip is cached.

    Parameters
    ----------
    normalise
        First module, which normalises the inputs.
    backbone
        The backbone.
    freeze
        Last frozen stage; with ``none`` the prefix is the identity.
    """
    if freeze == "none":
        return nn.Identity(), nn.Sequential(OrderedDict(normalise=normalise, backbone=backbone))
    prefix, network = freeze_fuse_cut.split_backbone(backbone, freeze)
    if len(network) > 1:
        return nn.Sequential(normalise, prefix), network
    head = list(backbone.stage("head").named_children())
    n_pooling = next(
        i for i, (_, m) in enumerate(head) if isinstance(m, nn.Dropout) or any(True for _ in m.parameters())
    )
    pooling, rest = (nn.Sequential(OrderedDict(part)) for part in (head[:n_pooling], head[n_pooling:]))
    return nn.Sequential(normalise, prefix, pooling), nn.Sequential(OrderedDict(head=rest))


def load_activations(prefix: nn.Module, images: DatasetInputs, run: Run, session: Session) -> Entry:
    """Return the output of a frozen prefix for every input from the cache; compute it if necessary.

    It is computed in the precision of the run and stored in float32; a 16-bit dtype is recorded for `prepend_cast`. If
    the cache has the output of a shallower prefix, the computation starts from there.

    Parameters
    ----------
    prefix
        Prefix from `split_at_freeze`. It is moved to the device and the memory format of the run.
    images
        Inputs of all clips.
    run
        Run with the precision and the memory format to use.
    session
        Cache, device, threads and progress.

    Returns
    -------
    Cache entry with an array (clips, ...), float32.
    """
    computation = _PrefixComputation(prefix, images, run, session)
    return load_or_build(computation.folder, key_fields=computation.key(computation.prefix), build=computation.build)


class _PrefixComputation:
    """The computation of one cached prefix: cache key and rows. Parameters: see `load_activations`."""

    def __init__(self, prefix: nn.Module, images: DatasetInputs, run: Run, session: Session) -> None:
        self.images, self.run, self.session, self.device = images, run, session, session.device
        self.compute_mode = ComputeMode(run.training, self.device)
        self.channels_last = run.training.channels_last and images.array.ndim == 4
        self.layout = torch.channels_last if self.channels_last else torch.contiguous_format
        self.digests = hash_tensors(prefix)  # before the memory format changes
        self.prefix = prefix.to(self.device).to(memory_format=self.layout).eval()
        self.batch_size = evaluation_batch_size(self.prefix, self.device)
        self.folder = session.store.cache / "activations"
        self.title = f"activations through {run.model.freeze}"

    def key(self, part: nn.Module) -> dict[str, Any]:
        """Return the cache key fields of the output of the prefix, or of a part of it."""
        return {
            "images": self.images.key,
            "prefix": hash_module(part, self.digests),
            "structure": str(part),
            "folded": FOLDING_VERSION * can_fold(self.compute_mode),
            "at_once": self.batch_size,
            **numerics_key_fields(
                self.device,
                channels_last=self.channels_last,
                threads=self.session.threads,
                precision=self.compute_mode.precision,
            ),
        }

    def build(self, writer: ArrayWriter) -> tuple[int, dict[str, Any]]:
        """Write the missing rows; return the number of all rows, and facts to store with them."""
        source, steps = self._find_start()
        first, n_clips = sum(part.n_rows for part in writer.parts), len(self.images.array)
        forward = _PrefixSteps(steps, self.layout)
        facts: dict[str, Any] = {"backbone": self.run.model.backbone, "through": self.run.model.freeze}

        def batch(begin: int, size: int) -> torch.Tensor:
            return torch.from_numpy(np.array(source.array[begin : begin + size])).to(self.device)

        with torch.inference_mode(), fast_eval(forward, self.compute_mode, lambda: batch(0, 2)) as map_batches:
            started, writing = time.perf_counter(), 0.0
            finished = written = first
            for out in map_batches(batch(begin, self.batch_size) for begin in range(first, n_clips, self.batch_size)):
                rows, before = out.float().cpu().numpy(), time.perf_counter()
                writer.create((n_clips, *rows.shape[1:]), rows.dtype)
                writer.write(written, rows)
                written += len(rows)
                if written - finished >= PART_SIZE or written == n_clips:
                    writer.record_part(Part(finished, written - finished, {}))
                    finished = written
                self.session.report(written, n_clips, self.title)
                writing += time.perf_counter() - before
            seconds = time.perf_counter() - started - writing
            if self.compute_mode.dtype != torch.float32:
                facts[DTYPE_FACT] = str(forward(batch(0, 2)).dtype).removeprefix("torch.")
        shallower_ms = source.facts.get(CLIP_MS_FACT, math.nan) if isinstance(source, Entry) else 0.0
        if first < n_clips and math.isfinite(shallower_ms):
            facts[CLIP_MS_FACT] = shallower_ms + 1000 * seconds / (n_clips - first)
        return n_clips, facts

    def _find_start(self) -> tuple[DatasetInputs | Entry, list[nn.Module]]:
        """Return the deepest cached output of a shallower prefix, or the images, and the remaining steps."""
        steps = _list_steps(self.prefix)
        if len(steps) > 1:
            assert isinstance(self.prefix, nn.Sequential)
            stages = list(self.prefix[1].named_children())
            for n in range(min(len(stages), len(steps) - 2), 0, -1):
                # the same structure as that of `split_at_freeze` gives the same cache key
                shallower = nn.Sequential(self.prefix[0], nn.Sequential(OrderedDict(stages[:n])))
                if entry := find_entry(self.folder, key_fields=self.key(shallower)):
                    return entry, [*_make_cast(entry), *steps[1 + n :]]
        return self.images, steps


class _PrefixSteps(nn.Module):
    """Steps of a prefix. The input of every step has the memory format of cached activations.

    Therefore images and cached activations of a shallower prefix give the same bits.
    """

    def __init__(self, steps: Sequence[nn.Module], layout: torch.memory_format) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.layout = layout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for step in self.steps:
            x = step(self._to_layout(x))
        return x

    def _to_layout(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim != 4:
            return x.contiguous()
        out = torch.empty_like(x, memory_format=self.layout)  # 1 x 1 images count as contiguous in both formats
        return x if x.stride() == out.stride() else out.copy_(x)


def _list_steps(prefix: nn.Module) -> list[nn.Module]:
    """Return the steps of a prefix: input transform, stages, and pooling if all blocks are frozen."""
    if not (isinstance(prefix, nn.Sequential) and len(prefix) > 1 and isinstance(prefix[1], nn.Sequential)):
        return [prefix]
    first, stages, *pooling = prefix.children()
    return [first, *stages.children(), *pooling]


def prepend_cast(network: nn.Module, stored: Entry) -> nn.Module:
    """Prepend a cast of cached activations to the dtype in which they were computed, if it has 16 bits."""
    casts = [("cast", cast) for cast in _make_cast(stored)]
    return nn.Sequential(OrderedDict([*casts, *network.named_children()])) if casts else network


def _make_cast(stored: Entry) -> list[CastTo]:
    return [CastTo(getattr(torch, stored.facts[DTYPE_FACT]))] if DTYPE_FACT in stored.facts else []


def numerics_key_fields(
    device: torch.device, *, channels_last: bool, threads: int, precision: str = "fp32"
) -> dict[str, Any]:
    """Return the cache key fields for settings that affect the rounding of a network's output, in JSON types.

    Rounding depends on the version of torch, the memory format, the device, the number of threads on a CPU, and on a
    GPU the current setting of TF32 (`core.system.torch_settings.allow_tf32`).
    """
    fields: dict[str, Any] = {"torch": torch.__version__, "channels_last": channels_last, "device": device.type}
    if DTYPES[precision] != torch.float32:
        fields["precision"] = precision
    if device.type == "cuda":
        return fields | {"name": torch.cuda.get_device_name(device), "tf32": torch.backends.cudnn.allow_tf32}
    return fields | {"name": torch.backends.cpu.get_cpu_capability(), "threads": threads}


def hash_tensors(module: nn.Module) -> dict[str, str]:
    """Return the SHA-256 of each parameter and buffer of a module, by name."""

    def digest(tensor: torch.Tensor) -> str:
        data: Any = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        return hashlib.sha256(data).hexdigest()

    tensors = module.state_dict()
    with CancellablePool(torch.get_num_threads()) as pool:
        return dict(zip(tensors, pool.map(digest, tensors.values()), strict=True))


def hash_module(module: nn.Module, digests: Mapping[str, str]) -> str:
    """Return the SHA-256 of the names, shapes, dtypes and digests of the parameters and buffers of a module."""
    lines = [
        f"{name} {tuple(tensor.shape)} {tensor.dtype} {digests[name]}" for name, tensor in module.state_dict().items()
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
