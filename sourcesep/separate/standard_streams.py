"""Standard input as a recording, and stems to standard output, for pipes and live use."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np

from data_gen import InputError
from sourcesep.separate.separation import MAX_CHANNELS

READ_BYTES = 1 << 15
RAW_TYPES = {"s16": "<i2", "s32": "<i4", "f32": "<f4"}  # by ffmpeg's names, without "le"

_NO_WAV = "standard input: no WAV file; for samples without a header say what they are, e.g. --raw=44100,2,s16"
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_UNKNOWN_LENGTHS = (0, 0xFFFFFFFF, 0x7FFFFFFF)  # what programs write that cannot know it yet


class StandardInput:
    """An Input: samples that come through a pipe, in a WAV file or without a header. Ctrl-C ends it.

    Args:
        file: the pipe.
        raw: "RATE,CHANNELS,TYPE" of samples without a header; empty for a WAV file.

    Raises InputError if the samples cannot be read.
    """

    references = None
    n_samples = None

    def __init__(self, file: BinaryIO, raw: str = ""):
        self._file = file
        self._left: float = float("inf")  # bytes
        if raw:
            self.sample_rate, self.n_channels, self._type = _parse_raw(raw)
        else:
            self.sample_rate, self.n_channels, self._type = self._read_header()
        if not (self.sample_rate > 0 and 1 <= self.n_channels <= MAX_CHANNELS):
            raise InputError(f"standard input: {self.sample_rate} Hz, {self.n_channels} channels: cannot be separated")

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields what arrives, as soon as it does, as float32 [time, channel]."""
        kind = np.dtype(self._type) if self._type != "s24" else np.dtype("V3")
        frame_bytes, rest = kind.itemsize * self.n_channels, b""
        try:
            while self._left > 0 and (data := self._read1(min(READ_BYTES, self._left))):
                self._left -= len(data)
                data = rest + data
                whole = len(data) // frame_bytes * frame_bytes
                rest = data[whole:]
                if whole:
                    yield _decode(data[:whole], self._type).reshape(-1, self.n_channels)
        except KeyboardInterrupt:
            return

    def notes(self) -> list[str]:
        """Returns nothing."""
        return []

    def close(self) -> None:
        """Does nothing: whoever opened the pipe closes it."""

    def _read1(self, n_bytes: float) -> bytes:
        return self._file.read1(int(n_bytes))  # type: ignore[attr-defined]

    def _read(self, n_bytes: int) -> bytes:
        data = self._file.read(n_bytes)
        if len(data) < n_bytes:
            raise InputError(_NO_WAV)
        return data

    def _read_header(self) -> tuple[int, int, str]:
        riff, _, wave = struct.unpack("<4sI4s", self._read(12))
        if riff not in (b"RIFF", b"RF64") or wave != b"WAVE":
            raise InputError(_NO_WAV)
        found = None
        while True:
            name, length = struct.unpack("<4sI", self._read(8))
            if name == b"data":
                break
            chunk = self._read(length + length % 2)
            if name == b"fmt ":
                code, n_channels, rate, _, _, bits = struct.unpack("<HHIIHH", chunk[:16])
                if code == _EXTENSIBLE:
                    (code,) = struct.unpack("<H", chunk[24:26])
                found = rate, n_channels, {_PCM: "s", _FLOAT: "f"}.get(code, "code ") + str(bits)
        if found is None or found[2] not in (*RAW_TYPES, "s24"):
            raise InputError("standard input: a WAV file of other samples than 16, 24 or 32-bit integers or floats")
        if length not in _UNKNOWN_LENGTHS:
            self._left = length
        return found[0], found[1], RAW_TYPES.get(found[2], found[2])


class StandardOutput:
    """Writes stems block by block as one WAV file of 32-bit floats whose length is left open.

    Args:
        file: the pipe.
        labels: names of what is written, in the order of its channels: all of the first, all of the second, and so on.
        sample_rate: in Hz.
        n_channels: of each of them.
    """

    def __init__(self, file: BinaryIO, labels: Sequence[str], sample_rate: int, n_channels: int):
        self._file = file
        n_all = n_channels * len(labels)
        ranges = [f"{name} {1 + i * n_channels}-{(i + 1) * n_channels}" for i, name in enumerate(labels)]
        self.layout = f"WAV, 32-bit float, {sample_rate} Hz, channels {', '.join(ranges)}"
        header = struct.pack("<4sI4s4sI", b"RIFF", 0xFFFFFFFF, b"WAVE", b"fmt ", 16)
        header += struct.pack("<HHIIHH", _FLOAT, n_all, sample_rate, 4 * n_all * sample_rate, 4 * n_all, 32)
        self._file.write(header + struct.pack("<4sI", b"data", 0xFFFFFFFF))

    def write(self, block: np.ndarray) -> None:
        """Writes float32 [time, channel, stem], and passes it on at once."""
        self._file.write(np.ascontiguousarray(block.transpose(0, 2, 1), "<f4").tobytes())
        self._file.flush()


def _parse_raw(raw: str) -> tuple[int, int, str]:
    try:
        rate, n_channels, kind = raw.split(",")
        return int(rate), int(n_channels), RAW_TYPES[kind]
    except (ValueError, KeyError):
        raise InputError(f"--raw={raw}: give rate, channels and one of {', '.join(RAW_TYPES)}: 44100,2,s16") from None


def _decode(data: bytes, kind: str) -> np.ndarray:
    """Returns samples as float32 with full scale at 1."""
    if kind == "s24":
        parts = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return np.pad(parts, ((0, 0), (1, 0))).view("<i4").ravel().astype(np.float32) / np.float32(2**31)
    samples = np.frombuffer(data, kind)
    if samples.dtype.kind == "i":
        return samples.astype(np.float32) / np.float32(2 ** (8 * samples.itemsize - 1))
    return samples.astype(np.float32)
