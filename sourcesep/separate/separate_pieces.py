"""Pieces of MIDI: played with the run's instruments, split, and scored against the stems that were played."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from tqdm import tqdm

from data_gen import InputError
from data_gen.audio import BLOCK_SAMPLES
from data_gen.midi import read_midi
from data_gen.played import PlayedStems
from data_gen.stems import Take
from sourcesep import metrics
from sourcesep.config import Config
from sourcesep.evaluate import songs
from sourcesep.separate.blind import Finder
from sourcesep.separate.outputs import Outputs, Separated
from sourcesep.separate.separation import Separator
from sourcesep.separate.stem_writer import StemWriter
from sourcesep.sources import list_soundfonts, open_played

N_SCORED = 12  # held-out pieces
SCORED_S = 20.0  # of the middle of each


def separate_midi(
    separator: Separator,
    config: Config,
    path: str,
    output_dir: str,
    outputs: Outputs | None = None,
    track: str | None = None,
    report: Callable[[float], None] | None = None,
) -> Separated:
    """Plays the run's instruments of a MIDI file, splits the mixture, and scores the result.

    Also writes the mixture and, in the folder `reference`, the stems that it is the sum of. Arguments are those of
    `separate_files.separate_file`, and the run's Config.

    Raises InputError if the file cannot be read or none of the instruments plays in it.
    """
    player = open_played(config, "")
    return _separate(separator, config, player, player.play(read_midi(path)), output_dir, outputs, track, report)


def separate_held_out(
    separator: Separator, config: Config, output_dir: str, outputs: Outputs | None = None
) -> Separated:
    """Like `separate_midi`, for a test piece of the run's own corpus, which training has not heard.

    Raises InputError if the corpus is so small that none was kept.
    """
    player = open_played(config, config.midi_dir)
    if not player.size("test"):
        raise InputError(f"{config.midi_dir}: too few songs to have kept one for a test; name a sound file")
    return _separate(separator, config, player, player.load("test", 0), output_dir, outputs)


def score_held_out(separator: Separator, config: Config) -> dict[str, float]:
    """Median SDR in dB per instrument over the middle of several test pieces, where the instrument plays."""
    soundfonts = list_soundfonts(config)[:1]
    held_out = songs.list_held_out(config, "", soundfonts, N_SCORED, SCORED_S)
    scores = [_scores(song, _split(separator, song, lazy.name)) for lazy in held_out for song in [lazy.load()]]
    medians = {}
    for name in separator.instruments:
        values = [score[name] for score in scores if name in score]
        if values:
            medians[name] = float(np.median(values))
    return medians


def _separate(
    separator: Separator,
    config: Config,
    player: PlayedStems,
    take: Take,
    output_dir: str,
    outputs: Outputs | None = None,
    track: str | None = None,
    report: Callable[[float], None] | None = None,
) -> Separated:
    outputs, names = outputs or Outputs(), separator.instruments
    song = songs.play_song(config, take, 0.0)
    song = song._replace(references={name: song.references[name] for name in names})
    estimates = _split(separator, song, take.name, report)
    finder = Finder(names, song.sample_rate)
    finder.hear(song.mixture, estimates)
    labels = ["mixture", *outputs.names(names), *(f"reference/{name}" for name in names)]
    paths = outputs.paths(output_dir, track or pathlib.Path(take.name).stem, labels)
    chosen = outputs.select(song.mixture, estimates, names)
    waveforms = np.concatenate([song.mixture, chosen[:, 0], *song.references.values()], axis=1)[:, None, :]
    writer = StemWriter(paths, song.sample_rate, 1, outputs.encoding, len(waveforms))
    with writer:
        for start in range(0, len(waveforms), BLOCK_SAMPLES):
            writer.write(waveforms[start : start + BLOCK_SAMPLES])
        if config.blind:
            writer.paths_kept = outputs.found(paths, labels, names, finder.found())
    notes = [finder.note()] * config.blind + writer.notes()
    return outputs.written(writer.paths_kept, _scores(song, estimates), notes)


def _scores(song: songs.Song, estimates: np.ndarray) -> dict[str, float]:
    """SDR in dB of each instrument that plays, where it does; estimates [time, channel, instrument]."""
    scores = {}
    for position, (name, reference) in enumerate(song.references.items()):
        score = metrics.score_stem(reference, estimates[:, :, position], song.mixture, song.sample_rate)
        if not np.isnan(score["sdr_db"]):
            scores[name] = score["sdr_db"]
    return scores


def _split(
    separator: Separator, song: songs.Song, name: str, report: Callable[[float], None] | None = None
) -> np.ndarray:
    """Estimates [time, channel, instrument] of a song, with a progress bar, or reported."""
    rate, mixture = song.sample_rate, song.mixture
    blocks = [mixture[start : start + rate] for start in range(0, len(mixture), rate)]
    if report:
        blocks = _reported(blocks, rate, report)
    else:
        blocks = tqdm(blocks, desc=pathlib.Path(name).stem, unit="s", dynamic_ncols=True, leave=False)
    return np.concatenate(list(separator.stream(blocks, rate)))


def _reported(blocks: Iterable[np.ndarray], sample_rate: int, report: Callable[[float], None]) -> Iterator[np.ndarray]:
    """The blocks; `report` hears their seconds when they are done."""
    for block in blocks:
        yield block
        report(len(block) / sample_rate)
