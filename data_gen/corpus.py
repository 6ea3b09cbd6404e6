"""Pieces of MIDI, split into train, validation and test: those of a folder, or the composer's.

Files of the same music form one song, of which one copy is used; songs are split by their music, not by their names.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Protocol

from absl import logging

from data_gen import InputError, composer, midi
from data_gen.index import Entry, load_piece, scan
from data_gen.instruments import Instrument
from data_gen.songs import split_of
from data_gen.stems import SPLITS

COMPOSED_PIECES = {"train": 400, "validation": 40, "test": 40}
COMPOSED_CACHE = 512  # pieces that a process keeps: all that it composes


class Corpus(Protocol):
    """Pieces in three splits. It must be picklable: render processes get a copy."""

    def size(self, split: str) -> int:
        """Returns the number of pieces in a split."""

    def name(self, split: str, index: int) -> str:
        """Returns the path or name of a piece, for messages."""

    def load(self, split: str, index: int) -> midi.Piece:
        """Returns one piece. Raises InputError if it cannot be read any more."""


class MidiCorpus:
    """The pieces of a folder of MIDI files, which is searched recursively.

    Args:
        midi_dir: the folder.
        instruments: the instruments that are played.
        require: "all" to use only pieces that hold every instrument, "any" for pieces that hold at least one.
        progress: whether a first scan shows a progress bar.

    Raises InputError if the folder is missing, holds no MIDI file, or no usable piece (saying how many hold what).
    """

    def __init__(self, midi_dir: str, instruments: Sequence[Instrument], require: str = "all", progress: bool = True):
        self.midi_dir = midi_dir
        entries = scan(midi_dir, progress)
        broken = [entry for entry in entries if entry.error]
        readable = [entry for entry in entries if not entry.error]
        if broken:
            logging.info("%d of %d MIDI files are skipped as broken:", len(broken), len(entries))
            for entry in broken:
                logging.info("  %s", entry.error)
        enough = all if require == "all" else any
        usable = [entry for entry in readable if enough(entry.holds(instrument) for instrument in instruments)]
        if not usable:
            held = ", ".join(f"{i.name} in {sum(entry.holds(i) for entry in readable)}" for i in instruments)
            raise InputError(
                f"{midi_dir}: none of {len(readable)} readable MIDI files holds {require} of the instruments ({held}); "
                "name other instruments, or use --require=any"
            )
        songs = {entry.song: entry for entry in reversed(usable)}  # the first copy of each song
        self.splits: dict[str, list[Entry]] = {split: [] for split in SPLITS}
        for song in sorted(songs):
            self.splits[split_of(song)].append(songs[song])
        if not self.splits["train"]:  # a handful of files: better to train on all and to test on none
            self.splits = {"train": list(songs.values()), "validation": [], "test": []}
        logging.info(
            "%s: %d MIDI files, %d usable, %d songs (%s)",
            midi_dir,
            len(entries),
            len(usable),
            len(songs),
            ", ".join(f"{len(songs_of_split)} {split}" for split, songs_of_split in self.splits.items()),
        )

    def size(self, split: str) -> int:
        """Returns the number of pieces in a split."""
        return len(self.splits[split])

    def name(self, split: str, index: int) -> str:
        """Returns the path of a piece, for messages."""
        return os.path.join(self.midi_dir, self.splits[split][index].path)

    def load(self, split: str, index: int) -> midi.Piece:
        """Returns one piece, from the cache or else from its file. Raises InputError if both are gone."""
        entry = self.splits[split][index]
        return load_piece(entry.digest, self.name(split, index))


class ComposedCorpus:
    """Pieces that the composer makes from a seed, without files."""

    def __init__(self, seed: int, instruments: Sequence[Instrument]):
        self.seed = seed
        self.instruments = tuple(instruments)

    def size(self, split: str) -> int:
        """Returns the number of pieces in a split."""
        return COMPOSED_PIECES[split]

    def name(self, split: str, index: int) -> str:
        """Returns the name of a piece, for messages."""
        return f"composed-{split}-{self.seed}-{index}"

    def load(self, split: str, index: int) -> midi.Piece:
        """Composes one piece."""
        return _compose(self.seed, self.instruments, split, index)


@functools.lru_cache(COMPOSED_CACHE)
def _compose(seed: int, instruments: tuple[Instrument, ...], split: str, index: int) -> midi.Piece:
    return composer.compose([seed, SPLITS.index(split), index], instruments)


def open_corpus(midi_dir: str, instruments: Sequence[Instrument], require: str, seed: int) -> Corpus:
    """Returns the corpus of a folder, or the composer's if `midi_dir` is empty. Raises InputError like MidiCorpus."""
    if midi_dir:
        return MidiCorpus(midi_dir, instruments, require)
    return ComposedCorpus(seed, instruments)
