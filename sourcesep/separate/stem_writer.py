"""Writes stems to sound files, all stems of a recording together or none.

To add a format, add its record to FORMATS.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType

import numpy as np
import soundfile

from data_gen import InputError
from data_gen.audio import encode_path, read_blocks, resample
from data_gen.files import short_name


@dataclasses.dataclass(frozen=True)
class Format:
    """A format of sound files that stems can be written in.

    Attributes:
        name: value of --format, and the extension of the files.
        container: libsndfile's name of the file format.
        subtypes: what samples can be stored as: value of --subtype -> libsndfile's name; the default comes first. A
            format without a choice has one, "".
        rates: the sample rates that it has, in Hz, ascending; empty if it has any.
        can_be_empty: whether a file can hold no samples at all.
        long_container: libsndfile's name of the format for files over 4 GiB; empty if `container` holds these too.
    """

    name: str
    container: str
    subtypes: Mapping[str, str]
    rates: tuple[int, ...] = ()
    can_be_empty: bool = True
    long_container: str = ""

    def nearest_rate(self, sample_rate: int) -> int:
        """Returns the sample rate to write at: the one given, or the next higher one that there is, or the highest."""
        if not self.rates or sample_rate in self.rates:
            return sample_rate
        return min((rate for rate in self.rates if rate > sample_rate), default=self.rates[-1])


MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)  # of MPEG 1, 2 and 2.5, in Hz

_INTEGERS = {"int16": "PCM_16", "int24": "PCM_24"}
FORMATS = {
    record.name: record
    for record in (
        Format("wav", "WAV", {"float32": "FLOAT", **_INTEGERS}, long_container="RF64"),
        Format("flac", "FLAC", _INTEGERS, can_be_empty=False),
        Format("ogg", "OGG", {"": "VORBIS"}),
        Format("mp3", "MP3", {"": "MPEG_LAYER_III"}, rates=MP3_RATES, can_be_empty=False),
    )
}

_MAX_WAV_BYTES = 2**32 - 2**16  # a RIFF file states its length in 32 bits; some are left for its header
_RF64_AUTO_DOWNGRADE = 0x1210  # command of libsndfile that soundfile has no name for
_LENGTH_TOLERANCE = 2  # samples by which a resampled file may differ from the expected length


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How stems are stored.

    Attributes:
        format: one of FORMATS, by name.
        subtype: one of the format's subtypes; empty for its default.

    Raises InputError if there is no such format, or it has no such subtype.
    """

    format: str = "wav"
    subtype: str = ""

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InputError(f"--format={self.format}: choose from {', '.join(FORMATS)}")
        subtypes = list(self.record.subtypes)
        if self.subtype and self.subtype not in subtypes:
            choice = f"choose from {', '.join(subtypes)}" if any(subtypes) else "this format has none"
            raise InputError(f"--subtype={self.subtype} does not go with --format={self.format}: {choice}")
        object.__setattr__(self, "subtype", self.subtype or subtypes[0])

    @property
    def record(self) -> Format:
        """The record of the format."""
        return FORMATS[self.format]

    def quantize(self, block: np.ndarray) -> np.ndarray:
        """Rounds float samples to the nearest ones that an integer subtype has; libsndfile would round down."""
        if not self.subtype.startswith("int"):
            return block
        bits = int(self.subtype.removeprefix("int"))
        whole = np.clip(np.round(block * 2.0 ** (bits - 1)), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        return whole.astype(np.int16) if bits == 16 else whole.astype(np.int32) << (32 - bits)


class StemWriter:
    """Writes stems block by block to files that appear under their names together, once all are complete.

    A context manager: if an error ends its block, nothing is left behind; if the process is killed, hidden files
    `.*.partial` and `.*.float` are left, which the next run overwrites. Integer and lossy formats clip what is
    louder than full scale. So these files are made at the end, from float files, and if any stem was louder, all stems
    of the recording get the same gain.

    Args:
        paths: of the stems; their folders are made.
        sample_rate, n_channels: of the stems, in Hz and number.
        encoding: of the files. For a format that does not have the sample rate, stems are resampled to the next one.
        n_samples: expected length; None if it is unknown. It decides whether a long WAV file is written as RF64.

    Attributes:
        written: paths of the files that have got their names; empty before the end.
        gain_db: gain that was applied, 0 or less.
        file_hz: sample rate of the files.

    Raises InputError if a file cannot be written, or the format cannot hold the recording.
    """

    def __init__(
        self,
        paths: Sequence[pathlib.Path],
        sample_rate: int,
        n_channels: int,
        encoding: Encoding = Encoding(),  # noqa: B008 (it is immutable)
        n_samples: int | None = 0,
    ):
        self.paths = list(paths)
        self.written: list[pathlib.Path] = []
        self.encoding = encoding
        self.gain_db = 0.0
        self.file_hz = encoding.record.nearest_rate(sample_rate)
        self._sample_rate, self._n_channels, self._n_samples = sample_rate, n_channels, n_samples
        self._left_out: set[pathlib.Path] = set()
        self._partial = [path.with_name(f".{short_name(path)}.partial") for path in self.paths]
        self._float = [path.with_name(f".{short_name(path)}.float") for path in self.paths]
        self._is_direct = encoding.subtype == "float32"
        self._peak = 0.0

    def __enter__(self) -> StemWriter:
        self._stack = contextlib.ExitStack()
        for path in self._partial + self._float:
            self._stack.callback(_remove, path)
        try:
            # Opened at once, since what the format cannot hold is better refused before hours of separation.
            subtype = self.encoding.record.subtypes[self.encoding.subtype]
            self._files = [self._open(path, self.file_hz, subtype, self._container()) for path in self._partial]
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

    def leave_out(self, paths: Iterable[pathlib.Path]) -> None:
        """Throws the files of these paths away at the end, in place of giving them their names."""
        self._left_out.update(paths)

    def notes(self) -> list[str]:
        """Returns what differs between the stems that were given and the files, in words."""
        notes = []
        if self.gain_db:
            name = f"{self.encoding.format} {self.encoding.subtype}".rstrip()
            notes.append(
                f"the stems were louder than {name} holds: all of them are written {-self.gain_db:.2f} dB quieter"
            )
        if self.file_hz != self._sample_rate:
            notes.append(
                f"{self.encoding.format} has no {self._sample_rate} Hz: the stems are written at {self.file_hz} Hz"
            )
        return notes

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        with self._stack:  # which closes and removes what is left of the partial files
            if kind is None:
                self._finish()

    def _finish(self) -> None:
        """Makes the files complete, checks them, and gives them their names."""
        n_samples = self._files[0].tell()
        if not n_samples and not self.encoding.record.can_be_empty:
            raise InputError(
                f"{self.paths[0]}: {self.encoding.format} cannot hold an empty recording; --format=wav can"
            )
        for path, file in zip(self.paths, self._files):
            with _naming(path):
                file.close()
        if not self._is_direct:
            self._encode()
        expected = n_samples * self.file_hz / self._sample_rate
        for path, partial in zip(self.paths, self._partial):
            with _naming(path):
                if abs(soundfile.info(encode_path(partial)).frames - expected) > _LENGTH_TOLERANCE:
                    raise OSError("what was written is not complete")
        kept = [pair for pair in zip(self.paths, self._partial) if pair[0] not in self._left_out]
        for path, partial in kept:
            with _naming(path):
                os.replace(partial, path)
        self.written = [path for path, _ in kept]

    def _encode(self) -> None:
        """Turns the float files into files of the format, all with the gain that the loudest sample needs."""
        gain = min(1.0, 1.0 / max(self._peak, 1e-9))
        self.gain_db = 20 * math.log10(gain)
        for path, source_path, target in zip(self.paths, self._float, self._encoded):
            with soundfile.SoundFile(encode_path(source_path)) as source:
                for block in resample(read_blocks(source, source_path), self._sample_rate, self.file_hz):
                    with _naming(path):
                        target.write(self.encoding.quantize(block * np.float32(gain)))
            with _naming(path):
                target.close()
            source_path.unlink()

    def _container(self) -> str:
        """Returns libsndfile's name of the format, given the length to expect."""
        record = self.encoding.record
        is_long = self._n_samples is None or self._n_samples * self._n_channels * 4 > _MAX_WAV_BYTES
        return record.long_container if record.long_container and is_long else record.container

    def _open(self, path: pathlib.Path, rate: int, subtype: str, container: str) -> soundfile.SoundFile:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError as error:
            raise InputError(f"{path.parent}: cannot write in this folder ({error.strerror})") from None
        try:
            file = soundfile.SoundFile(encode_path(path), "w", rate, self._n_channels, subtype, format=container)
        except soundfile.LibsndfileError as error:
            raise InputError(
                f"{path.parent}: {self.encoding.format} cannot hold {self._n_channels} channels at {rate} Hz "
                f"({error.error_string}); choose another --format"
            ) from None
        self._stack.callback(_close_quietly, file)
        if container == "RF64" and self._n_samples is None:
            # If it stays under 4 GiB, its header becomes that of a WAV file, which more programs read.
            soundfile._snd.sf_command(file._file, _RF64_AUTO_DOWNGRADE, soundfile._ffi.NULL, 1)
        return file


@contextlib.contextmanager
def _naming(path: pathlib.Path) -> Iterator[None]:
    """Turns errors in writing into InputErrors that name the file."""
    try:
        yield
    except (OSError, AssertionError, soundfile.SoundFileError) as error:  # soundfile asserts that all was written
        reason = getattr(error, "strerror", None) or getattr(error, "error_string", None) or str(error)
        raise InputError(f"{path}: cannot be written to its end ({reason}); is the disk full?") from None


def _remove(path: pathlib.Path) -> None:
    with contextlib.suppress(OSError):  # it may not have been made
        path.unlink()


def _close_quietly(file: soundfile.SoundFile) -> None:
    with contextlib.suppress(soundfile.SoundFileError):  # the file is thrown away
        file.close()
