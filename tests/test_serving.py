"""Everything short of TensorFlow Serving itself: what it reads of a SavedModel, and the documented clients."""

import concurrent.futures
import importlib.util
import io
import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
import soundfile
import tensorflow as tf
from conftest import ROOT
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from helpers import make_run, noise
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2, prediction_service_pb2_grpc

from sourcesep.export.exporting import export
from sourcesep.models.receptive_field import receptive_field

NAMES = ("drums", "bass")

ALONE = """
import sys
sys.modules["sourcesep"] = sys.modules["data_gen"] = sys.modules["keras"] = None  # importing one of them is an error
import numpy as np
import tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
for samples in (1, 700, 5000):
    stored = np.load(f"{samples}.npz")
    outputs = serve(mixture=tf.constant(stored["mixture"]))
    for position, name in enumerate(("drums", "bass")):
        np.testing.assert_allclose(outputs[name], stored["expected"][:, :, position], atol=1e-5)
print("the same")
"""

KSERVE = """
import base64
import sys
import tensorflow as tf
from kserve import Model, ModelServer
from kserve.errors import InvalidInput

class Served(Model):
    def __init__(self, name, folder):
        super().__init__(name)
        self.signatures = tf.saved_model.load(folder).signatures
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        serve = self.signatures[payload.get("signature_name", "serving_default")]
        ((key, spec),) = serve.structured_input_signature[1].items()
        rows = [base64.b64decode(row["b64"]) if isinstance(row, dict) else row for row in payload["instances"]]
        try:
            outputs = serve(**{key: tf.constant(rows, spec.dtype)})
        except tf.errors.InvalidArgumentError as error:
            raise InvalidInput(error.message)
        def as_json(name, value):
            return {"b64": base64.b64encode(value).decode()} if name.endswith("_bytes") else value.tolist()
        return {"predictions": [
            {name: as_json(name, column.numpy()[i]) for name, column in outputs.items()} for i in range(len(rows))
        ]}

ModelServer(http_port=int(sys.argv[2]), enable_grpc=False).start([Served("quickstart", sys.argv[1])])
"""


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    return make_run(config, tmp_path_factory.mktemp("runs") / "quickstart")


@pytest.fixture(scope="module")
def model(run):
    return run.model()


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    """The SavedModel of the run."""
    (exported,) = export(run.path, tmp_path_factory.mktemp("exported"))
    return exported.path


@pytest.fixture(scope="module")
def signatures(folder):
    return tf.saved_model.load(str(folder)).signatures


def wav_bytes(samples, rate=8_000):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, "PCM_16", format="WAV")
    return file.getvalue()


def read_wav(contents):
    samples, rate = soundfile.read(io.BytesIO(contents), dtype="float32", always_2d=True)
    assert rate == 8_000
    return samples


def separated(model, samples):
    """What the Keras model makes of samples [time, channel]: [channel, time, instrument]."""
    return model(np.float32(samples).T[:, :, None], training=False).numpy()


def documented(name, tmp_path):
    """Writes the program called `name` out of docs/serving.md into a folder; returns its path."""
    (program,) = re.findall(rf"```python\n(# {name} .*?)```", (ROOT / "docs" / "serving.md").read_text(), re.DOTALL)
    (tmp_path / name).write_text(program)
    return tmp_path / name


def test_saved_model_cli_shows_the_signatures(folder):
    command = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "show", "--dir", str(folder), "--all"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    _, *parts = re.split(r"signature_def\['(.+?)'\]:", shown)
    parts = dict(zip(parts[::2], parts[1::2]))
    default, wav = parts["serving_default"], parts["wav"]
    assert re.findall(r"inputs\['(.+?)'\] tensor_info:\s+dtype: (\w+)\s+shape: (.+)", default) == [
        ("mixture", "DT_FLOAT", "(-1, -1)")
    ]
    assert re.findall(r"inputs\['(.+?)'\] tensor_info:\s+dtype: (\w+)\s+shape: (.+)", wav) == [
        ("wav", "DT_STRING", "(-1)")
    ]
    assert re.findall(r"outputs\['(.+?)'\] tensor_info:\s+dtype: (\w+)", default) == [
        ("bass", "DT_FLOAT"),
        ("drums", "DT_FLOAT"),
    ]
    assert re.findall(r"outputs\['(.+?)'\] tensor_info:\s+dtype: (\w+)", wav) == [
        ("bass_bytes", "DT_STRING"),
        ("drums_bytes", "DT_STRING"),
        ("gain", "DT_FLOAT"),
    ]


def test_it_computes_what_keras_computes_in_a_process_without_this_package(model, folder, tmp_path):
    for batch, samples in ((1, 1), (2, 700), (3, 5_000)):
        mixture = noise(batch, samples)
        expected = model(mixture[:, :, None], training=False).numpy()
        np.savez(tmp_path / f"{samples}.npz", mixture=mixture, expected=expected)
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, folder], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.stdout == "the same\n", done.stderr


