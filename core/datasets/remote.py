"""Fetching the data sets that have a public source: checked, continued where it stopped, unpacked safely."""

import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pooch
import requests

from core.errors import UserError
from core.progress import Reporter

TIMEOUT = 30.0  # seconds without an answer
CHUNK = 1 << 16  # bytes, the most a broken transfer loses
MIB = 1 << 20


@dataclass(frozen=True)
class Remote:
    """Where a data set comes from, and what it looks like when it is there.

    Attributes
    ----------
    url, md5
        The archive and its checksum; no `url` where there is no public source.
    layout
        What its root holds, the file that proves it first.
    """

    layout: tuple[str, ...]
    url: str = ""
    md5: str = ""


GENRES = Remote(layout=("a folder for each genre (blues .. rock)",))
REMOTES = {
    "urbansound8k": Remote(
        url="https://zenodo.org/record/1203745/files/UrbanSound8K.tar.gz?download=1",
        md5="9aa69802bbf37fb986f71ec1483a196e",
        layout=("metadata/UrbanSound8K.csv", "audio/fold1 .. audio/fold10"),
    ),
    "esc50": Remote(
        url="https://github.com/karoldvl/ESC-50/archive/master.zip",
        md5="7771e4b9d86d0945acce719c7a59305a",
        layout=("meta/esc50.csv", "audio"),
    ),
    "gtzan": GENRES,
    "gtzan-filtered": GENRES,
}


def how_to_get(name: str, root: Path | None) -> str:
    """Say in one line what is missing at `root` (None: nothing given) and how the data set gets there."""
    remote = REMOTES[name]
    missing = f"{root} lacks {remote.layout[0]}" if root else "it is not embedded"
    if remote.url:
        way = f"give --data-root DIR with --download, or unpack {remote.url} there"
    else:
        way = "give --data-root DIR with your own copy, for it has no public source"
    return f"{name}: {missing}; {way} ({', '.join(remote.layout)})"


def fetch(name: str, root: Path) -> None:
    """Download, check and unpack a data set into `root`; do nothing where it is already there.

    Raises
    ------
    UserError
        Where it has no public source, the source cannot be reached, the checksum is wrong, the archive is unsafe, or
        `root` cannot be written.
    """
    remote = REMOTES.get(name)
    if remote is None or not remote.url:
        raise UserError(f"{name}: nothing to download, it has no public source; leave --download out")
    if (root / remote.layout[0]).is_file():
        return
    archive = root / f"{name}.archive"
    by_hand = f"run it again to go on, or unpack it by hand so that {root / remote.layout[0]} exists"
    try:
        root.mkdir(parents=True, exist_ok=True)
        pooch.retrieve(
            remote.url, f"md5:{remote.md5}", fname=archive.name, path=root, downloader=Continued(root / f"{name}.part")
        )
        unpack(archive, root, proof=remote.layout[0])
        archive.unlink()
    except OSError as error:
        raise UserError(f"{name}: cannot download {remote.url} ({error}); {by_hand}") from error
    except ValueError as error:  # pooch's word for a wrong checksum; it has removed what came
        raise UserError(f"{name}: {remote.url} did not send the archive of MD5 {remote.md5}; {by_hand}") from error


class Continued:
    """A downloader for pooch that goes on where an interrupted one stopped.

    Parameters
    ----------
    part
        The file that grows; what an earlier attempt left there is kept if the server can continue it.
    """

    def __init__(self, part: Path) -> None:
        self.part = part

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        """Fetch `url` into `output_file`, with progress on standard error."""
        start = self.part.stat().st_size if self.part.exists() else 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if response.status_code != requests.codes.range_not_satisfiable:  # else it had come whole
                response.raise_for_status()
                start = start if response.status_code == requests.codes.partial_content else 0
                self._receive(response, start)
        self.part.replace(output_file)

    def _receive(self, response: requests.Response, start: int) -> None:
        done = start
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else 0  # an archive made on the fly has no known length
        with self.part.open("ab" if start else "wb") as file, Reporter() as report:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                done += len(chunk)
                report(done // MIB, 1 + (total or done) // MIB, f"{self.part.stem} (MiB)")


def unpack(archive: Path, root: Path, *, proof: str) -> None:
    """Unpack a tar or zip file beside its place, and move it there whole.

    Parameters
    ----------
    archive
        The file; its content decides what it is.
    root
        Folder to fill, without the archive's own top folder.
    proof
        Path below `root` that exists when the set is there; its folder is moved last.

    Raises
    ------
    UserError
        For a damaged archive, a member that would land elsewhere, or something in `root` that is in the way.
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
                if name.startswith("/") or ".." in PurePosixPath(name).parts:
                    raise zipfile.BadZipFile(f"member {name} lies outside")
            file.extractall(folder)
    else:
        with tarfile.open(archive) as file:
            file.extractall(folder, filter="data")
