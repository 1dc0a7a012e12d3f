"""The store of waveforms, from which images are made while a network trains (`core.inputs.store.on_the_fly`).

Made once per (content, sampling rate, and duration where one is cut) and memory-mapped: either every clip at the length
that it is brought to, or every recording from start to end, so that a segment of it is read by seeking. A recording
goes to the disk in pieces; its length decides room there, and never how much memory is taken. Whole shards of clips
outlive the process that made them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.audio.reading import BadClip, fit_length, stream_waveform
from core.audio.waveform_augmentation import Change, augment_waveform
from core.cache.array_reader import ArrayReader
from core.cache.array_writer import ArrayWriter
from core.cache.entries import load_or_make
from core.config.run import Clip, identity
from core.inputs.store.build_inputs import BATCH, DECODERS, SHARD, WAITING, Sound, Turn, read_clip
from core.inputs.store.processes import ahead
from core.inputs.store.stored_inputs import refusal
from core.io.memory import return_freed_memory
from core.io.native_stderr import silence_native_stderr
from core.io.thread_pool import CancellablePool
from core.progress import Progress, no_progress

if TYPE_CHECKING:
    from core.datasets.dataset import Dataset

VERSION = 1  # raised when the same configuration would give other samples
AT_ONCE = 1 << 24  # samples; 64 MB
LOUD = 1e12  # full scale is 1; of louder clips the spectrogram may not be finite, which is looked at before training


@dataclass(frozen=True, eq=False)
class Waveforms:
    """The clips of a data set, or its whole recordings, as samples.

    Attributes
    ----------
    samples
        Of all clips one after the other, float32, full scale 1, memory-mapped and read-only.
    first, lengths
        Where each clip begins, and its samples; int64, (kept clips,).
    kept
        Row of `dataset.clips` that each belongs to, int64, ascending, (kept clips,).
    bad
        Path and reason of every clip that was left out.
    loud
        Rows of those that may be too loud.
    clip
        How long a waveform is wanted.
    key
        Stands for everything that decided the samples; the name of the entry in the cache.
    """

    samples: np.ndarray
    first: np.ndarray
    lengths: np.ndarray
    kept: np.ndarray
    bad: tuple[tuple[str, str], ...]
    loud: tuple[int, ...]
    clip: Clip
    key: str

    def __len__(self) -> int:
        return len(self.kept)

    @property
    def n_samples(self) -> int:
        """Samples of a waveform, where ``--length-mode stretch`` does not leave each its own."""
        return round(self.clip.duration * self.clip.sr)

    @property
    def table(self) -> np.ndarray | None:
        """All of them as one array (clips, samples), where they are stored in the one length; else None."""
        if (self.lengths != self.n_samples).any() or self.samples.size != self.lengths.sum():
            return None
        return self.samples.reshape(len(self), -1)

    @property
    def longer(self) -> int:
        """How many recordings are longer than a waveform, so that there are segments to choose from."""
        return int((self.lengths > self.n_samples).sum())

    def too_long(self, rows: np.ndarray) -> bool:
        """Tell whether these waveforms are too long to be in memory together, as whole recordings may be."""
        return self.clip.fit == "stretch" and int(self.lengths[rows].sum()) > AT_ONCE

    def read(self, row: int, chance: float | None = None) -> np.ndarray:
        """Read one waveform.

        Parameters
        ----------
        row
            Of the kept clips.
        chance
            0 to below 1: where in a longer recording the segment begins, of all places that there are. None, and a
            recording no longer than a segment: the same waveform always, as `fit_length` says.

        Returns
        -------
        (samples,) float32.
        """
        first, length, start = int(self.first[row]), int(self.lengths[row]), 0
        spare = length - self.n_samples
        if spare > 0 and (chance is not None or self.clip.fit != "stretch"):
            if chance is not None:
                start = int(chance * (spare + 1))
            elif self.clip.fit == "crop":
                start = spare // 2
            length = self.n_samples
        y = self._reader.part(first + start, first + start + length)
        return fit_length(y, n_samples=self.n_samples, fit=self.clip.fit)

    @cached_property
    def _reader(self) -> ArrayReader:
        return ArrayReader(self.samples)


def waveforms(
    dataset: "Dataset",
    *,
    content: str,
    clip: Clip,
    cache: Path,
    whole: bool = False,
    on_bad_clip: str = "fail",
    variant: int = 0,
    change: Change = augment_waveform,
    progress: Progress = no_progress,
) -> Waveforms:
    """Return the waveforms of all clips of a data set, decoding them if they are not in the cache.

    Parameters
    ----------
    dataset, content, clip, on_bad_clip, variant, change, progress
        As for images (`core.inputs.store.stored_inputs.images`).
    cache
        Folder under which ``waveforms/<key>/`` is kept.
    whole
        Keep recordings from start to end, at the sampling rate of `clip`, in whose length they are read then; so it is
        of ``--length-mode stretch`` anyway.

    Raises
    ------
    UserError
        Bad clips under ``fail``, all of them at once; no clip left; the cache folder cannot be written to.
    """
    whole = (whole or clip.fit == "stretch") and not variant
    of = {"sr": clip.sr} if whole else identity(clip)
    made_from = {"waveforms": VERSION, "content": content, "clip": of, "variant": variant}
    read = partial(read_clip, clip=clip, variant=variant, change=change)
    stored = load_or_make(
        cache / "waveforms",
        made_from=made_from | ({"change": change.__name__} if variant else {}),
        make=partial(
            _make,
            dataset=dataset,
            read=partial(partial(_recording, sr=clip.sr) if whole else read, root=dataset.root),
            sr=clip.sr,
            what=f"waveforms of {dataset.name}" + (f", augmented version {variant}" if variant else ""),
            report=progress,
        ),
        waiting=lambda: progress(0, len(dataset.clips), "waiting for another process that reads these recordings"),
        progress=progress,
        what=f"the waveforms of {dataset.name}",
    )
    problems: list[str] = stored.facts["problems"]
    bad = _bad(dataset, problems)
    if bad and on_bad_clip == "fail":
        raise refusal(dataset, bad)
    lengths, loud = (np.array(stored.facts[name], dtype=np.int64) for name in ("written", "loud"))
    first = lengths.cumsum() - lengths
    kept = np.array([row for row, problem in enumerate(problems) if not problem], dtype=np.int64)
    return Waveforms(
        samples=stored.array,
        first=first[kept],
        lengths=lengths[kept],
        kept=kept,
        bad=bad,
        loud=tuple(np.flatnonzero(loud[kept]).tolist()),
        clip=clip,
        key=stored.key,
    )


Found = Sound | Turn | None  # a clip's samples, what is wrong, what reads it later; None: to be read in pieces


def _make(
    writer: ArrayWriter, *, dataset: "Dataset", read: Callable[[str], Found], sr: int, what: str, report: Progress
) -> dict[str, list[Any]]:
    """Write the samples of every clip, behind the shards that are there; return what is to be known of each.

    What was written of a recording before it turned out to be bad stays, and is not looked at.
    """
    paths: list[str] = dataset.clips["path"].tolist()
    facts: dict[str, list[Any]] = {"written": [], "problems": [], "loud": []}
    for shard in writer.shards:
        _extend(facts, shard.facts)
    new: dict[str, list[Any]] = {name: [] for name in facts}
    left = paths[len(facts["problems"]) :]
    report(len(paths) - len(left), len(paths), what)
    with silence_native_stderr(), CancellablePool(DECODERS) as pool:
        for path, found in zip(left, ahead(pool, read, left, 2 * BATCH), strict=True):
            _extend(new, _write(writer, dataset.root / path, found, sr=sr))
            if len(new["problems"]) == SHARD:
                writer.commit(new)
                _extend(facts, new)
                new = {name: [] for name in facts}
            report(len(facts["problems"]) + len(new["problems"]), len(paths), what)
    _extend(facts, new)
    return_freed_memory()  # decoding long recordings has left much, in fragments
    if all(facts["problems"]):
        raise refusal(dataset, _bad(dataset, facts["problems"]))
    return facts


def _write(writer: ArrayWriter, path: Path, found: Found, *, sr: int) -> dict[str, list[Any]]:
    """Write one clip; return how many samples, what is wrong with it, and whether it may be too loud."""
    found = found() if callable(found) else found
    written, problem, peak = 0, found if isinstance(found, str) else "", 0.0
    pieces: Iterable[np.ndarray] = () if found is None or isinstance(found, str) else (found,)
    try:
        for piece in stream_waveform(path, sr=sr) if found is None else pieces:
            writer.append(piece)
            written += len(piece)
            peak = max(peak, float(np.abs(piece).max(initial=0)))
    except BadClip as bad:
        problem = bad.reason
    return {"written": [written], "problems": [problem], "loud": [peak > LOUD]}


def _extend(facts: dict[str, list[Any]], more: Mapping[str, list[Any]]) -> None:
    for name, values in facts.items():
        values += more[name]


def _bad(dataset: "Dataset", problems: Sequence[str]) -> tuple[tuple[str, str], ...]:
    return tuple((path, problem) for path, problem in zip(dataset.clips["path"], problems, strict=True) if problem)


def _recording(path: str, *, root: Path, sr: int) -> Sound | None:
    """Return a whole recording, what is wrong with it, or None where it is too long to wait in memory for its turn."""
    pieces, samples = [np.empty(0, dtype=np.float32)], 0
    try:
        for piece in stream_waveform(root / path, sr=sr):
            samples += len(piece)
            if samples > WAITING:
                return None
            pieces.append(piece)
    except BadClip as problem:
        return problem.reason
    return np.concatenate(pieces)
