"""The store of inputs: every clip's image or vector, made once per (content, clip, frontend) and memory-mapped.

They are in the unit of their kind (`core.inputs.KINDS`); the map to the backbone's input range is the model's, so that
one store serves all folds and both ways of normalising. Clips that cannot be used are all found and named at once,
before anything is trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from core.audio.waveform_augmentation import Change, augment_waveform
from core.cache.array_writer import ArrayWriter
from core.cache.entries import load_or_make
from core.config.run import Clip, Frontend, identity
from core.errors import UserError, unknown
from core.inputs import KINDS
from core.inputs.base import Rows
from core.inputs.input_of_run import input_layout
from core.inputs.store.build_inputs import Recipe, Spread, write
from core.inputs.store.float16 import Halves
from core.io.memory import return_freed_memory
from core.progress import Progress, no_progress

if TYPE_CHECKING:
    from core.datasets.dataset import Dataset

VERSION = 1  # of the images: raised when the same configuration would give other pixels, so that old ones are not read
# What the network's first step does, of the fields of a Frontend.
AFTER_THE_STORE = ("normalise", "pca", "components", "levels", "colour")
LISTED = 20  # bad clips named in one error
BAD_CLIP_POLICIES = ("fail", "skip")


@dataclass(frozen=True)
class Images:
    """The inputs made of a data set, images or vectors.

    Attributes
    ----------
    array
        In the kind's unit, float32, shape (kept clips, *shape of the kind), memory-mapped and read-only; or made as
        they are looked up (`core.inputs.store.on_the_fly`, and `core.inputs.store.float16` of what is stored in
        float16).
    kept
        Row of `dataset.clips` that each image belongs to, int64, ascending, shape (kept clips,).
    bad
        Path and reason of every clip that was left out.
    key
        Stands for everything that decided the images.
    """

    array: Rows
    kept: np.ndarray
    bad: tuple[tuple[str, str], ...]
    key: str

    @property
    def entry(self) -> str:
        """Where in the cache they are."""
        return f"images/{self.key}"


def images(
    dataset: "Dataset",
    *,
    content: str,
    clip: Clip,
    frontend: Frontend,
    cache: Path,
    device: str | torch.device = "cpu",
    on_bad_clip: str = "fail",
    variant: int = 0,
    change: Change = augment_waveform,
    spread: Spread | None = None,
    progress: Progress = no_progress,
) -> Images:
    """Return the images of all clips of a data set, computing them if they are not in the cache.

    Parameters
    ----------
    dataset
        The clips.
    content
        The data set's fingerprint: with other content the images are others.
    clip, frontend
        How waveforms and images are made, every number filled in; `frontend.normalise` plays no part.
    cache, device
        Folder under which ``images/<key>/`` is kept (of several processes one computes, the others wait), and where
        images are computed.
    on_bad_clip
        ``fail``: clips that cannot be used are an error. ``skip``: they are left out and named in `Images.bad`.
    variant
        0: the clips as they are. Above 0: each changed, as its path and this number decide.
    change
        How, where `variant` is above 0; a function's name is in the cache's key.
    spread
        Makes many shards elsewhere, at once (`core.inputs.store.build_inputs`).
    progress
        Called with (clips done, clips, what is being done).

    Raises
    ------
    UserError
        Bad clips under ``fail``, all of them at once; no clip left; the cache folder cannot be written to.
    """
    if on_bad_clip not in BAD_CLIP_POLICIES:
        raise unknown("policy for bad clips", on_bad_clip, BAD_CLIP_POLICIES)
    if dataset.vectors is not None:
        if variant:
            raise UserError(f"{dataset.name} has no sounds to change; leave --augment out")
        return Images(dataset.vectors, kept=np.arange(len(dataset.clips)), bad=(), key=f"vectors-{content}")
    stored = load_or_make(
        cache / "images",
        made_from=_identity(content, clip, frontend, variant, change),
        make=partial(
            _make,
            dataset=dataset,
            recipe=Recipe(dataset.root, clip, frontend, variant=variant, change=change, device=str(device)),
            spread=spread,
            report=progress,
        ),
        waiting=lambda: progress(0, len(dataset.clips), "waiting for another process that makes these images"),
        progress=progress,
        what=f"the images of {dataset.name}",
    )
    bad = tuple((path, reason) for path, reason in stored.facts["bad"])
    if bad and on_bad_clip == "fail":
        raise refusal(dataset, bad)
    array = Halves(stored.array) if stored.array.dtype == np.float16 else stored.array
    return Images(array=array, kept=np.array(stored.facts["kept"], dtype=np.int64), bad=bad, key=stored.key)


def _identity(content: str, clip: Clip, frontend: Frontend, variant: int, change: Change) -> dict[str, Any]:
    return {
        "images": VERSION,
        "content": content,
        "clip": identity(clip),
        **decided_by(frontend),
        "variant": variant,
        **({"change": change.__name__} if variant else {}),
    }


def decided_by(frontend: Frontend) -> dict[str, Any]:
    """Return what of a frontend, and of the libraries it uses, decides inputs, in JSON types."""
    look = {name: value for name, value in identity(frontend).items() if name not in AFTER_THE_STORE}
    if frontend.channels == "replicate":
        look["stored"] = "one channel"  # it was three equal ones once
    made_by = {library: version(library) for library in KINDS[frontend.kind].libraries}
    return {"frontend": look} | ({"made_by": made_by} if made_by else {})


def _make(
    writer: ArrayWriter,
    *,
    dataset: "Dataset",
    recipe: Recipe,
    spread: Spread | None,
    report: Progress,
) -> dict[str, Any]:
    """Write the image of every good clip; return which clips those are, and what is wrong with the others."""
    paths: list[str] = dataset.clips["path"].tolist()
    what = f"{input_words(input_layout(recipe.clip, recipe.frontend).shape)} of {dataset.name}"
    what += f", augmented version {recipe.variant}" if recipe.variant else ""
    problems = write(writer, recipe, paths, spread=spread, report=lambda done: report(done, len(paths), what))
    return_freed_memory()  # decoding long recordings has left much, in fragments
    bad = [(path, problem) for path, problem in zip(paths, problems, strict=True) if problem]
    if len(bad) == len(paths):
        raise refusal(dataset, bad)
    kept = [row for row, problem in enumerate(problems) if not problem]
    return {"device": str(recipe.device), "kept": kept, "bad": bad}


def input_words(shape: tuple[int, ...]) -> str:
    """Name inputs of a shape (without the batch) in a line for users."""
    return {3: "images", 2: "rows"}.get(len(shape), "vectors")


def refusal(dataset: "Dataset", bad: Sequence[tuple[str, str]]) -> UserError:
    """Name the bad clips of a data set, and what is wrong with each."""
    return unusable(f"clips of {dataset.name} in {dataset.root}", bad, of=len(dataset.clips))


def unusable(what: str, bad: Sequence[tuple[str, str]], *, of: int) -> UserError:
    """Name recordings that cannot be used by path and reason, `of` as many of what they are."""
    named = "; ".join(f"{path}: {reason}" for path, reason in bad[:LISTED])
    more = f"; and {len(bad) - LISTED} more" if len(bad) > LISTED else ""
    every = len(bad) == of
    remedy = "none is left" if every else "mend or remove them, or leave them out with --on-bad-clip skip"
    return UserError(f"{len(bad)} of the {of} {what} cannot be used ({named}{more}): {remedy}")
