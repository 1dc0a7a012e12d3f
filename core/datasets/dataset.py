"""A data set: the table of its clips, its checks, its splits and its fingerprint."""

import hashlib
from collections.abc import Sequence
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
from core.io.atomic_files import file_digest, is_utf8
from core.progress import Progress, no_progress

CLIP_COLUMNS = ["path", "label", "fold", "group"]
TEST_FOLD, TRAIN_FOLD, VALIDATION_FOLD = 1, 2, 3  # what the folds of a fixed split are


class Split(NamedTuple):
    """Rows of `Dataset.clips` for each purpose: int64 indices, ascending, no clip in two of them."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set.

    Attributes
    ----------
    name
        Its name in the registry.
    root
        Folder the paths are relative to.
    clips
        One row per clip, sorted by path: ``path`` (POSIX, relative to `root`), ``label`` (index into `class_names`),
        ``fold`` (1 ..), ``group`` (what clips were cut from).
    class_names
        Name of each label.
    sr, duration, n_frames
        The set's own sampling rate in Hz, clip length in seconds and image width in pixels.
    attributes
        (clips,) rows of further metadata, such as pitch; any column can be the label (`core.datasets.select`).
    has_fixed_split
        The set has one test list (fold 1), a training list (fold 2) and often a validation list (fold 3), instead of
        folds for cross-validation.
    has_seeded_folds
        The set has no official folds, so seeded ones were made, and `core.datasets.select` may make others.
    size_fingerprint
        The fingerprint uses the sizes of files instead of their content, for sets too large to read.
    vectors, columns
        For clips that are rows of a feature table: float32 (clips, features), and the name of each feature.
    tables
        Further files, relative to `root`, whose content is part of the fingerprint.
    per_class
        Largest number of clips per class in each of the training, test and validation parts; 0: no limit.
    holdout
        The clips held out for a final test, with the columns of `clips`; no split contains them
        (`core.datasets.select`).
    left_out
        Paths of recordings of the set that are neither in `clips` nor in `holdout`.
    remarks
        Notes for the user on what was left out or found, a line each.
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
    per_class: int = 0
    holdout: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=CLIP_COLUMNS))
    left_out: frozenset[str] = frozenset()
    remarks: tuple[str, ...] = ()

    @classmethod
    def from_rows(
        cls, name: str, root: Path, rows: pd.DataFrame, *, class_names: Sequence[str], **fields: Any
    ) -> "Dataset":
        """Make a data set of unsorted rows, and check it.

        Parameters
        ----------
        name, root, class_names
            As in `Dataset`.
        rows
            One row per clip, with the columns of `clips`. Without ``group`` every clip is its own group; without
            ``fold`` seeded folds are made (`core.datasets.folds.make_folds`). Further columns become `attributes`.
        fields
            The other fields of `Dataset`; `vectors` in the order of `rows`.

        Raises
        ------
        UserError
            If there are no clips, a clip is listed twice, a file name is not UTF-8, there is only one class, or a class
            has a single clip or (where folds are made) a single group.
        """
        clips = rows.reset_index(drop=True).sort_values("path", kind="stable")
        order = clips.index.to_numpy()
        clips = clips.reset_index(drop=True)
        _check_clips(name, root, clips, class_names)
        if "group" not in clips:
            clips["group"] = clips["path"]
        if seeded := "fold" not in clips:
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
        """Return the folds that can be tested on."""
        if self.has_fixed_split:
            return (TEST_FOLD,)
        return tuple(int(fold) for fold in sorted(self.clips["fold"].unique()))

    def split(self, fold: int, *, validation: float = 0.0) -> Split:
        """Divide the clips.

        Parameters
        ----------
        fold
            The fold to test on.
        validation
            Share of the other folds' clips, 0 to below 1, held out by group and stratified by class (a class of two
            groups or more is there if it can be, so a small share may come out larger). The same at every call. Of a
            fixed split that has one, any share above 0 takes its own validation list; at 0 that list goes unused.

        Raises
        ------
        UserError
            For a fold that does not exist (listing those that do), a share out of range, or nothing left to train on.
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
            raise UserError(f"{self.name}: nothing is left to train on when fold {fold} is tested; it needs more folds")
        return Split(train, held_out, self._capped(np.flatnonzero(folds == fold)))

    def _capped(self, rows: np.ndarray) -> np.ndarray:
        """Keep `per_class` clips of each class: those that come first in an order that a path alone decides."""
        if not self.per_class:
            return rows
        labels = self.clips["label"].to_numpy()[rows]
        rank = pd.Series(self._order[rows]).groupby(labels).rank()
        return rows[(rank <= self.per_class).to_numpy()]

    @cached_property
    def _order(self) -> np.ndarray:
        """The place of each clip in a shuffled order: the same for a clip whatever others the set holds."""
        digests = [hashlib.sha256(path.encode()).digest() for path in self.clips["path"].tolist()]
        place = np.empty(len(digests), np.int64)
        place[sorted(range(len(digests)), key=digests.__getitem__)] = np.arange(len(digests))
        return place

    def compute_fingerprint(self, cache: Path, *, progress: Progress = no_progress) -> str:
        """Return the SHA-256, in hex, of all that the set is: paths, labels, folds, groups, class names and contents.

        Parameters
        ----------
        cache
            Folder in which the digests of unchanged files are remembered (``fingerprints/``).
        progress
            Called with (files read, files to be read, what is being done), where that takes seconds.

        Raises
        ------
        UserError
            Where a file cannot be read.
        """
        paths = self.clips["path"].tolist()
        contents: list[object]
        if self.vectors is not None:
            contents = [*hash_rows(self.vectors)]
        elif self.size_fingerprint:
            contents = [*get_file_sizes(self.root, paths)]
        else:
            contents = [*hash_files(self.name, self.root, paths, cache, progress=progress)]
        more: list[object] = [list(self.columns)] if self.columns else []
        more += [file_digest(self.root / table) for table in self.tables]
        more += [{"per_class": self.per_class}] if self.per_class else []
        rows = zip(paths, *(self.clips[column].tolist() for column in CLIP_COLUMNS[1:]), contents, strict=True)
        return hash_content(rows, class_names=self.class_names, more=more)

    def subset(self, mask: np.ndarray, **changes: Any) -> "Dataset":
        """Return the set with only the clips where `mask` (clips,) is true, and with other fields changed."""
        clips, attributes = (frame[mask].reset_index(drop=True) for frame in (self.clips, self.attributes))
        vectors = None if self.vectors is None else self.vectors[mask]
        return replace(self, **{"clips": clips, "attributes": attributes, "vectors": vectors, **changes})


def _check_clips(name: str, root: Path, clips: pd.DataFrame, class_names: Sequence[str]) -> None:
    """Raise UserError for clips that cannot form a data set."""
    if clips.empty:
        raise UserError(f"{name}: {root} holds no clips")
    if twice := clips.loc[clips["path"].duplicated(), "path"].tolist():
        raise UserError(f"{name}: listed more than once: {format_few(twice)}; keep one row for each clip")
    if odd := [path for path in clips["path"].tolist() if not is_utf8(path)]:
        raise UserError(f"{name}: file names that are no UTF-8: {format_few(odd)}; rename them")
    counts = clips["label"].value_counts()
    for label in counts.index[counts == 1]:
        path = clips.loc[clips["label"] == label, "path"].item()
        raise UserError(
            f"{name}: class '{class_names[label]}' has a single clip ({path}), which cannot be both trained and tested "
            "on; add clips or remove the class"
        )
