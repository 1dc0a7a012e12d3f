"""Own recordings: one folder per class, a CSV file, or a layout of Hugging Face; and thirteen published classes."""

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from core.datasets.dataset import TEST_FOLD, TRAIN_FOLD, VALIDATION_FOLD, Dataset
from core.datasets.loader import DataSource, Loader
from core.datasets.metadata import check_columns, check_present, format_few, read_rows
from core.datasets.sets.hugging_face import (
    AUDIO_COLUMN,
    FILE_COLUMN,
    HUB_PREFIX,
    RowTable,
    find_metadata,
    find_packed_files,
    read_hub,
    read_metadata,
    read_packed_files,
)
from core.datasets.split_names import TABLE_COLUMNS, number_folds, number_parts, parse_fold, parse_part, read_folds
from core.errors import UserError, unknown_name_error

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
# Folders that macOS, Windows, Synology and Linux create.
SYSTEM_FOLDERS = ("__MACOSX", "System Volume Information", "$RECYCLE.BIN", "@eaDir", "lost+found")
SPEECH_COMMANDS_LISTS = ("testing_list.txt", "validation_list.txt")
PART_ORDER = (TRAIN_FOLD, VALIDATION_FOLD, TEST_FOLD)  # order in messages
HOW_TO_SPLIT = "put one folder per class into each of them, and nothing beside them"
HOW_TO_GIVE = (
    "give --data-root a folder with one folder of recordings per class, a CSV file of path,label[,fold][,group], or a "
    "data set of Hugging Face: a folder with metadata.csv, Parquet files, or hub:OWNER/NAME"
)


def load(
    root: Path | None = None, *, columns: Mapping[str, str] = MappingProxyType({}), cache: Path | None = None
) -> Dataset:
    """Read a folder of class folders (at any depth below them), a CSV file, or a data set in a Hugging Face layout.

    Folders such as ``train`` and ``test``, or ``fold1`` and ``fold2``, that contain the class folders or are in all of
    them, are the split or the folds. So is the column ``split`` or ``fold`` of a CSV file. The layouts of Hugging Face
    are described in `core.datasets.sets.hugging_face`.

    Paths in a CSV file are relative to it and must not leave its folder (links can point outside). Without a column
    ``fold``, five seeded folds are drawn, stratified by class, with groups kept together. Without a column ``group``,
    every clip is a separate group; identical files are one group. Classes are sorted by name. `load_dataset` chooses
    sampling rate, clip length and image width from the recordings; if no header can be read, clips have 4 s at 22,050
    Hz and images are 250 pixels wide, as for UrbanSound8K.

    Parameters
    ----------
    root
        Folder, CSV or Parquet file, or ``hub:owner/name``.
    columns
        Column of the table for each meaning (path, label, fold, split, group); default: the column of this name.
    cache
        Folder for recordings that are in Parquet files or on the hub.

    Raises
    ------
    UserError
        If the folder or file does not exist, a class folder has no recordings, a recording lies outside the class
        folders, or a row is incomplete or invalid.
    """
    if root is not None and str(root).startswith(HUB_PREFIX):
        return _make_from_table(
            read_hub(str(root)[len(HUB_PREFIX) :], cache, columns.get("path", AUDIO_COLUMN)), columns
        )
    if root is None or not root.exists():
        raise UserError(f"folder: {'no data given' if root is None else f'{root} does not exist'}; {HOW_TO_GIVE}")
    if (root.is_file() or root.is_dir()) and (packed := find_packed_files(root)):
        return _make_from_table(read_packed_files(root, packed, cache, columns.get("path", AUDIO_COLUMN)), columns)
    if not root.is_dir():
        return _make_from_table(_read_table(root, columns), columns)
    metadata = find_metadata(root)
    if metadata and (table := read_metadata(root, metadata, columns)):
        return _make_from_table(table, columns)
    hint = _point_to_table(root)
    if metadata and not hint:
        hint = f"to use {metadata[0].name}, which lacks the column {FILE_COLUMN}, give --columns path=COLUMN"
    if columns:
        raise UserError(f"--columns: {root} has class folders and no columns; {hint or 'leave it out'}")
    if all((root / name).is_file() for name in SPEECH_COMMANDS_LISTS):
        raise UserError(f"folder: {root} has {' and '.join(SPEECH_COMMANDS_LISTS)}; use --data speech-commands")
    try:
        files = _read_class_folders("folder", root)
        if files["label"].nunique() < 2 and hint:
            raise UserError(f"folder: {root} has a single class folder, {files['label'].iloc[0]}")
    except UserError as error:
        raise UserError(f"{error}; {hint}" if hint else str(error)) from None
    is_audio = files["path"].str.lower().str.endswith(AUDIO_SUFFIXES)
    if empty := sorted(set(files["label"].unique()) - set(files.loc[is_audio, "label"].unique())):
        raise UserError(
            f"folder: {root / empty[0]} has no recordings ({' '.join(AUDIO_SUFFIXES)}); add some or remove it"
        )
    other = sorted(files.loc[~is_audio, "path"])
    remark = f"{len(other)} files without an audio suffix ignored (a CSV file can list them): {format_few(other)}"
    clips = files[is_audio].copy()
    fields = {"remarks": (), **_read_split_folders(root, clips)}
    fields["remarks"] += (remark,) if other else ()
    fields["remarks"] += (f"labels are the names of the folders; {hint}",) if hint else ()
    return _make_dataset("folder", root, clips, **fields)


