"""Sound files, block by block: read, write, resample."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import soundfile
import soxr

from data_gen import InputError

BLOCK_SAMPLES = 1 << 16


def open_audio(path: str | pathlib.Path) -> soundfile.SoundFile:
    """Opens a file in any format that libsndfile reads. Raises InputError if it is missing or none."""
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such file")
    try:
        return soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        raise InputError(f"{path}: not a sound file that can be read ({error.error_string})") from None


def read_blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """Yields the file from where it stands as float32 [time, channel].

    Raises InputError if it cannot be decoded to its end, or holds a sample that is no number.
    """
    while True:
        try:
            block = file.read(BLOCK_SAMPLES, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise InputError(f"{file.name}: cannot be read to its end ({error.error_string})") from None
        if not len(block):
            return
        if not np.isfinite(block).all():
            raise InputError(f"{file.name}: holds samples that are not finite numbers; repair the file first")
        yield block


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


@contextlib.contextmanager
def stem_writer(folder: pathlib.Path, names: Sequence[str], sample_rate: int, n_channels: int):
    """Writes `folder`/NAME.wav for each name, 32-bit float; yields a function that takes [time, channel, stem].

    The files appear under their names together, when the block is left without an error.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot make this folder ({error.strerror})") from None
    partial = [folder / f".{name}.wav.partial" for name in names]
    try:
        with contextlib.ExitStack() as stack:
            files = [
                stack.enter_context(soundfile.SoundFile(path, "w", sample_rate, n_channels, "FLOAT", format="WAV"))
                for path in partial
            ]

            def write(block: np.ndarray) -> None:
                for position, file in enumerate(files):
                    file.write(block[:, :, position])

            yield write
        for path, name in zip(partial, names):
            os.replace(path, folder / f"{name}.wav")
    finally:
        for path in partial:
            path.unlink(missing_ok=True)
