"""Find groups of clips in file names, and describe the groups of a data set to the user."""

import os
import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pandas as pd

from core.datasets.dataset import TRAIN_FOLD, Dataset
from core.datasets.metadata import find_split_groups, format_few

SUFFIX = re.compile(r"\.[A-Za-z]\w{1,4}$")  # file name suffix such as .wav; a segment number such as .0 is none
SEGMENT = re.compile(r"(.*[^\W_].*)[._ -](\d+)")  # name of a track, and number of a segment
SEPARATOR = re.compile(r"[/._ -]")
MANY_TRACKS = 10  # tracks per class from which names without digits count as names of tracks
MAX_PREFIX_PARTS = 4
MAX_CANDIDATES = 3
TRACK_IN_NAME = "track in the file name"  # value of `Dataset.grouped_by`
PREFIX = "prefix"  # value of --group for `find_prefixes`
MAX_LISTED_FOLDS = 50


def find_tracks(names: Sequence[str], labels: Sequence[str]) -> list[str] | None:
    """Return the track of each clip if the names are tracks with segment numbers, otherwise None.

    ``blues.00000.0.wav`` to ``blues.00000.9.wav`` are ten segments of the track ``blues.00000``. Names such as
    ``blues.00000.wav`` to ``blues.00099.wav`` are tracks without segments, because the whole class would be one track.

    The largest segment number of a track is at most twice their number. Every class has at least two tracks, and at
    least `MANY_TRACKS` if names of tracks have no digits.
    """
    stems = [SUFFIX.sub("", name) for name in names]
    matches = [SEGMENT.fullmatch(stem) for stem in stems]
    numbers: dict[str, list[int]] = defaultdict(list)
    for match in filter(None, matches):
        numbers[match[1]].append(int(match[2][-9:]))
    tracks = {track for track, found in numbers.items() if 1 < len(found) >= max(found) / 2}
    tracks = {track for track in tracks if len(set(numbers[track])) == len(numbers[track])}
    if not tracks:
        return None
    groups = [
        stem if stem in tracks else match[1] if match and match[1] in tracks else name
        for name, stem, match in zip(names, stems, matches, strict=True)
    ]
    fewest = int(pd.Series(groups).groupby(list(labels)).nunique().min())
    has_numbers = 2 * sum(any(letter.isdigit() for letter in track) for track in tracks) >= len(tracks)
    return groups if fewest >= (2 if has_numbers else MANY_TRACKS) else None


def find_prefixes(dataset: Dataset) -> "pd.Series[str] | None":
    """Return the prefix of each file name that several clips share, such as ``george_``; "" for clips without one.

    A prefix ends with a separator. Folders that contain all clips, and the name of the class, are not part of it:
    ``zero/george_1.wav``, ``george_zero_1.wav`` and ``zero_george_1.wav`` of class ``zero`` have the prefix
    ``george_``. The result is the prefixes with the fewest separators that divide every class into two or more groups
    and cover at least half of the clips.

    Returns
    -------
    pd.Series or None
        With the index of `Dataset.clips`; None if names have no such prefixes.
    """
    clips = dataset.clips
    patterns = [_match_class(name) for name in dataset.class_names]
    start = len(f"{os.path.commonpath([os.path.dirname(path) for path in clips['path']])}/".lstrip("/"))  # noqa: PTH120
    names = [
        patterns[label].sub("", path[start:])
        for path, label in zip(clips["path"].tolist(), clips["label"].tolist(), strict=True)
    ]
    ends = [[match.start() for match in SEPARATOR.finditer(SUFFIX.sub("", name))] for name in names]
    for part in range(MAX_PREFIX_PARTS):
        prefixes = [name[: end[part] + 1] if len(end) > part else "" for name, end in zip(names, ends, strict=True)]
        frame = clips[["label", "fold"]].assign(prefix=prefixes)
        named = frame[frame["prefix"].str.contains(r"[^\W_]")]
        sizes = named.groupby("prefix").size()
        shared = sizes[sizes > 1]
        if 2 * shared.sum() < len(frame) or named.groupby("label")["prefix"].nunique().min() < 2:
            continue
        if named["label"].nunique() < frame["label"].nunique():
            continue
        if named.groupby(["prefix", "label"]).size().max() < 2 and shared.index.str.fullmatch(r"\d+[\W_]?").all():
            continue  # the prefix is a number that counts the clips of each class
        return frame["prefix"].where(frame["prefix"].isin(shared.index), "")
    return None


def _match_class(name: str) -> re.Pattern[str]:
    """Return a pattern for the name of a class and the separator after it, at the start of a part of a file name."""
    words = "[/._ -]+".join(re.escape(word) for word in SEPARATOR.split(name) if word)
    return re.compile(rf"(?<![^/._ -]){words or '(?!)'}(?:[/._ -]|$)", re.IGNORECASE)


