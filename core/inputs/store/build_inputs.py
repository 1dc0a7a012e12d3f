"""Computation of the inputs of clips in batches, in threads of this process, in other processes, or in a cluster.

On a CPU an input depends only on its clip, so all three give the same bits. Each batch is written to the file of the
array as soon as it is built, so a killed command loses little work.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from core.audio.reading import (
    MAX_WHOLE,
    MISSING,
    UNREADABLE,
    BadClip,
    LongRecording,
    fit_length,
    read_start,
    read_waveform,
    read_whole,
)
from core.audio.waveform_augmentation import WaveformChange, count_needed_samples
from core.cache.array_file import ArrayWriter, Part, explain_cache_write_errors, write_rows
from core.config.run import Clip, Frontend
from core.datasets.fingerprint import check_unchanged
from core.errors import UserError
from core.inputs.base import InputKind
from core.inputs.input_kind import build_input_kind
from core.inputs.store.compute import compute_inputs
from core.inputs.store.processes import map_in_processes
from core.system.native_stderr import silence_native_stderr
from core.system.thread_pool import CancellablePool, map_ahead

BATCH_SIZE = 32  # clips that are decoded ahead and written together
MAX_WAITING_SAMPLES = 1 << 20  # samples; longer recordings are not decoded ahead
N_DECODERS = min(8, os.cpu_count() or 1)  # number of threads that decode
READ_AHEAD_BYTES = 1 << 20  # bytes of each file that the system is asked to read ahead
MIN_CLIPS_FOR_PROCESSES = 4096  # fewer clips are read by threads of this process
T = TypeVar("T")


@dataclass(frozen=True)
class InputSettings:
    """Settings of the computation from clips to inputs. Small, because they are sent to other processes.

    Attributes
    ----------
    root
        Folder that the paths of clips are relative to.
    clip, frontend
        Settings of waveforms and inputs, without unset values.
    variant, change
        If `variant` is above 0, each waveform is augmented by `change`, seeded with the path and this number.
    device
        Device that computes the inputs.
    """

    root: Path
    clip: Clip
    frontend: Frontend
    variant: int
    change: WaveformChange
    device: str


@dataclass(frozen=True)
class Chunk:
    """Clips of one batch: row of the first clip, and all paths."""

    first: int
    paths: tuple[str, ...]


@dataclass(frozen=True)
class InputBatch:
    """Inputs of the clips of a chunk.

    Attributes
    ----------
    inputs
        Inputs of the usable clips, shape (usable clips, ...).
    problems
        For each clip the reason why it cannot be used, or None.
    """

    inputs: np.ndarray
    problems: list[str | None]


# Function that builds chunks in any order, writes their rows to the file of an array, and yields a `Part` for each.
BuildChunks = Callable[[InputSettings, Sequence[Chunk], Path], Iterator[Part]]


def write_inputs(
    writer: ArrayWriter,
    settings: InputSettings,
    paths: Sequence[str],
    *,
    build_chunks: BuildChunks | None,
    report: Callable[[int], None],
) -> dict[int, str]:
    """Compute and write the inputs of all clips that are not finished yet, each to its row.

    Parameters
    ----------
    writer
        Writer of the array.
    settings, paths
        Settings and paths of the clips.
    build_chunks
        Builds many clips in a cluster; None: processes of this machine build them.
    report
        Called with the number of finished clips.

    Returns
    -------
    Row and reason of each clip that cannot be used; these rows are not written.
    """
    kind = build_input_kind(settings.clip, settings.frontend)
    writer.create((len(paths), *kind.shape), np.dtype(settings.frontend.stored_as))
    finished = {(part.first, part.n_rows) for part in writer.parts}
    chunks = [Chunk(BATCH_SIZE * k, tuple(chunk_paths)) for k, chunk_paths in enumerate(batched(paths, BATCH_SIZE))]
    remaining = [chunk for chunk in chunks if (chunk.first, len(chunk.paths)) not in finished]
    done = len(paths) - sum(len(chunk.paths) for chunk in remaining)
    report(done)
    build = build_here if len(paths) - done < MIN_CLIPS_FOR_PROCESSES else build_chunks or build_in_processes
    for part in build(settings, remaining, writer.path):
        check_readable(settings.root, paths[part.first : part.first + part.n_rows], part.facts["problems"].values())
        writer.record_part(part)
        done += part.n_rows
        report(done)
    return {int(row): reason for part in writer.parts for row, reason in part.facts["problems"].items()}


def check_readable(root: Path, paths: Sequence[str], reasons: Iterable[str]) -> None:
    """Check, before inputs are stored, that the files have not changed and that no disk or network drive failed.

    A file that is missing for a moment would otherwise be stored as a clip that cannot be used.

    Parameters
    ----------
    root, paths
        Folder and paths of the clips that were read.
    reasons
        Reason for each clip that cannot be used.

    Raises
    ------
    UserError
        If a file has changed or could not be read.
    """
    check_unchanged(root, paths)
    if failed := [reason for reason in reasons if reason.startswith((MISSING, UNREADABLE))]:
        raise UserError(f"a file in {root} could not be read ({failed[0]}): check it, and run the command again")


def build_here(settings: InputSettings, chunks: Sequence[Chunk], path: Path) -> Iterator[Part]:
    """Build chunks in this process and write their rows to `path`."""
    built = build_batches(settings, list(chain.from_iterable(chunk.paths for chunk in chunks)))
    for chunk, batch in zip(chunks, built, strict=True):
        yield write_batch(path, chunk, batch)


def build_in_processes(settings: InputSettings, chunks: Sequence[Chunk], path: Path) -> Iterator[Part]:
    """Build chunks on all CPU cores, or on the GPU, and write their rows to `path`."""
    processes = torch.get_num_threads() if settings.device == "cpu" else 1
    if processes == 1:
        return build_here(settings, chunks, path)
    kind = build_input_kind(settings.clip, settings.frontend)
    imports = [__name__, type(kind).__module__, "scipy.fft", "librosa.filters"]  # the last two are lazy imports
    imports += ["scipy.signal"] if settings.variant else []
    return map_in_processes(partial(build_chunk, settings, path, kind), chunks, processes=processes, imports=imports)


def build_chunk(settings: InputSettings, path: Path, kind: InputKind, chunk: Chunk) -> Part:
    """Build a chunk without threads, and write its rows to `path`."""
    (batch,) = build_batches(settings, chunk.paths, decoders=0, kind=kind)
    return write_batch(path, chunk, batch)


def write_batch(path: Path, chunk: Chunk, batch: InputBatch) -> Part:
    """Write the inputs of a chunk to its rows of the array at `path`; return the part to record."""
    problems = {chunk.first + i: problem for i, problem in enumerate(batch.problems) if problem is not None}
    rows = [chunk.first + i for i, problem in enumerate(batch.problems) if problem is None]
    with explain_cache_write_errors(path.parents[1]):
        if not problems:
            write_rows(path, chunk.first, batch.inputs)
        for row, one_input in zip(rows if problems else (), batch.inputs, strict=False):
            write_rows(path, row, one_input[None])
    return Part(chunk.first, len(chunk.paths), {"problems": {str(row): reason for row, reason in problems.items()}})


def build_batches(
    settings: InputSettings, paths: Sequence[str], *, decoders: int = N_DECODERS, kind: InputKind | None = None
) -> Iterator[InputBatch]:
    """Build the inputs of clips in this process, in order, `BATCH_SIZE` at a time.

    Parameters
    ----------
    settings, paths
        Settings and paths of the clips.
    decoders
        Number of threads that decode ahead. With 0, clips are decoded in this thread while the system reads the
        next files.
    kind
        Module that computes the inputs; None: it is built from the settings.
    """
    kind = (kind or build_input_kind(settings.clip, settings.frontend)).to(settings.device)
    read = partial(read_clip, root=settings.root, clip=settings.clip, variant=settings.variant, change=settings.change)
    if not decoders:
        _read_files_ahead(settings.root, paths)
    with CancellablePool(max(decoders, 1)) as pool:
        waveforms = map_ahead(pool, read, paths, 2 * BATCH_SIZE) if decoders else map(read, paths)
        for batch in batched(waveforms, BATCH_SIZE):
            yield _build_batch(batch, kind=kind, settings=settings)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Split items into lists of `size`; the last may be shorter."""
    iterator = iter(items)
    return iter(lambda: list(islice(iterator, size)), [])


