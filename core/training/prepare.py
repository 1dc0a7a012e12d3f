"""Prepare a run for its training loop: the network after surgery, its inputs and its split.

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
from core.inputs.input_kind import build_input_kind
from core.inputs.store.on_the_fly import WaveformsToInputs
from core.models import freeze_fuse_cut
from core.models.backbone import Backbone
from core.models.build_network import build_network
from core.session import Session
from core.system.torch_settings import SMALL_NETWORK, allow_tf32
from core.training import AUGMENTATIONS
from core.training.augmentations import make_batch_augmentation, make_test_augmentation
from core.training.batches import InputSource, make_source
from core.training.fit_input_transform import make_input_transform
from core.training.frozen_prefix import CLIP_MS_FACT, load_activations, prepend_cast, split_at_freeze
from core.training.load_inputs import check_classes, load_run_inputs, split_rows


@dataclass(frozen=True)
class PreparedRun:
    """Network, inputs and split of a run.

    Attributes
    ----------
    network
        Network to train. If `prefix_reused`, only the part after the frozen prefix.
    input_transform
        First module of the network or of its frozen prefix: maps inputs to the range that the backbone expects.
    backbone
        Whole backbone; shares its tensors with `network`.
    source
        Inputs of `network` by row.
    labels
        Class number of each clip, (clips,), int64, on the device.
    clips
        Path of each clip.
    split
        Rows for training, validation and testing.
    augment
        Augmentation of training batches. It is empty without augmentation, and for inputs that are computed on the fly,
        because `network` augments them.
    bad_clips
        (path, reason) of each clip that could not be used.
    prefix_reused
        Whether `source` holds activations of the frozen prefix, computed once.
    counts
        Numbers of parameters of the backbone (`core.models.freeze_fuse_cut.count_parameters_by_kind`).
    prefix_ms
        Time per clip in the frozen prefix when its activations were computed, in milliseconds; NaN if unknown.
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

    def device_vectors(self) -> torch.Tensor | None:
        """Return the inputs (rows, features) if they are vectors on the device and the network is small, else None."""
        is_small = freeze_fuse_cut.count_parameters(self.network) <= SMALL_NETWORK
        return self.source.on_device if self.source.is_vectors and is_small else None


def prepare(run: Run, dataset: Dataset, session: Session, *, reuse: bool = True) -> PreparedRun:
    """Load the inputs of a run, build its network, and split its clips.

    Parameters
    ----------
    run
        Run with all fields filled in.
    dataset
        Data set of the run.
    session
        Store, device and progress.
    reuse
        Whether the activations of a frozen prefix are computed once instead of in every epoch.

    Raises
    ------
    UserError
        If clips or weights cannot be used, or the CPU only emulates the precision.
    """
    check_precision(run.training.precision, session.device)
    augment = make_batch_augmentation(run)
    versions = load_run_inputs(run, dataset, session)
    allow_tf32(run.training.precision == "tf32")
    plain = versions[0]
    for line in check_classes(run, dataset, plain):
        session.report.note_once(line)
    split = split_rows(run, dataset, plain)
    backbone = build_network(run, len(dataset.class_names))
    input_transform = make_input_transform(run, backbone, plain, split)
    training = run.training
    reuse_prefix = reuse and can_cache_prefix(run)
    prefix, network = split_at_freeze(input_transform, backbone, run.model.freeze if reuse_prefix else "none")
    if training.live and not reuse_prefix:
        network, augment = _prepend_input_kind(run, network, augment), nn.Sequential()
    backbone.to(session.device)
    activations = [load_activations(prefix, version, run, session) for version in versions] if reuse_prefix else []
    network = ComputeMode(training, session.device).to_device(
        prepend_cast(network, activations[0]) if reuse_prefix else network
    )
    source = make_source(activations or versions, run, session)
    prefix_ms = float(activations[0].facts.get(CLIP_MS_FACT, math.nan)) if reuse_prefix else 0.0
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
        prefix_reused=reuse_prefix,
        counts=freeze_fuse_cut.count_parameters_by_kind(backbone),
        prefix_ms=prefix_ms,
    )


def can_cache_prefix(run: Run) -> bool:
    """Return whether a run has a frozen prefix whose input and output are the same in every epoch."""
    return (
        run.model.freeze != "none"
        and run.model.frozen_batch_norm == "eval"
        and not len(make_batch_augmentation(run))
        and not AUGMENTATIONS[run.training.augment].crops_recordings
    )


def _prepend_input_kind(run: Run, network: nn.Module, augment: nn.Module) -> nn.Sequential:
    """Prepend the computation of inputs from waveforms and their augmentation to a network."""
    images = WaveformsToInputs(
        build_input_kind(run.clip, run.frontend),
        augment=augment,
        change=make_test_augmentation(run),
        channels_last=run.training.channels_last,
    )
    return nn.Sequential(OrderedDict([("images", images), *network.named_children()]))
