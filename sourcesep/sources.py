"""A Config -> where its stems come from, and what makes chunks of them.

Nothing here imports TensorFlow, so that render processes start at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os

from data_gen import InputError
from data_gen.chunks import Chunker
from data_gen.corpus import open_corpus
from data_gen.instruments import Instrument, parse_instruments
from data_gen.mixed import MixedStems
from data_gen.played import PlayedStems
from data_gen.recorded import RecordedStems
from data_gen.recorded_corpus import RecordedCorpus, open_solos
from data_gen.soundfonts import expand_soundfonts
from data_gen.stems import OTHER, StemSource
from data_gen.synth import default_soundfont
from data_gen.windows import StemFile
from data_gen.workers import Visits, Workers
from sourcesep.cluster import machine_number
from sourcesep.config import Config
from sourcesep.run_dir import RunDir

SEEDS_OF_A_RUN = 1_000_003  # from the seed of a run to that of one that starts from it; more than there are machines


def open_source(config: Config) -> StemSource:
    """Returns the source of a Config's stems: the one place that chooses it.

    Raises InputError if there are no songs, or they cannot be played.
    """
    # Recordings come first: what they hold is what a user who has some wants the model to be judged by.
    sources: list[StemSource] = [open_recorded(config)] if config.stems_dir else []
    if config.played_share:
        played = open_played(config, config.midi_dir)
        played.check()
        sources.append(played)
    if len(sources) == 1 and not config.solo_dir:
        return sources[0]
    shares = (1 - config.played_share, config.played_share) if len(sources) > 1 else (1.0,)
    solos: dict[str, tuple[StemFile, ...]] = {}
    for name, folder in config.solo_folders:
        solos[name] = solos.get(name, ()) + open_solos(folder)
    has_other = config.other or OTHER in solos
    names = (*config.instrument_names, OTHER) if has_other else config.instrument_names
    return MixedStems(names, sources, shares, solos, config.remix, config.variation)


def open_validation(config: Config, source: StemSource) -> list[StemSource]:
    """Returns the sources whose validation songs choose the best weights of a run.

    They are one for each of --validate_soundfonts, and one of all songs of --validate_stems_dir; without any, the songs
    of training as they are.

    Args:
        config: of the run.
        source: what the run is trained on.

    Raises InputError if a SoundFont is missing, damaged, lacks an instrument, or is one that training hears; and like
    `open_recorded`.
    """
    found: list[StemSource] = []
    if config.validate_soundfonts:
        heard = {os.path.realpath(soundfont) for soundfont in list_soundfonts(config)}
        played = open_played(config, config.midi_dir)
        for soundfont in expand_soundfonts(config.validate_soundfonts):
            if os.path.realpath(soundfont) in heard:
                raise InputError(
                    f"--validate_soundfonts={soundfont}: training hears it too, by --soundfonts; name another"
                )
            one = PlayedStems(
                played.corpus, played.instruments, (soundfont,), config.sample_rate, n_channels=config.channels
            )
            one.check()
            found.append(one)
    if config.validate_stems_dir:
        recorded = open_recorded(dataclasses.replace(config, stems_dir=config.validate_stems_dir, require="any"))
        songs = [song for of_split in recorded.corpus.splits.values() for song in of_split]
        recorded.corpus.splits = {"train": [], "validation": songs, "test": []}
        found.append(recorded)
    return found or [source]


def open_recorded(config: Config) -> RecordedStems:
    """Returns the recorded songs of a Config's folders. Raises InputError like `RecordedCorpus`."""
    corpus = RecordedCorpus(
        config.stems_dir,
        parse_instruments(config.instruments, recorded=True),
        config.targets if config.other else config.instrument_names,
        config.require,
        config.other,
        config.more_stem_names,
    )
    return RecordedStems(corpus, config.sample_rate, config.variation, config.channels)


def open_played(config: Config, midi_dir: str) -> PlayedStems:
    """Returns MIDI pieces of a folder, or the composer's if `midi_dir` is empty, played as the Config says.

    SoundFonts are loaded when they are first used. Raises InputError like `corpus.open_corpus`.
    """
    instruments = played_instruments(config)
    corpus = open_corpus(midi_dir, instruments, config.require, config.seed, config.composed_share)
    soundfonts = list_soundfonts(config)
    weights = tuple(soundfonts.values())
    return PlayedStems(
        corpus,
        instruments,
        tuple(soundfonts),
        config.sample_rate,
        config.variation,
        weights,
        config.channels,
        config.remix_match,
    )


def played_instruments(config: Config) -> tuple[Instrument, ...]:
    """Returns the instruments of a Config that MIDI plays: all, unless recordings are there for others.

    Raises InputError if there is none.
    """
    if config.stems_dir or config.solo_dir:
        known = parse_instruments(config.instruments, recorded=True)
        if played := tuple(instrument for instrument in known if instrument.is_percussion or instrument.programs):
            return played
    return parse_instruments(config.instruments)


def list_soundfonts(config: Config) -> dict[str, float]:
    """Returns the paths of the SoundFonts that a Config names, or of the default one, each with its weight.

    Raises InputError like `soundfonts.expand_soundfonts`.
    """
    return expand_soundfonts(config.soundfonts or (default_soundfont(),))


def make_chunker(config: Config, split: str, source: StemSource | None = None) -> Chunker:
    """Returns what cuts a Config's chunks, from `source` or else from `open_source`, whose errors it raises."""
    return Chunker(
        source=source or open_source(config),
        split=split,
        targets=config.targets,
        chunk_samples=config.chunk_samples,
        context_samples=config.context_samples,
        chunks_per_song=config.chunks_per_piece,
        keep_silent=config.keep_silent,
        keep_solo=config.keep_solo,
        seed=config.seed,
        n_channels=config.channels,
        pan=config.vary_pan,
        width=config.vary_width,
        gain_db=config.vary_gain_db,
        effects=config.effects,
        other=config.other,
    )


def start_workers(config: Config, chunk_format: str = "float32") -> Visits:
    """Starts what makes the training chunks, in a number format; it gets ready while the caller imports TensorFlow.

    Each machine of a cluster draws from a seed of its own, and a run that starts from another from another seed than
    that one did: it would hear the same chunks again. Raises InputError like `open_source`.
    """
    chunker = make_chunker(config, "train")
    seed = config.seed + machine_number(config) + SEEDS_OF_A_RUN * _count_earlier_runs(config)
    chunker = dataclasses.replace(chunker, seed=seed, dtype=chunk_format)
    workers: Visits
    if config.render == "ray":
        from data_gen.ray_workers import RayWorkers

        workers = RayWorkers(chunker)
    else:
        workers = Workers(chunker, config.n_workers)
    workers.start()
    return workers


def _count_earlier_runs(config: Config) -> int:
    """Returns from how many runs, one after the other, a run started; the model in the package counts as one."""
    earlier: list[str] = []
    while config.start_from and config.start_from not in earlier:
        earlier.append(config.start_from)
        if config.start_from == "pretrained":
            break
        with contextlib.suppress(InputError):  # the run was deleted since; what it started from is not known
            config = RunDir(config.start_from).config()
    return len(earlier)
