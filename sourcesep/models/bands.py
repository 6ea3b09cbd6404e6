"""What bandnet does to spectra and to their bands, as layers.

Inside bandnet the bands are folded into the batch, [band * batch, frame, channel], so that the stock layers of Keras
share their weights among all bands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import layers, ops

from sourcesep.models.layers import Shape, Tensor
from sourcesep.models.reach import Reach, pointwise

LEVEL_FRAMES = 33  # over which the level is averaged; odd
COMPRESSION = 0.3  # exponent of compressed magnitudes
FLOOR = 1e-4  # added to powers relative to the level: 40 dB below it
SILENCE = 1e-10  # added to the level


class Bands(NamedTuple):
    """Adjacent bands of one width.

    Attributes:
        n: how many.
        bins: frequencies in each.
    """

    n: int
    bins: int


def divide_into_bands(n_bins: int, bin_hz: float, band_hz: float, per_octave: int) -> tuple[Bands, ...]:
    """Divides frequencies into bands from 0 Hz on; the width doubles where an octave holds twice `per_octave` bands.

    Args:
        n_bins: number of frequencies to divide.
        bin_hz: distance of two frequencies, in Hz.
        band_hz: width of the lowest bands, in Hz, rounded to whole frequencies.
        per_octave: bands in an octave, above the bands of the lowest width.

    Returns:
        Bands of different widths; the last one has what is left over.
    """
    groups: list[Bands] = []
    bins, n_left = max(1, round(band_hz / bin_hz)), n_bins
    while n_left:
        n = min(n_left // bins, per_octave if groups else 2 * per_octave)
        if not n:
            n, bins = 1, n_left
        groups.append(Bands(n, bins))
        n_left -= n * bins
        bins *= 2
    return tuple(groups)


class SpectralFeatures(layers.Layer):
    """[batch, frame, 2 * channel, frequency] -> [batch, frame, 3 * channel, frequency]: what the bands are made of.

    Compressed real parts, compressed imaginary parts and log magnitudes of a spectrum (see Spectrum), relative to the
    level around the frame, so that a quiet recording is separated as a loud one.
    """

    def call(self, inputs: Tensor) -> Tensor:
        real, imaginary = ops.split(inputs, 2, axis=2)
        power = ops.square(real) + ops.square(imaginary)
        level = ops.mean(power, axis=(2, 3))[:, :, None]  # to [batch, frame, 1]
        level = ops.average_pool(level, LEVEL_FRAMES, 1, padding="same")[..., None] + SILENCE
        log_power = ops.log(power / level + FLOOR)
        scale = ops.exp((COMPRESSION - 1) / 2 * log_power) * ops.rsqrt(level)
        return ops.concatenate([scale * real, scale * imaginary, 0.25 * log_power], axis=2)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, n_frames, n_parts, n_bins = input_shape
        return (batch, n_frames, n_parts // 2 * 3, n_bins)

    def reach(self, inputs: Sequence[Reach]) -> Reach:
        return inputs[0].window(LEVEL_FRAMES // 2, LEVEL_FRAMES // 2)


class BandSplit(layers.Layer):
    """[batch, frame, feature, frequency] -> [band * batch, frame, filter], by a matrix for each band.

    Frequencies above the last band are left out.

    Args:
        bands: from `divide_into_bands`.
        filters: size of the vector of a band.
    """

    def __init__(self, bands: Sequence[Bands], filters: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bands, self.filters = tuple(bands), filters
        self.n_bands = sum(n for n, _ in self.bands)

    def build(self, input_shape: Shape) -> None:
        n_features = input_shape[2]
        self.kernels = [
            self.add_weight(
                shape=(n, n_features * bins, self.filters),
                initializer=keras.initializers.RandomNormal(stddev=(n_features * bins) ** -0.5),
                name=f"kernel{i}",
            )
            for i, (n, bins) in enumerate(self.bands)
        ]
        # Tells the blocks, which treat all bands alike, which band it is.
        self.bias = self.add_weight(
            shape=(self.n_bands, 1, self.filters), initializer=keras.initializers.RandomNormal(stddev=0.3), name="bias"
        )
        self.multiply_adds = sum(math.prod(kernel.shape) for kernel in self.kernels)

    def call(self, inputs: Tensor) -> Tensor:
        batch, n_frames, n_features, _ = ops.shape(inputs)
        begin, vectors = 0, []
        for (n, bins), kernel in zip(self.bands, self.kernels):
            part = inputs[..., begin : begin + n * bins]
            part = ops.transpose(ops.reshape(part, (batch, n_frames, n_features, n, bins)), (3, 0, 1, 2, 4))
            vectors.append(ops.matmul(ops.reshape(part, (n, batch * n_frames, n_features * bins)), kernel))
            begin += n * bins
        x = ops.concatenate(vectors, axis=0) + self.bias
        return ops.reshape(x, (self.n_bands * batch, n_frames, self.filters))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, n_frames, _, _ = input_shape
        return (None if batch is None else self.n_bands * batch, n_frames, self.filters)

    def reach(self, inputs: Sequence[Reach]) -> Reach:
        return inputs[0]._replace(rows=self.n_bands)


class RepeatForBands(layers.Layer):
    """[batch, size] -> [band * batch, size]: the same for each band.

    Args:
        n_bands: number of bands.
    """

    def __init__(self, n_bands: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n_bands = n_bands

    def call(self, inputs: Tensor) -> Tensor:
        return ops.tile(inputs, (self.n_bands, 1))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, size = input_shape
        return (None if batch is None else self.n_bands * batch, size)

    def reach(self, inputs: Sequence[None]) -> None:
        return None  # a condition


class BandMix(layers.Layer):
    """[band * batch, frame, channel] -> the same shape: a dense layer with ReLU over the channels of all bands.

    Args:
        n_bands: number of bands.
    """

    reach = pointwise

    def __init__(self, n_bands: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n_bands = n_bands

    def build(self, input_shape: Shape) -> None:
        size = self.n_bands * input_shape[-1]
        self.kernel = self.add_weight(shape=(size, size), initializer="he_normal", name="kernel")
        self.bias = self.add_weight(shape=(size,), initializer="zeros", name="bias")
        self.multiply_adds = size * size

    def call(self, inputs: Tensor) -> Tensor:
        rows, n_frames, n_channels = ops.shape(inputs)
        n_all = rows // self.n_bands * n_frames
        x = ops.transpose(ops.reshape(inputs, (self.n_bands, n_all, n_channels)), (1, 0, 2))
        x = ops.reshape(x, (n_all, self.n_bands * n_channels))
        x = ops.relu(ops.matmul(x, self.kernel) + self.bias)
        x = ops.transpose(ops.reshape(x, (n_all, self.n_bands, n_channels)), (1, 0, 2))
        return ops.reshape(x, (rows, n_frames, n_channels))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


class BandJoin(layers.Layer):
    """[band * batch, frame, channel] -> [batch, frame, part, frequency], by a matrix for each band.

    Frequencies above the last band get zeros.

    Args:
        bands: as in BandSplit.
        n_parts: numbers for each frequency.
        n_bins: number of frequencies.
    """

    def __init__(self, bands: Sequence[Bands], n_parts: int, n_bins: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bands, self.n_parts, self.n_bins = tuple(bands), n_parts, n_bins
        self.n_bands = sum(n for n, _ in self.bands)

    def build(self, input_shape: Shape) -> None:
        n_channels = input_shape[-1]
        small = keras.initializers.RandomNormal(stddev=0.3 * n_channels**-0.5)
        self.kernels, self.biases = [], []
        for i, (n, bins) in enumerate(self.bands):
            width = self.n_parts * bins
            self.kernels.append(self.add_weight(shape=(n, n_channels, width), initializer=small, name=f"kernel{i}"))
            self.biases.append(self.add_weight(shape=(n, 1, width), initializer="zeros", name=f"bias{i}"))
        self.multiply_adds = sum(math.prod(kernel.shape) for kernel in self.kernels)

    def call(self, inputs: Tensor) -> Tensor:
        rows, n_frames, n_channels = ops.shape(inputs)
        batch = rows // self.n_bands
        x = ops.reshape(inputs, (self.n_bands, batch * n_frames, n_channels))
        begin, parts = 0, []
        for (n, bins), kernel, bias in zip(self.bands, self.kernels, self.biases):
            y = ops.matmul(x[begin : begin + n], kernel) + bias
            y = ops.transpose(ops.reshape(y, (n, batch * n_frames, self.n_parts, bins)), (1, 2, 0, 3))
            parts.append(ops.reshape(y, (batch * n_frames, self.n_parts, n * bins)))
            begin += n
        n_above = self.n_bins - sum(n * bins for n, bins in self.bands)
        if n_above:
            parts.append(ops.zeros_like(parts[0][..., :n_above]))
        return ops.reshape(ops.concatenate(parts, axis=-1), (batch, n_frames, self.n_parts, self.n_bins))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        rows, n_frames, _ = input_shape
        return (None if rows is None else rows // self.n_bands, n_frames, self.n_parts, self.n_bins)

    def reach(self, inputs: Sequence[Reach]) -> Reach:
        return inputs[0]._replace(rows=1)


class ApplyMasks(layers.Layer):
    """[spectrum [batch, frame, 2 * channel, frequency], parts [batch, frame, part, frequency]] -> masked spectra.

    The masks of a channel add up to 1 in every frame and at every frequency, so all that they let through is the
    mixture again. The output, [batch, frame, 2 * channel * (mask - 1), frequency], leaves out the last one. Real parts
    come first, then imaginary ones; in each half, the masks of the first channel come first.

    There is a part for each mask of each channel, of which the masks are the softmax. For complex masks, which also
    turn the phase, as many more follow; their difference from their mean is the imaginary part.

    Args:
        n_masks: number of masks of each channel.
        complex_masks: whether masks are complex.
    """

    reach = pointwise

    def __init__(self, n_masks: int, complex_masks: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n_masks, self.complex_masks = n_masks, complex_masks

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        spectrum, parts = inputs
        batch, n_frames, n_parts, n_bins = ops.shape(spectrum)
        real, imaginary = ops.split(spectrum[:, :, :, None], 2, axis=2)  # each [batch, frame, channel, 1, frequency]
        masks_shape = (batch, n_frames, n_parts // 2, self.n_masks, n_bins)
        if self.complex_masks:
            parts, turning = ops.split(parts, 2, axis=2)
            turning = ops.reshape(turning, masks_shape)
            turning = (turning - ops.mean(turning, axis=3, keepdims=True))[:, :, :, :-1]
        masks = ops.softmax(ops.reshape(parts, masks_shape), axis=3)[:, :, :, :-1]
        masked_shape = (batch, n_frames, n_parts // 2 * (self.n_masks - 1), n_bins)
        if self.complex_masks:
            masked = (masks * real - turning * imaginary, masks * imaginary + turning * real)
        else:
            masked = (masks * real, masks * imaginary)
        return ops.concatenate([ops.reshape(half, masked_shape) for half in masked], axis=2)

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        batch, n_frames, n_parts, n_bins = input_shape[0]
        return (batch, n_frames, n_parts * (self.n_masks - 1), n_bins)
