"""Find the parts of a file that joins several recordings, as ``cat a.mp3 b.mp3`` or a streaming server writes it.

A decoder stops silently at the length that the first header states. This module finds the parts of chained Ogg streams
(RFC 3533, section 4) and of joined files of one format; each part is decoded like a separate file.

The next part is expected where a header says that its part ends, which costs one read, or is searched for. A search
takes less than 1 % of the time of decoding MP3 or Ogg. FLAC is decoded faster, so that only the bytes that are left
after the first part are searched.
"""

import heapq
import io
import re
from collections.abc import Callable, Iterator
from functools import partial
from io import FileIO

from core.audio.truncated_files import UNKNOWN_SIZE, Reader, find_caf_end, iter_boxes, read_id3_size, read_xing
from core.system.thread_pool import check_cancelled

SEARCH_SIZE = 1 << 20  # bytes that are searched at a time
MAX_HEADER = 64  # bytes of the longest header that is searched for
READ_AHEAD = 10_000  # bytes that a FLAC decoder may have read after the end of a stream; libFLAC reads 8 kB at once
MAX_TAGS = 100  # ID3v2 tags at the start of a recording
SMALL_TAG = 1 << 12  # bytes; some writers of MP3 count a tag as sound, which matters little for a small one
ID3V1_SIZE = 128  # bytes of a tag at the end of an MP3
MIN_FRAMES = 10  # consecutive MP3 frames after the stated end that are another recording

