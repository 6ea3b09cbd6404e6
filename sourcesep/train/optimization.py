"""One training step of TensorFlow: gradients, and their use if the guard accepts them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from sourcesep.config import Config
from sourcesep.train.losses import Loss
from sourcesep.train.schedule import Guard, learning_rate_at, make_optimizer


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
        # A function is no part of the checkpoint, as was no schedule of Keras: runs of 0.1.0 can still be resumed.
        self.optimizer = make_optimizer(
            config,
            config.learning_rate
            if config.schedule == "constant"
            else lambda: tf.convert_to_tensor(self._learning_rate),
            model,
        )
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
            if context_samples:
                inner = slice(context_samples, stems.shape[1] - context_samples)
                stems, estimates = stems[:, inner], estimates[:, inner]
            loss = self._loss_function(stems, estimates)
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
