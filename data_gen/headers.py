"""Finds out how much sound a file of plain samples (WAV, RF64, W64, AIFF, AU, CAF) holds, whatever its header states.

Recorders that crash, programs that write to a pipe, and sizes over 32 bits leave headers with a length that is too
small, too large or missing, and libsndfile reads no further than the header states. So the containers are parsed here
as far as the samples, and a file whose length is wrong is given to libsndfile with a corrected header.
"""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_MAX_HEADER_BYTES = 1 << 24  # longer headers are not looked through; the longest ones hold pictures
_MAX_PADDING_BYTES = 1 << 16  # a tail of zeros up to this length is padding, a longer one is silence
_UNKNOWN_32 = 2**31 - 2**16  # programs that do not know the length write sizes near 2**31 or 2**32
_MAX_32 = 2**32 - 1

_CHUNK_ID = re.compile(rb"[A-Za-z0-9 _\-+.()\xa9\[\]]{4}")
_LAST_CHUNKS = (
    b"LIST",
    b"ID3 ",
    b"id3 ",
    b"bext",
    b"cue ",
    b"smpl",
    b"iXML",
    b"JUNK",
    b"FLLR",
    b"fact",
    b"PEAK",
    b"acid",
)
_SHORTEST_FILE = 24  # bytes of the shortest header
_ID3V1_BYTES = 128
_TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")  # what programs that tag music append to files of any format

# W64 names chunks by 16 bytes. Those of libsndfile's own chunks end like this; "riff" differs from them.
_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_W64_CHUNK = "<16sQ"


class Samples(NamedTuple):
    """Where the samples of a file are.

    Attributes:
        begin, end: bytes in the file; the samples are all that is there.
        stated_bytes: length of the samples by the header; None if it states none.
        next_begin: where another file begins that was joined to this one; None if there is none.
        header: a right header, to be put in place of all before `begin`; None if the container cannot state the length.
    """

    begin: int
    end: int
    stated_bytes: int | None
    next_begin: int | None
    header: bytes | None


class Section(io.RawIOBase):
    """A file that begins with `header` and goes on with the bytes `begin` to `end` of another file.

    Args:
        file: the other file, which is closed with this one.
        begin, end: of the section.
        header: what comes before the section.
    """

    def __init__(self, file: BinaryIO, begin: int, end: int, header: bytes = b""):
        super().__init__()
        self._file, self._begin, self._end, self._header = file, begin, end, header
        self._position = 0

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def tell(self) -> int:
        """Returns the position."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to a position and returns it."""
        length = len(self._header) + self._end - self._begin
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: length}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fills a buffer as far as there are bytes, and returns their number."""
        view = memoryview(buffer).cast("B")
        n_read = 0
        if self._position < len(self._header):
            part = self._header[self._position : self._position + len(view)]
            view[: len(part)] = part
            n_read = len(part)
        place = self._begin + self._position + n_read - len(self._header)
        wanted = min(len(view) - n_read, self._end - place)
        if wanted > 0:
            self._file.seek(place)
            part = self._file.read(wanted)
            view[n_read : n_read + len(part)] = part
            n_read += len(part)
        self._position += n_read
        return n_read

    def close(self) -> None:
        """Closes both files."""
        self._file.close()
        super().close()


def find_samples(file: BinaryIO, begin: int, end: int) -> Samples | None:
    """Returns where the samples of a container are that takes up the bytes `begin` to `end` of a file.

    Returns None for other formats, for compressed samples whose place cannot be told from their number, and for
    headers that are too damaged to be understood.
    """
    file.seek(begin)
    magic = file.read(24)
    try:
        if magic[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and magic[8:12] == b"WAVE":
            return _find_in_wav(file, begin, end, magic[:4])
        if magic[:16] == _W64_RIFF:
            return _find_in_w64(file, begin, end)
        if magic[:4] == b"FORM" and magic[8:12] in (b"AIFF", b"AIFC"):
            return _find_in_aiff(file, begin, end, magic[8:12])
        if magic[:4] in (b".snd", b"dns."):
            return _find_in_au(file, begin, end, "<" if magic[:4] == b"dns." else ">", magic[:4])
        if magic[:4] == b"caff":
            return _find_in_caf(file, begin, end)
    except struct.error:  # the file ends in its header
        return None
    return None


def _read_struct(file: BinaryIO, position: int, layout: str) -> tuple:
    file.seek(position)
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def _chunks(file: BinaryIO, begin: int, end: int, layout: str, align: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields (id, where its content begins, stated length) of chunks; `layout` is that of id and length."""
    while begin + struct.calcsize(layout) <= end:
        name, size = _read_struct(file, begin, layout)
        content = begin + struct.calcsize(layout)
        if layout == _W64_CHUNK:
            name, size = name[:4], size - struct.calcsize(layout)  # which counts its header
        yield name, content, size
        begin = content + size + -size % align


