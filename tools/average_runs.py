"""Makes a run whose weights are the mean of those of several runs.

    python tools/average_runs.py --runs=runs/one:0.5,runs/two:0.3,pretrained:0.2 --output_dir=runs/mean
    python tools/average_runs.py --runs=pretrained:0.65,pretrained_blind:0.35 --output_dir=runs/mean

The mean of runs that began with the same weights often scores better than each of them (Wortsman et al. 2022, "Model
soups"); with a share of the weights that they began with it keeps more of what those knew (Wortsman et al. 2022,
"Robust fine-tuning of zero-shot models"). A run with other stems, bands or channels than the first counts for the
weights that training from it (--start_from) would take over; the others are the mean without it.
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
from sourcesep.config import Config  # noqa: E402
from sourcesep.run_dir import PRETRAINED, PRETRAINED_BLIND, RunDir  # noqa: E402

MEAN_FILE = "mean_of.json"  # in the new run: folder -> share of the run in it
PACKAGED_RUNS = {"pretrained": PRETRAINED, "pretrained_blind": PRETRAINED_BLIND}


def open_run(name: str) -> RunDir:
    """Returns the run in a folder, or one of those in the package for `pretrained` and `pretrained_blind`."""
    return RunDir(PACKAGED_RUNS.get(name, name))


def average_runs(shares: Mapping[str, float], target: RunDir) -> None:
    """Writes a run with the config of the first of several runs, and with the mean of the weights of all.

    Args:
        shares: folder of each run, or a name in PACKAGED_RUNS -> its share, above 0; they are divided by their sum.
        target: the run to write.

    Raises InputError if there is no run; if one shares no weights with the first one, or is the run to write.
    """
    from sourcesep.models import build

    if not shares:
        raise InputError("--runs: names no run")
    runs = {name: open_run(name) for name in shares}
    if target.path.resolve() in {run.path.resolve() for run in runs.values()}:
        raise InputError(f"--output_dir={target.path}: is one of the runs, which would be lost; choose another folder")
    first, *_ = runs
    config = runs[first].config()
    model = build(config)
    sums = [np.zeros(weight.shape) for weight in model.weights]
    total = [np.zeros(weight.shape) for weight in model.weights]  # of the shares of those that have the weight
    for name, run in runs.items():
        for i, (weight, is_known) in enumerate(_weights_for(config, run)):
            sums[i] += np.where(is_known, shares[name] * weight, 0.0)
            total[i] += np.where(is_known, shares[name], 0.0)
    for weight, summed, share in zip(model.weights, sums, total):
        weight.assign(summed / share)
    target.create_or_resume(config)
    whole = sum(shares.values())
    write_atomically(target.path / MEAN_FILE, json.dumps({name: shares[name] / whole for name in shares}).encode())
    target.save_weights(model)


def _weights_for(config: Config, run: RunDir) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns (value, whether the run has it) for the weights of the model of a Config.

    Raises InputError if the run has none of them.
    """
    from sourcesep.models import build, copy_weights

    source, model = run.trained_model(), build(config)
    if not copy_weights(source, model):
        raise InputError(f"{run.path}: its model is another than that of the first run, and they share no weights")
    values = model.get_weights()
    source.set_weights([np.full(weight.shape, np.nan) for weight in source.weights])
    copy_weights(source, model)
    return [(value, np.isnan(weight)) for value, weight in zip(values, model.get_weights(), strict=True)]


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
