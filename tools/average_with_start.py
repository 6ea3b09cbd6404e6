"""Makes a run whose weights lie between those of a run and those that it began with.

    python tools/average_with_start.py --run_dir=runs/pretrained --share=0.3 --output_dir=runs/mean

Training on other sounds changes what a model knew of the old ones; a part of the way keeps some of both, and often
carries over better than either (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models").
"""

from __future__ import annotations

import json
import pathlib
import shutil
import sys

from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from data_gen import InputError  # noqa: E402
from data_gen.command import exit_status  # noqa: E402
from data_gen.files import write_atomically  # noqa: E402
from sourcesep.run_dir import PRETRAINED, RunDir  # noqa: E402

SHARE_FILE = "share_of_start.json"  # in the new run


def average_with_start(run: RunDir, share: float, target: RunDir) -> None:
    """Writes a run with the config and the losses of `run`, and with weights between its own and those it began with.

    Args:
        run: a run with --start_from, whose model has the same weights to train as the one that it began with.
        share: of the weights that it began with, 0 to 1.
        target: the run to write.

    Raises InputError if the run began with random weights, or with those of another model, or is the run to write.
    """
    if target.path.resolve() == run.path.resolve():
        raise InputError(f"--output_dir={target.path}: is the run itself, which would be lost; choose another folder")
    config = run.config()
    if not config.start_from:
        raise InputError(f"{run.path}: began with random weights; average_with_start needs a run with --start_from")
    start = RunDir(PRETRAINED if config.start_from == "pretrained" else config.start_from)
    model, before = run.trained_model(), start.trained_model()
    if [weight.shape for weight in model.weights] != [weight.shape for weight in before.weights]:
        raise InputError(f"{run.path}: its model is another than that of {start.path}, with which it began")
    for weight, old in zip(model.weights, before.weights):
        weight.assign((1 - share) * weight.numpy() + share * old.numpy())
    target.create_or_resume(config)
    for events in run.path.glob("events.out.tfevents*"):
        shutil.copy(events, target.path)
    if run.jax_training.exists():
        shutil.copy(run.jax_training, target.path)
    write_atomically(target.path / SHARE_FILE, json.dumps(share).encode())
    target.save_weights(model)


def _main(_: list[str]) -> int:
    values = flags.FLAGS
    average_with_start(RunDir(values.run_dir), values.share, RunDir(values.output_dir))
    print(f"{values.output_dir}: next: python evaluate.py --run_dir={values.output_dir}")
    return 0


if __name__ == "__main__":
    flags.DEFINE_string("run_dir", None, "Folder of the run.", required=True)
    flags.DEFINE_string("output_dir", None, "Folder of the run to write.", required=True)
    flags.DEFINE_float("share", 0.3, "Share of the weights that the run began with.", lower_bound=0.0, upper_bound=1.0)
    app.run(lambda argv: exit_status(_main, argv[1:]))
