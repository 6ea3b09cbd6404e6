import dataclasses
import json
import pathlib
import shutil
import zipfile

import keras
import numpy as np
import pytest
from conftest import TINY, change
from helpers import hide_fluidsynth, make_run, noise
from helpers import run as run_command

from data_gen import InputError
from sourcesep import metrics
from sourcesep.export import exporting, saved_model, tflite
from sourcesep.export.exporting import Exported, export
from sourcesep.models import MODELS
from sourcesep.models.receptive_field import receptive_field
from sourcesep.run_dir import RunDir
from sourcesep.separate import tflite_model
from sourcesep.separate.separation import Separator
from sourcesep.separate.tflite_model import TFLiteModel

WINDOW_S = 0.1
# SDR in dB of what a TFLite file computes, with what Keras computes as the reference: at least this.
LEAST_DB = {"float32": 60, "float16": 40, "dynamic": 15, "int8": 8}


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """A run that no test changes."""
    return make_run(config, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def lite(run, tmp_path_factory):
    """A float32 TFLite file of the run, which no test changes."""
    model = run.model()
    description = exporting.describe(run.config(), receptive_field(model))
    path = tmp_path_factory.mktemp("lite") / "run-float32.tflite"
    ((_, flatbuffer),) = tflite.convert(model, ["float32"], 800)
    tflite.write(path, flatbuffer, {**description, "window_samples": 800})
    return path


@pytest.mark.parametrize("name", MODELS)
def test_every_model_computes_in_every_format_what_keras_computes(name, config, tmp_path):
    config = change(config, model=name, **TINY)
    run = make_run(config, tmp_path / "run")
    exported = export(run.path, tmp_path / "out", ["saved_model", "tflite"], tflite.TYPES, WINDOW_S)
    assert [one.path.name for one in exported] == ["1", *(f"run-{type_}.tflite" for type_ in tflite.TYPES)]
    model = run.model()
    mixture = 5 * noise(2, 800, 1)  # as loud as the music that the range of 8-bit values was chosen for
    expected = model(mixture, training=False).numpy()
    assert np.abs(expected).max() > 0.05
    served = saved_model.load(exported[0].path).signatures["serving_default"](mixture=mixture[:, :, 0])
    for position, instrument in enumerate(config.targets):
        np.testing.assert_allclose(served[instrument], expected[:, :, position], atol=1e-5)
    for one, (type_, least_db) in zip(exported[1:], LEAST_DB.items()):
        lite = TFLiteModel(one.path)
        assert lite.window_samples == 800
        assert metrics.sdr(expected, lite(mixture)).min() > least_db, type_
        assert np.isfinite(lite(np.zeros_like(mixture))).all(), type_
        assert np.isfinite(one.sdr_lost_db)
    assert exported[1].error < 1e-4
    assert abs(exported[1].sdr_lost_db) < 0.01


def test_a_model_that_adds_the_mixture_to_something_is_converted():
    mixture = keras.Input((None, 1))
    stems = keras.layers.Add()([keras.layers.Conv1D(4, 3, padding="same")(mixture), mixture])
    model = keras.Model(mixture, stems)
    ((_, flatbuffer),) = tflite.convert(model, ["float32"], 100)
    interpreter = tflite_model._interpreter_class()(model_content=flatbuffer)
    stems = interpreter.get_signature_runner()(mixture=noise(1, 100, 1))["stems"]
    np.testing.assert_allclose(stems, model(noise(1, 100, 1), training=False), atol=1e-6)


def test_int8_is_8_bit_throughout_but_for_input_and_output(run, tmp_path):
    (exported,) = export(run.path, tmp_path, ["tflite"], ["int8"], WINDOW_S)
    details = TFLiteModel(exported.path)._interpreters[0].get_tensor_details()
    assert len([tensor["name"] for tensor in details if tensor["dtype"] == np.float32]) == 2
    assert sum(tensor["dtype"] == np.int8 for tensor in details) > 10


def test_int8_normalises_quiet_frames_too():
    mixture = keras.Input((None, 1))
    keras.utils.set_random_seed(0)
    filtered = keras.layers.Conv1D(8, 3, padding="same")(mixture)
    stems = keras.layers.Conv1D(2, 1)(keras.layers.LayerNormalization(epsilon=1e-7)(filtered))
    model = keras.Model(mixture, stems)
    samples = noise(1, 200, 1)
    samples[:, 100:] *= 0.05  # 26 dB below the first half, and its squares 52 dB: 8 bits hold 48
    ((_, flatbuffer),) = tflite.convert(model, ["int8"], 200, [samples])
    runner = tflite_model._interpreter_class()(model_content=flatbuffer).get_signature_runner()
    quiet = slice(110, 190)
    expected, computed = model(samples, training=False)[:, quiet], runner(mixture=samples)["stems"][:, quiet]
    assert metrics.sdr(expected, computed).min() > 5


def test_a_tflite_file_says_what_it_is_to_any_program_that_reads_zip(lite, run):
    with zipfile.ZipFile(lite) as archive:
        description = json.loads(archive.read("sourcesep.json"))
    field = receptive_field(run.model())
    assert description["instruments"] == ["drums", "bass"]
    assert (description["sample_rate_hz"], description["window_samples"], description["model"]) == (
        8_000,
        800,
        "wavenet",
    )
    assert description["receptive_field_samples"] == {"before": field.before, "after": field.after, "stride": 1}


@pytest.mark.parametrize("length", [900, 800, 5_003])
def test_a_tflite_file_splits_a_recording_window_by_window_as_one_pass_does(lite, run, length):
    samples = noise(length, 2)
    stems = Separator.from_tflite(lite).separate(samples, 8_000)
    expected = run.model()(samples.T[:, :, None], training=False).numpy()
    for position, name in enumerate(("drums", "bass")):
        np.testing.assert_allclose(stems[name].T, expected[:, :, position], atol=1e-5)


def test_with_a_stride_only_the_end_of_a_recording_differs_from_one_pass(config, tmp_path):
    config = change(config, model="tasnet", **TINY)
    run = make_run(config, tmp_path / "run")
    (exported,) = export(run.path, tmp_path, ["tflite"], ["float32"], WINDOW_S)
    model = run.model()
    samples = noise(3_002)
    stem = Separator.from_tflite(exported.path).separate(samples, 8_000)["bass"]
    inner = slice(None, -receptive_field(model).after)
    expected = model(samples[None, :, None], training=False).numpy()[0, :, 1]
    np.testing.assert_allclose(stem[inner], expected[inner], atol=1e-5)
    assert np.isfinite(stem).all()


def test_a_recording_shorter_than_the_window_is_followed_by_silence(lite, run):
    samples = noise(1, 300, 1)
    expected = run.model()(np.pad(samples, ((0, 0), (0, 500), (0, 0))), training=False).numpy()
    np.testing.assert_allclose(TFLiteModel(lite)(samples), expected[:, :300], atol=1e-5)


@pytest.mark.parametrize("n_at_once", [1, 2, 3])
def test_windows_computed_at_once_are_those_computed_alone(lite, n_at_once):
    alone, together = TFLiteModel(lite), TFLiteModel(lite, 1, n_at_once)
    for n_windows in (5, 1, 2):
        samples = noise(n_windows, 800, 1, seed=n_windows)
        expected = np.concatenate([alone(samples[i : i + 1]) for i in range(n_windows)])
        np.testing.assert_array_equal(together(samples), expected)


def test_the_report_calls_a_file_worse_that_loses_more_than_1_db():
    path = pathlib.Path("run-int8.tflite")
    assert "WORSE than it by 1.3 dB" in Exported(path, 0.1, 1.3).report()
    assert "0.40 dB of SDR lost" in Exported(path, 0.1, 0.4).report()
    assert "0.00 dB of SDR lost" in Exported(path, 0.1, -0.4).report()


def test_the_sdr_lost_is_that_of_the_instrument_that_lost_most_among_those_that_play():
    references = np.zeros((2, 4_000, 3), np.float32)
    references[:, :, :2] = noise(2, 4_000, 2)
    expected = references * 0.9  # an SDR of 20 dB
    estimates = references * np.float32([0.9, 0.8, 1.0])  # 20 and 14 dB
    estimates[:, :, 2] = noise(2, 4_000)
    assert exporting._compute_sdr_lost_db(references, expected, estimates) == pytest.approx(6.02, abs=0.01)


def test_a_later_export_gets_the_next_number_and_leaves_nothing_beside_it(run, tmp_path):
    (tmp_path / "out" / "run" / "7").mkdir(parents=True)
    (exported,) = export(run.path, tmp_path / "out")
    assert exported.path == tmp_path / "out" / "run" / "8"
    assert sorted(path.name for path in (tmp_path / "out" / "run").iterdir()) == ["7", "8"]


def test_an_export_that_fails_leaves_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setattr(saved_model, "MAX_ERROR", 0.0)
    with pytest.raises(RuntimeError, match="SavedModel differs"):
        export(run.path, tmp_path / "out")
    with pytest.raises(RuntimeError, match="TFLite model, float32, differs"):
        export(run.path, tmp_path / "out", ["tflite"], ["float32"], WINDOW_S)
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["run"]


def test_a_savedmodel_is_exported_without_fluidsynth(run, tmp_path):
    hidden = hide_fluidsynth(tmp_path)
    status, output, errors = run_command("export.py", f"--run_dir={run.path}", f"--output_dir={tmp_path}/out", **hidden)
    assert status == 0, errors
    assert f"{tmp_path}/out/run/1: SavedModel, within" in output


def test_a_corpus_that_is_not_on_this_machine_is_replaced_by_composed_pieces(config, tmp_path):
    run = make_run(dataclasses.replace(config, midi_dir=str(tmp_path / "gone")), tmp_path / "run")
    (exported,) = export(run.path, tmp_path, ["tflite"], ["float32"], WINDOW_S)
    assert exported.error < 1e-5


BAD = {
    "format": ({"formats": ["onnx"]}, "--formats=onnx: choose from saved_model, tflite"),
    "no format": ({"formats": []}, "--formats: name at least one"),
    "type": ({"tflite_types": ["int4"]}, "--tflite_types=int4: choose from float32"),
    "window": ({"formats": exporting.FORMATS, "tflite_window_s": 0.001}, "--tflite_window_s=0.001: shorter than"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_flag_is_named_before_anything_is_written(case, run, tmp_path):
    arguments, expected = BAD[case]
    with pytest.raises(InputError, match=expected):
        export(run.path, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("formats", [["saved_model"], ["tflite"]])
def test_an_output_folder_that_cannot_be_made_is_one_line(formats, run, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="--output_dir: cannot write .*out"):
        export(run.path, tmp_path / "out", formats, tflite_window_s=WINDOW_S)


def flip_a_bit(path, share):
    data = bytearray(path.read_bytes())
    data[int(share * len(data))] ^= 1
    path.write_bytes(data)


def cut_short(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


@pytest.mark.parametrize("share", [0.001, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("harm", [flip_a_bit, cut_short])
def test_a_damaged_tflite_file_is_refused(harm, share, lite, tmp_path):
    copy = pathlib.Path(shutil.copy(lite, tmp_path))
    harm(copy, share)
    with pytest.raises(InputError, match="run-float32.tflite: (damaged|not a TFLite file).*; export the run again"):
        TFLiteModel(copy)


def test_what_is_no_tflite_file_of_ours_is_refused(lite, tmp_path):
    (tmp_path / "song.tflite").write_text("hello")
    with pytest.raises(InputError, match="song.tflite: not a TFLite file written by export.py"):
        TFLiteModel(tmp_path / "song.tflite")
    with pytest.raises(InputError, match="gone.tflite: cannot be read"):
        TFLiteModel(tmp_path / "gone.tflite")


def test_a_damaged_savedmodel_is_refused(run, tmp_path):
    (exported,) = export(run.path, tmp_path / "out")
    saved_model.load(exported.path)
    for file in ("saved_model.pb", "variables/variables.data-00000-of-00001", "assets/sourcesep.json"):
        whole = (exported.path / file).read_bytes()
        flip_a_bit(exported.path / file, 0.5)
        with pytest.raises(InputError, match=f"{file}: damaged .*; export the run again"):
            saved_model.load(exported.path)
        (exported.path / file).unlink()
        with pytest.raises(InputError, match=f"{file}: No such file or directory; export the run again"):
            saved_model.load(exported.path)
        (exported.path / file).write_bytes(whole)
    (exported.path / saved_model.CHECKSUMS).unlink()
    with pytest.raises(InputError, match="not a SavedModel of export.py"):
        saved_model.load(exported.path)


def test_damaged_weights_are_refused_wherever_the_damage_is(run, tmp_path):
    copy = RunDir(shutil.copytree(run.path, tmp_path / "copy"))
    whole = copy.weights.read_bytes()
    in_a_kernel = whole.index(run.model().get_layer("front").kernel.numpy().tobytes()) / len(whole)
    for harm, share in ((flip_a_bit, in_a_kernel), (flip_a_bit, 0.0), (cut_short, 0.5), (cut_short, 0.0)):
        copy.weights.write_bytes(whole)
        harm(copy.weights, share)
        with pytest.raises(InputError, match="best.weights.h5: damaged"):
            copy.model()


def test_weights_without_a_checksum_are_used(run, tmp_path):
    copy = RunDir(shutil.copytree(run.path, tmp_path / "copy"))
    model = copy.model()
    model.save_weights(copy.weights)
    np.testing.assert_array_equal(copy.model().get_weights()[0], model.get_weights()[0])
