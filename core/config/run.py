"""The configuration of a run: the single source of options, defaults, run ids and the stored configuration.

The command line is made from these classes, ``run.json`` contains them as JSON, and the run id is a hash of all fields.
Fields with the value `AUTO` are filled in from the data set before the id is computed, so that the record of a run
contains every value that influenced its result.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Self

from core.config.frontend import Frontend
from core.config.layer_spec import DEFAULT_MLP_LAYERS, parse_head_widths, parse_mlp_layers
from core.config.options import AUTO, DATASET_DEFAULT, field_names, flag_of, from_dict, has_legacy_value, option
from core.datasets import LOADERS
from core.errors import UserError
from core.models import FAMILIES
from core.system.atomic_files import text_digest
from core.training import AUGMENTATIONS, LOSSES, OPTIMIZERS, SCHEDULES

MIN_SR = 100  # Hz; at lower rates the shortest window has less than two samples


@dataclass(frozen=True, kw_only=True)
class Data:
    """Options of the data set: its clips, classes and folds."""

    name: str = option(
        "instruments", f"Data set: {', '.join(LOADERS)}; instruments is included.", flag="data", decides="clips"
    )
    content: str = option("", "SHA-256 of the clips, labels, folds and groups.", hidden=True, filled_in_by="program")
    left_out: str = option(
        "", "SHA-256 of the paths of clips that cannot be used.", hidden=True, legacy_value="", filled_in_by="program"
    )
    label: str = option(
        "",
        "Column that gives the classes: pitch for nsynth and instruments, or any column of your CSV file (folder).",
        default_text="the data set's own classes",
        legacy_value="",
        decides="clips",
    )
    group: str = option(
        "",
        "Column of your CSV file (folder or features) that names the recording or speaker of each clip; clips of one "
        "group are never in two folds. prefix: the start of the file name that clips share, such as george_.",
        default_text="the column group, if there is one",
        legacy_value="",
        decides="clips",
    )
    fold: int = option(
        1,
        "Test fold; the other folds are used for training. `all` tests every fold in turn.",
        at_least=1,
        decides="repeat",
    )
    validation: float = option(
        0.0,
        "Fraction of the training folds held out for validation, by group (0: none).",
        at_least=0.0,
        below=1.0,
    )
    folds: int = option(
        0,
        "Number of random folds, stratified by class, groups kept together (0: the data set's own folds, or 5). "
        "10 with --validation 0.1111 gives 80 % training, 10 % validation and 10 % test clips.",
        flag="n-folds",
        at_least=0,
        legacy_value=0,
        decides="clips",
    )
    leave_one_group_out: bool = option(
        False,
        "Test one group in each fold; needs --group, or a data set with groups. --fold all tests every group in turn; "
        "--fold also takes the name of a group.",
        legacy_value=False,
        decides="clips",
    )
    set_aside: float = option(
        0.0,
        "Fraction of clips held out completely for a final test (stratified by class, groups kept together).",
        flag="holdout",
        at_least=0.0,
        below=1.0,
        legacy_value=0.0,
        decides="clips",
    )
    per_class: int = option(
        0,
        "Maximum number of clips per class, in the training part and in the test part (0: all).",
        flag="max-clips-per-class",
        at_least=0,
        legacy_value=0,
        decides="clips",
    )

    @property
    def selection(self) -> dict[str, Any]:
        """Arguments of `core.datasets.select`, by name."""
        return {name: getattr(self, name) for name in field_names(Data, decides="clips") if name != "name"}

    @property
    def display_name(self) -> str:
        """Name of the data set, with the column of the classes if ``--label`` is given."""
        return f"{self.name} by {self.label}" if self.label else self.name

    def problems(self) -> list[str]:
        """Return the problems of combinations of fields."""
        if self.folds and self.leave_one_group_out:
            return [f"--n-folds {self.folds} and --leave-one-group-out exclude each other: leave one out"]
        return ["--n-folds 1: must be at least 2, or 0 for the folds of the data set"] if self.folds == 1 else []


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Options of the waveform: sampling rate, length, and how clips reach this length."""

    sr: int = option(
        AUTO,
        "Sampling rate in Hz (0: the data set's own; for folder, chosen from the recordings).",
        default_text=DATASET_DEFAULT,
        at_least=0,
        at_most=10**6,
        filled_in_by="data set",
    )
    duration: float = option(
        AUTO,
        "Length of every clip in seconds (0: the data set's own; for folder, chosen from the recordings).",
        default_text=DATASET_DEFAULT,
        at_least=0.0,
        at_most=86_400,
        filled_in_by="data set",
    )
    fit: str = option(
        "pad",
        "How clips reach --duration: pad with silence, loop, crop (centre), or stretch (keep all samples and resize "
        "the image).",
        flag="length-mode",
        choices=("pad", "loop", "crop", "stretch"),
    )

    def problems(self) -> list[str]:
        """Return the problems of combinations of fields."""
        if 0 < self.sr < MIN_SR:
            return [f"--sr {self.sr}: must be 0 or at least {MIN_SR}"]
        if self.sr and self.duration and not round(self.sr * self.duration):
            return [f"--duration {self.duration:g}: less than one sample at {self.sr} Hz"]
        return []


