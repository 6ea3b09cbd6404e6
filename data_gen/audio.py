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

BLOCK_SAMPLES = 1 << 16


def open_audio(path: str | pathlib.Path) -> soundfile.SoundFile:
    """Opens a file in any format that libsndfile reads. Raises InputError if it is missing or none."""
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such file")
    if not os.path.getsize(path):
        raise InputError(f"{path}: an empty file")
    try:
        return soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        raise InputError(f"{path}: not a sound file that can be read ({error.error_string})") from None
    except TypeError:  # soundfile's way to say that a .raw file does not tell its rate
        raise InputError(f"{path}: raw samples without a header; convert it to a format that tells its rate") from None


def read_blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """Yields the file from where it stands as float32 [time, channel].

    Raises InputError if it cannot be decoded to its end, or holds a sample that is no number.
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
    """Whether a file that was read to its end is shorter than its header says.

    libsndfile reads what is there and mentions the sizes in its log. Sizes near 2**31 and 2**32 are what programs write
    that do not know the length beforehand.
    """
    sizes = re.findall(r"(\d+) \(should be (\d+)\)", file.extra_info)
    return file.tell() < file.frames or any(int(there) < int(said) < 2**31 - 2**16 for said, there in sizes)


def resample(blocks: Iterable[np.ndarray], from_hz: int, to_hz: int) -> Iterator[np.ndarray]:
    """Resamples float32 blocks [time, channel] without seams and without delay (soxr, high quality).

    The length comes out as that of the input times to_hz / from_hz, to within a few samples.
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
