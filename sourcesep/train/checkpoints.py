"""Everything that a resumed run needs, saved and restored together.

A checkpoint is a folder checkpoints/step-N, which gets its name when all of it is written. tf.train.CheckpointManager
would keep its list of them in a file that can itself be damaged, and then begins the run anew.
"""

from __future__ import annotations

import math
import os
import pathlib
import shutil

import tensorflow as tf
from absl import logging

from data_gen import InputError

MAX_TO_KEEP = 2  # the newest, and one to fall back on


class State:
    """What changes while a run trains; restored from the newest checkpoint that is whole.

    Args:
        folder: of the checkpoints.
        model, optimizer: saved with the rest; their variables must exist.

    Attributes:
        reuse: int64 variable, see `dataset.ReuseController`.
    """

    def __init__(self, folder: pathlib.Path, model, optimizer):
        self._step = tf.Variable(0, dtype=tf.int64)
        self._next_visit = tf.Variable(0, dtype=tf.int64)
        self.reuse = tf.Variable(1, dtype=tf.int64)
        self._best_loss = tf.Variable(math.inf, dtype=tf.float64)
        self._n_worse = tf.Variable(0, dtype=tf.int64)
        self._folder = folder
        self._checkpoint = tf.train.Checkpoint(
            model=model,
            optimizer=optimizer,
            step=self._step,
            next_visit=self._next_visit,
            reuse=self.reuse,
            best_loss=self._best_loss,
            n_worse=self._n_worse,
        )

    @property
    def step(self) -> int:
        """Training steps made."""
        return int(self._step.numpy())

    @property
    def next_visit(self) -> int:
        """Number of the first visit whose chunks were not yet asked for."""
        return int(self._next_visit.numpy())

    @property
    def n_worse(self) -> int:
        """Validations in a row that were no better than the best."""
        return int(self._n_worse.numpy())

    @property
    def newest(self) -> pathlib.Path | None:
        """The newest checkpoint; None if there is none."""
        return next(iter(self._folders()), None)

    def advance(self, next_visit: int) -> None:
        """Takes note of a step."""
        self._step.assign_add(1)
        self._next_visit.assign(next_visit)

    def is_best(self, loss: float) -> bool:
        """Takes note of a validation; whether its loss is the lowest so far."""
        if not loss < float(self._best_loss.numpy()):
            self._n_worse.assign_add(1)
            return False
        self._best_loss.assign(loss)
        self._n_worse.assign(0)
        return True

    def restore(self) -> bool:
        """Restores the newest checkpoint that can be read; False if there is none at all.

        Raises InputError if there are checkpoints and none can be read.
        """
        folders = self._folders()
        for folder in folders:
            try:
                self._checkpoint.read(str(folder / "state")).assert_existing_objects_matched()
            except (tf.errors.OpError, IndexError, ValueError, AssertionError) as error:  # what TensorFlow raises
                logging.warning("%s: damaged, the one before is tried (%s)", folder, _line(error))
                continue
            return True
        if folders:
            raise InputError(f"{self._folder}: no checkpoint there can be read; name another --run_dir to begin anew")
        return False

    def save(self) -> None:
        """Writes a checkpoint. Raises InputError if it cannot be written; those that are there stay as they are."""
        folder, partial = self._folder / f"step-{self.step}", self._folder / "partial"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            self._checkpoint.write(str(partial / "state"))
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(partial, folder)
        except (tf.errors.OpError, OSError) as error:
            raise InputError(f"{self._folder}: cannot write a checkpoint ({_line(error)})") from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        for old in self._folders()[MAX_TO_KEEP:]:
            shutil.rmtree(old, ignore_errors=True)

    def _folders(self) -> list[pathlib.Path]:
        """The checkpoints, the newest first."""
        found = [path for path in self._folder.glob("step-*") if path.name[5:].isdigit()]
        return sorted(found, key=lambda path: int(path.name[5:]), reverse=True)


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else repr(error)
