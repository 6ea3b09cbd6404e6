"""Pieces of MIDI, split into train, validation and test: those of folders, the composer's, or both.

Files of the same music form one song, of which one copy is used; songs are split by their music, not by their names.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from absl import logging

from data_gen import InputError, composer, midi
from data_gen.files import split_weight
from data_gen.index import Entry, load_piece, scan
from data_gen.instruments import Instrument
from data_gen.songs import name_songs, split_of
from data_gen.stems import SPLITS

COMPOSED_PIECES = {"train": 400, "validation": 40, "test": 40}
COMPOSED_CACHE = 512  # pieces that a process keeps: all that it composes


class Corpus(Protocol):
    """Pieces in three splits. It must be picklable: render processes get a copy."""

    def size(self, split: str) -> int:
        """Returns the number of pieces in a split."""

    def draw(self, split: str, rng: np.random.Generator) -> int:
        """Returns the number of a random piece, for `load`."""

    def name(self, split: str, index: int) -> str:
        """Returns the path or name of a piece, for messages."""

    def load(self, split: str, index: int) -> midi.Piece:
        """Returns one piece. Raises InputError if it cannot be read any more."""


def split_folders(midi_dir: str) -> dict[str, float]:
    """Reads what --midi_dir lists: folders separated by commas, each with an optional weight as in quartets:0.5.

    The name of an existing folder is one folder, whatever characters it has. Raises InputError for a weight that is not
    above 0.
    """
    entries = [midi_dir] if os.path.isdir(midi_dir) else midi_dir.split(",")
    return dict((entry, 1.0) if os.path.isdir(entry) else split_weight(entry) for entry in entries)


class MidiCorpus:
    """The pieces of folders of MIDI files, which are searched recursively.

    Args:
        midi_dir: the folders, as in `split_folders`. Their weights say how often each of their songs is drawn.
        instruments: the instruments that are played.
        require: "all" to use only pieces that hold every instrument, "any" for pieces that hold at least one.
        progress: whether a first scan shows a progress bar.

    Raises InputError if a folder is missing or holds no MIDI file, or if there is no usable piece (saying how many hold
    what).
    """

    def __init__(self, midi_dir: str, instruments: Sequence[Instrument], require: str = "all", progress: bool = True):
        self.midi_dir = midi_dir
        weights = split_folders(midi_dir)
        entries, folders = _scan_all(tuple(weights), progress)
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
        self._until: dict[str, np.ndarray] = {}  # cumulated shares of the songs of a split, where weights differ
        if len(set(weights.values())) > 1:
            for split, songs_of_split in self.splits.items():
                until = np.cumsum([weights[folders[entry.path]] for entry in songs_of_split])
                self._until[split] = until / until[-1:]
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

    def draw(self, split: str, rng: np.random.Generator) -> int:
        """Returns the number of a random piece."""
        if not self._until:
            return int(rng.integers(self.size(split)))
        return int(np.searchsorted(self._until[split], rng.random(), side="right"))

    def name(self, split: str, index: int) -> str:
        """Returns the path of a piece, for messages."""
        return self.splits[split][index].path

    def load(self, split: str, index: int) -> midi.Piece:
        """Returns one piece, from the cache or else from its file. Raises InputError if both are gone."""
        entry = self.splits[split][index]
        return load_piece(entry.digest, self.name(split, index))


def _scan_all(folders: Sequence[str], progress: bool) -> tuple[list[Entry], dict[str, str]]:
    """Returns the entries of all folders, with full paths, and the folder of each path.

    The same music in two folders is one song. The songs of the first folder keep their numbers, and so their splits.
    """
    entries: dict[str, Entry] = {}
    folder_of: dict[str, str] = {}
    for folder in folders:
        for entry in scan(folder, progress):
            path = os.path.join(folder, entry.path)
            entries.setdefault(path, dataclasses.replace(entry, path=path))
            folder_of.setdefault(path, folder)
    if len(folders) > 1:
        readable = [entry for entry in entries.values() if not entry.error]
        known = [entry.song if folder_of[entry.path] == folders[0] else 0 for entry in readable]
        songs = name_songs([entry.signature for entry in readable], known)
        entries.update((entry.path, dataclasses.replace(entry, song=song)) for entry, song in zip(readable, songs))
    return list(entries.values()), folder_of


class ComposedCorpus:
    """Pieces that the composer makes from a seed, without files."""

    def __init__(self, seed: int, instruments: Sequence[Instrument]):
        self.seed = seed
        self.instruments = tuple(instruments)

    def size(self, split: str) -> int:
        """Returns the number of pieces in a split."""
        return COMPOSED_PIECES[split]

    def draw(self, split: str, rng: np.random.Generator) -> int:
        """Returns the number of a random piece."""
        return int(rng.integers(self.size(split)))

    def name(self, split: str, index: int) -> str:
        """Returns the name of a piece, for messages."""
        return f"composed-{split}-{self.seed}-{index}"

    def load(self, split: str, index: int) -> midi.Piece:
        """Composes one piece."""
        return _compose(self.seed, self.instruments, split, index)


class JoinedCorpus:
    """The pieces of folders, and now and then one of the composer's where a random one is asked for.

    Args:
        corpus: the pieces of folders.
        composed: those of the composer; their numbers come after those of `corpus`.
        share: of the draws that are the composer's.
    """

    def __init__(self, corpus: MidiCorpus, composed: ComposedCorpus, share: float):
        self.corpus, self.composed, self.share = corpus, composed, share

    def size(self, split: str) -> int:
        """Returns the number of pieces of the folders in a split: those for validation and tests."""
        return self.corpus.size(split)

    def draw(self, split: str, rng: np.random.Generator) -> int:
        """Returns the number of a random piece of either."""
        if rng.random() < self.share:
            return self.size(split) + self.composed.draw(split, rng)
        return self.corpus.draw(split, rng)

    def name(self, split: str, index: int) -> str:
        """Returns the path or name of a piece, for messages."""
        n = self.size(split)
        return self.corpus.name(split, index) if index < n else self.composed.name(split, index - n)

    def load(self, split: str, index: int) -> midi.Piece:
        """Returns one piece."""
        n = self.size(split)
        return self.corpus.load(split, index) if index < n else self.composed.load(split, index - n)


@functools.lru_cache(COMPOSED_CACHE)
def _compose(seed: int, instruments: tuple[Instrument, ...], split: str, index: int) -> midi.Piece:
    return composer.compose([seed, SPLITS.index(split), index], instruments)


def open_corpus(
    midi_dir: str, instruments: Sequence[Instrument], require: str, seed: int, composed_share: float = 0.0
) -> Corpus:
    """Returns the corpus of folders, with a share of the composer's pieces; only these if `midi_dir` is empty.

    Raises InputError like MidiCorpus.
    """
    composed = ComposedCorpus(seed, instruments)
    if not midi_dir:
        return composed
    corpus = MidiCorpus(midi_dir, instruments, require)
    return JoinedCorpus(corpus, composed, composed_share) if composed_share else corpus
