"""Everything that a resumed run needs, saved and restored together.

A checkpoint is a folder checkpoints/step-N, which gets this name when it is complete. tf.train.CheckpointManager keeps
a list of the checkpoints in a file; if that file is damaged, the run would start again from step 0.
"""

from __future__ import annotations

import math
import os
import pathlib
import shutil

import keras
import tensorflow as tf
from absl import logging

from data_gen import InputError

MAX_TO_KEEP = 2  # checkpoints kept: the newest, and the one before in case the newest is damaged


class State:
    """What changes while a run trains; restored from the newest checkpoint that can be read.

    Args:
        folder: where the checkpoints are.
        model, optimizer: saved with the rest; their variables must exist.

    Attributes:
        reuse: int64 variable, see `dataset.ReuseController`.
    """

    def __init__(self, folder: pathlib.Path, model: keras.Model, optimizer: keras.optimizers.Optimizer):
        self.reuse = tf.Variable(1, dtype=tf.int64)
        self._step = tf.Variable(0, dtype=tf.int64)
        self._trained_s = tf.Variable(0.0, dtype=tf.float64)
        self._next_visit = tf.Variable(0, dtype=tf.int64)
        self._best_loss = tf.Variable(math.inf, dtype=tf.float64)
        self._n_worse = tf.Variable(0, dtype=tf.int64)
        self._folder = folder
        self._saved = {
            "model": model,
            "optimizer": optimizer,
            "step": self._step,
            "trained_s": self._trained_s,
            "next_visit": self._next_visit,
            "reuse": self.reuse,
            "best_loss": self._best_loss,
            "n_worse": self._n_worse,
        }

    @property
    def step(self) -> int:
        """Training steps made."""
        return int(self._step.numpy())

    @property
    def trained_s(self) -> float:
        """Seconds spent in training so far, including those before a resume."""
        return float(self._trained_s.numpy())

    @property
    def next_visit(self) -> int:
        """Number of the first visit whose chunks were not yet requested."""
        return int(self._next_visit.numpy())

    @property
    def n_worse(self) -> int:
        """Validations in a row that were not better than the best one."""
        return int(self._n_worse.numpy())

    @property
    def newest(self) -> pathlib.Path | None:
        """The newest checkpoint; None if there is none."""
        return next(iter(self._folders()), None)

    def record_step(self, next_visit: int, trained_s: float) -> None:
        """Records that a step was made."""
        self._step.assign_add(1)
        self._next_visit.assign(next_visit)
        self._trained_s.assign(trained_s)

    def record_validation(self, loss: float) -> bool:
        """Records a validation and returns whether its loss is the lowest so far."""
        if not loss < float(self._best_loss.numpy()):
            self._n_worse.assign_add(1)
            return False
        self._best_loss.assign(loss)
        self._n_worse.assign(0)
        return True

    def restore(self) -> bool:
        """Restores the newest checkpoint that can be read and returns True; returns False if there is none.

        Raises InputError if there are checkpoints and none can be read.
        """
        folders = self._folders()
        for folder in folders:
            try:
                self._read(folder / "state")
            except (tf.errors.OpError, IndexError, ValueError, AssertionError) as error:  # what TensorFlow raises
                logging.warning("%s: damaged, trying the checkpoint before it (%s)", folder, _first_line(error))
                continue
            return True
        if folders:
            raise InputError(f"{self._folder}: no checkpoint can be read; start again with another --run_dir")
        return False

    def save(self) -> None:
        """Writes a checkpoint. Raises InputError if it cannot be written; existing checkpoints stay as they are."""
        folder, partial = self._folder / f"step-{self.step}", self._folder / "partial"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            tf.train.Checkpoint(**self._saved).write(str(partial / "state"))
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(partial, folder)
        except (tf.errors.OpError, OSError) as error:
            raise InputError(f"{self._folder}: cannot write a checkpoint ({_first_line(error)})") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        for old in self._folders()[MAX_TO_KEEP:]:
            shutil.rmtree(old, ignore_errors=True)

    def _read(self, path: pathlib.Path) -> None:
        """Restores one checkpoint; those of version 0.1.0 have no training time."""
        names = {name.partition("/")[0] for name, _ in tf.train.list_variables(str(path))}
        saved = {name: value for name, value in self._saved.items() if name != "trained_s" or name in names}
        tf.train.Checkpoint(**saved).read(str(path)).assert_existing_objects_matched()

    def _folders(self) -> list[pathlib.Path]:
        """Returns the checkpoints, the newest first."""
        found = [path for path in self._folder.glob("step-*") if path.name[5:].isdigit()]
        return sorted(found, key=lambda path: int(path.name[5:]), reverse=True)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else repr(error)
