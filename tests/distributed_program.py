"""A machine of a cluster: makes guarded steps on its share of fixed batches and saves what became of the weights.

python distributed_program.py OUTPUT N_SHARES SHARE STRATEGY
"""

import dataclasses
import json
import os
import sys

import numpy as np
import tensorflow as tf

from sourcesep.config import Config
from sourcesep.models import wavenet
from sourcesep.train import devices, training
from sourcesep.train.losses import make_loss

CONFIG = Config(
    instruments=("drums", "bass"),
    sample_rate=8_000,
    network=wavenet.Settings(stacks=1, blocks=3, filters=8, head_filters=(8,)),
    learning_rate=1e-2,
    schedule="cosine",
    mixed_precision="float32",
    clip_norm=0.05,
    average=0.5,
)
N_STEPS, BATCH, TIME = 5, 8, 200
PROGRESS = 0.4  # share of the training that is done, as one machine sees it
CLOCK_ERROR = 0.1  # of two machines, the first is behind by this much and the second ahead


def main(output, n_shares, share, name):
    """Trains on rows share, share + n_shares, ... of each batch; share -1 is a device of a mirrored strategy."""
    if name == "mirrored":
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * n_shares)
    config = dataclasses.replace(CONFIG, strategy=name)
    strategy = devices.make_strategy(config)
    with strategy.scope():
        stepper = training.make_stepper(config, make_loss("mae"))
    # Adam divides each gradient by its size: without this, those near 0 would turn rounding errors into whole steps.
    stepper.optimizer.epsilon = 1e-3
    rng = np.random.default_rng(0)
    losses = []
    for step in range(N_STEPS):
        mixture = rng.standard_normal((BATCH, TIME, 1)).astype(np.float32)
        stems = rng.standard_normal((BATCH, TIME, 2)).astype(np.float32)
        if step == 2:
            stems[0] = np.nan  # in the share of one machine: all of them must leave this update out

        def of_device(context, array):
            return tf.constant(array[(context.replica_id_in_sync_group if share < 0 else share) :: n_shares])

        batch = [
            strategy.experimental_distribute_values_from_function(
                lambda context, array=array: of_device(context, array)
            )
            if name != "one"
            else tf.constant(array)
            for array in (mixture, stems)
        ]
        ahead = {"multi_worker": CLOCK_ERROR * (2 * share - 1)}.get(name, 0.0)
        outcome = stepper.step(*batch, progress=PROGRESS + ahead)
        losses.append([outcome.loss, outcome.taken, outcome.progress])
    with stepper.averaged():
        averages = [variable.numpy().ravel() for variable in stepper.model.trainable_variables]
    weights = [variable.numpy().ravel() for variable in stepper.model.trainable_variables]
    np.savez(output, weights=np.concatenate(weights), averages=np.concatenate(averages), losses=json.dumps(losses))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
