import itertools

import numpy as np
import pytest
import tensorflow as tf

from data_gen.chunks import Visit
from sourcesep.train.augmentation import drop_stems, remix_stems
from sourcesep.train.dataset import WINDOW_STEPS, ReuseController, make_dataset


def visits(n_chunks=6):
    """Endless visits of chunks that hold their own number."""
    for index in itertools.count():
        numbers = np.arange(index * n_chunks, (index + 1) * n_chunks, dtype=np.float32)
        mixture = np.broadcast_to(numbers[:, None, None], (n_chunks, 5, 1)).copy()
        yield Visit(index, "piece", numbers, mixture, np.concatenate([mixture, -mixture], axis=2), 0, 0)


def numbers_of(reuse, n_batches, pool=1, batch=3):
    variable = tf.Variable(reuse, dtype=tf.int64)
    batches = make_dataset(visits(), 5, 2, variable, pool, batch, 0).take(n_batches)
    return [mixture[:, 0, 0].numpy().tolist() for mixture, _, _ in batches]


def test_chunks_come_out_as_they_went_in():
    for mixture, stems, visit in make_dataset(visits(), 5, 2, tf.Variable(1, dtype=tf.int64), 10, 4, 0).take(3):
        assert mixture.shape == (4, 5, 1)
        assert stems.shape == (4, 5, 2)
        np.testing.assert_array_equal(visit, mixture[:, 0, 0] // 6)
        np.testing.assert_array_equal(stems[..., 0], mixture[..., 0])
        np.testing.assert_array_equal(stems[..., 1], -mixture[..., 0])


@pytest.mark.parametrize("reuse", [1, 2, 3])
def test_each_chunk_is_used_as_often_as_reuse_says(reuse):
    numbers = sum(numbers_of(reuse, n_batches=4 * reuse), [])
    assert sorted(numbers) == [number for number in range(12) for _ in range(reuse)]


def test_the_pool_shuffles():
    numbers = sum(numbers_of(1, n_batches=20, pool=50), [])
    assert numbers != sorted(numbers)
    assert len(set(numbers)) == len(numbers)
    assert max(numbers) < 60 + 50 + 6


def test_a_change_of_reuse_acts_while_batches_are_drawn():
    reuse = tf.Variable(1, dtype=tf.int64)
    batches = iter(make_dataset(visits(), 5, 2, reuse, 1, 3, 0))
    next(batches)
    reuse.assign(3)
    numbers = [number for _ in range(30) for number in next(batches)[0][:, 0, 0].numpy().tolist()]
    later = sorted(set(numbers))[-13:-6]  # the last visit may be cut off
    assert [numbers.count(number) for number in later] == [3] * 7


def chunks_to_remix(n_chunks=64):
    """(mixture, stems) whose parts, two stems and a remainder, are 1, 1000 and 1,000,000 times the chunk's number."""
    numbers = tf.range(1, n_chunks + 1, dtype=tf.float32)[:, None, None] * tf.ones([1, 3, 1])
    return numbers * 1_001_001, tf.concat([numbers, numbers * 1_000], axis=2)


def augmented(augmentation, probability, mixture, stems):
    """What an augmentation makes of chunks of one channel: (mixture, stems)."""
    n_draws = stems.shape[2] + 2 * (augmentation is remix_stems)
    draws = np.random.default_rng(0).random((mixture.shape[0], n_draws), np.float32)
    four_axes = augmentation(mixture[:, :, None], stems[:, :, None], probability, draws)
    return [np.asarray(part)[:, :, 0] for part in four_axes]


def test_remixed_stems_come_from_any_chunk_and_make_up_the_mixture_with_the_remainder_of_another():
    remixed = augmented(remix_stems, 1.0, *chunks_to_remix())
    mixture, stems = (np.asarray(part, np.float64) for part in remixed)
    remainder = mixture - stems.sum(axis=2, keepdims=True)
    parts = np.round(np.concatenate([stems, remainder], axis=2) / [1, 1_000, 1_000_000])
    assert (parts == parts[:, :1]).all()  # a stem stays whole
    for part in range(3):
        assert sorted(parts[:, 0, part]) == list(range(1, 65))  # each used once
    for one, other in itertools.combinations(range(3), 2):
        assert (parts[:, 0, one] == parts[:, 0, other]).sum() < 10


def test_remix_leaves_the_other_chunks_as_they_are():
    mixture, stems = chunks_to_remix()
    after_mixture, after_stems = augmented(remix_stems, 0.5, mixture, stems)
    kept = np.all(after_stems == np.asarray(stems), axis=(1, 2))
    assert 16 <= kept.sum() <= 48
    np.testing.assert_allclose(after_mixture[kept], mixture[kept], rtol=1e-6)


def test_a_dropped_stem_is_silent_and_missing_in_the_mixture_and_the_rest_stays():
    mixture, stems = chunks_to_remix(500)
    after_mixture, after_stems = augmented(drop_stems, 0.2, mixture, stems)
    is_kept = after_stems == np.asarray(stems)
    assert (is_kept | (after_stems == 0)).all()
    assert (is_kept == is_kept[:, :1]).all()  # as a whole
    np.testing.assert_allclose(1 - is_kept.mean(axis=(0, 1)), 0.2, atol=0.06)  # each of them, 3 standard deviations
    assert 0 < (~is_kept[:, 0]).all(axis=1).mean() < 0.1  # one does not wait for the other
    remainder = after_mixture - after_stems.sum(axis=2, keepdims=True)
    np.testing.assert_allclose(remainder, mixture - tf.reduce_sum(stems, axis=2, keepdims=True), rtol=1e-6)


def test_small_batches_are_remixed_from_more_chunks_than_they_have():
    def visits_of_four_stems():
        for index in itertools.count():
            stems = np.full((6, 5, 4), 10 * index + np.arange(6)[:, None, None], np.float32)  # which chunk it is
            yield Visit(index, "", np.zeros(6), stems.sum(axis=2, keepdims=True), stems, 0, 0)

    dataset = make_dataset(visits_of_four_stems(), 5, 4, tf.Variable(1, dtype=tf.int64), 100, 2, 0, remix=1.0)
    heard = [np.unique(stems[:, 0]) for _, stems, _ in dataset.take(20)]
    assert all(stems.shape == (2, 5, 4) for _, stems, _ in dataset.take(3))
    assert np.mean([len(chunks) > 4 for chunks in heard]) > 0.9  # of 8 stems; those of two chunks would be 2


def test_batches_are_remixed_and_dropped_from_and_alike_for_one_seed():
    def batches(**changes):
        dataset = make_dataset(visits(), 5, 2, tf.Variable(1, dtype=tf.int64), 10, 6, 0, **changes)
        return np.stack([stems[:, 0] for _, stems, _ in dataset.take(20)])

    assert (batches()[..., 0] == -batches()[..., 1]).all()
    assert (batches(remix=1.0)[..., 0] != -batches(remix=1.0)[..., 1]).mean() > 0.5
    assert 0.3 < (batches(drop=0.5)[..., 1] == 0).mean() < 0.7
    for changes in ({"remix": 1.0}, {"drop": 0.5}, {"remix": 1.0, "drop": 0.5}):
        np.testing.assert_array_equal(batches(**changes), batches(**changes))


@pytest.fixture
def reuse():
    return tf.Variable(1, dtype=tf.int64)


def run(controller, wait_s, ready_share, windows):
    for _ in range(WINDOW_STEPS * windows):
        controller.update(wait_s, 1.0, ready_share)


def test_reuse_climbs_to_3_while_training_waits_and_falls_to_1_while_data_waits(reuse):
    controller = ReuseController(reuse, "auto")
    run(controller, wait_s=0.5, ready_share=0.0, windows=5)
    assert reuse.numpy() == 3
    assert controller.wait_share == pytest.approx(0.5)
    run(controller, wait_s=0.0, ready_share=0.5, windows=5)
    assert reuse.numpy() == 3  # neither waits: it stays
    run(controller, wait_s=0.0, ready_share=1.0, windows=5)
    assert reuse.numpy() == 1


def test_a_fixed_reuse_stays(reuse):
    run(ReuseController(reuse, "2"), wait_s=0.9, ready_share=0.0, windows=3)
    assert reuse.numpy() == 2
