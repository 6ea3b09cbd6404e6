import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import change

from sourcesep.config import Config
from sourcesep.models import build
from sourcesep.train.losses import make_loss
from sourcesep.train.optimization import Stepper
from sourcesep.train.schedule import MAX_SKIPPED, SETTLING_STEPS, Guard, learning_rate_at, make_optimizer


def make_stepper(config, **changes):
    config = change(config, context_ms=0.0, **changes)
    tf.keras.utils.set_random_seed(0)
    return Stepper(build(config), make_loss("mae"), config)


@pytest.fixture
def batch():
    """Two tones and their sum."""
    time = np.arange(400) / 8_000
    stems = np.stack([np.sin(2 * np.pi * 100 * time), np.sin(2 * np.pi * 1500 * time)], axis=-1)[None].astype("float32")
    return stems.sum(axis=2, keepdims=True), stems


def weights_of(stepper):
    return np.concatenate([variable.numpy().ravel() for variable in stepper.model.trainable_variables])


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_training_on_one_batch_drives_its_loss_to_a_tenth(optimizer, config, batch):
    stepper = make_stepper(config, filters=16, optimizer=optimizer, learning_rate=3e-3)
    first = stepper.step(*batch).loss
    for _ in range(400):
        last = stepper.step(*batch).loss
    assert last < 0.1 * first


def test_the_loss_ignores_the_context(config):
    config = dataclasses.replace(config, context_ms=6.25, learning_rate=0.0)  # 50 samples
    stepper = Stepper(build(config), make_loss("mae"), config)
    rng = np.random.default_rng(0)
    mixture, stems = rng.standard_normal((1, 200, 1)).astype("f4"), rng.standard_normal((1, 200, 2)).astype("f4")
    outside, inside = stems.copy(), stems.copy()
    outside[:, :50] += 1e3
    outside[:, 150:] -= 1e3
    inside[:, 50] += 1e3
    loss = stepper.step(mixture, stems).loss
    assert stepper.step(mixture, outside).loss == loss
    assert stepper.step(mixture, inside).loss > loss + 1.0


def test_a_batch_with_nan_changes_nothing_and_the_next_one_trains(config, batch):
    stepper = make_stepper(config, average=0.9)
    stepper.step(*batch)
    before, moments = weights_of(stepper), [variable.numpy() for variable in stepper.optimizer.variables]
    mixture, stems = batch
    assert not stepper.step(mixture, stems * np.nan).taken
    np.testing.assert_array_equal(weights_of(stepper), before)
    for variable, value in zip(stepper.optimizer.variables, moments):
        np.testing.assert_array_equal(variable, value)
    assert stepper.step(*batch).taken
    assert (weights_of(stepper) != before).any()


def test_a_spike_is_refused_once_the_loss_has_settled():
    guard = Guard()
    assert guard.check_and_record(500.0, 1.0)  # beginnings are wild
    for _ in range(10 * SETTLING_STEPS):
        assert guard.check_and_record(1.0, 1.0)
    before = guard.smoothed
    assert not guard.check_and_record(11 * before, 1.0)
    assert guard.smoothed == before
    assert guard.check_and_record(3 * before, 1.0)


def test_a_loss_below_zero_is_no_spike_and_may_still_have_one():
    guard = Guard()
    for _ in range(10 * SETTLING_STEPS):
        assert guard.check_and_record(-1.0, 1.0)
    assert guard.check_and_record(0.5, 1.0)
    assert not guard.check_and_record(11.0, 1.0)


@pytest.mark.parametrize("loss, norm", [(np.nan, 1.0), (np.inf, 1.0), (1.0, np.nan), (1.0, np.inf)])
def test_what_is_no_number_is_refused_from_the_first_step_on_and_counted(loss, norm):
    guard = Guard()
    for count in range(1, MAX_SKIPPED + 1):
        assert not guard.check_and_record(loss, norm)
        assert guard.skipped == count
    assert guard.check_and_record(1.0, 1.0)
    assert guard.skipped == 0


def test_clipping_scales_the_gradients_to_their_norm(config, batch):
    free, clipped = make_stepper(config), make_stepper(config, clip_norm=1e-3)
    (free_signals, free_gradients), (signals, gradients) = (
        stepper._gradients(*batch, tf.constant([0.0, 0.0])) for stepper in (free, clipped)
    )
    assert free_signals[1] == signals[1] > 1e-3  # the norm that is reported is the one before clipping
    assert float(tf.linalg.global_norm(gradients)) == pytest.approx(1e-3, rel=1e-3)
    scale = 1e-3 / float(signals[1])
    for whole, part in zip(free_gradients, gradients):
        np.testing.assert_allclose(part, scale * whole, rtol=1e-3, atol=1e-9)


