"""The models by name.

A model is a module with `build(config, mixture)`, from a symbolic [batch, time, 1] to a symbolic [batch, time, stem]
with the stems of `config.model_stems`. If it can also be trained with --channels=2, it says so by `TAKES_CHANNELS =
True`, and builds from [batch, time, channel] to [batch, time, channel * stem]: all stems of the left channel, then all
of the right. To add one, write its file and its line in MODELS. If it has hyper-parameters,
the file also has a frozen dataclass `Settings(ModelSettings)`; they become flags, and `config.network` holds them. If
its `build` also takes `condition=None`, the model can be trained with --conditioning.

Nothing here imports Keras before it is needed: Config reads the names and the settings. For the same reason the file of
a model imports Keras inside its functions.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from data_gen import InputError
from sourcesep.models.settings import ModelSettings, setting_fields

if TYPE_CHECKING:
    import keras

    from sourcesep.config import Config

MODELS = {
    "wavenet": "sourcesep.models.wavenet",
    "tasnet": "sourcesep.models.tasnet",
    "bandnet": "sourcesep.models.bandnet",
    "wave_u_net": "sourcesep.models.wave_u_net",
    "baseline": "sourcesep.models.baseline",
    "baseline_skip": "sourcesep.models.baseline",
}
EMBEDDING_SIZE = 32  # length of the vector that stands for an instrument with --conditioning=embedding


def settings_class(model: str) -> type[ModelSettings]:
    """Returns the class of the hyper-parameters of a model. Raises InputError if there is no such model."""
    return getattr(_module(model), "Settings", ModelSettings)


def models_with(setting: str) -> list[str]:
    """Returns the names of the models that have a hyper-parameter of this name."""
    return [model for model in MODELS if setting in setting_fields(settings_class(model))]


def make_settings(model: str, values: Mapping[str, Any]) -> ModelSettings:
    """Returns the hyper-parameters of a model, with the model's own defaults for those not given.

    Raises InputError if there is no such model, if it does not have one of them, and for values outside their limits.
    """
    own = setting_fields(settings_class(model))
    for name in values:
        if name not in own:
            others = models_with(name)
            raise InputError(
                f"--{name} is a setting of {', '.join(others)}; --model={model} has none"
                if others
                else f"--{name}: no such setting; --model={model} has {', '.join(own) or 'none'}"
            )
    return settings_class(model)(**values)


def takes_condition(model: str) -> bool:
    """Returns whether a model can be trained with --conditioning."""
    return "condition" in inspect.signature(_module(model).build).parameters


def takes_channels(model: str) -> bool:
    """Returns whether a model can be trained with --channels=2."""
    return getattr(_module(model), "TAKES_CHANNELS", False)


def build(config: Config, dtype_policy: str = "float32") -> keras.Model:
    """Builds the model that `config.model` names, as it is trained.

    Args:
        config: the Config.
        dtype_policy: Keras dtype policy of all layers except the last, "float32" or "mixed_bfloat16".

    Returns:
        A functional keras.Model from float32 [batch, time, channel] to float32 [batch, time, channel * stem], for any
        time: all stems of the left channel, then all of the right. With conditioning "binary" it has float32 presences
        [batch, stem] as a second input. With "embedding" the second input is the position of the instrument to extract,
        int32 [batch], and the model gives one stem.
    """
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype_policy)
    try:
        return _build(config, _module(config.model))
    finally:
        keras.config.set_dtype_policy(before)


def _module(model: str) -> ModuleType:
    if model not in MODELS:
        raise InputError(f"--model={model}: no such model; known are {', '.join(MODELS)}")
    return importlib.import_module(MODELS[model])


def _build(config: Config, module: ModuleType) -> keras.Model:
    import keras
    from keras import layers

    from sourcesep.models.layers import MixtureConsistency

    mixture = keras.Input((None, config.channels), name="mixture")
    condition = presence = None
    if config.conditioning == "none":
        stems = module.build(config, mixture)
    elif config.conditioning == "embedding":
        condition = keras.Input((), dtype="int32", name="instrument")
        embedded = layers.Embedding(len(config.stem_names), EMBEDDING_SIZE, name="embedding")(condition)
        stems = module.build(config, mixture, embedded)
    else:
        condition = keras.Input((len(config.stem_names),), name="presence")
        # Stems of absent instruments are set to zero, so that the network does not have to learn to give silence.
        presence = layers.Reshape((1, len(config.stem_names)), dtype="float32", name="present")(condition)
        stems = layers.Multiply(dtype="float32", name="audible")([module.build(config, mixture, condition), presence])
    if config.consistent:
        inputs = [mixture, stems] if presence is None else [mixture, stems, presence]
        stems = MixtureConsistency(dtype="float32", name="consistent")(inputs)
    return keras.Model(mixture if condition is None else [mixture, condition], stems, name=config.model)


def copy_weights(source: keras.Model, target: keras.Model) -> int:
    """Copies weights into every layer of `target` for which `source` has a layer of the same name and shapes.

    A layer may know itself what to take from another one, of other shapes or for other stems: then it has a method
    `take_over(layer)`, which returns how many weights it copied. If `target` has layers that `source` does not have,
    those with a method `add_nothing()` begin without effect, so that a deeper network begins as the one that it takes
    over.

    Args:
        source, target: from `build`.

    Returns:
        How many weights were copied.
    """
    known = {layer.name: layer for layer in source.layers}
    n_copied = 0
    for layer in target.layers:
        same = known.get(layer.name)
        if same and hasattr(layer, "take_over"):
            n_copied += layer.take_over(same)
        elif same and [w.shape for w in same.weights] == [w.shape for w in layer.weights]:
            layer.set_weights(same.get_weights())
            n_copied += layer.count_params()
        elif same is None and n_copied and hasattr(layer, "add_nothing"):
            layer.add_nothing()
    return n_copied


def unconditioned(model: keras.Model, config: Config, present: Sequence[str] = ()) -> keras.Model:
    """Returns a model as everything except training uses it: from only the mixture to the stems.

    Args:
        model: from `build`; the result shares its weights.
        config: the Config of the model.
        present: names of the stems to extract, for a conditioned model; empty for all.

    Returns:
        A functional keras.Model from float32 [batch, time, 1] to float32 [batch, time, present].

    Raises InputError for stems that the model does not have, or if `present` is given for a model without conditioning.
    """
    for name in present:
        if name not in config.stem_names:
            raise InputError(f"--present={name}: the model's stems are {', '.join(config.stem_names)}")
    if config.conditioning == "none":
        if present:
            raise InputError(
                "--present: this model was trained with --conditioning=none and always gives all its stems"
            )
        return model
    import keras
    from keras import layers

    from sourcesep.models.layers import ConstantCondition, SelectChannels

    positions = [config.stem_names.index(name) for name in present or config.stem_names]
    mixture = keras.Input((None, 1), name="mixture")
    if config.conditioning == "binary":
        presences = [float(position in positions) for position in range(len(config.stem_names))]
        condition = ConstantCondition(presences, name="condition")(mixture)
        stems = SelectChannels(positions, name="stems")(model([mixture, condition]))
    else:
        conditions = [ConstantCondition(position, name=f"condition{position}")(mixture) for position in positions]
        each = [model([mixture, condition]) for condition in conditions]
        stems = layers.Concatenate(name="stems")(each) if len(each) > 1 else each[0]
    return keras.Model(mixture, stems, name=f"{config.model}_unconditioned")
