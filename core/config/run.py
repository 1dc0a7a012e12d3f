"""One run, fully specified: the single source of the options, their defaults, the run's identity and its record.

Every field carries its help text; the command line is made from these classes, `run.json` is these classes as JSON,
and a run's id is the hash of them. A field that is `AUTO` is filled in from the data set before a run gets its id, so
that a stored run says every number that decided its outcome.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Self

from core.config.frontend import Frontend
from core.config.layer_spec import PERCEPTRON, activated_widths, head_widths
from core.config.options import AUTO, OWN, as_before, from_dict, option
from core.datasets import LOADERS
from core.errors import UserError
from core.models import FAMILIES
from core.training import AUGMENTATIONS, LOSSES, OPTIMIZERS, SCHEDULES

LOWEST_SR = 100  # Hz; below, the shortest window has no two samples


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which clips, and which of them are tested on."""

    name: str = option(
        "instruments",
        f"Data set: {', '.join(LOADERS)}; instruments is embedded.",
        flag="data",
    )
    content: str = option("", "SHA-256 of the clips, labels, folds and groups.", hidden=True)
    left_out: str = option("", "SHA-256 of the paths of clips that cannot be used.", hidden=True, absent="")
    label: str = option(
        "",
        "What the classes are, in the place of the set's own: pitch of nsynth and instruments, or any column of your "
        "CSV file (folder).",
        shown="the set's own classes",
        absent="",
    )
    fold: int = option(1, "Fold to test on; all others train. `all` takes every fold in turn.", at_least=1)
    validation: float = option(
        0.0,
        "Share of the training folds held out, by group, to stop early on (0: none, train on all of them).",
        at_least=0.0,
        below=1.0,
    )
    folds: int = option(
        0,
        "Number of seeded folds, stratified by class, groups whole (0: the set's own, or five); 10 with --validation "
        "0.1111 trains on 80 %, validates and tests on 10 % each.",
        at_least=0,
        absent=0,
    )
    set_aside: float = option(
        0.0,
        "Share of the clips that nothing trains on, tests on or looks at, by group and stratified by class, kept for "
        "a last test of your own.",
        at_least=0.0,
        below=1.0,
        absent=0.0,
    )
    per_class: int = option(
        0,
        "Most clips of a class in the training and in the test part, each (0: all).",
        flag="clips-per-class",
        at_least=0,
        absent=0,
    )

    @property
    def about(self) -> str:
        """The set's name, and what its classes are where they are not its own."""
        return f"{self.name} by {self.label}" if self.label else self.name

    def problems(self) -> list[str]:
        """List what is wrong with values that are right one by one."""
        return ["--folds 1: must be at least 2, or 0 for the set's own"] if self.folds == 1 else []


@dataclass(frozen=True, kw_only=True)
class Clip:
    """How a recording becomes a waveform of one length."""

    sr: int = option(
        AUTO, "Sampling rate in Hz to resample to (0: the data set's own).", shown=OWN, at_least=0, at_most=10**6
    )
    duration: float = option(
        AUTO, "Seconds every clip is brought to (0: the data set's own).", shown=OWN, at_least=0.0, at_most=86_400
    )
    fit: str = option(
        "pad",
        "Short clips are padded with silence, looped, or centred (crop); stretch keeps every sample and resizes "
        "the image instead.",
        choices=("pad", "loop", "crop", "stretch"),
    )

    def problems(self) -> list[str]:
        """List what is wrong with values that are right one by one."""
        if 0 < self.sr < LOWEST_SR:
            return [f"--sr {self.sr}: must be 0 or at least {LOWEST_SR}"]
        if self.sr and self.duration and not round(self.sr * self.duration):
            return [f"--duration {self.duration:g}: less than one sample at {self.sr} Hz"]
        return []