def _point_to_table(root: Path) -> str:
    """Return a hint on how to use the CSV file in `root` that lists its recordings; "" if there is no such file."""
    for entry in sorted(_list_visible(root), key=lambda entry: entry.name):
        if entry.name.lower().endswith(".csv") and entry.is_file():
            with contextlib.suppress(UserError, OSError, ValueError):
                rows = read_rows(Path(entry.path), [], optional=["path", FILE_COLUMN, "label"])
                cells = zip(map(str, rows.columns), rows.iloc[:1].to_numpy().ravel().tolist(), strict=False)
                paths = [name for name, value in cells if value and (root / value).is_file()]
                if not paths:
                    continue
                columns = [] if {"path", FILE_COLUMN} & {*paths} else [f"path={paths[0]}"]
                columns += [] if "label" in rows else ["label=COLUMN"]
                option = f" --columns {' '.join(columns)}" if columns else ""
                return f"to use the labels in {entry.name}, give --data-root {entry.path}{option}"
    return ""


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
    for label in sorted(entry.name for entry in _list_visible(root) if _is_folder(entry)):
        if not (paths_of_class := list(find_files(root / label, f"{label}/", above=_identity(root)))):
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


def _read_split_folders(root: Path, clips: pd.DataFrame) -> dict[str, Any]:
    """Read folders such as train and test, or fold1 and fold2, above or below the class folders.

    Parameters
    ----------
    root
        Folder of the data set.
    clips
        Path and label of each clip; labels are corrected, and a column ``fold`` is added.

    Returns
    -------
    dict
        Fields of the data set; empty if all folders are classes.

    Raises
    ------
    UserError
        If such folders are incomplete, are mixed with others, or have no class folders.
    """
    folders = [tuple(path.split("/")[:-1]) for path in clips["path"]]  # of each clip; the first is its class folder
    for level in (0, 1):
        names = list(dict.fromkeys(names[level] for names in folders if len(names) > level))
        split, folds = number_parts(names), number_folds(names)
        if numbers := split or folds:
            break
    else:
        _check_no_lone_part(root, sorted(clips["label"].unique()))
        return {}
    kind = "split" if split else "folds"
    order = {name: PART_ORDER.index(parse_part(name) or TEST_FOLD) if split else numbers[name] for name in numbers}
    found = sorted(numbers, key=lambda name: (order[name], name))
    named = f"{format_few(found)} are {'a split' if split else 'folds'}"
    if other := sorted({names[0] for names in folders if len(names) <= level or names[level] not in numbers}):
        if level:
            raise UserError(
                f"folder: {root}: in class folders, {named}, but {format_few(other)} has recordings outside them; move "
                "these recordings into them"
            )
        raise UserError(
            f"folder: {root}: {named} and no classes, but {format_few(other)} is beside them; {HOW_TO_SPLIT}"
        )
    if direct := [name for name in found if any(names == (name,) for names in folders)]:
        tables = sorted(file.name for file in root.glob("*.csv"))
        hint = f", such as {tables[0]}," if tables else ""
        known = "" if split else "; for UrbanSound8K use --data urbansound8k"
        raise UserError(
            f"folder: {root}: {named} and no classes, but recordings in {format_few(direct)} are not in class folders; "
            f"{HOW_TO_SPLIT}, or give --data-root a CSV file{hint} of path,label[,fold]{known}"
        )
    if min(numbers.values()) < 1:
        raise UserError(f"folder: {root}: {found[0]}: folds are numbered from 1; rename the folders")
    clips["label"] = [names[1 - level] for names in folders]
    clips["fold"] = [numbers[names[level]] for names in folders]
    remark = f"the folders {' and '.join([', '.join(found[:-1]), found[-1]])} are the {kind}"
    if split and TEST_FOLD not in map(parse_part, found):
        remark += f"; there is no folder test, so {' and '.join(n for n in found if numbers[n] == TEST_FOLD)} is tested"
    return {"has_fixed_split": bool(split), "remarks": (remark,)}


def _check_no_lone_part(root: Path, names: Sequence[str]) -> None:
    """Raise UserError if all folders have names of parts or folds, but are neither a split nor folds."""
    if not all(parse_part(name) or parse_fold(name) is not None for name in names):
        return
    if len(names) == 1:
        raise UserError(f"folder: {root}: {names[0]} is no class; give --data-root {root / names[0]}")
    raise UserError(
        f"folder: {root}: {format_few(names)} are no classes, and a split needs folders train and test; {HOW_TO_SPLIT}"
    )


