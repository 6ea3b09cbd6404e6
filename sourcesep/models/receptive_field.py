"""Derives from the layers of a model how far it looks, and how much it computes.

The rules for the stock layers of Keras are here; all other layers say it themselves, by their method `reach`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
from keras import layers

from data_gen import InputError
from sourcesep.models.reach import Reach, ReceptiveField, join


def receptive_field(model: keras.Model) -> ReceptiveField:
    """Follows every path from the mixture, the model's first input, to the output of a functional model.

    Raises InputError for a layer of unknown or unlimited reach, and for a model with another sample rate at its output.
    """
    followed = _follow_from_mixture(model)
    (output,) = followed.outputs
    if output is None:
        raise InputError(f"{model.name}: its output does not depend on the mixture")
    if output.step != 1:
        raise InputError(
            f"{model.name}: it gives one sample for every {output.step} of the mixture; end with layers that restore "
            "the sample rate"
        )
    return ReceptiveField(output.before, output.after, followed.stride)


def gflop_per_s(model: keras.Model, sample_rate: int) -> float:
    """Returns the arithmetic of a model's convolutions and dense layers, in 10**9 operations per second of audio.

    A multiply-add counts as two operations. The rest (activations, normalisation, sums) is left out: in the models here
    it is less than a hundredth. Raises InputError as `receptive_field` does.
    """
    return 2e-9 * sample_rate * _follow_from_mixture(model).multiply_adds


class _Followed(NamedTuple):
    """The reach of each output of a model, the largest step within it, and multiply-adds per sample of its mixture."""

    outputs: list[Reach | None]
    stride: int
    multiply_adds: float


def _follow_from_mixture(model: keras.Model) -> _Followed:
    return _follow(model, [Reach(0, 0, 1)] + [None] * (len(model.inputs) - 1))


def _follow(model: keras.Model, inputs: Sequence[Reach | None]) -> _Followed:
    """Follows inputs through a model; None is the reach of a tensor without a time axis, such as a condition."""
    reaches = {id(tensor): reach for tensor, reach in zip(model.inputs, inputs)}
    stride, multiply_adds = 1, 0.0
    for operation in model.operations:  # in topological order
        for node in operation._inbound_nodes:  # one for each call: a shared model is called several times
            tensors = [id(tensor) for tensor in node.input_tensors]
            if not tensors or not reaches.keys() >= set(tensors):  # an input, or a call that belongs to another model
                continue
            known = [reaches[tensor] for tensor in tensors]
            inner = getattr(operation, "_functional", operation)  # of a Sequential
            if hasattr(inner, "operations"):
                followed = _follow(inner, known)
                outputs = followed.outputs
                stride = max(stride, followed.stride)
                multiply_adds += followed.multiply_adds
            else:
                outputs = [_through(operation, known)] * len(node.output_tensors)
                multiply_adds += _multiply_adds(operation, known[0], outputs[0])
            reaches.update((id(tensor), reach) for tensor, reach in zip(node.output_tensors, outputs))
            stride = max([stride, *(reach.step for reach in outputs if reach)])
    return _Followed([reaches[id(tensor)] for tensor in model.outputs], stride, multiply_adds)


def _through(layer: keras.Operation, inputs: list[Reach | None]) -> Reach | None:
    """Returns the reach of a layer's output, from those of its inputs. Raises InputError if that is not possible."""
    if not any(inputs):
        return None
    try:
        if hasattr(layer, "reach"):
            return layer.reach(inputs)
        if getattr(layer, "data_format", None) == "channels_first":
            raise ValueError("it has the channels first; use data_format='channels_last'")
        if type(layer) in _RULES:
            return _RULES[type(layer)](layer, [reach for reach in inputs if reach])
        if not isinstance(layer, layers.Layer):
            raise ValueError("keras.ops are not followed; use a layer of keras.layers, or one with a method `reach`")
        raise ValueError(
            _REFUSED.get(type(layer))
            or "it is not known how far it looks; use other layers, or give it a method `reach` (see models/reach.py)"
        )
    except ValueError as error:
        raise InputError(
            f"layer {layer.name} ({type(layer).__name__}): {error}; without a known receptive field a recording cannot "
            "be separated window by window"
        ) from None


def _multiply_adds(layer: keras.Operation, before: Reach | None, after: Reach | None) -> float:
    """Returns the multiply-adds of a layer with kernels for each sample of the mixture; 0 for other layers.

    A layer that does not use each kernel once for every element of the time axis has the number of its multiply-adds
    for such an element as an attribute `multiply_adds`.
    """
    if before is None or after is None:
        return 0.0
    if hasattr(layer, "multiply_adds"):
        return layer.multiply_adds / max(before.step, after.step)
    kernels = (getattr(layer, name, None) for name in ("kernel", "depthwise_kernel", "pointwise_kernel"))
    n_weights = sum(math.prod(kernel.shape) for kernel in kernels if kernel is not None)
    # A transposed convolution uses the kernel once for each input.
    return n_weights * before.rows / max(before.step, after.step)