@dataclass(frozen=True, kw_only=True)
class Model:
    """Which network, with which weights, and what the ablation did to it."""

    backbone: str = option(
        "efficientnet_lite0", f"Backbone: {'; '.join(family.about for family in FAMILIES.values())}."
    )
    backbone_sha256: str = option("", "SHA-256 of the file of a network of the user's own.", hidden=True, absent="")
    weights: str = option("imagenet", "Starting weights: imagenet, random, or a file (.safetensors, .pth, .pt).")
    weights_sha256: str = option("", "What stands for the content of the starting weights.", hidden=True)
    freeze: str = option("none", "Last frozen stage: none, stem, block1 ..", hidden=True)
    fuse: str = option("all", "Last stage with the starting weights: all, none, stem, block1 ..", hidden=True)
    cut: str = option("none", "Last stage that is kept: none (all are), stem, block1 ..", hidden=True)
    frozen_batch_norm: str = option(
        "eval",
        "Batch norm of frozen blocks: eval (nothing moves) or train (moving statistics go on, as in older code).",
        choices=("eval", "train"),
    )
    dropout: float = option(0.2, "Dropout before the classifier.", at_least=0.0, below=1.0)
    head: str = option(
        "",
        "Widths of dense layers with ReLU and dropout before the classifier, such as 1024-512-128, in the place of "
        "those of the backbone's head.",
        shown="the backbone's own head",
        absent="",
    )
    layers: str = option(
        PERCEPTRON,
        "Activation (relu or tanh) and width of each layer of backbone mlp, such as relu64-tanh48; none is logistic "
        "regression.",
        flag="mlp-layers",
        absent=PERCEPTRON,
    )

    @property
    def network(self) -> str:
        """The name that its family knows the backbone by: a perceptron's layers are part of it."""
        return f"mlp:{self.layers}" if self.backbone == "mlp" else self.backbone

    def problems(self) -> list[str]:
        """List what is wrong with values that are right one by one."""
        found = []
        for read, text in ((head_widths, self.head), (activated_widths, self.layers)):
            try:
                read(text)
            except UserError as error:
                found.append(str(error))
        if self.layers != PERCEPTRON and self.backbone != "mlp":
            found.append(
                f"--mlp-layers {self.layers}: {self.backbone} has its own layers; --mlp-layers is for --backbone mlp"
            )
        return found


