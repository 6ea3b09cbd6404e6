"""How weights are changed, on every backend of Keras: the learning rate, the optimizer, which updates are left out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from sourcesep.config import Config

WARM_UP = 0.05  # share of the training in which the cosine schedule rises to the full learning rate
SPIKE = 10.0  # a loss above this many times the smoothed loss is a spike
SMOOTHING = 0.98  # decay per step of the smoothed loss, which is shown and which spikes are compared with
SETTLING_STEPS = 20  # steps before the smoothed loss is a fair comparison
MAX_SKIPPED = 20  # skipped updates in a row after which training counts as diverged


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

    @property
    def limit(self) -> float:
        """The loss above which an update is rejected."""
        if self.smoothed is None or self._n_accepted < SETTLING_STEPS:
            return math.inf
        return self.smoothed + (SPIKE - 1) * abs(self.smoothed)  # a loss with a difference may be negative

    def check_and_record(self, loss: float, gradient_norm: float) -> bool:
        """Records a step and returns whether to update the weights."""
        taken = math.isfinite(loss) and math.isfinite(gradient_norm) and loss <= self.limit
        self.record(loss, taken)
        return taken

    def record(self, loss: float, taken: bool) -> None:
        """Records a step whose update was made, or not."""
        if not taken:
            self.skipped += 1
            return
        self.skipped = 0
        self._n_accepted += 1
        self.smoothed = loss if self.smoothed is None else SMOOTHING * self.smoothed + (1 - SMOOTHING) * loss


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


class Muon(keras.optimizers.Muon):
    """Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks") for matrices, else Adam.

    An update of a matrix turns it by the same amount in all directions, not most in those that have the largest
    gradients. Its root mean square is about that of Adam's at the same learning rate (Liu et al. 2025, "Muon is
    scalable for LLM training"). Keras' own takes weights of two axes for matrices; here the last two axes of any kernel
    are, whether of a convolution, [width, channel, filter], or of bands, [band, channel, filter].

    Args:
        products_in: number format of the products of matrices, of which bfloat16 is precise enough.
    """

    def __init__(self, *args: Any, products_in: str = "float32", **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.products_in = products_in

    def _should_use_adamw(self, variable: Any) -> bool:
        name = variable.path.rpartition("/")[2]
        return len(variable.shape) < 2 or "bias" in name or "embedding" in name

    def _muon_update_step(self, gradient: Any, variable: Any, lr: Any, m: Any) -> None:
        self.assign_add(m, (1 - self.momentum) * (gradient - m))
        direction = gradient + self.momentum * m  # Nesterov
        norm = ops.sqrt(ops.sum(ops.square(direction), axis=(-2, -1), keepdims=True))
        update = self.zeropower_via_newtonschulz5(ops.cast(direction / (norm + 1e-7), self.products_in), self.ns_steps)
        scale = self.rms_rate * math.sqrt(max(variable.shape[-2:]))
        self.assign_sub(variable, lr * scale * ops.cast(update, variable.dtype))


def make_optimizer(
    config: Config, learning_rate: float | Callable[[], Any], model: keras.Model
) -> keras.optimizers.Optimizer:
    """Returns Adam (Kingma & Ba 2015) or Muon, with decoupled weight decay (Loshchilov & Hutter 2019) and averaging.

    Args:
        config: the run's Config.
        learning_rate: what the optimizer holds as a variable; or a function that is called at every step.
        model: what it is for; where its layers compute in bfloat16, so does Muon.
    """
    kept = {"use_ema": config.average > 0, "ema_momentum": config.average, "weight_decay": config.weight_decay or None}
    if config.optimizer == "muon":
        in_bfloat16 = any(layer.compute_dtype == "bfloat16" for layer in model.layers)
        products_in = "bfloat16" if in_bfloat16 else "float32"
        optimizer = Muon(learning_rate, adam_weight_decay=config.weight_decay or None, products_in=products_in, **kept)
    else:
        optimizer = keras.optimizers.Adam(learning_rate, **kept)
    if config.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer
