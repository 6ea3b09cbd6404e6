"""Every model with every option, in the smallest form that still has all its layers."""

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, TINY, as_flags, change
from model_helpers import measured_field, noise, scatter_weights

from sourcesep.config import Config
from sourcesep.export.exporting import export
from sourcesep.models import MODELS, build, constant_q, unconditioned
from sourcesep.models.__main__ import HEADINGS, describe, markdown, read_flags
from sourcesep.models.layers import Conv1D
from sourcesep.models.receptive_field import gflop_per_s, receptive_field
from sourcesep.run_dir import RunDir
from sourcesep.separate.separation import Separator
from sourcesep.train import training
from sourcesep.train.conditioning import add_conditions

RATE = 8_000
VARIANTS = {
    "baseline": {"model": "baseline"},
    "baseline_skip": {"model": "baseline_skip"},
    "wavenet": {"model": "wavenet"},
    "wavenet gated": {"model": "wavenet", "activation": "gated", "bias": False},
    "wavenet binary consistent": {"model": "wavenet", "conditioning": "binary", "consistent": True},
    "tasnet": {"model": "tasnet"},
    "tasnet constant-Q": {"model": "tasnet", "constant_q": True, "mask": "softmax"},
    "tasnet consistent": {"model": "tasnet", "mask": "relu", "consistent": True},
    "tasnet embedding other": {"model": "tasnet", "conditioning": "embedding", "targets": ("bass",), "other": True},
    "bandnet": {"model": "bandnet"},
    "bandnet binary some": {"model": "bandnet", "conditioning": "binary", "targets": ("bass",)},
    "wave_u_net": {"model": "wave_u_net"},
    "wave_u_net valid learned": {"model": "wave_u_net", "padding": "valid", "upsampling": "learned"},
    "wave_u_net direct": {"model": "wave_u_net", "padding": "valid", "difference": False, "targets": ("bass",)},
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS)
def variant(request, config):
    return change(config, **{**TINY, **request.param})


def make(**values):
    """A Config of these fields and settings of the model."""
    return Config.from_values(values)


def build_plain(config, seed=0):
    model = build(config)
    scatter_weights(model, seed)
    return unconditioned(model, config)


# ---- Every model -----------------------------------------------------------------------------------------------------
def test_every_model_is_among_the_variants():
    assert {changes["model"] for changes in VARIANTS.values()} == set(MODELS)


