"""train.py: trains a model."""

from __future__ import annotations

import os
import sys

from absl import flags, logging

from sourcesep import config
from sourcesep.cli.common import no_arguments, run

FLAGS = flags.FLAGS


def train() -> None:
    """Entry point of train.py and sourcesep_train."""
    config.define_flags()
    flags.DEFINE_string("run_dir", "runs/wavenet", "Folder of the run; a run that is there is continued.")
    run(_train, "Trains a model.")


def _train(arguments: list[str]) -> int:
    no_arguments(arguments)
    run_config = config.Config.from_flags()
    from sourcesep import sources

    with sources.start_workers(run_config) as workers:  # they get ready while TensorFlow is imported
        from sourcesep.train import training

        if not run_config.steps:
            print(_expected(training.dry_run(run_config, workers), run_config.batch_size))
            return 0
        try:
            trained = training.train(run_config, FLAGS.run_dir, workers)
        except training.MachineLostError as error:
            logging.warning("another machine of the cluster is gone (%s): beginning again from the checkpoint", error)
            workers.close()
            os.execv(sys.executable, [sys.executable, *sys.argv])  # TensorFlow joins a cluster once in a process
    if trained.interrupted:
        print(
            f"stopped after step {trained.step} of {run_config.steps}; saved in {FLAGS.run_dir}. "
            "The same command goes on from there."
        )
        return 130
    if trained.loss is None:
        print(f"{FLAGS.run_dir} is at step {trained.step}: nothing to do up to --steps={run_config.steps}.")
    else:
        print(_summary(trained, run_config))
    print(f"next: python separate.py --run_dir={FLAGS.run_dir} SONG.wav")
    return 0


def _expected(tried, batch_size: int) -> str:
    """What a dry run found out."""
    per_thousand_min = 1_000 * tried.step_s / 60
    return (
        f"{tried.parameters:,} parameters ({4 * tried.parameters / 2**20:.1f} MB), receptive field "
        f"{tried.receptive_field_ms:.1f} ms, {tried.policy}, {tried.devices} device(s).\n"
        f"A step of {batch_size} chunks takes {tried.step_s:.2f} s, the first one {tried.first_step_s:.1f} s: "
        f"{per_thousand_min:.0f} min per 1,000 steps. Peak memory {tried.memory_mb:,.0f} MB.\n"
        "A dry run (--steps=0): nothing was written."
    )


def _summary(trained, run_config: config.Config) -> str:
    """How training ended, as a table."""
    minutes, seconds = divmod(round(trained.seconds), 60)
    lines = [
        f"step {trained.step}{', the validation being no better any more' if trained.stopped_early else ''}: "
        f"loss {trained.loss:.5f}; {minutes} min {seconds} s, {trained.steps_per_s:.2f} steps per second, "
        f"peak memory {trained.memory_mb:,.0f} MB."
    ]
    if trained.scores:
        width = max(map(len, run_config.stem_names))
        lines.append(f"held-out loss {trained.scores.loss:.5f}")
        lines.append(f"{'':{width}}  SDR, dB  level when silent, dBFS")
        for name in run_config.stem_names:
            sdr = _figure(trained.scores.sdr_db.get(name), 7)
            residual = _figure(trained.scores.residual_dbfs.get(name), 23)
            lines.append(f"{name:{width}}  {sdr}  {residual}")
    return "\n".join(lines)


def _figure(value: float | None, width: int) -> str:
    return f"{'-' if value is None else format(value, '.1f'):>{width}}"