def find_shared_prefixes(dataset: Dataset) -> list[tuple[str, int]]:
    """Return pairs (prefix, number of clips) of `find_prefixes` with clips in several folds, the largest first."""
    if (prefixes := find_prefixes(dataset)) is None:
        return []
    named = dataset.clips["fold"].groupby(prefixes[prefixes != ""]).agg(["size", "nunique"])
    leaking = named.loc[named["nunique"] > 1, "size"].sort_values(ascending=False, kind="stable")
    return [(f"{prefix}*", int(size)) for prefix, size in leaking.items()]


def describe_folds(dataset: Dataset) -> list[str]:
    """Return one line on the group of each fold, if each fold is one group; otherwise none."""
    if not (names := dataset.fold_names):
        return []
    folds = [f"fold {fold} is {name}" for fold, name in enumerate(names[:MAX_LISTED_FOLDS], start=1)]
    more = f" and {len(names) - MAX_LISTED_FOLDS} more" if len(names) > MAX_LISTED_FOLDS else ""
    return [f"leave-one-group-out, {len(names)} folds: {', '.join(folds)}{more}"]


def find_group_columns(dataset: Dataset) -> list[str]:
    """Return the unused columns of a CSV file whose values could be groups, those with the most values first.

    Values are repeated, are not decimal numbers, and there are at least two in every class.
    """
    found = {}
    for column in dataset.attributes.columns.difference([*dataset.used_columns], sort=False):
        values = dataset.attributes[column].astype(str)
        count = values.nunique()
        if (
            2 <= count < len(values)
            and not values.str.fullmatch(r"[-+]?\d*\.\d+(e[-+]?\d+)?").all()
            and values.groupby(dataset.clips["label"]).nunique().min() >= 2
        ):
            found[str(column)] = count
    return sorted(found, key=lambda column: -found[column])


def describe_columns(dataset: Dataset) -> list[str]:
    """Return one line on the columns of a CSV file that are used and ignored; none for other data sets."""
    if not dataset.table_columns:
        return []
    used = [*dataset.used_columns]
    if dataset.columns:
        used.append(f"{len(dataset.columns)} feature{'s' if len(dataset.columns) > 1 else ''}")
    ignored = [name for name in dataset.table_columns if name not in {*dataset.used_columns, *dataset.columns}]
    return [f"columns used: {', '.join(used)}; ignored: {', '.join(ignored) or 'none'}"]


def describe_groups(dataset: Dataset) -> list[str]:
    """Return one line on the groups that the user or the file names define, or on their absence."""
    what = "row" if dataset.columns else "clip"
    groups = dataset.clips["group"].nunique()
    if dataset.grouped_by == "the data set":
        return []
    if dataset.grouped_by == TRACK_IN_NAME:
        count = f"{len(dataset.clips):,} rows of {groups:,} tracks"
        return [f"rows are grouped by the {TRACK_IN_NAME}: {count} (--group {dataset.used_columns[0]}: no groups)"]
    if dataset.grouped_by:
        return [f"{what}s are grouped by {dataset.grouped_by}: {len(dataset.clips):,} {what}s of {groups:,} groups"]
    line = f"no groups: every {what} counts as a separate recording"
    prefixes = find_shared_prefixes(dataset)
    candidates = []
    if columns := find_group_columns(dataset):
        candidates.append(f"{', '.join(f'--group {column}' for column in columns[:MAX_CANDIDATES])}")
    if prefixes:
        examples = format_few([f"{prefix} ({size})" for prefix, size in prefixes])
        candidates.append(f"--group {PREFIX} (file names with one prefix in several folds: {examples})")
    if candidates:
        return [f"{line}; candidates for groups: {'; '.join(candidates)}"]
    remedy = "give --group COLUMN" if dataset.table_columns else "name them in column group of a CSV file"
    return [f"{line}; if several come from one recording or speaker, {remedy}"]


def find_leaking_groups(dataset: Dataset) -> list[str]:
    """Return the groups with clips in several folds or, for a fixed split, in training and other clips."""
    clips = dataset.clips
    if dataset.has_fixed_split:  # validation and test clips may share groups
        clips = clips.assign(fold=np.where(clips["fold"] == TRAIN_FOLD, TRAIN_FOLD, TRAIN_FOLD + 1))
    return find_split_groups(clips)


def describe_leaking_groups(dataset: Dataset) -> list[str]:
    """Return one line on groups in training and test clips; none if there are no such groups."""
    leaks = find_leaking_groups(dataset)
    return [f"groups in more than one fold, so in training and test clips: {format_few(leaks)}"] if leaks else []
