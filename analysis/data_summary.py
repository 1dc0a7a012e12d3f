"""What a data set holds, and what is wrong with it, found by decoding every clip."""

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from core.audio.reading import AudioInfo, BadClip, read_info
from core.datasets.dataset import TRAIN_FOLD, Dataset
from core.datasets.metadata import find_split_groups, format_few
from core.datasets.sets.folder import AUDIO_SUFFIXES
from core.io.native_stderr import silence_native_stderr
from core.io.thread_pool import CancellablePool
from core.progress import Progress, no_progress

T = TypeVar("T")


@dataclass(frozen=True)
class DatasetSummary:
    """A data set in numbers; counts are of clips, most frequent first where there is no order of their own.

    Attributes
    ----------
    clips, groups
        Number of clips, and of what they were cut from.
    classes, folds
        Clips of each class (in label order; a class may have none) and of each fold.
    features
        Name of each number, where clips are rows of numbers; then there is no length, rate, channel or format.
    holdout
        Number of clips set aside.
    remarks
        What reading the set has left out or found, a line each.
    seconds
        Length of the clips that decode, in seconds: ``shortest``, ``median``, ``longest``, ``total``.
    sample_rates, channels, formats
        Clips of each sampling rate in Hz, number of channels, and format (such as ``WAV PCM_16``); what libsndfile
        cannot read counts as 0 channels of its suffix.
    problems
        One line each: clips that do not decode, classes without clips or in one fold alone, groups in
        several, files of no clip.
    """

    name: str
    root: Path
    clips: int
    groups: int
    classes: dict[str, int]
    folds: dict[int, int]
    features: tuple[str, ...]
    holdout: int
    remarks: tuple[str, ...]
    seconds: dict[str, float]
    sample_rates: dict[int, int]
    channels: dict[int, int]
    formats: dict[str, int]
    problems: tuple[str, ...]


def summarise_dataset(dataset: Dataset, *, decode: bool = True, progress: Progress = no_progress) -> DatasetSummary:
    """Look at every clip of a data set.

    Parameters
    ----------
    dataset
        The set.
    decode
        False opens no clip: lengths, rates, channels and formats stay empty.
    progress
        Called as ``progress(done, total, what)`` after each clip.
    """
    facts: list[AudioInfo] = []
    problems: list[str] = []
    paths = dataset.clips["path"].tolist() if decode and dataset.vectors is None else []
    with silence_native_stderr(), CancellablePool() as pool:
        for done, found in enumerate(pool.map(lambda path: _read_clip(dataset.root, path), paths), start=1):
            if isinstance(found, AudioInfo):
                facts.append(found)
            else:
                problems.append(found)
            progress(done, len(paths), "clips")
    by_class = Counter(dataset.clips["label"])
    return DatasetSummary(
        name=dataset.name,
        root=dataset.root,
        clips=len(dataset.clips),
        features=dataset.columns,
        groups=int(dataset.clips["group"].nunique()),
        classes={name: by_class[label] for label, name in enumerate(dataset.class_names)},
        folds=dict(sorted(Counter(dataset.clips["fold"]).items())),
        holdout=len(dataset.holdout),
        remarks=dataset.remarks,
        seconds=_length_statistics([fact.seconds for fact in facts] or [0.0]) if decode else {},
        sample_rates=_count_values([fact.sr for fact in facts]),
        channels=_count_values([fact.channels for fact in facts]),
        formats=_count_values([fact.format for fact in facts]),
        problems=(*problems, *_find_table_problems(dataset), *_find_unlisted_files(dataset)),
    )


def _length_statistics(seconds: Sequence[float]) -> dict[str, float]:
    return {
        "shortest": min(seconds),
        "median": float(np.median(seconds)),
        "longest": max(seconds),
        "total": math.fsum(seconds),
    }


def _count_values(values: Sequence[T]) -> dict[T, int]:
    return dict(Counter(values).most_common())


def _read_clip(root: Path, path: str) -> AudioInfo | str:
    """Return the facts of a clip, or why it cannot be used."""
    try:
        return read_info(root / path)
    except BadClip as error:
        return f"{path}: {error.reason}"


def _find_table_problems(dataset: Dataset) -> list[str]:
    n_folds = dataset.clips.groupby("label")["fold"].nunique()
    names = dict(enumerate(dataset.class_names))
    empty = [name for label, name in names.items() if label not in n_folds]
    lonely = [name for label, name in names.items() if n_folds.get(label) == 1]
    found = [f"classes without clips: {format_few(empty)}"] if empty else []
    if lonely:
        found.append(f"classes in one fold only, which leaves none to train on: {format_few(lonely)}")
    clips = dataset.clips
    if dataset.has_fixed_split:  # of its lists the training list alone has to share nothing
        clips = clips.assign(fold=clips["fold"] == TRAIN_FOLD)
    if leaks := find_split_groups(clips):
        found.append(f"groups in more than one fold, so heard in training and tested on: {format_few(leaks)}")
    return found


def _find_unlisted_files(dataset: Dataset) -> list[str]:
    if dataset.vectors is not None:
        return []
    known = {*dataset.clips["path"], *dataset.holdout["path"], *dataset.left_out}
    found = (
        (inside / name).as_posix()
        for top in ({Path(table).parent for table in dataset.tables} or {Path()})  # a set's parts, where it has any
        for folder, _, names in os.walk(dataset.root / top)  # texts, for a path object for each file would take seconds
        for inside in [Path(folder).relative_to(dataset.root)]
        for name in names
        if name.lower().endswith(AUDIO_SUFFIXES) and f"{inside.as_posix()}/{name}" not in known
    )
    extra = sorted(set(found) - known)
    return [f"audio files of no clip: {format_few(extra)}"] if extra else []
