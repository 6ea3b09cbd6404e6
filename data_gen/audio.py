"""Reads sound files block by block, and resamples."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterable, Iterator

import numpy as np
import soundfile
import soxr

from data_gen import InputError

BLOCK_SAMPLES = 1 << 16  # longest block that is read at a time, in samples

_UNKNOWN_SAMPLES = 2**62  # libsndfile gives about 2**63 samples as the length of a file that does not state it


def open_audio(path: str | pathlib.Path) -> soundfile.SoundFile:
    """Opens a file in any format that libsndfile reads. Raises InputError if it is missing or not a sound file."""
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such file")
    if not os.path.getsize(path):
        raise InputError(f"{path}: an empty file")
    try:
        return soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        raise InputError(f"{path}: not a sound file that can be read ({error.error_string})") from None
    except TypeError:  # what soundfile raises for a .raw file, which does not state its sample rate
        raise InputError(f"{path}: raw samples without a header; convert it to a format that states its rate") from None


def stated_samples(file: soundfile.SoundFile) -> int | None:
    """Returns the length that a file's header states, in samples; None if it states none. It may be wrong."""
    return file.frames if file.frames < _UNKNOWN_SAMPLES else None


def read_blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """Yields the rest of a file, from where it stands, as float32 [time, channel].

    Raises InputError if it cannot be decoded to its end, or holds samples that are not finite numbers.
    """
    block_samples = max(1, min(BLOCK_SAMPLES, file.samplerate))
    while True:
        start_s = file.tell() / file.samplerate
        try:
            block = file.read(block_samples, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise InputError(f"{file.name}: damaged or cut off after {start_s:.1f} s ({error.error_string})") from None
        if not len(block):
            return
        if not np.isfinite(block).all():
            raise InputError(
                f"{file.name}: holds samples that are not finite numbers after {start_s:.1f} s; repair the file first"
            )
        yield block


def is_cut_off(file: soundfile.SoundFile) -> bool:
    """Returns whether a file that was read to its end is shorter than its header states.

    libsndfile reads what is there and writes both sizes into its log. Programs that do not know the length beforehand
    write sizes near 2**31 or 2**32, which do not count.
    """
    sizes = re.findall(r"(\d+) \(should be (\d+)\)", file.extra_info)
    return file.tell() < file.frames or any(int(actual) < int(stated) < 2**31 - 2**16 for stated, actual in sizes)


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
