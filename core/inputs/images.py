"""The store of inputs: every clip's image or vector, made once per (content, clip, frontend) and memory-mapped.

They are in the unit of their kind (`core.inputs.KINDS`); the map to the backbone's input range is the model's, so that
one store serves all folds and both ways of normalising. Clips that cannot be used are all found and named at once,
before anything is trained.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from core.cache import ArrayWriter, load_or_make
from core.config import Clip, Frontend, identity
from core.door import quiet
from core.errors import UserError, unknown
from core.inputs import KINDS
from core.inputs.augmentation import Change, augment_waveform
from core.inputs.clip import BadClip, decode, fit_length, read_waveform, resample
from core.inputs.kind import Kind
from core.inputs.made import input_kind
from core.progress import Progress, no_progress
from core.workers import Workers

if TYPE_CHECKING:
    from core.datasets.table import Dataset

VERSION = 1  # of the images: raised when the same configuration would give other pixels, so that old ones are not read
# What the network's first step does, of the fields of a Frontend.
AFTER_THE_STORE = ("normalise", "pca", "components", "levels", "colour")
BATCH = 32  # clips decoded ahead and turned into images together
LISTED = 20  # bad clips named in one error
BAD_CLIP_POLICIES = ("fail", "skip")


@dataclass(frozen=True)
class Images:
    """The inputs made of a data set, images or vectors.

    Attributes
    ----------
    array
        In the kind's unit, float32, shape (kept clips, *shape of the kind), memory-mapped and read-only.
    kept
        Row of `dataset.clips` that each image belongs to, int64, ascending, shape (kept clips,).
    bad
        Path and reason of every clip that was left out.
    key
        Stands for everything that decided the images.
    """

    array: np.ndarray
    kept: np.ndarray
    bad: tuple[tuple[str, str], ...]
    key: str


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
            clip=clip,
            frontend=frontend,
            device=device,
            variant=variant,
            change=change,
            report=progress,
        ),
        waiting=lambda: progress(0, len(dataset.clips), "waiting for another process that makes these images"),
    )
    bad = tuple((path, reason) for path, reason in stored.facts["bad"])
    if bad and on_bad_clip == "fail":
        raise _refusal(dataset, bad)
    return Images(array=stored.array, kept=np.array(stored.facts["kept"], dtype=np.int64), bad=bad, key=stored.key)


def _identity(content: str, clip: Clip, frontend: Frontend, variant: int, change: Change) -> dict[str, Any]:
    look = {name: value for name, value in identity(frontend).items() if name not in AFTER_THE_STORE}
    if frontend.channels == "replicate":
        look["stored"] = "one channel"  # it was three equal ones once
    made_by = {library: version(library) for library in KINDS[frontend.kind].libraries}
    return {
        "images": VERSION,
        "content": content,
        "clip": identity(clip),
        "frontend": look,
        "variant": variant,
        **({"change": change.__name__} if variant else {}),
        **({"made_by": made_by} if made_by else {}),
    }


def _make(
    writer: ArrayWriter,
    *,
    dataset: "Dataset",
    clip: Clip,
    frontend: Frontend,
    device: str | torch.device,
    variant: int,
    change: Change,
    report: Progress,
) -> dict[str, Any]:
    """Write the image of every good clip; return which clips those are, and what is wrong with the others."""
    kind = input_kind(clip, frontend).to(device)
    what = f"{input_words(kind.shape)} of {dataset.name}" + (f", augmented version {variant}" if variant else "")
    waveform = partial(_waveform, root=dataset.root, clip=clip, variant=variant, change=change)
    at_once = torch.get_num_threads()
    paths: list[str] = dataset.clips["path"].tolist()
    kept: list[int] = []
    bad: list[tuple[str, str]] = []
    report(0, len(paths), what)
    decoders = min(8, os.cpu_count() or 1)
    with quiet(), _one_thread_each(), Workers(decoders) as pool, Workers(at_once) as makers:
        done = 0
        for batch in _batches(_ahead(pool, waveform, paths)):
            rows = list(range(done, done + len(batch)))
            good, problems = _images_of(batch, kind=kind, device=device, makers=makers)
            writer.append(good)
            bad += [(paths[row], problem) for row, problem in zip(rows, problems, strict=True) if problem]
            kept += [row for row, problem in zip(rows, problems, strict=True) if not problem]
            done += len(batch)
            report(done, len(paths), what)
    if not kept:
        raise _refusal(dataset, bad)
    return {"device": str(device), "kept": kept, "bad": bad}


def _waveform(path: str, *, root: Path, clip: Clip, variant: int, change: Change) -> np.ndarray | str:
    """Return a clip's waveform, or what is wrong with it."""
    n_samples = round(clip.duration * clip.sr)
    try:
        if not variant:
            return read_waveform(root / path, sr=clip.sr, n_samples=n_samples, fit=clip.fit)
        y, own_sr = decode(root / path)
    except BadClip as problem:
        return problem.reason
    y = change(resample(y, sr=own_sr, new_sr=clip.sr), sr=clip.sr, key=f"{path}:{variant}")
    return fit_length(y, n_samples=n_samples, fit=clip.fit).copy()  # a view would keep the whole recording


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let every CPU thread of torch's work alone: how a product is split among threads decides its last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _images_of(
    batch: Sequence[np.ndarray | str], *, kind: Kind, device: str | torch.device, makers: ThreadPoolExecutor
) -> tuple[np.ndarray, list[str]]:
    """Return the images of the good waveforms of a batch, and for every one of the batch its problem, empty if none.

    A CPU takes them one by one, so that an image hangs neither on the clips beside it nor on the number of threads;
    a GPU takes those of one length together.
    """
    problems = [y if isinstance(y, str) else "" for y in batch]
    lengths: dict[int, list[int]] = {}
    for i, y in enumerate(batch):
        if not isinstance(y, str):
            lengths.setdefault(len(y), []).append(i)
    groups = list(lengths.values())
    if torch.device(device).type == "cpu":
        groups = [[i] for group in groups for i in group]

    def make(group: list[int]) -> np.ndarray:
        with torch.inference_mode():
            waveforms = torch.from_numpy(np.stack([batch[i] for i in group]))
            made: np.ndarray = kind(waveforms.to(device)).cpu().numpy()
            return made

    made: dict[int, np.ndarray] = {}
    for group, found in zip(groups, makers.map(make, groups), strict=True):
        made |= zip(group, found, strict=True)
    for i, image in made.items():
        if not np.isfinite(image).all():
            problems[i] = f"too loud: its {'spectrogram' if image.ndim == 3 else 'vector'} is not finite"
    good = [made[i] for i in sorted(made) if not problems[i]]
    return np.stack(good) if good else np.empty((0, *kind.shape), dtype=np.float32), problems


def input_words(shape: tuple[int, ...]) -> str:
    """Name inputs of a shape (without the batch) in a line for users."""
    return {3: "images", 2: "rows"}.get(len(shape), "vectors")


def _ahead(pool: ThreadPoolExecutor, work: Callable[[str], Any], items: Iterable[str]) -> Iterator[Any]:
    """Map `work` over `items` in order, with at most two batches begun and not yet taken: memory stays bounded."""
    begun: deque[Future[Any]] = deque()
    for item in items:
        begun.append(pool.submit(work, item))
        if len(begun) == 2 * BATCH:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _refusal(dataset: "Dataset", bad: Sequence[tuple[str, str]]) -> UserError:
    named = "; ".join(f"{path}: {reason}" for path, reason in bad[:LISTED])
    more = f"; and {len(bad) - LISTED} more" if len(bad) > LISTED else ""
    every = len(bad) == len(dataset.clips)
    remedy = "none is left" if every else "mend or remove them, or leave them out with --on-bad-clip skip"
    return UserError(
        f"{len(bad)} of the {len(dataset.clips)} clips of {dataset.name} in {dataset.root} cannot be used "
        f"({named}{more}): {remedy}"
    )
