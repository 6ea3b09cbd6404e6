"""What a model can be scored on: held-out pieces played through SoundFonts, recorded stems, finished separations.

Each gives a list of `Source`s: what the song is called, and a function that loads it. Only one song is in memory at a
time, and one that cannot be had is known by name.
"""

from __future__ import annotations

import filecmp
import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from data_gen import InputError
from data_gen.chunks import to_mono
from data_gen.corpus import MidiCorpus
from data_gen.instruments import parse_instruments
from data_gen.played import PlayedStems
from data_gen.songs import SAME_SONG
from data_gen.stems import Take
from sourcesep.config import Config
from sourcesep.evaluate import recordings
from sourcesep.sources import list_soundfonts, open_played

TAIL_S = 2.0  # rendered after the last event of a whole piece, for notes to fade
RECORDED, FINISHED = "recorded stems", "finished separation"


class Song(NamedTuple):
    """A mixture whose stems are known.

    Attributes:
        sample_rate: in Hz.
        mixture: float32 [time, channel].
        references: the clean stem of each output that can be scored, float32 [time, channel].
        estimates: stems separated before, of any length; empty if they are still to be made.
        notes: what a reader of its scores has to know.
    """

    sample_rate: int
    mixture: np.ndarray
    references: dict[str, np.ndarray]
    estimates: dict[str, np.ndarray] = {}
    notes: tuple[str, ...] = ()


class Source(NamedTuple):
    """A song that has not been loaded.

    Attributes:
        name: of the song.
        condition: what it has in common with the songs that it is averaged with.
        load: gives the Song; raises InputError or RenderError.
    """

    name: str
    condition: str
    load: Callable[[], Song]


def references_of(outputs: Sequence[str], stems: dict[str, np.ndarray], mixture: np.ndarray) -> dict[str, np.ndarray]:
    """The stem that each output of a model stands for; an output that is no instrument gets the rest of the mixture."""
    rest = mixture - sum((stems[name] for name in outputs if name in stems), np.zeros_like(mixture))
    return {name: stems.get(name, rest) for name in outputs}


def rendered(
    config: Config, outputs: Sequence[str], midi_dir: str, soundfonts: Sequence[str], n_pieces: int, seconds: float
) -> list[Source]:
    """Pieces that training has not heard, each through every SoundFont.

    Args:
        config: of the run.
        outputs: names of the model's outputs.
        midi_dir: another folder than the run's; empty for the test split of the run's own corpus. Copies of songs that
            training has heard are left out of it.
        soundfonts: paths; empty for those of the run.
        n_pieces: how many pieces at most; the same ones at every call, and the first of them if fewer are asked for.
        seconds: how much of the middle of each; 0 for all of it.

    Raises:
        InputError: there are no such pieces, or a SoundFont cannot play the run's instruments.
    """
    trained_with = list_soundfonts(config)
    player, pieces = _held_out(config, midi_dir)
    songs = []
    for soundfont in soundfonts or trained_with:
        player.check(soundfont)  # raises now, not after the first SoundFont
        heard = "" if any(_same_soundfont(soundfont, other) for other in trained_with) else "not "
        condition = f"{os.path.basename(soundfont)} ({heard}heard in training)"
        for split, index in pieces[:n_pieces]:
            name = pathlib.Path(player.corpus.name(split, index))
            load = functools.partial(_load, player, split, index, soundfont, tuple(outputs), seconds)
            songs.append(Source(os.path.relpath(name, midi_dir or config.midi_dir or "."), condition, load))
    return songs


def _held_out(config: Config, midi_dir: str) -> tuple[PlayedStems, list[tuple[str, int]]]:
    """Returns the pieces that training has not heard: what plays them, and (split, index) of each."""
    is_own = not midi_dir or (config.midi_dir and os.path.realpath(midi_dir) == os.path.realpath(config.midi_dir))
    player = open_played(config, config.midi_dir if is_own else midi_dir)
    if is_own:
        if not player.size("test"):
            raise InputError(f"{config.midi_dir}: too few songs to have kept one for a test; name another --midi_dir")
        return player, [("test", index) for index in range(player.size("test"))]
    heard, splits = _signatures_heard(config), player.corpus.splits
    pieces = [(split, index) for split, entries in splits.items() for index in range(len(entries))]
    # The test split first, so that runs which were trained elsewhere meet the same songs; a song's number is as good
    # as a random one.
    pieces.sort(key=lambda piece: (piece[0] != "test", splits[piece[0]][piece[1]].song))
    unheard = [(split, index) for split, index in pieces if not _is_among(splits[split][index].signature, heard)]
    logging.info(
        "%s: %d songs, %d of them heard in training and left out", midi_dir, len(pieces), len(pieces) - len(unheard)
    )
    if not unheard:
        raise InputError(f"--midi_dir={midi_dir}: training has heard every song in it; name another folder")
    return player, unheard


def _signatures_heard(config: Config) -> np.ndarray:
    """Music signatures [song, place] of what the run was trained or validated on."""
    if not config.midi_dir:
        return np.zeros((0, 0))
    try:
        corpus = MidiCorpus(config.midi_dir, parse_instruments(config.instruments), config.require)
    except InputError as error:
        logging.warning("whether training has heard these songs cannot be told: %s", error)
        return np.zeros((0, 0))
    return np.array([entry.signature for split in ("train", "validation") for entry in corpus.splits[split]])


