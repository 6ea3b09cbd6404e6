import itertools

import numpy as np
import pytest
from helpers import noise as make_noise

from sourcesep import metrics
from sourcesep.metrics import score_stem, sdr, si_sdr

RATE = 1_000  # a frame is a thousand samples


def noise(seconds, level=0.1, seed=0, channels=()):
    return make_noise(round(seconds * RATE), *channels, level=level, seed=seed).astype(np.float64)


def silence(seconds):
    return np.zeros(round(seconds * RATE))


def constant(level_dbfs, seconds=1):
    return np.full(round(seconds * RATE), 10 ** (level_dbfs / 20))


def test_sdr_of_a_tenth_of_an_error_is_20_db():
    stem = np.random.default_rng(0).standard_normal((1000, 2))
    assert sdr(stem, 1.1 * stem) == pytest.approx([20.0, 20.0], abs=1e-3)


def test_silence_scores_0_db_whatever_the_stem():
    stem = np.random.default_rng(0).standard_normal((1000, 2))
    assert sdr(stem, np.zeros_like(stem)) == pytest.approx([0.0, 0.0], abs=1e-6)
    assert sdr(np.zeros_like(stem), np.zeros_like(stem)) == pytest.approx([0.0, 0.0], abs=1e-6)


def test_si_sdr_by_hand_does_not_depend_on_gain():
    stem, error = np.array([1.0, 1.0, 0.0, 0.0]), np.array([0.0, 0.0, 0.1, 0.1])  # at right angles
    for gain in (0.01, 1.0, -3.0):
        assert si_sdr(stem, gain * (stem + error)) == pytest.approx(20.0)


def test_si_sdr_of_silence_is_undefined():
    assert np.isnan(si_sdr(np.zeros(10), np.ones(10)))
    assert np.isnan(si_sdr(np.ones(10), np.zeros(10)))


def test_si_sdr_agrees_with_fast_bss_eval():
    fast_bss_eval = pytest.importorskip("fast_bss_eval")
    stem, estimate = noise(2, seed=1), noise(2, seed=1) + noise(2, 0.05, seed=2)
    expected = fast_bss_eval.numpy.si_sdr(stem[None], estimate[None])
    assert si_sdr(stem, estimate) == pytest.approx(expected[0], abs=1e-6)


@pytest.mark.parametrize("db", [-60.0, -6.0, 0.0])
def test_the_level_of_a_constant_is_its_own(db):
    assert metrics.level_dbfs(constant(db)) == pytest.approx(db)


def test_digital_silence_has_the_lowest_level():
    assert metrics.level_dbfs(silence(1)) == metrics.level_dbfs(silence(0)) == metrics.LOWEST_DBFS


def test_a_frame_is_active_above_60_dbfs_and_40_db_below_the_loudest():
    def active(*levels):
        return metrics.activity(np.concatenate([constant(level) for level in levels]), RATE).tolist()

    assert active(-6, -45, -47) == [True, True, False]  # 40 dB below the loudest counts
    assert active(-30, -59, -61) == [True, True, False]  # -60 dBFS counts
    assert active(-61, -70) == [False, False]
    assert not metrics.activity(silence(2.5), RATE).any()


def test_the_last_frame_may_be_shorter_and_still_counts():
    stem = np.concatenate([silence(1), constant(-6, 0.3)])
    active = metrics.activity(stem, RATE)
    assert active.tolist() == [False, True]
    assert len(metrics.select_frames(stem, active, RATE)) == 300


def test_channels_are_scored_as_one_waveform():
    stem, error = noise(3, channels=(2,)), noise(3, 0.01, seed=1, channels=(2,))
    error[:, 0] *= 3
    mixture = stem + noise(3, 0.2, seed=2, channels=(2,))
    stereo = score_stem(stem, stem + error, mixture, RATE)
    assert stereo["sdr_db"] == pytest.approx(10 * np.log10(np.sum(stem**2) / np.sum(error**2)), abs=1e-3)
    for row in (stem, error):
        assert stereo["active_s"] == 3.0 == len(row) / RATE


