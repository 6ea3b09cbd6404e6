"""The one training loop: the same on one processor, several GPUs and several machines."""

from __future__ import annotations

import collections
import pathlib
import resource
import sys
import time
from typing import NamedTuple

import keras
import tensorflow as tf
from absl import logging
from tqdm import tqdm

from data_gen import InputError
from sourcesep import sources
from sourcesep.cluster import is_cluster, machine_number
from sourcesep.config import Config
from sourcesep.interruption import Interruption
from sourcesep.models import build, copy_weights, unconditioned
from sourcesep.models.receptive_field import receptive_field
from sourcesep.run_dir import PRETRAINED, RunDir
from sourcesep.train.checkpoints import State
from sourcesep.train.conditioning import add_conditions
from sourcesep.train.dataset import ReuseController, make_dataset
from sourcesep.train.losses import make_loss
from sourcesep.train.optimization import MAX_SKIPPED, Stepper
from sourcesep.train.validation import Excerpts, Scores

SCALARS_EVERY_STEPS = 10
REMEMBERED_VISITS = 10_000  # whose pieces can be named when a batch is bad
TRIED_STEPS = 3  # of a dry run; the first of them also compiles


# What a collective operation raises when a machine of the cluster is gone.
_LOST = (
    *(tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError),
    *(tf.errors.DeadlineExceededError, tf.errors.InternalError, tf.errors.UnknownError),
)


class MachineLostError(RuntimeError):
    """Another machine of the cluster is gone; all have to begin again, from the last checkpoint."""


class Trained(NamedTuple):
    """How a call of `train` ended.

    Attributes:
        step: the last step made.
        loss: its loss, smoothed; None if no step was made.
        scores: of the last validation; None if there was none.
        seconds: that this call took.
        steps_per_s: over this call.
        memory_mb: peak memory of this process.
        interrupted: whether Ctrl-C ended it.
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


class DryRun(NamedTuple):
    """What training will take.

    Attributes:
        parameters: of the model.
        receptive_field_ms: of the model.
        first_step_s, step_s: seconds for the first step, and for each after it.
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


def train(config: Config, run_dir: str, workers=None) -> Trained:
    """Trains a model, or goes on where the run stands, up to `config.steps`.

    Ctrl-C (SIGINT) and SIGTERM end it after the step being made; everything is saved.

    Args:
        config: of the run.
        run_dir: its folder.
        workers: from `sources.start_workers(config)`, which this calls where they are not given.

    Raises:
        InputError: for input that cannot be trained on, before anything is written where possible; for training that
            diverges; for a folder that cannot be written.
        MachineLostError: another machine of the cluster is gone.
    """
    with workers or sources.start_workers(config) as workers:
        try:
            return _train(config, run_dir, workers)
        except _LOST as error:
            if not is_cluster(config):
                raise
            raise MachineLostError(type(error).__name__) from error


