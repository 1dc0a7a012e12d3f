"""From a run to what its training loop needs: the network after surgery, and the inputs it reads by row.

A frozen prefix whose input never changes is taken off the network and computed once: the loop then trains what
follows it on the prefix's activations. They are kept by content (the images, and every tensor of the prefix), so
folds, seeds and ablations that have the same prefix share them.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from core.cache import ArrayWriter, Stored, load_or_make
from core.config import Run
from core.datasets.table import Dataset, Split
from core.errors import UserError
from core.inputs import images as features
from core.inputs.augmentation import SpecAugment
from core.inputs.images import Images
from core.models import surgery
from core.models.backbone import Backbone, build
from core.models.normalise import Normalise
from core.session import Session
from core.training.batches import Source

PREFIX_BATCH = 64


@dataclass(frozen=True)
class Prepared:
    """What a training loop needs.

    Attributes
    ----------
    network
        What is trained: all of it, or what follows the frozen prefix.
    backbone
        The whole backbone, sharing the network's tensors.
    source
        The network's inputs by row.
    labels
        (clips,) int64, on the device.
    clips
        Path of each row.
    split
        Rows to train, validate and test on.
    mask
        SpecAugment, or the identity.
    bad_clips
        (path, reason) of clips left out.
    prefix_reused
        Whether the network reads activations of a frozen prefix.
    """

    network: nn.Module
    backbone: Backbone
    source: Source
    labels: torch.Tensor
    clips: list[str]
    split: Split
    mask: Callable[[torch.Tensor], torch.Tensor]
    bad_clips: tuple[tuple[str, str], ...]
    prefix_reused: bool


def prepare(run: Run, dataset: Dataset, session: Session, *, reuse: bool = True) -> Prepared:
    """Make the images, the network and the split of a run.

    Parameters
    ----------
    run
        Fully specified.
    dataset
        Its clips.
    session
        Store, device and progress.
    reuse
        False computes a frozen prefix anew in every epoch; for comparison only.

    Raises
    ------
    UserError
        For clips or weights that cannot be used.
    """
    allow_tf32(run.training.precision == "tf32")
    versions = load_images(run, dataset, session)
    plain = versions[0]
    split = rows_of(run, dataset, plain)
    backbone = make_backbone(run, len(dataset.class_names))
    normalise = make_normalise(run, backbone, plain, split)
    training = run.training
    masked = training.time_mask > 0 or training.freq_mask > 0
    mask = SpecAugment(time_mask=training.time_mask, freq_mask=training.freq_mask) if masked else nn.Identity()
    stay = reuse and run.model.freeze != "none" and run.model.frozen_batch_norm == "eval" and not masked
    prefix, network = split_at_freeze(normalise, backbone, run.model.freeze if stay else "none")
    memory_format = torch.channels_last if training.channels_last else torch.contiguous_format
    network = network.to(session.device).to(memory_format=memory_format)
    backbone.to(session.device)
    arrays, key = [images.array for images in versions], "-".join(images.key for images in versions)
    if stay:
        stored = [activations(prefix, images, run, session) for images in versions]
        arrays, key = [activation.array for activation in stored], "-".join(activation.key for activation in stored)
    source = Source(
        arrays,
        key=key,
        device=session.device,
        channels_last=training.channels_last,
        residents=session.residents,
    )
    rows = dataset.clips.iloc[plain.kept]
    labels = torch.tensor(rows["label"].to_numpy(), dtype=torch.int64, device=session.device)
    return Prepared(network, backbone, source, labels, rows["path"].tolist(), split, mask, plain.bad, stay)


def allow_tf32(allow: bool) -> None:
    """Let a GPU shorten the factors of fp32 products to 10 bits, or not; torch would, in convolutions, unasked."""
    torch.backends.cudnn.allow_tf32 = allow
    torch.backends.cuda.matmul.allow_tf32 = allow


def load_images(run: Run, dataset: Dataset, session: Session) -> list[Images]:
    """Return the images of a run's clips: plain ones first, then each augmented version."""
    count = 1 + (run.training.variants if run.training.augment == "waveform" else 0)
    return [
        features.images(
            dataset,
            content=run.data.content,
            clip=run.clip,
            frontend=run.frontend,
            cache=session.store.cache,
            device=session.device,
            on_bad_clip=session.execution.on_bad_clip,
            variant=variant,
            progress=session.report,
        )
        for variant in range(count)
    ]


def plain_images(run: Run, dataset: Dataset, session: Session) -> Images:
    """Return the images of a run's clips as they are, which is what is tested on and analysed."""
    return load_images(run.replace(training__augment="none"), dataset, session)[0]


def rows_of(run: Run, dataset: Dataset, images: Images) -> Split:
    """Return the split in rows of the images, which lack the clips that were left out."""
    row = np.full(len(dataset.clips), -1, np.int64)
    row[images.kept] = np.arange(len(images.kept))
    split = dataset.split(run.data.fold, validation=run.data.validation)
    train, validation, test = (part[part >= 0] for part in (row[split.train], row[split.validation], row[split.test]))
    if not len(train) or not len(test):
        raise UserError(f"{dataset.name} fold {run.data.fold}: no usable clip is left to train or to test on")
    return Split(train=train, validation=validation, test=test)


def make_backbone(run: Run, num_classes: int) -> Backbone:
    """Make a run's network: its weights, then fusion, cutoff and freezing.

    The stages before `Model.fuse` keep the starting weights; those after it are drawn from the seed.
    """
    model = run.model

    def made(weights: str) -> Backbone:
        return build(model.backbone, num_classes, weights=weights, seed=run.seed, dropout=model.dropout)

    backbone = made(model.weights)
    if model.fuse != "all":
        backbone = surgery.fuse(backbone, made("random"), model.fuse)
    backbone = surgery.cut(backbone, model.cut, num_classes, seed=run.seed, dropout=model.dropout)
    return surgery.freeze(backbone, model.freeze, batch_norm=model.frozen_batch_norm)


def make_normalise(run: Run, backbone: Backbone, images: Images, split: Split) -> Normalise:
    """Make the map from decibels to what the backbone was trained on; ``train`` looks at the training rows alone."""
    if run.frontend.normalise == "train":
        return Normalise.of(images.array, split.train)
    return Normalise.fixed(backbone.mean, backbone.std)


def split_at_freeze(normalise: Normalise, backbone: Backbone, freeze: str) -> tuple[nn.Module, nn.Module]:
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
    """Compute what a frozen prefix gives out for every image, or find it in the cache; float32, (clips, ...)."""
    device, layout = session.device, run.training.channels_last
    memory_format = torch.channels_last if layout else torch.contiguous_format
    prefix = prefix.to(device).to(memory_format=memory_format).eval()
    what = f"activations through {run.model.freeze}"

    def make(writer: ArrayWriter) -> dict[str, Any]:
        with torch.inference_mode():
            for start in range(0, len(images.array), PREFIX_BATCH):
                batch = torch.from_numpy(np.array(images.array[start : start + PREFIX_BATCH])).to(device)
                writer.append(prefix(batch.contiguous(memory_format=memory_format)).float().cpu().numpy())
                session.report(min(start + PREFIX_BATCH, len(images.array)), len(images.array), what)
        return {"backbone": run.model.backbone, "through": run.model.freeze}

    made_from = {"images": images.key, "prefix": content(prefix), "structure": str(prefix)}
    return load_or_make(session.store.cache / "activations", made_from=made_from, make=make)


def content(module: nn.Module) -> str:
    """Return the SHA-256 of every parameter and buffer of a module, with their names and shapes."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