def _find_end(
    file: BinaryIO, begin: int, end: int, size: int | None, layout: str, align: int, magic: bytes
) -> tuple[int, int | None, int | None]:
    """Returns (end of the samples, length that the header states or None, where another file begins or None).

    The samples end where the header states if chunks, tags, padding or another file follow there; else with the file.

    Args:
        file: the file.
        begin: where the samples begin.
        end: of the file.
        size: length of the samples in the header; None for one that says that it is unknown.
        layout: of the id and the length of a chunk; "" for a container without chunks.
        align: chunks begin at multiples of this.
        magic: first bytes of a file of this format.
    """
    if size is not None and begin + size <= end:
        for tail in sorted({begin + size, min(end, begin + size + -size % align)}):
            file.seek(tail)
            if file.read(4) == magic and tail + _SHORTEST_FILE <= end:
                return begin + size, size, tail
            if _is_trailer(file, tail, end, layout, align):
                return begin + size, size, None
    if end - begin >= _ID3V1_BYTES:
        file.seek(end - _ID3V1_BYTES)
        if file.read(3) == b"TAG":
            end -= _ID3V1_BYTES
    return end, size if size is None or _is_known(size) else None, None


def _is_trailer(file: BinaryIO, begin: int, end: int, layout: str, align: int) -> bool:
    """Returns whether what lies between the samples and the end of the file is something other than samples."""
    if begin >= end:
        return True
    is_short = end - begin <= _MAX_PADDING_BYTES
    file.seek(begin)
    head = file.read(min(end - begin, _MAX_PADDING_BYTES))
    if head.startswith(_TAGS) or (is_short and not any(head)):
        return True
    if not layout:
        return False
    position = begin
    for name, content, size in _chunks(file, begin, end, layout, align):
        if not _CHUNK_ID.fullmatch(name) or not 0 <= size <= end - content:
            break
        position = content + size
    if position == begin:  # no whole chunk: a file that was cut in its last one, or samples
        return is_short and head[:4] in _LAST_CHUNKS
    return end - position <= _MAX_PADDING_BYTES


def _is_known(size: int) -> bool:
    """Returns whether a program knew the length when it wrote this size."""
    return not (_UNKNOWN_32 <= size < 2**31 + 2**16 or _MAX_32 - 2**16 <= size <= _MAX_32 or size >= 2**62)


def _find_in_wav(file: BinaryIO, begin: int, end: int, magic: bytes) -> Samples | None:
    order = ">" if magic == b"RIFX" else "<"
    layout = f"{order}4sI"
    long_size, encoding = None, b""
    for name, content, size in _chunks(file, begin + 12, min(end, begin + _MAX_HEADER_BYTES), layout, 2):
        if name == b"ds64":
            (long_size,) = _read_struct(file, content + 8, "<Q")
        elif name == b"fmt ":
            encoding = struct.pack(layout, name, size) + _read_bytes(file, content, content + size + size % 2)
        elif name == b"data":
            if long_size is not None and size == _MAX_32:
                size = long_size
            samples_end, stated, next_begin = _find_end(file, content, end, size, layout, 2, magic)
            header = _wav_header(encoding, samples_end - content, order) if encoding else None
            return Samples(content, samples_end, stated, next_begin, header)
    return None


def _wav_header(encoding: bytes, n_bytes: int, order: str) -> bytes | None:
    """Returns the header of a WAV file, or of an RF64 file if it is over 4 GiB; `encoding` is its chunk "fmt "."""
    n_after = 4 + len(encoding) + 8 + n_bytes + n_bytes % 2
    if n_after <= _MAX_32:
        form = b"RIFX" if order == ">" else b"RIFF"
        data = struct.pack(f"{order}4sI", b"data", n_bytes)
        return struct.pack(f"{order}4sI4s", form, n_after, b"WAVE") + encoding + data
    if order == ">":
        return None
    sizes = struct.pack("<4sIQQQI", b"ds64", 28, n_after + 36, n_bytes, 0, 0)
    return struct.pack("<4sI4s", b"RF64", _MAX_32, b"WAVE") + sizes + encoding + struct.pack("<4sI", b"data", _MAX_32)


