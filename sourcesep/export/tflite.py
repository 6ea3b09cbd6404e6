"""Converts a model of one fixed length to TFLite, and writes it into a file together with its description.

The description is the file sourcesep.json in a ZIP archive that is appended to the flatbuffer, the place for files that
belong to a TFLite model: interpreters ignore it, and `unzip` extracts it.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.lite.python.convert import mlir_quantize

from sourcesep.separate import tflite_model
from sourcesep.separate.tflite_model import DESCRIPTION

TYPES = ("float32", "float16", "dynamic", "int8")


def convert(
    model: keras.Model, types: Iterable[str], window_samples: int, calibration: Iterable[np.ndarray] = ()
) -> Iterator[tuple[str, bytes]]:
    """Converts a model to flatbuffers from `mixture` [1, time, channel] to `stems` [1, time, channel * instrument].

    Args:
        model: from float32 [batch, time, channel] to [batch, time, channel * instrument].
        types: "float32"; "float16" for float16 weights; "dynamic" for 8-bit weights, with activations converted to 8
            bits while it runs; "int8" for 8-bit weights and activations, except in input, output, layer normalisation
            and layers with an attribute `needs_float`.
        window_samples: the length `time`; a model for any length would be up to 2.3 times slower.
        calibration: for "int8", mixtures float32 [1, time, channel], from which the range of activations is measured.

    Yields:
        Each type and its flatbuffer.
    """

    n_channels = model.input_shape[-1]

    # Keras must not know that the batch is 1: it would treat a mixture [1, time, 1] that is added to something as a
    # bias, and use an operation that the converter does not support.
    @tf.function(input_signature=[tf.TensorSpec([None, window_samples, n_channels], tf.float32)])
    def forward(mixture: tf.Tensor) -> tf.Tensor:
        return model(mixture, training=False)

    @tf.function(input_signature=[tf.TensorSpec([1, window_samples, n_channels], tf.float32, name="mixture")])
    def separate(mixture: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"stems": forward(mixture)}

    module = tf.Module()
    # The module must track the tf.Variables inside the Keras variables, and the conversion must go through a
    # SavedModel: otherwise the converter loses the weights, and the file computes NaN (TensorFlow 2.21), or the process
    # aborts (2.16).
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
                yield type_, _quantize(converter, model, calibration)
            else:
                yield type_, converter.convert()


def _quantize(converter: Any, model: keras.Model, calibration: Iterable[np.ndarray]) -> bytes:
    """Returns the flatbuffer with 8-bit weights and activations, except where 8 bits are too few.

    That is in layers with an attribute `needs_float`, and in layer normalisation, which squares its input.

    The converter by itself knows no exceptions. What tf.lite.experimental.QuantizationDebugger does is done here in its
    two steps, without what it does to find errors.
    """
    converter.representative_dataset = lambda: ({"mixture": mixture} for mixture in calibration)
    converter._experimental_calibrate_only = True
    calibrated = converter.convert()
    # A tensor is named after the scopes in which it is computed, and the scope of a layer may have a number added.
    scopes = [
        f"/{re.escape(layer.name)}(_[0-9]+)?/"
        for layer in model._flatten_layers()
        if hasattr(layer, "needs_float") or isinstance(layer, keras.layers.LayerNormalization)
    ]
    interpreter = tflite_model._interpreter_class()(model_content=calibrated)
    tensors = [tensor["name"] for tensor in interpreter.get_tensor_details()]
    in_float = [name for name in tensors if any(re.search(scope, name) for scope in scopes)]
    return mlir_quantize(calibrated, denylisted_nodes=in_float or None)


def write(path: pathlib.Path, flatbuffer: bytes, description: dict[str, Any]) -> None:
    """Writes a TFLite file: the flatbuffer, and the description with a checksum of the flatbuffer."""
    path.write_bytes(flatbuffer)
    description = {**description, "flatbuffer_sha256": hashlib.sha256(flatbuffer).hexdigest()}
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(DESCRIPTION, json.dumps(description, indent=2) + "\n")