@dataclass(frozen=True, kw_only=True)
class Model:
    """Options of the network: backbone, starting weights, head, and the changes by an ablation."""

    backbone: str = option("efficientnet_lite0", f"Network: {'; '.join(family.about for family in FAMILIES.values())}.")
    backbone_sha256: str = option(
        "",
        "SHA-256 of the user's network file.",
        hidden=True,
        legacy_value="",
        filled_in_by="program",
    )
    weights: str = option(
        "imagenet", "Starting weights: imagenet, random, or a file (.safetensors, .pth, .pt, .ckpt, .bin)."
    )
    weights_sha256: str = option("", "Digest of the starting weights.", hidden=True, filled_in_by="program")
    freeze: str = option("none", "Last frozen stage: none, stem, block1 ..", hidden=True)
    fuse: str = option("all", "Last stage with the starting weights: all, none, stem, block1 ..", hidden=True)
    cut: str = option("none", "Last stage of the network: none (no cut), stem, block1 ..", hidden=True)
    frozen_batch_norm: str = option(
        "eval",
        "Batch norm and dropout in frozen blocks: eval (fixed statistics, no dropout) or train (statistics keep "
        "updating and dropout is active, as in code that only stops the gradients).",
        choices=("eval", "train"),
    )
    dropout: float = option(0.2, "Dropout probability before the classifier.", at_least=0.0, below=1.0)
    own_dropout: bool = option(
        False,
        "Keep the dropout layers of the original network with their own probabilities, and add none; --dropout is "
        "ignored.",
        legacy_value=False,
    )
    head: str = option(
        "",
        "Widths of the hidden dense layers (with ReLU and dropout) that replace those of the head, such as "
        "1024-512-128.",
        default_text="the backbone's own head",
        legacy_value="",
    )
    layers: str = option(
        DEFAULT_MLP_LAYERS,
        "Activation (relu or tanh) and width of each layer of --backbone mlp, such as relu64-tanh48; none is logistic "
        "regression.",
        flag="mlp-layers",
        legacy_value=DEFAULT_MLP_LAYERS,
    )

    @property
    def dropout_rate(self) -> float | None:
        """Dropout probability before the classifier; None keeps the dropout layers of the original network."""
        return None if self.own_dropout else self.dropout

    @property
    def network(self) -> str:
        """Name of the backbone for its family; the name of an MLP includes its layers."""
        return f"mlp:{self.layers}" if self.backbone == "mlp" else self.backbone

    def problems(self) -> list[str]:
        """Return the problems of combinations of fields."""
        problems: list[str] = []
        for read, text in ((parse_head_widths, self.head), (parse_mlp_layers, self.layers)):
            try:
                read(text)
            except UserError as error:
                problems.append(str(error))
        if self.own_dropout and self.dropout != Model.dropout:
            problems.append(f"--dropout {self.dropout:g} does not apply with --own-dropout; leave one out")
        if self.layers != DEFAULT_MLP_LAYERS and self.backbone != "mlp":
            problems.append(f"--mlp-layers {self.layers} applies only to --backbone mlp, not to {self.backbone}")
        return problems


