import dataclasses

import numpy as np
import pytest

from sourcesep.config import Config
from sourcesep.models import build
from sourcesep.models.receptive_field import receptive_field

PUBLISHED = Config()


def measured_field(model, at, length):
    """How far back and ahead of `at` an impulse on top of noise is felt there, with the widest of some weights."""
    before = after = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        for variable in model.trainable_variables:
            variable.assign(0.3 * rng.standard_normal(variable.shape))
        inputs = np.repeat(rng.standard_normal((1, length, 1)), length + 1, axis=0).astype(np.float32)
        inputs[np.arange(length), np.arange(length), 0] += 10.0  # the last row stays as it is
        outputs = model(inputs, training=False).numpy()[:, at]
        changes = np.abs(outputs[:-1] - outputs[-1]).max(axis=1)
        felt = np.flatnonzero(changes)  # outside the field the same operations give the same bits
        before, after = max(before, at - felt[0]), max(after, felt[-1] - at)
    return before, after


@pytest.mark.parametrize("changes", [{}, {"stacks": 1, "blocks": 4}, {"stacks": 3, "blocks": 2, "head_filters": (4,)}])
def test_the_receptive_field_of_wavenet_is_the_one_that_an_impulse_shows(config, changes):
    model = build(dataclasses.replace(config, **changes))
    field = receptive_field(model)
    assert measured_field(model, at=100, length=200) == (field.before, field.after)
    assert field.stride == 1


def test_the_receptive_field_of_tasnet_is_the_widest_that_impulses_show(tasnet_config):
    model = build(dataclasses.replace(tasnet_config, stacks=1))
    field = receptive_field(model)
    assert field.stride == 4
    measured = [measured_field(model, at, length=200) for at in range(100, 104)]  # it differs within a stride
    assert (max(before for before, _ in measured), max(after for _, after in measured)) == (field.before, field.after)


def test_the_published_network_has_the_layers_of_the_report():
    model = build(PUBLISHED)
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
    block = (3 * 128 * 128 + 128) + 2 * (128 * 128 + 128)
    head = (3 * 128 * 512 + 512) + (3 * 512 * 256 + 256) + (256 * 4 + 4)
    assert model.count_params() == (3 * 128 + 128) + 40 * block - (128 * 128 + 128) + head


@pytest.fixture
def tasnet_config(config):
    return dataclasses.replace(config, model="tasnet", encoder_filters=16, encoder_stride=4)


@pytest.fixture(params=["wavenet", "tasnet"])
def any_config(request, config, tasnet_config):
    return config if request.param == "wavenet" else tasnet_config


@pytest.mark.parametrize("length", [1, 2, 7, 800, 4410])
def test_output_length_is_input_length_and_finite(any_config, length):
    model = build(any_config)
    for mixture in (np.zeros((2, length, 1), np.float32), np.ones((2, length, 1), np.float32)):
        stems = model(mixture).numpy()
        assert stems.shape == (2, length, 2)
        assert np.isfinite(stems).all()


def test_a_shift_of_the_input_by_the_stride_shifts_the_output(tasnet_config):
    model = build(tasnet_config)
    noise = np.random.default_rng(0).standard_normal((1, 400, 1)).astype(np.float32)
    stems, shifted = model(noise).numpy(), model(noise[:, 8:]).numpy()
    field = receptive_field(model)
    np.testing.assert_allclose(shifted[:, field.before : 300], stems[:, field.before + 8 : 308], atol=1e-5)


def test_the_initial_output_of_the_published_network_is_as_loud_as_its_input():
    noise = 0.1 * np.random.default_rng(0).standard_normal((1, 4410, 1)).astype(np.float32)
    assert 1e-3 < np.abs(build(PUBLISHED)(noise).numpy()).mean() < 0.3


def test_targets_decide_the_number_of_outputs(config):
    model = build(dataclasses.replace(config, targets=("bass",)))
    assert model(np.zeros((1, 50, 1), np.float32)).shape == (1, 50, 1)


def test_bfloat16_stays_close_to_float32(any_config):
    exact, mixed = build(any_config), build(any_config, "mixed_bfloat16")
    mixed.set_weights(exact.get_weights())
    noise = 0.1 * np.random.default_rng(0).standard_normal((1, 2000, 1)).astype(np.float32)
    output = mixed(noise)
    assert output.dtype == "float32"
    assert {layer.compute_dtype for layer in mixed.layers if "block" in layer.name} == {"bfloat16"}
    assert np.abs(output - exact(noise)).max() < 1e-2
