"""The practical model: a learned encoder, masks from a separator of WaveNet blocks, a learned decoder.

After Luo & Mesgarani 2019, "Conv-TasNet: surpassing ideal time-frequency magnitude masking for speech separation". The
separator runs once for every `encoder_stride` samples, which saves most of the arithmetic. Every layer is local in time
(normalisation is over the channels only), so that a recording can be separated window by window.
"""

# Keras is imported inside functions: Config reads the Settings, and has to do so without TensorFlow.
from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from sourcesep.models.settings import ModelSettings, setting
from sourcesep.models.wavenet import residual_blocks

if TYPE_CHECKING:
    import keras

    from sourcesep.config import Config


@dataclasses.dataclass(frozen=True)
class Settings(ModelSettings):
    """Hyper-parameters of tasnet."""

    stacks: int = setting(4, "Number of stacks of blocks.", minimum=1)
    blocks: int = setting(
        10, "Number of blocks in a stack; the blocks have dilations 1, 2, 4, 8, ...", minimum=1, maximum=20
    )
    filters: int = setting(128, "Filters of the convolutions in the blocks.", minimum=1)
    encoder_filters: int = setting(256, "Filters of the encoder.", minimum=1)
    encoder_stride: int = setting(
        16, "Distance between the frames of the encoder, in samples; a frame is twice as long.", minimum=1
    )
    constant_q: bool = setting(
        False, "The separator also reads a spectrum with 24 bins per octave, fine enough to tell notes apart."
    )
    mask: str = setting(
        "sigmoid",
        "Activation of the masks on the output of the encoder; with softmax the masks of all stems sum to one.",
        choices=("sigmoid", "relu", "softmax"),
    )

    def check(self, config: Config) -> None:
        """Raises InputError for softmax masks over stems that do not make up the mixture."""
        if self.mask == "softmax":
            config.require_whole_mixture("mask=softmax", "--mask=sigmoid")


def build(config: Config, mixture: keras.KerasTensor, condition: keras.KerasTensor | None = None) -> keras.KerasTensor:
    """Builds the network. Each stem has a mask on the output of the encoder and its own decoder.

    The frames of the encoder are short; with `constant_q` the separator also reads a spectrum that is fine enough to
    tell notes apart, and with them their overtones.

    Args:
        config: the Config; `config.network` is a Settings.
        mixture: [batch, time, 1].
        condition: [batch, size] for feature-wise scale and shift in every block, or None.

    Returns:
        [batch, time, stem].
    """
    import keras
    from keras import layers

    from sourcesep.models.layers import CropLike, Fold, SoftmaxOverStems, Unfold

    network: Settings = config.network
    stride, n_filters = network.encoder_stride, network.encoder_filters
    waves = lapped_waves(n_filters, 2 * stride).reshape(n_filters, 2, stride)
    # Frames of two strides each: the first begins one stride before the first sample, the last one covers the last.
    folded = Fold(stride, name="fold")(layers.ZeroPadding1D((stride, 2 * stride - 1), name="pad")(mixture))
    encoded = layers.Conv1D(
        n_filters,
        2,
        activation="relu",
        kernel_initializer=keras.initializers.Constant(waves.transpose(1, 2, 0)),  # to [half, time, filter]
        name="encoder",
    )(folded)
    # The variance grows with the square of the level: Keras' default epsilon, 1e-3, exceeds that of music at -20 dBFS.
    # Below 6e-8 it would be 0 in the float16 of TFLite files, and silence NaN.
    x = layers.LayerNormalization(epsilon=1e-7, name="norm")(encoded)
    x = layers.Conv1D(network.filters, 1, name="bottleneck")(x)
    if network.constant_q:
        x = layers.Add(name="features")([x, _constant_q(network, config.sample_rate, mixture)])
    x = residual_blocks(x, network.stacks, network.blocks, activation="gated", condition=condition, normalise=True)
    x = layers.ReLU(name="skips_relu")(layers.LayerNormalization(name="skips_norm")(x))
    n_stems = max(2, len(config.model_stems))
    # Masks start at 1 / n_stems (with softmax because their inputs are equal).
    bias = {"relu": 1 / n_stems, "sigmoid": -np.log(n_stems - 1), "softmax": 0.0}[network.mask]
    masks = [
        layers.Conv1D(
            n_filters,
            1,
            activation=None if network.mask == "softmax" else network.mask,
            bias_initializer=keras.initializers.Constant(bias),
            name=f"{name}_mask",
        )(x)
        for name in config.model_stems
    ]
    if network.mask == "softmax":
        masks = SoftmaxOverStems(name="masks")(masks)
    stems = []
    for name, mask in zip(config.model_stems, masks):
        masked = layers.Multiply(name=f"{name}_masked")([encoded, mask])
        decoder = layers.Conv1D(
            stride,
            2,
            use_bias=False,
            kernel_initializer=keras.initializers.Constant(
                waves[:, ::-1].transpose(1, 0, 2)
            ),  # to [half, filter, time]
            dtype="float32",
            name=f"{name}_decoder",
        )
        stems.append(Unfold(dtype="float32", name=f"{name}_waveform")(decoder(masked)))
    waveforms = layers.Concatenate(name="decoded", dtype="float32")(stems) if len(stems) > 1 else stems[0]
    return CropLike(name="stems", dtype="float32")([waveforms, mixture])


def _constant_q(network: Settings, sample_rate: int, mixture: keras.KerasTensor) -> keras.KerasTensor:
    """Builds what the separator reads of a constant-Q spectrum: [batch, time, 1] -> [batch, frame, filter].

    The frames are centred on the same instants as those of the encoder.
    """
    from keras import layers

    from sourcesep.models.constant_q import ConstantQ
    from sourcesep.models.layers import Fold

    stride = network.encoder_stride
    half = ConstantQ.n_frames(stride, sample_rate) // 2 * stride
    folded = Fold(stride, name="constant_q_fold")(
        layers.ZeroPadding1D((half, half + stride - 1), name="constant_q_pad")(mixture)
    )
    powers = ConstantQ(sample_rate, name="constant_q", dtype="float32")(folded)
    powers = layers.LayerNormalization(name="constant_q_norm")(powers)
    # Starts at zero, so that training can start from the weights of a model without this layer.
    return layers.Conv1D(network.filters, 1, kernel_initializer="zeros", use_bias=False, name="constant_q_bottleneck")(
        powers
    )


def lapped_waves(n_filters: int, length: int) -> np.ndarray:
    """Returns the initial weights of encoder and decoders: sinusoids under a sine window, each with its negative.

    They are the basis of a Hartley transform of n_filters / 2 points (Bracewell 1983, "Discrete Hartley transform"),
    which is orthonormal, under windows that overlap by half and whose squares sum to one (Princen & Bradley 1986). If
    n_filters >= 2 length, the positive parts of their products with a signal, times the waves again, sum to the signal.

    Args:
        n_filters: number of waves.
        length: length of each wave, in samples.

    Returns:
        float32 [filter, time].
    """
    n_points = -(-n_filters // 2)
    time = np.arange(length)
    phase = 2 * np.pi * np.arange(n_points)[:, None] * time / n_points
    window = np.sin(np.pi * (time + 0.5) / length)
    waves = window * (np.cos(phase) + np.sin(phase)) / np.sqrt(n_points)
    return np.concatenate([waves, -waves])[:n_filters].astype(np.float32)
