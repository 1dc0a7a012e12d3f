"""Clips to predict: recordings in a folder or a CSV file, a single recording, or rows of a feature table."""

import contextlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from core.audio.decoding import read_header
from core.datasets.dataset import Dataset
from core.datasets.metadata import check_columns, format_few, read_rows
from core.datasets.sets.feature_table import CLIP_COLUMN
from core.datasets.sets.folder import AUDIO_SUFFIXES, find_files
from core.errors import UserError
from core.system.atomic_files import is_utf8
from core.system.native_stderr import silence_native_stderr

MAX_READ_HEADERS = 1000  # recordings whose sampling rate is read
PATH_COLUMN = "path"  # column of a CSV file that names recordings


@dataclass(frozen=True)
class UnlabelledClips:
    """Recordings or rows of a feature table, in order, without labels.

    Attributes
    ----------
    root
        Folder that the paths are relative to.
    paths
        Path of each recording (POSIX), or name of each row of a feature table.
    vectors
        Features (rows, features), float32, NaN if a cell is not a number; None for recordings.
    problems
        Reason why a row cannot be used, by its name.
    remarks
        Notes on skipped files, one line each.
    """

    root: Path
    paths: tuple[str, ...]
    vectors: np.ndarray | None = None
    problems: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def find_recordings(path: Path) -> UnlabelledClips:
    """Find recordings: all in a folder, those in column ``path`` of a CSV file, or a single file.

    In a folder, files with the suffix of a recording are found at any depth, except hidden ones. Paths in a CSV file
    are relative to it and can have any suffix; missing files are noticed when they are read.

    Raises
    ------
    UserError
        If the path does not exist, the folder has no recordings, the CSV file lacks the column, or a recording is
        listed twice.
    """
    if path.is_dir():
        return _find_in_folder(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if path.suffix.lower() != ".csv":
        return UnlabelledClips(path.parent, (path.name,))
    rows = read_rows(path, [], optional=[PATH_COLUMN])
    if PATH_COLUMN not in rows:
        raise UserError(
            f"{path}: lacks the column {PATH_COLUMN}, which names the recordings; it has "
            f"{format_few(list(rows.columns))}"
        )
    check_columns(path, rows, [PATH_COLUMN])
    return _check_names(path, UnlabelledClips(path.parent, tuple(rows[PATH_COLUMN])))


def find_feature_rows(path: Path, columns: Sequence[str]) -> UnlabelledClips:
    """Read the features `columns` from a CSV file with a column ``filename``.

    Raises
    ------
    UserError
        If the file or a column is missing, or a row is listed twice.
    """
    if not path.is_file():
        raise UserError(f"{path}: the network needs features; give a CSV file of {CLIP_COLUMN}, {format_few(columns)}")
    rows = read_rows(path, [CLIP_COLUMN])
    if missing := [column for column in columns if column not in rows]:
        raise UserError(f"{path}: lacks {len(missing)} of the network's {len(columns)} features: {format_few(missing)}")
    names = tuple(rows[CLIP_COLUMN])
    cells = rows[list(columns)]
    vectors = cells.apply(pd.to_numeric, errors="coerce").to_numpy(np.float32)
    first = np.argmin(np.isfinite(vectors), axis=1)  # 0 if all values of a row are finite
    problems = {
        name: f"{columns[place]} is '{text}', not a finite number"
        for name, place, text, number in zip(
            names, first, cells.to_numpy()[range(len(names)), first], vectors[range(len(names)), first], strict=True
        )
        if not np.isfinite(number)
    }
    return _check_names(path, UnlabelledClips(path.parent, names, vectors, problems))


def join_recordings(parts: Sequence[UnlabelledClips]) -> UnlabelledClips:
    """Join recordings of several folders; their paths become relative to the common parent folder.

    Raises
    ------
    UserError
        If a recording is listed more than once.
    """
    if len(parts) == 1:
        return parts[0]
    roots = [part.root.absolute() for part in parts]
    root = Path(os.path.commonpath(roots))
    prefixes = [folder.relative_to(root) for folder in roots]
    paths = tuple((p / path).as_posix() for p, part in zip(prefixes, parts, strict=True) for path in part.paths)
    problems = {
        (p / k).as_posix(): v for p, part in zip(prefixes, parts, strict=True) for k, v in part.problems.items()
    }
    vectors = [part.vectors for part in parts if part.vectors is not None]
    remarks = tuple(remark for part in parts for remark in part.remarks)
    return _check_names(
        root, UnlabelledClips(root, paths, np.concatenate(vectors) if vectors else None, problems, remarks)
    )


def get_holdout(dataset: Dataset) -> UnlabelledClips:
    """Return the held-out clips of a data set."""
    return UnlabelledClips(dataset.root, tuple(dataset.holdout["path"]), dataset.holdout_vectors)


def describe_low_rates(clips: UnlabelledClips, sr: int) -> list[str]:
    """Return one line if recordings have a lower sampling rate than the inputs of a network, `sr` in Hz.

    The headers of the first 1,000 recordings are read.
    """
    if clips.vectors is not None:
        return []
    rates = []
    with silence_native_stderr():
        for path in clips.paths[:MAX_READ_HEADERS]:
            with contextlib.suppress(OSError), (clips.root / path).open("rb", buffering=0) as file:
                if header := read_header(file):
                    rates.append(header.sr)
    low = [rate for rate in rates if 0 < rate < sr]
    if not low:
        return []
    return [
        f"{len(low):,} of {len(rates):,} recordings have a sampling rate below the {sr} Hz of the network: above "
        f"{min(low) / 2:g} Hz their inputs are empty, and predictions can be wrong"
    ]


def _find_in_folder(root: Path) -> UnlabelledClips:
    files = sorted(find_files(root))
    recordings = [path for path in files if path.lower().endswith(AUDIO_SUFFIXES)]
    if not recordings:
        raise UserError(f"{root}: has no recordings ({' '.join(AUDIO_SUFFIXES)}); a CSV file can list other files")
    other = [path for path in files if not path.lower().endswith(AUDIO_SUFFIXES)]
    remark = f"files without the suffix of a recording are ignored: {format_few(other)}"
    return _check_names(root, UnlabelledClips(root, tuple(recordings), remarks=(remark,) if other else ()))


def _check_names(source: Path, clips: UnlabelledClips) -> UnlabelledClips:
    if not clips.paths:
        raise UserError(f"{source}: has no rows")
    if invalid := [path for path in clips.paths if not is_utf8(path)]:
        raise UserError(f"{source}: file names that are not UTF-8: {format_few(invalid)}; rename them")
    names = clips.paths if clips.vectors is not None else map(os.path.normpath, clips.paths)
    if duplicates := [path for path, times in Counter(names).items() if times > 1]:
        raise UserError(f"{source}: named more than once: {format_few(duplicates)}; keep one row for each")
    return clips
