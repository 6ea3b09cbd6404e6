"""One update of the weights: gradients, the guard that decides whether to take them, and the optimizer."""

from __future__ import annotations

import contextlib
import math
from typing import NamedTuple

import keras
import tensorflow as tf

from sourcesep.config import Config
from sourcesep.train.losses import Loss

SPIKE = 10.0  # a loss of this many times the smoothed one is a spike
SMOOTHING = 0.98  # of the loss that is shown and that spikes are measured by
SETTLING_STEPS = 20  # before the smoothed loss is worth comparing with
MAX_SKIPPED = 20  # updates left out in a row, after which training has diverged


class Outcome(NamedTuple):
    """Of one step, alike on every device and machine.

    Attributes:
        loss: mean over the batches of all devices.
        gradient_norm: global norm of the mean gradient, before clipping.
        asked: whether any machine was asked to stop.
        taken: whether the weights were updated.
    """

    loss: float
    gradient_norm: float
    asked: bool
    taken: bool


class Guard:
    """Refuses updates by a loss or gradient that is no number, and by a loss far above those before it.

    Attributes:
        smoothed: the loss, averaged over some fifty steps; None before the first.
        skipped: updates refused in a row.
    """

    def __init__(self):
        self.smoothed: float | None = None
        self.skipped = 0
        self._n_accepted = 0

    def accepts(self, loss: float, gradient_norm: float) -> bool:
        """Whether to take the update; takes note of it."""
        is_spike = self._n_accepted >= SETTLING_STEPS and loss > SPIKE * self.smoothed
        if not math.isfinite(loss) or not math.isfinite(gradient_norm) or is_spike:
            self.skipped += 1
            return False
        self.skipped = 0
        self._n_accepted += 1
        self.smoothed = loss if self.smoothed is None else SMOOTHING * self.smoothed + (1 - SMOOTHING) * loss
        return True


class Stepper:
    """Makes training steps, under the tf.distribute strategy in whose scope it is made.

    Args:
        model: what to train.
        loss_function: of (stems, estimates).
        config: its learning rate, schedule, weight decay, clipping, averaging and context are used.
    """

    def __init__(self, model: keras.Model, loss_function: Loss, config: Config):
        self.model = model
        self.optimizer = make_optimizer(config)
        self.optimizer.build(model.trainable_variables)
        self.guard = Guard()
        self._loss_function = loss_function
        self._context_samples = config.context_samples
        self._clip_norm = config.clip_norm
        self._strategy = tf.distribute.get_strategy()
        self._gradients = tf.function(lambda *batch: self._strategy.run(self._gradients_of_device, batch))
        self._apply = tf.function(lambda gradients: self._strategy.run(self._apply_on_device, (gradients,)))

    def step(self, inputs, stems, asked: bool = False) -> Outcome:
        """Computes gradients and, if the guard accepts them, updates the weights.

        Args:
            inputs: what the model takes: float32 mixture [batch, time, 1] of each device, or that and conditions.
            stems: float32 [batch, time, output] of each device.
            asked: whether this machine was asked to stop; the others learn of it.
        """
        signals, gradients = self._gradients(inputs, stems, tf.constant(float(asked)))
        loss, norm, any_asked = self._strategy.experimental_local_results(signals)[0].numpy().tolist()
        taken = self.guard.accepts(loss, norm)
        if taken:
            self._apply(gradients)
        return Outcome(loss, norm, any_asked > 0, taken)

    def _gradients_of_device(self, inputs, stems, asked):
        """((loss, gradient norm, asked), gradients), each the mean over all devices."""
        with tf.GradientTape() as tape:
            estimates = self.model(inputs, training=True)
            inner = slice(self._context_samples, stems.shape[1] - self._context_samples)
            loss = self._loss_function(stems[:, inner], estimates[:, inner])
        gradients = tape.gradient(loss, self.model.trainable_variables)
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]  # those of embeddings come in slices
        context = tf.distribute.get_replica_context()
        asked = tf.identity(asked)  # a tensor of this device: one that all devices share cannot be reduced
        *gradients, loss, asked = context.all_reduce(tf.distribute.ReduceOp.MEAN, [*gradients, loss, asked])
        norm = tf.linalg.global_norm(gradients)
        if self._clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self._clip_norm, norm)
        return tf.stack([loss, norm, asked]), gradients

    def _apply_on_device(self, gradients):
        n_devices = tf.distribute.get_replica_context().num_replicas_in_sync
        shares = [gradient / n_devices for gradient in gradients]  # Keras sums over the devices
        self.optimizer.apply_gradients(zip(shares, self.model.trainable_variables))

    @contextlib.contextmanager
    def averaged(self):
        """Within it the model has its averaged weights, where an average is kept."""
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


def make_optimizer(config: Config) -> keras.optimizers.Optimizer:
    """Adam (Kingma & Ba 2015); with decoupled weight decay (Loshchilov & Hutter 2019) and averaging if asked for."""
    optimizer = keras.optimizers.Adam(
        _learning_rate(config),
        weight_decay=config.weight_decay or None,
        use_ema=config.average > 0,
        ema_momentum=config.average,
    )
    if config.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def _learning_rate(config: Config):
    """What Keras calls a learning rate: a number, or a schedule over `config.steps`."""
    if config.schedule == "constant":
        return config.learning_rate
    warm_up = max(1, config.steps // 20)
    return keras.optimizers.schedules.CosineDecay(
        0.0, max(1, config.steps - warm_up), warmup_target=config.learning_rate, warmup_steps=warm_up
    )
