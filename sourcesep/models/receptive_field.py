"""How far a model looks, and what it computes: derived from its layers."""

from __future__ import annotations

import math
from typing import NamedTuple

import keras
from keras import layers

from sourcesep.models.layers import (
    AppendRest,
    Channels,
    ConstantQ,
    CropLike,
    Decimate,
    FiLM,
    Fold,
    Halves,
    MixtureConsistency,
    SecondHalf,
    Shares,
    Told,
    Unfold,
    Upsample,
)


class ReceptiveField(NamedTuple):
    """The input that an output sample depends on.

    Attributes:
        before, after: samples before and after it; the field is 1 + before + after wide.
        stride: a shift of the input by a multiple of this shifts the output by as much.
    """

    before: int
    after: int
    stride: int

    @property
    def samples(self) -> int:
        """Width of the receptive field."""
        return 1 + self.before + self.after


class _Reach(NamedTuple):
    """Element i of a tensor depends on the input samples from i * step - before to i * step + after."""

    before: int
    after: int
    step: int


class _Followed(NamedTuple):
    """The reach of each output of a model; the largest step within it; multiply-adds for each sample of its input."""

    outputs: list[_Reach | None]
    stride: int
    multiply_adds: float


_POINTWISE = (
    AppendRest,
    Channels,
    FiLM,
    Fold,
    Halves,
    MixtureConsistency,
    SecondHalf,
    Shares,
    layers.Activation,
    layers.Add,
    layers.Concatenate,
    layers.LayerNormalization,  # over channels, as the models here use it
    layers.Multiply,
    layers.ReLU,
)


def receptive_field(model: keras.Model) -> ReceptiveField:
    """Follows every path from the mixture, the model's first input, to the output of a functional model.

    Raises NotImplementedError for a layer whose reach is not known here.
    """
    followed = _follow_from_mixture(model)
    (output,) = followed.outputs
    assert output.step == 1, f"{model.name} changes the sample rate by {output.step}"
    return ReceptiveField(output.before, output.after, followed.stride)


def gflop_per_s(model: keras.Model, sample_rate: int) -> float:
    """Arithmetic of the model's convolutions, in 10**9 floating point operations per second of audio.

    A multiply-add counts as two. All else (activations, normalisation, sums) is left out: it is below a hundredth.
    Raises NotImplementedError like `receptive_field`.
    """
    return 2e-9 * sample_rate * _follow_from_mixture(model).multiply_adds


def _follow_from_mixture(model: keras.Model) -> _Followed:
    return _follow(model, [_Reach(0, 0, 1)] + [None] * (len(model.inputs) - 1))


def _follow(model: keras.Model, inputs: list[_Reach | None]) -> _Followed:
    """Follows inputs through a model; None is the reach of a tensor without a time axis, such as a condition."""
    reaches = {id(tensor): reach for tensor, reach in zip(model.inputs, inputs)}
    stride, multiply_adds = 1, 0.0
    for operation in model.operations:  # in topological order
        for node in operation._inbound_nodes:  # one for each call: a shared model is called several times
            known = [reaches.get(id(tensor), "elsewhere") for tensor in node.input_tensors]
            if not known or "elsewhere" in known:  # an input, or a call that belongs to another model
                continue
            if isinstance(operation, keras.Model):
                followed = _follow(operation, known)
                outputs = followed.outputs
                stride = max(stride, followed.stride)
                multiply_adds += followed.multiply_adds
            else:
                outputs = [_through(operation, known)] * len(node.output_tensors)
                multiply_adds += _multiply_adds(operation, outputs[0])
            reaches.update((id(tensor), reach) for tensor, reach in zip(node.output_tensors, outputs))
            stride = max([stride, *(reach.step for reach in outputs if reach)])
    return _Followed([reaches[id(tensor)] for tensor in model.outputs], stride, multiply_adds)


def _multiply_adds(layer: layers.Layer, after: _Reach | None) -> float:
    """Multiply-adds of a convolution for each sample of the mixture; of other layers 0."""
    return math.prod(layer.kernel.shape) / after.step if isinstance(layer, (layers.Conv1D, ConstantQ)) else 0.0


def _through(layer: layers.Layer, inputs: list[_Reach | None]) -> _Reach | None:
    """The reach of a layer's output, from those of its inputs."""
    if isinstance(layer, CropLike):
        return inputs[0]
    inputs = [reach for reach in inputs if reach]
    if not inputs or isinstance(layer, Told):
        return None
    before, after, step = inputs[0]
    if isinstance(layer, layers.Conv1D) and layer.padding in ("valid", "same"):
        width = (layer.kernel_size[0] - 1) * layer.dilation_rate[0]
        if layer.padding == "valid":
            return _Reach(before, after + width * step, step * layer.strides[0])
        if layer.strides == (1,):
            return _Reach(before + width // 2 * step, after + (width - width // 2) * step, step)
    if isinstance(layer, ConstantQ):
        return _Reach(before, after + (layer.kernel.shape[0] - 1) * step, step)
    if isinstance(layer, Decimate):
        return _Reach(before, after, 2 * step)
    if isinstance(layer, Fold):
        return _Reach(before, after + (layer.hop - 1) * step, layer.hop * step)
    if isinstance(layer, Unfold):
        hop = layer.input.shape[-1]
        return _Reach(before + step - step // hop, after, step // hop)
    if isinstance(layer, Upsample):
        step //= 2  # every other sample depends on the one before and the one after it
        return _Reach(before + step, after + step, step)
    if isinstance(layer, layers.ZeroPadding1D):
        return _Reach(before + layer.padding[0] * step, after - layer.padding[0] * step, step)
    if isinstance(layer, layers.Cropping1D):
        return _Reach(before - layer.cropping[0] * step, after + layer.cropping[0] * step, step)
    if isinstance(layer, _POINTWISE) and len({reach.step for reach in inputs}) == 1:
        return _Reach(max(reach.before for reach in inputs), max(reach.after for reach in inputs), step)
    raise NotImplementedError(f"the receptive field through {layer.name} ({type(layer).__name__}) is not known")
