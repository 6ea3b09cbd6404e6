"""Scores a model in a minute, on a few held-out songs: what separate.py prints when it is given no file."""

from __future__ import annotations

import numpy as np
from tqdm import tqdm

from data_gen.stems import StemSource
from sourcesep.config import Config
from sourcesep.separate.inputs import PlayedSong
from sourcesep.separate.separate_one import score_stems
from sourcesep.separate.separation import Separator

N_SONGS = 12  # held-out songs that are scored
LENGTH_S = 20.0  # length of the part in the middle of each, in seconds


def score_held_out(separator: Separator, source: StemSource, config: Config) -> dict[str, float]:
    """Returns the median SDR in dB of each stem over the middle of held-out songs, where the stem sounds.

    Args:
        separator: the model to score.
        source: where its test songs come from.
        config: of the run.

    Raises InputError or RenderError if a song cannot be had.
    """
    names, rate = separator.stem_names, source.sample_rate
    scores: dict[str, list[float]] = {name: [] for name in names}
    n_songs = min(N_SONGS, source.size("test"))
    for index in tqdm(range(n_songs), desc="scoring", unit="song", dynamic_ncols=True, leave=False):
        song = PlayedSong(source.load("test", index), source, config, names, LENGTH_S)
        stems = np.concatenate(list(separator.stream(song.blocks(), rate)))
        for name, sdr_db in score_stems(song.references, stems, song.mixture, names, rate).items():
            scores[name].append(sdr_db)
    return {name: float(np.median(values)) for name, values in scores.items() if values}
