"""What can be scored: held-out songs of a run's source, recorded stems, and finished separations.

Each `list_...` function returns `LazySong`s: a name and a function that loads the song. Songs are loaded one at a time;
one that fails to load is reported by name.
"""

from __future__ import annotations

import contextlib
import filecmp
import functools
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from data_gen import InputError
from data_gen.corpus import Corpus, MidiCorpus, split_folders
from data_gen.fingerprint import SAME_RECORDING
from data_gen.instruments import parse_instruments
from data_gen.layouts import RecordedSong, assign, find_songs, list_sound_files
from data_gen.played import PlayedStems
from data_gen.recorded_corpus import UsableSong
from data_gen.recorded_index import examine_songs
from data_gen.songs import SAME_SONG
from data_gen.soundfont_file import PROCEDURAL
from data_gen.soundfonts import profile, shared_share
from data_gen.stems import OTHER, add_up
from data_gen.synth import default_soundfont
from data_gen.windows import open_stem
from sourcesep.config import Config
from sourcesep.evaluate import recordings
from sourcesep.separate.inputs import PlayedSong
from sourcesep.sources import list_soundfonts, open_played, open_recorded, played_instruments

RECORDED, FINISHED = "recorded stems", "finished separation"  # conditions, see LazySong


class Song(NamedTuple):
    """A mixture whose stems are known.

    Attributes:
        sample_rate: in Hz.
        mixture: float32 [time, channel].
        references: the clean stem for each stem of the model that can be scored, float32 [time, channel].
        estimates: stems separated before, by name, of any length; empty if they are still to be made.
        notes: what a reader of the scores has to know.
    """

    sample_rate: int
    mixture: np.ndarray
    references: Mapping[str, np.ndarray]
    estimates: Mapping[str, np.ndarray] = {}
    notes: tuple[str, ...] = ()


class LazySong(NamedTuple):
    """A song that has not been loaded yet.

    Attributes:
        name: of the song.
        condition: what it has in common with the songs that its scores are averaged with.
        load: returns the Song; raises InputError or RenderError.
    """

    name: str
    condition: str
    load: Callable[[], Song]


# ---- Held-out songs, played through SoundFonts ----------------------------------------------------------------------
def list_held_out(
    config: Config, midi_dir: str, soundfonts: Sequence[str], n_songs: int, seconds: float
) -> list[LazySong]:
    """Lists songs that were not used in training: recordings, and pieces through every SoundFont.

    Recordings are those of the run, where it has some and neither folder nor SoundFonts are named; pieces are listed
    where the run played some, or they are named.

    Args:
        config: of the run.
        midi_dir: a folder of MIDI files other than the run's, from which copies of the songs used in training are left
            out; empty for the test split of the run's own songs.
        soundfonts: paths; empty for those of the run.
        n_songs: the largest number of songs. The same songs are listed every time; a smaller number gives the first.
        seconds: length of the middle part of each that is scored; 0 for the whole song.

    Raises InputError if there are no such songs, or a SoundFont is missing.
    """
    songs: list[LazySong] = []
    if config.stems_dir and not midi_dir and not soundfonts:
        songs = _list_held_out_recordings(config, n_songs, seconds)
        if not config.played_share:
            return songs
    trained_with = list_soundfonts(config)
    corpus, held_out = _list_unused(config, midi_dir)

    @functools.lru_cache(maxsize=1)  # songs are listed SoundFont by SoundFont: each is loaded once, and then released
    def open_player(soundfont: str) -> PlayedStems:
        instruments = played_instruments(config)
        return PlayedStems(corpus, instruments, (soundfont,), config.sample_rate, n_channels=config.channels)

    def load(soundfont: str, split: str, index: int) -> Song:
        source = open_player(soundfont)
        played = PlayedSong(source.load(split, index), source, config, config.stem_names, seconds)
        stems = {name: played.references[:, :, i] for i, name in enumerate(config.stem_names)}
        return Song(played.sample_rate, played.mixture, stems)

    folders = [folder for folder in split_folders(midi_dir or config.midi_dir) if folder]
    root = os.path.commonpath([os.path.abspath(folder) for folder in folders]) if folders else "."
    for soundfont in soundfonts or _complete(trained_with, config):
        if not os.path.isfile(soundfont):
            raise InputError(f"no such SoundFont: {soundfont}")
        condition = f"{os.path.basename(soundfont)} ({_how_heard(soundfont, trained_with)})"
        for split, index in held_out[:n_songs]:
            name = os.path.relpath(corpus.name(split, index), root)
            songs.append(LazySong(name, condition, functools.partial(load, soundfont, split, index)))
    return songs


def _complete(soundfonts: Iterable[str], config: Config) -> list[str]:
    """Returns the SoundFonts that have all instruments; where none has, all of them, so that the error names one.

    Computed ones are not among them: they never sound the same.
    """
    paths = [path for path in soundfonts if path != PROCEDURAL] or [default_soundfont()]
    instruments = played_instruments(config)
    if len(paths) < 2:
        return paths
    return [path for path in paths if all(map(profile(path).plays, instruments))] or paths


