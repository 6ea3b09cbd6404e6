"""The layers that the models need and Keras lacks, made of Keras operations alone.

All of them take and give [batch, time, channel], unless they say otherwise.
"""

from __future__ import annotations

import numpy as np
from keras import layers, ops

BINS_PER_OCTAVE = 24
LOWEST_HZ = 32.703  # C1, below which few instruments play
LONGEST_MS = 256.0  # 8.4 periods of it


class CropLike(layers.Layer):
    """[waveform [batch, time + more, channel], like [batch, time, any]] -> the first `time` samples of the waveform."""

    def call(self, inputs):
        """Crops; see the class."""
        waveform, like = inputs
        return waveform[:, : ops.shape(like)[1]]

    def compute_output_shape(self, input_shape):
        """As long as the second input, as many channels as the first."""
        return (*input_shape[1][:2], input_shape[0][2])


class Halves(layers.Layer):
    """The first half of the channels and the second half, as two tensors.

    What two convolutions of the same input would give, one with twice the filters computes a little faster.
    """

    def call(self, inputs):
        """Splits; see the class."""
        return ops.split(inputs, 2, axis=-1)


class SecondHalf(layers.Layer):
    """The second half of the channels, where nothing needs the first."""

    def call(self, inputs):
        """Slices; see the class."""
        return inputs[..., inputs.shape[-1] // 2 :]

    def compute_output_shape(self, input_shape):
        """Half as many channels."""
        return (*input_shape[:2], input_shape[2] - input_shape[2] // 2)


class Fold(layers.Layer):
    """[batch, time, 1] -> [batch, frame, hop]: the samples, `hop` to a frame; those that fill no frame are left out.

    On frames a convolution of two is one of 2 hop samples and stride hop on the waveform, and far faster; back again it
    is the transposed one.

    Args:
        hop: samples in a frame.
    """

    def __init__(self, hop: int, **kwargs):
        super().__init__(**kwargs)
        self.hop = hop

    def call(self, inputs):
        """Folds; see the class."""
        batch, time, _ = ops.shape(inputs)
        n_frames = time // self.hop
        return ops.reshape(inputs[:, : n_frames * self.hop], (batch, n_frames, self.hop))

    def compute_output_shape(self, input_shape):
        """A frame for every `hop` samples."""
        batch, time, _ = input_shape
        return (batch, None if time is None else time // self.hop, self.hop)


class Unfold(layers.Layer):
    """[batch, frame, hop] -> [batch, frame * hop, 1]."""

    def call(self, inputs):
        """Unfolds; see the class."""
        batch, n_frames, hop = ops.shape(inputs)
        return ops.reshape(inputs, (batch, n_frames * hop, 1))

    def compute_output_shape(self, input_shape):
        """`hop` samples for every frame."""
        batch, n_frames, hop = input_shape
        return (batch, None if n_frames is None else n_frames * hop, 1)


class ConstantQ(layers.Layer):
    """[batch, frame, hop] -> [batch, frame, bin]: log power in bins of a fixed number to the octave.

    As ears and scores space them, so that a chord or an instrument's spectrum looks alike in every key (Brown 1991,
    "Calculation of a constant Q spectral transform"). The windows are Hann's, Q periods long but never longer than
    LONGEST_MS. Nothing is learned and nothing is saved with the weights. Power 1 is that of a sine of amplitude 1;
    1e-8 is added to it.

    Each output frame is around the middle of `n_frames` frames, so n_frames - 1 fewer come out.

    Args:
        sample_rate: in Hz.
    """

    def __init__(self, sample_rate: int, **kwargs):
        super().__init__(**kwargs)
        self.sample_rate = sample_rate

    @staticmethod
    def n_frames(hop: int, sample_rate: int) -> int:
        """How many frames of `hop` samples the longest window spans; even, so that its middle is between two."""
        return 2 * max(1, round(LONGEST_MS / 2_000 * sample_rate / hop))

    def build(self, input_shape):
        """Computes the windowed waves."""
        hop = input_shape[-1]
        n_frames = self.n_frames(hop, self.sample_rate)
        self.kernel = constant_q_waves(n_frames * hop, self.sample_rate).reshape(n_frames, hop, -1)

    def call(self, inputs):
        """Transforms; see the class."""
        waves = ops.conv(inputs, ops.convert_to_tensor(self.kernel, dtype=self.compute_dtype), padding="valid")
        real, imaginary = ops.split(waves, 2, axis=-1)
        return ops.log(ops.square(real) + ops.square(imaginary) + 1e-8)

    def compute_output_shape(self, input_shape):
        """Fewer frames, and a channel for each bin."""
        batch, n_frames, hop = input_shape
        n_fewer = self.n_frames(hop, self.sample_rate) - 1
        n_bins = len(bin_frequencies(self.sample_rate))
        return (batch, None if n_frames is None else n_frames - n_fewer, n_bins)


def bin_frequencies(sample_rate: int) -> np.ndarray:
    """Frequencies of the bins of `ConstantQ` in Hz, up to 0.95 of the Nyquist frequency."""
    n_bins = int(BINS_PER_OCTAVE * np.log2(0.95 * sample_rate / 2 / LOWEST_HZ))
    return LOWEST_HZ * 2 ** (np.arange(n_bins) / BINS_PER_OCTAVE)


def constant_q_waves(length: int, sample_rate: int) -> np.ndarray:
    """Cosines, then sines, of the bins' frequencies under windows around the middle: float32 [time, 2 * bin]."""
    frequencies = bin_frequencies(sample_rate)
    quality = 1 / (2 ** (1 / BINS_PER_OCTAVE) - 1)
    time = np.arange(length)[:, None] - (length - 1) / 2
    widths = np.minimum(length, quality * sample_rate / frequencies)
    windows = np.where(np.abs(time) < widths / 2, 0.5 + 0.5 * np.cos(2 * np.pi * time / widths), 0.0)
    windows *= 2 / windows.sum(axis=0)
    phases = 2 * np.pi * frequencies * time / sample_rate
    return np.concatenate([windows * np.cos(phases), windows * np.sin(phases)], axis=1).astype(np.float32)


class Decimate(layers.Layer):
    """Every second sample, from the first one on."""

    def call(self, inputs):
        """Leaves samples out; see the class."""
        return inputs[:, ::2]

    def compute_output_shape(self, input_shape):
        """Half as long, rounded up."""
        batch, time, channels = input_shape
        return (batch, None if time is None else (time + 1) // 2, channels)


class Upsample(layers.Layer):
    """Puts a sample between each two, `time` -> 2 time - 1 (Stoller, Ewert & Dixon 2018, section 3.2.2).

    Args:
        learned: whether each channel learns where between its neighbours the new sample lies (their equation 3);
            otherwise it is their mean.
    """

    def __init__(self, learned: bool, **kwargs):
        super().__init__(**kwargs)
        self.learned = learned

    def build(self, input_shape):
        """Makes the weights, which begin at the mean."""
        if self.learned:
            self.balance = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="balance")

    def call(self, inputs):
        """Interpolates; see the class."""
        share = ops.sigmoid(self.balance) if self.learned else 0.5
        following = ops.concatenate([inputs[:, 1:], inputs[:, -1:]], axis=1)
        between = share * inputs + (1 - share) * following
        batch, time, channels = ops.shape(inputs)
        interleaved = ops.reshape(ops.stack([inputs, between], axis=2), (batch, 2 * time, channels))
        return interleaved[:, :-1]  # after the last sample there is nothing to interpolate to

    def compute_output_shape(self, input_shape):
        """Twice as long, less one."""
        batch, time, channels = input_shape
        return (batch, None if time is None else 2 * time - 1, channels)


class FiLM(layers.Layer):
    """[features [batch, time, channel], condition [batch, size]] -> features scaled and shifted, channel by channel.

    Scale and shift are linear in the condition (Perez et al. 2018, "FiLM: visual reasoning with a general conditioning
    layer", equation 2) and begin at one and zero.
    """

    def build(self, input_shape):
        """Makes the weights."""
        features, condition = input_shape
        self.dense = layers.Dense(2 * features[-1], kernel_initializer="zeros", dtype=self.dtype_policy, name="dense")
        self.dense.build(condition)

    def call(self, inputs):
        """Scales and shifts; see the class."""
        features, condition = inputs
        scale, shift = ops.split(self.dense(condition)[:, None], 2, axis=-1)  # each to [batch, 1, channel]
        return features * (1 + scale) + shift

    def compute_output_shape(self, input_shape):
        """That of the features."""
        return input_shape[0]


class Told(layers.Layer):
    """Any [batch, time, channel] -> the same values for each example, [batch, ...].

    Args:
        values: what a conditioned model is told: a list of presences, or the number of one instrument.
    """

    def __init__(self, values, **kwargs):
        super().__init__(**kwargs)
        self.values = values

    def call(self, inputs):
        """Repeats the values; see the class."""
        values = ops.convert_to_tensor(self.values, dtype="float32" if isinstance(self.values, list) else "int32")
        return ops.broadcast_to(values, (ops.shape(inputs)[0], *values.shape))

    def compute_output_spec(self, inputs):
        """Whole numbers stay whole, which Keras would not guess."""
        from keras import KerasTensor

        is_list = isinstance(self.values, list)
        shape = (inputs.shape[0], len(self.values)) if is_list else (inputs.shape[0],)
        return KerasTensor(shape, dtype="float32" if is_list else "int32")


class Shares(layers.Layer):
    """[any [batch, time, channel] of each stem] -> as many, positive, that add up to one: softmax over the stems."""

    def call(self, inputs):
        """Shares out; see the class."""
        return ops.unstack(ops.softmax(ops.stack(inputs, axis=2), axis=2), axis=2)

    def compute_output_shape(self, input_shape):
        """Those of the inputs."""
        return input_shape


class Channels(layers.Layer):
    """Some of the channels.

    Args:
        positions: which, in the order wanted.
    """

    def __init__(self, positions, **kwargs):
        super().__init__(**kwargs)
        self.positions = list(positions)

    def call(self, inputs):
        """Chooses; see the class."""
        return ops.take(inputs, self.positions, axis=-1)

    def compute_output_shape(self, input_shape):
        """As many channels as positions."""
        return (*input_shape[:2], len(self.positions))


class AppendRest(layers.Layer):
    """[mixture [batch, time, 1], stems [batch, time, stem]] -> stems and, as one more, mixture - their sum.

    The difference output of Stoller, Ewert & Dixon 2018, section 3.2.1.
    """

    def call(self, inputs):
        """Appends; see the class."""
        mixture, stems = inputs
        return ops.concatenate([stems, mixture - ops.sum(stems, axis=-1, keepdims=True)], axis=-1)

    def compute_output_shape(self, input_shape):
        """One stem more."""
        return (*input_shape[1][:2], input_shape[1][2] + 1)


class MixtureConsistency(layers.Layer):
    """[mixture [batch, time, 1], stems [batch, time, stem]] -> the nearest stems that sum to the mixture.

    What is missing is shared out evenly (Wisdom et al. 2019, "Differentiable consistency constraints for improved deep
    speech enhancement", equation 7 with equal weights). With presences [batch, 1, stem] of 0 and 1 as a third input,
    it is shared among the stems that are present.
    """

    def call(self, inputs):
        """Corrects; see the class."""
        mixture, stems, *presence = inputs
        missing = mixture - ops.sum(stems, axis=-1, keepdims=True)
        if presence:
            shares = presence[0] / ops.maximum(ops.sum(presence[0], axis=-1, keepdims=True), 1.0)
        else:
            shares = 1.0 / stems.shape[-1]
        return stems + shares * missing

    def compute_output_shape(self, input_shape):
        """That of the stems."""
        return input_shape[1]
