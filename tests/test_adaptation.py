"""Weighting the stems of a recording by where in frequency and between left and right they are."""

import json

import numpy as np
import pytest
import scipy.signal
import soundfile
from conftest import TINY, change
from helpers import make_run, noise, run

from sourcesep.evaluate.scores import MODEL
from sourcesep.metrics import score_stem, sdr
from sourcesep.models.reach import ReceptiveField
from sourcesep.separate.adaptation import PIECE_S, Adaptation
from sourcesep.separate.separation import Separator

RATE = 8_000


def adapted(mixture, stems, block=3_000):
    """[time, channel], [time, channel, stem] -> [time, channel, stem], in one array."""
    blocks = (range(0, len(mixture), block), range(0, len(mixture), block + 77))
    pieces = Adaptation(RATE).apply(
        (mixture[i : i + block] for i in blocks[0]), (stems[i : i + block + 77] for i in blocks[1])
    )
    return np.concatenate(list(pieces))


def doubtful(stems):
    """Stems of which each holds 70 % of its own and 30 % of the other: [time, channel, 2] -> the same shape."""
    return (0.7 * stems + 0.3 * stems[:, :, ::-1]).astype(np.float32)


def gain_db(true, stems, estimates):
    """How much higher the SDR of each stem is than that of an earlier estimate, in dB [stem]."""
    flat = [waveform.reshape(-1, waveform.shape[-1]) for waveform in (true, stems, estimates)]
    return sdr(flat[0], flat[2]) - sdr(flat[0], flat[1])


@pytest.fixture
def high_and_low():
    """[time, 1, 2]: noise below 500 Hz, and noise as loud above 2 kHz, over two pieces and a half."""
    waveforms = noise(2, round(2.5 * PIECE_S * RATE))
    filters = (
        scipy.signal.butter(6, 500, "low", fs=RATE, output="sos"),
        scipy.signal.butter(6, 2_000, "high", fs=RATE, output="sos"),
    )
    filtered = [scipy.signal.sosfilt(sos, waveform) for sos, waveform in zip(filters, waveforms)]
    return np.stack([waveform / waveform.std() for waveform in filtered], axis=-1)[:, None].astype(np.float32) / 10