def _is_among(signature: tuple[int, ...], heard: np.ndarray) -> bool:
    return bool(heard.size and (heard == np.array(signature)).mean(axis=1).max() >= SAME_SONG)


def _same_soundfont(one: str, other: str) -> bool:
    """By content where both are there, else by name."""
    if os.path.isfile(one) and os.path.isfile(other):
        return filecmp.cmp(one, other, shallow=False)
    return os.path.basename(one) == os.path.basename(other)


def _load(
    player: PlayedStems, split: str, index: int, soundfont: str, outputs: tuple[str, ...], seconds: float
) -> Song:
    return play(player, player.load(split, index, soundfont), outputs, seconds)


def play(player: PlayedStems, take: Take, outputs: Sequence[str], seconds: float) -> Song:
    """A take of `player`; arguments as in `rendered`."""
    rate = player.sample_rate
    start, n_samples = 0, take.n_samples + round(TAIL_S * rate)
    if seconds and seconds * rate < take.n_samples:
        n_samples = round(seconds * rate)
        start = (take.n_samples - n_samples) // 2
    columns = to_mono(take.stems(start, n_samples))[:, :, None]  # [stem, time, 1]
    stems = dict(zip(player.names, columns))
    mixture = columns.sum(axis=0)
    return Song(rate, mixture, references_of(outputs, stems, mixture))


def recorded(config: Config, outputs: Sequence[str], stems_dir: str, n_pieces: int, seconds: float) -> list[Source]:
    """Songs of a folder of recorded stems, see `recordings`; `n_pieces` and `seconds` as in `rendered`.

    Raises InputError if the folder is missing or holds no song.
    """
    folders = recordings.find_songs(stems_dir)[:n_pieces]
    return [
        Source(
            os.path.relpath(folder, stems_dir) if folder != pathlib.Path(stems_dir) else folder.name,
            RECORDED,
            functools.partial(_record, config, tuple(outputs), folder, seconds),
        )
        for folder in folders
    ]


def _record(config: Config, outputs: tuple[str, ...], folder: pathlib.Path, seconds: float) -> Song:
    """A recorded song as the run's model expects it.

    The mixture is the sum of the stems that belong to the run's instruments, since a model that was trained without
    others does not know what to do with them. A model with an output for the rest hears the sum of all stems.
    """
    instruments = config.parsed_instruments
    hears_all = any(name not in {instrument.name for instrument in instruments} for name in outputs)
    song = recordings.open_song(folder, instruments)
    rest = [path for paths in song.others.values() for path in paths]
    if not song.stems and not (hears_all and rest):
        raise InputError(
            f"{folder}: none of its stems ({', '.join(song.others) or 'none'}) belongs to the run's instruments "
            f"({', '.join(i.name for i in instruments)}); name files after these, e.g. {instruments[0].name}.wav"
        )
    paths = [path for some in song.stems.values() for path in some] + (rest if hears_all else [])
    audio = recordings.Reader(paths, seconds)
    stems = {name: audio.total(song.stems.get(name, ())) for name in (i.name for i in instruments)}
    mixture = audio.total(paths)
    notes = []
    if rest and not hears_all:
        notes.append(f"not in the mixture: {', '.join(song.others)}")
    references = references_of(outputs, stems, mixture)
    if hears_all and rest and not song.is_labelled:
        # What a stem called "other" holds is not known, so an instrument without a stem may yet sound in it.
        unknown = [name for name in outputs if name in stems and name not in song.stems]
        if unknown:
            references = {name: references[name] for name in outputs if name in song.stems}
            notes.append(f"not scored, as they may sound in {', '.join(song.others)}: {', '.join(unknown)}")
    return Song(audio.sample_rate, mixture, references, notes=tuple(notes))


def finished(references_dir: str, estimates_dir: str, n_pieces: int, seconds: float) -> list[Source]:
    """Stems that were separated before, beside their references: one song, or a folder of songs in each of the two.

    The mixture is the file of that name (mixture.wav, mix.wav) among the estimates or the references, or else the sum
    of the references. Raises InputError if a folder is missing or holds no sound.
    """
    folders = recordings.find_songs(references_dir)[:n_pieces]
    sources = []
    for folder in folders:
        place = folder.relative_to(references_dir)
        name = str(place) if place.parts else pathlib.Path(estimates_dir).resolve().name
        estimates = pathlib.Path(estimates_dir, place)
        sources.append(Source(name, FINISHED, functools.partial(_finished, folder, estimates, seconds)))
    return sources


def _finished(references: pathlib.Path, estimates: pathlib.Path, seconds: float) -> Song:
    stems, mixture = recordings.sound_files(references)
    separated, given = recordings.sound_files(estimates)
    for name in stems:
        if name not in separated:
            raise InputError(f"{estimates}: holds no estimate for {stems[name]}; name it {name}.wav")
    mixtures = [path for path in (given, mixture) if path]
    audio = recordings.Reader([*stems.values(), *mixtures[:1]], seconds)
    clean = {name: audio.total([path]) for name, path in stems.items()}
    return Song(
        audio.sample_rate,
        audio.total(mixtures[:1] or list(stems.values())),
        clean,
        {name: audio.read(separated[name]) for name in stems},
        () if mixtures else ("the mixture is the sum of the references",),
    )
