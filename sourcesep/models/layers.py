"""The layers that the models need and Keras lacks, built of Keras operations only.

All of them take and give [batch, time, channel], unless they say otherwise. Each has a method `reach`; see reach.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import KerasTensor, layers, ops

from sourcesep.models.reach import Reach, pointwise

Tensor = Any  # of any Keras backend
Shape = tuple[Any, ...]  # of a tensor: each axis an int, or None where it varies


def cut(x: Tensor, begin: Any, length: Any) -> Tensor:
    """Returns x[:, begin : begin + length], with a gradient that takes a fraction of the time of a subscript's."""
    shape = ops.shape(x)
    return ops.slice(x, (0, begin, *(0 for _ in shape[2:])), (shape[0], length, *shape[2:]))


class CropLike(layers.Layer):
    """[waveform [batch, time + more, channel], like [batch, time, any]] -> the first `time` samples of the waveform."""

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        waveform, like = inputs
        return cut(waveform, 0, ops.shape(like)[1])

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        return (*input_shape[1][:2], input_shape[0][2])

    def reach(self, inputs: Sequence[Reach]) -> Reach:
        return inputs[0]  # the second input gives only its length


class SplitInHalf(layers.Layer):
    """Splits the channels into the first and the second half, as two tensors.

    One convolution with 2n filters, split, is slightly faster than two with n.
    """

    reach = pointwise

    def call(self, inputs: Tensor) -> list[Tensor]:
        return ops.split(inputs, 2, axis=-1)