@dataclass(frozen=True, kw_only=True)
class Training:
    """How the network is trained."""

    epochs: int = option(8, "Passes over the training clips.", at_least=1, at_most=10**6)
    batch_size: int = option(32, "Clips per step.", at_least=1, at_most=10**6)
    optimizer: str = option("adam", "Optimizer.", choices=OPTIMIZERS)
    lr: float = option(1e-3, "Learning rate.", above=0.0)
    momentum: float = option(0.9, "Momentum.", only=("optimizer", "sgd"), at_least=0.0, below=1.0)
    weight_decay: float = option(1e-4, "Weight decay.", at_least=0.0)
    loss: str = option(
        "cross-entropy",
        "What training makes small. hinge: the label's logit shall lead the strongest other by 1 (Crammer and Singer); "
        "kullback-leibler: on these labels it is the cross-entropy, up to a constant.",
        choices=LOSSES,
        absent="cross-entropy",
    )
    schedule: str = option(
        "cosine",
        "Learning rate over the epochs; plateau drops it when the validation clips get no better (--monitor).",
        choices=SCHEDULES,
    )
    step_size: int = option(30, "Epochs between two drops.", only=("schedule", "step"), at_least=1)
    milestones: tuple[int, ...] = option((), "Epochs of the drops, not every --step-size.", only=("schedule", "step"))
    gamma: float = option(0.1, "Factor of each drop.", only=("schedule", "step", "plateau"), above=0.0)
    drop_patience: int = option(
        3, "Epochs without a better --monitor before each drop.", only=("schedule", "plateau"), at_least=1, absent=3
    )
    label_smoothing: float = option(0.0, "Label smoothing.", at_least=0.0, below=1.0)
    clip_norm: float = option(0.0, "Largest norm of the gradient (0: unlimited).", at_least=0.0)
    patience: int = option(
        0, "Stop after this many epochs without a better --monitor; needs --validation (0: never).", at_least=0
    )
    monitor: str = option(
        "loss",
        "What the validation clips are watched for: their loss (always the cross-entropy, so that runs compare) or "
        "their accuracy.",
        choices=("loss", "accuracy"),
        absent="loss",
    )
    stop_at: float = option(
        0.0,
        "Stop once the validation accuracy has reached this, 0 to 1; needs --validation (0: never).",
        at_least=0.0,
        at_most=1.0,
        absent=0.0,
    )
    augment: str = option(
        "none",
        "waveform: each clip once plain and once time-stretched (0.9 to 1.2) and pitch-shifted (-2 to 2 semitones) "
        "per epoch; rotate: each image turned by up to 15 degrees either way, anew in every epoch; "
        "rotate-tests: those that are validated and tested on too, which reproduces a leak in a report's code; "
        "segment: --duration seconds from anywhere in the recording, anew in every epoch (with --live).",
        choices=AUGMENTATIONS,
    )
    variants: int = option(
        5, "Different augmented versions of a clip, in turn.", only=("augment", "waveform"), at_least=1, at_most=1000
    )
    live: bool = option(
        False,
        "Make images where the network is while it trains, of stored waveforms, instead of storing images.",
        absent=False,
    )
    time_mask: int = option(0, "SpecAugment: widest mask along time, in frames (0: none).", at_least=0)
    freq_mask: int = option(0, "SpecAugment: widest mask along frequency, in mel bands (0: none).", at_least=0)
    precision: str = option(
        "fp32",
        "What products are computed in. bf16: on a GPU, and about twice as fast on a CPU that has AVX512-BF16 or AMX "
        "(another is refused); parameters, batch norm's statistics, losses and logits stay fp32. fp16, and tf32, which "
        "is fp32 with the faster, coarser products of recent GPUs: on a GPU, while a CPU uses fp32.",
        choices=("fp32", "tf32", "bf16", "fp16"),
    )
    channels_last: bool = option(True, "Keep images channels-last in memory, the faster layout.")
    compile: bool = option(
        False, "Compile training with torch.compile, on a GPU as CUDA graphs; the first step takes minutes."
    )

    def problems(self) -> list[str]:
        """List what is wrong with values that are right one by one."""
        found = []
        if any(epoch < 1 for epoch in self.milestones):
            found.append(f"--milestones {min(self.milestones)}: epochs are counted from 1")
        if self.label_smoothing and self.loss == "hinge":
            found.append(
                "--label-smoothing is for losses of probabilities: leave it out, or choose another --loss than hinge"
            )
        if self.augment == "segment" and not self.live:
            found.append("--augment segment needs --live: of stored images no other segment can be cut")
        return found


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that decides a run's outcome."""

    data: Data = Data()
    clip: Clip = Clip()
    frontend: Frontend = Frontend()
    model: Model = Model()
    training: Training = Training()
    seed: int = option(0, "Seed of head initialisation and batch order (and of random weights).", at_least=0)

    def problems(self) -> list[str]:
        """List what is wrong with parts that are right one by one."""
        found = self.frontend.beyond(self.clip.sr / 2) if self.clip.sr else []  # 0: not known yet
        training = self.training
        if training.augment == "segment" and self.clip.fit == "stretch":
            found.append("--augment segment cuts --duration seconds, and --fit stretch keeps all: choose another --fit")
        if training.live and self.frontend.stored_as != "float32":
            found.append(f"--stored-as {self.frontend.stored_as} is for stored images, and --live stores none")
        if self.data.validation:
            return found
        needs = {
            "--patience": (training.patience > 0, "stopping"),
            "--stop-at": (training.stop_at > 0, "stopping"),
            "--schedule plateau": (training.schedule == "plateau", "dropping the rate"),
            "--monitor accuracy": (training.monitor == "accuracy", "choosing an epoch"),
        }
        return found + [
            f"{flag} needs --validation above 0: {doing} on the test fold would flatter the result"
            for flag, (said, doing) in needs.items()
            if said
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the run as nested dictionaries of JSON types."""
        result: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return result

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read a run back; an unknown or missing key is an error, never a silent default.

        Only a field that was added later may be missing: it has the value that runs had before there was one.

        Raises
        ------
        UserError
            Naming the key, and the nearest one that exists.
        """
        return from_dict(cls, values, "run")

    @cached_property
    def id(self) -> str:
        """Twelve hex digits: the hash of the whole configuration, without fields that are as before there were any."""
        parts = [f.name for f in fields(self) if not as_before(f, getattr(self, f.name))]
        text = ",".join(f'"{name}":{_written(getattr(self, name))}' for name in sorted(parts))
        return hashlib.sha256(f"{{{text}}}".encode()).hexdigest()[:12]

    def replace(self, **changes: Any) -> Self:
        """Return the run with ``group__field=value`` changed, e.g. ``model__freeze="block3"``."""
        groups: dict[str, dict[str, Any]] = {}
        own: dict[str, Any] = {}
        for key, value in changes.items():
            group, _, name = key.partition("__")
            if name:
                groups.setdefault(group, {})[name] = value
            else:
                own[group] = value
        own |= {group: dataclasses.replace(getattr(self, group), **values) for group, values in groups.items()}
        return dataclasses.replace(self, **own)


GROUPS: dict[str, type] = {"data": Data, "clip": Clip, "frontend": Frontend, "model": Model, "training": Training}


def identity(part: Any) -> dict[str, Any]:
    """Return what decides a run's id, as nested dictionaries of JSON types."""
    found: dict[str, Any] = {}
    for f in fields(part):
        value = getattr(part, f.name)
        if dataclasses.is_dataclass(value):
            found[f.name] = identity(value)
        elif not as_before(f, value):
            found[f.name] = value
    return found


def _written(part: Any) -> str:
    """Return a part of a run's `identity` as JSON; of a group once, for most runs of a plan have the same object."""
    kept: dict[str, Any] = vars(part) if dataclasses.is_dataclass(part) else {}
    if "_written" not in kept:
        kept["_written"] = json.dumps(identity(part) if kept else part, sort_keys=True, separators=(",", ":"))
    return str(kept["_written"])
