"""From clips to inputs, in shards: by threads of this process, by processes beside it, or wherever a caller sends them.

A CPU's image hangs on its clip alone, and not on how many threads or processes there are, so all ways give the same
bits. A shard that is whole outlives the process that made it.
"""

import hashlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.audio.reading import MAX_WHOLE, BadClip, LongRecording, fit_length, read_start, read_waveform, read_whole
from core.audio.waveform_augmentation import Change, enough
from core.cache.array_writer import ARRAY, ArrayWriter, Whole
from core.cache.entries import key_of, load_or_make
from core.config.run import Clip, Frontend
from core.inputs.base import Kind
from core.inputs.input_of_run import input_kind
from core.inputs.store.compute import make_inputs
from core.inputs.store.processes import ahead, in_processes
from core.io.native_stderr import silence_native_stderr
from core.io.thread_pool import CancellablePool

BATCH = 32  # clips decoded ahead and turned into images together
SHARD = 256  # clips of a shard, a multiple of BATCH; so few that a set of thousands keeps all of many cores busy
WAITING = 1 << 20  # samples; a recording that is needed whole and has more is read when its turn comes, one at a time
DECODERS = min(8, os.cpu_count() or 1)  # threads
SOON = 1 << 20  # bytes of each file that the system is asked for ahead
MANY = 4096  # clips from which processes of their own are worth their start
EMPTY = hashlib.sha256().hexdigest()  # of no rows


@dataclass(frozen=True)
class Recipe:
    """How clips become inputs; small, so that it can be sent to where they are made.

    Attributes
    ----------
    root
        Folder that the clips' paths are in.
    clip, frontend
        How waveforms and images are made, every number filled in.
    variant, change
        Above 0: each clip is changed by `change`, as its path and this number decide.
    device
        Where images are computed.
    """

    root: Path
    clip: Clip
    frontend: Frontend
    variant: int
    change: Change
    device: str


# The inputs of the good ones of some clips, or of a whole shard in a file; and of each clip what is wrong, or nothing.
Made = tuple[np.ndarray | Whole, list[str]]
Batch = tuple[np.ndarray, list[str]]
# Makes the clips of each shard, in order; a folder is for shards that wait for their turn.
Spread = Callable[[Recipe, Sequence[Sequence[str]], Path], Iterator[Made]]


def write(
    writer: ArrayWriter,
    recipe: Recipe,
    paths: Sequence[str],
    *,
    spread: Spread | None,
    report: Callable[[int], None],
) -> list[str]:
    """Write the inputs of all good clips, behind the shards that are there already.

    Parameters
    ----------
    writer
        Takes the inputs.
    recipe, paths
        Of the clips.
    spread
        Makes shards elsewhere, where there are several left to make; ``None`` makes all in this process.
    report
        Told how many clips are done.

    Returns
    -------
    list
        What is wrong with each clip, empty where nothing is.
    """
    problems = list(itertools.chain.from_iterable(shard.facts["problems"] for shard in writer.shards))
    ended = len(problems)
    report(ended)
    left = paths[ended:]
    shards = [left[i : i + SHARD] for i in range(0, len(left), SHARD)]
    parts = writer.folder / "parts"
    many = len(left) >= MANY or parts.exists()  # where there are some, a command that was killed has left them
    if many:
        appended = _in_turn(writer, (spread or make_here)(recipe, shards, parts))
    else:
        appended = _while_making(writer, batches(recipe, left))
    for found in appended:
        problems += found
        if len(problems) - ended == SHARD:
            writer.commit({"problems": problems[ended:]})
            ended = len(problems)
        report(len(problems))
    shutil.rmtree(parts, ignore_errors=True)
    return problems


def _in_turn(writer: ArrayWriter, pieces: Iterable[Made]) -> Iterator[list[str]]:
    """Append the inputs of each piece before the next is asked for, and give what is wrong with its clips."""
    for good, found in pieces:
        if isinstance(good, Whole):
            writer.take(good)
        else:
            writer.append(good)
        yield found


def _while_making(writer: ArrayWriter, pieces: Iterable[Batch]) -> Iterator[list[str]]:
    """Append, which hashes and writes, in a thread beside those that make the next piece; else as in turn."""
    waiting: list[tuple[Future[None], list[str]]] = []

    def appended() -> Iterator[list[str]]:
        while waiting:
            done, found = waiting.pop()
            done.result()
            yield found

    with CancellablePool(1) as pool:
        try:
            for good, found in pieces:
                yield from appended()
                waiting.append((pool.submit(writer.append, good), found))
        finally:  # what was made before an interrupt is kept
            yield from appended()


def batches(
    recipe: Recipe, paths: Sequence[str], *, decoders: int = DECODERS, kind: Kind | None = None
) -> Iterator[Batch]:
    """Make the inputs of clips in this process, some at a time and in order; read ahead by threads, or 0 by none.

    Where the `kind` of the recipe is there already it need not be made.
    """
    kind = (kind or input_kind(recipe.clip, recipe.frontend)).to(recipe.device)
    read = partial(read_clip, root=recipe.root, clip=recipe.clip, variant=recipe.variant, change=recipe.change)
    with silence_native_stderr(), CancellablePool(max(decoders, 1)) as pool:
        sounds = ahead(pool, read, paths, 2 * BATCH) if decoders else map(read, _wanted_soon(recipe.root, paths))
        for batch in _batches(sounds):
            yield _images_of(batch, kind=kind, device=recipe.device, dtype=np.dtype(recipe.frontend.stored_as))


def _wanted_soon(root: Path, paths: Sequence[str]) -> Iterator[str]:
    """Give the paths, each batch once the system was asked for the files of the next one, so that none is waited for.

    On one core a thread that decodes beside the one that computes takes its turns from it, an eighth of its time.
    """
    for i, path in enumerate(paths):
        for later in paths[i + BATCH : i + 2 * BATCH] if i % BATCH == 0 and hasattr(os, "posix_fadvise") else ():
            with suppress(OSError):  # what is wrong with it is found when it is read
                file = os.open(f"{root}/{later}", os.O_RDONLY | os.O_NONBLOCK)  # a pipe is not waited for
                try:
                    os.posix_fadvise(file, 0, SOON, os.POSIX_FADV_WILLNEED)
                finally:
                    os.close(file)
        yield path


def make_here(recipe: Recipe, shards: Sequence[Sequence[str]], folder: Path) -> Iterator[Made]:
    """Make the clips of shards on this machine, in order: on all of a CPU's cores, or by its one GPU."""
    processes = torch.get_num_threads() if recipe.device == "cpu" else 1
    if processes > 1:
        return _beside(recipe, shards, processes=processes, folder=folder)
    return batches(recipe, list(itertools.chain.from_iterable(shards)))


def _beside(recipe: Recipe, shards: Sequence[Sequence[str]], *, processes: int, folder: Path) -> Iterator[Made]:
    """Make shards in processes beside this one, each a whole entry in `folder` until it is taken."""
    kind = input_kind(recipe.clip, recipe.frontend)
    imports = [__name__, type(kind).__module__, "scipy.fft", "librosa.filters"]  # the last two are imported late
    imports += ["scipy.signal"] if recipe.variant else []
    work = partial(make_part, recipe=recipe, folder=folder, kind=kind)
    for entry, part, problems in in_processes(work, shards, processes=processes, imports=imports):
        yield part, problems
        shutil.rmtree(entry)


