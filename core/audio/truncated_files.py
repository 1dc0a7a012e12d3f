"""Detect truncated audio files: compare the sizes in their headers with the size of the file.

Decoders silently read such files as shorter recordings. RIFF (WAV), RF64, AIFF, 8SVX, AU, Ogg, MP4 and MP3 with a Xing
header are checked; libsndfile checks FLAC. Only headers are read, and a limited number of them.
"""

import os
import struct
from collections.abc import Callable, Iterator
from io import FileIO
from typing import NamedTuple

UNKNOWN_SIZE = 0x7FFF0000  # streaming encoders (sox, arecord, FFmpeg) write this or a larger size
HEADER_SLACK = 64  # bytes that may be missing, because some programs count the header as sound
HEAD_SIZE = 1024  # bytes at the start that are read once and kept
MAX_CHUNKS = 100_000
MAX_OGG_PAGE = 65_307  # bytes of the longest possible page (RFC 3533, section 6)
AUDIO_FORMS = (b"WAVE", b"AIFF", b"AIFC", b"8SVX", b"16SV")

Chunk = tuple[bytes, int, int]  # name, start, size


class Reader:
    """Read access to any position of a file, or of a part of it.

    Parameters
    ----------
    file
        File, opened without a buffer.
    start, end
        Where the part starts and ends; by default the whole file.
    """

    def __init__(self, file: FileIO, start: int = 0, end: int | None = None) -> None:
        self.size = (os.fstat(file.fileno()).st_size if end is None else end) - start
        self._file, self._start = file, start
        file.seek(start)
        self._head = file.read(min(HEAD_SIZE, self.size))

    def __call__(self, start: int, size: int) -> bytes:
        """Return `size` bytes from `start`, or fewer at the end of the file."""
        if start >= self.size:  # damaged headers can point anywhere
            return b""
        if start >= 0 and start + size <= len(self._head):
            return self._head[start : start + size]
        self._file.seek(self._start + start)
        return self._file.read(min(size, self.size - start))

    def number(self, start: int, form: str) -> int:
        """Return the integer of `struct` format `form` at `start`; 0 after the end of the file."""
        data = self(start, struct.calcsize(form))
        return int(struct.unpack(form, data)[0]) if len(data) == struct.calcsize(form) else 0


def check_complete(read: Reader) -> None:
    """Raise ValueError if the file is shorter than its headers state."""
    start = read(0, 20)
    for magic, offset, check in CONTAINERS:
        if start.startswith(magic, offset):
            check(read)
            return


def has_mp3_length(read: Reader) -> bool:
    """Return whether the first frame of an MP3 (after an ID3v2 tag, if any) states the number of frames."""
    xing = read_xing(read, read_id3_size(read))
    return xing is not None and xing.n_frames > 0


class XingHeader(NamedTuple):
    """Length of an MP3, as its Xing or Info header states it.

    `n_frames` counts the frames after the frame of the header; `n_bytes` includes that frame. 0 means not stated.
    """

    n_frames: int
    n_bytes: int


def read_xing(read: Reader, start: int) -> XingHeader | None:
    """Return the Xing or Info header in the MP3 frame at `start`; None if the frame contains sound instead."""
    frame = read(start, 256)
    place = max(frame.find(b"Xing"), frame.find(b"Info"))
    if place < 0:
        return None
    flags = read.number(start + place + 4, ">I")
    n_frames = read.number(start + place + 8, ">I") if flags & 1 else 0
    n_bytes = read.number(start + place + 8 + 4 * (flags & 1), ">I") if flags & 2 else 0
    return XingHeader(n_frames, n_bytes)


def read_id3_size(read: Reader, start: int = 0) -> int:
    """Return the size of the ID3v2 tag at `start` in bytes; 0 if there is none."""
    tag = read(start, 10)
    if tag[:3] != b"ID3":  # the size of the tag is stored in four times seven bits
        return 0
    return 10 + sum(byte << shift for byte, shift in zip(tag[6:10], (21, 14, 7, 0), strict=False))


def find_caf_end(read: Reader, start: int) -> int:
    """Return the end, in bytes, of the CAF file that starts at `start`; 0 if the size of its sound is not stated.

    After a header of 8 bytes, each chunk has a name of four bytes and a signed size of eight; -1 means unknown.
    """
    end = start + 8
    for _ in range(MAX_CHUNKS):
        if end + 12 > read.size or read(end, 4) == b"caff":  # another file follows
            break
        size = read.number(end + 4, ">q")
        if size < 0:
            return 0
        end += 12 + size
    return end


