"""A data set: table of clips, checks, splits and fingerprint."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from core.datasets.fingerprint import get_file_sizes, hash_content, hash_files, hash_rows
from core.datasets.folds import hold_out, make_folds
from core.datasets.metadata import format_few
from core.errors import UserError
from core.progress import Progress, no_progress
from core.system.atomic_files import file_digest, is_utf8

CLIP_COLUMNS = ["path", "label", "fold", "group"]
TEST_FOLD, TRAIN_FOLD, VALIDATION_FOLD = 1, 2, 3  # fold numbers of a data set with a fixed split


class Split(NamedTuple):
    """Disjoint rows of `Dataset.clips` for training, validation and testing: int64, ascending."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


class RecordingHeader(NamedTuple):
    """Sampling rate in Hz and length in seconds that the header of a recording states; 0 if it states none."""

    sr: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Dataset:
    """Clips with labels, folds and groups.

    Attributes
    ----------
    name
        Name in `core.datasets.LOADERS`.
    root
        Folder that the paths are relative to.
    clips
        One row per clip, sorted by path: ``path`` (POSIX, relative to `root`), ``label`` (index into `class_names`),
        ``fold`` (from 1), ``group`` (such as the recording that clips were cut from; never in two folds).
    class_names
        Name of each label.
    sr, duration, n_frames
        Default sampling rate in Hz, clip length in seconds, and image width in pixels.
    attributes
        Further metadata of each clip, such as the pitch; any column can be the label (`core.datasets.select`).
    has_fixed_split
        Whether the set has a test list (fold 1), a training list (fold 2) and possibly a validation list (fold 3),
        instead of folds for cross-validation.
    has_seeded_folds
        Whether folds were drawn with a seed, because the set has no official ones; `core.datasets.select` can redraw
        them.
    size_fingerprint
        Whether the fingerprint uses the sizes of files instead of their content, for very large sets.
    vectors, columns
        For a feature table: its values (clips, features), float32, and the names of the features.
    tables
        Further files, relative to `root`, whose content is part of the fingerprint.
    fold_names
        Group of each fold, from fold 1, if every fold is one group (leave-one-group-out); otherwise empty.
    per_class
        Maximum number of clips per class in each of the training, test and validation parts; 0: no limit.
    holdout
        The clips held out for a final test, with the columns of `clips`; no split contains them
        (`core.datasets.select`).
    holdout_vectors
        For a feature table: the values of the held-out clips (clips, features), float32.
    left_out
        Paths of recordings of the set that are neither in `clips` nor in `holdout`.
    grouped_by
        Origin of the groups, such as ``column speaker``; "" if every clip is a separate group.
    table_columns, used_columns
        For a data set in a CSV file: its columns, and those of them that are used (first the one that names the clips).
    joins_copies
        Whether identical files are put into one group (`core.datasets.copies.join_copies`). Default: True if the set
        has no folds and no groups, and is not a feature table.
    digests
        SHA-256 of the content of clips by path (`with_digests`); files that cannot be read are left out.
    headers
        Header of each recording by path, if the default clip settings were chosen from the recordings
        (`core.datasets.clip_settings`); recordings whose header states no length are left out.
    remarks
        Notes for the user, such as on clips that were left out, one line each.
    is_published_set
        Whether the content is that of the published data set of this name: all of its clips or, for a feature table,
        its numbers. Parts selected from it keep the flag.
    """

    name: str
    root: Path
    clips: pd.DataFrame
    class_names: tuple[str, ...]
    sr: int
    duration: float
    n_frames: int
    attributes: pd.DataFrame
    has_fixed_split: bool = False
    has_seeded_folds: bool = False
    size_fingerprint: bool = False
    vectors: np.ndarray | None = None
    columns: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    fold_names: tuple[str, ...] = ()
    per_class: int = 0
    holdout: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=CLIP_COLUMNS))
    holdout_vectors: np.ndarray | None = None
    left_out: frozenset[str] = frozenset()
    grouped_by: str = ""
    table_columns: tuple[str, ...] = ()
    used_columns: tuple[str, ...] = ()
    joins_copies: bool = False
    digests: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, RecordingHeader] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    is_published_set: bool = False

    @classmethod
    def from_rows(
        cls, name: str, root: Path, rows: pd.DataFrame, *, class_names: Sequence[str], **fields: Any
    ) -> "Dataset":
        """Make a data set from unsorted rows, and check it.

        Parameters
        ----------
        name, root, class_names
            As in `Dataset`.
        rows
            One row per clip, with the columns of `clips`. Without ``group`` every clip is a separate group; without
            ``fold`` folds are drawn (`core.datasets.folds.make_folds`). Further columns become `attributes`.
        fields
            Other fields of `Dataset`; `vectors` in the order of `rows`.

        Raises
        ------
        UserError
            If there are no clips, a clip is listed twice, a file name is not UTF-8, there is only one class, or a class
            has a single clip or, if folds are drawn, a single group.
        """
        clips = rows.reset_index(drop=True).sort_values("path", kind="stable")
        order = clips.index.to_numpy()
        clips = clips.reset_index(drop=True)
        _check_clips(name, root, clips, class_names)
        fields.setdefault("grouped_by", "the data set" if "group" in clips else "")
        if "group" not in clips:
            clips["group"] = clips["path"]
        seeded = "fold" not in clips
        fields.setdefault("joins_copies", seeded and not fields["grouped_by"] and fields.get("vectors") is None)
        if seeded:
            clips["fold"] = make_folds(np.array(class_names)[clips["label"]], clips["group"].to_numpy())
        if clips["label"].nunique() < 2:
            only = class_names[clips["label"].iloc[0]]
            raise UserError(f"{name}: all clips are of class '{only}'; at least two classes are needed")
        if fields.get("vectors") is not None:
            fields["vectors"] = fields["vectors"][order]
        return cls(
            name=name,
            root=root,
            clips=clips[CLIP_COLUMNS].astype({"path": str, "label": "int64", "fold": "int64", "group": str}),
            class_names=tuple(class_names),
            attributes=clips.drop(columns=CLIP_COLUMNS),
            has_seeded_folds=seeded,
            **fields,
        )

    def list_folds(self) -> tuple[int, ...]:
        """Return the numbers of the folds that can be the test fold."""
        if self.has_fixed_split:
            return (TEST_FOLD,)
        return tuple(int(fold) for fold in sorted(self.clips["fold"].unique()))

    def split(self, fold: int, *, validation: float = 0.0) -> Split:
        """Split the clips into training, validation and test part. The result is the same at every call.

        Parameters
        ----------
        fold
            Test fold.
        validation
            Fraction of the other clips for validation, 0 to below 1; groups are kept together and classes stratified.
            If possible, every class has validation clips, so the part can be larger than a small fraction. If the set
            has a validation list, any fraction above 0 selects that list.

        Raises
        ------
        UserError
            If the fold does not exist, the fraction is out of range, or no training clips are left.
        """
        if fold not in self.list_folds():
            raise UserError(f"fold {fold}: {self.name} has the folds {', '.join(map(str, self.list_folds()))}")
        if not 0 <= validation < 1:
            raise UserError(f"validation={validation}: must be at least 0 and below 1")
        folds = self.clips["fold"].to_numpy()
        train = self._capped(np.flatnonzero(folds == TRAIN_FOLD if self.has_fixed_split else folds != fold))
        held_out = train[:0]
        if validation and self.has_fixed_split and (folds == VALIDATION_FOLD).any():
            held_out = self._capped(np.flatnonzero(folds == VALIDATION_FOLD))
        elif validation and len(train):
            labels, groups = self.clips["label"].to_numpy()[train], self.clips["group"].to_numpy()[train]
            mask = hold_out(labels, groups, share=validation)
            train, held_out = train[~mask], train[mask]
        if not len(train):
            raise UserError(f"{self.name}: no training clips left for test fold {fold}; it needs more folds")
        return Split(train, held_out, self._capped(np.flatnonzero(folds == fold)))

    def _capped(self, rows: np.ndarray) -> np.ndarray:
        """Return the first `per_class` rows of each class, in the order of `_order`."""
        if not self.per_class:
            return rows
        labels = self.clips["label"].to_numpy()[rows]
        rank = pd.Series(self._order[rows]).groupby(labels).rank()
        return rows[(rank <= self.per_class).to_numpy()]

    @cached_property
    def _order(self) -> np.ndarray:
        """Rank of each clip in a shuffled order that depends only on the paths, (clips,)."""
        digests = [hashlib.sha256(path.encode()).digest() for path in self.clips["path"].tolist()]
        place = np.empty(len(digests), np.int64)
        place[sorted(range(len(digests)), key=digests.__getitem__)] = np.arange(len(digests))
        return place

    def shuffled_paths(self) -> list[str]:
        """Return the paths of the clips in a shuffled order that depends only on the paths."""
        return self.clips["path"].to_numpy(object)[np.argsort(self._order)].tolist()

    def deal_folds(self, n_folds: int = 0) -> "Dataset":
        """Return the data set with new seeded folds (`core.datasets.folds.make_folds`); `n_folds` 0: five."""
        names, groups = np.array(self.class_names)[self.clips["label"]], self.clips["group"].to_numpy()
        recordings = self.number_recordings() if self.joins_copies else None
        new_folds = make_folds(names, groups, n_folds=n_folds, recordings=recordings)
        return replace(self, clips=self.clips.assign(fold=new_folds))

    def number_recordings(self) -> np.ndarray | None:
        """Return a number for each clip, (clips,), equal for identical files; None if no two files are identical."""
        paths = self.clips["path"].tolist()
        numbers = pd.factorize(np.array([self.digests.get(path) or path for path in paths], object))[0]
        return numbers if len(paths) and numbers.max() + 1 < len(paths) else None

    def with_digests(self, cache: Path | None, *, progress: Progress = no_progress) -> "Dataset":
        """Return the data set with the digests of its clips and held-out clips; files that cannot be read have none.

        Parameters
        ----------
        cache, progress
            As in `compute_fingerprint`; without a cache all files are read.
        """
        if self.digests or self.size_fingerprint:
            return self
        paths = self.clips["path"].tolist()
        if self.vectors is not None:
            digests = hash_rows(self.vectors)
        else:
            paths += self.holdout["path"].tolist()
            digests = hash_files(self.name, self.root, paths, cache, skip_unreadable=True, progress=progress)
        return replace(self, digests={path: digest for path, digest in zip(paths, digests, strict=True) if digest})

    def compute_fingerprint(self, cache: Path, *, progress: Progress = no_progress) -> str:
        """Return the SHA-256 (hex) of paths, labels, folds, groups, class names and contents of the data set.

        Parameters
        ----------
        cache
            Folder for the digests of files, in its subfolder ``fingerprints``; unchanged files are not read again.
        progress
            Called with (files read, files to read, description) if it takes seconds.

        Raises
        ------
        UserError
            If a file cannot be read.
        """
        paths = self.clips["path"].tolist()
        contents: list[object]
        if self.vectors is not None:
            contents = [*hash_rows(self.vectors)]
        elif self.size_fingerprint:
            contents = [*get_file_sizes(self.root, paths)]
        elif all(path in self.digests for path in paths):
            contents = [self.digests[path] for path in paths]
        else:
            contents = [*hash_files(self.name, self.root, paths, cache, progress=progress)]
        more: list[object] = [list(self.columns)] if self.columns else []
        more += [file_digest(self.root / table) for table in self.tables]
        more += [{"per_class": self.per_class}] if self.per_class else []
        rows = zip(paths, *(self.clips[column].tolist() for column in CLIP_COLUMNS[1:]), contents, strict=True)
        return hash_content(rows, class_names=self.class_names, more=more)

    def compute_holdout_fingerprint(self, cache: Path) -> str:
        """Return the SHA-256 (hex) of the held-out clips, like `compute_fingerprint` of the others."""
        return replace(self, clips=self.holdout, vectors=self.holdout_vectors).compute_fingerprint(cache)

    def subset(self, mask: np.ndarray, **changes: Any) -> "Dataset":
        """Return a data set of the clips where `mask` (clips,) is True, with `changes` of other fields."""
        clips, attributes = (frame[mask].reset_index(drop=True) for frame in (self.clips, self.attributes))
        vectors = None if self.vectors is None else self.vectors[mask]
        return replace(self, **{"clips": clips, "attributes": attributes, "vectors": vectors, **changes})


def _check_clips(name: str, root: Path, clips: pd.DataFrame, class_names: Sequence[str]) -> None:
    """Raise UserError if the clips cannot form a data set."""
    if clips.empty:
        raise UserError(f"{name}: {root} contains no clips")
    if duplicates := clips.loc[clips["path"].duplicated(), "path"].tolist():
        raise UserError(f"{name}: listed more than once: {format_few(duplicates)}; keep one row for each clip")
    if invalid := [path for path in clips["path"].tolist() if not is_utf8(path)]:
        raise UserError(f"{name}: file names that are not UTF-8: {format_few(invalid)}; rename them")
    counts = clips["label"].value_counts()
    for label in counts.index[counts == 1]:
        path = clips.loc[clips["label"] == label, "path"].item()
        raise UserError(
            f"{name}: class '{class_names[label]}' has a single clip ({path}), but training and testing need one each; "
            "add clips or remove the class"
        )
