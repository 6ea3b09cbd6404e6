"""Decodes compressed sound files with FFmpeg's libraries, through PyAV.

Why a second decoder next to libsndfile: that one reads no further than the length it computes when it opens a file. For
an MP3 file without a Xing header this is an estimate from the first frames (9 of 60 s for one that begins loudly), for
chained Ogg and joined FLAC the length of the first part, and a FLAC file that was streamed fails at its end. FFmpeg
decodes packet by packet until the file ends. It also reads AAC, WMA, MP2, ALAC, APE and the sound of videos.

Why PyAV: it has wheels, with FFmpeg inside, for every Python and system that TensorFlow has, so that nothing has to be
installed by hand, and errors are exceptions for one packet. The ffmpeg program is not installed everywhere, miniaudio
knows only MP3, FLAC, Vorbis and WAV, and audioread leaves the work to what it finds.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

import av
import numpy as np

from data_gen import InputError
from data_gen.headers import Section

av.logging.set_level(av.logging.PANIC)  # it would print about every damaged packet

_BUFFER_BYTES = 1 << 18
_PREROLL_SAMPLES = 8_192  # decoded before a window and thrown away: four frames of AAC, the longest that it has
_OPTIONS = {"protocol_whitelist": "none"}  # a playlist must not make it open other files, or addresses
_OGG_PAGE_BYTES = 27  # of the header of a page, without its table of segments
_FLAC_BEGINNING = b"fLaC\0\0\0\x22"  # the magic bytes, and the header of the block that comes first
_OGG_FIRST, _OGG_PAGE = 0x02, b"OggS"
# Containers that state how long their sound is (Ogg in its last page). For others FFmpeg computes a length from the bit
# rate, which may be several times too long or too short.
_STATING = ("mov,mp4,m4a,3gp,3g2,mj2", "wv", "tta", "ape", "tak", "mpc8", "asf", "dsf", "ogg")


_LOSSLESS = ("flac", "alac", "wavpack", "tta", "ape", "tak", "truehd", "mlp")


class Decoder:
    """Sound that FFmpeg decodes: of a sound file, or the first sound track of a video.

    Args:
        path: of the file.
        begin, end: the part of it that is decoded.

    Attributes:
        sample_rate, n_channels: of what is decoded first, and of all blocks.
        codec: FFmpeg's name of the codec.
        n_samples: length by the header, or computed by FFmpeg where it is safe; None if it is unknown.
        is_stated: whether the header states it.
        is_lossless: whether the codec keeps every sample, and so the exact length.
        lost_samples: how much could not be decoded so far and was replaced by silence.

    Raises InputError if nothing can be decoded.
    """

    def __init__(self, path: str | os.PathLike[str], begin: int, end: int):
        self.lost_samples = 0
        self._source = io.BufferedReader(Section(open(path, "rb"), begin, end), _BUFFER_BYTES)  # noqa: SIM115
        try:
            self._container: Any = av.open(self._source, options=_OPTIONS)
        except (av.error.FFmpegError, ValueError) as error:
            self._source.close()
            raise InputError(f"{path}: not a sound file that can be read ({_reason(error)})") from None
        try:
            if not self._container.streams.audio:
                raise InputError(f"{path}: holds no sound")
            self._stream: Any = self._container.streams.audio[0]
            self.codec: str = self._stream.codec_context.name
            self.is_lossless = self.codec in _LOSSLESS or self.codec.startswith("pcm_")
            self._frames = self._decode()
            self._first = next(self._frames, None)
            if self._first is None:
                raise InputError(f"{path}: no sound can be decoded ({self.codec})")
        except BaseException:
            self.close()
            raise
        self.sample_rate: int = self._first.sample_rate
        self.n_channels: int = len(self._first.layout.channels)
        with open(path, "rb") as file:
            self.n_samples, self.is_stated = self._length(file, begin)

    def frames(self) -> Iterator[tuple[np.ndarray, int]]:
        """Yields (float32 [time, channel], sample rate in Hz) from the beginning; rate and channels may change."""
        if self._first is not None:
            yield _to_floats(self._first), self._first.sample_rate
            self._first = None
        for frame in self._frames:
            yield _to_floats(frame), frame.sample_rate

    def close(self) -> None:
        """Closes the file."""
        self._container.close()
        self._source.close()

    def _decode(self) -> Iterator[Any]:
        """Yields decoded frames, with silence in place of packets that cannot be decoded."""
        last = None
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:  # the file cannot be followed any further
                return
            if packet is None:
                return
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                n_lost = round(
                    float((packet.duration or 0) * (packet.time_base or 0)) * (last.sample_rate if last else 0)
                )
                if last is not None and 0 < n_lost < 2**20:
                    self.lost_samples += n_lost
                    yield _silence_like(last, n_lost)
                continue
            for frame in frames:
                if frame.samples:
                    last = frame
                    yield frame

    def _length(self, file: BinaryIO, begin: int) -> tuple[int | None, bool]:
        """Returns (length in samples or None, whether the header states it)."""
        name = self._container.format.name
        if name == "flac":
            stated = _flac_samples(file, begin)
            return stated, stated is not None
        if name == "mp3":
            stated = _mp3_samples(file, begin, 1_152 if self.codec == "mp2" or self.sample_rate >= 32_000 else 576)
            return stated, stated is not None
        seconds = float(self._stream.duration * self._stream.time_base) if self._stream.duration else None
        if name in _STATING and seconds:
            return round(seconds * self.sample_rate), True
        if name == "matroska,webm" and self._container.duration:
            return round(self._container.duration / av.time_base * self.sample_rate), False
        return None, False


def measure_track(path: str | os.PathLike[str], track: int) -> tuple[int, int, int]:
    """Returns (sample rate in Hz, channels, length in samples) of a sound track in a container that states its times.

    Raises InputError if there is no such track.
    """
    with _open_track(path, track) as (_, stream):
        context = stream.codec_context
        n_samples = round(float((stream.duration or 0) * stream.time_base) * context.sample_rate)
        return context.sample_rate, len(context.layout.channels), n_samples


def read_track(path: str | os.PathLike[str], track: int, begin: int, end: int) -> np.ndarray:
    """Returns samples `begin` to `end` of a sound track, float32 [time, channel], by the times in the container.

    What cannot be decoded is silent. Raises InputError if there is no such track.
    """
    with _open_track(path, track) as (container, stream):
        rate = stream.codec_context.sample_rate
        samples = np.zeros((end - begin, len(stream.codec_context.layout.channels)), np.float32)
        first = stream.start_time or 0
        before = max(0, begin - _PREROLL_SAMPLES)  # a codec needs what comes before, to be right where it begins
        container.seek(first + int(before / rate / stream.time_base), stream=stream, backward=True)
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                continue
            for frame in frames:
                if frame.pts is None:
                    continue
                position = round(float((frame.pts - first) * stream.time_base) * rate) - begin
                if position >= len(samples):
                    return samples
                block = _to_floats(frame)[max(0, -position) :]
                place = samples[max(0, position) : max(0, position) + len(block)]
                place[:] = block[: len(place)]
    return samples


@contextlib.contextmanager
def _open_track(path: str | os.PathLike[str], track: int) -> Iterator[tuple[Any, Any]]:
    """Yields (container, stream) of a sound track."""
    try:
        with open(path, "rb") as file, av.open(file, options=_OPTIONS) as container:
            if track >= len(container.streams.audio):
                raise InputError(f"{path}: has {len(container.streams.audio)} sound tracks, not {track + 1}")
            yield container, container.streams.audio[track]
    except (av.error.FFmpegError, ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a sound file that can be read ({_reason(error)})") from None


class _Silence:
    """What looks like a decoded frame and holds silence."""

    def __init__(self, n_samples: int, n_channels: int, sample_rate: int):
        self.samples, self.sample_rate = n_samples, sample_rate
        self.array = np.zeros((n_samples, n_channels), np.float32)


def _silence_like(frame: Any, n_samples: int) -> _Silence:
    n_channels = frame.array.shape[1] if isinstance(frame, _Silence) else len(frame.layout.channels)
    return _Silence(n_samples, n_channels, frame.sample_rate)


def _to_floats(frame: Any) -> np.ndarray:
    """Returns a decoded frame as float32 [time, channel] with full scale at 1."""
    if isinstance(frame, _Silence):
        return frame.array
    array, n_channels = frame.to_ndarray(), len(frame.layout.channels)
    # [channel, time] for planar formats, else [1, time * channel].
    samples = array.T if frame.format.is_planar else array.reshape(-1, n_channels)
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    return (samples / -float(np.iinfo(samples.dtype).min)).astype(np.float32)


def find_ogg_links(file: BinaryIO, begin: int, end: int) -> list[tuple[int, int]]:
    """Returns (begin, end) of each of the streams that were chained to an Ogg file; one for other files."""
    starts, position, has_data = [begin], begin, False
    while position + _OGG_PAGE_BYTES <= end:
        file.seek(position)
        header = file.read(_OGG_PAGE_BYTES)
        if header[:4] != _OGG_PAGE:
            if position == begin:
                break
            file.seek(position)  # damaged: the next page that can be found
            offset = file.read(1 << 16).find(_OGG_PAGE)
            position = position + offset if offset > 0 else position + (1 << 16) - 3
            continue
        if header[5] & _OGG_FIRST:
            if has_data:
                starts.append(position)
            has_data = False
        else:
            has_data = True
        table = file.read(header[26])
        position += _OGG_PAGE_BYTES + len(table) + sum(table)
    return list(zip(starts, [*starts[1:], end]))


def find_flac_links(file: BinaryIO, begin: int, end: int) -> list[tuple[int, int]]:
    """Returns (begin, end) of each of the FLAC files that were joined; one for other files."""
    starts, position = [begin], begin + 1
    while position < end:
        file.seek(position)
        data = file.read(1 << 20)
        at = data.find(_FLAC_BEGINNING)
        while at >= 0:
            starts.append(position + at)
            at = data.find(_FLAC_BEGINNING, at + 1)
        position += max(1, len(data) - len(_FLAC_BEGINNING) + 1)
    return list(zip(starts, [*starts[1:], end]))


def _flac_samples(file: BinaryIO, begin: int) -> int | None:
    """Returns the length in the header of a FLAC file, in samples; None if it states none."""
    file.seek(_skip_id3(file, begin))
    header = file.read(26)
    if header[:4] != b"fLaC" or len(header) < 26:
        return None
    total = int.from_bytes(header[21:26], "big") & (2**36 - 1)  # after 8 bytes of block header, 13 of rate and sizes
    return total or None


def _mp3_samples(file: BinaryIO, begin: int, frame_samples: int) -> int | None:
    """Returns the length in the Xing or VBRI header of an MP3 file, in samples; None if it states none."""
    file.seek(_skip_id3(file, begin))
    head = file.read(1 << 13)
    for tag, skip in ((b"Xing", 8), (b"Info", 8), (b"VBRI", 14)):
        at = head.find(tag)
        if at >= 0 and len(head) >= at + skip + 4 and (tag == b"VBRI" or head[at + 7] & 1):
            return int.from_bytes(head[at + skip : at + skip + 4], "big") * frame_samples or None
    return None


def _skip_id3(file: BinaryIO, begin: int) -> int:
    """Returns where an ID3v2 tag ends, or `begin` if there is none."""
    while True:
        file.seek(begin)
        header = file.read(10)
        if header[:3] != b"ID3" or len(header) < 10:
            return begin
        size = 0
        for byte in header[6:10]:  # of 7 bits each
            size = size << 7 | byte & 127
        begin += 10 + size


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
