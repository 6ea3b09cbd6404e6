"""Recorded songs of folders, de-duplicated and split into train, validation and test.

Folders of recordings of one instrument alone are opened here too.
"""

from __future__ import annotations

import collections
import os
import pathlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from absl import logging

from data_gen import InputError
from data_gen.files import walk
from data_gen.fingerprint import SAME_RECORDING
from data_gen.instruments import Instrument
from data_gen.layouts import SUFFIXES, RecordedSong, StemPlace, assign, find_songs
from data_gen.recorded_index import Examined, examine_songs
from data_gen.songs import name_songs, split_of
from data_gen.stems import OTHER, SPLITS
from data_gen.windows import StemFile


class UsableSong(NamedTuple):
    """A song of a `RecordedCorpus`.

    Attributes:
        name: path of the song.
        stems: for each name of the corpus the files that are summed.
        signature: from `fingerprint.fingerprint`.
    """

    name: str
    stems: tuple[tuple[StemFile, ...], ...]
    signature: tuple[int, ...]


class RecordedCorpus:
    """The recorded songs of folders.

    Recordings of one song, also in another master or encoding, count once. Folders called train, valid and test are
    respected; songs without such a folder, and the splits for which a data set has no folder, are drawn by the path of
    the song within its data set: 80/10/10.

    Args:
        folders: searched for songs in any of the layouts of `data_gen.layouts`.
        instruments: what sounds in the mixture.
        required: names of the instruments that a song needs; all of them with `require` "all", one with "any".
        require: "all" or "any".
        other: whether there is one more stem, OTHER: the sum of all that belongs to no instrument.
        stem_names: more names of stems, by instrument.

    Attributes:
        names: of the stems: the instruments, and OTHER.
        splits: the songs of each split.

    Raises InputError if a folder is missing or holds no song, and, with a count for each reason, if none can be used.
    """

    def __init__(
        self,
        folders: Sequence[str],
        instruments: Sequence[Instrument],
        required: Sequence[str] = (),
        require: str = "any",
        other: bool = False,
        stem_names: Mapping[str, Sequence[str]] | None = None,
    ):
        self._instruments = tuple(instruments)
        self._required = tuple(required) or tuple(instrument.name for instrument in instruments)
        self._require = all if require == "all" else any
        self._stem_names = stem_names or {}
        self._other = other
        self.names = tuple(instrument.name for instrument in instruments) + ((OTHER,) if other else ())
        self._unused = collections.Counter[str]()
        self._unlabelled: dict[str, int] = collections.Counter()
        found: list[tuple[RecordedSong, UsableSong]] = []
        for folder in folders:
            for song, examined in examine_songs(folder, find_songs(folder)):
                if examined.problem:
                    logging.warning("%s; the song is left out", examined.problem)
                    self._unused["with a file that is missing, damaged or cannot be read"] += 1
                    continue
                for note in examined.notes:
                    logging.warning("%s", note)
                usable = self._choose(folder, song, examined)
                if usable:
                    found.append((song, usable))
        self._log_unlabelled()
        self.splits = self._split(found)
        n_songs = len(found) + sum(self._unused.values())
        reasons = "".join(f"; {n} {reason}" for reason, n in self._unused.items())
        if not self.splits["train"]:
            raise InputError(f"--stems_dir={','.join(folders)}: none of {n_songs} songs can be trained on{reasons}")
        logging.info(
            "%s: %d recorded songs (%s)%s",
            ",".join(folders),
            n_songs,
            ", ".join(f"{len(songs)} {split}" for split, songs in self.splits.items()),
            reasons,
        )

    def _choose(self, folder: str, song: RecordedSong, examined: Examined) -> UsableSong | None:
        """Returns the stems that are used, or None, counted by its reason, if the song cannot be."""
        assigned = assign(song, self._instruments, self._stem_names)
        file_of = dict(zip(song.places, zip(examined.files, examined.is_silent)))

        def sounding(places: Iterable[StemPlace]) -> tuple[StemFile, ...]:
            return tuple(file for file, is_silent in map(file_of.__getitem__, places) if not is_silent)

        stems = [sounding(assigned.stems.get(instrument.name, ())) for instrument in self._instruments]
        held = dict(zip(self.names, stems))
        if not self._require(held.get(name) for name in self._required):
            some = "all" if self._require is all else "any"
            self._unused[f"without a stem for {some} of {', '.join(self._required)}"] += 1
            return None
        if self._other:
            # A stem called "other" may hold an instrument that has no stem of its own.
            unknown = [name for name in self._required if name not in assigned.stems]
            if unknown and not assigned.is_labelled:
                self._unlabelled[", ".join(unknown)] += 1
                stems.append(())
            else:
                stems.append(sounding(place for places in assigned.others.values() for place in places))
        return UsableSong(os.path.join(folder, song.name), tuple(stems), examined.signature)

    def _log_unlabelled(self) -> None:
        for unknown, n in self._unlabelled.items():
            logging.warning(
                "%d recorded songs have no stem for %s, which may sound in their other stems, so these are left out of "
                "the mixtures; a silent file of that name says that a song does not have the instrument",
                n,
                unknown,
            )

    def _split(self, found: Sequence[tuple[RecordedSong, UsableSong]]) -> dict[str, list[UsableSong]]:
        """Returns one recording of each song, by split; a song is in the one that is furthest from training."""
        signatures = [usable.signature or (-1 - i,) for i, (_, usable) in enumerate(found)]  # none: silent
        numbers = name_songs(signatures, [0] * len(found), SAME_RECORDING)
        copies: dict[int, list[tuple[RecordedSong, UsableSong]]] = collections.defaultdict(list)
        for number, pair in zip(numbers, found):
            copies[number].append(pair)
        splits: dict[str, list[UsableSong]] = {split: [] for split in SPLITS}
        by_chance = []  # songs that lie in no folder of a split
        for pairs in sorted(copies.values(), key=lambda pairs: _number(pairs[0][0])):  # as good as random
            song, usable = max(pairs, key=lambda pair: SPLITS.index(_split_of(pair[0])))
            if len(pairs) > 1:
                self._unused["that are copies of others"] += len(pairs) - 1
            splits[_split_of(song)].append(usable)
            if song.split is None:
                by_chance.append(usable)
        if not splits["train"]:  # a handful of songs: better to train on all and to test on none
            splits = {split: [song for song in songs if song not in by_chance] for split, songs in splits.items()}
            splits["train"] = by_chance
        if not splits["train"] and found:
            self._unused["in folders of songs for validation and tests"] += len(copies)
        return splits


