import os
import subprocess

import keras
import numpy as np
import pytest
import tensorflow as tf

from data_gen import InputError
from sourcesep.config import Config
from sourcesep.train.checkpoints import State
from sourcesep.train.schedule import make_optimizer


@pytest.fixture(params=["adam", "muon"])
def parts(request):
    """A model and its optimizer."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2)])
    optimizer = make_optimizer(Config(optimizer=request.param, average=0.9), 0.1, model)
    optimizer.build(model.trainable_variables)
    return model, optimizer


def fill(parts, value):
    for variable in (*parts[0].variables, *parts[1].variables):
        variable.assign(np.full(variable.shape, value, variable.dtype))


def saved(folder, parts, *steps):
    """The state after it was saved at these steps, all variables being the step."""
    state = State(folder, *parts)
    for step in steps:
        while state.step < step:
            state.record_step(next_visit=10 * step, trained_s=2.5 * step)
        fill(parts, step)
        state.save()
    return state


def test_everything_comes_back(tmp_path, parts):
    state = saved(tmp_path, parts, 3)
    state.reuse.assign(2)
    assert state.record_validation(0.5)
    assert not state.record_validation(0.6)
    state.save()
    fill(parts, 0)
    other = State(tmp_path, *parts)
    assert other.restore()
    assert (other.step, other.trained_s, other.next_visit, int(other.reuse), other.n_worse) == (3, 7.5, 30, 2, 1)
    assert not other.record_validation(0.55)
    for variable in (*parts[0].variables, *parts[1].variables):
        np.testing.assert_array_equal(variable, np.full(variable.shape, 3, variable.dtype))


def test_a_checkpoint_of_version_0_1_0_which_has_no_training_time_is_restored(tmp_path, parts):
    """Its names and types, for the cosine schedule, which Keras computed then."""
    model, _ = parts
    schedule = keras.optimizers.schedules.CosineDecay(0.0, 10, warmup_target=0.1, warmup_steps=2)
    optimizer = keras.optimizers.Adam(schedule, use_ema=True)
    optimizer.build(model.trainable_variables)
    fill((model, optimizer), 4)
    tf.train.Checkpoint(
        model=model,
        optimizer=optimizer,
        step=tf.Variable(4, dtype=tf.int64),
        next_visit=tf.Variable(40, dtype=tf.int64),
        reuse=tf.Variable(2, dtype=tf.int64),
        best_loss=tf.Variable(0.5, dtype=tf.float64),
        n_worse=tf.Variable(1, dtype=tf.int64),
    ).write(str(tmp_path / "step-4" / "state"))
    config = Config(schedule="cosine", average=0.9)
    parts = model, make_optimizer(config, lambda: tf.constant(0.1), model)
    parts[1].build(model.trainable_variables)
    fill(parts, 0)
    state = State(tmp_path, *parts)
    assert state.restore()
    assert (state.step, state.trained_s, state.next_visit, state.n_worse) == (4, 0.0, 40, 1)
    for variable in (*parts[0].variables, *parts[1].variables):
        np.testing.assert_array_equal(variable, np.full(variable.shape, 4, variable.dtype))


def test_an_empty_folder_restores_nothing(tmp_path, parts):
    assert not State(tmp_path / "new", *parts).restore()


@pytest.mark.parametrize("part", ["index", "data-00000-of-00001"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_checkpoint_that_was_cut_off_is_left_aside_for_the_one_before(tmp_path, parts, part, kept):
    saved(tmp_path, parts, 1, 2)
    path = tmp_path / "step-2" / f"state.{part}"
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    state = State(tmp_path, *parts)
    assert state.restore()
    assert state.step == 1
    np.testing.assert_array_equal(parts[0].variables[0], np.ones((1, 2)))


def test_what_a_kill_left_half_written_is_not_read(tmp_path, parts):
    saved(tmp_path, parts, 1)
    (tmp_path / "step-1").rename(tmp_path / "partial")
    assert not State(tmp_path, *parts).restore()


def test_only_the_newest_are_kept(tmp_path, parts):
    saved(tmp_path, parts, 1, 9, 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-10", "step-9"]
    assert State(tmp_path, *parts).newest == tmp_path / "step-10"


def test_when_no_checkpoint_can_be_read_it_says_so(tmp_path, parts):
    saved(tmp_path, parts, 1, 2)
    for path in tmp_path.glob("step-*/state.index"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="no checkpoint can be read"):
        State(tmp_path, *parts).restore()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk_is_said_and_the_checkpoints_that_are_there_stay_good(tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        model = keras.Sequential([keras.Input((300,)), keras.layers.Dense(300)])  # 1.1 MB with its moments
        optimizer = keras.optimizers.Adam(0.1)
        optimizer.build(model.trainable_variables)
        state = saved(tmp_path, (model, optimizer), 1)
        (tmp_path / "other").write_bytes(bytes(2**20))
        fill((model, optimizer), 2)
        state.record_step(20, 5.0)
        with pytest.raises(InputError, match="cannot write a checkpoint"):
            state.save()
        other = State(tmp_path, model, optimizer)
        assert other.restore()
        assert other.step == 1
        np.testing.assert_array_equal(model.variables[0], np.ones((300, 300)))
        (tmp_path / "other").unlink()
        state.save()
    finally:
        subprocess.run(["umount", tmp_path], check=True)
