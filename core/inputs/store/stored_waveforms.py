"""Stored waveforms, from which inputs are computed during training (`core.inputs.store.on_the_fly`).

They are decoded once per data set, sampling rate and, if clips are cut, duration, and memory-mapped. Either every clip
is stored with its final length, or every recording from start to end, so that segments can be read. Long recordings are
written in pieces, so memory does not depend on their length.
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
    check_readable,
    read_clip,
)
from core.inputs.store.stored_inputs import UnusableClip, clips_error, list_unusable_clips
from core.progress import Progress, no_progress
from core.system.memory import return_freed_memory
from core.system.native_stderr import silence_native_stderr
from core.system.thread_pool import CancellablePool, map_ahead

if TYPE_CHECKING:
    from core.datasets.dataset import Dataset

VERSION = 1  # part of the cache key; to be increased if the same settings give other samples
MAX_SAMPLES_TOGETHER = 1 << 24  # samples of waveforms in memory together: 64 MB in float32
LOUD_PEAK = 1e12  # times full scale; the spectrogram of a louder clip may not be finite


@dataclass(frozen=True, eq=False)
class Waveforms:
    """Waveforms of the clips of a data set, or whole recordings.

    Attributes
    ----------
    samples
        Samples of all clips, concatenated; float32, full scale 1, memory-mapped and read-only.
    first, lengths
        First sample and number of samples of each clip, int64, shape (usable clips,).
    clip_rows
        Row of each waveform in `dataset.clips`, int64, ascending, shape (usable clips,).
    unusable
        Clips that were left out.
    loud
        Waveforms (0 to usable clips - 1) that may be too loud for a finite spectrogram.
    clip
        Settings that determine the length of a waveform.
    key
        Key of the cache entry.
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
        """Number of samples of a clip; with ``--length-mode stretch`` waveforms keep their own length."""
        return round(self.clip.duration * self.clip.sr)

    @property
    def table(self) -> np.ndarray | None:
        """All waveforms as one array (clips, samples) if all have the same length, otherwise None."""
        if (self.lengths != self.n_samples).any() or self.samples.size != self.lengths.sum():
            return None
        return self.samples.reshape(len(self), -1)

    @property
    def longer(self) -> int:
        """Number of recordings that are longer than a clip."""
        return int((self.lengths > self.n_samples).sum())

    def too_long(self, rows: np.ndarray) -> bool:
        """Return whether these waveforms are too long to be in memory together."""
        return self.clip.fit == "stretch" and int(self.lengths[rows].sum()) > MAX_SAMPLES_TOGETHER

    def read(self, row: int, position: float | None = None) -> np.ndarray:
        """Read one waveform.

        Parameters
        ----------
        row
            Index of the waveform, 0 to usable clips - 1.
        position
            Position of the segment in a longer recording, from 0 (start) to below 1 (end). None: the segment that
            `fit_length` chooses.

        Returns
        -------
        Waveform, float32, shape (samples,).
        """
        first, length, start = int(self.first[row]), int(self.lengths[row]), 0
        spare = length - self.n_samples
        if spare > 0 and (position is not None or self.clip.fit != "stretch"):
            if position is not None:
                start = int(position * (spare + 1))
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
    """Return the waveforms of all clips of a data set from the cache; decode them if necessary.

    Parameters
    ----------
    dataset, content, clip, on_bad_clip, variant, change, progress
        See `core.inputs.store.stored_inputs.load_inputs`.
    cache
        Folder of ``waveforms/<key>/``.
    whole
        Store recordings from start to end, so that segments can be read. ``--length-mode stretch`` implies this.

    Raises
    ------
    UserError
        Clips cannot be used and `on_bad_clip` is ``fail``; no clip can be used; the cache is not writable.
    """
    whole = (whole or clip.fit == "stretch") and not variant
    clip_fields = {"sr": clip.sr} if whole else identity(clip)
    key_fields = {"waveforms": VERSION, "content": content, "clip": clip_fields, "variant": variant}
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
    facts = _ClipFacts(**stored.facts)
    bad = list_unusable_clips(dataset, facts.problem_of)
    if bad and on_bad_clip == "fail":
        raise clips_error(dataset, bad)
    lengths = np.array(facts.lengths, dtype=np.int64)
    clip_rows = np.array([row for row in range(len(lengths)) if row not in facts.problem_of], dtype=np.int64)
    return Waveforms(
        samples=stored.array,
        first=(lengths.cumsum() - lengths)[clip_rows],
        lengths=lengths[clip_rows],
        clip_rows=clip_rows,
        unusable=bad,
        loud=tuple(np.flatnonzero(np.isin(clip_rows, facts.loud)).tolist()),
        clip=clip,
        key=stored.key,
    )


