"""The frozen prefix of a network: taken off, computed once, and its activations kept.

They are kept by content (the images, every tensor of the prefix, and how it is computed), so folds, seeds and
ablations that have the same prefix share them, and a deeper prefix goes on from those of one that ends earlier.
"""

import hashlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from core.cache.array_writer import ArrayWriter
from core.cache.entries import Stored, find, load_or_make
from core.config.run import Run
from core.inference.fast_forward import Through, clips_at_once, evaluating, folds, settled
from core.inference.precision import DTYPES, Arithmetic, Entrance
from core.inputs.store.stored_inputs import Images
from core.io.thread_pool import CancellablePool
from core.models import surgery
from core.models.backbone import Backbone
from core.session import Session

SHARD = 1024  # clips whose activations outlive a process that is killed
FOLDED = 3  # batch norms are part of the convolutions, and ReLUs; the version of how
NUMBERS = "dtype"  # what is noted of what a prefix gives out, where that is computed in 16 bits
_SETTLING = threading.Lock()  # lanes meet the same prefix
PER_CLIP = "ms_per_clip"  # what is noted of the time it took, for the time that the whole network takes


def split_at_freeze(normalise: nn.Module, backbone: Backbone, freeze: str) -> tuple[nn.Module, nn.Module]:
    """Return the frozen prefix, and the network that is trained on what it gives out.

    With nothing frozen the prefix is empty. Behind the last block the head's pooling belongs to the prefix, since it
    has nothing to train: what is kept is then one vector per clip.
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


def activations(prefix: nn.Module, images: Images, run: Run, session: Session) -> Stored:
    """Compute what a frozen prefix gives out for every input, or find it in the cache; float32, (clips, ...).

    They are computed as the run computes. Where that is in 16 bits, it is noted what came out, for `entered`. Where the
    activations of a prefix that ends earlier are in the cache, they are gone on from.
    """
    device = session.device
    computing = Arithmetic(run.training, device)
    channels_last = run.training.channels_last and images.array.ndim == 4
    layout = _layout(channels_last=channels_last)
    digests = digests_of(prefix)  # before it is laid out otherwise, which would be undone
    prefix = prefix.to(device).to(memory_format=layout).eval()
    at_once = clips_at_once(prefix, device)
    what = f"activations through {run.model.freeze}"
    folder = session.store.cache / "activations"

    def key(part: nn.Module) -> dict[str, Any]:
        made_from: dict[str, Any] = {"images": images.key, "prefix": content(part, digests), "structure": str(part)}
        made_from |= {"folded": FOLDED * folds(computing), "at_once": at_once}
        precision, threads = computing.precision, session.threads
        return made_from | arithmetic(device, channels_last=channels_last, threads=threads, precision=precision)

    def make(writer: ArrayWriter) -> dict[str, Any]:
        source, steps = _nearest(
            prefix, images, lambda part: find(folder, made_from=key(part), progress=session.report)
        )
        first, n_clips = writer.rows, len(images.array)
        forward = _InSteps(steps, layout)
        facts: dict[str, Any] = {"backbone": run.model.backbone, "through": run.model.freeze}

        def batch(begin: int, size: int) -> torch.Tensor:
            return torch.from_numpy(np.array(source.array[begin : begin + size])).to(device)

        with torch.inference_mode(), evaluating(forward, computing, lambda: batch(0, 2)) as through:
            started, writing = time.perf_counter(), 0.0
            for out in through(batch(begin, at_once) for begin in range(first, n_clips, at_once)):
                rows, before = out.float().cpu().numpy(), time.perf_counter()
                writer.append(rows)
                if writer.rows % SHARD == 0:
                    writer.commit()
                session.report(writer.rows, n_clips, what)
                writing += time.perf_counter() - before
            spent = time.perf_counter() - started - writing
            if computing.dtype != torch.float32:
                facts[NUMBERS] = str(forward(batch(0, 2)).dtype).removeprefix("torch.")
        before = source.facts.get(PER_CLIP, math.nan) if isinstance(source, Stored) else 0.0
        timed = first < n_clips and math.isfinite(before)
        return facts | ({PER_CLIP: before + 1000 * spent / (n_clips - first)} if timed else {})

    return load_or_make(folder, made_from=key(prefix), make=make, progress=session.report, what=what)


class Frozen(nn.Module):
    """A prefix in front of what is trained, of inputs that change: the bits are those of one that is computed once.

    The modules of the prefix are not its own, so they are neither trained nor looked at with what follows; what
    compiles a network leaves it as it is (`core.training.compiled`).

    Parameters
    ----------
    prefix
        On its device.
    computing
        How.
    """

    def __init__(self, prefix: nn.Module, computing: Arithmetic) -> None:
        super().__init__()
        self.computing = computing
        prefix = prefix.to(memory_format=computing.layout).eval()
        self._apart = (_InSteps(_steps(prefix), computing.layout),)
        self._settled: list[Through] = []  # at the first batch, which shows how images are laid out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the prefix gives out for `x` (batch, ...), which no gradient goes back through."""
        steps = self._apart[0]
        with torch.no_grad(), self.computing.autocast():
            with _SETTLING:
                if not self._settled:
                    steps.layout = _layout(channels_last=self.computing.layout == torch.channels_last and x.ndim == 4)
                    self._settled.append(settled(steps, self.computing, lambda: x[:2]))
            return torch.cat(list(self._settled[0](x.split(clips_at_once(steps, x.device)))))


