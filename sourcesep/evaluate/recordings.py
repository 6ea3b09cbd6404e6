"""Reads folders of recorded stems: one folder per song, one sound file per stem.

Two layouts are recognised: Slakh2100 (TrackNNNNN/metadata.yaml and stems/SNN.wav or .flac, each with its General MIDI
program), and files named after instruments, as in MUSDB18-HQ (drums.wav, bass.wav, vocals.wav, other.wav). Files named
mixture or mix are not stems.
"""

from __future__ import annotations

import functools
import os
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import NamedTuple

import numpy as np
import yaml

from data_gen import InputError, audio
from data_gen.files import walk
from data_gen.instruments import DRUM_BANK, Instrument

SUFFIXES = (".wav", ".flac", ".aif", ".aiff", ".ogg", ".opus", ".mp3", ".m4a", ".w64", ".caf", ".au", ".wv")
MIXTURES = ("mixture", "mix")  # names of files that hold the mixture, without suffix and in lower case


class RecordedSong(NamedTuple):
    """The stems of a song.

    Attributes:
        stems: the files of each instrument, by its name, without instruments that have none.
        others: the files that belong to no instrument, by their label.
        is_labelled: whether the others are known to contain none of the instruments.
    """

    stems: dict[str, list[pathlib.Path]]
    others: dict[str, list[pathlib.Path]]
    is_labelled: bool


def find_songs(folder: str) -> list[pathlib.Path]:
    """Returns the folders of songs in a folder, which may be a song itself, sorted. Raises InputError without songs."""
    if not os.path.isdir(folder):
        raise InputError(f"{folder}: no such folder")
    songs = []
    for place, folders, files in walk(folder):
        if "metadata.yaml" in files or list_sound_files(pathlib.Path(place))[0]:
            songs.append(pathlib.Path(place))
            folders.clear()
    if not songs:
        raise InputError(
            f"{folder}: holds no stems; it needs one folder per song with one file per stem, e.g. SONG/drums.wav, or "
            "Slakh's TrackNNNNN/metadata.yaml"
        )
    return sorted(songs)


