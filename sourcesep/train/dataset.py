"""Visits -> tf.data batches: reuse, shuffle pool, batch, remix, prefetch."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from data_gen.chunks import Visit

MAX_REUSE = 3
WINDOW_STEPS = 20  # the controller decides once in so many steps
MAX_WAIT_SHARE = 0.05  # of the time: from there on training waits for data
MAX_READY_SHARE = 0.9  # of the visits asked for: from there on data waits for training


def make_dataset(
    visits: Iterable[Visit],
    time_samples: int,
    n_targets: int,
    reuse: tf.Variable,
    pool_chunks: int,
    batch_size: int,
    seed: int,
    remix: float = 0.0,
    drop: float = 0.0,
) -> tf.data.Dataset:
    """Chunks in random order, each `reuse` times, remixed with the others of their batch and without some stems.

    Args:
        visits: from `data_gen.workers.Workers`; read in a thread of tf.data.
        time_samples: length of a chunk with its context.
        n_targets: number of stems.
        reuse: int64 scalar; a change acts on the visits that come after it.
        pool_chunks: size of the shuffled pool.
        batch_size: chunks in a batch.
        seed: of the shuffle, and of what is remixed and dropped.
        remix: probability that a chunk's stems are replaced, each by that of another chunk; see `remixed`.
        drop: probability that a stem is left out of a chunk; see `dropped`.

    Returns:
        Endless batches (mixture float32 [batch, time, 1], stems float32 [batch, time, target], visit int64 [batch], the
        numbers of the visits that the batch came from: of each chunk, where nothing is remixed).
    """
    signature = (
        tf.TensorSpec([None, time_samples, 1], tf.float32),
        tf.TensorSpec([None, time_samples, n_targets], tf.float32),
        tf.TensorSpec([None], tf.int64),
    )
    dataset = tf.data.Dataset.from_generator(
        lambda: ((visit.mixture, visit.stems, np.full(len(visit.mixture), visit.index)) for visit in visits),
        output_signature=signature,
    )
    # The chunks of a visit repeat together: a dataset of its own for each chunk would cost twice the processor time.
    dataset = dataset.flat_map(lambda *visit: tf.data.Dataset.from_tensor_slices(visit).repeat(reuse))
    dataset = dataset.shuffle(pool_chunks, seed=seed).batch(batch_size, drop_remainder=True)
    if remix:
        dataset = _changed(dataset, remixed, remix, seed)
    if drop:
        dataset = _changed(dataset, dropped, drop, seed + 1)
    return dataset.prefetch(2)


def _changed(dataset: tf.data.Dataset, change, probability: float, seed: int) -> tf.data.Dataset:
    """The batches, mixture and stems of each by `change(mixture, stems, probability, a seed of its own)`."""
    seeds = tf.data.Dataset.random(seed=seed).batch(2)
    return tf.data.Dataset.zip((dataset, seeds)).map(
        lambda batch, drawn: (*change(*batch[:2], probability, drawn), *batch[2:])
    )


def remixed(mixture: tf.Tensor, stems: tf.Tensor, probability: float, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mixtures whose stems come from several chunks of the batch.

    More mixtures than there are pieces: after Uhlich et al. 2017, "Improving music source separation based on deep
    neural networks through data augmentation and network blending". What the stems leave of a mixture is one part more.

    Args:
        mixture: float32 [batch, time, 1].
        stems: float32 [batch, time, target].
        probability: that a chunk becomes such a mixture.
        seed: int64 [2]; the same one gives the same result.

    Returns:
        (mixture, stems), shaped as before.
    """
    parts = tf.concat([stems, mixture - tf.reduce_sum(stems, axis=2, keepdims=True)], axis=2)
    draws = tf.random.stateless_uniform([tf.shape(parts)[0], parts.shape[2] + 1], seed)
    order = tf.argsort(draws[:, 1:], axis=0)  # of the chunks, for each part one of its own
    shuffled = tf.transpose(tf.gather(tf.transpose(parts, [2, 0, 1]), tf.transpose(order), batch_dims=1), [1, 2, 0])
    parts = tf.where(draws[:, :1, None] < probability, shuffled, parts)
    return tf.reduce_sum(parts, axis=2, keepdims=True), parts[:, :, :-1]


def dropped(mixture: tf.Tensor, stems: tf.Tensor, probability: float, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mixtures without some of their stems, which are silent then.

    So the model hears each instrument alone or with few others more often than pieces would let it, and learns to stay
    silent (after Luo & Yu 2023, "Music source separation with band-split RNN").

    Args:
        mixture: float32 [batch, time, 1].
        stems: float32 [batch, time, target].
        probability: that a stem is left out.
        seed: int64 [2]; the same one gives the same result.

    Returns:
        (mixture, stems), shaped as before.
    """
    draws = tf.random.stateless_uniform([tf.shape(stems)[0], 1, stems.shape[2]], seed)
    kept = tf.where(draws < probability, 0.0, stems)
    return mixture - tf.reduce_sum(stems - kept, axis=2, keepdims=True), kept


class ReuseController:
    """Sets how often each chunk is used: more often while training waits for data, less while data waits for training.

    Args:
        reuse: the int64 variable that `make_dataset` reads.
        mode: "auto", or "1", "2", "3" to leave it there.
    """

    def __init__(self, reuse: tf.Variable, mode: str):
        self._reuse = reuse
        self._auto = mode == "auto"
        if not self._auto:
            reuse.assign(int(mode))
        self._steps = 0
        self._wait_s = self._total_s = 0.0
        self.wait_share = 0.0

    def update(self, wait_s: float, total_s: float, ready_share: float) -> None:
        """Takes note of one step.

        Args:
            wait_s: seconds that the step waited for its batch.
            total_s: seconds that it took in all.
            ready_share: `Workers.ready_share`.
        """
        self._steps += 1
        self._wait_s += wait_s
        self._total_s += total_s
        if self._steps < WINDOW_STEPS:
            return
        self.wait_share = self._wait_s / max(self._total_s, 1e-9)
        self._steps, self._wait_s, self._total_s = 0, 0.0, 0.0
        if not self._auto:
            return
        reuse = int(self._reuse.numpy())
        if self.wait_share > MAX_WAIT_SHARE and reuse < MAX_REUSE:
            self._reuse.assign(reuse + 1)
        elif self.wait_share <= MAX_WAIT_SHARE and ready_share > MAX_READY_SHARE and reuse > 1:
            self._reuse.assign(reuse - 1)
