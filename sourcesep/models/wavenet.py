"""WaveNet for source separation: stacks of blocks of dilated convolutions, their skip outputs summed, and a head.

The network of the original report, after Lluís, Pons & Serra 2018, "End-to-end music source separation: is it
possible in the waveform domain?", without its gates: a ReLU follows every convolution but the last.
"""

from __future__ import annotations

import keras
from keras import layers

KERNEL_SIZE = 3  # of every convolution that sees more than one sample


def build(config) -> keras.Model:
    """Builds the network from `config.stacks`, `blocks`, `filters`, `head_filters` and the number of targets.

    Block b of each stack (from 0) has dilation 2**b. All convolutions pad with zeros: output length is input length.
    The residual and skip convolutions begin with the variance divided by the number of blocks, since that many are
    summed (Zhang, Dauphin & Ma 2019, "Fixup initialization"); with equal variances 40 blocks begin at a loss of 170.

    Returns:
        keras.Model from [batch, time, 1] to [batch, time, target].
    """
    mixture = keras.Input((None, 1), name="mixture")
    x = layers.Conv1D(config.filters, KERNEL_SIZE, padding="same", activation="relu", name="front")(mixture)
    summed = keras.initializers.VarianceScaling(2.0 / (config.stacks * config.blocks), mode="fan_in")
    skips = []
    for stack in range(config.stacks):
        for block in range(config.blocks):
            name = f"stack{stack}_block{block}"
            hidden = layers.Conv1D(
                config.filters, KERNEL_SIZE, padding="same", dilation_rate=2**block, activation="relu", name=name
            )(x)
            skip = layers.Conv1D(config.filters, 1, activation="relu", kernel_initializer=summed, name=f"{name}_skip")
            skips.append(skip(hidden))
            if stack < config.stacks - 1 or block < config.blocks - 1:  # nothing reads the last block's residual
                residual = layers.Conv1D(
                    config.filters, 1, activation="relu", kernel_initializer=summed, name=f"{name}_residual"
                )
                x = layers.Add(name=f"{name}_sum")([x, residual(hidden)])
    x = layers.Add(name="skips")(skips) if len(skips) > 1 else skips[0]
    for position, filters in enumerate(config.head_filters):
        x = layers.Conv1D(filters, KERNEL_SIZE, padding="same", activation="relu", name=f"head{position}")(x)
    stems = layers.Conv1D(len(config.targets), 1, name="stems", dtype="float32")(x)
    return keras.Model(mixture, stems, name="wavenet")
