import h5py
import numpy as np
import pytest
from conftest import SOUNDFONT

from data_gen import InputError
from sourcesep import metrics
from sourcesep.evaluate import songs
from sourcesep.models import build
from sourcesep.run_dir import PRETRAINED, RunDir
from tools.package_model import COMMANDS, list_commands, pack_weights


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


def test_the_model_in_the_package_separates_songs_through_a_soundfont_that_was_not_used_in_its_training():
    run = RunDir(PRETRAINED)
    config, model = run.config(), run.model()
    improvements_db = {name: [] for name in config.stem_names}
    for lazy in songs.list_held_out(config, "", (SOUNDFONT,), 12, 5.0):
        song = lazy.load()
        stems = np.asarray(model(song.mixture.reshape(1, -1, 1)))[0]
        for name, stem in zip(config.stem_names, stems.T):
            score = metrics.score_stem(song.references[name], stem[:, None], song.mixture, config.sample_rate)
            improvements_db[name].append(score["si_sdr_improvement_db"])
    # A constant share of the mixture can improve the SDR of a soft instrument, but never the SI-SDR.
    medians_db = {name: np.nanmedian(np.array(values, float)) for name, values in improvements_db.items()}
    for name, least_db in (("drums", 5.0), ("bass", 1.5), ("piano", 0.0)):
        assert medians_db[name] > least_db, medians_db
