"""The models by name.

A model is a module with `build(config, mixture)` from a symbolic [batch, time, 1] to a symbolic [batch, time, stem],
stems as in `config.model_outputs`; to add one, write its file and its line in MODELS. One that can be told what is
present takes `condition=None` as well and is also named in CONDITIONED.

Nothing here imports Keras before it is needed: config.py reads the names.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from data_gen import InputError

MODELS = {
    "wavenet": "sourcesep.models.wavenet",
    "tasnet": "sourcesep.models.tasnet",
    "wave_u_net": "sourcesep.models.wave_u_net",
    "baseline": "sourcesep.models.baseline",
    "baseline_skip": "sourcesep.models.baseline",
}
CONDITIONED = ("wavenet", "tasnet")
EMBEDDING_SIZE = 32  # of --conditioning=embedding


def build(config, dtype_policy: str = "float32"):
    """Builds the model that `config.model` names, as it is trained.

    Args:
        config: a Config.
        dtype_policy: Keras dtype policy of all layers but the last, "float32" or "mixed_bfloat16".

    Returns:
        A functional keras.Model from float32 [batch, time, 1] to float32 [batch, time, stem], for any time. With
        conditioning it has a second input: float32 presences [batch, output], with "binary"; with "embedding" the
        numbers of the instruments wanted, int32 [batch], and one stem.
    """
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype_policy)
    try:
        return _build(config, importlib.import_module(MODELS[config.model]))
    finally:
        keras.config.set_dtype_policy(before)


def _build(config, module):
    import keras
    from keras import layers

    from sourcesep.models.layers import MixtureConsistency

    mixture = keras.Input((None, 1), name="mixture")
    told = presence = None
    if config.conditioning == "none":
        stems = module.build(config, mixture)
    elif config.conditioning == "embedding":
        told = keras.Input((), dtype="int32", name="instrument")
        embedded = layers.Embedding(len(config.outputs), EMBEDDING_SIZE, name="embedding")(told)
        stems = module.build(config, mixture, embedded)
    else:
        told = keras.Input((len(config.outputs),), name="presence")
        # What is said to be absent is not heard, so that the network need not learn to keep silent.
        presence = layers.Reshape((1, len(config.outputs)), dtype="float32", name="present")(told)
        stems = layers.Multiply(dtype="float32", name="audible")([module.build(config, mixture, told), presence])
    if config.consistent:
        inputs = [mixture, stems] if presence is None else [mixture, stems, presence]
        stems = MixtureConsistency(dtype="float32", name="consistent")(inputs)
    return keras.Model(mixture if told is None else [mixture, told], stems, name=config.model)


def copy_weights(source, target) -> int:
    """Gives `target` the weights of `source` in every layer that has the same name and shapes there.

    Args:
        source, target: from `build`.

    Returns:
        How many weights `target` took over.
    """
    known = {layer.name: layer for layer in source.layers}
    n_copied = 0
    for layer in target.layers:
        same = known.get(layer.name)
        if same and [w.shape for w in same.weights] == [w.shape for w in layer.weights]:
            layer.set_weights(same.get_weights())
            n_copied += layer.count_params()
    return n_copied


def plain(model, config, present: Sequence[str] = ()):
    """A model as everything but training uses it: from the mixture alone to stems.

    Args:
        model: from `build`; weights are shared with it.
        config: its Config.
        present: outputs to extract, which a conditioned model is told; empty for all.

    Returns:
        A functional keras.Model from float32 [batch, time, 1] to float32 [batch, time, present].

    Raises InputError for outputs that the model does not have, or if it takes no such advice.
    """
    for name in present:
        if name not in config.outputs:
            raise InputError(f"--present={name}: the model's outputs are {', '.join(config.outputs)}")
    if config.conditioning == "none":
        if present:
            raise InputError("--present: this run's model was trained with --conditioning=none, it cannot be told")
        return model
    import keras
    from keras import layers

    from sourcesep.models.layers import Channels, Told

    positions = [config.outputs.index(name) for name in present or config.outputs]
    mixture = keras.Input((None, 1), name="mixture")
    if config.conditioning == "binary":
        presences = [float(position in positions) for position in range(len(config.outputs))]
        stems = Channels(positions, name="stems")(model([mixture, Told(presences, name="told")(mixture)]))
    else:
        each = [model([mixture, Told(position, name=f"told{position}")(mixture)]) for position in positions]
        stems = layers.Concatenate(name="stems")(each) if len(each) > 1 else each[0]
    return keras.Model(mixture, stems, name=f"{config.model}_plain")