def find_files(folder: Path, prefix: str = "", *, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[str]:
    """Yield the paths of all files in a folder that are not hidden, at any depth, relative to it and after `prefix`.

    Links to files and folders are followed, except to a folder that contains them. Broken links are included, as they
    may stand for recordings.

    Parameters
    ----------
    folder, prefix
        The folder, and the text before each path.
    above
        Device and inode of the folders that contain `folder`.

    Raises
    ------
    UserError
        If a folder cannot be read, or a broken link without a suffix may be a folder of recordings.
    """
    above |= _identity(folder)
    for entry in _list_visible(folder):
        if _is_folder(entry):
            if not _identity(folder / entry.name) <= above:
                yield from find_files(folder / entry.name, f"{prefix}{entry.name}/", above=above)
        elif entry.is_symlink() or entry.is_file():
            yield prefix + entry.name


def _identity(folder: Path) -> frozenset[tuple[int, int]]:
    """Return device and inode of a folder, or of the target of a link to a folder."""
    status = folder.stat()
    return frozenset([(status.st_dev, status.st_ino)])


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one; raise UserError for a broken link that may be one."""
    try:
        entry.stat()
    except OSError as error:
        if error.errno == errno.ELOOP or (error.errno == errno.ENOENT and Path(entry.name).suffix):
            return False
        reason = "a broken link" if error.errno == errno.ENOENT else f"cannot be read ({error.strerror})"
        raise UserError(f"{entry.path}: {reason}; repair or remove it") from None
    return entry.is_dir()


def _list_visible(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder that are not hidden."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not is_hidden(entry.name)]
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from None


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, or made by an operating system or a network drive."""
    return name.startswith(".") or name in SYSTEM_FOLDERS


def _read_table(table: Path, columns: Mapping[str, str]) -> RowTable:
    """Read a CSV file; the paths are in column ``path``, or ``file_name`` if there is none."""
    rows = read_rows(table, [], optional=[*columns.values(), "path", FILE_COLUMN, "label", *TABLE_COLUMNS])
    column = columns.get("path") or ("path" if "path" in rows or FILE_COLUMN not in rows else FILE_COLUMN)
    return RowTable(table, table.parent, rows.assign(path=rows[column]) if column in rows else rows, (), column)


def _make_from_table(table: RowTable, columns: Mapping[str, str]) -> Dataset:
    """Make the data set of a table; `columns` is as in `load`."""
    rows, source = table.rows, table.source
    names = dict.fromkeys([table.path_column, *map(str, rows.columns)])
    table_columns = tuple(name for name in names if name != "path" or table.path_column == "path")
    if unknown := [name for name in columns.values() if name not in (*rows.columns, table.path_column)]:
        raise unknown_name_error(f"column of {source}:", unknown[0], table_columns)
    rows = rows.assign(**{meaning: rows[name] for meaning, name in columns.items() if meaning != "path"})
    if missing := [meaning for meaning in ("path", "label") if meaning not in rows]:
        raise UserError(
            f"{source}: lacks the column {', '.join(missing)}; it has {', '.join(map(str, rows.columns))}; "
            f"give --columns {' '.join(f'{meaning}=COLUMN' for meaning in missing)}"
        )
    check_columns(source, rows, ["path", "label"])
    folds, used = read_folds(source, rows)
    _check_paths(source, table.root, rows["path"].tolist())
    rows = rows.assign(path=[_make_relative(path, table.root) for path in rows["path"]])
    check_present("folder", table.root, rows["path"].tolist(), remedy=f"correct the paths in {source}")
    own = {"path": table.path_column, **columns}
    return _make_dataset(
        "folder",
        table.root,
        rows.assign(**folds),
        table_columns=table_columns,
        used_columns=tuple(own.get(meaning, meaning) for meaning in ("path", "label", *used)),
        grouped_by=f"column {own.get('group', 'group')}" if "group" in used else "",
        has_fixed_split="split" in used,
        remarks=table.remarks,
    )


def _make_relative(path: str, root: Path) -> str:
    """Return an absolute path relative to the folder `root`, and any other path unchanged."""
    return os.path.relpath(path, root) if Path(path).is_absolute() else path


def _check_paths(table: Path, root: Path, paths: Sequence[str]) -> None:
    """Raise UserError if a path leaves the folder `root` of a table, or two paths are the same file."""
    seen: dict[str, str] = {}
    for number, path in enumerate(paths, start=1):
        plain = os.path.normpath(_make_relative(path, root))
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
LOADER = Loader(
    load,
    "Your own recordings: one folder per class, a CSV file of path,label[,fold or split][,group], or AudioFolder, "
    "Parquet or hub:NAME of Hugging Face.",
    is_own_data=True,
)