@dataclass(frozen=True, kw_only=True)
class Training:
    """Options of training."""

    epochs: int = option(8, "Number of training epochs.", at_least=1, at_most=10**6)
    batch_size: int = option(32, "Clips per training step.", at_least=1, at_most=10**6)
    optimizer: str = option("adam", "Optimizer.", choices=OPTIMIZERS)
    lr: float = option(1e-3, "Learning rate.", above=0.0, at_most=1e30)
    momentum: float = option(0.9, "Momentum of SGD.", used_when=("optimizer", "sgd"), at_least=0.0, below=1.0)
    weight_decay: float = option(1e-4, "Weight decay.", at_least=0.0, at_most=1e30)
    loss: str = option(
        "cross-entropy",
        "Training loss. hinge: multi-class hinge with margin 1 (Crammer and Singer); it gives no probabilities, "
        "so NLL, Brier score and ECE are left out. kullback-leibler: equal to cross-entropy up to a constant.",
        choices=LOSSES,
        legacy_value="cross-entropy",
    )
    schedule: str = option(
        "cosine",
        "Learning rate schedule. plateau lowers the rate when --monitor stops improving.",
        choices=SCHEDULES,
    )
    step_size: int = option(
        30, "Epochs between two drops of the learning rate.", used_when=("schedule", "step"), at_least=1
    )
    milestones: tuple[int, ...] = option(
        (), "Epochs after which the learning rate drops, instead of every --step-size.", used_when=("schedule", "step")
    )
    gamma: float = option(
        0.1, "Factor of each drop of the learning rate.", used_when=("schedule", "step", "plateau"), above=0.0
    )
    drop_patience: int = option(
        3,
        "Epochs without improvement of --monitor before the learning rate drops.",
        flag="plateau-patience",
        used_when=("schedule", "plateau"),
        at_least=1,
        legacy_value=3,
    )
    label_smoothing: float = option(0.0, "Label smoothing.", at_least=0.0, below=1.0)
    clip_norm: float = option(0.0, "Maximum gradient norm (0: no clipping).", flag="max-grad-norm", at_least=0.0)
    patience: int = option(
        0,
        "Early stopping: epochs without improvement of --monitor; needs --validation (0: off).",
        at_least=0,
    )
    monitor: str = option(
        "loss",
        "Validation metric for early stopping and plateau: accuracy, or loss (the cross-entropy without label "
        "smoothing, also with --loss hinge).",
        choices=("loss", "accuracy"),
        legacy_value="loss",
    )
    stop_at: float = option(
        0.0,
        "Stop once validation accuracy reaches this, 0 to 1; needs --validation (0: off).",
        flag="stop-at-accuracy",
        at_least=0.0,
        at_most=1.0,
        legacy_value=0.0,
    )
    augment: str = option(
        "none",
        "Augmentation of the training clips in every epoch. stretch-pitch: add a time-stretched (0.9 to 1.2) and "
        "pitch-shifted (-2 to 2 semitones) version of each clip. rotate: rotate images by up to 15 degrees. "
        "rotate-all: rotate validation and test images too (reproduces a data leak of one paper). random-crop: "
        "--duration seconds from a random place of the recording (needs --on-the-fly).",
        choices=AUGMENTATIONS,
        words={"stretch-pitch": "waveform", "rotate-all": "rotate-tests", "random-crop": "segment"},
        decides="inputs",
    )
    variants: int = option(
        5,
        "Number of augmented versions of each clip, used in turn.",
        flag="n-augmented",
        used_when=("augment", "waveform"),
        at_least=1,
        at_most=1000,
        decides="inputs",
    )
    live: bool = option(
        False,
        "Store waveforms and compute the spectrograms on the training device, instead of storing spectrograms.",
        flag="on-the-fly",
        legacy_value=False,
        decides="inputs",
    )
    time_mask: int = option(0, "SpecAugment: maximum width of the time mask, in frames (0: none).", at_least=0)
    freq_mask: int = option(0, "SpecAugment: maximum width of the frequency mask, in mel bands (0: none).", at_least=0)
    precision: str = option(
        "fp32",
        "Precision of matrix products. bf16 needs a GPU, or a CPU with AVX512-BF16 or AMX (about twice as fast); "
        "parameters, losses and logits stay fp32. fp16 and tf32 need a GPU; a CPU uses fp32 instead.",
        choices=("fp32", "tf32", "bf16", "fp16"),
    )
    channels_last: bool = option(True, "Store images in channels-last memory format (faster).")
    quick: bool = option(
        False,
        "Whether --quick chose small images and few epochs.",
        hidden=True,
        legacy_value=False,
        filled_in_by="program",
    )
    compile: bool = option(
        False, "Compile training with torch.compile (with CUDA graphs on a GPU); the first step takes minutes."
    )

    @property
    def has_probabilities(self) -> bool:
        """Whether the loss makes the softmax outputs estimates of probabilities; the hinge loss does not."""
        return self.loss != "hinge"

    def problems(self) -> list[str]:
        """Return the problems of combinations of fields."""
        problems: list[str] = []
        if any(epoch < 1 for epoch in self.milestones):
            problems.append(f"--milestones {min(self.milestones)}: epochs start at 1")
        if self.label_smoothing and self.loss == "hinge":
            problems.append("--label-smoothing does not apply to --loss hinge: leave it out, or choose another --loss")
        if self.augment == "segment" and not self.live:
            problems.append("--augment random-crop needs --on-the-fly: stored images cannot be cropped again")
        return problems


