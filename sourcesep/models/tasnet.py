"""The practical model: a learned encoder, masks from a separator of WaveNet blocks, a learned decoder.

After Luo & Mesgarani 2019, "Conv-TasNet: surpassing ideal time-frequency magnitude masking for speech separation".
The separator runs once for every `encoder_stride` samples, which is where the arithmetic is saved. Every layer is local
in time (normalisation is over channels alone), so that a recording can be separated window by window.
"""

from __future__ import annotations

import keras
from keras import layers

KERNEL_SIZE = 3  # of the dilated convolutions


class CropLike(layers.Layer):
    """[waveform [batch, time + more, channel], like [batch, time, any]] -> the first `time` samples of the waveform."""

    def call(self, inputs):
        """Crops; see the class."""
        waveform, like = inputs
        return waveform[:, : keras.ops.shape(like)[1]]

    def compute_output_shape(self, input_shape):
        """As long as the second input, as many channels as the first."""
        return (*input_shape[1][:2], input_shape[0][2])


def build(config) -> keras.Model:
    """Builds the network from `config.encoder_filters`, `encoder_stride`, `stacks`, `blocks`, `filters`, `targets`.

    A block: layer normalisation, dilated convolution with tanh * sigmoid gates (van den Oord et al. 2016), then a
    residual added to its input and a skip output, summed over blocks. Each target has a sigmoid mask over the encoder's
    output and a decoder of its own.

    Returns:
        keras.Model from [batch, time, 1] to [batch, time, target], of any time.
    """
    stride = config.encoder_stride
    mixture = keras.Input((None, 1), name="mixture")
    # Frames of two strides, from one stride before the first sample on; as many as cover the last one.
    padded = layers.ZeroPadding1D((stride, 2 * stride - 1), name="pad")(mixture)
    encoded = layers.Conv1D(config.encoder_filters, 2 * stride, stride, activation="relu", name="encoder")(padded)
    x = layers.LayerNormalization(name="norm")(encoded)
    x = layers.Conv1D(config.filters, 1, name="bottleneck")(x)
    skips = []
    for stack in range(config.stacks):
        for block in range(config.blocks):
            name = f"stack{stack}_block{block}"
            hidden = layers.LayerNormalization(name=f"{name}_norm")(x)
            branches = [
                layers.Conv1D(
                    config.filters,
                    KERNEL_SIZE,
                    padding="same",
                    dilation_rate=2**block,
                    activation=activation,
                    name=f"{name}_{activation}",
                )(hidden)
                for activation in ("tanh", "sigmoid")
            ]
            hidden = layers.Multiply(name=f"{name}_gate")(branches)
            skips.append(layers.Conv1D(config.filters, 1, name=f"{name}_skip")(hidden))
            if stack < config.stacks - 1 or block < config.blocks - 1:
                residual = layers.Conv1D(config.filters, 1, name=f"{name}_residual")(hidden)
                x = layers.Add(name=f"{name}_sum")([x, residual])
    x = layers.Add(name="skips")(skips) if len(skips) > 1 else skips[0]
    x = layers.ReLU(name="skips_relu")(layers.LayerNormalization(name="skips_norm")(x))
    stems = []
    for target in config.targets:
        mask = layers.Conv1D(config.encoder_filters, 1, activation="sigmoid", name=f"{target}_mask")(x)
        masked = layers.Multiply(name=f"{target}_masked")([encoded, mask])
        stems.append(
            layers.Conv1DTranspose(1, 2 * stride, stride, use_bias=False, dtype="float32", name=f"{target}_decoder")(
                masked
            )
        )
    waveforms = layers.Concatenate(name="decoded", dtype="float32")(stems) if len(stems) > 1 else stems[0]
    waveforms = layers.Cropping1D((stride, 0), name="crop", dtype="float32")(waveforms)
    return keras.Model(mixture, CropLike(name="stems", dtype="float32")([waveforms, mixture]), name="tasnet")