OGG_STREAM = re.compile(rb"OggS\x00[\x02\x06]")  # first page of a stream (flag 2); flag 4 is the last page
FLAC_STREAM = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")  # followed by STREAMINFO, which has 34 bytes
ID3_TAG, XING, INFO = re.compile(rb"ID3[\x02-\x04]"), re.compile(rb"Xing"), re.compile(rb"Info")
MP3_FRAME = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]")  # layer III of MPEG-2.5, MPEG-2 and MPEG-1
BIT_RATES = (  # in kbit/s: first those of MPEG-1, then those of MPEG-2 and MPEG-2.5
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
SAMPLING_RATES = (44_100, 48_000, 32_000)  # Hz of MPEG-1; half of them in MPEG-2, a quarter in MPEG-2.5
XING_OFFSETS = (36, 21, 13, 38, 23, 15)  # bytes in a frame before a Xing header, by version, channels and CRC


class PartOfFile(io.RawIOBase):
    """The bytes from `start` to `end` of an open file, read like a file of its own."""

    def __init__(self, file: FileIO, start: int, end: int) -> None:
        self._file, self._start, self._size, self._position = file, start, end - start, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position, and return it."""
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer, and return the number of bytes, which is smaller at the end."""
        self._file.seek(self._start + self._position)
        data = self._file.read(max(min(len(buffer), self._size - self._position), 0))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def find_parts(read: Reader, tell: Callable[[], int]) -> Iterator[tuple[int, int]]:
    """Yield the start and end, in bytes, of each recording in a file; most files contain one.

    The caller must decode each part before it requests the next. The first part of a FLAC file includes all bytes that
    follow, because its decoder stops at the stated number of samples.

    Parameters
    ----------
    read
        Random access to the file.
    tell
        Function that returns the file position that the decoder has reached, in bytes.
    """
    base, head = 0, read(0, MAX_HEADER)
    if head[:3] == b"ID3":
        base = _skip_tags(read, 0)
        head = read(base, MAX_HEADER)
    if head[:4] == b"fLaC" and int.from_bytes(head[21:26], "big") % 2**36:  # states its number of samples
        yield 0, read.size
        starts = _search(read, FLAC_STREAM, max(tell() - READ_AHEAD, base + 4))
        start = next(starts, read.size)
    else:
        unknown = _find_mp3 if base else _find_nothing
        find = next((find for pattern, find in FORMATS if pattern.match(head)), unknown)
        starts, start = find(read, base), 0
    for following in starts:
        yield start, following
        start = following
    if start < read.size:
        yield start, read.size


def _search(read: Reader, pattern: re.Pattern[bytes], start: int, end: int | None = None) -> Iterator[int]:
    """Yield the positions of a pattern."""
    end = read.size if end is None else end
    for place in range(start, end, SEARCH_SIZE):
        check_cancelled()
        block = read(place, min(SEARCH_SIZE + MAX_HEADER, end - place))
        yield from (place + found.start() for found in pattern.finditer(block) if found.start() < SEARCH_SIZE)


def _find_at_ends(
    read: Reader, start: int, *, pattern: re.Pattern[bytes], end_of: Callable[[Reader, int], int]
) -> Iterator[int]:
    """Yield the starts of further parts: the ends given by `end_of`, or a search if `end_of` returns 0 (unknown)."""
    while end := end_of(read, start):
        if end >= read.size:
            return
        starts = [place for place in (end, end + 1) if pattern.match(read(place, MAX_HEADER))]  # or padded
        if not starts:
            return
        start = starts[0]
        yield start
    yield from _search(read, pattern, start + 4)


def _end_of_riff(read: Reader, start: int, form: str = "<I") -> int:
    size = read.number(start + 4, form)
    return start + 8 + size if 0 < size < UNKNOWN_SIZE else 0


def _end_of_rf64(read: Reader, start: int) -> int:
    size = read.number(start + 20, "<Q") if read(start + 12, 4) == b"ds64" else 0
    return start + 8 + size if 0 < size < 2**62 else 0


def _end_of_w64(read: Reader, start: int) -> int:
    size = read.number(start + 16, "<Q")
    return start + size if 40 < size < 2**62 else 0


def _end_of_au(read: Reader, start: int) -> int:
    size = read.number(start + 8, ">I")
    return start + read.number(start + 4, ">I") + size if 0 < size < UNKNOWN_SIZE else 0


def _end_of_unsized(read: Reader, start: int) -> int:
    return 0


def _find_mp4(read: Reader, base: int) -> Iterator[int]:
    """Yield the position of each ``ftyp`` box, the first box of a file, that follows the index of another file."""
    names: set[bytes] = set()
    for name, start, _ in iter_boxes(read, base):
        if name == b"ftyp" and b"moov" in names:
            yield start
            names.clear()
        names.add(name)


def _find_ogg(read: Reader, base: int) -> Iterator[int]:
    """Yield the first page of each part. Streams whose first pages follow each other are one part."""
    end = base
    for start in _search(read, OGG_STREAM, base):
        if start != end:
            yield start
        segments = read.number(start + 26, "B")
        end = start + 27 + segments + sum(read(start + 27, segments))


def _find_flac(read: Reader, base: int) -> Iterator[int]:
    return _search(read, FLAC_STREAM, base + 4)


def _find_mp3(read: Reader, base: int) -> Iterator[int]:
    """Yield the starts of further MP3s: ID3v2 tags, later Xing headers, and frames after the stated end."""
    if base <= SMALL_TAG and read.size - ID3V1_SIZE <= _stated_end(read, base):
        return
    content = _find_frames(read, base, read.size, 2)
    if content is None:
        return
    tags = ((place, _skip_tags(read, place)) for place in _search(read, ID3_TAG, content))
    starts = heapq.merge(tags, *(_find_xing_frames(read, name, content) for name in (XING, INFO)))
    for start, sound in (*starts, (read.size, read.size)):
        if sound <= content or not (start == read.size or _parse_frame(read(sound, 4))):
            continue  # the header belongs to a tag that was yielded, or it is no header
        stated = _stated_end(read, content)
        if 0 < stated < start - ID3V1_SIZE and (more := _find_frames(read, stated, start, MIN_FRAMES)) is not None:
            yield more
        if start < read.size:
            yield start
        content = sound


def _find_xing_frames(read: Reader, name: re.Pattern[bytes], start: int) -> Iterator[tuple[int, int]]:
    """Yield the position of each frame with a Xing or Info header, as a pair (start, start) like the pairs of tags."""
    for place in _search(read, name, start):
        for offset in XING_OFFSETS:
            frame = place - offset
            if frame >= start and _parse_frame(read(frame, 4)):
                yield frame, frame
                break


def _stated_end(read: Reader, frame: int) -> int:
    """Return the end of an MP3 in bytes, from the Xing header in its first frame; 0 if there is no such header."""
    xing = read_xing(read, frame)
    return frame + xing.n_bytes if xing and xing.n_bytes else 0


def _find_frames(read: Reader, start: int, end: int, n: int) -> int | None:
    """Return the position of `n` consecutive MP3 frames, None if there are none."""
    if _are_frames(read, start, end, n):
        return start
    return next((place for place in _search(read, MP3_FRAME, start, end) if _are_frames(read, place, end, n)), None)


def _are_frames(read: Reader, start: int, end: int, n: int) -> bool:
    for _ in range(n):
        size = _parse_frame(read(start, 4))
        start += size
        if not size or start > end:
            return False
    return True


def _parse_frame(head: bytes) -> int:
    """Return the size of an MP3 frame in bytes, from its header; 0 if invalid (ISO/IEC 11172-3, section 2.4.1.3)."""
    if not MP3_FRAME.match(head) or len(head) < 4:
        return 0
    version, bits, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if bits in (0, 15) or rate == 3:
        return 0
    later = version != 3  # MPEG-2 or MPEG-2.5
    sr = SAMPLING_RATES[rate] // {3: 1, 2: 2, 0: 4}[version]
    return (72 if later else 144) * 1000 * BIT_RATES[later][bits - 1] // sr + (head[2] >> 1 & 1)


def _find_nothing(read: Reader, base: int) -> Iterator[int]:
    yield from ()


def _skip_tags(read: Reader, start: int) -> int:
    """Return the end of the ID3v2 tags at `start`."""
    for _ in range(MAX_TAGS):
        size = read_id3_size(read, start)
        if not size:
            break
        start += size
    return start


def _pattern(header: bytes) -> re.Pattern[bytes]:
    return re.compile(header, re.DOTALL)


SIZED_FORMATS: tuple[tuple[bytes, Callable[[Reader, int], int]], ...] = (  # start of the header, function for the end
    (rb"RIFF.{4}WAVE", _end_of_riff),
    (rb"RIFF.{4}AVI ", _end_of_riff),
    (rb"RIFX.{4}WAVE", partial(_end_of_riff, form=">I")),
    (rb"FORM.{4}(?:AIF[FC]|8SVX|16SV)", partial(_end_of_riff, form=">I")),
    (rb"RF64.{4}WAVE", _end_of_rf64),
    (rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00", _end_of_w64),
    (rb"\.snd.{8}\x00\x00\x00", _end_of_au),
    (rb"caff\x00\x01\x00\x00desc", find_caf_end),
    (rb"NIST_1A\n", _end_of_unsized),
    (rb"Creative Voice File\x1a", _end_of_unsized),
    (rb"TTA1[\x01-\x03]\x00.\x00.\x00", _end_of_unsized),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9", _end_of_unsized),  # WMA
)
# Pattern of the start of a recording, and the function that finds the starts of the recordings that follow it.
FORMATS: tuple[tuple[re.Pattern[bytes], Callable[[Reader, int], Iterator[int]]], ...] = (
    (OGG_STREAM, _find_ogg),
    (MP3_FRAME, _find_mp3),
    *(
        (_pattern(header), partial(_find_at_ends, pattern=_pattern(header), end_of=end_of))
        for header, end_of in SIZED_FORMATS
    ),
    (FLAC_STREAM, _find_flac),
    (_pattern(rb".{4}ftyp"), _find_mp4),
)
