"""The analyses of a results folder: their descriptions, their folders, and ``index.md``, which lists them.

Each analysis is one folder with a description, ``analysis.json`` (`analysis.output.output_folder`). The index is
rebuilt from these descriptions whenever an analysis is written.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from analysis.output.tables import escape_markdown
from core.errors import UserError, escape_controls
from core.system.atomic_files import explain_write_errors, read_regular_file, write_text

SKIPPED_FOLDERS = {"runs", "cache", "report", "published"}  # folders in the results folder that have no analyses
INDEX = "index.md"
LOCK_TIMEOUT = 10  # seconds; without the lock, an index may lack an analysis until the next one is written


class Description(msgspec.Struct):
    """The entries of an ``analysis.json`` that the index needs.

    Attributes
    ----------
    command
        Command line that wrote the folder.
    analysis
        With ``--name``: the folder that the analysis has without this option, relative to the results; otherwise "".
    """

    command: str
    analysis: str = ""


def find_descriptions(results: Path) -> Iterator[Path]:
    """Yield the ``analysis.json`` of every analysis in a results folder, sorted by folder."""
    for folder, inner, files in os.walk(results):
        top = Path(folder) == results
        inner[:] = sorted(name for name in inner if not name.startswith(".") and not (top and name in SKIPPED_FOLDERS))
        if "analysis.json" in files:
            yield Path(folder) / "analysis.json"


def read_description(file: Path) -> Description | None:
    """Return the description of an analysis; None if the file cannot be read."""
    try:
        return msgspec.json.decode(read_regular_file(file), type=Description)
    except (OSError, ValueError, msgspec.MsgspecError):
        return None


def write_index(results: Path) -> None:
    """Write the list of all analyses in a results folder with their commands; unreadable descriptions are left out.

    Commands that end at the same time write one after the other (file lock), so that no analysis is missing.
    """
    with ExitStack() as lock:
        with suppress(OSError, Timeout, NotImplementedError):  # a file system without locks
            lock.enter_context(FileLock(results / ".index.lock", timeout=LOCK_TIMEOUT))
        rows = []
        for file in find_descriptions(results):
            if description := read_description(file):
                folder = file.parent.relative_to(results).as_posix()
                written = datetime.fromtimestamp(file.stat().st_mtime, UTC)
                command = escape_markdown(escape_controls(description.command))
                name = escape_markdown(escape_controls(folder))
                rows.append(f"| [{name}](<{folder}>) | {command} | {written:%Y-%m-%d %H:%M} |")
        lines = ["# Results and their commands", "", "| Folder | Command | Written (UTC) |", "| :-- | :-- | :-- |"]
        text = "\n".join([*lines, *rows]) + "\n"
        with explain_write_errors(results):
            write_text(results / INDEX, text.encode("utf-8", "replace").decode())


def choose_folder(results: Path, default: str, name: str) -> Path:
    """Return the folder of an analysis.

    Parameters
    ----------
    results
        The results folder.
    default
        Folder without ``--name``, relative to `results`.
    name
        Value of ``--name``: the last part of the folder; "" for the default.

    Raises
    ------
    UserError
        If the folder of this name has the results of another analysis.
    """
    folder = results / default
    if not name:
        return folder
    named = folder.with_name(name)
    for file in (named / "analysis.json", *sorted(named.glob("*/analysis.json"))):
        if not (description := read_description(file)):
            continue
        analysis = description.analysis or file.parent.relative_to(results).as_posix()
        if analysis != default and not analysis.startswith(f"{default}/"):
            raise UserError(
                f"--name {name}: {named} has the results of another command ({description.command}); "
                "choose another name, or delete the folder"
            )
    return named
