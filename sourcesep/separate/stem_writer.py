"""Writes stems to sound files, all of a recording together or none."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import pathlib
from collections.abc import Sequence

import numpy as np
import soundfile

from data_gen import InputError
from data_gen.audio import read_blocks, resample

MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
SUBTYPES = {"wav": ("float32", "int16", "int24"), "flac": ("int16", "int24"), "ogg": ("",), "mp3": ("",)}
"""What the samples of each format that is written may be stored as, the default first."""

_LIBSNDFILE = {"float32": "FLOAT", "int16": "PCM_16", "int24": "PCM_24", "": None}
_MAX_WAV_BYTES = 2**32 - 2**16  # a RIFF file counts its bytes in 32 bits


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How stems are stored.

    Attributes:
        format: wav, flac, ogg (Vorbis) or mp3.
        subtype: float32 (wav alone), int16 or int24; empty for the default of the format, float32 or int16.

    Raises InputError for a format or subtype that is not written.
    """

    format: str = "wav"
    subtype: str = ""

    def __post_init__(self):
        if self.format not in SUBTYPES:
            raise InputError(f"--format={self.format}: choose from {', '.join(SUBTYPES)}")
        subtypes = SUBTYPES[self.format]
        if self.subtype and self.subtype not in subtypes:
            choice = f"choose from {', '.join(subtypes)}" if any(subtypes) else "this format has none"
            raise InputError(f"--subtype={self.subtype} does not go with --format={self.format}: {choice}")
        object.__setattr__(self, "subtype", self.subtype or subtypes[0])

    def quantized(self, block: np.ndarray) -> np.ndarray:
        """Float samples as libsndfile stores them without further rounding (its own rounds down)."""
        if self.subtype not in ("int16", "int24"):
            return block
        bits = int(self.subtype[3:])
        whole = np.clip(np.round(block * 2.0 ** (bits - 1)), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        return whole.astype(np.int16) if bits == 16 else whole.astype(np.int32) << 8


class StemWriter:
    """Writes stems block by block to files that appear under their names together, once all are complete.

    A context manager: left by an error, it leaves nothing behind; killed, it leaves hidden files `.NAME.partial` that
    the next run overwrites. Integer and lossy formats clip what is louder than full scale. So they are made from float
    files at the end, and if any stem was louder, all stems of the recording get one and the same gain.

    Args:
        paths: of the stems; folders are made.
        sample_rate, n_channels: of the stems, in Hz and number.
        encoding: of the files. MP3 at a rate that it does not have is resampled to the next one, at most 48 kHz.
        n_samples: expected length; float WAV files over 4 GiB are written as RF64.

    Attributes:
        paths_kept: those of the files that get their names at the end, at first all.
        gain_db: that was applied, 0 or less.
        file_hz: sample rate of the files.

    Raises InputError if a file cannot be written, or the format cannot hold the recording.
    """

    def __init__(
        self,
        paths: Sequence[pathlib.Path],
        sample_rate: int,
        n_channels: int,
        encoding: Encoding = Encoding(),  # noqa: B008 (it is immutable)
        n_samples: int = 0,
    ):
        self.paths = self.paths_kept = list(paths)
        self.encoding = encoding
        self.gain_db = 0.0
        self.file_hz = sample_rate
        if encoding.format == "mp3" and sample_rate not in MP3_RATES:
            self.file_hz = min((rate for rate in MP3_RATES if rate > sample_rate), default=MP3_RATES[-1])
        self._sample_rate, self._n_channels, self._n_samples = sample_rate, n_channels, n_samples
        self._partial = [path.with_name(f".{path.name}.partial") for path in self.paths]
        self._float = [path.with_name(f".{path.name}.float.partial") for path in self.paths]
        self._is_direct = encoding.subtype == "float32"
        self._peak = 0.0

    def __enter__(self) -> StemWriter:
        self._stack = contextlib.ExitStack()
        for path in self._partial + self._float:
            self._stack.callback(_remove, path)
        try:
            is_long = self._n_samples * self._n_channels * 4 > _MAX_WAV_BYTES
            container = "RF64" if self.encoding.format == "wav" and is_long else self.encoding.format.upper()
            # Opened at once, since what the format cannot hold is better refused before hours of separation.
            self._files = [
                self._open(path, self.file_hz, _LIBSNDFILE[self.encoding.subtype], container) for path in self._partial
            ]
            if not self._is_direct:
                self._encoded = self._files
                self._files = [self._open(path, self._sample_rate, "FLOAT", "W64") for path in self._float]
        except BaseException:
            self._stack.close()
            raise
        return self

    def write(self, block: np.ndarray) -> None:
        """Appends a float32 block [time, channel, stem]."""
        self._peak = max(self._peak, float(np.abs(block).max(initial=0.0)))
        for position, (path, file) in enumerate(zip(self.paths, self._files)):
            with _naming(path):
                file.write(block[:, :, position])

    def notes(self) -> list[str]:
        """What became different from the stems that were given, in words."""
        notes = []
        if self.gain_db:
            name = f"{self.encoding.format} {self.encoding.subtype}".rstrip()
            notes.append(
                f"the stems were louder than {name} holds: all of them are written {-self.gain_db:.2f} dB quieter"
            )
        if self.file_hz != self._sample_rate:
            notes.append(f"mp3 has no {self._sample_rate} Hz: the stems are written at {self.file_hz} Hz")
        return notes

    def __exit__(self, kind, *_) -> None:
        with self._stack:  # which closes and removes what is left of the partial files
            if kind is not None:
                return
            n_samples = self._files[0].tell()
            if not n_samples and self.encoding.format in ("flac", "mp3"):
                raise InputError(
                    f"{self.paths[0]}: {self.encoding.format} cannot hold an empty recording; --format=wav can"
                )
            for path, file in zip(self.paths, self._files):
                with _naming(path):
                    file.close()
            if not self._is_direct:
                self._encode()
            for path, partial in zip(self.paths, self._partial):
                with _naming(path):
                    if abs(soundfile.info(partial).frames - n_samples * self.file_hz / self._sample_rate) > 2:
                        raise OSError("what was written is not complete")
            for path, partial in zip(self.paths, self._partial):
                if path in self.paths_kept:
                    with _naming(path):
                        os.replace(partial, path)

    def _encode(self) -> None:
        """The float files -> the files of the format, all with the gain that the loudest sample needs."""
        gain = min(1.0, 1.0 / max(self._peak, 1e-9))
        self.gain_db = 20 * math.log10(gain)
        for path, source_path, target in zip(self.paths, self._float, self._encoded):
            with soundfile.SoundFile(source_path) as source:
                for block in resample(read_blocks(source), self._sample_rate, self.file_hz):
                    with _naming(path):
                        target.write(self.encoding.quantized(block * np.float32(gain)))
            with _naming(path):
                target.close()
            source_path.unlink()

    def _open(self, path: pathlib.Path, rate: int, subtype: str | None, container: str) -> soundfile.SoundFile:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError as error:
            raise InputError(f"{path.parent}: cannot write in this folder ({error.strerror})") from None
        try:
            file = soundfile.SoundFile(path, "w", rate, self._n_channels, subtype, format=container)
        except soundfile.LibsndfileError as error:
            raise InputError(
                f"{path.parent}: {self.encoding.format} cannot hold {self._n_channels} channels at {rate} Hz "
                f"({error.error_string}); choose another --format"
            ) from None
        self._stack.callback(_close_quietly, file)
        return file


@contextlib.contextmanager
def _naming(path: pathlib.Path):
    """Errors in writing become InputErrors that name the file."""
    try:
        yield
    except (OSError, AssertionError, soundfile.SoundFileError) as error:  # the assertion is soundfile's of short writes
        reason = getattr(error, "strerror", None) or getattr(error, "error_string", None) or str(error)
        raise InputError(f"{path}: cannot be written to its end ({reason}); is the disk full?") from None


def _remove(path: pathlib.Path) -> None:
    with contextlib.suppress(OSError):  # it was not made
        path.unlink()


def _close_quietly(file: soundfile.SoundFile) -> None:
    with contextlib.suppress(soundfile.SoundFileError):  # the file is thrown away
        file.close()
