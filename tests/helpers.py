"""What several test modules share: noise, commands in processes of their own, runs with random weights."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
from conftest import ROOT

from sourcesep.models import build
from sourcesep.run_dir import RunDir


def noise(*shape: int, level: float = 0.1, seed: int = 1) -> np.ndarray:
    """Returns float32 white noise of a shape, with an RMS of `level`."""
    return (level * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def run(program: str, *flags: object, **environment: str) -> tuple[int, str, str]:
    """Runs one of the four commands; returns (exit status, standard output, standard error)."""
    done = subprocess.run(
        [sys.executable, str(ROOT / program), *map(str, flags)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    return done.returncode, done.stdout, done.stderr


def hide_fluidsynth(folder: pathlib.Path) -> dict[str, str]:
    """Returns the environment of a process in which pyfluidsynth finds no FluidSynth library; writes into a folder."""
    (folder / "sitecustomize.py").write_text("import ctypes.util\nctypes.util.find_library = lambda name: None\n")
    return {"PYTHONPATH": str(folder)}


def make_run(config, path: pathlib.Path) -> RunDir:
    """Makes a run directory with random weights in which every weight, biases too, changes the output."""
    keras.utils.set_random_seed(0)
    model = build(config)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(variable.numpy() + 0.1 * rng.standard_normal(variable.shape))
    run_dir = RunDir(path)
    run_dir.create_or_resume(config)
    run_dir.save_weights(model)
    return run_dir
