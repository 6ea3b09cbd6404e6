"""The practical model: a learned encoder, masks from a separator of WaveNet blocks, a learned decoder.

After Luo & Mesgarani 2019, "Conv-TasNet: surpassing ideal time-frequency magnitude masking for speech separation".
The separator runs once for every `encoder_stride` samples, which is where the arithmetic is saved. Every layer is local
in time (normalisation is over channels alone), so that a recording can be separated window by window.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from sourcesep.models.layers import ConstantQ, CropLike, Fold, Shares, Unfold
from sourcesep.models.wavenet import residual_blocks


def build(config, mixture, condition=None):
    """The network of `config.encoder_filters`, `encoder_stride`, `constant_q`, `stacks`, `blocks`, `filters`, `mask`.

    Each stem has a mask over the encoder's output and a decoder of its own. The encoder's frames are short; with
    `constant_q` the separator also reads a spectrum that is fine enough to tell notes, and so overtones, apart.

    Args:
        config: a Config.
        mixture: [batch, time, 1].
        condition: [batch, size] for feature-wise scale and shift in every block, or None.

    Returns:
        [batch, time, stem].
    """
    stride, n_filters = config.encoder_stride, config.encoder_filters
    waves = lapped_waves(n_filters, 2 * stride).reshape(n_filters, 2, stride)
    # Frames of two strides, from one stride before the first sample on; as many as cover the last one.
    folded = Fold(stride, name="fold")(layers.ZeroPadding1D((stride, 2 * stride - 1), name="pad")(mixture))
    encoded = layers.Conv1D(
        n_filters,
        2,
        activation="relu",
        kernel_initializer=keras.initializers.Constant(waves.transpose(1, 2, 0)),  # [half, time, filter]
        name="encoder",
    )(folded)
    # Its variance goes with the square of the level: Keras' usual epsilon of 1e-3 is above that of music at -20 dBFS.
    x = layers.LayerNormalization(epsilon=1e-8, name="norm")(encoded)
    x = layers.Conv1D(config.filters, 1, name="bottleneck")(x)
    if config.constant_q:
        x = layers.Add(name="features")([x, _constant_q(config, mixture)])
    x = residual_blocks(x, config, "gated", condition, normalise=True)
    x = layers.ReLU(name="skips_relu")(layers.LayerNormalization(name="skips_norm")(x))
    n_stems = max(2, len(config.model_outputs))
    share = {"relu": 1 / n_stems, "sigmoid": -np.log(n_stems - 1), "softmax": 0.0}[config.mask]  # where masks begin
    masks = [
        layers.Conv1D(
            n_filters,
            1,
            activation=None if config.mask == "softmax" else config.mask,
            bias_initializer=keras.initializers.Constant(share),
            name=f"{name}_mask",
        )(x)
        for name in config.model_outputs
    ]
    if config.mask == "softmax":
        masks = Shares(name="masks")(masks)
    stems = []
    for name, mask in zip(config.model_outputs, masks):
        masked = layers.Multiply(name=f"{name}_masked")([encoded, mask])
        decoder = layers.Conv1D(
            stride,
            2,
            use_bias=False,
            kernel_initializer=keras.initializers.Constant(waves[:, ::-1].transpose(1, 0, 2)),  # [half, filter, time]
            dtype="float32",
            name=f"{name}_decoder",
        )
        stems.append(Unfold(dtype="float32", name=f"{name}_waveform")(decoder(masked)))
    waveforms = layers.Concatenate(name="decoded", dtype="float32")(stems) if len(stems) > 1 else stems[0]
    return CropLike(name="stems", dtype="float32")([waveforms, mixture])


def _constant_q(config, mixture):
    """[batch, time, 1] -> [batch, frame, filter]: what of a ConstantQ the separator reads, around the same instants."""
    stride = config.encoder_stride
    half = ConstantQ.n_frames(stride, config.sample_rate) // 2 * stride
    folded = Fold(stride, name="constant_q_fold")(
        layers.ZeroPadding1D((half, half + stride - 1), name="constant_q_pad")(mixture)
    )
    powers = ConstantQ(config.sample_rate, name="constant_q", dtype="float32")(folded)
    powers = layers.LayerNormalization(name="constant_q_norm")(powers)
    # At zero, so that training may start from weights without it.
    return layers.Conv1D(config.filters, 1, kernel_initializer="zeros", use_bias=False, name="constant_q_bottleneck")(
        powers
    )


def lapped_waves(n_filters: int, length: int) -> np.ndarray:
    """What encoder and decoders begin with: sinusoids under a sine window, each with its negative.

    The basis of a Hartley transform of n_filters / 2 points (Bracewell 1983, "Discrete Hartley transform"), which is
    orthonormal, lapped by half under a window whose squares add up to one (Princen & Bradley 1986). So the positive
    parts of their products with a signal, times the waves again, add up to the signal, if n_filters >= 2 length.

    Args:
        n_filters: how many.
        length: of each, in samples.

    Returns:
        float32 [filter, time].
    """
    n_points = -(-n_filters // 2)
    time = np.arange(length)
    phase = 2 * np.pi * np.arange(n_points)[:, None] * time / n_points
    window = np.sin(np.pi * (time + 0.5) / length)
    waves = window * (np.cos(phase) + np.sin(phase)) / np.sqrt(n_points)
    return np.concatenate([waves, -waves])[:n_filters].astype(np.float32)