@dataclass
class _ClipFacts:
    """Facts about the written clips.

    Attributes
    ----------
    lengths
        Number of samples of each clip; 0 if it cannot be used.
    loud
        Rows of clips that may be too loud.
    problems
        Reasons of clips that cannot be used, by row as text (JSON keys).
    """

    lengths: list[int] = field(default_factory=list)
    loud: list[int] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def problem_of(self) -> dict[int, str]:
        """Reason of each clip that cannot be used, by row."""
        return {int(row): reason for row, reason in self.problems.items()}

    def add(self, other: Mapping[str, Any]) -> None:
        """Append the facts of later clips."""
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
    """Write the samples of the clips that are not written yet; return the number of all samples, and the facts."""
    paths: list[str] = dataset.clips["path"].tolist()
    description = f"waveforms of {dataset.name}" + (f", augmented version {variant}" if variant else "")
    writer.create((0,), np.float32)
    facts = _ClipFacts()
    for part in writer.parts:
        facts.add(part.facts)
    remaining = paths[len(facts.lengths) :]
    progress(len(paths) - len(remaining), len(paths), description)
    with CancellablePool(N_DECODERS) as pool:
        waveforms = map_ahead(pool, read, remaining, 2 * BATCH_SIZE)
        for batch in batched(enumerate(remaining, len(facts.lengths)), BATCH_SIZE):
            first, new = sum(facts.lengths), _ClipFacts()
            for row, path in batch:
                try:
                    length, peak = _write(writer, first + sum(new.lengths), dataset.root / path, next(waveforms), sr=sr)
                except BadClip as bad:
                    length, peak, new.problems[str(row)] = 0, 0.0, bad.reason
                new.lengths.append(length)
                new.loud += [row] * (peak > LOUD_PEAK)
                progress(row + 1, len(paths), description)
            check_readable(dataset.root, [path for _, path in batch], new.problems.values())
            writer.record_part(Part(first, sum(new.lengths), asdict(new)))
            facts.add(asdict(new))
    return_freed_memory()  # long recordings fragment the heap
    if len(facts.problems) == len(paths):
        writer.parts.clear()  # no clip is usable: delete the parts written so far
        raise clips_error(dataset, list_unusable_clips(dataset, facts.problem_of))
    return sum(facts.lengths), asdict(facts)


class LongClip:
    """A recording that is too long to be decoded ahead; it is written in pieces."""


def _write(
    writer: ArrayWriter,
    first: int,
    path: Path,
    waveform: np.ndarray | BadClip | DeferredWaveform | LongClip,
    *,
    sr: int,
) -> tuple[int, float]:
    """Write one clip from sample `first` on; return its number of samples and its peak.

    Raises
    ------
    BadClip
        The clip cannot be used. The next clip overwrites the samples that were written.
    """
    waveform = waveform.read() if isinstance(waveform, DeferredWaveform) else waveform
    if isinstance(waveform, BadClip):
        raise waveform
    pieces: Iterable[np.ndarray] = stream_waveform(path, sr=sr) if isinstance(waveform, LongClip) else (waveform,)
    length, peak = 0, 0.0
    with silence_native_stderr():  # decoders print warnings
        for piece in pieces:
            writer.write(first + length, piece)
            length += len(piece)
            loudest = float(np.abs(piece).max(initial=0))
            peak = max(peak, np.inf if np.isnan(loudest) else loudest)  # resampling a very loud recording overflows
    return length, peak


def _read_recording(path: str, *, root: Path, sr: int) -> np.ndarray | BadClip | LongClip:
    """Return a whole recording, a `BadClip`, or a `LongClip`."""
    pieces, samples = [np.empty(0, dtype=np.float32)], 0
    try:
        with silence_native_stderr():  # decoders print warnings
            for piece in stream_waveform(root / path, sr=sr):
                samples += len(piece)
                if samples > MAX_WAITING_SAMPLES:
                    return LongClip()
                pieces.append(piece)
    except BadClip as bad_clip:
        return bad_clip
    return np.concatenate(pieces)
