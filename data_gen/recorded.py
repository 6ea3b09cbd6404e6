"""Recorded stems as a source: songs are read in windows, resampled, and never held in memory or on disk as a whole."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from data_gen import InputError
from data_gen.recorded_corpus import RecordedCorpus
from data_gen.recorded_take import RecordedTake
from data_gen.variation import Variation

SPEED_STEPS = 200  # a speed is a multiple of 1 / this, so that all files of a song keep together


class RecordedStems:
    """A StemSource: recorded songs, each instrument a stem. See `data_gen.stems.StemSource` for the methods.

    What is drawn at each visit is the speed: resampling changes pitch and tempo together, by no more than the narrower
    of the limits of the two. The other ranges of `variation` are those of MIDI and change nothing here.

    Args:
        corpus: the songs.
        sample_rate: in Hz.
        variation: what is drawn for each visit to a song.
        n_channels: 1, or the number of channels that all files have or are copied to.
    """

    def __init__(
        self,
        corpus: RecordedCorpus,
        sample_rate: int,
        variation: Variation = Variation(),  # noqa: B008 (it is immutable)
        n_channels: int = 1,
    ):
        self.corpus = corpus
        self.names = corpus.names
        self.sample_rate = sample_rate
        self.n_channels = n_channels
        self.variation = variation

    def size(self, split: str) -> int:
        """Returns the number of songs in a split."""
        return len(self.corpus.splits[split])

    def draw(self, split: str, rng: np.random.Generator) -> RecordedTake:
        """Returns a random song at a random speed."""
        songs = self.corpus.splits[split]
        if not songs:
            raise InputError(f"no recorded song in the {split} split: it takes about ten songs to have one")
        song = songs[int(rng.integers(len(songs)))]
        speed = draw_speed(self.variation, rng)
        return RecordedTake(song.name, song.stems, self.sample_rate, self.n_channels, speed)

    def load(self, split: str, index: int) -> RecordedTake:
        """Returns song number `index` of a split as it is."""
        song = self.corpus.splits[split][index]
        return RecordedTake(song.name, song.stems, self.sample_rate, self.n_channels)

    def prepare(self) -> None:
        """Does nothing: files are opened for each window."""


def draw_speed(variation: Variation, rng: np.random.Generator) -> Fraction:
    """Draws how many times as fast, and as high, a recording is played."""
    slower = max(1 - variation.tempo, 2 ** (-variation.transpose / 12))
    faster = min(1 + variation.tempo, 2 ** (variation.transpose / 12))
    lowest, highest = math.ceil(slower * SPEED_STEPS), math.floor(faster * SPEED_STEPS)
    return Fraction(int(rng.integers(lowest, highest + 1)) if lowest < highest else SPEED_STEPS, SPEED_STEPS)
