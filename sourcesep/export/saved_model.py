"""Writes a SavedModel for TensorFlow Serving: two signatures, warm-up requests, batching parameters, checksums."""

from __future__ import annotations

import hashlib
import io
import json
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import soundfile
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from data_gen import InputError

MAX_ERROR = 1e-4  # largest accepted difference from the Keras model on noise of RMS 0.1; float32 rounding gives 1e-7
CHECKSUMS = "assets.extra/SHA256SUMS"  # in the format of the program sha256sum, which can check it too

# Message BatchingParameters of TensorFlow Serving (session_bundle_config.proto).
BATCHING = """\
# Requests that arrive within 5 ms of each other are computed together, at most 8 of them.
max_batch_size { value: 8 }
batch_timeout_micros { value: 5000 }
max_enqueued_batches { value: 100 }
# A shorter request would be padded with copies of its first sample, which changes the result: see docs/serving.md.
pad_variable_length_inputs: false
"""


def write(model: keras.Model, description: dict[str, Any], name: str, folder: pathlib.Path) -> float:
    """Writes a SavedModel that TensorFlow loads without this package, and compares it with the Keras model.

    The signature `serving_default` takes `mixture` float32 [batch, samples] and returns one output per instrument, by
    its name, float32 [batch, samples]. The signature `channels`, of a model of two channels, takes and returns float32
    [batch, samples, 2]; on one channel such a model works as `Separator` says. The signature `wav` takes `wav` string
    [batch]: 16-bit WAV files at the model's rate with any number of channels. It returns one output NAME_bytes per
    instrument, string [batch]: 16-bit WAV files with the same channels; and `gain` float32 [batch], by which all stems
    of a file were multiplied so that none of them clips (usually 1). The asset sourcesep.json is the description.

    Args:
        model: from [batch, time, channel] to [batch, time, channel * instrument].
        description: as `exporting.describe` returns it.
        name: name of the model in the warm-up requests.
        folder: an empty folder.

    Returns:
        The largest difference from the Keras model.

    Raises RuntimeError if the SavedModel does not compute what the model computes.
    """
    instruments, rate_hz = description["instruments"], description["sample_rate_hz"]
    with tempfile.TemporaryDirectory() as scratch:
        asset = pathlib.Path(scratch, "sourcesep.json")
        asset.write_text(json.dumps(description, indent=2) + "\n")
        module = tf.Module()
        module.weights = [variable.value for variable in model.variables]  # the tf.Variable inside each Keras variable
        module.description = tf.saved_model.Asset(str(asset))
        module.separate = _separate_samples(model, instruments)
        module.separate_wav = _separate_wav(model, instruments, rate_hz)
        signatures = {"serving_default": module.separate, "wav": module.separate_wav}
        if model.input_shape[-1] == 2:
            module.separate_channels = _separate_channels(model, instruments)
            signatures["channels"] = module.separate_channels
        tf.saved_model.save(module, str(folder), signatures=signatures)
    extra = folder / "assets.extra"
    extra.mkdir()
    _write_warm_up(name, rate_hz, extra / "tf_serving_warmup_requests")
    (extra / "batching_params.pbtxt").write_text(BATCHING)
    _write_checksums(folder)
    error = _largest_error(model, instruments, folder)
    if not error < MAX_ERROR:
        raise RuntimeError(f"the SavedModel differs from the Keras model by {error:.1e} (limit {MAX_ERROR:.0e})")
    return error


def load(folder: str | pathlib.Path) -> Any:
    """Checks the checksums and calls tf.saved_model.load. Raises InputError if a file is damaged or missing."""
    folder = pathlib.Path(folder)
    try:
        lines = (folder / CHECKSUMS).read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{folder}: not a SavedModel of export.py ({CHECKSUMS} cannot be read)") from None
    for line in lines:
        digest, _, path = line.partition("  ")
        try:
            is_whole = _sha256(folder / path) == digest
        except OSError as error:
            raise InputError(f"{folder / path}: {error.strerror}; export the run again") from None
        if not is_whole:
            raise InputError(
                f"{folder / path}: damaged (its checksum is not that in {CHECKSUMS}); export the run again"
            )
    return tf.saved_model.load(str(folder))


