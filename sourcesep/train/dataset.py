"""Visits -> tf.data batches: reuse, shuffle pool, batches, augmentation, prefetch."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf
from absl import logging

from data_gen import InputError
from data_gen.chunks import Visit
from data_gen.workers import Visits
from sourcesep.config import Config
from sourcesep.train.augmentation import augment, n_draws
from sourcesep.train.conditioning import add_conditions

REMEMBERED_VISITS = 10_000  # visits whose songs can be named when a batch is bad; a pool holds chunks of fewer
MAX_REUSE = 3
REMIX_CHUNKS = 16  # at least as many chunks exchange their stems: few new mixtures can be made of a small batch
WINDOW_STEPS = 20  # steps between two decisions of the reuse controller: enough to average out single slow visits
MAX_WAIT_SHARE = 0.05  # share of the training time spent waiting for batches above which chunks are reused more
MAX_READY_SHARE = 0.9  # share of the requested visits that are ready above which chunks are reused less


def make_batches(
    strategy: tf.distribute.Strategy,
    visits: VisitRecorder,
    reuse: tf.Variable,
    config: Config,
    seed: int,
    pool_chunks: int | None = None,
) -> Iterator:
    """Returns endless batches (model inputs, stems, visits) of a run, one batch per device of this machine.

    Args:
        strategy: distributes the batches over the devices.
        visits: where the chunks come from.
        reuse: as in `make_dataset`.
        config: the run's Config.
        seed: of the shuffle, and of what is augmented.
        pool_chunks: size of the shuffled pool, where it is not `config.pool_chunks`.
    """

    def make_dataset_of_machine(_: tf.distribute.InputContext) -> tf.data.Dataset:
        dataset = make_dataset(
            visits,
            time_samples=visits.workers.chunker.time_samples,
            n_targets=len(config.stem_names),
            reuse=reuse,
            pool_chunks=pool_chunks or config.pool_chunks,
            batch_size=config.batch_size,
            seed=seed,
            remix=config.remix,
            drop=config.drop,
            n_channels=config.channels,
        )
        return add_conditions(dataset, config)

    return iter(strategy.distribute_datasets_from_function(make_dataset_of_machine))


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
    n_channels: int = 1,
) -> tf.data.Dataset:
    """Returns chunks in random order, each `reuse` times, in augmented batches.

    Args:
        visits: from `data_gen.workers`; read in a thread of tf.data.
        time_samples: length of a chunk with its context.
        n_targets: number of stems.
        reuse: int64 scalar; a change takes effect from the next visit on.
        pool_chunks: size of the shuffled pool.
        batch_size: chunks in a batch.
        seed: of the shuffle, and of what is augmented.
        remix: probability of `augmentation.remix_stems` for each chunk, among at least REMIX_CHUNKS.
        drop: probability of `augmentation.drop_stems` for each stem.
        n_channels: 1, or 2, which are also swapped in half of the chunks.

    Returns:
        Endless batches (mixture float32 [batch, time, channel], stems float32 [batch, time, channel * target], visits
        int64 [batch], the number of the visit that each chunk came from before it was remixed).
    """
    signature = (
        tf.TensorSpec([None, time_samples, n_channels], tf.float32),
        tf.TensorSpec([None, time_samples, n_channels * n_targets], tf.float32),
        tf.TensorSpec([None], tf.int64),
    )
    dataset = tf.data.Dataset.from_generator(
        lambda: ((visit.mixture, visit.stems, np.full(len(visit.mixture), visit.index)) for visit in visits),
        output_signature=signature,
    )
    # The chunks of a visit are repeated together: a dataset per chunk would take twice the processor time.
    dataset = dataset.flat_map(lambda *visit: tf.data.Dataset.from_tensor_slices(visit).repeat(reuse))
    dataset = dataset.shuffle(pool_chunks, seed=seed)
    if not (remix or drop or n_channels == 2):
        return dataset.batch(batch_size, drop_remainder=True).prefetch(2)
    group_chunks = max(batch_size, REMIX_CHUNKS) if remix else batch_size
    seeds = tf.data.Dataset.random(seed=seed).batch(2)

    def change(group: tuple, seed_of_group: tf.Tensor) -> tuple:
        mixture, stems, visits = group
        draws = tf.random.stateless_uniform([group_chunks, n_draws(n_targets)], seed_of_group)
        return *augment(mixture, stems, remix, drop, draws), visits

    dataset = tf.data.Dataset.zip((dataset.batch(group_chunks, drop_remainder=True), seeds)).map(change)
    return dataset.rebatch(batch_size, drop_remainder=True).prefetch(2)


class VisitRecorder:
    """Iterates over the visits of `workers`, counts their chunks and remembers the names of their songs.

    An InputError ends the iteration and is kept: raised inside tf.data, it would become an error of TensorFlow.

    Attributes:
        workers: where the visits come from.
        failure: the error that ended the iteration; None so far.
    """

    def __init__(self, workers: Visits):
        self.workers = workers
        self.failure: InputError | None = None
        self._counts: collections.Counter[str] = collections.Counter()
        self._songs: collections.OrderedDict[int, str] = collections.OrderedDict()

    def __iter__(self) -> Iterator[Visit]:
        try:
            for visit in self.workers:
                self._counts.update(kept=len(visit.starts_s), silent=visit.n_silent, solo=visit.n_solo)
                self._songs[visit.index] = visit.song
                if len(self._songs) > REMEMBERED_VISITS:
                    self._songs.popitem(last=False)
                yield visit
        except InputError as error:
            self.failure = error

    def name_songs(self, visit_numbers: Iterable[int]) -> list[str]:
        """Returns the names of the songs of these visits, each with the number of its visit."""
        return sorted({f"{self._songs.get(number, '?')} (visit {number})" for number in visit_numbers})

    def log_counts(self) -> None:
        """Logs how many chunks were made and how many were dropped."""
        if self._counts:
            logging.info(
                "%d chunks made; dropped: %d silent, %d with only one instrument",
                sum(self._counts.values()),
                self._counts["silent"],
                self._counts["solo"],
            )


class ReuseController:
    """Sets how often each chunk is used: more often while training waits for data, less while data waits for training.

    Args:
        reuse: the int64 variable that `make_dataset` reads.
        mode: "auto", or "1", "2", "3" for a constant.

    Attributes:
        wait_share: share of the time that training waited for data, in the last WINDOW_STEPS steps.
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
        """Records a step, and every WINDOW_STEPS steps adjusts the reuse.

        Args:
            wait_s: seconds that the step waited for its batch.
            total_s: seconds that the step took, waiting included.
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