def _train(config: Config, run_dir: str, workers) -> Trained:
    began_s = time.monotonic()
    loss_function = make_loss(config.loss)
    is_chief = machine_number(config) == 0
    run = RunDir(run_dir)
    strategy = make_strategy(config)
    with strategy.scope():
        stepper = _make_stepper(config, loss_function)
    state = State(run.checkpoints, stepper.model, stepper.optimizer)  # its own variables belong to this machine
    if config.start_from and state.newest is None:
        _start_from(config, stepper.model)
    if is_chief:
        run.create(config)
    if state.restore():
        logging.info("%s: going on after step %d", run.path, state.step)
    if config.schedule == "constant":
        stepper.optimizer.learning_rate = config.learning_rate  # the flag counts, not what the checkpoint holds
    workers.next_visit = state.next_visit

    writer = tf.summary.create_file_writer(str(run.path)) if is_chief else tf.summary.create_noop_writer()
    excerpts: Excerpts | None = None
    scores: Scores | None = None
    scored_at, n_before, saved_s = state.step, state.step, time.monotonic()
    source = _Source(workers)

    plain_model = unconditioned(stepper.model, config)

    def validate() -> None:
        nonlocal excerpts, scores, scored_at
        excerpts = excerpts or Excerpts(workers.chunker.source, config.other, config.stem_names)
        with stepper.averaged():
            scores, estimates = excerpts.score(plain_model, loss_function)
            excerpts.show(scores, estimates, state.step)
            if state.is_best(scores.loss):
                run.save_weights(stepper.model)
        scored_at = state.step

    def save() -> None:
        state.save()
        if not config.validate_every or not run.weights.exists():
            with stepper.averaged():
                run.save_weights(stepper.model)

    with Interruption() as interruption, writer.as_default():
        reuse = ReuseController(state.reuse, config.reuse)
        batches = iter(())
        if state.step < config.steps:
            batches = _batches(strategy, source, state.reuse, config, seed=config.seed + state.step)
        is_asked = is_tired = False
        bar = tqdm(total=config.steps, initial=state.step, unit="step", dynamic_ncols=True, disable=not is_chief)
        with bar:
            while state.step < config.steps and not is_asked:
                step_began_s = time.monotonic()
                batch = next(batches, None)
                if batch is None:  # the generator ended: nothing can be rendered any more
                    break
                waited_s = time.monotonic() - step_began_s
                inputs, stems, visits = batch
                outcome = stepper.step(inputs, stems, interruption.stop_requested or is_tired)
                is_asked = outcome.asked
                if not outcome.taken:
                    _complain(outcome, stepper.guard, state, source.pieces(strategy, visits))
                state.advance(workers.next_visit)
                reuse.update(waited_s, time.monotonic() - step_began_s, workers.ready_share)
                if stepper.guard.smoothed is not None:
                    bar.set_postfix_str(
                        f"loss {stepper.guard.smoothed:.5f}, waits {reuse.wait_share:.0%}", refresh=False
                    )
                bar.update()
                if state.step % SCALARS_EVERY_STEPS == 0:
                    _write_scalars(outcome, stepper.optimizer, reuse, state)
                if is_chief and config.validate_every and state.step % config.validate_every == 0:
                    validate()
                    is_tired = 0 < config.patience <= state.n_worse
                if is_chief and time.monotonic() - saved_s > 60 * config.checkpoint_minutes:
                    try:
                        save()
                    except InputError as error:  # the disk may have room again at the next one, or at the end
                        logging.error("%s; training goes on", error)
                    saved_s = time.monotonic()
        made = state.step > n_before
        if is_chief and (made or (not run.weights.exists() and not source.failures)):
            if made and config.validate_every and scored_at < state.step and not is_asked:
                validate()
            save()
    if source.failures:
        raise source.failures[0]
    source.report()
    seconds = time.monotonic() - began_s
    rate = (state.step - n_before) / max(seconds, 1e-9)
    is_interrupted = is_asked and not is_tired
    return Trained(
        state.step, stepper.guard.smoothed, scores, seconds, rate, peak_memory_mb(), is_interrupted, is_tired
    )


def dry_run(config: Config, workers=None) -> DryRun:
    """Builds everything, makes a few steps on real chunks, and throws the model away; nothing is written.

    Arguments and errors are those of `train`.
    """
    loss_function = make_loss(config.loss)
    strategy = make_strategy(config)
    reuse = tf.Variable(1, dtype=tf.int64)
    with strategy.scope():
        stepper = _make_stepper(config, loss_function)
    if config.start_from:
        _start_from(config, stepper.model)
    with workers or sources.start_workers(config) as workers:
        source = _Source(workers)
        batches = _batches(strategy, source, reuse, config, seed=0, pool_chunks=1)
        batch = next(batches, None)
        if batch is None:
            raise source.failures[0]
        durations_s = []
        for _ in range(TRIED_STEPS):
            began_s = time.monotonic()
            stepper.step(*batch[:2])
            durations_s.append(time.monotonic() - began_s)
    return DryRun(
        stepper.model.count_params(),
        1_000 * receptive_field(unconditioned(stepper.model, config)).samples / config.sample_rate,
        durations_s[0],
        min(durations_s[1:]),
        peak_memory_mb(),
        dtype_policy(config.mixed_precision),
        strategy.num_replicas_in_sync,
    )


def _start_from(config: Config, model: keras.Model) -> None:
    """Gives a model the weights of the run that `--start_from` names. Raises InputError if it has none that fit."""
    run = RunDir(PRETRAINED if config.start_from == "pretrained" else config.start_from)
    n_copied = copy_weights(run.trained_model(), model)
    if not n_copied:
        raise InputError(
            f"--start_from={config.start_from}: a {run.config().model} without a layer that is also in this model; "
            "take over its --model and its --filters"
        )
    logging.info("%d of them are taken from %s", n_copied, run.path)


def make_strategy(config: Config) -> tf.distribute.Strategy:
    """The tf.distribute strategy that `--strategy` names. To be called before anything else of TensorFlow."""
    if is_cluster(config):
        machine_number(config)  # complains where TF_CONFIG is missing or wrong
        return tf.distribute.MultiWorkerMirroredStrategy()
    n_gpus = len(tf.config.list_logical_devices("GPU"))
    if config.strategy == "mirrored" or (config.strategy == "auto" and n_gpus > 1):
        devices = None if n_gpus else [device.name for device in tf.config.list_logical_devices("CPU")]
        return tf.distribute.MirroredStrategy(devices)
    return tf.distribute.get_strategy()


