"""Reach: which samples of the mixture the elements of a tensor inside a model depend on.

receptive_field.py follows it through the stock layers of Keras. Any other layer says how it changes the reach, in a
method `reach(inputs)`: it is given the Reach of each input, or None for an input without a time axis, and returns the
Reach of the output. For a layer that works on each element of the time axis separately, `reach = pointwise` in the body
of the class is all it takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Reach(NamedTuple):
    """Element i of the tensor depends on the samples of the mixture from i * step - before to i * step + after.

    Attributes:
        before, after: samples before and after i * step.
        step: samples of the mixture between two elements.
        rows: rows of the batch for each mixture: above 1 where parts of it, such as bands, are folded into the batch.
    """

    before: int
    after: int
    step: int
    rows: int = 1

    def window(self, before: int, after: int, stride: int = 1) -> Reach:
        """Returns the reach of outputs i that depend on the elements from i * stride - before to i * stride + after."""
        return self._replace(
            before=self.before + before * self.step, after=self.after + after * self.step, step=self.step * stride
        )

    def upsampled(self, factor: int, before: int, after: int) -> Reach:
        """Returns the reach of outputs i that depend on the elements j with i - before <= j * factor <= i + after.

        Raises ValueError if there would be more outputs than samples in the mixture.
        """
        if self.step % factor:
            raise ValueError(f"it has {factor} outputs for every {self.step} samples of the mixture")
        step = self.step // factor
        return self._replace(before=self.before + before * step, after=self.after + after * step, step=step)


def join(inputs: Sequence[Reach]) -> Reach:
    """Returns the reach of outputs that depend on the element at the same position of each input.

    Raises ValueError if the inputs have different steps.
    """
    steps = sorted({reach.step for reach in inputs})
    if len(steps) > 1:
        raise ValueError(f"it joins tensors with one element per {' and per '.join(map(str, steps))} samples")
    return inputs[0]._replace(before=max(reach.before for reach in inputs), after=max(reach.after for reach in inputs))


def pointwise(layer: object, inputs: Sequence[Reach | None]) -> Reach:
    """Returns `join` of the inputs that have a time axis: the method `reach` of a layer that works element by element.

    Args:
        layer: not used; it makes this function a method where it is assigned in the body of a class.
        inputs: the reach of each input; None for one without a time axis, which has no influence.
    """
    return join([reach for reach in inputs if reach])


class ReceptiveField(NamedTuple):
    """The input that an output sample depends on.

    Attributes:
        before, after: number of samples before and after it; the field is 1 + before + after samples wide.
        stride: a shift of the input by a multiple of this number of samples shifts the output by as much.
    """

    before: int
    after: int
    stride: int

    @property
    def samples(self) -> int:
        """Width of the receptive field, in samples."""
        return 1 + self.before + self.after
