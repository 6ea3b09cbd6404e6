"""How far a model looks: derived from its layers."""

from __future__ import annotations

from typing import NamedTuple

import keras
from keras import layers


class ReceptiveField(NamedTuple):
    """Samples of the input before and after an output sample that it depends on; in all 1 + before + after."""

    before: int
    after: int

    @property
    def samples(self) -> int:
        """Width of the receptive field."""
        return 1 + self.before + self.after


_POINTWISE = (layers.Add, layers.Activation, layers.ReLU)


def receptive_field(model: keras.Model) -> ReceptiveField:
    """Follows the widest path from the input to the output of a functional model.

    Raises NotImplementedError for a layer whose reach is not known here.
    """
    reach = {id(model.input): ReceptiveField(0, 0)}
    for layer in model.layers:  # in topological order
        if isinstance(layer, layers.InputLayer):
            continue
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        before, after = (max(side) for side in zip(*(reach[id(tensor)] for tensor in inputs)))
        if isinstance(layer, layers.Conv1D):
            width = (layer.kernel_size[0] - 1) * layer.dilation_rate[0]
            if layer.strides != (1,) or (width and layer.padding != "same"):
                raise NotImplementedError(f"receptive field of {layer.name}: only stride 1 with 'same' padding")
            before, after = before + width // 2, after + width - width // 2
        elif not isinstance(layer, _POINTWISE):
            raise NotImplementedError(f"receptive field of {layer.name}: {type(layer).__name__}")
        reach[id(layer.output)] = ReceptiveField(before, after)
    return reach[id(model.output)]
