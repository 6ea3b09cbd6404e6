import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import change
from helpers import noise

from data_gen import InputError
from sourcesep.models import build
from sourcesep.models.receptive_field import ReceptiveField, receptive_field
from sourcesep.separate.separation import Separator

RATE = 8_000


@functools.lru_cache
def built(config):
    """(model, its compiled forward pass), made once for all tests."""
    model = build(config)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:  # biases too, since padding then differs from silence
        variable.assign(variable.numpy() + 0.1 * rng.standard_normal(variable.shape))
    return model, tf.function(model, input_signature=[tf.TensorSpec([None, None, 1], tf.float32)])


@pytest.fixture(params=["wavenet", "tasnet"])
def model_config(request, config):
    return change(config, model=request.param, encoder_filters=16, encoder_stride=4)


@pytest.fixture
def model(model_config):
    return built(model_config)[0]


@pytest.fixture
def forward(model_config):
    return built(model_config)[1]


@pytest.fixture
def field(model):
    return receptive_field(model)


@pytest.fixture
def separator(forward, field, config):
    return Separator(forward, field, config.targets, RATE, window_s=0.05)


def one_pass(model, samples):
    """[time, instrument]"""
    return model(samples[None, :, None], training=False).numpy()[0]


def stacked(stems):
    return np.stack([stems["drums"], stems["bass"]], axis=-1)


@pytest.mark.parametrize("batch_windows", [1, 3])
@pytest.mark.parametrize("length", [1, 10, 399, 400, 401, 402, 4_000, 5_003])
def test_window_by_window_is_one_pass_over_the_whole(model, forward, field, config, length, batch_windows):
    separator = Separator(forward, field, config.targets, RATE, window_s=0.05, batch_windows=batch_windows)
    assert separator.window_samples == 400
    samples = noise(length)
    np.testing.assert_allclose(stacked(separator.separate(samples, RATE)), one_pass(model, samples), atol=1e-5)


def test_a_keras_model_is_all_that_it_takes(model, config):
    separator = Separator.from_model(model, config.targets, RATE, window_s=0.05)
    samples = noise(1_000)
    np.testing.assert_allclose(stacked(separator.separate(samples, RATE)), one_pass(model, samples), atol=1e-5)


def test_the_shortest_windows_give_the_same(model, forward, field, config):
    shortest = field.before + field.after + 3 * field.stride
    separator = Separator(forward, field, config.targets, RATE, window_s=shortest / RATE)
    assert separator.hop_samples <= 3 * field.stride
    samples = noise(403)
    np.testing.assert_allclose(stacked(separator.separate(samples, RATE)), one_pass(model, samples), atol=1e-5)


def test_a_window_that_is_not_longer_than_the_receptive_field_is_refused(forward, field, config):
    for window_s in ((field.samples - 1) / RATE, 0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="--window_s.*receptive field.*better 0"):
            Separator(forward, field, config.targets, RATE, window_s)


def recorded(forward, shapes):
    """The same function, which notes the shapes of its inputs."""

    def recording(mixture):
        shapes.append(mixture.shape)
        assert mixture.dtype == np.float32
        return forward(mixture)

    return recording


@pytest.mark.parametrize(
    ("batch_windows", "n_channels", "expected"), [(1, 1, 1), (1, 2, 1), (4, 1, 4), (4, 6, 4), (5, 2, 4)]
)
def test_each_forward_call_gets_as_many_windows_of_a_channel_as_are_allowed(
    model, forward, field, config, batch_windows, n_channels, expected
):
    shapes = []
    separator = Separator(recorded(forward, shapes), field, config.targets, RATE, 0.05, batch_windows)
    samples = noise(4_000, n_channels)
    stems = separator.separate(samples, RATE)
    assert max(shape[0] for shape in shapes) == expected
    assert max(shape[1] for shape in shapes) == 400
    for channel in range(n_channels):
        np.testing.assert_allclose(stems["bass"][:, channel], one_pass(model, samples[:, channel])[:, 1], atol=1e-5)


