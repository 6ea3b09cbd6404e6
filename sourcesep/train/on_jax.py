"""Training on one device by Keras' JAX backend, without TensorFlow: `KERAS_BACKEND=jax python train.py`."""

from __future__ import annotations

import collections
import concurrent.futures
import json
import time
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from absl import logging

from data_gen import InputError
from data_gen.files import replacing, write_atomically
from data_gen.workers import Visits
from sourcesep import sources
from sourcesep.cluster import is_cluster
from sourcesep.config import Config
from sourcesep.interruption import Interruption
from sourcesep.run_dir import RunDir
from sourcesep.train.augmentation import augment, n_draws
from sourcesep.train.device_pool import Pool
from sourcesep.train.losses import make_loss
from sourcesep.train.model import build_model, load_start_weights
from sourcesep.train.schedule import MAX_SKIPPED, Guard, learning_rate_at, make_optimizer

BFLOAT16_CAPABILITY = 8.0  # CUDA compute capability from which NVIDIA GPUs compute in bfloat16 (Ampere)
CHUNK_FORMAT = "float16"  # of the chunks: half the memory and the transfers, rounding errors 70 dB below them
AHEAD = 2  # steps that the device is given before the loss of the first of them is read
LOG_S = 15.0  # time between two lines of the log, in seconds

Array = Any  # of JAX
Arrays = tuple[list[Array], ...]  # values of the trainable, the other, and the optimizer's variables


class Trained(NamedTuple):
    """How a call of `train` ended.

    Attributes:
        step: the last step made.
        loss: its loss, smoothed; None if no step was made.
        step_s: mean seconds of a step of this call, without the compilation.
        wait_share: share of that time in which training waited for chunks.
        rendered_s: seconds of audio in the chunks that this call received.
        n_uses: how often each of them was used, on average.
        interrupted: whether Ctrl-C or SIGTERM ended it.
    """

    step: int
    loss: float | None
    step_s: float
    wait_share: float
    rendered_s: float
    n_uses: float
    interrupted: bool


def train(config: Config, run_dir: str) -> Trained:
    """Trains a model, or resumes its run, until the steps or the minutes of the Config are reached.

    There is no validation: the weights saved are the last ones, averaged if the Config says so. With --chunk_reuse=auto
    training does not wait: chunks are used again until others take their places. Ctrl-C (SIGINT) and SIGTERM end it
    after the current step; everything is saved.

    Args:
        config: the run's Config.
        run_dir: folder of the run.

    Raises InputError for what this backend does not train; if a checkpoint is damaged; if there are no chunks; if
    training diverges; if the folder cannot be written.
    """
    if config.conditioning != "none" or config.strategy == "mirrored" or is_cluster(config) or not config.max_steps:
        raise InputError(
            "KERAS_BACKEND=jax: trains without --conditioning, on one device, and makes no dry run (--steps=0); "
            "TensorFlow does all of this"
        )
    if config.validate_soundfonts or config.validate_stems_dir or config.patience:
        raise InputError(
            "KERAS_BACKEND=jax: training does not validate: leave out --validate_soundfonts, --validate_stems_dir and "
            "--patience; TensorFlow does this"
        )
    run = RunDir(run_dir)
    if any(run.checkpoints.glob("step-*")):
        raise InputError(f"{run_dir}: a run of TensorFlow; continue it without KERAS_BACKEND=jax")
    with sources.start_workers(config, CHUNK_FORMAT) as workers, run.locked():
        return Trainer(config, run, workers).run()


