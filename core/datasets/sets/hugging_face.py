"""Data sets in the layouts of Hugging Face: AudioFolder, Parquet, ``save_to_disk``, and names on the hub.

AudioFolder is a folder of recordings with ``metadata.csv`` or ``metadata.jsonl``, also one in each of the folders
``train``, ``test`` and ``validation``. Parquet and Arrow files contain the recordings; they are written once into a
folder of the cache, because everything else reads files.
"""

import importlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from core.datasets.fingerprint import hash_files
from core.datasets.metadata import read_rows
from core.datasets.split_names import number_parts, parse_part
from core.errors import UserError
from core.system.atomic_files import text_digest

HUB_PREFIX = "hub:"  # start of a --data-root that names a data set on the Hugging Face hub
METADATA_NAMES = ("metadata.csv", "metadata.jsonl")
FILE_COLUMN = "file_name"  # column with the paths in metadata files
AUDIO_COLUMN = "audio"  # column with the recordings in Parquet files
PACKED_SUFFIXES = (".parquet", ".arrow")
ROWS_FILE = "rows.parquet"  # in a folder of the cache: path and columns of each recording
ROWS_PER_BATCH = 64
SUFFIXES_BY_START = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3", b"\xff\xfb": ".mp3"}


@dataclass(frozen=True)
class RowTable:
    """Rows of recordings.

    Attributes
    ----------
    source
        File or folder that messages name.
    root
        Folder that the paths are relative to.
    rows
        One row per recording with all cells as text: ``path``, the columns of the data set, and ``split`` if its parts
        are a split.
    remarks
        Notes for the user, one line each.
    path_column
        Column of the data set that names or contains the recordings.
    """

    source: Path
    root: Path
    rows: pd.DataFrame
    remarks: tuple[str, ...] = ()
    path_column: str = "path"


def find_metadata(root: Path) -> list[Path]:
    """Return the metadata files of an AudioFolder in `root`: its own, or those of its folders; empty if none."""
    for folder in (root, root / "data"):
        own = [folder / name for name in METADATA_NAMES if (folder / name).is_file()]
        below = (
            [file for name in METADATA_NAMES for file in sorted(folder.glob(f"*/{name}"))] if folder.is_dir() else []
        )
        if own or (below := [file for file in below if parse_part(file.parent.name)]):
            return own or below
    return []


def read_metadata(root: Path, files: Sequence[Path], columns: Mapping[str, str]) -> RowTable | None:
    """Read the metadata files of an AudioFolder. Without a label, the class folders of the recordings are the labels.

    Parameters
    ----------
    root, files
        The folder, and its metadata files.
    columns
        Column for each meaning; the default for paths, which are relative to the metadata file, is ``file_name``.

    Returns
    -------
    RowTable or None
        None if the files have no column ``file_name``, so that the folder is no AudioFolder.

    Raises
    ------
    UserError
        If a folder has two metadata files, or one cannot be read or lacks a column.
    """
    path_column = columns.get("path", FILE_COLUMN)
    folders = [file.parent for file in files]
    if len(set(folders)) < len(files):
        raise UserError(f"{folders[0]} has {' and '.join(METADATA_NAMES)}; remove one")
    tables = []
    for file in files:
        rows = (
            _read_json_lines(file) if file.suffix == ".jsonl" else read_rows(file, [], optional=[path_column, "label"])
        )
        if path_column not in rows:
            if "path" not in columns and file is files[0]:
                return None
            raise UserError(f"{file}: lacks the column {path_column}; it has {', '.join(map(str, rows.columns))}")
        inside = file.parent.relative_to(root).as_posix()
        rows["path"] = [_join(inside, path) for path in rows[path_column]]
        tables.append(rows)
    rows = pd.concat(tables, ignore_index=True).fillna("")
    rows, remarks = _add_split(rows, _list_parts(rows["path"]))
    if "label" not in rows and "label" not in columns and (labels := _list_class_folders(rows["path"])):
        rows, remarks = rows.assign(label=labels), (*remarks, "labels are the names of the folders")
    return RowTable(files[0] if len(files) == 1 else root, root, rows, remarks, path_column)


def _join(folder: str, path: str) -> str:
    """Return a path relative to the data set; absolute paths are unchanged. Paths outside it are refused later."""
    return path if folder == "." or Path(path).is_absolute() else f"{folder}/{path}"


def _list_parts(paths: Iterable[str]) -> list[str]:
    """Return the folder of each path that could name a part: the first one, or the one in ``data``."""
    folders = [PurePosixPath(path).parts[:-1] for path in paths]
    return [next((name for name in names if name != "data"), "") for names in folders]


def _list_class_folders(paths: Iterable[str]) -> list[str]:
    """Return the folder of each path below folders of a split; empty if there are no class folders."""
    folders = [[name for name in PurePosixPath(path).parts[:-1] if not parse_part(name)] for path in paths]
    names = [found[0] if found else "" for found in folders]
    return names if all(names) and len(set(names)) > 1 else []


