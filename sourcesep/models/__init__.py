"""The models by name.

A model is a module with `build(config) -> keras.Model` from [batch, time, 1] to [batch, time, target]; to add one,
write its file and its line in MODELS.
"""

from __future__ import annotations

import importlib

MODELS = {
    "wavenet": "sourcesep.models.wavenet",
    "tasnet": "sourcesep.models.tasnet",
}


def build(config, dtype_policy: str = "float32"):
    """Builds the model that `config.model` names.

    Args:
        config: a Config.
        dtype_policy: Keras dtype policy of all layers but the last, "float32" or "mixed_bfloat16".

    Returns:
        A functional keras.Model from float32 [batch, time, 1] to float32 [batch, time, target], for any time.
    """
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype_policy)
    try:
        return importlib.import_module(MODELS[config.model]).build(config)
    finally:
        keras.config.set_dtype_policy(before)
