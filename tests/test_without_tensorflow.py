"""Separation with LiteRT alone, in a process that cannot import TensorFlow or Keras."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile
from conftest import ROOT
from helpers import noise

from sourcesep import metrics
from sourcesep.run_dir import PRETRAINED, RunDir
from sourcesep.separate.separation import Separator
from sourcesep.separate.tflite_model import PACKAGED, TFLiteModel

HIDE = "import sys; sys.modules.update(dict.fromkeys(('tensorflow', 'keras', 'matplotlib', 'jinja2')))"


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    """(path of a stereo recording at 44.1 kHz, its samples)."""
    path = tmp_path_factory.mktemp("song") / "song.wav"
    samples = noise(3 * 44_100, 2)
    soundfile.write(path, samples, 44_100, "FLOAT")
    return path, samples


def run(command, *flags):
    pytest.importorskip("ai_edge_litert")
    script = f"{HIDE}; from sourcesep import cli; sys.argv[0] = '{command}.py'; cli.{command}()"
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, flags)], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_the_packaged_tflite_file_computes_what_the_weights_do():
    lite = TFLiteModel(PACKAGED)
    mixture = noise(1, lite.window_samples, lite.n_channels)
    expected = RunDir(PRETRAINED).model().predict(mixture, verbose=0)
    assert metrics.sdr(expected[0], lite(mixture)[0]).min() > 45.0
    assert np.isfinite(lite(np.zeros_like(mixture))).all()


def test_the_command_separates_as_the_separator_does_and_says_what_computes(song, tmp_path):
    path, samples = song
    done = run("separate", path, f"--output_dir={tmp_path}")
    assert not done.returncode, done.stderr
    assert "LiteRT computes" in done.stderr
    stems = Separator.from_tflite().separate(samples, 44_100)
    for name, stem in stems.items():
        np.testing.assert_allclose(soundfile.read(tmp_path / "song" / f"{name}.wav")[0], stem, atol=1e-6)


def test_what_needs_tensorflow_says_how_to_install_it(song):
    done = run("separate", song[0], f"--run_dir={PRETRAINED}")
    assert done.returncode == 1
    assert "keras is not installed: pip install 'sourcesep[train]'" in done.stderr
    assert "Traceback" not in done.stderr