def test_the_average_follows_the_weights_by_its_decay_and_gives_them_back(config, batch):
    stepper = make_stepper(config, average=0.75)
    stepper.step(*batch)
    average = weights_of(stepper)
    for _ in range(5):
        stepper.step(*batch)
        average = 0.75 * average + 0.25 * weights_of(stepper)
    current = weights_of(stepper)
    with stepper.averaged():
        np.testing.assert_allclose(weights_of(stepper), average, atol=1e-6)
    np.testing.assert_array_equal(weights_of(stepper), current)
    assert np.abs(average - current).max() > 1e-4


def test_muon_changes_a_matrix_in_all_directions_alike_and_no_more_than_adam():
    rng = np.random.default_rng(0)
    shapes = {"matrix": (8, 24), "bands": (3, 24, 8), "bias": (3, 1, 8)}
    gradients = {}
    for name, shape in shapes.items():
        gradients[name] = np.float32(rng.standard_normal(shape) * 10.0 ** rng.uniform(-2, 0, shape[-1]))
    changes = {}
    for optimizer in ("adam", "muon"):
        config = Config(optimizer=optimizer, learning_rate=0.01)
        variables = [keras.Variable(np.zeros(shape, np.float32), name=name) for name, shape in shapes.items()]
        kept = make_optimizer(config, config.learning_rate, keras.Model())
        kept.build(variables)
        for _ in range(2):
            kept.apply_gradients([(tf.constant(gradients[v.name]), v) for v in variables])
        changes[optimizer] = {variable.name: variable.numpy() for variable in variables}
    assert np.linalg.cond(gradients["matrix"]) > 10
    for name in ("matrix", "bands"):
        change = changes["muon"][name]
        assert np.linalg.cond(change).max() < 3
        assert (np.sum(change * gradients[name], axis=(-2, -1)) < 0).all()
        assert 0.1 < np.square(change).mean() ** 0.5 / np.square(changes["adam"][name]).mean() ** 0.5 < 0.4
    np.testing.assert_allclose(changes["muon"]["bias"], changes["adam"]["bias"], rtol=1e-3)


def test_muon_follows_the_average_of_gradients_and_not_a_small_one_that_is_odd():
    gradient = np.random.default_rng(0).standard_normal((8, 24)).astype(np.float32)
    variable = keras.Variable(np.zeros((8, 24), np.float32), name="matrix")
    optimizer = make_optimizer(Config(optimizer="muon", learning_rate=0.01), 0.01, keras.Model())
    optimizer.build([variable])
    for _ in range(20):
        optimizer.apply_gradients([(tf.constant(gradient), variable)])
    before = variable.numpy()
    optimizer.apply_gradients([(tf.constant(-0.3 * gradient), variable)])
    assert np.sum((variable.numpy() - before) * gradient) < 0


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_weight_decay_shrinks_kernels_and_leaves_biases(optimizer, config):
    stepper = make_stepper(config, optimizer=optimizer, weight_decay=0.1, learning_rate=0.5)
    for variable in stepper.model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    zeros = [tf.zeros(variable.shape) for variable in stepper.model.trainable_variables]
    stepper._apply(zeros)
    for variable in stepper.model.trainable_variables:
        np.testing.assert_allclose(variable, 1.0 if variable.name == "bias" else 0.95, rtol=1e-6)


def test_the_cosine_schedule_warms_up_and_falls_to_zero(config):
    config = dataclasses.replace(config, schedule="cosine", learning_rate=1e-2)
    rates = [learning_rate_at(config, progress) for progress in np.linspace(0.0, 1.0, 101)]
    assert rates[0] == 0
    assert np.argmax(rates) == 5
    assert rates[5] == pytest.approx(1e-2)
    assert all(np.diff(rates[5:]) < 0)
    assert rates[100] == learning_rate_at(config, 1.7) == pytest.approx(0, abs=1e-12)
    assert learning_rate_at(config, (0.05 + 1.0) / 2) == pytest.approx(0.5e-2)


def test_a_constant_learning_rate_does_not_depend_on_progress(config):
    config = dataclasses.replace(config, schedule="constant", learning_rate=0.25)
    assert {learning_rate_at(config, progress) for progress in (0.0, 0.01, 0.5, 1.0, 2.0)} == {0.25}


def test_each_step_is_made_at_the_learning_rate_of_its_progress(config, batch):
    stepper = make_stepper(config, schedule="cosine", learning_rate=0.1)
    moved = []
    for progress in (0.0, 0.05, 0.525, 1.0):
        before = weights_of(stepper)
        assert stepper.step(*batch, progress).progress == pytest.approx(progress)
        moved.append(np.abs(weights_of(stepper) - before).max())
    # A first step of Adam has the length of the learning rate; the others are of that order.
    assert moved[0] == 0 and moved[3] < 1e-8
    assert moved[1] > 1.5 * moved[2] > 0.01
