"""What a container says of its own length, checked against the bytes that are there.

Decoders keep quiet about files that end too soon. Here is what the headers of RIFF, RF64, W64, CAF, AIFF, 8SVX, AU,
Ogg, MP4, Matroska, MP3 (Xing), NIST (SPHERE), VOC, AVR, MAT4, MAT5, MPC2K, SDS and WVE state. Nothing is read but
headers, and no more of them than a recording can have, whatever they claim.
"""

import os
import re
import struct
from collections.abc import Callable, Iterator
from io import FileIO

STREAMED = 0x7FFF0000  # sizes from here on are what encoders write that cannot know the length (sox, arecord, FFmpeg)
HEADER_SLACK = 64  # bytes; some writers count the header as sound
HEAD = 1024  # bytes read at once; most of what is looked at is among them
CHUNKS = 100_000  # looked through; more are no recording's
OGG_PAGE = 65_307  # bytes; the longest page (RFC 3533, 6)
W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
MATLAB_BYTES = {0: 8, 10: 4, 20: 4, 30: 2, 40: 2, 50: 1}  # of a MAT4 number, by its type modulo 1000

SOUNDS = (b"WAVE", b"AIFF", b"AIFC", b"8SVX", b"16SV")  # of RIFF and IFF files, those whose chunks are looked through

Chunk = tuple[bytes, int, int]  # name, start, size


class Reader:
    """A file to look into at any place.

    Parameters
    ----------
    file
        The file, opened without a buffer and not read from yet.
    """

    def __init__(self, file: FileIO) -> None:
        self.size = os.fstat(file.fileno()).st_size
        self._file = file
        self._head = file.read(HEAD)

    def __call__(self, start: int, size: int) -> bytes:
        """Return `size` bytes from `start`, or fewer where the file ends."""
        if start >= self.size:  # wherever a damaged header points
            return b""
        if start >= 0 and start + size <= len(self._head):
            return self._head[start : start + size]
        self._file.seek(start)
        return self._file.read(size)

    def number(self, start: int, form: str) -> int:
        """Return the whole number at `start`, in the notation of `struct`; 0 where the file ends before it."""
        data = self(start, struct.calcsize(form))
        return int(struct.unpack(form, data)[0]) if len(data) == struct.calcsize(form) else 0


def check_complete(read: Reader) -> None:
    """Raise ValueError where the container states more bytes than the file has."""
    start = read(0, 20)
    for magic, offset, check in CONTAINERS:
        if start[offset : offset + len(magic)] == magic:
            check(read)


def mp3_has_length(read: Reader) -> bool:
    """Tell whether the first frame of an MP3, after an ID3v2 tag, is a Xing or Info header."""
    frame = read(_id3_size(read), 256)
    return any(name in frame for name in (b"Xing", b"Info"))


def _id3_size(read: Reader) -> int:
    tag = read(0, 10)
    if tag[:3] != b"ID3":  # the tag's size is in four times seven bits
        return 0
    return 10 + sum(byte << shift for byte, shift in zip(tag[6:10], (21, 14, 7, 0), strict=False))


def _check_size(read: Reader, start: int, size: int) -> None:
    there = max(read.size - start, 0)
    if there + HEADER_SLACK < size < STREAMED:
        raise ValueError(f"truncated: {there} of {size} bytes of sound are there")


def _check_riff(read: Reader) -> None:
    if read(8, 4) not in SOUNDS:  # an AVI film, an image: what FFmpeg finds in it
        _check_size(read, 8, read.number(4, "<I"))
        return
    little = read(0, 4) == b"RIFF"
    chunks = _chunks(read, 12, "<4sI" if little else ">4sI")
    sound = (chunk[1:] for chunk in chunks if chunk[0] in (b"data", b"SSND", b"BODY"))
    _check_size(read, *next(sound, (read.size, 1 + HEADER_SLACK)))


def _check_rf64(read: Reader) -> None:
    stated = 0
    for name, start, _ in _chunks(read, 12, "<4sI"):
        if name == b"ds64":
            stated = read.number(start + 8, "<Q")
        elif name == b"data":
            there = read.size - start
            if there + HEADER_SLACK < stated:
                raise ValueError(f"truncated: {there} of {stated} bytes of sound are there")
            return