@pytest.mark.parametrize("length", [400, 401, 403, 799, 5_003])
def test_windows_of_a_fixed_length_give_one_pass_too(model, forward, field, config, length):
    shapes = []
    separator = Separator(recorded(forward, shapes), field, config.targets, RATE, fixed_samples=400)
    samples = noise(length, 2)
    stems = separator.separate(samples, RATE)
    assert set(shapes) == {(1, 400, 1)}
    for channel in range(2):
        expected = one_pass(model, samples[:, channel])
        np.testing.assert_allclose(stems["bass"][:, channel], expected[:, 1], atol=1e-5)


def test_a_recording_shorter_than_the_fixed_length_is_followed_by_silence(model, forward, field, config):
    separator = Separator(forward, field, config.targets, RATE, fixed_samples=400)
    samples = noise(150)
    expected = one_pass(model, np.pad(samples, (0, 250)))[:150]
    np.testing.assert_allclose(stacked(separator.separate(samples, RATE)), expected, atol=1e-5)


@pytest.mark.parametrize("fixed_samples", [None, 160])
@pytest.mark.parametrize("batch_windows", [1, 3])
@pytest.mark.parametrize("block", [1, 64, 1_000])
def test_a_stream_is_never_further_behind_than_its_latency(block, batch_windows, fixed_samples):
    field = ReceptiveField(before=37, after=21, stride=4)
    separator = Separator(lambda x: np.repeat(x, 2, 2), field, ("a", "b"), RATE, 0.02, batch_windows, fixed_samples)
    assert separator.window_samples == 160
    latency = round(separator.latency_ms / 1_000 * RATE)
    samples = noise(3_000, 1)
    n_fed = n_out = 0
    behind = []

    def fed():
        nonlocal n_fed
        for start in range(0, len(samples), block):
            yield samples[start : start + block]  # when the next block is asked for, this one has been worked off
            n_fed = min(start + block, len(samples))
            behind.append(n_fed - n_out)

    for stems in separator.stream(fed(), RATE):
        n_out += len(stems)
    assert n_out == len(samples)
    assert max(behind) < latency
    if block == 1:
        assert max(behind) == latency - 1  # no more is promised than must be


def test_short_windows_answer_sooner(forward, field, config):
    latencies = [Separator(forward, field, config.targets, RATE, s).latency_ms for s in (0.02, 0.2, 2.0)]
    assert latencies == sorted(latencies)
    assert latencies[0] < 20 and 1_900 < latencies[2] < 2_000
    assert latencies[0] > 1_000 * field.after / RATE


@pytest.mark.parametrize("block", [1, 37, 400, 3_000])
def test_the_block_length_of_a_stream_changes_nothing(separator, block):
    samples = noise(2_000, 1)
    pieces = [samples[start : start + block] for start in range(0, len(samples), block)]
    streamed = np.concatenate(list(separator.stream(pieces, RATE)))
    np.testing.assert_allclose(streamed[:, 0, 1], separator.separate(samples[:, 0], RATE)["bass"], atol=1e-6)


def test_a_stream_holds_no_more_than_a_few_windows(separator):
    largest = 0
    for block in separator.stream((noise(100, 1) for _ in range(100)), RATE):
        largest = max(largest, len(block))
    assert largest <= separator.window_samples


@pytest.mark.parametrize("length", [1, 3, 2_500])
@pytest.mark.parametrize("is_fixed", [False, True])
def test_shifts_give_the_mean_of_passes_over_the_shifted_recording(model, forward, field, config, length, is_fixed):
    samples = noise(length)
    separator = Separator(forward, field, config.targets, RATE, window_s=0.05, shifts=2)
    if is_fixed:
        fixed = separator.window_samples
        separator = Separator(forward, field, config.targets, RATE, fixed_samples=fixed, shifts=2)
        samples = np.pad(samples, (0, max(0, fixed - length)))  # a shorter one is followed by silence, and so is this
    half = field.stride // 2
    later = one_pass(model, np.pad(samples, (half, 0)))[half:]
    blocks = np.array_split(samples[:, None], 3)
    stems = np.concatenate(list(separator.stream(blocks, RATE)))[:, 0]
    np.testing.assert_allclose(stems, (one_pass(model, samples) + later) / 2, atol=1e-5)


