"""Two channels: from the synthesiser to the stems of a recording."""

import base64
import dataclasses
import io
import re

import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf
from conftest import TINY, change
from helpers import noise

from data_gen import InputError
from data_gen.variation import draw_places
from sourcesep import metrics
from sourcesep.evaluate import evaluation
from sourcesep.evaluate.songs import LazySong, Song
from sourcesep.export import saved_model
from sourcesep.export.exporting import export
from sourcesep.models import build
from sourcesep.run_dir import RunDir
from sourcesep.separate.separation import Separator
from sourcesep.sources import make_chunker
from sourcesep.train import losses, training
from sourcesep.train.dataset import make_dataset

RATE = 8_000


@pytest.fixture(scope="module")
def stereo(config):
    """A Config of a small model of two channels, without variation of where stems are."""
    return change(config, **{**TINY, "model": "bandnet", "channels": 2, "vary_pan": 0.0, "vary_width": 0.0})


@pytest.fixture(scope="module")
def run(stereo, tmp_path_factory):
    """A run that made a few steps."""
    path = tmp_path_factory.mktemp("stereo") / "run"
    training.train(stereo, path)
    return RunDir(path)


@pytest.fixture(scope="module")
def model(run):
    return run.model()


@pytest.fixture(scope="module")
def separator(run):
    return Separator.from_run(run.path, window_s=0.1, batch_windows=3)


def columns_of(stems):
    """Stems by name, [time, channel], as the model gives them: [time, channel * stem]."""
    return np.stack(list(stems.values()), axis=-1).reshape(len(next(iter(stems.values()))), -1)


# ---- Data ------------------------------------------------------------------------------------------------------------
def test_the_mean_of_two_channels_is_what_a_mono_run_hears(stereo):
    visit = make_chunker(stereo, "train").visit(0)
    mono = make_chunker(dataclasses.replace(stereo, channels=1), "train").visit(0)
    n_chunks, n_samples, _ = mono.mixture.shape
    assert visit.mixture.shape == (n_chunks, n_samples, 2)
    stems = visit.stems.reshape(n_chunks, n_samples, 2, 2)
    np.testing.assert_allclose(stems.mean(axis=2), mono.stems, atol=1e-6)
    np.testing.assert_allclose(stems.sum(axis=3), visit.mixture, atol=1e-6)
    assert np.abs(visit.mixture[..., 0] - visit.mixture[..., 1]).max() > 1e-3


def test_stems_are_panned_and_widened_within_the_range_and_keep_their_energy():
    rng = np.random.default_rng(0)
    np.testing.assert_allclose(draw_places(3, 0.0, 0.0, rng), np.stack([np.eye(2)] * 3), atol=1e-6)
    panned = draw_places(1_000, 1.0, 0.0, rng) @ np.ones((2, 1))  # the same in both channels
    np.testing.assert_allclose(np.square(panned).sum(axis=1), 2.0, rtol=1e-5)
    assert panned[:, 0].min() < 0.01 and panned[:, 1].min() < 0.01  # from one side alone
    side = draw_places(1_000, 0.0, 0.5, rng) @ np.array([[1.0], [-1.0]])
    assert 0.5 <= side[:, 0].min() < 0.51 and 1.49 < side[:, 0].max() <= 1.5
    np.testing.assert_allclose(side.sum(axis=1), 0, atol=1e-6)


def test_varied_stems_still_sum_to_the_mixture(stereo):
    plain = dataclasses.replace(stereo, keep_silent=1.0, keep_solo=1.0)
    varied = dataclasses.replace(plain, vary_pan=1.0, vary_width=1.0)
    visit, plain = (make_chunker(config, "train").visit(0) for config in (varied, plain))
    stems = visit.stems.reshape(*visit.mixture.shape, 2)
    np.testing.assert_allclose(stems.sum(axis=3), visit.mixture, atol=1e-5)
    assert np.abs(visit.stems - plain.stems).max() > 0.01