def _read_files_ahead(root: Path, paths: Sequence[str]) -> None:
    """Ask the system to read files ahead."""
    for path in paths if hasattr(os, "posix_fadvise") else ():
        with suppress(OSError):  # the error is reported when the file is read
            file = os.open(f"{root}/{path}", os.O_RDONLY | os.O_NONBLOCK)  # do not wait for a pipe
            try:
                os.posix_fadvise(file, 0, READ_AHEAD_BYTES, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(file)


@dataclass(frozen=True)
class DeferredWaveform:
    """A recording that is decoded only when it is needed, because it is too long to be decoded ahead."""

    read: Callable[[], np.ndarray | BadClip]


def read_clip(
    path: str, *, root: Path, clip: Clip, variant: int, change: WaveformChange
) -> np.ndarray | BadClip | DeferredWaveform:
    """Return the waveform of a clip with the length given by `clip`, a `BadClip`, or a `DeferredWaveform`."""
    read = partial(_read_clip, root / path, clip=clip, change=change, key=f"{path}:{variant}" if variant else "")
    try:
        return read(at_most=MAX_WAITING_SAMPLES)
    except LongRecording:
        return DeferredWaveform(read)


def _read_clip(
    path: Path, *, clip: Clip, change: WaveformChange, key: str, at_most: int = MAX_WHOLE
) -> np.ndarray | BadClip:
    """Return the waveform of a clip; raise `LongRecording` if a whole recording has more than `at_most` samples."""
    n_samples = round(clip.duration * clip.sr)
    try:
        with silence_native_stderr():  # decoders print warnings
            if not key and clip.fit != "stretch":
                return read_waveform(path, sr=clip.sr, n_samples=n_samples, fit=clip.fit)
            if clip.fit in ("pad", "loop"):  # only the start of a long recording is used
                y = read_start(path, sr=clip.sr, n_samples=count_needed_samples(n_samples))
            else:
                y = read_whole(path, sr=clip.sr, at_most=at_most)
    except BadClip as bad_clip:
        return bad_clip
    if key:
        y = change(y, sr=clip.sr, key=key)
    fitted = fit_length(y, n_samples=n_samples, fit=clip.fit)
    return fitted if fitted is y else fitted.copy()  # a view would keep the whole recording in memory


def _build_batch(
    waveforms: Iterable[np.ndarray | BadClip | DeferredWaveform], *, kind: InputKind, settings: InputSettings
) -> InputBatch:
    """Build the inputs of one batch. Deferred waveforms are decoded, used and freed one at a time."""
    problems: list[str | None] = []
    decoded: dict[int, np.ndarray] = {}
    deferred: dict[int, DeferredWaveform] = {}
    for i, waveform in enumerate(waveforms):
        problems.append(waveform.reason if isinstance(waveform, BadClip) else None)
        if isinstance(waveform, np.ndarray):
            decoded[i] = waveform
        elif isinstance(waveform, DeferredWaveform):
            deferred[i] = waveform
    inputs = _compute_by_clip(decoded, kind=kind, settings=settings)
    decoded.clear()
    for i, recording in deferred.items():
        y = recording.read()
        if isinstance(y, BadClip):
            problems[i] = y.reason
        else:
            inputs |= _compute_by_clip({i: y}, kind=kind, settings=settings)
    finite = []
    for i, one_input in sorted(inputs.items()):
        if np.isfinite(one_input).all():
            finite.append(one_input)
        else:
            problems[i] = too_loud_reason(kind)
    empty = np.empty((0, *kind.shape), np.dtype(settings.frontend.stored_as))
    return InputBatch(np.stack(finite) if finite else empty, problems)


def _compute_by_clip(
    waveforms: Mapping[int, np.ndarray], *, kind: InputKind, settings: InputSettings
) -> dict[int, np.ndarray]:
    """Return the input of each waveform in the storage dtype; values too large for float16 become infinite."""
    if not waveforms:
        return {}
    sounds = [torch.from_numpy(y).to(settings.device) for y in waveforms.values()]
    with np.errstate(over="ignore"):
        inputs = compute_inputs(kind, sounds).cpu().numpy().astype(settings.frontend.stored_as, copy=False)
    return dict(zip(waveforms, inputs, strict=True))


def too_loud_reason(kind: InputKind) -> str:
    """Return the reason for rejecting a clip whose input is not finite."""
    return f"too loud: its {'spectrogram' if len(kind.shape) == 3 else 'vector'} is not finite"