def test_each_channel_is_separated_by_itself(separator):
    stereo = noise(1_000, 2)
    stems = separator.separate(stereo, RATE)
    for channel in range(2):
        by_itself = separator.separate(stereo[:, channel], RATE)
        np.testing.assert_allclose(stems["bass"][:, channel], by_itself["bass"], atol=1e-6)


@pytest.mark.parametrize("rate", [4_410, 8_000, 11_025, 44_100])
def test_stems_have_the_length_and_rate_of_the_input_without_delay(config, rate):

    mixture = keras.Input((None, 1))
    identity = keras.Model(mixture, keras.layers.Conv1D(1, 1, kernel_initializer="ones", use_bias=False)(mixture))
    time = np.arange(rate) / rate
    samples = np.sin(2 * np.pi * 300 * time).astype(np.float32) * np.hanning(rate).astype(np.float32)
    stem = Separator.from_model(identity, ("all",), RATE, window_s=0.1).separate(samples, rate)["all"]
    assert stem.shape == samples.shape
    np.testing.assert_allclose(stem, samples, atol=2e-3)


def test_an_empty_recording_gives_empty_stems(separator):
    assert separator.separate(np.zeros((0, 2), np.float32), RATE)["bass"].shape == (0, 2)


@pytest.mark.parametrize("rate", [RATE, 44_100, 192_000])
def test_a_recording_of_one_sample_gives_stems_of_one_sample(separator, rate):
    assert separator.separate(np.array([0.5]), rate)["bass"].shape == (1,)


def test_samples_that_are_no_floats_or_no_numbers_are_refused(separator):
    with pytest.raises(InputError, match="int16; they must be floats"):
        separator.separate(np.zeros(100, np.int16), RATE)
    for value in (np.nan, np.inf):
        with pytest.raises(InputError, match="not finite"):
            separator.separate(np.array([0.0, value]), RATE)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((2, 66_150), np.float32), r"\(2, 66150\) have 66150 channels; the first axis is time"),
        (np.zeros((2, 2_000)), "pass samples.T"),
        (np.zeros((1, 33)), "33 channels"),
        (np.zeros((5, 0)), "0 channels"),
        (np.zeros((1, 100, 2)), "have 3 axes"),
        (np.float32(0), "have 0 axes"),
        (np.zeros(100, np.int32), "int32; they must be floats"),
        (np.zeros(100, np.uint8), "uint8; they must be floats"),
        (np.zeros(100, bool), "bool; they must be floats"),
        (np.zeros(100, complex), "complex128; they must be floats"),
        (np.array(["a"]), "they must be floats"),
        ([[0.0], [0.0, 0.0]], "not an array"),
        (np.array([0.0, 1e300]), "too large"),
    ],
)
def test_arrays_that_are_no_recording_are_refused_at_once(separator, samples, message):
    with pytest.raises(InputError, match=message):
        separator.separate(samples, RATE)


@pytest.mark.parametrize("rate", [0, -8_000, 0.5, float("nan")])
def test_sample_rates_that_are_none_are_refused(separator, rate):
    with pytest.raises(InputError, match="positive whole number"):
        separator.separate(np.zeros(100), rate)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ">f4", np.longdouble])
def test_any_floats_in_any_order_give_float32_stems(separator, dtype):
    samples = np.asfortranarray(noise(2_000, 2).astype(dtype))
    stem = separator.separate(samples[::2], RATE)["bass"]
    assert stem.dtype == np.float32
    np.testing.assert_allclose(stem, separator.separate(samples[::2].astype(np.float32), RATE)["bass"], atol=1e-6)


def test_a_model_that_computes_no_numbers_is_found_out(model_config, config):
    model = build(model_config)
    model.set_weights([np.full_like(weights, np.nan) for weights in model.get_weights()])
    with pytest.raises(InputError, match="weights are damaged, or training diverged"):
        Separator.from_model(model, config.targets, RATE).separate(noise(100), RATE)
