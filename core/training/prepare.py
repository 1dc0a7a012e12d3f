"""From a run to what its training loop needs: the network after surgery, and the inputs it reads by row.

A frozen prefix whose input never changes is split off and computed once (`core.training.frozen_prefix`). The training
loop then trains the rest of the network on the cached activations.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from core.config.run import Run
from core.datasets.dataset import Dataset, Split
from core.inference.precision import ComputeMode, check_precision
from core.inputs.input_of_run import build_input_kind
from core.inputs.store.on_the_fly import WaveformsToInputs
from core.io.torch_settings import allow_tf32
from core.models import surgery
from core.models.backbone import Backbone
from core.models.build_network import build_network
from core.session import Session
from core.training import AUGMENTATIONS
from core.training.augmentations import make_batch_augmentation, make_test_augmentation
from core.training.batches import InputSource, make_source
from core.training.fit_input_transform import make_input_transform
from core.training.frozen_prefix import CLIP_MS_FACT, load_activations, prepend_cast, split_at_freeze
from core.training.run_inputs import load_images, split_rows


@dataclass(frozen=True)
class PreparedRun:
    """What a training loop needs.

    Attributes
    ----------
    network
        What is trained: all of it, or what follows the frozen prefix.
    input_transform
        What every input passes through first; part of the network, or of its frozen prefix.
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
    augment
        What changes training batches; empty where nothing does, and for waveforms, of which the network makes images
        and changes them itself.
    bad_clips
        (path, reason) of clips left out.
    prefix_reused
        Whether the network reads activations of a frozen prefix.
    counts
        Of the backbone's parameters (`core.models.surgery.count_parameters_by_kind`).
    prefix_ms
        Milliseconds that a clip took in that prefix, when it was computed; nan where that was not noted.
    """

    network: nn.Module
    input_transform: nn.Module
    backbone: Backbone
    source: InputSource
    labels: torch.Tensor
    clips: list[str]
    split: Split
    augment: nn.Sequential
    bad_clips: tuple[tuple[str, str], ...]
    prefix_reused: bool
    counts: Mapping[str, int]
    prefix_ms: float = 0.0

    def device_vectors(self, *, max_weights: int) -> torch.Tensor | None:
        """Return (rows, features) where those are trained on, by no more than so many weights; None otherwise."""
        weights = sum(p.numel() for p in self.network.parameters())
        return self.source.on_device if self.source.is_vectors and weights <= max_weights else None


def prepare(run: Run, dataset: Dataset, session: Session, *, reuse: bool = True) -> PreparedRun:
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
        For clips or weights that cannot be used, and a precision that this CPU only imitates.
    """
    check_precision(run.training.precision, session.device)
    augment = make_batch_augmentation(run)
    versions = load_images(run, dataset, session)
    allow_tf32(run.training.precision == "tf32")
    plain = versions[0]
    split = split_rows(run, dataset, plain)
    backbone = build_network(run, len(dataset.class_names))
    input_transform = make_input_transform(run, backbone, plain, split)
    training = run.training
    stay = reuse and can_cache_prefix(run)
    prefix, network = split_at_freeze(input_transform, backbone, run.model.freeze if stay else "none")
    if training.live and not stay:
        network, augment = _prepend_input_kind(run, network, augment), nn.Sequential()
    backbone.to(session.device)
    stored = [load_activations(prefix, version, run, session) for version in versions] if stay else []
    network = ComputeMode(training, session.device).to_device(prepend_cast(network, stored[0]) if stay else network)
    source = make_source(stored or versions, run, session)
    prefix_ms = float(stored[0].facts.get(CLIP_MS_FACT, math.nan)) if stay else 0.0
    rows = dataset.clips.iloc[plain.clip_rows]
    labels = torch.tensor(rows["label"].to_numpy(), dtype=torch.int64, device=session.device)
    return PreparedRun(
        network=network,
        input_transform=input_transform,
        backbone=backbone,
        source=source,
        labels=labels,
        clips=rows["path"].tolist(),
        split=split,
        augment=augment,
        bad_clips=plain.unusable,
        prefix_reused=stay,
        counts=surgery.count_parameters_by_kind(backbone),
        prefix_ms=prefix_ms,
    )


def can_cache_prefix(run: Run) -> bool:
    """Tell whether a run has a frozen prefix whose input and output are the same in every epoch."""
    return (
        run.model.freeze != "none"
        and run.model.frozen_batch_norm == "eval"
        and not len(make_batch_augmentation(run))
        and not AUGMENTATIONS[run.training.augment].crops_recordings
    )


def _prepend_input_kind(run: Run, network: nn.Module, augment: nn.Module) -> nn.Sequential:
    """Put the front end before a network of images, and what changes them between the two."""
    images = WaveformsToInputs(
        build_input_kind(run.clip, run.frontend),
        augment=augment,
        change=make_test_augmentation(run),
        channels_last=run.training.channels_last,
    )
    return nn.Sequential(OrderedDict([("images", images), *network.named_children()]))
