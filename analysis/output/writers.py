"""Atomic writing of one result in several formats, and names of files."""

import re
from collections.abc import Mapping
from pathlib import Path

from core.errors import UserError
from core.system.atomic_files import atomic_write


def to_file_name(text: str) -> str:
    """Return a text as an ASCII file name: "ab/c d" becomes "ab_c_d"; letters, digits, ``.``, ``-``, ``_`` stay."""
    return re.sub(r"[^\w.-]+", "_", text, flags=re.ASCII)


def write_formats(path: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write one file per suffix, each atomically.

    Parameters
    ----------
    path
        Path of the files without suffix; missing folders are created.
    contents
        Content of each file by suffix, e.g. ``{".csv": b"..."}``.

    Returns
    -------
    list of Path
        The files, in the order of `contents`.

    Raises
    ------
    UserError
        If the folder is read-only or full.
    """
    files = []
    for suffix, content in contents.items():
        file = path.with_name(path.name + suffix)  # with_suffix would replace the ".a1" of "resnet.a1"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(file) as temporary:
                temporary.write_bytes(content)
        except OSError as error:
            raise UserError(f"cannot write {file} ({error.strerror}); free space or choose another --results") from None
        files.append(file)
    return files