def _add_split(rows: pd.DataFrame, parts: Sequence[str]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the rows with a column ``split``, if `parts` (of each row) are a split and there is no such column."""
    names = list(dict.fromkeys(parts))
    if "split" in rows or "fold" in rows or not number_parts(names) or not all(map(parse_part, names)):
        return rows, ()
    return rows.assign(split=list(parts)), (
        f"the parts {' and '.join([', '.join(names[:-1]), names[-1]])} are the split",
    )


def _read_json_lines(file: Path) -> pd.DataFrame:
    """Return the objects of a file with one JSON object in each line, as text; a missing key is ""."""
    rows = []
    try:
        for number, line in enumerate(file.read_text("utf-8-sig").splitlines(), start=1):
            if line.strip():
                if not isinstance(row := json.loads(line), dict):
                    raise UserError(f"{file}: line {number} is not a JSON object")
                rows.append({key.strip(): _format_value(value) for key, value in row.items()})
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read as JSON lines ({error})") from error
    return pd.DataFrame(rows).fillna("")


def _format_value(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def find_packed_files(root: Path) -> list[Path]:
    """Return the Parquet or Arrow files of a data set: `root`, or those in it, in ``data`` and in folders of parts."""
    if root.is_file():
        return [root] if root.suffix.lower() in PACKED_SUFFIXES else []
    folders = [root, root / "data", *sorted(folder for folder in root.iterdir() if parse_part(folder.name))]
    for suffix in PACKED_SUFFIXES:
        files = [file for folder in folders if folder.is_dir() for file in sorted(folder.glob(f"[!.]*{suffix}"))]
        # cache- files are results of `datasets.map`; metadata.parquet of an AudioFolder has no recordings
        if files := [file for file in files if not file.name.startswith(("cache-", "metadata."))]:
            return files
    return []


def read_packed_files(root: Path, files: Sequence[Path], cache: Path | None, column: str) -> RowTable:
    """Write the recordings of Parquet or Arrow files into a folder of the cache, and return their rows.

    Parameters
    ----------
    root, files
        The data set, and its files.
    cache
        Folder of the cache.
    column
        Column of the recordings: bytes, or a struct of ``bytes`` and ``path``.

    Raises
    ------
    UserError
        If a file cannot be read, lacks the column, or a row has no recording; or without a cache.
    """
    folder = root if root.is_dir() else root.parent
    names = [file.relative_to(folder).as_posix() for file in files]
    key = text_digest(json.dumps([names, hash_files("packed", folder, names, cache), column]))[:16]
    parts = [_name_part(PurePosixPath(name)) for name in names]

    def write(target: Path) -> pd.DataFrame:
        tables = []
        for file, name, part in zip(files, names, parts, strict=True):
            try:
                tables.append(_write_recordings(_iterate_rows(file, column), target, name.rpartition(".")[0]))
            except (OSError, pa.ArrowException) as error:
                raise UserError(f"{file}: cannot be read ({str(error).splitlines()[0]})") from error
            tables[-1]["part"] = part
        return pd.concat(tables, ignore_index=True).fillna("")

    return _open_written(root, cache, key, write, column)


def _name_part(path: PurePosixPath) -> str:
    """Return the part of a file such as ``data/train-00000-of-00003.parquet`` or ``train/0000.parquet``."""
    return next((name for name in (path.stem.partition("-")[0], path.parent.name) if parse_part(name)), path.stem)


def _iterate_rows(file: Path, column: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet or Arrow file, with the names of classes instead of numbers of a ``ClassLabel``."""
    with ExitStack() as stack:
        if file.suffix.lower() == ".parquet":
            parquet = stack.enter_context(pq.ParquetFile(file))
            schema, batches = parquet.schema_arrow, parquet.iter_batches(batch_size=ROWS_PER_BATCH)
        else:
            batches = stack.enter_context(pa.ipc.open_stream(stack.enter_context(pa.memory_map(str(file)))))
            schema = batches.schema
        if column not in schema.names:
            raise UserError(
                f"{file}: lacks the column {column} of the recordings; it has {', '.join(schema.names)}; "
                "give --columns path=COLUMN"
            )
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        class_names = {name: f["names"] for name, f in features.items() if isinstance(f, dict) and "names" in f}
        for batch in batches:
            for row in batch.to_pylist():
                for name in class_names:
                    if isinstance(number := row.get(name), int):
                        known = 0 <= number < len(class_names[name])
                        row[name] = class_names[name][number] if known else ""  # -1: not labelled
                yield row | {AUDIO_COLUMN: row.pop(column)}


def _write_recordings(rows: Iterable[Mapping[str, Any]], target: Path, folder: str) -> pd.DataFrame:
    """Write each recording to ``target / folder``; return the path and the other columns of each row, as text."""
    (target / folder).mkdir(parents=True, exist_ok=True)
    table, names = [], set[str]()
    for number, row in enumerate(rows):
        audio = row[AUDIO_COLUMN]
        content, path = (audio.get("bytes"), audio.get("path")) if isinstance(audio, Mapping) else (audio, "")
        if not isinstance(content, bytes):
            raise UserError(f"{folder}: row {number + 1} has no recording; Parquet files must contain their bytes")
        name = (path or "").replace("\\", "/").rpartition("/")[2].strip()
        if not name.isprintable() or name[:1] in ("", ".") or len(name.encode()) > 200 or name.casefold() in names:
            suffix = Path(name).suffix if name.isprintable() and len(name) < 200 else ""
            known = next((suffix for start, suffix in SUFFIXES_BY_START.items() if content.startswith(start)), "")
            name = f"row{number:07d}{suffix or known}"
        names.add(name.casefold())
        (target / folder / name).write_bytes(content)
        others = {key: _format_value(value) for key, value in row.items() if not _has_bytes(value)}
        table.append({"path": f"{folder}/{name}", **{key: value for key, value in others.items() if key != "path"}})
    return pd.DataFrame(table)


def _has_bytes(value: Any) -> bool:
    return isinstance(value, bytes) or (isinstance(value, Mapping) and "bytes" in value)


def _open_written(
    source: Path, cache: Path | None, key: str, write: Callable[[Path], pd.DataFrame], column: str
) -> RowTable:
    """Return the rows of a folder of the cache, which `write` fills if it does not exist yet."""
    if cache is None:
        raise UserError(f"folder: {source} needs a cache folder to write its recordings into")
    folder = cache / "recordings" / key
    try:
        if not (folder / ROWS_FILE).is_file():
            folder.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(dir=folder.parent))
            try:
                write(temporary).to_parquet(temporary / ROWS_FILE)
                shutil.rmtree(folder, ignore_errors=True)
                temporary.rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        rows = pd.read_parquet(folder / ROWS_FILE)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written or read ({error.strerror or error})") from error
    rows, remarks = _add_split(rows.drop(columns="part"), rows["part"].tolist())
    return RowTable(source, folder, rows, remarks, column)


