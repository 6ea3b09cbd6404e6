"""Validation: on which songs and sounds, how many excerpts, and that their spread is stated."""

from __future__ import annotations

import pathlib

import keras
import numpy as np
import pytest
import soundfile
from conftest import SOUNDFONT, change
from data_helpers import BASS, DRUMS, Handmade, band_rows, piece, write_sine_soundfont
from helpers import noise

from data_gen import InputError
from data_gen.chunks import hold_out
from data_gen.instruments import DRUM_BANK
from data_gen.played import PlayedStems
from sourcesep import sources
from sourcesep.train.losses import make_loss
from sourcesep.train.validation import N_EXCERPTS, Excerpts


@pytest.fixture(scope="module")
def sine(tmp_path_factory):
    return write_sine_soundfont(tmp_path_factory.mktemp("fonts") / "sine.sf2", [(0, 33), (DRUM_BANK, 0)])


def test_validation_songs_sound_through_soundfonts_that_training_does_not_hear(config, sine, tmp_path):
    second = tmp_path / "second.sf2"
    second.write_bytes(pathlib.Path(sine).read_bytes())
    source = sources.open_source(config)
    assert sources.open_validation(config, source) == [source]
    config = change(config, validate_soundfonts=(sine, str(second)))
    judges = sources.open_validation(config, source)
    assert [judge.soundfonts for judge in judges] == [(sine,), (str(second),)]
    excerpts = Excerpts(judges, False, config.stem_names)
    assert len(excerpts._excerpts) == N_EXCERPTS >= 20
    assert len({mixture.tobytes() for mixture, _ in excerpts._excerpts}) == N_EXCERPTS  # each judge plays other songs
    for soundfont, message in ((SOUNDFONT, "training hears it too"), ("/no.sf2", "no such SoundFont")):
        with pytest.raises(InputError, match=message):
            sources.open_validation(change(config, validate_soundfonts=(soundfont,)), source)


def test_recorded_songs_choose_the_weights_whatever_split_they_would_belong_to(config, sine, tmp_path):
    rng = np.random.default_rng(0)
    for song in ("one", "two", "three"):
        (tmp_path / song).mkdir()
        for stem in ("drums", "bass"):
            soundfile.write(tmp_path / song / f"{stem}.wav", 0.1 * rng.standard_normal(16_000), 8_000)
    config = change(config, validate_soundfonts=(sine,), validate_stems_dir=(str(tmp_path),))
    played, recorded = sources.open_validation(config, sources.open_source(config))
    assert played.soundfonts == (sine,)
    assert [recorded.size(split) for split in ("train", "validation", "test")] == [0, 3, 0]
    assert len(Excerpts([recorded], False, config.stem_names)._excerpts) == 3


def test_the_spread_over_the_excerpts_is_stated_and_the_gain_over_a_constant(sine):
    songs = Handmade(*(piece(band_rows(0, 3, seed=seed), name=f"song {seed}") for seed in range(3)))
    source = PlayedStems(songs, (DRUMS, BASS), (sine,), 8_000)
    excerpts = Excerpts([source], False, source.names)

    half = keras.Sequential([keras.layers.Input((None, 1)), keras.layers.Conv1D(2, 1, use_bias=False)])
    half.set_weights([np.full((1, 1, 2), 0.5, np.float32)])
    scores, estimates = excerpts.score(half, make_loss("mae"))
    assert len(estimates) == 3
    for name in source.names:
        low, high = scores.spread_db[name]
        assert low < scores.sdr_db[name] < high
        assert scores.gain_db[name] <= 0  # no constant gain is better than the best one


def test_a_stem_that_is_alone_in_all_excerpts_has_no_gain(config, tmp_path):
    (tmp_path / "song").mkdir()
    for stem, level in (("drums", 0.1), ("bass", 0.0)):
        soundfile.write(tmp_path / "song" / f"{stem}.wav", noise(16_000, level=level), 8_000)
    config = change(config, validate_stems_dir=(str(tmp_path),))
    excerpts = Excerpts(sources.open_validation(config, sources.open_source(config)), False, config.stem_names)
    most = keras.Sequential([keras.layers.Input((None, 1)), keras.layers.Conv1D(2, 1, use_bias=False)])
    most.set_weights([np.full((1, 1, 2), 0.9, np.float32)])
    scores, _ = excerpts.score(most, make_loss("mae"))
    assert scores.sdr_db == {"drums": pytest.approx(20.0, abs=0.1)}
    assert scores.gain_db == {}


def test_where_songs_are_few_long_ones_give_several_excerpts(sine):
    long, short = piece(band_rows(0, 8), name="long"), piece(band_rows(0, 3), name="short")
    source = PlayedStems(Handmade(long, short), (DRUMS, BASS), (sine,), 8_000)
    held = hold_out(source, "test", source.names, False, 8_000, 9)
    assert [one.name for one in held] == ["long", "short", "long", "long"]
    whole = source.load("test", 0)
    middle = round(0.25 * whole.n_samples) - 4_000
    np.testing.assert_allclose(held[2].stems, whole.stems(middle, 8_000)[:, 0].T, atol=1e-6)
    assert [one.name for one in hold_out(source, "test", source.names, False, 8_000, 2, 1)] == ["short", "long"]
