"""Download data sets: verify checksums, resume interrupted transfers, and unpack archives safely."""

import lzma
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

import pooch
import requests

from core.datasets.loader import DataSource
from core.errors import UserError, first_line
from core.progress import Progress

TIMEOUT_SECONDS = 30.0  # without data from the server
CHUNK_SIZE = 1 << 16  # bytes
MIB = 1 << 20
# zipfile raises RuntimeError for encrypted members, and NotImplementedError, a subclass, for unknown methods
ARCHIVE_ERRORS = (
    *(tarfile.TarError, zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, lzma.LZMAError),
    *(EOFError, RuntimeError, ValueError, struct.error),
)


def fetch(name: str, source: DataSource | None, root: Path, report: Progress) -> None:
    """Download, check and unpack a data set into `root`, unless it is already there.

    Raises
    ------
    UserError
        If there is no public source, the source cannot be reached, the checksum is wrong, the archive is unsafe, or
        `root` cannot be written.
    """
    if source and (root / source.layout[0]).is_file():
        return
    if source and source.by_hand:
        raise UserError(f"{name}: no checksum is published; download and unpack {source.by_hand} in {root} yourself")
    if source is None or not source.url:
        raise UserError(f"{name}: has no public source; leave --download out")
    archive = root / f"{name}.archive"
    by_hand = f"run the command again to resume, or unpack it by hand so that {root / source.layout[0]} exists"
    try:
        root.mkdir(parents=True, exist_ok=True)
        pooch.retrieve(
            source.url,
            f"md5:{source.md5}",
            fname=archive.name,
            path=root,
            downloader=ResumableDownload(root / f"{name}.part", report),
        )
    except OSError as error:
        raise UserError(f"{name}: cannot download {source.url} ({error}); {by_hand}") from error
    except ValueError as error:  # pooch raises this for a wrong checksum, and removes the file
        raise UserError(f"{name}: {source.url} did not send the archive of MD5 {source.md5}; {by_hand}") from error
    try:
        unpack(archive, root, proof=source.layout[0])
        archive.unlink()
    except OSError as error:
        raise UserError(f"{name}: cannot unpack {archive} ({error}); {by_hand}") from error


class ResumableDownload:
    """Downloader for pooch that resumes interrupted transfers.

    Parameters
    ----------
    part
        Partial file. It is continued if the server supports range requests, else downloaded again.
    report
        Called with (MiB received, MiB in total, name).
    """

    def __init__(self, part: Path, report: Progress) -> None:
        self.part, self.report = part, report

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        """Download `url` to `output_file`."""
        start = self.part.stat().st_size if self.part.exists() else 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response:
            if response.status_code != requests.codes.range_not_satisfiable:  # the file is complete
                response.raise_for_status()
                start = start if response.status_code == requests.codes.partial_content else 0
                self._receive(response, start)
        self.part.replace(output_file)

    def _receive(self, response: requests.Response, start: int) -> None:
        done = start
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else 0  # unknown if the server creates the archive on the fly
        with self.part.open("ab" if start else "wb") as file:
            for chunk in response.iter_content(CHUNK_SIZE):
                file.write(chunk)
                done += len(chunk)
                self.report(done // MIB, 1 + (total or done) // MIB, f"{self.part.stem} (MiB)")


def unpack(archive: Path, root: Path, *, proof: str) -> None:
    """Unpack a tar or zip file into `root`, by way of a temporary folder.

    Parameters
    ----------
    archive
        Archive file; its content decides its format.
    root
        Target folder, without the top-level folder of the archive.
    proof
        Path below `root` whose existence shows that the set is complete; its folder is moved last.

    Raises
    ------
    UserError
        If the archive is damaged, a member lies outside the folder, or a file exists in `root` already.
    """
    with tempfile.TemporaryDirectory(dir=root, prefix=".unpacking-") as folder:
        try:
            _extract(archive, Path(folder))
        except ARCHIVE_ERRORS as error:
            raise UserError(f"{archive}: damaged, encrypted or unsafe ({first_line(error)}); remove it") from error
        found = next(Path(folder).glob(f"*/{proof}"), None)
        if found is None:
            raise UserError(f"{archive}: does not contain {proof}; remove it")
        top = Path(folder) / found.relative_to(folder).parts[0]
        children = sorted(top.iterdir(), key=lambda path: path.name == PurePosixPath(proof).parts[0])
        if existing := [child.name for child in children if (root / child.name).exists()]:
            raise UserError(
                f"{root}: {', '.join(existing)} exists already, so {archive} is not unpacked; move {existing[0]} away"
            )
        for child in children:
            child.replace(root / child.name)


def _extract(archive: Path, folder: Path) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            for name in file.namelist():
                if _lies_outside(name):
                    raise zipfile.BadZipFile(f"member {name} would be unpacked outside the folder")
            file.extractall(folder)
        return
    with tarfile.open(archive) as tar:  # the filter of `extractall` needs Python 3.11.4
        for member in tar:
            if _lies_outside(member.name):
                raise tarfile.ReadError(f"member {member.name} would be unpacked outside the folder")
            place = folder / member.name
            (place if member.isdir() else place.parent).mkdir(parents=True, exist_ok=True)
            if member.isdir():
                continue
            content = tar.extractfile(member) if member.isfile() else None
            if content is None:
                raise tarfile.ReadError(f"member {member.name} is neither a file nor a folder")
            with content, place.open("wb") as target:
                shutil.copyfileobj(content, target)


def _lies_outside(name: str) -> bool:
    return name.startswith("/") or ".." in PurePosixPath(name).parts
