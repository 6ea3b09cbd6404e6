"""TFLite files: a model of one fixed length is converted, described within its file, and run by the interpreter.

What describes the model is the file sourcesep.json in a ZIP archive behind the flatbuffer, where TFLite keeps files
that belong to a model: every interpreter passes over it, and `unzip` shows it.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import tempfile
import zipfile
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf

from sourcesep.separate.tflite_model import DESCRIPTION

TYPES = ("float32", "float16", "dynamic", "int8")


def convert(
    model, types: Iterable[str], window_samples: int, calibration: Iterable[np.ndarray] = ()
) -> Iterator[tuple[str, bytes]]:
    """Makes flatbuffers from `mixture` float32 [1, time, 1] to `stems` float32 [1, time, instrument].

    Args:
        model: keras.Model from [batch, time, 1] to [batch, time, instrument].
        types: "float32"; "float16" for such weights; "dynamic" for 8-bit weights, while activations become 8-bit as it
            runs; "int8" for 8-bit weights and activations throughout, but for input and output.
        window_samples: the length `time`; a file for any length would be slower.
        calibration: for "int8", mixtures float32 [1, time, 1] that show how large the activations become.

    Yields:
        Each type and its flatbuffer.
    """

    # Keras must not see that the batch is 1: where a model adds the mixture, [1, time, 1], to something, it would take
    # it for a bias, and make an operation of it that the converter does not know.
    @tf.function(input_signature=[tf.TensorSpec([None, window_samples, 1], tf.float32)])
    def forward(mixture):
        return model(mixture, training=False)

    @tf.function(input_signature=[tf.TensorSpec([1, window_samples, 1], tf.float32, name="mixture")])
    def separate(mixture):
        return {"stems": forward(mixture)}

    module = tf.Module()
    # A Keras variable is no tf.Variable. Where these are not tracked, or the function is converted without a SavedModel
    # between, the converter leaves the values out: the file computes NaN (TensorFlow 2.21), or the process ends (2.16).
    module.weights = [variable.value for variable in model.variables]
    module.separate = separate
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"serving_default": separate})
        for type_ in types:
            converter = tf.lite.TFLiteConverter.from_saved_model(folder)
            if type_ != "float32":
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if type_ == "float16":
                converter.target_spec.supported_types = [tf.float16]
            if type_ == "int8":
                converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
                converter.representative_dataset = lambda: ({"mixture": mixture} for mixture in calibration)
            yield type_, converter.convert()


def write(path: pathlib.Path, flatbuffer: bytes, description: dict) -> None:
    """Writes the file: flatbuffer, description, and a checksum of the first in the second."""
    path.write_bytes(flatbuffer)
    description = {**description, "flatbuffer_sha256": hashlib.sha256(flatbuffer).hexdigest()}
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(DESCRIPTION, json.dumps(description, indent=2) + "\n")
