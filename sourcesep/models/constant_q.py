"""ConstantQ: a layer that computes log power in bins of a fixed number per octave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import layers, ops

from sourcesep.models.layers import Shape, Tensor
from sourcesep.models.reach import Reach

BINS_PER_OCTAVE = 24  # two per semitone
LOWEST_HZ = 32.703  # frequency of C1; few instruments play below
LONGEST_MS = 256.0  # longest window: 8.4 periods of LOWEST_HZ

# Powers are computed e**9 times as high, so that float16 has all constants: 1e-8 would become 0, and the logarithm of
# silence infinite. It has 9 too.
_LOG_SCALE = 9.0


class ConstantQ(layers.Layer):
    """[batch, frame, hop] -> [batch, frame, bin]: log power in bins of a fixed number per octave.

    A chord, or the overtones of an instrument, have the same pattern of bins in every key (Brown 1991, "Calculation of
    a constant Q spectral transform"). The windows are Hann windows of Q periods, limited to LONGEST_MS. The layer has
    no weights. A sine of amplitude 1 has power 1; 1e-8 is added to every power.

    Each output frame is centred on the middle of `n_frames` input frames, so there are n_frames - 1 fewer of them.

    Args:
        sample_rate: in Hz.
    """

    needs_float = True  # powers span 80 dB, and 8 bits 48

    def __init__(self, sample_rate: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sample_rate = sample_rate

    @staticmethod
    def n_frames(hop: int, sample_rate: int) -> int:
        """Returns the number of frames of `hop` samples in the longest window; even, with its middle between two."""
        return 2 * max(1, round(LONGEST_MS / 2_000 * sample_rate / hop))

    def build(self, input_shape: Shape) -> None:
        hop = input_shape[-1]
        n_frames = self.n_frames(hop, self.sample_rate)
        waves = constant_q_waves(n_frames * hop, self.sample_rate).reshape(n_frames, hop, -1)
        self.kernel = (np.exp(_LOG_SCALE / 2) * waves).astype(np.float32)

    def call(self, inputs: Tensor) -> Tensor:
        waves = ops.conv(inputs, ops.convert_to_tensor(self.kernel, dtype=self.compute_dtype), padding="valid")
        real, imaginary = ops.split(waves, 2, axis=-1)
        return ops.log(ops.square(real) + ops.square(imaginary) + 1e-8 * np.exp(_LOG_SCALE)) - _LOG_SCALE

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, n_frames, hop = input_shape
        n_fewer = self.n_frames(hop, self.sample_rate) - 1
        n_bins = len(bin_frequencies(self.sample_rate))
        return (batch, None if n_frames is None else n_frames - n_fewer, n_bins)

    def reach(self, inputs: Sequence[Reach]) -> Reach:
        return inputs[0].window(0, self.kernel.shape[0] - 1)


def bin_frequencies(sample_rate: int) -> np.ndarray:
    """Returns the frequencies of the bins of `ConstantQ` in Hz, up to 0.95 of the Nyquist frequency."""
    n_bins = int(BINS_PER_OCTAVE * np.log2(0.95 * sample_rate / 2 / LOWEST_HZ))
    return LOWEST_HZ * 2 ** (np.arange(n_bins) / BINS_PER_OCTAVE)


def constant_q_waves(length: int, sample_rate: int) -> np.ndarray:
    """Returns the cosines, then the sines, of the bins under windows around the middle: float32 [time, 2 * bin].

    Args:
        length: in samples.
        sample_rate: in Hz.
    """
    frequencies = bin_frequencies(sample_rate)
    quality = 1 / (2 ** (1 / BINS_PER_OCTAVE) - 1)
    time = np.arange(length)[:, None] - (length - 1) / 2
    widths = np.minimum(length, quality * sample_rate / frequencies)
    windows = np.where(np.abs(time) < widths / 2, 0.5 + 0.5 * np.cos(2 * np.pi * time / widths), 0.0)
    windows *= 2 / windows.sum(axis=0)
    phases = 2 * np.pi * frequencies * time / sample_rate
    return np.concatenate([windows * np.cos(phases), windows * np.sin(phases)], axis=1).astype(np.float32)
