"""Write one result in several formats, each file whole or not there."""

from collections.abc import Mapping
from pathlib import Path

from core.errors import UserError
from core.io.atomic_files import atomic_write


def write_formats(path: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write `contents` beside each other, named `path` plus the suffix each is filed under.

    Parameters
    ----------
    path
        Where to write, without suffix; folders that lack are made.
    contents
        File contents by suffix, e.g. ``{".csv": b"..."}``.

    Returns
    -------
    list of Path
        The files, in the order of `contents`.

    Raises
    ------
    UserError
        Where the folder is read-only or full.
    """
    files = []
    for suffix, content in contents.items():
        file = path.with_name(path.name + suffix)  # with_suffix would cut "resnet.a1" short
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(file) as temporary:
                temporary.write_bytes(content)
        except OSError as error:
            raise UserError(f"cannot write {file} ({error.strerror}); free space or choose another --results") from None
        files.append(file)
    return files