def _apply(model: keras.Model, mixture: tf.Tensor) -> tf.Tensor:
    """Returns the stems [batch, time, channel, instrument] of a mixture [batch, time, channel], like a Separator."""
    n_channels = model.input_shape[-1]
    n_given = mixture.shape[2]
    if n_given == n_channels:
        stems = model(mixture, training=False)
        return tf.reshape(stems, [tf.shape(mixture)[0], tf.shape(mixture)[1], n_channels, -1])
    stems = model(tf.repeat(mixture, n_channels, axis=2), training=False)
    stems = tf.reshape(stems, [tf.shape(mixture)[0], tf.shape(mixture)[1], n_channels, -1])
    return tf.reduce_mean(stems, axis=2, keepdims=True)


def _separate_channels(model: keras.Model, instruments: Sequence[str]) -> Callable:
    @tf.function(input_signature=[tf.TensorSpec([None, None, 2], tf.float32, name="mixture")])
    def separate(mixture: tf.Tensor) -> dict[str, tf.Tensor]:
        stems = _apply(model, mixture)
        return {name: stems[..., position] for position, name in enumerate(instruments)}

    return separate


def _separate_samples(model: keras.Model, instruments: Sequence[str]) -> Callable:
    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.float32, name="mixture")])
    def separate(mixture: tf.Tensor) -> dict[str, tf.Tensor]:
        stems = _apply(model, mixture[:, :, None])
        return {name: stems[:, :, 0, position] for position, name in enumerate(instruments)}

    return separate


def _separate_wav(model: keras.Model, instruments: Sequence[str], rate_hz: int) -> Callable:
    def separate_channels(samples: tf.Tensor) -> tf.Tensor:
        """Separates [time, channel] into [time, channel, instrument]."""

        def each() -> tf.Tensor:
            stems = _apply(model, tf.transpose(samples)[:, :, None])  # channels are the model's batch
            return tf.transpose(stems[:, :, 0], [1, 0, 2])

        if model.input_shape[-1] == 1:
            return each()
        return tf.cond(tf.shape(samples)[1] == 2, lambda: _apply(model, tf.reshape(samples, [1, -1, 2]))[0], each)

    def separate_file(contents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        samples, file_rate_hz = tf.audio.decode_wav(contents)  # [time, channel]
        message = f"this model takes WAV files at {rate_hz} Hz: resample the file first; x is its rate"
        tf.debugging.assert_equal(file_rate_hz, rate_hz, message)
        stems = separate_channels(samples)
        gain = 1.0 / tf.maximum(1.0, tf.reduce_max(tf.abs(stems)))
        stems = tf.transpose(gain * stems, [2, 0, 1])  # to [instrument, time, channel]
        return tf.stack([tf.audio.encode_wav(stems[i], rate_hz) for i in range(len(instruments))]), gain

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="wav")])
    def separate_wav(wav: tf.Tensor) -> dict[str, tf.Tensor]:
        # One file at a time: the files of a batch may differ in length, and memory is that of one file.
        types = (tf.TensorSpec([len(instruments)], tf.string), tf.TensorSpec([], tf.float32))
        files, gain = tf.map_fn(separate_file, wav, fn_output_signature=types, parallel_iterations=1)
        # TensorFlow Serving encodes outputs named _bytes as base64 in its REST interface.
        return {"gain": gain, **{f"{name}_bytes": files[:, i] for i, name in enumerate(instruments)}}

    return separate_wav


def _write_warm_up(name: str, rate_hz: int, path: pathlib.Path) -> None:
    """Writes one request per signature, a second of noise; the server runs them before it accepts traffic."""
    noise = (0.1 * np.random.default_rng(0).standard_normal((1, rate_hz))).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, noise[0], rate_hz, "PCM_16", format="WAV")
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, key, value in (("serving_default", "mixture", noise), ("wav", "wav", [file.getvalue()])):
            request = predict_pb2.PredictRequest()
            request.model_spec.name, request.model_spec.signature_name = name, signature
            request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())


def _write_checksums(folder: pathlib.Path) -> None:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in paths]
    (folder / CHECKSUMS).write_text("".join(lines))


def _sha256(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _largest_error(model: keras.Model, instruments: Sequence[str], folder: pathlib.Path) -> float:
    """Loads the SavedModel and compares it with the model, on noise of two lengths and batch sizes."""
    served = load(folder).signatures["serving_default"]
    rng = np.random.default_rng(0)
    errors = []
    for shape in ((1, 4410), (2, 1000)):
        mixture = (0.1 * rng.standard_normal(shape)).astype(np.float32)
        expected = _apply(model, mixture[:, :, None])[:, :, 0].numpy()
        outputs = served(mixture=tf.constant(mixture))
        errors += [np.abs(outputs[name].numpy() - expected[:, :, i]).max() for i, name in enumerate(instruments)]
    return float(np.max(errors))
