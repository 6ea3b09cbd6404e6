"""Sounds that are changed while they are played, and sounds that are computed."""

from __future__ import annotations

import numpy as np
import pytest
from data_helpers import (
    BAND,
    PIANO,
    RATE_HZ,
    SOUNDFONT,
    Handmade,
    are_equal,
    band_rows,
    chunker,
    note,
    piece,
    pitch_hz,
    rms,
    write_sine_soundfont,
)

from data_gen import midi, procedural, soundfont_file, soundfonts
from data_gen.instruments import CANDIDATES, DRUM_BANK, playable_pitches
from data_gen.soundfont_file import PROCEDURAL
from data_gen.synth import Synthesizer
from data_gen.variation import Sound, Variation, draw_timbre

TEN = tuple(CANDIDATES.values())


@pytest.fixture(scope="module")
def sine(tmp_path_factory):
    presets = [(0, 0), (0, 33), (0, 48), (DRUM_BANK, 0)]
    return write_sine_soundfont(tmp_path_factory.mktemp("fonts") / "sine.sf2", presets)


# ---- Changed --------------------------------------------------------------------------------------------------------
def test_generators_act_on_their_instrument_only_and_a_moved_key_keeps_its_pitch(sine):
    band = Synthesizer((sine, SOUNDFONT), (PIANO, BAND[1]), RATE_HZ)
    music = piece(note(0, 2, 69, channel=0, program=0), note(0, 2, 69, channel=1, program=33))
    moved = Sound(shift=3, generators=((soundfont_file.COARSE_TUNE, -3), (soundfont_file.FINE_TUNE, 50)))
    stems = band.render(music, 0, 2 * RATE_HZ, (), (moved, Sound()))
    assert pitch_hz(stems[:, 0]) == pytest.approx(440 * 2 ** (0.5 / 12), abs=1)
    as_it_is = band.render(music, 0, 2 * RATE_HZ)
    np.testing.assert_array_equal(stems[:, 1], as_it_is[:, 1])
    released = band.render(piece(note(0, 0.5, 69)), RATE_HZ, RATE_HZ, (), (moved, Sound()))
    assert rms(released[:, 0]) < 1e-3 * rms(as_it_is[:, 0])  # the moved key was released too
    dark = Sound(font=1, generators=((soundfont_file.FILTER_HZ, -4_000.0),))
    bright, dull = (band.render(music, 0, RATE_HZ, (), (one, one))[:, 0] for one in (Sound(font=1), dark))
    spectra = [np.square(np.abs(np.fft.rfft(stem)))[4_000:].sum() / np.square(stem).sum() for stem in (bright, dull)]
    assert spectra[1] < 0.2 * spectra[0]


def test_a_layer_is_a_second_preset_that_plays_the_same_notes(sine):
    band = Synthesizer((sine, SOUNDFONT), (PIANO,), RATE_HZ)
    music = piece(note(0, 1, 69), [(0.5, midi.BEND, 0, 0, 0, 0, 4_096)], note(1.5, 0.3, 62))
    one, other = (band.render(music, 0, 2 * RATE_HZ, (), (Sound(font=font),)) for font in (0, 1))
    both = band.render(music, 0, 2 * RATE_HZ, (), (Sound(font=0, layer=(1, 0)),))
    np.testing.assert_allclose(both, one + other, atol=1e-4)


def test_what_is_drawn_stays_in_the_range_of_the_instrument_and_layers_come_from_where_they_may():
    low, high = playable_pitches(PIANO)
    notes = piece(note(0, 1, low), note(1, 1, high - 2)).notes
    rng = np.random.default_rng(0)
    sounds = [draw_timbre(Sound(font=1), PIANO, notes, (4, 5), rng) for _ in range(200)]
    assert {sound.shift for sound in sounds} == {0, 1, 2}
    assert all(dict(sound.generators).get(soundfont_file.COARSE_TUNE, 0) == -sound.shift for sound in sounds)
    layers = [sound.layer for sound in sounds if sound.layer]
    assert 20 < len(layers) < 60
    assert {font for font, _ in layers} == {4, 5} and {program for _, program in layers} == set(PIANO.programs)
    assert {sound.font for sound in sounds} == {1}


