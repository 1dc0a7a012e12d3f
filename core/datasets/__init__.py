"""Data sets by name: tables of clips with folds.

To add a data set, write a module with a `Loader` (`core.datasets.loader`) and add a line to `LOADERS`. Modules are
imported when they are used.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from core.errors import UserError, unknown_name_error
from core.progress import Progress, no_progress
from core.registry import Lazy, Registry
from core.system.atomic_files import is_utf8

if TYPE_CHECKING:
    from core.datasets.dataset import Dataset

LOADERS = Registry(
    "data set",
    {
        "instruments": "core.datasets.sets.instruments:LOADER",
        "urbansound8k": "core.datasets.sets.urbansound8k:LOADER",
        "esc50": "core.datasets.sets.esc50:LOADER",
        "gtzan": "core.datasets.sets.gtzan:LOADER",
        "gtzan-filtered": "core.datasets.sets.gtzan:FILTERED_LOADER",
        "nsynth": "core.datasets.sets.nsynth:LOADER",
        "nsynth-valid": "core.datasets.sets.nsynth:VALID_LOADER",
        "thirteen-classes": "core.datasets.sets.folder:THIRTEEN_LOADER",
        "features": "core.datasets.sets.feature_table:LOADER",
        "speech-commands": "core.datasets.sets.speech_commands:LOADER",
        "folder": "core.datasets.sets.folder:LOADER",
    },
)
COLUMN_MEANINGS = ("path", "label", "group", "fold", "split")  # allowed before "=" in --columns
choose_clip_settings = Lazy("core.datasets.clip_settings:choose_clip_settings")  # imports PyAV and soundfile
join_copies = Lazy("core.datasets.copies:join_copies")  # imports pandas
select = Lazy("core.datasets.selection:select")  # imports pandas
fetch = Lazy("core.datasets.download:fetch")  # imports requests and pooch, which are slow


def load_dataset(
    name: str,
    root: Path | None = None,
    *,
    columns: Mapping[str, str] = MappingProxyType({}),
    cache: Path | None = None,
    progress: Progress = no_progress,
) -> "Dataset":
    """Load a data set: read its table of clips and check it against the files.

    If the folds are not official, all files are read and identical files are put into one group. For your own
    recordings, sampling rate, clip length and image width are chosen from the recordings.

    Parameters
    ----------
    name
        Name in `LOADERS`.
    root
        Folder in the official layout; for `folder` as in `core.datasets.sets.folder.load`. Not needed for the embedded
        `instruments`.
    columns
        For `folder`: column of the table for each meaning, such as ``{"label": "class"}``.
    cache, progress
        As in `core.datasets.dataset.Dataset.with_digests`.

    Raises
    ------
    UserError
        If the name is unknown, files are missing, the name of a clip contradicts its metadata, or a class has a single
        clip.
    """
    loader = LOADERS[name]
    if columns and not loader.is_own_data:
        raise UserError(f"--columns: {name} has its own columns; leave it out")
    if root is None and loader.source:
        raise UserError(loader.source.explain_how_to_get(name, None))
    try:
        own = {"columns": columns, "cache": cache} if loader.is_own_data else {}
        dataset: Dataset = loader.read(root and expand_path(root), **own)
        if dataset.joins_copies:
            dataset = join_copies(dataset.with_digests(cache, progress=progress))
        if loader.is_own_data:
            dataset = choose_clip_settings(dataset, cache, progress=progress)
    except UnicodeEncodeError as error:  # a file name with undecodable bytes
        raise UserError(f"{name}: {error.object} is not UTF-8; rename the file") from None
    return dataset


def parse_columns(words: Sequence[str]) -> dict[str, str]:
    """Return the column for each meaning from the values of ``--columns``, such as ``label=class``.

    Raises
    ------
    UserError
        If a value has another form, or a meaning is unknown or repeated.
    """
    columns: dict[str, str] = {}
    for word in words:
        meaning, equals, name = (part.strip() for part in word.partition("="))
        if not (equals and meaning and name):
            raise UserError(f"--columns {word}: give MEANING=COLUMN, such as label=class")
        if meaning not in COLUMN_MEANINGS:
            raise unknown_name_error("meaning in --columns:", meaning, COLUMN_MEANINGS)
        if meaning in columns:
            raise UserError(f"--columns: {meaning} is given twice: {columns[meaning]} and {name}")
        columns[meaning] = name
    return columns


def download_dataset(name: str, root: Path, report: Progress = no_progress) -> None:
    """Download a data set into `root`, unless it exists. An interrupted download is resumed; the MD5 is checked.

    Raises
    ------
    UserError
        If the data set has no public source, the source cannot be reached, or the checksum is wrong.
    """
    fetch(name, LOADERS[name].source, expand_path(root), report)


def expand_path(root: Path, flag: str = "--data-root") -> Path:
    """Return the path of option `flag` with ``~`` expanded. Raise UserError if it is not a valid path."""
    try:
        root = root.expanduser()
        root.exists()  # raises if the path is too long, or a part of it is a file
        if not is_utf8(str(root.absolute())):  # paths are written into records and figures
            raise UserError(f"{flag} {root.absolute()}: not UTF-8; rename the folder, or give a link to it")
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{flag} {root}: {error}") from None
    except OSError as error:
        raise UserError(f"{flag} {str(root)[:100]}: {error.strerror}") from None
    return root
