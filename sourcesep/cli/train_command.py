"""train.py: trains a model."""

from __future__ import annotations

import math
import os
import sys
from typing import TYPE_CHECKING

from absl import flags, logging

from sourcesep import config
from sourcesep.cli.common import no_arguments, run

if TYPE_CHECKING:
    from sourcesep.train import on_jax
    from sourcesep.train.dry_run import DryRun
    from sourcesep.train.training import Trained

FLAGS = flags.FLAGS


def train() -> None:
    """Entry point of train.py and sourcesep_train."""
    config.define_flags()
    flags.DEFINE_string("run_dir", "runs/wavenet", "Folder of the run; if it holds a run, that is resumed.")
    run(_train, "Trains a model.")


def _train(arguments: list[str]) -> int:
    no_arguments(arguments)
    run_config = config.Config.from_flags()
    if os.environ.get("KERAS_BACKEND") == "jax":
        from sourcesep.train import on_jax

        return _report_on_jax(on_jax.train(run_config, FLAGS.run_dir))
    from sourcesep import sources

    with sources.start_workers(run_config) as workers:  # they load SoundFonts while TensorFlow is imported
        from sourcesep.train import training

        if run_config.steps == 0:
            from sourcesep.train.dry_run import dry_run

            print(_describe_dry_run(dry_run(run_config, workers), run_config.batch_size))
            return 0
        try:
            trained = training.train(run_config, FLAGS.run_dir, workers)
        except training.MachineLostError as error:
            logging.warning("another machine of the cluster is gone (%s): restarting from the checkpoint", error)
            workers.close()
            os.execv(sys.executable, [sys.executable, *sys.argv])  # TensorFlow joins a cluster once per process
    if trained.interrupted:
        print(f"stopped after step {trained.step}; saved in {FLAGS.run_dir}. Repeat the command to resume.")
        return 130
    if trained.loss is None:
        print(f"{FLAGS.run_dir} is at step {trained.step}: nothing to do within {_bounds(run_config)}; raise that.")
    else:
        print(_summarize(trained, run_config))
    print(f"next: python separate.py --run_dir={FLAGS.run_dir} SONG.wav")
    return 0


def _report_on_jax(trained: on_jax.Trained) -> int:
    """Prints how training on JAX ended, and returns the exit status."""
    if trained.loss is None:
        print(f"{FLAGS.run_dir} is at step {trained.step}: no step was made.")
    else:
        print(
            f"step {trained.step}: loss {trained.loss:.5f}; {trained.step_s:.4f} s per step, {trained.wait_share:.0%} "
            f"of it waiting for chunks; {trained.rendered_s:,.0f} s of audio rendered, each used {trained.n_uses:.1f} "
            "times on average."
        )
    if trained.interrupted:
        print(f"stopped; saved in {FLAGS.run_dir}. Repeat the command to resume.")
        return 130
    return 0


def _bounds(run_config: config.Config) -> str:
    """Returns the flags that bound the run."""
    steps = [f"--steps={run_config.max_steps}"] if math.isfinite(run_config.max_steps) else []
    return " and ".join(steps + ([f"--minutes={run_config.minutes:g}"] if run_config.minutes else []))


def _describe_dry_run(tried: DryRun, batch_size: int) -> str:
    minutes_per_thousand = 1_000 * tried.step_s / 60
    return (
        f"{tried.parameters:,} parameters ({4 * tried.parameters / 2**20:.1f} MB), receptive field "
        f"{tried.receptive_field_ms:.1f} ms, {tried.policy}, {tried.devices} device(s).\n"
        f"A step of {batch_size} chunks takes {tried.step_s:.2f} s, the first one {tried.first_step_s:.1f} s: "
        f"{minutes_per_thousand:.0f} min per 1,000 steps. Peak memory {tried.memory_mb:,.0f} MB.\n"
        "A dry run (--steps=0): nothing was written."
    )


def _summarize(trained: Trained, run_config: config.Config) -> str:
    """Returns how training ended, with the scores of the last validation as a table."""
    minutes, seconds = divmod(round(trained.seconds), 60)
    lines = [
        f"step {trained.step}{', stopped since validation got no better' if trained.stopped_early else ''}: "
        f"loss {trained.loss:.5f}; {minutes} min {seconds} s, {trained.steps_per_s:.2f} steps per second, "
        f"peak memory {trained.memory_mb:,.0f} MB."
    ]
    if trained.scores:
        width = max(map(len, run_config.stem_names))
        lines.append(f"held-out loss {trained.scores.loss:.5f}")
        lines.append(f"{'':{width}}  SDR, dB     10 to 90 %  over constant gain, dB  level when silent, dBFS")
        for name in run_config.stem_names:
            sdr = _figure(trained.scores.sdr_db.get(name), 7)
            spread = " to ".join(f"{bound:.1f}" for bound in trained.scores.spread_db.get(name, ()))
            gain = _figure(trained.scores.gain_db.get(name), 22)
            residual = _figure(trained.scores.residual_dbfs.get(name), 23)
            lines.append(f"{name:{width}}  {sdr}  {spread or '-':>13}  {gain}  {residual}")
    return "\n".join(lines)


def _figure(value: float | None, width: int) -> str:
    return f"{'-' if value is None else format(value, '.1f'):>{width}}"
