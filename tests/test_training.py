import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import types

import keras
import mido
import numpy as np
import psutil
import pytest
import tensorflow as tf
from absl import logging
from conftest import ROOT, as_flags
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data_gen import InputError
from data_gen.workers import Workers
from sourcesep.models import MODELS, build
from sourcesep.models.receptive_field import receptive_field
from sourcesep.run_dir import RunDir
from sourcesep.sources import start_workers
from sourcesep.train import training, validation
from sourcesep.train.devices import peak_memory_mb
from sourcesep.train.dry_run import dry_run
from sourcesep.train.losses import make_loss
from sourcesep.train.validation import Excerpts


@pytest.fixture(scope="module")
def before(config, tmp_path_factory):
    """A run of three steps, to read from."""
    run_dir = tmp_path_factory.mktemp("runs") / "before"
    training.train(config, run_dir)
    return run_dir


def test_a_run_leaves_a_config_a_checkpoint_weights_and_tensorboard_events(config, tmp_path, monkeypatch):
    monkeypatch.setattr(validation, "N_EXCERPTS", 4)
    config = dataclasses.replace(config, steps=10, validate_every=5)
    trained = training.train(config, tmp_path)
    run = RunDir(tmp_path)
    assert (trained.step, trained.interrupted, trained.stopped_early) == (10, False, False)
    assert trained.memory_mb > 100
    assert run.config() == config
    assert run.model()(np.zeros((1, 100, 1), np.float32)).shape == (1, 100, 2)
    tensors = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0}).Reload().Tags()["tensors"]
    assert {"loss", "wait_share", "learning_rate", "memory_mb", "validation/loss"} <= set(tensors)
    for excerpt in range(4):
        assert {f"excerpt{excerpt}", f"excerpt{excerpt}/mixture", f"excerpt{excerpt}/bass/separated"} <= set(tensors)


def stored(run_dir, step, variable):
    """What a checkpoint of a run holds under this name."""
    path = RunDir(run_dir).checkpoints / f"step-{step}" / "state"
    return tf.train.load_variable(str(path), f"{variable}/.ATTRIBUTES/VARIABLE_VALUE")


def test_a_resumed_run_goes_on_where_it_stood(config, before, tmp_path):
    shutil.copytree(before, tmp_path, dirs_exist_ok=True)
    same = training.train(config, tmp_path)
    assert (same.step, same.loss) == (3, None)
    for old, new in zip(RunDir(before).model().get_weights(), RunDir(tmp_path).model().get_weights()):
        np.testing.assert_array_equal(old, new)
    more = training.train(dataclasses.replace(config, steps=5), tmp_path)
    assert more.step == 5
    assert stored(tmp_path, 5, "optimizer/_iterations") == 5
    assert stored(tmp_path, 5, "next_visit") > 3


def test_a_run_starts_from_the_weights_of_another_wherever_a_layer_is_the_same(config, before, tmp_path):
    # Steps too small to move a weight; one stem more, so that the last layer has another shape.
    still = dataclasses.replace(config, start_from=str(before), steps=1, learning_rate=1e-12)
    before = RunDir(before).model()
    training.train(still, tmp_path / "same")
    three = (*config.instruments, "piano")
    training.train(dataclasses.replace(still, instruments=three, targets=()), tmp_path / "more")
    same, more = (RunDir(tmp_path / name).model() for name in ("same", "more"))
    for old, new in zip(before.get_weights(), same.get_weights()):
        np.testing.assert_allclose(old, new, atol=1e-6)
    for layer in before.layers:
        for old, new in zip(layer.get_weights(), more.get_layer(layer.name).get_weights()):
            if layer.name == "stems":
                assert old.shape != new.shape
            else:
                np.testing.assert_allclose(old, new, atol=1e-6)


def test_a_run_that_started_from_another_goes_on_from_its_own_checkpoint(config, before, tmp_path):
    moved = dataclasses.replace(config, start_from=str(before), learning_rate=0.1)
    training.train(moved, tmp_path / "after")
    weights = RunDir(tmp_path / "after").model().get_weights()
    training.train(dataclasses.replace(moved, steps=4, learning_rate=1e-12), tmp_path / "after")
    for old, new in zip(weights, RunDir(tmp_path / "after").model().get_weights()):
        np.testing.assert_allclose(old, new, atol=1e-6)


