"""Stored waveforms, from which inputs are computed during training (`core.inputs.store.on_the_fly`).

Decoded once per (content, sampling rate, and duration if clips are cut) and memory-mapped. Either every clip is stored
at its final length, or every recording from start to end, so that a segment is read by seeking. A long recording is
written in pieces, so memory does not depend on its length.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.audio.reading import BadClip, fit_length, stream_waveform
from core.audio.waveform_augmentation import WaveformChange, augment_waveform
from core.cache.array_file import ArrayReader, ArrayWriter, Part
from core.cache.entries import load_or_build
from core.config.run import Clip, identity
from core.inputs.store.build_inputs import (
    BATCH_SIZE,
    MAX_WAITING_SAMPLES,
    N_DECODERS,
    DeferredWaveform,
    batched,
    read_clip,
)
from core.inputs.store.stored_inputs import UnusableClip, clips_error, list_unusable_clips
from core.io.memory import return_freed_memory
from core.io.native_stderr import silence_native_stderr
from core.io.thread_pool import CancellablePool, map_ahead
from core.progress import Progress, no_progress

if TYPE_CHECKING:
    from core.datasets.dataset import Dataset

VERSION = 1  # raised when the same configuration would give other samples
MAX_SAMPLES_TOGETHER = 1 << 24  # samples; 64 MB
LOUD_PEAK = (
    1e12  # times full scale; the spectrogram of a louder clip may not be finite, which is checked before training
)


@dataclass(frozen=True, eq=False)
class Waveforms:
    """Waveforms of the clips of a data set, or of its whole recordings.

    Attributes
    ----------
    samples
        Samples of all clips, concatenated; float32, full scale 1, memory-mapped and read-only.
    first, lengths
        First sample and number of samples of each clip, int64, shape (kept clips,).
    clip_rows
        Row of `dataset.clips` of each clip, int64, ascending, shape (kept clips,).
    unusable
        Clips that were left out.
    loud
        Clips (0 to kept clips - 1) that may be too loud for a spectrogram.
    clip
        Settings that decide the length of a waveform.
    key
        Name of the entry in the cache.
    """

    samples: np.ndarray
    first: np.ndarray
    lengths: np.ndarray
    clip_rows: np.ndarray
    unusable: tuple[UnusableClip, ...]
    loud: tuple[int, ...]
    clip: Clip
    key: str

    def __len__(self) -> int:
        return len(self.clip_rows)

    @property
    def n_samples(self) -> int:
        """Samples of a waveform; with ``--length-mode stretch`` each keeps its own number."""
        return round(self.clip.duration * self.clip.sr)

    @property
    def table(self) -> np.ndarray | None:
        """All waveforms as one array (clips, samples), if they are stored with one length; else None."""
        if (self.lengths != self.n_samples).any() or self.samples.size != self.lengths.sum():
            return None
        return self.samples.reshape(len(self), -1)

    @property
    def longer(self) -> int:
        """Number of recordings that are longer than a segment."""
        return int((self.lengths > self.n_samples).sum())

    def too_long(self, rows: np.ndarray) -> bool:
        """Tell whether these waveforms are too long to be in memory together, as whole recordings may be."""
        return self.clip.fit == "stretch" and int(self.lengths[rows].sum()) > MAX_SAMPLES_TOGETHER

    def read(self, row: int, chance: float | None = None) -> np.ndarray:
        """Read one waveform.

        Parameters
        ----------
        row
            Row among the kept clips.
        chance
            Position of the segment in a longer recording, from 0 (its start) to below 1 (its end). None: the segment
            that `fit_length` chooses.

        Returns
        -------
        Waveform, float32, shape (samples,).
        """
        first, length, start = int(self.first[row]), int(self.lengths[row]), 0
        spare = length - self.n_samples
        if spare > 0 and (chance is not None or self.clip.fit != "stretch"):
            if chance is not None:
                start = int(chance * (spare + 1))
            elif self.clip.fit == "crop":
                start = spare // 2
            length = self.n_samples
        y = self._reader.read_slice(first + start, first + start + length)
        return fit_length(y, n_samples=self.n_samples, fit=self.clip.fit)

    @cached_property
    def _reader(self) -> ArrayReader:
        return ArrayReader(self.samples)


def load_waveforms(
    dataset: "Dataset",
    *,
    content: str,
    clip: Clip,
    cache: Path,
    whole: bool = False,
    on_bad_clip: str = "fail",
    variant: int = 0,
    change: WaveformChange = augment_waveform,
    progress: Progress = no_progress,
) -> Waveforms:
    """Return the waveforms of all clips of a data set; decode them if they are not in the cache.

    Parameters
    ----------
    dataset, content, clip, on_bad_clip, variant, change, progress
        As for images (`core.inputs.store.stored_inputs.load_inputs`).
    cache
        Folder of ``waveforms/<key>/``.
    whole
        Store recordings from start to end, at the sampling rate of `clip`, so that segments can be read. Always true
        of ``--length-mode stretch``.

    Raises
    ------
    UserError
        Under ``fail``, naming all clips that cannot be used; no clip is left; the cache cannot be written to.
    """
    whole = (whole or clip.fit == "stretch") and not variant
    of = {"sr": clip.sr} if whole else identity(clip)
    key_fields = {"waveforms": VERSION, "content": content, "clip": of, "variant": variant}
    read: Callable[[str], Any]
    if whole:
        read = partial(_read_recording, root=dataset.root, sr=clip.sr)
    else:
        read = partial(read_clip, root=dataset.root, clip=clip, variant=variant, change=change)
    stored = load_or_build(
        cache / "waveforms",
        key_fields=key_fields | ({"change": change.__name__} if variant else {}),
        build=partial(_build, dataset=dataset, read=read, sr=clip.sr, variant=variant, progress=progress),
        on_wait=lambda: progress(0, len(dataset.clips), "waiting for another process that decodes these recordings"),
    )
    written = _ClipFacts(**stored.facts)
    bad = list_unusable_clips(dataset, written.problem_of)
    if bad and on_bad_clip == "fail":
        raise clips_error(dataset, bad)
    lengths = np.array(written.lengths, dtype=np.int64)
    clip_rows = np.array([row for row in range(len(lengths)) if row not in written.problem_of], dtype=np.int64)
    return Waveforms(
        samples=stored.array,
        first=(lengths.cumsum() - lengths)[clip_rows],
        lengths=lengths[clip_rows],
        clip_rows=clip_rows,
        unusable=bad,
        loud=tuple(np.flatnonzero(np.isin(clip_rows, written.loud)).tolist()),
        clip=clip,
        key=stored.key,
    )


@dataclass
class _ClipFacts:
    """What is known of the clips that are written.

    Attributes
    ----------
    lengths
        Samples of each clip; 0 of one that cannot be used.
    loud
        Rows of clips that may be too loud.
    problems
        Rows, as text for JSON, and reasons of clips that cannot be used.
    """

    lengths: list[int] = field(default_factory=list)
    loud: list[int] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def problem_of(self) -> dict[int, str]:
        """Reason of each clip that cannot be used, by row."""
        return {int(row): reason for row, reason in self.problems.items()}

    def add(self, other: Mapping[str, Any]) -> None:
        """Append what is known of later clips."""
        self.lengths += other["lengths"]
        self.loud += other["loud"]
        self.problems |= other["problems"]


def _build(
    writer: ArrayWriter,
    *,
    dataset: "Dataset",
    read: Callable[[str], Any],
    sr: int,
    variant: int,
    progress: Progress,
) -> tuple[int, dict[str, Any]]:
    """Write the samples of the clips that are not written yet; return the number of samples and the `_ClipFacts`."""
    paths: list[str] = dataset.clips["path"].tolist()
    what = f"waveforms of {dataset.name}" + (f", augmented version {variant}" if variant else "")
    writer.create((0,), np.float32)
    written = _ClipFacts()
    for part in writer.parts:
        written.add(part.facts)
    left = paths[len(written.lengths) :]
    progress(len(paths) - len(left), len(paths), what)
    with CancellablePool(N_DECODERS) as pool:
        found = map_ahead(pool, read, left, 2 * BATCH_SIZE)
        for batch in batched(enumerate(left, len(written.lengths)), BATCH_SIZE):
            first, new = sum(written.lengths), _ClipFacts()
            for row, path in batch:
                try:
                    length, peak = _write(writer, first + sum(new.lengths), dataset.root / path, next(found), sr=sr)
                except BadClip as bad:
                    length, peak, new.problems[str(row)] = 0, 0.0, bad.reason
                new.lengths.append(length)
                new.loud += [row] * (peak > LOUD_PEAK)
                progress(row + 1, len(paths), what)
            writer.record_part(Part(first, sum(new.lengths), asdict(new)))
            written.add(asdict(new))
    return_freed_memory()  # long recordings leave many small pieces of freed memory
    if len(written.problems) == len(paths):
        writer.parts.clear()  # nothing is worth keeping
        raise clips_error(dataset, list_unusable_clips(dataset, written.problem_of))
    return sum(written.lengths), asdict(written)


class LongClip:
    """A recording that is too long to wait in memory and is written in pieces."""


def _write(
    writer: ArrayWriter, first: int, path: Path, found: np.ndarray | BadClip | DeferredWaveform | LongClip, *, sr: int
) -> tuple[int, float]:
    """Write one clip from sample `first` on; return its samples and its peak.

    Raises
    ------
    BadClip
        It cannot be used. What was written of it is overwritten by the next clip.
    """
    found = found.read() if isinstance(found, DeferredWaveform) else found
    if isinstance(found, BadClip):
        raise found
    pieces: Iterable[np.ndarray] = stream_waveform(path, sr=sr) if isinstance(found, LongClip) else (found,)
    length, peak = 0, 0.0
    with silence_native_stderr():  # decoders print warnings
        for piece in pieces:
            writer.write(first + length, piece)
            length += len(piece)
            peak = max(peak, float(np.abs(piece).max(initial=0)))
    return length, peak


def _read_recording(path: str, *, root: Path, sr: int) -> np.ndarray | BadClip | LongClip:
    """Return a whole recording, or what is wrong with it."""
    pieces, samples = [np.empty(0, dtype=np.float32)], 0
    try:
        with silence_native_stderr():  # decoders print warnings
            for piece in stream_waveform(root / path, sr=sr):
                samples += len(piece)
                if samples > MAX_WAITING_SAMPLES:
                    return LongClip()
                pieces.append(piece)
    except BadClip as problem:
        return problem
    return np.concatenate(pieces)