class Trainer:
    """One run: builds or restores the model, makes steps and saves; errors are those of `train`.

    Args:
        config: the run's Config.
        run_dir: its folder.
        workers: from `sources.start_workers`.
    """

    def __init__(self, config: Config, run_dir: RunDir, workers: Visits) -> None:
        self._config, self._run_dir, self._workers = config, run_dir, workers
        self._model = build_model(config, _dtype_policy(config.mixed_precision))
        self._optimizer = make_optimizer(config, config.learning_rate, self._model)
        self._optimizer.build(self._model.trainable_variables)
        self._step, self._trained_s = 0, 0.0
        self._checkpoint = run_dir.jax_checkpoint
        run_dir.create_or_resume(config)
        if self._checkpoint.exists():
            self._restore()
        elif config.start_from:
            load_start_weights(config, self._model)
        self._guard = Guard()
        self._rng = np.random.default_rng([config.seed, self._step])
        self._first_step, self._waited_s = self._step, 0.0

    @property
    def _variables(self) -> tuple[list[keras.Variable], ...]:
        return self._model.trainable_variables, self._model.non_trainable_variables, self._optimizer.variables

    def run(self) -> Trained:
        """Trains to the end, or until it is interrupted."""
        import jax

        # Copies, since a step takes over the memory of what it is given.
        state = jax.tree.map(lambda variable: jax.numpy.array(variable.value), self._variables)
        pool = Pool(self._workers, self._config)
        with pool, Interruption() as interruption:
            step = self._compile(state, pool, interruption)
            began_s = time.monotonic()
            if step:
                self._make_steps(step, state, pool, interruption)
            seconds = time.monotonic() - began_s
        if pool.failure:
            raise pool.failure
        n_steps = self._step - self._first_step
        return Trained(
            step=self._step,
            loss=self._guard.smoothed,
            step_s=seconds / max(1, n_steps),
            wait_share=self._waited_s / max(1e-9, seconds),
            rendered_s=pool.rendered_s,
            n_uses=n_steps / max(1, pool.n_received),
            interrupted=interruption.stop_requested,
        )

    def _compile(self, state: Arrays, pool: Pool, interruption: Interruption) -> Callable | None:
        """Returns the step, compiled while the pool fills; None if there is nothing to do."""
        import jax

        if self._progress() >= 1.0:
            return None
        step = jax.jit(make_step(self._model, self._optimizer, self._config), donate_argnums=0)
        shapes = jax.eval_shape(lambda *arguments: arguments, state, *self._draw(pool))
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            compiling = executor.submit(lambda: step.lower(*shapes).compile())
            while not compiling.done() or not pool.n_received:
                if pool.is_full:
                    concurrent.futures.wait([compiling], 0.1)
                else:
                    pool.receive(wait_s=0.1)
                if interruption.stop_requested or pool.has_ended:
                    return None
            return compiling.result()

    def _make_steps(self, step: Callable, state: Arrays, pool: Pool, interruption: Interruption) -> None:
        config = self._config
        max_uses = np.inf if config.reuse == "auto" else int(config.reuse)
        in_flight: collections.deque[Array] = collections.deque()
        trained_before_s, began_s = self._trained_s, time.monotonic()
        logged_s = saved_s = began_s
        while self._progress() < 1.0 and not interruption.stop_requested and not pool.has_ended:
            step_began_s = time.monotonic()
            pool.receive(wait_s=0.0)
            while self._step - self._first_step >= max_uses * pool.n_received and not interruption.stop_requested:
                if not pool.receive(wait_s=0.1) and pool.has_ended:
                    break
            self._waited_s += time.monotonic() - step_began_s

            state, outcome = step(state, *self._draw(pool))
            self._step += 1
            in_flight.append(outcome)
            if len(in_flight) > AHEAD:
                self._record(in_flight.popleft())
            now_s = time.monotonic()
            self._trained_s = trained_before_s + now_s - began_s
            if now_s - logged_s > LOG_S:
                logged_s = now_s
                self._log(pool, now_s - began_s)
            if now_s - saved_s > 60 * config.checkpoint_minutes:
                self._save(state)
                saved_s = time.monotonic()
        for outcome in in_flight:
            self._record(outcome)
        if self._step > self._first_step:
            self._save(state)

    def _draw(self, pool: Pool) -> tuple[Any, ...]:
        """Returns what the next step is given beside the state and the pool; see `make_step`."""
        part, chunks = pool.draw(self._rng)
        draws = self._rng.random((len(chunks), n_draws(len(self._config.stem_names))), np.float32)
        rate = np.float32(learning_rate_at(self._config, self._progress()))
        return part, chunks, draws, rate, np.float32(self._guard.limit)

    def _progress(self) -> float:
        """Returns the share of the training that is done, by steps or by time, whichever is greater."""
        by_time = self._trained_s / (60 * self._config.minutes) if self._config.minutes else 0.0
        return max(by_time, self._step / self._config.max_steps)

    def _record(self, outcome: Array) -> None:
        """Waits for a step and records it. Raises InputError after many steps in a row without an update."""
        loss, norm, taken = np.asarray(outcome).tolist()
        self._guard.record(loss, bool(taken))
        if not taken:
            logging.warning(
                "about step %d: loss %.4g, gradient norm %.4g: this update is skipped", self._step, loss, norm
            )
        if self._guard.skipped == MAX_SKIPPED:
            raise InputError(
                f"training diverged: {MAX_SKIPPED} updates in a row were skipped, the last at step {self._step}. Lower "
                "--learning_rate or set --clip_norm=1, and repeat the command"
            )

    def _log(self, pool: Pool, seconds: float) -> None:
        n_steps = self._step - self._first_step
        logging.info(
            "step %d: loss %.5f; %.4f s per step, %.0f %% of it waiting; %.0f s of audio rendered, used %.1f times",
            self._step,
            self._guard.smoothed if self._guard.smoothed is not None else np.nan,
            seconds / n_steps,
            100 * self._waited_s / seconds,
            pool.rendered_s,
            n_steps / pool.n_received,
        )

    def _save(self, state: Arrays) -> None:
        """Writes a checkpoint, and the weights to use. Raises InputError if they cannot be written."""
        values = [np.asarray(value) for some in state for value in some]
        facts = {"step": self._step, "trained_s": self._trained_s, "next_visit": self._workers.next_visit}
        training = {"steps": self._step, "seconds": self._trained_s, "device": _device().device_kind}
        try:
            self._checkpoint.parent.mkdir(exist_ok=True)
            with replacing(self._checkpoint) as partial:
                np.savez(partial, **facts, **{f"value{i}": value for i, value in enumerate(values)})
            write_atomically(self._run_dir.jax_training, json.dumps(training).encode())
        except OSError as error:
            raise InputError(f"{self._checkpoint}: cannot write a checkpoint ({error.strerror})") from error
        self._assign(values)
        self._optimizer.finalize_variable_values(self._model.trainable_variables)  # gives the model its averages
        self._run_dir.save_weights(self._model)

    def _restore(self) -> None:
        """Restores what `_save` has saved. Raises InputError if it cannot be read."""
        try:
            with np.load(self._checkpoint) as saved:
                self._assign([saved[f"value{i}"] for i in range(len(saved.files) - 3)])
                self._step, self._trained_s = int(saved["step"]), float(saved["trained_s"])
                self._workers.next_visit = int(saved["next_visit"])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"{self._checkpoint}: damaged ({error}); start again with another --run_dir") from error
        logging.info("%s: resuming after step %d", self._run_dir.path, self._step)

    def _assign(self, values: list[np.ndarray]) -> None:
        variables = [variable for some in self._variables for variable in some]
        if len(values) != len(variables):
            raise ValueError(f"{len(values)} variables for {len(variables)}")
        for variable, value in zip(variables, values):
            variable.assign(value)


