"""Bands of a spectrogram, a vector each, through blocks whose weights all bands share; masks for every frequency.

After Luo & Yu 2023, "Music source separation with band-split RNN", with convolutions for their recurrent layers: what
was learned of attacks and decays in one band serves all others. Every layer is local in time (normalisation is over the
channels only), so that a recording can be separated window by window.
"""

# Keras is imported inside functions: Config reads the Settings, and has to do so without TensorFlow.
from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from data_gen import InputError
from data_gen.stems import OTHER
from sourcesep.models.settings import ModelSettings, setting

if TYPE_CHECKING:
    import keras

    from sourcesep.config import Config
    from sourcesep.models.bands import Bands

TAKES_CHANNELS = True
KERNEL_SIZE = 3  # width of the convolutions over time, in frames


@dataclasses.dataclass(frozen=True)
class Settings(ModelSettings):
    """Hyper-parameters of bandnet."""

    stacks: int = setting(1, "Number of stacks of blocks.", minimum=1)
    blocks: int = setting(
        6, "Number of blocks in a stack; the blocks have dilations 1, 2, 4, 8, ...", minimum=1, maximum=20
    )
    filters: int = setting(64, "Filters of the convolutions in the blocks: size of the vector of a band.", minimum=1)
    mix_filters: int = setting(16, "Filters of each band through which all bands see each other.", minimum=1)
    window_ms: float = setting(
        128.0,
        "Length of the frames of the spectrogram, in milliseconds, rounded to a power of two of samples.",
        minimum=1.0,
        maximum=1_000.0,
    )
    hop_ms: float = setting(
        32.0,
        "Distance of the frames of the spectrogram, in milliseconds, rounded to a power of two of samples; at most "
        "half of --window_ms.",
        minimum=0.5,
        maximum=500.0,
    )
    band_hz: float = setting(
        62.5, "Width of the lowest bands, in Hz, rounded to whole frequencies of the spectrogram.", minimum=1.0
    )
    bands_per_octave: int = setting(
        8, "Number of bands in an octave, above the bands that are as wide as --band_hz.", minimum=1, maximum=64
    )

    def check(self, config: Config) -> None:
        """Raises InputError for frames that do not overlap by half."""
        if 2 * self.hop_samples(config.sample_rate) > self.window_samples(config.sample_rate):
            raise InputError(
                f"--hop_ms={self.hop_ms:g}: more than half of --window_ms={self.window_ms:g}, so that frames do not "
                "overlap enough"
            )

    def window_samples(self, sample_rate: int) -> int:
        """Returns the length of a frame, in samples."""
        return _power_of_two(self.window_ms, sample_rate)

    def hop_samples(self, sample_rate: int) -> int:
        """Returns the distance of two frames, in samples."""
        return _power_of_two(self.hop_ms, sample_rate)


def build(config: Config, mixture: keras.KerasTensor, condition: keras.KerasTensor | None = None) -> keras.KerasTensor:
    """Builds the network.

    A block consists of normalisation over the channels; a dilated convolution over time with ReLU; scale and shift by
    the condition, if there is one; and BandMix, in which the bands see each other. Its output is added to the input of
    the block.

    The masks of all stems add up to one, in every frame and at every frequency, and with them the stems to the mixture.
    If the stems wanted do not make up the mixture, one more mask stands for the rest. The channels of a mixture share
    the vectors of the bands, and each has masks of its own.

    Args:
        config: the Config; `config.network` is a Settings.
        mixture: [batch, time, channel].
        condition: [batch, size] for feature-wise scale and shift in every block, or None.

    Returns:
        [batch, time, channel * stem], the stems of the left channel first.
    """
    from keras import layers

    from sourcesep.models.bands import (
        BandJoin,
        BandSplit,
        Masks,
        SpectralFeatures,
        divide_into_bands,
    )
    from sourcesep.models.layers import AppendRest, CropLike
    from sourcesep.models.stft import MaskedWaveforms, Spectrum

    network: Settings = config.network
    length, hop = network.window_samples(config.sample_rate), network.hop_samples(config.sample_rate)
    bin_hz = config.sample_rate / length
    bands = divide_into_bands(length // 2, bin_hz, network.band_hz, network.bands_per_octave)
    n_bins = length // 2 + 1  # the highest frequency is in no band
    before = length - hop  # the first frame ends `hop` samples after the first sample
    padded = layers.ZeroPadding1D((before, before + hop - 1), dtype="float32", name="pad")(mixture)
    spectrum = Spectrum(length, hop, dtype="float32", name="spectrum")(padded)
    features = SpectralFeatures(dtype="float32", name="features")(spectrum)
    x = BandSplit(bands, network.filters, name="split")(features)
    x = _blocks(x, network, bands, condition)
    x = layers.LayerNormalization(epsilon=1e-5, center=False, scale=False, name="last_norm")(x)
    x = layers.Conv1D(network.filters, 1, activation="relu", name="last")(x)
    # Where the stems do not make up the mixture, the rest has a mask too: it means what the stem of --other means.
    masked = (*config.model_stems, *(() if config.stems_make_up_mixture else (OTHER,)))
    parts = BandJoin(bands, config.channels, masked, n_bins, dtype="float32", name="join")(x)
    masks = Masks(config.channels, dtype="float32", name="masks")(parts)
    waveforms = MaskedWaveforms(length, hop, dtype="float32", name="waveforms")([*spectrum, masks])
    stems = CropLike(dtype="float32", name="stems")([waveforms, mixture])
    return AppendRest(dtype="float32", name="rest")([mixture, stems]) if config.stems_make_up_mixture else stems


def _blocks(
    x: keras.KerasTensor, network: Settings, bands: Sequence[Bands], condition: keras.KerasTensor | None
) -> keras.KerasTensor:
    """Builds the blocks: [band * batch, frame, filter] -> the same shape."""
    import keras
    from keras import layers

    from sourcesep.models.bands import BandMix, RepeatForBands
    from sourcesep.models.layers import Conv1D, FiLM

    if condition is not None:
        condition = RepeatForBands(sum(group.n for group in bands), name="condition_of_bands")(condition)
    # As many outputs are added up as there are blocks (after Zhang, Dauphin & Ma 2019, "Fixup initialization").
    added = keras.initializers.VarianceScaling(1 / (network.stacks * network.blocks), mode="fan_in")
    for stack in range(network.stacks):
        for block in range(network.blocks):
            name = f"stack{stack}_block{block}"
            # Scale and shift would triple the time that it takes, and the convolution can learn them.
            hidden = layers.LayerNormalization(epsilon=1e-5, center=False, scale=False, name=f"{name}_norm")(x)
            hidden = Conv1D(
                network.filters, KERNEL_SIZE, padding="same", dilation_rate=2**block, activation="relu", name=name
            )(hidden)
            if condition is not None:
                hidden = FiLM(name=f"{name}_film")([hidden, condition])
            hidden = BandMix(bands, network.mix_filters, added, name=f"{name}_mix")(hidden)
            x = layers.Add(name=f"{name}_sum")([x, hidden])
    return x


def _power_of_two(duration_ms: float, sample_rate: int) -> int:
    """Returns the power of two of samples, at least 2, that is nearest to a duration on a logarithmic scale."""
    return 2 ** max(1, round(math.log2(duration_ms / 1_000 * sample_rate)))
