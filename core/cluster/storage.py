"""Copy runs, checkpoints and cache entries through a folder or URI that every node can read."""

import os
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from core.cache.array_file import ARRAY_FILE
from core.cache.entries import MANIFEST_FILE
from core.errors import UserError, first_line
from core.registry import Lazy
from core.store.run_store import RECORD
from core.system.atomic_files import atomic_write

pyarrow, fs, fsspec, ray = Lazy("pyarrow"), Lazy("pyarrow.fs"), Lazy("fsspec.core"), Lazy("ray")

ENTRY_FILES = (ARRAY_FILE, MANIFEST_FILE)  # files of a cache entry; one with a manifest is complete


class Storage:
    """Files below one folder or URI.

    Parameters
    ----------
    location
        A folder, or a URI of pyarrow (file, s3, gs, hdfs, ...) or of an installed fsspec package.

    Raises
    ------
    UserError
        If no installed library can open it.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        try:
            self.filesystem, self.root = _open_filesystem(location)
        except Exception as error:  # each kind of storage raises its own errors
            raise UserError(
                f"--storage {location}: {first_line(error)}; give a folder or a URI such as s3://..."
            ) from None

    def check(self) -> str:
        """Write a small file, to be deleted with `remove`, and return its name.

        Raises
        ------
        UserError
            If the storage cannot be written to.
        """
        name = f".probe-{uuid.uuid4().hex}"
        try:
            self.filesystem.create_dir(self.root, recursive=True)
            with self.filesystem.open_output_stream(self._path(name)) as stream:
                stream.write(name.encode())
        except Exception as error:
            raise UserError(f"--storage {self.location}: cannot be written to ({first_line(error)})") from None
        return name

    def has(self, name: str) -> bool:
        """Return whether a file exists."""
        return bool(self.filesystem.get_file_info(self._path(name)).is_file)

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        if self.has(name):
            self.filesystem.delete_file(self._path(name))

    def put(self, path: Path, name: str) -> None:
        """Copy a local file to `name` atomically."""
        target = self._path(name)
        folder, _, last = target.rpartition("/")
        is_local = isinstance(self.filesystem, fs.LocalFileSystem)  # object stores write atomically anyway
        temporary = f"{folder}/.{last}.{uuid.uuid4().hex}" if is_local else target
        self.filesystem.create_dir(folder, recursive=True)
        try:
            with path.open("rb") as source, self.filesystem.open_output_stream(temporary) as stream:
                while block := source.read(2**24):
                    stream.write(block)
            if is_local:
                self.filesystem.move(temporary, target)
        except BaseException:
            if is_local:
                with suppress(OSError):  # report the first error, not one of the clean-up
                    self.filesystem.delete_file(temporary)
            raise

    def get(self, name: str, path: Path) -> None:
        """Copy `name` to a local file atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        source = self.filesystem.open_input_stream(self._path(name))
        with source, atomic_write(path) as temporary, temporary.open("wb") as target:
            while block := source.read(2**24):
                target.write(block)

    def put_run(self, folder: Path) -> None:
        """Copy the folder of a run to ``runs/<id>/``. The record is copied last, so a run with a record is complete."""
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        for path in sorted(files, key=lambda path: path.name == RECORD):
            self.put(path, f"runs/{folder.name}/{path.relative_to(folder)}")

    def get_run(self, folder: Path) -> None:
        """Copy ``runs/<id>/`` from the storage into the local folder of a run. The record is copied last."""
        top = self._path(f"runs/{folder.name}")
        infos = self.filesystem.get_file_info(fs.FileSelector(top, allow_not_found=True, recursive=True))
        names = [info.path.removeprefix(top).lstrip("/") for info in infos if info.is_file and ".." not in info.path]
        files = [name for name in names if not name.rpartition("/")[2].startswith(".")]
        for name in sorted(files, key=lambda name: name == RECORD):
            self.get(f"runs/{folder.name}/{name}", folder / name)

    def put_entry(self, folder: Path) -> None:
        """Copy a cache entry to ``cache/<kind>/<key>/`` unless it is there. The manifest is copied last."""
        if not self.has(f"{_entry_name(folder)}/{MANIFEST_FILE}"):
            for file in ENTRY_FILES:
                self.put(folder / file, f"{_entry_name(folder)}/{file}")

    def get_entry(self, folder: Path) -> None:
        """Copy a cache entry from the storage to this node. The manifest, copied last, marks it as complete."""
        for file in ENTRY_FILES:
            self.get(f"{_entry_name(folder)}/{file}", folder / file)

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"


def node_folder() -> Path:
    """Return a folder of this node, for files that pass through the storage."""
    node = ray.get_runtime_context().get_node_id()[:12]
    folder = Path(tempfile.gettempdir()) / f"audio-ablation-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise UserError(f"{folder} belongs to another user: set TMPDIR on the nodes to a folder that is yours")
    return folder / node


def _entry_name(folder: Path) -> str:
    return f"cache/{folder.parent.name}/{folder.name}"


def _open_filesystem(location: str) -> tuple[Any, str]:
    if "://" not in location:
        return fs.LocalFileSystem(), str(Path(location).absolute())
    try:
        filesystem, path = fs.FileSystem.from_uri(location)
    except pyarrow.ArrowInvalid:
        handler, path = fsspec.url_to_fs(location)
        filesystem = fs.PyFileSystem(fs.FSSpecHandler(handler))
    return filesystem, path.rstrip("/")