def test_the_active_part_is_scored_apart_from_the_silent_part():
    stem = np.concatenate([noise(2), silence(2)])
    others = noise(4, 0.2, seed=1)
    estimate = stem + np.concatenate([0.1 * stem[: 2 * RATE], 0.1 * others[2 * RATE :]])
    scores = score_stem(stem, estimate, stem + others, RATE)
    assert scores["active_s"] == scores["silent_s"] == 2.0
    assert scores["sdr_db"] == pytest.approx(20.0, abs=0.01)  # the rest in the silent part does not count
    assert scores["attenuation_db"] == pytest.approx(20.0, abs=0.01)  # nor does the error of the active part here
    assert scores["residual_dbfs"] == pytest.approx(metrics.level_dbfs(0.1 * others[2 * RATE :]))
    assert scores["audible_share"] == 1.0


def test_improvements_are_over_the_mixture_as_the_estimate():
    stem, others = noise(3), noise(3, seed=1)
    scores = score_stem(stem, stem + 0.1 * others, stem + others, RATE)
    assert scores["sdr_improvement_db"] == pytest.approx(20.0, abs=0.01)
    assert score_stem(stem, stem + others, stem + others, RATE)["sdr_improvement_db"] == 0.0
    assert scores["si_sdr_improvement_db"] == pytest.approx(20.0, abs=0.5)


def test_the_gain_over_a_constant_is_that_over_the_mixture_at_its_best_level():
    stem, others = noise(3), noise(3, seed=1)  # equally loud: half of the mixture has an SDR of 3 dB
    scores = score_stem(stem, stem + 0.1 * others, stem + others, RATE)
    assert scores["gain_over_constant_db"] == pytest.approx(17.0, abs=0.2)
    for gain in (0.2, 0.5, 0.8, 1.0):  # no gain of the mixture beats the best one
        assert score_stem(stem, gain * (stem + others), stem + others, RATE)["gain_over_constant_db"] < 1e-3


@pytest.mark.parametrize("others, is_alone", [(0.0, True), (0.009, True), (0.011, False)])
def test_a_stem_that_is_alone_has_nothing_to_gain(others, is_alone):
    """Else its SDR as the mixture, without any error, would make every separator lose 50 dB and more."""
    stem = noise(3)
    scores = score_stem(stem, 0.9 * stem, stem + others * noise(3, seed=1), RATE)
    assert scores["sdr_db"] == pytest.approx(20.0, abs=0.01)
    assert np.isnan(scores["gain_over_constant_db"]) == np.isnan(scores["sdr_improvement_db"]) == is_alone


def test_frames_show_a_flaw_that_the_whole_hides():
    stem = noise(10)
    estimate = 1.01 * stem
    estimate[:RATE] = 0
    scores = score_stem(stem, estimate, 2 * stem, RATE)
    assert scores["frame_sdr_median_db"] == pytest.approx(40.0, abs=0.1)
    assert scores["frame_sdr_p90_db"] == pytest.approx(40.0, abs=0.1)
    assert scores["sdr_db"] == pytest.approx(10.0, abs=0.5)
    worst = score_stem(stem[: 2 * RATE], estimate[: 2 * RATE], 2 * stem[: 2 * RATE], RATE)
    assert worst["frame_sdr_p10_db"] < 5


def test_a_stem_that_never_plays_has_no_sdr_and_one_that_always_plays_no_residual():
    never = score_stem(silence(3), noise(3, 0.01), noise(3, seed=1), RATE)
    assert np.isnan([never[name] for name in never if "sdr" in name or "constant" in name]).all()
    assert never["silent_s"] == 3.0 and never["residual_dbfs"] == pytest.approx(-40.0, abs=0.3)
    always = score_stem(noise(3), noise(3), noise(3, seed=1), RATE)
    assert np.isnan([always[name] for name in ("residual_dbfs", "attenuation_db", "audible_share")]).all()


def test_where_the_mixture_is_silent_too_nothing_is_scored():
    scores = score_stem(silence(3), noise(3), silence(3), RATE)
    assert scores["active_s"] == scores["silent_s"] == 0.0
    assert np.isnan(scores["residual_dbfs"])


def test_perfect_silence_is_attenuated_by_80_db_and_inaudible():
    scores = score_stem(silence(2), silence(2), noise(2), RATE)
    assert scores["attenuation_db"] == metrics.MAX_ATTENUATION_DB
    assert scores["audible_share"] == 0.0