def make_part(
    paths: Sequence[str], *, recipe: Recipe, folder: Path, kind: Kind | None = None
) -> tuple[Path, Whole, list[str]]:
    """Make a shard, or find it made; return its entry, its rows, and what is wrong with each clip.

    Where the `kind` of the recipe is there already it need not be made.
    """

    def make(writer: ArrayWriter) -> dict[str, Any]:
        problems: list[str] = []
        for good, found in batches(recipe, paths, decoders=0 if recipe.device == "cpu" else 1, kind=kind):
            writer.append(good)
            problems += found
        return {"problems": problems}

    stored = load_or_make(folder, made_from=_part(paths, folder), make=make)
    entry = folder / stored.key
    (digest,) = stored.digests or (EMPTY,)
    return entry, Whole(entry / ARRAY, digest), stored.facts["problems"]


def part_key(paths: Sequence[str], folder: Path) -> str:
    """Name the entry of `folder` that a shard is."""
    return key_of(_part(paths, folder))


def _part(paths: Sequence[str], folder: Path) -> dict[str, Any]:
    return {"of": folder.parent.name, "first": paths[0], "clips": len(paths)}  # wherever that folder is


Sound = np.ndarray | str  # a waveform, or what is wrong with it
Turn = Callable[[], Sound]  # reads one when its turn comes


def read_clip(path: str, *, root: Path, clip: Clip, variant: int, change: Change) -> Sound | Turn:
    """Return a clip's waveform of the length that `clip` says, what is wrong with it, or what reads it later."""
    read = partial(_read_clip, root / path, clip=clip, change=change, key=f"{path}:{variant}" if variant else "")
    try:
        return read(at_most=WAITING)
    except LongRecording:
        return read


def _read_clip(path: Path, *, clip: Clip, change: Change, key: str, at_most: int = MAX_WHOLE) -> Sound:
    """Return a clip's waveform, or what is wrong with it; one that is needed whole may be a `LongRecording`."""
    n_samples = round(clip.duration * clip.sr)
    try:
        if not key and clip.fit != "stretch":
            return read_waveform(path, sr=clip.sr, n_samples=n_samples, fit=clip.fit)
        if clip.fit in ("pad", "loop"):  # the start of a long one is taken
            y = read_start(path, sr=clip.sr, n_samples=enough(n_samples))
        else:
            y = read_whole(path, sr=clip.sr, at_most=at_most)
    except BadClip as problem:
        return problem.reason
    if key:
        y = change(y, sr=clip.sr, key=key)
    fitted = fit_length(y, n_samples=n_samples, fit=clip.fit)
    return fitted if fitted is y else fitted.copy()  # a view would keep the whole recording


def _images_of(batch: Sequence[Sound | Turn], *, kind: Kind, device: str, dtype: np.dtype[Any]) -> Batch:
    """Return the images of the good waveforms of a batch, and for every one of the batch its problem, empty if none.

    A waveform that is yet to be read is read, used and forgotten.
    """
    problems = [y if isinstance(y, str) else "" for y in batch]
    made: dict[int, np.ndarray] = {}

    def make(sounds: Mapping[int, np.ndarray]) -> None:
        waveforms = [torch.from_numpy(y).to(device) for y in sounds.values()]
        with np.errstate(over="ignore"):  # what is too large for float16 is not finite
            images = make_inputs(kind, waveforms).cpu().numpy().astype(dtype, copy=False)
        finite = np.isfinite(images).reshape(len(images), -1).all(axis=1)
        for i, image, good in zip(sounds, images, finite, strict=True):
            if good:
                made[i] = image
            else:
                problems[i] = too_loud(kind)

    if there := {i: y for i, y in enumerate(batch) if isinstance(y, np.ndarray)}:
        make(there)
    for i, turn in enumerate(batch):
        if callable(turn):
            y = turn()
            if isinstance(y, str):
                problems[i] = y
            else:
                make({i: y})
    good = [made[i] for i in sorted(made)]
    return np.stack(good) if good else np.empty((0, *kind.shape), dtype), problems


def too_loud(kind: Kind) -> str:
    """Say what is wrong with a clip whose input is not finite."""
    return f"too loud: its {'spectrogram' if len(kind.shape) == 3 else 'vector'} is not finite"


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
