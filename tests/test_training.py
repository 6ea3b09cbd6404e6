import dataclasses
import os
import signal
import subprocess
import sys
import time

import mido
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data_gen import InputError
from sourcesep import training
from sourcesep.losses import make_loss
from sourcesep.models import build
from sourcesep.run_dir import RunDir


def test_training_on_one_batch_drives_its_loss_to_a_tenth(config):
    config = dataclasses.replace(config, context_ms=0.0, filters=16)
    time = np.arange(400) / 8_000
    stems = np.stack([np.sin(2 * np.pi * 100 * time), np.sin(2 * np.pi * 1500 * time)], axis=-1)[None].astype("float32")
    mixture = stems.sum(axis=2, keepdims=True)
    tf.keras.utils.set_random_seed(0)
    model = build(config)
    optimizer = tf.keras.optimizers.Adam(3e-3)
    optimizer.build(model.trainable_variables)
    step = training._make_step(model, optimizer, make_loss("mae", 2, 400), 0)
    first = float(step(mixture, stems))
    for _ in range(400):
        last = float(step(mixture, stems))
    assert last < 0.1 * first


def test_the_loss_ignores_the_context(config):
    model = build(config)
    optimizer = tf.keras.optimizers.Adam(0.0)
    optimizer.build(model.trainable_variables)
    step = training._make_step(model, optimizer, make_loss("mae", 2, 100), context_samples=50)
    rng = np.random.default_rng(0)
    mixture, stems = rng.standard_normal((1, 200, 1)), rng.standard_normal((1, 200, 2))
    outside = stems.copy()
    outside[:, :50] += 1e3
    outside[:, 150:] -= 1e3
    inside = stems.copy()
    inside[:, 50] += 1e3
    assert step(mixture.astype("f4"), stems.astype("f4")) == step(mixture.astype("f4"), outside.astype("f4"))
    assert step(mixture.astype("f4"), inside.astype("f4")) > 1.0


def test_a_run_leaves_a_config_a_checkpoint_weights_and_tensorboard_events(config, tmp_path):
    trained = training.train(dataclasses.replace(config, steps=10), tmp_path)
    run = RunDir(tmp_path)
    assert (trained.step, trained.interrupted) == (10, False)
    assert run.config() == dataclasses.replace(config, steps=10)
    assert run.model()(np.zeros((1, 100, 1), np.float32)).shape == (1, 100, 2)
    events = EventAccumulator(str(tmp_path), size_guidance={"audio": 0}).Reload()
    assert "loss" in events.Tags()["tensors"]
    assert "bass/estimate" in events.Tags()["tensors"]


def test_a_resumed_run_goes_on_where_it_stood(config, tmp_path):
    training.train(config, tmp_path)
    before = RunDir(tmp_path).model().get_weights()
    same = training.train(config, tmp_path)
    assert (same.step, same.loss) == (3, None)
    for old, new in zip(before, RunDir(tmp_path).model().get_weights()):
        np.testing.assert_array_equal(old, new)
    more = training.train(dataclasses.replace(config, steps=5), tmp_path)
    assert more.step == 5
    checkpoint = tf.train.latest_checkpoint(str(RunDir(tmp_path).checkpoints))
    assert tf.train.load_variable(checkpoint, "optimizer/_iterations/.ATTRIBUTES/VARIABLE_VALUE") == 5
    assert tf.train.load_variable(checkpoint, "next_visit/.ATTRIBUTES/VARIABLE_VALUE") > 3


def test_the_same_seed_trains_the_same_weights(config, tmp_path):
    training.train(config, tmp_path / "a")
    training.train(config, tmp_path / "b")
    for a, b in zip(RunDir(tmp_path / "a").model().get_weights(), RunDir(tmp_path / "b").model().get_weights()):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_flag_that_contradicts_the_run_is_refused_by_name(config, tmp_path):
    run = RunDir(tmp_path)
    run.create(config)
    run.create(dataclasses.replace(config, steps=99))
    with pytest.raises(InputError, match="--filters=9 contradicts.*begun with 8"):
        run.create(dataclasses.replace(config, filters=9))


def test_when_no_chunk_can_be_rendered_training_ends_with_the_reason(config, tmp_path):
    song = mido.MidiFile()
    for channel, start, length in ((9, 0, 1_000), (0, 20_000, 1_000)):  # drums, and long after them the bass
        track = song.add_track()
        track.append(mido.Message("program_change", channel=channel, program=33))
        track.append(mido.Message("note_on", channel=channel, note=40, velocity=90, time=start))
        track.append(mido.Message("note_off", channel=channel, note=40, time=length))
    (tmp_path / "midi").mkdir()
    song.save(tmp_path / "midi" / "alone.mid")
    alone = dataclasses.replace(config, midi_dir=str(tmp_path / "midi"), keep_solo=0.0, keep_silent=0.0)
    with pytest.raises(InputError, match="no training data"):
        training.train(alone, tmp_path / "run")


def test_damaged_weights_are_refused(config, tmp_path):
    run = RunDir(tmp_path)
    run.create(config)
    run.save_weights(build(config))
    data = run.weights.read_bytes()
    run.weights.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="best.weights.h5"):
        run.model()


def group_lives(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_ctrl_c_saves_and_leaves_no_process_behind(config, tmp_path):
    flags = [
        f"--{field.name}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
        for field in dataclasses.fields(config)
        for value in [getattr(dataclasses.replace(config, steps=1_000_000, workers=2), field.name)]
    ]
    process = subprocess.Popen(
        [sys.executable, "train.py", f"--run_dir={tmp_path}/run", *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    shown = ""
    while "loss" not in shown:  # the progress bar of a step that was made
        character = process.stderr.read(1)
        assert character, shown
        shown += character
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the render processes too
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "goes on from there" in output
    assert "Traceback" not in errors
    deadline = time.monotonic() + 20
    while group_lives(process.pid):  # Python's resource tracker ends itself a moment after its parent
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert RunDir(tmp_path / "run").model() is not None