def test_output_is_as_long_as_the_input_and_finite_for_silence_noise_and_an_impulse(variant):
    model = build_plain(variant)
    for length in (1, 2, 7, 801):
        impulse = np.zeros((length, 1), np.float32)
        impulse[length // 2] = 1.0
        full_scale = np.random.default_rng(0).uniform(-1, 1, (length, 1)).astype(np.float32)
        stems = model(np.stack([np.zeros_like(impulse), full_scale, impulse])).numpy()
        assert stems.shape == (3, length, len(variant.stem_names))
        assert np.isfinite(stems).all()


def test_a_minute_comes_out_as_a_minute(variant):
    variant = change(variant, stacks=1, filters=2, head_filters=(2,), encoder_stride=16, level_filters=1)
    mixture = noise(1, 60 * RATE - 1, 1)
    assert build_plain(variant)(mixture).shape == (1, 60 * RATE - 1, len(variant.stem_names))


def test_the_receptive_field_is_the_widest_that_impulses_show(variant, monkeypatch):
    monkeypatch.setattr(constant_q, "LONGEST_MS", 8.0)  # as it is, the constant-Q bins would take minutes
    variant = change(variant, stacks=1, kernel_size=6)
    model = unconditioned(build(variant), variant)
    field = receptive_field(model)
    assert field.stride == {"tasnet": 4, "wave_u_net": 4, "bandnet": 8}.get(variant.model, 1)
    # Where frames begin and end, their windows are almost zero.
    assert measured_field(model, field, impulse=1e3 if variant.model == "bandnet" else 10.0) == field[:2]


def test_separation_window_by_window_is_one_pass_over_the_whole(variant, tmp_path):
    run = RunDir(tmp_path)
    run.create_or_resume(variant)
    model = build(variant)
    scatter_weights(model)
    run.save_weights(model)
    model = unconditioned(model, variant)
    field = receptive_field(model)
    separator = Separator.from_run(tmp_path, window_s=2 * (field.samples + field.stride) / RATE)
    for length in (separator.window_samples - 1, 3 * separator.window_samples + 37):
        samples = noise(length)
        stems = separator.separate(samples, RATE)
        expected = model(samples[None, :, None], training=False).numpy()[0]
        np.testing.assert_allclose(np.stack(list(stems.values()), axis=-1), expected, atol=1e-5)


def test_save_and_load_give_the_same_output(variant, tmp_path):
    run = RunDir(tmp_path)
    run.create_or_resume(variant)
    model = build(variant)
    scatter_weights(model)
    run.save_weights(model)
    mixture = noise(2, 500, 1)
    np.testing.assert_array_equal(run.model()(mixture), unconditioned(model, variant)(mixture))


def test_bfloat16_stays_within_a_hundredth_of_float32(variant):
    exact, mixed = build(variant), build(variant, "mixed_bfloat16")
    mixed.set_weights(exact.get_weights())
    mixture = noise(1, 2000, 1)
    output = unconditioned(mixed, variant)(mixture)
    assert output.dtype == "float32"
    assert {layer.compute_dtype for layer in mixed.layers if "block" in layer.name} <= {"bfloat16"}
    assert "bfloat16" in {layer.compute_dtype for layer in mixed.layers}
    assert np.abs(output - unconditioned(exact, variant)(mixture)).max() < 1e-2


def test_training_on_one_batch_drives_the_loss_to_a_tenth(variant):
    changes = {"stacks": 1, "filters": 16, "encoder_filters": 32, "level_filters": 12, "kernel_size": 31}
    variant = change(variant, **changes, chunk_ms=25.0)
    time = np.arange(variant.chunk_samples) / RATE
    waves = 0.5 * np.sin(2 * np.pi * np.array([[100, 1500]]) * time[:, None]).astype(np.float32)
    mixture, stems = waves.sum(axis=1, keepdims=True)[None], waves[None, :, : len(variant.stem_names)]
    batches = add_conditions(tf.data.Dataset.from_tensors((mixture, stems)).repeat(600), variant)
    keras.utils.set_random_seed(0)
    model = build(variant)
    optimizer = keras.optimizers.Adam(5e-3)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(inputs, stems):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.abs(model(inputs, training=True) - stems))
        optimizer.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables))
        return loss

    losses = []
    for inputs, wanted in batches:
        losses.append(float(step(inputs, wanted)))
        if np.mean(losses[-4:]) < 0.1 * losses[0]:
            return
    raise AssertionError(losses[::50])


JAX = """
import pathlib, sys
sys.modules["tensorflow"] = None  # the models must do without it
import keras, numpy as np
from sourcesep.config import Config
from sourcesep.models import build, unconditioned
assert keras.backend.backend() == "jax"
for folder in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    config = Config.from_json((folder / "config.json").read_text())
    model = build(config)
    model.load_weights(folder / "best.weights.h5")
    stored = np.load(folder / "expected.npz")
    stems = unconditioned(model, config).predict_on_batch(stored["mixture"])  # compiled as a whole
    error = np.abs(stems - stored["stems"]).max()
    assert error < 1e-4, (folder.name, error)
    print(folder.name, error)
"""


