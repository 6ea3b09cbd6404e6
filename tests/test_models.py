import dataclasses

import numpy as np
import pytest

from sourcesep.config import Config
from sourcesep.models import build
from sourcesep.models.receptive_field import receptive_field

PUBLISHED = Config()


def measured_field(model, at, length):
    """Where the output at `at` reacts to the input: an impulse on top of noise at each sample in turn."""
    rng = np.random.default_rng(0)
    base = rng.standard_normal((1, length, 1)).astype(np.float32)
    # Kernels and biases of one sign keep every ReLU open, so that no path is hidden by chance.
    for variable in model.trainable_variables:
        variable.assign(np.abs(variable.numpy()) + 0.01)
    impulses = np.repeat(np.abs(base), length, axis=0)
    impulses[np.arange(length), np.arange(length), 0] += 10.0
    reference = model(np.abs(base), training=False).numpy()[0, at]
    changed = np.abs(model(impulses, training=False).numpy()[:, at] - reference).max(axis=1) > 1e-3
    positions = np.flatnonzero(changed)
    return at - positions[0], positions[-1] - at


@pytest.mark.parametrize("changes", [{}, {"stacks": 1, "blocks": 4}, {"stacks": 3, "blocks": 2, "head_filters": (4,)}])
def test_the_receptive_field_is_the_one_that_an_impulse_shows(config, changes):
    model = build(dataclasses.replace(config, **changes))
    field = receptive_field(model)
    assert measured_field(model, at=100, length=200) == (field.before, field.after)


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


@pytest.mark.parametrize("length", [1, 2, 7, 800, 4410])
def test_output_length_is_input_length(config, length):
    assert build(config)(np.zeros((2, length, 1), np.float32)).shape == (2, length, 2)


def test_the_initial_output_of_the_published_network_is_as_loud_as_its_input():
    noise = 0.1 * np.random.default_rng(0).standard_normal((1, 4410, 1)).astype(np.float32)
    assert 1e-3 < np.abs(build(PUBLISHED)(noise).numpy()).mean() < 0.3


def test_targets_decide_the_number_of_outputs(config):
    model = build(dataclasses.replace(config, targets=("bass",)))
    assert model(np.zeros((1, 50, 1), np.float32)).shape == (1, 50, 1)


def test_bfloat16_stays_close_to_float32(config):
    exact, mixed = build(config), build(config, "mixed_bfloat16")
    mixed.set_weights(exact.get_weights())
    noise = 0.1 * np.random.default_rng(0).standard_normal((1, 2000, 1)).astype(np.float32)
    output = mixed(noise)
    assert output.dtype == "float32"
    assert {layer.compute_dtype for layer in mixed.layers if "block" in layer.name} == {"bfloat16"}
    np.testing.assert_allclose(output, exact(noise), atol=1e-2)