def _check_size(read: Reader, start: int, size: int) -> None:
    available = max(read.size - start, 0)
    if available + HEADER_SLACK < size < UNKNOWN_SIZE:
        raise ValueError(f"truncated: has {available} of {size} bytes of sound")


def _check_riff(read: Reader) -> None:
    if read(8, 4) not in AUDIO_FORMS:  # an AVI film or an image
        _check_size(read, 8, read.number(4, "<I"))
        return
    little = read(0, 4) == b"RIFF"
    chunks = _iter_chunks(read, 12, "<4sI" if little else ">4sI")
    sound = next((chunk[1:] for chunk in chunks if chunk[0] in (b"data", b"SSND", b"BODY")), None)
    if sound is None:
        raise ValueError("truncated or damaged: has no chunk of sound")
    _check_size(read, *sound)


def _check_rf64(read: Reader) -> None:
    stated = 0
    for name, start, _ in _iter_chunks(read, 12, "<4sI"):
        if name == b"ds64":
            stated = read.number(start + 8, "<Q")
        elif name == b"data":
            available = read.size - start
            if available + HEADER_SLACK < stated:
                raise ValueError(f"truncated: has {available} of {stated} bytes of sound")
            return


def _check_au(read: Reader) -> None:
    _check_size(read, read.number(4, ">I"), read.number(8, ">I"))


def _iter_chunks(read: Reader, start: int, form: str) -> Iterator[Chunk]:
    """Yield the chunks of a RIFF or AIFF file."""
    for _ in range(MAX_CHUNKS):
        head = read(start, 8)
        if len(head) < 8:
            return
        name, size = struct.unpack(form, head)
        yield name, start + 8, size
        start += 8 + size + size % 2


def _check_boxes(read: Reader) -> None:
    """Check that the top-level boxes of an MP4 are complete and include the index (ISO/IEC 14496-12, section 4.2)."""
    end, names = 0, set()
    for name, _, end in iter_boxes(read):  # noqa: B007
        names.add(name)
    if end > read.size or b"moov" not in names:
        raise ValueError("truncated: incomplete last box" if end > read.size else "truncated: no index")


def iter_boxes(read: Reader, start: int = 0) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of the top-level boxes of an MP4."""
    for _ in range(MAX_CHUNKS):
        if start + 8 > read.size:
            return
        size = read.number(start, ">I")
        if size == 1:
            size = read.number(start + 8, ">Q")
        elif size == 0:  # to the end of the file
            size = read.size - start
        end = start + max(size, 8)
        yield read(start + 4, 4), start, end
        start = end


def _check_ogg(read: Reader) -> None:
    """Check that the last page is complete (RFC 3533, section 6: 27 bytes, one byte per segment, the segments)."""
    tail = read(max(read.size - 2 * MAX_OGG_PAGE, 0), 2 * MAX_OGG_PAGE)
    start = tail.rfind(b"OggS")
    segments = tail[start + 26] if start + 26 < len(tail) else 0
    table = tail[start + 27 : start + 27 + segments]
    if start + 27 + segments + sum(table) > len(tail):
        raise ValueError("truncated: incomplete last Ogg page")


def _check_xing(read: Reader) -> None:
    """Check the file size in the Xing header of an MP3, if there is one."""
    xing = read_xing(read, read_id3_size(read))
    if xing and read.size < 0.98 * xing.n_bytes:  # only some encoders count the tags
        raise ValueError(f"truncated: has {read.size} of {xing.n_bytes} bytes")


CONTAINERS: tuple[tuple[bytes, int, Callable[[Reader], None]], ...] = (  # magic bytes, their offset, the check
    (b"RIFF", 0, _check_riff),
    (b"FORM", 0, _check_riff),
    (b"RF64", 0, _check_rf64),
    (b".snd", 0, _check_au),
    (b"OggS", 0, _check_ogg),
    (b"ftyp", 4, _check_boxes),
    (b"ID3", 0, _check_xing),
    *((bytes((255, second)), 0, _check_xing) for second in range(224, 256)),  # an MP3 frame starts with eleven set bits
)