@pytest.fixture
def left_and_right():
    """[time, 2, 2]: noise that is 12 dB louder on the left at random times, and other noise on the right at others.

    Both are made of all frequencies.
    """
    n_samples = round(2.5 * PIECE_S * RATE)
    is_first = np.repeat(np.random.default_rng(0).random(-(-n_samples // 2_000)) < 0.5, 2_000)[:n_samples]
    first, second = noise(n_samples) * is_first, noise(n_samples, seed=2) * ~is_first
    return np.stack([np.outer(first, (1, 0.25)), np.outer(second, (0.25, 1))], axis=-1).astype(np.float32)


def test_a_stem_gains_in_the_frequencies_where_it_mostly_is(high_and_low):
    stems = doubtful(high_and_low)
    result = adapted(high_and_low.sum(axis=2), stems)
    assert gain_db(high_and_low, stems, result).min() > 1


def test_a_stem_gains_at_the_position_where_it_mostly_is(left_and_right):
    stems = doubtful(left_and_right)
    result = adapted(left_and_right.sum(axis=2), stems)
    assert gain_db(left_and_right, stems, result).min() > 1
    in_one_place = left_and_right.mean(axis=1, keepdims=True)  # where nothing tells the two apart
    stems = doubtful(in_one_place)
    gain = gain_db(in_one_place, stems, adapted(in_one_place.sum(axis=2), stems))
    assert -0.5 < gain.min() and gain.max() < 0.1  # masks lose a little where one begins within a frame


def test_where_all_stems_are_alike_in_all_places_nothing_changes():
    mixture = noise(3 * RATE, 2)
    stems = mixture[:, :, None] * np.float32((0.5, 0.3, 0.1))  # and a tenth that belongs to no stem
    np.testing.assert_allclose(adapted(mixture, stems), stems, atol=1e-6)


@pytest.mark.parametrize("n_channels", [1, 2, 3])
def test_stems_still_add_up_to_the_mixture(n_channels):
    stems = noise(7 * RATE, n_channels, 4) * np.float32((1, 0.5, 0.2, 0.01))
    mixture = stems.sum(axis=2)
    np.testing.assert_allclose(adapted(mixture, stems).sum(axis=2), mixture, atol=1e-6)


def test_a_quiet_recording_is_weighted_as_a_loud_one(high_and_low):
    mixture, stems = high_and_low.sum(axis=2), doubtful(high_and_low)
    quiet = adapted(0.001 * mixture, np.float32(0.001) * stems)
    np.testing.assert_allclose(1_000 * quiet, adapted(mixture, stems), atol=1e-5)


def test_the_past_does_not_depend_on_the_future(high_and_low):
    mixture, stems = high_and_low.sum(axis=2), doubtful(high_and_low)
    result = adapted(mixture, stems)
    n_first = round(PIECE_S * RATE) - RATE // 2  # the first piece, less the frames that reach over its end
    other = noise(*stems.shape, seed=3)
    other[: n_first + RATE] = stems[: n_first + RATE]
    changed = adapted(other.sum(axis=2), other)
    np.testing.assert_allclose(changed[:n_first], result[:n_first], atol=1e-6)
    assert np.abs(changed - result)[n_first + RATE :].max() > 0.1


@pytest.mark.parametrize("length", [0, 1, 500, 41_000])
def test_the_length_of_blocks_and_of_the_recording_do_not_matter(length, high_and_low):
    mixture, stems = high_and_low.sum(axis=2)[:length], doubtful(high_and_low)[:length]
    results = [np.concatenate([stems[:0], *Adaptation(RATE).apply([mixture], [stems])])]
    if length:
        results += [adapted(mixture, stems, block) for block in (1_000, 50_000)]
    for result in results:
        assert result.shape == stems.shape and np.isfinite(result).all()
        np.testing.assert_allclose(result, results[0], atol=1e-6)


def test_silence_stays_silent():
    assert not adapted(np.zeros((6 * RATE, 2), np.float32), np.zeros((6 * RATE, 2, 3), np.float32)).any()


@pytest.mark.parametrize("rate", [RATE, 11_025])
def test_a_separator_adapts_what_it_separates_and_is_as_late_as_it_says(rate):
    def thirds_and_differences(mixture):
        """Two thirds of the mixture less a third of its change from sample to sample, and the rest."""
        first = mixture * 2 / 3 - np.diff(mixture, axis=1, prepend=np.float32(0)) / 3
        return np.concatenate([first, mixture - first], axis=2)

    field = ReceptiveField(before=1, after=0, stride=1)
    plain, adapting = (
        Separator(thirds_and_differences, field, ("low", "high"), RATE, window_s=0.1, adapt=adapt)
        for adapt in (False, True)
    )
    samples = noise(12 * rate, 1)
    stems, expected = adapting.separate(samples, rate), plain.separate(samples, rate)
    assert stems["low"].shape == samples.shape
    if rate == RATE:
        expected = adapted(samples, np.stack([expected["low"], expected["high"]], axis=-1))
        np.testing.assert_allclose(stems["low"], expected[:, :, 0], atol=1e-6)
    else:
        assert np.abs(stems["low"] - expected["low"]).max() > 1e-3
    n_fed = n_out = 0
    behind = []

    def fed():
        nonlocal n_fed
        for start in range(0, len(samples), 100):
            yield samples[start : start + 100]
            n_fed = min(start + 100, len(samples))
            behind.append(n_fed - n_out)

    for block in adapting.stream(fed(), rate):
        n_out += len(block)
    assert n_out == len(samples)
    assert PIECE_S * rate < max(behind) <= adapting.latency_ms * rate / 1_000 + 0.15 * rate
    assert plain.latency_ms < 1_000 < adapting.latency_ms


def test_separate_and_evaluate_adapt_if_they_are_asked_to(config, tmp_path):
    run_dir = make_run(change(config, **TINY, model="bandnet", channels=2), tmp_path / "run")
    references = {name: noise(24_000, 2, seed=seed) for seed, name in enumerate(("drums", "bass"))}
    mixture = sum(references.values())
    for name, waveform in {**references, "mixture": mixture}.items():
        path = tmp_path / ("songs/song" if name != "mixture" else "") / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, waveform, RATE, "FLOAT")
    expected, others = (
        Separator.from_run(run_dir.path, adapt=adapt).separate(mixture, RATE)["drums"] for adapt in (True, False)
    )
    assert np.abs(expected - others).max() > 1e-3

    stems = tmp_path / "stems"
    flags = ("--adapt", f"--run_dir={run_dir.path}")
    status, _, errors = run(
        "separate.py", *flags, "--subtype=float32", f"--output_dir={stems}", tmp_path / "mixture.wav"
    )
    assert status == 0, errors
    separated, _ = soundfile.read(stems / "mixture" / "drums.wav")
    np.testing.assert_allclose(separated, expected, atol=1e-5)

    scores = tmp_path / "scores"
    status, _, errors = run("evaluate.py", *flags, f"--stems_dir={tmp_path / 'songs'}", f"--output_dir={scores}")
    assert status == 0, errors
    (song,) = json.loads((scores / "metrics.json").read_text())["pieces"]
    score, plain = (score_stem(references["drums"], e, mixture, RATE)["sdr_db"] for e in (expected, others))
    assert abs(score - plain) > 1e-3
    assert song["instruments"]["drums"][MODEL]["sdr_db"] == pytest.approx(score, abs=1e-5)
