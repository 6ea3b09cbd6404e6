"""What can be separated: a sound file, or a song of a source of stems, of which the right stems are known.

Sound files are read block by block. Songs are played as a whole, since their stems are compared at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np

from data_gen import InputError, audio
from data_gen.midi import read_midi
from data_gen.stems import StemSource, Take, choose_stems
from sourcesep.config import Config

if TYPE_CHECKING:
    from data_gen.played import PlayedStems

TAIL_S = 2.0  # seconds that are played after the last event of a song, for notes to fade


class Input(Protocol):
    """A recording that is ready to be separated.

    Attributes:
        sample_rate: in Hz.
        n_channels: number of channels.
    """

    sample_rate: int
    n_channels: int

    @property
    def n_samples(self) -> int | None:
        """Length to expect. An estimate, since a header may be wrong; None if it is unknown."""

    @property
    def references(self) -> np.ndarray | None:
        """The stems that the recording is the sum of, float32 [time, channel, stem]; None if they are not known."""

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields the whole recording as float32 [time, channel]. Raises InputError if it cannot be read."""

    def notes(self) -> list[str]:
        """Returns what the user should know about the recording, in words; to be called when all blocks are read."""

    def close(self) -> None:
        """Closes the file."""


class SoundFile:
    """An Input: a file in any format that can be read. Raises InputError if it cannot."""

    references = None

    def __init__(self, path: str):
        self._file = audio.open_audio(path)
        self.sample_rate: int = self._file.sample_rate
        self.n_channels: int = self._file.n_channels
        self.n_samples = self._file.n_samples

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields the whole file."""
        return self._file.blocks()

    def notes(self) -> list[str]:
        """Returns what differs between the file and its header."""
        return self._file.notes()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class PlayedSong:
    """An Input: the mixture of a take, whose stems are known.

    Args:
        take: of a song of `source`.
        source: which stems there are.
        config: of the run, for which of them are targets of the model.
        stem_names: names of the stems that are separated; some of those in `config`.
        seconds: how much of the middle is played; 0 for the whole song.

    Attributes:
        name: name of the song.
        mixture: float32 [time, channel].
    """

    def __init__(
        self, take: Take, source: StemSource, config: Config, stem_names: tuple[str, ...], seconds: float = 0.0
    ):
        self.name = take.name
        self.sample_rate = source.sample_rate
        self.n_channels = source.n_channels
        start, self.n_samples = 0, take.n_samples + round(TAIL_S * source.sample_rate)
        if 0 < seconds * source.sample_rate < take.n_samples:
            self.n_samples = round(seconds * source.sample_rate)
            start = (take.n_samples - self.n_samples) // 2
        stems = take.stems(start, self.n_samples)  # [stem, channel, time]
        known = dict(zip(config.stem_names, choose_stems(list(stems), source.names, config.targets, config.other)))
        self.references = np.stack([known[name].T for name in stem_names], axis=2)
        self.mixture = stems.sum(axis=0).T

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields one second at a time."""
        for start in range(0, len(self.mixture), self.sample_rate):
            yield self.mixture[start : start + self.sample_rate]

    def notes(self) -> list[str]:
        """Returns nothing: what is played is complete."""
        return []

    def close(self) -> None:
        """Does nothing: there is no file."""


class MidiPlayer:
    """Plays MIDI files with a run's instruments, loading its SoundFont for the first of them.

    Args:
        config: of the run.
        stem_names: names of the stems that are separated.
    """

    def __init__(self, config: Config, stem_names: tuple[str, ...]):
        self._config, self._stem_names = config, stem_names
        self._source: PlayedStems | None = None

    def play(self, path: str) -> PlayedSong:
        """Returns a file, played. Raises InputError if it cannot be, or none of the instruments plays in it."""
        if self._source is None:
            from sourcesep.sources import open_played  # imported here: sound files do not need it

            self._source = open_played(self._config, "")
        return PlayedSong(self._source.play(read_midi(path)), self._source, self._config, self._stem_names)


def play_held_out(source: StemSource, config: Config, stem_names: tuple[str, ...]) -> PlayedSong:
    """Returns the first of the songs that a run's training has kept for tests.

    Raises InputError if there are so few songs that none was kept, or it cannot be played.
    """
    if not source.size("test"):
        raise InputError("the run has too few songs to have kept one for tests; name a sound file or a MIDI file")
    return PlayedSong(source.load("test", 0), source, config, stem_names)
