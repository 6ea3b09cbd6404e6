"""A source of stems: where training and test audio comes from.

Chunks, workers, validation, export and evaluation use a `StemSource` and know nothing else about the data. The MIDI
player (`data_gen.played`) is one source. To add another, write its class and its line in `sourcesep.sources`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

SPLITS = ("train", "validation", "test")
OTHER = "other"  # name of the stem that is the sum of all stems which are not targets
SILENCE_DBFS = -60.0  # RMS level below which audio counts as silent, in dB relative to a full-scale square wave


class Take(Protocol):
    """One song, as it was played or recorded once.

    Attributes:
        name: name of the song, for messages and file names.
        n_samples: length of the song at the sample rate of its source.
    """

    name: str
    n_samples: int

    def stems(self, start: int, n_samples: int) -> np.ndarray:
        """Returns a stretch of every stem.

        Args:
            start: first sample, counted from the start of the song; may be negative.
            n_samples: length of the stretch.

        Returns:
            float32 [stem, channel, time]. Before the song there is silence, after it what still fades.

        Raises RenderError or InputError if this song cannot be had.
        """


class StemSource(Protocol):
    """Songs whose stems are known. It must be picklable: render processes get a copy.

    Attributes:
        names: names of the stems, in their order. The mixture is their sum.
        sample_rate: in Hz.
        n_channels: channels of each stem.
    """

    names: tuple[str, ...]
    sample_rate: int
    n_channels: int

    def size(self, split: str) -> int:
        """Returns the number of songs in a split, one of SPLITS."""

    def draw(self, split: str, rng: np.random.Generator) -> Take:
        """Returns a random song of a split, randomly varied: for training.

        Raises InputError if the split is empty, RenderError or InputError if this song cannot be had.
        """

    def load(self, split: str, index: int) -> Take:
        """Returns song number `index` of a split as it is: for validation and tests.

        Raises RenderError or InputError if this song cannot be had.
        """

    def prepare(self) -> None:
        """Loads what takes time to load (SoundFonts), in the process that calls it.

        Raises InputError if nothing can be loaded.
        """


def add_up(stems: Iterable[np.ndarray]) -> np.ndarray:
    """Returns the sum of arrays of one shape, added one after the other: anyone can repeat it to the last bit."""
    total: Any = 0
    for stem in stems:
        total = total + stem
    return total


def to_channels(stems: np.ndarray, n_channels: int) -> np.ndarray:
    """Returns stems [stem, channel, time] with `n_channels`: one is the mean of all; others are copies of one.

    Raises ValueError for other numbers of channels.
    """
    if n_channels == 1 and stems.shape[1] > 1:
        return stems.mean(axis=1, keepdims=True)
    return np.broadcast_to(stems, (len(stems), n_channels, stems.shape[2]))


def choose_stems(
    stems: Sequence[np.ndarray] | np.ndarray, names: Sequence[str], targets: Sequence[str], other: bool
) -> list[np.ndarray]:
    """Returns the stems of the targets, in their order; with `other` also the sum of all other stems, as the last.

    Args:
        stems: one array per name, all of the same shape.
        names: names of the stems.
        targets: the names that are wanted; one that is not among the names is silent.
        other: whether the sum of the stems that are not targets is added.
    """
    chosen = [stems[names.index(target)] if target in names else np.zeros_like(stems[0]) for target in targets]
    if other:
        rest = [stem for stem, name in zip(stems, names) if name not in targets]
        chosen.append(add_up(rest) if rest else np.zeros_like(stems[0]))
    return chosen
