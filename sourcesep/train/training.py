"""The training loop: the same on one processor, several GPUs and several machines."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import tensorflow as tf
from absl import logging
from tqdm import tqdm

from data_gen import InputError
from data_gen.stems import StemSource
from data_gen.workers import Visits
from sourcesep import sources
from sourcesep.cluster import is_cluster, machine_number
from sourcesep.config import Config
from sourcesep.interruption import Interruption
from sourcesep.models import unconditioned
from sourcesep.run_dir import RunDir
from sourcesep.train.checkpoints import State
from sourcesep.train.dataset import ReuseController, VisitRecorder, make_batches
from sourcesep.train.devices import dtype_policy, make_strategy, peak_memory_mb
from sourcesep.train.losses import Loss, make_loss
from sourcesep.train.model import build_model, load_start_weights
from sourcesep.train.optimization import Outcome, Stepper
from sourcesep.train.schedule import MAX_SKIPPED, learning_rate_at
from sourcesep.train.validation import Excerpts, Scores

SCALARS_EVERY_STEPS = 10  # steps between two points of TensorBoard's curves

# What a collective operation raises when a machine of the cluster is gone.
_LOST = (
    *(tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError),
    *(tf.errors.DeadlineExceededError, tf.errors.InternalError, tf.errors.UnknownError),
)


class MachineLostError(RuntimeError):
    """Another machine of the cluster is gone; all have to start again from the last checkpoint."""


class Trained(NamedTuple):
    """How a call of `train` ended.

    Attributes:
        step: the last step made.
        loss: its loss, smoothed; None if no step was made.
        scores: from the last validation; None if there was none.
        seconds: time that this call took.
        steps_per_s: steps per second of this call.
        memory_mb: peak memory of this process.
        interrupted: whether Ctrl-C or SIGTERM ended it.
        stopped_early: whether it ended because validation got no better.
    """

    step: int
    loss: float | None
    scores: Scores | None
    seconds: float
    steps_per_s: float
    memory_mb: float
    interrupted: bool
    stopped_early: bool


def train(config: Config, run_dir: str, workers: Visits | None = None) -> Trained:
    """Trains a model, or resumes its run, until the steps or the minutes of the Config are reached.

    Ctrl-C (SIGINT) and SIGTERM end it after the current step; everything is saved.

    Args:
        config: the run's Config.
        run_dir: folder of the run.
        workers: from `sources.start_workers(config)`, which is called if they are not given.

    Raises:
        InputError: for input that cannot be trained on, before anything is written where possible; if training
            diverges; if the folder cannot be written.
        MachineLostError: another machine of the cluster is gone.
    """
    with workers or sources.start_workers(config) as workers:
        try:
            return Trainer(config, run_dir, workers).run()
        except _LOST as error:
            if not is_cluster(config):
                raise
            raise MachineLostError(type(error).__name__) from error


class Trainer:
    """One run: builds or restores the model, makes steps, validates and saves.

    Only the chief of a cluster validates and writes to the run directory.

    Args:
        config, run_dir, workers: as in `train`.
        clock: returns a time in seconds that only increases.

    Raises InputError like `train`.
    """

    def __init__(
        self, config: Config, run_dir: str, workers: Visits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config = config
        self._workers = workers
        self._clock = clock
        self._created_s = clock()
        self._is_chief = machine_number(config) == 0
        self._run_dir = RunDir(run_dir)
        if self._run_dir.jax_checkpoint.exists():
            raise InputError(
                f"{run_dir}: a run of JAX; continue it with KERAS_BACKEND=jax, or begin another by "
                f"--start_from={run_dir}"
            )

        self._validated_on: list[StemSource] = []
        if self._is_chief and config.validate_every:
            self._validated_on = sources.open_validation(config, workers.chunker.source)
        self._loss_function = make_loss(config.loss, config.channels)
        self._strategy = make_strategy(config)
        with self._strategy.scope():
            self._stepper = make_stepper(config, self._loss_function)
        self._separating_model = unconditioned(self._stepper.model, config)

        # The variables of the state belong to this machine and are not distributed.
        self._state = State(self._run_dir.checkpoints, self._stepper.model, self._stepper.optimizer)
        if config.start_from and self._state.newest is None:
            load_start_weights(config, self._stepper.model)
        self._lock = contextlib.ExitStack()
        if self._is_chief:
            self._lock.enter_context(self._run_dir.locked())
            self._run_dir.create_or_resume(config)
        if self._state.restore():
            logging.info("%s: resuming after step %d", self._run_dir.path, self._state.step)
        if config.schedule == "constant":
            self._stepper.optimizer.learning_rate = config.learning_rate  # the checkpoint may hold another one

        self._visits = VisitRecorder(workers)
        self._workers.next_visit = self._state.next_visit
        self._reuse = ReuseController(self._state.reuse, config.reuse)
        self._first_step, self._trained_before_s = self._state.step, self._state.trained_s
        self._timed_from_s: float | None = None
        self._saved_at_s = clock()
        self._excerpts: Excerpts | None = None
        self._scores: Scores | None = None
        self._scored_step = self._state.step
        self._stop_requested = self._out_of_patience = False

    def run(self) -> Trained:
        """Trains to the end, or until it is interrupted."""
        path = str(self._run_dir.path)
        writer = tf.summary.create_file_writer(path) if self._is_chief else tf.summary.create_noop_writer()
        with self._lock, Interruption() as interruption, writer.as_default():
            self._make_steps(interruption)
            if self._is_chief:
                self._finish()
        if self._visits.failure:
            raise self._visits.failure
        self._visits.log_counts()
        seconds = self._clock() - self._created_s
        return Trained(
            step=self._state.step,
            loss=self._stepper.guard.smoothed,
            scores=self._scores,
            seconds=seconds,
            steps_per_s=(self._state.step - self._first_step) / max(seconds, 1e-9),
            memory_mb=peak_memory_mb(),
            interrupted=self._stop_requested and not self._out_of_patience,
            stopped_early=self._out_of_patience,
        )

    def _make_steps(self, interruption: Interruption) -> None:
        config, state = self._config, self._state
        self._saved_at_s = self._clock()
        is_over = self._progress() >= 1.0
        batches: Iterator = iter(())
        if not is_over:
            batches = make_batches(self._strategy, self._visits, state.reuse, config, seed=config.seed + state.step)
        with self._progress_bar() as bar:
            while not is_over:
                step_began_s = self._clock()
                batch = next(batches, None)
                if batch is None:  # nothing can be rendered any more; self._visits knows the reason
                    break
                waited_s = self._clock() - step_began_s

                inputs, stems, visit_numbers = batch
                stop_requested = interruption.stop_requested or self._out_of_patience
                outcome = self._stepper.step(inputs, stems, self._progress(), stop_requested)
                if self._timed_from_s is None:
                    self._timed_from_s = self._clock()
                if not outcome.taken:
                    self._report_skipped(outcome, visit_numbers)
                state.record_step(self._workers.next_visit, self._trained_s())
                self._reuse.update(waited_s, self._clock() - step_began_s, self._workers.ready_share)

                self._show(bar)
                if state.step % SCALARS_EVERY_STEPS == 0:
                    self._write_scalars(outcome)
                if self._is_chief and config.validate_every and state.step % config.validate_every == 0:
                    self._validate()
                    self._out_of_patience = 0 < config.patience <= state.n_worse
                if self._is_chief and self._clock() - self._saved_at_s > 60 * config.checkpoint_minutes:
                    self._save_if_possible()

                # Decided by what all machines agree on, so that none of them waits for another one's next step.
                self._stop_requested = outcome.stop_requested
                is_over = outcome.stop_requested or outcome.progress >= 1.0 or state.step >= config.max_steps
        # TensorFlow waits for the thread that reads visits, which waits for the one that is being rendered.
        self._workers.close()

    def _trained_s(self) -> float:
        """Returns the seconds spent in training, including those before a resume.

        The first step is not counted: it waits for the first chunks and compiles, which may take longer than the
        warm-up of the schedule.
        """
        elapsed_s = 0.0 if self._timed_from_s is None else self._clock() - self._timed_from_s
        return self._trained_before_s + elapsed_s

    def _progress(self) -> float:
        """Returns the share of the training that is done, by steps or by time, whichever is greater."""
        by_time = self._trained_s() / (60 * self._config.minutes) if self._config.minutes else 0.0
        by_steps = self._state.step / self._config.max_steps if self._config.max_steps else 1.0
        return max(by_time, by_steps)

    def _finish(self) -> None:
        """Validates and saves after the last step; saves also if a resumed run lost its weights."""
        has_made_steps = self._state.step > self._first_step
        if not has_made_steps and (self._run_dir.weights.exists() or self._visits.failure):
            return
        is_scored = self._scored_step == self._state.step
        if has_made_steps and self._config.validate_every and not is_scored and not self._stop_requested:
            self._validate()
        self._save()

    def _validate(self) -> None:
        """Scores the model on held-out excerpts, and keeps its weights if they are the best so far."""
        if self._excerpts is None:
            self._excerpts = Excerpts(
                self._validated_on, self._config.other, self._config.stem_names, self._config.channels
            )
        with self._stepper.averaged():
            self._scores, estimates = self._excerpts.score(self._separating_model, self._loss_function)
            self._excerpts.show(self._scores, estimates, self._state.step)
            if self._state.record_validation(self._scores.loss):
                self._run_dir.save_weights(self._stepper.model)
        self._scored_step = self._state.step

    def _save(self) -> None:
        """Writes a checkpoint, and the weights where no validation chooses them."""
        self._state.save()
        if not self._config.validate_every or not self._run_dir.weights.exists():
            with self._stepper.averaged():
                self._run_dir.save_weights(self._stepper.model)

    def _save_if_possible(self) -> None:
        try:
            self._save()
        except InputError as error:  # the disk may have room again at the next checkpoint, or at the end
            logging.error("%s; training continues", error)
        self._saved_at_s = self._clock()

    def _report_skipped(self, outcome: Outcome, visit_numbers: Any) -> None:
        """Logs an update that was skipped; raises InputError after many in a row."""
        step = self._state.step + 1
        local = self._strategy.experimental_local_results(visit_numbers)
        songs = self._visits.name_songs(number for numbers in local for number in numbers.numpy().tolist())
        logging.warning(
            "step %d: loss %.4g, gradient norm %.4g: this update is skipped; the batch held %s",
            step,
            outcome.loss,
            outcome.gradient_norm,
            ", ".join(songs),
        )
        if self._stepper.guard.skipped == MAX_SKIPPED:
            raise InputError(
                f"training diverged: {MAX_SKIPPED} updates in a row were skipped, the last at step {step}. Last good "
                f"checkpoint: {self._state.newest or 'none yet'}. Lower --learning_rate or set --clip_norm=1, and "
                "repeat the command"
            )

    def _progress_bar(self) -> tqdm:
        """Returns a bar over the steps, or over the seconds where --minutes bounds the run."""
        style: dict[str, Any] = {"dynamic_ncols": True, "disable": not self._is_chief}
        if self._config.minutes:
            total_s = round(60 * self._config.minutes)  # {total} of tqdm is nothing once the time is over
            return tqdm(
                total=total_s,
                initial=round(self._state.trained_s),
                bar_format=f"{{l_bar}}{{bar}}| {{n:.0f}} of {total_s} s{{postfix}}",
                **style,
            )
        return tqdm(total=self._config.max_steps, initial=self._state.step, unit="step", **style)

    def _show(self, bar: tqdm) -> None:
        facts = [f"step {self._state.step}"] if self._config.minutes else []
        if self._stepper.guard.smoothed is not None:
            facts += [f"loss {self._stepper.guard.smoothed:.5f}", f"waits {self._reuse.wait_share:.0%}"]
        bar.set_postfix_str(", ".join(facts), refresh=False)
        bar.update(min(self._state.trained_s, 60 * self._config.minutes) - bar.n if self._config.minutes else 1)

    def _write_scalars(self, outcome: Outcome) -> None:
        """Writes a point of each of TensorBoard's curves."""
        step = self._state.step
        tf.summary.scalar("loss", outcome.loss, step)
        tf.summary.scalar("gradient_norm", outcome.gradient_norm, step)
        tf.summary.scalar("learning_rate", learning_rate_at(self._config, outcome.progress), step)
        tf.summary.scalar("reuse", self._state.reuse, step)
        tf.summary.scalar("wait_share", self._reuse.wait_share, step)
        tf.summary.scalar("memory_mb", peak_memory_mb(), step)


def make_stepper(config: Config, loss_function: Loss) -> Stepper:
    """Builds the model of a Config and what trains it, in the scope of the current tf.distribute strategy.

    Raises InputError as `build_model` does.
    """
    return Stepper(build_model(config, dtype_policy(config.mixed_precision)), loss_function, config)