def test_audible_are_frames_above_50_dbfs():
    assert metrics.audible_share(np.concatenate([constant(-49), constant(-51), constant(-51)]), RATE) == pytest.approx(
        1 / 3
    )


def test_consistency_tells_a_sum_in_place_from_one_that_is_late_or_long():
    stems = [noise(2, seed=seed) for seed in (0, 1)]
    mixture = stems[0] + stems[1]
    inside = metrics.consistency(mixture, stems, RATE)
    assert inside["sum_sdr_db"] > 60 and inside["lag_samples"] == 0 and inside["extra_samples"] == 0
    late = metrics.consistency(mixture, [np.concatenate([silence(0.007), stem]) for stem in stems], RATE)
    assert late["lag_samples"] == 7 and late["extra_samples"] == 7 and late["sum_sdr_db"] < 3
    assert metrics.consistency(mixture, [stem[5:] for stem in stems], RATE)["lag_samples"] == -5
    inverted = metrics.consistency(mixture, [-stem for stem in stems], RATE)
    assert inverted["lag_samples"] == 0


def test_the_lag_against_silence_is_undefined():
    assert np.isnan(metrics.consistency(noise(1), [silence(1)], RATE)["lag_samples"])


def test_leakage_is_the_gain_of_each_stem_in_each_estimate_whatever_else_is_in_it():
    shared, drums, piano = noise(3.5, seed=1), noise(3.5, seed=2), noise(3.5, seed=3)
    bass = 0.1 * (drums + shared)  # alike in part, and much softer
    stranger = noise(3.5, level=0.01, seed=4)
    estimates = [0.7 * drums + 0.5 * bass, 0.2 * bass + 0.9 * piano + stranger, np.zeros_like(drums)]
    gains = metrics.leakage([drums, bass, piano], estimates, RATE)
    assert gains[:, 0] == pytest.approx([0.7, 0.5, 0.0], abs=1e-6)
    assert gains[:, 1] == pytest.approx([0.0, 0.2, 0.9], abs=0.1)
    assert gains[:, 2] == pytest.approx([0.0, 0.0, 0.0])


def test_leakage_of_a_stem_that_never_plays_is_undefined():
    drums = noise(2, channels=(2,))
    gains = metrics.leakage([drums, 0 * drums], [0.8 * drums, 0.2 * drums], RATE)
    assert gains[0] == pytest.approx([0.8, 0.2]) and np.isnan(gains[1]).all()


def test_the_ideal_mask_of_stems_that_share_no_frequency_separates_them():
    time = np.arange(4 * 8_000) / 8_000
    stems = [np.sin(2 * np.pi * hz * time)[:, None] for hz in (300, 1_700)]
    for stem, masked in zip(stems, metrics.ideal_ratio_mask(sum(stems), stems)):
        assert masked.shape == stem.shape
        assert sdr(stem, masked)[0] > 30


def test_ideal_masks_add_up_to_the_mixture_and_halve_it_between_equal_stems():
    stem = noise(5, channels=(2,))
    masked = list(metrics.ideal_ratio_mask(2 * stem, [stem, stem]))
    np.testing.assert_allclose(sum(masked), 2 * stem, atol=1e-5)
    np.testing.assert_allclose(masked[0], stem, atol=1e-5)


def test_the_ideal_mask_leaves_out_what_belongs_to_no_reference():
    time = np.arange(4 * 8_000) / 8_000
    stem, other = (np.sin(2 * np.pi * hz * time)[:, None] for hz in (300, 1_700))
    (masked,) = metrics.ideal_ratio_mask(stem + other, [stem])
    assert sdr(stem, masked)[0] > 30


def test_a_bootstrap_interval_is_repeatable_and_about_as_wide_as_theory_says():
    values = np.random.default_rng(0).normal(3.0, 2.0, 100)
    low, high = metrics.bootstrap_interval(values)
    assert (low, high) == metrics.bootstrap_interval(values)
    error = values.std() / 10  # standard error of the mean of 100
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1)
    low, high = metrics.bootstrap_interval(values, np.median)
    assert low < np.median(values) < high


def test_one_value_has_no_interval():
    for values, statistic in itertools.product(([], [1.0]), (np.mean, np.median)):
        assert np.isnan(metrics.bootstrap_interval(values, statistic)).all()