def _layout(*, channels_last: bool) -> torch.memory_format:
    return torch.channels_last if channels_last else torch.contiguous_format


class _InSteps(nn.Module):
    """The steps of a prefix, between which every tensor is laid out in the one way in which a stored one is read.

    So the bits are those of all the steps at once, whichever of them is gone on from.
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
        made = torch.empty_like(x, memory_format=self.layout)  # of one position either layout would pass for the other
        return x if x.stride() == made.stride() else made.copy_(x)


def _steps(prefix: nn.Module) -> list[nn.Module]:
    """Return the steps that a prefix goes through: the first, each of its stages, and the pooling behind the last."""
    if not (isinstance(prefix, nn.Sequential) and len(prefix) > 1 and isinstance(prefix[1], nn.Sequential)):
        return [prefix]
    first, stages, *pooling = prefix.children()
    return [first, *stages.children(), *pooling]


def _nearest(
    prefix: nn.Module, images: Images, stored: Callable[[nn.Module], Stored | None]
) -> tuple[Images | Stored, list[nn.Module]]:
    """Return what a prefix is computed from, and the steps from there: the deepest prefix of it that is stored."""
    steps = _steps(prefix)
    if len(steps) > 1:
        assert isinstance(prefix, nn.Sequential)
        stages = list(prefix[1].named_children())
        for n in range(min(len(stages), len(steps) - 2), 0, -1):
            earlier = nn.Sequential(prefix[0], nn.Sequential(OrderedDict(stages[:n])))  # as `split_at_freeze` makes it
            if found := stored(earlier):
                return found, [*_entrance(found), *steps[1 + n :]]
    return images, steps


def entered(network: nn.Module, stored: Stored) -> nn.Module:
    """Return the network that takes stored activations in, in the precision that the prefix gave them out in."""
    named = [("entrance", entrance) for entrance in _entrance(stored)]
    return nn.Sequential(OrderedDict([*named, *network.named_children()])) if named else network


def _entrance(stored: Stored) -> list[Entrance]:
    return [Entrance(getattr(torch, stored.facts[NUMBERS]))] if NUMBERS in stored.facts else []


def arithmetic(device: torch.device, *, channels_last: bool, threads: int, precision: str = "fp32") -> dict[str, Any]:
    """Return what decides the bits of a network's output beside its input and its tensors, in JSON types.

    The layout chooses other kernels, and so does the kind of device; a CPU's sums are split by the threads. A GPU may
    shorten the factors of products (`core.io.torch_settings.allow_tf32`), which is read here as it is set.
    """
    found: dict[str, Any] = {"torch": torch.__version__, "channels_last": channels_last, "device": device.type}
    if DTYPES[precision] != torch.float32:
        found["precision"] = precision
    if device.type == "cuda":
        return found | {"name": torch.cuda.get_device_name(device), "tf32": torch.backends.cudnn.allow_tf32}
    return found | {"name": torch.backends.cpu.get_cpu_capability(), "threads": threads}


def digests_of(module: nn.Module) -> dict[str, str]:
    """Return the SHA-256 of each parameter and buffer of a module, by its name."""

    def digest(tensor: torch.Tensor) -> str:
        numbers: Any = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        return hashlib.sha256(numbers).hexdigest()

    tensors = module.state_dict()
    with CancellablePool(torch.get_num_threads()) as pool:
        return dict(zip(tensors, pool.map(digest, tensors.values()), strict=True))


def content(module: nn.Module, digests: Mapping[str, str]) -> str:
    """Return the SHA-256 of the names and shapes of a module's parameters and buffers, and of their digests."""
    told = [
        f"{name} {tuple(tensor.shape)} {tensor.dtype} {digests[name]}" for name, tensor in module.state_dict().items()
    ]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()
