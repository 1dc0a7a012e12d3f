"""Data sets: a table of clips with official folds each, found by name; nothing heavy is imported before it is needed.

A new data set is a module with a `Loader` (`core.datasets.loader`), and its line in `LOADERS`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import UserError
from core.io.atomic_files import is_utf8
from core.progress import Progress, no_progress
from core.registry import Lazy, Registry

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
        "folder": "core.datasets.sets.folder:LOADER",
    },
)
select = Lazy("core.datasets.selection:select")  # imports pandas
fetch = Lazy("core.datasets.download:fetch")  # requests and pooch take a while to import


def load_dataset(name: str, root: Path | None = None) -> "Dataset":
    """Read a data set's table and check it against its files.

    Parameters
    ----------
    name
        One of `LOADERS`.
    root
        Its folder in the official layout (for `folder`, a folder of class folders or a CSV file); `instruments`,
        being embedded, needs none.

    Raises
    ------
    UserError
        For an unknown name, with the nearest match; a missing or half-present folder, with how to get it; a clip whose
        name and metadata disagree; a class with a single clip.
    """
    loader = LOADERS[name]
    if root is None and loader.source:
        raise UserError(loader.source.explain_how_to_get(name, None))
    try:
        dataset: Dataset = loader.read(root and expand_path(root))
    except UnicodeEncodeError as error:  # of a file whose name is no text, which no table can hold
        raise UserError(f"{name}: {error.object} is no name in UTF-8; rename the file") from None
    return dataset


def download_dataset(name: str, root: Path, report: Progress = no_progress) -> None:
    """Fetch a data set into `root`, unless it is there: checked by MD5, continued where an earlier attempt stopped.

    Raises
    ------
    UserError
        Where the set has no public source, the source cannot be reached, or what came is not what was asked for.
    """
    fetch(name, LOADERS[name].source, expand_path(root), report)


def expand_path(root: Path, flag: str = "--data-root") -> Path:
    """Return a path that was given after `flag`, with ``~`` written out; UserError where it can be none."""
    try:
        root = root.expanduser()
        root.exists()  # raises where the path can be none: too long, or through a file
        if not is_utf8(str(root.absolute())):  # what is recorded and drawn is text
            raise UserError(f"{flag} {root.absolute()}: not a name in UTF-8; rename the folder, or give a link to it")
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{flag} {root}: {error}") from None
    except OSError as error:
        raise UserError(f"{flag} {str(root)[:100]}: {error.strerror}") from None
    return root
