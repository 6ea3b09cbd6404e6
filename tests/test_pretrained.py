import dataclasses
import os
import re

import h5py
import numpy as np
import pytest
from absl import flags
from conftest import SOUNDFONT
from helpers import make_run

from data_gen import InputError
from sourcesep import metrics
from sourcesep.config import Config, define_flags
from sourcesep.evaluate import songs
from sourcesep.evaluate.scores import ROWS, ZEROS
from sourcesep.models import build
from sourcesep.run_dir import PRETRAINED, RunDir
from sourcesep.separate.separation import Separator
from tools.average_runs import average_runs
from tools.package_model import COMMANDS, list_commands, list_sittings, make_card, pack_weights, without_origin


@pytest.fixture
def packed(config, tmp_path):
    """(the model, the run directory of its packed weights)."""
    model = build(config)
    run = RunDir(tmp_path / "run")
    run.create_or_resume(config)
    model.save_weights(tmp_path / "model.weights.h5")
    pack_weights(tmp_path / "model.weights.h5", run.weights)
    return model, run


def test_packed_weights_are_those_of_the_model_to_float16(packed):
    model, run = packed
    for before, after in zip(model.weights, run.model().weights):
        assert after.dtype == "float32"
        np.testing.assert_array_equal(np.float16(before), np.asarray(after))