@dataclass(frozen=True, kw_only=True)
class Run:
    """All options that influence the result of a run."""

    data: Data = Data()
    clip: Clip = Clip()
    frontend: Frontend = Frontend()
    model: Model = Model()
    training: Training = Training()
    seed: int = option(
        0,
        "Random seed of starting weights that are not loaded, head initialisation, batch order, dropout, SpecAugment "
        "masks, rotation and crops.",
        at_least=0,
        decides="repeat",
    )

    def problems(self) -> list[str]:
        """Return the problems of combinations of groups."""
        sr = self.clip.sr  # 0: not filled in yet
        problems = self.frontend.list_frequency_problems(sr / 2) if sr else []
        training = self.training
        if training.augment == "segment" and self.clip.fit == "stretch":
            problems.append(
                "--augment random-crop needs clips of --duration seconds: choose another --length-mode than stretch"
            )
        if training.live and self.frontend.stored_as != "float32":
            problems.append(
                f"--storage-dtype {self.frontend.stored_as} applies to stored images, and --on-the-fly stores none: "
                "leave one out"
            )
        if self.data.validation:
            return problems
        needs = {
            "--patience": (training.patience > 0, "stopping"),
            "--stop-at-accuracy": (training.stop_at > 0, "stopping"),
            "--schedule plateau": (training.schedule == "plateau", "lowering the learning rate"),
            "--monitor accuracy": (training.monitor == "accuracy", "choosing an epoch"),
        }
        return problems + [
            f"{flag} needs --validation above 0: {purpose} on the test fold would bias the result"
            for flag, (is_used, purpose) in needs.items()
            if is_used
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the run as nested dictionaries of JSON types."""
        result: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return result

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build a run from nested dictionaries; a missing later field gets its legacy value.

        Raises
        ------
        UserError
            For an unknown key, with the most similar known one, and for a missing key.
        """
        return from_dict(cls, values, "run")

    @cached_property
    def id(self) -> str:
        """Run id: 12 hex digits of the SHA-256 of the configuration, without later fields with their legacy value."""
        parts = [f.name for f in fields(self) if not has_legacy_value(f, getattr(self, f.name))]
        text = ",".join(f'"{name}":{_identity_json(getattr(self, name))}' for name in sorted(parts))
        return text_digest(f"{{{text}}}")[:12]

    def replace(self, **changes: Any) -> Self:
        """Return a copy with changed fields, given as ``group__field=value``, e.g. ``model__freeze="block3"``."""
        groups: dict[str, dict[str, Any]] = {}
        top_level: dict[str, Any] = {}
        for key, value in changes.items():
            group, _, name = key.partition("__")
            if name:
                groups.setdefault(group, {})[name] = value
            else:
                top_level[group] = value
        top_level |= {group: dataclasses.replace(getattr(self, group), **values) for group, values in groups.items()}
        return dataclasses.replace(self, **top_level)


GROUPS: dict[str, type] = {"data": Data, "clip": Clip, "frontend": Frontend, "model": Model, "training": Training}


def field_of(key: str) -> "dataclasses.Field[Any]":
    """Return the dataclass field of ``group__field``."""
    group, _, name = key.rpartition("__")
    return next(f for f in fields(GROUPS[group] if group else Run) if f.name == name)


def run_options() -> dict[str, "dataclasses.Field[Any]"]:
    """Return the dataclass field of every option of a run, in the order of ``--help-all``.

    The keys are ``group__field``, such as ``training__lr``.
    """
    by_key = {f"{group}__{f.name}": f for group, part in GROUPS.items() for f in fields(part)}
    return {key: f for key, f in by_key.items() if not f.metadata["hidden"]}


def option_keys() -> dict[str, str]:
    """Return ``group__field`` of every option of a run by flag without dashes."""
    return {flag_of(f)[2:]: key for key, f in run_options().items()}


def identity(part: Any) -> dict[str, Any]:
    """Return the fields that the run id is computed from, as nested dictionaries of JSON types."""
    values: dict[str, Any] = {}
    for f in fields(part):
        value = getattr(part, f.name)
        if dataclasses.is_dataclass(value):
            values[f.name] = identity(value)
        elif not has_legacy_value(f, value):
            values[f.name] = value
    return values


def _identity_json(part: Any) -> str:
    """Return the `identity` of a group or value as JSON.

    The JSON of a group is kept in its ``__dict__``, because most runs of a plan share their group objects.
    """
    cache: dict[str, Any] = vars(part) if dataclasses.is_dataclass(part) else {}
    if "_identity_json" not in cache:
        cache["_identity_json"] = json.dumps(identity(part) if cache else part, sort_keys=True, separators=(",", ":"))
    return str(cache["_identity_json"])
