"""Download data sets with a public source: checksums are verified, transfers resumed, archives unpacked safely."""

import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import pooch
import requests

from core.datasets.loader import DataSource
from core.errors import UserError
from core.progress import Progress

TIMEOUT_SECONDS = 30.0  # seconds without an answer
CHUNK_SIZE = 1 << 16  # bytes
MIB = 1 << 20


def fetch(name: str, source: DataSource | None, root: Path, report: Progress) -> None:
    """Download, check and unpack a data set into `root`, unless it is already there.

    Raises
    ------
    UserError
        Where it has no public source, the source cannot be reached, the checksum is wrong, the archive is unsafe, or
        `root` cannot be written.
    """
    if source and (root / source.layout[0]).is_file():
        return
    if source and source.by_hand:
        raise UserError(f"{name}: not downloaded, for no checksum is published; unpack {source.by_hand} in {root}")
    if source is None or not source.url:
        raise UserError(f"{name}: nothing to download, it has no public source; leave --download out")
    archive = root / f"{name}.archive"
    by_hand = f"run it again to go on, or unpack it by hand so that {root / source.layout[0]} exists"
    try:
        root.mkdir(parents=True, exist_ok=True)
        pooch.retrieve(
            source.url,
            f"md5:{source.md5}",
            fname=archive.name,
            path=root,
            downloader=ResumableDownload(root / f"{name}.part", report),
        )
        unpack(archive, root, proof=source.layout[0])
        archive.unlink()
    except OSError as error:
        raise UserError(f"{name}: cannot download {source.url} ({error}); {by_hand}") from error
    except ValueError as error:  # pooch's word for a wrong checksum; it has removed what came
        raise UserError(f"{name}: {source.url} did not send the archive of MD5 {source.md5}; {by_hand}") from error


class ResumableDownload:
    """A downloader for pooch that resumes an interrupted transfer.

    Parameters
    ----------
    part
        Partial file; an earlier part is kept if the server supports ranges.
    report
        Called with the MiB done, the MiB in all, and a name.
    """

    def __init__(self, part: Path, report: Progress) -> None:
        self.part, self.report = part, report

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        """Fetch `url` into `output_file`."""
        start = self.part.stat().st_size if self.part.exists() else 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response:
            if response.status_code != requests.codes.range_not_satisfiable:  # else it had come whole
                response.raise_for_status()
                start = start if response.status_code == requests.codes.partial_content else 0
                self._receive(response, start)
        self.part.replace(output_file)

    def _receive(self, response: requests.Response, start: int) -> None:
        done = start
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else 0  # an archive made on the fly has no known length
        with self.part.open("ab" if start else "wb") as file:
            for chunk in response.iter_content(CHUNK_SIZE):
                file.write(chunk)
                done += len(chunk)
                self.report(done // MIB, 1 + (total or done) // MIB, f"{self.part.stem} (MiB)")


def unpack(archive: Path, root: Path, *, proof: str) -> None:
    """Unpack a tar or zip file into a temporary folder, and move the result to `root`.

    Parameters
    ----------
    archive
        The file; its content decides its format.
    root
        Target folder; the top folder of the archive is removed.
    proof
        Path below `root` that shows that the set is complete; its folder is moved last.

    Raises
    ------
    UserError
        For a damaged archive, a member outside the folder, or existing files in `root`.
    """
    with tempfile.TemporaryDirectory(dir=root, prefix=".unpacking-") as folder:
        try:
            _extract(archive, Path(folder))
        except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
            raise UserError(f"{archive}: not unpacked, it is damaged or unsafe ({error}); remove it") from error
        found = next(Path(folder).glob(f"*/{proof}"), None)
        if found is None:
            raise UserError(f"{archive}: does not hold {proof}; remove it")
        top = Path(folder) / found.relative_to(folder).parts[0]
        children = sorted(top.iterdir(), key=lambda path: path.name == PurePosixPath(proof).parts[0])
        if in_the_way := [child.name for child in children if (root / child.name).exists()]:
            raise UserError(f"{root}: {', '.join(in_the_way)} is in the way of {archive}; move it elsewhere")
        for child in children:
            child.replace(root / child.name)


def _extract(archive: Path, folder: Path) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            for name in file.namelist():
                if _lies_outside(name):
                    raise zipfile.BadZipFile(f"member {name} lies outside")
            file.extractall(folder)
        return
    with tarfile.open(archive) as tar:  # `extractall` has a filter that refuses the same only since Python 3.11.4
        for member in tar:
            if _lies_outside(member.name):
                raise tarfile.ReadError(f"member {member.name} lies outside")
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
