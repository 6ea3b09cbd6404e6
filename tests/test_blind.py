"""The blind setting: separate.py finds out which stems a recording holds."""

import dataclasses

import numpy as np
import soundfile

from sourcesep import sources
from sourcesep.models import build
from sourcesep.run_dir import RunDir
from sourcesep.separate.blind import Finder
from sourcesep.separate.file_plan import FilePlan
from sourcesep.separate.inputs import SoundFile, play_held_out
from sourcesep.separate.separate_one import separate_one
from sourcesep.separate.separation import Separator


def find(mixture, stems, rate=100, block=37):
    finder = Finder([f"stem {number}" for number in range(stems.shape[2])], rate)
    for start in range(0, len(mixture), block):
        finder.add(mixture[start : start + block], stems[start : start + block])
        finder.found()  # may be asked at any time
    return finder.found()


def test_an_instrument_is_found_if_its_loudest_second_is_within_20_db_of_the_mixtures():
    mixture, stems = np.ones((450, 2)), np.zeros((450, 2, 4))
    stems[:, 0, 0] = 0.11  # in one channel
    stems[:, :, 1] = 0.09
    stems[200:300, :, 2] = 0.11  # for one second
    stems[200:240, :, 3] = 0.11  # for less
    assert find(mixture, stems) == ("stem 0", "stem 2")
    assert find(0 * mixture, stems) == ()
    assert find(mixture[:30], stems[:30]) == ("stem 0",)  # shorter than a second


def test_separating_blind_leaves_the_stems_that_were_found(config, tmp_path):
    config = dataclasses.replace(config, require="any", blind=True)
    run = RunDir(tmp_path / "run")
    run.create_or_resume(config)
    model = build(config)
    kernel, bias = model.get_layer("stems").get_weights()
    model.get_layer("stems").set_weights([kernel * [[[0.0, 1.0]]], np.array([0.0, 0.1])])  # drums are always silent
    run.save_weights(model)
    noise = 0.1 * np.random.default_rng(0).standard_normal(9_000)
    soundfile.write(tmp_path / "song.wav", noise, 8_000)
    separator, plan = Separator.from_run(run.path), FilePlan(str(tmp_path))
    result = separate_one(separator, SoundFile(str(tmp_path / "song.wav")), plan, "song", blind=True)
    assert (result.files, result.notes) == (("bass.wav",), ("found: bass",))
    assert [path.name for path in result.folder.iterdir()] == ["bass.wav"]
    song = play_held_out(sources.open_source(config), config, separator.stem_names)
    held_out = separate_one(separator, song, plan, "held out", blind=True)
    assert held_out.notes == ("found: bass",)
    assert sorted(path.name for path in held_out.folder.iterdir()) == ["bass.wav", "mixture.wav", "reference"]