def test_half_of_the_chunks_have_their_channels_swapped_with_their_stems(stereo):
    visit = make_chunker(stereo, "train").visit(0)
    visit = visit._replace(mixture=np.tile([1.0, 2.0], (40, 5, 1)), stems=np.tile([10.0, 20, 11, 21], (40, 5, 1)))
    dataset = make_dataset(iter([visit] * 9), 5, 2, tf.Variable(1, dtype=tf.int64), 1, 40, 0, n_channels=2)
    mixture, stems, _ = next(iter(dataset))
    is_swapped = mixture[:, 0, 0].numpy() == 2.0
    assert 10 < is_swapped.sum() < 30
    for swapped, mixture_of, stems_of in zip(is_swapped, mixture.numpy(), stems.numpy()):
        assert (mixture_of == ([2.0, 1.0] if swapped else [1.0, 2.0])).all()
        assert (stems_of == ([11, 21, 10, 20] if swapped else [10, 20, 11, 21])).all()


@pytest.mark.parametrize("text", ["mae", "nmse", "spectrogram", "nmse+0.1*shares", "mae+0.2*difference"])
def test_losses_treat_both_channels_alike_and_hear_their_difference(text):
    loss = losses.make_loss(text, 2)
    stems, estimates = noise(3, 2_048, 4, seed=1), noise(3, 2_048, 4, seed=2)
    swap = [2, 3, 0, 1]
    value = float(loss(stems, estimates))
    assert float(loss(stems[..., swap], estimates[..., swap])) == pytest.approx(value, rel=1e-5)
    assert float(loss(stems, estimates[..., swap])) != pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize("name", ["spectrogram", "compressed", "shares"])
def test_spectra_of_two_channels_are_compared_from_left_right_middle_and_side(name):
    stems, estimates = noise(3, 2_048, 4, seed=1), noise(3, 2_048, 4, seed=2)
    loss = losses.FUNCTIONS[name]

    def ways(columns):
        left, right = columns[..., :2], columns[..., 2:]
        return left, right, (left + right) * 0.5**0.5, (left - right) * 0.5**0.5

    expected = np.mean([float(loss(*pair)) for pair in zip(ways(stems), ways(estimates))])
    assert float(loss(stems, estimates, 2)) == pytest.approx(expected, rel=1e-5)


def test_squared_errors_of_two_channels_are_the_mean_over_both():
    stems, estimates = noise(3, 500, 4, seed=1), noise(3, 500, 4, seed=2)
    assert float(losses.make_loss("mse", 2)(stems, estimates)) == pytest.approx(np.square(stems - estimates).mean())
    both = [np.concatenate([part[..., :2], part[..., 2:]], axis=1) for part in (stems, estimates)]
    assert float(losses.make_loss("nmse", 2)(stems, estimates)) == pytest.approx(float(losses.nmse(*both)))


# ---- Separation and export -------------------------------------------------------------------------------------------
def test_a_recording_of_two_channels_is_separated_as_one_pass_does(model, separator):
    samples = noise(5 * separator.window_samples + 37, 2)
    stems = separator.separate(samples, RATE)
    np.testing.assert_allclose(columns_of(stems), model(samples[None])[0], atol=1e-5)
    np.testing.assert_allclose(sum(stems.values()), samples, atol=1e-5)


@pytest.mark.parametrize("n_channels", [1, 3])
def test_other_recordings_are_given_channel_by_channel_to_both_channels(n_channels, model, separator):
    samples = noise(3_000, n_channels)
    stems = separator.separate(samples, RATE)
    for channel in range(n_channels):
        expected = model(np.repeat(samples[None, :, channel, None], 2, axis=2))[0].numpy()
        for i, name in enumerate(("drums", "bass")):
            np.testing.assert_allclose(stems[name][:, channel], expected[:, i::2].mean(axis=1), atol=1e-5)