def test_damaged_packed_weights_are_refused(packed):
    _, run = packed
    with h5py.File(run.weights) as file:
        arrays = []
        file.visititems(lambda _, item: arrays.append(item) if isinstance(item, h5py.Dataset) else None)
        chunk = max(arrays, key=lambda item: item.size).id.get_chunk_info(0)
    data = bytearray(run.weights.read_bytes())
    data[chunk.byte_offset + chunk.size // 2] ^= 0x10
    run.weights.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        run.model()


def test_a_card_lists_the_commands_of_all_sittings_once():
    card = "# A card\n\n" + list_commands("", "first\n")
    assert card.endswith(COMMANDS + "first\n")
    again = list_commands(card, "second\n")
    assert again == COMMANDS + "first\n\nsecond\n"
    assert list_commands(again, "second\n") == again


@pytest.fixture
def card(config, tmp_path):
    """(the config of a run, the card of its model)."""
    config = dataclasses.replace(config, soundfonts=("/somewhere/FluidR3_GM.sf2",))
    run = make_run(config, tmp_path / "run")
    statistics = {
        row: {"sdr_db": {"median": 1.25}, "residual_dbfs": {"mean": -40.4}, "gain_over_constant_db": {"median": 0.75}}
        for row in ROWS
    }
    statistics[ZEROS] = {"sdr_db": {"median": None}, "residual_dbfs": {"mean": None}}
    scored = {
        "summary": {"a.sf2 (heard in training)": dict.fromkeys(config.stem_names, statistics)},
        "found": {},
        "leakage": {"a.sf2 (heard in training)": {"drums": {"drums": 0.7, "bass": 0.254}}},
        "pieces": [{"name": "one"}, {"name": "two"}, {"name": "one"}],
        "command": "evaluate.py --pieces=2",
    }
    return config, make_card(config, run, [scored], "# the card before")


def test_the_card_has_the_scores_of_the_model_and_the_anchors_and_the_licences(card):
    _, text = card
    assert "| a.sf2 (heard in training): model | 1.2 (-40) | 1.2 (-40) |" in text
    assert "| a.sf2 (heard in training): constant | 1.2 (-40) | 1.2 (-40) |" in text
    assert "| a.sf2 (heard in training): **model over constant** | 0.8 | 0.8 |" in text
    assert "| a.sf2 (heard in training) | drums | bass |\n|---|---|---|\n| drums | 70 % | 25 % |" in text
    assert "Medians over 2 songs" in text and "python evaluate.py --pieces=2" in text
    assert "- FluidR3_GM.sf2: Frank Wen; MIT" in text and "/somewhere" not in text


def test_the_command_in_the_card_gives_the_config_of_the_run(card):
    config, text = card
    (command,) = re.findall(r"^    python (train\.py .*)$", text, re.MULTILINE)
    known = flags.FlagValues()
    define_flags(known)
    known(command.split())
    midi_dir = config.midi_dir and os.path.abspath(os.path.basename(config.midi_dir))
    paths = {"midi_dir": midi_dir, "soundfonts": (os.path.abspath("FluidR3_GM.sf2"),)}
    expected = dataclasses.replace(config, **paths)
    assert Config.from_flags(known) == expected


def test_the_trainings_of_a_run_that_began_with_another_are_listed_in_their_order(config, tmp_path):
    first = dataclasses.replace(config, soundfonts=("/somewhere/FluidR3_GM.sf2",), start_from="pretrained")
    make_run(first, tmp_path / "first")
    second = dataclasses.replace(first, soundfonts=("procedural",), start_from=str(tmp_path / "first"))
    one, two = list_sittings(make_run(second, tmp_path / "second"))
    assert one.start_from_package and one.soundfonts == ["FluidR3_GM.sf2"] and "--start_from=pretrained" in one.text
    assert not two.start_from_package and two.soundfonts == ["procedural"] and "--start_from=runs/first" in two.text


def test_the_card_of_a_blind_model_says_what_it_finds_and_leaves_out_what_is_nowhere(config, tmp_path):
    config = dataclasses.replace(config, blind=True, require="any", soundfonts=("/somewhere/FluidR3_GM.sf2",))
    found = {
        "drums": {"n_present": 4, "n_found": 5, "precision": 0.8, "recall": 1.0},
        "bass": {"n_present": 0, "n_found": 0, "precision": None, "recall": None},
    }
    shares = {"drums": {"drums": 0.7, "bass": 0.3}, "bass": {"drums": None, "bass": None}}
    scored = {"summary": {}, "leakage": {"a.sf2": shares}, "found": {"a.sf2": found}, "pieces": [], "command": ""}
    text = make_card(config, make_run(config, tmp_path / "run"), [scored], "")
    assert "| drums | 4 | 5 | 80 % | 100 % |" in text and "| drums | 70 % | 30 % |" in text
    assert "| bass |" not in text.replace("| drums | bass |", "")
    assert "--blind song.wav" in text and "docs/pretrained" not in text


def test_a_soundfont_of_unknown_licence_is_refused(config, tmp_path):
    run = make_run(config, tmp_path / "run")
    with pytest.raises(InputError, match="TimGM6mb.sf2: unknown licence"):
        make_card(config, run, [{"summary": {}, "leakage": {}, "found": {}, "pieces": [], "command": ""}], "")


def test_the_card_names_whose_recordings_were_heard(config, tmp_path):
    values = {"soundfonts": ("procedural",), "remix": 0.5}
    name = config.instrument_names[0]
    scored = {"summary": {}, "leakage": {}, "found": {}, "pieces": [], "command": ""}
    with_solos = dataclasses.replace(config, solo_dir=(f"{name}:/somewhere/solo/winds",), **values)
    text = make_card(with_solos, make_run(with_solos, tmp_path / "known"), [scored], "")
    assert "- solo/winds: Philharmonia Orchestra" in text and "mixed with the recordings" in text
    assert f"--solo_dir={name}:winds" in text and "/somewhere" not in text
    others = dataclasses.replace(config, solo_dir=(f"{name}:/somewhere/mine",), **values)
    with pytest.raises(InputError, match="somewhere/mine: unknown licence"):
        make_card(others, make_run(others, tmp_path / "unknown"), [scored], "")


def shifted(config, path, by):
    """A run in which every weight is greater than in `make_run` by the same number."""
    run = make_run(config, path)
    model = run.trained_model()
    for weight in model.weights:
        weight.assign(weight + by)
    run.save_weights(model)
    return run


def test_the_mean_of_runs_and_the_trainings_behind_it(config, tmp_path):
    config = dataclasses.replace(config, soundfonts=("/somewhere/FluidR3_GM.sf2",))
    first = make_run(config, tmp_path / "first")
    later = dataclasses.replace(config, start_from=str(first.path))
    second, third = shifted(later, tmp_path / "second", 1.0), shifted(later, tmp_path / "third", 3.0)
    second.jax_training.write_text('{"steps": 70, "seconds": 300.0, "device": "a GPU"}')
    mean = RunDir(tmp_path / "mean")
    average_runs({str(second.path): 2.0, str(third.path): 1.0, str(first.path): 1.0}, mean)
    for weight, old in zip(mean.trained_model().weights, first.trained_model().weights):
        np.testing.assert_allclose(weight, old + 0.5 * 1.0 + 0.25 * 3.0, atol=1e-6)
    texts = [
        sitting.text
        for sitting in list_sittings(make_run(dataclasses.replace(config, start_from=str(mean.path)), tmp_path / "end"))
    ]
    assert [text.split(":")[0] for text in texts] == [
        f"`runs/{name}`" for name in ("first", "second", "third", "mean", "end")
    ]
    assert texts[1].startswith(
        "`runs/second`: 70 steps in 5 minutes, a GPU:\n\n    KERAS_BACKEND=jax python train.py --"
    )
    assert "0.5 of `runs/second`, 0.25 of `runs/third`, 0.25 of `runs/first`" in texts[3]


def test_a_run_with_other_stems_counts_for_the_weights_that_it_has(tmp_path):
    settings = {"model": "bandnet", "sample_rate": 8_000, "filters": 4, "blocks": 1, "bands_per_octave": 2}
    instruments = ("drums", "bass", "piano")
    stereo = make_run(Config.from_values({**settings, "instruments": instruments, "channels": 2}), tmp_path / "stereo")
    mono = shifted(Config.from_values({**settings, "instruments": ("bass", "guitar")}), tmp_path / "mono", 1.0)
    mean = RunDir(tmp_path / "mean")
    average_runs({str(stereo.path): 3.0, str(mono.path): 1.0}, mean)
    assert mean.config() == stereo.config()
    before, theirs, after = (
        {weight.path: np.asarray(weight) for weight in run.trained_model().weights} for run in (stereo, mono, mean)
    )
    name = "stack0_block0/kernel"
    np.testing.assert_allclose(after[name], 0.75 * before[name] + 0.25 * theirs[name], atol=1e-6)
    before, theirs, after = (
        weights["join/bias0"].reshape(-1, n_channels, n_parts, weights["join/bias0"].shape[-1] // n_channels // n_parts)
        for weights, n_channels, n_parts in ((before, 2, 3), (theirs, 1, 2), (after, 2, 3))
    )
    np.testing.assert_allclose(after[:, :, [0, 2]], before[:, :, [0, 2]], atol=1e-6)  # drums and piano
    np.testing.assert_allclose(after[:, :, 1], 0.75 * before[:, :, 1] + 0.25 * theirs[:, :, 0], atol=1e-6)  # bass


def test_another_model_or_the_run_to_write_is_not_averaged(config, tmp_path):
    first = make_run(config, tmp_path / "first")
    other = make_run(Config.from_values({"model": "tasnet", "sample_rate": 8_000}), tmp_path / "other")
    with pytest.raises(InputError, match="other: its model is another than that of .*first"):
        average_runs({str(first.path): 0.5, str(other.path): 0.5}, RunDir(tmp_path / "mean"))
    with pytest.raises(InputError, match="names no run"):
        average_runs({}, RunDir(tmp_path / "mean"))
    assert not (tmp_path / "mean").exists()
    before = other.weights.read_bytes()
    with pytest.raises(InputError, match="is one of the runs"):
        average_runs({str(other.path): 1.0}, RunDir(tmp_path / "mean" / ".." / "other"))
    assert other.weights.read_bytes() == before


def test_the_packaged_config_names_no_folder_of_the_machine_that_trained_it(config):
    folders = {
        "midi_dir": "/here/midi",
        "stems_dir": ("/here/songs",),
        "midi_share": 0.5,
        "solo_dir": (f"{config.instrument_names[0]}:/here/solo",),
        "remix": 0.5,
        "soundfonts": ("/here/a.sf2",),
        "validate_soundfonts": ("/here/b.sf2",),
        "validate_stems_dir": ("/here/test",),
        "start_from": "/here/runs/before",
    }
    packaged = without_origin(dataclasses.replace(config, **folders))
    assert "/here" not in packaged.to_json() and packaged.remix == 0.5


def test_the_model_in_the_package_separates_songs_through_a_soundfont_that_was_not_used_in_its_training():
    run = RunDir(PRETRAINED)
    config, model = run.config(), run.model()
    improvements_db = {name: [] for name in config.stem_names}
    for lazy in songs.list_held_out(config, "", (SOUNDFONT,), 12, 5.0):
        song = lazy.load()
        stems = np.asarray(model(song.mixture[None])).reshape(*song.mixture.shape, -1)  # [time, channel, stem]
        for i, name in enumerate(config.stem_names):
            score = metrics.score_stem(song.references[name], stems[:, :, i], song.mixture, config.sample_rate)
            improvements_db[name].append(score["si_sdr_improvement_db"])
    # A constant share of the mixture can improve the SDR of a soft instrument, but never the SI-SDR.
    medians_db = {name: np.nanmedian(np.array(values, float)) for name, values in improvements_db.items()}
    for name, least_db in (("drums", 5.0), ("bass", 1.5), ("piano", 0.0)):
        assert medians_db[name] > least_db, medians_db


RECORDED = {  # by these weights: RMS of each stem, and its samples 12,000, 24,000 and 36,000 on the right
    "drums": (0.01415549, [0.014551, -0.005569, -0.012170]),
    "bass": (0.00130111, [0.001198, -0.000259, -0.001250]),
    "piano": (0.001061195, [0.000310, -0.000684, -0.000764]),
    "guitar": (0.003755168, [0.001894, -0.000524, -0.000932]),
    "strings": (0.00158289, [0.000723, -0.000566, -0.000729]),
    "other": (0.08793984, [0.112447, -0.051996, -0.136795]),
}


def test_the_stems_of_the_packaged_model_stay_what_they_were():
    noise = np.random.default_rng(0).standard_normal((48_000, 2)).astype(np.float32)
    brown = np.cumsum(noise, axis=0)
    samples = 0.3 * (brown - brown.mean(axis=0)) / np.abs(brown).max() + 0.02 * noise
    stems = Separator.from_run().separate(samples, 24_000)
    assert set(stems) == set(RECORDED)
    for name, (rms, some) in RECORDED.items():
        assert np.sqrt(np.square(stems[name], dtype=np.float64).mean()) == pytest.approx(rms, rel=1e-4)
        np.testing.assert_allclose(stems[name][[12_000, 24_000, 36_000], 1], some, atol=2e-6)