# ---- The stock layers of Keras: each rule returns the reach of the output, or raises ValueError ----------------------
def _pointwise(layer: layers.Layer, inputs: list[Reach]) -> Reach:
    return join(inputs)


def _over_channels(layer: layers.Layer, inputs: list[Reach]) -> Reach:
    """The rule of layers that work along one axis, which must be that of the channels."""
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    if any(axis not in (-1, 2) for axis in axes):
        raise ValueError(f"it works along axis {layer.axis} and so mixes all of the time axis; use axis=-1")
    return join(inputs)


def _prelu(layer: layers.PReLU, inputs: list[Reach]) -> Reach:
    if layer.alpha.shape[0] != 1:
        raise ValueError("it has a slope for every position in time; use shared_axes=[1]")
    return join(inputs)


def _convolution(layer: layers.Layer, inputs: list[Reach]) -> Reach:
    (kernel_size,), (stride,), (dilation,) = layer.kernel_size, layer.strides, layer.dilation_rate
    return _windows(inputs[0], (kernel_size - 1) * dilation + 1, stride, layer.padding)


def _pooling(layer: layers.Layer, inputs: list[Reach]) -> Reach:
    (pool_size,), (stride,) = layer.pool_size, layer.strides
    return _windows(inputs[0], pool_size, stride, layer.padding)


def _windows(reach: Reach, width: int, stride: int, padding: str) -> Reach:
    """Returns the reach of outputs that depend on `width` consecutive elements each."""
    if padding == "valid":
        left = 0
    elif padding == "causal":
        left = width - 1
    else:
        # Of the zeros that "same" adds, half (rounded down) come first. Their number is width - stride for an input of
        # whole strides, and up to width - 1 for others: windows only start at the same place if both give one half.
        left = (width - 1) // 2
        if left != max(0, width - stride) // 2:
            raise ValueError(
                f"with padding='same', width {width} and stride {stride} its windows start elsewhere for other lengths "
                "of the input; use ZeroPadding1D and padding='valid'"
            )
    return reach.window(left, width - 1 - left, stride)


def _transposed_convolution(layer: layers.Conv1DTranspose, inputs: list[Reach]) -> Reach:
    (kernel_size,), (stride,) = layer.kernel_size, layer.strides
    if layer.output_padding is not None or layer.dilation_rate != (1,):
        raise ValueError("with output_padding or dilation_rate it is not known how far it looks; leave both out")
    cropped = max(0, kernel_size - stride) // 2 if layer.padding == "same" else 0
    return inputs[0].upsampled(stride, kernel_size - 1 - cropped, cropped)


def _upsampling(layer: layers.UpSampling1D, inputs: list[Reach]) -> Reach:
    return inputs[0].upsampled(layer.size, layer.size - 1, 0)


def _zero_padding(layer: layers.ZeroPadding1D, inputs: list[Reach]) -> Reach:
    return inputs[0].window(layer.padding[0], -layer.padding[0])


def _cropping(layer: layers.Cropping1D, inputs: list[Reach]) -> Reach:
    return inputs[0].window(-layer.cropping[0], layer.cropping[0])


_RULES: dict[type, Callable[[layers.Layer, list[Reach]], Reach]] = {
    **dict.fromkeys(
        (
            *(layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU),
            *(layers.Dropout, layers.SpatialDropout1D, layers.GaussianDropout, layers.GaussianNoise, layers.Identity),
            *(layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum),
            *(layers.Dense, layers.Rescaling),
        ),
        _pointwise,
    ),
    **dict.fromkeys(
        (layers.BatchNormalization, layers.LayerNormalization, layers.Softmax, layers.Concatenate), _over_channels
    ),
    **dict.fromkeys((layers.Conv1D, layers.SeparableConv1D, layers.DepthwiseConv1D), _convolution),
    **dict.fromkeys((layers.MaxPooling1D, layers.AveragePooling1D), _pooling),
    layers.PReLU: _prelu,
    layers.Conv1DTranspose: _transposed_convolution,
    layers.UpSampling1D: _upsampling,
    layers.ZeroPadding1D: _zero_padding,
    layers.Cropping1D: _cropping,
}
_ALL_OF_TIME = "it mixes all of the time axis; use a layer that looks at a limited number of samples"
_REFUSED = {
    layers.GroupNormalization: "it normalises over all of the time axis; use LayerNormalization or BatchNormalization",
    **dict.fromkeys(
        (
            *(layers.GlobalAveragePooling1D, layers.GlobalMaxPooling1D, layers.Flatten),
            *(layers.Bidirectional, layers.RNN, layers.LSTM, layers.GRU, layers.SimpleRNN),
            *(layers.MultiHeadAttention, layers.Attention, layers.AdditiveAttention),
        ),
        _ALL_OF_TIME,
    ),
}
