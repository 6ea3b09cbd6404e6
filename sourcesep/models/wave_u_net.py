"""Wave-U-Net: convolutions on ever coarser time scales and back, with a connection across at each scale.

Stoller, Ewert & Dixon 2018, "Wave-U-Net: a multi-scale neural network for end-to-end audio source separation". The
paper's M1 to M6 differ in `--difference`, `--padding` (from M3 on: valid) and `--upsampling` (M5: learned).
"""

# Keras is imported inside functions: Config reads the Settings, and has to do so without TensorFlow.
from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sourcesep.models.settings import ModelSettings, setting

if TYPE_CHECKING:
    import keras

    from sourcesep.config import Config

DOWN_KERNEL_SIZE, UP_KERNEL_SIZE = 15, 5  # widths of the convolutions on the way down and up, in samples (the paper's)


@dataclasses.dataclass(frozen=True)
class Settings(ModelSettings):
    """Hyper-parameters of Wave-U-Net."""

    levels: int = setting(
        12, "Number of levels; each has half the sample rate of the level before.", minimum=1, maximum=16
    )
    level_filters: int = setting(24, "Filters of the first level; level i has i times as many.", minimum=1)
    padding: str = setting(
        "same",
        "same pads every convolution with zeros; valid pads only the mixture, by as much as the model looks, with "
        "zeros where --context_ms gives no audio.",
        choices=("same", "valid"),
    )
    upsampling: str = setting(
        "linear",
        "How new samples are made on the way up: linear, the mean of their neighbours; learned, a mean with a learned "
        "weight for each channel.",
        choices=("linear", "learned"),
    )
    difference: bool = setting(True, "The last stem is the mixture minus the other stems.", alias="append_rest")

    def check(self, config: Config) -> None:
        """Raises InputError for `difference` with stems that do not make up the mixture."""
        if self.difference:
            config.require_whole_mixture("difference", "--nodifference")


def build(config: Config, mixture: keras.KerasTensor) -> keras.KerasTensor:
    """Builds the network.

    Level i (from 1) convolves to i * level_filters channels, keeps them for the way back, and drops every second
    sample. On the way back each level interpolates, appends the channels that were kept, and convolves. At the end the
    mixture is appended, and a convolution of width 1 with tanh gives the stems; with `difference` it gives all but the
    last stem, which is the rest of the mixture.

    With padding "valid" convolutions do not pad; the mixture is padded instead, with as many zeros as the network
    looks, so that the output is still as long as the input. --context_ms puts real audio in place of those zeros.

    Args:
        config: the Config; `config.network` is a Settings.
        mixture: [batch, time, 1].

    Returns:
        [batch, time, stem].
    """
    from keras import layers

    from sourcesep.models.layers import AppendRest, CropLike, Decimate, Upsample

    network: Settings = config.network
    is_valid = network.padding == "valid"
    n_filters = [network.level_filters * (level + 1) for level in range(network.levels + 1)]
    margin = _margin(network.levels) if is_valid else 0
    # Decimation may lose up to one sample of the coarsest scale at the end.
    x = padded = layers.ZeroPadding1D((margin, margin + 2**network.levels - 1), name="pad")(mixture)
    begin, kept = -margin, []  # begin: the sample of the mixture at which x begins
    for level in range(network.levels):
        x = _convolve(n_filters[level], DOWN_KERNEL_SIZE, network.padding, f"down{level}")(x)
        begin += _lost(DOWN_KERNEL_SIZE, level) if is_valid else 0
        kept.append((begin, x))
        x = Decimate(name=f"decimate{level}")(x)
    x = _convolve(n_filters[-1], DOWN_KERNEL_SIZE, network.padding, "bottleneck")(x)
    begin += _lost(DOWN_KERNEL_SIZE, network.levels) if is_valid else 0
    for level in reversed(range(network.levels)):
        x = Upsample(network.upsampling == "learned", name=f"upsample{level}")(x)
        kept_begin, across = kept[level]
        x = _append(x, across, (begin - kept_begin) >> level, f"level{level}")
        x = _convolve(n_filters[level], UP_KERNEL_SIZE, network.padding, f"up{level}")(x)
        begin += _lost(UP_KERNEL_SIZE, level) if is_valid else 0
    assert begin == 0
    x = _append(x, padded, margin, "mixture")
    n_stems = len(config.model_stems) - network.difference
    stems = layers.Conv1D(n_stems, 1, activation="tanh", dtype="float32", name="tanh")(x)
    stems = CropLike(dtype="float32", name="crop")([stems, mixture])
    return AppendRest(dtype="float32", name="rest")([mixture, stems]) if network.difference else stems


def _convolve(filters: int, kernel_size: int, padding: str, name: str) -> keras.layers.Conv1D:
    from keras import layers

    # Keras' leaky_relu has the paper's slope of 0.2.
    return layers.Conv1D(filters, kernel_size, padding=padding, activation="leaky_relu", name=name)


def _append(x: keras.KerasTensor, across: keras.KerasTensor, n_before: int, name: str) -> keras.KerasTensor:
    """Appends the channels of `across`, without its n_before samples before x begins and those after x ends."""
    from keras import layers

    from sourcesep.models.layers import CropLike

    if n_before:
        across = layers.Cropping1D((n_before, 0), name=f"{name}_begin")(across)
    across = CropLike(name=f"{name}_end")([across, x])
    return layers.Concatenate(name=f"{name}_append")([x, across])


def _lost(kernel_size: int, level: int) -> int:
    """Returns by how many samples of the mixture a valid convolution at this level shortens either end."""
    return kernel_size // 2 << level


def _margin(levels: int) -> int:
    """Returns by how many samples of the mixture all convolutions together shorten either end."""
    down_and_up = sum(_lost(DOWN_KERNEL_SIZE, level) + _lost(UP_KERNEL_SIZE, level) for level in range(levels))
    return down_and_up + _lost(DOWN_KERNEL_SIZE, levels)
