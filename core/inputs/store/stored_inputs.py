"""Stored inputs: the image or vector of every clip, computed once per data set and settings, and memory-mapped.

They are in the unit of their kind (`core.inputs.INPUT_KINDS`). The model maps them to the backbone's input range, so
that all folds and normalisations share one array. All clips that cannot be used are named in one error, before
training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from core.audio.waveform_augmentation import WaveformChange, augment_waveform
from core.cache.array_file import ArrayWriter
from core.cache.entries import load_or_build
from core.config.options import field_names
from core.config.run import Clip, Frontend, identity
from core.errors import UserError, unknown_name_error
from core.inputs import INPUT_KINDS
from core.inputs.base import ArrayLike
from core.inputs.input_kind import get_input_layout
from core.inputs.store.build_inputs import BuildChunks, InputSettings, write_inputs
from core.inputs.store.float16 import Float16Rows
from core.progress import Progress, no_progress
from core.system.memory import return_freed_memory

if TYPE_CHECKING:
    from core.datasets.dataset import Dataset

VERSION = 1  # part of the cache key; to be increased if the same settings give other inputs
MAX_NAMED_CLIPS = 20  # clips in one error
BAD_CLIP_POLICIES = ("fail", "skip")


class UnusableClip(NamedTuple):
    """A clip that was left out: path in the data set, and reason."""

    path: str
    reason: str


@dataclass(frozen=True)
class DatasetInputs:
    """Inputs of a data set: images or vectors.

    Attributes
    ----------
    array
        Inputs (usable clips, *shape of the kind) in the unit of the kind, float32, memory-mapped and read-only. Or an
        object that computes rows on access (`core.inputs.store.on_the_fly`) or converts them from float16
        (`core.inputs.store.float16`).
    clip_rows
        Row of each input in `dataset.clips`, int64, ascending, shape (usable clips,).
    unusable
        Clips that were left out.
    key
        Hash of all settings that determine the inputs.
    """

    array: ArrayLike
    clip_rows: np.ndarray
    unusable: tuple[UnusableClip, ...]
    key: str

    @property
    def entry(self) -> str:
        """Folder of the inputs, relative to the cache."""
        return f"images/{self.key}"


def load_inputs(
    dataset: "Dataset",
    *,
    content: str,
    clip: Clip,
    frontend: Frontend,
    cache: Path,
    device: str | torch.device = "cpu",
    on_bad_clip: str = "fail",
    variant: int = 0,
    change: WaveformChange = augment_waveform,
    build_chunks: BuildChunks | None = None,
    progress: Progress = no_progress,
) -> DatasetInputs:
    """Return the inputs of all clips of a data set from the cache; compute them if necessary.

    Parameters
    ----------
    dataset
        Data set of the clips.
    content
        Fingerprint of the data set; part of the cache key.
    clip, frontend
        Settings of waveforms and inputs, without unset values; `frontend.normalise` has no effect.
    cache
        Folder of ``images/<key>/``. If several processes need the same inputs, one computes and the others wait.
    device
        Device that computes the inputs.
    on_bad_clip
        ``fail``: raise an error if clips cannot be used. ``skip``: leave them out and name them in
        `DatasetInputs.unusable`.
    variant
        0: clips without augmentation. Above 0: augmented clips, seeded with path and variant.
    change
        Augmentation of a waveform. Its name is part of the cache key if `variant` is above 0.
    build_chunks
        Computes the inputs of many clips in a cluster (`core.inputs.store.build_inputs`).
    progress
        Called with (finished clips, clips, description).

    Raises
    ------
    UserError
        Clips cannot be used and `on_bad_clip` is ``fail``; no clip can be used; the cache is not writable.
    """
    if on_bad_clip not in BAD_CLIP_POLICIES:
        raise unknown_name_error("policy for bad clips", on_bad_clip, BAD_CLIP_POLICIES)
    if dataset.vectors is not None:
        if variant:
            raise UserError(f"{dataset.name} has no sounds to change; leave --augment out")
        return DatasetInputs(
            dataset.vectors, clip_rows=np.arange(len(dataset.clips)), unusable=(), key=f"vectors-{content}"
        )
    settings = InputSettings(dataset.root, clip, frontend, variant=variant, change=change, device=str(device))
    stored = load_or_build(
        cache / "images",
        key_fields=_key_fields(content, clip, frontend, variant, change),
        build=partial(_build, dataset=dataset, settings=settings, build_chunks=build_chunks, progress=progress),
        on_wait=lambda: progress(0, len(dataset.clips), "waiting for another process that computes these images"),
    )
    bad = tuple(UnusableClip(path, reason) for path, reason in stored.facts["bad"])
    if bad and on_bad_clip == "fail":
        raise clips_error(dataset, bad)
    array = Float16Rows(stored.array) if stored.array.dtype == np.float16 else stored.array
    return DatasetInputs(
        array=array, clip_rows=np.array(stored.facts["kept"], dtype=np.int64), unusable=bad, key=stored.key
    )


def _key_fields(content: str, clip: Clip, frontend: Frontend, variant: int, change: WaveformChange) -> dict[str, Any]:
    return {
        "images": VERSION,
        "content": content,
        "clip": identity(clip),
        **frontend_key_fields(frontend),
        "variant": variant,
        **({"change": change.__name__} if variant else {}),
    }


def frontend_key_fields(frontend: Frontend) -> dict[str, Any]:
    """Return the cache key fields of a frontend: its settings and the versions of its libraries, in JSON types."""
    not_stored = field_names(Frontend, decides="input transform")
    settings = {name: value for name, value in identity(frontend).items() if name not in not_stored}
    if frontend.channels == "replicate":
        settings["stored"] = "one channel"  # an early version stored three equal channels
    versions = {library: version(library) for library in INPUT_KINDS[frontend.kind].libraries}
    return {"frontend": settings} | ({"made_by": versions} if versions else {})


def _build(
    writer: ArrayWriter,
    *,
    dataset: "Dataset",
    settings: InputSettings,
    build_chunks: BuildChunks | None,
    progress: Progress,
) -> tuple[int, dict[str, Any]]:
    """Write the input of every usable clip; return the number of usable clips, and facts to store."""
    paths: list[str] = dataset.clips["path"].tolist()
    description = f"{inputs_noun(get_input_layout(settings.clip, settings.frontend).shape)} of {dataset.name}"
    description += f", augmented version {settings.variant}" if settings.variant else ""
    report = partial(_report, progress, len(paths), description)
    problems = write_inputs(writer, settings, paths, build_chunks=build_chunks, report=report)
    return_freed_memory()  # long recordings fragment the heap
    bad = list_unusable_clips(dataset, problems)
    usable = [row for row in range(len(paths)) if row not in problems]
    if not usable:
        writer.parts.clear()  # no clip is usable: delete the parts written so far
        raise clips_error(dataset, bad)
    writer.move_rows_to_start(usable)
    return len(usable), {"device": str(settings.device), "kept": usable, "bad": bad}


def _report(progress: Progress, total: int, description: str, done: int) -> None:
    progress(done, total, description)


def inputs_noun(shape: tuple[int, ...]) -> str:
    """Return the word for inputs of a shape (without the batch axis) in messages."""
    return {3: "images", 2: "rows"}.get(len(shape), "vectors")


def list_unusable_clips(dataset: "Dataset", problems: Mapping[int, str]) -> tuple[UnusableClip, ...]:
    """Return the unusable clips of a data set, given the reason for each row."""
    return tuple(UnusableClip(dataset.clips["path"].iloc[row], problems[row]) for row in sorted(problems))


def clips_error(dataset: "Dataset", bad: Sequence[UnusableClip]) -> UserError:
    """Return an error that names the unusable clips of a data set and the reasons."""
    return recordings_error(f"clips of {dataset.name} in {dataset.root}", bad, total=len(dataset.clips))


def recordings_error(noun: str, bad: Sequence[UnusableClip], *, total: int) -> UserError:
    """Return an error that names the unusable ones of `total` recordings; `noun` is their plural."""
    named = "; ".join(f"{clip.path}: {clip.reason}" for clip in bad[:MAX_NAMED_CLIPS])
    more = f"; and {len(bad) - MAX_NAMED_CLIPS} more" if len(bad) > MAX_NAMED_CLIPS else ""
    skip = "" if len(bad) == total else ", or leave them out with --on-bad-clip skip"
    return UserError(f"{len(bad)} of the {total} {noun} cannot be used ({named}{more}): repair or remove them{skip}")
