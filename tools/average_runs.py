"""Makes a run whose weights are the mean of those of several runs.

    python tools/average_runs.py --runs=runs/one:0.5,runs/two:0.3,pretrained:0.2 --output_dir=runs/mean

The mean of runs that began with the same weights often scores better than each of them (Wortsman et al. 2022, "Model
soups"); with a share of the weights that they began with it keeps more of what those knew (Wortsman et al. 2022,
"Robust fine-tuning of zero-shot models").
"""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Mapping

import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from data_gen import InputError  # noqa: E402
from data_gen.command import exit_status  # noqa: E402
from data_gen.files import split_weight, write_atomically  # noqa: E402
from sourcesep.run_dir import PRETRAINED, RunDir  # noqa: E402

MEAN_FILE = "mean_of.json"  # in the new run: folder -> share of the run in it


def open_run(name: str) -> RunDir:
    """Returns the run in a folder, or that of the package for `pretrained`."""
    return RunDir(PRETRAINED if name == "pretrained" else name)


def average_runs(shares: Mapping[str, float], target: RunDir) -> None:
    """Writes a run with the config of the first of several runs, and with the mean of the weights of all.

    Args:
        shares: folder of each run, or `pretrained` -> its share, above 0; they are divided by their sum.
        target: the run to write.

    Raises InputError if there is no run; if one holds another model than the first one, or is the run to write.
    """
    if not shares:
        raise InputError("--runs: names no run")
    runs = {name: open_run(name) for name in shares}
    if target.path.resolve() in {run.path.resolve() for run in runs.values()}:
        raise InputError(f"--output_dir={target.path}: is one of the runs, which would be lost; choose another folder")
    first, *_ = runs
    model, total = runs[first].trained_model(), sum(shares.values())
    means = [np.zeros(weight.shape) for weight in model.weights]
    for name, run in runs.items():
        weights = run.trained_model().weights
        if [weight.shape for weight in weights] != [weight.shape for weight in model.weights]:
            raise InputError(f"{name}: its model is another than that of {first}")
        for mean, weight in zip(means, weights):
            mean += shares[name] / total * weight.numpy()
    for weight, mean in zip(model.weights, means):
        weight.assign(mean)
    target.create_or_resume(runs[first].config())
    write_atomically(target.path / MEAN_FILE, json.dumps({name: shares[name] / total for name in shares}).encode())
    target.save_weights(model)


def _main(_: list[str]) -> int:
    values = flags.FLAGS
    average_runs(dict(map(split_weight, values.runs)), RunDir(values.output_dir))
    print(f"{values.output_dir}: next: python evaluate.py --run_dir={values.output_dir}")
    return 0


if __name__ == "__main__":
    flags.DEFINE_list(
        "runs", None, "Folders of the runs, or `pretrained`, each with its share after a colon.", required=True
    )
    flags.DEFINE_string("output_dir", None, "Folder of the run to write.", required=True)
    app.run(lambda argv: exit_status(_main, argv[1:]))
