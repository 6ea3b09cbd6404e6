"""A recorded song as a take: any stretch of its stems, read in one window for each file and resampled as one piece."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import soxr

from data_gen import InputError
from data_gen.windows import StemFile

_CONTEXT_SAMPLES = 256  # read on each side of a window: longer than the filter of the resampler, at the lower rate
_MAX_ALIGNMENT = 4_096  # windows begin where samples of both rates coincide, unless that is rarer than this

Read = Callable[[StemFile, int, int, bool], np.ndarray]
"""Reads samples of a file like `StemFile.read`."""


class RecordedTake:
    """A Take: one recorded song. See `data_gen.stems.Take`.

    Args:
        name: of the song.
        stems: for each stem the files that are summed; none for a stem that is silent.
        sample_rate: in Hz, to which all is resampled.
        n_channels: channels of the stems: 1, to which all are averaged, or the number that files have which are not
            mono.
        speed: how many times as fast it is played.
        read: reads the samples of a file.
    """

    def __init__(
        self,
        name: str,
        stems: Sequence[Sequence[StemFile]],
        sample_rate: int,
        n_channels: int = 1,
        speed: Fraction = Fraction(1),  # noqa: B008 (it is immutable)
        read: Read = StemFile.read,
    ):
        self.name = name
        self._stems, self._rate, self._n_channels, self._speed, self._read = stems, sample_rate, n_channels, speed, read
        longest_s = max(
            (Fraction(file.n_samples, file.sample_rate) for files in stems for file in files), default=Fraction(0)
        )
        self.n_samples = math.ceil(longest_s / speed * sample_rate)

    def stems(self, start: int, n_samples: int) -> np.ndarray:
        """Reads a stretch; float32 [stem, channel, time]. A file that is shorter than others ends in silence."""
        stems = np.zeros((len(self._stems), self._n_channels, n_samples), np.float32)
        for stem, files in zip(stems, self._stems):
            for rate in sorted({file.sample_rate for file in files}):
                self._add([file for file in files if file.sample_rate == rate], rate, start, stem)
        return stems

    def _add(self, files: Sequence[StemFile], rate: int, start: int, stem: np.ndarray) -> None:
        """Adds the sum of files of one rate, from sample `start` of the song on, to `stem` [channel, time]."""
        n_samples = stem.shape[1]
        step = rate * self._speed / self._rate  # samples of the files for one of ours
        if step == 1:
            stem += self._sum(files, start, start + n_samples).T
            return
        context = math.ceil(_CONTEXT_SAMPLES * max(Fraction(1), 1 / step))
        first, last = start - context, start + n_samples + context
        if step.denominator <= _MAX_ALIGNMENT:
            first -= first % step.denominator
        samples = self._sum(files, round(first * step), math.ceil(last * step))
        resampled = soxr.resample(samples, step.numerator, step.denominator)[start - first :][:n_samples]
        stem[:, : len(resampled)] += resampled.T

    def _sum(self, files: Sequence[StemFile], begin: int, end: int) -> np.ndarray:
        """Returns samples `begin` to `end` of the sum of files, float32 [time, channel], silent outside of them."""
        is_mono = self._n_channels == 1
        total: np.ndarray | None = None
        for file in files:
            samples = self._read(file, max(0, begin), max(0, end), is_mono)
            if samples.shape[1] not in (1, self._n_channels):
                raise InputError(
                    f"{file.path}: has {samples.shape[1]} channels, other files of the song {self._n_channels}"
                )
            if len(files) == 1 and samples.shape == (end - begin, self._n_channels):
                return samples  # nothing to add: most windows are like this
            if total is None:
                total = np.zeros((end - begin, self._n_channels), np.float32)
            total[max(0, -begin) :][: len(samples)] += samples
        assert total is not None  # there is a file
        return total