def dtype_policy(mixed_precision: str) -> str:
    """The Keras dtype policy for `--mixed_precision`; "auto" asks the GPU, or else the processor, for bfloat16."""
    if mixed_precision == "auto":
        gpus = tf.config.list_physical_devices("GPU")
        if gpus:
            capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
            has_bfloat16 = capability >= (8, 0)
        else:
            cpu_info = pathlib.Path("/proc/cpuinfo")
            has_bfloat16 = cpu_info.exists() and "avx512_bf16" in cpu_info.read_text()
        return "mixed_bfloat16" if has_bfloat16 else "float32"
    return "mixed_bfloat16" if mixed_precision == "bfloat16" else "float32"


def peak_memory_mb() -> float:
    """The most memory that this process has had so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _make_stepper(config: Config, loss_function) -> Stepper:
    keras.utils.set_random_seed(config.seed)
    policy = dtype_policy(config.mixed_precision)
    model = build(config, policy)
    logging.info("%s: %d parameters, %s", config.model, model.count_params(), policy)
    return Stepper(model, loss_function, config)


def _batches(strategy, source: _Source, reuse, config: Config, seed: int, pool_chunks: int | None = None):
    """Iterator of batches, one for each device of this machine at a time."""

    def dataset(_):
        time_samples, pool = source.workers.chunker.time_samples, pool_chunks or config.pool_chunks
        chunks = make_dataset(
            source,
            time_samples,
            len(config.stem_names),
            reuse,
            pool,
            config.batch_size,
            seed,
            config.remix,
            config.drop,
        )
        return add_conditions(chunks, config)

    return iter(strategy.distribute_datasets_from_function(dataset))


class _Source:
    """Iterates over the visits of `workers`, counting their chunks and remembering their pieces.

    An error ends them and is kept in `failures`: tf.data would wrap it beyond recognition.
    """

    def __init__(self, workers):
        self.workers = workers
        self.failures: list[InputError] = []
        self._counts = collections.Counter()
        self._pieces: collections.OrderedDict[int, str] = collections.OrderedDict()

    def __iter__(self):
        try:
            for visit in self.workers:
                self._counts.update(kept=len(visit.starts_s), silent=visit.n_silent, solo=visit.n_solo)
                self._pieces[visit.index] = visit.song
                if len(self._pieces) > REMEMBERED_VISITS:
                    self._pieces.popitem(last=False)
                yield visit
        except InputError as error:
            self.failures.append(error)

    def pieces(self, strategy, visits) -> list[str]:
        """Names of the pieces that chunks [batch] with these numbers of visits came from."""
        numbers = [n for local in strategy.experimental_local_results(visits) for n in local.numpy().tolist()]
        return sorted({f"{self._pieces.get(number, '?')} (visit {number})" for number in numbers})

    def report(self) -> None:
        """Logs what was rendered and left out."""
        if self._counts:
            logging.info(
                "%d chunks rendered; left out: %d silent, %d with one instrument alone",
                sum(self._counts.values()),
                self._counts["silent"],
                self._counts["solo"],
            )


def _complain(outcome, guard, state: State, pieces: list[str]) -> None:
    """Logs an update that was left out; raises InputError after many in a row."""
    logging.warning(
        "step %d: loss %.4g, gradient norm %.4g: the update is left out; the batch held %s",
        state.step + 1,
        outcome.loss,
        outcome.gradient_norm,
        ", ".join(pieces),
    )
    if guard.skipped == MAX_SKIPPED:
        newest = state.newest or "none yet"
        raise InputError(
            f"training diverged: {MAX_SKIPPED} updates in a row were left out, the last at step {state.step + 1}. Last "
            f"good checkpoint: {newest}. Lower --learning_rate or set --clip_norm=1, and give the same command again"
        )


def _write_scalars(outcome, optimizer, reuse: ReuseController, state: State) -> None:
    tf.summary.scalar("loss", outcome.loss, state.step)
    tf.summary.scalar("gradient_norm", outcome.gradient_norm, state.step)
    tf.summary.scalar("learning_rate", keras.ops.convert_to_numpy(optimizer.learning_rate), state.step)
    tf.summary.scalar("reuse", state.reuse, state.step)
    tf.summary.scalar("wait_share", reuse.wait_share, state.step)
    tf.summary.scalar("memory_mb", peak_memory_mb(), state.step)
