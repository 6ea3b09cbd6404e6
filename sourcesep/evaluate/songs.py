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
from data_gen.corpus import MidiCorpus, open_corpus
from data_gen.instruments import Instrument
from data_gen.midi import Piece
from data_gen.songs import SAME_SONG
from data_gen.synth import Synthesizer, default_soundfont
from sourcesep.config import Config
from sourcesep.evaluate import recordings

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
    trained_with = config.soundfonts or (default_soundfont(),)
    pieces = _held_out(config, midi_dir)[:n_pieces]
    sources = []
    for soundfont in soundfonts or trained_with:
        Synthesizer(soundfont, config.parsed_instruments, config.sample_rate)  # raises now, not after the first font
        heard = "" if any(_same_soundfont(soundfont, other) for other in trained_with) else "not "
        condition = f"{os.path.basename(soundfont)} ({heard}heard in training)"
        for corpus, split, index in pieces:
            name = pathlib.Path(corpus.name(split, index))
            load = functools.partial(_render, config, tuple(outputs), corpus, split, index, soundfont, seconds)
            sources.append(Source(os.path.relpath(name, midi_dir or config.midi_dir or "."), condition, load))
    return sources


def _held_out(config: Config, midi_dir: str) -> list[tuple[object, str, int]]:
    """(corpus, split, index) of the pieces that training has not heard."""
    instruments = config.parsed_instruments
    is_own = not midi_dir or (config.midi_dir and os.path.realpath(midi_dir) == os.path.realpath(config.midi_dir))
    corpus = open_corpus(config.midi_dir if is_own else midi_dir, instruments, config.require, config.seed)
    if is_own:
        if not corpus.size("test"):
            raise InputError(f"{config.midi_dir}: too few songs to have kept one for a test; name another --midi_dir")
        return [(corpus, "test", index) for index in range(corpus.size("test"))]
    heard = _signatures_heard(config)
    pieces = [(corpus, split, index) for split, entries in corpus.splits.items() for index in range(len(entries))]
    # The test split first, so that runs which were trained elsewhere meet the same songs; a song's number is as good
    # as a random one.
    pieces.sort(key=lambda piece: (piece[1] != "test", corpus.splits[piece[1]][piece[2]].song))
    unheard = [
        (corpus, split, index)
        for corpus, split, index in pieces
        if not _is_among(corpus.splits[split][index].signature, heard)
    ]
    logging.info(
        "%s: %d songs, %d of them heard in training and left out", midi_dir, len(pieces), len(pieces) - len(unheard)
    )
    if not unheard:
        raise InputError(f"--midi_dir={midi_dir}: training has heard every song in it; name another folder")
    return unheard


def _signatures_heard(config: Config) -> np.ndarray:
    """Music signatures [song, place] of what the run was trained or validated on."""
    if not config.midi_dir:
        return np.zeros((0, 0))
    try:
        corpus = MidiCorpus(config.midi_dir, config.parsed_instruments, config.require)
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


@functools.lru_cache(maxsize=1)
def _synthesizer(soundfont: str, instruments: tuple[Instrument, ...], sample_rate: int) -> Synthesizer:
    return Synthesizer(soundfont, instruments, sample_rate)


def _render(
    config: Config, outputs: tuple[str, ...], corpus, split: str, index: int, soundfont: str, seconds: float
) -> Song:
    return play(config, outputs, corpus.load(split, index), soundfont, seconds)


def play(config: Config, outputs: Sequence[str], piece: Piece, soundfont: str, seconds: float) -> Song:
    """A piece played with the run's instruments; arguments as in `rendered`.

    Raises InputError if none of them plays in it.
    """
    instruments = config.parsed_instruments
    if not any(len(piece.notes_of(instrument)) for instrument in instruments):
        names = ", ".join(instrument.name for instrument in instruments)
        raise InputError(f"{piece.name}: none of the run's instruments plays in it ({names})")
    start_s, length_s = 0.0, piece.duration_s + TAIL_S
    if seconds and seconds < piece.duration_s:
        start_s, length_s = (piece.duration_s - seconds) / 2, seconds
    rate = config.sample_rate
    columns = _synthesizer(soundfont, instruments, rate).render(piece, round(start_s * rate), round(length_s * rate))
    stems = {instrument.name: columns[:, [i]] for i, instrument in enumerate(instruments)}
    mixture = columns.sum(axis=1, keepdims=True)
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