def _check_w64(read: Reader) -> None:
    start = 40  # "riff", the size of all, "wave"; then chunks of a GUID, a size that counts both, and padding to 8
    for _ in range(CHUNKS):
        name, size = read(start, 16), read.number(start + 16, "<Q")
        if name == W64_DATA:
            _check_size(read, start + 24, size - 24)
        if name == W64_DATA or size < 24:
            return
        start += size + -size % 8


def _check_caf(read: Reader) -> None:
    start = 8  # then chunks of a name and a size in eight bytes, -1 where it is not known
    for _ in range(CHUNKS):
        name, size = read(start, 4), read.number(start + 4, ">q")
        if name == b"data":
            _check_size(read, start + 12, size)
        if name == b"data" or len(name) < 4 or size < 0:
            return
        start += 12 + size


def _check_au(read: Reader) -> None:
    _check_size(read, read.number(4, ">I"), read.number(8, ">I"))


def _chunks(read: Reader, start: int, form: str) -> Iterator[Chunk]:
    """Yield the chunks of a RIFF or AIFF file."""
    for _ in range(CHUNKS):
        head = read(start, 8)
        if len(head) < 8:
            return
        name, size = struct.unpack(form, head)
        yield name, start + 8, size
        start += 8 + size + size % 2


def _check_boxes(read: Reader) -> None:
    """Check that the outermost boxes of an MP4 file are whole and its index among them (ISO/IEC 14496-12, 4.2)."""
    start, names = 0, set()
    for _ in range(CHUNKS):
        if start + 8 > read.size:
            break
        size = read.number(start, ">I")
        names.add(read(start + 4, 4))
        if size == 1:
            size = read.number(start + 8, ">Q")
        elif size == 0:  # to the end of the file
            size = read.size - start
        start += max(size, 8)
    if start > read.size or b"moov" not in names:
        raise ValueError("truncated: its last box is not whole" if start > read.size else "truncated: it has no index")


def _check_ogg(read: Reader) -> None:
    """Check that the last page is whole (RFC 3533, 6: 27 bytes, one byte per segment, the segments)."""
    tail = read(max(read.size - 2 * OGG_PAGE, 0), 2 * OGG_PAGE)
    start = tail.rfind(b"OggS")
    segments = tail[start + 26] if start + 26 < len(tail) else 0
    table = tail[start + 27 : start + 27 + segments]
    if start + 27 + segments + sum(table) > len(tail):
        raise ValueError("truncated: its last Ogg page is not whole")


def _check_matroska(read: Reader) -> None:
    """Check the size of the segment that follows the header (RFC 8794, 4 to 6); all ones is a size not known."""
    start = 4 + sum(_vint(read, 4))
    length, size = _vint(read, start + 4)
    if read(start, 4) == b"\x18\x53\x80\x67" and size < (1 << 7 * length) - 1:
        _check_size(read, start + 4 + length, size)


def _vint(read: Reader, start: int) -> tuple[int, int]:
    """Return how many bytes a number of variable length takes, and the number: the first set bit says the length."""
    length = 9 - (read(start, 1) or b"\0")[0].bit_length()
    return length, int.from_bytes(read(start, length), "big") & ((1 << 7 * length) - 1)


def _check_nist(read: Reader) -> None:
    """Check the counts of a SPHERE header (TIMIT's format); shortened sound states its length unshortened."""
    length = read(8, 8).strip()
    start = int(length) if length.isdigit() else 1024
    header = read(0, min(start, OGG_PAGE))
    found = dict(re.findall(rb"^(sample_count|channel_count|sample_n_bytes) -i (\d{1,12})\s", header, re.MULTILINE))
    coding = re.search(rb"^sample_coding -s\d+ (\S+)", header, re.MULTILINE)
    if b"sample_count" in found and not (coding and b"," in coding[1]):
        number = {key: int(value) for key, value in found.items()}
        width = number.get(b"sample_n_bytes", 1) * number.get(b"channel_count", 1)
        _check_size(read, start, number[b"sample_count"] * width)


