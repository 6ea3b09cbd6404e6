"""Reads sound files block by block to the last sample, and resamples.

Plain samples (WAV, AIFF, CAF, ...) are read by libsndfile, with a corrected header where the header's length is wrong
(`data_gen.headers`), and so are Ogg files, chained ones link by link; everything else is decoded by FFmpeg's libraries
(`data_gen.decoding`).
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import stat
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from data_gen import InputError
from data_gen.headers import Samples, Section, find_samples

BLOCK_SAMPLES = 1 << 16  # longest block that is read at a time, in samples

_BUFFER_BYTES = 1 << 18
_PADDING_S, _PADDING_SAMPLES = 0.1, 4_096  # codecs add up to this much to the length that is stated
_COMPRESSED = ("MP3", "MPEG", "FLAC")  # formats in which libsndfile does not find the end of every file
# Formats that FFmpeg does not know, or takes for others: libsndfile comes first, by the suffix of the file.
_LIBSNDFILE_FIRST = (
    ".raw",
    ".avr",
    ".htk",
    ".ircam",
    ".sf",
    ".nist",
    ".paf",
    ".pvf",
    ".sds",
    ".svx",
    ".wve",
    ".xi",
    ".mat",
)
_SAMPLE_BYTES = {
    **{"PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4},
    **{"FLOAT": 4, "DOUBLE": 8, "ULAW": 1, "ALAW": 1},
}
_HTML = (b"<!doctype html", b"<html", b"<head", b"<?xml")


class Measures(NamedTuple):
    """What a file holds when it is read to its end.

    Attributes:
        sample_rate: in Hz.
        n_channels: number of channels.
        n_samples: length in samples.
    """

    sample_rate: int
    n_channels: int
    n_samples: int


class Recording:
    """A sound file, open to be read from its beginning to its end.

    Files that were joined one after the other are read one after the other. Where the sample rate or the number of
    channels changes, what follows is converted to those of the beginning.

    Args:
        path: of the file.

    Attributes:
        sample_rate, n_channels: of the beginning, in Hz and number.
        n_samples: length to expect, an estimate; None if it is unknown.

    Raises InputError if the file is missing or cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = path
        check_is_file(path)
        self._size = os.path.getsize(path)
        self._suffix = os.path.splitext(os.fsdecode(path))[1].lower()
        self._links = list(self._find_links())
        self._part = self._open_part(*self._links[0])
        self.sample_rate, self.n_channels = self._part.sample_rate, self._part.n_channels
        self.n_samples = self._part.n_samples if len(self._links) == 1 else None
        self._stated_s = self._part.n_stated / self.sample_rate if self._part.n_stated is not None else None
        self._padding_s = self._part.padding_s
        self._n_read = self._lost_s = 0.0
        self._changes: list[str] = []

    @property
    def is_exact(self) -> bool:
        """Whether `n_samples` is certain."""
        return len(self._links) == 1 and isinstance(self._part, _PlainPart) and self._part.file.format != "OGG"

    @property
    def subtype(self) -> str:
        """How samples are stored, by libsndfile's name, in a file that it reads as it is; else ""."""
        return self._part.file.subtype if isinstance(self._part, _PlainPart) and not self._part.is_mended else ""

    def seek(self, sample: int) -> bool:
        """Moves to a sample, if the file is one in which this is exact; returns whether it is."""
        if self.is_exact and isinstance(self._part, _PlainPart) and self._part.file.seekable():
            self._part.file.seek(min(sample, self._part.file.frames))
            return True
        return False

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields the rest of the file as float32 [time, channel].

        Raises InputError if it cannot be decoded to its end, or holds samples that are not finite numbers.
        """
        block_samples = max(1, min(BLOCK_SAMPLES, self.sample_rate))
        waiting: list[np.ndarray] = []
        for block in itertools.chain(self._converted(), [None]):
            if block is not None:
                waiting.append(block)
            if waiting and (block is None or sum(map(len, waiting)) >= block_samples):
                merged = np.concatenate(waiting) if len(waiting) > 1 else waiting[0]
                if not np.isfinite(merged).all():
                    raise InputError(
                        f"{self.path}: holds samples that are not finite numbers after "
                        f"{self._n_read / self.sample_rate:.1f} s; repair the file first"
                    )
                waiting = []
                self._n_read += len(merged)
                if len(merged):
                    yield merged

    def notes(self) -> list[str]:
        """Returns what the user should know about the file, in words, when all blocks were read."""
        notes, read_s = [], self._n_read / self.sample_rate
        if self._stated_s is not None and abs(read_s - self._stated_s) > self._padding_s:
            reason = " (it is cut off or damaged)" if read_s < self._stated_s else ""
            notes.append(
                f"{self.path}: its header states {self._stated_s:.2f} s, but it holds {read_s:.2f} s{reason}; "
                "all of that was used"
            )
        if self._lost_s > _PADDING_S:
            notes.append(f"{self.path}: damaged; {self._lost_s:.1f} s could not be decoded and count as silence")
        if self._changes:
            notes.append(
                f"{self.path}: changes to {', '.join(dict.fromkeys(self._changes))}; all of it was used as "
                f"{self.sample_rate} Hz, {self.n_channels} channel(s), which it begins with"
            )
        return notes

    def close(self) -> None:
        """Closes the file."""
        self._part.close()

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        self.close()

    def _find_links(self) -> Iterator[tuple[int, int]]:
        """Yields (begin, end) of the recordings that the file consists of."""
        with open(self.path, "rb", _BUFFER_BYTES) as file:
            magic = file.read(4)
            if magic == b"OggS":
                from data_gen.decoding import find_ogg_links

                yield from find_ogg_links(file, 0, self._size)
                return
            if magic == b"fLaC":
                from data_gen.decoding import find_flac_links

                yield from find_flac_links(file, 0, self._size)
                return
            begin = 0
            while samples := find_samples(file, begin, self._size):
                if samples.next_begin is None:
                    break
                yield begin, samples.next_begin
                begin = samples.next_begin
            yield begin, self._size

    def _open_part(self, begin: int, end: int) -> _PlainPart | _DecodedPart:
        """Opens a recording that takes up the bytes `begin` to `end` of the file."""
        with open(self.path, "rb") as file:
            samples = find_samples(file, begin, end)
            is_ogg = file.seek(begin) == begin and file.read(4) == b"OggS"
        is_for_ffmpeg = samples is None and not is_ogg and not self._suffix.endswith(_LIBSNDFILE_FIRST)
        if is_for_ffmpeg:
            try:
                return _DecodedPart(self.path, begin, end)
            except InputError as error:
                with contextlib.suppress(InputError):
                    return _PlainPart(self.path, begin, end, None)
                raise error from None
        try:
            return _PlainPart(self.path, begin, end, samples)
        except InputError as error:
            with contextlib.suppress(InputError):
                return _DecodedPart(self.path, begin, end)
            raise error from None

    def _parts(self) -> Iterator[_PlainPart | _DecodedPart]:
        """Yields the parts of the file, each open until the next one."""
        yield self._part
        for begin, end in self._links[1:]:
            self._part.close()
            self._part = self._open_part(begin, end)
            yield self._part

    def _converted(self) -> Iterator[np.ndarray]:
        """Yields all blocks of all parts with the rate and the channels of the first."""
        for part in self._parts():
            for rate, group in itertools.groupby(part.blocks(), key=lambda pair: pair[1]):
                yield from resample((self._with_channels(block, rate) for block, _ in group), rate, self.sample_rate)
            self._lost_s += part.lost_s

    def _with_channels(self, block: np.ndarray, rate: int) -> np.ndarray:
        n_channels = block.shape[1]
        if n_channels != self.n_channels or rate != self.sample_rate:
            self._changes.append(f"{rate} Hz, {n_channels} channel(s)")
        if n_channels == self.n_channels:
            return block
        if 1 in (n_channels, self.n_channels):
            return np.repeat(block.mean(axis=1, keepdims=True, dtype=np.float32), self.n_channels, axis=1)
        kept = block[:, : self.n_channels]
        return np.pad(kept, ((0, 0), (0, self.n_channels - kept.shape[1])))


def open_audio(path: str | os.PathLike[str]) -> Recording:
    """Opens a sound file of any format that can be read. Raises InputError if it is missing or not a sound file."""
    return Recording(path)


def encode_path(path: str | os.PathLike[str]) -> str | bytes:
    """Returns a path as soundfile takes it, also one that is not text."""
    return os.fsencode(path) if os.name == "posix" else os.fspath(path)


def measure(path: str | os.PathLike[str]) -> Measures:
    """Returns what a file holds; it is decoded to its end where its header cannot be relied on.

    Raises InputError if it cannot be read.
    """
    with open_audio(path) as file:
        n_samples = file.n_samples if file.is_exact else sum(map(len, file.blocks()))
        assert n_samples is not None
        return Measures(file.sample_rate, file.n_channels, n_samples)


def read_part(path: str | os.PathLike[str], begin: int, end: int) -> np.ndarray:
    """Returns samples `begin` to `end` of a file, float32 [time, channel], fewer where it ends before.

    Raises InputError if it cannot be read.
    """
    with open_audio(path) as file:
        position, blocks = begin if file.seek(begin) else 0, []
        for block in file.blocks():
            blocks.append(block[max(0, begin - position) : max(0, end - position)])
            position += len(block)
            if position >= end:
                break
        return np.concatenate(blocks) if blocks else np.zeros((0, file.n_channels), np.float32)


def read_blocks(file: soundfile.SoundFile, path: str | os.PathLike[str] = "") -> Iterator[np.ndarray]:
    """Yields the rest of a file that libsndfile reads as float32 [time, channel].

    Raises InputError, which names `path`, if it cannot be decoded to its end.
    """
    block_samples = max(1, min(BLOCK_SAMPLES, file.samplerate))
    n_read = 0  # counted here, since there are files (GSM) of which libsndfile cannot tell the position
    while True:
        try:
            block = file.read(block_samples, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            start_s = n_read / file.samplerate
            raise InputError(f"{path}: damaged or cut off after {start_s:.1f} s ({error.error_string})") from None
        if not len(block):
            return
        n_read += len(block)
        yield block


class _PlainPart:
    """Samples that libsndfile reads, with the right header if the one in the file states another length.

    Args:
        path: of the file.
        begin, end: the part of it.
        samples: where the samples are, or None if only libsndfile knows.
    """

    lost_s = 0.0

    def __init__(self, path: str | os.PathLike[str], begin: int, end: int, samples: Samples | None):
        self._path = path
        n_bytes = samples.end - samples.begin if samples else 0
        self.is_mended = samples is not None and samples.stated_bytes != n_bytes
        is_whole = begin == 0 and end == os.path.getsize(path)
        if samples and samples.header is None and (self.is_mended or not is_whole):
            raise InputError(f"{path}: its header contradicts its length; convert it to another format, e.g. FLAC")
        try:
            if self.is_mended or not is_whole:
                part = (samples.begin, samples.end, samples.header or b"") if samples else (begin, end)
                section = Section(open(path, "rb"), *part)  # noqa: SIM115
                self.file = soundfile.SoundFile(io.BufferedReader(section, _BUFFER_BYTES))
            else:
                self.file = soundfile.SoundFile(encode_path(path))
        except soundfile.LibsndfileError as error:
            raise InputError(f"{path}: not a sound file that can be read ({error.error_string})") from None
        except TypeError:  # what soundfile raises for a .raw file, which does not state its sample rate
            raise InputError(
                f"{path}: raw samples without a header; convert it to a format that states its rate"
            ) from None
        if self.file.format in _COMPRESSED or self.file.subtype.startswith("MPEG"):
            self.close()
            raise InputError(f"{path}: not a file of plain samples")
        self.sample_rate, self.n_channels = self.file.samplerate, self.file.channels
        # For an Ogg file without a last page libsndfile gives about 2**63 samples.
        self.n_samples: int | None = self.file.frames if self.file.frames < 2**62 else None
        self.padding_s = 0.0
        self.n_stated: float | None = None
        frame_bytes = _SAMPLE_BYTES.get(self.file.subtype, 0) * self.n_channels
        if samples and frame_bytes:
            if self.file.frames < n_bytes // frame_bytes:
                self.close()
                raise InputError(f"{path}: only a part of it can be read; convert it to another format, e.g. FLAC")
            if samples.stated_bytes is not None:
                self.n_stated = samples.stated_bytes // frame_bytes
        elif self.file.format == "OGG":  # which numbers its samples
            self.n_stated = self.n_samples
        elif samples and samples.stated_bytes is not None and n_bytes:  # compressed in blocks of one length
            self.n_stated = self.file.frames * samples.stated_bytes / n_bytes

    def blocks(self) -> Iterator[tuple[np.ndarray, int]]:
        """Yields (float32 [time, channel], sample rate in Hz)."""
        for block in read_blocks(self.file, self._path):
            yield block, self.sample_rate

    def close(self) -> None:
        """Closes the file."""
        self.file.close()


class _DecodedPart:
    """Samples that FFmpeg decodes. Arguments are those of `_PlainPart`."""

    def __init__(self, path: str | os.PathLike[str], begin: int, end: int):
        from data_gen.decoding import Decoder  # imported where it is needed: FFmpeg's libraries take time to load

        self._decoder = Decoder(path, begin, end)
        self.sample_rate, self.n_channels = self._decoder.sample_rate, self._decoder.n_channels
        self.n_samples = self._decoder.n_samples
        self.n_stated = self._decoder.n_samples if self._decoder.is_stated else None
        self.padding_s = 0.0 if self._decoder.is_lossless else max(_PADDING_S, _PADDING_SAMPLES / self.sample_rate)

    @property
    def lost_s(self) -> float:
        """How much could not be decoded, in seconds."""
        return self._decoder.lost_samples / self.sample_rate

    def blocks(self) -> Iterator[tuple[np.ndarray, int]]:
        """Yields (float32 [time, channel], sample rate in Hz), which may change."""
        return self._decoder.frames()

    def close(self) -> None:
        """Closes the file."""
        self._decoder.close()


def check_is_file(path: str | os.PathLike[str]) -> None:
    """Raises InputError, with the reason, for what cannot be a sound file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        reason = (
            "no such file"
            if isinstance(error, (FileNotFoundError, NotADirectoryError))
            else str(getattr(error, "strerror", None) or error)
        )
        raise InputError(f"{path}: {reason}") from None
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path}: a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: not a file but a pipe or a device; save it as a file first")
    if not status.st_size:
        raise InputError(f"{path}: an empty file")
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_HTML):
        raise InputError(f"{path}: a web page, not a sound file; was there an error when it was downloaded?")


def resample(blocks: Iterable[np.ndarray], from_hz: int, to_hz: int) -> Iterator[np.ndarray]:
    """Resamples float32 blocks [time, channel] without seams and without delay (soxr, high quality).

    Yields blocks of other lengths; their sum is that of the input times to_hz / from_hz, to within a few samples.
    """
    if from_hz == to_hz:
        yield from blocks
        return
    stream, n_channels = None, 0
    for block in blocks:
        if stream is None:
            n_channels = block.shape[1]
            stream = soxr.ResampleStream(from_hz, to_hz, n_channels, dtype="float32")
        yield stream.resample_chunk(block).reshape(-1, n_channels)
    if stream is not None:
        yield stream.resample_chunk(np.zeros((0, n_channels), np.float32), last=True).reshape(-1, n_channels)
