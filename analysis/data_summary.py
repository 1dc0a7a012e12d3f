"""Summary of a data set and its problems; every clip is decoded."""

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from core.audio.reading import AudioInfo, BadClip, read_info
from core.datasets.clip_settings import ClipSettings, describe_clip_advice, describe_clip_settings
from core.datasets.copies import describe_copies
from core.datasets.dataset import Dataset
from core.datasets.label_names import describe_labels
from core.datasets.metadata import format_few
from core.datasets.recording_groups import describe_columns, describe_folds, describe_groups, describe_leaking_groups
from core.datasets.sets.folder import AUDIO_SUFFIXES, is_hidden
from core.progress import Progress, no_progress
from core.system.native_stderr import silence_native_stderr
from core.system.thread_pool import CancellablePool

T = TypeVar("T")


@dataclass(frozen=True)
class DatasetSummary:
    """Summary of a data set. Counts are numbers of clips.

    Attributes
    ----------
    name, root
        Name and folder of the data set.
    clips, groups, grouped_by
        Number of clips and of groups, and the column or rule that defines the groups
        (`core.datasets.dataset.Dataset.grouped_by`).
    classes, folds
        Clips per class (in label order, possibly 0) and per fold.
    has_fixed_split
        Whether the folds are a test list (1), a training list (2) and possibly a validation list (3).
    features
        Names of the features, if clips are feature vectors; lengths, rates, channels and formats are then empty.
    holdout
        Number of held-out clips.
    remarks
        Remarks of the loader, and lines on columns, groups and clip settings.
    seconds
        Lengths of the decodable clips in seconds: ``shortest``, ``median``, ``longest``, ``total``.
    sample_rates, channels, formats
        Clips per sampling rate in Hz, per number of channels, and per format (such as ``WAV PCM_16``), most frequent
        first. The format of files that libsndfile cannot read is their suffix.
    problems
        Clips that cannot be decoded, classes without clips or in a single fold, labels that look alike, groups in
        several folds, identical clips (if the data set has digests), and audio files that are not clips; one line each.
    """

    name: str
    root: Path
    clips: int
    groups: int
    grouped_by: str
    classes: dict[str, int]
    folds: dict[int, int]
    has_fixed_split: bool
    features: tuple[str, ...]
    holdout: int
    remarks: tuple[str, ...]
    seconds: dict[str, float]
    sample_rates: dict[int, int]
    channels: dict[int, int]
    formats: dict[str, int]
    problems: tuple[str, ...]


def summarise_dataset(dataset: Dataset, *, decode: bool = True, progress: Progress = no_progress) -> DatasetSummary:
    """Summarise a data set.

    Parameters
    ----------
    dataset
        The data set.
    decode
        Whether to decode every clip. Otherwise lengths, rates, channels and formats are empty.
    progress
        Function that is called after each clip, with the number of clips done, their total, and the text "clips".
    """
    facts: list[AudioInfo] = []
    problems: list[str] = []
    paths = dataset.clips["path"].tolist() if decode and dataset.vectors is None else []
    with silence_native_stderr(), CancellablePool() as pool:
        for done, result in enumerate(pool.map(lambda path: _read_clip(dataset.root, path), paths), start=1):
            if isinstance(result, AudioInfo):
                facts.append(result)
            else:
                problems.append(result)
            progress(done, len(paths), "clips")
    by_class = Counter(dataset.clips["label"])
    return DatasetSummary(
        name=dataset.name,
        root=dataset.root,
        clips=len(dataset.clips),
        features=dataset.columns,
        groups=int(dataset.clips["group"].nunique()),
        grouped_by=dataset.grouped_by,
        classes={name: by_class[label] for label, name in enumerate(dataset.class_names)},
        folds=dict(sorted(Counter(dataset.clips["fold"]).items())),
        has_fixed_split=dataset.has_fixed_split,
        holdout=len(dataset.holdout),
        remarks=(
            *dataset.remarks,
            *describe_columns(dataset),
            *describe_groups(dataset),
            *describe_folds(dataset),
            *describe_clip_settings(dataset, dataset.sr, dataset.duration, dataset.n_frames),
            *describe_clip_advice(dataset, ClipSettings(dataset.sr, dataset.duration)),
        ),
        seconds=_length_statistics([fact.seconds for fact in facts] or [0.0]) if decode else {},
        sample_rates=_count_values([fact.sr for fact in facts]),
        channels=_count_values([fact.channels for fact in facts]),
        formats=_count_values([fact.format for fact in facts]),
        problems=(
            *problems,
            *_find_table_problems(dataset),
            *describe_labels(dataset),
            *describe_leaking_groups(dataset),
            *describe_copies(dataset),
            *_find_unlisted_files(dataset),
        ),
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
    """Return length, rate, channels and format of a clip, or a message if it cannot be decoded."""
    try:
        return read_info(root / path)
    except BadClip as error:
        return f"{path}: {error.reason}"


def _find_table_problems(dataset: Dataset) -> list[str]:
    """Return messages about classes without clips, and about classes whose clips are all in one fold."""
    n_folds = dataset.clips.groupby("label")["fold"].nunique()
    names = dict(enumerate(dataset.class_names))
    empty = [name for label, name in names.items() if label not in n_folds]
    single = [name for label, name in names.items() if n_folds.get(label) == 1]
    problems = [f"classes without clips: {format_few(empty)}"] if empty else []
    if single:
        problems.append(f"classes in a single fold (no training clips when it is tested): {format_few(single)}")
    return problems


def _find_unlisted_files(dataset: Dataset) -> list[str]:
    """Return a message about audio files in the folder that are not clips of the data set, if there are any."""
    if dataset.vectors is not None:
        return []
    listed = {*dataset.clips["path"], *dataset.holdout["path"], *dataset.left_out}
    files = (
        (inside / name).as_posix()
        for top in ({Path(table).parent for table in dataset.tables} or {Path()})  # the folders of the tables, if any
        for folder, _, names in os.walk(dataset.root / top)  # strings: a Path per file would take seconds
        for inside in [Path(folder).relative_to(dataset.root)]
        if not any(map(is_hidden, inside.parts))
        for name in names
        if not is_hidden(name) and name.lower().endswith(AUDIO_SUFFIXES) and f"{inside.as_posix()}/{name}" not in listed
    )
    extra = sorted(set(files) - listed)
    return [f"audio files that are not clips: {format_few(extra)}"] if extra else []