def test_a_visit_with_every_change_depends_on_its_seed_and_number_only_and_sums_to_the_mixture(sine):
    busy = Handmade(*(piece(band_rows(0, 8, seed=seed), name=f"busy {seed}") for seed in range(2)))
    everything = Variation(timbre=1.0, transpose=2, presets=0.5, reverb=0.5)
    fonts = (SOUNDFONT, sine, PROCEDURAL)
    one, other, plain = (chunker(busy, soundfonts=fonts, variation=v) for v in (everything, everything, None))
    visits = [one.visit(index) for index in range(3)]
    assert all(are_equal(other.visit(index), visits[index]) for index in (2, 0, 1))
    assert not are_equal(plain.visit(0), visits[0])
    for visit in visits:
        assert np.array_equal(visit.mixture[..., 0], sum(visit.stems[..., i] for i in range(4)))
        assert all(rms(visit.stems[..., i]) > 1e-4 for i in range(4))


# ---- Computed -------------------------------------------------------------------------------------------------------
def test_all_ten_instruments_are_computed_in_tune_and_no_two_alike():
    computed = Synthesizer(PROCEDURAL, TEN, RATE_HZ)
    keys = {one.name: sum(playable_pitches(one)) // 2 for one in TEN}
    rows = [
        note(0, 1, 38, 9, 0, bank=DRUM_BANK) if one.is_percussion else note(0, 1, keys[one.name], i, one.programs[0])
        for i, one in enumerate(TEN)
    ]
    renders = [computed.render(piece(*rows), 0, RATE_HZ, (), (Sound(seed=seed),) * len(TEN)) for seed in (1, 2, 3, 1)]
    np.testing.assert_array_equal(renders[0], renders[3])
    for position, one in enumerate(TEN):
        stems = [render[:, position] for render in renders[:3]]
        assert all(0.005 < rms(stem) < 0.5 for stem in stems), one.name
        spectra = [np.log(np.abs(np.fft.rfft(stem[:8_192])) + 1e-2) for stem in stems]
        assert all(np.corrcoef(spectra[a], spectra[b])[0, 1] < 0.97 for a, b in ((0, 1), (0, 2), (1, 2))), one.name
        if not one.is_percussion:
            hz = 440 * 2 ** ((keys[one.name] - 69) / 12)
            for stem in stems:
                spectrum = np.abs(np.fft.rfft(stem * np.hanning(len(stem))))
                near = [spectrum[round(hz * k) - 6 : round(hz * k) + 7].max() for k in (1, 2, 3)]
                assert max(near) > 0.1 * spectrum.max(), one.name


def test_a_key_sounds_the_same_whatever_other_keys_and_programs_are_played():
    music = piece(note(0, 1, 60, 0, 0))
    more = piece(note(0, 1, 60, 0, 0), note(0.02, 1, 90, 1, 3))
    band = Synthesizer(PROCEDURAL, (PIANO,), RATE_HZ)
    alone, first = (band.render(one, 0, 300)[:, 0] for one in (music, more))
    np.testing.assert_allclose(alone, first, atol=1e-6)


def test_a_sum_of_damped_partials_is_what_its_formula_says():
    hz, amplitudes, decay_s = np.array([300.0, 1_000.0]), np.array([0.5, 0.2]), np.array([0.1, 0.02])
    wave = procedural.damped_partials(hz, amplitudes, decay_s, 5_000, np.random.default_rng(3))
    phases = 2 * np.pi * np.random.default_rng(3).random(2)
    time_s = np.arange(5_000)[:, None] / procedural.RATE_HZ
    expected = (amplitudes * np.exp(-time_s / decay_s) * np.cos(2 * np.pi * hz * time_s + phases)).sum(axis=1)
    np.testing.assert_allclose(wave, expected, atol=1e-5)


def test_computed_sounds_are_as_loud_as_others_after_matching():
    profiles = [soundfonts.profile(path) for path in (SOUNDFONT, PROCEDURAL)]
    for instrument in BAND:
        gains_db = soundfonts.match_levels(profiles, instrument)
        assert max(map(abs, gains_db)) < 8
        assert sum(gains_db) == pytest.approx(0, abs=1e-6)