@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="JAX is not installed")
def test_weights_saved_under_tensorflow_give_the_same_output_under_jax(config, tmp_path):
    for name, changes in VARIANTS.items():
        variant = change(config, **{**TINY, **changes})
        run = RunDir(tmp_path / name)
        run.create_or_resume(variant)
        model = build(variant)
        scatter_weights(model)
        run.save_weights(model)
        mixture = noise(1, 333, 1)
        np.savez(run.path / "expected.npz", mixture=mixture, stems=unconditioned(model, variant)(mixture))
    done = subprocess.run(
        [sys.executable, "-c", JAX, tmp_path],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(VARIANTS)


# ---- What each model is ----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def published():
    return build(Config())


def test_the_published_network_has_the_layers_of_the_report(published):
    model = published
    convolutions = {layer.name: layer for layer in model.layers if hasattr(layer, "kernel_size")}
    blocks = [layer for name, layer in convolutions.items() if name.startswith("stack") and name[-1].isdigit()]
    assert [layer.dilation_rate[0] for layer in blocks] == [2**b for b in range(10)] * 4
    assert {(layer.filters, layer.kernel_size[0]) for layer in blocks} == {(128, 3)}
    assert [convolutions[name].filters for name in ("head0", "head1", "stems")] == [512, 256, 4]
    activations = {layer.name: layer.activation.__name__ for layer in model.layers if hasattr(layer, "activation")}
    assert activations.pop("stems") == "linear"
    assert set(activations.values()) == {"relu"}
    assert model.output.shape == (None, None, 4)
    # 4 stacks of 2 * (1 + 2 + ... + 512), the front and two head convolutions of kernel 3
    assert receptive_field(model).samples == 1 + 4 * 2 * 1023 + 3 * 2
    front, block = 3 * 128, 3 * 128 * 128 + 2 * 128 * 128
    head = 3 * 128 * 512 + 3 * 512 * 256 + 256 * 4
    assert model.count_params() == front + 40 * block + head + 128 + 40 * 3 * 128 + 512 + 256 + 4
    assert gflop_per_s(model, 44_100) == pytest.approx(2 * 44_100 * (front + 40 * block + head) / 1e9)


def test_the_initial_output_of_the_published_network_is_as_loud_as_its_input(published):
    assert 1e-3 < np.abs(published(noise(1, 4410, 1)).numpy()).mean() < 0.3


@pytest.mark.parametrize(("instruments", "parameters"), [((), 3_277_763), (("piano",), 3_277_249)])
def test_the_preset_of_lluis_et_al_has_their_number_of_parameters(instruments, parameters):
    config = read_flags(ROOT / "flags" / "lluis2018.flags")
    config = change(config, instruments=instruments or config.instruments, targets=())
    model = build(config)
    assert model.count_params() == parameters
    # their receptive field of 8,185 is that of the blocks; three more convolutions of kernel 3 are around these
    assert receptive_field(model).samples == 8_185 + 3 * 2
    assert (config.chunk_samples, config.chunk_samples + 2 * config.context_samples) == (1_601, 9_785)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_wave_u_net_has_the_number_of_parameters_of_the_papers_m2_and_m3(padding):
    # Two sources, one of them predicted: vocals and accompaniment in the paper.
    config = make(model="wave_u_net", padding=padding, instruments=("drums", "bass"), sample_rate=22_050)
    model = build(config)
    assert model.count_params() == 10_263_002
    assert receptive_field(model).stride == 2**12
    # the paper's M3 takes 147,443 samples for 16,389; linear interpolation looks at a neighbour at each of 12 levels
    assert receptive_field(model).samples - 2 * 4095 == 147_443 - 16_389 + 1


def test_tasnet_needs_an_eighth_of_the_arithmetic_of_the_published_wavenet_or_less(published):
    tasnet = make(model="tasnet")
    assert 16 <= tasnet.network.encoder_stride <= 32
    assert 8 * gflop_per_s(build(tasnet), 44_100) < gflop_per_s(published, 44_100)


@pytest.mark.parametrize("mask", ["sigmoid", "relu", "softmax"])
@pytest.mark.parametrize(("stride", "n_filters"), [(16, 64), (10, 50)])
def test_tasnet_begins_with_equal_shares_of_the_mixture(mask, stride, n_filters):
    model = build(make(model="tasnet", stacks=1, blocks=2, encoder_stride=stride, encoder_filters=n_filters, mask=mask))
    for layer in model.layers:
        if layer.name.endswith("_mask"):
            layer.kernel.assign(keras.ops.zeros_like(layer.kernel))  # what is left is where masks begin on average
    mixture = noise(1, 1_003, 1)
    np.testing.assert_allclose(model(mixture), np.repeat(mixture / 4, 4, axis=2), atol=1e-6)


def test_stems_under_softmax_masks_and_equal_decoders_sum_to_the_mixture():
    model = build(
        make(model="tasnet", stacks=1, blocks=2, encoder_stride=16, encoder_filters=64, mask="softmax", constant_q=True)
    )
    mixture = noise(1, 1_003, 1)
    stems = model(mixture).numpy()
    assert np.abs(stems - mixture / 4).max() > 0.01  # the masks differ
    np.testing.assert_allclose(stems.sum(axis=2, keepdims=True), mixture, atol=1e-6)


@pytest.mark.parametrize("octave", range(1, 7))
def test_a_sine_of_amplitude_1_has_power_1_in_its_constant_q_bin_and_little_elsewhere(octave):
    rate, hop = 16_000, 64
    layer = constant_q.ConstantQ(rate)
    bin_of_tone = 24 * octave + 5
    frequency = 32.703 * 2 ** (bin_of_tone / 24)
    time = np.arange(2 * rate) / rate
    powers = layer(np.sin(2 * np.pi * frequency * time, dtype=np.float32).reshape(1, -1, hop)).numpy()[0]
    decibels = 10 / np.log(10) * powers
    np.testing.assert_allclose(decibels[:, bin_of_tone], 0, atol=0.1 if octave > 2 else 1.5)
    assert (decibels.argmax(axis=1) == bin_of_tone).all()
    if octave > 2:  # below, 256 ms are too short for a quarter of a tone
        assert decibels[:, [bin_of_tone - 3, bin_of_tone + 3]].max() < -25
        assert decibels[:, [bin_of_tone - 24, bin_of_tone + 24]].max() < -60


def test_the_constant_q_bins_of_a_frame_are_those_around_its_middle():
    rate, hop = 16_000, 64
    layer = constant_q.ConstantQ(rate)
    n_frames = layer.n_frames(hop, rate)
    clicks = np.zeros((1, 100, hop), np.float32)
    clicks[0, 50, 0] = 1.0  # the middle between the frames 49 and 50
    powers = layer(clicks).numpy()[0]
    assert len(powers) == 100 - n_frames + 1
    loudest = powers.argmax(axis=0)
    assert (loudest[40:] + n_frames // 2 == 50).all()


def test_tasnet_separates_a_quiet_recording_as_a_loud_one():
    model = build(make(model="tasnet", stacks=1, blocks=2, filters=8, encoder_stride=16, encoder_filters=64))
    mixture = noise(1, 1_000, 1)
    loud = np.asarray(model(mixture))
    np.testing.assert_allclose(model(mixture / 30) * 30, loud, atol=0.01 * np.abs(loud).max())


def test_the_baseline_ends_without_a_relu_and_its_skips_add_the_input(config):
    plain_config, skip_config = (change(config, **TINY, model=name) for name in ("baseline", "baseline_skip"))
    without, with_skips = build(plain_config), build(skip_config)
    assert without(noise(1, 200, 1)).numpy().min() < 0
    for model in (without, with_skips):
        for variable in model.trainable_variables[:-2]:  # three convolutions that give nothing
            variable.assign(np.zeros(variable.shape))
    identity = np.zeros(with_skips.trainable_variables[-2].shape)
    identity[(identity.shape[0] - 1) // 2, 0] = 1.0
    for model in (without, with_skips):
        model.trainable_variables[-2].assign(identity)
    mixture = noise(1, 200, 1)
    assert not without(mixture).numpy().any()
    np.testing.assert_array_equal(with_skips(mixture).numpy()[..., 0], mixture[..., 0])


@pytest.mark.parametrize("changes", [{"consistent": True}, {"model": "wave_u_net"}], ids=["consistent", "difference"])
def test_consistent_stems_sum_to_the_mixture_under_mixed_precision_too(config, changes):
    model = build(change(config, **TINY, **changes), "mixed_bfloat16")
    mixture = noise(2, 500, 1, scale=0.5)
    np.testing.assert_allclose(model(mixture).numpy().sum(axis=2), mixture[..., 0], atol=1e-6)


def test_consistency_shares_what_is_missing_evenly(config):
    without = build(change(config, **TINY))
    corrected = build(change(config, **TINY, consistent=True))
    corrected.set_weights(without.get_weights())
    mixture = noise(1, 100, 1)
    stems = without(mixture).numpy()
    missing = mixture - stems.sum(axis=2, keepdims=True)
    np.testing.assert_allclose(corrected(mixture), stems + missing / 2, atol=1e-6)


@pytest.mark.parametrize(
    "dilation, dtype, tolerance", [(4, "float32", 1e-5), (256, "float32", 1e-5), (16, "mixed_bfloat16", 0.03)]
)
def test_a_dilated_convolution_gives_in_training_what_it_gives_otherwise_and_has_the_gradient_of_keras(
    dilation, dtype, tolerance
):
    options = {"padding": "same", "dilation_rate": dilation, "activation": "relu", "bias_initializer": "ones"}
    ours, of_keras = Conv1D(4, 3, **options, dtype=dtype), keras.layers.Conv1D(4, 3, **options, dtype=dtype)
    inputs = tf.random.stateless_normal((2, 100, 5), seed=(1, 2))
    of_keras.build(inputs.shape)
    ours.build(inputs.shape)
    ours.set_weights(of_keras.get_weights())
    results = []
    for layer, in_training in ((ours, True), (of_keras, True), (ours, False)):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=in_training) if layer is ours else layer(inputs)
            energy = tf.reduce_sum(tf.cast(outputs, "float32") ** 2)
        values = [outputs, *tape.gradient(energy, [inputs, layer.kernel.value, layer.bias.value])]
        results.append([tf.cast(value, "float32").numpy() for value in values])
    for other in results[1:]:
        for value, expected in zip(results[0], other):
            np.testing.assert_allclose(value, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_upsampling_puts_the_mean_or_what_it_learned_between_two_samples():
    from sourcesep.models.layers import Upsample

    samples = np.array([[[1.0], [3.0], [-1.0]]], np.float32)
    np.testing.assert_allclose(Upsample(False)(samples)[0, :, 0], [1, 2, 3, 1, -1])
    learned = Upsample(True)
    np.testing.assert_allclose(learned(samples)[0, :, 0], [1, 2, 3, 1, -1])
    learned.balance.assign([np.log(3.0)])  # three quarters of the sample before
    np.testing.assert_allclose(learned(samples)[0, :, 0], [1, 1.5, 3, 2, -1], atol=1e-6)


# ---- The registry ----------------------------------------------------------------------------------------------------
NEW_MODEL = """
import dataclasses

from sourcesep.models.settings import ModelSettings, setting


@dataclasses.dataclass(frozen=True)
class Settings(ModelSettings):
    width: int = setting(9, "Width of the convolutions, in samples.", minimum=1)


def build(config, mixture):
    from keras import layers

    width = config.network.width
    x = layers.Conv1D(8, width, padding="same", activation="relu")(mixture)
    return layers.Conv1D(len(config.model_stems), width, padding="same", dtype="float32")(x)
"""


def test_one_file_and_one_line_add_a_model_with_its_flag(config, tmp_path, monkeypatch):
    (tmp_path / "my_model.py").write_text(NEW_MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(MODELS, "mine", "my_model")
    (tmp_path / "mine.flags").write_text("\n".join(as_flags(config, model="mine", width=7)))
    training.train(read_flags(tmp_path / "mine.flags"), tmp_path / "run")
    separator = Separator.from_run(tmp_path / "run")
    assert (separator.field.before, separator.field.after) == (6, 6)
    assert separator.separate(noise(1000), RATE)["bass"].shape == (1000,)
    (exported,) = export(tmp_path / "run", tmp_path / "exported")
    assert exported.error < 1e-6


def test_the_table_tells_what_each_model_costs(config):
    config = change(config, **TINY)
    (row,) = [line for line in markdown([describe("mine", config, measure=True)]).splitlines() if "mine" in line]
    cells = dict(zip(HEADINGS, (cell.strip() for cell in row.strip("|").split("|"))))
    speed = float(cells.pop("times real time").replace(",", ""))
    assert speed > 0
    # front and head of kernel 3, and in each of 4 blocks one of kernel 3 and one of 1 to twice the filters
    multiply_adds = 3 * 8 + 4 * (3 * 8 * 8 + 8 * 16) + 3 * 8 * 16 + 3 * 16 * 8 + 8 * 2
    assert float(cells.pop("GFLOP per second of audio")) == pytest.approx(2 * RATE * multiply_adds / 1e9, abs=0.05)
    assert cells == {
        "model": "mine",
        "sample rate": "8,000 Hz",
        "parameters": f"{build(config).count_params():,}",
        "receptive field": f"{(1 + 2 * 2 * (1 + 2) + 3 * 2) / 8:.0f} ms",
    }


def test_every_preset_is_a_config_that_builds():
    for path in [ROOT / "wavenet.flags", *sorted((ROOT / "flags").glob("*.flags"))]:
        assert build(read_flags(path)).count_params() > 0, path
