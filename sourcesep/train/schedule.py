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


class Muon(keras.optimizers.Adam):
    """Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks") for matrices, else Adam.

    The update of a matrix is its gradient, partly averaged, made nearly orthogonal: it changes what the matrix does in
    all directions by as much, where that of Adam mostly follows the few of the largest gradients. Its root mean square
    is 0.2 times the learning rate, near what Adam's is while gradients vary (Liu et al. 2025, "Muon is scalable for LLM
    training").

    The last two axes of a kernel are a matrix: those of convolutions, [width, channel, filter], and of bands, [band,
    channel, filter], hold several. Keras' own Muon takes only kernels of two axes.

    Args:
        learning_rate: as in Adam.
        products_in: number format of the products of matrices, of which bfloat16 is precise enough.
        **kwargs: as in Adam.
    """

    MOMENTUM = 0.95
    COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of the polynomial that brings singular values near 1
    ITERATIONS = 5

    def __init__(self, learning_rate: float | Callable[[], Any], products_in: str, **kwargs: Any):
        super().__init__(learning_rate, **kwargs)
        self._products_in = products_in
        self._is_matrix: list[bool] = []

    def build(self, var_list: list[Any]) -> None:
        """Makes the variables of Adam, whose first moment is the average here, and finds the matrices."""
        super().build(var_list)
        names = [variable.path.rpartition("/")[2] for variable in var_list]
        self._is_matrix = [
            len(variable.shape) >= 2 and "bias" not in name and "embedding" not in name
            for variable, name in zip(var_list, names)
        ]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Changes a variable by its gradient."""
        index = self._get_variable_index(variable)
        if not self._is_matrix[index]:
            super().update_step(gradient, variable, learning_rate)
            return
        average = self._momentums[index]
        self.assign_add(average, (1 - self.MOMENTUM) * (gradient - average))
        # Half of it is the gradient of this step (quasi-hyperbolic momentum, Ma & Yarats 2019): with a twentieth, as in
        # Nesterov's momentum, bandnet learned less from small batches.
        direction = gradient + self.MOMENTUM * average
        scale = 0.2 * math.sqrt(max(variable.shape[-2:])) * ops.cast(learning_rate, variable.dtype)
        self.assign_sub(variable, scale * ops.cast(self._orthogonal(direction), variable.dtype))

    def _orthogonal(self, x: Any) -> Any:
        """Returns matrices [..., row, column] with the singular vectors of `x` and singular values of 0.7 to 1.2."""
        x = ops.cast(x / (ops.sqrt(ops.sum(ops.square(x), axis=(-2, -1), keepdims=True)) + 1e-7), self._products_in)
        is_tall = x.shape[-2] > x.shape[-1]
        x = ops.swapaxes(x, -2, -1) if is_tall else x
        a, b, c = self.COEFFICIENTS
        # For x / scale, with s = x^2, the polynomial is a + b / sqrt(c) s + s^2. So each step of Newton and Schulz has
        # two sums beside its three products: of small matrices in bfloat16, a sum takes as long as a product.
        scale, b = c**-0.25, b / math.sqrt(c)
        identity = ops.eye(x.shape[-2], dtype=x.dtype)
        a, b, x = a * identity, b * identity, x / scale
        for _ in range(self.ITERATIONS):
            square = ops.matmul(x, ops.swapaxes(x, -2, -1))
            x = ops.matmul(ops.matmul(square, square + b) + a, x)
        x = x * scale
        return ops.swapaxes(x, -2, -1) if is_tall else x


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
        optimizer = Muon(learning_rate, products_in, **kept)
    else:
        optimizer = keras.optimizers.Adam(learning_rate, **kept)
    if config.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer
