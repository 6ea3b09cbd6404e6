"""Spectra and back: a short-time Fourier transform and its inverse, as layers.

Frames of `length` samples, a multiple of `hop`, begin every `hop` samples under a Hann window. A spectrum has the
frequencies 0, 1, ..., length / 2 cycles per frame, and is a pair of tensors: its real and its imaginary parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import layers, ops

from sourcesep.models.layers import Shape, Tensor, cut
from sourcesep.models.reach import Reach, join


class Spectrum(layers.Layer):
    """[batch, time, channel] -> (real, imaginary), each [batch, frame, channel, frequency].

    A sine of amplitude 1 has magnitude 1/2. Frames that are not complete are dropped.

    Args:
        length, hop: of the frames, in samples.
    """

    needs_float = True  # of TFLite: spectra span more than the 48 dB of 8 bits

    def __init__(self, length: int, hop: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.length, self.hop = length, hop
        self.window = (2 / length * hann(length)).astype(np.float32)

    def call(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        batch, time, n_channels = ops.shape(inputs)
        n_blocks, n_parts = time // self.hop, self.length // self.hop
        blocks = ops.reshape(inputs[:, : n_blocks * self.hop], (batch, n_blocks, self.hop, n_channels))
        blocks = ops.transpose(blocks, (0, 1, 3, 2))  # to [batch, block, channel, time]
        n_frames = n_blocks - n_parts + 1
        frames = ops.concatenate([blocks[:, i : n_frames + i] for i in range(n_parts)], axis=-1) * self.window
        return ops.rfft(frames)

    def compute_output_shape(self, input_shape: Shape) -> tuple[Shape, Shape]:
        batch, time, n_channels = input_shape
        n_frames = None if time is None else (time - self.length) // self.hop + 1
        shape = (batch, n_frames, n_channels, self.length // 2 + 1)
        return shape, shape

    def reach(self, inputs: Sequence[Reach]) -> Reach:
        return inputs[0].window(-1, self.length - 1, self.hop)  # the window begins with a zero


class MaskedWaveforms(layers.Layer):
    """[real, imaginary, masks] -> [batch, time, channel * mask]: a spectrum times masks, made audible.

    The inputs are a Spectrum, each part [batch, frame, channel, frequency], and real masks [batch, frame, channel *
    mask, frequency]; the masks of the first channel come first. With masks of 1 this is the inverse of Spectrum.

    Frames are overlapped and added. Where fewer of them overlap than length / hop, at both ends, there is no output.

    Args:
        length, hop: of the frames, in samples; length is at least twice hop.
    """

    needs_float = True  # of TFLite: spectra span more than the 48 dB of 8 bits

    def __init__(self, length: int, hop: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.length, self.hop = length, hop
        # The windows of both ways multiplied, added up over all frames that hold a sample, give 1.
        overlapping = np.square(hann(length)).reshape(-1, hop).sum(axis=0)
        self.window = (hann(length) / 2 / np.tile(overlapping, length // hop)).astype(np.float32)

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        real, imaginary, masks = inputs
        batch, n_frames, n_waveforms, n_bins = ops.shape(masks)
        n_channels = real.shape[2]
        n_masks = n_waveforms // n_channels
        masks = ops.reshape(masks, (batch, n_frames, n_channels, n_masks, n_bins))
        n_parts = self.length // self.hop
        n_blocks = n_frames - n_parts + 1
        waveforms = []
        # One mask after the other: the frames of all at once would take several times the memory of the network.
        for mask in ops.split(masks, n_masks, axis=3):
            frames = _masked_frames(real, imaginary, ops.squeeze(mask, 3)) * self.window
            # Padding and one slice have a faster gradient than a slice of each part.
            parts = ops.split(frames, n_parts, axis=-1)
            blocks = sum(
                ops.pad(part, ((0, 0), (i, n_parts - 1 - i), (0, 0), (0, 0))) for i, part in enumerate(parts)
            )  # [batch, block, channel, time]
            waveforms.append(cut(blocks, n_parts - 1, n_blocks))
        blocks = ops.reshape(ops.stack(waveforms, axis=3), (batch, n_blocks, n_waveforms, self.hop))
        return ops.reshape(ops.transpose(blocks, (0, 1, 3, 2)), (batch, n_blocks * self.hop, n_waveforms))

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        batch, n_frames, n_waveforms, _ = input_shape[2]
        time = None if n_frames is None else (n_frames - self.length // self.hop + 1) * self.hop
        return (batch, time, n_waveforms)

    def reach(self, inputs: Sequence[Reach]) -> Reach:
        return join(inputs).upsampled(
            self.hop, self.hop - 1, self.length - self.hop - 1
        )  # the window begins with a zero


def hann(length: int) -> np.ndarray:
    """Returns a periodic Hann window, float64 [time]; the first value is zero."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)


@ops.custom_gradient
def _masked_frames(real: Tensor, imaginary: Tensor, mask: Tensor) -> tuple[Tensor, Any]:
    """Computes frames [..., time], `length` times those of the spectrum (mask * real, mask * imaginary).

    All three are [..., frequency].

    TFLite has no inverse transform, but a forward one will do. The spectrum of a real frame is even in its real and odd
    in its imaginary part. The sum of both over all frequencies, negative ones too, is a real sequence, of which the
    transform holds the even and the odd part of the frame (Bracewell 1983, "Discrete Hartley transform"). The gradient
    is stated: with those of TensorFlow a training step takes 1.4 times as long.
    """
    half = real.shape[-1] - 1
    twice = np.full(half + 1, 2, np.float32)
    twice[[0, half]] = 1  # the other frequencies stand for negative ones too

    def gradient(upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        of_real, of_imaginary = ops.rfft(upstream)
        of_mask = twice * (real * of_real + imaginary * of_imaginary)
        return twice * mask * of_real, twice * mask * of_imaginary, of_mask

    # At 0 and at `half` cycles the imaginary part of a real frame's spectrum is 0.
    inner, odd = real[..., 1:half], imaginary[..., 1:half]
    folded = ops.concatenate([real[..., :1], inner + odd, real[..., half:], ops.flip(inner - odd, -1)], axis=-1)
    even, odd = ops.rfft(folded * ops.concatenate([mask, ops.flip(mask[..., 1:half], -1)], axis=-1))
    return ops.concatenate([even + odd, ops.flip((even - odd)[..., 1:half], -1)], axis=-1), gradient
