"""The frozen prefix of a network: split off, computed once, and its activations cached.

The cache key is the content: the images, every tensor of the prefix, and how it is computed. Folds, seeds and
ablations with the same prefix share one entry, and a deeper prefix starts from the activations of a shallower one.
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
from core.inference.fast_forward import can_fold, evaluation_batch_size, fast_eval
from core.inference.precision import DTYPES, CastTo, ComputeMode
from core.inputs.store.stored_inputs import DatasetInputs
from core.io.thread_pool import CancellablePool
from core.models import surgery
from core.models.backbone import Backbone
from core.session import Session

PART_SIZE = 1024  # clips; finished parts survive a killed process
FOLDING_VERSION = 4  # version of how batch norms are folded
DTYPE_FACT = "dtype"  # fact stored beside activations that were computed in 16 bits
CLIP_MS_FACT = "ms_per_clip"  # fact: milliseconds per clip, for the inference time of the whole network


def split_at_freeze(normalise: nn.Module, backbone: Backbone, freeze: str) -> tuple[nn.Module, nn.Module]:
    """Return the frozen prefix, and the rest of the network, which is trained on the prefix's output.

    With nothing frozen the prefix is empty. If all blocks are frozen, the head's pooling belongs to the prefix, since
    it has no parameters: one vector per clip is cached.
    """
    if freeze == "none":
        return nn.Identity(), nn.Sequential(OrderedDict(normalise=normalise, backbone=backbone))
    prefix, network = surgery.split_backbone(backbone, freeze)
    if len(network) > 1:
        return nn.Sequential(normalise, prefix), network
    head = list(backbone.stage("head").named_children())
    still = next(i for i, (_, m) in enumerate(head) if isinstance(m, nn.Dropout) or any(True for _ in m.parameters()))
    pooling, rest = (nn.Sequential(OrderedDict(part)) for part in (head[:still], head[still:]))
    return nn.Sequential(normalise, prefix, pooling), nn.Sequential(OrderedDict(head=rest))


def load_activations(prefix: nn.Module, images: DatasetInputs, run: Run, session: Session) -> Entry:
    """Return the output of a frozen prefix for every input, computed or from the cache; float32, (clips, ...).

    It is computed in the precision of the run; a 16-bit precision is noted beside it for `prepend_cast`. If the output
    of a shallower prefix is in the cache, the computation starts from there.

    Parameters
    ----------
    prefix
        As `split_at_freeze` returns it; moved to the device and laid out as the run's images are.
    images
        The inputs of all clips.
    run
        Decides precision and memory layout.
    session
        Cache, device, threads and progress.
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
        self.digests = hash_tensors(prefix)  # of the tensors as they are stored, before their layout changes
        self.prefix = prefix.to(self.device).to(memory_format=self.layout).eval()
        self.batch_size = evaluation_batch_size(self.prefix, self.device)
        self.folder = session.store.cache / "activations"
        self.title = f"activations through {run.model.freeze}"

    def key(self, part: nn.Module) -> dict[str, Any]:
        """Return what decides the bits of the output of the prefix, or of its first stages."""
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
        """Write the rows that are missing; return the number of all rows, and the facts to be stored with them."""
        source, steps = self._nearest()
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

    def _nearest(self) -> tuple[DatasetInputs | Entry, list[nn.Module]]:
        """Return the deepest cached output of a shallower prefix, or the images, and the steps that follow it."""
        steps = _list_steps(self.prefix)
        if len(steps) > 1:
            assert isinstance(self.prefix, nn.Sequential)
            stages = list(self.prefix[1].named_children())
            for n in range(min(len(stages), len(steps) - 2), 0, -1):
                # built as `split_at_freeze` builds it, so that its structure and key are the same
                shallower = nn.Sequential(self.prefix[0], nn.Sequential(OrderedDict(stages[:n])))
                if found := find_entry(self.folder, key_fields=self.key(shallower)):
                    return found, [*_cast_after(found), *steps[1 + n :]]
        return self.images, steps


class _PrefixSteps(nn.Module):
    """The steps of a prefix, with the input of every step in one memory format, that of cached activations.

    So the result has the same bits whether it is computed from the images or from cached activations.
    """

    def __init__(self, steps: Sequence[nn.Module], layout: torch.memory_format) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.layout = layout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for step in self.steps:
            x = step(self._laid_out(x))
        return x

    def _laid_out(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim != 4:
            return x.contiguous()
        made = torch.empty_like(x, memory_format=self.layout)  # with 1 x 1 images both layouts look contiguous
        return x if x.stride() == made.stride() else made.copy_(x)


def _list_steps(prefix: nn.Module) -> list[nn.Module]:
    """Return the steps of a prefix: input transform, each stage, and pooling if all blocks are frozen."""
    if not (isinstance(prefix, nn.Sequential) and len(prefix) > 1 and isinstance(prefix[1], nn.Sequential)):
        return [prefix]
    first, stages, *pooling = prefix.children()
    return [first, *stages.children(), *pooling]


def prepend_cast(network: nn.Module, stored: Entry) -> nn.Module:
    """Return the network preceded by a cast of cached activations to the precision they were computed in."""
    named = [("cast", cast) for cast in _cast_after(stored)]
    return nn.Sequential(OrderedDict([*named, *network.named_children()])) if named else network


def _cast_after(stored: Entry) -> list[CastTo]:
    return [CastTo(getattr(torch, stored.facts[DTYPE_FACT]))] if DTYPE_FACT in stored.facts else []


def numerics_key_fields(
    device: torch.device, *, channels_last: bool, threads: int, precision: str = "fp32"
) -> dict[str, Any]:
    """Return what determines the bits of a network's output besides input and tensors, in JSON types.

    Memory layout and device decide which kernels run, and the number of threads how a CPU splits sums. On a GPU the
    current setting of TF32 counts (`core.io.torch_settings.allow_tf32`).
    """
    found: dict[str, Any] = {"torch": torch.__version__, "channels_last": channels_last, "device": device.type}
    if DTYPES[precision] != torch.float32:
        found["precision"] = precision
    if device.type == "cuda":
        return found | {"name": torch.cuda.get_device_name(device), "tf32": torch.backends.cudnn.allow_tf32}
    return found | {"name": torch.backends.cpu.get_cpu_capability(), "threads": threads}


def hash_tensors(module: nn.Module) -> dict[str, str]:
    """Return the SHA-256 of each parameter and buffer of a module, by its name."""

    def digest(tensor: torch.Tensor) -> str:
        numbers: Any = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        return hashlib.sha256(numbers).hexdigest()

    tensors = module.state_dict()
    with CancellablePool(torch.get_num_threads()) as pool:
        return dict(zip(tensors, pool.map(digest, tensors.values()), strict=True))


def hash_module(module: nn.Module, digests: Mapping[str, str]) -> str:
    """Return the SHA-256 of the names and shapes of a module's parameters and buffers, and of their digests."""
    told = [
        f"{name} {tuple(tensor.shape)} {tensor.dtype} {digests[name]}" for name, tensor in module.state_dict().items()
    ]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()