def _list_unused(config: Config, midi_dir: str) -> tuple[Corpus, list[tuple[str, int]]]:
    """Returns a corpus, and (split, index) of each of its songs that was not used in training."""
    is_own = not midi_dir or (config.midi_dir and os.path.realpath(midi_dir) == os.path.realpath(config.midi_dir))
    if is_own:
        own = open_played(config, config.midi_dir).corpus
        if not own.size("test"):
            raise InputError(f"{config.midi_dir}: too few songs to have kept one for a test; name another --midi_dir")
        return own, [("test", index) for index in range(own.size("test"))]
    corpus = MidiCorpus(midi_dir, played_instruments(config), config.require)
    used = _read_used_signatures(config)
    songs = [(split, index) for split, entries in corpus.splits.items() for index in range(len(entries))]
    # The test split comes first, so that runs trained on other folders are scored on the same songs. Within a split
    # the order is that of the songs' numbers, which are hashes: as good as random.
    songs.sort(key=lambda song: (song[0] != "test", corpus.splits[song[0]][song[1]].song))
    unused = [(split, index) for split, index in songs if not _is_among(corpus.splits[split][index].signature, used)]
    n_used = len(songs) - len(unused)
    logging.info("%s: %d songs, of which %d were used in training and are left out", midi_dir, len(songs), n_used)
    if not unused:
        raise InputError(f"--midi_dir={midi_dir}: every song in it was used in training; name another folder")
    return corpus, unused


def _read_used_signatures(config: Config) -> np.ndarray:
    """Returns the music signatures [song, place] of what a run was trained or validated on; empty if not MIDI files."""
    if not config.midi_dir:
        return np.zeros((0, 0))
    try:
        corpus = MidiCorpus(config.midi_dir, played_instruments(config), config.require)
    except InputError as error:
        logging.warning("cannot find out which of these songs were used in training: %s", error)
        return np.zeros((0, 0))
    return np.array([entry.signature for split in ("train", "validation") for entry in corpus.splits[split]])


def _is_among(signature: tuple[int, ...], others: np.ndarray, same_song: float = SAME_SONG) -> bool:
    """Returns whether one of the signatures `others` [song, place] belongs to the same song."""
    return bool(others.size and (others == np.array(signature)).mean(axis=1).max() >= same_song)


def _how_heard(soundfont: str, trained_with: Iterable[str]) -> str:
    """Says whether training has heard a SoundFont, or one that shares samples with it."""
    if any(_is_same_soundfont(soundfont, other) for other in trained_with):
        return "heard in training"
    shares = [(0.0, "")]
    for other in trained_with:
        with contextlib.suppress(OSError, InputError):  # one that is gone or damaged goes by its name
            shares.append((shared_share(soundfont, other), other))
    share, other = max(shares)
    if share < 0.005:
        return "not heard in training"
    return f"shares {share:.0%} of its samples with {os.path.basename(other)}, heard in training"


def _is_same_soundfont(one: str, other: str) -> bool:
    """Compares two SoundFonts by content if both files exist, else by name."""
    if os.path.isfile(one) and os.path.isfile(other):
        return filecmp.cmp(one, other, shallow=False)
    return os.path.basename(one) == os.path.basename(other)


# ---- Recorded stems -------------------------------------------------------------------------------------------------
def _list_held_out_recordings(config: Config, n_songs: int, seconds: float) -> list[LazySong]:
    """Lists the recorded songs that a run has kept for tests. Raises InputError if it has none, and no MIDI either."""
    corpus = open_recorded(config).corpus
    if not corpus.splits["test"] and not config.played_share:
        raise InputError(
            f"{','.join(config.stems_dir)}: too few songs to have kept one for a test; name others by --stems_dir"
        )

    def load(song: UsableSong) -> Song:
        part = recordings.Part(song.name, dict(zip(corpus.names, song.stems)), seconds)
        return _as_song(config, part, corpus.names)

    return [LazySong(song.name, RECORDED, functools.partial(load, song)) for song in corpus.splits["test"][:n_songs]]


def _as_song(config: Config, part: recordings.Part, names: Sequence[str]) -> Song:
    """Returns the mixture of all stems of a part, with the stems of the run's model as references."""
    references = {name: part[name] for name in config.targets}
    if config.other:
        references[OTHER] = add_up(part[name] for name in names if name not in config.targets)
    return Song(part.sample_rate, add_up(part[name] for name in names), references)


def list_recorded(config: Config, stems_dir: str, n_songs: int, seconds: float) -> list[LazySong]:
    """Lists the songs of a folder of recorded stems, see `data_gen.layouts`; other arguments as in `list_held_out`.

    Songs that the run was trained or validated on, also in another master or encoding, are left out.

    Raises InputError if the folder is missing or holds no such song.
    """
    songs = find_songs(stems_dir)
    if config.stems_dir:
        songs = _leave_out_used(config, stems_dir, songs)
    return [
        LazySong(song.name, RECORDED, functools.partial(_load_recorded, config, song, seconds))
        for song in songs[:n_songs]
    ]