class SecondHalf(layers.Layer):
    """Gives the second half of the channels, where the first half would not be used."""

    reach = pointwise

    def call(self, inputs: Tensor) -> Tensor:
        return inputs[..., inputs.shape[-1] // 2 :]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:2], input_shape[2] - input_shape[2] // 2)


class Conv1D(layers.Conv1D):
    """Conv1D of Keras with an odd kernel, stride 1 and padding "same", with gradients that are computed faster on CPUs.

    TensorFlow computes the gradients of a dilated convolution in parts, one for each remainder of time and dilation. At
    a dilation of 32, with 192 channels and 256 frames, that takes three times as long as what is done here; with 64
    channels it takes as long.

    It has the name of the layer of Keras because files of weights name layers by their class.
    """

    def call(self, inputs: Tensor, training: bool | None = False) -> Tensor:
        if not training:
            return super().call(inputs)
        # A copy, since TensorFlow's custom gradients take no variables.
        outputs = _convolve(inputs, ops.copy(self.kernel), self.dilation_rate[0])
        return self.activation(outputs + self.bias if self.use_bias else outputs)

    def reach(self, inputs: Sequence[Reach]) -> Reach:
        around = self.dilation_rate[0] * (self.kernel_size[0] // 2)
        return inputs[0].window(around, around)


def _convolve(inputs: Tensor, kernel: Tensor, dilation: int) -> Tensor:
    """Convolves [batch, time, channel] with a kernel [width, channel, filter] of odd width: [batch, time, filter].

    The gradient with respect to the inputs is that of the outputs, convolved with the kernel in reverse. For the
    kernel it is, position by position, the product of both signals that the position connects.
    """
    width, n_channels, n_filters = kernel.shape
    around = dilation * (width // 2)

    def shifted(signal: Tensor) -> list[Tensor]:
        time = ops.shape(signal)[1]
        padded = ops.pad(signal, [(0, 0), (around, around), (0, 0)])
        return [padded[:, dilation * i : dilation * i + time] for i in range(width)]

    def convolve(signal: Tensor, weights: Tensor) -> Tensor:
        if keras.backend.backend() != "jax":
            return ops.conv(signal, weights, padding="same", dilation_rate=dilation)
        # One product of matrices: on an H200 a step of bandnet takes a sixth of the time that it takes with the
        # algorithm of cuDNN that XLA chooses without trying others.
        side_by_side = ops.concatenate(shifted(signal), axis=-1)
        return ops.matmul(side_by_side, ops.reshape(weights, (-1, weights.shape[-1])))

    @ops.custom_gradient
    def convolve_with_gradient(inputs: Tensor, kernel: Tensor) -> tuple[Tensor, Any]:
        def gradient(upstream: Tensor) -> tuple[Tensor, Tensor]:
            of_inputs = convolve(upstream, ops.transpose(ops.flip(kernel, 0), [0, 2, 1]))
            flat = ops.reshape(upstream, (-1, n_filters))
            parts = [ops.reshape(part, (-1, n_channels)) for part in shifted(inputs)]
            of_kernel = [ops.matmul(ops.transpose(part), flat) for part in parts]
            return of_inputs, ops.stack(of_kernel)

        return convolve(inputs, kernel), gradient

    return convolve_with_gradient(inputs, kernel)


class Fold(layers.Layer):
    """[batch, time, 1] -> [batch, frame, hop]: frames of `hop` samples; an incomplete last frame is dropped.

    A Conv1D with kernel 2 over these frames equals a Conv1D with kernel 2 * hop and stride hop over the waveform, and
    is much faster. Followed by Unfold it equals the transposed convolution.

    Args:
        hop: samples in a frame.
    """

    def __init__(self, hop: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hop = hop

    def call(self, inputs: Tensor) -> Tensor:
        batch, time, _ = ops.shape(inputs)
        n_frames = time // self.hop
        return ops.reshape(inputs[:, : n_frames * self.hop], (batch, n_frames, self.hop))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, time, _ = input_shape
        return (batch, None if time is None else time // self.hop, self.hop)

    def reach(self, inputs: Sequence[Reach]) -> Reach:
        return inputs[0].window(0, self.hop - 1, stride=self.hop)


class Unfold(layers.Layer):
    """[batch, frame, hop] -> [batch, frame * hop, 1]: the samples of the frames, one after the other."""

    def build(self, input_shape: Shape) -> None:
        self.hop = input_shape[-1]

    def call(self, inputs: Tensor) -> Tensor:
        batch, n_frames, hop = ops.shape(inputs)
        return ops.reshape(inputs, (batch, n_frames * hop, 1))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, n_frames, hop = input_shape
        return (batch, None if n_frames is None else n_frames * hop, 1)

    def reach(self, inputs: Sequence[Reach]) -> Reach:
        return inputs[0].upsampled(self.hop, self.hop - 1, 0)


class Decimate(layers.Layer):
    """Keeps every second sample, from the first one on."""

    def call(self, inputs: Tensor) -> Tensor:
        return inputs[:, ::2]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, time, channels = input_shape
        return (batch, None if time is None else (time + 1) // 2, channels)

    def reach(self, inputs: Sequence[Reach]) -> Reach:
        return inputs[0].window(0, 0, stride=2)


class Upsample(layers.Layer):
    """Inserts a sample between each two, `time` -> 2 time - 1 (Stoller, Ewert & Dixon 2018, section 3.2.2).

    Args:
        learned: whether each channel learns where between its neighbours the new sample lies (their equation 3);
            otherwise the new sample is their mean.
    """

    def __init__(self, learned: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.learned = learned

    def build(self, input_shape: Shape) -> None:
        if self.learned:  # zeros stand for the mean
            self.balance = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="balance")

    def call(self, inputs: Tensor) -> Tensor:
        share = ops.sigmoid(self.balance) if self.learned else 0.5
        following = ops.concatenate([inputs[:, 1:], inputs[:, -1:]], axis=1)
        between = share * inputs + (1 - share) * following
        batch, time, channels = ops.shape(inputs)
        interleaved = ops.reshape(ops.stack([inputs, between], axis=2), (batch, 2 * time, channels))
        return interleaved[:, :-1]  # the last sample has no following one to interpolate to

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, time, channels = input_shape
        return (batch, None if time is None else 2 * time - 1, channels)

    def reach(self, inputs: Sequence[Reach]) -> Reach:
        return inputs[0].upsampled(2, 1, 1)  # a new sample depends on the one before it and the one after it


class FiLM(layers.Layer):
    """[features [batch, time, channel], condition [batch, size]] -> features scaled and shifted, channel by channel.

    Scale and shift are linear in the condition (Perez et al. 2018, "FiLM: visual reasoning with a general conditioning
    layer", equation 2); they start at one and zero.
    """

    reach = pointwise

    def build(self, input_shape: Sequence[Shape]) -> None:
        features, condition = input_shape
        self.dense = layers.Dense(2 * features[-1], kernel_initializer="zeros", dtype=self.dtype_policy, name="dense")
        self.dense.build(condition)

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        features, condition = inputs
        scale, shift = ops.split(self.dense(condition)[:, None], 2, axis=-1)  # each to [batch, 1, channel]
        return features * (1 + scale) + shift

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        return input_shape[0]


class ConstantCondition(layers.Layer):
    """[batch, time, channel] -> [batch, ...]: a constant condition, repeated for each example of the batch.

    Args:
        values: the condition: a list of presences, or the position of one instrument.
    """

    def __init__(self, values: list[float] | int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.values = values

    def call(self, inputs: Tensor) -> Tensor:
        values = ops.convert_to_tensor(self.values, dtype="float32" if isinstance(self.values, list) else "int32")
        return ops.broadcast_to(values, (ops.shape(inputs)[0], *values.shape))

    def compute_output_spec(self, inputs: KerasTensor) -> KerasTensor:
        # Keras would take the type of the inputs for that of the position.
        if isinstance(self.values, list):
            return KerasTensor((inputs.shape[0], len(self.values)), dtype="float32")
        return KerasTensor((inputs.shape[0],), dtype="int32")

    def reach(self, inputs: Sequence[Reach]) -> None:
        return None  # the input gives only the size of the batch


class SoftmaxOverStems(layers.Layer):
    """[any [batch, time, channel] of each stem] -> the same number of tensors, positive, with a sum of one."""

    reach = pointwise

    def call(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return ops.unstack(ops.softmax(ops.stack(inputs, axis=2), axis=2), axis=2)

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Sequence[Shape]:
        return input_shape


class SelectChannels(layers.Layer):
    """Gives some of the channels.

    Args:
        positions: the positions of these channels, in the order of the output.
    """

    reach = pointwise

    def __init__(self, positions: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.positions = list(positions)

    def call(self, inputs: Tensor) -> Tensor:
        return ops.take(inputs, self.positions, axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:2], len(self.positions))


class AppendRest(layers.Layer):
    """[mixture [batch, time, channel], stems [batch, time, channel * stem]] -> with one more stem, mixture - their sum.

    The difference output of Stoller, Ewert & Dixon 2018, section 3.2.1.
    """

    reach = pointwise

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        mixture, stems = inputs
        batch, time, n_channels = ops.shape(mixture)
        stems = ops.reshape(stems, (batch, time, n_channels, stems.shape[2] // n_channels))
        rest = mixture[..., None] - ops.sum(stems, axis=-1, keepdims=True)
        all_stems = ops.concatenate([stems, rest], axis=-1)
        return ops.reshape(all_stems, (batch, time, n_channels * all_stems.shape[3]))

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        (_, _, n_channels), (batch, time, n_columns) = input_shape
        return (batch, time, n_columns + n_channels)


class MixtureConsistency(layers.Layer):
    """[mixture [batch, time, 1], stems [batch, time, stem]] -> the nearest stems that sum to the mixture.

    Each stem gets an equal part of what is missing (Wisdom et al. 2019, "Differentiable consistency constraints for
    improved deep speech enhancement", equation 7 with equal weights). With presences [batch, 1, stem] of 0 and 1 as a
    third input, only the stems that are present get a part.
    """

    reach = pointwise

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        mixture, stems, *presence = inputs
        missing = mixture - ops.sum(stems, axis=-1, keepdims=True)
        if presence:
            shares = presence[0] / ops.maximum(ops.sum(presence[0], axis=-1, keepdims=True), 1.0)
        else:
            shares = 1.0 / stems.shape[-1]
        return stems + shares * missing

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        return input_shape[1]
