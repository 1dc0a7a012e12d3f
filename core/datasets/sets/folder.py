"""Own recordings: one folder per class, or a CSV file. Includes the thirteen classes of two published reports."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from core.datasets.dataset import CLIP_COLUMNS, Dataset
from core.datasets.loader import DataSource, Loader
from core.datasets.metadata import (
    check_columns,
    check_present,
    find_split_groups,
    format_few,
    parse_integers,
    read_rows,
)
from core.errors import UserError

# Suffixes of recordings in a class folder; a CSV file can name any file. The decoder is chosen by the content.
AUDIO_SUFFIXES = (
    ".wav",
    ".flac",
    ".ogg",
    ".oga",
    ".opus",
    ".mp3",
    ".m4a",
    ".aac",
    ".mp4",
    ".au",
    ".aif",
    ".aiff",
    ".wma",
)
HOW_TO_GIVE = (
    "give --data-root a folder with one folder of recordings per class, or a CSV file of path,label[,fold][,group]"
)


def load(root: Path | None = None) -> Dataset:
    """Read a folder of class folders (at any depth below them), or a CSV file.

    Paths in a CSV file are relative to it and must not leave its folder (links can point outside). Without a column
    ``fold``, five seeded folds are drawn, stratified by class, with groups kept together. Without a column ``group``,
    every clip is its own group, but identical files are one group. Classes are sorted by name. By default clips have
    4 s at 22,050 Hz and images are 250 pixels wide, as for UrbanSound8K.

    Raises
    ------
    UserError
        If the folder or file does not exist, a class folder has no recordings, a recording lies outside the class
        folders, or a row is incomplete or invalid.
    """
    if root is None or not root.exists():
        raise UserError(f"folder: {'no data given' if root is None else f'{root} does not exist'}; {HOW_TO_GIVE}")
    if not root.is_dir():
        rows = _read_csv(root)
        return _make_dataset(
            "folder",
            root.parent,
            rows,
            table_columns=tuple(rows.columns),
            used_columns=tuple(column for column in CLIP_COLUMNS if column in rows),
            grouped_by="column group" if "group" in rows else "",
        )
    files = _read_class_folders("folder", root)
    is_audio = files["path"].str.lower().str.endswith(AUDIO_SUFFIXES)
    if empty := sorted(set(files["label"].unique()) - set(files.loc[is_audio, "label"].unique())):
        raise UserError(
            f"folder: {root / empty[0]} has no recordings ({' '.join(AUDIO_SUFFIXES)}); add some or remove it"
        )
    other = sorted(files.loc[~is_audio, "path"])
    remark = f"{len(other)} files without an audio suffix ignored (a CSV file can list them): {format_few(other)}"
    return _make_dataset("folder", root, files[is_audio].copy(), remarks=(remark,) if other else ())


def load_thirteen(root: Path | None = None) -> Dataset:
    """Read thirteen class folders: all files in them that are not hidden, with any suffix.

    The two reports about thirteen classes do not list them, so the names of the folders are the names of the classes. A
    file that is not a recording is an error in training, or is left out with ``--on-bad-clip skip``.

    Raises
    ------
    UserError
        If the folder does not exist, a class is empty, or the number of classes is not 13.
    """
    if root is None or not root.is_dir():
        raise UserError(THIRTEEN_SOURCE.explain_how_to_get("thirteen-classes", root))
    clips = _read_class_folders("thirteen-classes", root)
    if (count := clips["label"].nunique()) != 13:
        raise UserError(f"thirteen-classes: {root} has {count} class folders, not 13; use --data folder")
    return _make_dataset("thirteen-classes", root, clips)


def _make_dataset(name: str, root: Path, clips: pd.DataFrame, **fields: Any) -> Dataset:
    class_names = sorted(clips["label"].unique())
    clips["label"] = clips["label"].map({label: number for number, label in enumerate(class_names)})
    return Dataset.from_rows(
        name, root, clips, class_names=class_names, sr=22_050, duration=4.0, n_frames=250, joins_copies=True, **fields
    )


def _read_class_folders(name: str, root: Path) -> pd.DataFrame:
    """Return all files in the class folders of `root` that are not hidden: path, and folder as label."""
    paths: list[str] = []
    labels: list[str] = []
    for label in sorted(entry.name for entry in _list_visible(root) if entry.is_dir()):
        if not (paths_of_class := list(find_files(root / label, f"{label}/"))):
            raise UserError(f"{name}: {root / label} has no recording ({' '.join(AUDIO_SUFFIXES)}); fill or remove it")
        paths += paths_of_class
        labels += [label] * len(paths_of_class)
    if not paths:
        raise UserError(f"{name}: {root} has no class folders; {HOW_TO_GIVE}")
    names = sorted(entry.name for entry in _list_visible(root) if entry.is_file())
    if loose := [file for file in names if Path(file).suffix.lower() in AUDIO_SUFFIXES]:
        raise UserError(
            f"{name}: {root} holds {len(loose)} recordings outside the class folders: {format_few(loose)}; move them "
            "into the folder of their class, or remove them"
        )
    return pd.DataFrame({"path": paths, "label": labels})


def find_files(folder: Path, prefix: str = "") -> Iterator[str]:
    """Yield the paths of all files in a folder that are not hidden, at any depth, relative to it and after `prefix`.

    Links to files are included; links to folders are not followed.
    """
    for entry in _list_visible(folder):
        if entry.is_file():
            yield prefix + entry.name
        elif entry.is_dir(follow_symlinks=False):
            yield from find_files(folder / entry.name, f"{prefix}{entry.name}/")


def _list_visible(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder that are not hidden."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from None


def _read_csv(table: Path) -> pd.DataFrame:
    rows = read_rows(table, ["path", "label"])
    optional = [column for column in ("fold", "group") if column in rows]
    check_columns(table, rows, optional)
    if "fold" in rows:
        rows["fold"] = parse_integers(table, rows, "fold", at_least=1)
    if len(optional) == 2 and (leaks := find_split_groups(rows)):
        raise UserError(
            f"{table}: in more than one fold: group {format_few(leaks)}; put all clips of a group into one fold"
        )
    _check_paths(table, rows["path"].tolist())
    check_present("folder", table.parent, rows["path"].tolist(), remedy=f"correct the paths in {table}")
    return rows


def _check_paths(table: Path, paths: Sequence[str]) -> None:
    """Raise UserError if a path leaves the folder of the table, or two paths are the same file."""
    seen: dict[str, str] = {}
    for number, path in enumerate(paths, start=1):
        plain = os.path.normpath(os.path.relpath(path, table.parent) if Path(path).is_absolute() else path)
        if plain.split("/")[0] == "..":
            raise UserError(
                f"{table}: row {number}: {path} is outside the folder of the table; move the table up, or link the clip"
            )
        if plain in seen:
            raise UserError(f"{table}: {seen[plain]} and {path} are the same file; keep one row for each clip")
        seen[plain] = path


THIRTEEN_SOURCE = DataSource(layout=("one folder of recordings for each of the 13 classes",))
THIRTEEN_LOADER = Loader(
    load_thirteen,
    "Sounds of up to 4 s in the 13 classes of two reports, in any format, 5 seeded folds.",
    THIRTEEN_SOURCE,
    known_problems=("Laughter_284 is damaged", "some files have a wrong extension, which does not matter for decoding"),
)
LOADER = Loader(load, "Your own recordings: one folder per class, or a CSV file of path,label[,fold][,group].")
