"""The model that is trained, on every backend of Keras, and the weights that it begins with."""

from __future__ import annotations

import keras
from absl import logging

from data_gen import InputError
from sourcesep.config import Config
from sourcesep.models import build, copy_weights, unconditioned
from sourcesep.models.receptive_field import receptive_field
from sourcesep.run_dir import PRETRAINED, RunDir


def build_model(config: Config, dtype_policy: str) -> keras.Model:
    """Builds the model of a Config, with the random weights of its seed; `dtype_policy` as in `models.build`.

    Raises InputError for a model whose receptive field is not known: it could not separate recordings in windows.
    """
    keras.utils.set_random_seed(config.seed)
    model = build(config, dtype_policy)
    receptive_field(unconditioned(model, config))
    logging.info("%s: %d parameters, %s", config.model, model.count_params(), dtype_policy)
    return model


def load_start_weights(config: Config, model: keras.Model) -> None:
    """Copies the weights of the run in `--start_from` into a model. Raises InputError if none of them fits."""
    run = RunDir(PRETRAINED if config.start_from == "pretrained" else config.start_from)
    n_copied = copy_weights(run.trained_model(), model)
    if not n_copied:
        raise InputError(
            f"--start_from={config.start_from}: a {run.config().model} that shares no layer with this model; "
            "use its --model and its --filters"
        )
    logging.info("%d of them copied from %s", n_copied, run.path)
