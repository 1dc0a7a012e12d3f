"""The frozen prefix of a network: taken off, computed once, and its activations kept.

They are kept by content (the images, every tensor of the prefix, and how it is computed), so folds, seeds and
ablations that have the same prefix share them.
"""

import hashlib
import time
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from torch import nn

from core.array_writer import ArrayWriter
from core.cache import Stored, load_or_make
from core.config import Run
from core.inputs.images import Images
from core.models import surgery
from core.models.backbone import Backbone
from core.session import Session
from core.training.arithmetic import DTYPES, Arithmetic, Entrance

PREFIX_BATCH = 64
SHARD = 16 * PREFIX_BATCH  # clips whose activations outlive a process that is killed
NUMBERS = "dtype"  # what is noted of what a prefix gives out, where that is computed in 16 bits
PER_CLIP = "ms_per_clip"  # what is noted of the time it took, for the time that the whole network takes


def split_at_freeze(normalise: nn.Module, backbone: Backbone, freeze: str) -> tuple[nn.Module, nn.Module]:
    """Return the frozen prefix, and the network that is trained on what it gives out.

    With nothing frozen the prefix is empty. Behind the last block the head's pooling belongs to the prefix, since it
    has nothing to train: what is kept is then one vector per clip.
    """
    if freeze == "none":
        return nn.Identity(), nn.Sequential(OrderedDict(normalise=normalise, backbone=backbone))
    prefix, network = surgery.split(backbone, freeze)
    if len(network) > 1:
        return nn.Sequential(normalise, prefix), network
    head = list(backbone.stage("head").named_children())
    still = next(i for i, (_, m) in enumerate(head) if isinstance(m, nn.Dropout) or any(True for _ in m.parameters()))
    pooling, rest = (nn.Sequential(OrderedDict(part)) for part in (head[:still], head[still:]))
    return nn.Sequential(normalise, prefix, pooling), nn.Sequential(OrderedDict(head=rest))


def activations(prefix: nn.Module, images: Images, run: Run, session: Session) -> Stored:
    """Compute what a frozen prefix gives out for every input, or find it in the cache; float32, (clips, ...).

    They are computed as the run computes. Where that is in 16 bits, it is noted what came out, for `entered`.
    """
    device = session.device
    computing = Arithmetic(run.training, device)
    channels_last = run.training.channels_last and images.array.ndim == 4
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    prefix = prefix.to(device).to(memory_format=memory_format).eval()
    what = f"activations through {run.model.freeze}"

    def forward(batch: torch.Tensor) -> torch.Tensor:
        given: torch.Tensor = prefix(batch.to(device).contiguous(memory_format=memory_format))
        return given

    def make(writer: ArrayWriter) -> dict[str, Any]:
        spent, first, n_clips = 0.0, writer.rows, len(images.array)
        with torch.inference_mode(), computing.autocast():
            for start in range(first, n_clips, PREFIX_BATCH):
                batch = torch.from_numpy(np.array(images.array[start : start + PREFIX_BATCH]))
                before = time.perf_counter()
                out = forward(batch).float().cpu().numpy()
                spent += time.perf_counter() - before
                writer.append(out)
                if writer.rows % SHARD == 0:
                    writer.commit()
                session.report(min(start + PREFIX_BATCH, n_clips), n_clips, what)
        facts: dict[str, Any] = {"backbone": run.model.backbone, "through": run.model.freeze}
        if computing.dtype != torch.float32:
            with torch.inference_mode(), computing.autocast():
                numbers = forward(torch.from_numpy(np.array(images.array[:1]))).dtype
            facts[NUMBERS] = str(numbers).removeprefix("torch.")
        return facts | ({PER_CLIP: 1000 * spent / (n_clips - first)} if first < n_clips else {})

    made_from = {"images": images.key, "prefix": content(prefix), "structure": str(prefix)}
    made_from |= arithmetic(device, channels_last=channels_last, threads=session.threads, precision=computing.precision)
    return load_or_make(
        session.store.cache / "activations", made_from=made_from, make=make, progress=session.report, what=what
    )


def entered(network: nn.Module, stored: Stored) -> nn.Module:
    """Return the network that takes stored activations in, in the precision that the prefix gave them out in."""
    if NUMBERS not in stored.facts:
        return network
    entrance = Entrance(getattr(torch, stored.facts[NUMBERS]))
    return nn.Sequential(OrderedDict([("entrance", entrance), *network.named_children()]))


def arithmetic(device: torch.device, *, channels_last: bool, threads: int, precision: str = "fp32") -> dict[str, Any]:
    """Return what decides the bits of a network's output beside its input and its tensors, in JSON types.

    The layout chooses other kernels, and so does the kind of device; a CPU's sums are split by the threads. A GPU may
    shorten the factors of products (`core.session.allow_tf32`), which is read here as it is set.
    """
    found: dict[str, Any] = {"torch": torch.__version__, "channels_last": channels_last, "device": device.type}
    if DTYPES[precision] != torch.float32:
        found["precision"] = precision
    if device.type == "cuda":
        return found | {"name": torch.cuda.get_device_name(device), "tf32": torch.backends.cudnn.allow_tf32}
    return found | {"name": torch.backends.cpu.get_cpu_capability(), "threads": threads}


def content(module: nn.Module) -> str:
    """Return the SHA-256 of every parameter and buffer of a module, with their names and shapes."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
