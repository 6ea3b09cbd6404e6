"""bandnet and its layers; what holds for all models is in test_models.py."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY, change
from helpers import noise

from data_gen import InputError
from sourcesep.config import Config
from sourcesep.models import bands, build, copy_weights, stft
from sourcesep.models.receptive_field import gflop_per_s
from sourcesep.models.stft import MaskedWaveforms, Spectrum, hann

RATE = 16_000


def small(**values):
    """A bandnet with one block and few filters, and frames of 64 ms every 16."""
    return Config.from_values(
        {"model": "bandnet", "sample_rate": RATE, "blocks": 1, "filters": 8, "mix_filters": 2}
        | {"window_ms": 64, "hop_ms": 16, **values}
    )


def without_parts(model):
    """The model with masks that are all equal."""
    for variable in model.get_layer("join").trainable_variables:
        variable.assign(np.zeros(variable.shape))
    return model


@pytest.mark.parametrize("length", [256, 32])
def test_a_spectrum_is_the_fourier_transform_of_windowed_frames(length):
    samples = noise(2, 1_000, 2)
    real, imaginary = Spectrum(length, length // 4)(samples)
    for frame in (0, 5):
        begin = frame * length // 4
        cut = samples[:, begin : begin + length].transpose(0, 2, 1)
        expected = np.fft.rfft(cut * hann(length) * 2 / length)
        np.testing.assert_allclose(real[:, frame], expected.real, atol=1e-6)
        np.testing.assert_allclose(imaginary[:, frame], expected.imag, atol=1e-6)


def test_masked_frames_and_their_gradients_are_those_of_the_inverse_fourier_transform():
    inputs = [tf.constant(noise(2, 3, 33, seed=seed)) for seed in range(3)]
    weights = noise(2, 3, 64, seed=3)

    def inverse(real, imaginary, mask):
        return 64 * tf.signal.irfft(tf.complex(mask * real, mask * imaginary))

    def gradients(frames_of):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_sum(weights * tf.square(frames_of(*inputs)))
        return tape.gradient(loss, inputs)

    np.testing.assert_allclose(stft._masked_frames(*inputs), inverse(*inputs), atol=1e-5)
    for ours, theirs in zip(gradients(stft._masked_frames), gradients(inverse)):
        np.testing.assert_allclose(ours, theirs, atol=2e-6 * np.abs(theirs).max())


@pytest.mark.parametrize("overlap", [2, 4, 8])
def test_masks_of_1_give_back_the_signal_of_a_spectrum(overlap):
    length, samples = 64, noise(1, 640, 2)
    real, imaginary = Spectrum(length, length // overlap)(samples)
    masks = np.concatenate([np.ones_like(real), np.zeros_like(real)], axis=2)[:, :, [0, 2, 1, 3]]
    waveforms = MaskedWaveforms(length, length // overlap)([real, imaginary, masks])
    begin = length - length // overlap
    kept = samples[:, begin : begin + waveforms.shape[1]]
    np.testing.assert_allclose(waveforms, np.stack([kept, 0 * kept], axis=3).reshape(1, -1, 4), atol=1e-6)


@pytest.mark.parametrize(
    ("band_hz", "per_octave", "expected"),
    [
        (62.5, 8, [(16, 4), (8, 8), (8, 16), (8, 32)]),
        (15.6, 12, [(24, 1), (12, 2), (12, 4), (12, 8), (12, 16), (4, 32)]),
        (47, 8, [(16, 3), (8, 6), (8, 12), (8, 24), (2, 48), (1, 32)]),
        (1e9, 8, [(1, 512)]),
    ],
)
def test_bands_cover_all_frequencies_once_and_double_their_width_with_the_octave(band_hz, per_octave, expected):
    groups = bands.divide_into_bands(512, RATE / 1_024, band_hz, per_octave)
    assert [tuple(group) for group in groups] == expected
    assert sum(n * bins for n, bins in groups) == 512


@pytest.mark.parametrize("hop_ms", [16, 32])
def test_equal_masks_give_each_stem_its_part_of_the_mixture(hop_ms):
    mixture = noise(1, 3_001, 1)
    model = without_parts(build(small(hop_ms=hop_ms)))
    np.testing.assert_allclose(model(mixture), np.repeat(mixture / 4, 4, axis=2), atol=1e-6)
    model = without_parts(build(small(hop_ms=hop_ms, targets=("bass", "drums"))))
    np.testing.assert_allclose(model(mixture), np.repeat(mixture / 3, 2, axis=2), atol=1e-6)


def test_stems_that_make_up_the_mixture_sum_to_it():
    keras.utils.set_random_seed(0)
    model, mixture = build(small()), noise(1, 3_001, 1)
    stems = model(mixture).numpy()
    assert np.abs(stems - mixture / 4).max() > 0.01  # the masks differ
    np.testing.assert_allclose(stems.sum(axis=2, keepdims=True), mixture, atol=1e-6)


def test_a_quiet_recording_is_separated_as_a_loud_one():
    model, mixture = build(small()), noise(1, 3_000, 1)
    loud = model(mixture).numpy()
    np.testing.assert_allclose(model(mixture / 30) * 30, loud, atol=0.01 * np.abs(loud).max())


def test_a_band_sees_the_others():
    keras.utils.set_random_seed(0)
    layer = bands.BandMix([bands.Bands(3, 1)], 8, "glorot_uniform")
    x = noise(3 * 2, 5, 4)  # band * batch
    before = layer(x).numpy()
    x[1, 2] += 1.0  # the first band of the second example, at one time
    changed = np.abs(layer(x).numpy() - before).max(axis=2) > 1e-6
    assert changed[1::2, 2].all()  # all bands
    assert not changed[::2].any()
    assert not np.delete(changed, 2, axis=1).any()


def test_the_arithmetic_of_shared_weights_counts_for_every_band():
    config = small()
    frames = RATE / config.network.hop_samples(RATE)
    n_bands, n_bins = 40, 512
    block = n_bands * (3 * 8 * 8 + 8 * 2 + (8 + 2) * 8) + (n_bands * 2) ** 2
    multiply_adds = 3 * n_bins * 8 + block + n_bands * 8 * 8 + n_bins * 8 * 4
    assert gflop_per_s(build(config), RATE) == pytest.approx(2 * frames * multiply_adds / 1e9)


def test_frames_that_do_not_overlap_by_half_are_refused(config):
    with pytest.raises(InputError, match="--hop_ms=3: more than half of --window_ms=4"):
        change(config, **{**TINY, "model": "bandnet", "hop_ms": 3.0})


def test_a_model_of_two_channels_and_twice_the_rate_begins_as_the_one_it_takes_over():
    keras.utils.set_random_seed(0)
    narrow = build(small(window_ms=32, hop_ms=8, bands_per_octave=4))
    wide = build(small(window_ms=32, hop_ms=8, bands_per_octave=4, sample_rate=2 * RATE, channels=2))
    assert copy_weights(narrow, wide) < wide.count_params()
    spectrum = np.fft.rfft(noise(1, 4_000, 1), axis=1)
    spectrum[:, 1_600:] = 0  # nothing in the bands that they do not share
    mixture = np.fft.irfft(spectrum, 4_000, axis=1).astype(np.float32)
    doubled = (2 * np.fft.irfft(spectrum, 8_000, axis=1)).astype(np.float32)
    expected = narrow(mixture).numpy()
    stems = wide(np.repeat(doubled, 2, axis=2)).numpy()[:, ::2]
    np.testing.assert_allclose(stems[..., :4], stems[..., 4:], atol=1e-3)  # other bands differ
    assert np.abs(expected - mixture / 4).max() > 0.003
    np.testing.assert_allclose(stems[..., :4], expected, atol=0.005 * np.abs(expected).max())


def test_a_deeper_model_begins_as_the_one_it_takes_over_and_can_learn_in_every_block():
    keras.utils.set_random_seed(0)
    shallow, deep = build(small(blocks=2)), build(small(blocks=2, stacks=2))
    assert copy_weights(shallow, deep) == shallow.count_params() < deep.count_params()
    mixture = noise(1, 2_000, 1)
    np.testing.assert_array_equal(deep(mixture), shallow(mixture))
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(deep(mixture)[..., 0] ** 2)
    added = [deep.get_layer(f"stack1_block{block}_mix").out for block in (0, 1)]
    for gradient in tape.gradient(loss, [weight.value for weight in added]):
        assert np.abs(gradient).max() > 0


def test_a_model_of_one_channel_begins_as_one_of_two_does_on_channels_that_are_alike():
    keras.utils.set_random_seed(0)
    stereo, mono = build(small(channels=2)), build(small())
    assert copy_weights(stereo, mono) == mono.count_params()
    mixture = noise(1, 4_000, 1)
    sides = keras.Model(stereo.input, stereo.get_layer("join").output)(np.repeat(mixture, 2, axis=2)).numpy()
    expected = sides.reshape(1, -1, 2, 4, 513).mean(axis=2)
    parts = keras.Model(mono.input, mono.get_layer("join").output)(mixture).numpy()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(parts, expected, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_model_of_other_stems_begins_with_the_masks_of_those_that_both_have(channels):
    def parts(model):
        mixture = np.repeat(noise(1, 2_000, 1), model.input_shape[-1], axis=2)
        join = keras.Model(model.input, model.get_layer("join").output)(mixture).numpy()
        return np.moveaxis(join.reshape(-1, model.input_shape[-1], 3, 513), 2, 0)  # [part, frame, channel, frequency]

    keras.utils.set_random_seed(0)
    source = build(small(targets=("drums", "piano"), other=True))
    target = build(small(targets=("bass", "drums"), channels=channels))  # the third mask is for what is no target
    n_of_bass = sum(weight.size for weight in target.get_layer("join").get_weights()) // 3
    assert copy_weights(source, target) == target.count_params() - n_of_bass
    drums, piano, other = parts(source)
    bass, *copied = parts(target)
    np.testing.assert_allclose(copied, np.broadcast_to([drums, other], np.shape(copied)), atol=1e-5)
    assert min(np.abs(bass - part).max() for part in (drums, piano, other)) > 0.01


@pytest.mark.parametrize(
    "values", [{"filters": 16}, {"mix_filters": 4}, {"instruments": ("organ:16-20", "pipe", "reed", "brass")}]
)
def test_layers_of_other_sizes_or_stems_are_not_taken_over(values):
    source, target = build(small()), build(small(sample_rate=2 * RATE, **values))
    layers = {"filters": "split", "mix_filters": "stack0_block0_mix", "instruments": "join"}
    (name,) = values
    before = target.get_layer(layers[name]).get_weights()
    copy_weights(source, target)
    for old, new in zip(before, target.get_layer(layers[name]).get_weights()):
        np.testing.assert_array_equal(old, new)
