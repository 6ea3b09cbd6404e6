"""How far a model looks: derived from its layers."""

from __future__ import annotations

from typing import NamedTuple

import keras
from keras import layers

from sourcesep.models.tasnet import CropLike


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


_POINTWISE = (
    layers.Activation,
    layers.Add,
    layers.Concatenate,
    layers.LayerNormalization,  # over channels, as the models here use it
    layers.Multiply,
    layers.ReLU,
)


def receptive_field(model: keras.Model) -> ReceptiveField:
    """Follows every path from the input to the output of a functional model.

    Raises NotImplementedError for a layer whose reach is not known here.
    """
    reaches = {id(model.input): _Reach(0, 0, 1)}
    stride = 1
    for layer in model.layers:  # in topological order
        if isinstance(layer, layers.InputLayer):
            continue
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        reach = _through(layer, [reaches[id(tensor)] for tensor in inputs])
        reaches[id(layer.output)] = reach
        stride = max(stride, reach.step)
    before, after, step = reaches[id(model.output)]
    assert step == 1, f"{model.name} changes the sample rate by {step}"
    return ReceptiveField(before, after, stride)


def _through(layer: layers.Layer, inputs: list[_Reach]) -> _Reach:
    """The reach of a layer's output, from those of its inputs."""
    before, after, step = inputs[0]
    if isinstance(layer, layers.Conv1DTranspose) and layer.padding == "valid":
        # Output t adds up inputs from (t - kernel + 1) / stride to t / stride.
        step //= layer.strides[0]
        return _Reach(before + (layer.kernel_size[0] - 1) * step, after, step)
    if isinstance(layer, layers.Conv1D) and layer.padding in ("valid", "same"):
        width = (layer.kernel_size[0] - 1) * layer.dilation_rate[0]
        if layer.padding == "valid":
            return _Reach(before, after + width * step, step * layer.strides[0])
        if layer.strides == (1,):
            return _Reach(before + width // 2 * step, after + (width - width // 2) * step, step)
    if isinstance(layer, layers.ZeroPadding1D):
        return _Reach(before + layer.padding[0] * step, after - layer.padding[0] * step, step)
    if isinstance(layer, layers.Cropping1D):
        return _Reach(before - layer.cropping[0] * step, after + layer.cropping[0] * step, step)
    if isinstance(layer, CropLike):
        return inputs[0]
    if isinstance(layer, _POINTWISE) and len({reach.step for reach in inputs}) == 1:
        return _Reach(max(reach.before for reach in inputs), max(reach.after for reach in inputs), step)
    raise NotImplementedError(f"the receptive field through {layer.name} ({type(layer).__name__}) is not known")