def test_a_run_that_cannot_be_started_from_is_refused_before_anything_is_written(config, tmp_path):
    for start_from, reason in (
        (str(tmp_path / "none"), "none: no run directory"),
        ("pretrained", "pretrained: a bandnet that shares no layer with this model"),
    ):
        with pytest.raises(InputError, match=reason):
            training.train(dataclasses.replace(config, start_from=start_from), tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_the_same_seed_trains_the_same_weights(config, before, tmp_path):
    training.train(config, tmp_path)
    for a, b in zip(RunDir(before).model().get_weights(), RunDir(tmp_path).model().get_weights()):
        np.testing.assert_allclose(a, b, atol=1e-6)


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


def test_a_dry_run_says_what_to_expect_and_writes_nothing(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tried = dry_run(dataclasses.replace(config, steps=0))
    assert tried.parameters == build(config).count_params()
    assert tried.receptive_field_ms == 1_000 * receptive_field(build(config)).samples / 8_000
    assert 0 < tried.step_s < tried.first_step_s
    assert not list(tmp_path.iterdir())


def test_the_best_validated_weights_are_kept_and_training_ends_when_they_get_no_better(config, tmp_path, monkeypatch):
    monkeypatch.setattr(validation, "N_SHOWN", 0)  # pictures take most of the time
    monkeypatch.setattr(validation, "N_EXCERPTS", 4)
    worse = dataclasses.replace(config, steps=40, validate_every=2, patience=3, learning_rate=0.3)
    trained = training.train(worse, tmp_path)
    assert trained.stopped_early
    assert trained.step < 40
    assert stored(tmp_path, trained.step, "n_worse") == 3
    best_loss = stored(tmp_path, trained.step, "best_loss")
    with start_workers(worse) as workers:
        excerpts = Excerpts([workers.chunker.source], False, worse.targets)
    scores, _ = excerpts.score(RunDir(tmp_path).model(), make_loss("mae"))
    assert scores.loss == pytest.approx(best_loss, rel=1e-4)
    assert scores.loss < trained.scores.loss


# ---- Bounded by time ------------------------------------------------------------------------------------------------
class Clock:
    """A clock that goes on by the same time whenever it is read."""

    def __init__(self, tick_s):
        self.tick_s, self.now_s = tick_s, 0.0

    def __call__(self):
        self.now_s += self.tick_s
        return self.now_s


def train_by_the_clock(config, run_dir, clock):
    with start_workers(config) as workers:
        return training.Trainer(config, run_dir, workers, clock).run()


def read_scalars(run_dir, name):
    """The values of a curve in TensorBoard's events, by step."""
    events = EventAccumulator(str(run_dir), size_guidance={"tensors": 0}).Reload().Tensors(name)
    return {event.step: float(tf.make_ndarray(event.tensor_proto)) for event in events}


def test_minutes_end_training_and_the_schedule_follows_the_clock_to_zero(config, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SCALARS_EVERY_STEPS", 1)
    config = dataclasses.replace(config, steps=-1, minutes=1.0, schedule="cosine", validate_every=1_000)
    trained = train_by_the_clock(config, tmp_path, Clock(0.5))
    assert (trained.interrupted, trained.stopped_early) == (False, False)
    rates = list(read_scalars(tmp_path, "learning_rate").values())
    assert len(rates) == trained.step > 10
    peak = int(np.argmax(rates))
    assert 0 < peak < trained.step / 4
    assert all(np.diff(rates[peak:]) < 0)
    assert rates[peak] == pytest.approx(config.learning_rate, rel=0.1)
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert 60 <= stored(tmp_path, trained.step, "trained_s") < 70
    assert trained.scores is not None  # validated after the last step
    assert RunDir(tmp_path).model()(np.zeros((1, 100, 1), np.float32)).shape == (1, 100, 2)


def test_minutes_count_the_time_before_a_resume(config, tmp_path):
    config = dataclasses.replace(config, steps=-1, minutes=1.0)
    first = train_by_the_clock(config, tmp_path, Clock(1.0))
    more = train_by_the_clock(dataclasses.replace(config, minutes=1.5), tmp_path, Clock(1.0))
    assert first.step / 3 < more.step - first.step < 2 * first.step / 3
    again = train_by_the_clock(dataclasses.replace(config, minutes=1.5), tmp_path, Clock(1.0))
    assert (again.step, again.loss) == (more.step, None)


def test_whichever_of_steps_and_minutes_is_reached_first_ends_training(config, tmp_path):
    for steps, minutes, tick_s in ((4, 1.0, 0.01), (100, 1.0, 2.0)):
        both = dataclasses.replace(config, steps=steps, minutes=minutes)
        trained = train_by_the_clock(both, tmp_path / str(steps), Clock(tick_s))
        assert trained.step == 4 if steps == 4 else 0 < trained.step < 20


# ---- What cannot be used --------------------------------------------------------------------------------------------
def build_with_a_mean_over_time(config, mixture, condition=None):
    """A model that no window can compute, since every sample depends on all others."""
    mean = keras.layers.GlobalAveragePooling1D(keepdims=True, name="mean_over_time")(mixture)
    return keras.layers.Conv1D(2, 1, name="stems")(keras.layers.Subtract()([mixture, mean]))


def test_a_model_without_a_known_receptive_field_is_refused_before_anything_is_written(config, tmp_path, monkeypatch):
    model = types.ModuleType("model_of_a_test")
    model.build = build_with_a_mean_over_time
    monkeypatch.setitem(sys.modules, "model_of_a_test", model)
    monkeypatch.setitem(MODELS, "wavenet", "model_of_a_test")
    for call in (lambda: training.train(config, tmp_path / "run"), lambda: dry_run(config)):
        with pytest.raises(InputError, match="mean_over_time"):
            call()
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not record the peak")
def test_the_peak_memory_stays_when_memory_is_freed():
    array = np.ones(300 * 2**20 // 8)
    with_array_mb = psutil.Process().memory_info().rss / 2**20
    del array
    freed_mb = with_array_mb - psutil.Process().memory_info().rss / 2**20
    assert freed_mb > 250
    assert peak_memory_mb() > with_array_mb - 1  # the kernel counts pages in batches


class BadChunks(Workers):
    """Renders chunks that hold NaN from visit 2 on."""

    def __next__(self):
        visit = super().__next__()
        return visit._replace(stems=np.full_like(visit.stems, np.nan)) if visit.index >= 2 else visit


def test_updates_by_bad_chunks_are_left_out_and_the_run_stops_with_the_last_good_checkpoint(config, tmp_path, caplog):
    config = dataclasses.replace(config, steps=500, checkpoint_minutes=0.0, validate_every=0, pool_chunks=1)
    logging.get_absl_logger().addHandler(caplog.handler)
    try:
        with start_workers(config) as workers:
            with pytest.raises(InputError, match="diverged: 20 updates.*checkpoint: .*step-.*learning_rate"):
                training.train(config, tmp_path, BadChunks(workers.chunker, 0))
    finally:
        logging.get_absl_logger().removeHandler(caplog.handler)
    assert "visit 2" in caplog.text
    for values in RunDir(tmp_path).model().get_weights():
        assert np.isfinite(values).all()


class Stuck(Workers):
    """Has two visits; the next one does not come until this is closed."""

    closed = threading.Event()
    was_closed = None

    def _take_visit(self):
        if self.next_visit < 2:
            return super()._take_visit()
        self.was_closed = self.closed.wait(60)
        self.closed.set()  # so that nothing waits again
        raise InputError("the visit did not come")

    def close(self):
        super().close()
        self.closed.set()


def test_the_end_of_a_training_does_not_wait_for_a_visit(config, tmp_path):
    config = dataclasses.replace(config, steps=5, validate_every=0, pool_chunks=1)
    with start_workers(config) as workers, Stuck(workers.chunker, 0) as stuck:
        assert training.train(config, tmp_path, stuck).step == 5
    assert stuck.was_closed


def started(run_dir, flags, until, **popen):
    """A train.py process that has shown `until` on its standard error."""
    process = subprocess.Popen(
        [sys.executable, "train.py", f"--run_dir={run_dir}", *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **popen,
    )
    shown = ""
    while until not in shown:
        character = process.stderr.read(1)
        assert character, shown
        shown += character
    return process


def test_a_run_killed_at_any_moment_goes_on_from_its_last_checkpoint(config, tmp_path):
    flags = as_flags(config, steps=100_000, checkpoint_minutes=0.0, validate_every=0)
    process = started(tmp_path / "run", flags, until="waits")
    time.sleep(1.0)
    os.killpg(process.pid, signal.SIGKILL)  # it writes checkpoints all the time, so that the kill hits one
    process.communicate()
    newest = max(int(path.name[5:]) for path in (tmp_path / "run" / "checkpoints").glob("step-*"))
    config = dataclasses.replace(config, steps=newest + 3, checkpoint_minutes=0.0, validate_every=0)
    trained = training.train(config, tmp_path / "run")
    assert trained.step == newest + 3
    assert round(trained.steps_per_s * trained.seconds) == 3
    for values in RunDir(tmp_path / "run").model().get_weights():
        assert np.isfinite(values).all()


def group_lives(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_ctrl_c_saves_and_leaves_no_process_behind(config, tmp_path):
    process = started(tmp_path / "run", as_flags(config, steps=1_000_000, workers=2), until="loss")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the render processes too
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Repeat the command to resume" in output
    assert "Traceback" not in errors
    deadline = time.monotonic() + 20
    while group_lives(process.pid):  # Python's resource tracker ends itself a moment after its parent
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("step-*")
    assert stored(tmp_path / "run", int(checkpoint.name[5:]), "step") > 0
    assert np.isfinite(RunDir(tmp_path / "run").model()(np.zeros((1, 100, 1), np.float32))).all()
