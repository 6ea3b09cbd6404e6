"""Reads recorded stems to score: the same part of all files of a song, at the highest of their rates.

Which file is which stem is said by `data_gen.layouts`, and files are read as in training (`data_gen.recorded_take`).
Only here tensorflow-io reads samples, where its native operations load: training reads without TensorFlow.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from types import ModuleType

import numpy as np

from data_gen import InputError
from data_gen.recorded_take import RecordedTake
from data_gen.windows import StemFile


class Part:
    """The same part of the stems of a song, whose files may differ in length and rate; mono is copied to all channels.

    Args:
        name: of the song.
        stems: the files of each stem, which are summed, by its name.
        seconds: length of the middle part to read; 0 for all of it.

    Attributes:
        sample_rate: in Hz, the highest of all files.
        n_channels: number of channels.
        begin, n_samples: of the part, in samples at this rate.

    Raises InputError for files that cannot be read or differ in their channels.
    """

    def __init__(self, name: str, stems: Mapping[str, Sequence[StemFile]], seconds: float) -> None:
        files = [file for some in stems.values() for file in some]
        self.sample_rate = max(file.sample_rate for file in files)
        self.n_channels = max(file.n_channels for file in files)
        take = RecordedTake(name, list(stems.values()), self.sample_rate, self.n_channels, read=read_window)
        self.n_samples = min(take.n_samples, round(seconds * self.sample_rate) or take.n_samples)
        self.begin = (take.n_samples - self.n_samples) // 2
        self._stems = dict(zip(stems, take.stems(self.begin, self.n_samples)))

    def __getitem__(self, name: str) -> np.ndarray:
        """Returns a stem, float32 [time, channel]."""
        return self._stems[name].T


def read_window(file: StemFile, begin: int, end: int, mono: bool = False) -> np.ndarray:
    """Returns samples of a file as `StemFile.read` does, with the same arguments and errors.

    tensorflow-io reads them if its native operations load and support the format; both give the same samples.
    """
    n_samples = min(end, file.n_samples) - begin
    if file.subtype not in _TFIO_SUBTYPES or n_samples <= 0:
        return file.read(begin, end, mono)
    samples = _read_with_tfio(file.path, begin, begin + n_samples)
    if samples is None:
        return file.read(begin, end, mono)
    if not np.isfinite(samples).all():
        raise InputError(f"{file.path}: holds samples that are not finite numbers; repair the file first")
    return samples.mean(axis=1, keepdims=True) if mono else samples


# What tensorflow-io reads correctly: it reads 32-bit integers as floats, and cannot seek in lossy formats.
_TFIO_SUBTYPES = ("PCM_16", "PCM_24", "FLOAT")


def _read_with_tfio(path: str, begin: int, end: int) -> np.ndarray | None:
    """Returns float32 [time, channel], or None if tensorflow-io is not installed, does not load, or fails."""
    tfio = _import_tfio()
    if not tfio:
        return None
    import tensorflow as tf

    try:
        samples = tfio.audio.AudioIOTensor(os.fsencode(path))[begin:end].numpy()
    except tf.errors.OpError:  # StemFile, which reads it next, raises an error that names the reason
        return None
    if samples.dtype != np.float32:
        samples = samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    return samples if len(samples) == end - begin else None


@functools.cache
def _import_tfio() -> ModuleType | None:
    """Returns the module tensorflow_io, or None if it or its native operations cannot be loaded."""
    try:
        import tensorflow as tf
        import tensorflow_io

        tensorflow_io.audio.decode_wav(tf.constant(_SILENT_WAV), dtype=tf.int16)
    except (ImportError, NotImplementedError, AttributeError, RuntimeError):
        return None
    return tensorflow_io


# A WAV file with one 16-bit sample of silence at 8 kHz.
_SILENT_WAV = b"RIFF\x26\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\x02\0\0\0\0\0"
