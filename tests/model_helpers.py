"""What the tests of models share: noise, weights at which every path counts, and receptive fields found by impulses."""

import numpy as np


def noise(*shape, scale=0.1):
    """Returns float32 white noise."""
    return (scale * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


def scatter_weights(model, seed=0):
    """Gives a model weights at which every path through it counts, biases and what starts at zero included."""
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        fan_in = np.prod(variable.shape[:-1]) if len(variable.shape) > 1 else 4
        variable.assign(rng.standard_normal(variable.shape) / np.sqrt(fan_in))


def measured_field(model, field, rounding=0.0, impulse=10.0):
    """Returns how far before and after an output sample an impulse on top of noise changes it: (before, after).

    Args:
        model: from [batch, time, 1] to [batch, time, stem]; its weights are overwritten.
        field: the ReceptiveField to check; it only says where to look and how far.
        rounding: changes up to this do not count. For most models none is needed: outside the field the same operations
            give the same bits.
        impulse: its size; the noise has an RMS of 1.
    """
    start = -(-max(0, field.before) // field.stride) * field.stride
    positions = range(start, start + field.stride)  # within a stride the field differs
    length = field.samples + 2 * field.stride
    before, after = -length, -length
    inputs = np.repeat(noise(1, length, 1, scale=1.0), length + 1, axis=0)
    inputs[np.arange(length), np.arange(length), 0] += impulse  # the last row stays as it is
    for seed in range(3):  # a ReLU may hide an impulse from some weights
        scatter_weights(model, seed)
        outputs = model(inputs, training=False).numpy()
        for at in positions:
            changes = np.abs(outputs[:-1, at] - outputs[-1, at]).max(axis=1)
            changed = np.flatnonzero(changes > rounding)
            before, after = max(before, at - changed[0]), max(after, changed[-1] - at)
    return before, after
