import numpy as np
import pytest
import tensorflow as tf

from data_gen import InputError
from sourcesep.loss_terms import TERMS, check_loss
from sourcesep.train import losses

RNG = np.random.default_rng(0)
STEMS = RNG.standard_normal((2, 3000, 3)).astype(np.float32)
ESTIMATES = RNG.standard_normal((2, 3000, 3)).astype(np.float32)


def numpy_spectra(waveforms):
    """The definition, with a Hann window and an FFT a frame: complex [batch, instrument, frame, frequency]."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(losses.FRAME_SAMPLES) / losses.FRAME_SAMPLES)
    starts = range(0, waveforms.shape[1] - losses.FRAME_SAMPLES + 1, losses.HOP_SAMPLES)
    frames = np.stack([waveforms[:, s : s + losses.FRAME_SAMPLES].transpose(0, 2, 1) * window for s in starts], axis=2)
    return np.fft.rfft(frames.astype(np.float64)) / np.sqrt(np.square(window).sum())


def numpy_magnitudes(waveforms):
    return np.abs(numpy_spectra(waveforms))


def test_mae_and_mse_are_their_definitions():
    assert float(losses.mae(STEMS, ESTIMATES)) == pytest.approx(np.abs(STEMS - ESTIMATES).mean(), rel=1e-5)
    assert float(losses.mse(STEMS, ESTIMATES)) == pytest.approx(np.square(STEMS - ESTIMATES).mean(), rel=1e-5)


def test_the_normalised_mse_weighs_quiet_and_loud_examples_alike():
    energies = np.square(STEMS.sum(-1)).mean(1)
    expected = (np.square(STEMS - ESTIMATES).mean((1, 2)) / energies).mean()
    assert float(losses.nmse(STEMS, ESTIMATES)) == pytest.approx(expected, rel=1e-4)
    gains = np.array([0.1, 2.0], np.float32)[:, None, None]
    assert float(losses.nmse(gains * STEMS, gains * ESTIMATES)) == pytest.approx(expected, rel=1e-3)


def test_the_root_and_the_logarithm_are_taken_of_each_stem_for_itself():
    errors = np.square(STEMS - ESTIMATES).mean(1) / np.square(STEMS.sum(-1)).mean(1)[:, None]
    assert float(losses.nrmse(STEMS, ESTIMATES)) == pytest.approx(np.sqrt(errors + 1e-4).mean(), rel=1e-4)
    assert float(losses.log_nmse(STEMS, ESTIMATES)) == pytest.approx(np.log10(1 + 1e3 * errors).mean(), rel=1e-4)


def test_a_weak_stem_counts_for_more_by_the_root_and_as_much_as_a_strong_one_by_the_logarithm():
    stems = STEMS * np.array([1.0, 1.0, 0.1], np.float32)
    halved = [stems * (np.arange(3) != i) + stems * 0.5 * (np.arange(3) == i) for i in range(3)]  # one stem at half

    def improvement(loss, i):  # from nothing to half of stem i
        others = np.arange(3) != i
        return float(loss(stems, stems * others) - loss(stems, halved[i].astype(np.float32)))

    weak, root, logarithm = (
        improvement(loss, 2) / improvement(loss, 0) for loss in (losses.nmse, losses.nrmse, losses.log_nmse)
    )
    assert weak < 0.02 < 0.05 < root < logarithm
    assert logarithm > 0.4


def test_the_spectrogram_loss_agrees_with_numpy():
    expected = np.square(numpy_magnitudes(STEMS) - numpy_magnitudes(ESTIMATES)).mean()
    assert float(losses.spectrogram(STEMS, ESTIMATES)) == pytest.approx(expected, rel=1e-4)


def test_the_compressed_loss_is_the_distance_of_spectra_to_the_power_of_0_3_that_keep_their_phases():
    def compress(waveforms):
        level = np.square(STEMS.sum(-1)).mean(1)[:, None, None, None]
        spectra = numpy_spectra(waveforms) / np.sqrt(level)
        return spectra * (np.square(np.abs(spectra)) + 1e-4) ** -0.35

    expected = np.square(np.abs(compress(STEMS) - compress(ESTIMATES))).mean()
    assert float(losses.compressed(STEMS, ESTIMATES)) == pytest.approx(expected, rel=1e-4)


def test_a_quiet_note_counts_for_more_in_the_compressed_loss_than_by_its_energy():
    t = np.arange(4096) / 16_000
    loud, quiet = np.sin(2 * np.pi * 500 * t), 0.01 * np.sin(2 * np.pi * 3_000 * t)
    stems = np.stack([loud + quiet, np.zeros_like(t)], axis=-1)[None].astype(np.float32)
    without_quiet, without_loud = (
        np.stack([kept, np.zeros_like(t)], axis=-1)[None].astype(np.float32) for kept in (loud, quiet)
    )
    by_energy, compressed = (
        float(loss(stems, without_quiet) / loss(stems, without_loud)) for loss in (losses.nmse, losses.compressed)
    )
    assert by_energy == pytest.approx(1e-4, rel=0.05)
    assert compressed > 0.01


def test_the_loss_of_shares_is_the_mean_divergence_weighted_by_magnitude():
    true, given = numpy_magnitudes(STEMS), numpy_magnitudes(ESTIMATES)
    weights = true.sum(axis=1, keepdims=True)
    true, given = (
        (part + 0.01 * weights) / (part + 0.01 * weights).sum(axis=1, keepdims=True) for part in (true, given)
    )
    divergences = (true * np.log(true / given)).sum(axis=1, keepdims=True)
    expected = [(weights * divergences)[i].mean() / (weights[i].mean() + 1e-3) for i in range(2)]
    assert float(losses.shares(STEMS, ESTIMATES)) == pytest.approx(np.mean(expected), rel=1e-4)


def test_the_loss_of_shares_depends_on_which_stem_has_a_note_and_not_on_phase_or_level():
    assert float(losses.shares(STEMS, -STEMS)) == 0.0
    wrong = float(losses.shares(STEMS, STEMS[..., [1, 0, 2]]))
    assert wrong > 50 * float(losses.shares(STEMS, 0.5 * STEMS)) > 0
    assert float(losses.shares(0.01 * STEMS, 0.01 * STEMS[..., [1, 0, 2]])) == pytest.approx(wrong, rel=0.1)


def test_the_stated_gradient_of_spectra_is_that_of_tensorflow():
    rows = tf.constant(STEMS[:, :2_000].transpose(0, 2, 1))  # the last frame is not complete

    def gradient(compute):
        with tf.GradientTape() as tape:
            tape.watch(rows)
            real, imaginary = compute(rows)
            loss = tf.reduce_sum(real**3 + 2 * imaginary**3)
        return tape.gradient(loss, rows)

    def plain(rows):
        spectra = tf.signal.stft(rows, losses.FRAME_SAMPLES, losses.HOP_SAMPLES)
        return tf.math.real(spectra), tf.math.imag(spectra)

    expected = gradient(plain).numpy()
    assert not expected[..., -208:].any()  # samples in no frame
    np.testing.assert_allclose(gradient(losses._tensorflow_spectra), expected, atol=1e-4 * np.abs(expected).max())


def test_the_magnitudes_of_noise_are_near_its_rms():
    magnitudes = losses.magnitudes(0.1 * STEMS).numpy()
    assert np.sqrt(np.square(magnitudes).mean()) == pytest.approx(0.1, rel=0.1)


def test_the_difference_loss_is_minus_the_mean_off_diagonal():
    pairs = np.abs(ESTIMATES[..., :, None] - STEMS[..., None, :]).mean(axis=(0, 1))
    expected = -(pairs.sum() - np.trace(pairs)) / 6
    assert float(losses.difference(STEMS, ESTIMATES)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "text", ["mae", "mse", "nmse", "nrmse", "log_nmse", "compressed", "mae+spectrogram", "mse+shares", "mae+difference"]
)
def test_gradients_are_those_of_finite_differences(text):
    # tf.signal.stft works in float32: differences are taken along a direction in which they are large.
    loss = losses.make_loss(text)
    point = tf.constant(ESTIMATES)
    direction = tf.constant(STEMS - ESTIMATES + RNG.standard_normal(STEMS.shape).astype(np.float32))
    with tf.GradientTape() as tape:
        tape.watch(point)
        value = loss(STEMS, point)
    slope = float(tf.reduce_sum(tape.gradient(value, point) * direction))
    step = 1e-2
    numeric = float(loss(STEMS, point + step * direction) - loss(STEMS, point - step * direction)) / (2 * step)
    assert slope == pytest.approx(numeric, rel=0.02, abs=1e-3)


@pytest.mark.parametrize(
    "text",
    ["mae", "mse", "nmse", "nrmse", "log_nmse", "compressed", "mae+spectrogram", "nmse+shares", "mae+difference"],
)
def test_gradients_are_finite_at_silence(text):
    silence = tf.zeros((1, 2048, 2))
    with tf.GradientTape() as tape:
        tape.watch(silence)
        value = losses.make_loss(text)(tf.zeros((1, 2048, 2)), silence)
    assert np.isfinite(value.numpy())
    assert np.isfinite(tape.gradient(value, silence).numpy()).all()


def test_the_difference_loss_with_the_default_weight_is_bounded_below():
    loss = losses.make_loss("mae+difference")
    values = [float(loss(STEMS, scale * ESTIMATES)) for scale in (1e1, 1e3, 1e5)]
    assert 0 < values[0] < values[1] < values[2]


def test_weights_scale_their_terms():
    weighted = losses.make_loss("mae+0.5*mse")(STEMS, ESTIMATES)
    expected = losses.mae(STEMS, ESTIMATES) + 0.5 * losses.mse(STEMS, ESTIMATES)
    assert float(weighted) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize(
    ("text", "n_stems", "chunk_samples", "named"),
    [
        ("huber", 2, 4410, "huber"),
        ("mae+", 2, 4410, "not a loss"),
        ("x*mae", 2, 4410, "not a loss"),
        ("1.2.3*mae", 2, 4410, "not a weight"),
        ("0*mae", 2, 4410, "every weight is 0"),
        ("mae+spectrogram", 2, 1023, "--chunk_ms"),
        ("mse+shares", 2, 1023, "--chunk_ms"),
        ("mse+shares", 1, 4410, "2 stems or more"),
        ("0.1*shares", 2, 4410, "ignores level and phase"),
        ("mae+1*difference", 2, 4410, "without bound"),
        ("difference", 2, 4410, "without bound"),
        ("0*mse+difference", 2, 4410, "without bound"),
        ("mae+difference", 1, 4410, "2 stems or more"),
    ],
)
def test_losses_that_cannot_be_are_refused(text, n_stems, chunk_samples, named):
    with pytest.raises(InputError, match=named):
        check_loss(text, n_stems, chunk_samples)


@pytest.mark.parametrize("text", ["mae+0.9*difference", "mse+3*difference", "nmse+difference", "nmse+0.1*shares"])
def test_losses_that_stay_bounded_are_accepted(text):
    check_loss(text, 2, 4410)


def test_every_term_has_a_function():
    assert losses.FUNCTIONS.keys() == TERMS.keys()
