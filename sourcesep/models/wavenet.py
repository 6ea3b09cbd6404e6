"""WaveNet for source separation: stacks of blocks of dilated convolutions, their skip outputs summed, and a head.

The settings make two published networks. The defaults are the original report's, in which a ReLU follows every
convolution except the last. `--activation=gated --nobias` is that of Lluís, Pons & Serra 2018, "End-to-end music source
separation: is it possible in the waveform domain?" (flags/lluis2018.flags).
"""

# Keras is imported inside functions: Config reads the Settings, and has to do so without TensorFlow.
from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sourcesep.models.settings import ModelSettings, setting

if TYPE_CHECKING:
    import keras

    from sourcesep.config import Config

KERNEL_SIZE = 3  # width of every convolution that spans more than one sample


@dataclasses.dataclass(frozen=True)
class Settings(ModelSettings):
    """Hyper-parameters of WaveNet."""

    stacks: int = setting(4, "Number of stacks of blocks.", minimum=1)
    blocks: int = setting(
        10, "Number of blocks in a stack; the blocks have dilations 1, 2, 4, 8, ...", minimum=1, maximum=20
    )
    filters: int = setting(128, "Filters of the convolutions in the blocks.", minimum=1)
    activation: str = setting(
        "relu",
        "relu puts a ReLU after every convolution; gated puts tanh times sigmoid in the blocks.",
        choices=("relu", "gated"),
    )
    bias: bool = setting(True, "Whether the convolutions before the last one have biases.")
    head_filters: tuple[int, ...] = setting(
        (512, 256), "Filters of the convolutions after the blocks, separated by commas.", minimum=1
    )


def build(config: Config, mixture: keras.KerasTensor, condition: keras.KerasTensor | None = None) -> keras.KerasTensor:
    """Builds the network. All convolutions pad with zeros: output length is input length.

    Args:
        config: the Config; `config.network` is a Settings.
        mixture: [batch, time, 1].
        condition: [batch, size] for feature-wise scale and shift in every block, or None.

    Returns:
        [batch, time, stem].
    """
    from keras import layers

    network: Settings = config.network
    relu = "relu" if network.activation == "relu" else None  # gated blocks are the only non-linearity before the head
    x = layers.Conv1D(
        network.filters, KERNEL_SIZE, padding="same", activation=relu, use_bias=network.bias, name="front"
    )(mixture)
    x = residual_blocks(
        x, network.stacks, network.blocks, activation=network.activation, condition=condition, bias=network.bias
    )
    if network.activation == "gated":
        x = layers.ReLU(name="skips_relu")(x)
    for position, filters in enumerate(network.head_filters):
        x = layers.Conv1D(
            filters, KERNEL_SIZE, padding="same", activation="relu", use_bias=network.bias, name=f"head{position}"
        )(x)
    return layers.Conv1D(len(config.model_stems), 1, name="stems", dtype="float32")(x)


def residual_blocks(
    x: keras.KerasTensor,
    n_stacks: int,
    n_blocks: int,
    activation: str,
    condition: keras.KerasTensor | None = None,
    normalise: bool = False,
    bias: bool = True,
) -> keras.KerasTensor:
    """Builds stacks of blocks; block b of a stack, from 0, has dilation 2**b.

    A block consists of layer normalisation (with `normalise`); a dilated convolution with ReLU or with tanh * sigmoid
    gates (van den Oord et al. 2016, "WaveNet: a generative model for raw audio"); scale and shift by the condition, if
    there is one; and a convolution of width 1, with a ReLU unless gated. One half of its channels is a residual that is
    added to the input of the block, the other half is the skip output of the block.

    The initial weights of these last convolutions have their variance divided by the number of blocks, since that many
    outputs are summed (after Zhang, Dauphin & Ma 2019, "Fixup initialization"). With equal variances, 40 blocks with
    ReLU start at a loss of 170.

    Args:
        x: [batch, time, channel]; every convolution has as many filters as x has channels.
        n_stacks: number of stacks.
        n_blocks: number of blocks in a stack.
        activation: "relu" or "gated".
        condition: [batch, size] or None.
        normalise: whether each block normalises its input, over the channels only.
        bias: whether convolutions have biases.

    Returns:
        [batch, time, channel], the sum of the skip outputs.
    """
    import keras
    from keras import layers

    from sourcesep.models.layers import Conv1D, FiLM, SecondHalf, SplitInHalf

    n_filters = x.shape[-1]
    relu = "relu" if activation == "relu" else None
    summed = keras.initializers.VarianceScaling(2.0 / (n_stacks * n_blocks), mode="fan_in")
    skips = []
    for stack in range(n_stacks):
        for block in range(n_blocks):
            name = f"stack{stack}_block{block}"
            hidden = layers.LayerNormalization(name=f"{name}_norm")(x) if normalise else x
            hidden = Conv1D(
                n_filters * (1 if relu else 2),
                KERNEL_SIZE,
                padding="same",
                dilation_rate=2**block,
                activation=relu,
                use_bias=bias,
                name=name,
            )(hidden)
            if not relu:
                values, gates = SplitInHalf(name=f"{name}_halves")(hidden)
                hidden = layers.Multiply(name=f"{name}_gated")(
                    [
                        layers.Activation("tanh", name=f"{name}_tanh")(values),
                        layers.Activation("sigmoid", name=f"{name}_sigmoid")(gates),
                    ]
                )
            if condition is not None:
                hidden = FiLM(name=f"{name}_film")([hidden, condition])
            both = layers.Conv1D(
                2 * n_filters, 1, activation=relu, use_bias=bias, kernel_initializer=summed, name=f"{name}_out"
            )(hidden)
            if stack == n_stacks - 1 and block == n_blocks - 1:  # its residual would not be used
                skip = SecondHalf(name=f"{name}_skip")(both)
            else:
                residual, skip = SplitInHalf(name=f"{name}_split")(both)
                x = layers.Add(name=f"{name}_sum")([x, residual])
            skips.append(skip)
    return layers.Add(name="skips")(skips) if len(skips) > 1 else skips[0]
