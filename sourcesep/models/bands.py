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
LEVEL_SCALE = 1e-3  # of the power of all frequencies: about that of one of them
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


def _common(bands: Sequence[Bands], others: Sequence[Bands]) -> int:
    """Returns how many bands, from 0 Hz on, are the same in both."""
    widths, other_widths = ([bins for n, bins in groups for _ in range(n)] for groups in (bands, others))
    differ = [i for i, (width, other) in enumerate(zip(widths, other_widths)) if width != other]
    return differ[0] if differ else min(len(widths), len(other_widths))


def _by_band(kernels: Sequence[Any]) -> list[np.ndarray]:
    """Returns the kernels of groups of bands, each [band, ...], as a list with one for each band."""
    return [band for kernel in kernels for band in np.asarray(kernel)]


def _assign(kernels: Sequence[Any], by_band: Sequence[np.ndarray]) -> None:
    """Assigns to the kernels of groups of bands the kernels of their bands, from the first on; the others stay."""
    all_bands = [*by_band, *_by_band(kernels)[len(by_band) :]]
    begin = 0
    for kernel in kernels:
        end = begin + kernel.shape[0]
        kernel.assign(np.stack(all_bands[begin:end]))
        begin = end


class SpectralFeatures(layers.Layer):
    """(real, imaginary), each [batch, frame, channel, frequency] -> [batch, frame, 3 * channel, frequency].

    What the bands are made of: compressed real parts, compressed imaginary parts and log magnitudes of a spectrum,
    relative to the level around the frame, so that a quiet recording is separated as a loud one.
    """

    needs_float = True  # as in Spectrum

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        real, imaginary = (GAIN * part for part in inputs)
        power = ops.square(real) + ops.square(imaginary)
        # The sum over frequencies is the same at all sample rates, their mean is not.
        level = LEVEL_SCALE * ops.sum(ops.mean(power, axis=2), axis=2, keepdims=True)  # [batch, frame, 1]
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
        self.n_channels = n_features // 3
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

    def take_over(self, other: BandSplit) -> int:
        """Copies the weights of the bands that `other` has too.

        Those of one channel become those of the mean of more, and those of more channels, added up, those of one: then
        a recording whose channels are alike gives what its mean gives.

        Returns:
            How many weights were copied.
        """
        n, n_channels, n_others = _common(self.bands, other.bands), self.n_channels, other.n_channels
        if self.filters != other.filters or (n_others != n_channels and 1 not in (n_others, n_channels)):
            return 0
        copied = []
        for kernel in _by_band(other.kernels)[:n]:
            kernel = kernel.reshape(3, n_others, -1, self.filters)
            if n_others != n_channels:
                kernel = np.repeat(kernel.sum(axis=1, keepdims=True) / n_channels, n_channels, axis=1)
            copied.append(kernel.reshape(-1, self.filters))
        _assign(self.kernels, copied)
        _assign([self.bias], _by_band([other.bias])[:n])
        return sum(kernel.size for kernel in copied) + n * self.filters

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
        bands: from `divide_into_bands`.
        filters: numbers that a band shows the others.
        initializer: of the weights of the last dense layer.
    """

    reach = pointwise

    def __init__(
        self, bands: Sequence[Bands], filters: int, initializer: keras.initializers.Initializer, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.bands, self.filters, self.initializer = tuple(bands), filters, initializer
        self.n_bands = sum(n for n, _ in self.bands)

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

    def take_over(self, other: BandMix) -> int:
        """Copies the weights of the bands that `other` has too; these do not see the other bands at first.

        Returns:
            How many weights were copied.
        """
        if self.filters != other.filters or self.out.shape != other.out.shape:
            return 0
        n = _common(self.bands, other.bands) * self.filters
        mix, mix_bias = np.array(self.mix), np.array(self.mix_bias)
        mix[:, :n] = 0
        mix[:n, :n], mix_bias[:n] = np.asarray(other.mix)[:n, :n], np.asarray(other.mix_bias)[:n]
        copied = (other.narrow, other.narrow_bias, mix, mix_bias, other.out, other.out_bias)
        for weight, value in zip(self.weights, copied, strict=True):
            weight.assign(value)
        return self.count_params() - mix.size - mix_bias.size + n**2 + n

    def add_nothing(self) -> None:
        """Sets the weights of the last dense layer to zero: a block that ends with this layer returns its input."""
        for weight in (self.out, self.out_bias):
            weight.assign(np.zeros(weight.shape))


class BandJoin(layers.Layer):
    """[band * batch, frame, filter] -> [batch, frame, channel * part, frequency], by a matrix for each band.

    Frequencies above the last band get zeros.

    Args:
        bands: as in BandSplit.
        n_channels: number of channels.
        names: of the parts of a channel, a number each for every frequency.
        n_bins: number of frequencies.
    """

    def __init__(
        self, bands: Sequence[Bands], n_channels: int, names: Sequence[str], n_bins: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.bands, self.n_channels, self.names, self.n_bins = tuple(bands), n_channels, tuple(names), n_bins
        self.n_parts = n_channels * len(self.names)
        self.n_bands = sum(n for n, _ in self.bands)

    def build(self, input_shape: Shape) -> None:
        filters = input_shape[-1]
        small = keras.initializers.RandomNormal(stddev=0.3 * filters**-0.5)
        self.kernels, self.biases = [], []
        for i, (n, bins) in enumerate(self.bands):
            width = self.n_parts * bins
            self.kernels.append(self.add_weight(shape=(n, filters, width), initializer=small, name=f"kernel{i}"))
            self.biases.append(self.add_weight(shape=(n, 1, width), initializer="zeros", name=f"bias{i}"))
        self.multiply_adds = sum(math.prod(kernel.shape) for kernel in self.kernels)

    def call(self, inputs: Tensor) -> Tensor:
        rows, n_frames, filters = ops.shape(inputs)
        batch = rows // self.n_bands
        x = ops.reshape(inputs, (self.n_bands, batch * n_frames, filters))
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

    def take_over(self, other: BandJoin) -> int:
        """Copies the weights of the bands and the parts that `other` has too.

        One channel becomes each of several, and the mean of several becomes the one.

        Returns:
            How many weights were copied.
        """
        n_channels, n_others = self.n_channels, other.n_channels
        shared = [name for name in self.names if name in other.names]
        if not shared or (n_others != n_channels and 1 not in (n_others, n_channels)):
            return 0
        if self.kernels[0].shape[1] != other.kernels[0].shape[1]:
            return 0
        own, theirs = ([join.names.index(name) for name in shared] for join in (self, other))
        n_copied = 0
        for weights, others in ((self.kernels, other.kernels), (self.biases, other.biases)):
            by_band = []
            for old, new in zip(_by_band(weights)[: _common(self.bands, other.bands)], _by_band(others)):
                # To [filter, channel, part, frequency].
                old = old.reshape(len(old), self.n_channels, len(self.names), -1).copy()
                new = new.reshape(len(new), n_others, len(other.names), -1)[:, :, theirs]
                old[:, :, own] = new if n_others == n_channels else new.mean(axis=1, keepdims=True)
                n_copied += old[:, :, own].size
                by_band.append(old.reshape(len(old), -1))
            _assign(weights, by_band)
        return n_copied

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