def _split_of(song: RecordedSong) -> str:
    """Returns the split of a song: that of its folder, or one drawn by its path where the data set has no folder."""
    drawn = split_of(_number(song))
    if song.split is None:
        return drawn
    return drawn if song.split == "train" and drawn not in song.splits else song.split


def _number(song: RecordedSong) -> int:
    """Returns a number that depends on the path of a song within its data set only."""
    return zlib.crc32(pathlib.PurePath(song.name).as_posix().encode(errors="replace"))


def find_solos(folder: str) -> list[RecordedSong]:
    """Returns each sound file of a folder, which is searched recursively, as a song of one stem.

    Raises InputError if there is no such folder, or no sound file in it.
    """
    if not os.path.isdir(folder):
        raise InputError(f"{folder}: no such folder")
    root = pathlib.Path(folder)
    songs = []
    for place, _, files in walk(root):
        for file in files:
            path = pathlib.Path(place, file)
            if path.suffix.lower() in SUFFIXES and not file.startswith("."):
                songs.append(RecordedSong(str(path.relative_to(root)), path, (StemPlace(path, (path.stem,)),)))
    if not songs:
        raise InputError(f"{folder}: holds no sound file ({', '.join(SUFFIXES)})")
    return songs


def open_solos(folder: str) -> tuple[StemFile, ...]:
    """Returns the sound files of a folder that can be used. Raises InputError, with a count of reasons, if none can."""
    usable: list[StemFile] = []
    unused = collections.Counter[str]()
    for _, examined in examine_songs(folder, find_solos(folder)):
        if examined.problem:
            logging.warning("%s; the file is left out", examined.problem)
            unused["that cannot be read"] += 1
        elif examined.is_silent[0]:
            unused["that are silent"] += 1
        else:
            usable += examined.files
    if not usable:
        raise InputError(
            f"--solo_dir: {folder}: none of {sum(unused.values())} files can be used; "
            + "; ".join(f"{n} {reason}" for reason, n in unused.items())
        )
    return tuple(usable)
