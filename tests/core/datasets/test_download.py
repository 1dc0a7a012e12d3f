"""Downloads from a local server: checksums, resuming, safe unpacking, and remedies in messages."""

import hashlib
import io
import re
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from core import datasets
from core.datasets.loader import DataSource
from core.datasets.sets import esc50
from core.errors import UserError

LAYOUT = ("meta/esc50.csv", "audio")
GOOD = {"ESC-50-master/meta/esc50.csv": b"table", "ESC-50-master/audio/a.wav": b"sound" * 40_000}


def zip_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


def tar_of(members: dict[str, bytes], *, kind: bytes = tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(data), kind, "/etc/passwd"
            file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


class Server(ThreadingHTTPServer):
    """Server of one archive that records the requested ranges and can interrupt a response."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.archive = b""
        self.continues = True  # whether range requests are supported
        self.break_after: int | None = None  # bytes after which the next response is interrupted
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/archive"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.continues else 0
        body = self.server.archive[start:]
        self.send_response(416 if start and not body else 206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.break_after])
        self.server.break_after = None

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def serve(server: Server, monkeypatch: pytest.MonkeyPatch, archive: bytes, *, md5: str = "") -> None:
    server.archive = archive
    remote = DataSource(layout=LAYOUT, url=server.url, md5=md5 or hashlib.md5(archive).hexdigest())
    monkeypatch.setattr(esc50, "LOADER", replace(esc50.LOADER, source=remote))


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("pack", [zip_of, tar_of])
def test_download_unpacks_without_top_folder(
    pack: Callable[[dict[str, bytes]], bytes],
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    serve(server, monkeypatch, pack(GOOD))
    datasets.download_dataset("esc50", tmp_path / "new" / "root")
    assert files(tmp_path / "new" / "root") == {"meta/esc50.csv", "audio/a.wav"}
    datasets.download_dataset("esc50", tmp_path / "new" / "root")
    assert len(server.ranges) == 1  # nothing is downloaded again


def test_download_resumes_interrupted_transfer(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    serve(server, monkeypatch, zip_of(GOOD))
    server.break_after = 150_000
    with pytest.raises(UserError, match=re.escape(f"esc50: cannot download {server.url} (")) as caught:
        datasets.download_dataset("esc50", tmp_path)
    assert str(caught.value).endswith(
        f"run the command again to resume, or unpack it by hand so that {tmp_path}/{LAYOUT[0]} exists"
    )
    datasets.download_dataset("esc50", tmp_path)
    assert server.ranges == [None, "bytes=131072-"]  # complete chunks are kept
    assert files(tmp_path) == {"meta/esc50.csv", "audio/a.wav"}


def test_download_wrong_checksum_raises(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    serve(server, monkeypatch, zip_of(GOOD), md5="0" * 32)
    with pytest.raises(UserError, match=f"did not send the archive of MD5 {'0' * 32}; run the command again"):
        datasets.download_dataset("esc50", tmp_path)
    assert files(tmp_path) == set()


@pytest.mark.parametrize("pack", [zip_of, tar_of])
def test_unpack_member_outside_raises(
    pack: Callable[[dict[str, bytes]], bytes],
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    serve(server, monkeypatch, pack(GOOD | {"ESC-50-master/../../outside.txt": b"evil"}))
    with pytest.raises(UserError, match=r"esc50\.archive: damaged, encrypted or unsafe \(.*outside"):
        datasets.download_dataset("esc50", tmp_path / "root")
    assert files(tmp_path) == {"root/esc50.archive"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.FIFOTYPE])
def test_unpack_link_or_pipe_raises(
    kind: bytes, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    serve(server, monkeypatch, tar_of({"ESC-50-master/audio/a.wav": b""}, kind=kind))
    with pytest.raises(UserError, match=r"unsafe \(member ESC-50-master/audio/a\.wav is neither a file nor a folder\)"):
        datasets.download_dataset("esc50", tmp_path)
    assert files(tmp_path) == {"esc50.archive"}


def test_download_keeps_existing_files(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    serve(server, monkeypatch, zip_of(GOOD))
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "mine.wav").write_bytes(b"mine")
    with pytest.raises(UserError, match=r": audio exists already, .*esc50\.archive .*; move .* away"):
        datasets.download_dataset("esc50", tmp_path)
    assert files(tmp_path) == {"audio/mine.wav", "esc50.archive"}
