"""A dry run: a few steps on real chunks that show what training will need; nothing is written."""

from __future__ import annotations

import time
from typing import NamedTuple

import tensorflow as tf

from data_gen import InputError
from data_gen.workers import Visits
from sourcesep import sources
from sourcesep.config import Config
from sourcesep.models import unconditioned
from sourcesep.models.receptive_field import receptive_field
from sourcesep.train.dataset import VisitRecorder, make_batches
from sourcesep.train.devices import dtype_policy, make_strategy, peak_memory_mb
from sourcesep.train.losses import make_loss
from sourcesep.train.model import load_start_weights
from sourcesep.train.training import make_stepper

N_STEPS = 3  # the first of them also compiles


class DryRun(NamedTuple):
    """What training will need.

    Attributes:
        parameters: number of weights of the model.
        receptive_field_ms: receptive field of the model.
        first_step_s: seconds for the first step, which compiles.
        step_s: seconds for each later step.
        memory_mb: peak memory of this process.
        policy: Keras dtype policy.
        devices: number of devices that train.
    """

    parameters: int
    receptive_field_ms: float
    first_step_s: float
    step_s: float
    memory_mb: float
    policy: str
    devices: int


def dry_run(config: Config, workers: Visits | None = None) -> DryRun:
    """Builds everything, makes a few steps and discards the model. Arguments and errors are those of `train`."""
    loss_function = make_loss(config.loss, config.channels)
    strategy = make_strategy(config)
    with strategy.scope():
        stepper = make_stepper(config, loss_function)
    if config.start_from:
        load_start_weights(config, stepper.model)
    with workers or sources.start_workers(config) as workers:
        visits = VisitRecorder(workers)
        reuse = tf.Variable(1, dtype=tf.int64)
        batch = next(make_batches(strategy, visits, reuse, config, seed=0, pool_chunks=1), None)
        if batch is None:
            raise visits.failure or InputError("no training data")
        inputs, stems, _ = batch
        durations_s = []
        for _ in range(N_STEPS):
            began_s = time.monotonic()
            stepper.step(inputs, stems)
            durations_s.append(time.monotonic() - began_s)
    return DryRun(
        parameters=stepper.model.count_params(),
        receptive_field_ms=1_000 * receptive_field(unconditioned(stepper.model, config)).samples / config.sample_rate,
        first_step_s=durations_s[0],
        step_s=min(durations_s[1:]),
        memory_mb=peak_memory_mb(),
        policy=dtype_policy(config.mixed_precision),
        devices=strategy.num_replicas_in_sync,
    )
