import json
import os
import socket
import subprocess
import sys

import h5py
import numpy as np
import pytest
from conftest import ROOT, change

from data_gen import InputError
from sourcesep.models import build
from sourcesep.run_dir import RunDir


@pytest.fixture
def run(config, tmp_path):
    run = RunDir(tmp_path / "run")
    run.create_or_resume(config)
    run.save_weights(build(config))
    return run


def place_of_an_array(path):
    """Where in the file the values of some weights begin."""
    arrays = []
    with h5py.File(path) as file:
        file.visititems(lambda _, item: arrays.append(item) if isinstance(item, h5py.Dataset) else None)
        return max(arrays, key=lambda item: item.size).id.get_offset()


def truncate(data, place):
    del data[len(data) // 2 :]


def flip_a_bit(data, place):
    data[place + 5] ^= 0x10


def zero_a_page(data, place):
    data[place : place + 64] = bytes(64)


def replace_by_text(data, place):
    data[:] = b"hello"


def empty(data, place):
    data.clear()


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, zero_a_page, replace_by_text, empty])
def test_damaged_weights_are_refused_before_use(run, damage):
    data = bytearray(run.weights.read_bytes())
    damage(data, place_of_an_array(run.weights))
    run.weights.write_bytes(data)
    with pytest.raises(InputError, match=r"best.weights.h5: damaged.*restore it, or train again"):
        run.model()


def test_weights_that_were_written_without_a_checksum_are_taken(run, config):
    model = build(config)
    model.save_weights(run.weights)
    for mine, theirs in zip(run.model().get_weights(), model.get_weights()):
        np.testing.assert_array_equal(mine, theirs)


def test_saved_weights_come_back(run, config):
    model = build(config)
    run.save_weights(model)
    for mine, theirs in zip(run.model().get_weights(), model.get_weights()):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.filterwarnings("ignore:Skipping nested container")  # Keras announces what it then fails at
@pytest.mark.parametrize("changes", [{"filters": 9}, {"stacks": 3}, {"stacks": 1}, {"model": "tasnet"}])
def test_weights_of_another_model_are_refused(run, config, changes):
    (run.path / "config.json").write_text(change(config, **changes).to_json())
    with pytest.raises(InputError, match="best.weights.h5: .*not the weights of the model in config.json"):
        run.model()


def test_missing_weights_are_named_with_the_command_that_writes_them(run):
    run.weights.unlink()
    for ask in (run.check_weights, run.model):
        with pytest.raises(InputError, match="run: no weights there yet .*train.py --run_dir"):
            ask()


def test_a_run_of_another_version_is_refused_by_the_names_of_its_fields(run):
    path = run.path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "heads": 8, "attention": "full"}))
    with pytest.raises(
        InputError, match="config.json: .*another version .*attention, heads.*use that version, or train"
    ):
        run.config()


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"sample_rate": "x"}', '{"model": "resnet"}', "\ufeff\x00"])
def test_a_damaged_config_is_refused_by_name(run, text):
    (run.path / "config.json").write_text(text)
    with pytest.raises(InputError, match="config.json: damaged, or written by another version"):
        run.config()


def test_a_setting_that_contradicts_the_run_is_refused_by_name_and_others_are_taken_over(run, config):
    longer = change(config, steps=99, minutes=3.0)
    run.create_or_resume(longer)
    with pytest.raises(InputError, match="--filters=9 contradicts.*started with 8"):
        run.create_or_resume(change(config, filters=9))
    assert run.config() == longer


TRAIN_ELSEWHERE = """
import sys, time
from sourcesep.run_dir import RunDir
with RunDir(sys.argv[1]).locked():
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_second_training_is_refused_until_the_first_one_is_killed(tmp_path):
    run = RunDir(tmp_path / "run")
    command = [sys.executable, "-c", TRAIN_ELSEWHERE, str(run.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as other:
        assert other.stdout.readline() == "locked\n"
        expected = f"run: process {other.pid} on {socket.gethostname()} is training there; wait until it ends"
        for _ in range(2):
            with pytest.raises(InputError, match=expected), run.locked():
                pytest.fail("two at once")
        other.kill()
    with run.locked():
        pass
    with run.locked(), pytest.raises(InputError, match=f"process {os.getpid()}"), RunDir(run.path).locked():
        pytest.fail("two in one process")


def test_a_folder_that_cannot_be_locked_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="file/run: cannot create this folder"), RunDir(tmp_path / "file/run").locked():
        pytest.fail("it cannot be created")


def test_relative_paths_in_an_older_run_agree_with_the_same_paths_in_absolute_form(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = RunDir(tmp_path / "run")
    run.create_or_resume(change(config, midi_dir="songs/../midi"))
    run.create_or_resume(change(config, midi_dir=f"{tmp_path}/midi"))
    with pytest.raises(InputError, match="--midi_dir=/other contradicts the run"):
        run.create_or_resume(change(config, midi_dir="/other"))