def _find_in_w64(file: BinaryIO, begin: int, end: int) -> Samples | None:
    for name, content, size in _chunks(file, begin + 40, min(end, begin + _MAX_HEADER_BYTES), _W64_CHUNK, 8):
        if name == b"data":
            known = size if 0 <= size < 2**62 else None
            samples_end, stated, next_begin = _find_end(file, content, end, known, _W64_CHUNK, 8, b"riff")
            head, n_bytes = _read_bytes(file, begin, content), samples_end - content
            whole = struct.pack("<Q", len(head) + n_bytes)
            header = head[:16] + whole + head[24:-8] + struct.pack("<Q", 24 + n_bytes)
            return Samples(content, samples_end, stated, next_begin, header)
        if size < 0:
            return None
    return None


# AIFF-C: codings of plain samples, and the bits of those that have a fixed number.
_AIFF_CODINGS = {
    **dict.fromkeys((b"NONE", b"twos", b"sowt", b"raw ", b"in24", b"in32")),
    **dict.fromkeys((b"ulaw", b"alaw", b"ULAW", b"ALAW"), 8),
    **{b"fl32": 32, b"FL32": 32, b"fl64": 64, b"FL64": 64},
}


def _find_in_aiff(file: BinaryIO, begin: int, end: int, kind: bytes) -> Samples | None:
    frame_bytes = n_frames = frames_at = 0
    for name, content, size in _chunks(file, begin + 12, min(end, begin + _MAX_HEADER_BYTES), ">4sI", 2):
        if name == b"COMM":
            n_channels, n_frames, n_bits = _read_struct(file, content, ">HIH")
            frames_at = content + 2
            coding = _read_bytes(file, content + 18, content + 22) if kind == b"AIFC" else b"NONE"
            if coding not in _AIFF_CODINGS:
                return None
            frame_bytes = n_channels * -(-(_AIFF_CODINGS[coding] or n_bits) // 8)
        elif name == b"SSND":
            if not frame_bytes:
                return None
            (offset,) = _read_struct(file, content, ">I")
            data = content + 8 + offset
            samples_end, stated, next_begin = _find_end(file, data, end, max(0, size - 8 - offset), ">4sI", 2, b"FORM")
            if stated is not None:
                stated = min(stated, n_frames * frame_bytes)
            header, n_bytes = bytearray(_read_bytes(file, begin, data)), samples_end - data
            if len(header) + n_bytes > _MAX_32:
                return Samples(data, samples_end, stated, next_begin, None)
            struct.pack_into(">I", header, 4, len(header) - 8 + n_bytes + n_bytes % 2)
            struct.pack_into(">I", header, frames_at - begin, n_bytes // frame_bytes)
            struct.pack_into(">I", header, content - 4 - begin, 8 + offset + n_bytes)
            return Samples(data, samples_end, stated, next_begin, bytes(header))
    return None


def _find_in_au(file: BinaryIO, begin: int, end: int, order: str, magic: bytes) -> Samples | None:
    offset, size, coding = _read_struct(file, begin + 4, f"{order}III")
    if not _SHORTEST_FILE <= offset <= end - begin or coding not in (*range(1, 8), 27):
        return None
    content = begin + offset
    samples_end, stated, next_begin = _find_end(file, content, end, None if size == _MAX_32 else size, "", 1, magic)
    head = _read_bytes(file, begin, content)
    header = head[:8] + struct.pack(f"{order}I", _MAX_32) + head[12:]  # which says: all that there is
    return Samples(content, samples_end, stated, next_begin, header)


def _find_in_caf(file: BinaryIO, begin: int, end: int) -> Samples | None:
    coding = b""
    for name, content, size in _chunks(file, begin + 8, min(end, begin + _MAX_HEADER_BYTES), ">4sq", 1):
        if name == b"desc":
            coding = _read_bytes(file, content + 8, content + 12)
        elif name == b"data":
            if coding not in (b"lpcm", b"ulaw", b"alaw"):
                return None
            data, known = content + 4, size - 4 if size >= 4 else None
            samples_end, stated, next_begin = _find_end(file, data, end, known, ">4sq", 1, b"caff")
            head = _read_bytes(file, begin, data)
            header = head[:-12] + struct.pack(">q", samples_end - data + 4) + head[-4:]
            return Samples(data, samples_end, stated, next_begin, header)
        elif size < 0:
            return None
    return None


def _read_bytes(file: BinaryIO, begin: int, end: int) -> bytes:
    file.seek(begin)
    return file.read(end - begin)
