"""Windows of sound files: any part of a file, without what comes before it where the format allows.

A file is measured once (`open_stem`); what was measured is kept in an index, so that a window costs an opened file, a
seek and the samples themselves.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
import soundfile

from data_gen import InputError, audio

MAX_DELAY_S = 0.1  # decoders of one lossy file differ by up to this much in where it begins and ends

_PLAIN, _BLOCKS, _TRACKS = "plain", "blocks", "tracks"  # ways to read a file
_TRACK_SUFFIXES = (".mp4", ".m4a", ".m4b", ".mov")  # containers in which FFmpeg finds every sample by its time


class StemFile(NamedTuple):
    """A sound file, or one sound track of it, that was measured.

    Attributes:
        path: of the file.
        track: number of the sound track.
        sample_rate: in Hz.
        n_channels: number of channels.
        n_samples: length in samples.
        subtype: how samples are stored, by libsndfile's name; "" if it does not read the file.
        way: how windows are read.
    """

    path: str
    track: int
    sample_rate: int
    n_channels: int
    n_samples: int
    subtype: str
    way: str

    @property
    def may_hold_nan(self) -> bool:
        """Whether the samples are stored as floats."""
        return self.subtype in ("FLOAT", "DOUBLE")

    def read(self, begin: int, end: int, mono: bool = False) -> np.ndarray:
        """Returns samples `begin` to `end`, float32 [time, channel], fewer where the file ends before.

        Args:
            begin, end: in samples, `begin` at least 0.
            mono: whether the channels are averaged to one.

        Raises InputError if the file cannot be read (any more), or holds a sample that is not finite.
        """
        end = min(end, self.n_samples)
        if begin >= end:
            return np.zeros((0, 1 if mono else self.n_channels), np.float32)
        if self.way == _PLAIN:
            samples = self._read_plain(begin, end)
        elif self.way == _TRACKS:
            from data_gen.decoding import read_track  # FFmpeg's libraries take time to load

            samples = read_track(self.path, self.track, begin, end)
        else:
            samples = audio.read_part(self.path, begin, end)
        if samples.dtype == np.int16:
            if mono and samples.shape[1] == 2:  # several times as fast as the mean of floats
                mean = np.add(samples[:, 0], samples[:, 1], dtype=np.float32)
                mean *= np.float32(2**-16)
                return mean[:, None]
            samples = samples * np.float32(2**-15)
        elif not np.isfinite(samples).all():
            raise InputError(f"{self.path}: holds samples that are not finite numbers; repair the file first")
        if mono and samples.shape[1] > 1:
            samples = (samples @ np.full(samples.shape[1], 1 / samples.shape[1], np.float32))[:, None]
        return samples

    def _read_plain(self, begin: int, end: int) -> np.ndarray:
        """Returns int16 or float32 [time, channel]."""
        try:
            with soundfile.SoundFile(audio.encode_path(self.path)) as file:
                file.seek(begin)
                dtype = "int16" if self.subtype == "PCM_16" else "float32"
                return file.read(end - begin, dtype=dtype, always_2d=True)
        except (soundfile.LibsndfileError, TypeError, OSError) as error:
            audio.check_is_file(self.path)
            raise InputError(f"{self.path}: cannot be read ({getattr(error, 'error_string', error)})") from None


def open_stem(path: str | os.PathLike[str], track: int = 0) -> StemFile:
    """Measures a sound file.

    Args:
        path: of the file.
        track: number of the sound track, in a container of several.

    Raises InputError if it is missing, or cannot be read.
    """
    path = os.fspath(path)
    audio.check_is_file(path)
    if path.lower().endswith(_TRACK_SUFFIXES):
        from data_gen.decoding import measure_track

        return StemFile(path, track, *measure_track(path, track), "", _TRACKS)
    plain = _open_plain(path)
    if plain and plain.subtype.startswith(("PCM", "FLOAT", "DOUBLE")) and _is_flac(path) and _ends(plain):
        return plain  # a FLAC file that states its length; `measure` would decode all of it
    with audio.open_audio(path) as file:
        is_certain = file.is_exact and bool(file.subtype)
    measures = audio.measure(path)
    if plain:
        delay_s = abs(plain.n_samples - measures.n_samples) / measures.sample_rate
        if not delay_s if is_certain else delay_s <= MAX_DELAY_S and _ends(plain):
            return plain
    return StemFile(path, track, measures.sample_rate, measures.n_channels, measures.n_samples, "", _BLOCKS)


def _open_plain(path: str) -> StemFile | None:
    """Returns what libsndfile says of a file, or None if it cannot read it or seek in it."""
    try:
        with soundfile.SoundFile(audio.encode_path(path)) as file:
            if not file.seekable() or not 0 < file.frames < 2**40:
                return None
            return StemFile(path, 0, file.samplerate, file.channels, file.frames, file.subtype, _PLAIN)
    except (soundfile.LibsndfileError, TypeError):
        return None


def _is_flac(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"fLaC"


def _ends(file: StemFile) -> bool:
    """Returns whether the last samples that the header states are there."""
    n_last = min(file.n_samples, 4_096)
    try:
        return len(file.read(file.n_samples - n_last, file.n_samples)) == n_last
    except InputError:
        return False