def test_exports_take_two_channels_and_still_serve_clients_that_send_one(run, separator, tmp_path):
    saved, lite = export(run.path, tmp_path, ["saved_model", "tflite"], ["float32"], 0.1)
    signatures = saved_model.load(saved.path).signatures
    samples = noise(1_000, 2)
    stems = separator.separate(samples, RATE)
    served = signatures["channels"](mixture=samples[None])
    from_lite = Separator.from_tflite(lite.path).separate(samples, RATE)
    mono = separator.separate(samples[:, 0], RATE)
    served_mono = signatures["serving_default"](mixture=samples[None, :, 0])
    for name, stem in stems.items():
        np.testing.assert_allclose(served[name][0], stem, atol=1e-5)
        np.testing.assert_allclose(from_lite[name][:600], stem[:600], atol=1e-5)  # its end depends on the window
        np.testing.assert_allclose(served_mono[name][0], mono[name], atol=1e-5)
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, "PCM_16", format="WAV")
    of_file = signatures["wav"](wav=tf.constant([file.getvalue()]))
    stem, _ = soundfile.read(io.BytesIO(of_file["bass_bytes"].numpy()[0]))
    np.testing.assert_allclose(stem, stems["bass"], atol=2e-4)


def test_an_evaluation_scores_and_plays_both_channels(run, separator, tmp_path):
    stems = {"drums": noise(RATE, 2, seed=1), "bass": noise(RATE, 2, seed=2)}
    one = Song(RATE, sum(stems.values()), stems)
    found = evaluation.evaluate_run(run.path, [LazySong("song", "here", lambda: one)], tmp_path)
    estimates = separator.separate(one.mixture, RATE)
    for name, rows in found.figures["pieces"][0]["instruments"].items():
        error = np.sum(np.square(stems[name] - estimates[name]))
        expected = 10 * np.log10(np.sum(np.square(stems[name])) / error)
        assert rows["model"]["sdr_db"] == pytest.approx(expected, abs=0.05)
    audio = re.search(r"data:audio/\w+;base64,([^\"]+)", found.page.read_text())[1]
    played, _ = soundfile.read(io.BytesIO(base64.b64decode(audio)))
    assert played.shape[1] == 2 and np.corrcoef(played.T)[0, 1] < 0.5


def test_what_has_one_channel_is_refused_by_name(config):
    with pytest.raises(InputError, match="--channels=2: --model=tasnet has one channel; bandnet can"):
        change(config, model="tasnet", channels=2)
    with pytest.raises(InputError, match="--channels=2: not together with --conditioning"):
        change(config, model="bandnet", channels=2, conditioning="binary")


def test_a_trained_model_treats_both_channels_alike(stereo):
    """Swapped channels give swapped stems, and a mono signal gives equal stems, within 1 dB."""
    rng, time = np.random.default_rng(0), np.arange(800) / RATE
    model = build(change(stereo, stacks=1, filters=16))
    optimizer = keras.optimizers.Adam(5e-3)
    optimizer.build(model.trainable_variables)

    def draw(n):
        """Two sines and where they are: stems [batch, time, channel * stem], for both orders of the channels."""
        phases, gains = rng.uniform(0, 2 * np.pi, (n, 1, 1, 2)), rng.uniform(0, 1, (n, 1, 2, 2))
        stems = gains * np.sin(2 * np.pi * np.array([200, 1_500]) * time[:, None, None] + phases)
        return np.float32(stems).reshape(n, 800, 4)

    def mix(stems):
        return tf.add(stems[..., 0::2], stems[..., 1::2])

    @tf.function
    def step(stems):
        with tf.GradientTape() as tape:
            loss = losses.nmse(stems, model(mix(stems), training=True))
        optimizer.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables))

    for _ in range(60):
        step(draw(8))
    stems = draw(4)
    swapped = [2, 3, 0, 1]
    plain, other = model(mix(stems)).numpy(), model(mix(stems[..., swapped])).numpy()[..., swapped]
    assert np.mean(metrics.sdr(stems, plain)) > 6.0
    for one in range(4):
        for column in range(4):
            wanted, both = stems[one, :, column], (plain[one, :, column], other[one, :, column])
            if np.square(wanted).mean() > 0.02:
                sdr_db = [metrics.sdr(wanted[:, None], estimate[:, None])[0] for estimate in both]
                assert abs(sdr_db[0] - sdr_db[1]) < 1.0 or min(sdr_db) > 15.0
    same = np.concatenate([stems[..., :2]] * 2, axis=-1)
    left, right = np.split(model(mix(same)).numpy(), 2, axis=-1)
    assert metrics.sdr(left, right).min() > 10 * np.log10(1 / (10 ** (1 / 20) - 1) ** 2)