def test_the_warm_up_requests_are_requests_that_the_signatures_take(folder, signatures):
    records = tf.data.TFRecordDataset(str(folder / "assets.extra" / "tf_serving_warmup_requests"))
    asked = []
    for record in records.as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        assert request.model_spec.name == "quickstart"
        asked.append(request.model_spec.signature_name)
        outputs = answer(signatures, request).outputs
        assert set(NAMES) == {name.replace("_bytes", "") for name in outputs if name != "gain"}
    assert asked == ["serving_default", "wav"]


def test_the_batching_parameters_are_those_that_the_server_parses(folder):
    # Fields 1, 2, 3 and 7 of message BatchingParameters in session_bundle_config.proto of TensorFlow Serving.
    file = descriptor_pb2.FileDescriptorProto(name="batching.proto", package="check", syntax="proto3")
    file.dependency.append("google/protobuf/wrappers.proto")
    message = file.message_type.add(name="BatchingParameters")
    for number, name in ((1, "max_batch_size"), (2, "batch_timeout_micros"), (3, "max_enqueued_batches")):
        message.field.add(name=name, number=number, label=1, type=11, type_name=".google.protobuf.Int64Value")
    message.field.add(name="pad_variable_length_inputs", number=7, label=1, type=8)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    parameters = message_factory.GetMessageClass(pool.FindMessageTypeByName("check.BatchingParameters"))()
    text_format.Parse((folder / "assets.extra" / "batching_params.pbtxt").read_text(), parameters)
    assert parameters.max_batch_size.value == 8
    assert not parameters.pad_variable_length_inputs


def test_concurrent_requests_all_get_their_own_answer(model, signatures):
    mixtures = [noise(1 + i % 3, 500 + 37 * i) * (1 + i) for i in range(24)]
    wavs = [wav_bytes(noise(400 + 11 * i, 1)) for i in range(12)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda mixture: signatures["serving_default"](mixture=tf.constant(mixture)), mixtures)
        wav_answers = pool.map(lambda wav: signatures["wav"](wav=tf.constant([wav])), wavs)
        for mixture, outputs in zip(mixtures, answers):
            expected = model(mixture[:, :, None], training=False).numpy()
            for position, name in enumerate(NAMES):
                np.testing.assert_allclose(outputs[name], expected[:, :, position], atol=1e-4)
        for wav, outputs in zip(wavs, wav_answers):
            expected = separated(model, read_wav(wav))[:, :, 1].T
            np.testing.assert_allclose(read_wav(outputs["bass_bytes"].numpy()[0]), expected, atol=1e-4)


def test_wav_files_of_different_lengths_and_channels_share_a_batch(model, signatures):
    files = [wav_bytes(noise(900, 2)), wav_bytes(noise(700, 1)), wav_bytes(noise(1, 1))]
    outputs = signatures["wav"](wav=tf.constant(files))
    np.testing.assert_array_equal(outputs["gain"], [1, 1, 1])
    for i, file in enumerate(files):
        expected = separated(model, read_wav(file))
        for position, name in enumerate(NAMES):
            stem = read_wav(outputs[f"{name}_bytes"].numpy()[i])
            np.testing.assert_allclose(stem, expected[:, :, position].T, atol=1e-4)


def test_stems_that_would_clip_are_made_softer_by_one_factor(run, tmp_path):
    loud = run.model()
    loud.get_layer("stems").kernel.assign(20 * loud.get_layer("stems").kernel.numpy())
    from sourcesep.export import exporting, saved_model

    (tmp_path / "loud").mkdir()
    description = exporting.describe(run.config(), receptive_field(loud))
    saved_model.write(loud, description, "loud", tmp_path / "loud")
    file = wav_bytes(noise(900, 2))
    outputs = tf.saved_model.load(str(tmp_path / "loud")).signatures["wav"](wav=tf.constant([file]))
    expected = separated(loud, read_wav(file))
    gain = float(outputs["gain"][0])
    assert gain == pytest.approx(1 / np.abs(expected).max())
    assert gain < 0.9
    for position, name in enumerate(NAMES):
        stem = read_wav(outputs[f"{name}_bytes"].numpy()[0])
        np.testing.assert_allclose(stem, gain * expected[:, :, position].T, atol=1e-4)


@pytest.mark.parametrize(
    "file, message",
    [
        (wav_bytes(noise(500, 1), 11_025), "takes WAV files at 8000 Hz: resample the file first.*11025"),
        (b"hello", "RIFF|WAV"),
    ],
)
def test_a_file_that_it_cannot_take_is_refused_with_the_reason(file, message, signatures):
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        signatures["wav"](wav=tf.constant([file]))
    assert re.search(message, str(caught.value), re.DOTALL)


