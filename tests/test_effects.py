"""Effects on stems: each does what it is for, and the mixture stays the sum of the stems."""

import dataclasses

import numpy as np
import pytest

from data_gen.chunks import Chunker
from data_gen.effects import STEM_EFFECTS, EffectChances, apply_effects, limiter_gain

RATE = 16_000
ALL = EffectChances(**{field.name: 1.0 for field in dataclasses.fields(EffectChances)})


class Tones:
    """A source of two stems with energy over the whole spectrum; its own take."""

    names, sample_rate, n_channels = ("piano", "bass"), RATE, 1
    name, n_samples = "tones", 4 * RATE

    def draw(self, split, rng):
        return self

    def stems(self, start, n_samples):
        whole = np.stack([tones(4.0), tones(4.0)[:, ::-1]])
        return np.pad(whole, ((0, 0), (0, 0), (0, 2 * RATE)))[..., start : start + n_samples]


def tones(seconds=2.0):
    """float32 [1, time]: a soft and a loud second, with energy from 110 Hz to 7 kHz."""
    times_s = np.arange(round(seconds * RATE)) / RATE
    tone = sum(np.sin(2 * np.pi * f * times_s) for f in (110, 440, 1_760, 3_520, 7_000)) / 5
    return (np.where(times_s < seconds / 2, 0.02, 0.5) * tone).astype(np.float32)[None]


def rms(audio):
    return float(np.sqrt(np.square(audio).mean()))


def spectrum(audio):
    return np.abs(np.fft.rfft(audio[0]))


@pytest.mark.parametrize("name", STEM_EFFECTS)
def test_an_effect_changes_a_stem_and_neither_delays_it_nor_breaks_its_level(name):
    audio = np.random.default_rng(9).normal(0, 0.1, (1, 2 * RATE)).astype(np.float32)  # has one delay that fits
    for seed in range(5):
        treated = STEM_EFFECTS[name](audio, RATE, np.random.default_rng(seed))
        assert treated.shape == audio.shape and treated.dtype == np.float32
        assert np.isfinite(treated).all()
        assert not np.array_equal(treated, audio)
        assert 0.25 < rms(treated) / rms(audio) < 4
        correlation = np.fft.irfft(np.fft.rfft(treated[0]) * np.fft.rfft(audio[0]).conj())
        assert min(int(correlation.argmax()), audio.shape[1] - int(correlation.argmax())) < 0.002 * RATE


def test_a_compressor_brings_soft_and_loud_closer_together():
    audio = tones()
    treated = STEM_EFFECTS["compression"](audio, RATE, np.random.default_rng(1))
    half = audio.shape[1] // 2
    assert rms(treated[:, half:]) / rms(treated[:, :half]) < 0.8 * rms(audio[:, half:]) / rms(audio[:, :half])
    assert rms(treated) == pytest.approx(rms(audio), rel=1e-3)


def test_saturation_adds_harmonics():
    sine = np.sin(2 * np.pi * 500 * np.arange(RATE) / RATE).astype(np.float32)[None]
    harmonics = [
        spectrum(STEM_EFFECTS["saturation"](sine, RATE, np.random.default_rng(seed)))[1_500] for seed in range(5)
    ]
    assert min(harmonics) > 10 * spectrum(sine)[1_500]


def test_a_room_rings_after_the_sound():
    click = np.zeros((1, RATE), np.float32)
    click[0, 100] = 1
    treated = STEM_EFFECTS["room"](click, RATE, np.random.default_rng(0))
    assert treated[0, 100] == pytest.approx(1, abs=1e-3)
    assert np.abs(treated[0, :100]).max() < 1e-6
    assert rms(treated[:, 400:1_600]) > 10 * rms(treated[:, -1_600:])


def test_bandwidth_takes_away_one_end_of_the_spectrum():
    audio = tones()
    seen = set()
    for seed in range(10):
        ratio = spectrum(STEM_EFFECTS["bandwidth"](audio, RATE, np.random.default_rng(seed)))
        ratio = ratio[[220, 14_000]] / spectrum(audio)[[220, 14_000]]  # 110 Hz and 7 kHz, in half Hz
        seen.add(int(ratio.argmin()))
        assert ratio.min() < ratio.max() and ratio.max() > 0.7
    assert seen == {0, 1}


def test_noise_lies_30_to_60_db_below_the_stem():
    audio = tones()
    for seed in range(5):
        noise = STEM_EFFECTS["noise"](audio, RATE, np.random.default_rng(seed)) - audio
        assert -61 < 20 * np.log10(rms(noise) / rms(audio)) < -29


def test_a_limiter_holds_the_ceiling_with_a_smooth_gain():
    mixture = tones()
    gain = limiter_gain(mixture, RATE, ceiling=0.2)
    assert np.abs(gain * mixture).max() <= 0.2 + 1e-6
    assert gain.max() == 1
    assert np.abs(np.diff(gain)).max() < 0.02


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(EffectChances)])
def test_the_mixture_is_the_sum_of_the_stems_with_each_effect(name):
    chunker = Chunker(
        Tones(),
        "train",
        Tones.names,
        chunk_samples=1_600,
        chunks_per_song=10,
        effects=EffectChances(**{name: 1.0}),
    )
    plain = dataclasses.replace(chunker, effects=EffectChances()).visit(3)
    visit = chunker.visit(3)
    assert not np.array_equal(visit.stems, plain.stems)
    np.testing.assert_allclose(visit.mixture[..., 0], visit.stems.sum(axis=-1), atol=1e-5)


def test_a_visit_with_effects_is_the_same_whenever_it_is_made():
    stems = np.stack([tones(), tones()[:, ::-1]])
    first, again, other = (
        apply_effects(stems, Tones.names, RATE, ALL, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_drums_and_bass_keep_the_low_end_where_a_bass_plays():
    hum = np.sin(2 * np.pi * 40 * np.arange(2 * RATE) / RATE, dtype=np.float32)[None] * 0.1
    tone = np.sin(2 * np.pi * 400 * np.arange(2 * RATE) / RATE, dtype=np.float32)[None] * 0.1
    names, stems = ("piano", "drums", "bass"), np.stack([hum, hum, hum])
    cut = EffectChances(low_cut=1.0)
    piano, *low_end = apply_effects(stems, names, RATE, cut, np.random.default_rng(0))
    assert rms(piano[:, RATE:]) < 0.5 * rms(hum)
    np.testing.assert_array_equal(low_end, stems[1:])
    piano, *_ = apply_effects(np.stack([tone, hum, hum]), names, RATE, cut, np.random.default_rng(0))
    assert rms(piano) == pytest.approx(rms(tone), rel=0.05)
    alone = np.stack([hum, hum, 0 * hum])
    np.testing.assert_array_equal(apply_effects(alone, names, RATE, cut, np.random.default_rng(0)), alone)


def test_a_silent_stem_stays_silent():
    stems = np.stack([tones(), np.zeros_like(tones())])
    treated = apply_effects(stems, Tones.names, RATE, ALL, np.random.default_rng(0))
    assert treated[0].any() and not treated[1].any()
