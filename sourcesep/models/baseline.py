"""The original report's baseline: four convolutions with large kernels; baseline_skip adds skip connections."""

# Keras is imported inside functions: Config reads the Settings, and has to do so without TensorFlow.
from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sourcesep.models.settings import ModelSettings, setting

if TYPE_CHECKING:
    import keras

    from sourcesep.config import Config


@dataclasses.dataclass(frozen=True)
class Settings(ModelSettings):
    """Hyper-parameters of the baseline."""

    filters: int = setting(128, "Filters of the first three convolutions.", minimum=1)
    kernel_size: int = setting(101, "Width of each convolution, in samples.", minimum=1)


def build(config: Config, mixture: keras.KerasTensor) -> keras.KerasTensor:
    """Builds the network.

    ReLU follows the first three convolutions; the last one is linear, since a waveform has both signs. All pad with
    zeros: output length is input length.

    With `--model=baseline_skip`, a skip connection adds the input of each of the first three convolutions to its
    output. The mixture, the input of the first one, is added to each of the channels.

    Args:
        config: the Config; `config.network` is a Settings.
        mixture: [batch, time, 1].

    Returns:
        [batch, time, stem].
    """
    from keras import layers

    network: Settings = config.network
    x = mixture
    for position in range(3):
        convolution = layers.Conv1D(
            network.filters, network.kernel_size, padding="same", activation="relu", name=f"convolution{position}"
        )
        convolved = convolution(x)
        x = layers.Add(name=f"skip{position}")([convolved, x]) if config.model == "baseline_skip" else convolved
    n_stems = len(config.model_stems)
    return layers.Conv1D(n_stems, network.kernel_size, padding="same", dtype="float32", name="stems")(x)