def _leave_out_used(config: Config, stems_dir: str, songs: Sequence[RecordedSong]) -> list[RecordedSong]:
    """Returns the songs of a folder that a run has not used. Raises InputError if there is none."""
    try:
        splits = open_recorded(config).corpus.splits
    except InputError as error:
        logging.warning("cannot find out which of these songs were used in training: %s", error)
        return list(songs)
    used = np.array([song.signature for split in ("train", "validation") for song in splits[split] if song.signature])
    unused = [
        song
        for song, examined in examine_songs(stems_dir, songs)
        if not examined.signature or not _is_among(examined.signature, used, SAME_RECORDING)
    ]
    if len(unused) < len(songs):
        n_used = len(songs) - len(unused)
        logging.info("%s: %d songs, of which %d were used in training and are left out", stems_dir, len(songs), n_used)
    if not unused:
        raise InputError(f"--stems_dir={stems_dir}: every song in it was used in training; name another folder")
    return unused


def _load_recorded(config: Config, song: RecordedSong, seconds: float) -> Song:
    """Loads a recorded song as the run's model expects it.

    The mixture is the sum of the stems that belong to the run's instruments, since a model that was trained on these
    only is not made for others. For a model with a stem for all other sounds, it is the sum of all stems.
    """
    instruments = parse_instruments(config.instruments, recorded=True)
    assigned = assign(song, instruments, config.more_stem_names)
    rest = [place for places in assigned.others.values() for place in places]
    if not assigned.stems and not (config.other and rest):
        raise InputError(
            f"{song.folder}: none of its stems ({', '.join(assigned.others) or 'none'}) belongs to the run's "
            f"instruments ({', '.join(i.name for i in instruments)}); name files after these, e.g. "
            f"{instruments[0].name}.wav"
        )
    places = {name: assigned.stems.get(name, []) for name in config.instrument_names}
    if config.other:
        places[OTHER] = rest
    files = {name: [open_stem(place.path, place.track) for place in some] for name, some in places.items()}
    part = recordings.Part(song.name, files, seconds)
    whole = _as_song(config, part, list(files))
    if rest and not config.other:
        return whole._replace(notes=(f"not in the mixture: {', '.join(assigned.others)}",))
    unknown = [name for name in config.targets if name not in assigned.stems]
    if not unknown or assigned.is_labelled:
        return whole
    # The content of a stem called "other" is not known, so an instrument without a stem may play in it.
    note = f"not scored, as they may sound in {', '.join(assigned.others)}: {', '.join(unknown)}"
    known = {name: stem for name, stem in whole.references.items() if name in assigned.stems}
    return whole._replace(references=known, notes=(note,))


# ---- Finished separations -------------------------------------------------------------------------------------------
def list_finished(references_dir: str, estimates_dir: str, n_songs: int, seconds: float) -> list[LazySong]:
    """Lists stems that were separated before, with their references: one song, or a folder of songs in each folder.

    The mixture is the file of that name (mixture.wav, mix.wav) among the estimates or the references, or else the sum
    of the references. `n_songs` and `seconds` are as in `list_held_out`.

    Raises InputError if a folder is missing or holds no sound files.
    """
    songs = []
    for song in find_songs(references_dir)[:n_songs]:
        place = song.folder.relative_to(references_dir)
        name = str(place) if place.parts else pathlib.Path(estimates_dir).resolve().name
        estimates = pathlib.Path(estimates_dir, place)
        songs.append(LazySong(name, FINISHED, functools.partial(_load_finished, song.folder, estimates, seconds)))
    return songs


def _load_finished(references: pathlib.Path, estimates: pathlib.Path, seconds: float) -> Song:
    stems, mixture = list_sound_files(references)
    separated, given = list_sound_files(estimates)
    for name in stems:
        if name not in separated:
            raise InputError(f"{estimates}: holds no estimate for {stems[name]}; name it {name}.wav")
    mixtures = [path for path in (given, mixture) if path]
    files = {name: [open_stem(path)] for name, path in stems.items()}
    part = recordings.Part(references.name, {**files, "": [open_stem(path) for path in mixtures[:1]]}, seconds)
    end = part.begin + part.n_samples if seconds else sys.maxsize
    return Song(
        part.sample_rate,
        part[""] if mixtures else add_up(part[name] for name in stems),
        {name: part[name] for name in stems},
        {name: _read_estimate(separated[name], part, end) for name in stems},
        () if mixtures else ("the mixture is the sum of the references",),
    )


def _read_estimate(path: pathlib.Path, part: recordings.Part, end: int) -> np.ndarray:
    """Returns the same part of an estimate, float32 [time, channel], which may end later than the references."""
    file = open_stem(path)
    n_channels = part.n_channels
    if file.sample_rate != part.sample_rate:
        raise InputError(f"{path}: has a rate of {file.sample_rate} Hz, other files of the song {part.sample_rate} Hz")
    samples = recordings.read_window(file, part.begin, end)
    if samples.shape[1] not in (1, n_channels):
        raise InputError(f"{path}: has {samples.shape[1]} channels, other files of the song {n_channels}")
    return np.broadcast_to(samples, (len(samples), n_channels))