def answer(signatures, request):
    """A PredictRequest to a loaded SavedModel -> PredictResponse, with the server's checks of names and types."""
    serve = signatures[request.model_spec.signature_name]
    specs = serve.structured_input_signature[1]
    assert set(request.inputs) == set(specs)
    for name, spec in specs.items():
        assert request.inputs[name].dtype == spec.dtype.as_datatype_enum
        assert spec.shape.is_compatible_with(tf.TensorShape(request.inputs[name].tensor_shape))
    inputs = {name: tf.constant(tf.make_ndarray(request.inputs[name]), spec.dtype) for name, spec in specs.items()}
    response = predict_pb2.PredictResponse()
    for name, value in serve(**inputs).items():
        response.outputs[name].CopyFrom(tf.make_tensor_proto(value.numpy()))
    return response


class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    """The gRPC service of TensorFlow Serving, over a loaded SavedModel; takes note of the lengths asked for."""

    def __init__(self, signatures):
        self.signatures, self.lengths = signatures, []

    def Predict(self, request, context):
        if request.model_spec.name != "quickstart":
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found: {request.model_spec.name}")
        self.lengths.append(request.inputs["mixture"].tensor_shape.dim[1].size)
        return answer(self.signatures, request)


@pytest.fixture
def service(signatures):
    """A running gRPC server: (its address, the Service)."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    service = Service(signatures)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    yield f"localhost:{port}", service
    server.stop(0).wait()


def test_the_documented_grpc_client_splits_a_recording_window_by_window(service, model, folder, tmp_path):
    address, seen = service
    samples = noise(60_001, 2)  # 7.5 s: three windows
    soundfile.write(tmp_path / "song.wav", samples, 8_000, "FLOAT")
    program = documented("grpc_client.py", tmp_path)
    command = [sys.executable, program, "song.wav", "stems", folder.parent, address]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(seen.lengths) == 3 and len(set(seen.lengths)) == 1
    field = receptive_field(model)
    inner = slice(field.before, -field.after)  # at the ends the client sends silence where the model pads
    for position, name in enumerate(NAMES):
        stem = soundfile.read(tmp_path / "stems" / f"{name}.wav", dtype="float32")[0]
        assert stem.shape == samples.shape
        expected = separated(model, samples)[:, :, position].T
        np.testing.assert_allclose(stem[inner], expected[inner], atol=1e-5)


def test_the_documented_grpc_client_says_why_a_request_failed(service, folder, tmp_path):
    soundfile.write(tmp_path / "song.wav", noise(500), 8_000)
    (tmp_path / "other").symlink_to(folder.parent)
    program = documented("grpc_client.py", tmp_path)
    command = [sys.executable, program, "song.wav", "stems", "other", service[0]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "Servable not found: other" in done.stderr and "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def kserve_url(folder, tmp_path_factory):
    """The SavedModel behind KServe, which speaks TensorFlow Serving's REST protocol as its V1."""
    if importlib.util.find_spec("kserve") is None:
        pytest.skip("kserve is not installed (make test-latest has it)")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("kserve") / "log"
    with log.open("w") as output:
        server = subprocess.Popen([sys.executable, "-c", KSERVE, folder, str(port)], stdout=output, stderr=output)
    url = f"http://localhost:{port}/v1/models/quickstart"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(url).close()
                break
            except (urllib.error.URLError, ConnectionError):
                assert server.poll() is None, log.read_text()
                time.sleep(0.2)
        else:
            raise AssertionError(log.read_text())
        yield url
    finally:
        server.kill()
        server.wait()


def test_the_documented_rest_client_talks_to_kserve(kserve_url, model, tmp_path):
    (tmp_path / "song.wav").write_bytes(wav_bytes(noise(4_000, 2)))
    program = documented("rest_client.py", tmp_path)
    command = [sys.executable, program, "song.wav", "stems", kserve_url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == ["stems/bass.wav", "stems/drums.wav"]
    expected = separated(model, read_wav((tmp_path / "song.wav").read_bytes()))
    for position, name in enumerate(NAMES):
        stem = read_wav((tmp_path / "stems" / f"{name}.wav").read_bytes())
        np.testing.assert_allclose(stem, expected[:, :, position].T, atol=1e-4)


def test_the_documented_rest_client_says_why_a_request_failed(kserve_url, tmp_path):
    (tmp_path / "song.wav").write_bytes(wav_bytes(noise(4_000, 2), 11_025))
    program = documented("rest_client.py", tmp_path)
    command = [sys.executable, program, "song.wav", "stems", kserve_url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "resample the file first" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "stems").exists()


def test_the_documented_curl_request_works_against_kserve(kserve_url, model):
    (body,) = re.findall(r"curl \S+:predict -d '(.+)'", (ROOT / "docs" / "serving.md").read_text())
    request = urllib.request.Request(f"{kserve_url}:predict", body.encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        (prediction,) = json.load(response)["predictions"]
    expected = model(np.float32([0.0, 0.1, 0.2, 0.1])[None, :, None], training=False).numpy()[0]
    np.testing.assert_allclose(np.stack([prediction[name] for name in NAMES], axis=1), expected, atol=1e-5)