def _check_voc(read: Reader) -> None:
    """Check the blocks of a Creative voice file: a type, a size in three bytes; type 0 is the end."""
    start = read.number(20, "<H")
    for _ in range(CHUNKS):
        head = read(start, 4)
        if len(head) < 4 or head[0] == 0:
            return
        size = int.from_bytes(head[1:], "little")
        _check_size(read, start + 4, size)
        start += 4 + size


def _check_avr(read: Reader) -> None:
    width = (2 if read.number(14, ">H") == 16 else 1) * (2 if read.number(12, ">H") & 1 else 1)
    _check_size(read, 128, read.number(26, ">I") * width)


def _check_mpc2k(read: Reader) -> None:
    _check_size(read, 42, read.number(30, "<I") * 2 * (1 + (read(21, 1) == b"\x01")))


def _check_sds(read: Reader) -> None:
    """Check a MIDI sample dump: numbers in seven bits a byte, packets of 127 bytes with 120 of sound."""
    bits, low, middle, high = (*read(6, 1), *read(10, 3), *bytes(4))[:4]
    samples = low + (middle << 7) + (high << 14)
    _check_size(read, 21, -(-samples // (120 // max(-(-bits // 7), 1))) * 127)


def _check_wve(read: Reader) -> None:
    _check_size(read, 32, read.number(18, ">I"))


def _check_mat4(read: Reader) -> None:
    """Check the matrices of a MATLAB 4 file: five numbers, a name, rows times columns."""
    order = "<" if read(0, 4) == bytes(4) else ">"
    start = 0
    for _ in range(CHUNKS):
        head = read(start, 20)
        if len(head) < 20:
            return
        kind, rows, columns, _, name = struct.unpack(f"{order}5I", head)
        size = rows * columns * MATLAB_BYTES.get(kind % 1000, 8)
        _check_size(read, start + 20 + name, size)
        start += 20 + name + size


def _check_mat5(read: Reader) -> None:
    """Check the elements of a MATLAB 5 file: a type and a size each."""
    form = "<II" if read(126, 2) == b"IM" else ">II"
    start = 128
    for _ in range(CHUNKS):
        head = read(start, 8)
        if len(head) < 8:
            return
        size = struct.unpack(form, head)[1]
        _check_size(read, start + 8, size)
        start += 8 + size


def _check_xing(read: Reader) -> None:
    """Check the bytes that the Xing header of an MP3 states, where it states them."""
    start = _id3_size(read)
    frame = read(start, 256)
    place = max(frame.find(b"Xing"), frame.find(b"Info"))
    if place < 0:
        return
    flags = read.number(start + place + 4, ">I")
    if flags & 2:  # bytes are stated, after the number of frames where that is
        size = read.number(start + place + 8 + 4 * (flags & 1), ">I")
        if read.size < 0.98 * size:  # some writers count the tags, some do not
            raise ValueError(f"truncated: {read.size} of {size} bytes are there")


CONTAINERS: tuple[tuple[bytes, int, Callable[[Reader], None]], ...] = (  # the first bytes, where they are, the check
    (b"RIFF", 0, _check_riff),
    (b"FORM", 0, _check_riff),
    (b"RF64", 0, _check_rf64),
    (b"riff.\x91\xcf\x11", 0, _check_w64),
    (b"caff", 0, _check_caf),
    (b".snd", 0, _check_au),
    (b"OggS", 0, _check_ogg),
    (b"ftyp", 4, _check_boxes),
    (b"\x1aE\xdf\xa3", 0, _check_matroska),
    (b"NIST_1A", 0, _check_nist),
    (b"Creative Voice File", 0, _check_voc),
    (b"2BIT", 0, _check_avr),
    (b"\x01\x04", 0, _check_mpc2k),
    (b"\xf0\x7e", 0, _check_sds),
    (b"ALawSoundFile**", 0, _check_wve),
    (struct.pack("<5I", 0, 1, 1, 0, 11), 0, _check_mat4),
    (struct.pack(">5I", 1000, 1, 1, 0, 11), 0, _check_mat4),
    (b"MATLAB 5.0", 0, _check_mat5),
    (b"ID3", 0, _check_xing),
    *((bytes((255, second)), 0, _check_xing) for second in range(224, 256)),  # eleven set bits begin a frame
)