def read_hub(name: str, cache: Path | None, column: str) -> RowTable:
    """Read a data set of the Hugging Face hub with the package ``datasets``; its recordings are kept in the cache.

    Parameters
    ----------
    name
        ``owner/name``, or ``owner/name:configuration``.
    cache, column
        As in `read_packed_files`.

    Raises
    ------
    UserError
        If the package is not installed, or the data set cannot be loaded.
    """

    def write(target: Path) -> pd.DataFrame:
        hub: Any = None
        with suppress(ImportError):
            hub = importlib.import_module("datasets")
        if not hasattr(hub, "load_dataset"):  # a folder named datasets can be imported too
            raise UserError(
                f"{HUB_PREFIX}{name} needs the package datasets: pip install datasets, or give the folder of a copy"
            )
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it prints a line for each attempt to connect
        repository, _, configuration = name.partition(":")
        try:
            parts = hub.load_dataset(repository, *filter(None, [configuration]))
            tables = []
            for part, rows in parts.items():
                if column not in rows.column_names:
                    raise UserError(
                        f"{HUB_PREFIX}{name}: lacks the column {column} of the recordings; it has "
                        f"{', '.join(rows.column_names)}; give --columns path=COLUMN"
                    )
                tables.append(_write_recordings(_iterate_hub(hub, rows, column), target, part))
                tables[-1]["part"] = part
        except (UserError, KeyboardInterrupt):
            raise
        except Exception as error:  # the package raises errors of many libraries
            raise UserError(f"{HUB_PREFIX}{name}: cannot be loaded ({_explain(error)})") from error
        return pd.concat(tables, ignore_index=True).fillna("")

    return _open_written(Path(f"{HUB_PREFIX}{name}"), cache, text_digest(f"hub {name} {column}")[:16], write, column)


def _explain(error: BaseException) -> str:
    """Return the first line of an error and of its original cause."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [next(iter(str(each).splitlines()), type(each).__name__) for each in (error, cause)]
    return ": ".join(dict.fromkeys(lines))


def _iterate_hub(hub: Any, rows: Any, column: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a data set of the package ``datasets``, with undecoded recordings and names of classes."""
    features = rows.features
    for row in rows.cast_column(column, hub.Audio(decode=False)):
        for name, value in row.items():
            if isinstance(value, int) and (class_names := getattr(features[name], "names", None)):
                row[name] = class_names[value] if 0 <= value < len(class_names) else ""
        audio = row.pop(column)
        if audio.get("bytes") is None and audio.get("path") and os.path.isfile(audio["path"]):  # noqa: PTH113
            audio = {**audio, "bytes": Path(audio["path"]).read_bytes()}
        yield {**row, AUDIO_COLUMN: audio}