def list_sound_files(folder: pathlib.Path) -> tuple[dict[str, pathlib.Path], pathlib.Path | None]:
    """Lists the sound files directly in a folder.

    Returns:
        (stems by file name without suffix, sorted; the file of the mixture, or None)

    Raises InputError if there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    paths = [path for path in paths if path.is_file() and not path.name.startswith(".")]
    mixtures = [path for path in paths if path.stem.lower() in MIXTURES]
    return {path.stem: path for path in paths if path not in mixtures}, mixtures[0] if mixtures else None


def open_song(folder: pathlib.Path, instruments: Sequence[Instrument]) -> RecordedSong:
    """Assigns the files of a song to instruments.

    A Slakh stem belongs to the instrument that plays its program. Any other file belongs to the instrument that it is
    named after, in upper or lower case; several files of one instrument end in numbers (Drums_1.wav, drums 2.wav).

    Raises InputError if the folder's metadata.yaml is damaged or a stem that it names is missing.
    """
    stems: dict[str, list[pathlib.Path]] = {}
    others: dict[str, list[pathlib.Path]] = {}
    is_slakh = (folder / "metadata.yaml").exists()
    for path, label, bank, program in _list_slakh_stems(folder) if is_slakh else _list_named_stems(folder):
        if is_slakh:
            owners = [instrument.name for instrument in instruments if instrument.plays(bank, program)]
        else:
            owners = [instrument.name for instrument in instruments if instrument.name.lower() == label.lower()]
        (stems if owners else others).setdefault((owners or [label])[0], []).append(path)
    return RecordedSong(stems, others, is_slakh)


def _list_named_stems(folder: pathlib.Path) -> Iterator[tuple[pathlib.Path, str, int, int]]:
    """Yields (path, label, 0, 0) of each stem."""
    for name, path in list_sound_files(folder)[0].items():
        yield path, re.sub(r"[\s_\-.]*\d*$", "", name) or name, 0, 0


def _list_slakh_stems(folder: pathlib.Path) -> Iterator[tuple[pathlib.Path, str, int, int]]:
    """Yields (path, label, SoundFont bank, program) of each stem. Raises InputError like `open_song`."""
    metadata = folder / "metadata.yaml"
    try:
        for key, stem in yaml.safe_load(metadata.read_text(encoding="utf-8", errors="replace"))["stems"].items():
            if not stem.get("audio_rendered", True):
                continue
            paths = [path for path in (folder / "stems" / f"{key}{suffix}" for suffix in SUFFIXES) if path.exists()]
            if not paths:
                raise InputError(f"{folder}: stems/{key}.wav is missing, though metadata.yaml names it")
            yield paths[0], str(stem["inst_class"]), DRUM_BANK if stem["is_drum"] else 0, int(stem["program_num"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{metadata}: damaged, or not in the format of Slakh ({error!r})") from None


class Reader:
    """Reads the same part of several files, which may differ in length; mono files are copied to all channels.

    Args:
        paths: sound files with one sample rate.
        seconds: length of the middle part to read; 0 for the whole files.

    Raises InputError for files that cannot be read or differ in sample rate.
    """

    def __init__(self, paths: Sequence[pathlib.Path], seconds: float) -> None:
        lengths: list[int] = []
        n_channels: list[int] = []
        rates: dict[int, pathlib.Path] = {}
        for path in paths:
            measures = audio.measure(path)
            lengths.append(measures.n_samples)
            n_channels.append(measures.n_channels)
            rates[measures.sample_rate] = path
        if len(rates) > 1:
            listed = ", ".join(f"{path} {rate} Hz" for rate, path in rates.items())
            raise InputError(f"the stems of one song need the same sample rate: {listed}")
        self.sample_rate = next(iter(rates))
        self._n_channels = max(n_channels)
        wanted = round(seconds * self.sample_rate) if seconds else max(lengths)
        self._begin = max(0, (max(lengths) - wanted) // 2)
        self._length = min(wanted, max(lengths))
        self._end = self._begin + self._length if seconds else sys.maxsize

    def read(self, path: pathlib.Path) -> np.ndarray:
        """Returns the part of one file, float32 [time, channel]; shorter where the file ends before."""
        samples, rate = read_audio(path, self._begin, self._end)
        if rate != self.sample_rate:
            raise InputError(f"{path}: has a rate of {rate} Hz, other files of the song {self.sample_rate} Hz")
        if samples.shape[1] not in (1, self._n_channels):
            raise InputError(f"{path}: has {samples.shape[1]} channels, other files of the song {self._n_channels}")
        return np.broadcast_to(samples, (len(samples), self._n_channels))

    def total(self, paths: Sequence[pathlib.Path]) -> np.ndarray:
        """Returns the sum of that part of some files, float32 [time, channel]; zeros without files."""
        total = np.zeros((self._length, self._n_channels), np.float32)
        for path in paths:
            samples = self.read(path)
            total[: len(samples)] += samples
        return total


def read_audio(path: str | pathlib.Path, begin: int, end: int) -> tuple[np.ndarray, int]:
    """Returns (float32 [time, channel], sample rate in Hz) of samples `begin` to `end` of a file.

    tensorflow-io reads it if its native operations load and support the format, otherwise `data_gen.audio` does;
    both give the same samples. Raises InputError if the file is missing or damaged, or holds a sample that is not
    finite.
    """
    with audio.open_audio(path) as file:
        rate, subtype, n_samples = file.sample_rate, file.subtype, file.n_samples
    if subtype in _TFIO_SUBTYPES and n_samples is not None and begin < min(end, n_samples):
        samples = _read_with_tfio(path, begin, min(end, n_samples))
    else:
        samples = None
    if samples is None:
        samples = audio.read_part(path, begin, end)
    if not np.isfinite(samples).all():
        raise InputError(f"{path}: holds samples that are not finite numbers; repair the file first")
    return samples, rate


# What tensorflow-io reads correctly: it reads 32-bit integers as floats, and cannot seek in lossy formats.
_TFIO_SUBTYPES = ("PCM_16", "PCM_24", "FLOAT")


def _read_with_tfio(path: str | pathlib.Path, begin: int, end: int) -> np.ndarray | None:
    """Returns float32 [time, channel], or None if tensorflow-io is not installed, does not load, or fails."""
    tfio = _import_tfio()
    if not tfio:
        return None
    import tensorflow as tf

    try:
        samples = tfio.audio.AudioIOTensor(os.fsencode(path))[begin:end].numpy()
    except tf.errors.OpError:  # data_gen.audio, which reads it next, raises an error that names the reason
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
