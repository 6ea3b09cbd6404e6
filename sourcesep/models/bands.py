"""What bandnet does to spectra and to their bands, as layers.

Inside bandnet the bands are folded into the batch, [band * batch, frame, channel], so that the stock layers of Keras
share their weights among all bands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops

from sourcesep.models.layers import Shape, Tensor
from sourcesep.models.reach import Reach, pointwise

LEVEL_FRAMES = 33  # over which the level is averaged; odd
COMPRESSION = 0.3  # exponent of compressed magnitudes
FLOOR = 1e-4  # added to powers relative to the level: 40 dB below it
SILENCE = 1e-10  # added to the level
GAIN = 2**13  # of the spectra: SILENCE alone would be 0 in the float16 of TFLite files, and silence 0 / 0


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
    """(real, imaginary), each [batch, frame, channel, frequency] -> [batch, frame, 3 * channel, frequency].

    What the bands are made of: compressed real parts, compressed imaginary parts and log magnitudes of a spectrum,
    relative to the level around the frame, so that a quiet recording is separated as a loud one.
    """

    needs_float = True  # as in Spectrum

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        real, imaginary = (GAIN * part for part in inputs)
        power = ops.square(real) + ops.square(imaginary)
        level = ops.mean(power, axis=(2, 3))[:, :, None]  # to [batch, frame, 1]
        level = ops.average_pool(level, LEVEL_FRAMES, 1, padding="same")[..., None] + GAIN**2 * SILENCE
        log_power = ops.log(power / level + FLOOR)
        scale = ops.exp((COMPRESSION - 1) / 2 * log_power) * ops.rsqrt(level)
        return ops.concatenate([scale * real, scale * imaginary, 0.25 * log_power], axis=2)

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        batch, n_frames, n_channels, n_bins = input_shape[0]
        return (batch, n_frames, 3 * n_channels, n_bins)

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
    """[band * batch, frame, channel] -> the same shape: all bands of a frame see each other.

    Each band is reduced to few numbers; a dense layer with ReLU goes over those of all bands; a last one over its
    output for a band and the channels of the band. As products of matrices, these are faster than as convolutions.

    Args:
        n_bands: number of bands.
        filters: numbers that a band shows the others.
        initializer: of the weights of the last dense layer.
    """

    reach = pointwise

    def __init__(self, n_bands: int, filters: int, initializer: keras.initializers.Initializer, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n_bands, self.filters, self.initializer = n_bands, filters, initializer

    def build(self, input_shape: Shape) -> None:
        n_channels, n_all = input_shape[-1], self.n_bands * self.filters
        self.narrow = self.add_weight(shape=(n_channels, self.filters), initializer="glorot_uniform", name="narrow")
        self.narrow_bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="narrow_bias")
        self.mix = self.add_weight(shape=(n_all, n_all), initializer="he_normal", name="mix")
        self.mix_bias = self.add_weight(shape=(n_all,), initializer="zeros", name="mix_bias")
        self.out = self.add_weight(
            shape=(n_channels + self.filters, n_channels), initializer=self.initializer, name="out"
        )
        self.out_bias = self.add_weight(shape=(n_channels,), initializer="zeros", name="out_bias")
        self.multiply_adds = n_all**2 + self.n_bands * (math.prod(self.narrow.shape) + math.prod(self.out.shape))

    def call(self, inputs: Tensor) -> Tensor:
        rows, n_frames, n_channels = ops.shape(inputs)
        n_all = rows // self.n_bands * n_frames
        x = ops.reshape(inputs, (rows * n_frames, n_channels))
        narrow = ops.reshape(ops.matmul(x, self.narrow) + self.narrow_bias, (self.n_bands, n_all, self.filters))
        mixed = ops.reshape(ops.transpose(narrow, (1, 0, 2)), (n_all, self.n_bands * self.filters))
        mixed = ops.relu(ops.matmul(mixed, self.mix) + self.mix_bias)
        mixed = ops.transpose(ops.reshape(mixed, (n_all, self.n_bands, self.filters)), (1, 0, 2))
        mixed = ops.reshape(mixed, (rows * n_frames, self.filters))
        of_band, of_all = ops.split(ops.convert_to_tensor(self.out), [n_channels], axis=0)
        out = ops.matmul(x, of_band) + ops.matmul(mixed, of_all) + self.out_bias
        return ops.reshape(out, (rows, n_frames, n_channels))

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
        ends = np.cumsum([n for n, _ in self.bands])[:-1].tolist()
        parts = []
        for (n, bins), kernel, bias, group in zip(self.bands, self.kernels, self.biases, ops.split(x, ends)):
            y = ops.matmul(group, kernel) + bias
            y = ops.transpose(ops.reshape(y, (n, batch * n_frames, self.n_parts, bins)), (1, 2, 0, 3))
            parts.append(ops.reshape(y, (batch * n_frames, self.n_parts, n * bins)))
        n_above = self.n_bins - sum(n * bins for n, bins in self.bands)
        if n_above:
            parts.append(ops.zeros_like(parts[0][..., :n_above]))
        return ops.reshape(ops.concatenate(parts, axis=-1), (batch, n_frames, self.n_parts, self.n_bins))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        rows, n_frames, _ = input_shape
        return (None if rows is None else rows // self.n_bands, n_frames, self.n_parts, self.n_bins)

    def reach(self, inputs: Sequence[Reach]) -> Reach:
        return inputs[0]._replace(rows=1)


class Masks(layers.Layer):
    """[batch, frame, channel * part, frequency] -> [batch, frame, channel * mask, frequency], one mask less than parts.

    The masks of a channel are the softmax of its parts, and add up to 1 in every frame and at every frequency; the last
    is left out. The parts, and the masks, of the first channel come first.

    Args:
        n_channels: number of channels.
    """

    reach = pointwise
    needs_float = True  # as in Spectrum

    def __init__(self, n_channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n_channels = n_channels

    def call(self, inputs: Tensor) -> Tensor:
        batch, n_frames, n_parts, n_bins = ops.shape(inputs)
        n_masks = n_parts // self.n_channels - 1
        parts = ops.reshape(inputs, (batch, n_frames, self.n_channels, n_masks + 1, n_bins))
        # ops.softmax would transpose twice, which takes longer than the softmax.
        exponentials = ops.exp(parts - ops.stop_gradient(ops.max(parts, axis=3, keepdims=True)))
        wanted = ops.split(exponentials, [n_masks], axis=3)[0]  # has a faster gradient than a slice
        masks = wanted / ops.sum(exponentials, axis=3, keepdims=True)
        return ops.reshape(masks, (batch, n_frames, self.n_channels * n_masks, n_bins))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, n_frames, n_parts, n_bins = input_shape
        return (batch, n_frames, n_parts - self.n_channels, n_bins)
