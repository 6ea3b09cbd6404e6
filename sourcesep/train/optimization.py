"""One training step: gradients, the guard that decides whether to use them, the learning rate and the optimizer."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from sourcesep.config import Config
from sourcesep.train.losses import Loss

WARM_UP = 0.05  # share of the training in which the cosine schedule rises to the full learning rate
SPIKE = 10.0  # a loss above this many times the smoothed loss is a spike
SMOOTHING = 0.98  # decay per step of the smoothed loss, which is shown and which spikes are compared with
SETTLING_STEPS = 20  # steps before the smoothed loss is a fair comparison
MAX_SKIPPED = 20  # skipped updates in a row after which training counts as diverged


class Outcome(NamedTuple):
    """Result of one training step; the same on all devices and machines.

    Attributes:
        loss: mean over the batches of all devices.
        gradient_norm: global norm of the mean gradient, before clipping.
        progress: share of the training that was done before this step; mean over all machines, 1 or more at the end.
        stop_requested: whether any machine was asked to stop.
        taken: whether the weights were updated.
    """

    loss: float
    gradient_norm: float
    progress: float
    stop_requested: bool
    taken: bool


class Guard:
    """Rejects updates whose loss or gradient is not finite, or whose loss is far above those before it.

    Attributes:
        smoothed: the loss, averaged over about fifty steps; None before the first step.
        skipped: updates rejected in a row.
    """

    def __init__(self) -> None:
        self.smoothed: float | None = None
        self.skipped = 0
        self._n_accepted = 0

    def check_and_record(self, loss: float, gradient_norm: float) -> bool:
        """Records a step and returns whether to update the weights."""
        is_spike = (
            self.smoothed is not None
            and self._n_accepted >= SETTLING_STEPS
            and loss - self.smoothed > (SPIKE - 1) * abs(self.smoothed)  # a loss with a difference may be negative
        )
        if not math.isfinite(loss) or not math.isfinite(gradient_norm) or is_spike:
            self.skipped += 1
            return False
        self.skipped = 0
        self._n_accepted += 1
        self.smoothed = loss if self.smoothed is None else SMOOTHING * self.smoothed + (1 - SMOOTHING) * loss
        return True


class Stepper:
    """Makes training steps, under the tf.distribute strategy in whose scope it is created.

    Args:
        model: what to train.
        loss_function: of (stems, estimates).
        config: its learning rate, schedule, weight decay, clipping, averaging and context are used.
    """

    def __init__(self, model: keras.Model, loss_function: Loss, config: Config):
        self.model = model
        self.guard = Guard()
        self._learning_rate = tf.Variable(learning_rate_at(config, 0.0), trainable=False)
        self.optimizer = make_optimizer(config, self._learning_rate)
        self.optimizer.build(model.trainable_variables)
        self._config = config
        self._loss_function = loss_function
        self._strategy = tf.distribute.get_strategy()
        self._gradients = tf.function(lambda *batch: self._strategy.run(self._gradients_of_device, batch))
        self._apply = tf.function(lambda gradients: self._strategy.run(self._apply_on_device, (gradients,)))

    def step(self, inputs: Any, stems: Any, progress: float = 0.0, stop_requested: bool = False) -> Outcome:
        """Computes gradients and, if the guard accepts them, updates the weights.

        Args:
            inputs: model inputs: float32 mixture [batch, time, channel] of each device, or (mixture, condition).
            stems: float32 [batch, time, stem] of each device.
            progress: share of the training that is done, as this machine sees it.
            stop_requested: whether this machine was asked to stop; all machines receive it in the outcome.
        """
        states = tf.constant([progress, float(stop_requested)])
        signals, gradients = self._gradients(inputs, stems, states)
        loss, norm, progress, stop_requested = self._strategy.experimental_local_results(signals)[0].numpy().tolist()
        taken = self.guard.check_and_record(loss, norm)
        self._learning_rate.assign(learning_rate_at(self._config, progress))
        if taken:
            self._apply(gradients)
        return Outcome(loss=loss, gradient_norm=norm, progress=progress, stop_requested=stop_requested > 0, taken=taken)

    def _gradients_of_device(self, inputs: Any, stems: tf.Tensor, states: tf.Tensor) -> tuple[tf.Tensor, list]:
        """Returns ([loss, gradient norm, *states], gradients), each the mean over all devices."""
        context_samples, clip_norm = self._config.context_samples, self._config.clip_norm
        with tf.GradientTape() as tape:
            estimates = self.model(inputs, training=True)
            inner = slice(context_samples, stems.shape[1] - context_samples)
            loss = self._loss_function(stems[:, inner], estimates[:, inner])
        gradients = tape.gradient(loss, self.model.trainable_variables)
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]  # those of embeddings are IndexedSlices
        replica = tf.distribute.get_replica_context()
        states = tf.identity(states)  # a tensor on this device: one that all devices share cannot be reduced
        *gradients, loss, states = replica.all_reduce(tf.distribute.ReduceOp.MEAN, [*gradients, loss, states])
        norm = tf.linalg.global_norm(gradients)
        if clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, clip_norm, norm)
        return tf.concat([[loss, norm], states], axis=0), gradients

    def _apply_on_device(self, gradients: list) -> None:
        n_devices = tf.distribute.get_replica_context().num_replicas_in_sync
        shares = [gradient / n_devices for gradient in gradients]  # Keras adds up the gradients of the devices
        self.optimizer.apply_gradients(zip(shares, self.model.trainable_variables))

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Gives the model its averaged weights within the block, if an average is kept."""
        if not self.optimizer.use_ema or not self.optimizer.iterations.numpy():
            yield
            return
        current = [variable.numpy() for variable in self.model.trainable_variables]
        self.optimizer.finalize_variable_values(self.model.trainable_variables)
        try:
            yield
        finally:
            for variable, value in zip(self.model.trainable_variables, current):
                variable.assign(value)


def learning_rate_at(config: Config, progress: float) -> float:
    """Returns the learning rate when a share `progress` of the training is done, 0 to 1.

    With the cosine schedule (Loshchilov & Hutter 2017, "SGDR") it rises linearly from 0 during the first WARM_UP, then
    falls to 0 along half a cosine.
    """
    if config.schedule == "constant":
        return config.learning_rate
    progress = min(progress, 1.0)
    if progress < WARM_UP:
        return config.learning_rate * progress / WARM_UP
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * (progress - WARM_UP) / (1.0 - WARM_UP)))


def make_optimizer(config: Config, learning_rate: tf.Variable) -> keras.optimizers.Optimizer:
    """Returns Adam (Kingma & Ba 2015), with decoupled weight decay (Loshchilov & Hutter 2019) and averaging if set.

    Args:
        config: the run's Config.
        learning_rate: read at every step where the learning rate follows a schedule.
    """
    optimizer = keras.optimizers.Adam(
        # A function is no part of the checkpoint, as was no schedule of Keras: runs of 0.1.0 can still be resumed.
        config.learning_rate if config.schedule == "constant" else lambda: tf.convert_to_tensor(learning_rate),
        weight_decay=config.weight_decay or None,
        use_ema=config.average > 0,
        ema_momentum=config.average,
    )
    if config.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer
