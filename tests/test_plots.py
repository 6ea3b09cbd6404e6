import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
import soundfile
from conftest import ROOT

from data_gen import InputError
from sourcesep import plots

RATE = 8_000


def tone(hz, seconds=4.0):
    return 0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)


@pytest.fixture
def folder(tmp_path):
    """A separation of two tones: the stem of the drums is right, that of the bass is silent."""
    (tmp_path / "song" / "reference").mkdir(parents=True)
    drums, bass = tone(3_000), tone(500)
    for name, samples in (
        *(("mixture", drums + bass), ("drums", drums), ("bass", 0 * bass)),
        *(("reference/drums", drums), ("reference/bass", bass)),
    ):
        soundfile.write(tmp_path / "song" / f"{name}.wav", samples, RATE, "FLOAT")
    return tmp_path / "song"


def test_every_waveform_is_drawn_under_its_title_where_its_frequencies_are(folder, tmp_path, monkeypatch):
    drawn = {}

    def draw(axes, samples, sample_rate, title, start_s):
        original(axes, samples, sample_rate, title, start_s)
        (mesh,) = axes.collections
        levels = mesh.get_array()  # [frequency, time]
        drawn[title] = levels.mean(axis=1).argmax() * RATE / plots.FRAME_SAMPLES, levels.max(), axes.get_xlim()

    original = plots.draw_spectrogram
    monkeypatch.setattr(plots, "draw_spectrogram", draw)
    plots.plot_separation(str(folder), str(tmp_path / "a.png"), 1.0, 2.0)
    assert set(drawn) == {
        *("mixture", "drums, separated", "drums, original", "bass, separated", "bass, original"),
    }
    for title, hz in (("drums, separated", 3_000), ("drums, original", 3_000), ("bass, original", 500)):
        assert drawn[title][0] == pytest.approx(hz, abs=RATE / plots.FRAME_SAMPLES)
        assert 0.9 < drawn[title][2][0] < 1.2 and 2.8 < drawn[title][2][1] < 3.1  # the second to the third second
    assert drawn["bass, separated"][1] < plots.LOWEST_DB
    picture = matplotlib.image.imread(tmp_path / "a.png")
    assert picture.shape[0] > 400 and picture.std() > 0.05


def run(*arguments):
    command = [sys.executable, "-m", "sourcesep.plots", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_draws_a_picture_and_says_in_one_line_what_is_wrong(folder, tmp_path):
    assert run(folder, tmp_path / "a.png", "--start_s=1").returncode == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    for arguments, message in (
        ((folder, tmp_path / "b.png"), "mixture.wav: lasts 4.0 s; lower --start_s=20"),
        ((tmp_path, tmp_path / "b.png"), "holds no reference/*.wav"),
        ((folder,), "name a folder of separate.py"),
    ):
        done = run(*arguments)
        assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_stem_that_is_missing_is_named(folder, tmp_path):
    (folder / "bass.wav").unlink()
    with pytest.raises(InputError, match="bass.wav: no such file"):
        plots.plot_separation(str(folder), str(tmp_path / "a.png"), 1.0, 2.0)


def test_rows_of_waveforms_become_one_picture():
    picture = plots.spectrograms_image([{"a": tone(500), "b": tone(100)}, {"a": tone(500)}], RATE)
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    assert picture.std() > 10