def make_step(model: keras.Model, optimizer: keras.optimizers.Optimizer, config: Config) -> Callable:
    """Returns a training step as a pure function, to be compiled.

    It takes the values of the variables; a part of a Pool; which chunks of it to use, int32 [batch]; random numbers for
    `augment`; the learning rate; the loss above which no update is made. It returns the new values of the variables,
    and [loss, gradient norm, whether the update was made] as float32.
    """
    import jax
    from jax import numpy as jnp

    loss_function = make_loss(config.loss, config.channels)
    names = [variable.path.rpartition("/")[2] for variable in optimizer.variables]

    def step(
        state: Arrays, part: tuple[Array, Array], chunks: Array, draws: Array, rate: Array, limit: Array
    ) -> tuple[Arrays, Array]:
        trainable, others, of_optimizer = state
        mixture, stems = (jnp.take(array, chunks, axis=0).astype(jnp.float32) for array in part)
        mixture, stems = augment(mixture, stems, config.remix, config.drop, draws)
        inner = slice(config.context_samples, mixture.shape[1] - config.context_samples)

        def loss_of(trainable: list[Array]) -> tuple[Array, list[Array]]:
            estimates, new_others = model.stateless_call(trainable, others, mixture, training=True)
            return loss_function(stems[:, inner], estimates[:, inner]), new_others

        (loss, new_others), gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable)
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(gradient)) for gradient in gradients))
        if config.clip_norm:
            gradients = [gradient * (config.clip_norm / jnp.maximum(norm, config.clip_norm)) for gradient in gradients]
        at_rate = [rate if name == "learning_rate" else value for name, value in zip(names, of_optimizer)]
        updated, new_of_optimizer = optimizer.stateless_apply(at_rate, gradients, trainable)
        taken = jnp.isfinite(loss) & jnp.isfinite(norm) & (loss <= limit)
        new_state = jax.tree.map(
            lambda new, old: jnp.where(taken, new, old), (updated, new_others, new_of_optimizer), state
        )
        return new_state, jnp.stack([loss, norm, taken.astype(jnp.float32)])

    return step


def _dtype_policy(mixed_precision: str) -> str:
    """Returns the Keras dtype policy for `--mixed_precision`; "auto" gives bfloat16 on GPUs that compute in it."""
    device = _device()
    computes_in_bfloat16 = (
        device.platform == "gpu" and float(getattr(device, "compute_capability", 0.0)) >= BFLOAT16_CAPABILITY
    )
    has_bfloat16 = computes_in_bfloat16 if mixed_precision == "auto" else mixed_precision == "bfloat16"
    return "mixed_bfloat16" if has_bfloat16 else "float32"


def _device() -> Any:
    """Returns the device that trains."""
    import jax

    return jax.local_devices()[0]
